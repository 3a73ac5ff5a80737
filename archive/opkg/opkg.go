// Package opkg makes feeds for opkg, the package manager of small systems, out
// of a Debian archive. Two clients are served: upstream's (Yocto, ProteanOS)
// and OpenWrt's. A feed is a function of the archive's own Packages indexes and
// of its pool, so it can be thrown away and made again.
//
// Below the archive's directory:
//
//	opkg/SUITE/ARCH           a symbolic link to the generation in force
//	opkg/SUITE/.ARCH.000017   a generation: Packages, Packages.gz, Packages.sig, Packages.asc
//	opkg/pool/main/h/hello/hello_2.10-3_ARCH.opk
//
// ARCH is the client's name of the architecture (Options.Arch); packages for all
// are in every feed, and the feed "src" has the sources where it is set. The
// generations lie beside their link, so that a Filename such as
// ../../pool/main/h/hello/hello_2.10-3_amd64.opk leads to the same file over
// http, where the path's text counts, and over file, where the links are
// followed. A package is packed once, when the first feed needs it, and kept;
// its name never changes its bytes.
//
// A feed changes by one rename of its link: clients meet an index and its
// signatures together, the old ones or the new.
package opkg

import (
	"bufio"
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
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"packmill/internal/deb"
	"packmill/internal/deb822"
	"packmill/internal/durable"
	"packmill/internal/openpgp"
	"packmill/internal/policy"
)

// A Feed is the index of one suite and architecture. Whoever changes a feed
// holds the archive's lock.
type Feed struct {
	Root  string // the archive's directory
	Suite string
	Arch  string // Debian's name of the architecture; "source" for the feed of the sources
	Options

	Usign   []*Key            // the first one signs Packages.sig; none: no such file
	OpenPGP []*openpgp.Signer // the first one signs Packages.asc; none: no such file
}

// An Index is a Packages index of the archive (of Sources, for the feed of the
// sources): what the feed shows.
type Index struct {
	SHA256 string // of the plain text, in hexadecimal: an index that is known is not read again
	Open   func() (io.ReadCloser, error)
}

// A Report says what a publication of a feed did.
type Report struct {
	Changed bool // clients see something new
	Entries int
	Packed  int // package files made

	// Skipped are packages that no opkg could install, each with the reason.
	// They are missing from the feed.
	Skipped []string
}

// Source is the architecture of source packages for opkg.
const Source = "src"

// Name is the feed's directory below its suite's.
func (f *Feed) Name() string {
	if f.Arch == "source" {
		return Source
	}
	return f.arch(f.Arch)
}

// Dir is the feed's directory as clients see it, absolute.
func (f *Feed) Dir() string { return filepath.Join(f.Root, "opkg", f.Suite, f.Name()) }

// A job is an entry of the feed in the making. Its text lies in a file: the
// entries of a large feed together are more than memory should hold.
type job struct {
	name, version string
	fresh         bool // its text is among the entries made now, not in the last generation's Packages
	text          span // empty if opkg cannot have the package
	mark          mark
}

type span struct{ from, to int64 }

// A mark tells whether an entry is made from the same stanza as before.
type mark struct {
	stanza [16]byte // of the SHA-256 of the archive's stanza
	deb    [32]byte // SHA-256 of the .deb
}

// Publish brings the feed in line with the archive's indexes, and makes it
// visible in one step. If nothing changes nothing is written. After an error,
// or a crash, the old feed is in force, and the same call does it all again.
func (f *Feed) Publish(ctx context.Context, indexes []Index, now time.Time) (*Report, error) {
	fail := func(err error) (*Report, error) {
		return nil, fmt.Errorf("publish opkg feed %s/%s: %w", f.Suite, f.Name(), err)
	}
	if err := f.Check(); err != nil {
		return fail(err)
	}
	suiteDir := filepath.Dir(f.Dir())
	if err := durable.MkdirAll(suiteDir, 0o755); err != nil {
		return fail(err)
	}
	number, there, err := f.current()
	if err != nil {
		return fail(err)
	}
	input, old := f.input(indexes), &last{}
	if there != "" {
		was, n, err := readInput(there)
		if err == nil && was == input {
			return &Report{Entries: n}, f.sweep(number, now)
		}
		// What cannot be read is not known, and made again.
		if l, err := readLast(there); err == nil {
			old = l
			defer old.close()
		}
	}
	rep := new(Report)
	m := &maker{feed: f, old: old, rep: rep, stage: filepath.Join(f.Root, "opkg", durable.NewPrefix+f.Suite+"."+f.Name())}
	defer m.close()
	jobs, err := m.collect(ctx, indexes)
	if err != nil {
		return fail(err)
	}
	dir := filepath.Join(suiteDir, generation(f.Name(), number+1))
	if err := durable.RemoveAll(dir); err != nil {
		return fail(err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return fail(err)
	}
	if err := f.write(dir, input, jobs, m, now); err != nil {
		return fail(err)
	}
	if err := durable.SyncTree(dir); err != nil {
		return fail(err)
	}
	if err := durable.SyncDir(suiteDir); err != nil {
		return fail(err)
	}
	if err := durable.Symlink(filepath.Base(dir), f.Dir()); err != nil {
		return fail(err)
	}
	rep.Changed, rep.Entries = true, len(jobs)
	return rep, f.sweep(number+1, now)
}

// format is part of what input sums up: a new form of entries makes every feed
// anew.
const format = "packmill opkg feed 1"

// input sums up what a generation is made from: the settings, the keys, the
// indexes.
func (f *Feed) input(indexes []Index) string {
	h := sha256.New()
	fmt.Fprintln(h, format, f.Arch, f.extension())
	for _, from := range slices.Sorted(mapKeys(f.Options.Arch)) {
		fmt.Fprintln(h, from, f.Options.Arch[from])
	}
	for _, k := range f.Usign[:min(1, len(f.Usign))] {
		fmt.Fprintln(h, "usign", k.Fingerprint())
	}
	for _, k := range f.OpenPGP[:min(1, len(f.OpenPGP))] {
		fmt.Fprintln(h, "openpgp", k.Fingerprint())
	}
	for _, x := range indexes {
		fmt.Fprintln(h, x.SHA256)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func mapKeys(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func generation(name string, number int) string { return fmt.Sprintf(".%s.%06d", name, number) }

// HalfMade reports whether the directory is a generation of a feed that never
// was in force: its number is above the one in force. It may be about to be.
func HalfMade(dir string) bool {
	dot := strings.LastIndexByte(dir, '.')
	number, err := strconv.Atoi(dir[dot+1:])
	name, hidden := strings.CutPrefix(filepath.Base(dir[:max(dot, 0)]), ".")
	if err != nil || !hidden || name == "" || filepath.Base(filepath.Dir(filepath.Dir(dir))) != "opkg" {
		return false
	}
	link, err := os.Readlink(filepath.Join(filepath.Dir(dir), name))
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	inForce, err := strconv.Atoi(strings.TrimPrefix(link, "."+name+"."))
	return err == nil && number > inForce
}

// current finds the generation in force: its number and directory, "" if there
// is none.
func (f *Feed) current() (int, string, error) {
	link, err := os.Readlink(f.Dir())
	if errors.Is(err, fs.ErrNotExist) {
		return 0, "", nil
	}
	if err != nil {
		return 0, "", err
	}
	digits, ok := strings.CutPrefix(link, "."+f.Name()+".")
	number, err := strconv.Atoi(digits)
	if !ok || err != nil || number < 0 {
		return 0, "", fmt.Errorf("%s is a link to %q, none of this program's generations; move it away", f.Dir(), link)
	}
	return number, filepath.Join(filepath.Dir(f.Dir()), link), nil
}

// sweep removes generations that are no longer in force, after a while: a
// client that fetches by file may still be in one.
func (f *Feed) sweep(number int, now time.Time) error {
	const stay = 10 * time.Minute
	dir := filepath.Dir(f.Dir())
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range list {
		digits, ok := strings.CutPrefix(e.Name(), "."+f.Name()+".")
		n, err := strconv.Atoi(digits)
		if !ok || err != nil || n == number {
			continue
		}
		if fi, err := e.Info(); err != nil || now.Sub(fi.ModTime()) < stay {
			continue
		}
		if err := durable.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// A maker makes the entries of a feed, and what is missing in the pool. What it
// holds in memory does not grow with the packages.
type maker struct {
	feed  *Feed
	old   *last
	stage string // directory of what is half made
	rep   *Report

	mu      sync.Mutex
	jobs    []job
	moves   []move
	entries *os.File // in the stage: the entries made now, one after the other
	size    int64    // of entries
}

// collect reads the archive's indexes and makes an entry of each stanza; those
// that the last generation has are taken from it. What is made is on the disk
// before anything names it.
func (m *maker) collect(ctx context.Context, indexes []Index) ([]job, error) {
	if err := durable.RemoveAll(m.stage); err != nil {
		return nil, err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	var err error
	for _, x := range indexes {
		if err = m.scan(ctx, g, x); err != nil {
			break
		}
	}
	if err := errors.Join(g.Wait(), err); err != nil {
		return nil, err
	}
	if m.entries != nil {
		slices.Sort(m.rep.Skipped)
		m.rep.Packed = len(m.moves)
		if err := settle(m.feed.Root, m.moves); err != nil {
			return nil, err
		}
	}
	jobs := slices.DeleteFunc(m.jobs, func(j job) bool { return j.text == span{} })
	less := func(a, b job) int {
		if c := cmp.Compare(a.name, b.name); c != 0 {
			return c
		}
		return policy.CompareVersions(a.version, b.version)
	}
	if !slices.IsSortedFunc(jobs, less) {
		slices.SortStableFunc(jobs, less)
	}
	return slices.CompactFunc(jobs, func(a, b job) bool { return a.mark == b.mark }), nil
}

// scan notes the jobs of an index, and lets g do those that are not done.
func (m *maker) scan(ctx context.Context, g *errgroup.Group, x Index) error {
	r, err := x.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	s := deb822.NewScanner(bufio.NewReaderSize(r, 256<<10))
	for s.Next() {
		if ctx.Err() != nil {
			return nil // g knows why
		}
		var j job
		text := bytes.TrimRight(s.Raw(), "\n")
		sum := sha256.Sum256(text)
		copy(j.mark.stanza[:], sum[:])
		j.name, j.version = string(s.Get("Package")), string(s.Get("Version"))
		if hex.DecodedLen(len(s.Get("SHA256"))) == len(j.mark.deb) {
			hex.Decode(j.mark.deb[:], s.Get("SHA256"))
		}
		known := false
		if j.text, known = m.old.marks[j.mark]; !known {
			j.fresh = true
			if err := m.begin(); err != nil {
				return err
			}
		}
		m.mu.Lock()
		at := len(m.jobs)
		m.jobs = append(m.jobs, j)
		m.mu.Unlock()
		if j.fresh {
			stanza := append(bytes.Clone(text), '\n')
			g.Go(func() error { return m.make(at, stanza) })
		}
	}
	return s.Err()
}

// begin makes the stage, if it is not there yet.
func (m *maker) begin() (err error) {
	if m.entries != nil {
		return nil
	}
	if err := durable.MkdirAll(m.stage, 0o755); err != nil {
		return err
	}
	m.entries, err = create(m.stage, "entries")
	return err
}

// close removes the stage.
func (m *maker) close() {
	if m.entries != nil {
		m.entries.Close()
		durable.RemoveAll(m.stage)
	}
}

// make makes the entry of job number at from its stanza, and packs its package
// file if the pool has none.
func (m *maker) make(at int, stanza []byte) error {
	text, mv, err := m.feed.makeEntry(stanza, filepath.Join(m.stage, strconv.Itoa(at)))
	skip := errSkip{}
	m.mu.Lock()
	defer m.mu.Unlock()
	j := &m.jobs[at]
	if errors.As(err, &skip) {
		m.rep.Skipped = append(m.rep.Skipped, fmt.Sprintf("%s %s: %v", j.name, j.version, err))
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := m.entries.WriteAt(text, m.size); err != nil {
		return err
	}
	j.text = span{m.size, m.size + int64(len(text))}
	m.size = j.text.to
	if mv.from != "" {
		m.moves = append(m.moves, mv)
	}
	return nil
}

// A move is a package file in the stage that goes into the pool.
type move struct{ from, to string }

// settle gives the files their names in the pool, in an order that survives a
// power cut: first their data, then the names.
func settle(root string, moves []move) error {
	// Many files are synced by one call for the whole file system.
	const few = 48
	if len(moves) > few {
		if err := durable.SyncFS(root); err != nil {
			return err
		}
	}
	dirs := map[string]bool{}
	for _, m := range moves {
		if len(moves) <= few {
			if err := syncFile(m.from); err != nil {
				return err
			}
		}
		dir := filepath.Dir(m.to)
		if !dirs[dir] {
			dirs[dir] = true
			if err := durable.MkdirAll(dir, 0o755); err != nil {
				return err
			}
		}
		err := os.Link(m.from, m.to)
		if errors.Is(err, fs.ErrExist) {
			// Two stanzas of one .deb: the first was quicker.
			err = compare(m.from, m.to)
		}
		if err != nil {
			return err
		}
	}
	if len(moves) > few {
		return durable.SyncFS(root)
	}
	for dir := range dirs {
		if err := durable.SyncDir(dir); err != nil {
			return err
		}
	}
	return nil
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

// makeEntry makes the entry of a stanza. If the package file is not in the pool
// yet it is packed into tmp, and the move says where it goes.
func (f *Feed) makeEntry(text []byte, tmp string) ([]byte, move, error) {
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
	to := path.Join("opkg/pool", path.Dir(inPool), f.FileName(name, version, arch))
	p, info, m, err := f.pack(filename, st.Get("SHA256"), to, tmp)
	if err != nil {
		return nil, move{}, err
	}
	out, err := entry(nil, st, p.Control.Get("Description"), "../../"+strings.TrimPrefix(to, "opkg/"), info, f.Arch, f.Options)
	if err != nil {
		return nil, move{}, errSkip{err}
	}
	return out, m, nil
}

// pack packs a .deb of the pool, whose content must be the index's. If the pool
// for opkg has the name already the content must be the same.
func (f *Feed) pack(filename, sha, to, tmp string) (*deb.Package, Info, move, error) {
	file, err := os.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, Info{}, move{}, err
	}
	defer file.Close()
	p, info, err := repack(filepath.Join(f.Root, filename), file, f.Options)
	if r := (*deb.Refusal)(nil); errors.As(err, &r) {
		return nil, Info{}, move{}, errSkip{err}
	}
	if err != nil {
		return nil, Info{}, move{}, err
	}
	if p.SHA256 != sha {
		return nil, Info{}, move{}, fmt.Errorf("%s has the SHA-256 %s, its index says %s; run packmill archive check", filename, p.SHA256, sha)
	}
	info, m, err := f.place(file, info, to)
	return p, info, m, err
}

// place says how a package file made just now gets its name in the pool, or
// what is there under that name, if it is the same.
func (f *Feed) place(made *os.File, info Info, to string) (Info, move, error) {
	there, err := sameContent(made, filepath.Join(f.Root, to))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return info, move{made.Name(), filepath.Join(f.Root, to)}, nil
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

// sameContent compares a package file made just now with the one of the pool,
// and returns what an index says about the latter. Files that another version
// of the packer has made differ in bytes, not in what they hold.
func sameContent(made *os.File, pooled string) (Info, error) {
	if _, err := made.Seek(0, io.SeekStart); err != nil {
		return Info{}, err
	}
	old, err := os.OpenFile(pooled, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return Info{}, err
	}
	defer old.Close()
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

// Feeds are the names of a suite's feeds that are published.
func Feeds(root, suite string) ([]string, error) {
	list, err := os.ReadDir(filepath.Join(root, "opkg", suite))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range list {
		if e.Type()&fs.ModeSymlink != 0 && !strings.HasPrefix(e.Name(), ".") {
			out = append(out, e.Name())
		}
	}
	return out, nil
}
