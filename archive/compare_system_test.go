//go:build system

package archive

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"packmill/spool/deb822"
)

// A thousand real packages of the machine's Debian: the smallest ones, some
// megabytes together.
func TestThousandRealPackages(t *testing.T) {
	out, err := exec.Command("apt-cache", "dumpavail").Output()
	if err != nil {
		t.Fatalf("apt-cache dumpavail: %v", err)
	}
	type pkg struct {
		name string
		size int
	}
	var all []pkg
	sc := deb822.NewScanner(bytes.NewReader(out))
	for sc.Next() {
		n, err := strconv.Atoi(string(sc.Get("Size")))
		if err == nil && strings.HasPrefix(string(sc.Get("Filename")), "pool/main/") {
			all = append(all, pkg{string(sc.Get("Package")) + "=" + string(sc.Get("Version")), n})
		}
	}
	if err := sc.Err(); err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(all, func(a, b pkg) int { return a.size - b.size })
	if len(all) < 1200 {
		t.Fatalf("apt knows %d packages; run apt-get update on a Debian machine", len(all))
	}
	dir := t.TempDir()
	os.Chmod(dir, 0o777)
	for part := range slices.Chunk(all[:1000], 250) {
		args := []string{"download", "-q", "-o", "APT::Sandbox::User="}
		for _, p := range part {
			args = append(args, p.name)
		}
		cmd := exec.Command("apt-get", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("apt-get download: %v\n%s", err, out)
		}
	}
	f := newFixture(t)
	f.suite.Architectures, f.suite.Components = []string{"amd64"}, []string{"main"}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil {
		t.Fatal(err)
	}
	var batch []Inclusion
	for _, d := range debs {
		batch = append(batch, f.sourceless(d))
	}
	f.accepted(batch...)
	if n := f.compareWithFtparchive(); n < 990 {
		t.Errorf("compared %d packages, want 1000", n)
	}
	f.sound()
}
