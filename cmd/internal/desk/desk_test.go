package desk

import (
	"archive/tar"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"packmill/cmd/internal/control"
	"packmill/spool/upload"
)

// What a reviewer is told of debian/control: packages and relations, each once,
// comments and folded lines as Policy has them.
func TestControlOf(t *testing.T) {
	text := []byte("Source: a\nBuild-Depends: debhelper (>= 13),\n libssl-dev,\n# a comment\n zlib1g-dev [amd64]\n" +
		"Build-Depends-Indep: doxygen\nBuild-Conflicts: autoconf2.13\n" +
		"\nPackage: a\nDepends: not-of-the-build\n\nPACKAGE: a-doc\n")
	if got, want := packages(text), []string{"a", "a-doc"}; !slices.Equal(got, want) {
		t.Errorf("packages: got %q, want %q", got, want)
	}
	want := []string{"debhelper (>= 13)", "libssl-dev", "zlib1g-dev [amd64]", "build-depends-indep: doxygen",
		"build-conflicts: autoconf2.13"}
	if got := buildDepends(text); !slices.Equal(got, want) {
		t.Errorf("buildDepends: got %q, want %q", got, want)
	}
	fresh, gone := apart([]string{"a", "b"}, []string{"b", "c"})
	if !slices.Equal(fresh, []string{"c"}) || !slices.Equal(gone, []string{"a"}) {
		t.Errorf("apart: got %q and %q", fresh, gone)
	}
}

func TestOneDiff(t *testing.T) {
	file := func(text string, mode int64) upload.Content {
		return upload.Content{Kind: tar.TypeReg, Text: []byte(text), Size: int64(len(text)), Mode: mode}
	}
	for _, c := range []struct {
		what     string
		was, now upload.Content
		want     string
	}{
		{"a line", file("a\n", 0o644), file("b\n", 0o644), "-a\n+b\n"},
		{"a new file", upload.Content{}, file("b\n", 0o644), "+b\n"},
		{"the right to be run", file("a\n", 0o644), file("a\n", 0o755), "debian/x: mode 644 -> 755\n"},
		{"a binary file", file("a\n", 0o644), file("a\x00\n", 0o644), "not shown: a binary file"},
		{"a file that is not kept", file("a\n", 0o644), upload.Content{Kind: tar.TypeReg, Size: 1 << 30},
			"not shown: a large file"},
		{"a link in its place", file("a\n", 0o644), upload.Content{Kind: tar.TypeSymlink, Target: "/etc/passwd"}, `+(a link to "/etc/passwd")`},
	} {
		if got := string(oneDiff("debian/x", c.was, c.now)); !strings.Contains(got, c.want) {
			t.Errorf("%s: got %q, want %q in it", c.what, got, c.want)
		}
	}
}

// A hold is in force until somebody releases it; lines that are none are passed
// over; a link in the place of the file is not followed.
func TestOpinions(t *testing.T) {
	dir := t.TempDir()
	text := "2026-11-21T10:00:00Z\trita\thold\tasked upstream\nrubbish\n2026-11-21T11:00:00Z\tpaul\taccept\tfine\n"
	if err := os.WriteFile(filepath.Join(dir, OpinionsFile), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	list := ReadOpinions(dir)
	if o, ok := Held(list); len(list) != 2 || !ok || o.Who != "rita" || o.Text != "asked upstream" {
		t.Errorf("got %+v, held %+v %v", list, o, ok)
	}
	if !said(list, "rita") || said(list, "paul") {
		t.Error("paul's word must second rita's, and not his own")
	}
	if _, ok := Held(append(list, Opinion{Who: "rita", Verb: "release"})); ok {
		t.Error("a hold that was released is in force")
	}
	other := t.TempDir()
	if err := os.Symlink(filepath.Join(dir, OpinionsFile), filepath.Join(other, OpinionsFile)); err != nil {
		t.Fatal(err)
	}
	if got := ReadOpinions(other); got != nil {
		t.Errorf("a link was followed: %+v", got)
	}
}

func TestRights(t *testing.T) {
	got := rights(control.Allow{Source: true, Binary: []string{"amd64"}, Suites: []string{"sid", "stable"}})
	if want := "binary=amd64, new=no, source, suites=sid stable"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestChangesField(t *testing.T) {
	dir := t.TempDir()
	text := "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\nFormat: 1.8\nChanges:\n hello (1) sid; urgency=low\n" +
		" .\n   * An entry.\nFiles:\n abc\n" +
		"-----BEGIN PGP SIGNATURE-----\n\nAAAA\n-----END PGP SIGNATURE-----\n"
	if err := os.WriteFile(filepath.Join(dir, "hello_1.changes"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	got := changesField(dir, "hello_1.changes")
	if want := "hello (1) sid; urgency=low\n.\n  * An entry.\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
