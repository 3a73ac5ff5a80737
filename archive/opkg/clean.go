package opkg

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"packmill/internal/durable"
)

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
		if err := os.MkdirAll(filepath.Join(to, generation), 0o755); err != nil {
			return err
		}
		for _, file := range []string{"Packages", "Packages.gz", "Packages.sig", "Packages.asc"} {
			file = filepath.Join(generation, file)
			if err := os.Link(filepath.Join(from, file), filepath.Join(to, file)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		if err := os.Symlink(generation, filepath.Join(to, name)); err != nil {
			return err
		}
	}
	return nil
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
