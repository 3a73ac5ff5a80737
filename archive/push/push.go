// Package push copies an archive to where clients fetch it from: to another
// machine by rsync, or to S3-compatible storage.
//
// The order is that of a publication: the pool, the indexes under their
// checksums, their plain names, Release and Release.gpg, InRelease last; so a
// client of the copy sees the old publication whole or the new one. What has
// left the archive leaves the copy some time later, so that a client in the
// middle of its work finds its files.
//
// A manifest says what the copy has. A push transfers what is not in it, and
// lists nothing. rsync's manifest lies in the archive's cache; without it rsync
// compares everything once. That of S3 is an object in the bucket, and it is the
// fence too: each step that counts is a conditional write (If-Match), so of two
// programs that push to one place one stops before it does harm.
package push

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
	"slices"
	"strconv"
	"strings"
	"time"

	"packmill/archive/index"
	"packmill/internal/durable"
)

// Options say how a push is done.
type Options struct {
	// Stay is how long a file stays in the copy after it has left the archive;
	// three days if zero.
	Stay time.Duration

	// TakeOver goes on where another machine's push to the same place has begun
	// and not ended. Only if that one is known to be dead.
	TakeOver bool

	DryRun   bool           // find out what there is to do, and do nothing
	Progress func(Progress) // called from several goroutines
}

const defaultStay = 72 * time.Hour

// Progress says how far a push has come.
type Progress struct {
	Files, AllFiles int
	Bytes, AllBytes int64
}

// Source is what is pushed.
type Source struct {
	Root   string // the archive's directory, or a snapshot's: what "pool" lies in
	Frozen string // a copy made by Freeze

	// Part says that it is not the whole archive: Pool lists the files of the
	// pools that belong to it, relative to Root. Several parts may be pushed to
	// one place, so nothing is removed there.
	Part bool
	Pool []string
}

// Report says what a push did, or would do.
type Report struct {
	Sent    []string // paths, in the order of sending
	There   int      // files that are there already
	Bytes   int64    // sent
	Removed []string
}

// A phase is a step of the order above. All of one is there before the next begins.
type phase int

const (
	poolFiles phase = iota // content never changes under a name
	hashed                 // the same
	plainNames
	releases // and links, and the signatures of opkg's feeds
	inReleases
	phases
)

// forGood reports whether the content under a name never changes.
func (p phase) forGood() bool { return p <= hashed }

// A file is one that the copy must have.
type file struct {
	path  string // in the copy
	from  string // here, absolute
	link  string // of a symbolic link, its target
	size  int64
	phase phase
	sha   string // filled in for what can change
}

// A target is where the copy lies.
type target interface {
	// flat reports whether it has no symbolic links: what they lead to is then
	// sent under each name.
	flat() bool
	// load gets the manifest. It may be empty.
	load(ctx context.Context) (*manifest, error)
	// begin says that files are about to change, and stops others who do the
	// same.
	begin(ctx context.Context, m *manifest) error
	send(ctx context.Context, p phase, files []*file, m *manifest, done func(*file)) error
	remove(ctx context.Context, paths []string) error
	// finish stores the manifest.
	finish(ctx context.Context, m *manifest) error
}

// ErrFence says that another program pushes to the same place, or has done so
// since this push began.
var ErrFence = errors.New("another push to the same place is under way, or was done meanwhile; " +
	"run one at a time, then push again")

// Freeze makes a copy of what changes under its name in the archive at root,
// dists and opkg, and the public keys, in dir, by hard links; of one suite and its
// aliases, or of all if suite is "". The caller holds the archive's lock. The pool needs no copy: its
// names never change their bytes.
func Freeze(root, dir, suite string) error {
	if err := durable.RemoveAll(dir); err != nil {
		return err
	}
	z := &freezer{root, dir, suite}
	for _, top := range []string{"dists", "opkg", "keys"} {
		if err := filepath.WalkDir(filepath.Join(root, top), z.visit); err != nil {
			return err
		}
	}
	if suite == "" {
		return nil
	}
	return freezeLayout(root, dir, suite)
}

type freezer struct{ root, dir, suite string }

// visit freezes one name of the archive.
func (z *freezer) visit(name string, d fs.DirEntry, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	rel, err := filepath.Rel(z.root, name)
	if err != nil {
		return err
	}
	// A snapshot's opkg/pool leads to the archive's.
	if rel == "opkg/pool" || z.other(rel, name) || strings.HasPrefix(d.Name(), durable.NewPrefix) {
		if d.IsDir() {
			return fs.SkipDir
		}
		return nil
	}
	to := filepath.Join(z.dir, rel)
	switch {
	case d.IsDir():
		return os.MkdirAll(to, 0o755)
	case d.Type()&fs.ModeSymlink != 0:
		link, err := os.Readlink(name)
		if err != nil {
			return err
		}
		return os.Symlink(link, to)
	case d.Type().IsRegular():
		return os.Link(name, to)
	}
	return nil
}

// other reports whether a name is of another suite, or for nobody.
func (z *freezer) other(rel, name string) bool {
	top, rest, _ := strings.Cut(rel, "/")
	if top == "keys" && rest != "" {
		// What else lies there is for nobody.
		ext := filepath.Ext(rest)
		of := strings.TrimSuffix(strings.TrimSuffix(rest, ext), ".next")
		info, err := os.Lstat(filepath.Join(z.root, "dists", of))
		return ext != ".asc" && ext != ".pub" || z.suite != "" && of != z.suite || err != nil || !info.IsDir()
	}
	if z.suite == "" || rest == "" || strings.Contains(rest, "/") || rest == z.suite {
		return false
	}
	to, err := os.Readlink(name)
	to, _, _ = strings.Cut(to, "/") // an alias leads into the suite's directory
	return top != "dists" || err != nil || to != z.suite
}

// freezeLayout copies the links by which clients find the suite's opkg feeds under other
// names: their list lies beside the feeds.
func freezeLayout(root, dir, suite string) error {
	list, err := os.ReadFile(filepath.Join(root, "opkg", suite, ".layout"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, at := range strings.Fields(string(list)) {
		at = filepath.Join("opkg", at)
		link, err := os.Readlink(filepath.Join(root, at))
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, at)), 0o755); err != nil {
			return err
		}
		if err := os.Symlink(link, filepath.Join(dir, at)); err != nil {
			return err
		}
	}
	return nil
}

// files lists what the copy must have, by phase and path.
func files(src Source, flat bool) ([]*file, error) {
	l := &lister{src: src, flat: flat}
	if err := l.pool(); err != nil {
		return nil, err
	}
	for _, top := range []string{"dists", "opkg", "keys"} {
		list, err := os.ReadDir(filepath.Join(src.Frozen, top))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, e := range list {
			name := top + "/" + e.Name()
			if err := l.tree(name, name, 0); err != nil {
				return nil, err
			}
		}
	}
	slices.SortFunc(l.out, func(a, b *file) int {
		return cmp.Or(cmp.Compare(a.phase, b.phase), cmp.Compare(a.path, b.path))
	})
	return l.out, nil
}

// lister lists what a copy must have.
type lister struct {
	src  Source
	flat bool // there are no links at the target
	out  []*file
}

func (l *lister) add(f *file) { l.out = append(l.out, f) }

// pool lists the packages: those that the source names, or all.
func (l *lister) pool() error {
	for _, rel := range l.src.Pool {
		if l.flat && strings.HasPrefix(rel, "opkg/pool/") {
			continue // each feed has its own packages there
		}
		from := filepath.Join(l.src.Root, rel)
		fi, err := os.Lstat(from)
		if err != nil {
			return err
		}
		l.add(&file{path: rel, from: from, size: fi.Size(), phase: poolFiles})
	}
	if l.src.Part {
		return nil
	}
	err := filepath.WalkDir(filepath.Join(l.src.Root, "pool"), l.visit)
	if err != nil || l.flat {
		return err
	}
	return filepath.WalkDir(filepath.Join(l.src.Root, "opkg/pool"), l.visit)
}

func (l *lister) visit(name string, d fs.DirEntry, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || d.IsDir() || !d.Type().IsRegular() || strings.HasPrefix(d.Name(), durable.NewPrefix) {
		return err
	}
	fi, err := d.Info()
	if err != nil {
		return err
	}
	rel, err := filepath.Rel(l.src.Root, name)
	if err != nil {
		return err
	}
	l.add(&file{path: rel, from: name, size: fi.Size(), phase: poolFiles})
	return nil
}

// tree lists what lies below at in the frozen copy, under the name of as. For
// a flat target links are followed, and what only links lead to is left out
// under its own name.
func (l *lister) tree(at, as string, depth int) error {
	if depth > 20 {
		return fmt.Errorf("%s: links lead in a circle", as)
	}
	name := filepath.Join(l.src.Frozen, at)
	fi, err := os.Lstat(name)
	if err != nil {
		return err
	}
	if fi.Mode()&fs.ModeSymlink != 0 {
		return l.link(at, as, depth)
	}
	if l.flat && strings.HasPrefix(path.Base(as), ".") {
		return nil
	}
	if fi.Mode().IsRegular() {
		l.add(&file{path: as, from: name, size: fi.Size(), phase: l.phase(as)})
	}
	if !fi.IsDir() {
		return nil
	}
	list, err := os.ReadDir(name)
	if err != nil {
		return err
	}
	for _, e := range list {
		if err := l.tree(at+"/"+e.Name(), as+"/"+e.Name(), depth+1); err != nil {
			return err
		}
	}
	return nil
}

// link lists a symbolic link, or what it leads to.
func (l *lister) link(at, as string, depth int) error {
	name := filepath.Join(l.src.Frozen, at)
	link, err := os.Readlink(name)
	if err != nil {
		return err
	}
	to := path.Join(path.Dir(at), link)
	switch {
	case isPool(as) && l.flat:
		return l.feedPool(path.Dir(at), path.Dir(as), to)
	case isPool(as): // in a generation that no link leads to yet
		l.add(&file{path: as, from: name, link: link, phase: plainNames})
		return nil
	case !l.flat:
		l.add(&file{path: as, from: name, link: link, phase: releases})
		return nil
	}
	if path.IsAbs(link) || !filepath.IsLocal(to) {
		return fmt.Errorf("%s is a link to %s, out of the archive", as, link)
	}
	return l.tree(to, as, depth+1)
}

// phase says when a plain file's turn is.
func (l *lister) phase(as string) phase {
	switch base := path.Base(as); {
	case strings.Contains(as, "/by-hash/"):
		return hashed
	case strings.HasPrefix(as, "opkg/"):
		// A flat target has no generations: a signature is the last to come.
		if l.flat && (base == "Packages.sig" || base == "Packages.asc") {
			return releases
		}
	case strings.Count(as, "/") > 2 && !strings.Contains(as, "/.alias/"):
	case base == "InRelease":
		return inReleases
	case base == "Release", base == "Release.gpg":
		return releases
	}
	return plainNames
}

// isPool reports whether a name is that of a feed's link to the packages.
func isPool(name string) bool {
	return path.Base(name) == "pool" && strings.HasPrefix(name, "opkg/") && path.Dir(name) != "opkg"
}

// feedPool lists the packages that the feed at at names, below its name of as: a
// flat target has no link to the pool where they all lie.
func (l *lister) feedPool(at, as, pool string) error {
	text, err := os.ReadFile(filepath.Join(l.src.Frozen, at, "Packages"))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		name, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "Filename: ")
		inPool, below := strings.CutPrefix(name, "pool/")
		if !ok || !below || !filepath.IsLocal(name) || !filepath.IsLocal(pool) {
			continue
		}
		from := filepath.Join(l.src.Root, pool, inPool)
		fi, err := os.Stat(from)
		if err != nil {
			return err
		}
		l.add(&file{path: as + "/" + name, from: from, size: fi.Size(), phase: poolFiles})
	}
	return nil
}

// run is a push: the same for every target.
func run(ctx context.Context, t target, src Source, opt Options, now time.Time) (*Report, error) {
	all, err := files(src, t.flat())
	if err != nil {
		return nil, err
	}
	m, err := t.load(ctx)
	if err != nil {
		return nil, err
	}
	p := &plan{target: t, manifest: m}
	there, err := p.compare(all)
	if err != nil {
		return nil, err
	}
	rep := &p.report
	forgot := !src.Part && p.forget(there, cmp.Or(opt.Stay, defaultStay), now)
	if opt.DryRun || len(rep.Sent) == 0 && len(rep.Removed) == 0 && !forgot && !m.open {
		return rep, nil
	}
	if err := t.begin(ctx, m); err != nil {
		return nil, err
	}
	if err := p.send(ctx, opt.Progress); err != nil {
		return nil, err
	}
	if len(rep.Removed) > 0 {
		if err := t.remove(ctx, rep.Removed); err != nil {
			return nil, err
		}
		for _, p := range rep.Removed {
			delete(m.entries, p)
		}
	}
	return rep, t.finish(ctx, m)
}

// plan is what a push has to do.
type plan struct {
	target   target
	manifest *manifest
	todo     [phases][]*file
	report   Report
}

// compare finds what the copy has not, or has with other bytes.
func (p *plan) compare(all []*file) (there map[string]bool, err error) {
	there = make(map[string]bool, len(all))
	for _, f := range all {
		there[f.path] = true
		old, known := p.manifest.entries[f.path]
		if !f.phase.forGood() {
			if f.sha, err = f.sum(); err != nil {
				return nil, err
			}
		}
		if known && old.size == f.size && old.sha == f.sha {
			old.gone = time.Time{}
			p.manifest.entries[f.path] = old
			p.report.There++
			continue
		}
		p.todo[f.phase] = append(p.todo[f.phase], f)
		p.report.Sent = append(p.report.Sent, f.path)
		p.report.Bytes += f.size
	}
	return there, nil
}

// forget notes which files have left the archive, and plans the removal of
// those that left it long enough ago. It reports whether any is new among them.
func (p *plan) forget(there map[string]bool, stay time.Duration, now time.Time) (forgot bool) {
	superseded := map[string][]index.Superseded{} // by directory
	for name, e := range p.manifest.entries {
		switch {
		case there[name]:
		case e.gone.IsZero():
			e.gone = now.UTC()
			p.manifest.entries[name] = e
			forgot = true
		case strings.Contains(name, "/by-hash/"):
			dir := path.Dir(name)
			superseded[dir] = append(superseded[dir], index.Superseded{Name: name, Since: e.gone})
		case now.Sub(e.gone) >= stay:
			p.report.Removed = append(p.report.Removed, name)
		}
	}
	for _, old := range superseded {
		p.report.Removed = append(p.report.Removed, index.Outstayed(old, stay, now)...)
	}
	slices.Sort(p.report.Removed)
	return forgot
}

// send sends what is to do, phase by phase.
func (p *plan) send(ctx context.Context, progress func(Progress)) error {
	prog := Progress{AllFiles: len(p.report.Sent), AllBytes: p.report.Bytes}
	done := func(f *file) {
		prog.Files++
		prog.Bytes += f.size
		if progress != nil {
			progress(prog)
		}
	}
	for i, todo := range p.todo {
		if len(todo) == 0 {
			continue
		}
		if err := p.target.send(ctx, phase(i), todo, p.manifest, done); err != nil {
			return err
		}
		for _, f := range todo {
			e := p.manifest.entries[f.path]
			e.size, e.sha, e.gone = f.size, f.sha, time.Time{}
			p.manifest.entries[f.path] = e
		}
	}
	return nil
}

// sum identifies the content of a file that can change.
func (f *file) sum() (string, error) {
	if f.link != "" {
		return "-> " + f.link, nil
	}
	r, err := os.Open(f.from)
	if err != nil {
		return "", err
	}
	defer r.Close()
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// A manifest says what a copy has. Its text has a line for the format, one that
// says who is at work on the copy, if anybody is, and one for each file:
// size, sum or "-", tag or "-", the time at which the file left the archive or
// "-", path. Tags are the target's own.
type manifest struct {
	entries map[string]entry
	open    bool   // a push has begun and not ended
	owner   string // whose, or whose it was
	tag     string // of the manifest itself
}

type entry struct {
	size int64
	sha  string
	tag  string
	gone time.Time
}

const manifestFormat = "packmill push manifest 1"

func (m *manifest) text() []byte {
	var b bytes.Buffer
	state := "closed"
	if m.open {
		state = "open"
	}
	fmt.Fprintf(&b, "%s\n%s %s\n", manifestFormat, state, strconv.Quote(m.owner))
	for _, p := range slices.Sorted(func(yield func(string) bool) {
		for p := range m.entries {
			if !yield(p) {
				return
			}
		}
	}) {
		e := m.entries[p]
		gone := "-"
		if !e.gone.IsZero() {
			gone = e.gone.Format(time.RFC3339)
		}
		fmt.Fprintf(&b, "%d %s %s %s %s\n", e.size, strconv.Quote(e.sha), strconv.Quote(e.tag), gone, p)
	}
	return b.Bytes()
}

func parseManifest(data []byte) (*manifest, error) {
	m := &manifest{entries: map[string]entry{}}
	s := bufio.NewScanner(bytes.NewReader(data))
	bad := func() (*manifest, error) {
		return nil, errors.New("the manifest of the copy cannot be read; remove it, and the next push sends everything again")
	}
	if !s.Scan() || s.Text() != manifestFormat || !s.Scan() {
		return bad()
	}
	state, owner, _ := strings.Cut(s.Text(), " ")
	var err error
	if m.owner, err = strconv.Unquote(owner); err != nil || state != "open" && state != "closed" {
		return bad()
	}
	m.open = state == "open"
	for s.Scan() {
		var e entry
		size, rest, _ := strings.Cut(s.Text(), " ")
		var errs [4]error
		if e.size, errs[0] = strconv.ParseInt(size, 10, 64); errs[0] != nil {
			return bad()
		}
		for _, to := range []*string{&e.sha, &e.tag} {
			q, err := strconv.QuotedPrefix(rest)
			if err != nil {
				return bad()
			}
			*to, errs[1] = strconv.Unquote(q)
			rest = strings.TrimPrefix(rest[len(q):], " ")
		}
		gone, p, ok := strings.Cut(rest, " ")
		if gone != "-" {
			e.gone, errs[2] = time.Parse(time.RFC3339, gone)
		}
		if errors.Join(errs[:]...) != nil || !ok || !filepath.IsLocal(p) {
			return bad()
		}
		m.entries[p] = e
	}
	return m, s.Err()
}
