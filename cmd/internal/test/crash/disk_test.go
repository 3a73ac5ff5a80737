//go:build linux && amd64

package crash

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// recorded runs a victim on a tree and returns what the disk knows.
func recorded(t *testing.T, name string, judge func(*Call) Act) (*Record, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tree")
	for _, d := range []string{"queue/a/item", "queue/b"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"queue/a/item/ticket", "queue/a/plain"} {
		if err := os.WriteFile(filepath.Join(dir, f), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r, err := NewRecord(dir)
	if err != nil {
		t.Fatal(err)
	}
	run, err := Trace(victim(t, name, dir), judge, r.After)
	if err != nil || run.Exit() != 0 {
		t.Fatalf("%v, %s", err, run.Output)
	}
	return r, dir
}

// disks makes every state of a cut and returns the trees by their listing,
// with the name of the first state that gave it.
func disks(t *testing.T, r *Record, cut int) map[string]string {
	t.Helper()
	found := map[string]string{}
	base := t.TempDir()
	for i, s := range r.States(cut, 20, 1, nil) {
		dir := filepath.Join(base, fmt.Sprint(cut, "-", i))
		if err := r.Make(s, dir); err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(listing(t, dir), "\x00", "0")
		if found[text] == "" {
			found[text] = s.Name
		}
	}
	return found
}

// rest is the part of every test's tree that nothing changes.
func rest(s string) string {
	for _, cut := range []string{" queue/", " queue/a/", " queue/b/", "queue/a/plain=x"} {
		s = strings.Replace(" "+s+" ", cut+" ", " ", 1)
		s = strings.TrimSpace(s)
	}
	return s
}

// TestDiskEnd compares the disks that a cut after the end can leave: one for
// the programs that sync what they must, more for those that do not.
func TestDiskEnd(t *testing.T) {
	const item = "queue/a/item/ queue/a/item/ticket=x"
	const moved = "queue/b/item/ queue/b/item/ticket=x"
	for _, tt := range []struct {
		victim string
		want   []string
	}{
		{"save", []string{"file=0123456789 " + item}},
		{"no file sync", []string{"file= " + item, "file=0000000000 " + item, "file=01234 " + item, "file=0123456789 " + item,
			"file=00000 " + item, "file=01 " + item}},
		{"no directory sync", []string{item, "file.tmp=0123456789 " + item, "file=0123456789 " + item}},
		{"move", []string{moved}},
		{"move, old only", []string{moved}}, // a directory's move is one change
		{"move, no sync", []string{item, moved}},
		{"move file", []string{item + " queue/b/plain=x"}},
		{"move file, new", []string{item + " queue/b/plain=x", item + " +queue/a/plain queue/b/plain=x"}},
		{"into new", []string{"queue/new/ queue/new/item/ queue/new/item/ticket=x"}}, // see Record
	} {
		t.Run(tt.victim, func(t *testing.T) {
			r, dir := recorded(t, tt.victim, nil)
			found := disks(t, r, r.Cuts())
			var got []string
			for _, s := range slices.Sorted(maps.Keys(found)) {
				if strings.Contains(s, "queue/a/plain=x") && strings.Contains(s, "queue/b/plain=x") {
					s = strings.Replace(s, "queue/a/plain=x", "+queue/a/plain", 1)
				}
				got = append(got, rest(s))
			}
			for i, s := range tt.want {
				tt.want[i] = rest(s)
			}
			slices.Sort(got)
			slices.Sort(tt.want)
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q\nwant %q", got, tt.want)
			}
			if !slices.Contains(slices.Collect(maps.Keys(found)), listing(t, dir)) {
				t.Errorf("the tree as it is, %q, is not among the disks", listing(t, dir))
			}
		})
	}
}

// TestDiskEveryCut holds what save is for: at any cut the file is as a whole or
// not there. Writing in place fails the same test.
func TestDiskEveryCut(t *testing.T) {
	for _, tt := range []struct {
		victim string
		sound  bool
	}{{"save", true}, {"in place", false}, {"no file sync", false}} {
		r, _ := recorded(t, tt.victim, nil)
		sound := true
		for cut := 1; cut <= r.Cuts(); cut++ {
			for text := range disks(t, r, cut) {
				for _, f := range strings.Fields(text) {
					if strings.HasPrefix(f, "file=") && f != "file=0123456789" {
						sound = false
					}
				}
			}
		}
		if sound != tt.sound {
			t.Errorf("%s: got sound %t, want %t", tt.victim, sound, tt.sound)
		}
	}
}

// TestDiskFailedSync holds that a sync which failed makes the next one worth
// nothing.
func TestDiskFailedSync(t *testing.T) {
	for _, fail := range []bool{false, true} {
		r, _ := recorded(t, "sync twice", func(c *Call) Act {
			if fail && c.verb == vSync {
				fail = false
				return Act{Fail, unix.EIO}
			}
			return Act{}
		})
		empty := false
		for text := range disks(t, r, r.Cuts()) {
			empty = empty || strings.HasPrefix(text, "file= ")
		}
		if struck := r.Cuts() == 5; empty != struck {
			t.Errorf("%d calls: got an empty file %t", r.Cuts(), empty)
		}
	}
}

// TestDiskTwoRuns holds that a record goes on over a second program, and that
// a syncfs at its start makes sure of what the first one left visible.
func TestDiskTwoRuns(t *testing.T) {
	r, dir := recorded(t, "no directory sync", nil)
	if got := len(disks(t, r, r.Cuts())); got < 2 {
		t.Errorf("before the second run: got %d disks, want several", got)
	}
	run, err := Trace(victim(t, "syncfs", dir), nil, r.After)
	if err != nil || run.Exit() != 0 || run.Calls != 1 {
		t.Fatalf("%v, %s, %d calls", err, run.Output, run.Calls)
	}
	if got := len(disks(t, r, r.Cuts())); got != 1 {
		t.Errorf("after the second run: got %d disks, want 1", got)
	}
}
