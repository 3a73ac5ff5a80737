package archive

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"packmill/spool/deb822"
	"packmill/spool/policy"
)

// Broken is a package that could not be installed any more.
type Broken struct {
	Package, Version, Arch string
	Wants                  string // the dependency that nothing satisfies; "" if it is a conflict
}

// Breaks returns what the suite could not install any more if the packages
// were removed, as dose-debcheck sees it: what was not installable before does
// not count. Packages that the suite does not have are taken to be there in the
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
		was, err := debcheck(ctx, arch, before)
		if err != nil {
			return nil, err
		}
		is, err := debcheck(ctx, arch, after)
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
	return out, nil
}

// debcheckInput writes the Packages of an architecture with and without what
// is gone, and with a stand-in for each package that only the distribution
// below can have.
func (p *published) debcheckInput(arch string, gone map[string]bool, before, after string) error {
	f, err := os.Create(before)
	if err != nil {
		return err
	}
	defer f.Close()
	g, err := os.Create(after)
	if err != nil {
		return err
	}
	defer g.Close()
	w, v := bufio.NewWriter(f), bufio.NewWriter(g)
	have, wanted := map[string]bool{}, map[string]bool{}
	for _, c := range p.components() {
		st := p.state(packagesPath(c, arch))
		if st.Text.SHA256 == "" {
			continue
		}
		r, err := p.place(packagesPath(c, arch)).Published(st)
		if err != nil {
			return err
		}
		sc := deb822.NewScanner(r)
		for sc.Next() {
			name := string(sc.Get("Package"))
			have[name] = true
			fmt.Fprintf(w, "%s\n\n", sc.Raw())
			if !gone[name+" "+string(sc.Get("Version"))+" "+string(sc.Get("Architecture"))] {
				fmt.Fprintf(v, "%s\n\n", sc.Raw())
			}
			for _, field := range []string{"Provides", "Pre-Depends", "Depends"} {
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
		r.Close()
		if err := sc.Err(); err != nil {
			return err
		}
	}
	for _, name := range sortedKeys(wanted) {
		if !have[name] {
			for _, out := range []io.Writer{w, v} {
				fmt.Fprintf(out, "Package: %s\nVersion: 99999:0\nArchitecture: all\nMulti-Arch: foreign\n\n", name)
			}
		}
	}
	return errors.Join(w.Flush(), v.Flush())
}

// debcheck runs dose-debcheck and reads what it calls broken.
func debcheck(ctx context.Context, arch, file string) ([]Broken, error) {
	if st, err := os.Stat(file); err == nil && st.Size() == 0 {
		return nil, nil
	}
	cmd := exec.CommandContext(ctx, "dose-debcheck", "--failures", "--explain", "--deb-native-arch="+arch, file)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err := cmd.Run()
	// Up to 63: some packages are broken.
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() >= 64 || exit.ExitCode() < 0) {
		return nil, fmt.Errorf("dose-debcheck: %w: %s (install dose-distcheck)", err, strings.TrimSpace(stderr.String()))
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
		case key == "unsat-dependency" && list[len(list)-1].Wants == "":
			list[len(list)-1].Wants = strings.Replace(value, ":"+arch, "", 1)
		}
	}
	return list, nil
}
