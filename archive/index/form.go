package index

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"packmill/internal/compression"
	"packmill/internal/durable"
)

// writeForm writes one compressed file under its checksum. Blocks that did not
// change are taken out of the form that is published.
func (x *File) writeForm(ctx context.Context, c compression.Kind) (form, error) {
	old, was := x.published(c)
	if old != nil {
		defer was.Close()
	}
	w := &formWriter{x: x, writer: writers[c], old: old, was: was, hash: sha256.New()}
	w.out = form{c: c, pieces: make([]piece, len(x.blocks)), mids: make([][]byte, len(x.blocks))}
	if err := w.pack(ctx); err != nil {
		return form{}, err
	}
	dir := filepath.Dir(x.place.ByHash("x"))
	if err := durable.MkdirAll(dir, 0o755); err != nil {
		return form{}, err
	}
	tmp, err := os.CreateTemp(dir, ".new-")
	if err != nil {
		return form{}, err
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	w.tmp = tmp
	if err := w.write(); err != nil {
		return form{}, err
	}
	w.out.sum = Sum{hex.EncodeToString(w.hash.Sum(nil)), w.at}
	if err := tmp.Chmod(0o644); err != nil {
		return form{}, err
	}
	if err := durable.SyncFile(tmp); err != nil {
		return form{}, err
	}
	return w.out, nameByHash(tmp.Name(), x.place.ByHash(w.out.sum.SHA256), w.at)
}

// published is the form that was written last, and its file, if it is there.
func (x *File) published(c compression.Kind) (*form, *os.File) {
	i := slices.IndexFunc(x.forms, func(f form) bool { return f.c == c })
	if i < 0 {
		return nil, nil
	}
	f, err := os.Open(x.place.ByHash(x.forms[i].sum.SHA256))
	if err != nil {
		return nil, nil
	}
	return &x.forms[i], f
}

// formWriter puts a form's file together.
type formWriter struct {
	writer
	x    *File
	out  form
	old  *form // what is published, or nil
	was  *os.File
	tmp  *os.File
	hash hash.Hash
	at   int64  // bytes written
	buf  []byte // of a block that is copied
}

// kept reports whether block i stands in the published form.
func (w *formWriter) kept(i int) bool { return w.old != nil && w.x.blocks[i].old >= 0 }

// pack compresses the blocks that the published form does not have.
func (w *formWriter) pack(ctx context.Context) error {
	var fresh []int
	var texts []source
	for i := range w.x.blocks {
		b := &w.x.blocks[i]
		switch {
		case w.kept(i):
			w.out.pieces[i] = w.old.pieces[b.old]
		case w.writer.pack == nil: // the text is the form
			w.out.pieces[i] = piece{len: b.len, plain: b.len, crc: b.crc}
		default:
			fresh = append(fresh, i)
			texts = append(texts, func() ([]byte, error) { return w.x.st.read(b, nil) })
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	made := make([]piece, len(fresh))
	if err := w.writer.pack(ctx, w.x.place.Format, texts, made); err != nil {
		return err
	}
	for i, p := range made {
		w.out.pieces[fresh[i]] = p
	}
	return nil
}

// known is the number of pieces at the beginning before which the published
// form knows the state of the file's hash: they need not be hashed again.
func (w *formWriter) known() int {
	n := 0
	for w.old != nil && n < len(w.x.blocks) && w.x.blocks[n].old == n && len(w.old.mids[n]) > 0 {
		n++
	}
	return max(0, n-1)
}

// write writes head, pieces and tail.
func (w *formWriter) write() error {
	if err := w.emit(w.head, true); err != nil {
		return err
	}
	known := w.known()
	for i := range w.out.pieces {
		p := &w.out.pieces[i]
		if err := w.remember(i, known); err != nil {
			return err
		}
		data, err := w.data(i)
		if err != nil {
			return err
		}
		p.off, p.data = w.at, nil
		if err := w.emit(data, i >= known); err != nil {
			return err
		}
	}
	tail, err := w.tail(w.out.pieces)
	if err != nil {
		return err
	}
	return w.emit(tail, true)
}

// remember keeps the hash's state before piece i for the next publication.
func (w *formWriter) remember(i, known int) (err error) {
	if i < known {
		w.out.mids[i] = w.old.mids[i]
		return nil
	}
	if i == known && known > 0 {
		if w.hash, err = loadHash(w.old.mids[i]); err != nil {
			return err
		}
	}
	w.out.mids[i], err = saveHash(w.hash)
	return err
}

// data is a piece as it stands in the file; it is valid until the next call.
func (w *formWriter) data(i int) (data []byte, err error) {
	p := &w.out.pieces[i]
	switch {
	case p.data != nil:
		return p.data, nil
	case !w.kept(i): // plain
		w.buf, err = w.x.st.read(&w.x.blocks[i], w.buf)
		return w.buf, err
	}
	w.buf = slices.Grow(w.buf[:0], int(p.len))[:p.len]
	if _, err := w.was.ReadAt(w.buf, p.off); err != nil {
		return nil, fmt.Errorf("read %s: %w", w.was.Name(), err)
	}
	if crc32.Checksum(w.buf, castagnoli) != p.crc {
		return nil, fmt.Errorf("read %s at %d: %w (remove the cache, and it is made again)", w.was.Name(), p.off, ErrDamaged)
	}
	return w.buf, nil
}

func (w *formWriter) emit(data []byte, hashed bool) error {
	if hashed {
		w.hash.Write(data)
	}
	w.at += int64(len(data))
	_, err := w.tmp.Write(data)
	return err
}

// nameByHash gives a new file the name that says its content. What has that
// name already is the same; if it has another size it is the remains of an
// accident.
func nameByHash(tmp, to string, size int64) error {
	if st, err := os.Stat(to); err == nil {
		if st.Size() == size {
			return nil
		}
		if err := os.Remove(to); err != nil {
			return err
		}
	}
	err := os.Link(tmp, to)
	if errors.Is(err, fs.ErrExist) {
		// Two indexes of one directory have the same content (empty ones,
		// as a rule), and the other was a moment faster.
		if st, serr := os.Stat(to); serr == nil && st.Size() == size {
			err = nil
		}
	}
	return err
}
