package archive

import (
	"crypto/md5"
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"packmill/archive/deb"
	"packmill/archive/deb/debtest"
	"packmill/archive/release"
	"packmill/spool/deb822"
)

// Whatever the history of a suite, clients get byte for byte what one
// publication of everything into an empty archive gives.
func TestFullRebuildGivesTheSame(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.suite.Contents, f.suite.Translations = true, true
	f.suite.Compress = []string{"gz", "xz", "zst", "plain"}
	last := map[string]debtest.Upload{}
	for round := range 4 {
		us := debtest.Corpus(800, fmt.Sprintf("1.%d", round))
		var batch []Inclusion
		for i, u := range us {
			if round > 0 && i%7 != round {
				continue
			}
			// Descriptions and files change too.
			for j := range u.Debs {
				u.Debs[j].Fields = strings.ReplaceAll(u.Debs[j].Fields, "says little", fmt.Sprintf("says %d times little", round))
				u.Debs[j].Packing = "gz"
			}
			last[u.Source.Name] = u
			batch = append(batch, f.upload(u))
		}
		f.accepted(batch...)
		if round == 1 {
			if err := os.RemoveAll(f.a.path("cache")); err != nil {
				t.Fatal(err)
			}
			if err := os.MkdirAll(f.a.path("cache"), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	g := newFixture(t)
	g.suite = f.suite
	var batch []Inclusion
	for _, name := range sortedKeys(last) {
		batch = append(batch, g.upload(last[name]))
	}
	slices.Reverse(batch)
	g.accepted(batch...)
	got, err := release.Read(f.a.path("dists/unstable"))
	if err != nil {
		t.Fatal(err)
	}
	want, err := release.Read(g.a.path("dists/unstable"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range sortedKeys(want.Sums) {
		if got.Sums[name] != want.Sums[name] {
			t.Errorf("%s: got %v, want as from nothing %v", name, got.Sums[name], want.Sums[name])
		}
	}
	if !maps.Equal(got.Sums, want.Sums) {
		t.Errorf("got %d files, want %d", len(got.Sums), len(want.Sums))
	}
	f.sound()
}

// sourceless is an upload of one binary package that has no source.
func (f *fixture) sourceless(path string) Inclusion {
	f.Helper()
	p, err := deb.ReadFile(path, deb.Options{SkipContents: true})
	if err != nil {
		f.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	dir := f.TempDir()
	name := p.FileName("deb")
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
		f.Fatal(err)
	}
	changes := fmt.Sprintf("Source: %s\nVersion: %s\nArchitecture: %s\nBinary: %s\nChecksums-Sha256:\n %x %d %s\nFiles:\n %x %d x optional %s\n",
		p.Source, p.SourceVersion, p.Architecture, p.Name, sha256.Sum256(data), len(data), name, md5.Sum(data), len(data), name)
	if err := os.WriteFile(filepath.Join(dir, "x_1_any.changes"), []byte(changes), 0o644); err != nil {
		f.Fatal(err)
	}
	return Inclusion{Dir: dir, Changes: "x_1_any.changes", Kind: Binary, Sourceless: true, Component: "main"}
}

// compareWithFtparchive holds our stanzas against apt-ftparchive's, field by
// field. It writes SHA1 and SHA512 too, which we leave out as Debian does.
func (f *fixture) compareWithFtparchive() int {
	f.Helper()
	cmd := exec.Command("apt-ftparchive", "-o", "APT::FTPArchive::AlwaysStat=true", "packages", "pool")
	cmd.Dir = f.a.Root()
	out, err := cmd.Output()
	if err != nil {
		f.Fatalf("apt-ftparchive: %v", err)
	}
	stanzas := func(text string) map[string]*deb822.Stanza {
		list, err := deb822.Parse("Packages", []byte(text), deb822.Limits{Size: 1 << 28, Fields: 400, Lines: 1 << 22, LineLength: 1 << 20})
		if err != nil {
			f.Fatal(err)
		}
		m := map[string]*deb822.Stanza{}
		for i := range list {
			m[list[i].Get("Filename")] = &list[i]
		}
		return m
	}
	ours := stanzas(f.text("main/binary-amd64/Packages"))
	theirs := stanzas(string(out))
	for name, want := range theirs {
		got := ours[name]
		if got == nil {
			f.Errorf("%s is not in Packages", name)
			continue
		}
		for _, w := range want.Fields {
			if n := strings.ToLower(w.Name); n == "sha1" || n == "sha512" {
				continue
			}
			if g := got.Get(w.Name); g != w.Value {
				f.Errorf("%s: %s: got %q, want as apt-ftparchive %q", name, w.Name, g, w.Value)
			}
		}
		for _, g := range got.Fields {
			if _, ok := want.Lookup(g.Name); !ok {
				f.Errorf("%s: %s: got %q, which apt-ftparchive has not", name, g.Name, g.Value)
			}
		}
	}
	if len(ours) != len(theirs) {
		f.Errorf("packages: got %d, want %d", len(ours), len(theirs))
	}
	return len(theirs)
}

func TestStanzasAreAptFtparchives(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.suite.Architectures = []string{"amd64"}
	var batch []Inclusion
	for _, u := range debtest.Corpus(40, "3:1.0~rc1-1") {
		batch = append(batch, f.upload(u))
	}
	f.accepted(batch...)
	if n := f.compareWithFtparchive(); n != 40 {
		t.Errorf("compared %d packages, want 40", n)
	}
}
