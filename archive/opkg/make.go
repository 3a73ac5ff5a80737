package opkg

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"packmill/internal/deb"
	"packmill/internal/deb822"
	"packmill/internal/durable"
	"packmill/internal/policy"
	"packmill/internal/regular"
)

// A maker makes a generation of a feed, and what is missing in the pool. What it
// holds in memory does not grow with the packages.
type maker struct {
	feed  *Feed
	old   *last
	stage string // directory of what is half made
	rep   *Report

	names   namer
	turned  map[string]bool // names of which the last generation's namer says another thing
	entries map[mark]span
	debs    map[[32]byte]span // the same by the .deb's sum alone
	skipped []Skip

	slots   chan struct{} // one for each job that runs
	running sync.WaitGroup
	count   atomic.Int64 // of files in the stage
	all     int          // packages of blocks that the last generation has not
	done    atomic.Int64 // of them
	mu      sync.Mutex
	moves   []move
	settled bool // some were so many that the file system was synced as a whole
}

func newMaker(f *Feed, old *last) *maker {
	return &maker{feed: f, old: old, rep: &Report{Changed: true}, slots: make(chan struct{}, runtime.GOMAXPROCS(0)),
		stage: filepath.Join(f.Root, "opkg", durable.NewPrefix+f.Suite+"."+f.Name())}
}

// A part is a block of an index on its way into the feed.
type part struct {
	read  func() ([]byte, error)
	id    [32]byte
	known bool // the last generation has its run
}

// generation writes what is new into the pool, and the indexes into dir; only the
// pool's files are synced.
func (m *maker) generation(ctx context.Context, dir, input string, indexes []Index) error {
	if err := durable.RemoveAll(m.stage); err != nil {
		return err
	}
	if err := durable.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	parts, err := m.plan(ctx, indexes)
	if err != nil {
		return err
	}
	p, err := newPieces(dir, m.old)
	if err != nil {
		return err
	}
	defer p.close()
	runs, err := m.runs(ctx, parts, p)
	if err != nil {
		return err
	}
	if err := p.finish(); err != nil {
		return err
	}
	if err := m.settle(true); err != nil {
		return err
	}
	if err := m.noteSkipped(dir); err != nil {
		return err
	}
	if err := os.Symlink("../../pool/"+form, filepath.Join(dir, "pool")); err != nil {
		return err
	}
	return writeMemory(dir, input, m.feed.settings(), m.names, runs)
}

// plan reads the archive's indexes, and finds out which blocks the last generation
// knows, and which names no package has.
func (m *maker) plan(ctx context.Context, indexes []Index) ([]part, error) {
	var parts []part
	var fresh names
	here := map[[32]byte]bool{}
	for _, x := range indexes {
		blocks, err := x.Open()
		if err != nil {
			return nil, err
		}
		for i := range blocks.N {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			at := part{read: func() ([]byte, error) { return blocks.Read(i) }, id: blocks.Sum(i)}
			k, known := m.old.runs[at.id]
			// What was skipped is looked at again: the cause may be gone.
			if at.known = known && k.skipped == 0 && !here[at.id]; !at.known {
				text, err := blocks.Read(i)
				if err != nil {
					return nil, err
				}
				if err := fresh.scan(text); err != nil {
					return nil, err
				}
			}
			here[at.id] = true
			parts = append(parts, at)
		}
	}
	m.all = len(fresh.own)
	return parts, m.compare(parts, &fresh)
}

// compare finds the names that no package has, and the entries of the last
// generation that can be of use.
func (m *maker) compare(parts []part, fresh *names) error {
	known := map[[32]byte]bool{}
	for _, at := range parts {
		known[at.id] = known[at.id] || at.known
	}
	var gone names
	m.entries, m.debs = map[mark]span{}, map[[32]byte]span{}
	for id, k := range m.old.runs {
		if known[id] {
			continue
		}
		if err := m.remember(k, &gone); err != nil {
			return err
		}
	}
	asked := ask(fresh, &gone)
	for id, k := range m.old.runs {
		if known[id] {
			if err := asked.look(k.entries); err != nil {
				return err
			}
		}
	}
	m.names = m.old.names
	if m.names.virtual == nil {
		m.names = newNamer()
	}
	m.turned = m.names.take(asked)
	for i := range parts {
		if !parts[i].known || len(m.turned) == 0 {
			continue
		}
		k := m.old.runs[parts[i].id]
		text, err := readSpan(m.old.packages, k.text)
		if err != nil {
			return err
		}
		stale := m.mentions(text, nil)
		if err := eachRecord(k.entries, func(e *record) { stale = stale || m.mentions(nil, e.provides) }); err != nil {
			return err
		}
		if stale {
			parts[i].known = false
			if err := m.remember(k, &gone); err != nil {
				return err
			}
		}
	}
	return nil
}

// remember makes the entries of a run known, and notes their names.
func (m *maker) remember(k run, into *names) error {
	at := k.text.from
	return eachRecord(k.entries, func(e *record) {
		s := span{at, at + e.size}
		m.entries[e.mark] = s
		if e.deb != [32]byte{} {
			m.debs[e.deb] = s
		}
		at = s.to
		into.note(e)
	})
}

// mentions reports whether an entry that has this text, of a package that provides
// this, may be written in another way now.
func (m *maker) mentions(text []byte, provides []provided) bool {
	for name := range m.turned {
		if bytes.Contains(text, []byte(name)) {
			return true
		}
	}
	return slices.ContainsFunc(provides, func(p provided) bool { return m.turned[p.name] })
}

// runs writes the entries of all blocks. While one block's last packages are
// packed the next block's first ones are, too.
func (m *maker) runs(ctx context.Context, parts []part, p *pieces) ([]run, error) {
	out := make([]run, 0, len(parts))
	var before *making
	for i := range len(parts) + 1 {
		var now *making
		if i < len(parts) {
			var err error
			if now, err = m.begin(ctx, parts[i]); err != nil {
				return nil, err
			}
		}
		if before != nil {
			k, err := m.end(before, p)
			if err != nil {
				return nil, err
			}
			out = append(out, k)
			m.rep.Entries += k.n
			if err := m.settle(false); err != nil {
				return nil, err
			}
		}
		before = now
	}
	return out, nil
}

// A making is a block whose entries are being made.
type making struct {
	part
	jobs []*job
	done sync.WaitGroup
}

// begin begins to make the entries of a block, if the last generation has them not.
func (m *maker) begin(ctx context.Context, at part) (*making, error) {
	b := &making{part: at}
	if at.known {
		return b, ctx.Err()
	}
	block, err := at.read()
	if err != nil {
		return nil, err
	}
	return b, m.jobs(ctx, b, block)
}

// end writes the entries of a block, once they are made.
func (m *maker) end(b *making, p *pieces) (run, error) {
	if b.known {
		return p.keep(m.old.runs[b.id])
	}
	b.done.Wait()
	k := run{id: b.id}
	var text []byte
	for _, j := range b.jobs {
		if j.err != nil {
			return run{}, j.err
		}
		if j.skip != nil {
			m.skipped = append(m.skipped, Skip{j.name, j.version, cmp.Or(j.source, j.name), j.skip.Error()})
			k.skipped++
			continue
		}
		j.size = int64(len(j.text))
		text = append(text, j.text...)
		k.entries = j.append(k.entries)
		k.n++
	}
	return p.add(k, text)
}

func readSpan(f *os.File, s span) ([]byte, error) {
	buf := make([]byte, s.size())
	_, err := f.ReadAt(buf, s.from)
	return buf, err
}

// A job is an entry of the feed in the making.
type job struct {
	record
	version string
	source  string // the Source field, without its version
	text    []byte
	skip    error // opkg cannot have the package
	err     error
}

// jobs makes the entries of a block's stanzas, with all processors.
func (m *maker) jobs(ctx context.Context, b *making, block []byte) error {
	s := deb822.NewScanner(bytes.NewReader(block))
	for s.Next() && ctx.Err() == nil {
		if m.feed.Section != "" && Section(string(s.Get("Section"))) != m.feed.Section {
			m.tell()
			continue
		}
		text := bytes.TrimRight(s.Raw(), "\n")
		j := &job{version: string(s.Get("Version"))}
		j.source, _, _ = strings.Cut(string(s.Get("Source")), " ")
		sum := sha256.Sum256(text)
		copy(j.stanza[:], sum[:])
		j.name, j.provides = string(s.Get("Package")), providedIn(s.Get("Provides"))
		if hex.DecodedLen(len(s.Get("SHA256"))) == len(j.deb) {
			hex.Decode(j.deb[:], s.Get("SHA256"))
		}
		b.jobs = append(b.jobs, j)
		if was, known := m.entries[j.mark]; known {
			var err error
			if j.text, err = readSpan(m.old.packages, was); err != nil {
				return err
			}
			if !m.mentions(j.text, j.provides) {
				m.tell()
				continue
			}
		}
		stanza := append(bytes.Clone(text), '\n')
		m.slots <- struct{}{}
		b.done.Add(1)
		m.running.Go(func() {
			j.err = m.make(j, stanza)
			m.tell()
			<-m.slots
			b.done.Done()
		})
	}
	return errors.Join(s.Err(), ctx.Err())
}

// tell says that one more package is done.
func (m *maker) tell() {
	if n := int(m.done.Add(1)); m.feed.Progress != nil {
		m.feed.Progress(min(n, m.all), m.all)
	}
}

// make makes the entry of a stanza, and packs its package file if the pool has
// none.
func (m *maker) make(j *job, stanza []byte) error {
	if err := durable.MkdirAll(m.stage, 0o755); err != nil {
		return err
	}
	text, mv, err := m.entry(stanza, j.deb, filepath.Join(m.stage, strconv.FormatInt(m.count.Add(1), 10)))
	skip := errSkip{}
	if errors.As(err, &skip) {
		j.skip = err
		return nil
	}
	if err != nil {
		return err
	}
	j.text = text
	if mv.from != "" {
		m.mu.Lock()
		m.moves = append(m.moves, mv)
		m.mu.Unlock()
	}
	return nil
}

// close removes the stage, when nobody works in it any more.
func (m *maker) close() {
	m.running.Wait()
	durable.RemoveAll(m.stage)
}

// A move is a package file in the stage that goes into the pool, maybe in the
// place of a damaged one.
type move struct {
	from, to string
	over     bool
}

// Few files are synced one by one, many by one call for the whole file system. From
// batch on they go into the pool before all are packed.
const (
	few   = 48
	batch = 4096
)

// settle gives the files that are packed their names in the pool, in an order that
// survives a power cut: first their data, then the names. Who is cut off finds
// them there the next time. All says that no more will come.
func (m *maker) settle(all bool) error {
	m.mu.Lock()
	moves := m.moves
	if !all && len(moves) < batch {
		m.mu.Unlock()
		return nil
	}
	m.moves = nil
	m.mu.Unlock()
	m.rep.Packed += len(moves)
	if m.settled = m.settled || len(moves) > few; m.settled {
		return m.settleMany(moves, all)
	}
	dirs := map[string]bool{}
	for _, mv := range moves {
		if err := syncFile(mv.from); err != nil {
			return err
		}
		dir := filepath.Dir(mv.to)
		if err := durable.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := mv.make(); err != nil {
			return err
		}
		dirs[dir] = true
	}
	for dir := range dirs {
		if err := durable.SyncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

func (m *maker) settleMany(moves []move, all bool) error {
	if err := durable.SyncFS(m.feed.Root); err != nil {
		return err
	}
	made := ""
	for _, mv := range moves {
		if dir := filepath.Dir(mv.to); dir != made {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			made = dir
		}
		if err := mv.make(); err != nil {
			return err
		}
	}
	if all {
		return durable.SyncFS(m.feed.Root)
	}
	return nil
}

// make makes the move.
func (mv move) make() error {
	if mv.over {
		return durable.Replace(mv.from, mv.to)
	}
	err := durable.RenameUnsynced(mv.from, mv.to)
	if errors.Is(err, fs.ErrExist) {
		// Two stanzas of one .deb: the first was quicker.
		return compare(mv.from, mv.to)
	}
	return err
}

func compare(made, pooled string) error {
	f, err := os.Open(made)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = sameContent(f, pooled)
	return err
}

func syncFile(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return durable.SyncFile(f)
}

// An errSkip is a package that opkg cannot have; the feed goes without it.
type errSkip struct{ error }

func (e errSkip) Unwrap() error { return e.error }

// entry makes the entry of a stanza. If the package file is not in the pool
// yet it is packed into tmp, and the move says where it goes.
func (m *maker) entry(text []byte, sum [32]byte, tmp string) ([]byte, move, error) {
	f := m.feed
	st, err := deb822.ParseOne("Packages", text, deb822.Hostile)
	if err != nil {
		return nil, move{}, errSkip{err}
	}
	if f.Arch == "source" {
		return f.makeSource(st, tmp)
	}
	name, version, arch := st.Get("Package"), st.Get("Version"), st.Get("Architecture")
	for _, err := range []error{policy.CheckPackage(name), policy.CheckVersion(version), policy.CheckArch(arch)} {
		if err != nil {
			return nil, move{}, errSkip{err}
		}
	}
	filename := st.Get("Filename")
	inPool, ok := strings.CutPrefix(filename, "pool/")
	if !ok || !filepath.IsLocal(filename) || path.Clean(filename) != filename {
		return nil, move{}, errSkip{fmt.Errorf("Filename %q is not in the pool", filename)}
	}
	inFeed := path.Join("pool", path.Dir(inPool), f.FileName(name, version, arch))
	description, info, known := m.known(sum, inFeed)
	var mv move
	if !known {
		if description, info, mv, err = f.pack(filename, st.Get("SHA256"), inFeed, tmp); err != nil {
			return nil, move{}, err
		}
	}
	out, err := entry(nil, st, description, inFeed, info, f.Arch, m.names, f.Options)
	if err != nil {
		return nil, move{}, errSkip{err}
	}
	return out, mv, nil
}

// known returns what the last generation says of the package that was made of the
// .deb with this sum.
func (m *maker) known(sum [32]byte, inFeed string) (description string, info Info, ok bool) {
	at, ok := m.debs[sum]
	if !ok {
		return "", Info{}, false
	}
	text, err := readSpan(m.old.packages, at)
	if err != nil {
		return "", Info{}, false
	}
	st, err := deb822.ParseOne("Packages", text, deb822.Hostile)
	if err != nil || st.Get("Filename") != inFeed {
		return "", Info{}, false
	}
	size, err := strconv.ParseInt(st.Get("Size"), 10, 64)
	return st.Get("Description"), Info{size, st.Get("MD5Sum"), st.Get("SHA256sum")}, err == nil
}

// pack packs a .deb of the pool, whose content must be the index's, and returns
// its description. If the pool for opkg has the name already the content must be the
// same.
func (f *Feed) pack(filename, sha, inFeed, tmp string) (string, Info, move, error) {
	file, err := os.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return "", Info{}, move{}, err
	}
	defer file.Close()
	p, info, err := repack(filepath.Join(f.Root, filename), file, f.Options)
	if r := (*deb.Refusal)(nil); errors.As(err, &r) {
		return "", Info{}, move{}, errSkip{err}
	}
	if err != nil {
		return "", Info{}, move{}, err
	}
	if p.SHA256 != sha {
		return "", Info{}, move{}, fmt.Errorf("%s has the SHA-256 %s, its index says %s; run packmill archive check",
			filename, p.SHA256, sha)
	}
	info, m, err := f.place(file, info, inFeed)
	return p.Control.Get("Description"), info, m, err
}

// place says how a package file made just now gets its name in the pool, or
// what is there under that name, if it is the same. What is damaged is replaced.
func (f *Feed) place(made *os.File, info Info, inFeed string) (Info, move, error) {
	to := filepath.Join(f.Root, poolDir, strings.TrimPrefix(inFeed, "pool/"))
	there, err := sameContent(made, to)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return info, move{from: made.Name(), to: to}, nil
	case errors.Is(err, errBroken):
		return info, move{made.Name(), to, true}, nil
	case errors.Is(err, ErrClash):
		return Info{}, move{}, errSkip{err}
	case err != nil:
		return Info{}, move{}, err
	}
	os.Remove(made.Name())
	return there, move{}, nil
}

// ErrClash says that the pool for opkg has the name with other content.
var ErrClash = errors.New("the opkg pool has another file of this name, which clients may have; raise the version")

// errBroken says that a file of the pool is no package.
var errBroken = errors.New("damaged")

// sameContent compares a package file made just now with the one of the pool,
// and returns what an index says about the latter. Files that another version
// of the packer has made differ in bytes, not in what they hold.
func sameContent(made *os.File, pooled string) (Info, error) {
	if _, err := made.Seek(0, io.SeekStart); err != nil {
		return Info{}, err
	}
	old, err := regular.Open(pooled)
	if err != nil {
		return Info{}, err
	}
	defer old.Close()
	if _, err := readPackage(pooled); err != nil {
		return Info{}, fmt.Errorf("%w: %w", errBroken, err)
	}
	sum := newSummer(io.Discard)
	a, err := contentSum(made)
	if err != nil {
		return Info{}, err
	}
	b, err := contentSum(io.TeeReader(old, sum))
	if err != nil || a != b {
		return Info{}, fmt.Errorf("%s: %w", pooled, ErrClash)
	}
	return sum.info(), nil
}
