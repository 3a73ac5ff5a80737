package spool

import (
	"os"
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
