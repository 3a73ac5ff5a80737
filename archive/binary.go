package archive

import (
	"errors"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"packmill/archive/index"
	"packmill/archive/pool"
	"packmill/internal/deb"
	"packmill/internal/deb822"
	"packmill/internal/paper"
	"packmill/internal/policy"
)

func (in *inclusion) includeDeb(l *paper.File) error {
	p, err := in.readDeb(l)
	if err != nil {
		return err
	}
	it := &in.items[len(in.items)-1]
	if err := in.belongs(l, p); err != nil {
		return err
	}
	if err := in.hasSource(l, p); err != nil {
		return err
	}
	if in.t.suite.Contents {
		if _, err := in.t.a.keepFiles(p); err != nil {
			return err
		}
	}
	section, priority := in.override(p.Name, p.Control.Get("Section"), p.Control.Get("Priority"))
	comp, err := in.component(section)
	if err != nil {
		return err
	}
	if isDbgsym(p) && in.t.suite.Dbgsym != "" {
		comp = in.t.suite.Dbgsym
	}
	it.name = pool.Dir(comp, p.Source) + "/" + l.Name
	if filepath.Ext(l.Name) == ".udeb" {
		comp += installer
	}
	if err := in.compare(l, p, comp); err != nil {
		return err
	}
	in.changes = append(in.changes,
		change{packagesPath(comp, p.Architecture), p.Name,
			in.t.binaryStanza(p, comp, it.name, section, priority, in.Overrides[p.Name].Tag)})
	return nil
}

// readDeb opens the package, whose file is the last item then, and reads it whole:
// it must be the one that the .changes names.
func (in *inclusion) readDeb(l *paper.File) (*deb.Package, error) {
	f, err := in.open(l)
	if err != nil {
		return nil, err
	}
	in.items = append(in.items, item{f: f, from: f.Name(), sum: index.Sum{SHA256: l.SHA256, Size: l.Size}})
	p, err := deb.Read(f, l.Name, deb.Options{})
	var fault *deb.Refusal
	if errors.As(err, &fault) {
		return nil, refuse("%s", fault.Error())
	}
	if err != nil {
		return nil, err
	}
	switch {
	case p.SHA256 != l.SHA256:
		return nil, in.differs(l, "SHA-256")
	case p.MD5 != l.MD5:
		return nil, in.differs(l, "MD5")
	}
	if err := errors.Join(p.CheckName(l.Name), p.CheckFields(l.Name)); err != nil {
		return nil, refuse("%s", err.Error())
	}
	return p, nil
}

// belongs refuses a package that its upload does not name, that its sender may not
// bring, or that the suite has no place for.
func (in *inclusion) belongs(l *paper.File, p *deb.Package) error {
	arch, suite := p.Architecture, in.t.suite
	switch {
	case p.Source != in.source || policy.CompareVersions(p.SourceVersion, in.version) != 0 && p.Version != in.version:
		return refuse("%s: is built from %s %s, but %s is of %s %s; build the upload again",
			l.Name, p.Source, p.SourceVersion, in.Changes, in.source, in.version)
	case arch != "all" && !slices.Contains(suite.archs(), arch):
		return refuse("%s: the suite %s has no architecture %s, only %s; "+
			"leave the package out, or add the architecture to the suite",
			l.Name, suite.Name, arch, strings.Join(suite.archs(), ", "))
	case len(in.Architectures) > 0 && !slices.Contains(in.Architectures, arch):
		return refuse("%s: its sender may bring packages for %s only; let a builder of its architecture send it",
			l.Name, strings.Join(in.Architectures, ", "))
	case !slices.Contains(deb822.Words(in.ch.Get("Architecture")), arch):
		return refuse("%s: %s does not name its architecture; build the upload again", l.Name, in.Changes)
	case !isDbgsym(p) && !slices.Contains(deb822.Words(in.ch.Get("Binary")), p.Name):
		return refuse("%s: %s does not name it in Binary; build the upload again", l.Name, in.Changes)
	}
	return nil
}

// hasSource refuses a package whose source is not in the suite, or does not name it.
func (in *inclusion) hasSource(l *paper.File, p *deb.Package) error {
	src, dir, err := in.t.findSource(in, p.Source, p.SourceVersion)
	if err != nil {
		return err
	}
	if src != nil {
		in.dir, in.names = dir, NamesOf(src)
	} else if !in.Sourceless {
		in.noSource = true
		return refuse("%s: its source package %s %s is not in %s; publish the source first",
			l.Name, p.Source, p.SourceVersion, in.t.suite.Name)
	}
	if in.Declared {
		return in.declared(l.Name, p, src)
	}
	return nil
}

// compare holds the package to what the indexes of its architecture have of it. One for
// all goes from there to the other architectures' when it belongs there: see settleAll.
func (in *inclusion) compare(l *paper.File, p *deb.Package, comp string) error {
	for _, c := range alike(in.t.areas(), comp) {
		path := packagesPath(c, p.Architecture)
		list, err := in.t.p.stanzas(path, p.Name)
		if err != nil {
			return err
		}
		for i := range list {
			old := &list[i]
			v := old.Get("Version")
			switch cmp := policy.CompareVersions(p.Version, v); {
			case cmp == 0 && old.Get("Architecture") == p.Architecture && old.Get("SHA256") != p.SHA256:
				return in.otherContent(l, p.Name, v)
			case cmp < 0 && !in.Force:
				return in.tooOld(l, p.Name, v)
			}
			if src, _ := sourceOf(old); src != p.Source {
				in.note("package %s is taken over from source package %s by %s.", p.Name, src, p.Source)
			}
		}
		if c != comp && len(list) > 0 {
			in.changes = append(in.changes, change{path, p.Name, nil})
			in.note("package %s moves from component %s to %s.", p.Name, c, comp)
		}
	}
	return nil
}

// declared refuses a package that its source does not name, and one that
// another source has in the suite, on whichever architecture, unless that was allowed.
func (in *inclusion) declared(file string, p *deb.Package, src *deb822.Stanza) error {
	name := strings.TrimSuffix(p.Name, "-dbgsym")
	if names := NamesOf(src); !slices.Contains(names, p.Name) && !slices.Contains(names, name) {
		return refuse("%s: the source %s %s does not name the package %s, only %s; a person must look at what was built",
			file, p.Source, p.SourceVersion, p.Name, strings.Join(names, ", "))
	}
	for _, c := range in.t.areas() {
		for _, a := range append(in.t.suite.archs(), "all") {
			list, err := in.t.p.stanzas(packagesPath(c, a), p.Name)
			if err != nil {
				return err
			}
			for i := range list {
				other, _ := sourceOf(&list[i])
				if other == p.Source || slices.Contains(in.TakesOver, p.Name+"="+other) ||
					slices.Contains(in.TakesOver, name+"="+other) {
					continue
				}
				return refuse("%s: the package %s is built by the source %s in %s, and nobody said that %s may take it over; "+
					"upload a new version of %s: a reviewer sees it then",
					file, p.Name, other, in.t.suite.Name, p.Source, p.Source)
			}
		}
	}
	return nil
}

// NamesOf are the binary packages that a source names, in a .dsc or an entry of
// Sources: those of Package-List and of Binary.
func NamesOf(src *deb822.Stanza) []string {
	if src == nil {
		return nil
	}
	var out []string
	for line := range strings.SplitSeq(src.Get("Package-List"), "\n") {
		if w := deb822.Words(line); len(w) > 0 {
			out = append(out, w[0])
		}
	}
	out = append(out, deb822.Words(strings.ReplaceAll(src.Get("Binary"), ",", " "))...)
	slices.Sort(out)
	return slices.Compact(out)
}

// isDbgsym reports whether debhelper made the package for debug symbols.
func isDbgsym(p *deb.Package) bool {
	return strings.HasSuffix(p.Name, "-dbgsym") &&
		slices.Contains(deb822.Words(p.Control.Get("Auto-Built-Package")), "debug-symbols")
}

// sourceOf is the source package of a stanza of Packages.
func sourceOf(st *deb822.Stanza) (name, version string) {
	name, version = st.Get("Package"), st.Get("Version")
	if s := st.Get("Source"); s != "" {
		n, v, ok := strings.Cut(s, " ")
		name = n
		if ok {
			version = strings.Trim(v, "()")
		}
	}
	return name, version
}

// binaryStanza is a package as Packages has it.
func (t *transaction) binaryStanza(p *deb.Package, component, name, section, priority, tag string) []byte {
	out := deb822.Stanza{}
	out.Set("Package", p.Name)
	for _, f := range p.Control.Fields {
		switch strings.ToLower(f.Name) {
		case "package", "filename", "size", "md5sum", "sha1", "sha256", "sha512", "description-md5",
			"status", "config-version", "conffiles":
			// What a package says of its own place and sum is not believed.
		case "section":
			out.Set(f.Name, section)
		case "priority":
			out.Set(f.Name, priority)
		default:
			out.Set(f.Name, f.Value)
		}
	}
	if section != "" {
		out.Set("Section", section)
	}
	if priority != "" {
		out.Set("Priority", priority)
	}
	if tag != "" {
		out.Set("Tag", tag)
	}
	if component == componentOf(component) && t.translated(component) {
		t.splitDescription(component, &out)
	}
	out.Set("Filename", name)
	out.Set("Size", strconv.FormatInt(p.Size, 10))
	out.Set("MD5sum", p.MD5)
	out.Set("SHA256", p.SHA256)
	return append(out.Append(nil), '\n')
}
