package cage

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestHierarchies(t *testing.T) {
	for _, c := range []struct {
		name, mounts, self string
		want               []hierarchy
	}{
		{"unified", "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw", "0::/system.slice/buildd.service\n",
			[]hierarchy{{dir: "/sys/fs/cgroup/system.slice/buildd.service", v2: true}}},
		{"hybrid", "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n33 31 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n38 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids",
			"8:pids:/\n4:memory:/api/x\n1:cpu:/\n0::/\n",
			[]hierarchy{{dir: "/sys/fs/cgroup/memory/api/x", controllers: []string{"memory"}}, {dir: "/sys/fs/cgroup/unified", v2: true}, {dir: "/sys/fs/cgroup/pids", controllers: []string{"pids"}}}},
		{"container that sees only its part", "30 23 0:26 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup2 rw", "0::/docker/abc/buildd\n", []hierarchy{{dir: "/sys/fs/cgroup/buildd", v2: true}}},
		{"outside of what is mounted", "30 23 0:26 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup2 rw", "0::/docker/abcd\n", nil},
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

func TestSubids(t *testing.T) {
	path := filepath.Join(t.TempDir(), "subuid")
	write(t, path, "# comment\nother:100000:65536\nsmall:1:10\nme:200000:131072\n1234:400000:65536\nme:600000:65535\nme:700000:70000\n")
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

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
