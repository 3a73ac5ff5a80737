package durable

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sys/unix"
)

// ErrLocked says that another process, or another part of this one, has the lock.
var ErrLocked = errors.New("another process has its lock")

// lockRetry is between two looks at a lock that somebody has, where the wait can
// end otherwise.
const lockRetry = 20 * time.Millisecond

// Lock locks the file or directory at path against every other Lock, Await and
// LockFile of it (flock(2)); closing lets go. It does not wait: ErrLocked. A
// file that is not there is made with that mode; with none, 0, it is
// fs.ErrNotExist. A symbolic link at path is refused.
func Lock(path string, mode fs.FileMode) (io.Closer, error) {
	l := lockAt(path, mode)
	ok, err := l.TryLock()
	if err == nil && !ok {
		err = ErrLocked
	}
	return given(l, err)
}

// Await is Lock that waits until the lock is free, or ctx ends.
func Await(ctx context.Context, path string, mode fs.FileMode) (io.Closer, error) {
	l := lockAt(path, mode)
	if ctx.Done() != nil {
		_, err := l.TryLockContext(ctx, lockRetry)
		return given(l, err)
	}
	return given(l, uninterrupted(l.Lock))
}

// Locked reports whether somebody has the lock of what lies at path, or it
// cannot be known: then somebody may.
func Locked(path string) bool {
	l := lockAt(path, 0)
	defer l.Close()
	// Shared, so that two who ask do not see each other.
	ok, err := l.TryRLock()
	return !ok && !errors.Is(err, fs.ErrNotExist)
}

// LockFile locks an open file, as Lock does: for as long as the descriptor is
// open, here or in a child that inherited it. It is for locks that outlive this
// process, and for files that have no name yet.
func LockFile(f *os.File) error { return lockFile(f, unix.LOCK_EX) }

// ShareFile is LockFile beside others that share the lock: nobody can Lock it meanwhile.
func ShareFile(f *os.File) error { return lockFile(f, unix.LOCK_SH) }

func lockFile(f *os.File, how int) error {
	err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return ErrLocked
	}
	if err != nil {
		return &fs.PathError{Op: "lock", Path: f.Name(), Err: err}
	}
	return nil
}

func lockAt(path string, mode fs.FileMode) *flock.Flock {
	flags := os.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK
	if mode != 0 {
		flags |= os.O_CREATE
	}
	return flock.New(path, flock.SetFlag(flags), flock.SetPermissions(mode))
}

// given gives the lock away, or lets go of what there is of it.
func given(l *flock.Flock, err error) (io.Closer, error) {
	if err == nil {
		return l, nil
	}
	l.Close()
	if errno := unix.Errno(0); errors.As(err, &errno) && !errors.As(err, new(*fs.PathError)) {
		err = &fs.PathError{Op: "lock", Path: l.Path(), Err: err}
	}
	return nil, err
}
