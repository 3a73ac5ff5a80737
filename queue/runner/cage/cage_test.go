package cage

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"packmill/internal/durable"
)

func TestHierarchies(t *testing.T) {
	for _, c := range []struct {
		name, mounts, self string
		want               []hierarchy
	}{
		{"unified", "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw",
			"0::/system.slice/buildd.service\n",
			[]hierarchy{{dir: "/sys/fs/cgroup/system.slice/buildd.service", v2: true}}},
		{"hybrid", "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n" +
			"41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n" +
			"33 31 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n" +
			"38 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids",
			"8:pids:/\n4:memory:/api/x\n1:cpu:/\n0::/\n",
			[]hierarchy{{dir: "/sys/fs/cgroup/memory/api/x", controllers: []string{"memory"}},
				{dir: "/sys/fs/cgroup/unified", v2: true}, {dir: "/sys/fs/cgroup/pids", controllers: []string{"pids"}}}},
		{"container that sees only its part", "30 23 0:26 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup2 rw",
			"0::/docker/abc/buildd\n", []hierarchy{{dir: "/sys/fs/cgroup/buildd", v2: true}}},
		{"outside of what is mounted", "30 23 0:26 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup2 rw",
			"0::/docker/abcd\n", nil},
		{"above the namespace", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw", "0::/../other\n", nil},
		{"mount point with a blank", `30 23 0:26 / /my\040groups rw - cgroup2 none rw`, "0::/a\n", []hierarchy{{dir: "/my groups/a", v2: true}}},
		{"none", "30 23 0:26 / /proc rw - proc proc rw", "0::/\n", nil},
	} {
		if got := hierarchies(c.mounts, c.self); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
	}
}

func TestLookupAccount(t *testing.T) {
	if os.Getuid() == 0 {
		for _, name := range []string{"", "root", "no-such-user"} {
			if _, err := LookupAccount(name); !errors.Is(err, ErrSetup) {
				t.Errorf("%q: %v", name, err)
			}
		}
		return
	}
	if a, err := LookupAccount(""); err != nil || a.UID != os.Getuid() {
		t.Errorf("own user: %+v, %v", a, err)
	}
	if _, err := LookupAccount("root"); !errors.Is(err, ErrSetup) {
		t.Errorf("root: %v", err)
	}
}

// TestLookupAccountAfterRoot: who was root, and looked users up, builds as whom it has become.
func TestLookupAccountAfterRoot(t *testing.T) {
	if os.Getenv("PACKMILL_TEST_BECOME") != "" {
		nobody, err := user.Lookup("nobody")
		if err != nil {
			t.Fatal(err)
		}
		uid, err := strconv.Atoi(nobody.Uid)
		if err == nil {
			err = syscall.Setuid(uid)
		}
		if err != nil {
			t.Fatal(err)
		}
		if a, err := LookupAccount(""); err != nil || a.Name != "nobody" || a.UID != uid {
			t.Errorf("got %+v, %v, want nobody", a, err)
		}
		return
	}
	if os.Getuid() != 0 {
		t.Skip("root alone becomes another user")
	}
	cmd := exec.Command("/proc/self/exe", "-test.run", "^TestLookupAccountAfterRoot$")
	cmd.Env = append(os.Environ(), "PACKMILL_TEST_BECOME=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestSubids(t *testing.T) {
	path := filepath.Join(t.TempDir(), "subuid")
	write(t, path, "# comment\nother:100000:65536\nsmall:1:10\nme:200000:131072\n1234:400000:65536\nme:600000:65535\n"+
		"me:700000:70000\n")
	for _, c := range []struct {
		name string
		uid  int
		want []int
	}{{"me", 5, []int{200000, 265536, 700000}}, {"x", 1234, []int{400000}}, {"small", 7, nil}, {"nobody", 8, nil}} {
		got, err := subids(path, &Account{Name: c.name, UID: c.uid})
		if !slices.Equal(got, c.want) || (err == nil) != (c.want != nil) || err != nil && !errors.Is(err, ErrSetup) {
			t.Errorf("%s: got %v, %v; want %v", c.name, got, err, c.want)
		}
	}
}

// A watch walks only when there is reason to.
func TestWatch(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "small"), "x") // in memory an empty directory takes nothing
	w := newWatch([]string{dir})
	now := w.at
	if got := w.look(now.Add(500*time.Millisecond), 1<<20); got != 0 {
		t.Errorf("at once: %d", got)
	}
	if got := w.look(now.Add(time.Hour), 1<<40); got == 0 {
		t.Error("after an hour: not measured")
	}
	now = w.at
	write(t, filepath.Join(dir, "big"), strings.Repeat("x", 4<<20))
	w.cost = time.Second // of the last walk
	w.filled += 1 << 40  // others have freed so much since
	if got := w.look(now.Add(10*time.Second), 1<<20); got != 0 {
		t.Errorf("too soon after a walk that took a second: %d", got)
	}
	if got := w.look(now.Add(time.Minute), 1<<20); got < 4<<20 {
		t.Errorf("others freed more than it grew: %d", got)
	}
	now = w.at
	w.cost = time.Second
	w.filled -= 1 << 40 // the file system fills
	if got := w.look(now.Add(10*time.Second), 1<<30); got < 4<<20 {
		t.Errorf("the file system fills: %d", got)
	}
}

// TestNoKeeperOfAKeeper sees that a program which forgot Reexec does not start itself for ever.
func TestNoKeeperOfAKeeper(t *testing.T) {
	name := os.Args[0]
	defer func() { os.Args[0] = name }()
	os.Args[0] = keeperName
	if err := new(caged).startKeeper(); err == nil || !strings.Contains(err.Error(), "Reexec") {
		t.Errorf("a keeper that is started as the program: %v", err)
	}
}

// What a build hands out is written below the directory, as new plain files, or
// not at all.
func TestTakeIn(t *testing.T) {
	for _, c := range []struct {
		name string
		head tar.Header
		ok   bool
	}{
		{"plain", tar.Header{Name: "a.deb", Typeflag: tar.TypeReg}, true},
		{"there already", tar.Header{Name: "old", Typeflag: tar.TypeReg}, false},
		{"above", tar.Header{Name: "../a.deb", Typeflag: tar.TypeReg}, false},
		{"parent", tar.Header{Name: "..", Typeflag: tar.TypeReg}, false},
		{"absolute", tar.Header{Name: "/tmp/a.deb", Typeflag: tar.TypeReg}, false},
		{"below", tar.Header{Name: "d/a.deb", Typeflag: tar.TypeReg}, false},
		{"link", tar.Header{Name: "a.deb", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}, false},
		{"hard link", tar.Header{Name: "a.deb", Typeflag: tar.TypeLink, Linkname: "old"}, false},
		{"device", tar.Header{Name: "a.deb", Typeflag: tar.TypeChar}, false},
		{"through a link", tar.Header{Name: "link", Typeflag: tar.TypeReg}, false},
	} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "old"), "old")
		os.Symlink(filepath.Join(dir, "target"), filepath.Join(dir, "link"))
		var stream bytes.Buffer
		w := tar.NewWriter(&stream)
		if c.head.Typeflag == tar.TypeReg {
			c.head.Size = 3
		}
		if err := w.WriteHeader(&c.head); err != nil {
			t.Fatal(err)
		}
		if c.head.Size > 0 {
			w.Write([]byte("new"))
		}
		w.Close()
		err := TakeIn(dir)(&stream)
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
		old, _ := os.ReadFile(filepath.Join(dir, "old"))
		if _, err := os.Lstat(filepath.Join(dir, "target")); string(old) != "old" || err == nil {
			t.Errorf("%s: written elsewhere", c.name)
		}
	}
}

// Only plain files are handed out, and none with holes: a terabyte of nothing
// would be written down outside.
func TestHandOut(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "plain"), "text")
	os.Symlink("/etc/passwd", filepath.Join(dir, "link"))
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	to := t.TempDir()
	var stream bytes.Buffer
	if err := errors.Join(HandOut(&stream, dir), TakeIn(to)(&stream)); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(to)
	if err != nil || len(entries) != 1 || entries[0].Name() != "plain" {
		t.Errorf("got %v, %v; want the plain file", entries, err)
	}
	write(t, filepath.Join(dir, "sparse"), "")
	if err := os.Truncate(filepath.Join(dir, "sparse"), 1<<40); err != nil {
		t.Fatal(err)
	}
	if err := HandOut(&stream, dir); err == nil {
		t.Error("a file with a hole of a terabyte was handed out")
	}
}

// Of as many as there are ranges each takes another, and the next one waits
// until one is given back.
func TestTake(t *testing.T) {
	a, err := LookupAccount(os.Getenv("PACKMILL_BUILD_USER"))
	if err != nil {
		t.Skip("no account with subordinate ids: ", err)
	}
	ranges, err := a.Ranges()
	if err != nil {
		t.Skip(err)
	}
	dir, err := a.openRanges()
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	r := Range{UID: 1, GID: 1} // nobody's
	first, err := lockRange(dir, r, a)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockRange(dir, r, a); !errors.Is(err, durable.ErrLocked) {
		t.Errorf("a second time: %v", err)
	}
	first.Close()
	again, err := lockRange(dir, r, a)
	if err != nil {
		t.Fatalf("given back: %v", err)
	}
	again.Close()
	seen := map[int]bool{}
	for _, r := range ranges {
		if seen[r.UID] || seen[r.UID+Count-1] {
			t.Errorf("%v overlaps another of %v", r, ranges)
		}
		seen[r.UID], seen[r.UID+Count-1] = true, true
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
