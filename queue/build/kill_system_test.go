//go:build system

package build

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestKillRunner: kill -9 of the daemon in the middle of a build with a real
// runner; afterwards the lock is free and nothing runs, and the same job
// builds again in the same directories.
func TestKillRunner(t *testing.T) {
	c := testChroots(t, "amd64")
	for name, r := range map[string]Runner{"overlay": &Overlay{Chroots: c}, "sbuild": &Sbuild{Chroots: c}} {
		t.Run(name, func(t *testing.T) {
			job := newSystemJob(t)
			source{build: "echo in the middle; test -e /packmill-again || { setsid sleep 93.2 & sleep 93.2; }"}.make(t, job)
			job.Lock.Close()
			cmd := exec.Command("/proc/self/exe", "-test.run=TestKillRunnerDaemon")
			cmd.Env = append(os.Environ(), "BUILD_TEST_RUNNER="+name, "BUILD_TEST_DIR="+filepath.Dir(job.Dir), "BUILD_TEST_CHROOTS="+c.Dir)
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
			within(t, time.Minute, "lock free", func() bool { return unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil })
			if got := running("93.2"); len(got) != 0 {
				t.Errorf("the lock is free and these run: %v", got)
			}
			job.Lock = dir
			source{version: "1.1"}.make(t, job)
			if res := mustRun(t, r, job); res.Outcome != Good {
				t.Errorf("again: %v %s", res.Outcome, res.Reason)
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
	runners := map[string]Runner{"overlay": &Overlay{Chroots: c}, "sbuild": &Sbuild{Chroots: c}}
	res, err := runners[os.Getenv("BUILD_TEST_RUNNER")].Run(context.Background(), &Job{Source: "hello", Version: "1.0", Suite: "sid", Arch: "amd64",
		Dsc: filepath.Join(dir, "source", "hello_1.0.dsc"), Dir: filepath.Join(dir, "work"), Result: filepath.Join(dir, "result"), Log: log, Lock: lock})
	fmt.Println(res, err)
}
