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
	for _, arch := range p.archs() {
		before, after := filepath.Join(dir, arch+".before"), filepath.Join(dir, arch+".after")
		in := &question{p: p, arch: arch, gone: gone}
		if err := in.write(below(arch), before, after); err != nil {
			return nil, err
		}
		for _, program := range []string{"dose-debcheck", "dose-builddebcheck"} {
			was, err := debcheck(ctx, program, arch, before)
			if err != nil {
				return nil, err
			}
			is, err := debcheck(ctx, program, arch, after)
			if err != nil {
				return nil, err
			}
			for _, b := range is {
				old := slices.ContainsFunc(was, func(w Broken) bool { return w.Package == b.Package && w.Version == b.Version })
				if !old && !slices.Contains(out, b) {
					out = append(out, b)
				}
			}
		}
	}
	return out, nil
}

// sources is the name of the Sources beside a Packages, background that of what is below
// the suite.
func sources(packages string) string    { return packages + ".src" }
func background(packages string) string { return packages + ".below" }

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

// question is what dose is asked about one architecture.
type question struct {
	p    *published
	arch string
	gone map[string]bool // "PACKAGE VERSION ARCH"

	ours  map[string]bool // names that the suite has; nil: dose sees what is below it, too
	needs []string        // names that the suite's packages and builds lead to
}

// write writes the Packages, the Sources and what is below the suite, with and without
// what is gone.
func (q *question) write(below []string, before, after string) error {
	if len(below) == 0 {
		q.ours = map[string]bool{}
		if err := q.names(); err != nil {
			return err
		}
	}
	text := map[string]*bytes.Buffer{}
	has := map[string]map[string]bool{before: {}, after: {}}
	for _, name := range []string{before, after} {
		text[name], text[sources(name)], text[background(name)] = &bytes.Buffer{}, &bytes.Buffer{}, &bytes.Buffer{}
	}
	write := func(sc *deb822.Scanner, kind string, file func(string) string) {
		stanza, needs, ok := forDose(sc, q.ours)
		if !ok {
			return
		}
		q.needs = append(q.needs, needs...)
		id := string(sc.Get("Package")) + " " + string(sc.Get("Version"))
		for _, name := range []string{before, after} {
			if name == before || !q.gone[id+" "+kind] {
				text[file(name)].WriteString(stanza)
				has[name][id+" "+kind] = true
			}
		}
	}
	same := func(name string) string { return name }
	for _, c := range q.p.components() {
		err := errors.Join(
			q.p.scan(packagesPath(c, q.arch), func(sc *deb822.Scanner) { write(sc, string(sc.Get("Architecture")), same) }),
			q.p.scan(sourcesPath(c), func(sc *deb822.Scanner) {
				if sc.Get(extraSource) == nil {
					write(sc, "source", sources)
				}
			}))
		if err != nil {
			return err
		}
	}
	lower, err := readBelow(below)
	if err != nil {
		return err
	}
	for name := range has {
		q.writeBelow(text[background(name)], lower, has[name])
	}
	for name, b := range text {
		if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// writeBelow writes what the suite's packages lead to below it, unless the suite has it.
func (q *question) writeBelow(w *bytes.Buffer, below *lower, has map[string]bool) {
	for _, x := range below.reached(q.needs) {
		if !has[x.id] {
			w.WriteString(x.stanza)
		}
	}
	if !q.ours["build-essential"] && len(below.named["build-essential"]) == 0 { // which a build always needs
		w.WriteString("Package: build-essential\nVersion: 0\nArchitecture: all\nMulti-Arch: foreign\n\n")
	}
}

// names notes what the suite has, by name or by Provides.
func (q *question) names() error {
	for _, c := range q.p.components() {
		err := q.p.scan(packagesPath(c, q.arch), func(sc *deb822.Scanner) {
			q.ours[string(sc.Get("Package"))] = true
			provides, _ := policy.ParseRelations(string(sc.Get("Provides"))) // else nobody can install it
			for _, or := range provides {
				q.ours[or[0].Name] = true
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// lower is the distribution below a suite.
type lower struct {
	named map[string][]*under // by name and by what is provided
	must  []*under            // essential ones
}

type under struct {
	id     string // "PACKAGE VERSION ARCH"
	stanza string
	needs  []string
}

// readBelow reads Packages files; what nobody could install is left out.
func readBelow(files []string) (*lower, error) {
	l := &lower{named: map[string][]*under{}}
	for _, path := range files {
		if err := l.read(path); err != nil {
			return nil, fmt.Errorf("what the suite is built on: read %s: %w", path, err)
		}
	}
	return l, nil
}

func (l *lower) read(path string) error {
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
		stanza, needs, ok := forDose(sc, nil)
		if !ok {
			continue
		}
		name := string(sc.Get("Package"))
		x := &under{name + " " + string(sc.Get("Version")) + " " + string(sc.Get("Architecture")), stanza, needs}
		l.named[name] = append(l.named[name], x)
		provides, _ := policy.ParseRelations(string(sc.Get("Provides")))
		for _, or := range provides {
			l.named[or[0].Name] = append(l.named[or[0].Name], x)
		}
		if string(sc.Get("Essential")) == "yes" {
			l.must = append(l.must, x)
		}
	}
	return sc.Err()
}

// reached are the packages that the names lead to: dose takes seconds for all of Debian's.
func (l *lower) reached(names []string) (out []*under) {
	seen, follow := map[*under]bool{}, append(names, "build-essential")
	take := func(list []*under) {
		for _, x := range list {
			if !seen[x] {
				seen[x] = true
				out, follow = append(out, x), append(follow, x.needs...)
			}
		}
	}
	take(l.must)
	asked := map[string]bool{}
	for len(follow) > 0 {
		name := follow[len(follow)-1]
		follow = follow[:len(follow)-1]
		if !asked[name] {
			asked[name] = true
			take(l.named[name])
		}
	}
	return out
}

// doseFields are what dose reads of a package or a source.
var doseFields = []string{"Package", "Version", "Architecture", "Multi-Arch", "Essential", "Binary"}

// doseRelations are the fields that it follows, and of which it takes each on one
// line only.
var doseRelations = []string{"Provides", "Pre-Depends", "Depends", "Conflicts", "Breaks", "Replaces",
	"Build-Depends", "Build-Depends-Arch", "Build-Depends-Indep", "Build-Conflicts", "Build-Conflicts-Arch",
	"Build-Conflicts-Indep"}

// forDose is a stanza as dose reads it; not ok if a field cannot be read, for then
// nobody can install or build it, now or later. A dependency on what is not ours is
// left out, if ours are named: the distribution below has it, in whichever version. needs
// are the names that it depends on.
func forDose(sc *deb822.Scanner, ours map[string]bool) (stanza string, needs []string, ok bool) {
	var b strings.Builder
	for _, field := range doseFields {
		if v := sc.Get(field); v != nil {
			fmt.Fprintf(&b, "%s: %s\n", field, bytes.ReplaceAll(v, []byte("\n"), []byte(" ")))
		}
	}
	for _, field := range doseRelations {
		list, err := policy.ParseRelations(string(sc.Get(field)))
		if err != nil {
			return "", nil, false
		}
		if strings.HasSuffix(field, "Depends") || strings.Contains(field, "-Depends-") {
			list = slices.DeleteFunc(list, func(or []policy.Relation) bool {
				return slices.ContainsFunc(or, func(r policy.Relation) bool {
					needs = append(needs, r.Name)
					return ours != nil && !ours[r.Name]
				})
			})
		}
		if len(list) > 0 {
			fmt.Fprintf(&b, "%s: %s\n", field, list)
		}
	}
	return b.String() + "\n", needs, true
}

// debcheck runs a program of dose and reads what it calls broken.
func debcheck(ctx context.Context, program, arch, file string) ([]Broken, error) {
	args := []string{"--failures", "--explain", "--deb-native-arch=" + arch}
	judged := file
	if program == "dose-builddebcheck" {
		judged = sources(file)
		args = append(args, file, background(file), judged)
	} else {
		args = append(args, "--bg="+background(file), file)
	}
	if st, err := os.Stat(judged); err == nil && st.Size() == 0 {
		return nil, nil
	}
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
			list[len(list)-1].Wants = strings.Replace(value, ":"+arch, "", 1)
		}
	}
	slices.SortStableFunc(list, func(a, b Broken) int { return strings.Compare(a.Package, b.Package) })
	return list, nil
}
