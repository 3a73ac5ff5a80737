// Package uploadtest writes real source uploads for tests, in process: tarballs,
// .dsc and .changes, signed, each of which dpkg-source unpacks and
// dpkg-buildpackage builds with dpkg-dev alone. Every step can be bent, so that the
// same generator makes what must be refused.
//
// The same Package gives the same bytes, but for the signature's key.
package uploadtest

import (
	"archive/tar"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"packmill/internal/deb/debtest"
	"packmill/internal/durable"
	"packmill/internal/openpgp"
	"packmill/internal/policy"
)

// Package is an upload to be written. The zero value of a field means a sensible
// default, but Source and Version must be set.
type Package struct {
	Source       string
	Version      string
	Distribution string    // "stable"
	Format       string    // "3.0 (quilt)" if the version has a revision, else "3.0 (native)"; "1.0"
	Section      string    // "misc"
	Priority     string    // "optional"
	Maintainer   string    // "Test Person <test@example.org>"
	ChangedBy    string    // Maintainer
	Urgency      string    // "medium"
	Architecture string    // of the binary package: "any"
	Binary       []string  // names of the binary packages: the source's
	All          []string  // of those, which are for all beside others for Architecture
	BuildDepends string    // none
	Date         time.Time // of the changelog entry, the members of tarballs and the signatures: now
	Packing      string    // of tarballs: "gz" (default), "xz", "bz2" is not made, "zst"
	Closes       []string  // bug numbers

	Signer    *openpgp.Signer // signs .dsc and .changes; nil: neither is signed
	DscSigner *openpgp.Signer // signs the .dsc in its place

	Files  []File // more files that the .changes lists, such as binary packages
	NoOrig bool   // the orig tarball is in the .dsc, but does not come with the upload (dpkg-genchanges -sd)
	Tree   []Member
	Script string // body of the program that the package installs, after #!/bin/sh; prints its name and version

	// As is another name of the same length, which takes the source's place
	// wherever it stands, behind all bends but Signed; "" for none.
	As string

	// Bends. Each may be nil.
	Members func(tarball string, members []Member) []Member // "orig", "debian" or "native"
	Tarball func(tarball string, packed []byte) []byte
	Dsc     func(text string) string    // before it is signed
	Changes func(text string) string    // before it is signed
	Signed  func(changes []byte) []byte // after it was signed
	Names   func(name string) string    // of all files but the .changes
	Before  func(dir string) error      // before the .changes is written
	After   func(dir string) error      // when all is written
	Debian  func(files map[string]string)
}

// File is a further file of an upload.
type File struct {
	Name string
	Data []byte
	Arch string // said in Architecture; "" for none
}

// Member is one member of a tarball.
type Member = debtest.Entry

// Text is a plain member.
func Text(name, body string) Member {
	mode := int64(0o644)
	if strings.HasPrefix(body, "#!") {
		mode = 0o755
	}
	return Member{Header: tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode}, Body: body}
}

func (p *Package) defaults() {
	def := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	def(&p.Distribution, "stable")
	def(&p.Section, "misc")
	def(&p.Priority, "optional")
	def(&p.Maintainer, "Test Person <test@example.org>")
	def(&p.ChangedBy, p.Maintainer)
	def(&p.Urgency, "medium")
	def(&p.Architecture, "any")
	def(&p.Packing, "gz")
	if p.Format == "" {
		p.Format = "3.0 (native)"
		if strings.Contains(p.Version, "-") {
			p.Format = "3.0 (quilt)"
		}
	}
	if len(p.Binary) == 0 {
		p.Binary = []string{p.Source}
	}
	if p.Date.IsZero() {
		p.Date = time.Now()
	}
	p.Date = p.Date.UTC().Truncate(time.Second)
	if p.DscSigner == nil {
		p.DscSigner = p.Signer
	}
}

// debian is what lies below debian/.
func (p *Package) debian() map[string]string {
	var control strings.Builder
	fmt.Fprintf(&control, "Source: %s\nSection: %s\nPriority: %s\nMaintainer: %s\nStandards-Version: 4.6.2\n",
		p.Source, p.Section, p.Priority, p.Maintainer)
	if p.BuildDepends != "" {
		fmt.Fprintf(&control, "Build-Depends: %s\n", p.BuildDepends)
	}
	fmt.Fprintf(&control, "Rules-Requires-Root: no\n")
	for _, b := range p.Binary {
		arch := p.Architecture
		if slices.Contains(p.All, b) {
			arch = "all"
		}
		fmt.Fprintf(&control,
			"\nPackage: %s\nArchitecture: %s\nDescription: package of a test\n It says its name and version.\n", b, arch)
	}
	script := p.Script
	if script == "" {
		script = fmt.Sprintf("echo '%s %s'\n", p.Source, p.Version)
	}
	var rules strings.Builder
	fmt.Fprintf(&rules, "#!/usr/bin/make -f\nbuild build-arch build-indep:\n\ttrue\nclean:\n"+
		"\trm -rf debian/tmp-* debian/files debian/substvars\n")
	mine, other := "binary-arch", "binary-indep"
	if p.Architecture == "all" {
		mine, other = other, mine
	}
	fmt.Fprintf(&rules, "binary: binary-arch binary-indep\n%s:\n%s:\n", other, mine)
	for _, b := range p.Binary {
		fmt.Fprintf(&rules, "\tmkdir -p debian/tmp-%[1]s/DEBIAN debian/tmp-%[1]s/usr/bin\n"+
			"\tinstall -m 755 debian/program debian/tmp-%[1]s/usr/bin/%[1]s\n"+
			"\tdpkg-gencontrol -p%[1]s -Pdebian/tmp-%[1]s\n"+
			"\tdpkg-deb --root-owner-group --build debian/tmp-%[1]s ..\n", b)
	}
	closes := ""
	if len(p.Closes) > 0 {
		closes = " Closes: #" + strings.Join(p.Closes, ", #")
	}
	files := map[string]string{
		"control": control.String(),
		"rules":   rules.String(),
		"program": "#!/bin/sh\n" + script,
		"changelog": fmt.Sprintf("%s (%s) %s; urgency=%s\n\n  * An entry.%s\n\n -- %s  %s\n",
			p.Source, p.Version, p.Distribution, p.Urgency, closes, p.ChangedBy, p.Date.Format(time.RFC1123Z)),
		"copyright":     "Public domain.\n",
		"source/format": p.Format + "\n",
	}
	if p.Debian != nil {
		p.Debian(files)
	}
	return files
}

func members(prefix string, files map[string]string) []Member {
	var names []string
	for n := range files {
		names = append(names, n)
	}
	slices.Sort(names)
	out := []Member{{Header: tar.Header{Typeflag: tar.TypeDir, Name: prefix, Mode: 0o755}}}
	dirs := map[string]bool{}
	for _, n := range names {
		if d := filepath.Dir(n); d != "." && !dirs[d] {
			dirs[d] = true
			out = append(out, Member{Header: tar.Header{Typeflag: tar.TypeDir, Name: prefix + d + "/", Mode: 0o755}})
		}
		out = append(out, Text(prefix+n, files[n]))
	}
	return out
}

// as puts As in the source's place.
func (p *Package) as(text string) string {
	if p.As == "" {
		return text
	}
	return strings.ReplaceAll(text, p.Source, p.As)
}

// pack makes one tarball.
func (p *Package) pack(which string, list []Member) ([]byte, error) {
	if p.Members != nil {
		list = p.Members(which, list)
	}
	list = slices.Clone(list)
	for i := range list {
		m := &list[i]
		m.Header.Name, m.Header.Linkname, m.Body = p.as(m.Header.Name), p.as(m.Header.Linkname), p.as(m.Body)
	}
	raw, err := debtest.TarOf(p.Date, list...)
	if err != nil {
		return nil, err
	}
	packed := debtest.Pack(p.Packing, raw)
	if p.Tarball != nil {
		packed = p.Tarball(which, packed)
	}
	return packed, nil
}

// Write writes the upload into dir and returns the name of its .changes, which is
// written last.
func (p Package) Write(dir string) (string, error) {
	p.defaults()
	parts, err := p.source()
	if err != nil {
		return "", err
	}
	dsc, err := p.dsc(parts)
	if err != nil {
		return "", err
	}
	if p.NoOrig {
		parts = slices.DeleteFunc(parts, func(l debtest.Part) bool { return strings.Contains(l.Name, ".orig.") })
	}
	parts = append([]debtest.Part{dsc}, parts...)
	archs := []string{"source"}
	for _, f := range p.Files {
		parts = append(parts, debtest.Part{Name: p.as(f.Name), Body: []byte(p.as(string(f.Data)))})
		if f.Arch != "" && !slices.Contains(archs, f.Arch) {
			archs = append(archs, f.Arch)
		}
	}
	changes, err := p.changes(archs, parts)
	if err != nil {
		return "", err
	}
	for _, f := range parts {
		if err := os.WriteFile(filepath.Join(dir, f.Name), f.Body, 0o644); err != nil {
			return "", err
		}
	}
	if p.Before != nil {
		if err := p.Before(dir); err != nil {
			return "", err
		}
	}
	if err := p.renameBefore(dir); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, changes.Name), changes.Body, 0o644); err != nil {
		return "", err
	}
	if p.After != nil {
		return changes.Name, p.After(dir)
	}
	return changes.Name, nil
}

// stem is the name of the upload's files without their ends.
func (p *Package) stem() string { return p.Source + "_" + policy.WithoutEpoch(p.Version) }

// part is a file of the source, under the name that the test wants.
func (p *Package) part(name string, data []byte) debtest.Part {
	if p.Names != nil {
		name = p.Names(name)
	}
	return debtest.Part{Name: p.as(name), Body: data}
}

// source makes the files that the .dsc lists.
func (p *Package) source() ([]debtest.Part, error) {
	upstream := policy.VersionOf(p.Version).Version
	top := p.Source + "-" + upstream
	debian := p.debian()
	tree := append([]Member{
		{Header: tar.Header{Typeflag: tar.TypeDir, Name: top + "/", Mode: 0o755}},
		Text(top+"/README", "What upstream says about "+p.Source+" "+upstream+".\n"),
	}, p.Tree...)
	old := p.Format == "1.0" && strings.Contains(p.Version, "-")
	if !old && p.Format != "3.0 (quilt)" {
		native, err := p.tarball("native", p.stem()+".tar."+p.Packing, append(tree, members(top+"/debian/", debian)...))
		return []debtest.Part{native}, err
	}
	packing := p.Packing
	if old {
		packing = "gz"
	}
	orig, err := p.tarball("orig", p.Source+"_"+upstream+".orig.tar."+packing, tree)
	if err != nil {
		return nil, err
	}
	if !old {
		changed, err := p.tarball("debian", p.stem()+".debian.tar."+p.Packing, members("debian/", debian))
		return []debtest.Part{orig, changed}, err
	}
	diff := debtest.Pack("gz", []byte(p.as(makeDiff(top, debian))))
	if p.Tarball != nil {
		diff = p.Tarball("diff", diff)
	}
	return []debtest.Part{orig, p.part(p.stem()+".diff.gz", diff)}, nil
}

func (p *Package) tarball(which, name string, list []Member) (debtest.Part, error) {
	data, err := p.pack(which, list)
	if err != nil {
		return debtest.Part{}, fmt.Errorf("write %s: %w", name, err)
	}
	return p.part(name, data), nil
}

func (p *Package) dsc(parts []debtest.Part) (debtest.Part, error) {
	fields := ""
	if p.BuildDepends != "" {
		fields = "Build-Depends: " + p.BuildDepends + "\n"
	}
	arch := p.Architecture
	if len(p.All) > 0 {
		arch += " all"
	}
	text := p.bent(debtest.Dsc{
		Format: p.Format, Source: p.Source, Version: p.Version, Arch: arch, Binary: p.Binary, All: p.All,
		Maintainer: p.Maintainer, Section: p.Section, Priority: p.Priority, Fields: fields, Parts: parts,
	}.Text(), p.Dsc)
	var err error
	if p.DscSigner != nil {
		text, err = p.DscSigner.Clearsign(text, p.Date)
	}
	return p.part(p.stem()+".dsc", text), err
}

func (p *Package) changes(archs []string, parts []debtest.Part) (debtest.Part, error) {
	c := debtest.Changes{
		Source: p.Source, Version: p.Version, Date: p.Date, Archs: archs,
		Distribution: p.Distribution, Urgency: p.Urgency, Maintainer: p.Maintainer, ChangedBy: p.ChangedBy,
		Section: p.Section, Priority: p.Priority, Closes: p.Closes,
		Description: "package of a test", Entry: "An entry.", Parts: parts,
	}
	if len(archs) > 1 {
		c.Binary = p.Binary
	}
	text := p.bent(c.Text(), p.Changes)
	if p.Signer != nil {
		var err error
		if text, err = p.Signer.Clearsign(text, p.Date); err != nil {
			return debtest.Part{}, err
		}
	}
	if p.Signed != nil {
		text = p.Signed(text)
	}
	name := p.stem() + "_" + archs[len(archs)-1] + ".changes"
	return debtest.Part{Name: p.as(name), Body: text}, nil
}

// bent is a paper's text as the test bends it; the bend finds the source under its own name.
func (p *Package) bent(text string, bend func(string) string) []byte {
	if p.As != "" {
		text = strings.ReplaceAll(text, p.As, p.Source)
	}
	if bend != nil {
		text = bend(text)
	}
	return []byte(p.as(text))
}

// renameBefore gives what Before wrote the names of As.
func (p *Package) renameBefore(dir string) error {
	if p.As == "" {
		return nil
	}
	names, err := filepath.Glob(filepath.Join(dir, p.Source+"_*"))
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := durable.Replace(n, filepath.Join(dir, p.as(filepath.Base(n)))); err != nil {
			return err
		}
	}
	return nil
}

// makeDiff is the .diff.gz of format 1.0: debian/ as new files.
func makeDiff(top string, debian map[string]string) string {
	var names []string
	for n := range debian {
		if n != "source/format" {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	var b strings.Builder
	for _, n := range names {
		lines := strings.SplitAfter(debian[n], "\n")
		if lines[len(lines)-1] == "" {
			lines = lines[:len(lines)-1]
		}
		fmt.Fprintf(&b, "--- %s.orig/debian/%s\n+++ %s/debian/%s\n@@ -0,0 +1,%d @@\n", top, n, top, n, len(lines))
		for _, l := range lines {
			b.WriteString("+" + l)
		}
	}
	return b.String()
}
