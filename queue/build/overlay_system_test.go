//go:build system

package build

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOverlayRows(t *testing.T) {
	testRows(t, &Overlay{Chroots: testChroots(t, "amd64")})
}

func TestOverlayStop(t *testing.T) {
	testStop(t, &Overlay{Chroots: testChroots(t, "amd64")})
}

func TestOverlayOwnArchive(t *testing.T) {
	t.Parallel()
	testOwnArchive(t, &Overlay{Chroots: testChroots(t, "amd64")})
}

// A machine that runs another architecture's programs builds for it without
// an emulator.
func TestOverlayI386(t *testing.T) {
	t.Parallel()
	if machineArch() != "amd64" {
		t.Fatal("this test is for amd64 machines")
	}
	r := &Overlay{Chroots: testChroots(t, "i386")}
	job := newSystemJob(t)
	job.Arch = "i386"
	source{build: "uname -m\ngcc -dumpmachine\ntest $$(getconf LONG_BIT) = 32"}.make(t, job)
	res := mustRun(t, r, job)
	log := logText(t, job)
	if res.Outcome != Good || res.Changes != "hello_1.0_i386.changes" || !strings.Contains(log, "\ni686\n") || !strings.Contains(log, "\ni686-linux-gnu\n") {
		t.Errorf("got %v: %s\n%s", res.Outcome, res.Reason, log)
	}
}

// The upper layer on a disk, for builds that are larger than the memory.
func TestOverlayScratch(t *testing.T) {
	t.Parallel()
	c := testChroots(t, "amd64")
	scratch, err := os.MkdirTemp(filepath.Dir(c.Dir), "scratch-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(scratch)
	os.Chmod(scratch, 0o755)
	job := newSystemJob(t)
	source{depends: "quilt"}.make(t, job)
	if res := mustRun(t, &Overlay{Chroots: c, Scratch: scratch}, job); res.Outcome != Good || res.Usage.Disk == 0 {
		t.Errorf("got %+v\n%s", res, logText(t, job))
	}
	if left, _ := os.ReadDir(scratch); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}
