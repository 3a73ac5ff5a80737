package runner

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"packmill/queue/runner/cage"

	"golang.org/x/sys/unix"
)

func TestExecEnvironment(t *testing.T) {
	job := newJob(t)
	job.BinNMU = &BinNMU{Number: 3, Changelog: "rebuild", Time: time.Unix(1, 0)}
	job.ExtraDepends, job.ExtraConflicts, job.Nice = "libgood (>= 2)", "libbad", 5
	ours, err := exec.Command("nice").Output()
	if err != nil {
		t.Fatal(err)
	}
	nice, err := strconv.Atoi(strings.TrimSpace(string(ours)))
	if err != nil {
		t.Fatal(err)
	}
	os.WriteFile(filepath.Join(job.Dir, "left-over"), nil, 0o644)
	os.WriteFile(filepath.Join(job.Result, "left-over"), nil, 0o644)
	r := script(t, `env | sort; pwd; ls -A . "$PACKMILL_RESULT"; cat; ls /proc/self/fd; nice; exit 7`)
	res := mustRun(t, r, job)
	if res.Outcome != GiveBack || res.Exit != 7 {
		t.Errorf("outcome %v, exit %d; want give-back, 7", res.Outcome, res.Exit)
	}
	log := logText(t, job)
	var got []string
	for _, line := range strings.Split(strings.TrimSpace(log), "\n") {
		if !strings.HasPrefix(line, "_=") && !strings.HasPrefix(line, "OLDPWD") {
			got = append(got, line)
		}
	}
	want := []string{
		"HOME=" + job.Dir, "LANG=C.UTF-8", "PACKMILL_ARCH=amd64", "PACKMILL_BINNMU=3",
		"PACKMILL_BINNMU_BY=Build daemon <nobody@localhost>", "PACKMILL_DSC=" + job.Dsc,
		"PACKMILL_EXTRA_CONFLICTS=libbad", "PACKMILL_EXTRA_DEPENDS=libgood (>= 2)",
		"PACKMILL_RESULT=" + job.Result, "PACKMILL_SUITE=sid", "PATH=" + cage.DefaultPath, "PWD=" + job.Dir,
		job.Dir, ".:", "", job.Result + ":", "0", "1", "2", "3", strconv.Itoa(min(nice+5, 19)),
	}
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		t.Errorf("the builder saw:\n%s\nwant:\n%s", g, w)
	}
}

func TestExecOutcomes(t *testing.T) {
	for _, c := range []struct {
		name, script string
		outcome      Outcome
		reason       string
		suspect      string
		depWait      string
	}{
		{"attempted", "echo 'foo.c:1: error'; exit 2", Attempted, "the build failed", "", ""},
		{"no space", "echo 'write: No space left on device'; exit 2", Attempted, "no space", SuspectSpace, ""},
		{"compiler", "echo 'x.c:3:1: internal compiler error: in foo'; exit 2",
			Attempted, "compiler crashed", SuspectCompiler, ""},
		{"no more processes", "echo 'sh: 1: Cannot fork'; exit 2", Attempted, "no more processes", SuspectTasks, ""},
		{"no more threads", "echo 'fork: retry: Resource temporarily unavailable'; exit 2",
			Attempted, "no more processes", SuspectTasks, ""},
		{"dep-wait", `printf 'libfoo-dev (>= 2)\n\nbar\n' > $PACKMILL_RESULT/dep-wait; exit 3`, DepWait, "libfoo-dev (>= 2), bar", "", "libfoo-dev (>= 2)|bar"},
		{"dep-wait, alternatives", `echo 'a | b' > $PACKMILL_RESULT/dep-wait; exit 3`, GiveBack, "not one package", "", ""},
		{"dep-wait, rubbish", `echo '$(id)' > $PACKMILL_RESULT/dep-wait; exit 3`, GiveBack, "not readable", "", ""},
		{"dep-wait, link", `ln -s /etc/passwd $PACKMILL_RESULT/dep-wait; exit 3`, GiveBack, "dep-wait", "", ""},
		{"dep-wait, nothing", "exit 3", GiveBack, "dep-wait", "", ""},
		{"dep-wait, empty", "> $PACKMILL_RESULT/dep-wait; exit 3", GiveBack, "names no package", "", ""},
		{"infrastructure", "exit 1", GiveBack, "trouble of the builder", "", ""},
		{"signal", "kill -SEGV $$", GiveBack, "signal 11", "", ""},
		{"good without results", "exit 0", GiveBack, "no .changes", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			job := newJob(t)
			res := mustRun(t, script(t, c.script), job)
			if res.Outcome != c.outcome || !strings.Contains(res.Reason, c.reason) || res.Suspect != c.suspect ||
				strings.Join(res.DepWait, "|") != c.depWait {
				t.Errorf("%s: got %v %q %q %q", c.script, res.Outcome, res.Reason, res.Suspect, res.DepWait)
			}
		})
	}
}

func TestExecSetup(t *testing.T) {
	job := newJob(t)
	for _, path := range []string{"builder", "/nonexistent/builder", "/etc/passwd"} {
		if _, err := (&Exec{Path: path}).Run(context.Background(), job); !errors.Is(err, ErrSetup) {
			t.Errorf("%s: error %v, want ErrSetup", path, err)
		}
	}
	// A file that the kernel does not take for a program.
	path := filepath.Join(t.TempDir(), "x")
	os.WriteFile(path, []byte{0, 1, 2}, 0o755)
	if _, err := (&Exec{Path: path}).Run(context.Background(), job); !errors.Is(err, ErrSetup) {
		t.Errorf("%s: error %v, want ErrSetup", path, err)
	}
}

func TestLimits(t *testing.T) {
	for _, c := range []struct {
		name, script string
		limits       Limits
		limit        string
		suspect      string
	}{
		{"wall", "while :; do echo x; sleep 0.05; done", Limits{Wall: 700 * time.Millisecond}, LimitWall, ""},
		{"silence", "echo once; sleep 1000", Limits{Silence: 500 * time.Millisecond}, LimitSilence, SuspectStall},
		{"log", "cat /dev/zero", Limits{Log: 64 << 20}, LimitLog, ""},
		{"disk", "cat /dev/zero > big & sleep 100", Limits{Disk: 20 << 20}, LimitDisk, SuspectSpace},
		{"disk of results", "head -c 40000000 /dev/zero > $PACKMILL_RESULT/big; sleep 100",
			Limits{Disk: 20 << 20}, LimitDisk, SuspectSpace},
		{"fork bomb", "bomb() { bomb | bomb & }; bomb; sleep 100", Limits{Tasks: 64}, LimitTasks, SuspectTasks},
		{"memory", "exec head -c 2000000000 /dev/zero | tail | sleep 100",
			Limits{Memory: 64 << 20}, LimitMemory, SuspectMemory},
		{"memory, of the builder itself", "exec tail /dev/zero", Limits{Memory: 64 << 20}, LimitMemory, SuspectMemory},
	} {
		t.Run(c.name, func(t *testing.T) {
			job := newJob(t)
			job.Limits = c.limits
			if job.Limits.Wall == 0 {
				job.Limits.Wall = 2 * time.Minute
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			res := mustRun(t, script(t, c.script), job)
			runtime.ReadMemStats(&after)
			if res.Outcome != Attempted || res.Limit != c.limit || res.Suspect != c.suspect {
				t.Errorf("%s: got %v, limit %q, suspect %q (%s)", c.script, res.Outcome, res.Limit, res.Suspect, res.Reason)
			}
			said := "\npackmill: " + res.Reason + "\n"
			if tail, err := tailOf(job.Log, int64(len(said))); string(tail) != said {
				t.Errorf("the log ends with %q, %v; want %q", tail, err, said)
			}
			if l := c.limits.Log; l > 0 {
				if st, _ := job.Log.Stat(); st.Size() != l+int64(len(said)) {
					t.Errorf("log has %d bytes, want %d and %q", st.Size(), l, said)
				}
				// What is written does not stay in memory.
				if used := after.TotalAlloc - before.TotalAlloc; used > uint64(l)/8 {
					t.Errorf("%d bytes of memory for a log of %d", used, l)
				}
			}
			if !lockFree(t, job) {
				t.Error("something still holds the lock")
			}
		})
	}
}

// What a build leaves behind goes with it, however it hides.
func TestLeftBehind(t *testing.T) {
	for _, share := range []bool{false, true} {
		t.Run(fmt.Sprint("SharePIDs=", share), func(t *testing.T) {
			job := newJob(t)

			r := script(t, `
				setsid sh -c 'echo hidden-daemon; exec >/dev/null 2>&1; sleep 98.7' &
				(setsid setsid sh -c 'sleep 98.7' & )
				sleep 98.7 &
				sleep 0.3
				exit 2`)
			r.SharePIDs = share
			start := time.Now()
			res := mustRun(t, r, job)
			if res.Outcome != Attempted {
				t.Errorf("outcome %v", res.Outcome)
			}
			if took := time.Since(start); took > time.Minute {
				t.Errorf("took %v: waited for what was left behind", took)
			}
			if got := running("98.7"); len(got) != 0 {
				t.Errorf("left running: %v", got)
			}
			if !lockFree(t, job) {
				t.Error("something still holds the lock")
			}
		})
	}
}

// running lists the processes that have the word as an argument.
func running(word string) []int {
	var found []int
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		panic(err)
	}
	for _, line := range lines {
		// A zombie has no command line.
		if data, err := os.ReadFile(line); err == nil {
			for _, arg := range strings.Split(string(data), "\x00") {
				if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(line))); err == nil && arg == word {
					found = append(found, pid)
				}
			}
		}
	}
	return found
}

func TestStop(t *testing.T) {
	for _, share := range []bool{false, true} {
		t.Run(fmt.Sprint("SharePIDs=", share), func(t *testing.T) {
			job := newJob(t)
			ctx, cancel := context.WithCancel(context.Background())
			r := script(t, `trap '' TERM INT HUP; setsid sleep 97.6 & echo started; sleep 97.6; sleep 97.6`)
			r.SharePIDs = share
			go func() {
				for !strings.Contains(logText(t, job), "started") {
					time.Sleep(5 * time.Millisecond)
				}
				cancel()
			}()
			start := time.Now()
			res, err := r.Run(ctx, job)
			if err != nil || !res.Stopped || res.Outcome != GiveBack {
				t.Fatalf("Run: %+v, %v", res, err)
			}
			if took := time.Since(start); took > time.Minute {
				t.Errorf("took %v", took)
			}
			if got := running("97.6"); len(got) != 0 {
				t.Errorf("left running: %v", got)
			}
			if !lockFree(t, job) {
				t.Error("something still holds the lock")
			}
		})
	}
}

// testDaemon is a daemon that builds one job and is killed by its test.
func testDaemon() {
	dir := os.Getenv("BUILD_TEST_DAEMON")
	lock, err := os.Open(dir)
	if err != nil {
		panic(err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		panic(err)
	}
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_RDWR|os.O_APPEND, 0)
	if err != nil {
		panic(err)
	}
	job := &Job{Source: "hello", Version: "1.0-1", Suite: "sid", Arch: "amd64",
		Dsc: filepath.Join(dir, "source", "hello_1.0-1.dsc"),
		Dir: filepath.Join(dir, "work"), Result: filepath.Join(dir, "result"), Log: log, Locks: []*os.File{lock}}
	r := &Exec{Path: os.Getenv("BUILD_TEST_BUILDER"), SharePIDs: os.Getenv("BUILD_TEST_SHARE") == "true"}
	fmt.Println("running")
	res, err := r.Run(context.Background(), job)
	fmt.Println(res, err)
}

// kill -9 of the daemon ends the build, or leaves it with its lock.
func TestKillDaemon(t *testing.T) {
	for _, share := range []bool{false, true} {
		t.Run(fmt.Sprint("SharePIDs=", share), func(t *testing.T) {
			job := newJob(t)
			job.Locks[0].Close()
			r := script(t, `setsid sleep 96.5 & sleep 96.5 & echo started; sleep 96.5`)
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), "BUILD_TEST_DAEMON="+filepath.Dir(job.Dir), "BUILD_TEST_BUILDER="+r.Path,
				"BUILD_TEST_SHARE="+fmt.Sprint(share))
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			go func() {
				for s := bufio.NewScanner(out); s.Scan(); {
				}
			}()
			within(t, time.Minute, "build started", func() bool { return strings.Contains(logText(t, job), "started") })
			cmd.Process.Kill()
			cmd.Wait()
			dir, err := os.Open(filepath.Dir(job.Dir))
			if err != nil {
				t.Fatal(err)
			}
			defer dir.Close()
			within(t, time.Minute, "lock free", func() bool {
				return unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil
			})
			if got := running("96.5"); len(got) != 0 {
				t.Errorf("the lock is free and these run: %v", got)
			}
		})
	}
}
