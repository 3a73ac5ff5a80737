package queue

import (
	"slices"
	"strings"
	"testing"

	"packmill/spool"
)

// One more row in a copy of the table is all that the queues need of a new
// state: a job there is found, is made no second time, keeps its source waiting
// or lets it go, gives way to a newer version, and is left alone by wb with a
// sentence.
func TestOneMoreState(t *testing.T) {
	for _, settled := range []bool{false, true} {
		row := &spool.Row{Name: "paused", Dir: "queue/SUITE/ARCH/paused", Right: spool.Failed.Right,
			Traits: spool.Jobs | spool.Queued | spool.Owned | spool.Stale | spool.Active}
		if settled {
			row.Traits ^= spool.Active | spool.Settled
		}
		tree, err := spool.Init(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		tree.Table = spool.Table{
			States: append(slices.Clone(tree.States), row),
			Moves: append(slices.Clone(tree.Moves),
				spool.Rule{From: []spool.State{row}, To: []spool.State{spool.Attic}, By: []spool.Actor{spool.MasterD}}),
		}
		source, suite := inMaster(t, tree)
		was := spool.Found{Place: spool.In(spool.NeedsBuild, "sid", "amd64"), Name: source.Name}
		f := spool.Found{Place: spool.In(row, "sid", "amd64"), Name: source.Name}
		byHand(t, tree, was, f)

		if got, err := FindJob(tree, "sid", "amd64", f.Name); err != nil || got == nil || *got != f {
			t.Errorf("FindJob: got %v, %v", got, err)
		}
		if got, err := Lookup(tree, "sid", "amd64", "hello"); err != nil || got == nil || *got != f {
			t.Errorf("Lookup: got %v, %v", got, err)
		}
		if found, err := CheckLedgers(tree); err != nil || len(found) > 0 {
			t.Errorf("CheckLedgers: got %v, %v", found, err)
		}
		if v, err := Join(tree, source, suite); err != nil || (v.To.State == spool.Uploaded) != settled {
			t.Errorf("Join, settled %v: got %s (%s), %v", settled, v.To, v.Reason, err)
		}
		tk, err := TicketAt(tree, f)
		if err != nil {
			t.Fatal(err)
		}
		tk.Builder = "bob"
		if !Owned(tk, row, "bob") || Owned(tk, row, "alice") {
			t.Error("Owned: who took it does not answer for it")
		}
		for _, op := range Ops {
			reply, err := Ask(tree, f, &Request{Op: op, Who: "bob", Override: true, Message: "a", Now: testTime})
			if err != nil || reply.Refusal == "" || May(op, row) {
				t.Errorf("%s: got %+v, %v; want a refusal", op, reply, err)
			}
		}
		source.Release()
		if err := Supersede(tree, "sid", spool.Name{Source: "hello", Version: "2"}, "test"); err != nil {
			t.Fatal(err)
		}
		found, err := tree.Find("hello", row, spool.Attic)
		if err != nil || slices.ContainsFunc(found, func(f spool.Found) bool {
			return f.Place.State == row
		}) || len(found) == 0 {
			t.Errorf("Supersede: got %v, %v", found, err)
		}
		if _, err := Make(tree,
			&Job{Ticket: tk, Arch: "amd64", State: spool.NeedsBuild, Time: testTime, By: spool.MasterD}); err != nil {
			t.Errorf("Make, after the attic: %v", err)
		}
	}
	// Without its row the job is nowhere.
	tree, err := spool.Init(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	row := &spool.Row{Name: "paused", Dir: "queue/SUITE/ARCH/paused"}
	source, suite := inMaster(t, tree)
	defer source.Release()
	byHand(t, tree, spool.Found{Place: spool.In(spool.NeedsBuild, "sid", "amd64"), Name: source.Name},
		spool.Found{Place: spool.In(row, "sid", "amd64"), Name: source.Name})
	if v, err := Join(tree, source, suite); err != nil || !strings.Contains(v.Reason, "waits for amd64") {
		t.Errorf("Join, without the row: got %s (%s), %v", v.To, v.Reason, err)
	}
	if found, err := CheckLedgers(tree); err != nil || len(found) != 1 {
		t.Errorf("CheckLedgers, without the row: got %v, %v", found, err)
	}
}
