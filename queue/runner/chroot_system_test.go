//go:build system

package runner

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// A chroot is replaced while a build runs in it, and removed while one runs;
// both builds end well, and nothing stays.
func TestChrootLife(t *testing.T) {
	t.Parallel()
	cached := testChroots(t, "amd64")
	dir, err := os.MkdirTemp(filepath.Dir(cached.Dir), "life-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(dir)
	os.Chmod(dir, 0o755)
	c := &Chroots{Dir: dir, User: cached.User}
	base, err := SystemBase()
	if err != nil {
		t.Fatal(err)
	}
	base = base[:1]
	if _, err := c.Lookup("sid", "amd64"); !errors.Is(err, ErrNoChroot) {
		t.Errorf("before: %v", err)
	}
	if err := c.Remove("sid", "amd64"); !errors.Is(err, ErrNoChroot) {
		t.Errorf("remove before: %v", err)
	}
	// What cannot be made leaves nothing.
	nowhere := Recipe{Suite: "sid", Arch: "amd64", Base: []string{"deb http://127.0.0.1:9/debian nosuch main"}}
	if err := c.Create(context.Background(), nowhere); err == nil {
		t.Error("no error without a mirror")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	if err := c.Create(ctx, Recipe{Suite: "sid", Arch: "amd64", Base: base}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("stopped: %v", err)
	}
	cancel()
	if left := c.generations("sid-amd64"); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	copyChroot(t, cached, c) // making one is shown below
	first, err := c.Lookup("sid", "amd64")
	if err != nil {
		t.Fatal(err)
	}
	if why := first.Stale(base, 48*time.Hour, time.Now()); why != "" {
		t.Errorf("fresh: %s", why)
	}
	if why := first.Stale(append(base, "deb http://x y z"), 0, time.Now()); why != "the suite's Base has changed" {
		t.Errorf("Base changed: %q", why)
	}
	if why := first.Stale(nil, time.Hour, time.Now().Add(2*time.Hour)); why == "" {
		t.Error("old: not stale")
	}

	// A build that waits until it is told to go on.
	start := func() (goOn func() *Result) {
		job := newSystemJob(t)
		job.Limits.Wall, job.Limits.Silence = 0, 0 // a chroot is made meanwhile
		source{build: "echo waiting; while ! grep -q go-on /packmill-archive0/state; do sleep 0.2; done"}.make(t, job)
		signal := t.TempDir()
		for d := signal; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
			os.Chmod(d, 0o755)
		}
		write(t, filepath.Join(signal, "state"), "wait")
		job.Repos = []Repo{{Dir: signal, Suite: "none", Key: []byte("none")}}
		done := make(chan *Result)
		go func() {
			res, err := (&Overlay{Chroots: c}).Run(context.Background(), job)
			if err != nil {
				t.Error(err)
			}
			done <- res
		}()
		within(t, 5*time.Minute, "build waits", func() bool { return said(job, "waiting") })
		return func() *Result {
			write(t, filepath.Join(signal, "state"), "go-on")
			return <-done
		}
	}
	goOn := start()
	if all, err := c.List(); err != nil || len(all) != 1 || !all[0].Builds || all[0].Name() != "sid-amd64" ||
		all[0].Size < 100<<20 {
		t.Errorf("list: %+v, %v", all, err)
	}
	// The Base changes: of three that ask, one makes it anew.
	base = []string{strings.Replace(base[0], "deb ", "deb [arch=amd64] ", 1)}
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			job := newSystemJob(t)
			job.Base = base
			if err := c.forJob(context.Background(), job, "amd64"); err != nil ||
				!strings.Contains(logText(t, job), "is made anew: the suite's Base has changed.") {
				t.Errorf("%v\n%s", err, logText(t, job))
			}
		})
	}
	all.Wait()
	if got := c.generations("sid-amd64"); len(got) != 2 {
		t.Errorf("while a build runs in the old one: %v", got)
	}
	second, err := c.Lookup("sid", "amd64")
	if err != nil || !second.Made.After(first.Made) {
		t.Errorf("not in force: %+v, %v", second, err)
	}
	if res := goOn(); res.Outcome != Good {
		t.Errorf("build in a replaced chroot: %v %s", res.Outcome, res.Reason)
	}
	goOn = start()
	if err := c.Remove("sid", "amd64"); err != nil {
		t.Error(err)
	}
	if _, err := c.Lookup("sid", "amd64"); !errors.Is(err, ErrNoChroot) {
		t.Errorf("after its removal: %v", err)
	}
	if res := goOn(); res.Outcome != Good {
		t.Errorf("build in a removed chroot: %v %s", res.Outcome, res.Reason)
	}
	// What is only old stays in force if it cannot be made anew.
	c.Remove("sid", "amd64")
	copyChroot(t, cached, c)
	old := &Chroots{Dir: c.Dir, User: c.User, MaxAge: time.Nanosecond}
	ch, err := old.Lookup("sid", "amd64")
	if err != nil {
		t.Fatal(err)
	}
	const dead = "deb http://127.0.0.1:9/debian nosuch main"
	os.Remove(filepath.Join(ch.dir, infoFile)) // it is a link of the one that all tests share
	write(t, filepath.Join(ch.dir, infoFile),
		"Suite: sid\nArchitecture: amd64\nMade: "+ch.Made.Format(time.RFC3339Nano)+"\nBase:\n "+dead+"\n")
	job := newSystemJob(t)
	job.Base = []string{dead}
	if err := old.forJob(context.Background(), job, "amd64"); err != nil ||
		!strings.Contains(logText(t, job), "the old one serves on") {
		t.Errorf("old, and no mirror: %v\n%s", err, logText(t, job))
	}
	job.Base = append(job.Base, dead+" contrib")
	if err := old.forJob(context.Background(), job, "amd64"); err == nil {
		t.Error("another Base, and no mirror: no error")
	}
	c.Remove("sid", "amd64")
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// said reports whether the build has printed the line.
func said(job *Job, text string) bool {
	data, _ := os.ReadFile(job.Log.Name())
	return strings.Contains(string(data), "\n"+text+"\n")
}
