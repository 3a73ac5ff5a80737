package archive

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
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"packmill/archive/index"
	"packmill/archive/pool"
	"packmill/archive/release"
	"packmill/internal/bound"
	"packmill/internal/deb822"
	"packmill/internal/policy"
)

// listed is a file of the .changes.
type listed struct {
	name              string
	size              int64
	sha               string
	md5               string
	section, priority string
}

// readChanges reads the .changes: one list of files from Files and
// Checksums-Sha256, which must agree.
func (in *inclusion) readChanges() error {
	if err := policy.CheckFile(in.Changes); err != nil {
		return refuse("%v", err)
	}
	data, err := in.Text, error(nil)
	if data == nil {
		data, err = readSmall(filepath.Join(in.Dir, in.Changes))
	}
	if err != nil {
		return err
	}
	ch, err := deb822.ParseOne(in.Changes, release.ClearText(data), deb822.Hostile)
	if err != nil {
		return refuse("%v", err)
	}
	in.ch = ch
	in.source, in.version = ch.Get("Source"), ch.Get("Version")
	if s, v, ok := strings.Cut(in.source, " "); ok { // of a binNMU: the version of the source
		in.source = s
		in.version = strings.Trim(v, "()")
	}
	if err := policy.CheckSource(in.source); err != nil {
		return refuse("%s: %v", in.Changes, err)
	}
	if err := policy.CheckVersion(in.version); err != nil {
		return refuse("%s: %v", in.Changes, err)
	}
	in.files, err = listFiles(ch)
	return err
}

// readSmall reads a control file that is no link and of decent size.
func readSmall(name string) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ELOOP) {
			return nil, refuse("%s: is not there as a regular file; send the whole upload again", filepath.Base(name))
		}
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > deb822.Hostile.Size {
		return nil, refuse("%s: is no regular file, or larger than %d bytes", filepath.Base(name), deb822.Hostile.Size)
	}
	return io.ReadAll(f)
}

// listFiles reads the file list of a .changes or .dsc.
func listFiles(st *deb822.Stanza) (map[string]*listed, error) {
	out := map[string]*listed{}
	bad := func(field, what string) error { return refusal(st.Errorf(field, "%s", what).Error()) }
	for _, line := range strings.Split(strings.TrimPrefix(st.Get("Checksums-Sha256"), "\n"), "\n") {
		w := deb822.Words(line)
		if len(w) != 3 {
			return nil, bad("Checksums-Sha256", "a line is not a checksum, a size and a name; build the package again with today's dpkg")
		}
		size, err := strconv.ParseInt(w[1], 10, 64)
		if raw, herr := hex.DecodeString(w[0]); err != nil || size < 0 || herr != nil || len(raw) != sha256.Size {
			return nil, bad("Checksums-Sha256", fmt.Sprintf("the line of %q has no SHA-256 or no size", w[2]))
		}
		if err := policy.CheckFile(w[2]); err != nil {
			return nil, bad("Checksums-Sha256", err.Error())
		}
		if out[w[2]] != nil {
			return nil, bad("Checksums-Sha256", fmt.Sprintf("%s stands there twice", w[2]))
		}
		out[w[2]] = &listed{name: w[2], size: size, sha: strings.ToLower(w[0])}
	}
	n := 0
	for _, line := range strings.Split(strings.TrimPrefix(st.Get("Files"), "\n"), "\n") {
		w := deb822.Words(line)
		if len(w) != 3 && len(w) != 5 {
			return nil, bad("Files", "a line is neither a checksum, a size and a name, nor that with section and priority")
		}
		l := out[w[len(w)-1]]
		size, err := strconv.ParseInt(w[1], 10, 64)
		if l == nil || err != nil || size != l.size || l.md5 != "" {
			return nil, bad("Files", fmt.Sprintf("%s: Files and Checksums-Sha256 do not agree; build the package again", w[len(w)-1]))
		}
		l.md5 = strings.ToLower(w[0])
		if len(w) == 5 {
			l.section, l.priority = w[2], w[3]
		}
		n++
	}
	if n != len(out) {
		return nil, bad("Files", "Files and Checksums-Sha256 do not list the same files; build the package again")
	}
	return out, nil
}

// open opens a file of the upload, whose kind and size must be right.
func (in *inclusion) open(l *listed) (*os.File, error) {
	name := filepath.Join(in.Dir, l.name)
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ELOOP) {
			return nil, refuse("%s: %s lists it, but it is not there as a regular file; send the whole upload again", l.name, in.Changes)
		}
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = refuse("%s: is no regular file; send the whole upload again", l.name)
	}
	if err == nil && st.Size() != l.size {
		err = refuse("%s: has %d bytes, but %s says %d; send the whole upload again", l.name, st.Size(), in.Changes, l.size)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (in *inclusion) differs(l *listed, what string) error {
	return refuse("%s: %s differs from %s; send the whole upload again", l.name, what, in.Changes)
}

// add hashes a source file and notes it for the pool.
func (in *inclusion) add(l *listed, dir string) error {
	f, err := in.open(l)
	if err != nil {
		return err
	}
	a, b := sha256.New(), md5.New()
	if _, err := io.Copy(io.MultiWriter(a, b), f); err != nil {
		f.Close()
		return fmt.Errorf("read %s: %w", l.name, err)
	}
	in.items = append(in.items, item{f, f.Name(), dir + "/" + l.name, index.Sum{SHA256: l.sha, Size: l.size}})
	if hex.EncodeToString(a.Sum(nil)) != l.sha {
		return in.differs(l, "SHA-256")
	}
	if hex.EncodeToString(b.Sum(nil)) != l.md5 {
		return in.differs(l, "MD5")
	}
	return nil
}

// keepPaper puts a .buildinfo beside its source: no index names it, but who
// wants to build the package again finds it there, as long as the version is
// in some suite (see Collect). The first of a name stays.
func (in *inclusion) keepPaper(l *listed) error {
	if _, err := os.Lstat(filepath.Join(in.Dir, l.name)); errors.Is(err, fs.ErrNotExist) {
		return nil // a source that waits for its binaries comes without
	}
	at := in.dir + "/" + l.name
	switch _, err := in.t.pool.Check(at, l.sha, l.size); {
	case errors.Is(err, pool.ErrClash):
		in.note("%s: the archive keeps the one that it has.", l.name)
		return nil
	case err != nil:
		return err
	}
	return in.add(l, in.dir)
}

func sumFile(name string) (index.Sum, error) { return sumUntil(context.Background(), name) }

// sumUntil is sumFile, and ends when ctx does.
func sumUntil(ctx context.Context, name string) (index.Sum, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return index.Sum{}, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, bound.Reader(ctx, f))
	if err != nil {
		return index.Sum{}, fmt.Errorf("read %s: %w", name, err)
	}
	return index.Sum{SHA256: hex.EncodeToString(h.Sum(nil)), Size: n}, nil
}
