package main

import (
	"bytes"
	"cmp"
	"context"
	"hash/fnv"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"packmill/internal/deb822"
	"packmill/internal/policy"
	"packmill/queue/installability"
	"packmill/queue/quinndiff/listtest"
)

// debian is what a distribution's Sources and its Packages of amd64 say: which source needs which package to be built,
// and which package needs which to be installed.
type debian struct {
	sources  map[string]*source
	binaries map[string]*binary
	provided map[string][]*binary
}

// source is a source package of the lists.
type source struct {
	name, version string
	st            *deb822.Stanza
	makes         []*binary // in the order of Package-List
	lines         []string  // of Package-List, of those alone
	needs         []*binary // what a build on amd64 asks for itself
	lacks         bool      // something of that is nowhere
	node
}

// binary is a package that a source makes.
type binary struct {
	name  string
	of    *source
	st    *deb822.Stanza
	archs []string  // of Package-List
	needs []*binary // what an installation asks for, of alternatives the first that is there
	node
}

// rebuilt is the end of a version that was built again without a change of its source. Here each is built once.
var rebuilt = regexp.MustCompile(`\+b[0-9]+\b`)

// readDebian reads the lists. A source counts that has packages on amd64.
func readDebian(sources, packages string) (*debian, error) {
	d := &debian{sources: map[string]*source{}, binaries: map[string]*binary{}, provided: map[string][]*binary{}}
	if err := listtest.EachStanza(packages, d.addPackage); err != nil {
		return nil, err
	}
	if err := listtest.EachStanza(sources, d.addSource); err != nil {
		return nil, err
	}
	for name, s := range d.sources {
		if !d.list(s) {
			delete(d.sources, name)
		}
	}
	for name, b := range d.binaries {
		if b.archs == nil { // no source of the lists makes it
			delete(d.binaries, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.binaries)) {
		b := d.binaries[name]
		for _, or := range relations(b.st, "Provides") {
			d.provided[or[0].Name] = append(d.provided[or[0].Name], b)
		}
	}
	for _, b := range d.binaries {
		b.needs = d.pick(relations(b.st, "Pre-Depends", "Depends"), nil)
	}
	for _, s := range d.sources {
		direct := installability.FirstAlternatives(relations(s.st, "Build-Depends", "Build-Depends-Arch",
			"Build-Depends-Indep"))
		s.needs = d.pick(direct, func() { s.lacks = true })
		if b := d.binaries["build-essential"]; b != nil {
			s.needs = append(s.needs, b)
		}
	}
	if b := d.binaries["build-essential"]; b != nil {
		b.needs = append(b.needs, d.essential()...)
	}
	d.findCycles()
	return d, nil
}

func (d *debian) addPackage(st *deb822.Stanza) error {
	for _, f := range append(dependencies, "Version", "Provides", "Conflicts", "Breaks") {
		if v := st.Get(f); v != "" {
			st.Set(f, rebuilt.ReplaceAllString(v, ""))
		}
	}
	name := st.Get("Package")
	d.binaries[name] = &binary{name: name, st: st}
	return nil
}

var dependencies = []string{"Pre-Depends", "Depends"}

// addSource takes the newest version of a source.
func (d *debian) addSource(st *deb822.Stanza) error {
	s := &source{name: st.Get("Package"), version: st.Get("Version"), st: st}
	old := d.sources[s.name]
	if st.Get("Extra-Source-Only") != "yes" && (old == nil || policy.CompareVersions(old.version, s.version) < 0) {
		d.sources[s.name] = s
	}
	return nil
}

// list takes what a source makes: the packages that the lists have of it, and those that are not for amd64. It reports
// whether there are any of the first.
func (d *debian) list(s *source) (there bool) {
	for line := range strings.Lines(s.st.Get("Package-List")) {
		words := strings.Fields(line)
		if len(words) < 5 || words[1] != "deb" || !strings.HasPrefix(words[4], "arch=") {
			continue
		}
		archs := strings.Split(strings.TrimPrefix(words[4], "arch="), ",")
		b := d.binaries[words[0]]
		switch {
		case b != nil && sourceOf(b.st) == s.name:
			there, b.of, b.archs = true, s, archs
		case !policy.BuildsOn(archs, "amd64") && !policy.BuildsOn(archs, "all") && b == nil && len(words) == 5:
			b = &binary{name: words[0], of: s, archs: archs, st: &deb822.Stanza{}}
		default:
			continue
		}
		s.makes, s.lines = append(s.makes, b), append(s.lines, strings.TrimSpace(line))
	}
	return there
}

func sourceOf(st *deb822.Stanza) string {
	name, _, _ := strings.Cut(cmp.Or(st.Get("Source"), st.Get("Package")), " ")
	return name
}

// relations are those of the fields that hold on amd64. What cannot be read asks for nothing: dose judges later.
func relations(st *deb822.Stanza, fields ...string) (out policy.Relations) {
	for _, f := range fields {
		if r, err := policy.ParseRelations(st.Get(f)); err == nil {
			out = append(out, r.For("amd64", nil)...)
		}
	}
	return out
}

// pick returns for each relation the package that it brings; lacking is called where there is none.
func (d *debian) pick(all policy.Relations, lacking func()) (out []*binary) {
	for _, or := range all {
		n := len(out)
		for _, r := range or {
			if b := d.binaries[r.Name]; b != nil {
				out = append(out, b)
			} else if by := d.provided[r.Name]; len(by) > 0 {
				out = append(out, by[0])
			}
			if len(out) > n {
				break
			}
		}
		if len(out) == n && lacking != nil {
			lacking()
		}
	}
	return out
}

func (d *debian) essential() (out []*binary) {
	for _, name := range slices.Sorted(maps.Keys(d.binaries)) {
		if b := d.binaries[name]; b.st.Get("Essential") == "yes" {
			out = append(out, b)
		}
	}
	return out
}

// node is a place of the graph in which a source needs packages, and a package others and its source.
type node struct {
	number, low int // of Tarjan's search; 0: not visited
	open        bool
	cyclic      bool // of a source: it can be built only when it was built before
}

func (s *source) place() *node { return &s.node }
func (b *binary) place() *node { return &b.node }

// vertex is a source or a binary.
type vertex interface{ place() *node }

func next(v vertex) (out []vertex) {
	needs := []*binary(nil)
	switch v := v.(type) {
	case *source:
		needs = v.needs
	case *binary:
		needs = v.needs
		out = append(out, v.of)
	}
	for _, b := range needs {
		out = append(out, b)
	}
	return out
}

// findCycles marks the sources that need themselves (Tarjan's strongly connected components).
func (d *debian) findCycles() {
	count := 0
	var stack []vertex
	var visit func(v vertex)
	visit = func(v vertex) {
		n := v.place()
		count++
		n.number, n.low, n.open = count, count, true
		at := len(stack)
		stack = append(stack, v)
		for _, w := range next(v) {
			if m := w.place(); m.number == 0 {
				visit(w)
				n.low = min(n.low, m.low)
			} else if m.open {
				n.low = min(n.low, m.number)
			}
		}
		if n.low != n.number {
			return
		}
		for _, w := range stack[at:] {
			w.place().open, w.place().cyclic = false, len(stack)-at > 1
		}
		stack = stack[:at]
	}
	for _, s := range d.inOrder() {
		if s.number == 0 {
			visit(s)
		}
	}
}

// inOrder are the sources in an order that has nothing to do with what they are, and is always the same.
func (d *debian) inOrder() []*source {
	all := slices.Collect(maps.Values(d.sources))
	slices.SortFunc(all, func(a, b *source) int {
		return cmp.Or(cmp.Compare(hashOf(a.name), hashOf(b.name)), cmp.Compare(a.name, b.name))
	})
	return all
}

func hashOf(name string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(name))
	return h.Sum64()
}

// world is a part of a distribution that can be built in some order from its base: what its sources need is made by
// others of them, or is in the base if it cannot be built without itself.
type world struct {
	*debian
	chosen []*source
	base   []*binary
}

// choose takes n sources, or as many as fit, each with all that it needs.
func (d *debian) choose(n int, not map[*source]bool) *world {
	w := &world{debian: d}
	in := map[*source]bool{}
	for _, s := range d.inOrder() {
		if len(in) == n {
			break
		}
		if with := d.closure(s, in); with != nil && len(in)+len(with) <= n &&
			!slices.ContainsFunc(with, func(s *source) bool { return not[s] }) {
			for _, x := range with {
				in[x] = true
				w.chosen = append(w.chosen, x)
			}
		}
	}
	w.base = d.baseOf(w.chosen)
	return w
}

// closure is a source with the sources that it needs and that the base cannot have, less those that are in; nil if
// something is nowhere.
func (d *debian) closure(s *source, in map[*source]bool) []*source {
	if in[s] {
		return nil
	}
	out := []*source{s}
	seen := map[*binary]bool{}
	var follow func([]*binary)
	follow = func(needs []*binary) {
		for _, b := range needs {
			if seen[b] {
				continue
			}
			seen[b] = true
			follow(b.needs)
			if !b.of.cyclic && !in[b.of] && !slices.Contains(out, b.of) {
				out = append(out, b.of)
				follow(b.of.needs)
			}
		}
	}
	follow(s.needs)
	if slices.ContainsFunc(out, func(s *source) bool { return s.lacks }) {
		return nil
	}
	return out
}

// baseOf are the packages of sources that cannot be built without themselves, as far as these sources or their packages
// may ask for them: with all alternatives, for dose chooses otherwise than pick.
func (d *debian) baseOf(sources []*source) (out []*binary) {
	seen := map[*binary]bool{}
	var todo []*binary
	need := func(b *binary) {
		if b != nil && !seen[b] {
			seen[b] = true
			todo = append(todo, b)
		}
	}
	ask := func(st *deb822.Stanza, fields ...string) {
		for _, or := range relations(st, fields...) {
			for _, r := range or {
				need(d.binaries[r.Name])
				for _, b := range d.provided[r.Name] {
					need(b)
				}
			}
		}
	}
	need(d.binaries["build-essential"])
	for _, b := range d.essential() {
		need(b)
	}
	chosen := map[*source]bool{}
	for _, s := range sources {
		chosen[s] = true
		ask(s.st, "Build-Depends", "Build-Depends-Arch", "Build-Depends-Indep")
	}
	for _, s := range sources {
		for _, b := range s.makes {
			ask(b.st, dependencies...)
		}
	}
	for len(todo) > 0 {
		b := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if b.of.cyclic {
			out = append(out, b)
		} else if !chosen[b.of] {
			continue
		}
		ask(b.st, dependencies...)
	}
	slices.SortFunc(out, func(a, b *binary) int { return cmp.Compare(a.name, b.name) })
	return out
}

// index is a Packages file of an architecture.
func index(all []*binary, arch string) []byte {
	var out bytes.Buffer
	for _, b := range all {
		of := arch
		if slices.Contains(b.archs, "all") {
			of = "all"
		} else if !policy.BuildsOn(b.archs, arch) {
			continue
		}
		st := *b.st
		st.Fields = slices.Clone(st.Fields)
		st.Set("Architecture", of)
		out.Write(st.Append(nil))
		out.WriteByte('\n')
	}
	return out.Bytes()
}

// readWorld chooses n sources of the lists, of which dose says that all can be built when the others are.
func readWorld(ctx context.Context, dir, sources, packages string, n int) (*world, error) {
	d, err := readDebian(sources, packages)
	if err != nil {
		return nil, err
	}
	for not := map[*source]bool{}; ; {
		w := d.choose(n, not)
		bad, err := w.uninstallable(ctx, dir)
		if err != nil || len(bad) == 0 {
			return w, err
		}
		for _, s := range bad {
			not[s] = true
		}
	}
}

// uninstallable are the sources that could not be built on amd64 if all else was.
func (w *world) uninstallable(ctx context.Context, dir string) ([]*source, error) {
	all := slices.Clone(w.base)
	var jobs []installability.Job
	for _, s := range w.chosen {
		all = append(all, s.makes...)
		for _, arch := range []string{"amd64", "all"} {
			jobs = append(jobs, installability.Job{Source: s.name, Version: s.version, Arch: arch,
				BuildDepends: s.st.Get("Build-Depends"), BuildDependsArch: s.st.Get("Build-Depends-Arch"),
				BuildDependsIndep: s.st.Get("Build-Depends-Indep"), BuildConflicts: s.st.Get("Build-Conflicts"),
				BuildConflictsArch: s.st.Get("Build-Conflicts-Arch"), BuildConflictsIndep: s.st.Get("Build-Conflicts-Indep")})
		}
	}
	path := filepath.Join(dir, "all-packages")
	if err := os.WriteFile(path, index(all, "amd64"), 0o644); err != nil {
		return nil, err
	}
	x, err := installability.ReadIndex("amd64", path)
	if err != nil {
		return nil, err
	}
	answers, err := installability.Dose(ctx, x, jobs, dir)
	if err != nil {
		return nil, err
	}
	var out []*source
	for i, s := range w.chosen {
		if !answers[2*i].Installable() || !answers[2*i+1].Installable() {
			out = append(out, s)
		}
	}
	return out, nil
}
