package mirror

import (
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"packmill/internal/deb"
	"packmill/internal/deb822"
	"packmill/internal/paper"
	"packmill/internal/policy"
)

// grouping collects files into uploads.
type grouping struct {
	byKey map[string]*Upload
	list  []*Upload
	files int
	seen  map[string]bool // paths of .debs: one for all architectures is in each index
	clash map[string]bool // names of files that are there with two contents
}

func newGrouping() *grouping {
	return &grouping{byKey: map[string]*Upload{}, seen: map[string]bool{}, clash: map[string]bool{}}
}

func (g *grouping) upload(source, version, component string) *Upload {
	key := source + " " + version + " " + component
	u := g.byKey[key]
	if u == nil {
		u = &Upload{Source: source, Version: version, Component: component}
		g.byKey[key] = u
		g.list = append(g.list, u)
	}
	return u
}

// checkPath refuses a path that leaves the repository.
func checkPath(name string) error {
	if !filepath.IsLocal(name) || path.Clean(name) != strings.TrimPrefix(name, "./") {
		return fmt.Errorf("the path %q is not a plain one below the repository", name)
	}
	if strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fmt.Errorf("the path %q has control characters", name)
	}
	return nil
}

func (g *grouping) source(s *deb822.Scanner, component string) error {
	name, version, dir := string(s.Get("Package")), string(s.Get("Version")), string(s.Get("Directory"))
	if err := policy.CheckSource(name); err != nil {
		return err
	}
	if err := policy.CheckVersion(version); err != nil {
		return err
	}
	st, err := s.Stanza()
	if err != nil {
		return err
	}
	files, err := paper.Files(st, paper.Short, paper.SHA256)
	if err != nil {
		return err
	}
	var list []File
	dscs := 0
	for _, x := range files {
		f := File{Name: x.Name, Path: path.Join(dir, x.Name), Size: x.Size, SHA256: x.SHA256, MD5: x.MD5}
		if err := checkPath(f.Path); err != nil {
			return err
		}
		if strings.HasSuffix(x.Name, ".dsc") {
			dscs++
			f.Name = name + "_" + policy.WithoutEpoch(version) + ".dsc"
			f.Section, f.Priority = string(s.Get("Section")), string(s.Get("Priority"))
		}
		list = append(list, f)
	}
	if dscs != 1 {
		return fmt.Errorf("source package %s %s has %d .dsc files, want one", name, version, dscs)
	}
	u := g.upload(name, version, component)
	if u.HasSource {
		return nil // the same one twice
	}
	u.HasSource, u.Maintainer = true, string(s.Get("Maintainer"))
	for _, f := range list {
		if err := g.add(u, f); err != nil {
			return err
		}
	}
	return nil
}

func (g *grouping) binary(s *deb822.Scanner, component string) error {
	at := string(s.Get("Filename"))
	if g.seen[at] {
		return nil
	}
	if err := checkPath(at); err != nil {
		return fmt.Errorf("Filename: %w", err)
	}
	ext := path.Ext(at)
	if !deb.IsFile(at) {
		return nil
	}
	name, version, arch := string(s.Get("Package")), string(s.Get("Version")), string(s.Get("Architecture"))
	for _, err := range []error{policy.CheckPackage(name), policy.CheckVersion(version), policy.CheckArch(arch)} {
		if err != nil {
			return err
		}
	}
	source, sourceVersion := name, version
	if v := string(s.Get("Source")); v != "" {
		if source, sourceVersion = paper.Source(v); sourceVersion == "" {
			sourceVersion = version
		}
		for _, err := range []error{policy.CheckSource(source), policy.CheckVersion(sourceVersion)} {
			if err != nil {
				return fmt.Errorf("Source: %w", err)
			}
		}
	}
	size, err := strconv.ParseInt(string(s.Get("Size")), 10, 64)
	if err != nil || size < 0 {
		return fmt.Errorf("Size: %q is no size", s.Get("Size"))
	}
	sha := string(s.Get("SHA256"))
	if !isSHA256(sha) {
		return fmt.Errorf("%s has no SHA256; let the repository's program write it", name)
	}
	g.seen[at] = true
	f := File{
		Name: name + "_" + policy.WithoutEpoch(version) + "_" + arch + ext, Path: at, Size: size, SHA256: sha,
		MD5:     strings.ToLower(string(s.Get("MD5sum"))),
		Package: name, Version: version, Arch: arch, Section: string(s.Get("Section")), Priority: string(s.Get("Priority")),
		Tag: string(s.Get("Tag")),
	}
	u := g.upload(source, sourceVersion, component)
	if u.Maintainer == "" {
		u.Maintainer = string(s.Get("Maintainer"))
	}
	return g.put(u, f)
}

// put adds a binary package to its upload. Some repositories have a package for
// all once for each architecture.
func (g *grouping) put(u *Upload, f File) error {
	clash := fmt.Errorf("%s is there with two contents; let the repository have one of them", f.Name)
	if g.clash[f.Name] {
		return clash
	}
	for i, other := range u.Files {
		if other.Name != f.Name {
			continue
		}
		if other.SHA256 == f.SHA256 {
			return nil
		}
		g.clash[f.Name] = true
		u.Files = slices.Delete(u.Files, i, i+1)
		return clash
	}
	return g.add(u, f)
}
