package archive

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"packmill/archive/opkg"
	"packmill/internal/durable"
)

// Collected says what Collect did, or would do; the names are relative to the
// archive.
type Collected struct {
	Waiting []string // no suite or snapshot names them, but not for long enough
	Moved   []string // into the attic
	Deleted []string // from the attic
	Bytes   int64    // that the attic gave back
}

// unnamedFile remembers in the cache since when nothing names a pool file. If
// it is lost the time begins again.
const unnamedFile = "cache/unnamed"

// pools are the directories of packages: for apt, and for opkg.
var pools = []string{"pool", "opkg/pool"}

// CollectOptions say what Collect does.
type CollectOptions struct {
	// Attic is where files go that nothing names, below "pool/" and "opkg/pool/". It
	// must be on the archive's file system.
	Attic string
	Stay  time.Duration // of files that nothing names in the pool, and then in the attic
	Dry   bool          // nothing is moved or deleted
	Now   time.Time
}

// Collect moves the pool files that no suite, no feed and no snapshot has named
// for the stay into the attic, and deletes what has lain there for the stay.
// Clients that hold an older Release can fetch its packages for so long. A
// .buildinfo stays as long as its version's packages do.
func (a *Archive) Collect(ctx context.Context, opt CollectOptions) (*Collected, error) {
	unlock, err := a.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	c := &collection{CollectOptions: opt, a: a, still: map[string]time.Time{}, moved: map[string]bool{},
		did: &Collected{Waiting: []string{}, Moved: []string{}, Deleted: []string{}}}
	if c.named, err = a.named(ctx); err != nil {
		return nil, fmt.Errorf("collect: %w", err)
	}
	if c.since, err = a.readUnnamed(); err != nil {
		return nil, err
	}
	if err := eachInPools(ctx, a.root, c.leave); err != nil {
		return c.did, fmt.Errorf("collect: %w", err)
	}
	if err := eachInPools(ctx, opt.Attic, c.forget); err != nil {
		return c.did, fmt.Errorf("collect: %w", err)
	}
	if opt.Dry {
		return c.did, nil
	}
	for _, p := range pools {
		removeEmpty(a.path(p))
		removeEmpty(filepath.Join(opt.Attic, p))
	}
	return c.did, a.writeUnnamed(c.still)
}

// named are the pool files that some suite, feed or snapshot names, with the
// papers of their versions.
func (a *Archive) named(ctx context.Context) (map[string]bool, error) {
	views, err := a.views()
	if err != nil {
		return nil, err
	}
	named := map[string]bool{}
	for _, v := range views {
		p, err := a.readView(ctx, v)
		if errors.Is(err, ErrNoSuite) {
			continue // a directory without a publication names nothing
		}
		if err != nil {
			return nil, err
		}
		if err := p.references(named); err != nil {
			return nil, fmt.Errorf("%s: %w", v, err)
		}
	}
	feeds, err := a.feedTrees()
	if err != nil {
		return nil, err
	}
	for view, tree := range feeds {
		files, err := opkg.Files(tree, filepath.Base(view))
		if err != nil {
			return nil, fmt.Errorf("opkg feeds of %s: %w", view, err)
		}
		for _, name := range files {
			named[name] = true
		}
	}
	return named, a.papers(named)
}

// feedTrees are the directories in which the feeds of each view lie, by the view.
func (a *Archive) feedTrees() (map[string]string, error) {
	suites, err := a.Suites()
	if err != nil {
		return nil, err
	}
	snapshots, err := a.Snapshots()
	if err != nil {
		return nil, err
	}
	trees := map[string]string{}
	for _, s := range suites {
		trees[s] = a.root
	}
	for _, s := range snapshots {
		trees[s.Name+"/"+s.Suite] = a.path("snapshots", s.Name)
	}
	return trees, nil
}

// eachInPools visits the files of the pools below top; the names are relative to it.
func eachInPools(ctx context.Context, top string, visit func(name, path string, d fs.DirEntry) error) error {
	for _, p := range pools {
		err := filepath.WalkDir(filepath.Join(top, p), func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || d.IsDir() {
				return errors.Join(err, ctx.Err())
			}
			name, err := filepath.Rel(top, path)
			if err != nil {
				return err
			}
			return visit(name, path, d)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// collection is the work of Collect.
type collection struct {
	CollectOptions
	a     *Archive
	named map[string]bool
	since map[string]time.Time // nothing names the file
	still map[string]time.Time // likewise, of those that stay
	moved map[string]bool
	did   *Collected
}

// leave moves a file of the pool into the attic, if it is time.
func (c *collection) leave(name, path string, _ fs.DirEntry) error {
	if c.named[name] {
		return nil
	}
	since, ok := c.since[name]
	if !ok {
		since = c.Now
	}
	if c.Now.Sub(since) < c.Stay {
		c.still[name] = since
		c.did.Waiting = append(c.did.Waiting, name)
		return nil
	}
	c.moved[name] = true
	c.did.Moved = append(c.did.Moved, name)
	if c.Dry {
		return nil
	}
	to := filepath.Join(c.Attic, name)
	if err := durable.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	// The stay in the attic begins now.
	if err := os.Chtimes(path, c.Now, c.Now); err != nil {
		return err
	}
	if err := durable.Replace(path, to); err != nil {
		return err
	}
	// A power cut can leave both names of a move, and rename(2) leaves two
	// names of one file as they are.
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return durable.Remove(path)
}

// forget deletes a file of the attic, if it is time.
func (c *collection) forget(name, path string, d fs.DirEntry) error {
	if c.moved[name] {
		return nil
	}
	info, err := d.Info()
	if err != nil || c.Now.Sub(info.ModTime()) < c.Stay {
		return err
	}
	c.did.Deleted = append(c.did.Deleted, name)
	c.did.Bytes += info.Size()
	if c.Dry {
		return nil
	}
	return durable.Remove(path)
}

// papers adds to files of the pool the .buildinfo of their versions.
func (a *Archive) papers(named map[string]bool) error {
	versions, dirs := map[string]bool{}, map[string]bool{}
	for name := range named {
		versions[versionOf(name)] = true
		dirs[filepath.Dir(name)] = true
	}
	for dir := range dirs {
		list, err := os.ReadDir(a.path(dir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, e := range list {
			if name := dir + "/" + e.Name(); filepath.Ext(name) == ".buildinfo" && versions[versionOf(name)] {
				named[name] = true
			}
		}
	}
	return nil
}

// versionOf is a pool file's directory and the version that its name has:
// NAME_VERSION.dsc, NAME_VERSION_ARCH.deb or .buildinfo.
func versionOf(name string) string {
	parts := strings.Split(strings.TrimSuffix(filepath.Base(name), ".dsc"), "_")
	if len(parts) < 2 {
		return ""
	}
	return filepath.Dir(name) + "/" + parts[1]
}

// removeEmpty removes the empty directories below top. One that somebody fills
// meanwhile is not empty, and stays.
func removeEmpty(top string) {
	list, err := os.ReadDir(top)
	if err != nil {
		return
	}
	for _, e := range list {
		if e.IsDir() {
			dir := filepath.Join(top, e.Name())
			removeEmpty(dir)
			_ = os.Remove(dir) // fails if it is not empty, as it should
		}
	}
}

func (a *Archive) readUnnamed() (map[string]time.Time, error) {
	out := map[string]time.Time{}
	f, err := os.Open(a.path(unnamedFile))
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		when, name, ok := strings.Cut(sc.Text(), " ")
		t, err := time.Parse(time.RFC3339, when)
		if ok && err == nil {
			out[name] = t
		}
	}
	return out, nil
}

func (a *Archive) writeUnnamed(m map[string]time.Time) error {
	var b strings.Builder
	for _, name := range sortedKeys(m) {
		fmt.Fprintf(&b, "%s %s\n", m[name].UTC().Format(time.RFC3339), name)
	}
	return durable.WriteFile(a.path(unnamedFile), []byte(b.String()), 0o644)
}
