package debtest_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"packmill/internal/deb/debtest"
)

// TestDpkgTakesThem holds that dpkg-deb reads every packing, and that what
// dscverify's checksums cover is what lies there.
func TestDpkgTakesThem(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, packing := range []string{"xz", "gz", "zst", "none"} {
		d := debtest.Deb{Name: "hello", Version: "1:2.10-3+" + packing, Packing: packing, Files: []debtest.File{
			{Path: "usr/bin/hello", Mode: 0o755, Body: "#!/bin/sh\n"},
			{Path: "usr/bin/hi", Link: "hello"},
		}}
		path, err := d.Write(dir)
		if err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("dpkg-deb", "-f", path, "Package", "Version").CombinedOutput(); err != nil ||
			string(out) != "Package: hello\nVersion: "+d.Version+"\n" {
			t.Errorf("dpkg-deb -f %s: %v: %q", path, err, out)
		}
		out, err := exec.Command("dpkg-deb", "-c", path).CombinedOutput()
		if err != nil || strings.Count(string(out), "\n") != 5 || !strings.Contains(string(out), "./usr/bin/hi -> hello\n") {
			t.Errorf("dpkg-deb -c %s: %v: %s", path, err, out)
		}
	}
}

func TestSourceUnpacks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	u := debtest.Corpus(4, "1.0")[1]
	changes, err := u.Write(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := filepath.Base(changes), "birch00001_1.0_amd64.changes"; got != want {
		t.Errorf("changes file: got %s, want %s", got, want)
	}
	if out, err := exec.Command("dpkg-source", "--no-check", "-x", filepath.Join(dir, "birch00001_1.0.dsc"),
		filepath.Join(dir, "x")).CombinedOutput(); err != nil {
		t.Errorf("dpkg-source -x: %v: %s", err, out)
	}
}

func BenchmarkCorpus(b *testing.B) {
	us := debtest.Corpus(1000, "1.0")
	for b.Loop() {
		if err := debtest.WriteAll(b.TempDir(), us); err != nil {
			b.Fatal(err)
		}
	}
}
