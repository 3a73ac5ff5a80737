package runner

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"packmill/internal/durable"
	"packmill/internal/regular"

	"golang.org/x/sys/unix"
)

// empty makes dir an empty directory. It does not follow a link.
func empty(dir string) error {
	st, err := os.Lstat(dir)
	if os.IsNotExist(err) {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return fmt.Errorf("build directory: %w", err)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("build directory: %w", err)
	}
	if !st.IsDir() {
		return fmt.Errorf("build directory %s: not a directory", dir)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("build directory: %w", err)
	}
	for _, e := range entries {
		if err := durable.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("empty build directory: %w", err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return fmt.Errorf("build directory: %w", err)
	}
	return nil
}

// scratchDir makes a directory below base for one build, locked as long as
// anything of the build holds the lock, and removes first what builds of dead
// daemons left there.
func scratchDir(base, prefix string, remove func(dir string) error) (dir string, lock *os.File, err error) {
	fail := func(err error) (string, *os.File, error) {
		return "", nil, fmt.Errorf("scratch space for builds: %w: %w", err, ErrSetup)
	}
	old, err := filepath.Glob(filepath.Join(base, prefix+"*"))
	if err != nil {
		return fail(err)
	}
	for _, dir := range old {
		lock, err := lockDir(dir, durable.LockFile)
		if err != nil {
			continue // in use, or another user's
		}
		// One that was made this moment is not locked yet.
		if st, err := lock.Stat(); err == nil && time.Since(st.ModTime()) > time.Minute {
			remove(dir)
		}
		lock.Close()
	}
	if dir, err = os.MkdirTemp(base, prefix); err != nil {
		return fail(err)
	}
	if lock, err = lockDir(dir, durable.LockFile); err != nil {
		return fail(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		lock.Close()
		return fail(err)
	}
	return dir, lock, nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// takeBack makes the plain files of dir ours again after a build as another
// user, readable by everybody and writable by nobody else. Nothing of the
// build runs any more, so nobody swaps a file meanwhile.
func takeBack(dir string) error {
	uid, gid := os.Geteuid(), os.Getegid()
	if err := os.Lchown(dir, uid, gid); err != nil {
		return fmt.Errorf("take back results: %w", err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return fmt.Errorf("take back results: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("take back results: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		// A link to an inode elsewhere keeps its owner and mode.
		var st unix.Stat_t
		if unix.Lstat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink != 1 {
			continue
		}
		if err := os.Lchown(path, uid, gid); err != nil {
			return fmt.Errorf("take back results: %w", err)
		}
		if err := os.Chmod(path, 0o644); err != nil {
			return fmt.Errorf("take back results: %w", err)
		}
	}
	return nil
}

// Own looks at a directory that must be this user's own, and closed to all others.
func Own(dir string) (st unix.Stat_t, err error) {
	if err = unix.Lstat(dir, &st); err != nil {
		return st, &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
		return st, fmt.Errorf("%s is not the directory that was made for the build: somebody put another in its place", dir)
	}
	return st, nil
}

// openPlain opens a plain file that has no other name, and nothing else.
func openPlain(path string) (*os.File, error) {
	f, err := regular.Open(path)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Nlink != 1 {
		f.Close()
		return nil, fmt.Errorf("%s is not a plain file with one name", filepath.Base(path))
	}
	return f, nil
}

// tailOf returns at most the last n bytes of the log, opened anew: the
// descriptor that it is written by need not be readable.
func tailOf(log *os.File, n int64) ([]byte, error) {
	f, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", log.Fd()))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file", log.Name())
	}
	start := max(0, st.Size()-n)
	return io.ReadAll(io.NewSectionReader(f, start, n))
}
