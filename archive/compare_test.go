package archive

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"packmill/archive/release"
	"packmill/internal/deb"
	"packmill/internal/deb/debtest"
	"packmill/internal/deb822"
)

// Whatever the history of a suite, clients get byte for byte what one
// publication of everything into an empty archive gives.
func TestFullRebuildGivesTheSame(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
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

var historySeed = flag.Uint64("history.seed", 0, "the seed of the random history; 0: another one each time")

var historySteps = flag.Int("history.steps", 12, "how long the random history is")

// A known is a source package that a suite has, with what hands have changed.
type known struct {
	debtest.Upload
	overrides map[string]Override
}

// After any history of two suites each file that clients get is byte for byte
// what one publication of what is there gives.
func TestAnyHistoryGivesTheSame(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	t.Parallel()
	seed := *historySeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("go test -run %s -history.seed %d", t.Name(), seed)
	r := rand.New(rand.NewPCG(seed, 0))
	f := newFixture(t)
	f.suite.Contents, f.suite.Translations = true, true
	f.suite.Compress = []string{"gz", "xz", "zst", "plain"}
	f.suite.Codename, f.suite.Aliases = "", nil
	suites := []Suite{f.suite, f.suite}
	suites[1].Name = "stable"
	has := []map[string]known{{}, {}} // by source
	kept := map[string]map[string]known{}
	corpus := debtest.Corpus(120, "0")
	version := 0
	upload := func(i int) debtest.Upload {
		version++
		u := corpus[i]
		v := fmt.Sprintf("1.%d", version)
		u.Source.Version = v
		u.Debs = slices.Clone(u.Debs)
		for j := range u.Debs {
			d := &u.Debs[j]
			d.Version, d.Packing = v, "gz"
			d.Fields += strings.Repeat(fmt.Sprintf(" This line is of version %d.\n", r.IntN(1000)), r.IntN(200))
			d.Files = slices.Clone(d.Files)
			for n := range r.IntN(60) {
				d.Files = append(d.Files, debtest.File{Path: fmt.Sprintf("usr/share/%s/%d/%03d.data", d.Name, r.IntN(3), n)})
			}
		}
		return u
	}
	some := func(s, most int) []string {
		names := sortedKeys(has[s])
		r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		return names[:min(len(names), 1+r.IntN(most))]
	}
	for step := range *historySteps {
		s := r.IntN(2)
		f.suite, f.now = suites[s], f.now.Add(time.Minute)
		switch what := r.IntN(10); {
		case step == 0 || what < 3: // uploads
			var batch []Inclusion
			for i := range corpus {
				if step == 0 || r.IntN(len(corpus)) < 6 {
					u := upload(i)
					has[s][u.Source.Name] = known{Upload: u}
					batch = append(batch, f.upload(u))
				}
			}
			f.accepted(batch...)
		case what == 3:
			names := some(s, 5)
			if len(names) == 0 {
				continue
			}
			f.planned(f.a.Remove(ctx, f.suite, names, ChangeOptions{}, f.now))
			for _, n := range names {
				delete(has[s], n)
			}
		case what < 6: // what hands changed goes along
			names := some(1-s, 8)
			if len(names) == 0 {
				continue
			}
			if what == 4 {
				f.planned(f.a.Copy(ctx, suites[1-s].Name, f.suite, names, ChangeOptions{Force: true}, f.now))
			} else {
				f.planned(f.a.Move(ctx, suites[1-s], f.suite, names, ChangeOptions{Force: true}, f.now))
			}
			for _, n := range names {
				has[s][n] = has[1-s][n]
				if what == 5 {
					delete(has[1-s], n)
				}
			}
		case what < 8:
			for _, n := range some(s, 2) {
				k := has[s][n]
				pkg := []string{"src:" + n, k.Debs[0].Name, k.Debs[len(k.Debs)-1].Name}[r.IntN(3)]
				o := Override{Section: []string{"games", "oldlibs"}[r.IntN(2)], Priority: []string{"extra", "important"}[r.IntN(2)]}
				f.planned(f.a.Override(ctx, f.suite, pkg, o, ChangeOptions{}, f.now))
				k.overrides = maps.Clone(k.overrides)
				if k.overrides == nil {
					k.overrides = map[string]Override{}
				}
				k.overrides[pkg] = o
				has[s][n] = k
			}
		case what == 8 && len(has[s]) > 0:
			name := fmt.Sprint(f.suite.Name, len(kept))
			if err := f.a.Snapshot(ctx, f.suite, name, f.now); err != nil {
				t.Fatal(err)
			}
			kept[name] = maps.Clone(has[s])
			if old := fmt.Sprint(f.suite.Name, r.IntN(len(kept))); kept[old] != nil {
				if err := f.a.Rollback(ctx, f.suite, old, f.now); err != nil {
					t.Fatal(err)
				}
				has[s] = maps.Clone(kept[old])
			}
		case what == 9:
			if err := os.RemoveAll(f.a.path("cache")); err != nil {
				t.Fatal(err)
			}
		}
	}
	for s, suite := range suites {
		f.suite = suite
		f.publish() // a suite may have had nothing
		g := newFixture(t)
		g.suite = suite
		var batch []Inclusion
		for _, n := range sortedKeys(has[s]) {
			in := g.upload(has[s][n].Upload)
			in.Overrides = has[s][n].overrides
			batch = append(batch, in)
		}
		g.accepted(batch...)
		got, want := f.served(), g.served()
		for _, name := range slices.Sorted(maps.Keys(want)) {
			if !bytes.Equal(got[name], want[name]) {
				t.Errorf("%s: %s: got %d bytes that differ from the %d of one publication",
					suite.Name, name, len(got[name]), len(want[name]))
			}
			delete(got, name)
		}
		for name := range got {
			if strings.Contains(name, "/by-hash/") {
				continue // an earlier publication was what another index of this one is: empty
			}
			t.Errorf("%s: %s is there, one publication has it not", suite.Name, name)
		}
	}
	f.sound()
}

// served are the files of the suite by their names, and by their checksums as
// far as Release has them. Release itself, which has a time, is left out.
func (f *fixture) served() map[string][]byte {
	f.Helper()
	top := f.a.path("dists", f.suite.Name)
	rel, err := release.Read(top)
	if err != nil {
		f.Fatal(err)
	}
	sums := map[string]bool{}
	out := map[string][]byte{}
	for name, s := range rel.Sums {
		sums[s.SHA256] = true
		out["Release: "+name] = []byte(fmt.Sprint(s))
	}
	err = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || slices.Contains([]string{"Release", "InRelease", "Release.gpg"}, d.Name()) {
			return err
		}
		if filepath.Base(filepath.Dir(path)) == "SHA256" && !sums[d.Name()] {
			return nil // of an earlier publication
		}
		name, err := filepath.Rel(top, path)
		if err != nil {
			return err
		}
		out[name], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		f.Fatal(err)
	}
	return out
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
	changes := fmt.Sprintf("Source: %s\nVersion: %s\nArchitecture: %s\nBinary: %s\nChecksums-Sha256:\n %x %d %s\n"+
		"Files:\n %x %d x optional %s\n",
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
		list, err := deb822.Parse("Packages", []byte(text),
			deb822.Limits{Size: 1 << 28, Fields: 400, Lines: 1 << 22, LineLength: 1 << 20})
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
