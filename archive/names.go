package archive

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"packmill/archive/release"
	"packmill/internal/deb822"
	"packmill/internal/durable"
)

// A suite lies at dists/NAME. Its codename is a symbolic link to that: Release
// says both names. apt remarks at each update if it says neither of the name
// that a client uses; so each further name is a link to a directory in the
// suite's, which has a Release of its own and links to the indexes.
const aliases = ".alias"

// further are the names that need a Release of their own.
func (s *Suite) further() []string {
	return slices.DeleteFunc(slices.Clone(s.Aliases), func(n string) bool { return n == s.Name || n == s.Codename })
}

// called is the Release under another name.
func called(rel *release.Release, name string) *release.Release {
	out := *rel
	out.Fields = slices.Clone(rel.Fields)
	if i := slices.IndexFunc(out.Fields, func(f deb822.Field) bool { return f.Name == "Suite" }); i >= 0 {
		out.Fields[i].Value = name
	}
	return &out
}

// sign writes the Release and its signed forms into dir, and then those of the
// further names.
func (t *transaction) sign(dir string, rel *release.Release, keys []*loadedKey) error {
	signers := signersOf(keys)
	if err := release.Sign(dir, rel.Text(), signers, t.now); err != nil {
		return err
	}
	tops := map[string]bool{}
	for path := range rel.Sums {
		top, _, _ := strings.Cut(path, "/")
		tops[top] = true
	}
	for _, n := range t.suite.further() {
		own := filepath.Join(dir, aliases, n)
		if err := durable.MkdirAll(own, 0o755); err != nil {
			return err
		}
		for top := range tops {
			if err := durable.Symlink(filepath.Join("../..", top), filepath.Join(own, top)); err != nil {
				return err
			}
		}
		if err := release.Sign(own, called(rel, n).Text(), signers, t.now); err != nil {
			return err
		}
	}
	return nil
}

// suiteOf is the suite that a link in dists leads to.
func suiteOf(link string) string {
	suite, _, _ := strings.Cut(link, "/")
	return suite
}

// names makes the suite's codename and aliases links to it, and removes what
// links it has besides.
func (t *transaction) names() (changed bool, err error) {
	suite := t.suite.Name
	want := map[string]string{}
	if c := t.suite.Codename; c != "" && c != suite {
		want[c] = suite
	}
	further := t.suite.further()
	for _, n := range further {
		want[n] = filepath.Join(suite, aliases, n)
	}
	for _, n := range sortedKeys(want) {
		link := t.a.path("dists", n)
		if to, err := os.Readlink(link); err == nil && to == want[n] {
			continue
		}
		if st, err := os.Lstat(link); err == nil && st.Mode()&os.ModeSymlink == 0 {
			return changed, fmt.Errorf("suite %s: the alias %s is in use as a suite of its own; move dists/%s away", suite, n, n)
		}
		if err := durable.Symlink(want[n], link); err != nil {
			return changed, err
		}
		changed = true
	}
	list, err := os.ReadDir(t.a.path("dists"))
	if err != nil {
		return changed, err
	}
	for _, e := range list {
		if e.Type()&os.ModeSymlink == 0 || want[e.Name()] != "" {
			continue
		}
		if to, err := os.Readlink(t.a.path("dists", e.Name())); err != nil || suiteOf(to) != suite {
			continue
		}
		if err := durable.Remove(t.a.path("dists", e.Name())); err != nil {
			return changed, err
		}
		changed = true
	}
	old, err := os.ReadDir(filepath.Join(t.p.dir, aliases))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return changed, err
	}
	for _, e := range old {
		if !slices.Contains(further, e.Name()) {
			if err := durable.RemoveAll(filepath.Join(t.p.dir, aliases, e.Name())); err != nil {
				return changed, err
			}
		}
	}
	return changed, nil
}
