package archive

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"packmill/archive/opkg"
	"packmill/internal/deb822"
	"packmill/internal/durable"
	"packmill/internal/policy"
)

// The words of a layout: what stands for them in the path of a feed. A layout that
// has one of the last two makes a feed of each component, or section.
const (
	layoutSuite     = "SUITE"
	layoutArch      = "ARCH"
	layoutComponent = "COMPONENT"
	layoutSection   = "SECTION"
)

// checkLayout says what is wrong with a layout.
func checkLayout(layout string) error {
	if layout == "" {
		return nil
	}
	words := strings.Split(layout, "/")
	for i, w := range words {
		switch w {
		case layoutSuite, layoutArch, layoutComponent, layoutSection:
			if i == 0 {
				return fmt.Errorf("layout %q of opkg feeds begins with %s; begin with a name, such as feeds/%s", layout, w, layout)
			}
			continue
		}
		if err := policy.CheckSuite(strings.ReplaceAll(w, "_", "-")); err != nil || i == 0 && w == "pool" {
			return fmt.Errorf("layout %q of opkg feeds: %q is no name for a directory; "+
				"use names and the words SUITE, ARCH, COMPONENT and SECTION", layout, w)
		}
	}
	if !slices.Contains(words, layoutArch) {
		return fmt.Errorf("layout %q of opkg feeds has no ARCH, by which a suite's feeds differ", layout)
	}
	return nil
}

// A part is what one feed of an architecture has.
type part struct {
	components []string
	component  string // "" if it is all of them
	section    string // "" if it is all of them
}

// name is what tells the part's feed from the others of the architecture.
func (p *part) name() string { return strings.Trim(p.component+","+p.section, ",") }

// at is where the feed of the part lies in the layout, below opkg; "" if it has no place
// there.
func (o *Opkg) at(suite, feed string, p *part) string {
	words := strings.Split(o.Layout, "/")
	if slices.Contains(words, layoutComponent) != (p.component != "") ||
		slices.Contains(words, layoutSection) != (p.section != "") {
		return ""
	}
	for i, w := range words {
		switch w {
		case layoutSuite:
			words[i] = suite
		case layoutArch:
			words[i] = feed
		case layoutComponent:
			words[i] = p.component
		case layoutSection:
			words[i] = p.section
		}
	}
	return path.Join(words...)
}

// parts are the feeds that an architecture has: one of everything, and those that
// the layout asks for. A section that was there once keeps its feed, empty maybe:
// what is missing makes a client's update fail.
func (t *transaction) parts(p *published, arch, feed string) ([]part, error) {
	all := slices.DeleteFunc(slices.Clone(t.suite.components()), func(c string) bool { return c == t.suite.Dbgsym })
	out := []part{{components: all}}
	words := strings.Split(t.suite.Opkg.Layout, "/")
	groups := out
	if slices.Contains(words, layoutComponent) {
		groups = nil
		for _, c := range all {
			groups = append(groups, part{components: []string{c}, component: c})
		}
	}
	if !slices.Contains(words, layoutSection) {
		if groups[0].component == "" {
			return out, nil
		}
		return append(out, groups...), nil
	}
	there, err := opkg.Feeds(t.a.root, t.suite.Name)
	if err != nil {
		return nil, err
	}
	for _, g := range groups {
		sections := map[string]bool{}
		for _, name := range there {
			g.section = ""
			prefix := feed + "," + g.name()
			if g.component != "" {
				prefix += ","
			}
			if s, ok := strings.CutPrefix(name, prefix); ok && !strings.Contains(s, ",") &&
				!(g.component == "" && slices.Contains(all, s)) {
				sections[s] = true
			}
		}
		for _, c := range g.components {
			if err := p.sections(feedIndex(c, arch), sections); err != nil {
				return nil, err
			}
		}
		for _, s := range sortedKeys(sections) {
			g.section = s
			out = append(out, g)
		}
	}
	return out, nil
}

func feedIndex(component, arch string) string {
	if arch == "source" {
		return sourcesPath(component)
	}
	return packagesPath(component, arch)
}

// sections notes the sections of the packages in an index.
func (p *published) sections(path string, into map[string]bool) error {
	x, err := p.index(path)
	if err != nil {
		return err
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(x.WriteText(w)) }()
	defer r.Close()
	s := deb822.NewScanner(r)
	for s.Next() {
		// It becomes the name of a directory.
		if name := opkg.Section(string(s.Get("Section"))); policy.CheckSuite(name) == nil {
			into[name] = true
		}
	}
	return s.Err()
}

// layoutName is the name of the file in a suite's directory of feeds that lists the
// links of its layout, below opkg, a line each.
const layoutName = ".layout"

// link makes the layout's links to the feeds, and removes those that are no longer
// in it.
func (t *transaction) link(links map[string]string) error {
	dir := t.a.path("opkg", t.suite.Name)
	list := filepath.Join(dir, layoutName)
	was, err := readLayout(list)
	if err != nil {
		return err
	}
	want := sortedKeys(links)
	if len(links) > 0 && !slices.Equal(was, want) {
		// Before the links: what is in the list and not there does no harm.
		all := slices.Compact(slices.Sorted(slices.Values(slices.Concat(was, want))))
		if err := durable.WriteFile(list, []byte(strings.Join(all, "\n")+"\n"), 0o644); err != nil {
			return err
		}
	}
	for _, at := range want {
		if err := t.linkFeed(at, links[at]); err != nil {
			return err
		}
	}
	for _, at := range was {
		if links[at] == "" {
			if err := durable.Remove(t.a.path("opkg", at)); err != nil {
				return err
			}
			for up := filepath.Dir(at); up != "."; up = filepath.Dir(up) {
				_ = os.Remove(t.a.path("opkg", up)) // fails if it is not empty, as it should
			}
		}
	}
	switch {
	case len(links) == 0:
		return durable.Remove(list)
	case !slices.Equal(was, want):
		return durable.WriteFile(list, []byte(strings.Join(want, "\n")+"\n"), 0o644)
	}
	return nil
}

func (t *transaction) linkFeed(at, feed string) error {
	name := t.a.path("opkg", at)
	to := strings.Repeat("../", strings.Count(at, "/")) + t.suite.Name + "/" + feed
	switch old, err := os.Readlink(name); {
	case err == nil && old == to:
		return nil
	case err == nil && !strings.HasPrefix(strings.TrimLeft(old, "./"), t.suite.Name+"/"):
		return fmt.Errorf("opkg feed %s belongs to %s; give the suites layouts that differ (SUITE)", at, old)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("opkg feed %s: %w; choose another layout", at, err)
	}
	if err := durable.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return durable.Symlink(to, name)
}

func readLayout(list string) ([]string, error) {
	text, err := os.ReadFile(list)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return strings.Fields(string(text)), err
}
