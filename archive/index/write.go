package index

import (
	"context"
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"packmill/internal/durable"
)

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
	made, err := compressAll(ctx, c, x.place.Format, texts)
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

// Unlink removes the plain names of forms that are no longer made. The Release
// that clients read must not name them any more.
func (p Place) Unlink(state State) error {
	for _, c := range Compressions {
		if _, ok := state.Forms[c]; ok {
			continue
		}
		if err := os.Remove(p.named(c)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Link gives the published forms their plain names, each in one step.
func (p Place) Link(state State) error {
	for _, c := range Compressions {
		name := p.named(c)
		sum, ok := state.Forms[c]
		if !ok {
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
