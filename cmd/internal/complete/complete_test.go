package complete

import (
	"slices"
	"testing"
	"time"

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
		{"cancel", []spool.State{spool.NeedsBuild, spool.BDUninstallable, spool.DepWait, spool.Building, spool.Built,
			spool.BuildAttempted, spool.Failed}},
		{"requeue", []spool.State{spool.Rejected, spool.Master, spool.BDUninstallable, spool.DepWait, spool.Built,
			spool.BuildAttempted, spool.Failed, paused}},
	} {
		is := items(c.command)
		if is == nil {
			t.Errorf("%s: completes nothing", c.command)
			continue
		}
		if got := table.Where(is); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.command, got, c.want)
		}
	}
	if items("doctor") != nil {
		t.Error("doctor: completes items, and takes none")
	}
}

// What an argument may be, the tree says: here one without settings and archive, with one
// job that waits.
func TestWords(t *testing.T) {
	tree, err := spool.Init(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	name := spool.NewName(spool.NormalClass, time.Now(), "hello", "1:1.0-1")
	it, err := tree.Create(spool.In(spool.NeedsBuild, "sid", "amd64"), name, spool.MasterD, "who", "why",
		func(string) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	it.Release()
	for _, c := range []struct {
		x    Argument
		want []string
	}{
		{Argument{Command: "cancel", Last: "h"}, []string{"hello"}},
		{Argument{Command: "cancel", Last: "hello_"}, []string{"hello_1%3a1.0-1"}},
		{Argument{Command: "review accept", Last: "h"}, nil},
		{Argument{Command: "archive ls", Takes: []string{"view"}}, nil},
		{Argument{Command: "wb", Args: []string{"gb", "hello", ".", "amd64"}}, []string{"all", "ANY", "ALL", "."}},
	} {
		c.x.Tree = tree.Root()
		if got := c.x.Words(); !slices.Equal(got, c.want) {
			t.Errorf("%s %q %q: got %q, want %q", c.x.Command, c.x.Args, c.x.Last, got, c.want)
		}
	}
}
