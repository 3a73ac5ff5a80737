package opkg

import (
	"bytes"
	"cmp"
	"slices"

	"packmill/internal/deb822"
	"packmill/internal/policy"
)

// A namer tells names that are written in another way than the archive's index has
// them, for no client knows versions of what is provided.
type namer struct {
	// virtual are the names that no package of the feed has, though one provides them with
	// a version.
	virtual map[string]bool

	// hollow are the names that no package of the feed has, though one provides them.
	hollow map[string]bool

	// double are the names that a package of the feed has and another provides.
	double map[string]bool
}

func newNamer() namer { return namer{map[string]bool{}, map[string]bool{}, map[string]bool{}} }

func (n namer) sets() [3]map[string]bool {
	return [3]map[string]bool{n.virtual, n.hollow, n.double}
}

// A provided is a name in Provides.
type provided struct {
	name      string
	versioned bool
}

// names are those of packages, and those that they provide.
type names struct {
	own      []string
	provided []provided
}

func (n *names) note(e *record) {
	n.own = append(n.own, e.name)
	n.provided = append(n.provided, e.provides...)
}

func (n *names) add(other *names) {
	n.own = append(n.own, other.own...)
	n.provided = append(n.provided, other.provided...)
}

// scan notes the names in a block of an index.
func (n *names) scan(block []byte) error {
	s := deb822.NewScanner(bytes.NewReader(block))
	for s.Next() {
		n.own = append(n.own, string(s.Get("Package")))
		n.provided = append(n.provided, providedIn(s.Get("Provides"))...)
	}
	return s.Err()
}

// equal reports whether both have the same names, however often.
func (n *names) equal(other *names) bool {
	slices.Sort(n.own)
	slices.Sort(other.own)
	order := func(a, b provided) int {
		if c := cmp.Compare(a.name, b.name); c != 0 || a.versioned == b.versioned {
			return c
		} else if a.versioned {
			return 1
		}
		return -1
	}
	slices.SortFunc(n.provided, order)
	slices.SortFunc(other.provided, order)
	return slices.Equal(slices.Compact(n.own), slices.Compact(other.own)) &&
		slices.Equal(slices.Compact(n.provided), slices.Compact(other.provided))
}

func (n *names) namer() namer {
	own := make(map[string]bool, len(n.own))
	for _, name := range n.own {
		own[name] = true
	}
	out := newNamer()
	for _, p := range n.provided {
		if own[p.name] {
			out.double[p.name] = true
			continue
		}
		out.hollow[p.name] = true
		if p.versioned {
			out.virtual[p.name] = true
		}
	}
	return out
}

// providedIn are the names in a Provides field.
func providedIn(field []byte) (out []provided) {
	if len(field) == 0 {
		return nil
	}
	rels, err := policy.ParseRelations(string(field))
	if err != nil {
		return nil // the entry is not made, and says why
	}
	for _, or := range rels {
		for _, r := range or {
			out = append(out, provided{r.Name, r.Op != ""})
		}
	}
	return out
}

// differ are the names that are in another of the sets than they were.
func (n namer) differ(was namer) map[string]bool {
	out := map[string]bool{}
	before := was.sets()
	for i, now := range n.sets() {
		for name := range now {
			if !before[i][name] {
				out[name] = true
			}
		}
		for name := range before[i] {
			if !now[name] {
				out[name] = true
			}
		}
	}
	return out
}
