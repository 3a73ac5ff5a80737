package incoming

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"packmill/spool"
	"packmill/spool/upload/uploadtest"
)

// newBox makes a tree with these directories and files in its drop directory; a
// name with a slash at its end is a directory.
func newBox(t *testing.T, names ...string) *Box {
	t.Helper()
	tree, err := spool.Init(filepath.Join(t.TempDir(), "tree"))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		path := tree.Path(Root, n)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(n, "/") {
			err = os.MkdirAll(path, 0o755)
		} else {
			err = os.WriteFile(path, []byte(n), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return &Box{Tree: tree}
}

func TestParseDir(t *testing.T) {
	for _, x := range []Dir{
		{Rel: "", Account: "", Days: 0}, {Rel: "alice", Account: "alice", Days: 0},
		{Rel: "DELAYED/3-day", Account: "", Days: 3}, {Rel: "alice/DELAYED/15-day", Account: "alice", Days: 15},
		{Rel: "alice/DELAYED/0-day", Account: "alice", Days: 0},
	} {
		if got := ParseDir(x.Rel); got != x {
			t.Errorf("ParseDir(%q): got %+v, want %+v", x.Rel, got, x)
		}
		if got, want := x.Delayed(7), (Dir{Rel: filepath.Join(x.Account, "DELAYED/7-day"), Account: x.Account,
			Days: 7}); got != want {
			t.Errorf("%q delayed by 7: got %+v, want %+v", x.Rel, got, want)
		}
	}
}

func rels(dirs []Dir) (out []string) {
	for _, d := range dirs {
		out = append(out, d.Rel)
	}
	return out
}

func TestDirs(t *testing.T) {
	t.Parallel()
	b := newBox(t, "alice/DELAYED/2-day/", "bob/", "DELAYED/0-day/", "DELAYED/16-day/", "DELAYED/x/", ".hidden/", "-x/",
		"a b/", "file_1.dsc", "carol/DELAYED")
	if err := os.Symlink("/etc", b.Path(Dir{}, "eve")); err != nil {
		t.Fatal(err)
	}
	if got, want := rels(b.Dirs()), []string{"", "DELAYED/0-day", "alice", "alice/DELAYED/2-day", "bob",
		"carol"}; !slices.Equal(got, want) {
		t.Errorf("Dirs: got %q, want %q", got, want)
	}
	if got, want := rels(b.Of("alice")), []string{"alice", "alice/DELAYED/2-day"}; !slices.Equal(got, want) {
		t.Errorf("Of alice: got %q, want %q", got, want)
	}
	var watched []string
	for _, p := range b.Watched() {
		rel, err := filepath.Rel(b.Tree.Path(Root), p)
		if err != nil {
			t.Fatal(err)
		}
		watched = append(watched, rel)
	}
	want := []string{".", "DELAYED", "DELAYED/0-day", "alice", "alice/DELAYED", "alice/DELAYED/2-day", "bob", "carol"}
	if slices.Sort(watched); !slices.Equal(watched, want) {
		t.Errorf("Watched: got %q, want %q", watched, want)
	}
	if got := b.Names(Dir{Rel: "nobody"}); got != nil {
		t.Errorf("Names of no directory: %q", got)
	}
}

func TestNames(t *testing.T) {
	for _, x := range []struct {
		name           string
		head, misnamed bool
	}{
		{"hello_1_source.changes", true, false}, {"hello_1.dsc", false, false}, {"hello.changes", false, true},
		{".hello_1.changes", false, true},
		{"a b_1.changes", false, true}, {"../x_1.changes", false, true}, {"x_1.changes.status", false, false},
		{".changes", false, true},
	} {
		if IsChanges(x.name) != x.head || Misnamed(x.name) != x.misnamed {
			t.Errorf("%q: head %v, misnamed %v", x.name, IsChanges(x.name), Misnamed(x.name))
		}
	}
}

// TestStrays: what belongs to nothing, and nothing else.
func TestStrays(t *testing.T) {
	t.Parallel()
	b := newBox(t, "alice/DELAYED/2-day/", "alice/stray_1.dsc", "alice/dir/", "alice/x_1.changes.status", "DELAYED/",
		"stray\n", ".hidden", "anna-1.commands", "a b.changes", "a b c.changes/")
	changes, err := (uploadtest.Package{Source: "hello", Version: "1.0-1"}).Write(b.Path(Dir{}))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(b.Path(Dir{}, "pipe_1.changes"), 0o644); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string][]string{"": {".hidden", "a b c.changes", "stray\n"},
		"alice": {"dir", "stray_1.dsc"}, "alice/DELAYED/2-day": nil} {
		var got []string
		for _, s := range b.Strays(ParseDir(dir)) {
			got = append(got, s.Name)
			if s.Age < 0 || s.Dir.Rel != dir {
				t.Errorf("stray %+v", s)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("strays of %q: got %q, want %q", dir, got, want)
		}
	}
	if got := b.Listed(Dir{}); len(got) != 3 || !got["hello_1.0-1.dsc"] {
		t.Errorf("Listed: %v", got)
	}

	// What was read of a .changes counts as long as that is the file.
	files, err := b.Peek(Dir{}, changes)
	if err != nil || len(files) != 3 {
		t.Fatalf("Peek: %v, %v", files, err)
	}
	if err := os.Rename(b.Path(Dir{}, "stray\n"), b.Path(Dir{}, changes)); err != nil {
		t.Fatal(err)
	}
	if files, err := b.Peek(Dir{}, changes); err == nil {
		t.Errorf("Peek of another file under the name: %v", files)
	}
	if err := os.Remove(b.Path(Dir{}, changes)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Peek(Dir{}, changes); !os.IsNotExist(err) {
		t.Errorf("Peek of a file that is gone: %v", err)
	}
}
