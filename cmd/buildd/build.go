package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"packmill/cmd/internal/control"
	"packmill/cmd/internal/daemon"
	"packmill/queue"
	"packmill/queue/builders"
	"packmill/queue/buildlog"
	"packmill/queue/runner"
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
}

// stanza finds the builder's own settings.
func (b *builder) stanza() (*control.Builder, error) {
	all := b.Settings.Get()
	for i := range all.Builders {
		x := &all.Builders[i]
		if b.name != "" && x.Name != b.name {
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
		Places: b.places(spool.NeedsBuild),
		Via:    b.take,
		Handle: b.handle,
		Before: b.giveBackLost,
		Also:   b.buildingDirs,
		Poison: func(it *spool.Item) spool.Place {
			return spool.In(spool.BuildAttempted, it.Place.Suite, it.Place.Arch)
		},
	})
	l.Who = b.who()
	if x, err := b.stanza(); err == nil {
		l.Workers = x.Jobs
	}
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
// when it is touched; the regular scan finds it anyway.
func (b *builder) buildingDirs() []string {
	var dirs []string
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

// giveBackLost returns the jobs whose builder is gone: their lock is free.
func (b *builder) giveBackLost(context.Context) (bool, error) {
	places, err := b.places(spool.Building)()
	if err != nil {
		return false, err
	}
	did := false
	for _, p := range places {
		names, err := b.Tree.List(p)
		if err != nil {
			return did, err
		}
		for _, name := range names {
			it, err := b.Tree.Claim(p, name)
			if errors.Is(err, spool.ErrBusy) || errors.Is(err, spool.ErrGone) {
				continue
			}
			if err != nil {
				return did, err
			}
			gave, err := b.giveBack(it)
			it.Release()
			if err != nil {
				return did, err
			}
			did = did || gave
		}
	}
	return did, nil
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
	if e, asked := queue.EndRequest(it.Path(), begun); asked {
		v, err := b.ended(it, t, e, runner.Usage{})
		if err == nil && v.To.State != nil {
			err = it.Move(spool.Buildd, b.who(), v)
		}
		return true, err
	}
	v := b.again(it, t, "its builder ("+t.Builder+") is gone")
	b.record(it, t, buildlog.Lost, v.Reason, runner.Usage{})
	if err := it.Move(spool.Buildd, b.who(), v); err != nil {
		return false, err
	}
	b.Log.Warn("gave back", "item", it.Name.String(), "to", it.Place.Dir(), "reason", v.Reason)
	return true, nil
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
	x, err := b.stanza()
	if err != nil {
		return spool.Verdict{}, err
	}
	all := b.Settings.Get()
	s, ok := all.Suite(it.Place.Suite)
	if !ok {
		return spool.Verdict{To: spool.In(spool.Attic), Reason: "the suite is not in the settings any more"}, nil
	}
	t, err := queue.TicketOf(it)
	if err != nil && !queue.Damaged(err) {
		return spool.Verdict{}, err
	}
	if err != nil {
		return b.unreadable(it, err), nil
	}
	a := &attempt{b, it, t, x, s, all}
	earlier := t.Builder
	if err := a.begin(); err != nil {
		return spool.Verdict{}, err
	}
	res, err := a.run(ctx)
	return a.end(res, err, earlier)
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
