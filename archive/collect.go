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

// Collect moves the pool files that no suite, no feed and no snapshot has named
// for the stay into attic, below "pool/" and "opkg/pool/", and deletes what has lain there for the stay.
// Clients that hold an older Release can fetch its packages for so long. A
// .buildinfo stays as long as its version's packages do.
// The attic must be on the archive's file system.
func (a *Archive) Collect(ctx context.Context, attic string, stay time.Duration, dry bool, now time.Time) (*Collected, error) {
	unlock, err := a.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
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
			return nil, fmt.Errorf("collect: %s: %w", v, err)
		}
	}
	suites, err := a.Suites()
	if err != nil {
		return nil, err
	}
	feeds := map[string]string{} // by view, in which tree
	for _, s := range suites {
		feeds[s] = a.root
	}
	snapshots, err := a.Snapshots()
	if err != nil {
		return nil, err
	}
	for _, s := range snapshots {
		feeds[s.Name+"/"+s.Suite] = a.path("snapshots", s.Name)
	}
	for view, tree := range feeds {
		files, err := opkg.Files(tree, filepath.Base(view))
		if err != nil {
			return nil, fmt.Errorf("collect: opkg feeds of %s: %w", view, err)
		}
		for _, name := range files {
			named[name] = true
		}
	}
	if err := a.papers(named); err != nil {
		return nil, fmt.Errorf("collect: %w", err)
	}
	since, err := a.readUnnamed()
	if err != nil {
		return nil, err
	}
	out := &Collected{Waiting: []string{}, Moved: []string{}, Deleted: []string{}}
	still := map[string]time.Time{}
	walk := func(top string, visit fs.WalkDirFunc) error {
		for _, p := range pools {
			if err := filepath.WalkDir(filepath.Join(top, p), visit); err != nil {
				return err
			}
		}
		return nil
	}
	err = walk(a.root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() {
			return errors.Join(err, ctx.Err())
		}
		name, err := filepath.Rel(a.root, path)
		if err != nil || named[name] {
			return err
		}
		t, ok := since[name]
		if !ok {
			t = now
		}
		if now.Sub(t) < stay {
			still[name] = t
			out.Waiting = append(out.Waiting, name)
			return nil
		}
		out.Moved = append(out.Moved, name)
		if dry {
			return nil
		}
		to := filepath.Join(attic, name)
		if err := durable.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		// The stay in the attic begins now.
		if err := os.Chtimes(path, now, now); err != nil {
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
	})
	if err != nil {
		return out, fmt.Errorf("collect: %w", err)
	}
	moved := map[string]bool{}
	for _, m := range out.Moved {
		moved[m] = true
	}
	err = walk(attic, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(attic, path)
		if err != nil || moved[name] {
			return err
		}
		info, err := d.Info()
		if err != nil || now.Sub(info.ModTime()) < stay {
			return err
		}
		out.Deleted = append(out.Deleted, name)
		out.Bytes += info.Size()
		if dry {
			return nil
		}
		return durable.Remove(path)
	})
	if err != nil {
		return out, fmt.Errorf("collect: %w", err)
	}
	if dry {
		return out, nil
	}
	for _, p := range pools {
		removeEmpty(a.path(p))
		removeEmpty(filepath.Join(attic, p))
	}
	return out, a.writeUnnamed(still)
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
