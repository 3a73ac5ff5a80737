package spool

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"packmill/internal/durable"
)

// sound makes an item with a ticket that fits.
func sound(t testing.TB, tree *Tree, p Place, n Name) Found {
	t.Helper()
	by := MasterD
	if p.State == Intake {
		by = Reviewd
	}
	at := p
	if !tree.Legal(Unborn, p.State, by) {
		at = In(NeedsBuild, "sid", "hurd-i386") // and then by hand
	}
	it, err := tree.Create(at, n, by, string(by), "test", func(dir string) error {
		text := fmt.Sprintf("Source: %s\nVersion: %s\n", n.Source, n.Version)
		return os.WriteFile(filepath.Join(dir, TicketFile), []byte(text), 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	it.Release()
	if at != p {
		if err := tree.Ensure(p); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(tree.Path(at.Dir(), n.String()), tree.Path(p.Dir(), n.String())); err != nil {
			t.Fatal(err)
		}
		it, err := tree.Claim(p, n.String()) // which notices
		if err != nil {
			t.Fatal(err)
		}
		it.Release()
	}
	return Found{p, n}
}

func TestFsck(t *testing.T) {
	old := time.Now().Add(-time.Hour)
	name := NewName(50, t0, "hello", "1:2.10-3")
	later := NewName(50, t0.Add(time.Second), "hello", "1:2.10-3")
	needs, building := In(NeedsBuild, "sid", "amd64"), In(Building, "sid", "amd64")
	write := func(t *testing.T, tree *Tree, rel, text string) {
		t.Helper()
		p := tree.Path(rel)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		os.Chtimes(p, old, old)
	}
	for _, tt := range []struct {
		what  string
		plant func(t *testing.T, tree *Tree)
		want  string // kinds and paths
		after string // the same when all that can be was mended
		path  string // is there then
	}{
		{"an empty tree", func(*testing.T, *Tree) {}, "", "", ""},
		{"sound items", func(t *testing.T, tree *Tree) {
			sound(t, tree, needs, name)
			sound(t, tree, In(NeedsBuild, "sid", "arm64"), name)
			sound(t, tree, In(Master, "sid"), name)
			sound(t, tree, In(NeedsBuild, "trixie", "amd64"), name)
			pub := name
			pub.Arch = "source"
			sound(t, tree, In(Uploaded, "sid"), pub)
			sound(t, tree, In(Attic), name)
			sound(t, tree, Place{State: Installed, Suite: "sid", Arch: SourceArch, Hash: "h"}, name)
			write(t, tree, "spool/incoming/alice/hello.changes", "x")
			write(t, tree, "archive/pool/main/h/hello/hello.deb", "x")
		}, "", "", ""},
		{"a file at the top", func(t *testing.T, tree *Tree) { write(t, tree, "core", "x") },
			"stray core", "", "attic/strays/*/core"},
		{"a state that does not exist", func(t *testing.T, tree *Tree) { write(t, tree, "queue/sid/amd64/nowhere/x", "x") },
			"stray queue/sid/amd64/nowhere", "", "attic/strays/*/nowhere/x"},
		{"a file among items", func(t *testing.T, tree *Tree) { write(t, tree, needs.Dir()+"/"+name.String(), "x") },
			"stray " + needs.Dir() + "/" + name.String(), "", "attic/strays/*/" + name.String()},
		{"a name that is no item's", func(t *testing.T, tree *Tree) { write(t, tree, needs.Dir()+"/hello/ticket", "x") },
			"stray " + needs.Dir() + "/hello", "", "attic/strays/*/REASON"},
		{"no ticket", func(t *testing.T, tree *Tree) {
			f := sound(t, tree, needs, name)
			os.Remove(tree.Path(f.Dir(), TicketFile))
		}, "bad item " + needs.Dir() + "/" + name.String(), "", "spool/rejected/50-*_hello_1%3a2.10-3_amd64/REASON"},
		{"a ticket of another version", func(t *testing.T, tree *Tree) {
			f := sound(t, tree, needs, name)
			write(t, tree, f.Dir()+"/ticket", "Source: hello\nVersion: 2\n")
		}, "bad item " + needs.Dir() + "/" + name.String(), "", "spool/rejected/*/REASON"},
		{"one job in two states", func(t *testing.T, tree *Tree) {
			sound(t, tree, needs, name)
			sound(t, tree, In(Built, "sid", "amd64"), later)
		}, "twice " + needs.Dir() + "/" + name.String(), "", "attic/50-*_hello_1%3a2.10-3_amd64/REASON"},
		{"one source in two states", func(t *testing.T, tree *Tree) {
			sound(t, tree, In(Review, "sid"), name)
			sound(t, tree, In(Master, "sid"), name)
		}, "twice spool/review/sid/" + name.String(), "", "attic/" + name.String() + "/REASON"},
		{"a move by hand", func(t *testing.T, tree *Tree) {
			f := sound(t, tree, needs, name)
			if err := durable.Rename(tree.Path(f.Dir()), tree.Path("queue/sid/amd64/failed")+"/"+name.String()); err == nil {
				t.Fatal("moved to a directory that is not there")
			}
			tree.Ensure(In(Failed, "sid", "amd64"))
			os.Rename(tree.Path(f.Dir()), tree.Path("queue/sid/amd64/failed", name.String()))
		}, "untold queue/sid/amd64/failed/" + name.String(), "", "queue/sid/amd64/failed/*/ticket"},
		{"a torn write in an item", func(t *testing.T, tree *Tree) {
			f := sound(t, tree, needs, name)
			write(t, tree, f.Dir()+"/.new-12", "x")
		}, "leftover " + needs.Dir() + "/" + name.String() + "/.new-12", "", ""},
		{"births of dead processes", func(t *testing.T, tree *Tree) {
			write(t, tree, "tmp/new-1/ticket", "x")
			os.Chtimes(tree.Path("tmp/new-1"), old, old)
			write(t, tree, "tmp/x", "x")
			os.Mkdir(tree.Path("tmp/new-2"), 0o755) // young
		}, "leftover tmp/new-1, leftover tmp/x", "", "tmp/new-2"},
		{"a dead builder's job", func(t *testing.T, tree *Tree) { sound(t, tree, building, name) },
			"abandoned " + building.Dir() + "/" + name.String(), "abandoned " + building.Dir() + "/" + name.String(), ""},
		{"a part is missing", func(t *testing.T, tree *Tree) {
			os.RemoveAll(tree.Path("journal"))
		}, "unready journal", "", "journal"},
		{"an item whose name nobody wrote down", func(t *testing.T, tree *Tree) {
			sound(t, tree, needs, name)
			os.Remove(tree.Path(NamesDir, "hello"))
		}, "unknown " + needs.Dir() + "/" + name.String(), "", NamesDir + "/hello"},
		{"installed elsewhere than it should be", func(t *testing.T, tree *Tree) {
			sound(t, tree, Place{State: Installed, Suite: "sid", Arch: "amd64", Hash: "x"}, name)
		}, "stray archive/installed/sid/amd64/x/" + name.String(), "", ""},
	} {
		t.Run(tt.what, func(t *testing.T) {
			tree := newTree(t)
			tt.plant(t, tree)
			list := func() (string, []Finding) {
				found, err := tree.Fsck()
				if err != nil {
					t.Fatal(err)
				}
				var s []string
				for _, f := range found {
					s = append(s, string(f.Kind)+" "+f.Path)
				}
				return strings.Join(s, ", "), found
			}
			got, found := list()
			if got != tt.want {
				t.Errorf("found %q, want %q", got, tt.want)
			}
			for _, f := range found {
				if f.Mendable() {
					if err := f.Mend(); err != nil {
						t.Error(err)
					}
				}
			}
			if got, _ := list(); got != tt.after {
				t.Errorf("after mending: found %q, want %q", got, tt.after)
			}
			if tt.path != "" {
				if m, _ := filepath.Glob(tree.Path(tt.path)); len(m) == 0 {
					t.Errorf("%s is not there", tt.path)
				}
			}
		})
	}
}

// An item that is locked is on its way: nothing is said of it.
func TestFsckLeavesTheLockedAlone(t *testing.T) {
	tree := newTree(t)
	f := sound(t, tree, In(Building, "sid", "amd64"), NewName(50, t0, "hello", "1"))
	it, err := tree.Claim(f.Place, f.Name.String())
	if err != nil {
		t.Fatal(err)
	}
	defer it.Release()
	os.Remove(it.Path(TicketFile))
	if found, err := tree.Fsck(); err != nil || len(found) > 0 {
		t.Errorf("got %v, %v; want nothing", found, err)
	}
}

// Beside daemons that move items all the time Fsck finds nothing.
func TestFsckBesideDaemons(t *testing.T) {
	tree := newTree(t)
	states := []State{NeedsBuild, DepWait, BDUninstallable}
	for i := range 30 {
		sound(t, tree, In(NeedsBuild, "sid", "amd64"),
			NewName(50, t0.Add(time.Duration(i)*time.Second), fmt.Sprintf("pkg%d", i), "1"))
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		defer close(done)
		for i := 0; ctx.Err() == nil; i++ {
			found, err := tree.Find("", states...)
			if err != nil {
				done <- err
				return
			}
			for _, f := range found {
				it, err := tree.Claim(f.Place, f.Name.String())
				if err != nil {
					continue // Fsck has it
				}
				to := states[(slices.Index(states, f.Place.State)+1)%len(states)]
				err = it.Move(MasterD, "master-buildd", Verdict{To: In(to, "sid", "amd64"), Reason: "test"})
				it.Release()
				if err != nil {
					done <- err
					return
				}
			}
		}
	}()
	for range 30 {
		found, err := tree.Fsck()
		if err != nil || len(found) > 0 {
			t.Errorf("got %v, %v; want nothing", found, err)
			break
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
