// Package compression is the table of the ways in which tarballs, packages and
// indexes are packed: how their names end, how their bytes begin, what reads
// them. What writes an index in blocks is a row of archive/index.
package compression

import (
	"bufio"
	"compress/bzip2"
	"errors"
	"io"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/mikelolasagasti/xz"
)

// A Kind is a compression. It is named as the settings name it.
type Kind string

const (
	Plain Kind = "plain"
	Zstd  Kind = "zst"
	Gzip  Kind = "gz"
	Xz    Kind = "xz"
	Bzip2 Kind = "bz2"
	Lzma  Kind = "lzma"
)

type row struct {
	kind   Kind
	magic  string
	source bool // dpkg-source accepts it in the formats 3.0
	deb    bool // dpkg-deb writes it
	// most is the memory, in bytes, that the highest level of the tool makes a
	// reader keep.
	most   int64
	reader func(most int64) (reader, error)
	idle   sync.Pool // readers that keep most
}

// table has the cheapest to read first.
var table = []*row{
	{kind: Plain, deb: true, reader: newPlain},
	{kind: Zstd, magic: "\x28\xb5\x2f\xfd", deb: true, most: 128 << 20, reader: newZstd},
	{kind: Gzip, magic: "\x1f\x8b", source: true, deb: true, reader: newGzip},
	{kind: Xz, magic: "\xfd7zXZ\x00", source: true, deb: true, most: 64 << 20, reader: newXz},
	{kind: Bzip2, magic: "BZh", source: true, reader: newBzip2},
	{kind: Lzma},
}

// Kinds are all that are read here, the cheapest to read first.
func Kinds() []Kind {
	var out []Kind
	for _, r := range table {
		if r.reader != nil {
			out = append(out, r.kind)
		}
	}
	return out
}

func (k Kind) row() *row {
	for _, r := range table {
		if r.kind == k {
			return r
		}
	}
	return &row{kind: k}
}

// Suffix is what the compression adds to a file's name, with its dot.
func (k Kind) Suffix() string {
	if k == Plain {
		return ""
	}
	return "." + string(k)
}

// Cut takes a compression's suffix off a name. A name without one is Plain.
func Cut(name string) (rest string, k Kind) {
	for _, r := range table {
		if rest, ok := strings.CutSuffix(name, r.kind.Suffix()); ok && r.kind != Plain {
			return rest, r.kind
		}
	}
	return name, Plain
}

// OfSource reports whether the tarballs of a source package may be packed so.
func (k Kind) OfSource() bool { return k.row().source }

// OfDeb reports whether dpkg-deb packs members so.
func (k Kind) OfDeb() bool { return k.row().deb }

// reader can begin anew with another stream. Making one is costly and using it
// again is cheap: an xz stream written by dpkg-deb asks for a dictionary of 8 MiB,
// however small it is.
type reader interface {
	io.Reader
	Reset(io.Reader) error
}

// lent goes back to where it was idle when it is closed.
type lent struct {
	reader
	idle *sync.Pool
}

func (l *lent) Close() error {
	if l.reader != nil {
		l.Reset(io.LimitReader(nil, 0)) // lets go of the stream; its error says that nothing follows
		if l.idle != nil {
			l.idle.Put(l.reader)
		}
		l.reader = nil
	}
	return nil
}

// Reader returns a reader of what r compresses. It keeps no more memory than the
// highest level of the tool wants, and nothing after Close.
func (k Kind) Reader(r io.Reader) (io.ReadCloser, error) {
	row := k.row()
	if have, ok := row.idle.Get().(reader); ok {
		return begin(&lent{have, &row.idle}, r)
	}
	made, err := k.make(row.most)
	if err != nil {
		return nil, err
	}
	return begin(&lent{made, &row.idle}, r)
}

// ReaderWithin is Reader with another bound of the memory, in bytes.
func (k Kind) ReaderWithin(r io.Reader, most int64) (io.ReadCloser, error) {
	made, err := k.make(most)
	if err != nil {
		return nil, err
	}
	return begin(&lent{made, nil}, r)
}

// OneMember has a reader of Gzip end with the first member, of which there may be
// several.
func OneMember(r io.ReadCloser) {
	if l, ok := r.(*lent); ok {
		if z, ok := l.reader.(interface{ Multistream(bool) }); ok {
			z.Multistream(false)
		}
	}
}

func begin(l *lent, r io.Reader) (io.ReadCloser, error) {
	if err := l.Reset(r); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

func (k Kind) make(most int64) (reader, error) {
	if row := k.row(); row.reader != nil {
		return row.reader(most)
	}
	return nil, errors.New("this compression is not read here; use xz or gzip")
}

// Sniff is Reader with the compression that the first bytes show.
func Sniff(r io.Reader) (io.ReadCloser, error) {
	head := bufio.NewReaderSize(r, 64<<10)
	first, err := head.Peek(6)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	k := Plain
	for _, r := range table {
		if r.magic != "" && strings.HasPrefix(string(first), r.magic) {
			k = r.kind
		}
	}
	return k.Reader(head)
}

// EndsEarly reports whether a reader's error says that the stream is truncated.
func EndsEarly(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, xz.ErrBuf)
}

// TooLarge reports whether a reader's error says that the stream wants more
// memory than the reader may keep.
func TooLarge(err error) bool {
	return errors.Is(err, xz.ErrMemlimit) || errors.Is(err, zstd.ErrWindowSizeExceeded) ||
		errors.Is(err, zstd.ErrDecoderSizeExceeded)
}

type plain struct{ io.Reader }

func newPlain(int64) (reader, error) { return new(plain), nil }

func (p *plain) Reset(r io.Reader) error {
	p.Reader = r
	return nil
}

func newGzip(int64) (reader, error) { return new(gzip.Reader), nil }

func newXz(most int64) (reader, error) { return xz.NewReader(nil, uint32(min(most, 1<<31))) }

// newZstd works in one goroutine, the caller's.
func newZstd(most int64) (reader, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(uint64(most)))
}

type bzip struct{ io.Reader }

func newBzip2(int64) (reader, error) { return new(bzip), nil }

func (b *bzip) Reset(r io.Reader) error {
	b.Reader = bzip2.NewReader(r)
	return nil
}
