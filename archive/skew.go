package archive

import (
	"fmt"
	"slices"

	"packmill/internal/deb822"
	"packmill/internal/policy"
)

// A source's packages for all architectures and those for one come from builds
// of their own, and one may fail, or end days after the other. So that apt can
// install what it sees, an architecture goes over to a version of the source when
// it has both: until then the packages for all stay the old ones there, and builds
// that need the new ones wait (see Inclusion.Whole).

// settleAll shows each package for all on the architectures where it belongs to
// the rest of its source, and takes it out of binary-all when each architecture
// builds it itself.
func (t *transaction) settleAll() error {
	touched, err := t.touchedSources()
	if err != nil {
		return err
	}
	for _, name := range sortedKeys(touched) {
		f, err := t.family(name, touched[name])
		if err != nil {
			return err
		}
		for _, b := range f.all {
			if err := t.settle(f, &b); err != nil {
				return err
			}
		}
	}
	return nil
}

// family is all that the suite has of one source.
type family struct {
	source   string
	sources  []deb822.Stanza
	packages []string
	all      []built                    // for all architectures, the newest of each
	on       map[string][]deb822.Stanza // by architecture, what was built for it alone
}

// family reads what there is of a source; touched are those of its packages that change.
func (t *transaction) family(source string, touched map[string]bool) (*family, error) {
	f := &family{source: source, on: map[string][]deb822.Stanza{}, packages: sortedKeys(touched)}
	for _, c := range t.suite.components() {
		list, err := t.p.stanzas(sourcesPath(c), source)
		if err != nil {
			return nil, err
		}
		f.sources = append(f.sources, list...)
		for i := range list {
			f.packages = append(f.packages, binariesOf(&list[i])...)
		}
	}
	slices.Sort(f.packages)
	f.packages = slices.Compact(f.packages)
	all, err := t.members(f, "all")
	if err != nil || all == nil {
		return f, err
	}
	f.all = all
	for _, arch := range t.suite.archs() {
		list, err := t.members(f, arch)
		if err != nil {
			return nil, err
		}
		for i := range list {
			if list[i].st.Get("Architecture") != "all" {
				f.on[arch] = append(f.on[arch], list[i].st)
			}
		}
	}
	return f, nil
}

// members are the source's packages in the indexes of an architecture.
func (t *transaction) members(f *family, arch string) (out []built, err error) {
	for _, c := range t.areas() {
		for _, name := range f.packages {
			list, err := t.p.stanzas(packagesPath(c, arch), name)
			if err != nil {
				return nil, err
			}
			for i := range list {
				if s, _ := sourceOf(&list[i]); s == f.source {
					out = append(out, built{c, list[i]})
				}
			}
		}
	}
	return out, nil
}

// settle puts one package for all where it belongs.
func (t *transaction) settle(f *family, b *built) error {
	name := b.st.Get("Package")
	record := append(b.st.Append(nil), '\n')
	alone := 0
	for _, arch := range t.suite.archs() {
		itself, err := t.buildsItself(b, arch)
		if err != nil {
			return err
		}
		if itself {
			alone++
			continue
		}
		if unmet, err := t.unmet(&b.st, arch, f.packages, nil); err != nil || unmet != "" || f.behind(&b.st, arch) {
			if err != nil {
				return err
			}
			continue
		}
		for _, c := range alike(t.areas(), b.component) {
			text := record
			if c != b.component {
				text = nil
			}
			if old, err := t.p.get(packagesPath(c, arch), name); err != nil {
				return err
			} else if string(old) != string(text) {
				t.p.set(packagesPath(c, arch), name, text)
			}
		}
	}
	if n := len(t.suite.archs()); n > 0 && alone == n {
		t.p.set(packagesPath(b.component, "all"), name, nil)
	}
	return nil
}

// buildsItself reports whether an architecture has the package as its own, as new.
func (t *transaction) buildsItself(b *built, arch string) (bool, error) {
	for _, c := range alike(t.areas(), b.component) {
		list, err := t.p.stanzas(packagesPath(c, arch), b.st.Get("Package"))
		if err != nil {
			return false, err
		}
		for i := range list {
			if list[i].Get("Architecture") != "all" && policy.CompareVersions(list[i].Get("Version"), b.st.Get("Version")) >= 0 {
				return true, nil
			}
		}
	}
	return false, nil
}

// behind reports whether an architecture has an older version of the package's
// source, and is to get this one.
func (f *family) behind(st *deb822.Stanza, arch string) bool {
	_, version := sourceOf(st)
	old, current := false, false
	for i := range f.on[arch] {
		_, v := sourceOf(&f.on[arch][i])
		switch c := policy.CompareVersions(v, version); {
		case c < 0:
			old = true
		case c == 0:
			current = true
		}
	}
	return old && !current && f.builds(version, arch)
}

// builds reports whether a version of the source makes packages for an
// architecture alone.
func (f *family) builds(version, arch string) bool {
	for i := range f.sources {
		if f.sources[i].Get("Version") == version {
			return policy.BuildsOn(deb822.Words(f.sources[i].Get("Architecture")), arch)
		}
	}
	return true
}

// unmet is what a package depends on of its own source and an architecture does
// not have, "" if it has all: in what is published, for all, or among the changes.
func (t *transaction) unmet(st *deb822.Stanza, arch string, packages []string, changes []change) (string, error) {
	for _, field := range []string{"Pre-Depends", "Depends"} {
		list, err := policy.ParseRelations(st.Get(field))
		if err != nil {
			continue // of an older tree
		}
		for _, or := range list {
			ours := !slices.ContainsFunc(or, func(r policy.Relation) bool { return !slices.Contains(packages, r.Name) })
			if !ours {
				continue
			}
			have := false
			for _, r := range or {
				ok, err := t.has(r, arch, changes)
				if err != nil {
					return "", err
				}
				have = have || ok
			}
			if !have {
				return fmt.Sprint(policy.Relations{or}), nil
			}
		}
	}
	return "", nil
}

// has reports whether an architecture has, or can get, what satisfies a relation.
func (t *transaction) has(r policy.Relation, arch string, changes []change) (bool, error) {
	for _, c := range t.areas() {
		for _, a := range []string{arch, "all"} {
			path := packagesPath(c, a)
			text, err := t.p.get(path, r.Name)
			for i := range changes {
				if changes[i].path == path && changes[i].key == r.Name {
					text = changes[i].records
				}
			}
			if err != nil {
				return false, err
			}
			list, err := parse(path, text)
			if err != nil {
				return false, err
			}
			if slices.ContainsFunc(list, func(st deb822.Stanza) bool { return r.SatisfiedBy(st.Get("Version")) }) {
				return true, nil
			}
		}
	}
	return false, nil
}

// waits says what an inclusion's packages need of their own source's other
// builds, "" if nothing.
func (in *inclusion) waits() (string, error) {
	for i := range in.changes {
		ch := &in.changes[i]
		for _, arch := range in.t.suite.archs() {
			if !slices.ContainsFunc(in.t.areas(), func(c string) bool { return ch.path == packagesPath(c, arch) }) {
				continue
			}
			list, err := parse(ch.path, ch.records)
			if err != nil {
				return "", err
			}
			for j := range list {
				unmet, err := in.t.unmet(&list[j], arch, in.names, in.changes)
				if err != nil || unmet != "" {
					return ch.key + " needs " + unmet, err
				}
			}
		}
	}
	return "", nil
}
