package durable

import (
	"context"
	"errors"
	"hash/fnv"
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

// AwaitWhole is Await of what AwaitPart locks in parts: it waits until nobody has any of
// them, and whoever wants one meanwhile waits for it, so that its turn comes.
func AwaitWhole(ctx context.Context, path string, mode fs.FileMode) (io.Closer, error) {
	return lockIn(path, mode, func(f *os.File) error {
		if err := await(ctx, func() error { return lockByte(f, gate, unix.F_WRLCK) }); err != nil {
			return err
		}
		if err := await(ctx, func() error { return LockFile(f) }); err != nil {
			return err
		}
		return lockByte(f, gate, unix.F_UNLCK)
	})
}

// AwaitPart locks one part, by its name, of what the file at path is the lock of: against
// another AwaitPart of it, and against Lock, Await and AwaitWhole of the file. Closing lets go.
func AwaitPart(ctx context.Context, path string, mode fs.FileMode, part string) (io.Closer, error) {
	return lockIn(path, mode, func(f *os.File) error {
		h := fnv.New64a()
		h.Write([]byte(part))
		own := int64(h.Sum64()>>2) + gate + 1
		for _, lock := range []func() error{
			func() error { return lockByte(f, own, unix.F_WRLCK) },
			func() error { return lockByte(f, gate, unix.F_RDLCK) },
			func() error { return ShareFile(f) },
		} {
			if err := await(ctx, lock); err != nil {
				return err
			}
		}
		return lockByte(f, gate, unix.F_UNLCK)
	})
}

// gate is the byte that whoever waits for the whole holds.
const gate = 0

// lockIn opens the lock file and has take lock what it wants of it.
func lockIn(path string, mode fs.FileMode, take func(*os.File) error) (io.Closer, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, mode)
	if err != nil {
		return nil, err
	}
	if err := take(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// await tries to lock until it is not ErrLocked, or ctx ends.
func await(ctx context.Context, lock func() error) error {
	for {
		err := lock()
		if !errors.Is(err, ErrLocked) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lockRetry):
		}
	}
}

// lockByte locks one byte of an open file (fcntl(2), F_OFD_SETLK): the lock is the open
// file's, so that two parts of this process exclude each other too.
func lockByte(f *os.File, at int64, how int16) error {
	one := unix.Flock_t{Type: how, Whence: io.SeekStart, Start: at, Len: 1}
	err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &one)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return ErrLocked
	}
	if err != nil {
		return &fs.PathError{Op: "lock", Path: f.Name(), Err: err}
	}
	return nil
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
