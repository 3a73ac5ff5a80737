//go:build linux && amd64 && system

package crash

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"packmill/spool/upload/uploadtest"
)

// program runs a program of the system, which a package of Debian has.
func program(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v (scripts/lib/packages says which package of Debian has it)\n%s",
			name, strings.Join(args, " "), err, out)
	}
}

// kernel leaves a test out where the kernel, which no package brings, lacks what
// it is about.
func kernel(t *testing.T, device, filesystem string) {
	t.Helper()
	list, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(device); err != nil || !slices.Contains(strings.Fields(string(list)), filesystem) {
		t.Skipf("this kernel has no %s, or there is no %s", filesystem, device)
	}
}

// TestNoPlaceForATree: on a file system that cannot do what a move needs every
// program says so at once.
func TestNoPlaceForATree(t *testing.T) {
	kernel(t, "/dev/fuse", "fuse")
	if !inside(t) {
		return
	}
	s := newSite(t, "never", "together")
	mount := filepath.Join(s.dir, "mount")
	if err := os.Mkdir(mount, 0o755); err != nil {
		t.Fatal(err)
	}
	// It passes everything on but the flags of renameat2(2).
	program(t, "bindfs", s.dir, mount)
	t.Cleanup(func() { unix.Unmount(mount, unix.MNT_DETACH) })
	re := regexp.MustCompile(`the file system \(fuse\) is not fit for a tree: it has no rename that replaces nothing: .*; put the tree on a local one: ext4, xfs or btrfs`)
	for _, d := range append(slices.Clone(once), []string{"packmill", "ls"}) {
		out, err := s.plain(filepath.Join(mount, "tree"), d[0], d[1:]...)
		if err == nil || !re.MatchString(err.Error()) {
			t.Errorf("%s: got %v %s", d, err, out)
		}
	}
}

// TestNoLocks: a daemon that gets no lock ends, and says why. The kernel's answer
// is put in by strace.
func TestNoLocks(t *testing.T) {
	s := queued(t, "together", "hello")
	p := s.command(s.tree, "buildd", "--arch", "amd64")
	cmd := exec.Command("strace",
		append([]string{"-f", "-qq", "-o", "/dev/null", "-e", "inject=flock:error=ENOLCK", p.Path}, p.Args...)...)
	cmd.Env, cmd.Dir = p.Env, p.Dir
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatalf("strace: %v (Debian's package strace has it)", err)
	}
	end := time.AfterFunc(2*time.Minute, func() { cmd.Process.Kill() })
	err := cmd.Wait()
	end.Stop()
	if cmd.ProcessState.ExitCode() != 111 ||
		!strings.Contains(out.String(), "the file system has no locks (flock), or none left; put the tree on a local one") {
		t.Errorf("%v\n%s", err, out.String())
	}
}

// TestDirectoriesReplaced moves the directories that daemons watch away from under
// them, and lays new ones in their place: what comes into these is served.
func TestDirectoriesReplaced(t *testing.T) {
	if !inside(t) {
		return
	}
	s := newSite(t, "never", "together")
	m := s.work(t, daemons...)
	for _, k := range m.kids {
		until(t, fmt.Sprintf("%s waits for work", k.argv), func() bool { return k.idle() })
	}
	for i, dir := range []string{"spool/incoming", "spool/intake", acc, "queue/sid/master", "queue/sid/amd64/needs-build",
		"archive/incoming/sid"} {
		path := filepath.Join(s.tree, dir)
		if err := os.MkdirAll(path, 0o775); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path, filepath.Join(s.dir, fmt.Sprint("away-", i))); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(path, 0o775); err != nil {
			t.Fatal(err)
		}
	}
	s.drop(uploadtest.Package{Source: "hello0"})
	// Five minutes, if nobody noticed but by the scan of each minute.
	m.arrives(1, nil)
}
