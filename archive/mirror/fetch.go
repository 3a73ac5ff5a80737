package mirror

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"packmill/internal/policy"
	"packmill/internal/regular"
)

// Fetch puts the upload's files into dir, which must be there and the caller's
// alone, and writes a .changes that lists them, last; it returns its name. A
// file that is in dir already with the right content is not fetched again, so a
// fetch that was cut off goes on where it was. Nothing is synced.
func (r *Repository) Fetch(ctx context.Context, u *Upload, dir string) (changes string, err error) {
	files := slices.Clone(u.Files)
	for i := range files {
		if err := r.fetch(ctx, &files[i], dir); err != nil {
			return "", fmt.Errorf("fetch %s %s: %w", u.Source, u.Version, err)
		}
	}
	name := u.Source + "_" + policy.WithoutEpoch(u.Version) + "_import.changes"
	text := u.changes(files)
	if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
		return "", err
	}
	return name, nil
}

// changes is the .changes of an upload that never had one here.
func (u *Upload) changes(files []File) []byte {
	var names, archs []string
	add := func(list *[]string, s string) {
		if !slices.Contains(*list, s) {
			*list = append(*list, s)
		}
	}
	if u.HasSource {
		archs = append(archs, "source")
	}
	var md5s, shas strings.Builder
	for _, f := range files {
		if f.Package != "" {
			add(&names, f.Package)
			add(&archs, f.Arch)
		}
		section, priority := f.Section, f.Priority
		if section == "" || len(strings.Fields(section)) != 1 {
			section = "-"
		}
		if priority == "" || len(strings.Fields(priority)) != 1 {
			priority = "-"
		}
		fmt.Fprintf(&md5s, "\n %s %d %s %s %s", f.MD5, f.Size, section, priority, f.Name)
		fmt.Fprintf(&shas, "\n %s %d %s", f.SHA256, f.Size, f.Name)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Format: 1.8\nSource: %s\n", u.Source)
	if names != nil {
		fmt.Fprintf(&b, "Binary: %s\n", strings.Join(names, " "))
	}
	fmt.Fprintf(&b, "Architecture: %s\nVersion: %s\nDistribution: import\nUrgency: low\n",
		strings.Join(archs, " "), u.Version)
	if u.Maintainer != "" {
		fmt.Fprintf(&b, "Maintainer: %s\n", strings.Join(strings.Fields(u.Maintainer), " "))
	}
	fmt.Fprintf(&b, "Changes:\n Imported from another repository.\nChecksums-Sha256:%s\nFiles:%s\n",
		shas.String(), md5s.String())
	return []byte(b.String())
}

// tries and pause say how often a file is asked for when the network fails.
const tries = 4

// fetch gets one file, and its MD5 if the repository does not say it.
func (r *Repository) fetch(ctx context.Context, f *File, dir string) error {
	to := filepath.Join(dir, f.Name)
	if err := verify(to, f); err == nil {
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		if err := os.Remove(to); err != nil {
			return err
		}
	}
	if r.src.Link && !r.remote {
		// The link may be to a file that changes while it is read: what counts
		// is checked once more, from the archive's own name, by the archive.
		from := filepath.Join(r.root, f.Path)
		err := os.Link(from, to)
		if err == nil {
			return verify(to, f)
		}
		if _, err := os.Lstat(from); errors.Is(err, fs.ErrNotExist) {
			return missing(f.Path)
		}
		if !errors.Is(err, unix.EXDEV) && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EMLINK) {
			return err
		}
	}
	var err error
	for n, pause := 1, time.Second; ; n, pause = n+1, 2*pause {
		if err = r.copy(ctx, f, to); err == nil || n == tries || !r.remote || !mayPass(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// ErrBroken says that the repository does not have a file that its index names,
// or has another one there.
type ErrBroken struct {
	text string
	cut  bool // it was too short: the connection may have broken
}

func (e ErrBroken) Error() string { return e.text }

func missing(name string) error {
	return ErrBroken{text: name + " is not there, though its index names it; the repository is broken: run its own check"}
}

// mayPass reports whether the same request may succeed later.
func mayPass(err error) bool {
	if b := (ErrBroken{}); errors.As(err, &b) {
		return b.cut
	}
	if s := (*statusError)(nil); errors.As(err, &s) {
		return s.code >= 500 || s.code == 429
	}
	if e := (*fs.PathError)(nil); errors.As(err, &e) {
		return false // our own trouble, or a name that is no file there
	}
	return !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
}

func (r *Repository) copy(ctx context.Context, f *File, to string) error {
	body, err := r.open(ctx, f.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return missing(f.Path)
	}
	if err != nil {
		return err
	}
	defer body.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return err
	}
	err = sumInto(out, io.LimitReader(body, f.Size+1), f)
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		os.Remove(to)
	}
	return err
}

// verify checks a file that is there already.
func verify(name string, f *File) error {
	in, err := regular.Open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	if fi, err := in.Stat(); err != nil || fi.Size() != f.Size {
		return ErrBroken{text: fmt.Sprintf("%s is not the file that its index names", f.Path)}
	}
	return sumInto(io.Discard, in, f)
}

// sumInto copies and compares with what the index says.
func sumInto(w io.Writer, r io.Reader, f *File) error {
	sha := sha256.New()
	sums := []io.Writer{w, sha}
	m := md5.New()
	if f.MD5 == "" {
		sums = append(sums, m)
	}
	n, err := io.Copy(io.MultiWriter(sums...), r)
	if err != nil {
		return err
	}
	if n != f.Size || hex.EncodeToString(sha.Sum(nil)) != f.SHA256 {
		return ErrBroken{fmt.Sprintf("%s is not the file that its index names; "+
			"the repository is broken: run its own check", f.Path), n < f.Size}
	}
	if f.MD5 == "" {
		f.MD5 = hex.EncodeToString(m.Sum(nil))
	}
	return nil
}
