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
// broken before does not count. Packages that the suite does not have are taken to be there in the
// distribution below it, in the version that is wanted.
func (a *Archive) Breaks(ctx context.Context, suite string, removed []Entry) ([]Broken, error) {
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
		if err := p.debcheckInput(arch, gone, before, after); err != nil {
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

// sources is the name of the Sources beside a Packages.
func sources(packages string) string { return packages + ".src" }

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

// debcheckInput writes the Packages of an architecture, and the Sources, with and
// without what is gone.
func (p *published) debcheckInput(arch string, gone map[string]bool, before, after string) error {
	ours := map[string]bool{}
	for _, c := range p.components() {
		err := p.scan(packagesPath(c, arch), func(sc *deb822.Scanner) {
			ours[string(sc.Get("Package"))] = true
			provides, _ := policy.ParseRelations(string(sc.Get("Provides"))) // else nobody can install it
			for _, or := range provides {
				ours[or[0].Name] = true
			}
		})
		if err != nil {
			return err
		}
	}
	text := map[string]*bytes.Buffer{before: {}, after: {}, sources(before): {}, sources(after): {}}
	if !ours["build-essential"] { // which a build always needs
		for _, name := range []string{before, after} {
			fmt.Fprintf(text[name], "Package: build-essential\nVersion: 0\nArchitecture: all\nMulti-Arch: foreign\n\n")
		}
	}
	write := func(sc *deb822.Scanner, kind, before, after string) {
		stanza, ok := forDose(sc, ours)
		if !ok {
			return
		}
		text[before].WriteString(stanza)
		if !gone[string(sc.Get("Package"))+" "+string(sc.Get("Version"))+" "+kind] {
			text[after].WriteString(stanza)
		}
	}
	for _, c := range p.components() {
		err := errors.Join(
			p.scan(packagesPath(c, arch), func(sc *deb822.Scanner) { write(sc, string(sc.Get("Architecture")), before, after) }),
			p.scan(sourcesPath(c), func(sc *deb822.Scanner) {
				if sc.Get(extraSource) == nil {
					write(sc, "source", sources(before), sources(after))
				}
			}))
		if err != nil {
			return err
		}
	}
	for name, b := range text {
		if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// doseFields are what dose reads of a package or a source.
var doseFields = []string{"Package", "Version", "Architecture", "Multi-Arch", "Essential", "Binary"}

// doseRelations are the fields that it follows, and of which it takes each on one
// line only.
var doseRelations = []string{"Provides", "Pre-Depends", "Depends", "Conflicts", "Breaks", "Replaces",
	"Build-Depends", "Build-Depends-Arch", "Build-Depends-Indep", "Build-Conflicts", "Build-Conflicts-Arch", "Build-Conflicts-Indep"}

// forDose is a stanza as dose reads it; not ok if a field cannot be read, for then
// nobody can install or build it, now or later. A dependency on what is not ours is
// left out: the distribution below has it, in whichever version.
func forDose(sc *deb822.Scanner, ours map[string]bool) (stanza string, ok bool) {
	var b strings.Builder
	for _, field := range doseFields {
		if v := sc.Get(field); v != nil {
			fmt.Fprintf(&b, "%s: %s\n", field, bytes.ReplaceAll(v, []byte("\n"), []byte(" ")))
		}
	}
	for _, field := range doseRelations {
		list, err := policy.ParseRelations(string(sc.Get(field)))
		if err != nil {
			return "", false
		}
		if strings.HasSuffix(field, "Depends") || strings.Contains(field, "-Depends-") {
			list = slices.DeleteFunc(list, func(or []policy.Relation) bool {
				return slices.ContainsFunc(or, func(r policy.Relation) bool { return !ours[r.Name] })
			})
		}
		if len(list) > 0 {
			fmt.Fprintf(&b, "%s: %s\n", field, list)
		}
	}
	return b.String() + "\n", true
}

// debcheck runs a program of dose and reads what it calls broken.
func debcheck(ctx context.Context, program, arch, file string) ([]Broken, error) {
	args := []string{"--failures", "--explain", "--deb-native-arch=" + arch, file}
	judged := file
	if program == "dose-builddebcheck" {
		judged = sources(file)
		args = append(args, judged)
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
	return list, nil
}
