package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"packmill/cmd/internal/control"
	"packmill/cmd/internal/daemon"
	"packmill/queue"
	"packmill/queue/builders"
	"packmill/queue/buildlog"
	"packmill/queue/runner"
	"packmill/queue/runner/slurm"
	"packmill/spool"
)

// builder is one build daemon.
type builder struct {
	*daemon.Env
	arch string // "" is all of the stanza's
	name string // of the stanza; "" is the first of the architecture

	health health
	ready  readiness
	post   *builders.Post // nil: it could not be written
	begun  time.Time
	far    *far // nil: it builds on this machine, or gives its jobs to a cluster

	lookedLost time.Time // when one of many looked for lost jobs

	running atomic.Int32 // jobs that a builder on another machine or the cluster has, as far as this process knows
	wait    sync.WaitGroup
	tended  time.Time // when jobs of the cluster that nobody waits for were last looked for

	mu        sync.Mutex // of the next two
	slurm     *slurm.Cluster
	clusterOf *control.Builder
}

// stanza finds the builder's own settings.
func (b *builder) stanza() (*control.Builder, error) {
	all := b.Settings.Get()
	for i := range all.Builders {
		x := &all.Builders[i]
		if b.name != "" && x.Name != b.name {
			continue
		}
		if b.name == "" && x.Elsewhere() {
			continue
		}
		if b.arch == "" || slices.Contains(x.Architectures, b.arch) {
			return x, nil
		}
		if b.name != "" {
			return nil, fmt.Errorf("the builder %s does not build %s (Architectures: %s)",
				b.name, b.arch, strings.Join(x.Architectures, " "))
		}
	}
	if b.name != "" {
		return nil, fmt.Errorf("there is no builder %s; add its stanza", b.name)
	}
	return nil, fmt.Errorf("no builder builds %s; add a stanza with: Name, Architectures: %s", b.arch, b.arch)
}

// who is the builder in histories: buildd-amd64, or buildd-amd64/big.
func (b *builder) who() string {
	if b.name != "" {
		return b.Name + "/" + b.name
	}
	return b.Name
}

func (b *builder) loop() *spool.Loop {
	b.health.now = time.Now
	b.forgetWork()
	l := b.Loop(spool.Buildd, &spool.Loop{
		Ready: func() error {
			err := b.aside()
			if err == nil {
				err = b.Room()
			}
			b.say(func(e *builders.Entry) {
				if e.Refuses = ""; err != nil {
					e.Refuses = err.Error()
				}
			})
			return err
		},
		Places: func() ([]spool.Place, error) {
			b.leaveIf()
			return b.places(spool.NeedsBuild)()
		},
		Via:    b.take,
		Handle: b.handle,
		Before: b.giveBackLost,
		Also:   b.buildingDirs,
		Poison: func(it *spool.Item) spool.Place {
			return spool.In(spool.BuildAttempted, it.Place.Suite, it.Place.Arch)
		},
	})
	l.Who = b.who()
	if b.far != nil {
		// They are many, and what another one lost its own --linger, or a local daemon, gives back.
		l.Before = b.giveBackSometimes
	}
	l.Hands = func() int {
		if x, err := b.stanza(); err == nil {
			l.Workers = b.jobs(x)
		}
		return l.Workers
	}
	l.Hands() // what it starts with
	return l
}

// serves reports whether this daemon is there for an architecture.
func (b *builder) serves(x *control.Builder, arch string) bool {
	return b.arch == arch || b.arch == "" && slices.Contains(x.Architectures, arch)
}

// places are the directories of a state that this builder serves: its own
// architectures' in every suite that has them, and those of all where the
// suite says that they are built on one of these.
func (b *builder) places(state spool.State) func() ([]spool.Place, error) {
	return func() ([]spool.Place, error) {
		x, err := b.stanza()
		if err != nil {
			return nil, err
		}
		var out []spool.Place
		for _, s := range b.Settings.Get().Suites {
			if len(x.Suites) > 0 && !slices.Contains(x.Suites, s.Name) {
				continue
			}
			var archs []string
			for _, a := range s.Architectures {
				if b.serves(x, a) {
					archs = append(archs, a)
				}
			}
			if b.arch == "all" || len(archs) > 0 && slices.Contains(x.Architectures, "all") {
				archs = append(archs, "all")
			}
			for _, a := range archs {
				p := spool.In(state, s.Name, a)
				if err := b.Tree.Ensure(p); err != nil {
					b.Log.Error("make directory", "state", state, "suite", s.Name, "err", err)
				}
				out = append(out, p)
			}
		}
		return out, nil
	}
}

// buildingDirs are watched, so that a job that another builder lost is seen
// when it is touched; the regular scan finds it anyway. Of the many that serve
// builders on other machines none does.
func (b *builder) buildingDirs() []string {
	var dirs []string
	if b.far != nil {
		return nil
	}
	places, _ := b.places(spool.Building)() // the loop has asked too, and said why not
	for _, p := range places {
		dirs = append(dirs, b.Tree.Path(p.Dir()))
	}
	return dirs
}

// take is the move to building, unless this builder must not have the job now.
func (b *builder) take(it *spool.Item) spool.Verdict {
	if b.refusal(it) != nil {
		return spool.Verdict{}
	}
	return spool.Verdict{To: spool.In(spool.Building, it.Place.Suite, it.Place.Arch), Reason: "taken"}
}

// notNow says why a builder does not take a job, and when it will look again.
type notNow struct {
	reason string
	again  time.Duration
}

// refusal says why this builder does not take the job, or nil.
func (b *builder) refusal(it *spool.Item) *notNow {
	x, err := b.stanza()
	if err != nil {
		return &notNow{err.Error(), time.Minute}
	}
	t, err := queue.TicketOf(it)
	if err != nil && !queue.Damaged(err) {
		return &notNow{err.Error(), time.Minute}
	}
	if err != nil {
		return nil // Handle says it
	}
	f := spool.Found{Place: it.Place, Name: it.Name}
	if _, why := queue.Misfit(b.Tree, f, t); why != "" {
		return &notNow{why, time.Minute} // master-buildd puts it right
	}
	s, ok := b.Settings.Get().Suite(it.Place.Suite)
	if !ok {
		return &notNow{"its suite is not in the settings any more", time.Minute}
	}
	if on := s.IndepOf(t); it.Place.Arch == "all" && b.arch != "all" && !b.serves(x, on) {
		return &notNow{"all of it is built on " + on, time.Hour}
	}
	if why := b.full(x); why != "" {
		return &notNow{why, 10 * time.Second}
	}
	if err := b.lacks(x, s, it.Place.Arch); err != nil {
		return &notNow{err.Error(), askAgain}
	}
	all, now := b.Settings.Get(), time.Now()
	if why, again := all.Refuses(x, s, f, t, now); why != "" {
		if again.IsZero() {
			again = now.Add(time.Hour)
		}
		return &notNow{why, again.Sub(now)}
	}
	if x.Last.Match(t.Source) {
		if other := b.firstOther(x, all, now); other != "" {
			return &notNow{"it is built here only when nothing else waits (Last), and " + other + " does", 10 * time.Second}
		}
	}
	return nil
}

// firstOther finds a job that this builder would take now and that does not
// itself wait for the others.
func (b *builder) firstOther(x *control.Builder, all *control.Settings, now time.Time) string {
	places, err := b.places(spool.NeedsBuild)()
	if err != nil {
		return "" // the loop says it
	}
	for _, p := range places {
		s, ok := all.Suite(p.Suite)
		if !ok {
			continue
		}
		names, err := b.Tree.List(p)
		if err != nil {
			continue
		}
		for _, name := range names {
			n, err := spool.ParseName(name)
			if err != nil || x.Last.Match(n.Source) {
				continue
			}
			f := spool.Found{Place: p, Name: n}
			t, err := queue.TicketAt(b.Tree, f)
			if err != nil {
				continue // taken meanwhile
			}
			if why, _ := all.Refuses(x, s, f, t, now); why == "" {
				return n.ID()
			}
		}
	}
	return ""
}

// giveBackLost returns the jobs whose builder is gone: their lock is free. One that cannot be read stops no other.
func (b *builder) giveBackLost(context.Context) (bool, error) {
	places, err := b.places(spool.Building)()
	if err != nil {
		return false, err
	}
	did := false
	var errs []error
	for _, p := range places {
		names, err := b.Tree.List(p)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, name := range names {
			it, err := b.Tree.Claim(p, name)
			if errors.Is(err, spool.ErrBusy) || errors.Is(err, spool.ErrGone) {
				continue
			}
			if err != nil {
				errs = append(errs, err)
				continue
			}
			gave, err := b.giveBack(it)
			it.Release()
			if err != nil {
				errs = append(errs, fmt.Errorf("give back %s: %w", it.Name, err))
			}
			did = did || gave
		}
	}
	return did, errors.Join(errs...)
}

// giveBackSometimes is giveBackLost of one process of many.
func (b *builder) giveBackSometimes(ctx context.Context) (bool, error) {
	if time.Since(b.lookedLost) < time.Minute {
		return false, nil
	}
	b.lookedLost = time.Now()
	return b.giveBackLost(ctx)
}

// lostEvery is how soon a job is given back after its builder died: the kernel
// frees the lock, and no event tells of that.
const lostEvery = time.Second

// watchLost gives back what dead builders left, until ctx ends. What goes wrong
// the loop says, which does the same before each scan.
func (b *builder) watchLost(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(lostEvery):
		}
		if _, err := b.stanza(); err == nil {
			b.tend(ctx)
			b.giveBackLost(ctx)
		}
	}
}

// giveBack is what becomes of a job whose builder died. The attempt was
// counted on disk when it began. What a person took with packmill wb take
// stays theirs.
func (b *builder) giveBack(it *spool.Item) (bool, error) {
	t, err := queue.TicketOf(it)
	if err != nil || t.TakenBy != "" {
		return false, err
	}
	if _, why := queue.Misfit(b.Tree, spool.Found{Place: it.Place, Name: it.Name}, t); why != "" {
		return false, nil // master-buildd puts it right
	}
	begun, _ := b.claimed(it)
	e, asked := queue.EndRequest(it.Path(), begun)
	l, err := spool.ReadLease(it.At())
	if err != nil || l != nil && !asked && time.Now().Before(l.Until()) {
		return false, err // its builder is away, and may come back
	}
	if l != nil {
		if err := l.End(it.At()); err != nil {
			return false, err
		}
	}
	if asked {
		v, err := b.ended(it, t, e, runner.Usage{})
		if err == nil && v.To.State != nil {
			err = it.Move(spool.Buildd, b.who(), v)
		}
		return true, err
	}
	why := "its builder (" + t.Builder + ") is gone"
	if l != nil {
		why = fmt.Sprintf("its builder (%s) was away for %s and its lease has ended", t.Builder, l.Span)
	}
	b.forgetWork()
	v := b.again(it, t, why)
	b.record(it, t, buildlog.Lost, v.Reason, runner.Usage{})
	if err := it.Move(spool.Buildd, b.who(), v); err != nil {
		return false, err
	}
	b.Log.Warn("gave back", "item", it.Name.String(), "to", it.Place.Dir(), "reason", v.Reason)
	return true, nil
}

// forgetWork removes what was built in by processes of this account that are dead.
func (b *builder) forgetWork() {
	if err := b.Tree.ForgetWork(); err != nil {
		b.Log.Warn("work directory of a dead builder stays", "err", err)
	}
}

// again sends a job back to needs-build, or, when that has happened Tries
// times, to a person.
func (b *builder) again(it *spool.Item, t *queue.Ticket, reason string) spool.Verdict {
	tries := 3
	if s, ok := b.Settings.Get().Suite(it.Place.Suite); ok {
		tries = s.Tries
	}
	if t.Tries >= tries {
		return spool.Verdict{
			To:     spool.In(spool.BuildAttempted, it.Place.Suite, it.Place.Arch),
			Reason: fmt.Sprintf("%s (%d attempts)", reason, t.Tries),
			Text: fmt.Sprintf("%d attempts ended without a verdict on the package; the last: %s\n"+
				"Look at the log and the builder, then: packmill requeue %s\n", t.Tries, reason, it.Name),
		}
	}
	return spool.Verdict{To: spool.In(spool.NeedsBuild, it.Place.Suite, it.Place.Arch), Reason: "given back: " + reason}
}

// handle builds the claimed job.
func (b *builder) handle(ctx context.Context, it *spool.Item) (spool.Verdict, error) {
	if it.Place.State == spool.NeedsBuild {
		if r := b.refusal(it); r != nil {
			return spool.Stay(r.again, r.reason), nil
		}
		return spool.Stay(time.Second, "changed while it was looked at"), nil
	}
	a, v, err := b.attempt(it)
	if a == nil || err != nil {
		return v, err
	}
	defer b.running.Add(-1)
	// Two workers may have found the last place free, or a job of an earlier session has it now.
	if n := b.jobs(a.x); int(b.running.Add(1)) > n && b.counts(a.x) {
		return spool.Verdict{To: a.to(spool.NeedsBuild), Reason: fmt.Sprintf("its builder has %d jobs already", n)}, nil
	}
	earlier := a.t.Builder
	if err := a.begin(); err != nil {
		return spool.Verdict{}, err
	}
	defer a.clearOut()
	res, err := a.run(ctx)
	return a.end(res, err, earlier)
}

// attempt is one at a claimed job, with the settings of now; nil: the verdict says why not.
func (b *builder) attempt(it *spool.Item) (*attempt, spool.Verdict, error) {
	x, err := b.stanza()
	if err != nil {
		return nil, spool.Verdict{}, err
	}
	all := b.Settings.Get()
	s, ok := all.Suite(it.Place.Suite)
	if !ok {
		return nil, spool.Verdict{To: spool.In(spool.Attic), Reason: "the suite is not in the settings any more"}, nil
	}
	t, err := queue.TicketOf(it)
	if err != nil && !queue.Damaged(err) {
		return nil, spool.Verdict{}, err
	}
	if err != nil {
		return nil, b.unreadable(it, err), nil
	}
	return &attempt{builder: b, it: it, t: t, x: x, suite: s, all: all}, spool.Verdict{}, nil
}

// failed counts a build without a verdict against this builder, unless the
// last attempt, on another builder, ended so too.
func (b *builder) failed(it *spool.Item, t *queue.Ticket, earlier, reason string) {
	b.say(func(e *builders.Entry) { e.Trouble = it.Name.ID() + ": " + reason })
	pause := time.Duration(0)
	if x, err := b.stanza(); err == nil && !b.Once { // the next run of cron comes after a pause
		pause = x.Pause
	}
	if !b.health.failed(it.Name.Source, t.Begun, t.Tries > 1 && earlier != b.who(), pause) {
		return
	}
	if err := b.aside(); err != nil {
		b.Log.Error("set aside", "err", err)
		b.say(func(e *builders.Entry) { e.Refuses = err.Error() })
		b.setAside(reason)
	}
}

// enter writes this daemon into the roster, where people see why it takes
// nothing. It works as well without.
func (b *builder) enter() {
	x, err := b.stanza()
	if err != nil {
		return
	}
	archs := []string{b.arch}
	if b.arch == "" {
		archs = x.Architectures
	} else if slices.Contains(x.Architectures, "all") && b.arch != "all" {
		archs = append(archs, "all")
	}
	if b.post, err = builders.Enter(b.Tree.Path(spool.BuildersDir),
		builders.Entry{Daemon: b.who(), Builder: x.Name, Archs: archs}); err != nil {
		b.Log.Warn("the roster of builders cannot be written; packmill why will not know of this one", "err", err)
		b.post = nil
	}
}

// say changes this daemon's entry in the roster.
func (b *builder) say(change func(*builders.Entry)) {
	if b.post == nil {
		return
	}
	if err := b.post.Say(change); err != nil {
		b.Log.Warn("roster of builders", "err", err)
	}
}

// leave takes it out again.
func (b *builder) leave() {
	if b.post != nil {
		b.post.Leave()
	}
}

func (b *builder) unreadable(it *spool.Item, err error) spool.Verdict {
	return spool.Verdict{
		To: spool.In(spool.BuildAttempted, it.Place.Suite, it.Place.Arch), Reason: "the ticket cannot be read",
		Text: fmt.Sprintf("%v\nMend the file ticket, then: packmill requeue %s\n", err, it.Name),
	}
}
