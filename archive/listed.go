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

	"packmill/archive/index"
	"packmill/archive/pool"
	"packmill/internal/bound"
	"packmill/internal/deb822"
	"packmill/internal/paper"
	"packmill/internal/policy"
	"packmill/internal/regular"
)

// readChanges reads the .changes: one list of files from Files and
// Checksums-Sha256, which must agree.
func (in *inclusion) readChanges() error {
	if err := policy.CheckFile(in.Changes); err != nil {
		return refuse("%v", err)
	}
	data, err := in.Text, error(nil)
	if data == nil {
		data, err = in.readPaper(in.Changes)
	}
	if err != nil {
		return err
	}
	ch, err := paper.Parse(in.Changes, data)
	if err != nil {
		return refuse("%v", err)
	}
	in.ch = ch
	in.source, in.version = paper.Source(ch.Get("Source"))
	if in.version == "" { // else it is a binNMU: the version of the source
		in.version = ch.Get("Version")
	}
	if err := policy.CheckSource(in.source); err != nil {
		return refuse("%s: %v", in.Changes, err)
	}
	if err := policy.CheckVersion(in.version); err != nil {
		return refuse("%s: %v", in.Changes, err)
	}
	in.files, err = listFiles(ch, paper.Long)
	return err
}

// readPaper reads the text of a .changes or .dsc of the upload.
func (in *inclusion) readPaper(name string) ([]byte, error) {
	data, err := regular.Read(filepath.Join(in.Dir, name), deb822.Hostile.Size)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, regular.ErrNotRegular):
		return nil, refuse("%s: is not there as a regular file; send the whole upload again", name)
	case errors.Is(err, regular.ErrLarge):
		return nil, refuse("%s: is larger than %d bytes; split the upload", name, deb822.Hostile.Size)
	}
	return data, err
}

// listFiles reads the file lists of a paper; each file has both sums that the archive compares.
func listFiles(st *deb822.Stanza, form paper.Form) (map[string]*paper.File, error) {
	files, err := paper.Files(st, form, paper.SHA256, paper.MD5)
	if err != nil {
		return nil, refuse("%v", err)
	}
	out := map[string]*paper.File{}
	for i := range files {
		out[files[i].Name] = &files[i]
	}
	return out, nil
}

// open opens a file of the upload, whose kind and size must be right.
func (in *inclusion) open(l *paper.File) (*os.File, error) {
	name := filepath.Join(in.Dir, l.Name)
	f, err := regular.Open(name)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, regular.ErrNotRegular) {
			return nil, refuse("%s: %s lists it, but it is not there as a regular file; send the whole upload again",
				l.Name, in.Changes)
		}
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && st.Size() != l.Size {
		err = refuse("%s: has %d bytes, but %s says %d; send the whole upload again", l.Name, st.Size(), in.Changes, l.Size)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (in *inclusion) differs(l *paper.File, what string) error {
	return refuse("%s: %s differs from %s; send the whole upload again", l.Name, what, in.Changes)
}

// add hashes a source file and notes it for the pool.
func (in *inclusion) add(l *paper.File, dir string) error {
	f, err := in.open(l)
	if err != nil {
		return err
	}
	a, b := sha256.New(), md5.New()
	if _, err := regular.Stream(io.MultiWriter(a, b), f); err != nil {
		f.Close()
		return fmt.Errorf("read %s: %w", l.Name, err)
	}
	in.items = append(in.items, item{f, f.Name(), dir + "/" + l.Name, index.Sum{SHA256: l.SHA256, Size: l.Size}})
	if hex.EncodeToString(a.Sum(nil)) != l.SHA256 {
		return in.differs(l, "SHA-256")
	}
	if hex.EncodeToString(b.Sum(nil)) != l.MD5 {
		return in.differs(l, "MD5")
	}
	return nil
}

// keepPaper puts a .buildinfo beside its source: no index names it, but who
// wants to build the package again finds it there, as long as the version is
// in some suite (see Collect). The first of a name stays.
func (in *inclusion) keepPaper(l *paper.File) error {
	if _, err := os.Lstat(filepath.Join(in.Dir, l.Name)); errors.Is(err, fs.ErrNotExist) {
		return nil // a source that waits for its binaries comes without
	}
	at := in.dir + "/" + l.Name
	switch _, err := in.t.pool.Check(at, l.SHA256, l.Size); {
	case errors.Is(err, pool.ErrClash):
		in.note("%s: the archive keeps the one that it has.", l.Name)
		return nil
	case err != nil:
		return err
	}
	return in.add(l, in.dir)
}

func sumFile(name string) (index.Sum, error) { return sumUntil(context.Background(), name) }

// sumUntil is sumFile, and ends when ctx does.
func sumUntil(ctx context.Context, name string) (index.Sum, error) {
	f, err := regular.Open(name)
	if err != nil {
		return index.Sum{}, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := regular.Stream(h, bound.Reader(ctx, f))
	if err != nil {
		return index.Sum{}, fmt.Errorf("read %s: %w", name, err)
	}
	return index.Sum{SHA256: hex.EncodeToString(h.Sum(nil)), Size: n}, nil
}
