package rebuild

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func info(t *testing.T, sums, depends string) *buildinfo {
	t.Helper()
	name := filepath.Join(t.TempDir(), "a_1_amd64.buildinfo")
	// A checksum of two digits stands for one of 64.
	sums = regexp.MustCompile(`(?m)^ (\w\w) `).ReplaceAllStringFunc(sums, func(s string) string { return " " + strings.Repeat(s[1:3], 32) + " " })
	text := "Format: 1.0\nSource: a\nVersion: 1\nChecksums-Sha256:\n" + sums + "Installed-Build-Depends:\n" + depends +
		"\n"
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	b, err := readBuildinfo(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What is the same, what differs, what is only in one of the two, and which
// build-dependencies have other versions.
func TestCompare(t *testing.T) {
	was := info(t, " aa 1 a_1.dsc\n 11 1 a_1_amd64.deb\n 22 1 b_1_amd64.deb\n 33 1 c_1_amd64.deb\n",
		" gcc (= 12), libc6 (= 2.36), make (= 4)")
	now := info(t, " bb 1 a_1.dsc\n 11 1 a_1_amd64.deb\n 2f 1 b_1_amd64.deb\n 44 1 d_1_amd64.deb\n",
		" gcc (= 13), libc6 (= 2.36), ninja (= 1)")
	r := &Answer{Source: "a", Version: "1", Suite: "sid", Arch: "amd64", BuiltBy: "m/one", Builder: "two", Kept: "/tmp/x",
		Diffoscope: []string{"diffoscope a b"}}
	r.compare(was, now)
	if want := []string{"gcc 12 -> 13", "make 4 -> none", "ninja none -> 1"}; r.Same || !slices.Equal(r.Changed, want) {
		t.Errorf("same %v, changed %q, want %q", r.Same, r.Changed, want)
	}
	text := r.Text()
	for _, want := range []string{
		"a_1 amd64 in sid, which m/one built, built again by two: different", "same            a_1_amd64.deb",
		"different       b_1_amd64.deb",
		"not made again  c_1_amd64.deb", "only made now   d_1_amd64.deb",
		"gcc 12 -> 13", "log and results: /tmp/x", "diffoscope a b",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
	if strings.Contains(text, ".dsc") {
		t.Errorf("the source is no result:\n%s", text)
	}
	same := &Answer{}
	same.compare(was, was)
	if !same.Same || len(same.Changed) > 0 || !strings.Contains(same.Text(), "the same bits") {
		t.Errorf("with itself: %s", same.Text())
	}
}
