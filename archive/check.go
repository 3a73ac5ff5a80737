package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"packmill/archive/index"
	"packmill/archive/opkg"
	"packmill/archive/release"
	"packmill/internal/compression"
	"packmill/internal/deb"
	"packmill/internal/deb822"
	"packmill/internal/openpgp"
	"packmill/internal/paper"
	"packmill/internal/regular"
)

// Fault is something in an archive that a client would trip over.
type Fault struct {
	Path string // below the archive
	Text string
}

func (f Fault) String() string { return f.Path + ": " + f.Text }

// CheckOptions say how an archive is checked.
type CheckOptions struct {
	Deep bool // every byte is read, and the snapshots are checked too
	// Progress, if set, hears how many bytes of how many in the pool are read.
	Progress func(done, all int64)
}

// Check reads the archive as a client does and reports what does not fit:
// InRelease, from there each index that it names, under its checksum, and from
// there each file of the pool, at its size and, if Deep, with its SHA-256. It
// uses nothing that the publisher remembers. Only what no client could use is
// a fault: an InRelease that is newer than Release is how a publication looks
// from the middle. Deep also unpacks each form of each index and compares the
// text, and checks the snapshots, whose paths are snapshots/NAME/....
func (a *Archive) Check(ctx context.Context, opt CheckOptions) ([]Fault, error) {
	suites, err := a.Suites()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("check %s: %w", a.root, err)
	}
	c := &check{a: a, CheckOptions: opt, pool: map[string]string{}}
	if opt.Deep && opt.Progress != nil {
		if c.all, err = poolSize(a.root); err != nil {
			return nil, fmt.Errorf("check %s: %w", a.root, err)
		}
	}
	for i := range suites {
		suites[i] = filepath.Join("dists", suites[i])
	}
	if opt.Deep {
		snaps, err := a.Snapshots()
		if err != nil {
			return nil, fmt.Errorf("check %s: %w", a.root, err)
		}
		for _, s := range snaps {
			suites = append(suites, filepath.Join("snapshots", s.Name, "dists", s.Suite))
		}
	}
	if err := c.feeds(ctx, suites); err != nil {
		return nil, fmt.Errorf("check %s: %w", a.root, err)
	}
	further, err := filepath.Glob(a.path("dists", "*", aliases, "*"))
	if err != nil {
		return nil, fmt.Errorf("check %s: %w", a.root, err)
	}
	for _, dir := range further {
		if rel, err := filepath.Rel(a.root, dir); err == nil {
			suites = append(suites, rel)
		}
	}
	for _, s := range suites {
		if err := c.suite(ctx, s); err != nil {
			return c.faults, fmt.Errorf("check %s: %w", s, err)
		}
	}
	return c.faults, nil
}

type check struct {
	CheckOptions
	a      *Archive
	pool   map[string]string // file -> checksum it was checked for
	faults []Fault

	done, all int64 // bytes of the pool that were read, and that there are
}

// poolSize is how many bytes the pool has.
func poolSize(root string) (n int64, err error) {
	err = filepath.WalkDir(filepath.Join(root, "pool"), func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if info, err := d.Info(); err == nil {
			n += info.Size()
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	return n, err
}

func (c *check) fault(path, format string, args ...any) {
	c.faults = append(c.faults, Fault{path, fmt.Sprintf(format, args...)})
}

// feeds holds the suites' feeds to what opkg's clients rely on. The signatures
// are those of keys that only the settings know.
func (c *check) feeds(ctx context.Context, suites []string) error {
	for _, s := range suites {
		tree := filepath.Dir(filepath.Dir(s)) // relative: the archive's or a snapshot's
		wrong, err := checkFeeds(ctx, c.a.path(tree), Suite{Name: filepath.Base(s)}, opkg.CheckOptions{SkipPackages: !c.Deep})
		if err != nil {
			return err
		}
		for _, w := range wrong {
			feed, text, _ := strings.Cut(w, ": ")
			c.fault(filepath.Join(tree, "opkg", filepath.Base(s), feed), "%s", text)
		}
	}
	return nil
}

func (c *check) suite(ctx context.Context, dir string) error {
	data, err := os.ReadFile(c.a.path(dir, "InRelease"))
	if errors.Is(err, fs.ErrNotExist) {
		// A suite without keys has only a Release; a suite that is being
		// made for the first time has neither.
		if data, err = os.ReadFile(c.a.path(dir, "Release")); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
	}
	if err != nil {
		return err
	}
	if openpgp.IsSigned(data) && !bytes.HasSuffix(bytes.TrimRight(data, "\n"), []byte("-----END PGP SIGNATURE-----")) {
		c.fault(filepath.Join(dir, "InRelease"), "it is cut off")
		return nil
	}
	rel, err := release.Parse(filepath.Join(dir, "InRelease"), paper.Text(data))
	if err == nil && len(rel.Sums) == 0 {
		err = errors.New("it names no index")
	}
	if err != nil {
		c.fault(filepath.Join(dir, "InRelease"), "%v", err)
		return nil
	}
	if filepath.Base(filepath.Dir(dir)) == aliases {
		// Of the same publication it names what was checked already.
		of, err := release.Read(c.a.path(dir, "../.."))
		if err != nil || of != nil && string(called(of, filepath.Base(dir)).Text()) == string(rel.Text()) {
			return err
		}
	}
	checked := map[string]bool{} // indexes of which one form was read to its end
	names := make([]string, 0, len(rel.Sums))
	for name := range rel.Sums {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := c.index(dir, name, rel, checked); err != nil {
			return err
		}
	}
	return nil
}

// index checks one file that the Release names.
func (c *check) index(dir, name string, rel *release.Release, checked map[string]bool) error {
	sum := rel.Sums[name]
	base, form := compression.Cut(name)
	path := filepath.Join(dir, filepath.Dir(name), "by-hash", "SHA256", sum.SHA256)
	f, err := os.Open(c.a.path(path))
	if errors.Is(err, fs.ErrNotExist) {
		// The sum of the plain text stands in every Release; the file is
		// there only if the suite is published in that form.
		packed := func(k compression.Kind) bool { return k != form && rel.Sums[base+k.Suffix()].SHA256 != "" }
		if form == compression.Plain && slices.ContainsFunc(index.Forms(), packed) {
			return nil
		}
		c.fault(path, "the Release names it (%s), and it is not there", name)
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	n, err := regular.Stream(h, f)
	if err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); n != sum.Size || got != sum.SHA256 {
		c.fault(path, "%d bytes with the SHA-256 %s, and the Release says %d and %s (%s)", n, got, sum.Size, sum.SHA256, name)
		return nil
	}
	if c.Deep {
		if err := c.text(path, f, form, rel.Sums[base]); err != nil {
			return err
		}
	}
	if place, st, ok := patched(rel, c.a.path(dir), name); ok {
		if err := place.CheckPatches(st); err != nil {
			c.fault(path, "%v", err)
		}
	}
	last := filepath.Base(base)
	if checked[base] || last != "Packages" && last != "Sources" {
		return nil
	}
	checked[base] = true
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	r, err := form.Reader(f)
	if err != nil {
		c.fault(path, "%v", err)
		return nil
	}
	defer r.Close()
	c.stanzas(path, r, last == "Packages")
	return nil
}

// stanzas checks what an index of binary packages, or of sources, lists.
func (c *check) stanzas(path string, r io.Reader, binary bool) {
	s := deb822.NewScanner(r)
	for s.Next() {
		if binary {
			if err := deb.CheckRelations(func(field string) string { return string(s.Get(field)) }); err != nil {
				c.fault(path, "%s %s: %v; apt can install nothing of the suite until the package is gone (packmill archive rm)",
					s.Get("Package"), s.Get("Version"), err)
			}
			c.file(path, string(s.Get("Filename")), string(s.Get("Size")), string(s.Get("SHA256")))
			continue
		}
		for line := range strings.Lines(string(s.Get("Checksums-Sha256"))) {
			w := deb822.Words(line)
			if len(w) == 3 {
				c.file(path, filepath.Join(string(s.Get("Directory")), w[2]), w[1], w[0])
			}
		}
	}
	if err := s.Err(); err != nil {
		c.fault(path, "%v", err)
	}
}

// text unpacks a form of an index and compares it with the plain text's sum.
func (c *check) text(path string, f *os.File, form compression.Kind, want index.Sum) error {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	h := sha256.New()
	r, err := form.Reader(f)
	var n int64
	if err == nil {
		defer r.Close()
		n, err = regular.Stream(h, r)
	}
	if err != nil {
		c.fault(path, "%v", err)
	} else if got := hex.EncodeToString(h.Sum(nil)); n != want.Size || got != want.SHA256 {
		c.fault(path, "unpacked it has %d bytes with the SHA-256 %s, and the Release says %d and %s",
			n, got, want.Size, want.SHA256)
	}
	return nil
}

// file checks one file of the pool against what an index says of it.
func (c *check) file(from, name, size, sum string) {
	if !filepath.IsLocal(name) {
		c.fault(from, "the file name %q leads out of the archive", name)
		return
	}
	if old, ok := c.pool[name]; ok {
		if old != sum {
			c.fault(from, "%s has the SHA-256 %s here and %s elsewhere", name, sum, old)
		}
		return
	}
	c.pool[name] = sum
	want, err := strconv.ParseInt(size, 10, 64)
	if err != nil || len(sum) != 2*sha256.Size {
		c.fault(from, "%s: no size or no SHA-256", name)
		return
	}
	info, err := os.Lstat(c.a.path(name))
	switch {
	case err != nil:
		c.fault(name, "%s names it, and it is not there", from)
	case !info.Mode().IsRegular():
		c.fault(name, "it is not a regular file")
	case info.Size() != want:
		c.fault(name, "%d bytes, and %s says %d", info.Size(), from, want)
	case c.Deep:
		got, err := sumFile(c.a.path(name))
		if c.done += want; c.all > 0 {
			c.Progress(c.done, max(c.all, c.done))
		}
		if err != nil {
			c.fault(name, "%v", err)
		} else if got.SHA256 != sum {
			c.fault(name, "the SHA-256 is %s, and %s says %s", got.SHA256, from, sum)
		}
	}
}
