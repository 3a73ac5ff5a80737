package main

import (
	"slices"
	"testing"

	"packmill/spool"
)

// What commands take, and what they complete, they ask the table: also of a
// state that is new in it.
func TestCommandsAskTheTable(t *testing.T) {
	paused := &spool.Row{Name: "paused", Dir: "queue/SUITE/ARCH/paused", Traits: spool.Jobs, Requeue: spool.NeedsBuild}
	table := spool.Table{States: append(slices.Clone(spool.Standard.States), paused)}
	for _, c := range []struct {
		command string
		want    []spool.State
	}{
		{"ls", table.States},
		{"review accept", []spool.State{spool.Review}},
		{"build", []spool.State{spool.Built, spool.BuildAttempted}},
		{"build fail", []spool.State{spool.Built, spool.BuildAttempted}},
		{"build sign", []spool.State{spool.Built}},
		{"cancel", []spool.State{spool.NeedsBuild, spool.BDUninstallable, spool.DepWait, spool.Building, spool.Built, spool.BuildAttempted, spool.Failed}},
		{"requeue", []spool.State{spool.Rejected, spool.Master, spool.BDUninstallable, spool.DepWait, spool.Built, spool.BuildAttempted, spool.Failed, paused}},
	} {
		is := completed(c.command)
		if is == nil {
			t.Errorf("%s: completes nothing", c.command)
			continue
		}
		if got := table.Where(is); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.command, got, c.want)
		}
	}
	if completed("status") != nil {
		t.Error("status: completes items, and takes none")
	}
}
