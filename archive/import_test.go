package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"packmill/archive/mirror"
	"packmill/internal/deb/debtest"
	"packmill/internal/openpgp"
)

// origin is an archive to be imported.
func origin(t *testing.T) (*fixture, mirror.Source) {
	f := newFixture(t)
	f.suite.Compress = []string{"gz", "xz", "zst"}
	f.accepted(f.upload(hello("1:1.0~rc1+x")), f.upload(debtest.Upload{
		Source: debtest.Source{Name: "libother", Version: "2"},
		Debs:   []debtest.Deb{{Name: "libother1", Version: "2+b1", Fields: "Section: contrib/libs\n"}},
	}))
	f.suite.Overrides = map[string]Override{"hello": {Section: "games", Priority: "extra"},
		"src:hello": {Section: "games"}}
	f.accepted(f.upload(hello("1:1.1")))
	return f, mirror.Source{URL: f.a.Root(), Suite: f.suite.Name, Keyring: ring(t, f.key)}
}

func ring(t *testing.T, files ...string) *openpgp.Keyring {
	t.Helper()
	var data [][]byte
	for _, name := range files {
		d, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		data = append(data, d)
	}
	k, err := openpgp.ReadKeyring(data...)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func open(t *testing.T, src mirror.Source) *mirror.Repository {
	t.Helper()
	r, err := mirror.Open(context.Background(), src, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestImport copies an archive over file and over http, and wants what clients
// see to be the same.
func TestImport(t *testing.T) {
	t.Parallel()
	from, src := origin(t)
	srv := httptest.NewServer(http.FileServer(http.Dir(from.a.Root())))
	defer srv.Close()
	for name, change := range map[string]func(*mirror.Source){
		"file":      func(*mirror.Source) {},
		"file URL":  func(s *mirror.Source) { s.URL = "file://" + s.URL },
		"hard link": func(s *mirror.Source) { s.Link = true },
		"http":      func(s *mirror.Source) { s.URL = srv.URL },
		"some": func(s *mirror.Source) {
			s.Architectures, s.Components = []string{"amd64"}, []string{"contrib", "main"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			to := newFixture(t)
			src := src
			change(&src)
			repo := open(t, src)
			if repo.SignedBy == "" {
				t.Error("nobody signed the repository")
			}
			var calls atomic.Int64
			rep, err := to.a.Import(context.Background(), to.suite, repo, ImportOptions{Progress: func(p ImportProgress) {
				if calls.Add(1); p.AllUploads != 3 || p.Uploads > 3 || p.Bytes > p.AllBytes {
					t.Errorf("progress: %+v", p)
				}
			}}, to.now)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range rep.Results {
				if r.Outcome != Published {
					t.Errorf("%s: %v: %s", r.Changes, r.Outcome, r.Reason)
				}
			}
			if calls.Load() != int64(len(rep.Uploads)) || !rep.Changed {
				t.Errorf("report: %d calls, %+v", calls.Load(), rep)
			}
			for _, path := range []string{"main/binary-amd64/Packages", "contrib/binary-amd64/Packages",
				"main/binary-all/Packages", "main/source/Sources"} {
				if got, want := to.text(path), from.text(path); got != want {
					t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
				}
			}
			again, err := to.a.Import(context.Background(), to.suite, repo, ImportOptions{}, to.now)
			if err != nil || len(again.Uploads) != 0 || again.There != 3 || again.Changed {
				t.Errorf("again: %+v, %v", again, err)
			}
			if left, _ := filepath.Glob(to.a.path("cache", "import-*")); left != nil {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// TestImportGoesOn cuts an import off in the middle of its fetching.
func TestImportGoesOn(t *testing.T) {
	t.Parallel()
	from, src := origin(t)
	var broken atomic.Bool
	var gets atomic.Int64
	files := http.FileServer(http.Dir(from.a.Root()))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/pool/") {
			gets.Add(1)
			if broken.Load() && strings.Contains(r.URL.Path, "libother") {
				http.Error(w, "gone away", http.StatusForbidden)
				return
			}
		}
		files.ServeHTTP(w, r)
	}))
	defer srv.Close()
	src.URL = srv.URL
	to := newFixture(t)
	broken.Store(true)
	if _, err := to.a.Import(context.Background(), to.suite, open(t, src), ImportOptions{Fetches: 1},
		to.now); err == nil || !strings.Contains(err.Error(), "the server says 403 Forbidden") {
		t.Fatalf("got %v", err)
	}
	if _, err := os.Stat(to.a.path("dists", "unstable", "Release")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something was published: %v", err)
	}
	broken.Store(false)
	before := gets.Load()
	if _, err := to.a.Import(context.Background(), to.suite, open(t, src), ImportOptions{Fetches: 1}, to.now); err != nil {
		t.Fatal(err)
	}
	if got := gets.Load() - before; got != 3 {
		t.Errorf("fetched %d files in the second run, want the 3 that were missing", got)
	}
	if got, want := to.text("main/binary-amd64/Packages"), from.text("main/binary-amd64/Packages"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestImportSourceless(t *testing.T) {
	t.Parallel()
	from, src := origin(t)
	for _, c := range []string{"main", "contrib"} {
		if err := os.RemoveAll(from.a.path("dists/unstable", c, "source")); err != nil {
			t.Fatal(err)
		}
	}
	// A repository without sources, and without signature.
	rel := filepath.Join(from.a.path("dists/unstable"), "Release")
	data, err := os.ReadFile(rel)
	if err != nil {
		t.Fatal(err)
	}
	var kept [][]byte
	for line := range bytes.Lines(data) {
		if !bytes.Contains(line, []byte("/source/")) {
			kept = append(kept, line)
		}
	}
	if err := os.WriteFile(rel, bytes.Join(kept, nil), 0o644); err != nil {
		t.Fatal(err)
	}
	src.Keyring, src.Unsigned = nil, true
	for _, sourceless := range []bool{false, true} {
		to := newFixture(t)
		rep, err := to.a.Import(context.Background(), to.suite, open(t, src), ImportOptions{Sourceless: sourceless}, to.now)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rep.Results {
			if want := "publish the source first"; sourceless && r.Outcome != Published ||
				!sourceless && !strings.Contains(r.Reason, want) {
				t.Errorf("sourceless %v: %s: %v: %s", sourceless, r.Changes, r.Outcome, r.Reason)
			}
			if r.NoSource == sourceless {
				t.Errorf("sourceless %v: no source: got %v", sourceless, r.NoSource)
			}
		}
		if got := strings.Contains(to.text("main/binary-amd64/Packages"), "Package: hello\n"); got != sourceless {
			t.Errorf("sourceless %v: hello there: %v", sourceless, got)
		}
	}
}

// What is broken in a repository stops nothing else, and comes when it is mended.
func TestImportOfABrokenRepository(t *testing.T) {
	t.Parallel()
	from, src := origin(t)
	web := httptest.NewServer(http.FileServer(http.Dir(from.a.Root())))
	defer web.Close()
	deb, lost := "pool/main/h/hello/hello_1.1_amd64.deb", "pool/contrib/libo/libother/libother1_2+b1_amd64.deb"
	flip := func(b []byte) []byte { b[len(b)/2] ^= 1; return b }
	for name, change := range map[string]func(*mirror.Source){"copy": func(*mirror.Source) {},
		"link": func(s *mirror.Source) { s.Link = true }, "http": func(s *mirror.Source) { s.URL = web.URL }} {
		src := src
		change(&src)
		to := newFixture(t)
		edit(t, from.a.path(deb), flip)
		if err := os.Rename(from.a.path(lost), from.a.path("away")); err != nil {
			t.Fatal(err)
		}
		rep, err := to.a.Import(ctx, to.suite, open(t, src), ImportOptions{}, to.now)
		edit(t, from.a.path(deb), flip)
		if err := os.Rename(from.a.path("away"), from.a.path(lost)); err != nil {
			t.Fatal(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range rep.Results {
			reason, _, _ := strings.Cut(r.Reason, ";")
			got = append(got, fmt.Sprintf("%s %v %s", r.Changes, r.Outcome, reason))
		}
		want := []string{"hello 1:1.1 refused " + deb + " is not the file that its index names",
			"libother_2_import.changes published ", "libother 2 refused " + lost + " is not there, though its index names it"}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
		if rep, err = to.a.Import(ctx, to.suite, open(t, src), ImportOptions{}, to.now); err != nil || len(rep.Results) != 2 {
			t.Errorf("%s: when it is mended: got %+v, %v", name, rep, err)
		}
		if got, want := to.text("main/binary-amd64/Packages"), from.text("main/binary-amd64/Packages"); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
		}
	}
}

// A flat repository is a directory with what dpkg-scanpackages writes, with or
// without a Release.
func TestImportFlat(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := debtest.WriteAll(dir,
		[]debtest.Upload{hello("1:2.10-3"),
			{Source: debtest.Source{Name: "other", Version: "1"},
				Debs: []debtest.Deb{{Name: "other", Version: "1", Arch: "i386", Fields: "Section: contrib/misc\n"}}}}); err != nil {
		t.Fatal(err)
	}
	run(t, dir, "sh", "-c",
		"dpkg-scanpackages -m . >Packages 2>/dev/null && dpkg-scansources . >Sources 2>/dev/null && gzip -9nk Packages")
	web := httptest.NewServer(http.FileServer(http.Dir(filepath.Dir(dir))))
	defer web.Close()
	secret, public := newKey(t, "theirs")
	sub := filepath.Base(dir) + "/"
	for _, tc := range []struct {
		name string
		src  mirror.Source
	}{
		{"scanned", mirror.Source{URL: dir, Suite: "./", Unsigned: true}},
		{"http", mirror.Source{URL: web.URL + "/" + sub, Suite: "/", Unsigned: true}},
		{"signed", mirror.Source{URL: dir, Suite: "./", Keyring: ring(t, public)}},
		{"one architecture",
			mirror.Source{URL: dir, Suite: "./", Keyring: ring(t, public), Architectures: []string{"amd64"}}},
	} {
		if tc.src.Keyring != nil {
			release := run(t, dir, "sh", "-c", `echo "SHA256:"; for f in Packages Packages.gz Sources; do echo " $(sha256sum <$f | cut -d" " -f1) $(stat -c %s $f) ./$f"; done`)
			key, err := openpgp.OpenSigner(secret)
			if err != nil {
				t.Fatal(err)
			}
			signed, err := openpgp.Clearsign([]byte(release), time.Now(), key)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "InRelease"), signed, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		to := newFixture(t)
		rep, err := to.a.Import(ctx, to.suite, open(t, tc.src), ImportOptions{}, to.now)
		if err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		for _, r := range rep.Results {
			if r.Outcome != Published {
				t.Errorf("%s: %s: %v: %s", tc.name, r.Changes, r.Outcome, r.Reason)
			}
		}
		to.wantHave("main/binary-amd64/Packages", "hello 1:2.10-3, hello-doc 1:2.10-3")
		to.wantHave("main/source/Sources", "hello 1:2.10-3, other 1")
		want := "other 1"
		if tc.src.Architectures != nil {
			want = ""
		}
		to.wantHave("contrib/binary-i386/Packages", want)
	}
}

func TestImportRefuses(t *testing.T) {
	t.Parallel()
	from, good := origin(t)
	_, other := newKey(t, "other")
	for _, tt := range []struct {
		name   string
		source func(*mirror.Source)
		hurt   string // a file to be changed
		want   string
	}{
		{"no keyring", func(s *mirror.Source) { s.Keyring = nil }, "", "no keyring: name the repository's keys"},
		{"other key", func(s *mirror.Source) { s.Keyring = ring(t, other) }, "", "InRelease: "},
		{"no such suite", func(s *mirror.Source) { s.Suite = "nowhere" }, "", "no such file"},
		{"path for a suite", func(s *mirror.Source) { s.Suite = "../x" }, "", "is no name below dists"},
		{"path for a flat one", func(s *mirror.Source) { s.Suite = "../x/" }, "", "no directory of a flat repository"},
		{"components of a flat one", func(s *mirror.Source) {
			s.Suite, s.Components = "./", []string{"main"}
		}, "", "a flat repository has no components"},
		{"nothing flat there", func(s *mirror.Source) {
			s.Suite, s.Keyring, s.Unsigned = "./", nil, true
		}, "", "neither a Release nor a Packages"},
		{"flat without a signature", func(s *mirror.Source) { s.Suite = "./" }, "", "no such file"},
		{"scheme", func(s *mirror.Source) { s.URL = "ftp://x/" }, "", "ftp is not http, https or file"},
		{"component", func(s *mirror.Source) {
			s.Components = []string{"non-free"}
		}, "", "Release names no component non-free, only main, contrib"},
		{"architecture", func(s *mirror.Source) {
			s.Architectures = []string{"mips"}
		}, "", "Release names no architecture mips"},
		{"changed InRelease", func(*mirror.Source) {}, "dists/unstable/InRelease", "InRelease: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			src := good
			tt.source(&src)
			if tt.hurt != "" {
				path := filepath.Join(from.a.Root(), tt.hurt)
				old, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				defer os.WriteFile(path, old, 0o644)
				edit(t, path, func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
			}
			to := newFixture(t)
			repo, err := mirror.Open(context.Background(), src, time.Now())
			if err == nil {
				_, err = to.a.Import(context.Background(), to.suite, repo, ImportOptions{}, to.now)
			}
			if !strings.Contains(fmt.Sprint(err), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

// What cannot be stored is not fetched.
func TestImportWantsRoom(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var index strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&index, "Package: p%d\nVersion: 1\nArchitecture: amd64\nFilename: p%[1]d.deb\nSize: %d\nSHA256: %064d\n\n", i, 60<<30, 0)
	}
	if err := os.WriteFile(filepath.Join(dir, "Packages"), []byte(index.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	to := newFixture(t)
	repo := open(t, mirror.Source{URL: dir, Suite: "./", Unsigned: true})
	_, err := to.a.Import(ctx, to.suite, repo, ImportOptions{Sourceless: true}, to.now)
	if !strings.Contains(fmt.Sprint(err), "make room") {
		t.Errorf("got %v", err)
	}
}

// TestImportOdd imports a repository of which some entries are odd, and whose
// Release says little: the rest comes, and each that is left out is told.
func TestImportOdd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, sub := range []string{"pool", "copy", "dists/theirs/main/binary-amd64", "dists/theirs/main/binary-i386"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, sub := range []string{"pool", "copy"} {
		for _, d := range []debtest.Deb{{Name: "good", Version: "1"}, {Name: "forall", Version: "1", Arch: "all"},
			{Name: "twice", Version: "1", Arch: "all", Fields: "Homepage: https://" + sub + ".example/\n"}} {
			if _, err := d.Write(filepath.Join(dir, sub)); err != nil {
				t.Fatal(err)
			}
		}
	}
	scan := func(sub string) string { return run(t, dir, "sh", "-c", "dpkg-scanpackages -m "+sub+" 2>/dev/null") }
	good, copied := scan("pool"), scan("copy")
	stanza := func(change ...string) string {
		_, rest, _ := strings.Cut(good, "Package: good\n")
		rest, _, _ = strings.Cut("Package: good\n"+rest, "\n\n")
		return strings.NewReplacer(change...).Replace(rest) + "\n\n"
	}
	odd := stanza("Package: good", "Package: MyTool") + stanza("Version: 1", "Version: v1.2", "good_1", "other_1") +
		stanza("SHA256:", "SHA255:", "good_1", "third_1") +
		stanza("pool/", "pool//") + stanza("pool/", "/pool/") + stanza("Package: good", "Package: good\nPackage: again")
	texts := map[string]string{
		"main/binary-amd64/Packages": odd +
			strings.Replace(good, "Package: good", "Package: good\nTag: role::program,\n use::testing", 1),
		"main/binary-i386/Packages": copied,
	}
	release := "Suite: theirs\nDate: Sat, 5 Dec 2020 01:02:03 +0200\nValid-Until: Sat, 5 Dec 2096 01:02:03 Z\nSHA256:\n"
	for _, name := range sortedKeys(texts) {
		if err := os.WriteFile(filepath.Join(dir, "dists/theirs", name), []byte(texts[name]), 0o644); err != nil {
			t.Fatal(err)
		}
		release += fmt.Sprintf(" %x %d %s\n", sha256.Sum256([]byte(texts[name])), len(texts[name]), name)
	}
	if err := os.WriteFile(filepath.Join(dir, "dists/theirs/Release"), []byte(release), 0o644); err != nil {
		t.Fatal(err)
	}
	to := newFixture(t)
	src := mirror.Source{URL: dir, Suite: "theirs", Unsigned: true}
	rep, err := to.a.Import(ctx, to.suite, open(t, src),
		ImportOptions{Sourceless: true, Packages: []string{"g*", "forall", "twice", "MyTool"}}, to.now)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rep.Results {
		if r.Outcome != Published {
			t.Errorf("%s: %v: %s", r.Changes, r.Outcome, r.Reason)
		}
	}
	var told []string
	for _, err := range rep.Odd {
		told = append(told, err.Error())
	}
	all := strings.Join(told, "\n")
	for _, want := range []string{"MyTool", "v1.2", "has no SHA256", `"pool//`, `"/pool/`, "field Package is here a second time", "twice_1_all.deb is there with two contents"} {
		if !strings.Contains(all, want) {
			t.Errorf("nothing tells of %s: got\n%s", want, all)
		}
	}
	if len(told) != 7 {
		t.Errorf("got %d entries left out, want 7:\n%s", len(told), all)
	}
	to.wantHave("main/binary-amd64/Packages", "forall 1, good 1")
	to.wantHave("main/binary-i386/Packages", "forall 1")
	if text := to.text("main/binary-amd64/Packages"); !strings.Contains(text, "\nTag: role::program,\n use::testing\n") {
		t.Errorf("Tag is lost: got\n%s", text)
	}
	none, err := newFixture(t).a.Import(ctx, to.suite, open(t, src),
		ImportOptions{Sourceless: true, Packages: []string{"b*"}, DryRun: true}, to.now)
	if err != nil || len(none.Uploads) != 0 {
		t.Errorf("of no package: got %+v, %v", none, err)
	}
}
