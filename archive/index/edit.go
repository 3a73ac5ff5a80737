package index

import (
	"bytes"
	"crypto/sha256"
	"hash/crc32"
	"slices"
	"sort"
	"strings"
)

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
		crc: crc32.Checksum(c.text, castagnoli), sum: sha256.Sum256(c.text), old: -1})
	c.text = c.text[:0]
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
	old := x.blocks
	m := &merging{cutter: cutter{x: x}, merge: merge}
	for i := range old {
		// The keys that belong into block i: those before the next block.
		n, next := len(keys), false
		if i+1 < len(old) {
			n = sort.SearchStrings(keys, old[i+1].first)
			// If the next block loses its first key, where this one ends is to be
			// decided again.
			next = len(keys) > 0 && keys[0] == old[i+1].first
		}
		whole := len(m.text) == 0 || x.place.Format.cutsAt(len(m.text), []byte(old[i].first))
		if n == 0 && whole && !next {
			if err := m.flush(); err != nil {
				return err
			}
			m.out = append(m.out, old[i])
			continue
		}
		if err := m.block(&old[i], keys[:n]); err != nil {
			return err
		}
		keys = keys[n:]
	}
	if err := m.insert(keys); err != nil { // there was no block
		return err
	}
	if err := m.flush(); err != nil {
		return err
	}
	x.last = -1
	if !m.changed {
		return nil
	}
	x.dirty = true
	x.blocks = m.out
	return x.reuse(old)
}

// merging is a Merge on its way through the blocks.
type merging struct {
	cutter
	merge   func(key string, old []byte) []byte
	changed bool
}

// block merges the keys into a block's records.
func (m *merging) block(b *block, keys []string) error {
	text, err := m.x.st.read(b, nil)
	if err != nil {
		return err
	}
	for len(text) > 0 {
		key, records, rest := m.x.place.Format.nextKey(text)
		text = rest
		before := 0
		for before < len(keys) && keys[before] < string(key) {
			before++
		}
		if err := m.insert(keys[:before]); err != nil {
			return err
		}
		keys = keys[before:]
		if len(keys) > 0 && keys[0] == string(key) {
			now := m.merge(keys[0], records)
			m.changed = m.changed || !bytes.Equal(now, records)
			records, keys = now, keys[1:]
		}
		if len(records) > 0 {
			if err := m.add(key, records); err != nil {
				return err
			}
		}
	}
	return m.insert(keys)
}

// insert adds the records of keys that are not there yet.
func (m *merging) insert(keys []string) error {
	for _, k := range keys {
		records := m.merge(k, nil)
		if len(records) == 0 {
			continue
		}
		m.changed = true
		if err := m.add([]byte(k), records); err != nil {
			return err
		}
	}
	return nil
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
		j, ok := slices.BinarySearchFunc(old, n.first, func(o block, first string) int {
			return strings.Compare(o.first, first)
		})
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
