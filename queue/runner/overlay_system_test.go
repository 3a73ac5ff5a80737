//go:build system

package runner

import (
	"os"
	"path/filepath"
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
