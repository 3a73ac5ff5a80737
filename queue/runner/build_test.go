package runner

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	Reexec()
	if os.Getenv("BUILD_TEST_DAEMON") != "" {
		testDaemon()
		return
	}
	os.Exit(m.Run())
}

// newJob makes a job for hello 1.0-1 in a directory of its own that other
// users can enter.
func newJob(t *testing.T) *Job {
	t.Helper()
	dir, err := os.MkdirTemp("", "packmill-build-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	os.Chmod(dir, 0o755)
	for _, d := range []string{"source", "work", "result"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	lock, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close(); lock.Close() })
	dsc := filepath.Join(dir, "source", "hello_1.0-1.dsc")
	if err := os.WriteFile(dsc, []byte("Source: hello\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return &Job{Source: "hello", Version: "1.0-1", Suite: "sid", Arch: "amd64", Dsc: dsc,
		Dir: filepath.Join(dir, "work"), Result: filepath.Join(dir, "result"), Log: log, Locks: []*os.File{lock}}
}

// script writes a shell program and returns it as a builder.
func script(t *testing.T, text string) *Exec {
	t.Helper()
	path := filepath.Join(t.TempDir(), "builder")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
	return &Exec{Path: path}
}

func logText(t *testing.T, job *Job) string {
	t.Helper()
	data, err := os.ReadFile(job.Log.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func mustRun(t *testing.T, r Runner, job *Job) *Result {
	t.Helper()
	res, err := r.Run(context.Background(), job)
	if err != nil {
		t.Fatalf("Run: %v\nlog:\n%s", err, logText(t, job))
	}
	return res
}

// lockFree reports whether nobody but this process holds the job's lock, by
// closing ours and taking it anew.
func lockFree(t *testing.T, job *Job) bool {
	t.Helper()
	dir := job.Locks[0].Name()
	job.Locks[0].Close()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil
}

// within waits for a condition.
func within(t *testing.T, d time.Duration, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(d); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", d, what)
		}
	}
}

// makeDeb builds a real binary package with dpkg-deb; scripts are maintainer
// scripts.
func makeDeb(t *testing.T, dir, control string, scripts ...map[string]string) string {
	t.Helper()
	root := t.TempDir()
	os.Chmod(root, 0o755)
	if err := os.MkdirAll(filepath.Join(root, "DEBIAN"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "DEBIAN", "control"), []byte(control), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, set := range scripts {
		for name, text := range set {
			if err := os.WriteFile(filepath.Join(root, "DEBIAN", name), []byte(text), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	out, err := exec.Command("dpkg-deb", "--root-owner-group", "-Zgzip", "-b", root, dir).CombinedOutput()
	if err != nil {
		t.Fatalf("dpkg-deb: %v: %s", err, out)
	}
	_, name, _ := strings.Cut(string(out), "' in '")
	name, _, _ = strings.Cut(name, "'")
	return filepath.Base(name)
}
