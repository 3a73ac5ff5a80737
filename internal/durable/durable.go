// Package durable changes a directory tree so that a crash or a power cut at
// any system call leaves either the old tree or the new one. It is the only
// package of the project that calls rename(2).
//
// A function returns after its effect is on the disk: the files, then the
// directory they lie in, then the rename, then both parents (of a Group's directory
// the new one, see there). Append syncs
// nothing, and what has Unsynced in its name leaves the parents to its caller.
// The rules come
// from what ext4, xfs and btrfs promise, which is less than most programs
// take: a rename may reach the disk before the data of the file it moved, and
// a file's name may not be there though its data is.
//
// Errors are of two kinds. Most say that nothing was changed, or that it can
// be done again. ErrInDoubt says that the kernel could not tell what is on the
// disk (a failed fsync, after which the pages count as clean): the process
// must end, and the next one believes only what it reads after a syncfs.
package durable

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"packmill/internal/regular"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// ErrInDoubt says that disk and memory may differ: a sync failed. The kernel
// reports such an error once and then calls the pages clean, so a second
// fsync proves nothing. The process ends; its successor reads the disk.
var ErrInDoubt = errors.New("a sync failed: disk and memory may differ")

// inDoubt wraps the cause of a failed sync.
func inDoubt(op, path string, err error) error {
	return fmt.Errorf("%s %s: %w: %w", op, path, ErrInDoubt, err)
}

// identity is what tells one file from another under the same name.
type identity struct {
	dev, ino uint64
	dir      bool
}

// place is a name in an open directory, or with unix.AT_FDCWD any path.
type place struct {
	dir  int
	name string
}

func at(path string) place { return place{unix.AT_FDCWD, path} }

func (p place) identify() (identity, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(p.dir, p.name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return identity{}, err
	}
	return identity{uint64(st.Dev), st.Ino, st.Mode&unix.S_IFMT == unix.S_IFDIR}, nil
}

func identify(path string) (identity, error) { return at(path).identify() }

// Rename moves from to to and syncs both parents. It never replaces: if to
// exists the error is fs.ErrExist and nothing has changed. What is moved must
// have been synced before (see SyncTree). After an error of the call itself it
// looks: when to is what from was, the move has happened.
func Rename(from, to string) error {
	return rename(from, to, unix.RENAME_NOREPLACE)
}

// Replace is Rename, but what was at to is gone afterwards: rename(2) as
// POSIX has it, atomic for every reader of to.
func Replace(from, to string) error {
	return rename(from, to, 0)
}

func rename(from, to string, flags uint) error {
	if _, err := move(at(from), at(to), flags); err != nil {
		return err
	}
	return syncBoth(filepath.Dir(from), filepath.Dir(to), SyncDir)
}

// move is a rename without its syncs, and what it moved.
func move(from, to place, flags uint) (identity, error) {
	id, err := from.identify()
	if err != nil {
		return id, &fs.PathError{Op: "rename", Path: from.name, Err: err}
	}
	err = unix.Renameat2(from.dir, from.name, to.dir, to.name, flags)
	if err != nil && !happened(id, from, to) {
		return id, &os.LinkError{Op: "rename", Old: from.name, New: to.name, Err: err}
	}
	return id, nil
}

// syncBoth syncs the two directories between which something was renamed.
func syncBoth(from, to string, sync func(dir string) error) error {
	// The new name first: between the two syncs both names may be found
	// after a cut, which is a duplicate; the other order could lose it.
	if err := sync(to); err != nil || from == to {
		return err
	}
	return sync(from)
}

// happened reports whether a rename that returned an error was done all the
// same: the old name is gone and the new one is the thing that was moved.
func happened(id identity, from, to place) bool {
	if _, err := from.identify(); !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	now, err := to.identify()
	return err == nil && now == id
}

// Exchange swaps two names in one step (RENAME_EXCHANGE) and syncs both
// parents: no reader finds either name missing.
func Exchange(a, b string) error {
	if err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE); err != nil {
		return &os.LinkError{Op: "exchange", Old: a, New: b, Err: err}
	}
	if err := SyncDir(filepath.Dir(a)); err != nil {
		return err
	}
	if filepath.Dir(a) == filepath.Dir(b) {
		return nil
	}
	return SyncDir(filepath.Dir(b))
}

// WriteFile puts data at path in one step: readers find the old content or
// the new, also after a power cut. It writes beside path under a name that
// begins with ".new-", which a crash may leave; such names are swept.
func WriteFile(path string, data []byte, mode fs.FileMode) error {
	tmp, err := writeBeside(path, data, mode)
	if err != nil {
		return err
	}
	if err := Replace(tmp, path); err != nil {
		os.Remove(tmp)
		return err
	}
	return nil
}

// CreateFile is WriteFile for a name that must be new: fs.ErrExist if path is
// there, and then nothing has changed.
func CreateFile(path string, data []byte, mode fs.FileMode) error {
	tmp, err := writeBeside(path, data, mode)
	if err != nil {
		return err
	}
	if err := Rename(tmp, path); err != nil {
		os.Remove(tmp)
		return err
	}
	return nil
}

// NewPrefix begins the names of half-written files. Whoever lists a directory
// that others write to passes over them.
const NewPrefix = ".new-"

func writeBeside(path string, data []byte, mode fs.FileMode) (string, error) {
	return writeFrom(path, bytes.NewReader(data), mode)
}

func writeFrom(path string, data io.Reader, mode fs.FileMode) (string, error) {
	f, err := os.CreateTemp(filepath.Dir(path), NewPrefix+"*")
	if err != nil {
		return "", err
	}
	_, err = io.Copy(f, data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = SyncFile(f)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
}

// Append adds data, which should be whole lines, to the end of the file at
// path with one write and does not sync: it is for records that nobody decides
// by. If the last run was cut off inside a line, a newline comes first. A
// symbolic link at path is refused.
func Append(path string, data []byte, mode fs.FileMode) error {
	// By the bare calls, as in SyncDir: each move comes by here, and package
	// os asks the kernel twice for each file whether it can be polled.
	fd, err := open(path, unix.O_RDWR|unix.O_APPEND|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_NONBLOCK, uint32(mode.Perm()))
	if err != nil {
		return err
	}
	var st unix.Stat_t
	var last [1]byte
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		unix.Close(fd)
		return &fs.PathError{Op: "append", Path: path, Err: cmp.Or(err, errors.New("not a regular file"))}
	}
	if st.Size > 0 {
		if n, err := unix.Pread(fd, last[:], st.Size-1); err == nil && n == 1 && last[0] != '\n' {
			data = append([]byte{'\n'}, data...)
		}
	}
	n := 0
	err = uninterrupted(func() (err error) { n, err = unix.Write(fd, data); return err })
	if err == nil && n < len(data) {
		err = io.ErrShortWrite
	}
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	if err != nil {
		return &fs.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}

func open(path string, flags int, mode uint32) (fd int, err error) {
	err = uninterrupted(func() (err error) {
		fd, err = unix.Open(path, flags|unix.O_CLOEXEC, mode)
		return err
	})
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

// uninterrupted does a call again that a signal ended.
func uninterrupted(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

// SyncFile is fsync(2) with the error that a failed one deserves.
func SyncFile(f *os.File) error {
	if err := f.Sync(); err != nil {
		return inDoubt("sync", f.Name(), err)
	}
	return nil
}

// SyncDir writes the names in dir to the disk. A directory that has gone in
// the meantime is no error: somebody moved it, and syncing its old parent and
// its new one was that one's duty.
func SyncDir(dir string) error {
	fd, err := open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	defer unix.Close(fd)
	return syncFD(fd, dir)
}

func syncFD(fd int, name string) error {
	if err := uninterrupted(func() error { return unix.Fsync(fd) }); err != nil {
		return inDoubt("sync", name, err)
	}
	return nil
}

// SyncTree syncs every regular file and every directory below dir, and dir itself.
// After it, dir can be renamed. Syncs that run side by side share the journal's commits.
func SyncTree(dir string) error {
	var syncs errgroup.Group
	syncs.SetLimit(syncsAtOnce)
	// dir may be a link, as an open directory below /proc is: the walk begins behind it.
	err := filepath.WalkDir(dir+"/.", func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir():
			syncs.Go(func() error { return SyncDir(path) })
		case e.Type().IsRegular():
			syncs.Go(func() error { return SyncPath(path) })
		}
		return nil
	})
	return errors.Join(syncs.Wait(), err)
}

// syncsAtOnce is how many syncs of one tree run side by side.
const syncsAtOnce = 8

// SyncPath syncs a file by name; one that has gone is no error, as in SyncDir. A file
// that cannot be opened for reading is opened for writing: fsync needs any
// descriptor. For one that its owner lets nobody open, the whole file system is synced.
func SyncPath(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrPermission) {
		f, err = os.OpenFile(path, os.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	}
	if errors.Is(err, fs.ErrPermission) {
		return SyncFS(filepath.Dir(path))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return SyncFile(f)
}

// SyncFS writes out the whole file system that dir is on (syncfs(2)). A
// process calls it once when it starts, before it believes what it sees: what
// an earlier process left visible may not be on the disk yet.
func SyncFS(dir string) error {
	d, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return inDoubt("syncfs", dir, err)
	}
	return nil
}

// LinkOrCopy gives the file at from the further name to. Where the system does not
// let this user link it (protected_hardlinks: another user's that he cannot write
// to; another file system; too many links already) to becomes a synced copy of it,
// with this mode. A file with the same content at to is the work of an earlier
// run, and no error. What is no regular file is not copied, nor what a symbolic
// link points to. The caller syncs to's directory.
func LinkOrCopy(from, to string, mode fs.FileMode) error {
	err := os.Link(from, to)
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES), errors.Is(err, unix.EXDEV), errors.Is(err, unix.EMLINK):
		err = copyFile(from, to, mode)
	}
	if errors.Is(err, fs.ErrExist) {
		if same, serr := sameContent(from, to); serr == nil && same {
			return nil
		}
	}
	return err
}

// copyFile makes to a copy of from in one step; fs.ErrExist if to is there.
func copyFile(from, to string, mode fs.FileMode) error {
	r, err := regular.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	tmp, err := writeFrom(to, r, mode)
	if err != nil {
		return err
	}
	if err := RenameUnsynced(tmp, to); err != nil {
		os.Remove(tmp)
		return err
	}
	return nil
}

func sameContent(a, b string) (bool, error) {
	if p, err := identify(a); err == nil {
		if q, err := identify(b); err == nil && p == q {
			return true, nil
		}
	}
	x, err := regular.Open(a)
	if err != nil {
		return false, err
	}
	defer x.Close()
	y, err := regular.Open(b)
	if err != nil {
		return false, err
	}
	defer y.Close()
	p, q := make([]byte, 256<<10), make([]byte, 256<<10)
	for {
		n, xerr := io.ReadFull(x, p)
		m, yerr := io.ReadFull(y, q)
		ends := xerr == io.EOF || xerr == io.ErrUnexpectedEOF
		switch {
		case xerr != nil && !ends:
			return false, xerr
		case yerr != nil && yerr != io.EOF && yerr != io.ErrUnexpectedEOF:
			return false, yerr
		case !bytes.Equal(p[:n], q[:m]):
			return false, nil
		case ends:
			return true, nil
		}
	}
}

// Symlink makes path a symbolic link to target, in one step even if path was
// another link before.
func Symlink(target, path string) error {
	if old, err := os.Readlink(path); err == nil && old == target {
		return SyncDir(filepath.Dir(path))
	}
	f, err := os.CreateTemp(filepath.Dir(path), NewPrefix+"*")
	if err != nil {
		return err
	}
	tmp := f.Name()
	f.Close()
	if err := os.Remove(tmp); err != nil {
		return err
	}
	if err := os.Symlink(target, tmp); err != nil {
		return err
	}
	if err := Replace(tmp, path); err != nil {
		os.Remove(tmp)
		return err
	}
	return nil
}

// MkdirAll makes dir and what is missing above it, and syncs each directory
// in which a name was made.
func MkdirAll(dir string, mode fs.FileMode) error { return mkdirAll(dir, mode, 16) }

// mkdirAll tries again so often: somebody may take an empty directory above away
// before there is one in it. Some file systems (proc) say for ever that it is gone.
func mkdirAll(dir string, mode fs.FileMode, tries int) error {
	err := os.Mkdir(dir, mode)
	switch {
	case err == nil:
		return SyncDir(filepath.Dir(dir))
	case errors.Is(err, fs.ErrExist):
		st, err := os.Stat(dir)
		if err == nil && !st.IsDir() {
			return &fs.PathError{Op: "mkdir", Path: dir, Err: unix.ENOTDIR}
		}
		return err
	case errors.Is(err, fs.ErrNotExist) && filepath.Dir(dir) != dir && tries > 0:
		if err := mkdirAll(filepath.Dir(dir), mode, tries); err != nil {
			return err
		}
		return mkdirAll(dir, mode, tries-1)
	}
	return err
}

// Remove takes the file or empty directory at path away and syncs its
// directory. A name that is gone already is no error.
func Remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// openUp makes the directories at path ones that their owner reads and writes. Who may
// write among them may put a link in the place of one meanwhile, to any of ours: what lies
// elsewhere keeps its mode.
func openUp(path string) {
	root, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return
	}
	defer root.Close()
	fs.WalkDir(root.FS(), filepath.Base(path), func(p string, e fs.DirEntry, err error) error {
		// WalkDir reads a directory after this call, so a mode that is mended
		// here lets it in.
		if err == nil && e.IsDir() {
			root.Chmod(p, 0o700)
		}
		return nil
	})
}

// RemoveAll takes the tree at path away, also one whose directories somebody
// made unreadable or unwritable, and syncs the directory it lay in. It does
// not follow symbolic links.
func RemoveAll(path string) error {
	err := os.RemoveAll(path)
	if errors.Is(err, fs.ErrPermission) {
		openUp(path)
		err = os.RemoveAll(path)
	}
	if err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}
