package view

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"packmill/cmd/internal/survey"
	"packmill/queue/builders"
	"packmill/queue/buildlog"
	"packmill/queue/logs"
	"packmill/spool"
)

// Where chooses among items. What is empty means all.
type Where struct {
	States func(spool.State) bool
	Suite  string
	Arch   string
}

// wants makes the choice for every place at once. ended says that some of it has ended its way.
func (w *Where) wants(h *holding) (out []bool, ended bool) {
	out = make([]bool, len(h.places))
	states := map[spool.State]bool{} // what is installed lies in hundreds of places
	for i, p := range h.places {
		if _, asked := states[p.State]; !asked {
			states[p.State] = w.States == nil || w.States(p.State)
		}
		out[i] = h.counts[i] > 0 && states[p.State] && (w.Suite == "" || w.Suite == p.Suite) &&
			(w.Arch == "" || p.Arch == "" || w.Arch == p.Arch)
		ended = ended || out[i] && h.ended(uint32(i))
	}
	return out, ended
}

// choose gives what is wanted, in no order. The lock is held.
func (h *holding) choose(w Where) (out []entry) {
	wanted, ended := w.wants(h)
	take := func(e entry) {
		if w.Arch == "" || h.places[e.place].Arch != "" || w.Arch == h.words[e.arch] {
			out = append(out, e)
		}
	}
	for place, all := range h.moving {
		if !wanted[place] {
			continue
		}
		for e := range all {
			take(e)
		}
	}
	if !ended {
		return out
	}
	for source, all := range h.sources {
		for _, x := range all {
			if wanted[x.place] && h.ended(x.place) {
				take(entry{source, x})
			}
		}
	}
	return out
}

// unpack is the inverse of choose.
func (h *holding) unpack(list []entry) []spool.Found {
	out := make([]spool.Found, len(list))
	for i, e := range list {
		out[i] = h.found(e.source, e.item)
	}
	return out
}

// Items lists the items, in the order of a package's life and of the queues.
func (v *View) Items(w Where) []spool.Found {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.inOrder(v.held.choose(w))
}

// Oldest lists at most so many items, those that were let in first, first, and says how many there are in all.
func (v *View) Oldest(w Where, most int) (out []spool.Found, all int) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	list := v.held.choose(w)
	older := func(a, b entry) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.source, b.source)) }
	var oldest []entry
	for _, e := range list { // most are not among the few: no need to sort them
		if len(oldest) == most && e.at > oldest[most-1].at {
			continue
		}
		i, _ := slices.BinarySearchFunc(oldest, e, older)
		oldest = slices.Insert(oldest[:min(len(oldest), most-1)], min(i, most-1), e)
	}
	return v.held.unpack(oldest), len(list)
}

// inOrder sorts items as find does, packed as they are. The lock is held.
func (v *View) inOrder(list []entry) []spool.Found {
	h, states := &v.held, map[spool.State]int{}
	for i, s := range v.tree.States {
		states[s] = i
	}
	byPlace := func(a, b uint32) int { // places that differ in the hash alone are one
		p, q := h.places[a], h.places[b]
		return cmp.Or(cmp.Compare(states[p.State], states[q.State]), cmp.Compare(p.Suite, q.Suite),
			cmp.Compare(p.Arch, q.Arch))
	}
	slices.SortFunc(list, func(a, b entry) int {
		if a.place != b.place {
			if c := byPlace(a.place, b.place); c != 0 {
				return c
			}
		}
		if c := cmp.Or(cmp.Compare(a.class, b.class), cmp.Compare(a.at, b.at)); c != 0 {
			return c
		}
		return cmp.Or(cmp.Compare(a.source, b.source), cmp.Compare(h.words[a.arch], h.words[b.arch]))
	})
	return h.unpack(list)
}

// Package lists all items of a source.
func (v *View) Package(source string) []spool.Found {
	v.mu.RLock()
	defer v.mu.RUnlock()
	var list []entry
	for _, x := range v.held.sources[source] {
		list = append(list, entry{source, x})
	}
	return v.inOrder(list)
}

// Has reports whether an item is in the view: what is not may be hidden.
func (v *View) Has(f spool.Found) bool {
	return slices.Contains(v.Package(f.Name.Source), f)
}

// Sources lists at most so many names of sources that contain a text: those that begin
// with it come first.
func (v *View) Sources(part string, most int) []string {
	var begin, within []string
	for _, name := range v.names() {
		switch i := strings.Index(name, part); {
		case i == 0 && len(begin) < most:
			begin = append(begin, name)
		case i > 0 && len(within) < most:
			within = append(within, name)
		}
	}
	all := append(begin, within...)
	return all[:min(most, len(all))]
}

// names are those of all sources, sorted.
func (v *View) names() []string {
	v.mu.RLock()
	names := v.held.sorted
	v.mu.RUnlock()
	if names != nil {
		return names
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.held.sorted = slices.Sorted(maps.Keys(v.held.sources))
	return v.held.sorted
}

// Counts says how much is in each state, suite and architecture, in the order of a
// package's life. Oldest is the order of an item's name, as packmill status has it.
func (v *View) Counts() []survey.Count {
	v.mu.Lock()
	if v.held.stale {
		v.held.freshen()
	}
	counts := map[spool.Place]*survey.Count{}
	for i, p := range v.held.places {
		if v.held.counts[i] == 0 {
			continue
		}
		p.Hash = ""
		c := counts[p]
		if c == nil {
			c = &survey.Count{State: p.State.Name, Suite: p.Suite, Arch: p.Arch}
			counts[p] = c
		}
		c.Items += v.held.counts[i]
		if t := time.UnixMicro(v.held.begun(uint32(i))).UTC(); c.Oldest == nil || t.Before(*c.Oldest) {
			c.Oldest = &t
		}
	}
	v.mu.Unlock()
	rank := map[string]int{}
	for i, s := range v.tree.States {
		rank[s.Name] = i
	}
	var out []survey.Count
	for _, c := range counts {
		out = append(out, *c)
	}
	slices.SortFunc(out, func(a, b survey.Count) int {
		return cmp.Or(cmp.Compare(rank[a.State], rank[b.State]), cmp.Compare(a.Suite, b.Suite), cmp.Compare(a.Arch, b.Arch))
	})
	return out
}

// Row is what a list shows of an item.
func (v *View) Row(f spool.Found) survey.Row {
	row := survey.RowOf(v.tree, f)
	v.Veil(&row, f)
	return row
}

// Veil takes the reason out of a row where it is that of a move from a hidden suite.
func (v *View) Veil(row *survey.Row, f spool.Found) {
	if !v.HidesAny() {
		return
	}
	if events, err := v.History(f); err != nil || len(events) == 0 {
		row.Reason, row.Who, row.Before = "", "", ""
	}
}

// Why says of items of the view why they are where they are.
func (v *View) Why(found ...spool.Found) ([]*survey.Answer, error) {
	waiting := v.Items(Where{States: survey.Only(spool.DepWait, spool.BDUninstallable)})
	out, err := survey.WhyOf(v.tree, v.Settings(), found, waiting, v.estimate)
	for i, a := range out {
		v.Veil(&a.Row, found[i])
		if v.HidesAny() {
			a.Builders = nil // what daemons say of themselves is in it
		}
	}
	return out, err
}

// Builders lists the daemons that build, by name. What a daemon says of its last build
// may name what is hidden.
func (v *View) Builders() ([]builders.Entry, error) {
	list, err := builders.Read(v.tree.Path(spool.BuildersDir))
	if v.HidesAny() {
		for i := range list {
			if list[i].Trouble != "" {
				list[i].Trouble = "the last build ended without a verdict"
			}
		}
	}
	return list, err
}

// Builds calls each for the builds that the filter means, of each suite the newest
// first, until it returns false.
func (v *View) Builds(f buildlog.Filter, each func(*buildlog.Build) bool) error {
	return logs.StoreOf(v.tree).Builds(f, func(b *buildlog.Build) bool { return v.Hides(b.Suite) || each(b) })
}
