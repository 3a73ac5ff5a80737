package archive

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"packmill/archive/push"
)

// pushEnv has an archive and where it is to be pushed to, in a process that is
// killed in the midst of it.
const pushEnv = "PACKMILL_TEST_PUSH"

func pushProcess(arg string) error {
	root, dest, _ := strings.Cut(arg, " ")
	a, err := Open(root)
	if err != nil {
		return err
	}
	_, err = a.Push(ctx, "", pushTarget(dest), push.Options{}, time.Now())
	return err
}

// pushTarget is a directory, or the bucket of the S3 server at an address.
func pushTarget(dest string) Destination {
	if strings.HasPrefix(dest, "http://") {
		return &push.S3{Endpoint: dest, Bucket: "bucket",
			Credentials: push.Credentials{Access: "tester", Secret: "not-a-secret"}, Large: 5 << 20}
	}
	return &push.Rsync{Dest: dest}
}

// pusher is the process; it has a group of its own, so that what it started
// dies with it.
func pusher(root, dest string, env ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), pushEnv+"="+root+" "+dest), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

func killed(err error) bool {
	var exit *exec.ExitError
	return errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
}

// whole holds that clients of a copy can use it: they see one publication, all
// of it.
func whole(t *testing.T, dest string) {
	t.Helper()
	a, err := Open(dest)
	if err != nil {
		t.Fatal(err)
	}
	faults, err := a.Check(ctx, CheckOptions{Deep: true})
	if err != nil {
		t.Error(err)
	}
	for _, f := range faults {
		t.Errorf("copy: %s", f)
	}
}

// A push that is killed after any of its runs of rsync, or before the first,
// leaves a copy that clients can use, and the next one completes it.
func TestPushKilled(t *testing.T) {
	t.Parallel()
	rsync, err := exec.LookPath("rsync")
	if err != nil {
		t.Fatal("this test needs the package rsync")
	}
	f := newFixture(t)
	f.suite.Opkg = &Opkg{}
	dest, bin := filepath.Join(t.TempDir(), "mirror"), t.TempDir()
	complete := func() {
		t.Helper()
		_, err := f.a.Push(ctx, "", pushTarget(dest), push.Options{}, time.Now())
		for n := 0; errors.Is(err, ErrPushing) && n < 1000; n++ {
			time.Sleep(10 * time.Millisecond) // what the killed one started lets go of the lock
			_, err = f.a.Push(ctx, "", pushTarget(dest), push.Options{}, time.Now())
		}
		if err != nil {
			t.Fatal(err)
		}
		sameTree(t, publicTree(t, dest), publicTree(t, f.a.Root()))
	}
	f.accepted(f.upload(hello("1.0")))
	complete()
	old, points := inRelease(t, dest), 0
	for n, ended := 0, false; !ended; n++ {
		f.accepted(f.upload(hello(fmt.Sprintf("2.%d", n))))
		script := fmt.Sprintf("#!/bin/sh\nif [ %[2]d -gt 0 ]; then %[1]s \"$@\" || exit; fi\necho >>%[3]s/runs\n"+
			"if [ $(wc -l <%[3]s/runs) -ge %[2]d ]; then kill -9 $PPID; fi\n", rsync, n, bin)
		for name, text := range map[string]string{"rsync": script, "runs": ""} {
			if err := os.WriteFile(filepath.Join(bin, name), []byte(text), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		out, err := pusher(f.a.Root(), dest, "PATH="+bin+":"+os.Getenv("PATH")).CombinedOutput()
		switch {
		case err == nil:
			ended = true // it took fewer runs
		case killed(err):
			points++
		default:
			t.Fatalf("push: %v: %s", err, out)
		}
		whole(t, dest)
		if now := inRelease(t, dest); !bytes.Equal(now, old) && !bytes.Equal(now, inRelease(t, f.a.Root())) {
			t.Errorf("killed after run %d: an InRelease of no publication", n)
		}
		complete()
		old = inRelease(t, dest)
	}
	if points < 4 {
		t.Errorf("killed at %d points only", points)
	}
}

// inRelease is what clients of a copy see first.
func inRelease(t *testing.T, root string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, "dists/unstable/InRelease"))
	if err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSpace(data)
}
