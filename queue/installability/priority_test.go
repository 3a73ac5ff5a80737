package installability

import (
	"os"
	"path/filepath"
	"testing"
)

// Of a package in several lists the one of the highest priority is there, not the newest:
// as apt has it by the Release files beside its lists.
func TestPriorities(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	list := func(suite, fields, packages string) string {
		write("h_debian_dists_"+suite+"_InRelease",
			"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\nSuite: x\n"+fields+"SHA256:\n 00 0 NotAutomatic: yes\n")
		return write("h_debian_dists_"+suite+"_main_binary-amd64_Packages", packages)
	}
	paths := []string{
		list("sid", "NotAutomatic: no\n", p("old 1")+p("both 1")+p("mine 1")),
		list("sid_updates", "", p("both 2")),
		list("bpo", "NotAutomatic: yes\nButAutomaticUpgrades: yes\n", p("old 2")+p("far 3")+p("mine 3")),
		list("exp", "NotAutomatic: yes\n", p("old 3")+p("far 4")+p("alone 1")),
		write("own", p("mine 2")),
	}
	x, err := ReadIndex("amd64", paths...)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"old": "1", "both": "2", "far": "3", "alone": "1", "mine": "2"} {
		if got := x.Version(name); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}
