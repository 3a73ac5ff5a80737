package mail

import (
	"fmt"
	"io"
	"log/slog"
	"slices"
	"testing"
	"time"

	"packmill/spool"
)

// TestTellerRests: a place is read again after so long as its names are many, and nothing in it goes untold.
func TestTellerRests(t *testing.T) {
	tree, err := spool.Init(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	place := spool.In(spool.DepWait, "stable", "amd64")
	add := func(source string) {
		t.Helper()
		it, err := tree.Create(place, spool.NewName(50, time.Now(), source, "1"), spool.MasterD, "master-buildd", "arrived",
			func(string) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		it.Release()
	}
	var told []string
	teller := &Teller{Tree: tree, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Places: func() ([]spool.Place, error) { return []spool.Place{place}, nil },
		Lock:   func(spool.Place) string { return tree.Path("spool") },
		Say: func(_ spool.Place, n spool.Name, _ string, _ []spool.Event) (*Message, error) {
			told = append(told, n.Source)
			return nil, nil
		}}
	for i := range 100 {
		add(fmt.Sprintf("first%02d", i))
	}
	start := time.Now()
	teller.round(t.Context())
	if rest := teller.rests[place].Sub(start); len(told) != 100 || rest < 100*restOfName {
		t.Fatalf("told of %d, and rests for %s", len(told), rest)
	}
	teller.rests[place] = time.Now().Add(time.Hour) // as of a place with seventy million names
	add("second")
	if teller.round(t.Context()); len(told) != 100 {
		t.Errorf("while it rests, told of %s", told[100:])
	}
	teller.rests[place] = time.Now()
	if teller.round(t.Context()); !slices.Equal(told[100:], []string{"second"}) {
		t.Errorf("after its rest, told of %s", told[100:])
	}
}
