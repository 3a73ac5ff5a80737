// Package regular opens files that somebody else may have put there: a builder,
// an uploader, whoever may write to a directory that is shared. What is opened
// is a regular file, and the one of that name.
package regular

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// These are faults of the file; any other error is the machine's trouble, or
// fs.ErrNotExist.
var (
	// ErrNotRegular says that what bears the name is a link, a directory, a pipe, a
	// socket or a device.
	ErrNotRegular = errors.New("not a regular file")

	// ErrLink is the ErrNotRegular of a symbolic link.
	ErrLink = fmt.Errorf("a symbolic link, %w", ErrNotRegular)

	// ErrLarge says that a file is larger than it may be.
	ErrLarge = errors.New("too large")
)

// flags: no link is followed, no pipe waited for, no terminal becomes the process's own.
const flags = os.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC

// Open opens the regular file at path to read it. The directories above it are
// the caller's to trust: links are followed there (see OpenIn).
func Open(path string) (*os.File, error) {
	f, err := os.OpenFile(path, flags, 0)
	return judge(f, path, err)
}

// OpenIn is Open of a name in dir, which must itself be no symbolic link.
func OpenIn(dir, name string) (*os.File, error) {
	dirfd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(dirfd)
	return openAt(dirfd, name, filepath.Join(dir, name))
}

// OpenRoot is Open of a name in the directory root. (root.OpenFile follows links
// that stay below root, whatever its flags.)
func OpenRoot(root *os.Root, name string) (*os.File, error) {
	dir, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return openAt(int(dir.Fd()), name, filepath.Join(root.Name(), name))
}

// openAt opens a name, which must be one and no path, in an open directory.
func openAt(dirfd int, name, path string) (*os.File, error) {
	if name != filepath.Base(name) || name == ".." {
		return nil, fmt.Errorf("open %s: %w", path, ErrNotRegular)
	}
	for {
		fd, err := unix.Openat(dirfd, name, flags, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return judge(nil, path, &fs.PathError{Op: "open", Path: path, Err: err})
		}
		return judge(os.NewFile(uintptr(fd), path), path, nil)
	}
}

// judge lets regular files pass, and says of what is none that it is none.
func judge(f *os.File, path string, err error) (*os.File, error) {
	switch {
	case errors.Is(err, unix.ELOOP):
		err = ErrLink
	case errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV): // a socket; a device without a driver
		err = ErrNotRegular
	case err != nil:
		return nil, err
	default:
		st, serr := f.Stat()
		if serr == nil && st.Mode().IsRegular() {
			return f, nil
		}
		f.Close()
		if err = ErrNotRegular; serr != nil {
			return nil, serr
		}
	}
	return nil, fmt.Errorf("open %s: %w", path, err)
}

// Read reads the regular file at path, which may be of limit bytes.
func Read(path string, limit int64) ([]byte, error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return ReadAll(f, limit)
}

// ReadAll reads a file from its beginning to where it ends now: one that grows
// has no other end. limit is the most, in bytes, that it may have.
func ReadAll(f *os.File, limit int64) ([]byte, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Size() > limit {
		return nil, fmt.Errorf("read %s: %w: it has %d bytes, and %d are the limit", f.Name(), ErrLarge, st.Size(), limit)
	}
	data := make([]byte, st.Size())
	n, err := f.ReadAt(data, 0)
	if errors.Is(err, io.EOF) {
		err = nil // it became shorter
	}
	return data[:n], err
}

// Tail reads into buf the end of the regular file at path: the whole of one that fits.
// (Each claim of an item reads the end of its history, so it is done by the bare calls.)
func Tail(path string, buf []byte) ([]byte, error) {
	fd, err := unix.Open(path, flags, 0)
	for errors.Is(err, unix.EINTR) {
		fd, err = unix.Open(path, flags, 0)
	}
	if err != nil {
		_, err = judge(nil, path, &fs.PathError{Op: "open", Path: path, Err: err})
		return nil, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("open %s: %w", path, ErrNotRegular)
	}
	buf = buf[:min(int64(len(buf)), st.Size)]
	n, err := unix.Pread(fd, buf, st.Size-int64(len(buf)))
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: path, Err: err}
	}
	return buf[:n], nil
}

// Copy copies the regular file at from to a new file.
func Copy(from, to string) error {
	src, err := Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close())
}

// buffers are those of Stream, of 64 KiB.
var buffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// Stream is io.Copy for what is summed up file by file: its buffer serves again, where io.Copy makes one of 32 KiB for
// each file, also for one of a few bytes.
func Stream(to io.Writer, from io.Reader) (int64, error) {
	buf := buffers.Get().(*[64 << 10]byte)
	defer buffers.Put(buf)
	// Nothing but Read and Write is seen of the two: a file's own WriteTo makes that buffer too.
	return io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, buf[:])
}
