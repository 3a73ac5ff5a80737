package slurm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"packmill/internal/durable"
	"packmill/internal/regular"
	"packmill/queue/runner"
	"packmill/queue/runner/remote"
)

// Build is one attempt at a job, at the master: what its Run begins, the Run of a later process goes on with.
type Build struct {
	*Cluster
	Options
	Token string

	Master, Item string          // whose it is, for Sweep
	Builder      json.RawMessage // for the node's program
	Archive      string          // where the nodes see the master's archive: a URL, or a directory
	LogStart     int64           // where the node's log begins in the job's
	Resumed      bool            // an earlier process may have submitted it
	Since        time.Time       // when the attempt began
	Leave        <-chan struct{} // closed when this process ends: ErrLeft
	Heard        func()          // called now and then
	Says         func(string)    // hears now and then Slurm's word why the job does not run yet, and "" when it does
	Trouble      func(error)     // hears what passes, and is tried again
	Patience     time.Duration   // how long one is tried again, until ErrLeft; 0: for ever
	Room         func(bytes int64) error
}

// name is what people see in squeue(1), and what Slurm is asked for.
func (b *Build) name(job *runner.Job) string {
	return fmt.Sprintf("packmill-%s_%s_%s-%s", job.Source, job.BinaryVersion(), job.Arch, b.Token)
}

// Run builds the job on a node.
func (b *Build) Run(ctx context.Context, job *runner.Job) (*runner.Result, error) {
	b.running.Add(1)
	defer b.running.Add(-1)
	f := &following{Build: b, job: job, dir: b.job(b.Token), slurm: b.name(job)}
	if err := b.Check(); err != nil {
		return nil, err
	}
	if err := f.lay(); err != nil {
		return nil, fmt.Errorf("the job's directory in Shared: %w", err)
	}
	if err := f.submit(ctx); err != nil {
		return nil, err
	}
	return f.follow(ctx)
}

// following is a job that Slurm has, or is about to get.
type following struct {
	*Build
	job    *runner.Job
	dir    string // the job's, in the shared directory
	slurm  string // Slurm's name of the job
	logged int64

	since time.Time // when the trouble began that there is; zero: none
	asked time.Time // when Slurm was last asked
	seen  bool      // Slurm knew the job
	ends  int       // how often in a row Slurm said that it is over, or knew nothing of it
}

// halfSuffix ends the name of a job's directory that is being made.
const halfSuffix = ".half"

// lay makes the job's directory, unless it is there.
func (f *following) lay() error {
	if _, err := os.Lstat(f.dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	half := f.dir + halfSuffix
	if err := durable.RemoveAll(half); err != nil {
		return err
	}
	o, err := f.order()
	if err != nil {
		return err
	}
	for _, dir := range []string{"", remote.SourceDir, remote.WorkDir, remote.ResultDir} {
		if err := os.Mkdir(filepath.Join(half, dir), 0o755); err != nil {
			return err
		}
	}
	for _, x := range o.Files {
		from := filepath.Join(filepath.Dir(f.job.Dsc), x.Name)
		if err := regular.Copy(from, filepath.Join(half, remote.SourceDir, x.Name)); err != nil {
			return err
		}
	}
	for name, what := range map[string]any{remote.OrderFile: o, ownerFile: owner{f.Master, f.Item, f.slurm}} {
		text, err := json.Marshal(what)
		if err == nil {
			err = os.WriteFile(filepath.Join(half, name), text, 0o644)
		}
		if err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(half, remote.LogFile), nil, 0o644); err != nil {
		return err
	}
	if err := durable.SyncTree(half); err != nil {
		return err
	}
	return durable.Replace(half, f.dir)
}

// order is what the node hears.
func (f *following) order() (*Order, error) {
	ro, err := remote.OrderOf(f.job)
	if err != nil {
		return nil, err
	}
	for i := range ro.Repos {
		if ro.Repos[i].URI == "" {
			ro.Repos[i].Dir = f.Archive
		}
		if web.MatchString(ro.Repos[i].Dir) {
			ro.Repos[i].URI, ro.Repos[i].Dir = ro.Repos[i].Dir, ""
		}
	}
	return &Order{Order: *ro, Protocol: remote.Newest, Builder: f.Builder}, nil
}

// submit gives the job to Slurm, unless Slurm has it. It may do so twice: the second run finds it taken.
func (f *following) submit(ctx context.Context) error {
	for {
		had := f.Resumed && (f.has(takenFile) || f.has(remote.OutcomeFile))
		var err error
		if f.Resumed && !had {
			var states map[string]State
			states, err = f.ask(ctx, 0)
			_, had = states[f.slurm]
		}
		if had {
			return nil
		}
		if err == nil {
			_, err = run(ctx, f.script(f.dir), f.sbatch(f.slurm, f.dir, f.job.Limits)...)
		}
		if !errors.Is(err, errAway) {
			return err
		}
		if f.trouble(err) {
			return ErrLeft
		}
		f.Resumed = true // it may have come through all the same
		select {
		case <-ctx.Done():
			return nil // follow cancels it
		case <-f.Leave:
			return ErrLeft
		case <-time.After(f.every()):
			f.Heard()
		}
	}
}

// trouble says what may pass, and reports whether a later process shall see it pass.
func (f *following) trouble(err error) (leave bool) {
	f.Trouble(err)
	if f.since.IsZero() {
		f.since = time.Now()
	}
	return f.Patience > 0 && time.Since(f.since) > f.Patience
}

func (f *following) has(name string) bool {
	_, err := os.Lstat(filepath.Join(f.dir, name))
	return err == nil
}

// pause is between two looks at the files of a job: they are many, and a file server's.
func (f *following) pause() time.Duration {
	return 250 * time.Millisecond * time.Duration(1+f.running.Load()/50)
}

// follow copies the log and waits for the outcome, or for Slurm's word that there will be none.
func (f *following) follow(ctx context.Context) (*runner.Result, error) {
	for {
		var out remote.Outcome
		err := readJSON(filepath.Join(f.dir, remote.OutcomeFile), &out)
		if flood := f.copyLog(); flood != nil {
			return f.endBy(flood.Error())
		}
		switch {
		case ctx.Err() != nil:
			f.end()
			return &runner.Result{Reason: "the build was stopped", Stopped: true, Exit: -1}, nil
		case err == nil && !out.Stopped:
			return f.take(ctx, &out)
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return nil, fmt.Errorf("outcome of %s: %w", f.slurm, err)
		}
		if res, err := f.look(ctx); res != nil || err != nil {
			return res, err
		}
		select {
		case <-ctx.Done():
		case <-f.Leave:
			return nil, ErrLeft
		case <-time.After(f.pause()):
		}
	}
}

// copyLog appends what the node's log has beyond the job's.
func (f *following) copyLog() error {
	st, err := f.job.Log.Stat()
	if err != nil {
		return err
	}
	f.logged = st.Size() - f.LogStart
	from, err := regular.Open(filepath.Join(f.dir, remote.LogFile))
	if err != nil {
		return nil // the next look, or Slurm, tells more
	}
	defer from.Close()
	most := remote.MaxLog(f.job.Limits)
	n, err := io.Copy(f.job.Log, io.NewSectionReader(from, f.logged, most-f.logged+1))
	if f.logged += n; err == nil && f.logged > most {
		err = errors.New("the node writes more log than the limit allows")
	}
	return err
}

// look asks Slurm now and then. A result or an error says that there will be no outcome.
func (f *following) look(ctx context.Context) (*runner.Result, error) {
	if time.Since(f.asked) < f.every() {
		return nil, nil
	}
	f.asked = time.Now()
	f.Heard()
	states, err := f.ask(ctx, f.every()/2)
	if err != nil {
		if f.trouble(err) {
			return nil, ErrLeft
		}
		return nil, nil // it is no answer
	}
	f.since = time.Time{}
	s, known := states[f.slurm]
	f.seen = f.seen || known
	switch {
	case known && s.State == "PENDING" && slices.Contains(never, s.Reason):
		f.end()
		return nil, fmt.Errorf("Slurm will never begin the job as it was submitted (%s): see Slurm, Timeout and Memory of "+
			"the builder: %w", s.Reason, runner.ErrSetup)
	case known && !slices.Contains(over, s.State):
		f.ends = 0
		f.say(s)
		return f.late()
	}
	// A file server may show the outcome a little after Slurm has seen the end.
	if f.ends++; f.ends < 3 {
		return nil, nil
	}
	return f.lost(s, known), nil
}

// say tells why the job does not run yet.
func (f *following) say(s State) {
	if s.State == "RUNNING" {
		f.Says("")
	} else {
		f.Says("Slurm: " + s.String())
	}
}

// late ends a run that Slurm should have ended long ago.
func (f *following) late() (*runner.Result, error) {
	st, err := os.Lstat(filepath.Join(f.dir, takenFile))
	if wall := f.job.Limits.Wall; err != nil || wall <= 0 || time.Since(st.ModTime()) < wall+wall/4+time.Hour {
		return nil, nil
	}
	return f.endBy("neither the node nor Slurm keeps the limit of time")
}

// lost is the result of a job that has ended without an outcome.
func (f *following) lost(s State, known bool) *runner.Result {
	res := &runner.Result{Outcome: runner.GiveBack, Reason: "Slurm ended the job: " + s.String(), Exit: -1}
	var by taken
	ran := readJSON(filepath.Join(f.dir, takenFile), &by) == nil
	switch {
	case !known && ran:
		res.Reason = "Slurm has forgotten the job, which ran on " + by.Node + " and left no outcome"
	case !known:
		res.Reason = "Slurm has forgotten the job before it ran"
	case s.State == "OUT_OF_MEMORY":
		res.Outcome, res.Limit, res.Suspect = runner.Attempted, runner.LimitMemory, runner.SuspectMemory
	case s.State == "TIMEOUT":
		res.Outcome, res.Limit, res.Suspect = runner.Attempted, runner.LimitWall, runner.SuspectStall
	case !ran:
		if said, err := regular.Read(filepath.Join(f.dir, slurmFile), 4<<10); err == nil && len(said) > 0 {
			res.Reason += ": " + remote.Clip(string(said))
		}
	}
	f.cancel(f.slurm) // what Slurm has given up may run all the same
	fmt.Fprintf(f.job.Log, "\npackmill: %s\n", res.Reason)
	return res
}

// end cancels the job and waits a while until nothing of it runs.
func (f *following) end() {
	ctx := context.Background()
	for until := time.Now().Add(endWithin); ; time.Sleep(time.Second) {
		err := f.cancel(f.slurm)
		states, aerr := f.ask(ctx, 0)
		s, known := states[f.slurm]
		if err == nil && aerr == nil && (!known || slices.Contains(over, s.State)) || f.has(remote.OutcomeFile) ||
			time.Now().After(until) {
			return
		}
	}
}

// endWithin is how long a job may take to end that was cancelled: longer than KillWait usually is.
const endWithin = 40 * time.Second

func (f *following) endBy(reason string) (*runner.Result, error) {
	f.end()
	return &runner.Result{Reason: reason, Exit: -1}, nil
}

// take copies the results of a good build and judges them here.
func (f *following) take(ctx context.Context, out *remote.Outcome) (*runner.Result, error) {
	where := f.slurm
	var by taken
	if readJSON(filepath.Join(f.dir, takenFile), &by) == nil {
		where = "node " + remote.Clip(by.Node)
	}
	switch {
	case out.Outcome == "" && out.Setup:
		return nil, fmt.Errorf("on %s: %s: %w", where, remote.Clip(out.Reason), runner.ErrSetup)
	case out.Outcome == "":
		return nil, fmt.Errorf("on %s: %s", where, remote.Clip(out.Reason))
	}
	for {
		err := f.fetch(out)
		if err == nil {
			break
		}
		if errors.Is(err, errTake) {
			return &runner.Result{Reason: err.Error(), Exit: -1}, nil
		}
		if f.trouble(err) {
			return nil, ErrLeft
		}
		select {
		case <-ctx.Done():
			return &runner.Result{Reason: "the build was stopped", Stopped: true, Exit: -1}, nil
		case <-f.Leave:
			return nil, ErrLeft
		case <-time.After(f.every()):
			f.Heard()
		}
	}
	res := out.Believe(f.job)
	res.Usage = out.Usage(f.Since, f.logged)
	return res, nil
}

// errTake says that the results are none that anybody should keep.
var errTake = errors.New("the node's results are not taken")

// fetch copies the results. Its error, but for errTake, is this machine's or the file server's trouble: what was built
// waits.
func (f *following) fetch(out *remote.Outcome) error {
	for _, dir := range []string{f.job.Dir, f.job.Result} {
		if err := errors.Join(durable.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
			return err
		}
	}
	if out.Outcome != runner.Good.String() {
		return nil
	}
	most := f.job.Limits.Disk
	if most <= 0 {
		most = remote.MaxResult
	}
	if err := remote.CheckSums(out.Files, most); err != nil {
		return fmt.Errorf("%w: %w", errTake, err)
	}
	var bytes int64
	for _, x := range out.Files {
		bytes += x.Size
	}
	if err := f.Room(bytes); err != nil {
		return err
	}
	for _, x := range out.Files {
		from := filepath.Join(f.dir, remote.ResultDir, x.Name)
		if st, err := os.Lstat(from); err != nil {
			return err
		} else if st.Size() != x.Size {
			return fmt.Errorf("%w: %s has not the size that the node said", errTake, x.Name)
		}
		if err := regular.Copy(from, filepath.Join(f.job.Result, x.Name)); err != nil {
			return err
		}
	}
	if err := remote.Sound(f.job.Result, out.Files); err != nil {
		return fmt.Errorf("%w: %w", errTake, err)
	}
	return durable.SyncTree(f.job.Result)
}
