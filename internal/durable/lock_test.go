package durable

import (
	"context"
	"errors"
	"io"
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

// Of a lock in parts one part excludes itself and the whole, and who waits for the whole is let in before those who
// come later.
func TestLockInParts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	part := func(name string) func(context.Context) (io.Closer, error) {
		return func(ctx context.Context) (io.Closer, error) { return AwaitPart(ctx, path, 0o600, name) }
	}
	whole := func(ctx context.Context) (io.Closer, error) { return AwaitWhole(ctx, path, 0o600) }
	old := func(ctx context.Context) (io.Closer, error) { return Await(ctx, path, 0o600) }
	for _, tt := range []struct {
		name          string
		first, second func(context.Context) (io.Closer, error)
		both          bool
	}{
		{"two parts", part("a"), part("b"), true},
		{"a part twice", part("a"), part("a"), false},
		{"a part, the whole", part("a"), whole, false},
		{"the whole, a part", whole, part("a"), false},
		{"the whole twice", whole, whole, false},
		{"a part, a lock", part("a"), old, false},
		{"a lock, a part", old, part("a"), false},
	} {
		l, err := tt.first(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*lockRetry)
		second, err := tt.second(ctx)
		cancel()
		if err == nil {
			second.Close()
		}
		if tt.both && err != nil || !tt.both && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: got %v", tt.name, err)
		}
		l.Close()
		if second, err = tt.second(t.Context()); err != nil {
			t.Fatalf("%s: afterwards: %v", tt.name, err)
		}
		second.Close()
	}

	first, err := part("a")(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 2)
	wait := func(name string, lock func(context.Context) (io.Closer, error)) {
		l, err := lock(t.Context())
		if err != nil {
			t.Error(err)
			return
		}
		got <- name
		l.Close()
	}
	go wait("whole", whole)
	for { // until it waits
		ctx, cancel := context.WithTimeout(t.Context(), 2*lockRetry)
		l, err := part("b")(ctx)
		cancel()
		if err != nil {
			break
		}
		l.Close()
	}
	go wait("b", part("b"))
	first.Close()
	if name := <-got; name != "whole" {
		t.Errorf("%s is let in first, and the whole waited before it", name)
	}
	<-got
}
