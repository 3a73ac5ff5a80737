package durable

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestLock(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if _, err := Lock(file, 0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: got %v, want %v", err, fs.ErrNotExist)
	}
	if Locked(file) {
		t.Error("a file that is not there is locked")
	}
	if err := os.Symlink("elsewhere", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if l, err := Lock(filepath.Join(dir, "link"), 0o600); err == nil {
		l.Close()
		t.Error("a symbolic link was followed")
	}
	for path, mode := range map[string]fs.FileMode{file: 0o640, dir: 0} {
		l, err := Lock(path, mode)
		if err != nil {
			t.Fatal(err)
		}
		if st, err := os.Stat(path); err != nil || mode != 0 && st.Mode().Perm() != mode {
			t.Errorf("%s: made with mode %v, %v, want %v", path, st.Mode(), err, mode)
		}
		if _, err := Lock(path, 0); !errors.Is(err, ErrLocked) {
			t.Errorf("%s: a second lock: got %v, want %v", path, err, ErrLocked)
		}
		if !Locked(path) {
			t.Errorf("%s: not locked, and it is", path)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := LockFile(f); !errors.Is(err, ErrLocked) {
			t.Errorf("%s: a lock of the open file: got %v, want %v", path, err, ErrLocked)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 3*lockRetry)
		if _, err := Await(ctx, path, 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: a wait that ended: got %v", path, err)
		}
		cancel()
		for _, ctx := range []context.Context{context.Background(), t.Context()} {
			got := make(chan error)
			go func() {
				next, err := Await(ctx, path, 0)
				if err == nil {
					err = next.Close()
				}
				got <- err
			}()
			select {
			case err := <-got:
				t.Errorf("%s: a second lock was given while the first is held (%v)", path, err)
			case <-time.After(2 * lockRetry):
			}
			l.Close()
			if err := <-got; err != nil {
				t.Errorf("%s: after the wait: %v", path, err)
			}
			if l, err = Lock(path, 0); err != nil {
				t.Fatal(err)
			}
		}
		l.Close()
		if err := LockFile(f); err != nil {
			t.Errorf("%s: a lock that is free: %v", path, err)
		}
		if !Locked(path) {
			t.Errorf("%s: the open file is locked, and is not seen to be", path)
		}
		f.Close()
		if Locked(path) {
			t.Errorf("%s: locked, and nobody has it", path)
		}
	}
}
