package opkg

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"

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

// skippedName is the name of the file in a generation that lists the packages that
// are missing in the feed, and why: PACKAGE VERSION: REASON, a line each.
const skippedName = ".skipped"

// noteSkipped writes that list, and reports what the last generation's has not.
func (m *maker) noteSkipped(dir string) error {
	slices.Sort(m.skipped)
	var was []string
	if m.old.packages != nil {
		was = readSkipped(filepath.Dir(m.old.packages.Name()))
	}
	for _, s := range m.skipped {
		if _, known := slices.BinarySearch(was, s); !known {
			m.rep.Skipped = append(m.rep.Skipped, s)
		}
	}
	if m.skipped == nil {
		return nil
	}
	return os.WriteFile(filepath.Join(dir, skippedName), []byte(strings.Join(m.skipped, "\n")+"\n"), 0o644)
}

func readSkipped(dir string) []string {
	text, err := os.ReadFile(filepath.Join(dir, skippedName))
	if err != nil {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

// Skipped are the packages that are missing in the suite's feeds: by the name of the
// feed, "PACKAGE VERSION: REASON" each.
func Skipped(root, suite string) (map[string][]string, error) {
	feeds, err := Feeds(root, suite)
	if err != nil {
		return nil, err
	}
	out := map[string][]string{}
	for _, name := range feeds {
		if list := readSkipped(filepath.Join(root, "opkg", suite, name)); list != nil {
			out[name] = list
		}
	}
	return out, nil
}
