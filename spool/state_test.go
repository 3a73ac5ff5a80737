package spool

import (
	"slices"
	"testing"
)

// One more row in a copy of the table, and its moves, is all that the engine
// needs of a new state.
func TestOneMoreState(t *testing.T) {
	paused := &Row{Name: "paused", Dir: ofArch + "paused", Right: queues, Traits: Jobs | Queued | Active | Stale}
	held := &Row{Name: "held", Dir: "spool/held/SUITE", Right: reviewed, Traits: Sources | Whole}
	tree := newTree(t)
	tree.Table = Table{
		States: append(slices.Clone(tree.States), paused, held),
		Moves:  append(slices.Clone(tree.Moves), Rule{[]State{NeedsBuild}, []State{paused}, []Actor{Person}}),
	}
	place := In(paused, "sid", "amd64")
	if got := place.Dir(); got != "queue/sid/amd64/paused" {
		t.Errorf("Dir: got %q", got)
	}
	if got, ok := tree.PlaceOf(place.Dir()); !ok || got != place {
		t.Errorf("PlaceOf: got %v, %v", got, ok)
	}
	if tree.Named("paused") != paused || !slices.Contains(tree.ArchStates(), paused) ||
		!slices.Contains(tree.Are(Jobs|Active), paused) {
		t.Errorf("the table does not know it: %v", tree.States)
	}
	if !slices.Contains(tree.parts(), "spool/held") {
		t.Errorf("init would not make its directory: %v", tree.parts())
	}
	want := Right{Dir: "spool/held", Owner: UserReview, Group: GroupReview, Mode: reviewed.Mode, Shared: true,
		Look: true}
	if !slices.Contains(tree.Rights(), want) {
		t.Errorf("its directory has no owner: %v", tree.Rights())
	}

	if err := tree.Ensure(In(held, "sid")); err != nil {
		t.Fatal(err)
	}
	name := NewName(50, t0, "hello", "1")
	f := sound(t, tree, In(NeedsBuild, "sid", "amd64"), name)
	it, err := tree.Claim(f.Place, name.String())
	if err != nil {
		t.Fatal(err)
	}
	if err := it.Move(MasterD, "test", Verdict{To: place}); err == nil {
		t.Error("a move that is not in the table was made")
	}
	if err := it.Move(Person, "test", Verdict{To: place}); err != nil {
		t.Fatal(err)
	}
	it.Release()
	found, err := tree.Find("hello")
	if err != nil || len(found) != 1 || found[0].Place != place || found[0].Arch() != "amd64" {
		t.Errorf("Find: got %v, %v", found, err)
	}
	for _, table := range []Table{tree.Table, Standard} {
		tree.Table = table
		findings, err := tree.Fsck()
		if err != nil {
			t.Fatal(err)
		}
		lost, err := tree.Lost(t0)
		if err != nil {
			t.Fatal(err)
		}
		// In the standard table the directory is a stray, and the item's last
		// move went nowhere.
		known := slices.Contains(table.States, paused)
		stray := slices.ContainsFunc(findings, func(f Finding) bool { return f.Kind == Stray && f.Path == place.Dir() })
		if known && len(findings)+len(lost) > 0 || !known && !stray {
			t.Errorf("fsck, known %v: got %v, lost %v", known, findings, lost)
		}
	}
}

// States whose directories begin in one place have one owner there.
func TestOneRightForEachDirectory(t *testing.T) {
	for _, s := range Standard.States {
		want := s.Right
		want.Dir, want.Shared = s.root(), s.Has("SUITE")
		if !slices.Contains(Standard.Rights(), want) {
			t.Errorf("%s: the list of rights has another line for %s than %v", s, s.root(), want)
		}
		if s.Dir == "" || s.What == "" || s.Next == "" || s.Who == "" || s.Traits&(Sources|Jobs) == 0 {
			t.Errorf("%s: the row is not whole: %+v", s, *s)
		}
	}
}
