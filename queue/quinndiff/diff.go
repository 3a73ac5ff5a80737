// Package quinndiff finds out what an archive lacks: it holds Sources against
// Packages, as quinn-diff did for wanna-build.
//
// It reads indexes and nothing else. One pass over each index, then one over
// the sources for each architecture:
//
//	var sources quinndiff.Sources
//	err := sources.Add(f)
//	var packages quinndiff.Packages // of amd64
//	err = packages.Add(g)
//	for n := range quinndiff.Diff(&sources, &packages, "amd64", quinndiff.Options{}) {
//		if n.State.Wanted() { fmt.Println(n.Line()) }
//	}
package quinndiff

import (
	"bytes"
	"iter"
	"slices"

	"packmill/internal/policy"
)

// State says how the binaries of a source stand on an architecture.
type State int

const (
	// UpToDate: every binary is there, built from this version or a newer one.
	UpToDate State = iota
	// OutOfDate: no binary is there from this version, but one from an older.
	OutOfDate
	// Partial: some binaries are there from this version and some are not.
	Partial
	// Uncompiled: no binary of this source is there.
	Uncompiled
	// NotForArch: nothing is to be built there; Reason says who says so.
	NotForArch
)

// String returns the word of the classic lines.
func (s State) String() string {
	switch s {
	case UpToDate:
		return "up-to-date"
	case OutOfDate:
		return "out-of-date"
	case Partial:
		return "partial"
	case Uncompiled:
		return "uncompiled"
	case NotForArch:
		return "not-for-arch"
	}
	return "unknown"
}

// Wanted reports whether there is something to build.
func (s State) Wanted() bool { return s == OutOfDate || s == Partial || s == Uncompiled }

// Needed is the answer for one source on one architecture.
type Needed struct {
	Source, Version   string // the version to be built: the source's, always without +bN
	Section, Priority string // "" where the index does not say
	Arch              string
	State             State
	Installed         string   // newest source version of which binaries are there; "" if none
	BinNMU            int      // highest N of the +bN binaries of Installed; the next one is BinNMU+1
	Older             []string // binaries of which only an older version is there, if OutOfDate or Partial
	Missing           []string // binaries that are not there at all, if OutOfDate or Partial
	Reason            string   // of NotForArch, one sentence
}

// Line returns the classic line of quinn-diff,
// section/source_version.dsc [priority:state], epoch included.
func (n *Needed) Line() string {
	priority := n.Priority
	if priority == "" {
		priority = "-"
	}
	return n.Section + "/" + n.Source + "_" + n.Version + ".dsc [" + priority + ":" + n.State.String() + "]"
}

// Options of Diff; the zero value is right for most archives.
type Options struct {
	Specific   *Specific // Packages-arch-specific, or nil
	Udebs      bool      // the Packages indexes of the installer's packages were added too
	Components []string  // those whose Packages indexes were added; nil for all that there are
}

// Diff yields an answer for each source, in the order of the index. packages
// must be of arch; for the architecture "all" those of any architecture do,
// or a Packages of all alone. Several Diffs may run at the same time on the
// same Sources and Packages. The value that is yielded is the caller's.
//
// Which binaries a source has on an architecture is what its Package-List
// says, without those that only a build profile makes, those of components that
// were not read, and those that another source has taken over. A source without a Package-List is up to date as
// soon as one binary is there from its version, unless another is there from
// an older one.
func Diff(sources *Sources, packages *Packages, arch string, o Options) iter.Seq[Needed] {
	return func(yield func(Needed) bool) {
		d := differ{packages: packages, arch: arch, o: o, matches: make([]bool, len(sources.archs.lists))}
		for i, list := range sources.archs.lists {
			d.matches[i] = policy.BuildsOn(list, arch)
		}
		for i := range sources.list {
			if !yield(d.source(&sources.list[i])) {
				return
			}
		}
	}
}

// NotFor says why nothing of a source is to be built on an architecture, or "":
// dsc is the text of its .dsc, without a signature, and profiles are those with
// which it would be built. An installer's package is reason enough to build, and
// what cannot be read excludes nothing.
func NotFor(dsc []byte, arch string, specific *Specific, profiles []string) string {
	s := Sources{Profiles: func(string) []string { return profiles }}
	if s.Add(bytes.NewReader(dsc)) != nil {
		return ""
	}
	for n := range Diff(&s, &Packages{}, arch, Options{Specific: specific, Udebs: true}) {
		return n.Reason
	}
	return ""
}

type differ struct {
	packages *Packages
	arch     string
	o        Options
	matches  []bool // of each Architecture list: does it take in arch
}

func (d *differ) source(src *source) Needed {
	n := Needed{Source: src.name, Version: src.version, Section: src.section, Priority: src.priority, Arch: d.arch}
	notFor := func(why string) Needed {
		n.State, n.Reason = NotForArch, why
		return n
	}
	if !d.matches[src.archs] {
		return notFor("the Architecture field of the source does not list it")
	}
	if !d.o.Specific.source(src.name, d.arch) {
		return notFor("Packages-arch-specific excludes the source")
	}
	n.Installed, n.BinNMU = d.installed(src.name)
	if !src.complete {
		return d.byPresence(src, n)
	}
	built, listed, excluded := d.count(src, &n)
	switch {
	case listed == 0:
		return notFor("the source has no package there, or none that is looked for: " +
			"installer's packages, other components and build profiles are not")
	case listed == excluded:
		return notFor("Packages-arch-specific excludes all its packages")
	}
	if built > 0 {
		taken := func(name string) bool { return d.takenOver(name, src.name) }
		n.Older = slices.DeleteFunc(n.Older, taken)
		n.Missing = slices.DeleteFunc(n.Missing, taken)
	}
	switch {
	case len(n.Older)+len(n.Missing) == 0:
		n.State = UpToDate
	case built > 0:
		n.State = Partial
	case n.Installed == "":
		n.State = Uncompiled
	case policy.CompareVersions(n.Installed, src.version) >= 0:
		n.State = Partial // all that is there from this version are packages that the list does not have
	default:
		n.State = OutOfDate
	}
	if n.State == UpToDate || n.State == Uncompiled {
		n.Older, n.Missing = nil, nil
	}
	return n
}

// count looks for each package that the source's list has on the architecture, and notes
// those that are missing or older than the source.
func (d *differ) count(src *source, n *Needed) (built, listed, excluded int) {
	for i := range src.binaries {
		b := &src.binaries[i]
		if !d.matches[b.archs] || b.udeb && !d.o.Udebs || !d.reads(b.component) {
			continue
		}
		listed++
		if !d.o.Specific.binary(b.name, d.arch) {
			excluded++
			continue
		}
		switch version := d.version(b.name, src.name); {
		case version == "":
			n.Missing = append(n.Missing, b.name)
		case policy.CompareVersions(version, src.version) < 0:
			n.Older = append(n.Older, b.name)
		default:
			built++
		}
	}
	return built, listed, excluded
}

// reads reports whether the component's packages were added.
func (d *differ) reads(component string) bool {
	return d.o.Components == nil || slices.Contains(d.o.Components, component)
}

// byPresence judges a source whose packages' architectures are not known.
func (d *differ) byPresence(src *source, n Needed) Needed {
	allowed := func(b binary) bool { return d.o.Specific.binary(b.name, d.arch) }
	if len(src.binaries) > 0 && !slices.ContainsFunc(src.binaries, allowed) {
		n.State, n.Reason = NotForArch, "Packages-arch-specific excludes all its packages"
		return n
	}
	for i := range src.binaries {
		switch version := d.version(src.binaries[i].name, src.name); {
		case version == "":
		case policy.CompareVersions(version, src.version) < 0:
			n.Older = append(n.Older, src.binaries[i].name)
		}
	}
	switch {
	case n.Installed == "":
		n.State = Uncompiled
	case policy.CompareVersions(n.Installed, src.version) < 0:
		n.State = OutOfDate
	case len(n.Older) > 0:
		n.State = Partial
	}
	return n
}

// installed returns the newest version of the source that has binaries of
// the architecture, and the highest number of its binNMUs.
func (d *differ) installed(source string) (version string, binNMU int) {
	i, ok := d.packages.bySource[source]
	if !ok {
		return "", 0
	}
	for ; i >= 0; i = d.packages.list[i].next {
		p := &d.packages.list[i]
		if p.arch != d.arch {
			continue
		}
		switch c := policy.CompareVersions(p.version, version); {
		case version == "" || c > 0:
			version, binNMU = p.version, p.binNMU
		case c == 0:
			binNMU = max(binNMU, p.binNMU)
		}
	}
	return version, binNMU
}

// version returns the newest source version of which the binary is there,
// from this source, or "".
func (d *differ) version(name, source string) (version string) {
	i, ok := d.packages.byName[name]
	if !ok {
		return ""
	}
	for ; i >= 0; i = d.packages.list[i].twin {
		p := &d.packages.list[i]
		if p.arch == d.arch && p.source == source && (version == "" || policy.CompareVersions(p.version, version) > 0) {
			version = p.version
		}
	}
	return version
}

// takenOver reports whether another source has the binary. The architecture
// does not matter: a package that is for all now is no longer missed.
func (d *differ) takenOver(name, source string) bool {
	i, ok := d.packages.byName[name]
	if !ok {
		return false
	}
	for ; i >= 0; i = d.packages.list[i].twin {
		if d.packages.list[i].source != source {
			return true
		}
	}
	return false
}
