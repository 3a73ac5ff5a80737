// Package lacking holds the archive against the queues, as wanna-build's merge
// did: what each architecture of a suite lacks, and the sources to build it
// from. It reads published indexes and the pool, and changes nothing.
package lacking

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"packmill/archive"
	"packmill/internal/compression"
	"packmill/internal/deb822"
	"packmill/internal/paper"
	"packmill/internal/policy"
	"packmill/queue"
	"packmill/queue/quinndiff"
)

// SpecificFile is the Packages-arch-specific list, in control.
const SpecificFile = "packages-arch-specific"

// ReadSpecific reads it; without one nothing is limited.
func ReadSpecific(control string) (*quinndiff.Specific, error) {
	path := filepath.Join(control, SpecificFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return quinndiff.ParseSpecific(path, data)
}

// Source is a source package of the archive.
type Source struct {
	Ticket *queue.Ticket
	Files  map[string]string // name -> path in the pool
}

// Suite is what the comparison asks of a suite's settings.
type Suite struct {
	Name          string
	Architectures []string                     // without all
	IndepOn       string                       // the one of them whose index tells of all
	Profiles      func(source string) []string // with which a source is built; nil: none
}

// View is what a suite's published indexes say at one moment.
type View struct {
	suite   Suite
	archive *archive.Archive
	sources quinndiff.Sources
	bin     map[string]*quinndiff.Packages
	files   []archive.IndexFile
}

// Read reads a suite's indexes: Sources first, so that a source that is in
// them has what was published with it in the others. A suite of which nothing is
// published yet is empty.
func Read(a *archive.Archive, s Suite) (*View, error) {
	v := &View{suite: s, archive: a, bin: map[string]*quinndiff.Packages{}}
	v.sources.Profiles = s.Profiles
	var err error
	if v.files, err = a.IndexFiles(s.Name, "source"); err != nil {
		if errors.Is(err, archive.ErrNoSuite) {
			return v, nil
		}
		return nil, err
	}
	for _, f := range v.files {
		if err := each(f, v.sources.Add); err != nil {
			return nil, err
		}
	}
	for _, arch := range s.Architectures {
		files, err := a.IndexFiles(s.Name, arch)
		if err != nil {
			return nil, err
		}
		p := &quinndiff.Packages{}
		for _, f := range files {
			if err := each(f, p.Add); err != nil {
				return nil, err
			}
		}
		v.bin[arch] = p
	}
	return v, nil
}

// each reads an index file, unpacked. A file that has gone is one that was
// replaced long ago: the caller reads anew.
func each(f archive.IndexFile, read func(io.Reader) error) error {
	file, err := os.Open(f.Path)
	if err != nil {
		return err
	}
	defer file.Close()
	r, err := compression.Sniff(file)
	if err != nil {
		return fmt.Errorf("unpack %s: %w", f.Path, err)
	}
	defer r.Close()
	return read(r)
}

// Needed calls do with what quinn-diff says of each source on each
// architecture of the suite, all among them.
func (v *View) Needed(specific *quinndiff.Specific, do func(quinndiff.Needed)) {
	for _, arch := range append(slices.Clone(v.suite.Architectures), "all") {
		of := arch
		if arch == "all" {
			of = v.suite.IndepOn
		}
		p := v.bin[of]
		if p == nil {
			continue
		}
		for n := range quinndiff.Diff(&v.sources, p, arch, quinndiff.Options{Specific: specific}) {
			do(n)
		}
	}
}

// Lacks returns those of the named packages that the index of an architecture, not all,
// has not, from whichever source.
func (v *View) Lacks(arch string, names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), v.bin[arch].Has)
}

// Sources returns the source packages of the suite for which want says yes,
// by name and version with an underscore between.
func (v *View) Sources(want func(name, version string) bool) (map[string]*Source, error) {
	out := map[string]*Source{}
	for _, f := range v.files {
		err := each(f, func(r io.Reader) error {
			sc := deb822.NewScanner(r)
			for sc.Next() {
				name, version := string(sc.Get("Package")), string(sc.Get("Version"))
				if policy.CheckSource(name) != nil || policy.CheckVersion(version) != nil || !want(name, version) {
					continue
				}
				src, err := v.source(sc, f.Component)
				if err != nil {
					return fmt.Errorf("source %s %s: %w", name, version, err)
				}
				out[name+"_"+version] = src
			}
			return sc.Err()
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (v *View) source(sc *deb822.Scanner, component string) (*Source, error) {
	st, err := sc.Stanza()
	if err != nil {
		return nil, err
	}
	get := st.Get
	t := &queue.Ticket{
		Source: get("Package"), Version: get("Version"), Suite: v.suite.Name, Component: component,
		Section: get("Section"), Priority: get("Priority"), Maintainer: get("Maintainer"),
		Architecture: deb822.Words(get("Architecture")), IndepArch: get("Build-Indep-Architecture"),
	}
	for b := range strings.SplitSeq(get("Binary"), ",") {
		if b = strings.TrimSpace(b); b != "" {
			t.Binary = append(t.Binary, b)
		}
	}
	src := &Source{Ticket: t, Files: map[string]string{}}
	dir := get("Directory")
	if !filepath.IsLocal(dir) {
		return nil, fmt.Errorf("directory %q: not below the archive", dir)
	}
	files, err := paper.Files(st, paper.Short, paper.SHA256)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		src.Files[f.Name] = filepath.Join(v.archive.Root(), dir, f.Name)
		if strings.HasSuffix(f.Name, ".dsc") {
			t.Dsc = f.Name
		}
	}
	if t.Dsc == "" {
		return nil, errors.New("no .dsc in the index")
	}
	return src, nil
}

// LastBinNMU is the highest N of the +bN binaries of a source that are
// published on any of the architectures.
func (v *View) LastBinNMU(source string, archs []string) int {
	last := 0
	for _, a := range archs {
		p := v.bin[a]
		if p == nil {
			continue
		}
		for n := range quinndiff.Diff(&v.sources, p, a, quinndiff.Options{}) {
			if n.Source == source {
				last = max(last, n.BinNMU)
			}
		}
	}
	return last
}
