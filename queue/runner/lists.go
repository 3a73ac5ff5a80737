package runner

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"packmill/internal/compression"
)

// maxLists bounds what Lists unpacks of a chroot: Debian's main has 50 MB.
const maxLists = 2 << 30

// Lists unpacks the Packages files that apt has in a chroot into dst, with the Release
// files beside them, and returns the paths of the former: what a build finds installable, before our own archive
// is added.
func (c *Chroots) Lists(suite, arch, dst string) ([]string, error) {
	ch, err := c.use(suite, arch)
	if err != nil {
		return nil, err
	}
	defer ch.release()
	f, err := os.Open(filepath.Join(ch.dir, tarFile))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []string
	left := int64(maxLists)
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("chroot %s-%s: %w", suite, arch, err)
		}
		name := path.Base(h.Name)
		if path.Dir(strings.TrimPrefix(h.Name, "./")) != "var/lib/apt/lists" || h.Typeflag != tar.TypeReg ||
			!isPackages(name) && !strings.HasSuffix(name, "Release") {
			continue
		}
		if left -= h.Size; left < 0 {
			return nil, fmt.Errorf("chroot %s-%s: apt's lists are larger than %d bytes", suite, arch, int64(maxLists))
		}
		to := filepath.Join(dst, name)
		if err := writeOut(to, r); err != nil {
			return nil, err
		}
		if isPackages(name) {
			out = append(out, to)
		}
	}
}

// isPackages tells apt's binary indexes from its other lists.
func isPackages(name string) bool {
	plain, _ := compression.Cut(name)
	return strings.HasSuffix(plain, "_Packages")
}

func writeOut(to string, r io.Reader) error {
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
