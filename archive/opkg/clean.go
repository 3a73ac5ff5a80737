package opkg

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"packmill/spool/durable"
)

// retire notes that entries leave the feed: their files stay for a while from
// now on (see Unused).
func (f *Feed) retire(old *last, jobs []job, now time.Time) error {
	gone := make(map[mark]span)
	for m, s := range old.marks {
		gone[m] = s
	}
	for i := range jobs {
		delete(gone, jobs[i].mark)
	}
	for _, s := range gone {
		text := make([]byte, s.to-s.from)
		if _, err := old.packages.ReadAt(text, s.from); err != nil {
			return err
		}
		for _, name := range filenames(text) {
			err := os.Chtimes(filepath.Join(f.Root, "opkg", f.Suite, name), now, now)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// filenames are the values of Filename in an index.
func filenames(text []byte) []string {
	var out []string
	for line := range bytes.Lines(text) {
		if name, ok := bytes.CutPrefix(line, []byte("Filename: ")); ok {
			// Relative to the feed's directory, which lies in the suite's.
			out = append(out, filepath.Clean(filepath.Join("feed", string(bytes.TrimSuffix(name, []byte("\n"))))))
		}
	}
	return out
}

// Unused lists the files of the pool for opkg, relative to root, that no feed
// has named for the time of stay. Whoever removes them holds the archive's lock.
// Files without a name in the pool that a crash has left are among them.
func Unused(root string, stay time.Duration, now time.Time) ([]string, error) {
	used := map[string]bool{}
	suites, err := os.ReadDir(filepath.Join(root, "opkg"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, s := range suites {
		if !s.IsDir() || s.Name() == "pool" || strings.HasPrefix(s.Name(), ".") {
			continue
		}
		files, err := Files(root, s.Name())
		if err != nil {
			return nil, err
		}
		for _, name := range files {
			used[name] = true
		}
	}
	var out []string
	err = filepath.WalkDir(filepath.Join(root, "opkg/pool"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil || used[rel] {
			return err
		}
		if fi, err := d.Info(); err == nil && now.Sub(fi.ModTime()) >= stay {
			out = append(out, rel)
		}
		return nil
	})
	slices.Sort(out)
	return out, err
}

// Files lists the package files that the suite's feeds name, relative to root.
func Files(root, suite string) ([]string, error) {
	feeds, err := Feeds(root, suite)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, feed := range feeds {
		text, err := os.ReadFile(filepath.Join(root, "opkg", suite, feed, "Packages"))
		if err != nil {
			return nil, err
		}
		for _, name := range filenames(text) {
			out = append(out, filepath.Join("opkg", suite, name))
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// Drop removes the feeds of a suite that are not in keep (names of feeds), the
// links first.
func Drop(root, suite string, keep []string) error {
	dir := filepath.Join(root, "opkg", suite)
	feeds, err := Feeds(root, suite)
	if err != nil {
		return err
	}
	for _, name := range feeds {
		if slices.Contains(keep, name) {
			continue
		}
		if err := durable.Remove(filepath.Join(dir, name)); err != nil {
			return err
		}
		left, err := filepath.Glob(filepath.Join(dir, "."+name+".[0-9]*"))
		if err != nil {
			return err
		}
		for _, d := range left {
			if err := durable.RemoveAll(d); err != nil {
				return err
			}
		}
	}
	return nil
}
