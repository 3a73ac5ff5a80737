package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"packmill/internal/compression"
	"packmill/internal/durable"
)

// store holds the text of blocks, one after the other in the order in which
// they were made. Nothing in it is ever overwritten, so readers need no lock.
type store struct {
	f    *os.File
	name string // of the file, beside the directory
	size int64
	kept bool // a directory names it
}

// createStore begins an empty store for the index at path. Earlier ones stay
// until a directory that names the new one is written. Who may not write into
// the cache gets a store of his own that goes with the process.
func createStore(path string) (*store, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil && !errors.Is(err, fs.ErrPermission) {
		return nil, err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".text-")
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) || errors.Is(err, fs.ErrNotExist) {
		if f, err = os.CreateTemp("", "packmill-index-"); err == nil {
			err = os.Remove(f.Name())
		}
	} else if err == nil {
		err = f.Chmod(0o644)
	}
	if err != nil {
		return nil, err
	}
	return &store{f: f, name: filepath.Base(f.Name())}, nil
}

// close ends the use of the store, and removes it if nobody will find it again.
func (s *store) close() error {
	if !s.kept {
		_ = os.Remove(s.f.Name()) // it may be gone already; Save sweeps what stays
	}
	return s.f.Close()
}

func (s *store) add(text []byte) (off int64, err error) {
	off = s.size
	if _, err := s.f.WriteAt(text, off); err != nil {
		return 0, err
	}
	s.size += int64(len(text))
	return off, nil
}

// read returns the block's text, in buf if that is large enough.
func (s *store) read(b *block, buf []byte) ([]byte, error) {
	buf = slices.Grow(buf[:0], int(b.len))[:b.len]
	if _, err := s.f.ReadAt(buf, b.off); err != nil {
		return nil, fmt.Errorf("read %s: %w (remove the cache, and it is made again)", s.f.Name(), err)
	}
	if crc32.Checksum(buf, castagnoli) != b.crc {
		return nil, fmt.Errorf("read %s at %d: checksum differs (remove the cache, and it is made again)", s.f.Name(), b.off)
	}
	return buf, nil
}

// The directory: a line that names the format, then the fields below, then a
// CRC-32C of all before it. It is valid for one state of the index only. The
// number goes up when blocks are packed in another way: then all are packed again,
// and the files stay what a full build gives.
const directoryMagic = "packmill index directory 4\n"

// Save writes the directory, so that the next Open need not read the index
// whole. It is a cache: not synced, and checked when it is read.
func (x *File) Save() error {
	var live int64
	for i := range x.blocks {
		live += x.blocks[i].len
	}
	if x.st.size > 3*live+(4<<20) {
		if err := x.compact(); err != nil {
			return err
		}
	}
	b := []byte(directoryMagic)
	str := func(s string) {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	num := func(n int64) { b = binary.AppendUvarint(b, uint64(n)) }
	str(x.st.name)
	num(x.st.size)
	str(x.state.Text.SHA256)
	num(x.state.Text.Size)
	num(int64(len(x.blocks)))
	for i := range x.blocks {
		k := &x.blocks[i]
		str(k.first)
		num(k.off)
		num(k.len)
		num(int64(k.crc))
		str(string(k.sum[:]))
		str(string(k.mid))
	}
	num(int64(len(x.forms)))
	for i := range x.forms {
		f := &x.forms[i]
		str(string(f.c))
		str(f.sum.SHA256)
		num(f.sum.Size)
		for j := range f.pieces {
			p := &f.pieces[j]
			num(p.off)
			num(p.len)
			num(int64(p.crc))
			num(p.plain)
			num(p.unpadded)
			str(string(f.mids[j]))
		}
	}
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	path := x.place.Cache + ".blocks"
	tmp := path + ".new"
	if err := os.WriteFile(tmp, b, 0o644); err != nil {
		return err
	}
	if err := durable.Replace(tmp, path); err != nil {
		return err
	}
	x.st.kept = true
	return x.dropStores()
}

// dropStores removes stores that the directory does not name.
func (x *File) dropStores() error {
	names, err := filepath.Glob(x.place.Cache + ".text-*")
	if err != nil {
		return err
	}
	for _, n := range names {
		if filepath.Base(n) != x.st.name {
			if err := os.Remove(n); err != nil && !os.IsNotExist(err) {
				return err
			}
		}
	}
	return nil
}

// compact copies the blocks that are in use into a new store.
func (x *File) compact() error {
	st, err := createStore(x.place.Cache)
	if err != nil {
		return err
	}
	var buf []byte
	for i := range x.blocks {
		b := &x.blocks[i]
		if buf, err = x.st.read(b, buf); err != nil {
			return err
		}
		if b.off, err = st.add(buf); err != nil {
			return err
		}
	}
	x.st.f.Close()
	x.st = st // the old one goes when the directory names this one
	x.was = slices.Clone(x.blocks)
	return nil
}

// readDirectory fills x from the directory and reports whether that belongs to
// the state.
func (x *File) readDirectory() bool {
	b, err := os.ReadFile(x.place.Cache + ".blocks")
	if err != nil || len(b) < len(directoryMagic)+4 || string(b[:len(directoryMagic)]) != directoryMagic {
		return false
	}
	body := b[:len(b)-4]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(b[len(body):]) {
		return false
	}
	d := &directory{rest: body[len(directoryMagic):]}
	name, size := string(d.bytes()), d.num()
	if d.bad || name != filepath.Base(name) || string(d.bytes()) != x.state.Text.SHA256 || d.num() != x.state.Text.Size {
		return false
	}
	n := d.num()
	if n > int64(len(d.rest)) {
		return false
	}
	blocks := d.blocks(n)
	var forms []form
	for range min(d.num(), int64(len(Forms()))) {
		// A form that is published otherwise is made again.
		if f := d.form(n); x.state.Forms[f.c] == f.sum {
			forms = append(forms, f)
		}
	}
	if d.bad || len(d.rest) != 0 {
		return false
	}
	if x.st = openStore(filepath.Dir(x.place.Cache), name, size); x.st == nil {
		return false
	}
	x.blocks, x.forms = blocks, forms
	return true
}

// openStore opens the store of that name, or returns nil if there is none of that size.
func openStore(dir, name string, size int64) *store {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrPermission) {
		// Another user's archive: it can be read.
		f, err = os.Open(filepath.Join(dir, name))
	}
	if err != nil {
		return nil
	}
	if st, err := f.Stat(); err != nil || st.Size() < size {
		f.Close()
		return nil
	}
	return &store{f: f, name: name, size: size, kept: true}
}

// directory is the directory's text while it is read. Once it is bad all that
// is read of it is empty.
type directory struct {
	rest []byte
	bad  bool
}

func (d *directory) num() int64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.bad, d.rest = true, nil
		return 0
	}
	d.rest = d.rest[n:]
	return int64(v)
}

func (d *directory) bytes() []byte {
	n := d.num()
	if n < 0 || n > int64(len(d.rest)) {
		d.bad, d.rest = true, nil
		return nil
	}
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b
}

func (d *directory) blocks(n int64) []block {
	blocks := make([]block, n)
	for i := range blocks {
		b := block{first: string(d.bytes()), off: d.num(), len: d.num(), crc: uint32(d.num()), old: i}
		copy(b.sum[:], d.bytes())
		b.mid = d.bytes()
		blocks[i] = b
	}
	return blocks
}

// form reads a form of an index of n blocks.
func (d *directory) form(n int64) form {
	f := form{
		c: compression.Kind(d.bytes()), sum: Sum{string(d.bytes()), d.num()},
		pieces: make([]piece, n), mids: make([][]byte, n),
	}
	for i := range f.pieces {
		f.pieces[i] = piece{off: d.num(), len: d.num(), crc: uint32(d.num()), plain: d.num(), unpadded: d.num()}
		f.mids[i] = d.bytes()
	}
	return f
}
