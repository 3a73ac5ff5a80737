//go:build linux && amd64

package crash

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"packmill/archive"
	"packmill/cmd/internal/fsck"
	"packmill/spool"
)

// promises is packmill fsck --deep on a tree at rest. What fsck has one answer
// for, and no daemon meets before a person does, it must be able to mend: a
// history line that a crash cut off from its move, a half-written file. Findings of
// the kinds in but are left out.
func promises(tree string, but ...spool.Kind) []string {
	t, err := spool.Open(tree)
	if err != nil {
		return []string{err.Error()}
	}
	mends := func(k spool.Kind) bool { return k == spool.Untold || k == spool.Leftover }
	var broken []string
	found, err := fsck.Check(context.Background(), t, archive.CheckOptions{Deep: true})
	if err != nil {
		return []string{err.Error()}
	}
	for _, f := range found {
		if slices.Contains(but, f.Kind) {
			continue
		}
		if !mends(f.Kind) {
			broken = append(broken, f.String())
			continue
		}
		// A child that another goroutine forks has all locks until its exec.
		err := f.Mend()
		for range 100 {
			if !errors.Is(err, spool.ErrBusy) {
				break
			}
			time.Sleep(10 * time.Millisecond)
			err = f.Mend()
		}
		if err != nil {
			broken = append(broken, err.Error())
		}
	}
	if found, err = fsck.Check(context.Background(), t, archive.CheckOptions{}); err != nil {
		return append(broken, err.Error())
	}
	for _, f := range found {
		if mends(f.Kind) {
			broken = append(broken, "mended and still there: "+f.String())
		}
	}
	return broken
}

// places lists where the items are, "DIR SOURCE_VERSION" each, sorted as the
// states are.
func places(tree string) ([]string, error) {
	t, err := spool.Open(tree)
	if err != nil {
		return nil, err
	}
	found, err := t.Find("")
	var s []string
	for _, f := range found {
		s = append(s, f.Place.Dir()+" "+f.Name.ID())
	}
	return s, err
}

// scratch is a directory for many small trees: in memory, where a sync costs
// nothing. What a sync is worth is the model's to say, not the disk's.
func scratch(t testing.TB) string {
	base := "/dev/shm"
	if err := os.WriteFile(filepath.Join(base, ".packmill-test"), nil, 0o600); err != nil {
		base = ""
	}
	os.Remove(filepath.Join(base, ".packmill-test"))
	dir, err := os.MkdirTemp(base, "packmill-crash-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() && os.Getenv("PACKMILL_KEEP") != "" {
			t.Log("kept: ", dir)
			return
		}
		if err := removeTree(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// report says how much was tried, and what broke.
func report(t *testing.T, s *Sweep, tally *Tally, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(os.Stderr, "crash: %s: %s\n", s.Name, tally)
	for i, b := range tally.Broken {
		if i == 10 {
			t.Errorf("and %d more", len(tally.Broken)-i)
			break
		}
		t.Error(b)
	}
}
