package archive

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"packmill/internal/compression"
	"packmill/internal/deb822"
	"packmill/internal/policy"
)

// Broken is a package that could not be installed any more; of a source
// package, whose Arch is "source", the build-dependencies.
type Broken struct {
	Package, Version, Arch string
	Wants                  string // the dependency that nothing satisfies; "" if it is a conflict
}

// Breaks returns what the suite could not install, or build, any more if the
// packages were removed, as dose-debcheck and dose-builddebcheck see it: what was
// broken before does not count, and neither does what the distribution below it makes
// good: below gives the Packages files of that for an architecture, unpacked or not.
// Where it has none, packages that the suite does not have are taken to be there, in the
// version that is wanted.
func (a *Archive) Breaks(
	ctx context.Context, suite string, removed []Entry, below func(arch string) []string,
) ([]Broken, error) {
	p, err := a.readView(ctx, suite)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(a.path("cache"), "breaks-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	gone := map[string]bool{}
	for _, e := range removed {
		gone[e.Package+" "+e.Version+" "+e.Arch] = true
	}
	var out []Broken
	said := map[Broken]bool{} // what is for all architectures breaks on each
	for _, arch := range p.archs() {
		u, err := readUniverse(p, arch, gone, below(arch))
		if err != nil {
			return nil, err
		}
		broken, err := u.breaks(ctx, u.affected(), dir)
		if err != nil {
			return nil, err
		}
		for _, b := range broken {
			if !said[b] {
				said[b], out = true, append(out, b)
			}
		}
	}
	return out, nil
}

// scan calls do for each stanza of a published index.
func (p *published) scan(path string, do func(*deb822.Scanner)) error {
	st := p.state(path)
	if st.Text.SHA256 == "" {
		return nil
	}
	r, err := p.place(path).Published(st)
	if err != nil {
		return err
	}
	defer r.Close()
	sc := deb822.NewScanner(r)
	for sc.Next() {
		do(sc)
	}
	return sc.Err()
}

// universe is what there is for an architecture before the removal and after it.
type universe struct {
	arch  string
	all   []*candidate
	named map[string][]*candidate // packages, by their names and by what they provide
}

// moment is before the removal or after it.
type moment int

const (
	before moment = iota
	after
)

// candidate is a package or a source of it.
type candidate struct {
	stanza    string   // as dose reads it
	names     []string // its own and what it provides; a source has none
	needs     []string // the names that it depends on
	ours      bool     // the suite has it, and not what is below
	essential bool
	there     [after + 1]bool
}

// readUniverse reads the suite and the Packages files of what is below it. A package of those is hidden by the same
// one in the suite until that is gone.
func readUniverse(p *published, arch string, gone map[string]bool, below []string) (*universe, error) {
	u := &universe{arch: arch, named: map[string][]*candidate{}}
	var ours map[string]bool // nil: dose sees what is below the suite, too
	var err error
	if len(below) == 0 {
		if ours, err = p.names(arch); err != nil {
			return nil, err
		}
	}
	has := map[string]bool{}
	add := func(sc *deb822.Scanner, kind string) {
		id := string(sc.Get("Package")) + " " + string(sc.Get("Version")) + " " + kind
		if x := newCandidate(sc, ours); x != nil {
			x.ours, x.there, has[id] = true, [...]bool{true, !gone[id]}, true
			u.add(x, kind)
		}
	}
	for _, c := range p.components() {
		err := errors.Join(
			p.scan(packagesPath(c, arch), func(sc *deb822.Scanner) { add(sc, string(sc.Get("Architecture"))) }),
			p.scan(sourcesPath(c), func(sc *deb822.Scanner) {
				if sc.Get(extraSource) == nil {
					add(sc, "source")
				}
			}))
		if err != nil {
			return nil, err
		}
	}
	for _, path := range below {
		err := readPackages(path, func(sc *deb822.Scanner) {
			kind := string(sc.Get("Architecture"))
			id := string(sc.Get("Package")) + " " + string(sc.Get("Version")) + " " + kind
			if x := newCandidate(sc, nil); x != nil && (!has[id] || gone[id]) {
				x.there = [...]bool{!has[id], true}
				u.add(x, kind)
			}
		})
		if err != nil {
			return nil, fmt.Errorf("what the suite is built on: read %s: %w", path, err)
		}
	}
	return u, nil
}

// add takes a candidate in; kind is its architecture, or "source".
func (u *universe) add(x *candidate, kind string) {
	if kind == "source" {
		x.names, x.needs = nil, append(x.needs, alwaysNeeded)
	}
	u.all = append(u.all, x)
	for _, name := range x.names {
		u.named[name] = append(u.named[name], x)
	}
}

// alwaysNeeded is what each build depends on (Debian Policy 4.2).
const alwaysNeeded = "build-essential"

// affected are the suite's packages and sources that depend, through however many others, on a name that something
// has that goes or comes. No other can break, and dose takes minutes for all of Debian's. Everything depends on
// essential packages.
func (u *universe) affected() (judged []*candidate) {
	users := map[string][]*candidate{}
	var follow []string
	for _, x := range u.all {
		for _, name := range x.needs {
			users[name] = append(users[name], x)
		}
		if x.there[before] != x.there[after] {
			follow = append(follow, x.names...)
		}
	}
	reached, asked, everything := map[*candidate]bool{}, map[string]bool{}, false
	for ; len(follow) > 0; follow = follow[1:] {
		if asked[follow[0]] {
			continue
		}
		asked[follow[0]] = true
		for _, x := range u.named[follow[0]] {
			everything = everything || x.essential
		}
		for _, x := range users[follow[0]] {
			if !reached[x] {
				reached[x] = true
				follow = append(follow, x.names...)
			}
		}
	}
	for _, x := range u.all {
		if x.ours && x.there[after] && (everything || reached[x]) {
			judged = append(judged, x)
		}
	}
	return judged
}

// breaks are those of the judged that are broken after the removal and were not before.
func (u *universe) breaks(ctx context.Context, judged []*candidate, dir string) ([]Broken, error) {
	is, err := u.broken(ctx, judged, after, dir)
	if err != nil || len(is) == 0 {
		return nil, err
	}
	was, err := u.broken(ctx, judged, before, dir)
	if err != nil {
		return nil, err
	}
	old := map[Broken]bool{}
	for _, b := range was {
		b.Wants = ""
		old[b] = true
	}
	return slices.DeleteFunc(is, func(b Broken) bool {
		b.Wants = ""
		return old[b]
	}), nil
}

// broken are those of the judged that dose says cannot be installed, or built, at that moment.
func (u *universe) broken(ctx context.Context, judged []*candidate, at moment, dir string) ([]Broken, error) {
	if len(judged) == 0 {
		return nil, nil
	}
	var packages, sources, background bytes.Buffer
	seen, follow := map[*candidate]bool{}, []string{alwaysNeeded}
	take := func(w *bytes.Buffer, x *candidate) {
		if !seen[x] && x.there[at] {
			seen[x] = true
			w.WriteString(x.stanza)
			follow = append(follow, x.needs...)
		}
	}
	for _, x := range judged {
		if len(x.names) == 0 {
			take(&sources, x)
		} else {
			take(&packages, x)
		}
	}
	for _, x := range u.all {
		if x.essential {
			take(&background, x)
		}
	}
	for asked := map[string]bool{}; len(follow) > 0; {
		name := follow[len(follow)-1]
		follow = follow[:len(follow)-1]
		if !asked[name] {
			asked[name] = true
			for _, x := range u.named[name] {
				take(&background, x)
			}
		}
	}
	if len(u.named[alwaysNeeded]) == 0 {
		background.WriteString("Package: " + alwaysNeeded + "\nVersion: 0\nArchitecture: all\nMulti-Arch: foreign\n\n")
	}
	q := question{u.arch, filepath.Join(dir, "Packages"), filepath.Join(dir, "Sources"), filepath.Join(dir, "below")}
	for path, text := range map[string]*bytes.Buffer{q.packages: &packages, q.sources: &sources, q.background: &background} {
		if err := os.WriteFile(path, text.Bytes(), 0o600); err != nil {
			return nil, err
		}
	}
	var out []Broken
	if packages.Len() > 0 {
		list, err := q.ask(ctx, "dose-debcheck", "--bg="+q.background, q.packages)
		if err != nil {
			return nil, err
		}
		out = list
	}
	if sources.Len() > 0 {
		list, err := q.ask(ctx, "dose-builddebcheck", q.packages, q.background, q.sources)
		if err != nil {
			return nil, err
		}
		out = append(out, list...)
	}
	return out, nil
}

// names are what the suite has for an architecture, by name or by Provides.
func (p *published) names(arch string) (map[string]bool, error) {
	out := map[string]bool{}
	for _, c := range p.components() {
		err := p.scan(packagesPath(c, arch), func(sc *deb822.Scanner) {
			for _, name := range namesOf(sc) {
				out[name] = true
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// namesOf are a package's name and what it provides.
func namesOf(sc *deb822.Scanner) []string {
	out := []string{string(sc.Get("Package"))}
	provides, _ := policy.ParseRelations(string(sc.Get("Provides"))) // else nobody can install it
	for _, or := range provides {
		out = append(out, or[0].Name)
	}
	return out
}

// readPackages calls do for each stanza of a file, unpacked or not. What nobody could install is left out.
func readPackages(path string, do func(*deb822.Scanner)) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	r, err := compression.Sniff(f)
	if err != nil {
		return err
	}
	defer r.Close()
	sc := deb822.NewScanner(r)
	sc.Odd = func(error) {}
	for sc.Next() {
		do(sc)
	}
	return sc.Err()
}

// doseFields are what dose reads of a package or a source.
var doseFields = []string{"Package", "Version", "Architecture", "Multi-Arch", "Essential", "Binary"}

// doseRelations are the fields that it follows, and of which it takes each on one
// line only.
var doseRelations = []string{"Provides", "Pre-Depends", "Depends", "Conflicts", "Breaks", "Replaces",
	"Build-Depends", "Build-Depends-Arch", "Build-Depends-Indep", "Build-Conflicts", "Build-Conflicts-Arch",
	"Build-Conflicts-Indep"}

// newCandidate is a stanza as dose reads it; nil if a field cannot be read, for then
// nobody can install or build it, now or later. A dependency on what is not ours is
// left out, if ours are named: the distribution below has it, in whichever version.
func newCandidate(sc *deb822.Scanner, ours map[string]bool) *candidate {
	x := &candidate{names: namesOf(sc), essential: string(sc.Get("Essential")) == "yes"}
	var b strings.Builder
	for _, field := range doseFields {
		if v := sc.Get(field); v != nil {
			fmt.Fprintf(&b, "%s: %s\n", field, bytes.ReplaceAll(v, []byte("\n"), []byte(" ")))
		}
	}
	for _, field := range doseRelations {
		list, err := policy.ParseRelations(string(sc.Get(field)))
		if err != nil {
			return nil
		}
		if strings.HasSuffix(field, "Depends") || strings.Contains(field, "-Depends-") {
			list = slices.DeleteFunc(list, func(or []policy.Relation) bool {
				return slices.ContainsFunc(or, func(r policy.Relation) bool { return ours != nil && !ours[r.Name] })
			})
			for _, or := range list {
				for _, r := range or {
					x.needs = append(x.needs, r.Name)
				}
			}
		}
		if len(list) > 0 {
			fmt.Fprintf(&b, "%s: %s\n", field, list)
		}
	}
	x.stanza = b.String() + "\n"
	return x
}

// question is what dose is asked: whether those packages can be installed, and those sources built, with what is in
// the background.
type question struct {
	arch                          string
	packages, sources, background string // files
}

// ask runs a program of dose and reads what it calls broken.
func (q question) ask(ctx context.Context, program string, args ...string) ([]Broken, error) {
	args = append([]string{"--failures", "--explain", "--deb-native-arch=" + q.arch}, args...)
	cmd := exec.CommandContext(ctx, program, args...)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err := cmd.Run()
	// Up to 63: some packages are broken.
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() >= 64 || exit.ExitCode() < 0) {
		return nil, fmt.Errorf("%s: %w: %s (install dose-distcheck and dose-builddebcheck)",
			program, err, strings.TrimSpace(stderr.String()))
	}
	var list []Broken
	for sc := bufio.NewScanner(&out); sc.Scan(); {
		key, value, _ := strings.Cut(strings.TrimSpace(sc.Text()), ":")
		value = strings.TrimSpace(value)
		switch {
		case key == "package" && strings.HasPrefix(sc.Text(), "  package:"):
			list = append(list, Broken{Package: value})
		case len(list) == 0:
		case key == "version" && list[len(list)-1].Version == "":
			list[len(list)-1].Version = value
		case key == "architecture" && list[len(list)-1].Arch == "":
			list[len(list)-1].Arch = value
		case key == "type" && value == "src":
			list[len(list)-1].Arch = "source"
		case key == "unsat-dependency" && list[len(list)-1].Wants == "":
			list[len(list)-1].Wants = strings.Replace(value, ":"+q.arch, "", 1)
		}
	}
	slices.SortStableFunc(list, func(a, b Broken) int { return strings.Compare(a.Package, b.Package) })
	return list, nil
}
