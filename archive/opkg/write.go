package opkg

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/flate"
	"golang.org/x/sys/unix"
)

// memory is the name of the file in a generation in which this package notes
// what the generation was made from. Clients do not fetch it; without it the
// next publication takes longer.
//
// Lines: the format; "input", the sum of the input, the number of entries; "piece", the SHA-256 of a
// piece of Packages, its place and length in Packages.gz; "entry", the two sums
// of a mark and the length of the entry, in the order of Packages; "end".
const memory = ".made"

// last is the generation before, as far as it is known.
type last struct {
	marks    map[mark]span
	pieces   map[string]span
	packages *os.File
	packed   *os.File
}

func (l *last) close() {
	if l.packages != nil {
		l.packages.Close()
	}
	if l.packed != nil {
		l.packed.Close()
	}
}

// readInput reads only what the generation at dir was made from, and the number
// of its entries.
func readInput(dir string) (input string, entries int, err error) {
	f, err := os.Open(filepath.Join(dir, memory))
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	head := make([]byte, 256)
	n, err := f.Read(head)
	if err != nil {
		return "", 0, err
	}
	lines := strings.SplitN(string(head[:n]), "\n", 3)
	if len(lines) < 3 || lines[0] != format {
		return "", 0, fmt.Errorf("%s: damaged", f.Name())
	}
	_, err = fmt.Sscanf(lines[1], "input %s %d", &input, &entries)
	return input, entries, err
}

func readLast(dir string) (*last, error) {
	data, err := os.ReadFile(filepath.Join(dir, memory))
	if err != nil {
		return nil, err
	}
	damaged := fmt.Errorf("%s: damaged", filepath.Join(dir, memory))
	if !bytes.HasSuffix(data, []byte("\nend\n")) {
		return nil, damaged
	}
	l := &last{pieces: map[string]span{}, marks: make(map[mark]span, bytes.Count(data, []byte("\n")))}
	var at int64
	first := true
	for line := range bytes.Lines(data) {
		word, rest, _ := strings.Cut(strings.TrimSuffix(string(line), "\n"), " ")
		switch {
		case first:
			if word+" "+rest != format {
				return nil, damaged
			}
			first = false
		case word == "input":
		case word == "piece":
			var sum string
			var from, size int64
			if _, err := fmt.Sscanf(rest, "%s %d %d", &sum, &from, &size); err != nil {
				return nil, damaged
			}
			l.pieces[sum] = span{from, from + size}
		case word == "entry":
			var m mark
			if len(rest) < 98 {
				return nil, damaged
			}
			_, e1 := hex.Decode(m.stanza[:], []byte(rest[:32]))
			_, e2 := hex.Decode(m.deb[:], []byte(rest[33:97]))
			size, e3 := parseInt(rest[98:])
			if e1 != nil || e2 != nil || !e3 {
				return nil, damaged
			}
			l.marks[m] = span{at, at + size}
			at += size
		}
	}
	if l.packages, err = os.Open(filepath.Join(dir, "Packages")); err != nil {
		return nil, err
	}
	if l.packed, err = os.Open(filepath.Join(dir, "Packages.gz")); err != nil {
		l.close()
		return nil, err
	}
	if fi, err := l.packages.Stat(); err != nil || fi.Size() != at {
		l.close()
		return nil, damaged
	}
	return l, nil
}

func parseInt(s string) (int64, bool) {
	var n int64
	for _, c := range []byte(s) {
		if c < '0' || c > '9' || n > 1<<50 {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, s != ""
}

// write writes a generation into dir. Nothing is synced.
func (f *Feed) write(dir, input string, jobs []job, m *maker, now time.Time) error {
	plain, err := create(dir, "Packages")
	if err != nil {
		return err
	}
	defer plain.Close()
	packed, err := create(dir, "Packages.gz")
	if err != nil {
		return err
	}
	defer packed.Close()
	note, err := create(dir, memory)
	if err != nil {
		return err
	}
	defer note.Close()
	notes := bufio.NewWriterSize(note, 64<<10)
	fmt.Fprintf(notes, "%s\ninput %s %d\n", format, input, len(jobs))

	p := newPieces(plain, packed, m.old, notes)
	var buf, line []byte
	for i := 0; i < len(jobs); {
		// Entries that lie together are read together.
		s, n := jobs[i].text, 1
		for i+n < len(jobs) && jobs[i+n].fresh == jobs[i].fresh && jobs[i+n].text.from == s.to && s.to-s.from < 256<<10 {
			s.to = jobs[i+n].text.to
			n++
		}
		from := m.old.packages
		if jobs[i].fresh {
			from = m.entries
		}
		buf = slices.Grow(buf[:0], int(s.to-s.from))[:s.to-s.from]
		if _, err := from.ReadAt(buf, s.from); err != nil {
			return err
		}
		text := buf
		for _, j := range jobs[i : i+n] {
			size := j.text.to - j.text.from
			if err := p.entry(j.name, text[:size]); err != nil {
				return err
			}
			text = text[size:]
			line = append(line[:0], "entry "...)
			line = hex.AppendEncode(line, j.mark.stanza[:])
			line = hex.AppendEncode(append(line, ' '), j.mark.deb[:])
			line = fmt.Appendf(line, " %d\n", size)
			notes.Write(line)
		}
		i += n
	}
	if err := p.close(); err != nil {
		return err
	}
	notes.WriteString("end\n")
	for _, err := range []error{notes.Flush(), note.Close(), packed.Close()} {
		if err != nil {
			return err
		}
	}
	return f.sign(dir, plain, p.size, now)
}

func create(dir, name string) (*os.File, error) {
	return os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
}

// sign writes the signatures over the plain index.
func (f *Feed) sign(dir string, plain *os.File, size int64, now time.Time) error {
	if len(f.Usign) == 0 && len(f.OpenPGP) == 0 {
		return nil
	}
	var text []byte
	if size > 0 {
		// Both signatures need the text as one piece; it is in the page cache.
		var err error
		if text, err = unix.Mmap(int(plain.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED); err != nil {
			return fmt.Errorf("map %s: %w", plain.Name(), err)
		}
		defer unix.Munmap(text)
	}
	if len(f.Usign) > 0 {
		if err := os.WriteFile(filepath.Join(dir, "Packages.sig"), f.Usign[0].Sign(text), 0o644); err != nil {
			return err
		}
	}
	if len(f.OpenPGP) > 0 {
		sig, err := f.OpenPGP[0].Detach(text, now)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "Packages.asc"), sig, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// pieces writes Packages, and Packages.gz beside it. The gzip file is one
// member, as opkg needs it, but its deflate stream is made of pieces that do not
// look back beyond their beginning: a piece whose text was in the last
// generation too is copied from there. Where a piece ends follows from the text
// alone, so the file's bytes do not depend on how the feed came to be.
type pieces struct {
	plain, packed *bufio.Writer
	notes         *bufio.Writer
	old           *last
	buf           []byte // the piece so far
	out           bytes.Buffer
	deflate       *flate.Writer
	crc           hash.Hash32
	size          int64 // of Packages
	at            int64 // in Packages.gz
}

// A piece ends before a name when it has least bytes and the name's checksum
// says so, or when it has most.
const (
	leastPiece = 96 << 10
	mostPiece  = 384 << 10
)

// gzipHead is the header of a gzip member (RFC 1952) without name and time.
const gzipHead = "\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff"

func newPieces(plain, packed io.Writer, old *last, notes *bufio.Writer) *pieces {
	p := &pieces{plain: bufio.NewWriterSize(plain, 256<<10), packed: bufio.NewWriterSize(packed, 64<<10), notes: notes, old: old, crc: crc32.NewIEEE()}
	p.packed.WriteString(gzipHead)
	p.at = int64(len(gzipHead))
	return p
}

func (p *pieces) entry(name string, text []byte) error {
	if n := len(p.buf); n >= leastPiece && (n >= mostPiece || crc32.ChecksumIEEE([]byte(name))%64 == 0) {
		if err := p.cut(); err != nil {
			return err
		}
	}
	p.buf = append(p.buf, text...)
	p.crc.Write(text)
	p.size += int64(len(text))
	_, err := p.plain.Write(text)
	return err
}

// cut ends a piece.
func (p *pieces) cut() error {
	if len(p.buf) == 0 {
		return nil
	}
	sum := sha256.Sum256(p.buf)
	id := hex.EncodeToString(sum[:])
	var packed []byte
	if s, ok := p.old.pieces[id]; ok {
		packed = make([]byte, s.to-s.from)
		if _, err := p.old.packed.ReadAt(packed, s.from); err != nil {
			return err
		}
	} else {
		p.out.Reset()
		if p.deflate == nil {
			w, err := flate.NewWriter(&p.out, flate.BestCompression)
			if err != nil {
				return err
			}
			p.deflate = w
		} else {
			p.deflate.Reset(&p.out)
		}
		if _, err := p.deflate.Write(p.buf); err != nil {
			return err
		}
		// A flush ends on a byte's boundary, with an empty stored block.
		if err := p.deflate.Flush(); err != nil {
			return err
		}
		packed = p.out.Bytes()
		if !bytes.HasSuffix(packed, []byte("\x00\x00\xff\xff")) {
			return errors.New("compress: a flush did not end on a boundary")
		}
	}
	fmt.Fprintf(p.notes, "piece %s %d %d\n", id, p.at, len(packed))
	p.at += int64(len(packed))
	p.buf = p.buf[:0]
	_, err := p.packed.Write(packed)
	return err
}

func (p *pieces) close() error {
	if err := p.cut(); err != nil {
		return err
	}
	// The last block, empty and fixed; then checksum and size (RFC 1951, 1952).
	tail := []byte("\x03\x00")
	tail = binary.LittleEndian.AppendUint32(tail, p.crc.Sum32())
	tail = binary.LittleEndian.AppendUint32(tail, uint32(p.size))
	p.packed.Write(tail)
	if err := p.packed.Flush(); err != nil {
		return err
	}
	return p.plain.Flush()
}
