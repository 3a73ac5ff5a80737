package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"packmill/internal/deb/debtest"
	"packmill/queue/quinndiff"
)

// Files of any archive are compared as a suite is, compressed or not.
func TestQuinnDiffOfFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, kind, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, debtest.Pack(kind, []byte(text)), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	source := func(name, version, arch string) string {
		return "Package: " + name + "\nBinary: " + name + "\nVersion: " + version + "\nArchitecture: " + arch +
			"\nSection: misc\nPriority: optional\n\n"
	}
	deb := func(name, version string) string {
		return "Package: " + name + "\nVersion: " + version + "\nArchitecture: amd64\n\n"
	}
	q := quinnDiffCmd{Arch: []string{"amd64"},
		Sources: []string{write("Sources", "none",
			source("old", "2", "any")+source("none", "1:1", "any")+source("newer", "1", "any")), write("more.xz", "xz",
			source("kept", "1", "any")+source("lilo", "1", "any"))},
		Packages: []string{write("Packages.gz", "gz", deb("old", "1")+deb("newer", "2")+deb("kept", "1"))},
		Specific: write("specific", "none", "lilo: i386\n")}
	var got []string
	err := q.files(func(n quinndiff.Needed) {
		got = append(got, n.Line())
	})
	want := []string{"misc/old_2.dsc [optional:out-of-date]", "misc/none_1:1.dsc [optional:uncompiled]",
		"misc/newer_1.dsc [optional:up-to-date]",
		"misc/kept_1.dsc [optional:up-to-date]", "misc/lilo_1.dsc [optional:not-for-arch]"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	q.Arch = nil
	if err := q.files(nil); err == nil {
		t.Error("files of no architecture were compared")
	}
}
