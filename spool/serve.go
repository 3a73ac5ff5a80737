package spool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"packmill/internal/durable"
	"packmill/internal/regular"
	"packmill/internal/trouble"
)

// Loop is the one loop of the system: a daemon is a function from an item to
// its next state, and Loop looks when there is something to do, claims it,
// calls the function, and makes the move.
//
// It watches first and scans second, so no arrival falls between; it scans
// again after a minute anyway. An item whose lock is held is looked at again
// in 100 ms; one whose handling failed, later and later, up to an hour. One
// bad item never stops the rest.
type Loop struct {
	Tree *Tree
	By   Actor
	Who  string // in the history; e.g. buildd-amd64
	Log  *slog.Logger

	// Places are the directories whose items Handle takes. It is asked
	// again at each scan.
	Places func() ([]Place, error)
	// Via, if set, is where an item goes before Handle sees it, in one
	// rename that is the claim (needs-build to building).
	Via func(*Item) Verdict
	// Handle says what becomes of an item. It may run twice on one item, so
	// it begins by removing what an earlier run left. An error is our
	// trouble, never the package's fault: the item stays and is tried again.
	Handle func(context.Context, *Item) (Verdict, error)
	// Batch, if set, takes Handle's place: it gets all items of one place
	// that are there at the moment (at most maxBatch), claimed, in order,
	// and gives a verdict for each. An error is for all of them. Workers are
	// for as many places; one place has one batch at a time.
	Batch func(context.Context, []*Item) ([]Verdict, error)
	// Same, if set, says of an item that stayed that it would stay again. A scan, or a batch of its place, passes it
	// over then, but for one look in sameRest; an event that names it, or its source, does not.
	Same func(Place, string) bool
	// Also are further directories whose changes matter. An item's name
	// there makes the loop look again at the items that stayed and are of
	// the same source; any other name makes it scan.
	Also func() []string
	// Before, if set, runs before a scan: it gives back what dead processes
	// left, or turns plain files into items. It reports whether it did
	// anything.
	Before func(context.Context) (bool, error)
	// Nudge, if set, asks for a scan with each token: for what no event tells,
	// such as a writer that closes its file.
	Nudge <-chan struct{}
	// Rules, if set, is what judgements depend on beside the item: when it is another, what stayed is looked at again.
	Rules func() any
	// Ready, if set, says why nothing can be begun now (a full disk). It is
	// asked before each item.
	Ready func() error
	// Poison is where an item goes that made Handle panic maxPanics times, or
	// under which the process ended maxDeaths times, deathRest apart.
	Poison func(*Item) Place

	Workers int           // items handled at a time; 0 is one
	Hands   func() int    // if set, Workers of now: when it is fewer, what is being handled ends first
	Once    bool          // end when nothing is left to do now
	Tick    time.Duration // between scans that nothing asked for; 0 is a minute

	// Moved is how many items the last Run moved.
	Moved int

	watch   *watcher
	places  map[string]Place // of the last scan, by directory
	plan    *schedule
	batches map[Place]bool // places of which a batch is being handled
	results chan result
	rules   any  // of the last scan
	failed  bool // in Once: something was left because of an error

	lastScan time.Time
	scanTook time.Duration
	owed     bool // events asked for a scan that was put off
	progress bool // an item was moved since the last scan

	// hindered: the last scan did not see all, or an item lies where Via moved it
	// and Handle could not go on, so that Before must give it back.
	hindered bool
	scarce   bool // since the last move an error was of what the machine lacks
	said     trouble.Said
}

// Timing of the loop.
const (
	pollEvery = 3 * time.Second
	// between looks whether what hinders everything is over
	hinderedRetry = 10 * time.Second
	// between looks whether the tree is there still: that its file system was
	// unmounted no event tells
	checkEvery = 5 * time.Second
	maxPanics  = 3
	maxDeaths  = 5
	deathRest  = 10 * time.Second // deaths closer together count as one
	scanRest   = 5 * time.Millisecond
	// While there is something to do, what events ask for takes at most a tenth of the time: a scan of tens of
	// thousands of files after each of them would leave none for the work.
	scanShare   = 9
	longestRest = 10 * time.Second
)

// ErrLeft says that a run with Once left an item because of an error; it is in
// the log.
var ErrLeft = errors.New("some items could not be handled; the log says which")

// Scarce reports whether an error says that the machine, and not the item, has too
// little of something: other processes give that back without any event.
func Scarce(err error) bool {
	for _, e := range []error{unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.EMFILE, unix.ENFILE, unix.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// result is what a worker brings back.
type result struct {
	e       entry
	verdict Verdict
	moved   bool
	err     error
	foreign bool // and err says that this account may not write in the item
	last    bool // of its batch
}

// Run serves until ctx ends (then it waits for the handlers, whose context has
// ended too) or, with Once, until nothing is left to do now. Its error is
// ErrInDoubt, ErrNoTree, ErrNoLocks, or ErrLeft of a run with Once.
func (l *Loop) Run(ctx context.Context) error {
	if l.Workers < 1 {
		l.Workers = 1
	}
	if l.Tick == 0 {
		l.Tick = time.Minute
	}
	if l.Who == "" {
		l.Who = string(l.By)
	}
	l.plan, l.batches, l.results = newSchedule(), map[Place]bool{}, make(chan result, l.Workers)
	if l.Same != nil {
		l.plan.same = func(e entry) bool { return l.Same(e.place, e.name) }
	}
	l.Moved, l.failed = 0, false
	l.watch = newWatcher(l.Tree.root, l.Log)
	defer l.watch.close()

	// A worker that waits for an fsync keeps its place in the Go scheduler for a
	// while, so with as many places as processors the others could not go on.
	if places := min(l.Workers, 4); runtime.GOMAXPROCS(0) < places {
		runtime.GOMAXPROCS(places)
	}

	ctx, cancel := context.WithCancel(ctx)
	err := l.loop(ctx)
	cancel()
	for len(l.plan.busy) > 0 { // let the handlers end
		r := <-l.results
		delete(l.plan.busy, r.e)
		if errors.Is(r.err, durable.ErrInDoubt) {
			err = r.err
		}
	}
	if err == nil && l.failed && l.Once {
		err = ErrLeft
	}
	return err
}

func (l *Loop) loop(ctx context.Context) error {
	if err := l.scan(ctx); err != nil {
		return err
	}
	for ctx.Err() == nil {
		// A free hand first, then the newest hints, then the first name:
		// so the oldest item is taken even after a build of hours.
		if l.free() {
			if err := l.refresh(ctx); err != nil {
				return err
			}
			if e, ok := l.plan.next(l.batches); ok {
				if stop, err := l.begin(ctx, e); stop || err != nil {
					return err
				}
				continue
			}
		}
		if l.Once && len(l.plan.busy) == 0 && len(l.plan.ready) == 0 && !l.plan.soon() {
			if !l.progress {
				return nil
			}
			if err := l.scan(ctx); err != nil {
				return err
			}
			continue
		}
		until := l.plan.until(l.lastScan.Add(l.interval()))
		if check := time.Now().Add(checkEvery); check.Before(until) {
			if err := l.Tree.Check(); err != nil {
				return err
			}
			until = check
		}
		if stop, err := l.wait(ctx, until); stop || err != nil {
			return err
		}
	}
	return nil
}

// refresh brings the plan up to date: hints, a scan if it is time for one, and
// what has fallen due.
func (l *Loop) refresh(ctx context.Context) error {
	all := l.hear() || l.owed
	switch {
	case all && len(l.plan.ready) > 0 && time.Since(l.lastScan) < min(scanShare*l.scanTook, longestRest):
		l.owed, all = true, false
	case all:
		// Events that come in a crowd share a scan.
		time.Sleep(time.Until(l.lastScan.Add(scanRest)))
	}
	if all || time.Since(l.lastScan) >= l.interval() {
		if err := l.scan(ctx); err != nil {
			return err
		}
	}
	for _, e := range l.plan.fallDue(time.Now()) {
		// What stayed while this one was busy is judged with it now:
		// nothing else will happen to it.
		if l.Batch != nil {
			l.plan.stir(e.name)
		}
	}
	return nil
}

// begin gives an entry, or its batch, to a goroutine. If nothing can be begun now
// it waits, or says stop in a run with Once.
func (l *Loop) begin(ctx context.Context, e entry) (stop bool, err error) {
	if err := l.readyNow(); err != nil {
		l.plan.put(e)
		if l.Once && len(l.plan.busy) == 0 {
			l.failed = true
			return true, nil
		}
		return l.wait(ctx, time.Now().Add(hinderedRetry))
	}
	l.plan.busy[e] = true
	if l.Batch != nil {
		l.batches[e.place] = true
		go l.workBatch(ctx, l.plan.together(e))
	} else {
		go l.work(ctx, e)
	}
	return false, nil
}

// free reports whether a worker has nothing to do. A batch is one work,
// however many items it has.
func (l *Loop) free() bool {
	hands := l.Workers
	if l.Hands != nil {
		hands = max(1, l.Hands())
	}
	if l.Batch != nil {
		return len(l.batches) < hands
	}
	return len(l.plan.busy) < hands
}

// workBatch is the handling of a batch, in its own goroutine.
func (l *Loop) workBatch(ctx context.Context, batch []entry) {
	start := time.Now()
	results := make([]result, len(batch))
	var items []*Item
	var which []int
	for i, e := range batch {
		results[i].e = e
		it, err := l.Tree.Claim(e.place, e.name)
		if err != nil {
			results[i].err = err
			continue
		}
		items, which = append(items, it), append(which, i)
	}
	var verdicts []Verdict
	var err error
	if len(items) > 0 {
		verdicts, err = l.Batch(ctx, items)
		if err == nil && len(verdicts) != len(items) {
			err = fmt.Errorf("%d verdicts for %d items", len(verdicts), len(items))
		}
	}
	for n, it := range items {
		r := &results[which[n]]
		if r.err = err; err == nil {
			r.verdict = verdicts[n]
			l.obey(it, r, start)
		}
		r.foreign = errors.Is(r.err, fs.ErrPermission) && it.Foreign()
		it.Release()
	}
	results[len(results)-1].last = true
	for _, r := range results {
		l.results <- r
	}
}

// obey makes the move that the verdict of r asks for.
func (l *Loop) obey(it *Item, r *result, start time.Time) {
	if r.verdict.To.State == Unborn {
		return
	}
	from := it.Place
	if r.err = it.Move(l.By, l.Who, r.verdict); r.err != nil {
		return
	}
	r.moved = true
	l.logMove(it, from, r.verdict.Reason, start)
}

// interval is the time between scans that nothing asked for.
func (l *Loop) interval() time.Duration {
	switch {
	case l.watch.polling():
		return min(l.Tick, pollEvery)
	case l.hindered:
		return min(l.Tick, hinderedRetry)
	}
	return l.Tick
}

// wait sleeps until a hint, a worker's result, a time, or the end. A loop with
// no hand free has no use for hints and times yet: what fell due meanwhile
// would wake it again and again; but it may have more hands by then.
func (l *Loop) wait(ctx context.Context, until time.Time) (stop bool, err error) {
	var wake <-chan struct{}
	var due <-chan time.Time
	free := l.free()
	if !free {
		until = time.Now().Add(checkEvery)
	}
	if free || l.Hands != nil {
		t := time.NewTimer(time.Until(until))
		defer t.Stop()
		due = t.C
	}
	if free {
		wake = l.watch.Wake()
	}
	select {
	case <-ctx.Done():
		return true, nil
	case <-due:
	case <-wake:
	case <-l.Nudge:
		l.watch.Lost()
	case r := <-l.results:
		return false, l.finish(r)
	}
	return false, nil
}

// scan reads the directories anew. The watches are older than the scan.
func (l *Loop) scan(ctx context.Context) error {
	begun := time.Now()
	if err := l.Tree.Check(); err != nil {
		return err
	}
	places, err := l.Places()
	if err != nil {
		l.failed = true
		l.say("places", err)
	} else {
		l.unsay("places")
	}
	l.places = make(map[string]Place, len(places))
	var dirs []string
	for _, p := range places {
		dir := l.Tree.Path(p.Dir())
		l.places[dir] = p
		dirs = append(dirs, dir)
	}
	if l.Also != nil {
		dirs = append(dirs, l.Also()...)
	}
	l.watch.follow(dirs)
	l.watch.Take()
	l.owed = false
	l.hindered = err != nil
	l.before(ctx)
	now := time.Now()
	l.plan.clear()
	idle := map[entry]bool{}
	for _, p := range places {
		names, err := l.Tree.List(p)
		if err != nil {
			l.hindered = true
			l.say("scan "+p.Dir(), err)
			continue
		}
		l.unsay("scan " + p.Dir())
		for _, n := range names {
			if e := (entry{p, n}); l.plan.idle(e, now) {
				idle[e] = true
			} else {
				l.plan.found(e, now)
			}
		}
	}
	if len(places) > 1 {
		l.plan.sort()
	}
	l.byRules()
	l.byRules()
	l.Log.Debug("scanned", "places", len(places), "items", len(l.plan.ready))
	l.plan.forget(func(e entry) bool {
		if idle[e] {
			return true
		}
		_, err := os.Lstat(l.Tree.Path(e.place.Dir(), e.name))
		return err == nil
	})
	l.lastScan, l.progress = time.Now(), false
	l.scanTook = l.lastScan.Sub(begun)
	return nil
}

// byRules looks again at what stayed when the rules are new.
func (l *Loop) byRules() {
	if l.Rules == nil || l.Rules() == l.rules {
		return
	}
	l.rules = l.Rules()
	l.plan.again(func(_ entry, p past) bool { return p.stay })
}

func (l *Loop) before(ctx context.Context) {
	if l.Before == nil {
		return
	}
	if _, err := l.Before(ctx); err != nil && ctx.Err() == nil {
		l.failed, l.hindered = true, true
		l.say("before", err)
	} else {
		l.unsay("before")
	}
}

// say logs an error once, until it changes.
func (l *Loop) say(what string, err error) {
	if l.said.Fresh(what, err) {
		l.Log.Error(what, "err", err)
	}
}

// unsay says that what was said of it is over, and reports whether anything was.
func (l *Loop) unsay(what string) bool {
	old := l.said.Over(what)
	if old != "" {
		l.Log.Info("goes on", "after", old)
	}
	return old != ""
}

// hear takes the hints and reports whether only a scan helps.
func (l *Loop) hear() (scan bool) {
	hints, scan := l.watch.Take()
	for dir, names := range hints {
		p, mine := l.places[dir]
		for name := range names {
			switch {
			case mine && likeItem(name):
				l.plan.put(entry{p, name})
				if l.Batch != nil {
					l.plan.stir(name)
				}
			case likeItem(name):
				l.plan.stir(name)
			default:
				scan = true
			}
		}
	}
	return scan
}

func (l *Loop) readyNow() error {
	if l.Ready == nil {
		return nil
	}
	err := l.Ready()
	if err != nil {
		l.say("waits", err)
	} else if l.unsay("waits") {
		// What failed meanwhile need not wait for its time.
		l.plan.again(func(_ entry, p past) bool { return p.err != "" })
	}
	return err
}

// finish takes a worker's result.
func (l *Loop) finish(r result) error {
	delete(l.plan.busy, r.e)
	if r.last {
		delete(l.batches, r.e.place)
	}
	switch {
	case errors.Is(r.err, durable.ErrInDoubt), errors.Is(r.err, ErrNoTree), errors.Is(r.err, ErrNoLocks):
		return r.err
	case errors.Is(r.err, ErrBusy):
		l.plan.locked(r.e)
		l.Log.Debug("busy", "item", r.e.name, "state", r.e.place.State, "suite", r.e.place.Suite, "arch", r.e.place.Arch)
	case errors.Is(r.err, ErrGone):
		delete(l.plan.past, r.e)
	case r.foreign:
		// A person's mv asks nobody, and trying again is of no use.
		if n, _ := ParseName(r.e.name); l.said.New(ForeignItem+n.ID(), "") {
			l.Log.Error(ForeignItem, "item", r.e.name, "state", r.e.place.State, "suite", r.e.place.Suite, "arch", r.e.place.Arch,
				"err", r.err)
		}
		l.plan.stays(r.e, time.Hour)
	case r.err != nil:
		l.failed = true
		l.hindered = l.hindered || r.moved
		l.scarce = l.scarce || Scarce(r.err)
		if by, fresh := l.plan.failed(r.e, r.err); fresh {
			l.Log.Error("handle", "item", r.e.name, "state", r.e.place.State, "suite", r.e.place.Suite, "arch", r.e.place.Arch,
				"err", r.err, "again", by)
		}
	case r.moved:
		delete(l.plan.past, r.e)
		if l.scarce {
			// There is some again: what failed need not wait for its time.
			l.scarce = false
			l.plan.again(func(_ entry, p past) bool { return p.scarce })
		}
		l.progress = true
		l.Moved++
	default:
		l.plan.stays(r.e, r.verdict.Again)
		l.Log.Debug("stays", "item", r.e.name, "state", r.e.place.State, "suite", r.e.place.Suite, "arch", r.e.place.Arch,
			"reason", r.verdict.Reason, "again", r.verdict.Again)
	}
	return nil
}

// work is one handling, in its own goroutine.
func (l *Loop) work(ctx context.Context, e entry) {
	r := result{e: e}
	start := time.Now()
	it, err := l.Tree.Claim(e.place, e.name)
	if err != nil {
		r.err = err
		l.results <- r
		return
	}
	// The rename wakes the reader of the next state before this lock drops:
	// to it, busy means "soon again".
	defer func() {
		r.foreign = errors.Is(r.err, fs.ErrPermission) && it.Foreign()
		it.Release()
		l.results <- r
	}()
	from := it.Place
	if l.Via != nil {
		via := l.Via(it)
		if via.To != it.Place && via.To.State != Unborn {
			if r.err = it.Move(l.By, l.Who, via); r.err != nil {
				return
			}
			l.logMove(it, from, via.Reason, start)
			r.moved = true
		}
	}
	v, err := l.handle(ctx, it)
	if err != nil {
		r.err = err
		return
	}
	r.verdict = v
	l.obey(it, &r, start)
}

func (l *Loop) logMove(it *Item, from Place, reason string, start time.Time) {
	l.Log.Info("moved", "item", it.Name.String(), "from", from.Dir(), "to", it.Place.Dir(),
		"suite", it.Place.Suite, "arch", it.Arch(), "reason", reason, "took", time.Since(start).Round(time.Microsecond))
}

// handle calls Handle with its unfinished handlings counted on disk, so that an
// item which kills its handler ends in quarantine, not in a loop. A panic is the
// item's doing. A death may be anyone's: an operator who restarts a daemon a few
// times in a row must not get an upload rejected, so deaths count only apart.
func (l *Loop) handle(ctx context.Context, it *Item) (v Verdict, err error) {
	if l.Poison == nil {
		return l.Handle(ctx, it)
	}
	tries := it.At(triesFile)
	if data, err := regular.Read(tries, maxSmall); err == nil {
		if deaths, panics := unfinished(string(data)); deaths >= maxDeaths || panics >= maxPanics {
			return Verdict{
				To: l.Poison(it), Reason: "its handling did not end, again and again",
				Text: fmt.Sprintf("%s was ended %d times, and failed badly %d times, while it worked on this item.\n"+
					"Look into its log, then put the item back with: packmill requeue %s\n", l.Who, deaths, panics, it.Name),
			}, it.clearTries()
		}
	}
	if err := durable.Append(tries, fmt.Appendf(nil, "%d\n", time.Now().Unix()), 0o664); err != nil {
		return Verdict{}, err
	}
	defer func() {
		if p := recover(); p != nil {
			v, err = Verdict{}, fmt.Errorf("panic: %v", p)
			l.Log.Error("panic", "item", it.Name.String(), "err", fmt.Sprint(p), "stack", string(debug.Stack()))
			if aerr := durable.Append(tries, []byte("panic\n"), 0o664); aerr != nil {
				err = errors.Join(err, aerr)
			}
			return // the count stays
		}
		if cerr := it.clearTries(); err == nil {
			err = cerr
		}
	}()
	return l.Handle(ctx, it)
}

// unfinished reads a file of tries: a line with the second of each handling's
// beginning, and a line "panic" for each that panicked.
func unfinished(text string) (deaths, panics int) {
	var last int64
	for line := range strings.Lines(text) {
		switch at, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64); {
		case strings.TrimSpace(line) == "panic":
			panics++
		case err == nil && max(at-last, last-at) >= int64(deathRest/time.Second):
			deaths, last = deaths+1, at
		}
	}
	return deaths, panics
}

func (it *Item) clearTries() error {
	err := os.Remove(it.At(triesFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
