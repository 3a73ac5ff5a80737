package main

import (
	"log/slog"
	"os"
	"slices"
	"testing"

	"packmill/cmd/internal/control"
	"packmill/cmd/internal/daemon"
	"packmill/spool"
)

// TestFirstScan: in a fresh tree, whichever loop looks first, the join watches
// where results arrive; else the first build would wait for the next scan.
func TestFirstScan(t *testing.T) {
	m := newTestMaster(t)
	tree := m.Tree
	// A state that is new in the table is served like the others.
	paused := &spool.Row{Name: "paused", Dir: "queue/SUITE/ARCH/paused", Traits: spool.Jobs | spool.Queued | spool.Settled,
		Right: spool.Failed.Right}
	tree.States = append(slices.Clone(tree.States), paused)
	join := m.join()
	if _, err := join.Places(); err != nil {
		t.Fatal(err)
	}
	watched := join.Also()
	for _, dir := range []string{"archive/incoming/sid", "queue/sid/amd64/build-attempted",
		"queue/sid/all/failed", "queue/sid/amd64/paused", "attic"} {
		if !slices.Contains(watched, tree.Path(dir)) {
			t.Errorf("after the first scan %s is not watched; got %q", dir, watched)
		}
	}
}

// newTestMaster is one of a fresh tree with a suite.
func newTestMaster(t *testing.T) *master {
	t.Helper()
	tree, err := spool.Init(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(tree.Path("control/suites"), []byte("Suite: sid\nArchitectures: amd64\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	store, err := control.NewStore(tree.Path("control"), log)
	if err != nil {
		t.Fatal(err)
	}
	return newMaster(&daemon.Env{Tree: tree, Settings: store, Log: log, Name: "master-buildd"})
}
