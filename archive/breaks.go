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
// distribution below it.
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

// debcheckInput writes the Packages of an architecture, and the Sources, with and
// without what is gone, and with a stand-in for each package that only the distribution
// below can have.
func (p *published) debcheckInput(arch string, gone map[string]bool, before, after string) error {
	var files []*os.File
	var to []*bufio.Writer
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	for _, name := range []string{before, after, sources(before), sources(after)} {
		f, err := os.Create(name)
		if err != nil {
			return err
		}
		files, to = append(files, f), append(to, bufio.NewWriter(f))
	}
	have, wanted := map[string]bool{}, map[string]bool{"build-essential": true}
	read := func(path string, w, v *bufio.Writer) error {
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
			name, kind := string(sc.Get("Package")), "source"
			if w == to[0] {
				have[name], kind = true, string(sc.Get("Architecture"))
			} else if sc.Get(extraSource) != nil {
				continue
			}
			fmt.Fprintf(w, "%s\n\n", sc.Raw())
			if !gone[name+" "+string(sc.Get("Version"))+" "+kind] {
				fmt.Fprintf(v, "%s\n\n", sc.Raw())
			}
			for _, field := range []string{"Provides", "Pre-Depends", "Depends", "Build-Depends", "Build-Depends-Arch", "Build-Depends-Indep"} {
				rels, err := policy.ParseRelations(string(sc.Get(field)))
				if err != nil {
					continue // dose says so of the package
				}
				for _, or := range rels {
					for _, rel := range or {
						if field == "Provides" {
							have[rel.Name] = true
						} else {
							wanted[rel.Name] = true
						}
					}
				}
			}
		}
		return sc.Err()
	}
	for _, c := range p.components() {
		if err := read(packagesPath(c, arch), to[0], to[1]); err != nil {
			return err
		}
		if err := read(sourcesPath(c), to[2], to[3]); err != nil {
			return err
		}
	}
	for _, name := range sortedKeys(wanted) {
		if !have[name] {
			for _, out := range to[:2] {
				fmt.Fprintf(out, "Package: %s\nVersion: 99999:0\nArchitecture: all\nMulti-Arch: foreign\n\n", name)
			}
		}
	}
	for _, w := range to {
		if err := w.Flush(); err != nil {
			return err
		}
	}
	return nil
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
		return nil, fmt.Errorf("%s: %w: %s (install dose-distcheck and dose-builddebcheck)", program, err, strings.TrimSpace(stderr.String()))
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
