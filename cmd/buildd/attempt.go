package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"packmill/cmd/internal/control"
	"packmill/cmd/internal/mail"
	"packmill/internal/durable"
	"packmill/internal/openpgp"
	"packmill/queue"
	"packmill/queue/buildlog"
	"packmill/queue/runner"
	"packmill/queue/runner/remote"
	"packmill/queue/runner/slurm"
	"packmill/spool"
	"packmill/spool/statement"
)

// attempt is one build of a claimed job, with the settings as they were when it
// began.
type attempt struct {
	*builder
	it    *spool.Item
	t     *queue.Ticket
	x     *control.Builder
	suite *control.Suite
	all   *control.Settings

	dir  string   // its workplace, see spool.Tree.Workplace
	held *os.File // the lock on that; nil: there is none yet

	lease  *spool.Lease // of a builder on another machine; nil: not yet, or here
	signed string       // the .changes, signed with the key of such a builder
}

// The names in an attempt's workplace. The result goes into the item at the end.
const (
	workDir   = "work"
	resultDir = "result"
	sourceDir = "source" // the verified copy of the source, which the runner gets
)

// path names something in the workplace.
func (a *attempt) path(elem ...string) string {
	return filepath.Join(append([]string{a.dir}, elem...)...)
}

// begin counts the attempt before it is made: a job that kills its builder comes to
// a person, not round for ever.
func (a *attempt) begin() error {
	t := a.t
	t.Tries++
	t.Builder, t.BuiltBy, t.TakenBy, t.CancelledBy = a.who(), a.x.Name, "", ""
	t.NotBefore, t.Result, t.Begun = time.Time{}, "", time.Now()
	if t.BinNMU > 0 {
		t.BinNMUBy = a.x.Person()
	}
	return a.it.SetTicket(t.Stanza())
}

// run builds the job, with the source as it was let in: where nobody else writes,
// since who works on the queues may write in the item, and a runner goes by paths.
func (a *attempt) run(ctx context.Context) (*runner.Result, error) {
	log, err := a.openLog()
	if err != nil {
		return nil, err
	}
	defer log.Close()
	if err := a.settleIn(); err != nil {
		return nil, err
	}
	src, err := a.source(ctx, a.it, a.path(sourceDir))
	if why := statement.Refused(err); why != "" {
		return a.notLetIn(log, why)
	}
	if err != nil {
		return nil, err
	}
	job, err := a.job(src, log)
	if err != nil {
		return nil, err
	}
	r, err := a.runner(ctx, job)
	if err != nil {
		return nil, err
	}
	if a.x.Stop == "wait" || a.lease != nil {
		// Stopping the daemon ends it when its builds have ended, or are left to their builder.
		ctx = context.WithoutCancel(ctx)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	begun, _ := a.claimed(a.it)
	go watchItem(ctx, a.it.Lock(), a.it.Path(), begun, cancel)
	return r.Run(ctx, job)
}

// settleIn makes the workplace, with what an earlier session with the builder has
// brought.
func (a *attempt) settleIn() (err error) {
	if a.dir, a.held, err = a.Tree.Workplace(); err != nil || a.lease == nil {
		return err
	}
	for _, name := range brought {
		if err := durable.RenameUnsynced(a.it.At(name), a.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		// It lay where others write.
		if _, err := runner.Own(a.path(name)); err == nil {
			continue
		}
		if err := errors.Join(durable.RemoveAll(a.path(name)), os.Mkdir(a.path(name), 0o755)); err != nil {
			return err
		}
	}
	return nil
}

// brought are the directories in which a builder's results come.
var brought = []string{workDir, resultDir}

// clearOut removes the workplace.
func (a *attempt) clearOut() {
	if a.held == nil {
		return
	}
	if err := durable.RemoveAll(a.dir); err != nil {
		a.Log.Warn("work directory stays", "item", a.it.Name.String(), "err", err)
	}
	a.held.Close()
}

// openLog puts an earlier attempt's log aside and begins another.
func (a *attempt) openLog() (*os.File, error) {
	if a.lease != nil {
		return os.OpenFile(a.it.At(buildlog.LogFile), os.O_WRONLY|os.O_APPEND|syscall.O_NOFOLLOW, 0)
	}
	if err := forgetAttempt(a.it, a.t.Tries); err != nil {
		return nil, err
	}
	// O_EXCL follows no link that who may write in the item has put in the log's place.
	log, err := os.OpenFile(a.it.At(buildlog.LogFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	a.it.Dirty()
	if a.t.Previous != "" {
		said := strings.TrimSpace(a.t.Previous)
		fmt.Fprintf(log, "%s: %.200s; packmill show %s says more\n", buildlog.Before,
			spool.OneLine(said[strings.LastIndex(said, "\n")+1:]), a.t.Source)
	}
	return log, nil
}

// job is what the runner builds, in the workplace.
func (a *attempt) job(src *statement.Statement, log *os.File) (*runner.Job, error) {
	job, err := a.x.Job(a.Tree, spool.Found{Place: a.it.Place, Name: a.it.Name}, a.t, a.suite)
	if err != nil {
		return nil, err
	}
	if job.Arch == "all" && (a.arch == "all" || !a.serves(a.x, job.On)) {
		job.On = "" // this machine's
	}
	job.Dsc, job.Packages = a.path(sourceDir, src.Dsc), src.Packages
	job.Dir, job.Result, job.Key = a.path(workDir), a.path(resultDir), a.it.Path()
	job.Log, job.Locks = log, []*os.File{a.it.Lock(), a.held}
	return job, nil
}

// end says what becomes of the job. earlier is the builder of the attempt before.
func (a *attempt) end(res *runner.Result, err error, earlier string) (spool.Verdict, error) {
	if errors.Is(err, remote.ErrAway) {
		return a.away()
	}
	if errors.Is(err, slurm.ErrLeft) {
		return a.leaves()
	}
	if oerr := a.over(); oerr != nil {
		return spool.Verdict{}, oerr
	}
	if v, ended, err := a.taken(a.it, a.t, res); ended || err != nil {
		return v, err
	}
	if errors.Is(err, remote.ErrLost) {
		a.record(a.it, a.t, buildlog.Lost, err.Error(), runner.Usage{})
		return a.again(a.it, a.t, err.Error()), nil
	}
	if spool.Scarce(err) {
		// No attempt: it goes back at once, and nothing is taken for a while.
		a.health.lacks(err)
		a.t.Tries--
		if serr := a.it.SetTicket(a.t.Stanza()); serr != nil {
			return spool.Verdict{}, serr
		}
		return a.again(a.it, a.t, err.Error()), nil
	}
	if err != nil {
		if errors.Is(err, runner.ErrSetup) {
			a.Log.Error("this builder cannot build", "err", err)
		}
		a.record(a.it, a.t, runner.GiveBack.String(), err.Error(), runner.Usage{})
		a.failed(a.it, a.t, earlier, err.Error())
		return a.backOff(err.Error())
	}
	first := a.record(a.it, a.t, res.Outcome.String(), res.Reason, res.Usage)
	if res.Outcome != runner.GiveBack {
		a.worked()
	} else if !res.Stopped {
		a.failed(a.it, a.t, earlier, res.Reason)
	}
	return a.judge(res, first)
}

// backOff gives a job back after our own trouble, with a delay that grows.
func (a *attempt) backOff(reason string) (spool.Verdict, error) {
	a.t.NotBefore = time.Now().Add(min(time.Minute<<min(max(a.t.Tries-1, 0), 8), 4*time.Hour))
	if err := a.it.SetTicket(a.t.Stanza()); err != nil {
		return spool.Verdict{}, err
	}
	return a.again(a.it, a.t, reason), nil
}

// judge makes a verdict on the item of what the runner found.
func (a *attempt) judge(res *runner.Result, first *buildlog.FirstError) (spool.Verdict, error) {
	if newer, err := queue.Superseded(a.Tree, a.suite.Name, a.t.Source, a.t.Version); err != nil {
		return spool.Verdict{}, err
	} else if newer != "" && a.t.BinNMU == 0 {
		reason := "superseded by version " + newer + " while it was built"
		return spool.Verdict{To: spool.In(spool.Attic), Reason: reason}, nil
	}
	switch res.Outcome {
	case runner.Good:
		return a.good(res)
	case runner.Attempted, runner.Quarantined:
		return a.bad(res, first)
	case runner.DepWait:
		a.t.DepWait = strings.Join(res.DepWait, ", ")
		return spool.Verdict{
			To: a.to(spool.DepWait), Reason: "waits for " + a.t.DepWait,
			Text: fmt.Sprintf("Waits for: %s\nIt goes on by itself when the suite has them.\n", a.t.DepWait),
		}, a.uncount()
	case runner.Uninstallable:
		a.t.Index = queue.Tried
		return spool.Verdict{
			To: a.to(spool.BDUninstallable), Reason: res.Reason,
			Text: fmt.Sprintf("Its build-dependencies cannot be installed: %s\n", res.Reason),
		}, a.uncount()
	}
	if res.Stopped {
		a.t.Tries--
		v := spool.Verdict{To: a.to(spool.NeedsBuild), Reason: "given back: the builder was stopped"}
		return v, a.it.SetTicket(a.t.Stanza())
	}
	return a.backOff(res.Reason)
}

// good is the verdict on a build with a result: signed here, or by a person.
func (a *attempt) good(res *runner.Result) (spool.Verdict, error) {
	t, signs := a.t, a.suite.LogReview == "auto"
	if signs {
		t.Result = res.Changes
		if err := a.sign(res.Text); err != nil {
			return a.backOff("sign the result: " + err.Error())
		}
	}
	t.Result, t.Tries, t.Suspect, t.DepWait = res.Changes, 0, "", ""
	if err := a.it.SetTicket(t.Stanza()); err != nil {
		return spool.Verdict{}, err
	}
	if err := share(a.it, a.path(resultDir)); err != nil {
		return spool.Verdict{}, err
	}
	if err := a.handIn(); err != nil {
		return spool.Verdict{}, err
	}
	if signs {
		if err := mail.TellGood(context.Background(), a.Tree, a.all,
			spool.Found{Place: a.it.Place, Name: a.it.Name}); err != nil {
			a.Log.Warn("mail the log", "item", a.it.Name.String(), "err", err) // it is in the store
		}
		return spool.Verdict{To: spool.In(spool.Uploaded, a.suite.Name), Reason: "built and signed"}, nil
	}
	return spool.Verdict{
		To: a.to(spool.Built), Reason: "built",
		Text: fmt.Sprintf("Built. A person reads the log and signs result/%s, or says what else should become of it: "+
			"packmill build show %s_%s\n", res.Changes, t.Source, t.Version),
	}, nil
}

// bad is the verdict on a build that failed: once more, if it looks like the
// machine's fault, or for a person.
func (a *attempt) bad(res *runner.Result, first *buildlog.FirstError) (spool.Verdict, error) {
	t := a.t
	if err := a.handIn(); err != nil {
		return spool.Verdict{}, err
	}
	// The first attempt after a person's giveback is no second one.
	if res.Suspect != "" && (t.Suspect == "" || t.Tries == 1) && t.Tries < a.suite.Tries {
		t.Suspect = a.x.Name
		return a.backOff("suspect (" + res.Suspect + "): " + why(res, first))
	}
	return spool.Verdict{
		To: a.to(spool.BuildAttempted), Reason: why(res, first),
		Text: fmt.Sprintf("The build failed: %s\n%sThe whole log: packmill log %s_%s %s\nTo try again: packmill requeue %s\n",
			res.Reason, explain(first), t.Source, t.Version, a.it.Place.Arch, a.it.Name),
	}, a.uncount()
}

// to is a state's place for the job's suite and architecture.
func (a *attempt) to(state spool.State) spool.Place {
	return spool.In(state, a.it.Place.Suite, a.it.Place.Arch)
}

// uncount forgets the attempts: one came to a verdict.
func (a *attempt) uncount() error {
	a.t.Tries, a.t.Suspect = 0, ""
	return a.it.SetTicket(a.t.Stanza())
}

// sign puts the builder's signature on the result's .changes: on text, as it was
// checked, whatever the file says by now.
func (a *attempt) sign(text []byte) error {
	if a.signed != "" {
		signed, err := a.signedThere(text)
		if err != nil {
			return err
		}
		return durable.WriteFile(a.path(resultDir, a.t.Result), signed, 0o644)
	}
	if a.x.Key == "" {
		return fmt.Errorf("the builder %s has no Key in control/builders, and Log-Review is auto", a.x.Name)
	}
	signer, err := openpgp.OpenSigner(a.all.Path(a.x.Key))
	if err != nil {
		return err
	}
	signed, err := signer.Clearsign(text, time.Now())
	if err != nil {
		return err
	}
	return durable.WriteFile(a.path(resultDir, a.t.Result), signed, 0o644)
}

// handIn puts the result, of which nothing is to be checked any more, into the item.
func (a *attempt) handIn() error {
	a.it.Dirty()
	err := durable.RemoveAll(a.it.At(resultDir))
	if err == nil {
		err = durable.RenameUnsynced(a.path(resultDir), a.it.At(resultDir))
	}
	if errors.Is(err, fs.ErrNotExist) { // nothing was run
		return nil
	}
	return err
}

// share opens a result to the item's group: the daemon
// that publishes it may be another user, and empties the directory then.
func share(it *spool.Item, dir string) error {
	st, err := it.Lock().Stat()
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
