//go:build system

package runner

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// schrootEntry is in the settings of schroot while a test uses it.
const schrootEntry = "/etc/schroot/chroot.d/packmill-test"

// useSchroot gives the machine a schroot sid-amd64 until the test ends.
func useSchroot(t *testing.T, c *Chroots) {
	if _, err := exec.LookPath("schroot"); err != nil {
		t.Fatal("schroot is missing; install schroot")
	}
	ch, err := c.Lookup("sid", "amd64")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("usermod", "-aG", "sbuild", c.User).CombinedOutput(); err != nil {
		t.Fatalf("usermod: %v: %s", err, out)
	}
	// schroot wants a file of root's.
	tarball := filepath.Join(filepath.Dir(c.Dir), "schroot-test.tar")
	t.Cleanup(func() { os.Remove(tarball) })
	if out, err := exec.Command("cp", ch.Tarball(), tarball).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v: %s", err, out)
	}
	write(t, schrootEntry,
		fmt.Sprintf("[sid-amd64]\ntype=file\nfile=%s\ngroups=sbuild\nroot-groups=sbuild\nprofile=default\n", tarball))
	t.Cleanup(func() { os.Remove(schrootEntry) })
	if err := os.MkdirAll("/run/lock", 0o1777); err != nil {
		t.Fatal(err)
	}
}

// sessions are what builds have left of schroot.
func sessions(t *testing.T) []string {
	var all []string
	for _, dir := range []string{sessionsDir, "/var/lib/schroot/unpack", "/run/schroot/mount"} {
		left, err := filepath.Glob(filepath.Join(dir, "packmill-*"))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, left...)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, "/schroot/") {
			all = append(all, line)
		}
	}
	return all
}
