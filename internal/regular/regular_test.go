package regular_test

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"packmill/internal/regular"
)

// What somebody who means harm puts in the place of a file.
var odd = map[string]struct {
	make func(path string) error
	want error
}{
	"link":      {func(p string) error { return os.Symlink("/etc/passwd", p) }, regular.ErrLink},
	"broken":    {func(p string) error { return os.Symlink("nowhere", p) }, regular.ErrLink},
	"directory": {func(p string) error { return os.Mkdir(p, 0o755) }, regular.ErrNotRegular},
	"pipe":      {func(p string) error { return unix.Mkfifo(p, 0o666) }, regular.ErrNotRegular},
	"device": {func(p string) error {
		return unix.Mknod(p, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5)))
	}, regular.ErrNotRegular},
	"no driver": {func(p string) error {
		return unix.Mknod(p, unix.S_IFCHR|0o666, int(unix.Mkdev(250, 250)))
	}, regular.ErrNotRegular},
	"not there":    {func(string) error { return nil }, fs.ErrNotExist},
	"socket":       {listen, regular.ErrNotRegular},
	"regular file": {func(p string) error { return os.WriteFile(p, []byte("text"), 0o644) }, nil},
}

func listen(path string) error {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err == nil {
		l.SetUnlinkOnClose(false)
		err = l.Close()
	}
	return err
}

func whole(f *os.File, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

func TestOnlyRegularFilesAreOpened(t *testing.T) {
	dir, err := os.MkdirTemp("", "regular") // t.TempDir is too long for a socket's name
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for what, c := range odd {
		path := filepath.Join(dir, what)
		if err := c.make(path); errors.Is(err, fs.ErrPermission) {
			continue // a device needs root
		} else if err != nil {
			t.Fatal(err)
		}
		for how, read := range map[string]func() ([]byte, error){
			"Open":     func() ([]byte, error) { return whole(regular.Open(path)) },
			"OpenIn":   func() ([]byte, error) { return whole(regular.OpenIn(dir, what)) },
			"OpenRoot": func() ([]byte, error) { return whole(regular.OpenRoot(root, what)) },
			"Tail":     func() ([]byte, error) { return regular.Tail(path, make([]byte, 100)) },
		} {
			done := make(chan error, 1)
			go func() {
				data, err := read()
				if err == nil && string(data) != "text" {
					err = errors.New("other content")
				}
				done <- err
			}()
			select {
			case err := <-done:
				if !errors.Is(err, c.want) {
					t.Errorf("%s of a %s: got %v, want %v", how, what, err, c.want)
				}
				// Callers tell the file's fault from the machine's by this.
				if trouble := (*fs.PathError)(nil); errors.As(err, &trouble) && !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s of a %s: got a PathError, %v", how, what, err)
				}
			case <-time.After(30 * time.Second):
				t.Fatalf("%s of a %s does not return", how, what)
			}
		}
	}
}

func TestOpenInFollowsNoLinkToItsDirectory(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	if f, err := regular.OpenIn(link, "f"); err == nil {
		f.Close()
		t.Error("the link to the directory was followed")
	}
	for _, name := range []string{"../" + filepath.Base(dir) + "/f", "/etc/passwd", "..", ".", "", "./f"} {
		if f, err := regular.OpenIn(dir, name); err == nil {
			f.Close()
			t.Errorf("%q was opened", name)
		}
	}
}

func TestReadEndsAtItsLimit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("0123456789"), 0o644); err != nil {
		t.Fatal(err)
	}
	if data, err := regular.Read(path, 10); err != nil || string(data) != "0123456789" {
		t.Errorf("got %q, %v", data, err)
	}
	if data, err := regular.Read(path, 9); !errors.Is(err, regular.ErrLarge) {
		t.Errorf("got %q, %v, want %v", data, err, regular.ErrLarge)
	}
	// A sparse file of a terabyte costs nothing.
	if err := os.Truncate(path, 1<<40); err != nil {
		t.Fatal(err)
	}
	if _, err := regular.Read(path, 8<<20); !errors.Is(err, regular.ErrLarge) {
		t.Errorf("got %v, want %v", err, regular.ErrLarge)
	}
}

func TestTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("0123456789"), 0o644); err != nil {
		t.Fatal(err)
	}
	for size, want := range map[int]string{0: "", 3: "789", 10: "0123456789", 20: "0123456789"} {
		if got, err := regular.Tail(path, make([]byte, size)); err != nil || string(got) != want {
			t.Errorf("the last %d bytes: got %q, %v, want %q", size, got, err, want)
		}
	}
}
