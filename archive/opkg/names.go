package opkg

import (
	"bytes"
	"slices"

	"packmill/internal/deb822"
	"packmill/internal/policy"
)

// A namer tells the names that no package of a feed has, though some package
// provides them with a version.
type namer map[string]bool

// names are those of packages, and those that they provide with a version.
type names struct{ own, provided []string }

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
		n.provided = append(n.provided, versioned(s.Get("Provides"))...)
	}
	return s.Err()
}

// equal reports whether both have the same names, however often.
func (n *names) equal(other *names) bool {
	return slices.Equal(set(n.own), set(other.own)) && slices.Equal(set(n.provided), set(other.provided))
}

func set(list []string) []string {
	slices.Sort(list)
	return slices.Compact(list)
}

func (n *names) virtual() namer {
	out := namer{}
	for _, name := range n.provided {
		out[name] = true
	}
	for _, name := range n.own {
		delete(out, name)
	}
	return out
}

// versioned are the names that a Provides field has with a version.
func versioned(provides []byte) (out []string) {
	if !bytes.Contains(provides, []byte("(")) {
		return nil
	}
	rels, err := policy.ParseRelations(string(provides))
	if err != nil {
		return nil // the entry is not made, and says why
	}
	for _, or := range rels {
		for _, r := range or {
			if r.Op != "" && !slices.Contains(out, r.Name) {
				out = append(out, r.Name)
			}
		}
	}
	return out
}

// differ are the names that one of both has.
func differ(a, b namer) (out []string) {
	for name := range a {
		if !b[name] {
			out = append(out, name)
		}
	}
	for name := range b {
		if !a[name] {
			out = append(out, name)
		}
	}
	return out
}
