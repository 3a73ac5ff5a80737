package upload

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
	"time"

	"packmill/internal/bound"
	"packmill/internal/compression"
)

// listing is what one pass over a tarball, or over a diff, found. Problems are kept by
// the name of the check that reports them.
type listing struct {
	ended     error // its context's, if that ended before the listing did
	problems  map[string][]string
	entries   int
	unpacked  int64
	changelog []byte // the beginning of debian/changelog, nil if there is none
	control   []byte // debian/control, likewise
}

func (l *listing) addf(check, format string, args ...any) {
	if len(l.problems[check]) < maxTexts+1 {
		l.problems[check] = append(l.problems[check], fmt.Sprintf(format, args...))
	}
}

var errBomb = errors.New("unpacked too much")

// meter counts what comes out of a decompressor and stops a bomb.
type meter struct {
	io.Closer
	r     io.Reader
	n     int64
	limit int64
	ratio int64 // bytes that may come out once grace is passed
}

const grace = 64 << 20

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.n += int64(n)
	if m.n > m.limit || m.n > grace && m.n > m.ratio {
		return n, errBomb
	}
	return n, err
}

// decompress opens the compression that a file's name says. size is that of the packed
// file. The reader ends when ctx does, or at a limit.
func decompress(ctx context.Context, r io.Reader, name string, size int64, lim Limits) (io.ReadCloser, error) {
	_, packed := compression.Cut(name)
	if packed == compression.Plain {
		return nil, errors.New("this compression is not read here; use xz or gzip")
	}
	z, err := packed.ReaderWithin(bufio.NewReaderSize(bound.Reader(ctx, r), 256<<10), lim.Dict)
	if err != nil {
		return nil, err
	}
	return &meter{z, bound.Reader(ctx, z), 0, lim.Unpacked, max(size, 1) * lim.Ratio}, nil
}

// prefixed reports whether a tarball's first directory is the source tree; else
// it is laid over the tree.
func prefixed(name string) bool { return !strings.Contains(name, ".debian.tar.") }

// listsLike reports whether a tarball's listing is the same under both limits.
func (l Limits) listsLike(o Limits) bool {
	l.Files, l.FileSize, l.Size, l.Age, l.Words, l.Time = o.Files, o.FileSize, o.Size, o.Age, o.Words, o.Time
	return l == o
}

// list reads a tarball of a source package in process and keeps nothing of it on
// disk. When ctx ends it ends, and what it found is not all.
func list(ctx context.Context, r io.Reader, name string, size int64, now time.Time, lim Limits) *listing {
	t := &tarball{
		listing: &listing{problems: map[string][]string{}},
		name:    name, prefixed: prefixed(name), now: now, lim: lim,
	}
	z, err := decompress(ctx, r, name, size, lim)
	if err != nil {
		t.cannot(ctx, name, err)
		return t.listing
	}
	defer z.Close()
	if err := t.read(z); err != nil {
		t.stop(ctx, name, err, lim)
	}
	if m, ok := z.(*meter); ok {
		t.unpacked = m.n
	}
	return t.listing
}

// tarball is a tarball while it is listed.
type tarball struct {
	*listing
	name     string
	prefixed bool // its first directory is the source tree (orig and native); else it is laid over the tree
	now      time.Time
	lim      Limits
	logical  int64 // bytes of its files, by their headers
	links    linkNames
}

// read judges each member and keeps the papers of debian/, to the end or to a limit.
func (t *tarball) read(z io.Reader) error {
	for tr := tar.NewReader(z); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			// What follows the end of the archive is read too, for the checksum at
			// the end of the stream stands behind it.
			_, err = io.Copy(io.Discard, z)
			if err == nil {
				return nil
			}
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return err
		}
		t.entries++
		t.logical += h.Size
		if t.entries > t.lim.Entries {
			t.large("it has more than %d entries; make it smaller", t.lim.Entries)
			return nil
		}
		if t.logical > t.lim.Unpacked {
			t.large("its files are of more than %d bytes together; make it smaller", t.lim.Unpacked)
			return nil
		}
		t.entry(h)
		if t.links.bytes > t.lim.Links {
			t.large("the names of its symbolic links are of more than %d bytes together; make them fewer", t.lim.Links)
			return nil
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		switch strings.TrimPrefix(t.inTree(h.Name), "./") {
		case "debian/changelog":
			t.changelog, err = io.ReadAll(io.LimitReader(tr, t.lim.Changelog))
		case "debian/control":
			t.control, err = io.ReadAll(io.LimitReader(tr, 1<<20))
		}
		if err != nil {
			return err
		}
	}
}

func (t *tarball) large(format string, limit any) {
	t.addf("tar-size", "%s: %s, or ask for a higher limit", show(t.name), fmt.Sprintf(format, limit))
}

// linkNames are the symbolic links that a tarball has made so far.
type linkNames struct {
	names map[string]bool
	bytes int64 // of the names
}

func (k *linkNames) add(name string) {
	if k.names == nil {
		k.names = map[string]bool{}
	}
	if !k.names[name] {
		k.names[name] = true
		k.bytes += int64(len(name))
	}
}

// above gives the directory above a clean name that is such a link, or "": of the
// name itself too if self is set.
func (k *linkNames) above(name string, self bool) string {
	if len(k.names) == 0 {
		return ""
	}
	if self && k.names[name] {
		return name
	}
	for i := len(name) - 1; i > 0; i-- {
		if name[i] == '/' && k.names[name[:i]] {
			return name[:i]
		}
	}
	return ""
}

// cannot says why a file could not be unpacked at all.
func (l *listing) cannot(ctx context.Context, name string, err error) {
	if l.ended = context.Cause(ctx); l.ended == nil {
		l.addf("tar", "%s: it cannot be unpacked: %s; build the source package again", show(name), quoteErr(err))
	}
}

func (l *listing) stop(ctx context.Context, name string, err error, lim Limits) {
	if l.ended = context.Cause(ctx); l.ended != nil {
		return
	}
	if errors.Is(err, errBomb) {
		l.addf("tar-size", "%s: it unpacks to more than %d bytes, or to more than %d times its size; make it smaller, "+
			"or ask for a higher limit", show(name), lim.Unpacked, lim.Ratio)
		return
	}
	l.addf("tar", "%s: it cannot be read to its end: %s; build the source package again", show(name), quoteErr(err))
}

func quoteErr(err error) string {
	s := strconv.QuoteToASCII(err.Error())
	return s[1 : len(s)-1]
}

// entry judges one member of a tarball.
func (t *tarball) entry(h *tar.Header) {
	if !t.nameFits(h) {
		return // nothing else may look at such a name
	}
	clean := path.Clean("/" + h.Name)[1:]
	if dir := t.links.above(clean, false); dir != "" {
		t.bad(h, "tar-name", "lies below %s, which the tarball makes a symbolic link; pack it again without the link",
			quote(dir))
	}
	if h.Typeflag == tar.TypeXGlobalHeader {
		return // git-archive writes one
	}
	t.kind(h, clean)
	mode := h.Mode & 0o7777
	if h.Typeflag == tar.TypeDir && mode&0o700 != 0o700 {
		t.bad(h, "tar-closed", "is a directory of mode %04o, in which its owner cannot work; give it mode 0755", mode)
	}
	if h.Typeflag == tar.TypeReg && mode&0o6000 != 0 {
		t.bad(h, "tar-mode", "has mode %04o: set-user-ID or set-group-ID; remove the bit", mode)
	}
	if h.ModTime.After(t.now.Add(24 * time.Hour)) {
		t.bad(h, "tar-future", "is dated %s, in the future; set the clock and pack the tarball again", when(h.ModTime))
	}
	if h.ModTime.Year() < 1975 {
		t.bad(h, "tar-past", "is dated %s, before 1975; touch it and pack the tarball again", when(h.ModTime))
	}
}

func (t *tarball) bad(h *tar.Header, check, format string, args ...any) {
	t.addf(check, "%s: its member %s %s", show(t.name), quote(h.Name), fmt.Sprintf(format, args...))
}

// nameFits judges a member's name. It reports false for one that is over the limit.
func (t *tarball) nameFits(h *tar.Header) bool {
	switch {
	case len(h.Name) > t.lim.Name:
		t.bad(h, "tar-name", "has a name of %d bytes, and %d are the limit; shorten it", len(h.Name), t.lim.Name)
		return false
	case len(h.Linkname) > t.lim.Name:
		t.bad(h, "tar-name", "is a link to a name of %d bytes, and %d are the limit; shorten it", len(h.Linkname), t.lim.Name)
		return false
	case h.Name == "":
		t.bad(h, "tar-name", "has no name; pack the tarball again")
	case strings.HasPrefix(h.Name, "/"):
		t.bad(h, "tar-name", "has an absolute name; pack the tarball again with relative names")
	case climbs(h.Name):
		t.bad(h, "tar-name", "climbs out of the tree with \"..\"; pack the tarball again")
	case strings.ContainsFunc(h.Name, func(r rune) bool { return r < 0x20 || r == 0x7f }):
		t.bad(h, "tar-name", "has a control character in its name; rename it")
	}
	return true
}

// kind judges what a member is, and where a link leads; clean is its name.
func (t *tarball) kind(h *tar.Header, clean string) {
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeDir:
	case tar.TypeSymlink:
		t.links.add(clean)
		if strings.HasPrefix(h.Linkname, "/") {
			t.bad(h, "tar-link", "is a symbolic link to the absolute name %s; make it relative", quote(h.Linkname))
		} else if climbs(path.Join(path.Dir(t.inTree(clean)), h.Linkname)) {
			t.bad(h, "tar-link", "is a symbolic link out of the tree, to %s; make it point inside", quote(h.Linkname))
		}
	case tar.TypeLink:
		if strings.HasPrefix(h.Linkname, "/") || climbs(h.Linkname) {
			t.bad(h, "tar-name", "is a hard link out of the tree, to %s; pack a copy of the file", quote(h.Linkname))
		}
		if dir := t.links.above(path.Clean("/" + h.Linkname)[1:], true); dir != "" {
			t.bad(h, "tar-name", "is a hard link through the symbolic link %s; pack a copy of the file", quote(dir))
		}
	case tar.TypeChar, tar.TypeBlock:
		t.bad(h, "tar-type", "is a device; pack files, directories and symbolic links only")
	case tar.TypeFifo:
		t.bad(h, "tar-fifo", "is a FIFO; let the build make it")
	default:
		t.bad(h, "tar-type", "is of the unknown type %s; pack files, directories and symbolic links only",
			quote(string(rune(h.Typeflag))))
	}
}

// inTree is a member's name inside the source tree.
func (t *tarball) inTree(name string) string {
	if _, rest, ok := strings.Cut(strings.TrimPrefix(name, "./"), "/"); ok && t.prefixed {
		return rest
	}
	return name
}

// climbs reports whether a relative name has a component "..", or starts with one.
func climbs(name string) bool {
	for c := range strings.SplitSeq(name, "/") {
		if c == ".." {
			return true
		}
	}
	return false
}

// listDiff reads the .diff.gz of a source package of format 1.0: the names that it
// changes, and the changelog if it makes one.
func listDiff(ctx context.Context, r io.Reader, name string, size int64, lim Limits) *listing {
	d := &diff{listing: &listing{problems: map[string][]string{}}, name: name, lim: lim}
	z, err := decompress(ctx, r, name, size, lim)
	if err != nil {
		d.cannot(ctx, name, err)
		return d.listing
	}
	defer z.Close()
	br := bufio.NewReaderSize(z, 64<<10)
	for err == nil {
		var line []byte
		line, err = br.ReadSlice('\n')
		text := string(line)
		for errors.Is(err, bufio.ErrBufferFull) { // the rest of a very long line says nothing
			_, err = br.ReadSlice('\n')
		}
		if err != nil && !errors.Is(err, io.EOF) {
			d.stop(ctx, name, err, lim)
			return d.listing
		}
		if text != "" {
			d.line(text)
		}
	}
	if m, ok := z.(*meter); ok {
		d.unpacked = m.n
	}
	return d.listing
}

// diff is a .diff.gz while it is listed.
type diff struct {
	*listing
	name     string
	lim      Limits
	into     *[]byte // where the added lines of the present file go
	limit    int64   // of them
	old, new int64   // lines that the present hunk still has
}

func (d *diff) line(text string) {
	switch {
	case d.old > 0 || d.new > 0:
		d.inHunk(text)
	case strings.HasPrefix(text, "@@ "):
		d.old, d.new = hunk(text)
	case strings.HasPrefix(text, "--- "), strings.HasPrefix(text, "+++ "):
		name, _, _ := strings.Cut(strings.TrimRight(text[4:], "\n"), "\t")
		d.file(name, text[0] == '+')
	}
}

func (d *diff) inHunk(text string) {
	switch text[0] {
	case '-':
		d.old--
	case '+':
		d.new--
		if d.into != nil && int64(len(*d.into)+len(text)) < d.limit {
			*d.into = append(*d.into, text[1:]...)
		}
	case '\\':
	default:
		d.old--
		d.new--
	}
}

// file judges the name of a file that the diff changes, or makes.
func (d *diff) file(name string, made bool) {
	d.entries++
	if name != "/dev/null" && (strings.HasPrefix(name, "/") || climbs(name)) {
		d.addf("tar-name", "%s: it changes the file %s outside of the tree; build the source package again",
			show(d.name), quote(name))
	}
	d.into = nil
	if _, rest, ok := strings.Cut(name, "/"); ok && made {
		switch rest {
		case "debian/changelog":
			d.into, d.limit = &d.changelog, d.lim.Changelog
		case "debian/control":
			d.into, d.limit = &d.control, 1<<20
		}
	}
}

// hunk reads how many old and new lines follow "@@ -1,3 +1,4 @@"; a missing count is 1.
func hunk(line string) (old, new int64) {
	w := strings.Split(line, " ")
	if len(w) < 3 {
		return 0, 0
	}
	count := func(s string) int64 {
		_, n, ok := strings.Cut(s, ",")
		if !ok {
			return 1
		}
		v, err := strconv.ParseInt(n, 10, 32)
		if err != nil || v < 0 {
			return 0
		}
		return v
	}
	return count(w[1]), count(w[2])
}
