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
// disk. prefixed says that its first directory is the source tree (orig and native
// tarballs); else it is laid over the tree (debian.tar). When ctx ends it ends, and
// what it found is not all.
func list(ctx context.Context, r io.Reader, name string, size int64, prefixed bool, now time.Time, lim Limits) *listing {
	l := &listing{problems: map[string][]string{}}
	z, err := decompress(ctx, r, name, size, lim)
	if err != nil {
		l.cannot(ctx, name, err)
		return l
	}
	defer z.Close()
	var logical int64
	links := &linkNames{}
	tr := tar.NewReader(z)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			// What follows the end of the archive is read too, for the checksum at
			// the end of the stream stands behind it.
			_, err = io.Copy(io.Discard, z)
			if err == nil {
				break
			}
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			l.stop(ctx, name, err, lim)
			break
		}
		l.entries++
		logical += h.Size
		if l.entries > lim.Entries {
			l.addf("tar-size", "%s: it has more than %d entries; make it smaller, or ask for a higher limit", show(name), lim.Entries)
			break
		}
		if logical > lim.Unpacked {
			l.addf("tar-size", "%s: its files are of more than %d bytes together; make it smaller, or ask for a higher limit", show(name), lim.Unpacked)
			break
		}
		l.entry(h, name, prefixed, now, lim, links)
		if links.bytes > lim.Links {
			l.addf("tar-size", "%s: the names of its symbolic links are of more than %d bytes together; make them fewer, or ask for a higher limit", show(name), lim.Links)
			break
		}

		rest := h.Name
		if prefixed {
			_, rest, _ = strings.Cut(strings.TrimPrefix(rest, "./"), "/")
		}
		if h.Typeflag == tar.TypeReg {
			switch strings.TrimPrefix(rest, "./") {
			case "debian/changelog":
				l.changelog, err = io.ReadAll(io.LimitReader(tr, lim.Changelog))
			case "debian/control":
				l.control, err = io.ReadAll(io.LimitReader(tr, 1<<20))
			}
			if err != nil {
				l.stop(ctx, name, err, lim)
				break
			}
		}
	}
	if m, ok := z.(*meter); ok {
		l.unpacked = m.n
	}
	return l
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
		l.addf("tar-size", "%s: it unpacks to more than %d bytes, or to more than %d times its size; make it smaller, or ask for a higher limit", show(name), lim.Unpacked, lim.Ratio)
		return
	}
	l.addf("tar", "%s: it cannot be read to its end: %s; build the source package again", show(name), quoteErr(err))
}

func quoteErr(err error) string {
	s := strconv.QuoteToASCII(err.Error())
	return s[1 : len(s)-1]
}

// entry judges one member of a tarball.
func (l *listing) entry(h *tar.Header, name string, prefixed bool, now time.Time, lim Limits, links *linkNames) {
	tarball, member := show(name), quote(h.Name)
	bad := func(check, format string, args ...any) {
		l.addf(check, "%s: its member %s %s", tarball, member, fmt.Sprintf(format, args...))
	}
	switch {
	case len(h.Name) > lim.Name:
		bad("tar-name", "has a name of %d bytes, and %d are the limit; shorten it", len(h.Name), lim.Name)
		return // nothing else may look at such a name
	case len(h.Linkname) > lim.Name:
		bad("tar-name", "is a link to a name of %d bytes, and %d are the limit; shorten it", len(h.Linkname), lim.Name)
		return
	case h.Name == "":
		bad("tar-name", "has no name; pack the tarball again")
	case strings.HasPrefix(h.Name, "/"):
		bad("tar-name", "has an absolute name; pack the tarball again with relative names")
	case climbs(h.Name):
		bad("tar-name", "climbs out of the tree with \"..\"; pack the tarball again")
	case strings.ContainsFunc(h.Name, func(r rune) bool { return r < 0x20 || r == 0x7f }):
		bad("tar-name", "has a control character in its name; rename it")
	}
	clean := path.Clean("/" + h.Name)[1:]
	if dir := links.above(clean, false); dir != "" {
		bad("tar-name", "lies below %s, which the tarball makes a symbolic link; pack it again without the link", quote(dir))
	}

	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeDir:
	case tar.TypeSymlink:
		links.add(clean)
		rel := clean
		if prefixed {
			if _, rest, ok := strings.Cut(clean, "/"); ok {
				rel = rest
			}
		}
		if strings.HasPrefix(h.Linkname, "/") {
			bad("tar-link", "is a symbolic link to the absolute name %s; make it relative", quote(h.Linkname))
		} else if climbs(path.Join(path.Dir(rel), h.Linkname)) {
			bad("tar-link", "is a symbolic link out of the tree, to %s; make it point inside", quote(h.Linkname))
		}
	case tar.TypeLink:
		if strings.HasPrefix(h.Linkname, "/") || climbs(h.Linkname) {
			bad("tar-name", "is a hard link out of the tree, to %s; pack a copy of the file", quote(h.Linkname))
		}
		if dir := links.above(path.Clean("/" + h.Linkname)[1:], true); dir != "" {
			bad("tar-name", "is a hard link through the symbolic link %s; pack a copy of the file", quote(dir))
		}
	case tar.TypeXGlobalHeader:
		return // git-archive writes one
	case tar.TypeChar, tar.TypeBlock:
		bad("tar-type", "is a device; pack files, directories and symbolic links only")
	case tar.TypeFifo:
		bad("tar-fifo", "is a FIFO; let the build make it")
	default:
		bad("tar-type", "is of the unknown type %s; pack files, directories and symbolic links only", quote(string(rune(h.Typeflag))))
	}

	mode := h.Mode & 0o7777
	if h.Typeflag == tar.TypeDir && mode&0o700 != 0o700 {
		bad("tar-closed", "is a directory of mode %04o, in which its owner cannot work; give it mode 0755", mode)
	}
	if h.Typeflag == tar.TypeReg && mode&0o6000 != 0 {
		bad("tar-mode", "has mode %04o: set-user-ID or set-group-ID; remove the bit", mode)
	}
	if h.ModTime.After(now.Add(24 * time.Hour)) {
		bad("tar-future", "is dated %s, in the future; set the clock and pack the tarball again", stamp(h.ModTime))
	}
	if h.ModTime.Year() < 1975 {
		bad("tar-past", "is dated %s, before 1975; touch it and pack the tarball again", stamp(h.ModTime))
	}
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
	l := &listing{problems: map[string][]string{}}
	z, err := decompress(ctx, r, name, size, lim)
	if err != nil {
		l.cannot(ctx, name, err)
		return l
	}
	defer z.Close()
	br := bufio.NewReaderSize(z, 64<<10)
	var into *[]byte // where the added lines of the present file go
	limit := lim.Changelog
	var oldLeft, newLeft int64 // lines that the present hunk still has
	for {
		line, err := br.ReadSlice('\n')
		text := string(line)
		for errors.Is(err, bufio.ErrBufferFull) { // the rest of a very long line says nothing
			_, err = br.ReadSlice('\n')
		}
		if err != nil && !errors.Is(err, io.EOF) {
			l.stop(ctx, name, err, lim)
			return l
		}
		switch {
		case text == "":
		case oldLeft > 0 || newLeft > 0:
			switch text[0] {
			case '-':
				oldLeft--
			case '+':
				newLeft--
				if into != nil && int64(len(*into)+len(text)) < limit {
					*into = append(*into, text[1:]...)
				}
			case '\\':
			default:
				oldLeft--
				newLeft--
			}
		case strings.HasPrefix(text, "@@ "):
			oldLeft, newLeft = hunk(text)
		case strings.HasPrefix(text, "--- "), strings.HasPrefix(text, "+++ "):
			file, _, _ := strings.Cut(strings.TrimRight(text[4:], "\n"), "\t")
			l.entries++
			if file != "/dev/null" && (strings.HasPrefix(file, "/") || climbs(file)) {
				l.addf("tar-name", "%s: it changes the file %s outside of the tree; build the source package again", show(name), quote(file))
			}
			into = nil
			if _, rest, ok := strings.Cut(file, "/"); ok && text[0] == '+' {
				switch rest {
				case "debian/changelog":
					into, limit = &l.changelog, lim.Changelog
				case "debian/control":
					into, limit = &l.control, 1<<20
				}
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
	}
	if m, ok := z.(*meter); ok {
		l.unpacked = m.n
	}
	return l
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
