package index

import (
	"context"
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"os"
	"path/filepath"
	"slices"

	"packmill/internal/compression"
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
// returns its new state, without patches. The named files are left as they are: Link does that
// later, when all indexes of the suite are there. What Write made is synced.
func (x *File) Write(ctx context.Context, forms []compression.Kind) (State, error) {
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
	x.state.Forms, x.state.Patches = map[compression.Kind]Sum{}, Sum{}
	for i := range fs {
		x.state.Forms[fs[i].c] = fs[i].sum
	}
	for i := range x.blocks {
		x.blocks[i].old = i
	}
	x.was = slices.Clone(x.blocks)
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

// Unlink removes the plain names of forms that are no longer made. The Release
// that clients read must not name them any more.
func (p Place) Unlink(state State) error {
	for _, c := range Forms() {
		if _, ok := state.Forms[c]; ok {
			continue
		}
		if err := os.Remove(p.named(c)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if state.Patches.SHA256 == "" {
		if err := os.Remove(p.diff("Index")); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Link gives the published forms their plain names, each in one step.
func (p Place) Link(state State) error {
	for _, c := range Forms() {
		name := p.named(c)
		sum, ok := state.Forms[c]
		if !ok {
			continue
		}
		if err := linkAs(p.ByHash(sum.SHA256), name); err != nil {
			return err
		}
	}
	if sum := state.Patches.SHA256; sum != "" {
		return linkAs(p.diff("by-hash", "SHA256", sum), p.diff("Index"))
	}
	return nil
}

// Hashed are the files of a state under their checksums.
func (p Place) Hashed(state State) (paths []string) {
	for _, sum := range state.Forms {
		paths = append(paths, p.ByHash(sum.SHA256))
	}
	if sum := state.Patches.SHA256; sum != "" {
		paths = append(paths, p.diff("by-hash", "SHA256", sum))
	}
	return paths
}

// linkAs gives the file at from a further name in one step, if that is not it.
func linkAs(from, name string) error {
	a, err := os.Stat(from)
	if err != nil {
		return err
	}
	if b, err := os.Stat(name); err == nil && os.SameFile(a, b) {
		return nil
	}
	tmp := filepath.Join(filepath.Dir(name), ".new-"+filepath.Base(name))
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Link(from, tmp); err != nil {
		return err
	}
	return durable.Replace(tmp, name)
}
