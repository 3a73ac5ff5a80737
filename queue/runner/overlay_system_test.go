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

// A build uses what our own archive has just published; TestHostile shows it of sbuild too.
func TestOverlayOwnArchive(t *testing.T) {
	t.Parallel()
	r, repo := &Overlay{Chroots: testChroots(t, "amd64")}, repository(t)
	t.Run("directory", func(t *testing.T) {
		job := newSystemJob(t)
		source{depends: "ours-dev (>= 4)", build: "dpkg -s ours-dev"}.make(t, job)
		job.Repos = []Repo{repo}
		if res := mustRun(t, r, job); res.Outcome != Good {
			t.Errorf("got %v: %s\n%s", res.Outcome, res.Reason, logText(t, job))
		}
	})
	t.Run("wrong key", func(t *testing.T) {
		job := newSystemJob(t)
		source{depends: "ours-dev (>= 4)"}.make(t, job)
		other := repository(t)
		job.Repos = []Repo{repo}
		job.Repos[0].Key = other.Key
		if res := mustRun(t, r, job); res.Outcome != GiveBack {
			t.Errorf("got %v: %s\n%s", res.Outcome, res.Reason, logText(t, job))
		}
	})
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
