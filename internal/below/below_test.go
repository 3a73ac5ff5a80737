package below

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOpen(t *testing.T) {
	root := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(root, "tree/a/b"), 0o755))
	must(os.MkdirAll(filepath.Join(root, "outside"), 0o755))
	must(os.Symlink("b", filepath.Join(root, "tree/a/link")))
	must(os.Symlink("../../outside", filepath.Join(root, "tree/a/out")))
	must(os.Symlink("tree", filepath.Join(root, "top")))
	must(os.WriteFile(filepath.Join(root, "tree/a/file"), nil, 0o644))
	for rel, ok := range map[string]bool{
		".": true, "a": true, "a/b": true, "a/./b": true, "a/b/..": true, "a/link": false, "a/out": false, "a/file": false,
		"a/no": false,
		"..":   false, "../outside": false, "/etc": false, "a/../../outside": false,
	} {
		d, err := Open(filepath.Join(root, "top"), rel)
		if (err == nil) != ok {
			t.Errorf("%s: %v, want success %v", rel, err, ok)
		}
		if err == nil {
			d.Close()
		}
	}
}

// TestSwapped: somebody puts a link in the directory's place between check and use,
// and what is done goes where it was checked.
func TestSwapped(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"tree/mine", "tree/victim"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	d, err := Open(filepath.Join(root, "tree"), "mine")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := errors.Join(os.Rename(filepath.Join(root, "tree/mine"), filepath.Join(root, "tree/was")),
		os.Symlink("victim", filepath.Join(root, "tree/mine"))); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.Path("x"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(root, "tree/victim/x")); err == nil {
		t.Error("the file went where the link points")
	}
	if names, err := d.Names(); err != nil || len(names) != 1 || names[0] != "x" {
		t.Errorf("Names: %q, %v", names, err)
	}
	// As those open it who follow no link.
	fd, err := unix.Open(d.Path(), unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Errorf("open the directory by its path: %v", err)
	} else {
		unix.Close(fd)
	}
	if _, err := Open(filepath.Join(root, "tree"), "mine"); err == nil {
		t.Error("the link was followed")
	}
}
