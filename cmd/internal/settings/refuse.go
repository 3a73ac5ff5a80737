package settings

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Refuses says why a builder does not take jobs of a source, or "". Buildd
// decides by it, and packmill why shows it.
func (b *Builder) Refuses(s *Suite, arch, source, component string) string {
	switch {
	case len(b.Suites) > 0 && !slices.Contains(b.Suites, s.Name):
		return fmt.Sprintf("it builds for %s only", strings.Join(b.Suites, " "))
	case !slices.Contains(b.Architectures, arch):
		return fmt.Sprintf("it builds %s only", strings.Join(b.Architectures, " "))
	case len(b.Packages) > 0 && !slices.ContainsFunc(b.Packages, func(p string) bool { ok, _ := path.Match(p, source); return ok }):
		return "not one of the builder's Packages"
	case len(b.Components) > 0 && !slices.Contains(b.Components, component):
		return "not one of the builder's Components"
	}
	return ""
}
