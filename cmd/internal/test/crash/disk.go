//go:build linux && amd64

package crash

import (
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A Record is what a disk knows of a tree: what was on it at first, every
// change since, and which of the changes were synced. It is made of the calls
// that Trace reports; its After is the function to give to Trace, over as many
// runs as one likes, as long as nothing else changes the tree.
//
// The model, which allows more than ext4, xfs or btrfs do:
//
//   - What was there at first is on the disk.
//   - Changes of one directory reach the disk in their order. At a cut any
//     number of the unsynced ones is missing from the end on, for each
//     directory apart. fsync of a directory puts all its changes so far on
//     the disk, and nothing else: not the directory's own name in its parent
//     (but see below), and not the files.
//   - A rename inside one directory is one change. A directory's rename to
//     another directory is one change of both (all three file systems keep
//     that): if one parent has it on the disk, so has the other. A file's
//     rename to another directory can leave both names, if the new parent was
//     synced and the old one was not (btrfs), but never neither.
//   - A directory that was moved is not below a directory that is not there: a
//     move into a new directory is on the disk only if the new directory's own
//     name is. (POSIX does not say so; journals keep that order.)
//   - Contents, sizes and modes of one file reach the disk in their order too,
//     and independent of all names: a new name can stand for an empty file, for
//     one that is cut off, or for one of full length with zeros in the place of
//     what was not synced. fsync and fdatasync put on the disk what was
//     written before.
//   - syncfs puts everything on the disk. sync_file_range promises nothing.
//   - A sync of a file that returned an error promises nothing, now or later:
//     the kernel calls the pages clean, so no later sync of that file counts.
type Record struct {
	root  string
	top   *node
	nodes map[uint64]*node // by the inode's number now
	all   []*node
	seq   int // of the last change or sync
	calls []string
}

// A node is a file, directory or other thing on the disk.
type node struct {
	id     int
	mode   fs.FileMode
	names  map[string]*node // a directory at first
	data   []byte           // a file at first, a link's target
	ops    []op
	syncs  []synced
	birth  []ref // the op that named a new directory
	poison int   // seq of the first failed sync: nothing is sure after it
}

// A synced says that at seq the first n ops were on the disk.
type synced struct{ seq, n int }

// An op is one change of a node.
type op struct {
	seq int
	// a directory
	changes []change
	needs   []ref // this op is not on the disk without those
	// a file
	write  bool
	off    int64
	data   []byte
	resize bool
	size   int64
	chmod  bool
	mode   fs.FileMode
}

// A ref is the op of that index of a node.
type ref struct {
	node *node
	op   int
}

type change struct {
	name string
	node *node // nil: the name is gone
}

// NewRecord reads the tree below root, which counts as on the disk.
func NewRecord(root string) (*Record, error) {
	real, err := filepath.EvalSymlinks(root)
	if err != nil {
		return nil, err
	}
	r := &Record{root: real, nodes: map[uint64]*node{}}
	if r.top, err = r.read(real); err != nil {
		return nil, fmt.Errorf("record %s: %w", root, err)
	}
	return r, nil
}

func (r *Record) read(path string) (*node, error) {
	fi, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	ino := inode(path, false)
	if n := r.nodes[ino]; n != nil {
		return n, nil
	}
	n := r.node(ino, fi.Mode())
	switch {
	case fi.IsDir():
		entries, err := os.ReadDir(path)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if n.names[e.Name()], err = r.read(filepath.Join(path, e.Name())); err != nil {
				return nil, err
			}
		}
	case fi.Mode().IsRegular():
		n.data, err = os.ReadFile(path)
	case fi.Mode()&fs.ModeSymlink != 0:
		var target string
		target, err = os.Readlink(path)
		n.data = []byte(target)
	}
	return n, err
}

// node makes a node for an inode; an earlier one of that number is forgotten.
func (r *Record) node(ino uint64, mode fs.FileMode) *node {
	n := &node{id: len(r.all), mode: mode, names: map[string]*node{}}
	r.nodes[ino] = n
	r.all = append(r.all, n)
	return n
}

// Cuts is the number of moments at which the power can fail so far: after each
// call from 1 to Cuts.
func (r *Record) Cuts() int { return r.seq }

// Call describes the call after which cut n comes.
func (r *Record) Call(n int) string {
	if n < 1 || n > len(r.calls) {
		return "the beginning"
	}
	return r.calls[n-1]
}

// After takes in a call that has returned.
func (r *Record) After(c *Call) {
	r.seq++
	r.calls = append(r.calls, strings.ReplaceAll(c.String(), r.root+"/", ""))
	if c.Result < 0 {
		if c.Syncs() {
			r.fail(c)
		}
		return
	}
	if (c.verb == vSync || c.verb == vSyncFS) && (c.Act.Deed == Fail || c.Act.Deed == FailDone) {
		r.fail(c)
		return
	}
	n := r.nodes[c.ino]
	switch c.verb {
	case vOpen:
		r.open(c, n)
	case vMkdir, vSymlink, vMknod:
		r.create(c.Path)
	case vLink:
		if d := r.parent(c.Path2); d != nil && n != nil {
			d.add(op{seq: r.seq, changes: []change{{filepath.Base(c.Path2), n}}})
		}
	case vUnlink, vRmdir:
		if d := r.parent(c.Path); d != nil {
			d.add(op{seq: r.seq, changes: []change{{filepath.Base(c.Path), nil}}})
		}
	case vRename:
		r.rename(c, n)
	case vSyncFS:
		for _, n := range r.all {
			n.syncs = append(n.syncs, synced{r.seq, len(n.ops)})
		}
	default:
		if n != nil {
			r.change(c, n)
		}
	}
}

// open takes in a call that opened a file, and perhaps made or emptied it.
func (r *Record) open(c *Call, n *node) {
	switch {
	case c.Flags&unix.O_TMPFILE == unix.O_TMPFILE:
		var st unix.Stat_t
		if unix.Stat(fmt.Sprintf("/proc/%d/fd/%d", c.tid, c.Result), &st) == nil {
			r.node(st.Ino, fs.FileMode(st.Mode&0o7777))
		}
	case c.Flags&unix.O_CREAT != 0 && c.ino == 0:
		r.create(c.Path)
	case c.Flags&unix.O_TRUNC != 0 && n != nil && len(r.content(n, len(n.ops))) > 0:
		n.add(op{seq: r.seq, resize: true})
	}
}

// change takes in a call that changed, or synced, what is in a node.
func (r *Record) change(c *Call, n *node) {
	switch c.verb {
	case vWrite:
		n.add(op{seq: r.seq, write: true, off: c.Offset, data: c.Data})
	case vClone:
		n.add(op{seq: r.seq, resize: true})
		n.add(op{seq: r.seq, write: true, data: c.Data})
	case vTruncate:
		n.add(op{seq: r.seq, resize: true, size: c.Offset})
	case vAllocate:
		if fi, err := os.Stat(c.Path); err == nil {
			n.add(op{seq: r.seq, resize: true, size: fi.Size()})
		}
	case vMode:
		if fi, err := os.Stat(c.Path); err == nil {
			n.add(op{seq: r.seq, chmod: true, mode: fi.Mode()})
		}
	case vSync:
		n.syncs = append(n.syncs, synced{r.seq, len(n.ops)})
	}
}

// safe is the number of ops that the syncs up to call cut put on the disk.
func (n *node) safe(cut int) int {
	ops := 0
	for _, s := range n.syncs {
		if s.seq <= cut && (n.poison == 0 || s.seq < n.poison) {
			ops = s.n
		}
	}
	return ops
}

// fail is a sync that did not succeed. The kernel marks the pages clean: a
// second sync returns success and writes nothing. So what was unsynced stays
// unsynced, whatever comes.
func (r *Record) fail(c *Call) {
	lost := func(n *node) {
		if !n.mode.IsDir() && n.poison == 0 {
			n.poison = r.seq
		}
	}
	if c.verb == vSyncFS {
		for _, n := range r.all {
			lost(n)
		}
	} else if n := r.nodes[c.ino]; n != nil {
		lost(n)
	}
}

func (n *node) add(o op) { n.ops = append(n.ops, o) }

func (r *Record) parent(path string) *node { return r.nodes[inode(filepath.Dir(path), true)] }

// create notes the new thing at path.
func (r *Record) create(path string) {
	d := r.parent(path)
	fi, err := os.Lstat(path)
	if d == nil || err != nil {
		return
	}
	n := r.node(inode(path, false), fi.Mode())
	if fi.Mode()&fs.ModeSymlink != 0 {
		target, _ := os.Readlink(path)
		n.data = []byte(target)
	}
	o := op{seq: r.seq, changes: []change{{filepath.Base(path), n}}}
	if fi.IsDir() {
		n.birth = []ref{{d, len(d.ops)}}
		o.needs = d.birth
	}
	d.add(o)
}

func (r *Record) rename(c *Call, n *node) {
	from, to := r.parent(c.Path), r.parent(c.Path2)
	old, name := filepath.Base(c.Path), filepath.Base(c.Path2)
	var back *node // what comes to the old name
	if c.Flags&unix.RENAME_EXCHANGE != 0 {
		back = r.nodes[c.ino2]
	}
	switch {
	case from != nil && from == to:
		from.add(op{seq: r.seq, changes: []change{{name, n}, {old, back}}})
	case from != nil && to != nil:
		src := op{seq: r.seq, changes: []change{{old, back}}, needs: []ref{{to, len(to.ops)}}}
		dst := op{seq: r.seq, changes: []change{{name, n}}}
		if back != nil || n != nil && n.mode.IsDir() {
			dst.needs = append([]ref{{from, len(from.ops)}}, to.birth...)
		}
		from.add(src)
		to.add(dst)
	case from != nil: // out of the tree
		from.add(op{seq: r.seq, changes: []change{{old, nil}}})
	case to != nil: // into the tree, from a place that is not recorded
		if m, err := r.read(c.Path2); err == nil {
			to.add(op{seq: r.seq, changes: []change{{name, m}}})
		}
	}
}

// A State is one disk that a power cut may leave.
type State struct {
	Cut  int    // after this call
	Name string // how the unsynced changes were chosen
	keep []int  // by node: how many ops are on the disk
	data damage
}

func (s *State) String() string { return fmt.Sprintf("cut %d, %s", s.Cut, s.Name) }

// A damage is what happened to the part of a file that was not synced and is
// kept in part.
type damage int

const (
	whole damage = iota
	holes        // the size is there, the bytes are zeros
	torn         // the first half is there
)

// States lists the disks that a cut after call cut may leave, the worst ones
// by name and some more by chance: random of them, from seed. Each differs from
// the others, and from those in seen, to which it adds them (nil: no such
// memory).
func (r *Record) States(cut, random int, seed uint64, seen map[string]bool) []*State {
	lo, hi := make([]int, len(r.all)), make([]int, len(r.all))
	for i, n := range r.all {
		for hi[i] < len(n.ops) && n.ops[hi[i]].seq <= cut {
			hi[i]++
		}
		lo[i] = n.safe(cut)
	}
	r.force(lo)
	if seen == nil {
		seen = map[string]bool{}
	}
	b := &branches{Record: r, cut: cut, lo: lo, hi: hi, seen: seen}
	b.worst()
	rng := rand.New(rand.NewPCG(seed, uint64(cut)))
	for k := range random {
		b.add(fmt.Sprintf("chance %d of seed %d", k, seed), damage(rng.IntN(3)), func(n *node) int {
			return lo[n.id] + rng.IntN(hi[n.id]-lo[n.id]+1)
		})
	}
	return b.states
}

// branches are the disks that one cut may leave: of each node at least lo and at
// most hi ops are there.
type branches struct {
	*Record
	cut    int
	lo, hi []int
	seen   map[string]bool
	states []*State
}

// add adds a disk, unless it is one that was seen; pick says how many ops of a node are there.
func (b *branches) add(name string, data damage, pick func(n *node) int) {
	s := &State{Cut: b.cut, Name: name, keep: make([]int, len(b.all)), data: data}
	for i, n := range b.all {
		s.keep[i] = min(max(pick(n), b.lo[i]), b.hi[i])
	}
	b.agree(s.keep)
	if key := b.key(s, b.lo); !b.seen[key] {
		b.seen[key] = true
		b.states = append(b.states, s)
	}
}

// worst adds the disks that are known to be dangerous, by name.
func (b *branches) worst() {
	lo, hi, add := b.lo, b.hi, b.add
	none := func(n *node) int { return lo[n.id] }
	every := func(n *node) int { return hi[n.id] }
	names := func(n *node) int {
		if n.mode.IsDir() {
			return hi[n.id]
		}
		return lo[n.id]
	}
	add("all of it", whole, every)
	add("nothing that was not synced", whole, none)
	add("names without contents", whole, names)
	add("names with zeros", holes, every)
	add("names with torn contents", torn, every)
	add("contents without names", whole, func(n *node) int { return lo[n.id] + hi[n.id] - names(n) })
	for i, n := range b.all {
		if !n.mode.IsDir() || lo[i] == hi[i] {
			continue
		}
		add(fmt.Sprintf("only names in directory %d", i), whole, func(m *node) int {
			if m == n {
				return hi[m.id]
			}
			return lo[m.id]
		})
		add(fmt.Sprintf("all but names in directory %d", i), whole, func(m *node) int {
			if m == n {
				return lo[m.id]
			}
			return hi[m.id]
		})
	}
}

// force raises lo until what is on the disk has what it needs.
func (r *Record) force(lo []int) {
	for again := true; again; {
		again = false
		for i, n := range r.all {
			for _, o := range n.ops[:lo[i]] {
				for _, need := range o.needs {
					if lo[need.node.id] <= need.op {
						lo[need.node.id] = need.op + 1
						again = true
					}
				}
			}
		}
	}
}

// agree lowers keep until what is on the disk has what it needs.
func (r *Record) agree(keep []int) {
	for again := true; again; {
		again = false
		for i, n := range r.all {
			k := slices.IndexFunc(n.ops[:keep[i]], func(o op) bool {
				return slices.ContainsFunc(o.needs, func(need ref) bool { return keep[need.node.id] <= need.op })
			})
			if k >= 0 {
				keep[i], again = k, true
			}
		}
	}
}

// key tells states apart that would look different.
func (r *Record) key(s *State, lo []int) string {
	var b strings.Builder
	damaged := false
	for i, n := range r.all {
		if s.keep[i] > 0 {
			fmt.Fprintf(&b, "%d:%d ", i, s.keep[i])
		}
		if !n.mode.IsDir() && s.keep[i] > lo[i] {
			damaged = true
			fmt.Fprintf(&b, "-%d ", lo[i])
		}
	}
	if damaged {
		fmt.Fprintf(&b, "%d", s.data)
	}
	return b.String()
}

// content is a file with its first n ops.
func (r *Record) content(f *node, n int) []byte {
	b := slices.Clone(f.data)
	for _, o := range f.ops[:n] {
		switch {
		case o.resize:
			b = resized(b, o.size)
		case o.write:
			b = resized(b, max(int64(len(b)), o.off+int64(len(o.data))))
			copy(b[o.off:], o.data)
		}
	}
	return b
}

func resized(b []byte, size int64) []byte {
	if size <= int64(len(b)) {
		return b[:size]
	}
	return append(b, make([]byte, size-int64(len(b)))...)
}

// Make puts the state's tree at dir, which must not be there.
func (r *Record) Make(s *State, dir string) error {
	made := map[*node]string{}
	var put func(n *node, path string) error
	put = func(n *node, path string) error {
		if first := made[n]; first != "" {
			if n.mode.IsDir() {
				return fmt.Errorf("directory has two names: %s and %s", first, path)
			}
			return os.Link(first, path)
		}
		made[n] = path
		mode := n.mode
		for _, o := range n.ops[:s.keep[n.id]] {
			if o.chmod {
				mode = o.mode
			}
		}
		switch {
		case n.mode.IsDir():
			names := maps.Clone(n.names)
			for _, o := range n.ops[:s.keep[n.id]] {
				for _, c := range o.changes {
					if c.node == nil {
						delete(names, c.name)
					} else {
						names[c.name] = c.node
					}
				}
			}
			if err := os.Mkdir(path, 0o700); err != nil {
				return err
			}
			for _, name := range slices.Sorted(maps.Keys(names)) {
				if err := put(names[name], filepath.Join(path, name)); err != nil {
					return err
				}
			}
			return os.Chmod(path, mode.Perm()|mode&(fs.ModeSetgid|fs.ModeSticky))
		case n.mode&fs.ModeSymlink != 0:
			return os.Symlink(string(n.data), path)
		case n.mode&fs.ModeNamedPipe != 0:
			return unix.Mkfifo(path, uint32(mode.Perm()))
		}
		if err := os.WriteFile(path, r.damaged(n, min(n.safe(s.Cut), s.keep[n.id]), s.keep[n.id], s.data),
			0o600); err != nil {
			return err
		}
		return os.Chmod(path, mode.Perm())
	}
	if err := put(r.top, dir); err != nil {
		return fmt.Errorf("make %s: %w", s, err)
	}
	return nil
}

// damaged is a file of which safe ops were synced and keep are there somehow.
func (r *Record) damaged(n *node, safe, keep int, d damage) []byte {
	full := r.content(n, keep)
	base := r.content(n, safe)
	switch {
	case d == whole || safe == keep:
		return full
	case d == holes:
		b := make([]byte, len(full))
		copy(b, base)
		return b
	}
	if len(full) <= len(base) {
		return base
	}
	return full[:len(base)+(len(full)-len(base))/2]
}
