package view

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"packmill/cmd/internal/control"
	"packmill/spool"
)

// adopt takes over settings, and reports whether other suites are hidden than before:
// then what may be of a hidden suite is forgotten, and the next look must be at all.
func (v *View) adopt(set *control.Settings) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if set == v.from {
		return false
	}
	v.from = set
	shown := *set
	shown.Suites = nil
	hidden := map[string]bool{}
	for _, s := range set.Suites {
		if !s.Hidden {
			shown.Suites = append(shown.Suites, s)
			continue
		}
		for _, name := range append([]string{s.Name, s.Codename}, s.Aliases...) {
			hidden[name] = true
		}
	}
	v.shown = &shown
	if maps.Equal(hidden, v.hidden) {
		return false
	}
	v.hidden = hidden
	var gone []entry
	for source, all := range v.held.sources {
		for _, x := range all {
			if p := v.held.places[x.place]; v.hides(p.Suite) || p.Suite == "" && len(hidden) > 0 {
				gone = append(gone, entry{source, x})
			}
		}
	}
	for _, e := range gone {
		v.held.remove(e.source, e.item)
	}
	for p := range v.dirs {
		v.dirs[p] = stamp{} // it is listed again; that it was there is known
	}
	v.journal.forget()
	v.number++
	return true
}

// hides reports whether a suite is hidden; "" is none.
func (v *View) hides(suite string) bool { return suite != "" && v.hidden[suite] }

// shows reports whether an item may be shown. Where its directory does not say of
// which suite it is, its ticket does; where that cannot be read nobody can say so.
func (v *View) shows(f spool.Found) bool {
	if len(v.hidden) == 0 {
		return true
	}
	suite := f.Place.Suite
	if suite == "" {
		st, err := spool.ReadTicket(v.tree.Path(f.Dir()))
		if err != nil {
			return false
		}
		if suite = st.Get("Distribution"); suite == "" {
			return false
		}
	}
	return !v.hides(suite)
}

// History is that of an item, the oldest first: of one that was in a hidden suite, what came
// after it.
func (v *View) History(f spool.Found) ([]spool.Event, error) {
	events, err := spool.ReadHistory(v.tree.Path(f.Dir()))
	for i, e := range slices.Backward(events) {
		for _, at := range []string{e.From, e.To} {
			if p, ok := v.tree.PlaceOf(at); ok && v.Hides(p.Suite) {
				return events[i+1:], err
			}
		}
	}
	return events, err
}

// Hides reports whether nothing may be said of a suite.
func (v *View) Hides(suite string) bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.hides(suite)
}

// HidesAny reports whether a suite is hidden: then what names no suite is left out.
func (v *View) HidesAny() bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return len(v.hidden) > 0
}

// open are the closed directories that may be named: none of a hidden suite. The lock is held.
func (v *View) open(closed []string) []string {
	return slices.DeleteFunc(slices.Clone(closed), func(path string) bool {
		rel, err := filepath.Rel(v.tree.Root(), path)
		return err != nil || slices.ContainsFunc(strings.Split(rel, "/"), v.hides)
	})
}

// Settings are those in force, without the hidden suites themselves. What uploaders and builders
// are allowed may still name them.
func (v *View) Settings() *control.Settings {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.shown
}

// Suites are those of the settings that may be seen.
func (v *View) Suites() []control.Suite { return v.Settings().Suites }
