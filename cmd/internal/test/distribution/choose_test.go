package distribution

import (
	"cmp"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"

	"packmill/internal/deb822"
	"packmill/internal/policy"
	"packmill/queue/installability"
	"packmill/queue/quinndiff/listtest"
)

// What is quick: a source of at most so many bytes that asks for at most so many packages. How long it takes nobody
// knows before; what takes longer than the builder's Timeout says so in the end.
const (
	quickBytes = 1_000_000
	quickNeeds = 10
)

// source is a source package of the distribution.
type source struct {
	name, version string
	archs         []string // of its Architecture field
	directory     string   // in the archive
	files         []string
	bytes         int64
	needs         []string // packages that its build asks for
	wave          int      // how far from build-essential: 0 makes it, 1 is asked for by the builds of 0, and so on
}

// cost is how much there is to do, as far as a list can say it.
func (s *source) cost() int64 { return s.bytes * int64(1+len(s.needs)) }

func (s *source) quick() bool { return s.bytes <= quickBytes && len(s.needs) <= quickNeeds }

// binary is a package of the distribution.
type binary struct {
	name, version, arch, source, sha256, file string
	depends                                   []string
	essential                                 bool
}

// lists is what a distribution says of its main component, on amd64.
type lists struct {
	sources  map[string]*source
	binaries map[string]*binary
	provided map[string]string // a package that provides that name, the first in the order of the list
}

// readLists reads a Sources and a Packages file.
func readLists(sources, packages string) (*lists, error) {
	l := &lists{map[string]*source{}, map[string]*binary{}, map[string]string{}}
	err := listtest.EachStanza(packages, func(st *deb822.Stanza) error {
		b := &binary{name: st.Get("Package"), version: st.Get("Version"), arch: st.Get("Architecture"),
			sha256: st.Get("SHA256"), file: st.Get("Filename"), essential: st.Get("Essential") == "yes"}
		b.source, _, _ = strings.Cut(cmp.Or(st.Get("Source"), b.name), " ")
		b.depends = asked(st, "Pre-Depends", "Depends")
		for _, p := range asked(st, "Provides") {
			if l.provided[p] == "" {
				l.provided[p] = b.name
			}
		}
		l.binaries[b.name] = b
		return nil
	})
	if err != nil {
		return nil, err
	}
	return l, listtest.EachStanza(sources, func(st *deb822.Stanza) error {
		s := &source{name: st.Get("Package"), version: st.Get("Version"), directory: st.Get("Directory"),
			archs: deb822.Words(st.Get("Architecture")),
			needs: asked(st, "Build-Depends", "Build-Depends-Arch", "Build-Depends-Indep")}
		for line := range strings.Lines(st.Get("Files")) {
			if w := strings.Fields(line); len(w) == 3 {
				n, err := strconv.ParseInt(w[1], 10, 64)
				if err != nil {
					return err
				}
				s.files, s.bytes = append(s.files, w[2]), s.bytes+n
			}
		}
		old := l.sources[s.name]
		if st.Get("Extra-Source-Only") != "yes" && (old == nil || policy.CompareVersions(old.version, s.version) < 0) {
			l.sources[s.name] = s
		}
		return nil
	})
}

// asked are the names in relations that hold on amd64, of alternatives the first.
func asked(st *deb822.Stanza, fields ...string) (out []string) {
	for _, f := range fields {
		if r, err := policy.ParseRelations(st.Get(f)); err == nil {
			for _, or := range installability.FirstAlternatives(r.For("amd64", nil)) {
				out = append(out, or[0].Name)
			}
		}
	}
	return out
}

// find is the package of that name, or one that provides it.
func (l *lists) find(name string) *binary {
	if b := l.binaries[name]; b != nil {
		return b
	}
	return l.binaries[l.provided[name]]
}

// waves marks each source that build-essential and the essential packages come from, or a build of such a source asks
// for, and so on, with how far it is from them. They are most of the distribution.
func (l *lists) waves() (all []*source) {
	next := []string{"build-essential"}
	for _, b := range l.binaries {
		if b.essential {
			next = append(next, b.name)
		}
	}
	seen, reached := map[*binary]bool{}, map[*source]bool{}
	for wave := 0; len(next) > 0; wave++ {
		todo := next
		next = nil
		for len(todo) > 0 {
			b := l.find(todo[0])
			todo = todo[1:]
			if b == nil || seen[b] {
				continue
			}
			seen[b] = true
			todo = append(todo, b.depends...)
			if s := l.sources[b.source]; s != nil && !reached[s] {
				reached[s], s.wave = true, wave
				all, next = append(all, s), append(next, s.needs...)
			}
		}
	}
	return all
}

// choose is the quick part of what build-essential needs to be built: the nearest first, of those the cheapest, but
// each behind what it needs of it. So the first n are closed for every n, rings apart: what their builds ask for by
// name is made by others of them, or is not quick and comes from the base. What is not to be had does not count; has is
// asked in that order, and of no more than it takes.
func (l *lists) choose(n int, has func(*source) bool) (out []*source) {
	var quick []*source
	of := map[string]bool{}
	for _, s := range l.waves() {
		if s.quick() {
			quick, of[s.name] = append(quick, s), true
		}
	}
	slices.SortFunc(quick, func(a, b *source) int {
		return cmp.Or(cmp.Compare(a.wave, b.wave), cmp.Compare(a.cost(), b.cost()), cmp.Compare(a.name, b.name))
	})
	seen := map[*source]bool{}
	var add func(*source)
	add = func(s *source) {
		if seen[s] || len(out) == n {
			return
		}
		if seen[s] = true; !has(s) {
			return
		}
		for _, name := range s.needs {
			if b := l.find(name); b != nil && of[b.source] {
				add(l.sources[b.source])
			}
		}
		if len(out) < n {
			out = append(out, s)
		}
	}
	for _, s := range quick {
		add(s)
	}
	return out
}

// TestChoose: what is near comes first, each behind what it needs, and what is large, needed by nothing or not to be
// had is not among them.
func TestChoose(t *testing.T) {
	dir := t.TempDir()
	var sources, packages strings.Builder
	for _, p := range []struct{ name, size, needs, depends string }{
		{"build-essential", "500", "helper", "compiler"},
		{"compiler", "2000000", "helper", ""},
		{"helper", "900", "tool (>= 1), checker <!nocheck>, virtual | other", ""},
		{"tool", "100", "helper", ""}, // a ring
		{"checker", "50", "compiler", ""},
		{"provider", "60", "far [amd64], never [arm64], gone", ""},
		{"gone", "1", "behind", ""},
		{"behind", "1", "", ""},
		{"far", "70", "", ""},
		{"never", "1", "", ""},
		{"other", "1", "", ""},
	} {
		fmt.Fprintf(&sources, "Package: %s\nVersion: 1\nArchitecture: any\nBuild-Depends: %s\nFiles:\n 0 %s %[1]s.dsc\n\n",
			p.name, p.needs, p.size)
		fmt.Fprintf(&packages, "Package: %s\nVersion: 1\nArchitecture: amd64\nDepends: %s\n", p.name, p.depends)
		if p.name == "provider" {
			packages.WriteString("Provides: virtual\n")
		}
		packages.WriteString("\n")
	}
	s, p := path.Join(dir, "Sources"), path.Join(dir, "Packages")
	for path, text := range map[string]string{s: sources.String(), p: packages.String()} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	l, err := readLists(s, p)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"tool", "checker", "far", "provider", "helper", "build-essential", "behind"}
	for n := 0; n <= 8; n++ {
		var got []string
		for _, s := range l.choose(n, func(s *source) bool { return s.name != "gone" }) {
			got = append(got, s.name)
		}
		if want := want[:min(n, len(want))]; !slices.Equal(got, want) {
			t.Errorf("the first %d are %q, want %q", n, got, want)
		}
	}
}
