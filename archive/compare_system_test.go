//go:build system

package archive

import (
	"bytes"
	"cmp"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"packmill/internal/deb822"
)

// testCache is a directory that stays from one run of the tests to the next.
func testCache(t *testing.T, name string) string {
	t.Helper()
	dir := os.Getenv("PACKMILL_TEST_CACHE")
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		dir = filepath.Join(cache, "packmill-test")
	}
	dir = filepath.Join(dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// A thousand real packages of the machine's Debian: the smallest ones, some
// megabytes together.
func TestThousandRealPackages(t *testing.T) {
	t.Parallel() // it waits for the network
	out, err := exec.Command("apt-cache", "dumpavail").Output()
	if err != nil {
		t.Fatalf("apt-cache dumpavail: %v", err)
	}
	type pkg struct {
		name, file string
		size       int64
	}
	var all []pkg
	sc := deb822.NewScanner(bytes.NewReader(out))
	for sc.Next() {
		n, err := strconv.ParseInt(string(sc.Get("Size")), 10, 64)
		if err == nil && strings.HasPrefix(string(sc.Get("Filename")), "pool/main/") {
			name, version := string(sc.Get("Package")), string(sc.Get("Version"))
			all = append(all, pkg{name + "=" + version,
				name + "_" + strings.Replace(version, ":", "%3a", 1) + "_" + string(sc.Get("Architecture")) + ".deb", n})
		}
	}
	if err := sc.Err(); err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(all, func(a, b pkg) int { return cmp.Compare(a.size, b.size) })
	if len(all) < 1200 {
		t.Fatalf("apt knows %d packages; run apt-get update on a Debian machine", len(all))
	}
	cache, dir := testCache(t, "debs"), t.TempDir()
	os.Chmod(dir, 0o777)
	args := []string{"download", "-q", "-o", "APT::Sandbox::User="}
	missing := len(args)
	for _, p := range all[:1000] {
		if info, err := os.Stat(filepath.Join(cache, p.file)); err != nil || info.Size() != p.size {
			args = append(args, p.name)
		}
	}
	if len(args) > missing {
		cmd := exec.Command("apt-get", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("apt-get download: %v\n%s", err, out)
		}
	}
	f := newFixture(t)
	f.suite.Architectures, f.suite.Components = []string{"amd64"}, []string{"main"}
	var debs []string
	for _, p := range all[:1000] {
		deb := filepath.Join(cache, p.file)
		if fresh, err := os.ReadFile(filepath.Join(dir, p.file)); err == nil {
			// Whole at once: other runs may look there now.
			tmp := deb + strconv.Itoa(os.Getpid())
			if err := os.WriteFile(tmp, fresh, 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(tmp, deb); err != nil {
				t.Fatal(err)
			}
		}
		debs = append(debs, deb)
	}
	var batch []Inclusion
	for _, d := range debs {
		batch = append(batch, f.sourceless(d))
	}
	f.accepted(batch...)
	if n := f.compareWithFtparchive(); n != 1000 {
		t.Errorf("compared %d packages, want 1000", n)
	}
	f.sound()
}
