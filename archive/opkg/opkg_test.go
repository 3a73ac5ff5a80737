package opkg_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"packmill/archive/opkg"
	"packmill/internal/deb"
	"packmill/internal/deb/debtest"
	"packmill/internal/openpgp"
)

var now = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func run(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// An archive is a pool and the stanzas of its index, as package archive keeps
// them.
type tree struct {
	t       testing.TB
	root    string
	stanzas map[string]string // by path in the pool
}

func newTree(t testing.TB) *tree {
	return &tree{t, t.TempDir(), map[string]string{}}
}

func (a *tree) add(d debtest.Deb) string {
	a.t.Helper()
	data := d.Bytes()
	p, err := deb.Read(bytes.NewReader(data), d.FileName(), deb.Options{})
	if err != nil {
		a.t.Fatal(err)
	}
	name := "pool/main/" + p.Source[:1] + "/" + p.Source + "/" + d.FileName()
	path := filepath.Join(a.root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		a.t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		a.t.Fatal(err)
	}
	a.stanzas[name] = fmt.Sprintf("%sFilename: %s\nSize: %d\nMD5sum: %s\nSHA256: %s\n",
		p.Text, name, p.Size, p.MD5, p.SHA256)
	return name
}

func (a *tree) index() opkg.Index {
	var b strings.Builder
	for i, name := range slices.Sorted(keys(a.stanzas)) {
		if i > 0 {
			b.WriteString("\n")
		}
		b.WriteString(a.stanzas[name])
	}
	return textIndex(b.String())
}

// textIndex cuts where a stanza's sum says so, as package index does.
func textIndex(text string) opkg.Index {
	var blocks []string
	for st := range strings.SplitSeq(text, "\n\n") {
		name, _, _ := strings.Cut(st, "\n")
		if n := len(blocks); n == 0 || crc32.ChecksumIEEE([]byte(name))%8 == 0 {
			blocks = append(blocks, st+"\n\n")
		} else {
			blocks[n-1] += st + "\n\n"
		}
	}
	return opkg.Index{SHA256: fmt.Sprintf("%x", sha256.Sum256([]byte(text))), Open: func() (opkg.Blocks, error) {
		return opkg.Blocks{N: len(blocks), Sum: func(i int) [32]byte { return sha256.Sum256([]byte(blocks[i])) },
			Read: func(i int) ([]byte, error) { return []byte(blocks[i]), nil }}, nil
	}}
}

func keys(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func (a *tree) publish(f *opkg.Feed, now time.Time) *opkg.Report {
	a.t.Helper()
	f.Root = a.root
	rep, err := f.Publish(context.Background(), []opkg.Index{a.index()}, now)
	if err != nil {
		a.t.Fatal(err)
	}
	return rep
}

func (a *tree) check(f *opkg.Feed, opt opkg.CheckOptions) []string {
	a.t.Helper()
	opt.Now = now
	_, wrong, err := opkg.Check(f.Dir(), opt)
	if err != nil {
		a.t.Fatal(err)
	}
	return wrong
}

func read(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestRepack compares an .opk with the .deb it is made of, by tar and dpkg-deb.
func TestRepack(t *testing.T) {
	t.Parallel()
	for _, packing := range []string{"xz", "gz", "zst", "none"} {
		dir := t.TempDir()
		d := debtest.Deb{Name: "hello", Version: "1:2.10-3", Packing: packing, Files: []debtest.File{
			{Path: "usr/bin/hello", Mode: 0o755, Body: strings.Repeat("hello\n", 1<<20)},
			{Path: "usr/share/" + strings.Repeat("long/", 60) + "name", Body: "x"},
			{Path: "usr/bin/hi", Link: "hello"},
		}}
		path, err := d.Write(dir)
		if err != nil {
			t.Fatal(err)
		}
		opk := filepath.Join(dir, "hello_2.10-3_amd64.opk")
		p, info, err := opkg.Repack(path, opk, opkg.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if p.Name != "hello" || p.Version != "1:2.10-3" {
			t.Errorf("got %s %s", p.Name, p.Version)
		}
		data := read(t, opk)
		if want := (opkg.Info{Size: int64(len(data)), MD5: strings.Fields(run(t, dir, "md5sum", opk))[0],
			SHA256: strings.Fields(run(t, dir, "sha256sum", opk))[0]}); info != want {
			t.Errorf("info: got %+v, want %+v", info, want)
		}
		if got, want := run(t, dir, "tar", "-tzf", opk), "./debian-binary\n./control.tar.gz\n./data.tar.gz\n"; got != want {
			t.Errorf("members: got %q, want %q", got, want)
		}
		run(t, dir, "tar", "-xzf", opk)
		if got := read(t, filepath.Join(dir, "debian-binary")); got != "2.0\n" {
			t.Errorf("debian-binary: got %q", got)
		}
		got, err := exec.Command("gzip", "-dc", filepath.Join(dir, "data.tar.gz")).Output()
		if err != nil {
			t.Fatal(err)
		}
		want, err := exec.Command("dpkg-deb", "--fsys-tarfile", path).Output()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: data.tar differs from the .deb's", packing)
		}
		f, err := opkg.ReadPackage(opk)
		if err != nil || f.Info != info || f.Control.Get("Version") != "1:2.10-3" ||
			!slices.Contains(f.Files, "./usr/bin/hi") {
			t.Errorf("ReadPackage: %+v, %v", f, err)
		}
		again := filepath.Join(dir, "again.opk")
		if _, _, err := opkg.Repack(path, again, opkg.Options{}); err != nil {
			t.Fatal(err)
		}
		if read(t, again) != data {
			t.Errorf("%s: the second one has other bytes", packing)
		}
		if _, _, err := opkg.Repack(path, again, opkg.Options{}); !os.IsExist(err) {
			t.Errorf("over a file: got %v", err)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, ".new-*")); left != nil {
			t.Errorf("left: %v", left)
		}
	}
}

const fullControl = `Package: full
Version: 2:1.0-1
Architecture: %s
Maintainer: Packmill Tests <tests@packmill.example>
Source: full-source (1.0)
Multi-Arch: same
Essential: yes
Section: utils
Priority: optional
Homepage: https://packmill.example/
Pre-Depends: dpkg (>= 1.15)
Depends: libc6 (>= 2.34), python3 (>= 3.9), perl | perl-base, one, three
Recommends: rr
Suggests: ss
Conflicts: cc (<< 2)
Breaks: bb
Replaces: bb (<< 0), cc (<< 2)
Provides: pp, qq
Tag: x::y
Description: short
 long
  indented
 .
 end
`

// buildDeb lets dpkg-deb build a package with a script in it. The members of its
// control.tar bear the prefix: dpkg takes both ways.
func buildDeb(t *testing.T, dir, control, packing, prefix string) string {
	t.Helper()
	for name, text := range map[string]string{"DEBIAN/control": control, "DEBIAN/postinst": "#!/bin/sh\nexit 0\n",
		"usr/bin/full": "x"} {
		name = filepath.Join(dir, "tree", name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	run(t, dir, "dpkg-deb", "--nocheck", "--root-owner-group", "-Z"+packing, "-b", "tree", "full.deb")
	if prefix == "" {
		ext := map[string]string{"xz": "xz", "gzip": "gz"}[packing]
		run(t, dir, "sh", "-ec",
			"ar x full.deb; cd tree/DEBIAN; tar --owner=0 --group=0 -caf ../../control.tar."+ext+" control postinst; cd ../..; rm full.deb; ar rc full.deb debian-binary control.tar."+ext+" data.tar."+ext)
	}
	return filepath.Join(dir, "full.deb")
}

// TestForeignReaders has GNU tar and gzip read every archive in every package, and
// holds that tar takes out what the .deb holds: whatever the names of the members,
// the architectures and the packing are.
func TestForeignReaders(t *testing.T) {
	t.Parallel()
	p, err := deb.Read(bytes.NewReader(full.Bytes()), full.FileName(), deb.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, opt := range []opkg.Options{{},
		{Arch: map[string]string{"amd64": "amd64-linux-glibc", "all": "noarch"}, Extension: "ipk"}} {
		for packing, member := range map[string]string{"xz": "./", "gzip": ""} {
			for _, arch := range []string{"amd64", "all"} {
				dir := t.TempDir()
				path := buildDeb(t, dir, strings.Replace(string(p.Text), "Architecture: amd64", "Architecture: "+arch, 1), packing,
					member)
				opk := filepath.Join(dir, "x.opk")
				if _, _, err := opkg.Repack(path, opk, opt); err != nil {
					t.Fatal(err)
				}
				run(t, dir, "gzip", "-t", opk)
				run(t, dir, "tar", "-xzf", opk)
				for _, member := range []string{"control.tar.gz", "data.tar.gz"} {
					run(t, dir, "gzip", "-t", member)
					run(t, dir, "mkdir", "-p", "out/"+member)
					// bsdtar is libarchive, which upstream's client reads with.
					run(t, dir, "bsdtar", "-tzf", member)
					if out := run(t, dir, "tar", "-C", "out/"+member, "-xpzf", member); out != "" {
						t.Errorf("%s %s: tar says %s", arch, member, out)
					}
				}
				run(t, dir, "diff", "-r", "-x", "DEBIAN", "tree", "out/data.tar.gz")
				run(t, dir, "diff", "tree/DEBIAN/postinst", "out/control.tar.gz/postinst")
				name := arch
				if to := opt.Arch[arch]; to != "" {
					name = to
				}
				want := fmt.Sprintf(fullControl, name)
				if arch == "all" { // which is in no list
					want = strings.Replace(want, "one, three", "two", 1)
				}
				if got := read(t, filepath.Join(dir, "out/control.tar.gz/control")); got != want {
					t.Errorf("%s %s: control: got\n%s\nwant\n%s", packing, arch, got, want)
				}
				if _, err := opkg.ReadPackage(opk); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

func TestOptionsCheck(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		opt  opkg.Options
		want string
	}{
		{opkg.Options{}, "<nil>"},
		{opkg.Options{Extension: "ipk", Arch: map[string]string{"amd64": "x86_64"}}, "<nil>"},
		{opkg.Options{Extension: "deb"}, `extension "deb" of opkg packages; use opk or ipk`},
		{opkg.Options{Arch: map[string]string{"amd64": "x", "i386": "x"}},
			"architectures amd64 and i386 have the same name x for opkg; give each its own"},
		{opkg.Options{Arch: map[string]string{"amd64": "../x"}}, "opkg's name for amd64: architecture"},
	} {
		if got := fmt.Sprint(tt.opt.Check()); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%+v: got %s, want %s", tt.opt, got, tt.want)
		}
	}
}

// full is a package with everything in its control file that opkg must not see.
var full = debtest.Deb{Name: "full", Version: "2:1.0-1", Fields: `Source: full-source (1.0)
Multi-Arch: same
Essential: yes
Section: utils
Priority: optional
Homepage: https://packmill.example/
Pre-Depends: dpkg (>= 1.15)
Depends: libc6 (>= 2.34), python3:any (>= 3.9),
 perl | perl-base:native, one [amd64 i386],
 two [!amd64], three [linux-any] <!nocheck>, four <cross>, libc6 (>= 2.34)
Recommends: rr
Suggests: ss
Conflicts: cc (<< 2)
Breaks: bb
Replaces: bb, cc
Provides: pp (= 1.0), qq, full (= 1), qq (= 2)
Tag: x::y
Description: short
 long
  indented
 .
 end
`}

const fullEntry = `Package: full
Version: 2:1.0-1
Architecture: %s
Essential: yes
Maintainer: Packmill Tests <tests@packmill.example>
Section: utils
Priority: optional
Source: full-source (1.0)
Homepage: https://packmill.example/
Pre-Depends: dpkg (>= 1.15)
Depends: libc6 (>= 2.34), python3 (>= 3.9), perl | perl-base, one, three
Recommends: rr
Suggests: ss
Conflicts: cc (<< 2)
Replaces: bb (<< 0), cc (<< 2)
Provides: pp, qq
Filename: pool/main/f/full-source/full_1.0-1_%s.%s
Size: %d
MD5Sum: %s
SHA256sum: %s
Description: short
 long
  indented
 .
 end

`

func TestFeed(t *testing.T) {
	t.Parallel()
	usign, err := opkg.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	pgp, err := openpgp.Generate("Feed", "feed@packmill.example", now)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := openpgp.ReadKeyring([]byte(pgp.Public()))
	if err != nil {
		t.Fatal(err)
	}
	for _, opt := range []opkg.Options{{}, {Extension: "ipk", Arch: map[string]string{"amd64": "x86_64-linux"}}} {
		a := newTree(t)
		a.add(full)
		a.add(debtest.Deb{Name: "hello", Version: "1.0", Arch: "all"})
		feed := &opkg.Feed{Suite: "stable", Arch: "amd64", Options: opt, Usign: []*opkg.Key{usign},
			OpenPGP: []*openpgp.Signer{pgp}}
		rep := a.publish(feed, now)
		if !rep.Changed || rep.Entries != 2 || rep.Packed != 2 || rep.Skipped != nil {
			t.Errorf("report: %+v", rep)
		}
		arch, ext := "amd64", "opk"
		if opt.Arch != nil {
			arch, ext = "x86_64-linux", "ipk"
		}
		if got, want := feed.Dir(), filepath.Join(a.root, "opkg/stable", arch); got != want {
			t.Errorf("directory: got %s, want %s", got, want)
		}
		if wrong := a.check(feed,
			opkg.CheckOptions{Archs: []string{arch, "all"}, Usign: []*opkg.Key{usign}, OpenPGP: ring}); wrong != nil {
			t.Errorf("check: %s", strings.Join(wrong, "\n"))
		}
		opk, err := os.ReadFile(filepath.Join(a.root, "opkg/pool/2/main/f/full-source/full_1.0-1_"+arch+"."+ext))
		if err != nil {
			t.Fatal(err)
		}
		p, err := opkg.ReadPackage(filepath.Join(a.root, "opkg/pool/2/main/f/full-source/full_1.0-1_"+arch+"."+ext))
		if err != nil {
			t.Fatal(err)
		}
		text := read(t, filepath.Join(feed.Dir(), "Packages"))
		if want := fmt.Sprintf(fullEntry, arch, arch, ext, len(opk), p.MD5, p.SHA256); !strings.HasPrefix(text, want) {
			t.Errorf("entry: got\n%s\nwant\n%s", text, want)
		}
		// What others say of it: gzip, signify, gpgv.
		if got := run(t, feed.Dir(), "gzip", "-dc", "Packages.gz"); got != text {
			t.Errorf("gzip -dc: got %q", got)
		}
		keys := t.TempDir()
		if err := os.WriteFile(filepath.Join(keys, "k.pub"), usign.Public(), 0o644); err != nil {
			t.Fatal(err)
		}
		run(t, feed.Dir(), "signify-openbsd", "-V", "-p", filepath.Join(keys, "k.pub"), "-x", "Packages.sig", "-m",
			"Packages")
		if err := os.WriteFile(filepath.Join(keys, "k.asc"), []byte(pgp.Public()), 0o644); err != nil {
			t.Fatal(err)
		}
		run(t, keys, "gpg", "--homedir", keys, "--batch", "--quiet", "--dearmor", "-o", "k.gpg", "k.asc")
		run(t, feed.Dir(), "gpgv", "--keyring", filepath.Join(keys, "k.gpg"), "Packages.asc", "Packages")
		run(t, feed.Dir(), "sqv", "--keyring", filepath.Join(keys, "k.asc"), "Packages.asc", "Packages")
	}
}

// TestFilenameLeadsThere follows Filename as clients do: by the text of a URL,
// and by a path through the link.
func TestFilenameLeadsThere(t *testing.T) {
	t.Parallel()
	a := newTree(t)
	a.add(debtest.Deb{Name: "hello", Version: "1.0"})
	feed := &opkg.Feed{Suite: "stable", Arch: "amd64"}
	a.publish(feed, now)
	name := "pool/main/h/hello/hello_1.0_amd64.opk"
	want := read(t, filepath.Join(a.root, "opkg/pool/2/main/h/hello/hello_1.0_amd64.opk"))
	if !strings.Contains(read(t, filepath.Join(feed.Dir(), "Packages")), "Filename: "+name+"\n") {
		t.Fatal("no such Filename")
	}
	// Not filepath.Join, which would go by the text too.
	if got := read(t, feed.Dir()+"/"+name); got != want {
		t.Error("by file: another file")
	}
	srv := httptest.NewServer(http.FileServer(http.Dir(a.root)))
	defer srv.Close()
	base, err := url.Parse(srv.URL + "/opkg/stable/amd64/")
	if err != nil {
		t.Fatal(err)
	}
	u, err := base.Parse(name)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get(u.String())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 || string(got) != want {
		t.Errorf("by http: %s: %s, %v", u, resp.Status, err)
	}
}

func TestEmptyFeed(t *testing.T) {
	t.Parallel()
	usign, err := opkg.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	a := newTree(t)
	feed := &opkg.Feed{Suite: "stable", Arch: "riscv64", Usign: []*opkg.Key{usign}}
	if rep := a.publish(feed, now); !rep.Changed || rep.Entries != 0 {
		t.Errorf("report: %+v", rep)
	}
	if wrong := a.check(feed, opkg.CheckOptions{Usign: []*opkg.Key{usign}}); wrong != nil {
		t.Errorf("check: %v", wrong)
	}
	if got := read(t, filepath.Join(feed.Dir(), "Packages")); got != "" {
		t.Errorf("Packages: got %q", got)
	}
	if got := run(t, feed.Dir(), "gzip", "-dc", "Packages.gz"); got != "" {
		t.Errorf("Packages.gz: got %q", got)
	}
}

// TestIncremental changes an archive at random, and compares each feed with one
// that is made from nothing.
func TestIncremental(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	a := newTree(t)
	usign, err := opkg.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	feed := &opkg.Feed{Suite: "s", Arch: "amd64", Usign: []*opkg.Key{usign}}
	var have []string
	rounds := 8
	if testing.Short() {
		rounds = 3
	}
	for round := range rounds {
		fresh := 0
		for range 1 + rng.IntN(60) {
			switch n := rng.IntN(10); {
			case n < 7 || len(have) < 5:
				d := debtest.Deb{Name: fmt.Sprintf("p%04d", rng.IntN(3000)), Version: fmt.Sprintf("1.%d", round),
					Arch: []string{"amd64", "all"}[rng.IntN(2)],
					Fields: fmt.Sprintf("Provides: v%d (= 1), p%04d (= 2)\nDepends: v%d (>= 1) | p%04d (>= 1)\nDescription: d\n",
						rng.IntN(40), rng.IntN(3000), rng.IntN(40), rng.IntN(3000)) +
						strings.Repeat(fmt.Sprintf(" line %d of many that make it long enough to have several pieces\n", rng.IntN(1e6)),
							60)}
				name := "pool/main/" + d.Name[:1] + "/" + d.Name + "/" + d.FileName()
				if _, there := a.stanzas[name]; !there {
					have = append(have, a.add(d))
					fresh++
				}
			case n < 9:
				i := rng.IntN(len(have))
				delete(a.stanzas, have[i])
				have = slices.Delete(have, i, i+1)
			default: // an override
				name := have[rng.IntN(len(have))]
				a.stanzas[name] = strings.Replace(a.stanzas[name], "Section: misc", "Section: other", 1)
			}
		}
		// The clock goes on: a generation that has done its time goes away.
		rep := a.publish(feed, time.Now().Add(time.Duration(round)*time.Hour))
		if !rep.Changed || rep.Entries != len(a.stanzas) || rep.Skipped != nil || rep.Packed > fresh {
			t.Fatalf("round %d: %+v for %d stanzas, %d new ones", round, rep, len(a.stanzas), fresh)
		}
		if wrong := a.check(feed, opkg.CheckOptions{SkipPackages: round%4 != 0}); wrong != nil {
			t.Fatalf("round %d: %s", round, strings.Join(wrong, "\n"))
		}
		whole := &opkg.Feed{Root: a.root, Suite: "new" + fmt.Sprint(round), Arch: "amd64", Usign: feed.Usign}
		if rep := a.publish(whole, now); rep.Packed != 0 {
			t.Fatalf("round %d: packed again: %+v", round, rep)
		}
		for _, name := range []string{"Packages", "Packages.gz", "Packages.sig"} {
			if read(t, filepath.Join(feed.Dir(), name)) != read(t, filepath.Join(whole.Dir(), name)) {
				t.Fatalf("round %d: %s differs from a new one", round, name)
			}
		}
		if again := a.publish(feed, time.Now()); again.Changed || again.Entries != len(a.stanzas) {
			t.Fatalf("round %d: nothing new, but %+v", round, again)
		}
	}
	list, err := filepath.Glob(filepath.Join(a.root, "opkg/s/.amd64.*"))
	if err != nil || len(list) > 2 {
		t.Errorf("generations left: %v", list)
	}
}

// TestMemoryIsNotTruth throws away or breaks what a generation remembers.
func TestMemoryIsNotTruth(t *testing.T) {
	t.Parallel()
	for name, hurt := range map[string]func(path string) error{
		"gone":      os.Remove,
		"empty":     func(p string) error { return os.WriteFile(p, nil, 0o644) },
		"garbage":   func(p string) error { return os.WriteFile(p, []byte("entry x\nend\n"), 0o644) },
		"truncated": func(p string) error { return os.Truncate(p, 300) },
	} {
		a := newTree(t)
		for i := range 5 {
			a.add(debtest.Deb{Name: fmt.Sprintf("hello%d", i), Version: "1.0"})
		}
		feed := &opkg.Feed{Suite: "s", Arch: "amd64"}
		a.publish(feed, now)
		want := read(t, filepath.Join(feed.Dir(), "Packages"))
		if err := hurt(filepath.Join(feed.Dir(), ".made")); err != nil {
			t.Fatal(err)
		}
		a.publish(feed, now)
		a.add(debtest.Deb{Name: "zz", Version: "1.0"})
		if rep := a.publish(feed, now); rep.Entries != 6 {
			t.Errorf("%s: %+v", name, rep)
		}
		if got := read(t, filepath.Join(feed.Dir(), "Packages")); !strings.HasPrefix(got, want) {
			t.Errorf("%s: got\n%s", name, got)
		}
		if wrong := a.check(feed, opkg.CheckOptions{}); wrong != nil {
			t.Errorf("%s: %v", name, wrong)
		}
	}
}

// TestMadeAnew holds that a feed of an older form is made again by itself, and what
// it named stays for those who have its index.
func TestMadeAnew(t *testing.T) {
	t.Parallel()
	a := newTree(t)
	a.add(debtest.Deb{Name: "hello", Version: "1.0"})
	feed := &opkg.Feed{Suite: "s", Arch: "amd64"}
	a.publish(feed, now)
	old := filepath.Join(a.root, "opkg/pool/main/h/hello/hello_1.0_amd64.opk")
	made := filepath.Join(feed.Dir(), ".made")
	for _, err := range []error{os.MkdirAll(filepath.Dir(old), 0o755), os.WriteFile(old, []byte("cut off"), 0o644),
		os.WriteFile(made, []byte(strings.Replace(read(t, made), "opkg feed 2", "opkg feed 1", 1)), 0o644),
		os.RemoveAll(filepath.Join(a.root, "opkg/pool/2"))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if rep := a.publish(feed, now); !rep.Changed || rep.Entries != 1 || rep.Packed != 1 || rep.Skipped != nil {
		t.Errorf("got %+v", rep)
	}
	if wrong := a.check(feed, opkg.CheckOptions{}); wrong != nil {
		t.Error(wrong)
	}
	if got := read(t, old); got != "cut off" {
		t.Errorf("the old package: got %q", got)
	}
}

// TestDamagedPackageIsReplaced holds that no name is lost to a file that is no package.
func TestDamagedPackageIsReplaced(t *testing.T) {
	t.Parallel()
	a := newTree(t)
	a.add(debtest.Deb{Name: "hello", Version: "1.0"})
	a.publish(&opkg.Feed{Suite: "s", Arch: "amd64"}, now)
	opk := filepath.Join(a.root, "opkg/pool/2/main/h/hello/hello_1.0_amd64.opk")
	whole := read(t, opk)
	if err := os.Truncate(opk, 300); err != nil {
		t.Fatal(err)
	}
	other := &opkg.Feed{Suite: "t", Arch: "amd64"}
	if rep := a.publish(other, now); rep.Skipped != nil || rep.Packed != 1 || read(t, opk) != whole {
		t.Errorf("got %+v", rep)
	}
	if wrong := a.check(other, opkg.CheckOptions{}); wrong != nil {
		t.Error(wrong)
	}
}

// TestTimes holds that no two generations have files of one time: a web server makes
// an ETag of time and size, and all signatures have one size.
func TestTimes(t *testing.T) {
	t.Parallel()
	usign, err := opkg.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	a := newTree(t)
	feed := &opkg.Feed{Suite: "s", Arch: "amd64", Usign: []*opkg.Key{usign}}
	for i := range 4 {
		a.add(debtest.Deb{Name: "hello", Version: fmt.Sprintf("1.%d", i)})
		a.publish(feed, now)
		for _, name := range []string{"Packages.sig", "Packages.gz", "Packages"} {
			fi, err := os.Stat(filepath.Join(feed.Dir(), name))
			if err != nil {
				t.Fatal(err)
			}
			if want := now.Add(time.Duration(i) * time.Second); !fi.ModTime().Equal(want) {
				t.Errorf("%s of generation %d: got %s, want %s", name, i, fi.ModTime(), want)
			}
		}
	}
	// The clock goes on.
	a.add(debtest.Deb{Name: "hello", Version: "2"})
	a.publish(feed, now.Add(time.Hour))
	if fi, err := os.Stat(filepath.Join(feed.Dir(), "Packages")); err != nil || !fi.ModTime().Equal(now.Add(time.Hour)) {
		t.Errorf("an hour later: %v, %v", fi, err)
	}
}

// TestVersionedProvides holds that a dependency on a name that is only provided has no
// version, which no client could fulfil, for as long as no package has the name.
func TestVersionedProvides(t *testing.T) {
	t.Parallel()
	a := newTree(t)
	a.add(debtest.Deb{Name: "needs", Version: "1", Fields: "Depends: abi (= 5), other (>= 2)\n"})
	a.add(debtest.Deb{Name: "gives", Version: "1", Fields: "Provides: abi (= 5)\nConflicts: abi (<< 5)\n"})
	feed := &opkg.Feed{Suite: "s", Arch: "amd64"}
	depends := func(want string, packed int) {
		t.Helper()
		if rep := a.publish(feed, now); rep.Packed != packed {
			t.Errorf("packed %d, want %d", rep.Packed, packed)
		}
		if got := read(t, filepath.Join(feed.Dir(), "Packages")); !strings.Contains(got, "\nDepends: "+want+"\n") {
			t.Errorf("got\n%s\nwant Depends: %s", got, want)
		} else if virtual := !strings.Contains(want, "("+"= 5"); virtual != strings.Contains(got, "\nProvides: abi\n") ||
			virtual == strings.Contains(got, "\nConflicts: abi (<< 5)\n") {
			t.Errorf("got\n%s\nwant Provides and no Conflicts: %v", got, virtual)
		}
	}
	depends("abi, other (>= 2)", 2)
	real := a.add(debtest.Deb{Name: "abi", Version: "5"})
	depends("abi (= 5), other (>= 2)", 1)
	delete(a.stanzas, real)
	depends("abi, other (>= 2)", 0)
}

// TestTwoKeys holds that clients who know one key of two find a feed that it signs.
func TestTwoKeys(t *testing.T) {
	t.Parallel()
	var usign []*opkg.Key
	var pgp []*openpgp.Signer
	for range 2 {
		k, err := opkg.GenerateKey()
		if err != nil {
			t.Fatal(err)
		}
		s, err := openpgp.Generate("Feed", "feed@packmill.example", now)
		if err != nil {
			t.Fatal(err)
		}
		usign, pgp = append(usign, k), append(pgp, s)
	}
	a := newTree(t)
	a.add(debtest.Deb{Name: "hello", Version: "1"})
	feed := &opkg.Feed{Suite: "s", Arch: "amd64", Usign: usign, OpenPGP: pgp}
	a.publish(feed, now)
	for i, dir := range []string{feed.Dir(), filepath.Join(feed.Dir(), "next")} {
		ring, err := openpgp.ReadKeyring(pgp[i].Public())
		if err != nil {
			t.Fatal(err)
		}
		if _, wrong, err := opkg.Check(dir,
			opkg.CheckOptions{Usign: usign[i : i+1], OpenPGP: ring, Now: now}); err != nil || wrong != nil {
			t.Errorf("%s: %v, %v", dir, wrong, err)
		}
		// Upstream's client takes the first signature only.
		by, err := openpgp.Issuers([]byte(read(t, filepath.Join(dir, "Packages.asc"))))
		if err != nil || len(by) != 2 || !strings.HasSuffix(pgp[i].Fingerprint(), by[0]) && by[0] != pgp[i].Fingerprint() {
			t.Errorf("%s: signed by %v, %v; want %s first", dir, by, err, pgp[i].Fingerprint())
		}
	}
}

// TestSameNameOtherBytes holds that clients never see one name with two contents.
func TestSameNameOtherBytes(t *testing.T) {
	t.Parallel()
	a := newTree(t)
	name := a.add(debtest.Deb{Name: "hello", Version: "1.0"})
	feed := &opkg.Feed{Suite: "s", Arch: "amd64"}
	a.publish(feed, now)
	opk := filepath.Join(a.root, "opkg/pool/2/main/h/hello/hello_1.0_amd64.opk")
	before := read(t, opk)
	// The same content, packed by another program: it stays as it is, and a
	// new feed says what lies there.
	dir := t.TempDir()
	run(t, dir, "tar", "-xzf", opk)
	run(t, dir, "gunzip", "data.tar.gz")
	run(t, dir, "gzip", "-1", "-n", "data.tar")
	run(t, dir, "tar", "--format=gnu", "-czf", opk, "./debian-binary", "./control.tar.gz", "./data.tar.gz")
	after := read(t, opk)
	if after == before {
		t.Fatal("the other program packs as we do")
	}
	other := &opkg.Feed{Suite: "t", Arch: "amd64"}
	if rep := a.publish(other, now); rep.Skipped != nil || rep.Packed != 0 || read(t, opk) != after {
		t.Errorf("packed by others: %+v", rep)
	}
	if wrong := a.check(other, opkg.CheckOptions{}); wrong != nil {
		t.Error(wrong)
	}
	// Other content under the old name.
	if err := os.Remove(filepath.Join(a.root, name)); err != nil {
		t.Fatal(err)
	}
	a.add(debtest.Deb{Name: "hello", Version: "1.0", Files: []debtest.File{{Path: "etc/other", Body: "bytes"}}})
	rep := a.publish(feed, now)
	if len(rep.Skipped) != 1 ||
		!strings.Contains(rep.Skipped[0].Reason,
			"the opkg pool has another file of this name, which clients may have; raise the version") || rep.Entries != 0 {
		t.Errorf("got %+v", rep)
	}
}

func TestDamagedPool(t *testing.T) {
	t.Parallel()
	a := newTree(t)
	name := a.add(debtest.Deb{Name: "hello", Version: "1.0"})
	other := debtest.Deb{Name: "hello", Version: "1.0", Files: []debtest.File{{Path: "etc/other", Body: "bytes"}}}
	if err := os.WriteFile(filepath.Join(a.root, name), other.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	feed := &opkg.Feed{Root: a.root, Suite: "s", Arch: "amd64"}
	_, err := feed.Publish(context.Background(), []opkg.Index{a.index()}, now)
	if err == nil || !strings.Contains(err.Error(), "run packmill archive check") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Lstat(feed.Dir()); !os.IsNotExist(err) {
		t.Errorf("the feed: %v", err)
	}
}

func TestSkipsWhatOpkgCannotHave(t *testing.T) {
	t.Parallel()
	a := newTree(t)
	a.add(debtest.Deb{Name: "good", Version: "1.0"})
	a.stanzas["zzz"] = "Package: evil\nSource: worse (7)\nVersion: 1\nArchitecture: amd64\n" +
		"Filename: ../../etc/passwd\nSize: 1\nSHA256: " + strings.Repeat("0", 64) + "\nDescription: x\n"
	feed := &opkg.Feed{Suite: "s", Arch: "amd64"}
	rep := a.publish(feed, now)
	want := []opkg.Skip{{Package: "evil", Version: "1", Source: "worse", Reason: `Filename "../../etc/passwd" is not in the pool`}}
	if rep.Entries != 1 || !slices.Equal(rep.Skipped, want) {
		t.Errorf("got %+v, want skipped %q", rep, want)
	}
	// It is said once, and known for as long as it is so.
	for range 2 {
		a.add(debtest.Deb{Name: "good", Version: fmt.Sprintf("2.%d", len(a.stanzas))})
		if rep := a.publish(feed, now); rep.Skipped != nil {
			t.Errorf("said again: %+v", rep.Skipped)
		}
		if got, err := opkg.Skipped(a.root, "s"); err != nil || !slices.Equal(got["amd64"], want) {
			t.Errorf("known: %+v, %v", got, err)
		}
	}
	delete(a.stanzas, "zzz")
	a.publish(feed, now)
	if got, err := opkg.Skipped(a.root, "s"); err != nil || len(got) != 0 {
		t.Errorf("known when it is gone: %+v, %v", got, err)
	}
}

func TestSources(t *testing.T) {
	t.Parallel()
	a := newTree(t)
	dir := filepath.Join(a.root, "pool/main/h/hello")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	paths, err := debtest.Source{Name: "hello", Version: "1:2.0"}.Write(dir)
	if err != nil {
		t.Fatal(err)
	}
	text := "Package: hello\nBinary: hello\nVersion: 1:2.0\nMaintainer: A <a@b.example>\n" +
		"Directory: pool/main/h/hello\nChecksums-Sha256:\n"
	for _, p := range paths {
		data := read(t, p)
		text += fmt.Sprintf(" %x %d %s\n", sha256.Sum256([]byte(data)), len(data), filepath.Base(p))
	}
	feed := &opkg.Feed{Root: a.root, Suite: "s", Arch: "source"}
	rep, err := feed.Publish(context.Background(), []opkg.Index{textIndex(text)}, now)
	if err != nil || rep.Entries != 1 || rep.Skipped != nil {
		t.Fatalf("%+v, %v", rep, err)
	}
	if wrong := a.check(feed, opkg.CheckOptions{Archs: []string{"source"}}); wrong != nil {
		t.Errorf("check: %v", wrong)
	}
	got := read(t, filepath.Join(a.root, "opkg/s/src/Packages"))
	for _, want := range []string{"Package: src:hello\nVersion: 1:2.0\nArchitecture: source\n",
		"Filename: pool/main/h/hello/hello_2.0_source.opk\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("Packages: got\n%s\nwant\n%s", got, want)
		}
	}
	x := t.TempDir()
	run(t, x, "sh", "-c",
		"tar -xzf "+filepath.Join(a.root,
			"opkg/pool/2/main/h/hello/hello_2.0_source.opk")+" && tar -xzf data.tar.gz && dpkg-source --no-check -x "+
			"usr/src/hello-2.0/hello_2.0.dsc out")
	if _, err := os.Stat(filepath.Join(x, "out/debian/control")); err != nil {
		t.Error(err)
	}
	// A source whose files are not what the index says.
	if err := os.WriteFile(paths[1], []byte("other"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = (&opkg.Feed{Root: a.root, Suite: "t", Arch: "source"}).Publish(context.Background(),
		[]opkg.Index{textIndex(text)}, now)
	if err == nil || !strings.Contains(err.Error(), "is not what its index says") {
		t.Errorf("changed source: got %v", err)
	}
}

func TestFilesAndDrop(t *testing.T) {
	t.Parallel()
	a := newTree(t)
	old := a.add(debtest.Deb{Name: "hello", Version: "1.0"})
	feed := &opkg.Feed{Suite: "s", Arch: "amd64"}
	a.publish(feed, now)
	delete(a.stanzas, old)
	a.add(debtest.Deb{Name: "hello", Version: "2.0"})
	a.add(debtest.Deb{Name: "world", Version: "1.0", Arch: "all"})
	a.publish(feed, now)
	a.publish(&opkg.Feed{Suite: "s", Arch: "i386"}, now)
	got, err := opkg.Files(a.root, "s")
	if want := []string{"opkg/pool/2/main/h/hello/hello_2.0_amd64.opk",
		"opkg/pool/2/main/w/world/world_1.0_all.opk"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if got, err := opkg.Files(a.root, "none"); err != nil || got != nil {
		t.Errorf("of no suite: got %v, %v", got, err)
	}
	if err := opkg.Drop(a.root, "s", []string{"i386"}); err != nil {
		t.Fatal(err)
	}
	if got, err := opkg.Feeds(a.root, "s"); err != nil || !slices.Equal(got, []string{"i386"}) {
		t.Errorf("after Drop: %v, %v", got, err)
	}
	if err := opkg.Drop(a.root, "s", nil); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(filepath.Join(a.root, "opkg/s"))
	if err != nil || len(left) != 0 {
		t.Errorf("after Drop of all: %v, %v", left, err)
	}
}

// TestReaders lets readers fetch the index and its signature from the directory
// that they reached, while it changes: no pair may disagree.
func TestReaders(t *testing.T) {
	t.Parallel()
	usign, err := opkg.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	a := newTree(t)
	feed := &opkg.Feed{Suite: "s", Arch: "amd64", Usign: []*opkg.Key{usign}}
	a.publish(feed, now)
	dir := feed.Dir()
	stop, done := make(chan struct{}), make(chan error)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			d, err := os.OpenRoot(dir)
			if err != nil {
				done <- err
				return
			}
			text, err := d.ReadFile("Packages")
			sig, err2 := d.ReadFile("Packages.sig")
			d.Close()
			if err == nil {
				err = err2
			}
			if err == nil {
				err = usign.Verify(text, sig)
			}
			if err != nil {
				done <- err
				return
			}
		}
	}()
	for i := range 20 {
		a.add(debtest.Deb{Name: "hello", Version: fmt.Sprintf("1.%d", i)})
		a.publish(feed, now)
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// BenchmarkFeed measures a feed of 10,000 packages: made from nothing, with one
// package more, and with nothing new.
func BenchmarkFeed(b *testing.B) {
	a := newTree(b)
	for _, u := range debtest.Corpus(10_000, "1.0") {
		for _, d := range u.Debs {
			a.add(d)
		}
	}
	key, err := opkg.GenerateKey()
	if err != nil {
		b.Fatal(err)
	}
	index := a.index()
	suite := 0
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			if err := os.RemoveAll(filepath.Join(a.root, "opkg")); err != nil {
				b.Fatal(err)
			}
			feed := &opkg.Feed{Root: a.root, Suite: "s", Arch: "amd64", Usign: []*opkg.Key{key}}
			if _, err := feed.Publish(context.Background(), []opkg.Index{index}, now); err != nil {
				b.Fatal(err)
			}
		}
	})
	feed := &opkg.Feed{Root: a.root, Suite: "s", Arch: "amd64", Usign: []*opkg.Key{key}}
	b.Run("one more", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			suite++
			a.add(debtest.Deb{Name: "mmm", Version: fmt.Sprint(suite)})
			index = a.index()
			b.StartTimer()
			if _, err := feed.Publish(context.Background(), []opkg.Index{index}, now); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("nothing new", func(b *testing.B) {
		for b.Loop() {
			if _, err := feed.Publish(context.Background(), []opkg.Index{index}, now); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// TestKeepsGzip: a data.tar.gz stays as it is, but for one of several gzip members, of
// which clients read the first.
func TestKeepsGzip(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	data := debtest.Tar(debtest.File{Path: "usr/bin/hello", Mode: 0o755, Body: "hello\n"})
	control := debtest.Tar(debtest.File{Path: "control",
		Body: "Package: hello\nVersion: 1\nArchitecture: amd64\nDescription: d\n"})
	one := debtest.Pack("gz", data)
	two := append(debtest.Pack("gz", data[:700]), debtest.Pack("gz", data[700:])...)
	for i, member := range [][]byte{one, two} {
		name := filepath.Join(dir, fmt.Sprint(i))
		deb := debtest.Ar(debtest.Member{Name: "debian-binary", Body: []byte("2.0\n")},
			debtest.Member{Name: "control.tar.gz", Body: debtest.Pack("gz", control)}, debtest.Member{Name: "data.tar.gz",
				Body: member})
		if err := os.WriteFile(name+".deb", deb, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, _, err := opkg.Repack(name+".deb", name+".opk", opkg.Options{}); err != nil {
			t.Fatal(err)
		}
		if _, err := opkg.ReadPackage(name + ".opk"); err != nil {
			t.Error(err)
		}
		out := filepath.Join(dir, "out", fmt.Sprint(i))
		if err := os.MkdirAll(out, 0o755); err != nil {
			t.Fatal(err)
		}
		run(t, out, "tar", "-xzf", name+".opk")
		if got, want := read(t, filepath.Join(out, "data.tar.gz")) == string(member), i == 0; got != want {
			t.Errorf("of %d gzip members: kept as it is: %v, want %v", i+1, got, want)
		}
		if got, want := run(t, out, "tar", "-xOzf", "data.tar.gz", "./usr/bin/hello"), "hello\n"; got != want {
			t.Errorf("of %d gzip members: got %q, want %q", i+1, got, want)
		}
	}
}
