package archive

import (
	"slices"
	"strings"
)

// Plan says what a change of a suite does, or would do.
type Plan struct {
	Added, Removed []Entry
	Notes          []string // a sentence each
	Refused        []string // what was asked for and cannot be, a sentence each
	Changed        bool     // clients see something new
}

// Shown are the packages that were asked for, as sources or else as binaries, in
// the versions that the plan removes; of a source without its source package, the
// name. What has come since is not among them.
func (p *Plan) Shown(asked []string) []string {
	var out []string
	for _, name := range asked {
		versions := p.versions(name, true)
		if versions == nil {
			versions = p.versions(name, false)
		}
		source, _, _ := strings.Cut(name, "_")
		whole := slices.ContainsFunc(p.Removed, func(e Entry) bool { return e.Arch == "source" && e.Package == source })
		if !whole && slices.ContainsFunc(p.Removed, func(e Entry) bool { return e.Source == source }) {
			versions = []string{name}
		}
		for _, v := range versions {
			if !slices.Contains(out, v) {
				out = append(out, v)
			}
		}
	}
	return out
}

// versions are the packages of a name, or of a name and version, that go.
func (p *Plan) versions(name string, sources bool) (out []string) {
	for _, e := range p.Removed {
		full := e.Package + "_" + e.Version
		if (e.Arch == "source") == sources && (name == e.Package || name == full) {
			out = append(out, full)
		}
	}
	return out
}
