package remote

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"packmill/internal/policy"
	"packmill/queue/runner"
	"packmill/spool"
)

// OrderOf is the job as another machine hears of it, with the files that lie beside its .dsc.
func OrderOf(job *runner.Job) (*Order, error) {
	files, err := sumsOf(filepath.Dir(job.Dsc))
	if err != nil {
		return nil, err
	}
	return orderOf(job, files), nil
}

func orderOf(job *runner.Job, files []Sum) *Order {
	o := &Order{Source: job.Source, Version: job.Version, Suite: job.Suite, Arch: job.Arch, Indep: job.Indep,
		On: job.On, CrossFrom: job.CrossFrom, Dsc: filepath.Base(job.Dsc), Files: files, Packages: job.Packages,
		BinNMU: job.BinNMU, Base: job.Base, Profiles: job.Profiles, Options: job.Options, Env: job.Env,
		ExtraDepends: job.ExtraDepends, ExtraConflicts: job.ExtraConflicts, Path: job.Path, Network: job.Network,
		Limits: job.Limits}
	for _, r := range job.Repos {
		r.Pin, r.Dir = r.PinOf(), "" // it is on this machine
		o.Repos = append(o.Repos, r)
	}
	return o
}

// Job is the order as a build in a directory, which has its source in SourceDir.
func (o *Order) Job(dir string, log *os.File) *runner.Job {
	at := func(name string) string { return filepath.Join(dir, name) }
	return &runner.Job{Source: o.Source, Version: o.Version, Suite: o.Suite, Arch: o.Arch, Indep: o.Indep,
		On: o.On, CrossFrom: o.CrossFrom, Dsc: filepath.Join(at(SourceDir), o.Dsc), Dir: at(WorkDir),
		Result:   at(ResultDir),
		Packages: o.Packages, BinNMU: o.BinNMU, Base: o.Base, Profiles: o.Profiles, Options: o.Options, Env: o.Env,
		Repos: o.Repos, ExtraDepends: o.ExtraDepends, ExtraConflicts: o.ExtraConflicts, Path: o.Path, Network: o.Network,
		Log: log, Limits: o.Limits}
}

// OutcomeOf is what the master hears of a build.
func OutcomeOf(job *runner.Job, res *runner.Result, err error) *Outcome {
	if err == nil && res == nil {
		err = errors.New("nothing was built")
	}
	if err != nil {
		return &Outcome{Reason: Clip(err.Error()), Setup: errors.Is(err, runner.ErrSetup)}
	}
	out := &Outcome{Outcome: res.Outcome.String(), Reason: res.Reason, Suspect: res.Suspect, DepWait: res.DepWait,
		Stage: res.Stage, Status: res.Status, Limit: res.Limit, Exit: res.Exit, Stopped: res.Stopped,
		CPU: res.Usage.CPU, Memory: res.Usage.Memory, Disk: res.Usage.Disk,
		CacheHits: res.Usage.CacheHits, CacheMisses: res.Usage.CacheMisses}
	if res.Outcome == runner.Good {
		if out.Files, err = sumsOf(job.Result); err != nil {
			return &Outcome{Reason: Clip(err.Error())}
		}
	}
	return out
}

// Believe takes of the outcome what a builder may say, and checks the results.
func (out *Outcome) Believe(job *runner.Job) *runner.Result {
	res := &runner.Result{Reason: Clip(out.Reason), Stage: Clip(out.Stage), Status: Clip(out.Status), Exit: out.Exit}
	if slices.Contains([]string{runner.SuspectSpace, runner.SuspectCompiler, runner.SuspectStall, runner.SuspectMemory,
		runner.SuspectTasks}, out.Suspect) {
		res.Suspect = out.Suspect
	}
	if slices.Contains([]string{runner.LimitWall, runner.LimitSilence, runner.LimitLog, runner.LimitMemory,
		runner.LimitTasks, runner.LimitDisk}, out.Limit) {
		res.Limit = out.Limit
	}
	for o := runner.GiveBack; o <= runner.Quarantined; o++ {
		if o.String() == out.Outcome {
			res.Outcome = o
		}
	}
	switch res.Outcome {
	case runner.Good:
		res.Judge(job)
	case runner.DepWait:
		text := strings.Join(out.DepWait, ", ")
		if r, err := policy.ParseRelations(text); err != nil || len(r) == 0 || len(text) > MaxOrder/64 {
			res.Outcome, res.Reason = runner.GiveBack, "the builder reports missing dependencies, and they are no relations"
			break
		}
		res.DepWait = out.DepWait
	case runner.GiveBack:
		res.Stopped = out.Stopped
	}
	return res
}

// Usage is what the builder says that the build took, within reason.
func (out *Outcome) Usage(begin time.Time, logged int64) runner.Usage {
	now := time.Now()
	u := runner.Usage{Start: begin, End: now, Log: logged, Memory: max(0, out.Memory), Disk: max(0, out.Disk)}
	const most = 1 << 40
	u.CacheHits, u.CacheMisses = min(max(0, out.CacheHits), most), min(max(0, out.CacheMisses), most)
	u.CPU = min(max(0, out.CPU), now.Sub(begin)*1024)
	return u
}

// Clip makes one line of bounded length of what the builder says.
func Clip(s string) string {
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") + " ..."
	}
	return spool.OneLine(s)
}

// MaxLog is how much of a builder's log is taken.
func MaxLog(l runner.Limits) int64 {
	most := l.Log
	if most <= 0 {
		most = maxLog
	}
	return most + most/8 + 1<<20 // what the builder's runner says after its own limit
}
