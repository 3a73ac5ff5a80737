//go:build system

package deb_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"packmill/internal/deb"
)

// TestDebianPackages compares what Read says about real packages with what
// dpkg-deb says: every field, every file.
func TestDebianPackages(t *testing.T) {
	dir := t.TempDir()
	names := []string{"hello", "coreutils", "libc6", "perl-base", "python3-minimal", "libicu-dev", "tzdata", "bash", "apt",
		"passwd", "sudo", "man-db"}
	cmd := exec.Command("apt-get", append([]string{"download"}, names...)...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("apt-get download: %v: %s\nthis test needs a Debian machine with a package mirror: run apt-get update",
			err, out)
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(debs) != len(names) {
		t.Fatalf("got %d packages, %v, want %d", len(debs), err, len(names))
	}
	for _, path := range debs {
		p, err := deb.ReadFile(path, deb.Options{})
		if err != nil {
			t.Error(err)
			continue
		}
		// apt writes the epoch into the name of what it downloads.
		base := strings.ReplaceAll(filepath.Base(path), "%3a", ":")
		if want := p.Name + "_" + p.Version + "_" + p.Architecture + ".deb"; base != want {
			t.Errorf("name: got %s, want %s", base, want)
		}
		out, err := exec.Command("dpkg-deb", "-f", path).Output()
		if err != nil {
			t.Fatalf("dpkg-deb -f %s: %v", path, err)
		}
		if got := string(p.Text); got != string(out) {
			t.Errorf("%s: control: got\n%s\nwant\n%s", base, got, out)
		}
		for _, f := range p.Control.Fields {
			out, err := exec.Command("dpkg-deb", "-f", path, f.Name).Output()
			if err != nil {
				t.Fatalf("dpkg-deb -f %s %s: %v", path, f.Name, err)
			}
			// dpkg keeps the blank before each further line.
			if want := strings.ReplaceAll(strings.TrimSuffix(string(out), "\n"), "\n ", "\n"); f.Value != want {
				t.Errorf("%s: %s: got %q, want %q", base, f.Name, f.Value, want)
			}
		}
		if got, want := listing(p), dpkgListing(t, path); got != want {
			t.Errorf("%s: contents: got\n%s\nwant\n%s", base, got, want)
		}
	}
}
