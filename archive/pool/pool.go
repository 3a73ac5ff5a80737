// Package pool knows where a package's files lie in an archive and puts them
// there. A name in the pool never changes its bytes.
package pool

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"packmill/internal/durable"
	"packmill/internal/policy"
	"packmill/internal/regular"
)

// Dir is the directory of a source package and its binaries, relative to the
// archive: pool/main/libh/libhello. The names must have been checked
// (policy.CheckSource, policy.CheckComponent).
func Dir(component, source string) string {
	return path.Join("pool", component, policy.PoolPrefix(source), source)
}

// ErrClash says that the pool has the name with other bytes.
var ErrClash = errors.New("the pool has another file of this name")

// Placer puts files into the pool below an archive's directory. Nothing it did
// counts before Sync.
type Placer struct {
	Root string // the archive
	Dry  bool   // Place puts nothing there, but Check knows of it

	files   []string
	dirs    map[string]bool
	planned map[string]string // what a dry run would have placed: the checksum by name
}

// Check reports whether name, relative to the archive, is there with this
// content. The error is ErrClash if it is there with another one.
func (p *Placer) Check(name string, sha string, size int64) (there bool, err error) {
	if other := p.planned[name]; other != "" && other != sha {
		return true, ErrClash
	} else if other != "" {
		return true, nil
	}
	f, err := regular.Open(filepath.Join(p.Root, name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if errors.Is(err, regular.ErrNotRegular) {
		return true, ErrClash
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return false, err
	}
	if st.Size() != size {
		return true, ErrClash
	}
	h := sha256.New()
	if _, err := regular.Stream(h, f); err != nil {
		return true, fmt.Errorf("read %s: %w", name, err)
	}
	if hex.EncodeToString(h.Sum(nil)) != sha {
		return true, ErrClash
	}
	return true, nil
}

// Place gives the open file, which lies at from and has been checked, the name
// in the pool: by a hard link, or as a copy if the pool is on another file
// system. The name must be free or have the same content (Check).
func (p *Placer) Place(f *os.File, from, name, sha string) error {
	if p.Dry {
		if p.planned == nil {
			p.planned = map[string]string{}
		}
		p.planned[name] = sha
		return nil
	}
	to := filepath.Join(p.Root, name)
	if err := p.mkdir(filepath.Dir(to)); err != nil {
		return err
	}
	want, err := f.Stat()
	if err != nil {
		return err
	}
	// Who owns a file can write to it, or has it open for writing, whatever
	// its mode: of another user's file the pool takes a copy.
	if sys, ok := want.Sys().(*syscall.Stat_t); !ok || int(sys.Uid) != os.Geteuid() {
		return p.placeCopy(f, to, name, sha, want.Size())
	}
	if want.Mode().Perm() != 0o644 {
		if err := f.Chmod(0o644); err != nil {
			return fmt.Errorf("place %s: %w", name, err)
		}
	}
	err = os.Link(from, to)
	switch {
	case err == nil:
		got, err := os.Lstat(to)
		if err != nil {
			return err
		}
		if !os.SameFile(got, want) {
			os.Remove(to)
			return fmt.Errorf("place %s: %s was exchanged while it was checked", name, from)
		}
	case errors.Is(err, fs.ErrExist):
		// An earlier run that was cut off, or another upload's same file.
		got, err := os.Lstat(to)
		if err != nil {
			return err
		}
		if os.SameFile(got, want) {
			break
		}
		if _, err := p.Check(name, sha, want.Size()); err != nil {
			return fmt.Errorf("place %s: %w", name, err)
		}
	case errors.Is(err, unix.EXDEV), errors.Is(err, unix.EPERM), errors.Is(err, unix.EMLINK):
		if err := p.copy(f, to, name, sha); err != nil {
			return err
		}
	default:
		return fmt.Errorf("place %s: %w", name, err)
	}
	p.placed(to)
	return nil
}

// placed notes what Sync must write out.
func (p *Placer) placed(to string) {
	if p.files = append(p.files, to); len(p.files) > few+1 {
		p.files = p.files[:few+1] // enough to know that they are many
	}
	p.dirs[filepath.Dir(to)] = true
}

// placeCopy is Place by a copy.
func (p *Placer) placeCopy(f *os.File, to, name, sha string, size int64) error {
	there, err := p.Check(name, sha, size)
	if err != nil {
		return fmt.Errorf("place %s: %w", name, err)
	}
	if !there {
		if err := p.copy(f, to, name, sha); err != nil {
			return err
		}
	}
	p.placed(to)
	return nil
}

func (p *Placer) copy(f *os.File, to, name, sha string) error {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(to), ".new-")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	h := sha256.New()
	if _, err := regular.Stream(io.MultiWriter(tmp, h), f); err != nil {
		return fmt.Errorf("place %s: %w", name, err)
	}
	if hex.EncodeToString(h.Sum(nil)) != sha {
		return fmt.Errorf("place %s: the file was changed while it was checked", name)
	}
	if err := tmp.Chmod(0o644); err != nil {
		return err
	}
	if err := durable.SyncFile(tmp); err != nil {
		return err
	}
	if err := os.Link(tmp.Name(), to); err != nil {
		return fmt.Errorf("place %s: %w", name, err)
	}
	return nil
}

// mkdir makes dir and remembers it and what is above it: another suite's publication may have
// made one of them just now, and not have synced its name yet.
func (p *Placer) mkdir(dir string) error {
	if p.dirs[dir] {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if p.dirs == nil {
		p.dirs = map[string]bool{}
	}
	for d := dir; len(d) >= len(p.Root) && !p.dirs[d]; d = filepath.Dir(d) {
		p.dirs[d] = true
	}
	return nil
}

// Many files are synced by one call for the whole file system; a few one by
// one, so as not to wait for what others write.
const few = 48

// Sync returns when everything that was placed is on the disk.
func (p *Placer) Sync() error {
	defer func() { p.files, p.dirs = nil, nil }()
	if len(p.files) == 0 {
		return nil
	}
	if len(p.files) > few {
		return durable.SyncFS(p.Root)
	}
	var syncs errgroup.Group
	syncs.SetLimit(8)
	for _, name := range p.files {
		syncs.Go(func() error { return durable.SyncPath(name) })
	}
	for d := range p.dirs {
		syncs.Go(func() error { return durable.SyncDir(d) })
	}
	return syncs.Wait()
}
