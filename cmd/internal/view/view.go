// Package view is what a tree has, kept in memory for those who only look: the pages
// of statusd, its feeds and its figures. It changes nothing, and nobody decides by it.
//
//	v := view.New(tree, settings, log)
//	go v.Run(ctx)                            keeps it up to date until ctx ends
//	<-v.Ready()                              the tree was read once
//
//	v.Now()                                  how old it is, how much there is
//	v.Counts()                               how much is in each state, suite, architecture
//	v.Items(Where{States: ..., Suite: ...})  items in the order of a package's life
//	v.Package("hello")                       all that there is of one source
//	v.Sources("hel", 20)                     names of sources
//	v.People(ctx)                            who stands behind each source
//	v.Moves(since, 100)                      what moved, the newest first
//	v.Row(found), v.Why(found...)            what survey says of an item
//	v.Builders(), v.Settings(), v.Suites()   who builds, by which settings
//	v.Builds(filter, each), v.Log(build)     what builds took, and where a log lies
//	v.Subscribe(match)                       tells of changes as they happen
//
// A suite that the settings say is Hidden is not in it: no item, move, log or setting
// of it leaves this package, so pages, feeds, figures and search cannot forget that.
// Where the suite of a thing cannot be told, the thing is left out too as long as a
// suite is hidden.
//
// An item takes some 30 bytes: what it is called and where it lies. What its files say
// is read when somebody asks. inotify and the journal say where to look; all
// directories are looked at again every minute, which costs one stat(2) each.
package view

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"packmill/cmd/internal/control"
	"packmill/spool"
)

// Intervals of Run.
const (
	rescanEvery = time.Minute            // all directories are looked at
	gatherFor   = 250 * time.Millisecond // hints that come together are followed together
)

// View is a tree as it was seen last. Its methods may be called at any time.
type View struct {
	tree     *spool.Tree
	settings *control.Store
	log      *slog.Logger
	ready    chan struct{}

	mu      sync.RWMutex
	held    holding
	dirs    map[spool.Place]stamp // of the last listing
	hidden  map[string]bool       // suites, by all of their names
	shown   *control.Settings     // in force, without what is hidden
	from    *control.Settings     // what shown was made of
	closed  []string              // directories that this account may not read
	number  uint64                // of changes
	changed time.Time
	proved  time.Time // when all directories were looked at last
	journal journal

	subs   sync.Mutex
	listen map[*Subscription]bool

	times  estimates
	people peopleOf
}

// New makes a view that has nothing yet: Run fills it.
func New(t *spool.Tree, set *control.Store, log *slog.Logger) *View {
	v := &View{tree: t, settings: set, log: log, ready: make(chan struct{}), listen: map[*Subscription]bool{}}
	v.held.reset()
	v.dirs = map[spool.Place]stamp{}
	v.adopt(set.Get())
	return v
}

// Ready is closed when the whole tree was read for the first time.
func (v *View) Ready() <-chan struct{} { return v.ready }

// Tree is the tree that is looked at. What is read there by a name that did not come
// from the view may be hidden.
func (v *View) Tree() *spool.Tree { return v.tree }

// Now says how much there is and how old it is.
type Now struct {
	Number  uint64    `json:"number"`  // grows with each change
	Changed time.Time `json:"changed"` // when something changed last
	Proved  time.Time `json:"proved"`  // when all directories were looked at last
	Items   int       `json:"items"`
	Sources int       `json:"sources"`
	Closed  []string  `json:"closed,omitempty"` // directories that this account may not read
}

// Now says how much there is and how old it is.
func (v *View) Now() Now {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return Now{v.number, v.changed, v.proved, v.held.total, len(v.held.sources), v.open(v.closed)}
}

// Run reads the tree and follows its changes until the context ends. The first
// reading's error, and that the tree is gone, end it.
func (v *View) Run(ctx context.Context) error {
	w := watchTree(v.log)
	defer w.close()
	w.follow(v.watched()) // older than the first look: no change falls between
	if err := v.look(); err != nil {
		return err
	}
	v.openJournal()
	close(v.ready)
	ctx, stop := context.WithCancel(ctx)
	var beside sync.WaitGroup
	defer beside.Wait()
	defer stop()
	beside.Go(func() { v.times.keep(ctx, v) })
	again := time.NewTicker(rescanEvery)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-again.C:
			w.Lost()
		case <-w.Wake():
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(gatherFor):
			}
		}
		if err := v.tree.Check(); err != nil {
			return err
		}
		v.follow(w)
	}
}

// follow follows the hints that have come.
func (v *View) follow(w *watcher) {
	hints, all := w.Take()
	if v.adopt(v.settings.Look()) {
		all = true
	}
	v.readJournal()
	if !all {
		all = v.hinted(hints)
	}
	if all {
		w.follow(v.watched())
		if err := v.look(); err != nil {
			v.log.Warn("the tree cannot be read", "err", err)
		}
	}
}
