//go:build linux && amd64 && system

package crash

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"packmill/spool/upload/uploadtest"
)

// ownSpace marks a test that runs again in user and mount namespaces of its own.
const ownSpace = "PACKMILL_OWN_SPACE"

// inside runs the test again where it may mount and set limits, whoever runs it,
// and reports whether this is that run.
func inside(t *testing.T) bool {
	t.Helper()
	if os.Getenv(ownSpace) != "" {
		return true
	}
	t.Parallel() // what it does is wait, most of the time
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "-test.run", "^"+t.Name()+"$", "-test.v", "-test.count", "1")
	cmd.Env = append(os.Environ(), ownSpace+"=yes")
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	groups := []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS, UidMappings: ids, GidMappings: groups, Pdeathsig: syscall.SIGKILL,
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "crash: ") {
			fmt.Fprint(os.Stderr, line)
		}
	}
	return false
}

// A mill is daemons at work on a site.
type mill struct {
	*soak
	g sync.WaitGroup
}

// work starts daemons, which end with the test.
func (s *site) work(t *testing.T, daemons ...[]string) *mill {
	m := &mill{soak: &soak{site: s}}
	for _, argv := range daemons {
		k := &kid{argv: argv}
		m.kids = append(m.kids, k)
		m.g.Go(func() { m.live(k) })
	}
	t.Cleanup(m.stop)
	return m
}

func (m *mill) stop() {
	for _, k := range m.kids {
		k.end()
	}
	m.g.Wait()
	if m.t.Failed() {
		m.tell()
	}
	m.kids = nil
}

// daemons are all of a mill.
var daemons = [][]string{{"reviewd"}, {"master-buildd"}, {"buildd", "--arch", "amd64"}, {"buildd", "--arch", "arm64"},
	{"archived"}}

// until waits for a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("in two minutes it did not happen that %s", what)
		}
	}
}

// says waits until each daemon has said something that fits.
func (m *mill) says(pattern string) {
	m.t.Helper()
	re := regexp.MustCompile(pattern)
	for _, k := range m.kids {
		until(m.t.(*testing.T), fmt.Sprintf("%s says %q", k.argv, pattern), func() bool {
			return re.MatchString(k.out.String())
		})
	}
}

// calm fails if a daemon works, talks or dies while it cannot do anything.
func (m *mill) calm() {
	m.t.Helper()
	const watch = 3 * time.Second
	type state struct {
		cpu           time.Duration
		lines, starts int
	}
	look := func(k *kid) state {
		k.mu.Lock()
		defer k.mu.Unlock()
		return state{cpuOf(k.cmd.Process.Pid), strings.Count(k.out.String(), "\n"), k.starts}
	}
	var first []state
	for _, k := range m.kids {
		first = append(first, look(k))
	}
	time.Sleep(watch)
	for i, k := range m.kids {
		now := look(k)
		if cpu := now.cpu - first[i].cpu; cpu > watch/20 {
			m.t.Errorf("%s: it spins: %s of processor in %s", k.argv, cpu, watch)
		}
		// A builder takes a job, cannot begin and gives it back: four lines,
		// after one second, two and four. A loop without rest writes hundreds.
		if lines := now.lines - first[i].lines; lines > 12 {
			m.t.Errorf("%s: it floods the log: %d lines in %s", k.argv, lines, watch)
		}
		if n := now.starts - first[i].starts; n > 3 {
			m.t.Errorf("%s: it ended %d times in %s", k.argv, n, watch)
		}
	}
}

// cpuOf is the processor time of a process so far.
func cpuOf(pid int) time.Duration {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := bytes.Cut(data, []byte(") "))
	var user, sys int64
	f := strings.Fields(string(rest))
	fmt.Sscan(f[11], &user)
	fmt.Sscan(f[12], &sys)
	return time.Duration(user+sys) * 10 * time.Millisecond // USER_HZ is 100
}

// halfway has an upload before each daemon's door.
var halfway = stage(func(t testing.TB) *site {
	s := newSite(t, "never", "together")
	for i, steps := range [][][]string{{once[0], once[1], once[2], once[3], once[1]}, {once[0], once[1]}, {once[0]}, nil} {
		s.drop(uploadtest.Package{Source: fmt.Sprintf("hello%d", i)})
		for _, d := range steps {
			s.must(d[0], d[1:]...)
		}
	}
	return s
})

// published is where the items are when n sources have gone the whole way.
func published(n int) (want []string) {
	for i := range n {
		for _, a := range []string{"amd64", "arm64", "source"} {
			want = append(want, fmt.Sprintf("%s%s/h hello%d_1-1", inst, a, i))
		}
	}
	return want
}

// arrives waits until everything is published, and checks what is promised.
func (m *mill) arrives(n int, sent map[[32]byte]string) {
	t := m.t.(*testing.T)
	t.Helper()
	want := published(n)
	until(t, fmt.Sprintf("%d sources are published: %v", n, where(m.tree, want...)), func() bool {
		return len(where(m.tree, want...)) == 0
	})
	m.stop()
	for _, b := range slices.Concat(promises(m.tree), witness(m.tree, sent)) {
		t.Error(b)
	}
}

// on puts the site's tree on a tmpfs of its own.
func (s *site) on(t *testing.T, options string) (disk string) {
	t.Helper()
	disk = filepath.Join(s.dir, "disk")
	if err := os.Mkdir(disk, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, options); err != nil {
		t.Fatalf("mount tmpfs: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(disk, unix.MNT_DETACH) })
	if err := CopyTree(s.tree, filepath.Join(disk, "tree")); err != nil {
		t.Fatal(err)
	}
	s.tree = filepath.Join(disk, "tree")
	return disk
}

// fillBytes leaves about so many bytes, and fillNames so many inodes.
func fillBytes(t *testing.T, disk string, left int64) {
	var st unix.Statfs_t
	if err := unix.Statfs(disk, &st); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(disk, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if left > 0 {
		if err := unix.Fallocate(int(f.Fd()), 0, 0, int64(st.Bavail)*st.Bsize-left); err != nil {
			t.Fatal(err)
		}
		return
	}
	io.Copy(f, rand.NewChaCha8([32]byte{})) // ends when the disk is full
}

func fillNames(t *testing.T, disk string, left int64) {
	if err := os.Mkdir(filepath.Join(disk, "filler"), 0o755); err != nil {
		t.Fatal(err)
	}
	for i := 0; ; i++ {
		var st unix.Statfs_t
		if err := unix.Statfs(disk, &st); err != nil {
			t.Fatal(err)
		}
		if int64(st.Ffree) <= left {
			return
		}
		if err := os.WriteFile(filepath.Join(disk, "filler", fmt.Sprint(i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFullDisk fills a real file system under all daemons. They stop, say so
// once, use no processor, and go on by themselves when there is room.
func TestFullDisk(t *testing.T) {
	if !inside(t) {
		return
	}
	remove := func(t *testing.T, disk string) {
		if err := os.RemoveAll(filepath.Join(disk, "filler")); err != nil {
			t.Fatal(err)
		}
	}
	remount := func(flags uintptr) func(t *testing.T, disk string) {
		return func(t *testing.T, disk string) {
			if err := unix.Mount("", disk, "", unix.MS_REMOUNT|flags, ""); err != nil {
				t.Fatalf("remount: %v", err)
			}
		}
	}
	for _, tt := range []struct {
		name, disk, general string
		fill, clear         func(t *testing.T, disk string)
		says                string
		still               bool // nothing may move
	}{
		{"bytes kept back", "size=48m", "Reserve: 8M\nReserve-Inodes: 0\n",
			func(t *testing.T, d string) { fillBytes(t, d, 4<<20) }, remove, "less than 8 MiB are free", true},
		{"inodes kept back", "size=48m,nr_inodes=4000", "Reserve: 0\nReserve-Inodes: 500\n",
			func(t *testing.T, d string) { fillNames(t, d, 300) }, remove, "fewer than 500 inodes are free", true},
		{"no byte left", "size=48m", "Reserve: 0\nReserve-Inodes: 0\n",
			func(t *testing.T, d string) { fillBytes(t, d, 0) }, remove, "no space left on device|no room for", false},
		{"no inode left", "size=48m,nr_inodes=4000", "Reserve: 0\nReserve-Inodes: 0\n",
			func(t *testing.T, d string) { fillNames(t, d, 0) }, remove, "no space left on device|no room for", false},
		{"read-only", "size=48m", "Reserve: 1M\n", remount(unix.MS_RDONLY), remount(0),
			"mounted read-only|read-only file system", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := halfway(t)
			disk := s.on(t, tt.disk)
			s.write("control/general", tt.general)
			sent := papers(t, s.tree)
			before, err := places(s.tree)
			if err != nil {
				t.Fatal(err)
			}
			tt.fill(t, disk)
			m := s.work(t, daemons...)
			m.says(tt.says)
			m.calm()
			if tt.still {
				if broken := where(s.tree, before...); len(broken) > 0 {
					t.Errorf("something was begun: %s", broken)
				}
				if out, _ := s.plain(s.tree, "packmill",
					"status"); !regexp.MustCompile("Nothing new is begun.*(" + tt.says + ")").MatchString(out) {
					t.Errorf("packmill status does not say %q:\n%s", tt.says, out)
				}
				if out, _ := s.plain(s.tree, "packmill", "why",
					"hello1"); !regexp.MustCompile("nothing new is begun: .*(" + tt.says + ")").MatchString(out) {
					t.Errorf("packmill why does not say %q:\n%s", tt.says, out)
				}
			}
			start := time.Now()
			tt.clear(t, disk)
			m.arrives(4, sent)
			fmt.Fprintf(os.Stderr, "crash: %s: all published %s after there was room\n",
				tt.name, time.Since(start).Round(100*time.Millisecond))
		})
	}
}

// TestUploadDoesNotFit: what has no room stays with the uploader until it has.
func TestUploadDoesNotFit(t *testing.T) {
	if !inside(t) {
		return
	}
	s := stage(func(t testing.TB) *site { return newSite(t, "never", "together") })(t)
	disk := s.on(t, "size=48m")
	s.write("control/general", "Reserve: 8M\n")
	fillBytes(t, disk, 18<<20)
	blob := make([]byte, 6<<20)
	rand.NewChaCha8([32]byte{}).Read(blob)
	s.drop(uploadtest.Package{Source: "big", Tree: []uploadtest.Member{uploadtest.Text("blob", string(blob))}})
	m := s.work(t, []string{"reviewd"})
	m.says("big_1-1.*no room for 7 MiB")
	if broken := where(s.tree); len(broken) > 0 {
		t.Error(broken)
	}
	if err := os.Remove(filepath.Join(disk, "filler")); err != nil {
		t.Fatal(err)
	}
	until(t, "it is accepted", func() bool { return len(where(s.tree, acc+" big_1-1")) == 0 })
}

// TestFewFiles takes the file descriptors away from daemons that run (EMFILE), and
// gives them work.
func TestFewFiles(t *testing.T) {
	if !inside(t) {
		return
	}
	s := halfway(t)
	sent := papers(t, s.tree)
	// The work is put aside until the daemons have none.
	aside := filepath.Join(s.dir, "aside")
	var moved []string
	for _, place := range []string{"spool/incoming/*", "spool/accepted/*/*", "queue/*/*/needs-build/*",
		"archive/incoming/*/*"} {
		m, err := filepath.Glob(filepath.Join(s.tree, place))
		if err != nil {
			t.Fatal(err)
		}
		for _, from := range m {
			to := filepath.Join(aside, strings.TrimPrefix(from, s.tree))
			if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(from, to); err != nil {
				t.Fatal(err)
			}
			moved = append(moved, from)
		}
	}
	m := s.work(t, daemons...)
	var limits []unix.Rlimit
	for _, k := range m.kids {
		until(t, fmt.Sprintf("%s waits for work", k.argv), func() bool { return k.idle() })
		var old unix.Rlimit
		if err := unix.Prlimit(k.pid(), unix.RLIMIT_NOFILE, nil, &old); err != nil {
			t.Fatal(err)
		}
		fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", k.pid()))
		if err != nil {
			t.Fatal(err)
		}
		// The first number that is free, so that no open succeeds.
		free := 0
		for _, e := range fds {
			if e.Name() == fmt.Sprint(free) {
				free++
			}
		}
		if err := unix.Prlimit(k.pid(), unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(free), Max: old.Max}, nil); err != nil {
			t.Fatal(err)
		}
		limits = append(limits, old)
	}
	for _, to := range moved {
		if err := os.Rename(filepath.Join(aside, strings.TrimPrefix(to, s.tree)), to); err != nil {
			t.Fatal(err)
		}
	}
	m.says("too many open files")
	m.calm()
	for i, k := range m.kids {
		if err := unix.Prlimit(k.pid(), unix.RLIMIT_NOFILE, &limits[i], nil); err != nil {
			t.Fatal(err)
		}
	}
	m.arrives(4, sent)
}

func (k *kid) pid() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.cmd.Process.Pid
}

// idle reports whether the daemon has started to watch and used no processor for
// half a second.
func (k *kid) idle() bool {
	k.mu.Lock()
	started := k.cmd != nil && k.cmd.Process != nil
	k.mu.Unlock()
	if !started {
		return false
	}
	watches, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", k.pid()))
	watching := slices.ContainsFunc(watches, func(fd string) bool {
		to, _ := os.Readlink(fd)
		return to == "anon_inode:inotify"
	})
	before := cpuOf(k.pid())
	time.Sleep(500 * time.Millisecond)
	return watching && cpuOf(k.pid()) == before
}

// TestWithoutWatches lets the daemons work where inotify has no instance, or not
// enough watches: they say so and scan.
func TestWithoutWatches(t *testing.T) {
	if !inside(t) {
		return
	}
	for _, tt := range []struct{ knob, says string }{
		{"max_inotify_instances", "no inotify: scanning every few seconds"},
		{"max_inotify_watches", "cannot watch: scanning every few seconds"},
	} {
		// The limits of this user namespace.
		knob := filepath.Join("/proc/sys/user", tt.knob)
		old, err := os.ReadFile(knob)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(knob, []byte("0\n"), 0); err != nil {
			t.Fatal(err)
		}
		s := halfway(t)
		sent := papers(t, s.tree)
		m := s.work(t, daemons...)
		m.says(tt.says)
		m.arrives(4, sent)
		if err := os.WriteFile(knob, old, 0); err != nil {
			t.Fatal(err)
		}
	}
}

// TestUnmounted takes the file system away from under the daemons: they end and
// say why.
func TestUnmounted(t *testing.T) {
	if !inside(t) {
		return
	}
	s := stage(func(t testing.TB) *site { return newSite(t, "never", "together") })(t)
	disk := s.on(t, "size=48m")
	s.write("control/general", "Reserve: 1M\n")
	m := s.work(t, daemons...)
	for _, k := range m.kids {
		until(t, fmt.Sprintf("%s waits for work", k.argv), func() bool { return k.idle() })
	}
	for _, k := range m.kids { // it is not started again
		k.mu.Lock()
		k.stop = true
		k.mu.Unlock()
	}
	if err := unix.Unmount(disk, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	m.says("not a packmill tree: .*unmounted or replaced|not a packmill tree: no such file")
	m.g.Wait()
	for _, k := range m.kids {
		if code := k.cmd.ProcessState.ExitCode(); code != 111 {
			t.Errorf("%s: exit status %d, want 111", k.argv, code)
		}
	}
}
