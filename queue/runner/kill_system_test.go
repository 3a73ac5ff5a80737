//go:build system

package runner

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"packmill/queue/runner/cage"

	"golang.org/x/sys/unix"
)

// TestKillRunner: kill -9 of the daemon in the middle of a build with a real
// runner; afterwards the lock is free and nothing runs, and the same job
// builds again in the same directories. schroot makes its mounts as root, also
// for a daemon that is another user: that one is tried too.
func TestKillRunner(t *testing.T) {
	c := testChroots(t, "amd64")
	runners := map[string]Runner{"overlay": &Overlay{Chroots: c}, "sbuild": &Sbuild{Chroots: c}}
	if os.Getuid() == 0 {
		useSchroot(t, c)
		user, err := cage.LookupAccount(buildUser())
		if err != nil {
			t.Fatal(err)
		}
		t.Run("another user", func(t *testing.T) { asUser(t, user, "", "TestKillRunner") })
	} else if _, err := os.Stat(schrootEntry); err == nil {
		clear(runners)
	}
	if _, err := os.Stat(schrootEntry); err == nil {
		runners["schroot"] = &Sbuild{Chroots: c, Schroot: true}
	}
	for name, r := range runners {
		t.Run(name, func(t *testing.T) {
			job := newSystemJob(t)
			source{build: "echo in the middle; test -e /packmill-again || { setsid sleep 93.2 & sleep 93.2; }"}.make(t, job)
			job.Locks[0].Close()
			job.Network = name == "schroot"
			cmd := exec.Command("/proc/self/exe", "-test.run=TestKillRunnerDaemon")
			cmd.Env = append(os.Environ(), "BUILD_TEST_RUNNER="+name, "BUILD_TEST_DIR="+filepath.Dir(job.Dir),
				"BUILD_TEST_CHROOTS="+c.Dir)
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
			within(t, 10*time.Minute, "build runs", func() bool { return len(running("93.2")) >= 2 })
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
			if got := running("93.2"); len(got) != 0 {
				t.Errorf("the lock is free and these run: %v", got)
			}
			if got := sessions(t); len(got) != 0 && os.Getuid() != 0 {
				t.Errorf("the lock is free and this is left: %q", got)
			}
			job.Locks = []*os.File{dir}
			again := source{version: "1.1"}
			if name == "schroot" {
				if os.Getuid() != 0 {
					return // root shows that
				}
				job.Network = false
				if _, err := r.Run(t.Context(), job); !errors.Is(err, ErrSetup) {
					t.Errorf("without leave to use the network: %v", err)
				}
				again.build, job.Network = dials(t), true
			}
			again.make(t, job)
			if res := mustRun(t, r, job); res.Outcome != Good {
				t.Errorf("again: %v %s\n%s", res.Outcome, res.Reason, logText(t, job))
			}
			if got := sessions(t); len(got) != 0 {
				t.Errorf("this is left: %q", got)
			}
		})
	}
}

// TestKillRunnerDaemon is the daemon of TestKillRunner.
func TestKillRunnerDaemon(t *testing.T) {
	dir := os.Getenv("BUILD_TEST_DIR")
	if dir == "" {
		return // nothing to do but for TestKillRunner
	}
	lock, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_RDWR|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	c := &Chroots{Dir: os.Getenv("BUILD_TEST_CHROOTS"), User: buildUser()}
	runners := map[string]Runner{"overlay": &Overlay{Chroots: c}, "sbuild": &Sbuild{Chroots: c},
		"schroot": &Sbuild{Chroots: c, Schroot: true}}
	res, err := runners[os.Getenv("BUILD_TEST_RUNNER")].Run(context.Background(),
		&Job{Source: "hello", Version: "1.0", Suite: "sid", Arch: "amd64",
			Dsc: filepath.Join(dir, "source", "hello_1.0.dsc"), Dir: filepath.Join(dir, "work"),
			Result: filepath.Join(dir, "result"), Log: log, Locks: []*os.File{lock}, Network: os.Getenv("BUILD_TEST_RUNNER") == "schroot"})
	fmt.Println(res, err)
}
