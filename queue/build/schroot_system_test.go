//go:build system

package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// sbuild on a chroot of the machine's schroot. Root writes its entry.
func TestSbuildSchroot(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		return // schroot's settings are root's
	}
	if _, err := exec.LookPath("schroot"); err != nil {
		t.Fatal("schroot is missing; install schroot")
	}
	c := testChroots(t, "amd64")
	r := &Sbuild{Chroots: c, Schroot: true}
	job := newSystemJob(t)
	source{build: dials(t)}.make(t, job)
	if _, err := r.Run(context.Background(), job); !errors.Is(err, ErrSetup) {
		t.Errorf("without leave to use the network: %v", err)
	}
	job.Network = true
	ch, err := c.Lookup("sid", "amd64")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("usermod", "-aG", "sbuild", c.User).CombinedOutput(); err != nil {
		t.Fatalf("usermod: %v: %s", err, out)
	}
	// schroot wants a file of root's.
	tarball := filepath.Join(filepath.Dir(c.Dir), "schroot-test.tar")
	defer os.Remove(tarball)
	if out, err := exec.Command("cp", ch.Tarball(), tarball).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v: %s", err, out)
	}
	entry := filepath.Join("/etc/schroot/chroot.d", "packmill-test")
	write(t, entry, fmt.Sprintf("[sid-amd64]\ntype=file\nfile=%s\ngroups=sbuild\nroot-groups=sbuild\nprofile=default\n", tarball))
	defer os.Remove(entry)
	if err := os.MkdirAll("/run/lock", 0o1777); err != nil {
		t.Fatal(err)
	}
	if res := mustRun(t, r, job); res.Outcome != Good {
		t.Errorf("got %v: %s\n%s", res.Outcome, res.Reason, logText(t, job))
	}
}
