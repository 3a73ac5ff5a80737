// Package below names what lies below a directory by the directory's own
// descriptor. A name in a directory that others write to may be another thing
// when it is used than it was when it was checked: a symbolic link, or another
// directory. What is reached through a Dir lies where the Dir was opened, whatever
// somebody puts in the place of its name since.
package below

import (
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Dir is an open directory.
type Dir struct{ f *os.File }

// Open opens the directory rel below root, one component after the other, none of
// which may be a symbolic link or lead up; root itself is the caller's to trust. The
// error is fs.ErrNotExist if it is not there. (openat2(2) does it in one call, but
// RestrictSUIDSGID= of systemd.exec(5) answers that call with ENOSYS.)
func Open(root, rel string) (*Dir, error) {
	rel = filepath.Clean(rel)
	failed := func(err error) (*Dir, error) {
		return nil, &fs.PathError{Op: "open", Path: filepath.Join(root, rel), Err: err}
	}
	if !filepath.IsLocal(rel) {
		return failed(unix.EXDEV)
	}
	at, err := openDir(unix.AT_FDCWD, root, unix.O_PATH)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: root, Err: err}
	}
	for step := range strings.SplitSeq(filepath.Dir(rel), "/") {
		next, err := openDir(at, step, unix.O_PATH|unix.O_NOFOLLOW)
		unix.Close(at)
		if err != nil {
			return failed(err)
		}
		at = next
	}
	fd, err := openDir(at, filepath.Base(rel), unix.O_RDONLY|unix.O_NOFOLLOW)
	unix.Close(at)
	if err != nil {
		return failed(err)
	}
	return &Dir{os.NewFile(uintptr(fd), filepath.Join(root, rel))}, nil
}

func openDir(at int, name string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(at, name, flags|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// Path names something in the directory, or without elem the directory itself, for
// as long as it is open and in this process alone. No elem may have a slash or be
// "..".
func (d *Dir) Path(elem ...string) string { return Path(d.f, elem...) }

// File is the open directory, for flock(2) and the like. The Dir keeps it.
func (d *Dir) File() *os.File { return d.f }

// Close closes it.
func (d *Dir) Close() error { return d.f.Close() }

// Names lists the directory, in no order.
func (d *Dir) Names() ([]string, error) {
	if _, err := d.f.Seek(0, 0); err != nil {
		return nil, err
	}
	return d.f.Readdirnames(-1)
}

// Path is Dir.Path of a directory that was opened otherwise.
func Path(dir *os.File, elem ...string) string {
	// (The last slash makes the kernel follow the link to the directory, also for who
	// says O_NOFOLLOW.)
	path := "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/"
	return path + filepath.Join(elem...)
}
