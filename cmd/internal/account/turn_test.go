package account

import (
	"os"
	"path/filepath"
	"testing"
)

// TestTurn: the first on the way who is not root is whose turn it is, also by a link in a
// directory of root's that others may write to.
func TestTurn(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can make files of others")
	}
	tree := t.TempDir()
	for dir, uid := range map[string]int{"queue": 0, "queue/sid": 1234, "attic": 0, "attic/mine": 1234} {
		must(t, os.MkdirAll(filepath.Join(tree, dir), 0o755))
		must(t, os.Chown(filepath.Join(tree, dir), uid, uid))
	}
	for link, uid := range map[string]int{"attic/link": 1235, "attic/roots": 0} {
		must(t, os.Symlink("/etc", filepath.Join(tree, link)))
		must(t, os.Lchown(filepath.Join(tree, link), uid, uid))
	}
	for rel, want := range map[string]int{
		"queue": 0, "queue/sid/x": 1234, "attic/mine/ticket": 1234, "attic/link/passwd": 1235, "attic/roots/passwd": 0,
		"attic/none": 0,
	} {
		got := 0
		if st := turn(tree, rel); st != nil {
			got = int(st.Uid)
		}
		if got != want {
			t.Errorf("%s: the turn of %d, want %d", rel, got, want)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
