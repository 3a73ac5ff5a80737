package spool

import (
	"errors"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
)

// The file that makes the accounts agrees with the list in the code.
func TestSysusersFitsMembers(t *testing.T) {
	data, err := os.ReadFile("../scripts/systemd/packmill.sysusers")
	if err != nil {
		t.Fatal(err)
	}
	var got, want []string
	for _, m := range regexp.MustCompile(`(?m)^m (\S+) (\S+)$`).FindAllStringSubmatch(string(data), -1) {
		got = append(got, m[1]+" "+m[2])
	}
	for _, m := range Members {
		for _, g := range m.Groups {
			want = append(want, m.User+" "+g)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("memberships in packmill.sysusers: got %v, want %v", got, want)
	}
}

// Every state's directory lies below a directory of the list, so none is
// forgotten.
func TestRightsCoverTheTree(t *testing.T) {
	for _, p := range Standard.parts() {
		if !slices.ContainsFunc(Standard.Rights(), func(r Right) bool { return r.Dir == p }) {
			t.Errorf("Rights has no line for %s", p)
		}
	}
}

// TestArchiveIsOpen: a new tree's archive is for a web server, whatever in it is not.
func TestArchiveIsOpen(t *testing.T) {
	root := filepath.Join(t.TempDir(), "tree")
	if _, err := Init(root); err != nil {
		t.Fatal(err)
	}
	for dir, open := range map[string]bool{"archive": true, "archive/pool": true, "archive/dists": true,
		"archive/incoming": false, "archive/installed": false} {
		st, err := os.Stat(filepath.Join(root, dir))
		if err != nil {
			t.Fatal(err)
		}
		if got := st.Mode()&0o005 == 0o005; got != open {
			t.Errorf("%s: %s, want open to everybody %t", dir, st.Mode(), open)
		}
	}
}

// TestRightsFollowNoLink sees that root gives nothing of the tree away for a link that an
// account put in the place of its own directory.
func TestRightsFollowNoLink(t *testing.T) {
	who, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	group, err := user.LookupGroupId(who.Gid)
	if err != nil {
		t.Fatal(err)
	}
	tree := newTree(t)
	const mode = 0o700
	right := Right{Dir: "archive/pool", Owner: who.Username, Group: group.Name, Mode: 0o755}
	for _, rel := range []string{"archive/pool", "archive/dists/stable"} {
		secret, link := tree.Path("control/private"), tree.Path(rel)
		to := "../control/private"
		if rel != right.Dir { // a directory above the last one
			link, to = filepath.Dir(link), "../control"
			secret = tree.Path("control/stable")
		}
		if err := errors.Join(os.MkdirAll(secret, mode), os.Chmod(secret, mode), os.RemoveAll(link), os.Symlink(to, link)); err != nil {
			t.Fatal(err)
		}
		if err := right.set(tree.Root(), rel); err == nil {
			t.Errorf("%s: root followed a link", rel)
		}
		if st, err := os.Stat(secret); err != nil || st.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", secret, st.Mode(), err)
		}
	}
}
