// Package installability says whether the build-dependencies of a source can
// be installed, and if not, why.
//
// An Index holds the packages of one architecture: the suite's own and those
// of its Base. Two judges read it: Dose follows every dependency with
// dose-builddebcheck; Direct looks at the build-dependencies themselves only
// and needs no other program. Both take build-dependencies as sbuild does:
// of alternatives the first counts, and with it those that follow directly
// and name the same package.
package installability

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"packmill/internal/compression"
	"packmill/internal/deb822"
	"packmill/internal/policy"
)

// maxIndex bounds what one index may unpack to, in bytes.
const maxIndex = 8 << 30

// Index is the packages that a build on an architecture can be given. Of a
// package in several versions it holds the one that apt would install: of the
// lists of the highest priority, the newest. It is safe for use by several goroutines.
type Index struct {
	// Arch is the architecture, not all.
	Arch string
	// Refused tells of entries that were left out because something in them
	// is not valid.
	Refused []error

	packages map[string]*pkg
	provides map[string][]provided
}

type pkg struct {
	name, version, arch string
	multiArch           string
	essential           bool
	priority            int // apt's, of its list
	// Fields as they stand in the index; closure parses what it needs.
	depends, preDepends, conflicts, breaks, provides string
}

type provided struct {
	by      *pkg
	version string // "" if the name is provided without one
}

// ReadIndex reads Packages files of arch, which may be compressed with gzip, xz
// or zstd: their first bytes tell, for a file under by-hash has no telling name.
// A path that is not there is an error. Beside a list of apt's its Release tells the
// priority; any other is of the suite that the build is for, which builds prefer to
// nothing and nothing to it, whether it is automatic or not (see overlay.Preferences). One
// bad entry is left out (see Index.Refused); a file that is no index is an error.
func ReadIndex(arch string, paths ...string) (*Index, error) {
	x := &Index{Arch: arch, packages: make(map[string]*pkg), provides: make(map[string][]provided)}
	for _, path := range paths {
		if err := x.readFile(path); err != nil {
			return nil, err
		}
	}
	for _, p := range x.packages {
		if p.provides == "" {
			continue
		}
		r, err := policy.ParseRelations(p.provides)
		if err != nil {
			x.Refused = append(x.Refused, fmt.Errorf("package %s: Provides: %w", p.name, err))
			p.provides = ""
			continue
		}
		for _, or := range r {
			// Only = says which version is provided (Policy 7.5).
			if len(or) == 1 && (or[0].Op == "" || or[0].Op == "=") {
				x.provides[or[0].Name] = append(x.provides[or[0].Name], provided{p, or[0].Version})
			}
		}
	}
	return x, nil
}

func (x *Index) readFile(path string) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() // only read from
	r, err := compression.Sniff(f)
	if err != nil {
		return fmt.Errorf("unpack %s: %w", path, err)
	}
	defer r.Close()
	limited := &io.LimitedReader{R: r, N: maxIndex}
	sc := deb822.NewScanner(limited)
	sc.File = path
	var odd []error
	sc.Odd = func(err error) { odd = append(odd, err) }
	any, priority := false, priorityOf(path)
	for sc.Next() {
		any = true
		if err := x.add(sc, priority); err != nil {
			x.Refused = append(x.Refused, &deb822.Error{File: path, Line: sc.Line(), Msg: err.Error()})
		}
	}
	if x.Refused = append(x.Refused, odd...); !any && odd != nil {
		return odd[0] // no index at all
	}
	if sc.Err() == nil && limited.N == 0 {
		return fmt.Errorf("read %s: more than %d bytes", path, int64(maxIndex))
	}
	return sc.Err()
}

func (x *Index) add(sc *deb822.Scanner, priority int) error {
	arch := string(sc.Get("Architecture"))
	if arch != x.Arch && arch != "all" {
		return nil // of another architecture: not for this build
	}
	p := &pkg{name: string(sc.Get("Package")), version: string(sc.Get("Version")), arch: arch, priority: priority}
	if err := policy.CheckPackage(p.name); err != nil {
		return err
	}
	if err := policy.CheckVersion(p.version); err != nil {
		return fmt.Errorf("package %s: %w", p.name, err)
	}
	if before, ok := x.packages[p.name]; ok && !p.candidate(before) {
		return nil
	}
	switch ma := string(sc.Get("Multi-Arch")); ma {
	case "same", "foreign", "allowed":
		p.multiArch = ma
	}
	p.essential = string(sc.Get("Essential")) == "yes"
	p.depends = string(sc.Get("Depends"))
	p.preDepends = string(sc.Get("Pre-Depends"))
	p.conflicts = string(sc.Get("Conflicts"))
	p.breaks = string(sc.Get("Breaks"))
	p.provides = string(sc.Get("Provides"))
	x.packages[p.name] = p
	return nil
}

// candidate reports whether apt takes the package rather than another of its name.
func (p *pkg) candidate(than *pkg) bool {
	if p.priority != than.priority {
		return p.priority > than.priority
	}
	return policy.CompareVersions(p.version, than.version) > 0
}

// Digest names what the index holds: two with the same digest give the same
// answers. Keep it beside an answer, and ask again only when it has changed.
func (x *Index) Digest() string {
	h := sha256.New()
	fmt.Fprintf(h, "%s\n", x.Arch)
	for _, name := range slices.Sorted(maps.Keys(x.packages)) {
		p := x.packages[name]
		essential := ""
		if p.essential {
			essential = "essential"
		}
		for _, s := range [...]string{p.name, p.version, p.arch, p.multiArch, essential, p.depends, p.preDepends, p.conflicts,
			p.breaks, p.provides} {
			io.WriteString(h, s)
			h.Write([]byte{0}) // in no field: the scanner refuses it
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Grew reports whether the index has all that an older one of its architecture had, unchanged: what could be installed
// then can be now.
func (x *Index) Grew(old *Index) bool {
	for name, p := range old.packages {
		if q := x.packages[name]; q == nil || *q != *p {
			return false
		}
	}
	return true
}

// Len returns the number of packages.
func (x *Index) Len() int { return len(x.packages) }

// Version returns the version of the package in the index, or "".
func (x *Index) Version(name string) string {
	if p, ok := x.packages[name]; ok {
		return p.version
	}
	return ""
}

// satisfies reports whether a package of the index satisfies the relation
// itself; what that package depends on is not looked at.
func (x *Index) satisfies(r *policy.Relation) bool {
	switch r.Qualifier {
	case "", "any", "native", x.Arch:
	default:
		return false // a foreign architecture, of which there is no index
	}
	if p, ok := x.packages[r.Name]; ok && r.SatisfiedBy(p.version) {
		return true
	}
	for _, p := range x.provides[r.Name] {
		if r.Op == "" || p.version != "" && r.SatisfiedBy(p.version) {
			return true
		}
	}
	return false
}

// Unsatisfied returns those of the relations that no package of the index
// satisfies directly: for a failed installation of build-dependencies, what
// exactly was missing. The relations are taken as they are: reduce them first
// (Job.Relations, or Relations.For and FirstAlternatives).
func (x *Index) Unsatisfied(relations policy.Relations) policy.Relations {
	var missing policy.Relations
next:
	for _, or := range relations {
		for i := range or {
			if x.satisfies(&or[i]) {
				continue next
			}
		}
		missing = append(missing, or)
	}
	return missing
}

// FirstAlternatives keeps of each item the first alternative and those that
// follow it directly with the same package name: foo (<< 2) | foo (>= 3) is
// one dependency. This is sbuild's rule, without which a job would wait or
// start for alternatives that the build never installs.
func FirstAlternatives(relations policy.Relations) policy.Relations {
	out := make(policy.Relations, 0, len(relations))
	for _, or := range relations {
		n := 1
		for n < len(or) && or[n].Name == or[0].Name {
			n++
		}
		out = append(out, or[:n])
	}
	return out
}
