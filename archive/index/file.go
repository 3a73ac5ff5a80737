package index

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"packmill/internal/compression"
)

// Sum is the SHA-256 and the size in bytes of a file.
type Sum struct {
	SHA256 string // lower-case hexadecimal
	Size   int64
}

// Place says where an index lives.
type Place struct {
	Format Format
	Cache  string // a path in the cache; suffixes are added
	Dir    string // dists/SUITE/DIR, where the named files are, e.g. .../main/binary-amd64
	Name   string // e.g. "Packages"
}

func (p Place) named(c compression.Kind) string { return filepath.Join(p.Dir, p.Name+c.Suffix()) }

// ByHash is the path of a published form under its checksum.
func (p Place) ByHash(sum string) string { return filepath.Join(p.Dir, "by-hash", "SHA256", sum) }

// HasPlain reports whether the plain text of that checksum is published, under
// both of its names.
func (p Place) HasPlain(sum string) bool {
	for _, path := range []string{p.ByHash(sum), p.named(compression.Plain)} {
		if _, err := os.Stat(path); err != nil {
			return false
		}
	}
	return true
}

// State is what a Release file says of an index: the plain text's sum, that of
// each published form, and that of the patches' Index.
type State struct {
	Text    Sum
	Forms   map[compression.Kind]Sum
	Patches Sum // of the Index of its patches, see Patch; zero: there is none
}

// piece is a block in one form: in memory while it is new, in the file of that
// form afterwards.
type piece struct {
	data     []byte // if new
	off, len int64
	crc      uint32
	plain    int64
	unpadded int64 // xz
}

func newPiece(data []byte, plain, unpadded int64) piece {
	return piece{data: data, len: int64(len(data)), crc: crc32.Checksum(data, castagnoli), plain: plain,
		unpadded: unpadded}
}

// block is a run of records. Its text lies in the cache's store.
type block struct {
	first string // key of the first record
	off   int64  // in the store
	len   int64
	crc   uint32
	sum   [sha256.Size]byte // of the text
	mid   []byte            // state of the text's SHA-256 before this block, or nil
	old   int               // its number in the published index, or -1
}

// form is a published form.
type form struct {
	c      compression.Kind
	sum    Sum
	pieces []piece
	mids   [][]byte // state of the SHA-256 before each piece
}

// File is one index as it is published, with the changes made to it since.
// Only one process at a time may use Edit and Write on an index; readers need
// no lock.
type File struct {
	place  Place
	state  State
	blocks []block
	was    []block // of the published text
	forms  []form
	st     *store
	dirty  bool
	last   int // block in text
	text   []byte
}

// ErrDamaged says that a published file is not what its Release says.
var ErrDamaged = errors.New("published index is damaged")

// Open reads the directory of the index that has the given state. If the cache
// does not know it, the cache is made again from the published files. The
// state of an index that is not there yet is the zero State.
func Open(ctx context.Context, place Place, state State) (*File, error) {
	x := &File{place: place, state: state, last: -1}
	if state.Text.SHA256 == "" {
		st, err := createStore(place.Cache)
		if err != nil {
			return nil, err
		}
		x.st, x.dirty = st, true
		return x, nil
	}
	if !x.readDirectory() {
		if err := x.rebuild(ctx); err != nil {
			return x, err
		}
	}
	x.was = slices.Clone(x.blocks)
	return x, nil
}

// Close releases the store.
func (x *File) Close() error {
	if x.st == nil {
		return nil
	}
	return x.st.close()
}

// Changed reports whether Write would publish something new.
func (x *File) Changed() bool { return x.dirty }

// Cached reports whether the next Open of the index as it was need not read it
// whole.
func (x *File) Cached() bool { return x.st.kept }

// rebuild reads a published form whole.
func (x *File) rebuild(ctx context.Context) error {
	text, err := x.place.Published(x.state)
	if err != nil {
		return err
	}
	defer text.Close()
	st, err := createStore(x.place.Cache)
	if err != nil {
		return err
	}
	x.st = st
	cut := &cutter{x: x}
	h := sha256.New()
	err = eachKey(x.place.Format, io.TeeReader(text, h), func(key, records []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return cut.add(key, records)
	})
	if err != nil {
		return fmt.Errorf("read %s: %w", x.place.named(compression.Plain), err)
	}
	if err := cut.flush(); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != x.state.Text.SHA256 {
		return fmt.Errorf("read %s: SHA-256 is %s: %w", x.place.named(compression.Plain), got, ErrDamaged)
	}
	x.blocks = cut.out
	x.forms = nil
	return nil
}

// Published opens the plain text of the index with this state from the
// cheapest form that is published.
func (p Place) Published(state State) (io.ReadCloser, error) {
	var errs []error
	for _, c := range Forms() {
		sum, ok := state.Forms[c]
		if !ok {
			continue
		}
		for _, path := range []string{p.ByHash(sum.SHA256), p.named(c)} {
			f, err := os.Open(path)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			if st, err := f.Stat(); err != nil || st.Size() != sum.Size {
				f.Close()
				errs = append(errs, fmt.Errorf("open %s: size is not %d: %w", path, sum.Size, ErrDamaged))
				continue
			}
			r, err := c.Reader(f)
			if err != nil {
				f.Close()
				errs = append(errs, fmt.Errorf("open %s: %w", path, err))
				continue
			}
			return unpacked{r, f}, nil
		}
	}
	if len(errs) == 0 {
		return nil, fmt.Errorf("open %s: no form of it is published: %w", p.named(compression.Plain), ErrDamaged)
	}
	return nil, errors.Join(errs...)
}

// unpacked is a form's plain text and its file.
type unpacked struct {
	io.ReadCloser
	file *os.File
}

func (u unpacked) Close() error { return errors.Join(u.ReadCloser.Close(), u.file.Close()) }

// eachKey reads records and calls do with all records of one key at a time.
func eachKey(f Format, r io.Reader, do func(key, records []byte) error) error {
	const chunk = 1 << 20
	buf := make([]byte, 0, 2*chunk)
	for eof := false; !eof; {
		if cap(buf)-len(buf) < chunk {
			buf = slices.Grow(buf, chunk+len(buf))
		}
		n, err := io.ReadFull(r, buf[len(buf):len(buf)+chunk])
		buf = buf[:len(buf)+n]
		switch {
		case err == io.EOF || err == io.ErrUnexpectedEOF:
			eof = true
		case err != nil:
			return err
		}
		rest := buf
		for len(rest) > 0 {
			key, records, after := f.nextKey(rest)
			if len(after) == 0 && !eof {
				break // more of it may come
			}
			if key == nil {
				return fmt.Errorf("a record without a key: %w", ErrDamaged)
			}
			if err := do(key, records); err != nil {
				return err
			}
			rest = after
		}
		buf = append(buf[:0], rest...)
	}
	return nil
}

// find returns the number of the block in which key stands or would stand.
func (x *File) find(key string) int {
	return max(0, sort.Search(len(x.blocks), func(i int) bool { return x.blocks[i].first > key })-1)
}

// read returns a block's text; it is valid until the next call.
func (x *File) read(i int) ([]byte, error) {
	if x.last == i {
		return x.text, nil
	}
	text, err := x.st.read(&x.blocks[i], x.text)
	if err != nil {
		x.last = -1
		return nil, err
	}
	x.text, x.last = text, i
	return text, nil
}

// Blocks is the number of blocks that the text is cut into.
func (x *File) Blocks() int { return len(x.blocks) }

// Block returns the text of one of them; it is valid until the next call of a
// method. Where blocks end follows from the text around it alone.
func (x *File) Block(i int) ([]byte, error) { return x.read(i) }

// BlockSum is the SHA-256 of the text of one of them, which need not be read for it.
func (x *File) BlockSum(i int) [sha256.Size]byte { return x.blocks[i].sum }

// Get returns all records of key, one after the other, or nil. They are valid
// until the next call of a method.
func (x *File) Get(key string) ([]byte, error) {
	if len(x.blocks) == 0 {
		return nil, nil
	}
	text, err := x.read(x.find(key))
	if err != nil {
		return nil, err
	}
	f := x.place.Format
	if f == Stanzas {
		// Few keys are asked for, so look for the text instead of cutting it.
		head := []byte("Package: " + key + "\n")
		for at := 0; ; {
			i := bytes.Index(text[at:], head)
			if i < 0 {
				return nil, nil
			}
			if i += at; i == 0 || text[i-1] == '\n' {
				_, records, _ := f.nextKey(text[i:])
				return records, nil
			}
			at = i + 1
		}
	}
	for len(text) > 0 {
		var k, records []byte
		k, records, text = f.nextKey(text)
		if c := strings.Compare(string(k), key); c == 0 {
			return records, nil
		} else if c > 0 {
			break
		}
	}
	return nil, nil
}

// WriteText writes the plain text of the index, some 200 KB at a time.
func (x *File) WriteText(w io.Writer) error {
	var buf []byte
	for i := range x.blocks {
		text, err := x.st.read(&x.blocks[i], buf)
		if err != nil {
			return err
		}
		buf = text
		if _, err := w.Write(text); err != nil {
			return err
		}
	}
	return nil
}

// All calls yield with all records of one key after the other, in order, and
// stops at its error. The slices are valid during the call.
func (x *File) All(yield func(key, records []byte) error) error {
	var buf []byte
	for i := range x.blocks {
		text, err := x.st.read(&x.blocks[i], buf)
		if err != nil {
			return err
		}
		buf = text
		for len(text) > 0 {
			var key, records []byte
			key, records, text = x.place.Format.nextKey(text)
			if err := yield(key, records); err != nil {
				return err
			}
		}
	}
	return nil
}
