package opkg

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A Skip is a package that no opkg could install: the feed goes without it.
type Skip struct {
	Package, Version string
	Source           string // the name of its source package
	Reason           string // one line
}

func (s Skip) String() string { return s.Package + " " + s.Version + ": " + s.Reason }

// skippedName is the name of the file in a generation that lists what was skipped:
// package, version, source and reason, with a blank between, a line each.
const skippedName = ".skipped"

// noteSkipped writes that list, and reports what the last generation's has not.
func (m *maker) noteSkipped(dir string) error {
	if m.skipped == nil {
		return nil
	}
	var was []Skip
	if m.old.packages != nil {
		was = readSkipped(filepath.Dir(m.old.packages.Name()))
	}
	slices.SortFunc(m.skipped, func(a, b Skip) int { return cmp.Compare(a.String(), b.String()) })
	var b strings.Builder
	for i, s := range m.skipped {
		s.Reason = strings.Join(strings.Fields(s.Reason), " ")
		m.skipped[i] = s
		if !slices.Contains(was, s) {
			m.rep.Skipped = append(m.rep.Skipped, s)
		}
		b.WriteString(strings.Join([]string{s.Package, s.Version, s.Source, s.Reason}, " ") + "\n")
	}
	return os.WriteFile(filepath.Join(dir, skippedName), []byte(b.String()), 0o644)
}

func readSkipped(dir string) (out []Skip) {
	text, err := os.ReadFile(filepath.Join(dir, skippedName))
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4); len(f) == 4 {
			out = append(out, Skip{f[0], f[1], f[2], f[3]})
		}
	}
	return out
}

// Skipped are the packages that are missing in the suite's feeds, by the feed.
func Skipped(root, suite string) (map[string][]Skip, error) {
	feeds, err := Feeds(root, suite)
	if err != nil {
		return nil, err
	}
	out := map[string][]Skip{}
	for _, name := range feeds {
		if list := readSkipped(filepath.Join(root, "opkg", suite, name)); list != nil {
			out[name] = list
		}
	}
	return out, nil
}
