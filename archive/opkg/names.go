package opkg

import (
	"bytes"

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

// scan notes the names in a block of an index.
func (n *names) scan(block []byte) error {
	s := deb822.NewScanner(bytes.NewReader(block))
	for s.Next() {
		n.own = append(n.own, string(s.Get("Package")))
		n.provided = append(n.provided, providedIn(s.Get("Provides"))...)
	}
	return s.Err()
}

// A standing is who has a name in the feed.
type standing struct {
	own, provided, versioned bool
}

// standings are those of the names that may have another than before.
type standings map[string]standing

// ask is about the names of what is new and of what is gone, and knows what is new.
func ask(fresh, gone *names) standings {
	out := standings{}
	for _, name := range gone.own {
		out[name] = standing{}
	}
	for _, p := range gone.provided {
		out[p.name] = standing{}
	}
	for _, name := range fresh.own {
		s := out[name]
		s.own = true
		out[name] = s
	}
	for _, p := range fresh.provided {
		out[p.name] = out[p.name].with(p.versioned)
	}
	return out
}

func (s standing) with(versioned bool) standing {
	s.provided, s.versioned = true, s.versioned || versioned
	return s
}

// look notes what the entries of a run that stays say of these names.
func (s standings) look(entries []byte) error {
	return eachName(entries, func(name []byte, provided, versioned bool) {
		now, asked := s[string(name)]
		switch {
		case !asked:
			return
		case provided:
			now = now.with(versioned)
		default:
			now.own = true
		}
		s[string(name)] = now
	})
}

// take brings the namer up to date, and returns the names that it tells otherwise
// now.
func (n namer) take(all standings) (turned map[string]bool) {
	turned = map[string]bool{}
	for name, s := range all {
		for i, is := range [3]bool{s.provided && s.versioned && !s.own, s.provided && !s.own, s.provided && s.own} {
			set := n.sets()[i]
			if set[name] == is {
				continue
			}
			turned[name] = true
			if delete(set, name); is {
				set[name] = true
			}
		}
	}
	return turned
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
