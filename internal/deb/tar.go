package deb

import (
	"archive/tar"
	"errors"
	"io"
	"strings"
	"unicode/utf8"

	"packmill/internal/compression"
)

// readControl unpacks control.tar, in which only plain files may lie, and parses
// the file "control".
func (p *Package) readControl(m *member, opt Options, lim *Limits) error {
	u, err := unpack(m, "control.tar", false, lim.Control, lim, opt.ControlTar)
	if err != nil {
		return err
	}
	defer u.r.Close()
	seen := make(map[string]bool, 8)
	err = walk(u, func(h *tar.Header, r io.Reader) error {
		name, err := cleanPath(h.Name)
		if err != nil {
			return err
		}
		switch {
		case h.Typeflag == tar.TypeDir && name == ".":
			return nil
		case h.Typeflag != tar.TypeReg, strings.Contains(name, "/"):
			return fault("%s holds %q, which is no plain file; build the package again with dpkg-deb", m.name, h.Name)
		case seen[name]:
			return fault("%s holds %q twice; build the package again with dpkg-deb", m.name, name)
		}
		seen[name] = true
		if name != "control" {
			return nil
		}
		if h.Size > maxStanza {
			return fault("%s: the control file has %d bytes, %d are allowed; shorten it", m.name, h.Size, maxStanza)
		}
		text := make([]byte, h.Size)
		if _, err := io.ReadFull(r, text); err != nil {
			return u.tarFault(err)
		}
		return p.parse(text)
	})
	if err != nil {
		return err
	}
	if p.Control == nil {
		return fault("%s holds no control file; build the package again with dpkg-deb", m.name)
	}
	return nil
}

const maxStanza = 1 << 20

// readData unpacks data.tar and lists it.
func (p *Package) readData(m *member, opt Options, lim *Limits) error {
	if opt.SkipContents && opt.DataTar == nil {
		_, err := packing(m, "data.tar", opt.Old)
		return err
	}
	keep := opt.KeepGzip && m.name == "data.tar.gz"
	if keep {
		opt.DataTar = nil
	}
	u, err := unpack(m, "data.tar", opt.Old, lim.Data, lim, opt.DataTar)
	if err != nil {
		return err
	}
	defer u.r.Close()
	if keep {
		compression.OneMember(u.r)
	}
	c := &contents{p: p, m: m, lim: lim, keep: !opt.SkipContents, seen: make(map[string]bool)}
	err = walk(u, func(h *tar.Header, _ io.Reader) error { return c.add(h) })
	if keep && m.left > 0 {
		return ErrGzips
	}
	return err
}

// contents lists data.tar.
type contents struct {
	p     *Package
	m     *member
	lim   *Limits
	keep  bool            // the list is wanted
	seen  map[string]bool // whether the path is that of something else than a directory
	text  int64           // bytes of names
	count int
}

// add judges one entry.
func (c *contents) add(h *tar.Header) error {
	path, err := cleanPath(h.Name)
	if err != nil {
		return err
	}
	e := Entry{Path: path, Type: h.Typeflag, Mode: uint32(h.Mode) & 0o7777, MTime: h.ModTime.Unix()}
	switch h.Typeflag {
	case tar.TypeReg:
		e.Size = h.Size
	case tar.TypeLink:
		if e.Link, err = cleanPath(h.Linkname); err != nil {
			return err
		}
	case tar.TypeSymlink:
		if e.Link = h.Linkname; e.Link == "" || !printable(e.Link) {
			return fault("%s: the symbolic link %q points to %q; use a target of printable UTF-8", c.m.name, path, e.Link)
		}
	case tar.TypeDir, tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
	default:
		return fault("%s: %q is of type %q, which dpkg does not unpack; build the package again with dpkg-deb",
			c.m.name, path, h.Typeflag)
	}
	c.count++
	c.text += int64(len(e.Path) + len(e.Link))
	if c.count > c.lim.Entries || c.text > c.lim.PathText {
		return fault("%s: lists more than %d files or %d bytes of names; split the package",
			c.m.name, c.lim.Entries, c.lim.PathText)
	}
	if isFile, twice := c.seen[path]; twice && (isFile || h.Typeflag != tar.TypeDir) {
		return fault("%s: lists %q twice; build the package again with dpkg-deb", c.m.name, path)
	}
	c.seen[path] = h.Typeflag != tar.TypeDir
	if c.keep {
		c.p.Contents = append(c.p.Contents, e)
	}
	return nil
}

// tarBlock is the unit of tar archives: two of zeros end one (tar(5)).
const tarBlock = 512

// walk calls f for each header of a tar archive in the formats that dpkg unpacks
// (V7, USTAR, GNU), and reads to the end of the member, where only zeros may be.
// archive/tar takes an archive that is cut behind the last byte of a file, which
// GNU tar and opkg's clients do not.
func walk(u *unpacker, f func(*tar.Header, io.Reader) error) error {
	tr := tar.NewReader(u)
	last := int64(0) // where the last entry ends, with its padding
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return u.tarFault(err)
		}
		if h.Format == tar.FormatPAX || h.Typeflag == tar.TypeXGlobalHeader {
			return fault("%s has PAX headers, which dpkg does not unpack; build the package again with dpkg-deb", u.m.name)
		}
		last = u.n
		if h.Typeflag == tar.TypeReg {
			last += (h.Size + tarBlock - 1) / tarBlock * tarBlock
		}
		if err := f(h, tr); err != nil {
			return err
		}
	}
	var buf [4096]byte
	for {
		n, err := u.Read(buf[:])
		for _, c := range buf[:n] {
			if c != 0 {
				return fault("%s goes on after the end of its archive; build the package again with dpkg-deb", u.m.name)
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if u.n%tarBlock != 0 || u.n < last+2*tarBlock {
		return fault("%s ends too early, without two blocks of zeros; build the package again with dpkg-deb", u.m.name)
	}
	if u.m.left > 0 {
		return fault("%s goes on after the end of its packed data; build the package again with dpkg-deb", u.m.name)
	}
	return nil
}

// tarFault says what archive/tar met: our trouble, a fault that was told
// already, or a damaged archive.
func (u *unpacker) tarFault(err error) error {
	if u.m.src.err != nil {
		return u.m.src.err
	}
	if e := (writeError{}); errors.As(err, &e) {
		return err
	}
	if e := errFault(""); errors.As(err, &e) {
		return e
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fault("%s ends too early; build the package again with dpkg-deb", u.m.name)
	}
	return fault("%s is no tar archive that dpkg unpacks; build the package again with dpkg-deb", u.m.name)
}

// cleanPath makes a path of a tar archive relative and plain: "./usr/bin/" is
// "usr/bin". What cannot be one line of an index, or leaves the root, is refused.
func cleanPath(name string) (string, error) {
	if !printable(name) {
		return "", fault("the file name %q has characters that are not printable UTF-8; "+
			"rename the file (Debian Policy 10.10)", name)
	}
	rest := strings.TrimPrefix(strings.TrimSuffix(name, "/"), "./")
	if rest == "." {
		return ".", nil
	}
	for part := range strings.SplitSeq(rest, "/") {
		if part == "" || part == "." || part == ".." {
			return "", fault("the file name %q is not a plain relative path; build the package again with dpkg-deb", name)
		}
	}
	return rest, nil
}

// printable reports whether s is UTF-8 without control characters.
func printable(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return false
		}
	}
	return true
}
