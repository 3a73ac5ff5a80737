package mail

import (
	"errors"
	"os"
	"testing"

	"packmill/archive"
	"packmill/spool"
)

// TestRemovals: what was announced comes when it is over, and again after an error; what is not by who may change the
// archive never does.
func TestRemovals(t *testing.T) {
	tree, err := spool.Init(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	look := func(answer error) {
		t.Helper()
		got = nil
		err := Removals(tree, func(r *Removal) error {
			got = append(got, r.Suite+" "+r.Source+" "+r.Version+" "+r.Who)
			return answer
		})
		if !errors.Is(err, answer) {
			t.Errorf("got %v, want %v", err, answer)
		}
	}
	done, err := Announce(t.Context(), tree, "sid", []archive.Entry{{Package: "hello", Version: "1:2-3", Arch: "source"},
		{Package: "hello-doc", Version: "1:2-3", Arch: "all"}}, "rita\nSuite: other")
	if err != nil {
		t.Fatal(err)
	}
	if look(nil); len(got) != 0 {
		t.Errorf("while it goes on: %q", got)
	}
	done()
	const want = "sid hello 1:2-3 rita Suite: other"
	trouble := errors.New("trouble")
	for _, answer := range []error{trouble, nil} {
		if look(answer); len(got) != 1 || got[0] != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if look(nil); len(got) != 0 {
		t.Errorf("told of it, and yet: %q", got)
	}
	for name, make := range map[string]func(path string) error{
		"link": func(path string) error { return os.Symlink("/etc/passwd", path) },
		"text": func(path string) error { return os.WriteFile(path, []byte("Suite: sid\n"), 0o644) },
		"none": func(path string) error { return os.Mkdir(path, 0o755) },
		"another's": func(path string) error {
			text := "Suite: sid\nSource: hello\nVersion: 1\nWho: mallory\nAt: 2026-11-29T12:00:00Z\n"
			return errors.Join(os.WriteFile(path, []byte(text), 0o644), os.Chown(path, 64003, 64003))
		},
	} {
		if name == "another's" && os.Getuid() != 0 {
			continue // only root can give a file away
		}
		if err := make(tree.Path(spool.RemovedDir, name)); err != nil {
			t.Fatal(err)
		}
		if look(nil); len(got) != 0 {
			t.Errorf("%s: %q", name, got)
		}
		if _, err := os.Lstat(tree.Path(spool.RemovedDir, name)); err == nil {
			t.Errorf("%s lies there still", name)
		}
	}
}
