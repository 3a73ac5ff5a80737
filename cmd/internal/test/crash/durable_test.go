//go:build linux && amd64

package crash

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"packmill/internal/below"
	"packmill/internal/durable"
)

func init() {
	victims["replace"] = func() error { return durable.WriteFile("file", []byte("the new text"), 0o644) }
	victims["group"] = groupMoves
}

// TestWriteFile strikes durable.WriteFile everywhere: the file has the old text
// or the new one, and if it says that it is done, the new one.
func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	tree := filepath.Join(dir, "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tree, "file"), []byte("the old text"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := &Sweep{
		Name: "durable.WriteFile", Tree: tree, Scratch: dir, Seed: 1, Workers: 2,
		Program: func(tree string) *Program { return victim(t, "replace", tree) },
		Settle:  func(string) error { return nil },
		Check: func(tree string, done bool) []string {
			b, err := os.ReadFile(filepath.Join(tree, "file"))
			if text := string(b); err != nil || text != "the new text" && (done || text != "the old text") {
				return []string{"the file has: " + text}
			}
			return nil
		},
	}
	tally, err := s.Run(0)
	report(t, s, tally, err)
}

// groupFiles is how many files groupMoves moves, each in its own goroutine.
const groupFiles = 5

// groupMoves moves files from one directory to another at the same time, and
// says of each that it is done by a directory of its name.
func groupMoves() error {
	from, err := below.Open(".", "from")
	if err != nil {
		return err
	}
	to, err := below.Open(".", "to")
	if err != nil {
		return err
	}
	var moves durable.Group
	var g errgroup.Group
	for i := range groupFiles {
		g.Go(func() error {
			name := fmt.Sprint(i)
			if err := moves.Rename(from, name, to, name); err != nil {
				return err
			}
			return os.Mkdir(filepath.Join("done", name), 0o755)
		})
	}
	return g.Wait()
}

func groupTree(t *testing.T) (dir string) {
	dir = t.TempDir()
	for _, d := range []string{"from", "to", "done"} {
		if err := os.MkdirAll(filepath.Join(dir, "tree", d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for i := range groupFiles {
		if err := os.WriteFile(filepath.Join(dir, "tree/from", fmt.Sprint(i)), []byte("it"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// groupBroken says which files are nowhere, or lie elsewhere than was said.
func groupBroken(tree string, _ bool) (broken []string) {
	has := func(dir, name string) bool {
		_, err := os.Lstat(filepath.Join(tree, dir, name))
		return err == nil
	}
	for i := range groupFiles {
		name := fmt.Sprint(i)
		from, to := has("from", name), has("to", name)
		if !from && !to || has("done", name) && (from || !to) {
			broken = append(broken, fmt.Sprintf("%s: in from %t, in to %t, done %t", name, from, to, has("done", name)))
		}
	}
	return broken
}

// TestGroup strikes moves that share their syncs everywhere: what was said to
// be done is on every disk that a power cut could leave.
func TestGroup(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	dir := groupTree(t)
	s := &Sweep{
		Name: "durable.Group", Tree: filepath.Join(dir, "tree"), Scratch: dir, Seed: 1, Workers: 2,
		Program: func(tree string) *Program { return victim(t, "group", tree) },
		Settle:  func(string) error { return nil },
		Check:   groupBroken,
	}
	tally, err := s.Run(0)
	report(t, s, tally, err)
}

// TestGroupInDoubt makes each sync fail in turn: no disk lacks what was said to
// be done, not even where a later sync seems to cover it.
func TestGroupInDoubt(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	dir := groupTree(t)
	failed := 0
	for n := 1; n <= 4*groupFiles; n++ {
		tree := filepath.Join(dir, fmt.Sprint(n))
		if err := CopyTree(filepath.Join(dir, "tree"), tree); err != nil {
			t.Fatal(err)
		}
		record, err := NewRecord(tree)
		if err != nil {
			t.Fatal(err)
		}
		var what string
		run, err := Trace(victim(t, "group", tree), func(c *Call) Act {
			if c.N == n && c.Syncs() {
				what = c.String()
				return Act{Fail, unix.EIO}
			}
			return Act{}
		}, func(c *Call) {
			c.Data = bytes.Clone(c.Data)
			record.After(c)
		})
		if err != nil {
			t.Fatal(err)
		}
		if what == "" {
			continue
		}
		if failed++; run.Exit() == 0 {
			t.Errorf("call %d, %s failed: it ended as if all were well", n, what)
		}
		for cut := 1; cut <= record.Cuts(); cut++ {
			for i, state := range record.States(cut, 3, 1, nil) {
				disk := filepath.Join(dir, "disk")
				if err := record.Make(state, disk); err != nil {
					t.Fatal(err)
				}
				for _, b := range groupBroken(disk, false) {
					t.Errorf("call %d, %s failed: power %s, %d: %s", n, what, state, i, b)
				}
				if err := removeTree(disk); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if failed == 0 {
		t.Error("no sync failed")
	}
}
