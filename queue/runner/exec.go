package runner

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"packmill/internal/policy"
	"packmill/queue/runner/cage"
)

// Exec builds with any program.
//
// The program runs in Job.Dir with standard input empty, standard output and
// error as the log, no other descriptor, and in its environment
// PATH, HOME (the work directory), LANG=C.UTF-8 and
//
//	PACKMILL_DSC      path of the .dsc
//	PACKMILL_SUITE    the suite the result is for
//	PACKMILL_ARCH     the architecture, or "all"
//	PACKMILL_BINNMU   N of +bN, or empty
//	PACKMILL_BINNMU_BY  who stands in its changelog: the builder
//	PACKMILL_EXTRA_DEPENDS, PACKMILL_EXTRA_CONFLICTS   further relations
//	DEB_BUILD_PROFILES, DEB_BUILD_OPTIONS              if there are any
//	PACKMILL_RESULT   directory for the results
//
// It protects the machine from nothing that the program starts: that is the user,
// with the user's files, groups and network. All of it ends with the build, and
// if the daemon is root it has a pid namespace of its own.
//
// Exit status 0: good, and a .changes with its files lies in
// $PACKMILL_RESULT. 2: the build failed. 3: dependencies are missing, one
// relation a line in $PACKMILL_RESULT/dep-wait. Anything else, and the end by
// a signal: infrastructure, give back.
type Exec struct {
	Path string   // the program, an absolute path
	Args []string // its arguments
	User string   // run it as this user; empty: as the daemon's
	Env  []string // KEY=VALUE, further environment
	// SharePIDs leaves the program in the machine's pid namespace even if
	// the daemon is root. For programs that tell other services their
	// process number.
	SharePIDs bool
}

// Ready looks whether the program is there.
func (r *Exec) Ready(string) error {
	if !filepath.IsAbs(r.Path) {
		return fmt.Errorf("builder %q is not an absolute path: %w", r.Path, ErrSetup)
	}
	if st, err := os.Stat(r.Path); err != nil {
		return fmt.Errorf("builder: %w: %w", err, ErrSetup)
	} else if !st.Mode().IsRegular() || st.Mode()&0o111 == 0 {
		return fmt.Errorf("builder %s is not an executable file: %w", r.Path, ErrSetup)
	}
	return nil
}

// Run builds the job.
func (r *Exec) Run(ctx context.Context, job *Job) (*Result, error) {
	begin := time.Now()
	if err := errors.Join(job.check(), r.Ready(job.Arch)); err != nil {
		return nil, err
	}
	if err := errors.Join(empty(job.Dir), empty(job.Result)); err != nil {
		return nil, err
	}
	o := &cage.Order{Argv: append([]string{r.Path}, r.Args...), Env: r.environment(job), Dir: job.Dir, Nice: job.Nice,
		Own: os.Getuid() == 0 && !r.SharePIDs}
	if r.User != "" {
		user, err := cage.LookupAccount(r.User)
		if err != nil {
			return nil, err
		}
		if os.Getuid() == 0 {
			o.User = user
		}
		if err := errors.Join(chown(job.Dir, user), chown(job.Result, user)); err != nil {
			return nil, fmt.Errorf("build directories: %w", err)
		}
	}
	ready := time.Now()
	x, err := job.cage(job.Dir, job.Result).Run(ctx, o)
	if err != nil {
		return nil, err
	}
	after := time.Now()
	if err := takeBack(job.Result); err != nil {
		return nil, err
	}
	res := r.result(job, x)
	res.Usage.Overhead = ready.Sub(begin) + time.Since(after)
	return res, nil
}

// environment is what the program is told.
func (r *Exec) environment(job *Job) []string {
	number, by := "", ""
	if n := job.BinNMU; n != nil {
		number, by = strconv.Itoa(n.Number), n.maintainer()
	}
	env := append([]string{
		"PATH=" + cage.DefaultPath,
		"HOME=" + job.Dir,
		"LANG=C.UTF-8",
		"PACKMILL_DSC=" + job.Dsc,
		"PACKMILL_SUITE=" + job.Suite,
		"PACKMILL_ARCH=" + job.Arch,
		"PACKMILL_BINNMU=" + number,
		"PACKMILL_BINNMU_BY=" + by,
		"PACKMILL_EXTRA_DEPENDS=" + job.ExtraDepends,
		"PACKMILL_EXTRA_CONFLICTS=" + job.ExtraConflicts,
		"PACKMILL_RESULT=" + job.Result,
	}, r.Env...)
	if len(job.Profiles) > 0 {
		env = append(env, "DEB_BUILD_PROFILES="+strings.Join(job.Profiles, " "))
	}
	if options := job.buildOptions(); options != "" {
		env = append(env, "DEB_BUILD_OPTIONS="+options)
	}
	return env
}

// result judges how the program ended.
func (r *Exec) result(job *Job, x *cage.Exit) *Result {
	res := &Result{Exit: x.Exit, Usage: x.Usage, Limit: x.Limit, Stopped: x.Stopped}
	if res.ended(job, x) {
		return res
	}
	name := filepath.Base(r.Path)
	switch {
	case x.Signal != 0:
		res.Exit = -1
		res.Reason = fmt.Sprintf("the builder %s was ended by signal %d (%s)", name, x.Signal, syscall.Signal(x.Signal))
	case x.Exit == 0:
		res.Judge(job)
	case x.Exit == 2:
		res.attempted(job, "the build failed")
	case x.Exit == 3:
		deps, err := readDepWait(filepath.Join(job.Result, "dep-wait"))
		if err != nil {
			res.Reason = fmt.Sprintf("the builder reports missing dependencies (exit 3), but %v", err)
			break
		}
		res.Outcome, res.DepWait = DepWait, deps
		res.Reason = "waits for " + strings.Join(deps, ", ")
	default:
		res.Reason = fmt.Sprintf("the builder %s ended with exit status %d, which is trouble of the builder and not of "+
			"the package", name, x.Exit)
	}
	return res
}

// cage is what the job runs in; the size of these directories is watched.
func (j *Job) cage(disk ...string) *cage.Cage {
	return &cage.Cage{Log: j.Log, Lock: slices.Clone(j.Locks), Limits: j.Limits, Disk: disk}
}

// ended fills in a result for a build that did not come to its own end, says
// in the log why it ends there, and reports whether it was one.
func (res *Result) ended(job *Job, x *cage.Exit) bool {
	l := job.Limits
	switch {
	case x.Stopped:
		res.Outcome, res.Reason, res.Exit = GiveBack, "the build was stopped", -1
	case x.Limit == LimitWall:
		res.Outcome, res.Reason = Attempted, fmt.Sprintf("the build was ended after %v, the limit of time", l.Wall)
	case x.Limit == LimitSilence:
		res.Outcome, res.Suspect, res.Reason = Attempted, SuspectStall,
			fmt.Sprintf("the build was ended after %v without output", l.Silence)
	case x.Limit == LimitLog:
		res.Outcome, res.Reason = Attempted, fmt.Sprintf("the build was ended when its log reached %s, the limit",
			bytesText(l.Log))
	case x.Limit == LimitMemory && l.Memory <= 0:
		res.Outcome, res.Suspect = Attempted, SuspectMemory
		res.Reason = "the build was out of memory: the kernel ended it at a limit that others set (Slurm's, or a container's)"
	case x.Limit == LimitMemory:
		res.Outcome, res.Suspect, res.Reason = Attempted, SuspectMemory, fmt.Sprintf("the build was ended when it used "+
			"more than %s of memory, the limit", bytesText(l.Memory))
	case x.Limit == LimitTasks:
		res.Outcome, res.Suspect, res.Reason = Attempted, SuspectTasks, fmt.Sprintf("the build was ended when it started "+
			"more than %d processes and threads, the limit", l.Tasks)
	case x.Limit == LimitDisk:
		res.Outcome, res.Suspect, res.Reason = Attempted, SuspectSpace, fmt.Sprintf("the build was ended when it used "+
			"more than %s of disk, the limit", bytesText(l.Disk))
	case x.Killed:
		res.Outcome, res.Reason, res.Exit = GiveBack, "the build was killed from outside", -1
	default:
		return false
	}
	if x.Limit != "" {
		res.Exit = -1
	}
	if job.Log != nil {
		n, _ := fmt.Fprintf(job.Log, "\npackmill: %s\n", res.Reason) // the item has the reason, too
		res.Usage.Log += int64(n)
	}
	return true
}

// bytesText writes a number of bytes for people.
func bytesText(n int64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 10<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 10<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}

// attempted marks the build as failed, and as suspect if the end of its log
// shows a fault of the machine.
func (res *Result) attempted(job *Job, reason string) {
	res.Outcome, res.Reason = Attempted, reason
	tail, err := tailOf(job.Log, 256<<10)
	if err != nil {
		return
	}
	res.Suspect = suspect(tail)
	switch res.Suspect {
	case SuspectSpace:
		res.Reason += "; the log says that no space was left, so it may not be the package's fault"
	case SuspectCompiler:
		res.Reason += "; a compiler crashed, so it may not be the package's fault"
	case SuspectTasks:
		res.Reason += "; no more processes could be started, so it may not be the package's fault"
	case SuspectMemory:
		res.Reason += "; memory ran out, so it may not be the package's fault"
	}
}

// Judge turns a claim of success into a verdict on the results.
func (res *Result) Judge(job *Job) {
	name, text, err := Check(job)
	var forged *Forged
	switch {
	case err == nil:
		res.Outcome, res.Changes, res.Text = Good, name, text
		res.Reason = "built"
	case errors.As(err, &forged):
		res.Outcome, res.Reason = Quarantined, forged.Error()
	default:
		res.Outcome, res.Reason = GiveBack, err.Error()
	}
}

// readDepWait reads the relations that an Exec builder waits for: one a line,
// a bare name or one with >= or >>, and no alternatives.
func readDepWait(path string) ([]string, error) {
	f, err := openPlain(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var deps []string
	s := bufio.NewScanner(f)
	for s.Scan() && len(deps) < 1000 {
		line := strings.TrimSpace(s.Text())
		if line == "" {
			continue
		}
		r, err := policy.ParseRelations(line)
		if err != nil {
			return nil, fmt.Errorf("%s is not readable: %w", filepath.Base(path), err)
		}
		if len(r) != 1 || len(r[0]) != 1 || r[0][0].Op != "" && r[0][0].Op != ">=" && r[0][0].Op != ">>" {
			return nil, fmt.Errorf("%s: %q is not one package with at most >= or >>", filepath.Base(path), line)
		}
		deps = append(deps, r.String())
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	if len(deps) == 0 {
		return nil, fmt.Errorf("%s names no package", filepath.Base(path))
	}
	return deps, nil
}
