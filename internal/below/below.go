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

	"golang.org/x/sys/unix"
)

// Dir is an open directory: a bare descriptor, and no os.File, which asks the kernel
// more. Each move of an item opens some.
type Dir struct {
	fd   int
	name string
}

// Open opens the directory rel below root. Nothing below root may be a symbolic link
// or lead up; root itself is the caller's to trust. The error is fs.ErrNotExist if the
// directory is not there.
//
// What was opened is asked where it lies. (openat2(2) could refuse links by itself, but
// RestrictSUIDSGID= of systemd.exec(5) answers that call with ENOSYS; to open one
// component after the other takes two calls for each.)
func Open(root, rel string) (*Dir, error) {
	path := filepath.Join(root, rel)
	failed := func(err error) (*Dir, error) {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	if !filepath.IsLocal(rel) {
		return failed(unix.EXDEV)
	}
	for try := range 3 {
		fd, err := openDir(unix.AT_FDCWD, path, 0)
		if err != nil {
			return failed(err)
		}
		lies, err := os.Readlink(numbered(fd))
		if err == nil && lies != path && try > 0 { // root may be behind a link
			if real, rerr := resolved(root); rerr == nil && filepath.Join(real, rel) == lies {
				lies = path
			}
		}
		if err == nil && lies == path {
			return &Dir{fd, path}, nil
		}
		unix.Close(fd)
		if err != nil {
			return failed(err)
		}
		// Or it was renamed just then.
	}
	return failed(unix.ELOOP)
}

func resolved(root string) (string, error) {
	abs, err := filepath.Abs(root)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(abs)
}

func openDir(at int, name string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(at, name, flags|unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// numbered is the link to what a descriptor of this process has open.
func numbered(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// Name is the path by which the directory was opened. It may lead elsewhere now.
func (d *Dir) Name() string { return d.name }

// FD is the descriptor. The Dir keeps it.
func (d *Dir) FD() int { return d.fd }

// File opens the directory of that name in d, if it is no symbolic link, for flock(2)
// and what package os does with it.
func (d *Dir) File(name string) (*os.File, error) {
	fd, err := openDir(d.fd, name, unix.O_NOFOLLOW)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: filepath.Join(d.name, name), Err: err}
	}
	return os.NewFile(uintptr(fd), filepath.Join(d.name, name)), nil
}

// Lstat says what bears that name in it.
func (d *Dir) Lstat(name string, st *unix.Stat_t) error {
	return unix.Fstatat(d.fd, name, st, unix.AT_SYMLINK_NOFOLLOW)
}

// Close closes it.
func (d *Dir) Close() error {
	fd := d.fd
	d.fd = -1
	return unix.Close(fd)
}

// Names lists the directory, in no order.
func (d *Dir) Names() ([]string, error) {
	f, err := os.Open(d.Path())
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

// Path names something in the directory, or without elem the directory itself, for
// as long as it is open and in this process alone. No elem may have a slash or be
// "..".
func (d *Dir) Path(elem ...string) string { return path(d.fd, elem) }

// Path is Dir.Path of a directory that was opened otherwise.
func Path(dir *os.File, elem ...string) string { return path(int(dir.Fd()), elem) }

func path(fd int, elem []string) string {
	// (The last slash makes the kernel follow the link to the directory, also for who
	// says O_NOFOLLOW.)
	return numbered(fd) + "/" + filepath.Join(elem...)
}
