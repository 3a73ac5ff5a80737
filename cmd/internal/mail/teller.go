package mail

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"packmill/cmd/internal/control"
	"packmill/internal/durable"
	"packmill/internal/trouble"
	"packmill/spool"
)

// ToldFile in an item has a line for each thing that was mailed about it: the
// event and the time of the move that it told of. It is written after the
// mail, so a crash between the two mails twice, and never not at all.
const ToldFile = "told"

// Told are the lines of ToldFile in the item that lies at dir.
func Told(dir string) []string {
	data, _ := os.ReadFile(filepath.Join(dir, ToldFile))
	return strings.Split(strings.TrimSpace(string(data)), "\n")
}

// ErrSoon is Say's answer when what there is to say is just about to change: it is
// asked again in the next round.
var ErrSoon = errors.New("it is just moving")

// Timing of the teller.
const (
	tellEvery  = time.Second
	idleEvery  = 10 * time.Second   // of one that has nothing to tell: another process of many has the locks
	tellFor    = 7 * 24 * time.Hour // what is older nobody wants to be told
	mtimeGrain = 2 * time.Second
	restOfName = 50 * time.Microsecond // how long a place is not read again, for each name in it
)

// tellAgain is after a sendmail that failed.
var tellAgain = trouble.Backoff{First: time.Minute, Last: time.Hour}

// Teller mails people about what became of items. It looks at where things lie
// and at what was told, so it does not matter who moved them, or whether it
// ran then. It locks no item for longer than it takes to write a line, and a
// sendmail that fails or hangs stops nobody but it.
type Teller struct {
	Tree     *spool.Tree
	Settings *control.Store
	Log      *slog.Logger
	Once     bool // tell when the loops have ended
	// Places are the places whose items there may be something to tell of.
	Places func() ([]spool.Place, error)
	// Lock names a directory, for a place: of several tellers the one that holds
	// its lock tells.
	Lock func(spool.Place) string
	// Say makes the message about an item with that history, which ends with the
	// move that brought it to its place or a note of later. Nil: there is
	// nothing to tell. ErrSoon means again, every other error again later.
	Say func(p spool.Place, n spool.Name, dir string, events []spool.Event) (*Message, error)
	// Also, if set, tells of what is no item, each time round. After an error it
	// is called again later.
	Also func(context.Context) error

	locks map[string]io.Closer
	dirs  map[spool.Place]time.Time       // a place's mtime when it was last read
	rests map[spool.Place]time.Time       // until then it is not read again: a long queue would be read all the time
	done  map[spool.Place]map[string]bool // items of which everything is told
	again map[string]retry                // by the item's path; "" is Also's
	said  trouble.Said                    // the error of each look
}

type retry struct {
	at time.Time
	by time.Duration
}

// run tells until ctx ends. It returns no error: what goes wrong is logged and
// tried again.
func (t *Teller) run(ctx context.Context) {
	for {
		t.round(ctx)
		wait := tellEvery
		if len(t.locks) == 0 {
			wait = idleEvery
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// Serve runs the teller beside the daemon's loops; with --once it tells when
// they have ended.
func (t *Teller) Serve(ctx context.Context, loops func(context.Context) error) error {
	if t.Once {
		err := loops(ctx)
		t.round(ctx)
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { t.run(ctx) })
	err := loops(ctx)
	cancel()
	wg.Wait()
	return err
}

// mine takes the lock that says who of several daemons tells of a place.
func (t *Teller) mine(p spool.Place) bool {
	path := t.Lock(p)
	if t.locks[path] != nil {
		return true
	}
	lock, err := durable.Lock(path, 0)
	if err == nil {
		t.locks[path] = lock
	}
	return err == nil
}

// round looks at every place that has changed since it was last read, or has
// something left to be told.
func (t *Teller) round(ctx context.Context) {
	if t.locks == nil {
		t.locks, t.dirs = map[string]io.Closer{}, map[spool.Place]time.Time{}
		t.rests = map[spool.Place]time.Time{}
		t.done, t.again = map[spool.Place]map[string]bool{}, map[string]retry{}
	}
	if t.Also != nil && !time.Now().Before(t.again[""].at) {
		if err := t.Also(ctx); err == nil {
			delete(t.again, "")
		} else {
			t.putOff(ctx, "", err)
		}
	}
	places, err := t.Places()
	t.look("scan", err)
	for _, p := range places {
		if !t.mine(p) {
			continue
		}
		var st unix.Stat_t
		if unix.Stat(t.Tree.Path(p.Dir()), &st) != nil {
			continue
		}
		mtime := time.Unix(st.Mtim.Unix())
		now := time.Now()
		if t.dirs[p].Equal(mtime) || now.Before(t.rests[p]) {
			continue
		}
		names, err := t.Tree.List(p)
		t.look("scan "+p.Dir(), err)
		if err != nil {
			continue
		}
		t.rests[p] = now.Add(time.Duration(len(names)) * restOfName)
		old, done, whole := t.done[p], make(map[string]bool, len(names)), true
		for _, name := range names {
			if ctx.Err() != nil {
				return
			}
			if old[name] || t.tell(ctx, p, name) {
				done[name] = true
			} else {
				whole = false
			}
		}
		t.done[p] = done
		if whole && now.Sub(mtime) > mtimeGrain {
			t.dirs[p] = mtime
		}
	}
}

// look logs what a look came to when that changes, and not each second.
func (t *Teller) look(what string, err error) {
	if err == nil {
		t.said.Over(what)
	} else if t.said.Fresh(what, err) {
		t.Log.Error(what, "err", err)
	}
}

// tell says what there is to say of an item, and reports whether that is all.
func (t *Teller) tell(ctx context.Context, p spool.Place, name string) bool {
	dir := t.Tree.Path(p.Dir(), name)
	// A move changes the time of the status of what is moved.
	var st unix.Stat_t
	if unix.Lstat(dir, &st) != nil || time.Since(time.Unix(st.Ctim.Unix())) > tellFor {
		return true
	}
	if r, ok := t.again[dir]; ok && time.Now().Before(r.at) {
		return false
	}
	events, ok := t.history(p, name)
	if !ok {
		return false
	}
	n, err := spool.ParseName(name)
	if err != nil {
		return true
	}
	m, err := t.Say(p, n, dir, events)
	if errors.Is(err, ErrSoon) {
		return false
	}
	if err != nil {
		return t.later(ctx, p, n, dir, err)
	}
	if m == nil || !m.Of.IsZero() && time.Since(m.Of) > tellFor {
		return true
	}
	notes := cmp.Or(m.Told, dir)
	if slices.Contains(Told(notes), m.Key) {
		return true
	}
	sent, err := Send(ctx, t.Tree, t.Settings.Get().Notify, m)
	if err != nil {
		return t.later(ctx, p, n, dir, err)
	}
	if sent > 0 {
		t.Log.Info("told", "item", name, "state", p.State, "suite", p.Suite, "reason", m.Event, "to", sent)
	}
	delete(t.again, dir)
	// The item may have moved on: then its next place tells again, once.
	if f, err := unix.Open(notes, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0); err == nil {
		defer unix.Close(f)
		if err := durable.Append(fmt.Sprintf("/proc/self/fd/%d/%s", f, ToldFile), []byte(m.Key+"\n"), 0o664); err != nil {
			t.Log.Error("tell", "item", name, "state", p.State, "err", err)
		}
	}
	return true
}

// later notes a trouble; the item is looked at again when its time has come.
func (t *Teller) later(ctx context.Context, p spool.Place, n spool.Name, dir string, err error) bool {
	t.putOff(ctx, dir, err, "item", n.String(), "state", p.State, "suite", p.Suite)
	return false
}

// putOff notes that a mail did not go, and when it is tried again.
func (t *Teller) putOff(ctx context.Context, what string, err error, about ...any) {
	if ctx.Err() != nil {
		return
	}
	r := t.again[what]
	r.by = tellAgain.After(r.by)
	r.at = time.Now().Add(r.by)
	t.again[what] = r
	t.Log.Error("mail", append(about, "err", err, "again", r.by)...)
}

// history reads how an item came to where it lies. A move that a person made
// with mv is written into it first, which needs the lock: not ok says that it
// is held, or that the item has gone.
func (t *Teller) history(p spool.Place, name string) (events []spool.Event, ok bool) {
	dir := t.Tree.Path(p.Dir(), name)
	events, err := spool.ReadHistory(dir)
	if err != nil {
		return nil, true
	}
	if len(events) == 0 || events[len(events)-1].To != p.Dir() {
		it, err := t.Tree.Claim(p, name)
		if err != nil {
			return nil, false
		}
		it.Release()
		if events, err = spool.ReadHistory(dir); err != nil {
			return nil, true
		}
	}
	return events, true
}
