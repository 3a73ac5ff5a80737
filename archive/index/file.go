package index

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"packmill/spool/durable"
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

func (p Place) named(c Compression) string { return filepath.Join(p.Dir, p.Name+c.Suffix()) }

// ByHash is the path of a published form under its checksum.
func (p Place) ByHash(sum string) string { return filepath.Join(p.Dir, "by-hash", "SHA256", sum) }

// State is what a Release file says of an index: the plain text's sum, and
// that of each published form.
type State struct {
	Text  Sum
	Forms map[Compression]Sum
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
	return piece{data: data, len: int64(len(data)), crc: crc32.Checksum(data, castagnoli), plain: plain, unpadded: unpadded}
}

// block is a run of records. Its text lies in the cache's store.
type block struct {
	first string // key of the first record
	off   int64  // in the store
	len   int64
	crc   uint32
	mid   []byte // state of the text's SHA-256 before this block, or nil
	old   int    // its number in the published index, or -1
}

// form is a published form.
type form struct {
	c      Compression
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
	if x.readDirectory() {
		return x, nil
	}
	return x, x.rebuild(ctx)
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

// Fresh returns the size of the text that Write would compress.
func (x *File) Fresh() int64 {
	var n int64
	for i := range x.blocks {
		if x.blocks[i].old < 0 {
			n += x.blocks[i].len
		}
	}
	return n
}

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
		return fmt.Errorf("read %s: %w", x.place.named(Plain), err)
	}
	if err := cut.flush(); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != x.state.Text.SHA256 {
		return fmt.Errorf("read %s: SHA-256 is %s: %w", x.place.named(Plain), got, ErrDamaged)
	}
	x.blocks = cut.out
	x.forms = nil
	return nil
}

// Published opens the plain text of the index with this state from the
// cheapest form that is published.
func (p Place) Published(state State) (io.ReadCloser, error) {
	var errs []error
	for _, c := range []Compression{Plain, Zstd, Gzip, Xz} {
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
			return struct {
				io.Reader
				io.Closer
			}{r, f}, nil
		}
	}
	if len(errs) == 0 {
		return nil, fmt.Errorf("open %s: no form of it is published: %w", p.named(Plain), ErrDamaged)
	}
	return nil, errors.Join(errs...)
}

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

// cutter makes blocks of records that come in order.
type cutter struct {
	x     *File
	out   []block
	first string
	text  []byte
}

func (c *cutter) add(key, records []byte) error {
	if c.x.place.Format.cutsAt(len(c.text), key) {
		if err := c.flush(); err != nil {
			return err
		}
	}
	if len(c.text) == 0 {
		c.first = string(key)
	}
	c.text = append(c.text, records...)
	return nil
}

func (c *cutter) flush() error {
	if len(c.text) == 0 {
		return nil
	}
	off, err := c.x.st.add(c.text)
	if err != nil {
		return err
	}
	c.out = append(c.out, block{first: c.first, off: off, len: int64(len(c.text)),
		crc: crc32.Checksum(c.text, castagnoli), old: -1})
	c.text = c.text[:0]
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

// Edit replaces the records of each key; a key without records is removed. The
// records must be in the format and bear their key. The change is in memory
// and in the cache until Write.
func (x *File) Edit(edits map[string][]byte) error {
	keys := make([]string, 0, len(edits))
	for k := range edits {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return x.Merge(keys, func(key string, _ []byte) []byte { return edits[key] })
}

// Merge is Edit for changes that depend on what is there: merge gets the records
// of each key, or nil, and returns what shall be there instead. The keys must be
// sorted, each once. What merge got is valid during its call.
func (x *File) Merge(keys []string, merge func(key string, old []byte) []byte) error {
	if len(keys) == 0 {
		return nil
	}
	f := x.place.Format
	old := x.blocks
	cut := &cutter{x: x}
	changed := false
	// put adds the records of a key that is not there yet.
	put := func(k string) error {
		records := merge(k, nil)
		if len(records) == 0 {
			return nil
		}
		changed = true
		return cut.add([]byte(k), records)
	}
	for i := 0; i < len(old) || len(keys) > 0; {
		if i == len(old) {
			for _, k := range keys {
				if err := put(k); err != nil {
					return err
				}
			}
			break
		}
		// The keys that belong into block i: those before the next block.
		n := len(keys)
		if i+1 < len(old) {
			n = sort.SearchStrings(keys, old[i+1].first)
		}
		here := keys[:n]
		whole := len(cut.text) == 0 || f.cutsAt(len(cut.text), []byte(old[i].first))
		// If the next block loses its first key, where this one ends is to be
		// decided again.
		next := i+1 < len(old) && len(keys) > 0 && keys[0] == old[i+1].first
		if n == 0 && whole && !next {
			if err := cut.flush(); err != nil {
				return err
			}
			cut.out = append(cut.out, old[i])
			i++
			continue
		}
		text, err := x.st.read(&old[i], nil)
		if err != nil {
			return err
		}
		for len(text) > 0 {
			key, records, rest := f.nextKey(text)
			text = rest
			for len(here) > 0 && here[0] < string(key) {
				if err := put(here[0]); err != nil {
					return err
				}
				here = here[1:]
			}
			if len(here) > 0 && here[0] == string(key) {
				now := merge(here[0], records)
				if !bytes.Equal(now, records) {
					changed = true
				}
				records = now
				here = here[1:]
			}
			if len(records) > 0 {
				if err := cut.add(key, records); err != nil {
					return err
				}
			}
		}
		for _, k := range here {
			if err := put(k); err != nil {
				return err
			}
		}
		keys = keys[n:]
		i++
	}
	if err := cut.flush(); err != nil {
		return err
	}
	x.last = -1
	if !changed {
		return nil
	}
	x.dirty = true
	x.blocks = cut.out
	return x.reuse(old)
}

// reuse puts blocks of old in the place of new ones that are the same, so that
// they need not be compressed again.
func (x *File) reuse(old []block) error {
	var a, b []byte
	for i := range x.blocks {
		n := &x.blocks[i]
		if n.old >= 0 {
			continue
		}
		j, ok := slices.BinarySearchFunc(old, n.first, func(o block, first string) int { return strings.Compare(o.first, first) })
		if !ok || old[j].len != n.len || old[j].crc != n.crc || old[j].old < 0 {
			continue
		}
		var err error
		if a, err = x.st.read(n, a); err != nil {
			return err
		}
		if b, err = x.st.read(&old[j], b); err != nil {
			return err
		}
		if bytes.Equal(a, b) {
			*n = old[j]
		}
	}
	return nil
}

// Write publishes the index under its checksums, in the given forms, and
// returns its new state. The named files are left as they are: Link does that
// later, when all indexes of the suite are there. What Write made is synced.
func (x *File) Write(ctx context.Context, forms []Compression) (State, error) {
	if err := x.sumText(); err != nil {
		return State{}, err
	}
	var fs []form
	for _, c := range forms {
		f, err := x.writeForm(ctx, c)
		if err != nil {
			return State{}, fmt.Errorf("write %s: %w", x.place.named(c), err)
		}
		fs = append(fs, f)
	}
	if err := durable.SyncDir(filepath.Dir(x.place.ByHash("x"))); err != nil {
		return State{}, err
	}
	x.forms = fs
	x.state.Forms = map[Compression]Sum{}
	for i := range fs {
		x.state.Forms[fs[i].c] = fs[i].sum
	}
	for i := range x.blocks {
		x.blocks[i].old = i
	}
	x.dirty = false
	return x.state, nil
}

// Forms reports whether the index is published in exactly these forms.
func (x *File) Forms(forms []Compression) bool {
	if len(x.state.Forms) != len(forms) {
		return false
	}
	for _, c := range forms {
		if _, ok := x.state.Forms[c]; !ok {
			return false
		}
	}
	return true
}

func saveHash(h hash.Hash) ([]byte, error) { return h.(encoding.BinaryMarshaler).MarshalBinary() }

func loadHash(mid []byte) (hash.Hash, error) {
	h := sha256.New()
	return h, h.(encoding.BinaryUnmarshaler).UnmarshalBinary(mid)
}

// sumText hashes the text, from the first block on that is new.
func (x *File) sumText() error {
	h := sha256.New()
	i := 0
	for i < len(x.blocks) && x.blocks[i].old == i && x.blocks[i].mid != nil {
		i++
	}
	if i > 0 {
		i-- // the state before the last block that has kept its place
		var err error
		if h, err = loadHash(x.blocks[i].mid); err != nil {
			return err
		}
	}
	var size int64
	for j := range x.blocks[:i] {
		size += x.blocks[j].len
	}
	var buf []byte
	for ; i < len(x.blocks); i++ {
		b := &x.blocks[i]
		mid, err := saveHash(h)
		if err != nil {
			return err
		}
		b.mid = mid
		text, err := x.st.read(b, buf)
		if err != nil {
			return err
		}
		buf = text
		h.Write(text)
		size += b.len
	}
	x.state.Text = Sum{hex.EncodeToString(h.Sum(nil)), size}
	return nil
}

// writeForm writes one compressed file under its checksum.
func (x *File) writeForm(ctx context.Context, c Compression) (form, error) {
	out := form{c: c, pieces: make([]piece, len(x.blocks)), mids: make([][]byte, len(x.blocks))}
	var old *form
	for i := range x.forms {
		if x.forms[i].c == c {
			old = &x.forms[i]
		}
	}
	var was *os.File
	if old != nil {
		f, err := os.Open(x.place.ByHash(old.sum.SHA256))
		if err == nil {
			was = f
			defer f.Close()
		} else {
			old = nil
		}
	}
	var fresh []int
	var texts []source
	for i := range x.blocks {
		b := &x.blocks[i]
		switch {
		case old != nil && b.old >= 0:
			out.pieces[i] = old.pieces[b.old]
		case c == Plain:
			out.pieces[i] = piece{len: b.len, plain: b.len, crc: b.crc}
		default:
			fresh = append(fresh, i)
			texts = append(texts, func() ([]byte, error) { return x.st.read(b, nil) })
		}
	}
	made, err := compressAll(ctx, c, texts)
	if err != nil {
		return out, err
	}
	for i, p := range made {
		out.pieces[fresh[i]] = p
	}

	dir := filepath.Dir(x.place.ByHash("x"))
	if err := durable.MkdirAll(dir, 0o755); err != nil {
		return out, err
	}
	tmp, err := os.CreateTemp(dir, ".new-")
	if err != nil {
		return out, err
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	// The states before the first new piece are known.
	keep := 0
	if old != nil {
		for keep < len(x.blocks) && x.blocks[keep].old == keep && len(old.mids[keep]) > 0 {
			keep++
		}
		keep = max(0, keep-1)
	}
	h := sha256.New()
	var at int64
	emit := func(data []byte, known bool) error {
		if !known {
			h.Write(data)
		}
		at += int64(len(data))
		_, err := tmp.Write(data)
		return err
	}
	head := c.head()
	if err := emit(head, false); err != nil {
		return out, err
	}
	var buf []byte
	for i := range out.pieces {
		p := &out.pieces[i]
		if i == keep && keep > 0 {
			if h, err = loadHash(old.mids[i]); err != nil {
				return out, err
			}
		}
		if i < keep {
			out.mids[i] = old.mids[i]
		} else if out.mids[i], err = saveHash(h); err != nil {
			return out, err
		}
		data := p.data
		switch {
		case data != nil:
		case old != nil && x.blocks[i].old >= 0:
			buf = slices.Grow(buf[:0], int(p.len))[:p.len]
			if _, err := was.ReadAt(buf, p.off); err != nil {
				return out, fmt.Errorf("read %s: %w", was.Name(), err)
			}
			if crc32.Checksum(buf, castagnoli) != p.crc {
				return out, fmt.Errorf("read %s at %d: %w (remove the cache, and it is made again)", was.Name(), p.off, ErrDamaged)
			}
			data = buf
		default: // plain
			if data, err = x.st.read(&x.blocks[i], buf); err != nil {
				return out, err
			}
			buf = data
		}
		p.off, p.data = at, nil
		if err := emit(data, i < keep); err != nil {
			return out, err
		}
	}
	tail, err := c.tail(out.pieces)
	if err != nil {
		return out, err
	}
	if err := emit(tail, false); err != nil {
		return out, err
	}
	out.sum = Sum{hex.EncodeToString(h.Sum(nil)), at}
	if err := tmp.Chmod(0o644); err != nil {
		return out, err
	}
	if err := durable.SyncFile(tmp); err != nil {
		return out, err
	}
	// The name says the content, so what is there already is the same; if it
	// has another size it is the remains of an accident.
	to := x.place.ByHash(out.sum.SHA256)
	if st, err := os.Stat(to); err == nil {
		if st.Size() == at {
			return out, nil
		}
		if err := os.Remove(to); err != nil {
			return out, err
		}
	}
	err = os.Link(tmp.Name(), to)
	if errors.Is(err, fs.ErrExist) {
		// Two indexes of one directory have the same content (empty ones,
		// as a rule), and the other was a moment faster.
		if st, serr := os.Stat(to); serr == nil && st.Size() == at {
			err = nil
		}
	}
	return out, err
}

// Link gives the published forms their plain names, each in one step, and
// removes the names of forms that are no longer made.
func (p Place) Link(state State) error {
	for _, c := range Compressions {
		name := p.named(c)
		sum, ok := state.Forms[c]
		if !ok {
			if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
			continue
		}
		from := p.ByHash(sum.SHA256)
		a, err := os.Stat(from)
		if err != nil {
			return err
		}
		if b, err := os.Stat(name); err == nil && os.SameFile(a, b) {
			continue
		}
		tmp := filepath.Join(p.Dir, ".new-"+p.Name+c.Suffix())
		if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := os.Link(from, tmp); err != nil {
			return err
		}
		if err := durable.Replace(tmp, name); err != nil {
			return err
		}
	}
	return nil
}
