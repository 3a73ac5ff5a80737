package archive

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"packmill/internal/deb822"
)

// TestBreaksOnlyAffected: of any suite, over any distribution, what dose says of the affected is what it says of all.
func TestBreaksOnlyAffected(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	t.Parallel()
	fewer, broke := 0, 0
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		u, text := anyUniverse(t, r)
		var all []*candidate
		for _, x := range u.all {
			if x.ours && x.there[after] {
				all = append(all, x)
			}
		}
		affected := u.affected()
		want, err := u.breaks(context.Background(), all, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		got, err := u.breaks(context.Background(), affected, t.TempDir())
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("%d: of the affected %v, %v; of all %v:\n%s", seed, got, err, want, text)
		}
		if len(affected) < len(all) {
			fewer++
		}
		if len(want) > 0 {
			broke++
		}
	}
	if fewer < 20 || broke < 20 {
		t.Errorf("fewer than all were affected %d times, and something broke %d times: that shows nothing", fewer, broke)
	}
}

// anyUniverse is a suite of some packages and sources over a distribution of some others, of which some are gone; and its
// text.
func anyUniverse(t *testing.T, r *rand.Rand) (*universe, string) {
	const packages, sources = 14, 5
	u := &universe{arch: "amd64", named: map[string][]*candidate{}}
	var said strings.Builder
	some := func() string { return fmt.Sprintf("p%d", r.IntN(packages+2)) } // two are nowhere
	relations := func(most int) string {
		var out []string
		for range r.IntN(most + 1) {
			or := some()
			if r.IntN(3) == 0 {
				or += " (>= 2)"
			}
			if r.IntN(3) == 0 {
				or += " | " + some()
			}
			out = append(out, or)
		}
		return strings.Join(out, ", ")
	}
	add := func(kind, stanza string, ours bool, there [2]bool) {
		fmt.Fprintf(&said, "ours %v, there %v:\n%s\n", ours, there, stanza)
		sc := deb822.NewScanner(strings.NewReader(stanza))
		if !sc.Next() {
			t.Fatalf("%v: %s", sc.Err(), stanza)
		}
		x := newCandidate(sc, nil)
		x.ours, x.there = ours, there
		u.add(x, kind)
	}
	field := func(name, value string) string {
		if value == "" {
			return ""
		}
		return name + ": " + value + "\n"
	}
	for i := range packages {
		ours, there := r.IntN(4) > 0, [2]bool{true, true}
		stanza := func(version int) string {
			s := fmt.Sprintf("Package: p%d\nVersion: %d\nArchitecture: amd64\n", i, version)
			if r.IntN(12) == 0 {
				s += "Essential: yes\n"
			}
			if r.IntN(5) == 0 {
				s += "Provides: " + some() + "\n"
			}
			if r.IntN(8) == 0 {
				s += "Conflicts: " + some() + "\n"
			}
			return s + field("Depends", relations(2))
		}
		if ours && r.IntN(4) == 0 {
			there[after] = false
			if r.IntN(3) == 0 { // the same one is below
				add("amd64", stanza(2), false, [2]bool{false, true})
			}
		}
		add("amd64", stanza(2), ours, there)
		if r.IntN(4) == 0 {
			add("amd64", stanza(1), false, [2]bool{true, true})
		}
	}
	for i := range sources {
		s := fmt.Sprintf("Package: s%d\nVersion: 1\nArchitecture: any\n", i)
		if r.IntN(4) == 0 {
			s += "Build-Conflicts: " + some() + "\n"
		}
		add("source", s+field("Build-Depends", relations(3)), true, [2]bool{true, true})
	}
	return u, said.String()
}
