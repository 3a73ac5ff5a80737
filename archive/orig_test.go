package archive

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// quilted is a source upload that dpkg-source made, upstream's tarball of its
// own; the tarball is listed only with sa.
func (f *fixture) quilted(upstream, version string, sa bool) Inclusion {
	f.Helper()
	dir := f.TempDir()
	put := func(name, text string) {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			f.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			f.Fatal(err)
		}
	}
	put("tool-1/README", upstream)
	run(f.T, dir, "tar", "--sort=name", "--mtime=@1", "--owner=0", "--group=0", "-czf", "tool_1.orig.tar.gz", "tool-1")
	put("tool-1/debian/control", "Source: tool\nMaintainer: Packmill Tests <tests@packmill.example>\n"+
		"Standards-Version: 4.6.2\n\nPackage: tool\nArchitecture: all\nDescription: a tool\n")
	put("tool-1/debian/changelog", "tool ("+version+") unstable; urgency=low\n\n  * One more.\n\n"+
		" -- Packmill Tests <tests@packmill.example>  Sat, 21 Nov 2026 12:00:00 +0000\n")
	put("tool-1/debian/source/format", "3.0 (quilt)\n")
	run(f.T, dir, "dpkg-source", "-b", "tool-1")
	names := []string{"tool_" + version + ".dsc", "tool_" + version + ".debian.tar.xz"}
	if sa {
		names = append(names, "tool_1.orig.tar.gz")
	} else if err := os.Remove(filepath.Join(dir, "tool_1.orig.tar.gz")); err != nil {
		f.Fatal(err)
	}
	text, files := "Format: 1.8\nSource: tool\nArchitecture: source\nVersion: "+version+"\nDistribution: unstable\nMaintainer: Packmill Tests <tests@packmill.example>\nChanges:\n One more.\nChecksums-Sha256:\n", "Files:\n"
	for _, n := range names {
		data, err := os.ReadFile(filepath.Join(dir, n))
		if err != nil {
			f.Fatal(err)
		}
		text += fmt.Sprintf(" %x %d %s\n", sha256.Sum256(data), len(data), n)
		files += fmt.Sprintf(" %x %d misc optional %s\n", md5.Sum(data), len(data), n)
	}
	inc := Inclusion{Dir: dir, Changes: "tool_" + version + "_source.changes"}
	put(inc.Changes, text+files)
	return inc
}

// Upstream's tarball comes with the first upload of its version only; a trial
// run of both together knows that too.
func TestOrigOfAnEarlierUpload(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	t.Parallel()
	f := newFixture(t)
	first, second, other := f.quilted("text", "1-1", true), f.quilted("text", "1-2", false), f.quilted("other text", "1-3",
		true)
	want := func(rep *Report, err error, want ...string) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range rep.Results {
			if got := r.Outcome.String() + " " + r.Reason; !strings.HasPrefix(got, want[i]) {
				t.Errorf("%s: got %q, want %q", r.Changes, got, want[i])
			}
		}
	}
	const lacks = "refused tool_1.orig.tar.gz: tool_1-2.dsc wants it, but neither the upload nor the archive has it; " +
		"build the upload with -sa"
	const clash = "refused tool_1.orig.tar.gz: the archive has a file of this name with other content; " +
		"published files never change"
	try := func(batch ...Inclusion) (*Report, error) {
		return f.a.Try(context.Background(), f.suite, batch, f.now)
	}
	rep, err := try(first, second, other)
	want(rep, err, "published", "published", clash)
	rep, err = try(second)
	want(rep, err, lacks)
	if made := tree(t, f.a.path("pool")); len(made) > 0 {
		t.Errorf("a trial run put into the pool: %q", made)
	}
	want(f.publish(second), nil, lacks)
	want(f.publish(first, second, other), nil, "published", "published", clash)
	c := newClient(t, f.source(), f.key, "amd64")
	c.run("apt-get", "update")
	c.run("apt-get", "source", "tool=1-2")
	if data, err := os.ReadFile(filepath.Join(c.dir, "tool-1/README")); err != nil || string(data) != "text" {
		t.Errorf("what apt-get source unpacked: got %q, %v", data, err)
	}
	f.sound()
}

// TestOrigOfAnotherComponent has a source move to another component without its
// orig, which lies in the old one's part of the pool.
func TestOrigOfAnotherComponent(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.accepted(f.quilted("text", "1-1", true))
	second := f.quilted("text", "1-2", false)
	second.Component = "contrib"
	rep, err := f.a.Try(context.Background(), f.suite, []Inclusion{second}, f.now)
	if err != nil || rep.Results[0].Outcome != Published {
		t.Errorf("a trial: got %+v, %v", rep, err)
	}
	f.accepted(second)
	f.wantHave("contrib/source/Sources", "tool 1-2")
	c := newClient(t, f.source(), f.key, "amd64")
	c.run("apt-get", "update")
	c.run("apt-get", "source", "tool=1-2")
	f.sound()
}
