package slurm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"packmill/internal/deb/debtest"
	"packmill/queue/runner"
	"packmill/queue/runner/remote"
)

// TestQueue reads what real squeue(1) has said.
func TestQueue(t *testing.T) {
	text, err := os.ReadFile("testdata/squeue")
	if err != nil {
		t.Fatal(err)
	}
	states := parseQueue(string(text))
	for name, want := range map[string]string{
		"packmill-a_1_amd64": "PENDING (Resources)", "packmill-c_1_amd64": "COMPLETED on n1",
		"packmill-b_1_amd64": "PENDING (ReqNodeNotAvail, UnavailableNodes:n1)", "packmill-e_1_amd64": "CANCELLED on n1",
		"packmill-d_1_amd64": "FAILED (NonZeroExitCode) on n1", "packmill-f_1_amd64": "RUNNING on n1",
		"packmill-g_1_amd64": "NODE_FAIL (NodeDown) on n1",
		"packmill-twice":     "RUNNING on n2", // the one that is not over
	} {
		if got := states[name].String(); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

// TestTrouble tells what passes from what does not, by what Slurm's commands have said: all of them end with 1.
func TestTrouble(t *testing.T) {
	failed := errors.New("exit status 1")
	const failure = "sbatch: error: Batch job submission failed: "
	for said, want := range map[string]error{
		failure + "Unable to contact slurm controller (connect failure)":                              errAway,
		"slurm_load_jobs error: Unable to contact slurm controller (connect failure)":                 errAway,
		"sbatch: error: Munge encode failed: Failed to access \"/run/munge/munge.socket.2\": No such": runner.ErrSetup,
		"sbatch: error: invalid partition specified: nowhere":                                         failed,
		failure + "Requested time limit is invalid (missing or exceeds some limit)":                   failed,
	} {
		err := trouble("sbatch", failed, said)
		for _, kind := range []error{errAway, runner.ErrSetup} {
			if errors.Is(err, kind) != (kind == want) {
				t.Errorf("%s: got %v, want %v", said, err, want)
			}
		}
	}
	if err := trouble("sbatch", nil, "sbatch: warning"); err != nil {
		t.Error(err)
	}
}

func TestSbatch(t *testing.T) {
	o := Options{Partition: "build", Constraint: "a&b", QOS: "low", Account: "x", CPUs: 4, Tmp: 1 << 30}
	got := o.sbatch("packmill-hello_1_amd64-0", "/jobs/0", runner.Limits{Wall: time.Hour, Memory: 1 << 30, Disk: 2 << 30})
	want := strings.Fields("sbatch --parsable --no-requeue --export=ALL --open-mode=append --input=/dev/null " +
		"--ntasks=1 --chdir=/ --job-name=packmill-hello_1_amd64-0 --output=/jobs/0/slurm --cpus-per-task=4 --partition=build " +
		"--constraint=a&b --qos=low --account=x --time=75 --mem=3328M --tmp=1024M")
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if got := (&Options{}).sbatch("n", "/jobs/0", runner.Limits{Disk: 1 << 30}); slices.ContainsFunc(got, func(s string) bool {
		return strings.HasPrefix(s, "--mem") || strings.HasPrefix(s, "--time")
	}) {
		t.Errorf("limits of its own: %q", got)
	}
}

// bed is a job of the cluster, as it is laid for a node.
type bed struct {
	*testing.T
	*following
}

func newBed(t *testing.T) *bed {
	t.Helper()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"source", "jobs", "item"} {
		if err := os.Mkdir(at(name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(at("source/hello_1.dsc"), []byte("a source\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(at("item/log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	job := &runner.Job{Source: "hello", Version: "1", Suite: "stable", Arch: "amd64", Dsc: at("source/hello_1.dsc"),
		Dir: at("item/work"), Result: at("item/result"), Log: log, Repos: []runner.Repo{{Dir: "/archive", Suite: "stable"}}}
	b := &Build{Cluster: &Cluster{Dir: at("jobs"), Program: "/usr/bin/buildd"}, Token: strings.Repeat("0f", 16),
		Master: "m:/tree", Item: at("item"), Archive: "http://packages/", Builder: json.RawMessage(`"x"`),
		Heard: func() {}, Says: func(string) {}, Trouble: func(error) {}, Room: func(int64) error { return nil }}
	f := &following{Build: b, job: job, dir: b.job(b.Token), slurm: b.name(job)}
	if err := f.lay(); err != nil {
		t.Fatal(err)
	}
	return &bed{t, f}
}

// good builds as a builder does whose build is good.
func good(_ context.Context, _ *Order, job *runner.Job) (*runner.Result, error) {
	fmt.Fprintln(job.Log, "it builds")
	u := debtest.Upload{Source: debtest.Source{Name: "hello", Version: "1"}, NoSource: true, Distribution: "stable",
		Debs: []debtest.Deb{{Name: "hello", Version: "1", Arch: "amd64"}}}
	if _, err := u.Write(job.Result); err != nil {
		return nil, err
	}
	res := &runner.Result{}
	res.Judge(job)
	return res, nil
}

// outcome is what the node left.
func (b *bed) outcome() *remote.Outcome {
	b.Helper()
	var out remote.Outcome
	if err := readJSON(filepath.Join(b.dir, remote.OutcomeFile), &out); err != nil {
		b.Fatal(err)
	}
	return &out
}

// TestNode: a job is built by the first run of it alone, and the master takes what that made.
func TestNode(t *testing.T) {
	b := newBed(t)
	if err := b.lay(); err != nil {
		t.Errorf("laid again, as after a crash: %v", err)
	}
	runs := 0
	build := func(ctx context.Context, o *Order, job *runner.Job) (*runner.Result, error) {
		if runs++; string(o.Builder) != `"x"` || o.Repos[0].URI != "http://packages/" || o.Repos[0].Dir != "" {
			t.Errorf("the node heard %+v", o)
		}
		return good(ctx, o, job)
	}
	for range 2 {
		if err := Node(t.Context(), b.dir, build); err != nil {
			t.Fatal(err)
		}
	}
	if runs != 1 {
		t.Errorf("it was built %d times, want once", runs)
	}
	if err := b.copyLog(); err != nil {
		t.Error(err)
	}
	res, err := b.take(t.Context(), b.outcome())
	if err != nil || res.Outcome != runner.Good || res.Changes != "hello_1_amd64.changes" {
		t.Fatalf("got %+v, %v", res, err)
	}
	if log, err := os.ReadFile(b.job.Log.Name()); err != nil || string(log) != "it builds\n" {
		t.Errorf("log %q, %v", log, err)
	}
	if err := b.Forget(b.Token); err != nil || b.has("") {
		t.Errorf("forgotten: %v", err)
	}
}

// TestNodeRefuses: no node builds what its master did not send, or what it does not understand.
func TestNodeRefuses(t *testing.T) {
	for name, spoil := range map[string]func(b *bed) error{
		"SHA-256": func(b *bed) error {
			return os.WriteFile(filepath.Join(b.dir, "source/hello_1.dsc"), []byte("another\n"), 0o644)
		},
		"version 99 of the protocol": func(b *bed) error {
			o, err := b.order()
			if err != nil {
				return err
			}
			o.Protocol = 99
			text, err := json.Marshal(o)
			return errors.Join(err, os.WriteFile(filepath.Join(b.dir, remote.OrderFile), text, 0o644))
		},
	} {
		b := newBed(t)
		if err := spoil(b); err != nil {
			t.Fatal(err)
		}
		err := Node(t.Context(), b.dir, func(context.Context, *Order, *runner.Job) (*runner.Result, error) {
			t.Errorf("%s: it was built", name)
			return nil, nil
		})
		if out := b.outcome(); err != nil || out.Outcome != "" || !strings.Contains(out.Reason, name) {
			t.Errorf("%s: got %+v, %v", name, out, err)
		}
		if _, err := b.take(t.Context(), b.outcome()); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: the master says %v", name, err)
		}
	}
}

// TestNodeEnds: a run that Slurm ends says so, and one that nobody waits for ends itself.
func TestNodeEnds(t *testing.T) {
	until := func(ctx context.Context, _ *Order, _ *runner.Job) (*runner.Result, error) {
		<-ctx.Done()
		return &runner.Result{Outcome: runner.Attempted, Reason: "its compiler was killed"}, nil
	}
	b := newBed(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Node(ctx, b.dir, until); err != nil {
		t.Fatal(err)
	}
	if out := b.outcome(); !out.Stopped || out.Outcome != "give-back" {
		t.Errorf("a run that was ended: %+v", out)
	}
	b = newBed(t)
	synctest.Test(t, func(t *testing.T) { // so that the five seconds until it looks take none
		forgotten := func(ctx context.Context, o *Order, job *runner.Job) (*runner.Result, error) {
			if err := b.Forget(b.Token); err != nil {
				t.Error(err)
			}
			return until(ctx, o, job)
		}
		if err := Node(t.Context(), b.dir, forgotten); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a run whose directory is gone: %v", err)
		}
	})
}

// TestSweep: what a removal left that a death cut off goes, and a job that somebody waits for stays.
func TestSweep(t *testing.T) {
	waited, cut := newBed(t), newBed(t)
	cut.Cluster.Dir = waited.Cluster.Dir
	left := filepath.Join(waited.Cluster.Dir, strings.Repeat("a", len(waited.Token)))
	if err := errors.Join(os.Rename(cut.dir, left), os.Remove(filepath.Join(left, ownerFile))); err != nil {
		t.Fatal(err)
	}
	if err := waited.Cluster.Sweep("master", func(string, string) bool { return true }); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(left); !errors.Is(err, fs.ErrNotExist) || !waited.has(ownerFile) {
		t.Errorf("what nobody owns: %v; the job is there: %t", err, waited.has(ownerFile))
	}
}

// TestLost: what becomes of a job that ended without an outcome.
func TestLost(t *testing.T) {
	for _, x := range []struct {
		state   State
		known   bool
		ran     bool
		outcome runner.Outcome
		reason  string
	}{
		{State{"NODE_FAIL", "NodeDown", "n1"}, true, true, runner.GiveBack, "NODE_FAIL (NodeDown) on n1"},
		{State{"CANCELLED", "None", "n1"}, true, true, runner.GiveBack, "CANCELLED on n1"},
		{State{"OUT_OF_MEMORY", "OutOfMemory", "n1"}, true, true, runner.Attempted, "OUT_OF_MEMORY"},
		{State{"TIMEOUT", "TimeLimit", "n1"}, true, true, runner.Attempted, "TIMEOUT"},
		{State{}, false, true, runner.GiveBack, "ran on here and left no outcome"},
		{State{}, false, false, runner.GiveBack, "before it ran"},
		{State{"FAILED", "NonZeroExitCode", "n1"}, true, false, runner.GiveBack, "buildd: not found"},
	} {
		b := newBed(t)
		t.Setenv("SLURMD_NODENAME", "here")
		if x.ran {
			if err := take(b.dir); err != nil {
				t.Fatal(err)
			}
		} else if err := os.WriteFile(filepath.Join(b.dir, slurmFile), []byte("buildd: not found\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PATH", "") // Slurm is not asked: the job is over
		if res := b.lost(x.state, x.known); res.Outcome != x.outcome || !strings.Contains(res.Reason, x.reason) ||
			(res.Outcome == runner.Attempted) != (res.Suspect != "") {
			t.Errorf("%v: got %+v", x.state, res)
		}
	}
}

// TestHostileNode: what a node, or who is its account there, leaves is bounded, and none of it is followed.
func TestHostileNode(t *testing.T) {
	for name, spoil := range map[string]func(b *bed, out *remote.Outcome) error{
		"a path": func(_ *bed, out *remote.Outcome) error {
			out.Files[0].Name = "../owner"
			return nil
		},
		"more than Disk": func(b *bed, _ *remote.Outcome) error {
			b.job.Limits.Disk = 10
			return nil
		},
		"other bytes": func(b *bed, out *remote.Outcome) error {
			return os.WriteFile(filepath.Join(b.dir, remote.ResultDir, out.Files[0].Name),
				make([]byte, out.Files[0].Size), 0o644)
		},
		"a file that grows": func(b *bed, out *remote.Outcome) error {
			return os.Truncate(filepath.Join(b.dir, remote.ResultDir, out.Files[0].Name), 1<<30)
		},
		"another source's result": func(b *bed, _ *remote.Outcome) error {
			b.job.Source = "other"
			return nil
		},
	} {
		b := newBed(t)
		if err := Node(t.Context(), b.dir, good); err != nil {
			t.Fatal(err)
		}
		out := b.outcome()
		if err := spoil(b, out); err != nil {
			t.Fatal(err)
		}
		res, err := b.take(t.Context(), out)
		if err != nil || res.Outcome == runner.Good || len(res.Text) > 0 {
			t.Errorf("%s: got %+v, %v", name, res, err)
		}
	}
	// A link is not followed: it waits until a person looks, or the file is there.
	b := newBed(t)
	if err := Node(t.Context(), b.dir, good); err != nil {
		t.Fatal(err)
	}
	out := b.outcome()
	file := filepath.Join(b.dir, remote.ResultDir, out.Files[0].Name)
	if err := errors.Join(os.Rename(file, file+".moved"), os.Symlink("/etc/passwd", file)); err != nil {
		t.Fatal(err)
	}
	if err := b.fetch(out); err == nil {
		t.Error("a link was taken")
	}
	// A log without end.
	b.job.Limits.Log = 1000
	if err := os.Truncate(filepath.Join(b.dir, remote.LogFile), 10<<20); err != nil {
		t.Fatal(err)
	}
	if err := b.copyLog(); err == nil || b.logged > 3<<20 {
		t.Errorf("a log without end: %d bytes, %v", b.logged, err)
	}
}

// TestShared: nobody else may put a job into the shared directory.
func TestShared(t *testing.T) {
	dir := t.TempDir()
	c := &Cluster{Dir: dir, Program: "/usr/bin/buildd"}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := c.Check(); !errors.Is(err, runner.ErrSetup) || !strings.Contains(err.Error(), "somebody") {
		t.Errorf("open to all: %v", err)
	}
	for _, name := range []string{"jobs", "/jobs with blanks", "/jobs$(id)", "/jobs\nx"} {
		if err := (&Cluster{Dir: name, Program: "/usr/bin/buildd"}).Check(); !errors.Is(err, runner.ErrSetup) {
			t.Errorf("%q: %v", name, err)
		}
	}
}
