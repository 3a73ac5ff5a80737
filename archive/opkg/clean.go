package opkg

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"packmill/internal/durable"
)

// filenames are the values of Filename in the index of the feed at dir, relative to
// opkg, in which the suite's directory lies.
func filenames(dir string, text []byte) []string {
	link, err := os.Readlink(filepath.Join(dir, "pool"))
	if err != nil {
		link = "pool" // a feed from before there were links has ../../pool in its names
	}
	var out []string
	for line := range bytes.Lines(text) {
		name, ok := bytes.CutPrefix(line, []byte("Filename: "))
		if !ok {
			continue
		}
		name = bytes.TrimSuffix(name, []byte("\n"))
		if rest, ok := bytes.CutPrefix(name, []byte("pool/")); ok {
			name = []byte(link + "/" + string(rest))
		}
		// The feed's directory lies in the suite's.
		out = append(out, filepath.Clean(filepath.Join("suite/feed", string(name))))
	}
	return out
}

// Files lists the package files that the suite's feeds name, relative to root.
func Files(root, suite string) ([]string, error) {
	feeds, err := Feeds(root, suite)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, feed := range feeds {
		dir := filepath.Join(root, "opkg", suite, feed)
		text, err := os.ReadFile(filepath.Join(dir, "Packages"))
		if err != nil {
			return nil, err
		}
		for _, name := range filenames(dir, text) {
			out = append(out, filepath.Join("opkg", name))
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// Keep links the suite's feeds, as they are, into a new directory: a snapshot's,
// which lies as opkg/SUITE beside a pool of the same names. Nothing is synced.
// The caller holds the archive's lock.
func Keep(root, suite, to string) error {
	feeds, err := Feeds(root, suite)
	if err != nil {
		return err
	}
	from := filepath.Join(root, "opkg", suite)
	for _, name := range feeds {
		generation, err := os.Readlink(filepath.Join(from, name))
		if err != nil {
			return err
		}
		if err := keepGeneration(filepath.Join(from, generation), filepath.Join(to, generation)); err != nil {
			return err
		}
		if err := os.Symlink(generation, filepath.Join(to, name)); err != nil {
			return err
		}
	}
	return nil
}

// keepGeneration links what clients see of a generation.
func keepGeneration(from, to string) error {
	return filepath.WalkDir(from, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		new := filepath.Join(to, rel)
		switch {
		case d.IsDir():
			return os.MkdirAll(new, 0o755)
		case strings.HasPrefix(d.Name(), "."):
			return nil
		case d.Type()&fs.ModeSymlink != 0:
			link, err := os.Readlink(name)
			if err != nil {
				return err
			}
			return os.Symlink(link, new)
		}
		return os.Link(name, new)
	})
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
