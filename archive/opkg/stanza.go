package opkg

import (
	"fmt"
	"strings"

	"packmill/internal/deb822"
	"packmill/internal/policy"
)

// The fields of an index entry in their order. A field that is not here means
// nothing to opkg, or something else than to dpkg: Installed-Size is bytes for
// opkg and KiB for dpkg, Breaks and Enhances are unknown to it.
var fields = []knownField{
	{"Package", made}, {"Version", made}, {"Architecture", made},
	{"Essential", line}, {"Maintainer", line}, {"Section", line}, {"Priority", line}, {"Source", line}, {"Homepage", line},
	{"Pre-Depends", relation}, {"Depends", relation}, {"Recommends", relation}, {"Suggests", relation},
	{"Conflicts", conflicts}, {"Replaces", replaces}, {"Provides", provides},
	{"Filename", made}, {"Size", made}, {"MD5Sum", made}, {"SHA256sum", made},
	{"Description", made},
}

type knownField struct {
	name string
	kind kind
}

type kind int

const (
	made      kind = iota // written by this package, or checked by it
	line                  // copied as one line
	relation              // a dependency field
	conflicts             // what must not be there
	replaces              // a dependency field that one client takes for more than it is
	provides              // a dependency field whose versions opkg cannot read
)

// entry appends an index entry. The fields come from st, a stanza of a Debian
// index (with the archive's overrides); description is the control file's own,
// since an index may have moved its text into a Translation file.
func entry(
	dst []byte, st *deb822.Stanza, description, filename string, info Info, debianArch string, names namer, opt Options,
) ([]byte, error) {
	for _, f := range fields {
		switch f.kind {
		case line:
			dst = field(dst, f.name, oneLine(st.Get(f.name)))
			continue
		case relation, conflicts, replaces, provides:
			v, err := relations(st, f.name, debianArch, f.kind, names)
			if err != nil {
				return nil, err
			}
			dst = field(dst, f.name, v)
			continue
		}
		switch f.name {
		case "Package", "Version":
			dst = field(dst, f.name, st.Get(f.name))
		case "Architecture":
			dst = field(dst, f.name, opt.arch(st.Get(f.name)))
		case "Filename":
			dst = field(dst, f.name, filename)
		case "Size":
			dst = fmt.Appendf(dst, "Size: %d\n", info.Size)
		case "MD5Sum":
			dst = field(dst, f.name, info.MD5)
		case "SHA256sum":
			dst = field(dst, f.name, info.SHA256)
		case "Description":
			dst = describe(dst, st.Get("Package"), description)
		}
	}
	return append(dst, '\n'), nil
}

// control is the control file of a package for opkg, which reads it when it gets
// the file itself and no index: the .deb's, with what an index entry has in the
// fields that opkg reads. It follows from the .deb alone. Fields that are
// unknown to opkg stay, each on one line, for people and other programs.
func control(st *deb822.Stanza, opt Options) ([]byte, error) {
	arch := st.Get("Architecture")
	var dst []byte
	for _, f := range st.Fields {
		name, k := f.Name, line
		for _, w := range fields {
			if strings.EqualFold(f.Name, w.name) {
				name, k = w.name, w.kind
			}
		}
		v := oneLine(f.Value)
		switch {
		case strings.EqualFold(name, "Installed-Size"), name == "Description":
			continue
		case name == "Architecture":
			v = opt.arch(arch)
		case k >= relation:
			var err error
			if v, err = relations(st, name, arch, k, namer{}); err != nil {
				return nil, err
			}
		}
		dst = field(dst, name, v)
	}
	return describe(dst, st.Get("Package"), st.Get("Description")), nil
}

// field appends a field that has a value.
func field(dst []byte, name, value string) []byte {
	if value == "" {
		return dst
	}
	return append(append(append(append(dst, name...), ": "...), value...), '\n')
}

// describe appends a description, which is the last field and the only one with
// further lines.
func describe(dst []byte, name, text string) []byte {
	first, rest, more := strings.Cut(text, "\n")
	if first == "" {
		first = name
	}
	dst = field(dst, "Description", first)
	for more {
		var l string
		l, rest, more = strings.Cut(rest, "\n")
		if l == "" {
			l = "."
		}
		dst = append(append(append(dst, ' '), l...), '\n')
	}
	return dst
}

// oneLine joins a folded value.
func oneLine(v string) string {
	if !strings.Contains(v, "\n") {
		return v
	}
	return strings.Join(deb822.Words(v), " ")
}

// relations writes a dependency field so that all clients read it: on one
// line, without :any and :native, lists of architectures and build profiles.
// No client knows a version of what is provided: Provides loses it, and so does
// a dependency on a name that no package of the feed has. A Conflicts with versions of
// such a name is left out, for the solvers of old compare them with the version of the package
// that provides it (version_constraints_satisfied, pkg_depends.c). What a package of the feed is
// called no other provides: upstream's client lets none stand beside the package of
// a name that it provides (POOL_FLAG_IMPLICITOBSOLETEUSESPROVIDES, libsolv's rules.c), and
// so could install a quarter of Debian not at all.
//
// libsolv, upstream's solver, removes whatever Replaces fits (it takes the field
// for RPM's Obsoletes: solver.c, solv->obsoletes), where dpkg means that files
// change their owner (Policy 7.6.1). "<< 0" fits no version, and lets all
// clients take the files over, which they decide by the name alone. Beside
// Conflicts the package is to go (Policy 7.6.2), in the versions of Conflicts.
func relations(st *deb822.Stanza, name, arch string, k kind, names namer) (string, error) {
	rels, err := parseRelations(st, name, arch)
	if err != nil || rels == nil {
		return "", err
	}
	var goes map[string]policy.Relation
	if k == replaces {
		if goes, err = conflicting(st, arch, names); err != nil {
			return "", err
		}
	}
	self := st.Get("Package")
	var out policy.Relations
	seen := map[string]bool{}
	for _, or := range rels {
		kept := or[:0]
		for _, r := range or {
			r.Qualifier = ""
			switch {
			case k == provides && r.Name == self:
				continue // Every package provides its own name anyway.
			case k == provides && names.double[r.Name], k == conflicts && r.Op != "" && names.hollow[r.Name]:
				continue
			case k == provides, k == relation && names.virtual[r.Name]:
				r.Op, r.Version = "", ""
			case k == replaces:
				r.Op, r.Version = replaced(r, goes)
			}
			kept = append(kept, r)
		}
		if len(kept) == 0 {
			continue
		}
		one := policy.Relations{kept}
		if s := one.String(); !seen[s] {
			seen[s] = true
			out = append(out, kept)
		}
	}
	return out.String(), nil
}

func parseRelations(st *deb822.Stanza, name, arch string) (policy.Relations, error) {
	v := st.Get(name)
	if v == "" {
		return nil, nil
	}
	rels, err := policy.ParseRelations(v)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return rels.For(arch, nil), nil
}

// conflicting are the relations in Conflicts, by name.
func conflicting(st *deb822.Stanza, arch string, names namer) (map[string]policy.Relation, error) {
	rels, err := parseRelations(st, "Conflicts", arch)
	out := map[string]policy.Relation{}
	for _, or := range rels {
		for _, r := range or {
			if r.Op == "" || !names.hollow[r.Name] {
				out[r.Name] = r
			}
		}
	}
	return out, err
}

// replaced is the version that a relation in Replaces gets.
func replaced(r policy.Relation, conflicts map[string]policy.Relation) (op, version string) {
	c, goes := conflicts[r.Name]
	switch {
	case !goes:
		return "<<", "0"
	case r.Op == "":
		return c.Op, c.Version
	}
	return r.Op, r.Version
}
