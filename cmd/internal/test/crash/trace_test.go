//go:build linux && amd64

package crash

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain lets the test program stand in for a daemon: with CRASH_VICTIM set it
// does what that names to the tree in its working directory.
func TestMain(m *testing.M) {
	if name := os.Getenv("CRASH_VICTIM"); name != "" {
		if err := victims[name](); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if filepath.Base(os.Args[0]) == builderName {
		os.Exit(runBuilder())
	}
	code := m.Run()
	for _, f := range cleanups {
		f()
	}
	os.Exit(code)
}

var victims = map[string]func() error{
	"save":     func() error { return save("file", "0123456789") },
	"many":     many,
	"children": children,
	"sleep":    func() error { time.Sleep(time.Hour); return nil },
	"kinds":    kinds,

	// mistakes, for the power-loss model
	"no file sync":      func() error { return careless("file", true, false, true) },
	"no directory sync": func() error { return careless("file", true, true, false) },
	"in place":          func() error { return careless("file", false, true, true) },
	"move":              func() error { return move("queue/a/item", "queue/b/item", "b", "a") },
	"move, old only":    func() error { return move("queue/a/item", "queue/b/item", "a") },
	"move, no sync":     func() error { return move("queue/a/item", "queue/b/item") },
	"move file":         func() error { return move("queue/a/plain", "queue/b/plain", "b", "a") },
	"move file, new":    func() error { return move("queue/a/plain", "queue/b/plain", "b") },
	"into new":          intoNew,
	"sync twice":        syncTwice,
	"syncfs": func() error {
		d, err := os.Open(".")
		if err != nil {
			return err
		}
		defer d.Close()
		return unix.Syncfs(int(d.Fd()))
	},
}

// careless is save with one of its steps left out.
func careless(name string, beside, file, dir bool) error {
	tmp := name
	if beside {
		tmp += ".tmp"
	}
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	f.WriteString("01234")
	f.WriteString("56789")
	if file {
		f.Sync()
	}
	f.Close()
	if beside {
		if err := os.Rename(tmp, name); err != nil {
			return err
		}
	}
	if dir {
		return syncDir(".")
	}
	return nil
}

func move(from, to string, sync ...string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	for _, d := range sync {
		if err := syncDir("queue/" + d); err != nil {
			return err
		}
	}
	return nil
}

// intoNew moves to a directory whose own name is not on the disk.
func intoNew() error {
	if err := os.Mkdir("queue/new", 0o755); err != nil {
		return err
	}
	if err := os.Rename("queue/a/item", "queue/new/item"); err != nil {
		return err
	}
	if err := syncDir("queue/new"); err != nil {
		return err
	}
	return syncDir("queue/a")
}

// syncTwice takes a second fsync's word after the first one failed.
func syncTwice() error {
	f, err := os.Create("file")
	if err != nil {
		return err
	}
	defer f.Close()
	f.WriteString("0123456789")
	if f.Sync() != nil {
		if err := f.Sync(); err != nil {
			return err
		}
	}
	return syncDir(".")
}

// save is the way to write a file that outlives a crash: its calls are known by
// number in the tests.
func save(name, text string) error {
	tmp := name + ".tmp"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644) // 1
	if err != nil {
		return err
	}
	if _, err := f.WriteString(text); err != nil { // 2
		f.Close()
		return err
	}
	if err := f.Sync(); err != nil { // 3
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(tmp, name); err != nil { // 4
		return err
	}
	return syncDir(filepath.Dir(name)) // 5
}

func syncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func many() error {
	var g sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		g.Go(func() {
			for j := range 5 {
				errs[i] = errors.Join(errs[i], save(fmt.Sprintf("f%d-%d", i, j), strings.Repeat("x", 100)))
			}
		})
	}
	g.Wait()
	return errors.Join(errs...)
}

func children() error {
	if err := os.WriteFile("own", []byte("1"), 0o644); err != nil {
		return err
	}
	out, err := exec.Command("/bin/sh", "-c", "echo 2 >child; mkdir d; mv child d/").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return os.WriteFile("last", []byte("3"), 0o644)
}

// kinds makes one call of each kind that a Go program makes.
func kinds() error {
	root, err := os.OpenRoot(".")
	if err != nil {
		return err
	}
	defer root.Close()
	steps := []func() error{
		func() error { return os.MkdirAll("a/b", 0o755) },
		func() error { return root.Mkdir("c", 0o700) },
		func() error { return os.WriteFile("a/f", []byte("hello"), 0o644) },
		func() error { return os.Link("a/f", "c/g") },
		func() error { return os.Symlink("../a/f", "c/s") },
		func() error { return os.Chmod("a/f", 0o600) },
		func() error { return os.Chtimes("a/f", time.Unix(1, 0), time.Unix(2, 0)) },
		func() error { return os.Truncate("a/f", 2) },
		func() error {
			return unix.Renameat2(unix.AT_FDCWD, "a/f", unix.AT_FDCWD, "a/b/f", unix.RENAME_NOREPLACE)
		},
		func() error {
			src, err := os.Open("a/b/f")
			if err != nil {
				return err
			}
			defer src.Close()
			dst, err := root.OpenFile("copy", os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o644)
			if err != nil {
				return err
			}
			defer dst.Close()
			_, err = dst.ReadFrom(src)
			return err
		},
		func() error { return root.Remove("c/s") },
		func() error { return os.Remove("c/g") },
		func() error { return os.Remove("c") },
		func() error { _, err := os.ReadFile("copy"); return err },
	}
	for i, f := range steps {
		if err := f(); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	return nil
}

func victim(t *testing.T, name, dir string) *Program {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return &Program{Path: self, Env: append(os.Environ(), "CRASH_VICTIM="+name), Dir: dir, Roots: []string{dir},
		Limit: 20 * time.Second}
}

// at strikes call n.
func at(n int, a Act) func(*Call) Act {
	return func(c *Call) Act {
		if c.N == n {
			return a
		}
		return Act{}
	}
}

// listing is the tree as one line: names, and the contents of files.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var s []string
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		name := p[len(dir)+1:]
		switch {
		case d.IsDir():
			name += "/"
		case d.Type().IsRegular():
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			name += "=" + string(b)
		}
		s = append(s, name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(s, " ")
}

func TestTraceActs(t *testing.T) {
	for _, tt := range []struct {
		n    int
		act  Act
		want string // tree
		exit int    // -1: killed
		says string
	}{
		{0, Act{}, "file=0123456789", 0, ""},
		{1, Act{Deed: KillBefore}, "", -1, ""},
		{1, Act{Deed: KillAfter}, "file.tmp=", -1, ""},
		{1, Act{Fail, unix.EMFILE}, "", 1, "too many open files"},
		{1, Act{FailDone, unix.EIO}, "file.tmp=", 1, "input/output error"},
		{2, Act{Deed: KillBefore}, "file.tmp=", -1, ""},
		{2, Act{Deed: KillAfter}, "file.tmp=0123456789", -1, ""},
		{2, Act{Fail, unix.ENOSPC}, "file.tmp=", 1, "no space left on device"},
		{2, Act{Deed: Short}, "file=0123456789", 0, ""}, // the runtime writes the rest
		{2, Act{Deed: ShortKill}, "file.tmp=01234", -1, ""},
		{3, Act{Fail, unix.EIO}, "file.tmp=0123456789", 1, "sync file.tmp: input/output error"},
		{4, Act{Deed: KillBefore}, "file.tmp=0123456789", -1, ""},
		{4, Act{Deed: KillAfter}, "file=0123456789", -1, ""},
		{4, Act{Fail, unix.EROFS}, "file.tmp=0123456789", 1, "read-only file system"},
		{4, Act{FailDone, unix.EDQUOT}, "file=0123456789", 1, "disk quota exceeded"},
		{5, Act{Fail, unix.EIO}, "file=0123456789", 1, "sync .: input/output error"},
	} {
		t.Run(fmt.Sprint(tt.n, " ", tt.act), func(t *testing.T) {
			dir := t.TempDir()
			run, err := Trace(victim(t, "save", dir), at(tt.n, tt.act), nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := listing(t, dir); got != tt.want {
				t.Errorf("tree: got %q, want %q", got, tt.want)
			}
			if run.Exit() != tt.exit {
				t.Errorf("exit: got %d (%#x), want %d", run.Exit(), run.Status, tt.exit)
			}
			if !strings.Contains(string(run.Output), tt.says) {
				t.Errorf("output: got %q, want %q", run.Output, tt.says)
			}
			if tt.act.Deed != Pass && run.Struck == nil {
				t.Errorf("no call was struck")
			}
		})
	}
}

// TestTraceThreads holds that calls of many threads are counted once each and
// one at a time.
func TestTraceThreads(t *testing.T) {
	dir := t.TempDir()
	var calls []string
	inside := ""
	run, err := Trace(victim(t, "many", dir), func(c *Call) Act {
		if inside != "" {
			t.Errorf("%s began inside %s", c, inside)
		}
		inside = c.String()
		return Act{}
	}, func(c *Call) {
		inside = ""
		calls = append(calls, c.Name)
	})
	if err != nil {
		t.Fatal(err)
	}
	if run.Calls != 8*5*5 || len(calls) != run.Calls || run.Exit() != 0 {
		t.Errorf("got %d calls (%d ended), exit %d; want 200, 200, 0", run.Calls, len(calls), run.Exit())
	}
	for _, name := range []string{"openat", "write", "fsync"} {
		if got := strings.Count(strings.Join(calls, " "), name); got < 40 {
			t.Errorf("%s: got %d, want at least 40", name, got)
		}
	}
}

func TestTraceKinds(t *testing.T) {
	dir := t.TempDir()
	var names []string
	p := victim(t, "kinds", dir)
	p.Reads = true
	reads := 0
	run, err := Trace(p, nil, func(c *Call) {
		if c.Opens() && c.Flags&openChanges == 0 {
			reads++
			return
		}
		if c.Errno == 0 {
			names = append(names, c.Name)
		}
	})
	if err != nil || run.Exit() != 0 {
		t.Fatalf("%v, %s", err, run.Output)
	}
	for _, want := range []string{"mkdirat", "openat", "write", "linkat", "symlinkat", "fchmodat", "utimensat",
		"truncate", "renameat2", "copy_file_range", "unlinkat"} {
		if !slices.Contains(names, want) {
			t.Errorf("no %s among %v", want, names)
		}
	}
	if reads == 0 {
		t.Error("no open for reading was seen")
	}
	if got, want := listing(t, dir), "a/ a/b/ a/b/f=he copy=he"; got != want {
		t.Errorf("tree: got %q, want %q", got, want)
	}
}

func TestTraceChildren(t *testing.T) {
	for _, children := range []bool{false, true} {
		dir := t.TempDir()
		p := victim(t, "children", dir)
		p.Children = children
		var own, below []string
		run, err := Trace(p, nil, func(c *Call) {
			if c.Child {
				below = append(below, c.Name)
			} else {
				own = append(own, c.Name)
			}
		})
		if err != nil || run.Exit() != 0 {
			t.Fatalf("%v, %s", err, run.Output)
		}
		if len(own) != 4 {
			t.Errorf("own calls: got %v, want 2 opens, 2 writes", own)
		}
		if children != (len(below) >= 4) || !children && len(below) > 0 {
			t.Errorf("children %t: got %v of theirs", children, below)
		}
		if got, want := listing(t, dir), "d/ d/child=2\n last=3 own=1"; got != want {
			t.Errorf("tree: got %q, want %q", got, want)
		}
	}
}

// TestTraceOrphan holds that a kill takes the program alone, and that Trace
// waits for what it leaves behind.
func TestTraceOrphan(t *testing.T) {
	dir := t.TempDir()
	p := victim(t, "children", dir)
	p.Children = true
	main := 0
	_, err := Trace(p, func(c *Call) Act {
		if !c.Child {
			main = c.PID
		}
		if c.verb == vMkdir {
			unix.Kill(main, unix.SIGKILL)
		}
		return Act{}
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := listing(t, dir), "d/ d/child=2\n own=1"; got != want {
		t.Errorf("tree: got %q, want %q", got, want)
	}
}

func TestTraceLimit(t *testing.T) {
	p := victim(t, "sleep", t.TempDir())
	p.Limit = 300 * time.Millisecond
	run, err := Trace(p, nil, nil)
	if !errors.Is(err, ErrLimit) {
		t.Errorf("got %v, want ErrLimit", err)
	}
	if run.Status.Signal() != unix.SIGKILL {
		t.Errorf("status: got %#x, want killed", run.Status)
	}
}

// TestTraceEveryPoint strikes every call of a run until a run has fewer calls,
// which is how the daemons are tried.
func TestTraceEveryPoint(t *testing.T) {
	n := 1
	for ; ; n++ {
		dir := t.TempDir()
		run, err := Trace(victim(t, "save", dir), at(n, Act{Deed: KillAfter}), nil)
		if err != nil {
			t.Fatal(err)
		}
		if run.Struck == nil {
			break
		}
	}
	if n != 6 {
		t.Errorf("got %d points, want 5", n-1)
	}
}
