// Package survey reads a tree for a person: which items a name means, what a
// list shows of them, how much is in each state, and why a package is where it
// is. It changes nothing.
package survey

import (
	"slices"
	"strings"

	"packmill/cmd/internal/daemon"
	"packmill/spool"
)

// Find looks for what a person calls pattern in some states, or in all. That
// there is nothing of that name is a refusal; verb is what cannot be done with
// what is elsewhere.
func Find(t *spool.Tree, verb, pattern string, states ...spool.State) ([]spool.Found, error) {
	found, err := t.Find(pattern, states...)
	if err != nil || len(found) > 0 || pattern == "" {
		return found, err
	}
	if len(states) > 0 {
		if found, err = t.Find(pattern); err != nil {
			return nil, err
		}
	}
	if len(found) == 0 {
		return nil, daemon.Refuse("nothing here is called %s", spool.OneLine(pattern))
	}
	var where []string
	for _, f := range found {
		if p := f.Place.String(); !slices.Contains(where, p) {
			where = append(where, p)
		}
	}
	return nil, daemon.Refuse("%s cannot be %sed where it is: %s", spool.OneLine(pattern), strings.TrimSuffix(verb, "e"), strings.Join(where, ", "))
}
