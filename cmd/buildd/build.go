package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"packmill/cmd/internal/control"
	"packmill/cmd/internal/daemon"
	"packmill/internal/durable"
	"packmill/internal/openpgp"
	"packmill/queue"
	"packmill/queue/builders"
	"packmill/queue/buildlog"
	"packmill/queue/runner"
	"packmill/spool"
	"packmill/spool/statement"
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
			return nil, fmt.Errorf("the builder %s does not build %s (Architectures: %s)", b.name, b.arch, strings.Join(x.Architectures, " "))
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
	if _, why := queue.Misfit(b.Tree, spool.Found{Place: it.Place, Name: it.Name}, t); why != "" {
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
	if why, again := all.Refuses(x, s, it.Place.Arch, t, it.Name.Time, now); why != "" {
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
			t, err := queue.TicketAt(b.Tree, spool.Found{Place: p, Name: n})
			if err != nil {
				continue // taken meanwhile
			}
			if why, _ := all.Refuses(x, s, p.Arch, t, n.Time, now); why == "" {
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
			To: spool.In(spool.BuildAttempted, it.Place.Suite, it.Place.Arch), Reason: fmt.Sprintf("%s (%d attempts)", reason, t.Tries),
			Text: fmt.Sprintf("%d attempts ended without a verdict on the package; the last: %s\nLook at the log and the builder, then: packmill requeue %s\n", t.Tries, reason, it.Name),
		}
	}
	return spool.Verdict{To: spool.In(spool.NeedsBuild, it.Place.Suite, it.Place.Arch), Reason: "given back: " + reason}
}

// The names inside a job's item.
const (
	workDir   = "work"
	resultDir = "result"
	sourceDir = "source" // the verified copy of the source, which the runner gets
)

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
	// Counted before the attempt: a job that kills its builder comes to a
	// person, not round for ever.
	t.Tries++
	earlier := t.Builder
	t.Builder, t.BuiltBy, t.TakenBy, t.CancelledBy, t.NotBefore, t.Result, t.Begun = b.who(), x.Name, "", "", time.Time{}, "", time.Now()
	if t.BinNMU > 0 {
		t.BinNMUBy = x.Person()
	}
	if err := it.SetTicket(t.Stanza()); err != nil {
		return spool.Verdict{}, err
	}
	res, err := b.run(ctx, it, t, x, s, all)
	if v, ended, err := b.taken(it, t, res); ended || err != nil {
		return v, err
	}
	if spool.Lacks(err) {
		// No attempt: it goes back at once, and nothing is taken for a while.
		b.health.lacks(err)
		t.Tries--
		if serr := it.SetTicket(t.Stanza()); serr != nil {
			return spool.Verdict{}, serr
		}
		return b.again(it, t, err.Error()), nil
	}
	if err != nil {
		if errors.Is(err, runner.ErrSetup) {
			b.Log.Error("this builder cannot build", "err", err)
		}
		b.record(it, t, runner.GiveBack.String(), err.Error(), runner.Usage{})
		b.failed(it, t, earlier, err.Error())
		return b.backOff(it, t, err.Error())
	}
	first := b.record(it, t, res.Outcome.String(), res.Reason, res.Usage)
	if res.Outcome != runner.GiveBack {
		b.worked()
	} else if !res.Stopped {
		b.failed(it, t, earlier, res.Reason)
	}
	return b.judge(it, t, x, s, all, res, first)
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
	if b.post, err = builders.Enter(b.Tree.Path(spool.BuildersDir), builders.Entry{Daemon: b.who(), Builder: x.Name, Archs: archs}); err != nil {
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

// backOff gives a job back after our own trouble, with a delay that grows.
func (b *builder) backOff(it *spool.Item, t *queue.Ticket, reason string) (spool.Verdict, error) {
	t.NotBefore = time.Now().Add(min(time.Minute<<min(max(t.Tries-1, 0), 8), 4*time.Hour))
	if err := it.SetTicket(t.Stanza()); err != nil {
		return spool.Verdict{}, err
	}
	return b.again(it, t, reason), nil
}

// run prepares the item and calls the runner.
func (b *builder) run(ctx context.Context, it *spool.Item, t *queue.Ticket, x *control.Builder, s *control.Suite, all *control.Settings) (*runner.Result, error) {
	if err := forgetAttempt(it, t.Tries); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(it.Path(buildlog.LogFile), os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	it.Dirty()
	if t.Previous != "" {
		fmt.Fprintf(log, "Packmill: a version before did not build here; packmill show %s says why\n", t.Source)
	}
	src, err := b.source(ctx, it)
	if why := statement.Refused(err); why != "" {
		return b.notLetIn(log, why)
	}
	if err != nil {
		return nil, err
	}
	job := &runner.Job{
		Source: it.Name.Source, Version: it.Name.Version, Suite: s.Name, Arch: it.Place.Arch, On: it.Place.Arch, Nice: x.Nice,
		Dsc: it.Path(sourceDir, src.Dsc), Packages: src.Packages, Dir: it.Path(workDir), Result: it.Path(resultDir),
		Base: s.Base, Network: s.BuildNetwork, ExtraDepends: t.ExtraDepends, ExtraConflicts: t.ExtraConflicts,
		Profiles: s.ProfilesOf(t), Options: s.OptionsOf(t), Parallel: max(1, runtime.NumCPU()/max(1, x.Jobs)),
		Log: log, Lock: it.Lock(),
		Limits: x.LimitsOf(s, t.Source),
	}
	if job.Arch == "all" {
		// On the architecture that it was served for, or this machine's.
		job.On = ""
		if on := s.IndepOf(t); b.arch != "all" && b.serves(x, on) {
			job.On = on
		}
	}
	x.Cross(job)
	if t.BinNMU > 0 {
		job.BinNMU = &runner.BinNMU{Number: t.BinNMU, Changelog: t.BinNMUText, Maintainer: t.BinNMUBy, Time: t.BinNMUTime}
	}
	if err := control.Prepare(b.Tree, job, x, s); err != nil {
		return nil, err
	}
	r, err := x.NewRunner()
	if err != nil {
		return nil, err
	}
	if x.Stop == "wait" {
		// Stopping the daemon ends it when its builds have ended.
		ctx = context.WithoutCancel(ctx)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	begun, _ := b.claimed(it)
	go watchItem(ctx, it.Path(), begun, cancel)
	res, err := r.Run(ctx, job)
	if err != nil {
		return nil, err
	}
	for _, dir := range []string{workDir, sourceDir} {
		if err := durable.RemoveAll(it.Path(dir)); err != nil {
			b.Log.Warn("work directory stays", "item", it.Name.String(), "err", err)
		}
	}
	return res, nil
}

// judge makes a verdict on the item of what the runner found.
func (b *builder) judge(it *spool.Item, t *queue.Ticket, x *control.Builder, s *control.Suite, all *control.Settings, res *runner.Result, first *buildlog.FirstError) (spool.Verdict, error) {
	place := func(state spool.State) spool.Place { return spool.In(state, it.Place.Suite, it.Place.Arch) }
	if newer, err := queue.Superseded(b.Tree, s.Name, t.Source, t.Version); err != nil {
		return spool.Verdict{}, err
	} else if newer != "" && t.BinNMU == 0 {
		return spool.Verdict{To: spool.In(spool.Attic), Reason: "superseded by version " + newer + " while it was built"}, nil
	}
	switch res.Outcome {
	case runner.Good:
		if s.LogReview == "auto" {
			t.Result = res.Changes
			if err := b.sign(it, t, x, all, res.Text); err != nil {
				return b.backOff(it, t, "sign the result: "+err.Error())
			}
		}
		t.Result, t.Tries, t.Suspect, t.DepWait = res.Changes, 0, "", ""
		if err := it.SetTicket(t.Stanza()); err != nil {
			return spool.Verdict{}, err
		}
		if err := share(it, it.Path(resultDir)); err != nil {
			return spool.Verdict{}, err
		}
		it.Dirty()
		if s.LogReview == "auto" {
			return spool.Verdict{To: spool.In(spool.Uploaded, s.Name), Reason: "built and signed"}, nil
		}
		return spool.Verdict{
			To: place(spool.Built), Reason: "built",
			Text: fmt.Sprintf("Built. A person reads the log and signs result/%s, or says what else should become of it: packmill build show %s_%s\n", res.Changes, t.Source, t.Version),
		}, nil
	case runner.Attempted, runner.Quarantined:
		// Once more; the first attempt after a person's giveback is no second one.
		if res.Suspect != "" && (t.Suspect == "" || t.Tries == 1) && t.Tries < s.Tries {
			t.Suspect = x.Name
			return b.backOff(it, t, "suspect ("+res.Suspect+"): "+why(res, first))
		}
		return spool.Verdict{
			To: place(spool.BuildAttempted), Reason: why(res, first),
			Text: fmt.Sprintf("The build failed: %s\n%sThe whole log: packmill log %s_%s %s\nTo try again: packmill requeue %s\n",
				res.Reason, explain(first), t.Source, t.Version, it.Place.Arch, it.Name),
		}, b.uncount(it, t)
	case runner.DepWait:
		t.DepWait = strings.Join(res.DepWait, ", ")
		return spool.Verdict{
			To: place(spool.DepWait), Reason: "waits for " + t.DepWait,
			Text: fmt.Sprintf("Waits for: %s\nIt goes on by itself when the suite has them.\n", t.DepWait),
		}, b.uncount(it, t)
	case runner.Uninstallable:
		t.Index = queue.Tried
		return spool.Verdict{
			To: place(spool.BDUninstallable), Reason: res.Reason,
			Text: fmt.Sprintf("Its build-dependencies cannot be installed: %s\n", res.Reason),
		}, b.uncount(it, t)
	}
	if res.Stopped {
		t.Tries--
		return spool.Verdict{To: place(spool.NeedsBuild), Reason: "given back: the builder was stopped"}, it.SetTicket(t.Stanza())
	}
	return b.backOff(it, t, res.Reason)
}

// uncount forgets the attempts: one came to a verdict.
func (b *builder) uncount(it *spool.Item, t *queue.Ticket) error {
	t.Tries, t.Suspect = 0, ""
	return it.SetTicket(t.Stanza())
}

// sign puts the builder's signature on the result's .changes: on text, as it was
// checked, whatever the file says by now.
func (b *builder) sign(it *spool.Item, t *queue.Ticket, x *control.Builder, all *control.Settings, text []byte) error {
	if x.Key == "" {
		return fmt.Errorf("the builder %s has no Key in control/builders, and Log-Review is auto", x.Name)
	}
	signer, err := openpgp.OpenSigner(all.Path(x.Key))
	if err != nil {
		return err
	}
	signed, err := signer.Clearsign(text, time.Now())
	if err != nil {
		return err
	}
	return it.WriteFile(filepath.Join(resultDir, t.Result), signed)
}

// share opens a result to the item's group: the daemon
// that publishes it may be another user, and empties the directory then.
func share(it *spool.Item, dir string) error {
	st, err := os.Stat(it.Path())
	if err != nil {
		return err
	}
	gid := -1
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		gid = int(sys.Gid)
	}
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !d.IsDir() && !d.Type().IsRegular() {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if err := os.Lchown(path, -1, gid); err != nil {
			return err
		}
		mode := (info.Mode().Perm() | 0o040) &^ 0o022 // what was signed nobody changes in place
		if d.IsDir() {
			mode |= 0o070
		}
		return os.Chmod(path, mode)
	})
}
