package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"packmill/internal/below"
)

// tree lists the paths below dir, sorted, directories with a slash.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var paths []string
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		if rel == "." {
			return nil
		}
		if e.IsDir() {
			rel += "/"
		}
		paths = append(paths, rel)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	sort.Strings(paths)
	return strings.Join(paths, " ")
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestRename(t *testing.T) {
	for _, tc := range []struct {
		name    string
		have    []string
		from    string
		to      string
		wantErr error
		want    string
	}{
		{"moves", []string{"a/x"}, "a", "b", nil, "b/ b/x"},
		{"never replaces a file", []string{"a", "b"}, "a", "b", fs.ErrExist, "a b"},
		{"never replaces an empty directory", []string{"a/x", "b/"}, "a", "b", fs.ErrExist, "a/ a/x b/"},
		{"says what is missing", nil, "a", "b", fs.ErrNotExist, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			for _, p := range tc.have {
				if strings.HasSuffix(p, "/") {
					os.MkdirAll(filepath.Join(dir, p), 0o755)
					continue
				}
				put(t, filepath.Join(dir, p), p)
			}
			err := Rename(filepath.Join(dir, tc.from), filepath.Join(dir, tc.to))
			if !errors.Is(err, tc.wantErr) {
				t.Errorf("Rename(%s, %s): got error %v, want %v", tc.from, tc.to, err, tc.wantErr)
			}
			if got := tree(t, dir); got != tc.want {
				t.Errorf("after Rename(%s, %s): got tree %q, want %q", tc.from, tc.to, got, tc.want)
			}
		})
	}
}

// A rename whose answer was lost is recognised by what lies there.
func TestHappened(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	put(t, a, "x")
	id, err := identify(a)
	if err != nil {
		t.Fatal(err)
	}
	if happened(id, at(a), at(b)) {
		t.Error("happened before the rename: got true, want false")
	}
	if err := os.Rename(a, b); err != nil {
		t.Fatal(err)
	}
	if !happened(id, at(a), at(b)) {
		t.Error("happened after the rename: got false, want true")
	}
	put(t, a, "another")
	if happened(id, at(a), at(b)) {
		t.Error("happened with a new file at the old name: got true, want false")
	}
}

func TestWriteFileReplacesInOneStep(t *testing.T) {
	dir := t.TempDir()
	p := filepath.Join(dir, "f")
	for _, text := range []string{"one", "two"} {
		if err := WriteFile(p, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
		got, _ := os.ReadFile(p)
		if string(got) != text {
			t.Errorf("content: got %q, want %q", got, text)
		}
	}
	st, _ := os.Stat(p)
	if st.Mode().Perm() != 0o640 {
		t.Errorf("mode: got %v, want 0640", st.Mode().Perm())
	}
	if err := CreateFile(p, []byte("three"), 0o640); !errors.Is(err, fs.ErrExist) {
		t.Errorf("CreateFile over a file: got %v, want fs.ErrExist", err)
	}
	if got := tree(t, dir); got != "f" {
		t.Errorf("tree: got %q, want %q", got, "f")
	}
}

func TestAppendEndsATornLine(t *testing.T) {
	p := filepath.Join(t.TempDir(), "history")
	put(t, p, "whole\ntor")
	if err := Append(p, []byte("next\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	got, _ := os.ReadFile(p)
	if want := "whole\ntor\nnext\n"; string(got) != want {
		t.Errorf("content: got %q, want %q", got, want)
	}
}

func TestAppendRefusesALink(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("elsewhere", filepath.Join(dir, "history")); err != nil {
		t.Fatal(err)
	}
	if err := Append(filepath.Join(dir, "history"), []byte("x\n"), 0o644); err == nil {
		t.Error("Append through a symbolic link: got no error")
	}
	if got := tree(t, dir); got != "history" {
		t.Errorf("tree: got %q, want only the link", got)
	}
	// A link to a file that is there, for which O_CREATE says nothing.
	target := filepath.Join(t.TempDir(), "target")
	put(t, target, "whole\n")
	link := filepath.Join(dir, "there")
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	if err := Append(link, []byte("x\n"), 0o644); err == nil {
		t.Error("Append through a link to a file: got no error")
	}
	if got, err := os.ReadFile(target); err != nil || string(got) != "whole\n" {
		t.Errorf("the link's target: got %q, %v", got, err)
	}
}

func TestLinkTwice(t *testing.T) {
	dir := t.TempDir()
	a, b, c := filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "c")
	put(t, a, "x")
	put(t, c, "y")
	for i := range 2 {
		if err := LinkOrCopy(a, b, 0o644); err != nil {
			t.Errorf("LinkOrCopy, time %d: %v", i+1, err)
		}
	}
	if err := LinkOrCopy(a, c, 0o644); !errors.Is(err, fs.ErrExist) {
		t.Errorf("LinkOrCopy over another file: got %v, want fs.ErrExist", err)
	}
}

// linkAs is set in a process of another user that TestLinkOfAnothers starts: the
// directory in which it links.
const linkAs = "DURABLE_TEST_LINK_AS"

// TestLinkOfAnothers: on a server with accounts the kernel links no file of
// another user (protected_hardlinks); it is copied, and nothing but a file is.
func TestLinkOfAnothers(t *testing.T) {
	if dir := os.Getenv(linkAs); dir != "" {
		for i := range 2 {
			if err := LinkOrCopy(filepath.Join(dir, "theirs/file"), filepath.Join(dir, "mine/file"), 0o640); err != nil {
				t.Errorf("LinkOrCopy, time %d: %v", i+1, err)
			}
		}
		if err := LinkOrCopy(filepath.Join(dir, "theirs/other"), filepath.Join(dir, "mine/file"), 0o640); !errors.Is(err,
			fs.ErrExist) {
			t.Errorf("LinkOrCopy over another file: got %v, want fs.ErrExist", err)
		}
		for _, name := range []string{"link", "secret", "pipe"} {
			if err := LinkOrCopy(filepath.Join(dir, "theirs", name), filepath.Join(dir, "mine", name), 0o640); err == nil {
				if st, err := os.Lstat(filepath.Join(dir, "mine", name)); err == nil && st.Mode().IsRegular() {
					t.Errorf("LinkOrCopy of a %s made a file", name)
				}
			}
		}
		return
	}
	if os.Getuid() != 0 {
		t.Skip("only root can be another user")
	}
	dir, err := os.MkdirTemp("/var/tmp", "durable-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	put(t, filepath.Join(dir, "theirs/file"), "x")
	put(t, filepath.Join(dir, "theirs/other"), "y")
	put(t, filepath.Join(dir, "theirs/secret"), "z")
	const nobody = 65534
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(filepath.Join(dir, "mine"), 0o755),
		os.Chown(filepath.Join(dir, "mine"), nobody, nobody),
		os.Chmod(filepath.Join(dir, "theirs/secret"), 0o600), os.Symlink("file", filepath.Join(dir, "theirs/link")),
		unix.Mkfifo(filepath.Join(dir, "theirs/pipe"), 0o644), os.WriteFile(filepath.Join(dir, "test"), program,
			0o755)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(dir, "test"), "-test.run=^TestLinkOfAnothers$")
	cmd.Env, cmd.Dir = append(os.Environ(), linkAs+"="+dir), dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("as nobody: %v\n%s", err, out)
	}
	st, err := os.Stat(filepath.Join(dir, "mine/file"))
	if err != nil || st.Mode().Perm() != 0o640 || st.Sys().(*syscall.Stat_t).Uid != nobody {
		t.Errorf("the copy: %v, %+v", err, st)
	}
	if got := tree(t, filepath.Join(dir, "mine")); got != "file" && got != "file link" {
		t.Errorf("tree: got %q", got)
	}
}

func TestSymlinkReplaces(t *testing.T) {
	dir := t.TempDir()
	p := filepath.Join(dir, "current")
	for _, target := range []string{"one", "two", "two"} {
		if err := Symlink(target, p); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.Readlink(p); got != target {
			t.Errorf("link: got %q, want %q", got, target)
		}
	}
	if got := tree(t, dir); got != "current" {
		t.Errorf("tree: got %q", got)
	}
}

func TestExchange(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "a/old"), "")
	put(t, filepath.Join(dir, "b/new"), "")
	if err := Exchange(filepath.Join(dir, "a"), filepath.Join(dir, "b")); err != nil {
		t.Fatal(err)
	}
	if got, want := tree(t, dir), "a/ a/new b/ b/old"; got != want {
		t.Errorf("tree: got %q, want %q", got, want)
	}
}

func TestRemoveAllMendsModes(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "x/deep/er/file"), "")
	os.Chmod(filepath.Join(dir, "x/deep/er"), 0)
	os.Chmod(filepath.Join(dir, "x/deep"), 0)
	if err := RemoveAll(filepath.Join(dir, "x")); err != nil {
		t.Fatal(err)
	}
	if got := tree(t, dir); got != "" {
		t.Errorf("tree: got %q, want nothing", got)
	}
}

func openDir(t *testing.T, root, rel string) *below.Dir {
	t.Helper()
	d, err := below.Open(root, rel)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestGroupMovesAll(t *testing.T) {
	dir := t.TempDir()
	os.Mkdir(filepath.Join(dir, "from"), 0o755)
	os.Mkdir(filepath.Join(dir, "to"), 0o755)
	const n = 200
	for i := range n {
		put(t, filepath.Join(dir, "from", fmt.Sprint(i)), "")
	}
	from, to := openDir(t, dir, "from"), openDir(t, dir, "to")
	var g Group
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := w; i < n; i += 8 {
				name := fmt.Sprint(i)
				if err := g.Rename(from, name, to, name); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	wg.Wait()
	left, _ := os.ReadDir(filepath.Join(dir, "from"))
	moved, _ := os.ReadDir(filepath.Join(dir, "to"))
	if len(left) != 0 || len(moved) != n {
		t.Errorf("moved %d, left %d; want %d and 0", len(moved), len(left), n)
	}
	if len(g.dirs) != 0 {
		t.Errorf("directories remembered after the work: got %d, want 0", len(g.dirs))
	}
}

// Only this package may rename: everything else says where a thing should go
// and leaves the order of syncs to one place. The benchmarks compare with the
// bare call.
func TestOnlyHereRename(t *testing.T) {
	out, err := exec.Command("git", "-C", "../..", "grep", "-nE", `(os|unix|syscall)\.Rename`, "--", "*.go", ":!*_test.go", ":!internal/durable", ":!cmd/internal/test/bench").CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		return // nothing found
	}
	t.Errorf("rename outside internal/durable (%v):\n%s", err, out)
}

// A directory that can never be made is an error, and no endless work.
func TestMkdirAllEnds(t *testing.T) {
	if err := MkdirAll("/proc/none/of/these", 0o755); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("below /proc: got %v, want %v", err, fs.ErrNotExist)
	}
}
