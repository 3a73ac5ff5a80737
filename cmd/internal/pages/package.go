package pages

import (
	"cmp"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"packmill/cmd/internal/survey"
	"packmill/cmd/internal/view"
	"packmill/internal/near"
	"packmill/internal/paper"
	"packmill/internal/policy"
	"packmill/queue"
	"packmill/queue/buildlog"
	"packmill/spool"
)

// Package is one source package.
type Package struct {
	Source     string           `json:"source"`
	Maintainer string           `json:"maintainer,omitempty"`
	Component  string           `json:"component,omitempty"`
	Section    string           `json:"section,omitempty"`
	Priority   string           `json:"priority,omitempty"`
	Versions   []Version        `json:"versions"` // the newest first
	Older      []survey.Row     `json:"older,omitempty"`
	Builds     []buildlog.Build `json:"builds"`  // the newest first
	History    []spool.Event    `json:"history"` // of the newest version, the newest first

	Graph  graph  `json:"-"`
	Person string `json:"-"` // the maintainer's name in addresses
}

// Version is a version of a source in a suite.
type Version struct {
	Version  string           `json:"version"`
	Suite    string           `json:"suite,omitempty"`
	Items    []*survey.Answer `json:"items"`             // as packmill why has them
	Changes  string           `json:"changes,omitempty"` // what the uploader says of it
	Binaries []Binary         `json:"binaries,omitempty"`
	// WasGood has, by architectures on which it fails, the version before that was built there: the failure is new.
	WasGood map[string]string `json:"was_good,omitempty"`
}

// Binary is a file that was built.
type Binary struct {
	Name string `json:"name"`
	Arch string `json:"arch"`
	Size int64  `json:"size"`          // bytes
	Was  int64  `json:"was,omitempty"` // bytes, in the version before
}

// Bounds of a package's page.
const (
	maxAnswers = 80 // items of which it is said why
	maxOlder   = 200
	maxHistory = 100
	maxBuilds  = 100
	maxChanges = 16 << 10
	versionsOf = 2 // of each suite that are shown whole
)

func (s *Site) packagePage(r *http.Request) (*sheet, error) {
	x := &Package{Source: r.PathValue("source")}
	found := s.view.Package(x.Source)
	if len(found) == 0 {
		text := "nothing here is called " + x.Source
		if did := near.Hint(x.Source, s.view.Sources("", 1<<20)); did != "" {
			text += "; " + did
		}
		return nil, notHere("%s", text)
	}
	slices.SortStableFunc(found, func(a, b spool.Found) int {
		return policy.CompareVersions(b.Name.Version,
			a.Name.Version)
	})
	if err := x.versions(s, found); err != nil {
		return nil, err
	}
	x.Person, _ = s.namesOf(view.People{Maintainer: x.Maintainer})
	all := s.view.BuildsOf(x.Source)
	x.newlyBroken(s, all)
	x.Builds = all[:min(len(all), maxBuilds)]
	for _, f := range found {
		if f.Name.Version != found[0].Name.Version {
			continue
		}
		events, _ := s.view.History(f)
		x.History = append(x.History, events...)
	}
	slices.SortStableFunc(x.History, func(a, b spool.Event) int { return b.Time.Compare(a.Time) })
	x.History = slices.Compact(x.History)
	x.History = x.History[:min(len(x.History), maxHistory)]
	x.Graph = x.graph()
	return &sheet{Title: x.Source, Query: x.Source, Events: about("source", x.Source), Feed: feedAt("package", x.Source),
		Data:     x,
		Commands: []string{"packmill why " + x.Source, "packmill ls " + x.Source, "packmill log ls " + x.Source}}, nil
}

// versions sorts the items by suite and version: of each suite the newest few are shown
// whole.
func (x *Package) versions(s *Site, found []spool.Found) error {
	shown := map[string]int{}
	var whole []spool.Found
	for _, f := range found {
		i := slices.IndexFunc(x.Versions, func(v Version) bool {
			return v.Version == f.Name.Version &&
				v.Suite == f.Place.Suite
		})
		if i < 0 && f.Place.State != spool.Attic && shown[f.Place.Suite] < versionsOf {
			shown[f.Place.Suite]++
			x.Versions = append(x.Versions, Version{Version: f.Name.Version, Suite: f.Place.Suite})
			i = len(x.Versions) - 1
		}
		switch {
		case i >= 0 && f.Place.State != spool.Attic && len(whole) < maxAnswers:
			whole = append(whole, f)
		case len(x.Older) < maxOlder:
			x.Older = append(x.Older, s.view.Row(f))
		}
	}
	answers, err := s.view.Why(whole...)
	if err != nil {
		return err
	}
	for i, a := range answers {
		for k := range x.Versions {
			if v := &x.Versions[k]; v.Version == a.Version && v.Suite == a.Suite {
				v.Items = append(v.Items, a)
				v.read(s, whole[i], x)
			}
		}
	}
	for i := range x.Versions {
		v := &x.Versions[i]
		slices.SortStableFunc(v.Items, func(a, b *survey.Answer) int {
			return cmp.Compare(archOrder(a.Arch), archOrder(b.Arch))
		})
		for _, old := range x.Versions[i+1:] {
			if old.Suite == v.Suite {
				v.beside(&old)
				break
			}
		}
	}
	return nil
}

// archOrder has the source before its architectures, and those by name.
func archOrder(arch string) string {
	if arch == spool.SourceArch {
		return ""
	}
	return arch
}

// Last is the newest build that an item of a page had: nil if none is known.
func (x *Package) Last(a *survey.Answer) *buildlog.Build {
	for i := range x.Builds { // the newest first
		b := &x.Builds[i]
		if b.Suite == a.Suite && b.Arch == a.Arch && (b.Version == a.Version ||
			strings.HasPrefix(b.Version, a.Version+"+b")) {
			return b
		}
	}
	return nil
}

// firstError is the first error of builds, which several architectures may have.
type firstError struct {
	Archs []string
	Text  string
}

// Errors are the first errors of a version: what differs in the place in the log alone is one.
func (v *Version) Errors() (out []firstError) {
	seen := map[string]int{}
	for _, a := range v.Items {
		if a.FirstError == "" {
			continue
		}
		_, key, ok := strings.Cut(a.FirstError, "\n  > ")
		if key, _, _ = strings.Cut(key, "\n"); !ok {
			key = a.FirstError
		}
		if i, ok := seen[key]; ok {
			out[i].Archs = append(out[i].Archs, a.Arch)
			continue
		}
		seen[key] = len(out)
		out = append(out, firstError{[]string{a.Arch}, a.FirstError})
	}
	return out
}

// newlyBroken finds what fails and did not before.
func (x *Package) newlyBroken(s *Site, builds []buildlog.Build) {
	for i := range x.Versions {
		v := &x.Versions[i]
		for _, a := range v.Items {
			if a.State != spool.BuildAttempted.Name && a.State != spool.Failed.Name {
				continue
			}
			version := a.Version
			for _, b := range builds { // of a rebuild it has more than the item's
				if b.Suite == a.Suite && b.Arch == a.Arch && strings.HasPrefix(b.Version, a.Version+"+b") {
					version = b.Version
					break
				}
			}
			if good := s.view.WasGood(x.Source, version, a.Suite, a.Arch); good != "" {
				if v.WasGood == nil {
					v.WasGood = map[string]string{}
				}
				v.WasGood[a.Arch] = good
			}
		}
	}
}

// read reads what an item says of the version: the source's its changes, a job's its
// binaries.
func (v *Version) read(s *Site, f spool.Found, x *Package) {
	dir := s.view.Tree().Path(f.Dir())
	tk, err := queue.TicketAt(s.view.Tree(), f)
	if err != nil {
		return
	}
	if x.Maintainer == "" {
		x.Maintainer, x.Component, x.Section, x.Priority = tk.Maintainer, tk.Component, tk.Section, tk.Priority
	}
	if !f.IsJob() && tk.Changes != "" && v.Changes == "" {
		if st, err := paper.Read(dir, tk.Changes); err == nil {
			v.Changes = short(maxChanges, strings.Trim(st.Get("Changes"), "\n"))
		}
	}
	if !f.IsJob() || tk.Result == "" {
		return
	}
	st, err := paper.Read(filepath.Join(dir, "result"), tk.Result)
	if err != nil {
		return
	}
	list, _ := paper.Lists(st, paper.Long)
	for _, file := range list {
		if strings.HasSuffix(file.Name, "deb") {
			v.Binaries = append(v.Binaries, Binary{Name: file.Name, Arch: f.Arch(), Size: file.Size})
		}
	}
}

// beside says how large the same packages were in an older version.
func (v *Version) beside(old *Version) {
	name := func(b Binary) string { n, _, _ := strings.Cut(b.Name, "_"); return n + " " + b.Arch }
	for i := range v.Binaries {
		for _, o := range old.Binaries {
			if name(o) == name(v.Binaries[i]) {
				v.Binaries[i].Was = o.Size
			}
		}
	}
}

// graph is what a package waits for, and who waits for it.
type graph struct {
	Left, Right []node
	Height      int
	Self        string
	Middle      int
	Text        string
}

type node struct {
	Name string
	At   string
	Y    int
}

const maxNodes = 12

func (x *Package) graph() (g graph) {
	var needs, blocks []string
	suite := ""
	once := func(list *[]string, name string) {
		if name != "" && !slices.Contains(*list, name) && len(*list) < maxNodes {
			*list = append(*list, name)
		}
	}
	for _, v := range x.Versions {
		for _, a := range v.Items {
			if a.State == spool.DepWait.Name || a.State == spool.BDUninstallable.Name {
				for line := range strings.Lines(a.WaitsFor) {
					once(&needs, short(40, strings.TrimSpace(line)))
				}
				suite = a.Suite
			}
			for _, b := range a.Blocks {
				once(&blocks, b)
			}
		}
	}
	if len(needs)+len(blocks) == 0 {
		return g
	}
	const row = 34
	g.Self, g.Height = x.Source, row*max(len(needs), len(blocks), 1)+10
	g.Middle = g.Height/2 - 13
	for i, n := range needs {
		binary, _, _ := strings.Cut(strings.TrimLeft(n, "("), " ")
		binary, _, _ = strings.Cut(strings.TrimRight(binary, ",|"), ":")
		g.Left = append(g.Left, node{Name: n, At: viewAt(suite) + "?q=" + url.QueryEscape(binary), Y: 5 + i*row})
	}
	for i, n := range blocks {
		source, _, _ := strings.Cut(n, "_")
		g.Right = append(g.Right, node{Name: short(36, n), At: packageAt(source), Y: 5 + i*row})
	}
	g.Text = x.Source + " waits for: " + strings.Join(needs, "; ") + ". For it wait: " + strings.Join(blocks, "; ")
	return g
}
