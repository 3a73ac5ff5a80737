// Package deb reads binary packages (.deb and .udeb, deb(5)) that nobody has
// checked yet.
//
// One call reads a file once, from its first byte to its last: it hashes, takes
// the ar container apart, unpacks control.tar and data.tar within limits, parses
// the control stanza and lists the files. What dpkg would meet with a warning or
// with a guess is refused, so that what this package says about a file is what
// every other reader of it will see.
package deb

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"packmill/internal/deb822"
	"packmill/internal/policy"
	"packmill/internal/regular"
)

// A Package is what one .deb says.
type Package struct {
	Control *deb822.Stanza // the control stanza, parsed strictly
	Text    []byte         // the control file as it lies in control.tar

	Name         string // Package
	Version      string // Version, with its epoch
	Architecture string // Architecture: a concrete one, or "all"

	// Source and SourceVersion are the source package that this one was built
	// from: the Source field taken apart, or Name and Version where it says
	// nothing else (Policy 5.6.1).
	Source, SourceVersion string

	Contents []Entry // the files of data.tar in their order; nil if skipped

	// ControlMember and DataMember are the names in the container, such as
	// control.tar.xz; the end of the name is the compression.
	ControlMember, DataMember string

	DataAt, DataSize int64 // where the data member's bytes lie in the file

	Sums
}

// An Entry is a file that a package installs.
type Entry struct {
	Path  string // relative to the root, "usr/bin/hello"; "." is the root itself
	Type  byte   // as in tar: '0' file, '1' hard link, '2' symbolic link, '3' and '4' devices, '5' directory, '6' FIFO
	Mode  uint32 // permission bits with set-uid, set-gid and sticky, at most 07777
	Size  int64  // bytes; 0 if it is no file
	MTime int64  // seconds since 1970
	Link  string // where a link points: a hard link's target is a path like Path
}

// Limits bound what one package may cost its reader.
type Limits struct {
	Control  int64 // unpacked control.tar, bytes
	Data     int64 // unpacked data.tar, bytes
	Floor    int64 // unpacked bytes that any member may have, whatever its ratio
	Ratio    int64 // unpacked bytes for each packed one above the floor
	Entries  int   // files in data.tar
	PathText int64 // bytes of all paths and link targets together
}

// DefaultLimits let every package of Debian 12 and 13 pass; a bomb is refused
// after some 64 MiB of output.
var DefaultLimits = Limits{
	Control:  32 << 20,
	Data:     64 << 30,
	Floor:    64 << 20,
	Ratio:    400,
	Entries:  2_000_000,
	PathText: 256 << 20,
}

// Options say how much is read.
type Options struct {
	// SkipContents leaves data.tar packed: it is hashed, not looked into.
	SkipContents bool

	// Old accepts data.tar.bz2, which dpkg wrote before 2011 and still reads.
	Old bool

	// Limits replaces DefaultLimits if it is not nil.
	Limits *Limits

	// ControlTar and DataTar, if set, get the unpacked archives as they are
	// read. What they got counts only after Read has returned no error.
	ControlTar, DataTar io.Writer

	// KeepGzip has DataTar get nothing of a data.tar.gz, for a caller who takes that
	// as it lies; it is checked all the same. ErrGzips if it is of several gzip
	// members, of which not every reader sees more than the first.
	KeepGzip bool
}

// A Refusal is a fault of the package. Any other error of this package is
// trouble of the reader's own: a disk, a memory, a vanished file.
type Refusal struct {
	File string // the base name of the package file
	Text string // what is wrong and what helps
}

func (r *Refusal) Error() string { return r.File + ": " + r.Text }

// ErrGzips says that a data.tar.gz is of several gzip members (see KeepGzip).
var ErrGzips = errors.New("data.tar.gz is of several gzip members")

// errFault carries the text of a refusal up to Read, which knows the file.
type errFault string

func (e errFault) Error() string { return string(e) }

func fault(format string, args ...any) error { return errFault(fmt.Sprintf(format, args...)) }

// ReadFile reads the package at path. It follows no symbolic link, and refuses
// to open what is not a regular file.
func ReadFile(path string, opt Options) (*Package, error) {
	f, err := regular.Open(path)
	if errors.Is(err, regular.ErrNotRegular) {
		return nil, &Refusal{filepath.Base(path), "is no regular file; send the package itself"}
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return Read(f, path, opt)
}

// Read reads a package to the end of r. The name serves messages only (see
// CheckName). The error is a *Refusal if the package is at fault, and whatever
// r or the writers of opt said if it is not.
func Read(r io.Reader, name string, opt Options) (*Package, error) {
	lim := DefaultLimits
	if opt.Limits != nil {
		lim = *opt.Limits
	}
	src := newSource(r)
	defer src.release()
	p := new(Package)
	err := p.read(src, opt, &lim)
	if err == nil {
		err = src.drain()
	}
	if src.err != nil {
		return nil, fmt.Errorf("read %s: %w", name, src.err)
	}
	if err != nil {
		base := filepath.Base(name)
		if e := (*deb822.Error)(nil); errors.As(err, &e) {
			return nil, &Refusal{base, fmt.Sprintf("control file, line %d: %s", e.Line, e.Msg)}
		}
		if e := errFault(""); errors.As(err, &e) {
			return nil, &Refusal{base, string(e)}
		}
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	p.Sums = src.sums()
	return p, nil
}

// read walks over the members: debian-binary, control.tar, data.tar, in this
// order and once each (deb(5)). Members whose names begin with an underscore
// belong to others (dpkg-sig, debsigs) and are passed over.
func (p *Package) read(src *source, opt Options, lim *Limits) error {
	ar := arReader{src: src}
	if err := ar.magic(); err != nil {
		return err
	}
	want := 0
	for {
		m, err := ar.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		switch {
		case want > 0 && strings.HasPrefix(m.name, "_"):
		case want == 0 && m.name == "debian-binary":
			err = formatVersion(m)
			want++
		case want == 1 && strings.HasPrefix(m.name, "control.tar"):
			p.ControlMember = m.name
			err = p.readControl(m, opt, lim)
			want++
		case want == 2 && strings.HasPrefix(m.name, "data.tar"):
			p.DataMember, p.DataAt, p.DataSize = m.name, src.at(), m.size
			err = p.readData(m, opt, lim)
			want++
		default:
			err = fault("member %q at place %d of the container, where %s belongs; build the package again with dpkg-deb",
				m.name, ar.count, [...]string{"debian-binary", "control.tar", "data.tar", "nothing"}[want])
		}
		if err != nil {
			return err
		}
		if err := m.close(); err != nil {
			return err
		}
	}
	if want < 3 {
		return fault("the container ends without %s; it is truncated: send the whole file",
			[...]string{"debian-binary", "control.tar", "data.tar"}[want])
	}
	return nil
}

func formatVersion(m *member) error {
	if m.left > 64 {
		return fault("debian-binary has %d bytes, not a format number; build the package again with dpkg-deb", m.left)
	}
	text, err := io.ReadAll(m)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(string(text), "2.0\n") {
		return fault("format %q; only format 2.0 is known: build the package again with dpkg-deb", text)
	}
	return nil
}

// parse reads the control stanza and checks the fields by which an archive
// files a package.
func (p *Package) parse(text []byte) error {
	st, err := deb822.ParseOne("control", text, deb822.Hostile)
	if err != nil {
		return err
	}
	if !strings.HasSuffix(string(text), "\n") {
		return fault("the control file ends in the middle of a line, which dpkg does not install; " +
			"build the package again with dpkg-deb")
	}
	p.Control, p.Text = st, text
	for _, f := range []struct {
		field string
		to    *string
		check func(string) error
	}{
		{"Package", &p.Name, policy.CheckPackage},
		{"Version", &p.Version, policy.CheckVersion},
		{"Architecture", &p.Architecture, policy.CheckArch},
	} {
		v := st.Get(f.field)
		if v == "" {
			return fault("control file: no %s field; add it (Debian Policy 5.3)", f.field)
		}
		if err := f.check(v); err != nil {
			return fault("control file: %s: %v", f.field, err)
		}
		*f.to = v
	}
	p.Source, p.SourceVersion = p.Name, p.Version
	if v := st.Get("Source"); v != "" {
		name, rest, versioned := strings.Cut(v, " ")
		if err := policy.CheckSource(name); err != nil {
			return fault("control file: Source: %v", err)
		}
		p.Source = name
		if versioned {
			rest, ok := strings.CutPrefix(rest, "(")
			rest, ok2 := strings.CutSuffix(rest, ")")
			if !ok || !ok2 {
				return fault("control file: Source: %q; write a name, or a name and a version in parentheses (Debian Policy 5.6.1)",
					v)
			}
			if err := policy.CheckVersion(rest); err != nil {
				return fault("control file: Source: %v", err)
			}
			p.SourceVersion = rest
		}
	}
	return nil
}

// CheckFields says which of the fields a package lacks, or has no use, that an
// archive does not file it by: Description (Debian Policy 5.3), relations and other fields
// as dpkg reads them, and Built-Using and Static-Built-Using, which name sources in exactly one version (Policy 7.8).
func (p *Package) CheckFields(name string) error {
	if err := cmp.Or(CheckRelations(p.Control.Get), p.checkWords()); err != nil {
		return &Refusal{name, "control file: " + err.Error()}
	}
	if p.Control.Get("Description") == "" {
		return &Refusal{name, "control file: no Description field; " +
			"describe the package in debian/control (Debian Policy 5.3)"}
	}
	for _, field := range []string{"Built-Using", "Static-Built-Using"} {
		v := p.Control.Get(field)
		if v == "" {
			continue
		}
		list, err := policy.ParseRelations(v)
		if err != nil {
			return &Refusal{name, fmt.Sprintf("control file: %s: %v", field, err)}
		}
		for _, alternatives := range list {
			if r := alternatives[0]; len(alternatives) > 1 || r.Op != "=" || policy.CheckSource(r.Name) != nil ||
				r.Qualifier != "" {
				return &Refusal{name, fmt.Sprintf("control file: %s: %q names no source package in one version; "+
					"write source (= version), as dh-golang and others do (Debian Policy 7.8)",
					field, v[:min(len(v), 80)])}
			}
		}
	}
	return nil
}

// FileName is the name that the package file must bear in an archive, such as
// hello_2.10-3_amd64.deb: the version has no epoch. The extension is "deb",
// "udeb" or another format's.
func (p *Package) FileName(ext string) string {
	return p.Name + "_" + policy.WithoutEpoch(p.Version) + "_" + p.Architecture + "." + ext
}

// IsFile reports whether a file is a binary package by its name: a .deb, a .udeb of
// the installer, or a .ddeb, which is what Ubuntu's debhelper calls a package of debug symbols.
func IsFile(name string) bool {
	return slices.Contains([]string{".deb", ".udeb", ".ddeb"}, filepath.Ext(name))
}

// CheckName says what is wrong with a package file of this name: its
// name must be the one that its control file gives.
func (p *Package) CheckName(name string) error {
	ext := "deb"
	if IsFile(name) {
		ext = filepath.Ext(name)[1:]
	}
	if want := p.FileName(ext); name != want {
		return &Refusal{name, fmt.Sprintf("its control file belongs to %s; "+
			"give the file that name, or build the package again", want)}
	}
	return nil
}
