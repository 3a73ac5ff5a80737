// Package debtest writes small packages for tests and benchmarks, valid and in
// process: ten thousand of them take seconds, not the minutes that dpkg-deb and
// dpkg-source need. The same arguments give the same bytes.
package debtest

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/md5"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"packmill/internal/policy"
)

// person is who made everything here.
const person = "Packmill Tests <tests@packmill.example>"

// Time is the time of everything in a package that does not name its own.
var Time = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// A Deb is a binary package to be written. The zero value of a field means a
// sensible default, but Name and Version must be set.
type Deb struct {
	Name, Version string
	Arch          string // "amd64" if empty
	Source        string // the Source field: "hello" or "hello (2.10-3)"; none if empty
	Fields        string // further lines of the control file, each ended by "\n"
	Control       string // the whole control file, in place of all above except for the file's name
	Files         []File // data.tar; a copyright file below usr/share/doc if nil
	Packing       string // "xz" if empty; "gz", "zst", "none"
	Udeb          bool   // for the installer
	Ddeb          bool   // Ubuntu's name for debug symbols
}

// A File goes into data.tar. The directories above it are made.
type File struct {
	Path string // "usr/bin/hello"
	Mode int64  // 0644 if 0
	Body string
	Link string // if set, a symbolic link
}

// FileName is the name of the .deb.
func (d Deb) FileName() string {
	ext := ".deb"
	if d.Udeb {
		ext = ".udeb"
	} else if d.Ddeb {
		ext = ".ddeb"
	}
	return d.Name + "_" + policy.WithoutEpoch(d.Version) + "_" + d.arch() + ext
}

func (d Deb) arch() string {
	if d.Arch == "" {
		return "amd64"
	}
	return d.Arch
}

func (d Deb) control() string {
	if d.Control != "" {
		return d.Control
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Package: %s\n", d.Name)
	if d.Source != "" {
		fmt.Fprintf(&b, "Source: %s\n", d.Source)
	}
	fmt.Fprintf(&b, "Version: %s\nArchitecture: %s\nMaintainer: "+person+"\nInstalled-Size: 12\n", d.Version, d.arch())
	for _, f := range []string{"Section: misc\n", "Priority: optional\n",
		"Description: package for tests\n It holds nothing of use.\n"} {
		if name, _, _ := strings.Cut(f, ":"); !strings.HasPrefix(d.Fields, name+":") &&
			!strings.Contains(d.Fields, "\n"+name+":") {
			b.WriteString(f)
		}
	}
	b.WriteString(d.Fields)
	return b.String()
}

// Bytes is the package.
func (d Deb) Bytes() []byte {
	packing := d.Packing
	if packing == "" {
		packing = "xz"
	}
	files := d.Files
	if files == nil {
		files = []File{{Path: "usr/share/doc/" + d.Name + "/copyright", Body: "Free for every use.\n"}}
	}
	var sums bytes.Buffer
	for _, f := range files {
		if f.Link == "" {
			fmt.Fprintf(&sums, "%x  %s\n", md5.Sum([]byte(f.Body)), f.Path)
		}
	}
	ext := "." + packing
	if packing == "none" {
		ext = ""
	}
	return Ar(
		Member{"debian-binary", []byte("2.0\n")},
		Member{"control.tar" + ext,
			Pack(packing, Tar(File{Path: "control", Body: d.control()}, File{Path: "md5sums", Body: sums.String()}))},
		Member{"data.tar" + ext, Pack(packing, Tar(files...))},
	)
}

// Write puts the package into dir under its name, and returns the path.
func (d Deb) Write(dir string) (string, error) {
	path := filepath.Join(dir, d.FileName())
	return path, os.WriteFile(path, d.Bytes(), 0o644)
}

// A Member is one file of an ar container.
type Member struct {
	Name string
	Body []byte
}

// Ar is an ar container as dpkg-deb writes it.
func Ar(members ...Member) []byte {
	var b bytes.Buffer
	b.WriteString("!<arch>\n")
	for _, m := range members {
		fmt.Fprintf(&b, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", m.Name, Time.Unix(), 0, 0, "100644", len(m.Body))
		b.Write(m.Body)
		if len(m.Body)%2 == 1 {
			b.WriteByte('\n')
		}
	}
	return b.Bytes()
}

// An Entry is one member of a tar archive.
type Entry struct {
	Header tar.Header
	Body   string // of a plain file
}

// TarOf is a GNU tar archive of the entries. One without a time is of that time.
func TarOf(now time.Time, entries ...Entry) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := e.Header
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(e.Body))
		}
		if h.ModTime.IsZero() {
			h.ModTime = now
		}
		h.Format, h.Uname, h.Gname = tar.FormatGNU, "root", "root"
		if err := w.WriteHeader(&h); err != nil {
			return nil, fmt.Errorf("member %q: %w", h.Name, err)
		}
		if _, err := io.WriteString(w, e.Body); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return b.Bytes(), err
}

// Tar is a GNU tar archive of the files, and of the directories above them.
func Tar(files ...File) []byte {
	var entries []Entry
	made := map[string]bool{}
	dir := func(path string) {
		if !made[path] {
			made[path] = true
			entries = append(entries, Entry{Header: tar.Header{Typeflag: tar.TypeDir, Name: path, Mode: 0o755}})
		}
	}
	for _, f := range files {
		dir("./")
		for i, c := range f.Path {
			if c == '/' {
				dir("./" + f.Path[:i+1])
			}
		}
		h := tar.Header{Typeflag: tar.TypeReg, Name: "./" + f.Path, Mode: cmp.Or(f.Mode, 0o644)}
		if f.Link != "" {
			h.Typeflag, h.Linkname, h.Mode, f.Body = tar.TypeSymlink, f.Link, 0o777, ""
		}
		entries = append(entries, Entry{h, f.Body})
	}
	out, err := TarOf(Time, entries...)
	if err != nil {
		panic(err) // the headers are plain
	}
	return out
}

// A gzip writer costs 800 kB, so it is used again.
var gzips = sync.Pool{New: func() any { return gzip.NewWriter(nil) }}

var zstdWriter = sync.OnceValue(func() *zstd.Encoder {
	w, _ := zstd.NewWriter(nil)
	return w
})

// Pack compresses: "xz", "gz", "zst" or "none".
func Pack(packing string, data []byte) []byte {
	var b bytes.Buffer
	switch packing {
	case "none":
		return data
	case "gz":
		w := gzips.Get().(*gzip.Writer)
		defer gzips.Put(w)
		w.Reset(&b)
		w.Write(data)
		w.Close()
	case "zst":
		return zstdWriter().EncodeAll(data, nil)
	case "xz":
		dict := 32 << 10 // a large one costs more than a small package
		if len(data) > dict {
			dict = 1 << 20 // what does not get shorter would overflow a small one
		}
		w, err := xz.WriterConfig{DictCap: dict}.NewWriter(&b)
		if err == nil {
			_, err = w.Write(data)
		}
		if err == nil {
			err = w.Close()
		}
		if err != nil {
			panic(err) // a buffer takes everything
		}
	default:
		panic("debtest: no packing " + packing)
	}
	return b.Bytes()
}

// A Source is a source package to be written: a native one (3.0) of one small
// tarball, unsigned.
type Source struct {
	Name, Version string
	Arch          string   // Architecture of the .dsc; "any" if empty
	Binary        []string // names of the binary packages; the source's own if nil
	Fields        string   // further lines of the .dsc, each ended by "\n"
	Sign          Sign     // clearsigns the .dsc if set
}

// Sign turns a text into a clearsigned one.
type Sign func(text []byte) ([]byte, error)

// Write puts the .dsc and the tarball into dir, and returns their paths, the
// .dsc first.
func (s Source) Write(dir string) ([]string, error) {
	arch, binary := s.Arch, s.Binary
	if arch == "" {
		arch = "any"
	}
	if binary == nil {
		binary = []string{s.Name}
	}
	root := s.Name + "-" + policy.WithoutEpoch(s.Version) + "/"
	var stanzas strings.Builder
	for _, b := range binary {
		fmt.Fprintf(&stanzas, "\nPackage: %s\nArchitecture: %s\nDescription: package for tests\n It holds nothing of use.\n",
			b, strings.Fields(arch)[0])
	}
	tarball := Pack("xz", Tar(
		File{Path: root + "debian/changelog",
			Body: fmt.Sprintf("%s (%s) unstable; urgency=medium\n\n  * For tests.\n\n"+
				" -- Packmill Tests <tests@packmill.example>  %s\n", s.Name, s.Version, Time.Format(time.RFC1123Z))},
		File{Path: root + "debian/control", Body: fmt.Sprintf("Source: %s\nSection: misc\nPriority: optional\n"+
			"Maintainer: Packmill Tests <tests@packmill.example>\nStandards-Version: 4.6.2\n%s", s.Name, stanzas.String())},
		File{Path: root + "debian/rules", Mode: 0o755, Body: "#!/usr/bin/make -f\n%:\n\ttrue\n"},
		File{Path: root + "debian/source/format", Body: "3.0 (native)\n"},
	))
	name := s.Name + "_" + policy.WithoutEpoch(s.Version)
	dsc := []byte(Dsc{
		Format: "3.0 (native)", Source: s.Name, Version: s.Version, Arch: arch, Binary: binary, Maintainer: person,
		Section: "misc", Priority: "optional", Fields: s.Fields, Parts: []Part{{name + ".tar.xz", tarball}},
	}.Text())
	if s.Sign != nil {
		var err error
		if dsc, err = s.Sign(dsc); err != nil {
			return nil, err
		}
	}
	paths := []string{filepath.Join(dir, name+".dsc"), filepath.Join(dir, name+".tar.xz")}
	if err := os.WriteFile(paths[1], tarball, 0o644); err != nil {
		return nil, err
	}
	return paths, os.WriteFile(paths[0], dsc, 0o644)
}

// An Upload is a source with binaries, as dpkg-genchanges describes it. Without
// Debs it is a source-only one.
type Upload struct {
	Source       Source
	NoSource     bool   // binaries only
	Of           string // of a binNMU: the version of its source
	Debs         []Deb
	Distribution string // "unstable" if empty
	Buildinfo    string // the text of a .buildinfo; none if empty
	Sign         Sign   // clearsigns the .changes if set, and the .dsc
}

// Write puts all files of the upload into dir and returns the path of the
// .changes, which is written last.
func (u Upload) Write(dir string) (string, error) {
	var files []Part
	var archs, binary []string
	for _, d := range u.Debs {
		binary = append(binary, d.Name)
	}
	if !u.NoSource {
		source, err := u.writeSource(dir, binary)
		if err != nil {
			return "", err
		}
		files, archs = source, append(archs, "source")
	}
	for _, d := range u.Debs {
		part, err := u.writeDeb(dir, d)
		if err != nil {
			return "", err
		}
		files = append(files, part)
		if !slices.Contains(archs, d.arch()) {
			archs = append(archs, d.arch())
		}
	}
	first := archs[0]
	if !u.NoSource && len(archs) > 1 {
		first = archs[1]
	}
	base := u.Source.Name + "_" + policy.WithoutEpoch(u.Source.Version) + "_" + first
	if u.Buildinfo != "" {
		part := Part{base + ".buildinfo", []byte(u.Buildinfo)}
		if err := os.WriteFile(filepath.Join(dir, part.Name), part.Body, 0o644); err != nil {
			return "", err
		}
		files = append(files, part)
	}
	c := Changes{
		Source: u.Source.Name, Version: u.Source.Version, Date: Time, Binary: binary, Archs: archs,
		Distribution: cmp.Or(u.Distribution, "unstable"), Urgency: "medium", Maintainer: person, ChangedBy: person,
		Section: "misc", Priority: "optional", BinaryOnly: u.Of != "",
		Description: "package for tests", Entry: "For tests.", Parts: files,
	}
	if u.Of != "" {
		c.Source += " (" + u.Of + ")"
	}
	text := []byte(c.Text())
	if u.Sign != nil {
		var err error
		if text, err = u.Sign(text); err != nil {
			return "", err
		}
	}
	path := filepath.Join(dir, base+".changes")
	return path, os.WriteFile(path, text, 0o644)
}

func (u *Upload) writeSource(dir string, binary []string) ([]Part, error) {
	s := u.Source
	if s.Sign == nil {
		s.Sign = u.Sign
	}
	if s.Binary == nil {
		s.Binary = binary
	}
	paths, err := s.Write(dir)
	if err != nil {
		return nil, err
	}
	var parts []Part
	for _, p := range paths {
		body, err := os.ReadFile(p)
		if err != nil {
			return nil, err
		}
		parts = append(parts, Part{filepath.Base(p), body})
	}
	return parts, nil
}

func (u *Upload) writeDeb(dir string, d Deb) (Part, error) {
	if d.Source == "" && (d.Name != u.Source.Name || d.Version != u.Source.Version) {
		d.Source = u.Source.Name
		if d.Version != u.Source.Version {
			d.Source += " (" + u.Source.Version + ")"
		}
	}
	part := Part{d.FileName(), d.Bytes()}
	return part, os.WriteFile(filepath.Join(dir, part.Name), part.Body, 0o644)
}

// Corpus is a made-up distribution: n binary packages of n/2 sources, two each.
// They depend on each other, have descriptions of some lines and a few files,
// and are for amd64, each fifth source's for all. Version is that of all of them.
func Corpus(n int, version string) []Upload {
	us := make([]Upload, 0, (n+1)/2)
	for i := 0; 2*i < n; i++ {
		src := fmt.Sprintf("%s%05d", stems[i%len(stems)], i)
		arch := "amd64"
		srcArch := "any"
		if i%5 == 4 {
			arch, srcArch = "all", "all"
		}
		u := Upload{Source: Source{Name: src, Version: version, Arch: srcArch}}
		for j := 0; j < 2 && 2*i+j < n; j++ {
			name := src
			deps := "libc6 (>= 2.34)"
			if j == 1 {
				name += "-tools"
				deps = src + " (= " + version + ")"
			} else if i > 0 {
				deps += fmt.Sprintf(", %s%05d (>= 1.0) | %s%05d-tools", stems[(i/2)%len(stems)], i/2, stems[(i/3)%len(stems)], i/3)
			}
			u.Debs = append(u.Debs, Deb{
				Name: name, Version: version, Arch: arch,
				Fields: fmt.Sprintf("Depends: %s\nSection: %s\nHomepage: https://packmill.example/%s\n"+
					"Tag: implemented-in::c, role::program\nDescription: %s that does number %d of the things\n"+
					" The first line of its description says little about %s.\n .\n"+
					" The second one says that it was made for measuring an archive with\n %d packages in it.\n",
					deps, sections[i%len(sections)], src, src, i, name, n),
				Files: []File{
					{Path: "usr/bin/" + name, Mode: 0o755, Body: fmt.Sprintf("#!/bin/sh\necho %s %d\n", name, i)},
					{Path: "usr/share/doc/" + name + "/changelog.Debian.gz", Body: fmt.Sprintf("%s (%s)\n", src, version)},
					{Path: "usr/share/doc/" + name + "/copyright", Body: "Free for every use.\n"},
					{Path: "usr/share/" + src + "/" + name + ".conf", Body: fmt.Sprintf("number = %d\n", i)},
				},
			})
		}
		us = append(us, u)
	}
	return us
}

var (
	stems = []string{"alder", "birch", "cedar", "doum", "elm", "fir", "ginkgo", "hazel", "libiroko", "juniper",
		"libkauri", "larch", "maple", "libnutmeg", "oak", "pine", "quince", "rowan", "spruce", "teak", "upas", "libvinal",
		"willow", "yew", "zelkova"}
	sections = []string{"admin", "devel", "libs", "net", "python", "utils", "web"}
)

// WriteAll writes uploads into dir on every processor.
func WriteAll(dir string, us []Upload) error {
	var (
		wg   sync.WaitGroup
		errs = make(chan error, 1)
		next = make(chan Upload)
	)
	for range 4 {
		wg.Go(func() {
			for u := range next {
				if _, err := u.Write(dir); err != nil {
					select {
					case errs <- err:
					default:
					}
				}
			}
		})
	}
	for _, u := range us {
		next <- u
	}
	close(next)
	wg.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}
