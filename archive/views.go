package archive

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"packmill/archive/index"
	"packmill/internal/deb822"
)

// views are all suites, and each snapshot's as "SNAPSHOT/SUITE".
func (a *Archive) views() ([]string, error) {
	out, err := a.Suites()
	if err != nil {
		return nil, err
	}
	snaps, err := a.Snapshots()
	for _, s := range snaps {
		out = append(out, s.Name+"/"+s.Suite)
	}
	return out, err
}

// view is the directory of a suite, or of a snapshot's suite.
func (a *Archive) view(name string) (string, error) {
	if snap, suite, ok := strings.Cut(name, "/"); ok && filepath.IsLocal(name) {
		return a.path("snapshots", snap, "dists", suite), nil
	}
	if name == "" || strings.HasPrefix(name, ".") || strings.Contains(name, "/") {
		return "", fmt.Errorf("suite %q: %w", name, ErrNoSuite)
	}
	dir := a.path("dists", name)
	if to, err := os.Readlink(dir); err == nil {
		dir = a.path("dists", suiteOf(to))
	}
	if _, err := os.Stat(dir); err != nil {
		return "", fmt.Errorf("suite %s: %w", name, ErrNoSuite)
	}
	return dir, nil
}

// filesOf are the pool files that a stanza of Packages or Sources names.
func filesOf(get func(string) []byte) (map[string]index.Sum, error) {
	out := map[string]index.Sum{}
	add := func(name, sha, size string) error {
		n, err := strconv.ParseInt(size, 10, 64)
		if err != nil || len(sha) != 64 || !filepath.IsLocal(name) || !strings.HasPrefix(name, "pool/") {
			return fmt.Errorf("no good file name, size or SHA-256 of %q", name)
		}
		out[filepath.Clean(name)] = index.Sum{SHA256: sha, Size: n}
		return nil
	}
	if name := get("Filename"); name != nil {
		return out, add(string(name), string(get("SHA256")), string(get("Size")))
	}
	dir := string(get("Directory"))
	if dir == "" {
		return out, nil // a translation
	}
	for line := range strings.Lines(strings.Trim(string(get("Checksums-Sha256")), "\n")) {
		w := deb822.Words(line)
		if len(w) != 3 {
			return out, fmt.Errorf("a line of Checksums-Sha256 is broken")
		}
		if err := add(dir+"/"+w[2], w[0], w[1]); err != nil {
			return out, err
		}
	}
	return out, nil
}

// references are the pool files that the suite's indexes name.
func (p *published) references(into map[string]bool) error {
	if p.rel == nil {
		return nil
	}
	for _, path := range sortedKeys(p.rel.Sums) {
		if base := filepath.Base(path); base != "Packages" && base != "Sources" {
			continue
		}
		r, err := p.place(path).Published(p.state(path))
		if err != nil {
			return err
		}
		sc := deb822.NewScanner(r)
		for sc.Next() {
			names, err := filesOf(sc.Get)
			if err != nil {
				r.Close()
				return fmt.Errorf("read %s: %s: %w", path, sc.Get("Package"), err)
			}
			for n := range names {
				into[n] = true
			}
		}
		r.Close()
		if err := sc.Err(); err != nil {
			return err
		}
	}
	return nil
}

// Snapshot is a suite as it was.
type Snapshot struct {
	Name, Suite string
}

// Snapshots lists all of them, sorted.
func (a *Archive) Snapshots() ([]Snapshot, error) {
	list, err := filepath.Glob(a.path("snapshots", "*", "dists", "*"))
	if err != nil {
		return nil, err
	}
	var out []Snapshot
	for _, dir := range list {
		if info, err := os.Lstat(dir); err != nil || !info.IsDir() {
			continue
		}
		// What is being made, or taken away, has a name with a point.
		name, suite := filepath.Base(filepath.Dir(filepath.Dir(dir))), filepath.Base(dir)
		if !strings.HasPrefix(name, ".") && !strings.HasPrefix(suite, ".") {
			out = append(out, Snapshot{name, suite})
		}
	}
	slices.SortFunc(out, func(x, y Snapshot) int { return strings.Compare(x.Name+"/"+x.Suite, y.Name+"/"+y.Suite) })
	return out, nil
}

// Views lists what can be looked at: the suites, and the snapshots as NAME/SUITE.
func (a *Archive) Views() ([]string, error) {
	out, err := a.Suites()
	if err != nil {
		return nil, err
	}
	snapshots, err := a.Snapshots()
	for _, s := range snapshots {
		out = append(out, s.Name+"/"+s.Suite)
	}
	return out, err
}
