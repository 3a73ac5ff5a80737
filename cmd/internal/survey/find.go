// Package survey reads a tree for a person: which items a name means, what a
// list shows of them, how much is in each state, and why a package is where it
// is. It changes nothing, and leaves out what the person may not read.
package survey

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"packmill/cmd/internal/control"
	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/terminal"
	"packmill/internal/near"
	"packmill/queue/buildlog"
	"packmill/queue/logs"
	"packmill/spool"
)

// Filter says which items a person means.
type Filter struct {
	Verb     string   // what is to be done with them, for refusals: "accept"
	Patterns []string // see spool.Name.Matches; none: all
	States   func(spool.State) bool
	Suite    string // with wildcards; "": any
	Arch     string // with wildcards; "": any
	Older    time.Duration
}

// Find looks for the items, each once, in the order of a package's life. What
// a pattern names nowhere is a refusal that says what is called alike, or where
// it is instead. Closed are directories that the person may not read, with
// the groups that may.
func (f *Filter) Find(t *spool.Tree) (found []spool.Found, closed []string, err error) {
	var states []spool.State
	if f.States != nil {
		states = t.Where(f.States)
	}
	patterns := f.Patterns
	if len(patterns) == 0 {
		patterns = []string{""}
	}
	seen := map[spool.Found]bool{}
	for _, p := range patterns {
		some, shut, err := read(t, p, states)
		if err != nil {
			return nil, nil, err
		}
		closed = append(closed, shut...)
		if len(some) == 0 && p != "" {
			return nil, closed, f.absent(t, p)
		}
		some = slices.DeleteFunc(some, func(x spool.Found) bool { return !f.means(t, x) })
		for _, x := range some {
			if !seen[x] {
				seen[x], found = true, append(found, x)
			}
		}
	}
	if len(found) == 0 {
		err = NoSuite(t, f.Suite)
	}
	return found, once(closed), err
}

// NoSuite refuses a suite of which nothing was found and that is not in the settings by that name: "nothing" is no
// answer to a slip. A pattern, and "" for all, are no names.
func NoSuite(t *spool.Tree, name string) error {
	if name == "" || spool.IsPattern(name) {
		return nil
	}
	set, err := control.Load(t.Path("control"))
	if err != nil || len(set.Suites) == 0 {
		return nil // what is where can be said without settings
	}
	switch s, known := set.Suite(name); {
	case !known:
		return daemon.Wrong{Err: set.NoSuite(name)}
	case s.Name != name:
		return daemon.Wrong{Err: fmt.Errorf("%s is another name of the suite %s; write that", name, s.Name)}
	}
	return nil
}

// Meant is Find for what is done something with: that the filter leaves nothing is a
// refusal, which says where the rest is.
func (f *Filter) Meant(t *spool.Tree) (found []spool.Found, closed []string, err error) {
	found, closed, err = f.Find(t)
	if err != nil || len(found) > 0 {
		return found, closed, err
	}
	anywhere := *f
	anywhere.States = nil
	var where []string
	if all, _, err := anywhere.Find(t); err == nil {
		for _, x := range all {
			where = append(where, x.Place.String())
		}
	}
	if len(where) > 0 {
		return nil, closed, daemon.Refuse("nothing of it is where that can be done; it is in %s", strings.Join(where, ", "))
	}
	return nil, closed, daemon.Refuse("nothing of it is in that suite and architecture, and old enough; " +
		"packmill ls shows where it is")
}

// MeantEach is Meant of each pattern for itself: of several, one that means nothing
// here is among the refused, and stops none of the others.
func (f *Filter) MeantEach(t *spool.Tree) (found []spool.Found, refused []error, closed []string, err error) {
	if len(f.Patterns) < 2 {
		found, closed, err = f.Meant(t)
		return found, nil, closed, err
	}
	seen := map[spool.Found]bool{}
	for _, p := range f.Patterns {
		one := *f
		one.Patterns = []string{p}
		some, shut, err := one.Meant(t)
		closed = append(closed, shut...)
		if err != nil && !errors.Is(err, daemon.ErrRefused) {
			return nil, nil, closed, err
		}
		if err != nil {
			refused = append(refused, fmt.Errorf("%s: %w", p, err))
		}
		for _, x := range some {
			if !seen[x] {
				seen[x], found = true, append(found, x)
			}
		}
	}
	return found, refused, once(closed), nil
}

// once sorts directories and names each once.
func once(dirs []string) []string {
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// read is Find of the tree without what is closed.
func read(t *spool.Tree, pattern string, states []spool.State) (found []spool.Found, closed []string, err error) {
	found, err = t.Find(pattern, states...)
	closed, err = spool.Closed(err)
	for i, dir := range closed {
		closed[i] = Whose(t.Root(), dir)
	}
	return found, closed, err
}

// means reports whether the flags mean an item.
func (f *Filter) means(t *spool.Tree, x spool.Found) bool {
	fits := func(pattern, word string) bool {
		ok, err := path.Match(pattern, word)
		return pattern == "" || err == nil && ok
	}
	if !fits(f.Suite, x.Place.Suite) || !fits(f.Arch, x.Arch()) {
		return false
	}
	return f.Older == 0 || time.Since(RowOf(t, x).Since) > f.Older
}

// all reports whether every item is meant.
func (f *Filter) all() bool {
	return len(f.Patterns) == 0 && f.States == nil && f.Suite == "" && f.Arch == "" && f.Older == 0
}

// counts reports whether the item of that name in a place is meant.
func (f *Filter) counts(t *spool.Tree, p spool.Place, name string) bool {
	n, err := spool.ParseName(name)
	return err == nil && (len(f.Patterns) == 0 || slices.ContainsFunc(f.Patterns, n.Matches)) &&
		f.means(t, spool.Found{Place: p, Name: n})
}

// absent says where the thing is instead, if it is anywhere, or what is called
// alike.
func (f *Filter) absent(t *spool.Tree, pattern string) error {
	all, _, err := read(t, "", nil)
	if err != nil {
		return err
	}
	name := spool.OneLine(pattern)
	var where, alike []string
	for _, x := range all {
		alike = append(alike, x.Name.Source)
		if p := x.Place.String(); x.Name.Matches(pattern) && !slices.Contains(where, p) {
			where = append(where, p)
		}
	}
	if len(where) > 0 {
		return daemon.Refuse("%s cannot be %sed where it is: %s",
			name, strings.TrimSuffix(f.Verb, "e"), strings.Join(where, ", "))
	}
	source, _, _ := strings.Cut(pattern, "_")
	if slices.Contains(alike, source) {
		return daemon.Refuse("nothing here is called %s; packmill ls %s shows the versions that there are",
			name, spool.OneLine(source))
	}
	if did := near.Hint(source, alike); did != "" {
		return daemon.Refuse("nothing here is called %s; %s", name, did)
	}
	return daemon.Refuse("nothing here is called %s", name)
}

// Find looks for what a person calls pattern in some states, or in all.
func Find(t *spool.Tree, verb, pattern string, states ...spool.State) ([]spool.Found, error) {
	f := &Filter{Verb: verb, Patterns: []string{pattern}}
	if len(states) > 0 {
		f.States = Only(states...)
	}
	found, _, err := f.Find(t)
	return found, err
}

// Only is true of these states.
func Only(states ...spool.State) func(spool.State) bool {
	return func(s spool.State) bool { return slices.Contains(states, s) }
}

// States is true of the states of these names; nil, which means all, without any.
func States(t *spool.Tree, names []string) (func(spool.State) bool, error) {
	var states []spool.State
	for _, name := range names {
		state := t.Named(name)
		if state == nil {
			var all []string
			for _, s := range t.States {
				all = append(all, s.Name)
			}
			text := near.Hint(name, all)
			if text == "" {
				text = "there are: " + strings.Join(all, " ")
			}
			return nil, daemon.Wrong{Err: fmt.Errorf("there is no state %q; %s", name, text)}
		}
		states = append(states, state)
	}
	if states == nil {
		return nil, nil
	}
	return Only(states...), nil
}

// Colour is how a state is shown: red where something has failed, yellow where
// it waits, cyan where it is built, green where it is done.
func Colour(state string) terminal.Colour {
	s := spool.Standard.Named(state)
	switch {
	case state == Full:
		return terminal.Red
	case s == nil || s == spool.Attic:
		return terminal.Plain
	case s.Requeue != nil && (s.Is(spool.Settled) || s.Is(spool.Raw)):
		return terminal.Red
	case s == spool.Building:
		return terminal.Cyan
	case s.Requeue != nil && s.Is(spool.Waits), strings.HasPrefix(s.Who, "a person") && !s.Is(spool.Settled):
		return terminal.Yellow
	case s == spool.Uploaded, s == spool.Installed:
		return terminal.Green
	}
	return terminal.Plain
}

// OutcomeColour is that of a build, by the first word of its numbers.
func OutcomeColour(numbers string) terminal.Colour {
	outcome, _, _ := strings.Cut(numbers, ",")
	switch {
	case outcome == buildlog.Running:
		return terminal.Cyan
	case logs.EndingOf(outcome) == logs.Built:
		return terminal.Green
	case logs.EndingOf(outcome) == logs.Failed:
		return terminal.Red
	}
	return terminal.Yellow
}
