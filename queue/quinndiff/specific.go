package quinndiff

import (
	"fmt"
	"strings"

	"packmill/internal/deb822"
	"packmill/internal/policy"
)

// Specific is a Packages-arch-specific list: packages that can only be built
// on some architectures, whatever their Architecture field says. A nil
// Specific limits nothing.
type Specific struct {
	sources, binaries map[string][]string
}

// ParseSpecific reads a Packages-arch-specific file; file is its name in
// errors. A line is a package and its architectures or wildcards, of which
// '!' excludes, as in a relation (Policy 7.1); '%' before the name says that
// it is a source package. '#' begins a comment.
//
//	%gnumach: hurd-any
//	%acl2: !hppa !mips   # stack too small
//	libsafe: i386
func ParseSpecific(file string, data []byte) (*Specific, error) {
	s := &Specific{sources: make(map[string][]string), binaries: make(map[string][]string)}
	n := 0
	for line := range strings.SplitSeq(string(data), "\n") {
		n++
		line, _, _ = strings.Cut(line, "#")
		if line = strings.Trim(line, " \t"); line == "" {
			continue
		}
		fail := func(format string, args ...any) (*Specific, error) {
			return nil, &deb822.Error{File: file, Line: n, Msg: fmt.Sprintf(format, args...)}
		}
		name, list, ok := strings.Cut(line, ":")
		if !ok {
			return fail("no colon after the package name; write it like %q", "%hello: amd64 i386")
		}
		into, check := s.binaries, policy.CheckPackage
		if source, ok := strings.CutPrefix(name, "%"); ok {
			name, into, check = source, s.sources, policy.CheckSource
		}
		name = strings.Trim(name, " \t")
		if err := check(name); err != nil {
			return fail("%v", err)
		}
		archs := deb822.Words(list)
		if len(archs) == 0 {
			return fail("no architecture after %s; name one, or remove the line", name)
		}
		for _, a := range archs {
			if _, err := policy.ArchList(strings.TrimPrefix(a, "!")); err != nil {
				return fail("%v", err)
			}
		}
		if _, ok := into[name]; ok {
			return fail("%s is here a second time; join the two lines", name)
		}
		into[name] = archs
	}
	return s, nil
}

// source reports whether the list lets a source be built on an architecture.
func (s *Specific) source(name, arch string) bool {
	return s == nil || allowed(s.sources, name, arch)
}

func (s *Specific) binary(name, arch string) bool {
	return s == nil || allowed(s.binaries, name, arch)
}

// allowed: what is the same for all architectures is not limited to some.
func allowed(lists map[string][]string, name, arch string) bool {
	list, ok := lists[name]
	return !ok || arch == "all" || policy.Concerns(list, arch)
}
