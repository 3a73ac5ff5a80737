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
var fields = []struct {
	name string
	kind kind
}{
	{"Package", made}, {"Version", made}, {"Architecture", made},
	{"Essential", line}, {"Maintainer", line}, {"Section", line}, {"Priority", line}, {"Source", line}, {"Homepage", line},
	{"Pre-Depends", relation}, {"Depends", relation}, {"Recommends", relation}, {"Suggests", relation},
	{"Conflicts", relation}, {"Replaces", relation}, {"Provides", provides},
	{"Filename", made}, {"Size", made}, {"MD5Sum", made}, {"SHA256sum", made},
	{"Description", made},
}

type kind int

const (
	made     kind = iota // written by this package, or checked by it
	line                 // copied as one line
	relation             // a dependency field
	provides             // a dependency field whose versions opkg cannot read
)

// entry appends an index entry. The fields come from st, a stanza of a Debian
// index (with the archive's overrides); description is the control file's own,
// since an index may have moved its text into a Translation file.
func entry(dst []byte, st *deb822.Stanza, description, filename string, info Info, debianArch string, opt Options) ([]byte, error) {
	add := func(name, value string) {
		if value != "" {
			dst = append(append(append(append(dst, name...), ": "...), value...), '\n')
		}
	}
	for _, f := range fields {
		v := st.Get(f.name)
		switch f.kind {
		case line:
			add(f.name, oneLine(v))
			continue
		case relation, provides:
			if v == "" {
				continue
			}
			v, err := relations(v, st.Get("Package"), debianArch, f.kind)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", f.name, err)
			}
			add(f.name, v)
			continue
		}
		switch f.name {
		case "Package", "Version":
			add(f.name, v)
		case "Architecture":
			add(f.name, opt.arch(v))
		case "Filename":
			add(f.name, filename)
		case "Size":
			dst = fmt.Appendf(dst, "Size: %d\n", info.Size)
		case "MD5Sum":
			add(f.name, info.MD5)
		case "SHA256sum":
			add(f.name, info.SHA256)
		case "Description":
			first, rest, more := strings.Cut(description, "\n")
			if first == "" {
				first = st.Get("Package")
			}
			add(f.name, first)
			for more {
				var l string
				l, rest, more = strings.Cut(rest, "\n")
				if l == "" {
					l = "."
				}
				dst = append(append(append(dst, ' '), l...), '\n')
			}
		}
	}
	return append(dst, '\n'), nil
}

// oneLine joins a folded value.
func oneLine(v string) string {
	if !strings.Contains(v, "\n") {
		return v
	}
	return strings.Join(deb822.Words(v), " ")
}

// relations writes a dependency field so that both clients read it: on one
// line, without :any and :native, lists of architectures and build profiles.
func relations(v, self, arch string, k kind) (string, error) {
	rels, err := policy.ParseRelations(v)
	if err != nil {
		return "", err
	}
	rels = rels.For(arch, nil)
	var out policy.Relations
	seen := map[string]bool{}
	for _, or := range rels {
		kept := or[:0]
		for _, r := range or {
			r.Qualifier = ""
			if k == provides {
				r.Op, r.Version = "", ""
				// Every package provides its own name anyway.
				if r.Name == self {
					continue
				}
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
