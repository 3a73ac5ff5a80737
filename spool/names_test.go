package spool

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// seen lists where the items of a source are, as Of finds them in all places.
func seen(t *testing.T, tree *Tree, source string) string {
	t.Helper()
	places, err := tree.Places()
	if err != nil {
		t.Fatal(err)
	}
	found, err := tree.Of(source, places...)
	if err != nil {
		t.Fatal(err)
	}
	var dirs []string
	for _, f := range found {
		dirs = append(dirs, f.Dir())
	}
	return strings.Join(dirs, " ")
}

// TestOf follows an item through what changes its name and its place: it is found by the
// names that were written down, and an item of whose name nobody has heard is not, which
// shows that no directory was read.
func TestOf(t *testing.T) {
	tree := newTree(t)
	needs := In(NeedsBuild, "sid", "amd64")
	at := sound(t, tree, needs, NewName(50, t0, "hello", "1:2.10-3"))
	sound(t, tree, needs, NewName(50, t0, "hello2", "1"))
	want := func(what string, dirs ...string) {
		t.Helper()
		if got := seen(t, tree, "hello"); got != strings.Join(dirs, " ") {
			t.Errorf("%s: found %q, want %q", what, got, dirs)
		}
	}
	want("born", at.Dir())
	move := func(v Verdict) {
		t.Helper()
		it, err := tree.Claim(at.Place, at.Name.String())
		if err != nil {
			t.Fatal(err)
		}
		defer it.Release()
		if err := it.Move(Person, "test", v); err != nil {
			t.Fatal(err)
		}
		at = Found{it.Place, it.Name}
	}
	move(Verdict{To: needs, Class: 40, Renew: true})
	want("another class", at.Dir())
	move(Verdict{To: In(Attic)})
	if at.Name.Arch != "amd64" {
		t.Fatalf("in the attic it is called %s", at.Name)
	}
	want("where architectures meet", at.Dir())
	first := at
	at = sound(t, tree, needs, NewName(40, t0, "hello", "1:2.10-3"))
	move(Verdict{To: In(Attic)}) // where its name is taken
	want("a later microsecond", first.Dir(), at.Dir())

	// A person gives a name that no program gave.
	byHand := NewName(10, t0, "hello", "1:2.10-3")
	if err := os.Rename(tree.Path(at.Dir()), tree.Path(needs.Dir(), byHand.String())); err != nil {
		t.Fatal(err)
	}
	want("by hand, and not noticed", first.Dir())
	arrivals := Arrivals{Tree: tree}
	if _, err := arrivals.In(needs); err != nil {
		t.Fatal(err)
	}
	want("by hand", filepath.Join(needs.Dir(), byHand.String()), first.Dir())
}

// TestLearnNames: a tree without the record, one of another boot, and one that lost what
// was not synced are read, until they are learned.
func TestLearnNames(t *testing.T) {
	for what, lose := range map[string]func(*Tree) error{
		"none": func(tree *Tree) error { return os.RemoveAll(tree.Path(NamesDir)) },
		"of another boot": func(tree *Tree) error {
			return os.WriteFile(tree.Path(NamesDir, completeFile), []byte("another"), 0o664)
		},
	} {
		t.Run(what, func(t *testing.T) {
			tree := newTree(t)
			at := sound(t, tree, In(NeedsBuild, "sid", "amd64"), NewName(50, t0, "hello", "1"))
			sound(t, tree, In(NeedsBuild, "sid", "amd64"), NewName(50, t0.Add(time.Second), "xhello", "1"))
			if err := lose(tree); err != nil {
				t.Fatal(err)
			}
			if got := seen(t, tree, "hello"); got != at.Dir() {
				t.Errorf("before: found %q, want %q", got, at.Dir())
			}
			if err := os.Remove(tree.Path(NamesDir, "hello")); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			if err := tree.LearnNames(); err != nil {
				t.Fatal(err)
			}
			if _, complete := tree.namesComplete(); !complete || seen(t, tree, "hello") != at.Dir() {
				t.Errorf("learned: complete %v, found %q, want %q", complete, seen(t, tree, "hello"), at.Dir())
			}
		})
	}
}

// TestUnread: a state that is closed to who learns the names, as review is to
// master-buildd, is read by who may; the others are not.
func TestUnread(t *testing.T) {
	tree := newTree(t)
	review := sound(t, tree, In(Review, "sid"), NewName(50, t0, "hello", "1"))
	sound(t, tree, In(NeedsBuild, "sid", "amd64"), NewName(50, t0, "hello", "2"))
	if err := errors.Join(os.Remove(tree.Path(NamesDir, "hello")),
		os.WriteFile(tree.Path(NamesDir, completeFile), []byte(boot()+"\nintake review\n"), 0o664)); err != nil {
		t.Fatal(err)
	}
	if got := seen(t, tree, "hello"); got != review.Dir() {
		t.Errorf("found %q, want %q", got, review.Dir())
	}
	// What leaves it is found where all names are known.
	it, err := tree.Claim(review.Place, review.Name.String())
	if err == nil {
		err = it.Move(Reviewd, "reviewd", Verdict{To: In(Accepted, "sid")})
	}
	if err != nil {
		t.Fatal(err)
	}
	it.Release()
	if got, want := seen(t, tree, "hello"), filepath.Join(it.Place.Dir(), it.Name.String()); got != want {
		t.Errorf("accepted: found %q, want %q", got, want)
	}
	// Who may look there learns the rest, and no queue is read any more.
	if err := tree.LearnNames(Intake, Review); err != nil {
		t.Fatal(err)
	}
	if unread, complete := tree.namesComplete(); !complete || len(unread) > 0 {
		t.Errorf("learned: complete %v, unread %q", complete, unread)
	}
}

// TestLearnSome: whichever daemon learns its states first, the record is complete when all
// are learned, and not before.
func TestLearnSome(t *testing.T) {
	tree := newTree(t)
	if err := os.Remove(tree.Path(NamesDir, completeFile)); err != nil {
		t.Fatal(err)
	}
	if err := tree.LearnNames(Review); err != nil {
		t.Fatal(err)
	}
	unread, complete := tree.namesComplete()
	if !complete || slices.Contains(unread, Review.Name) || len(unread) != len(tree.States)-1 {
		t.Errorf("of one state: complete %v, unread %q", complete, unread)
	}
	if err := tree.LearnNames(); err != nil {
		t.Fatal(err)
	}
	if unread, complete := tree.namesComplete(); !complete || len(unread) > 0 {
		t.Errorf("of all: complete %v, unread %q", complete, unread)
	}
}

// TestGivesWay: a job that a person's mv brought to where its source comes, under the name
// of that, hinders it not.
func TestGivesWay(t *testing.T) {
	tree := newTree(t)
	name := NewName(50, t0, "hello", "1")
	for _, p := range []Place{In(Master, "sid"), In(NeedsBuild, "sid", "amd64")} {
		sound(t, tree, p, name)
	}
	job := tree.Path(In(NeedsBuild, "sid", "amd64").Dir(), name.String())
	ticket := "Source: hello\nVersion: 1\n" + ArchField + ": amd64\n"
	if err := os.WriteFile(filepath.Join(job, TicketFile), []byte(ticket), 0o644); err != nil {
		t.Fatal(err)
	}
	to := In(Uploaded, "sid")
	if err := tree.Ensure(to); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(job, tree.Path(to.Dir(), name.String())); err != nil {
		t.Fatal(err)
	}
	it, err := tree.Claim(In(Master, "sid"), name.String())
	if err != nil {
		t.Fatal(err)
	}
	defer it.Release()
	if err := it.Move(MasterD, "master-buildd", Verdict{To: to}); err != nil {
		t.Fatal(err)
	}
	names, err := tree.List(to)
	if want := name.String() + " " + name.String() + "_amd64"; err != nil || strings.Join(names, " ") != want {
		t.Errorf("got %q, %v, want %q", names, err, want)
	}
	// Two that are called so rightly stay as they are.
	again := sound(t, tree, In(Master, "sid"), name)
	other, err := tree.Claim(again.Place, name.String())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Release()
	it.Release()
	if err := other.Move(MasterD, "master-buildd", Verdict{To: to}); err == nil {
		t.Error("a second source of the name: no error")
	}
}
