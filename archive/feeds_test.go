package archive

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"packmill/archive/opkg"
	"packmill/archive/push"
	"packmill/internal/deb/debtest"
	"packmill/internal/openpgp"
)

func TestFeeds(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	key, err := opkg.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "feed.key")
	if err := os.WriteFile(file, key.Secret(), 0o600); err != nil {
		t.Fatal(err)
	}
	public, err := os.ReadFile(f.key)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := openpgp.ReadKeyring(public)
	if err != nil {
		t.Fatal(err)
	}
	f.suite.Dbgsym = "debug"
	f.suite.Opkg = &Opkg{Options: opkg.Options{Arch: map[string]string{"amd64": "amd64-linux-glibc"}}, Sources: true,
		Keys: []string{file}}
	// check holds the feeds to opkg's rules, and to what they must list.
	check := func(want map[string]string) {
		t.Helper()
		opt := opkg.CheckOptions{Usign: []*opkg.Key{key}, OpenPGP: ring, Now: time.Now().Add(time.Hour)}
		wrong, err := checkFeeds(context.Background(), f.a.root, f.suite, opt)
		if err != nil || wrong != nil {
			t.Errorf("check: %v: %s", err, strings.Join(wrong, "\n"))
		}
		got := map[string]string{}
		names, err := opkg.Feeds(f.a.Root(), f.suite.Name)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			text, err := os.ReadFile(f.a.path("opkg", f.suite.Name, n, "Packages"))
			if err != nil {
				t.Fatal(err)
			}
			var list []string
			for line := range strings.Lines(string(text)) {
				if v, ok := strings.CutPrefix(line, "Filename: "); ok {
					list = append(list, strings.TrimSuffix(filepath.Base(v), "\n"))
				}
			}
			got[n] = strings.Join(list, " ")
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("feeds: got %v, want %v", got, want)
		}
	}
	f.accepted()
	check(map[string]string{"amd64-linux-glibc": "", "i386": "", "src": ""})
	f.accepted(f.upload(hello("1:1.0")))
	one := map[string]string{"amd64-linux-glibc": "hello_1.0_amd64-linux-glibc.opk hello-doc_1.0_all.opk",
		"i386": "hello-doc_1.0_all.opk", "src": "hello_1.0_source.opk"}
	check(one)
	if rep := f.accepted(); rep.Changed {
		t.Error("nothing is new, but the report says so")
	}

	// A run that was cut off between the suite and its feeds is made good.
	if err := os.RemoveAll(f.a.path("opkg")); err != nil {
		t.Fatal(err)
	}
	if rep := f.accepted(); !rep.Changed {
		t.Error("the feeds are there again, but the report says that nothing changed")
	}
	check(one)

	f.accepted(f.upload(hello("1:2.0")))
	f.accepted(f.upload(debtest.Upload{Source: debtest.Source{Name: "other", Version: "1"}, Debs: []debtest.Deb{
		{Name: "other", Version: "1"},
		{Name: "other-dbgsym", Version: "1", Source: "other",
			Fields: "Section: debug\nAuto-Built-Package: debug-symbols\n"}}}))
	check(map[string]string{"amd64-linux-glibc": "hello_2.0_amd64-linux-glibc.opk hello-doc_2.0_all.opk " +
		"other_1_amd64-linux-glibc.opk", "i386": "hello-doc_2.0_all.opk", "src": "hello_2.0_source.opk other_1_source.opk"})

	f.suite.Architectures, f.suite.Opkg.Sources = []string{"amd64"}, false
	f.accepted()
	check(map[string]string{"amd64-linux-glibc": "hello_2.0_amd64-linux-glibc.opk hello-doc_2.0_all.opk " +
		"other_1_amd64-linux-glibc.opk"})
	for _, stay := range []time.Duration{time.Hour, 0} {
		did, err := f.a.Collect(context.Background(),
			CollectOptions{Attic: filepath.Join(t.TempDir(), "attic"), Stay: stay, Now: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]bool{"hello_1.0": stay == 0, "hello_2.0": false} {
			name = "opkg/pool/2/main/h/hello/" + name + "_amd64-linux-glibc.opk"
			if got := slices.Contains(did.Moved, name); got != want {
				t.Errorf("stay %v: %s moved: %v, want %v", stay, name, got, want)
			}
		}
	}
	check(map[string]string{"amd64-linux-glibc": "hello_2.0_amd64-linux-glibc.opk hello-doc_2.0_all.opk " +
		"other_1_amd64-linux-glibc.opk"})
	if faults, err := f.a.Check(context.Background(), CheckOptions{Deep: true}); err != nil || faults != nil {
		t.Errorf("check of the archive: %v, %v", faults, err)
	}
	edit(t, f.a.path("opkg/pool/2/main/h/hello/hello_2.0_amd64-linux-glibc.opk"),
		func(b []byte) []byte { b[len(b)-9] ^= 1; return b })
	if faults, err := f.a.Check(context.Background(), CheckOptions{Deep: true}); err != nil || len(faults) != 1 ||
		faults[0].Path != "opkg/unstable/amd64-linux-glibc" {
		t.Errorf("check of a damaged package: %v, %v", faults, err)
	}
	f.suite.Opkg = nil
	f.accepted()
	check(map[string]string{})
}

// A usign key that cannot sign stops a publication before apt's clients see
// anything of it, and so does it a rollback; the error says which file, and the cure.
func TestBrokenOpkgKey(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	key, err := opkg.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "feed.sec")
	if err := os.WriteFile(file, key.Secret(), 0o600); err != nil {
		t.Fatal(err)
	}
	f.suite.Opkg = &Opkg{Keys: []string{file}}
	f.accepted(f.upload(hello("1")))
	if err := f.a.Snapshot(context.Background(), f.suite, "monday", f.now); err != nil {
		t.Fatal(err)
	}
	f.accepted(f.upload(hello("2")))
	seen := func() string {
		var out []byte
		for _, n := range []string{"dists/unstable/InRelease", "dists/unstable/Release.gpg",
			"dists/unstable/main/binary-amd64/Packages.gz", "opkg/unstable/amd64/Packages.sig"} {
			data, err := os.ReadFile(f.a.path(n))
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, data...)
		}
		return string(out)
	}
	next, before := f.upload(hello("3")), seen()
	for what, spoil := range map[string]func() error{
		"broken": func() error { return os.WriteFile(file, key.Secret()[:60], 0o600) },
		"gone":   func() error { return os.Remove(file) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		_, publishing := f.a.Publish(context.Background(), f.suite, []Inclusion{next}, f.now.Add(time.Minute))
		back := f.a.Rollback(context.Background(), f.suite, "monday", f.now.Add(time.Minute))
		for _, err := range []error{publishing, back} {
			var fault *KeyError
			if !errors.As(err, &fault) || !strings.HasPrefix(err.Error(), "suite unstable: Opkg-Key: ") ||
				!strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), "packmill key new NAME --opkg") {
				t.Errorf("key %s: got %v, want a KeyError with the file and the cure", what, err)
			}
		}
		if seen() != before {
			t.Errorf("key %s: clients see something new", what)
		}
	}
	if err := os.WriteFile(file, key.Secret(), 0o600); err != nil {
		t.Fatal(err)
	}
	f.accepted(next)
	if seen() == before {
		t.Error("with the key again nothing is published")
	}
}

// A snapshot has the feeds that the suite had, for as long as it stays; rollback
// brings them back together with what apt sees.
func TestFeedsOfSnapshot(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.suite.Architectures = []string{"amd64"}
	f.suite.Opkg = &Opkg{}
	f.accepted(f.upload(hello("1")))
	read := func(name string) string {
		t.Helper()
		data, err := os.ReadFile(f.a.path(name))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	// What a run that was cut off has left is no hindrance.
	if err := os.MkdirAll(f.a.path("snapshots/monday/opkg/unstable/.left.000001"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := f.a.Snapshot(context.Background(), f.suite, "monday", f.now); err != nil {
		t.Fatal(err)
	}
	was := read("opkg/unstable/amd64/Packages")
	f.accepted(f.upload(hello("2")))
	if _, err := f.a.Collect(context.Background(),
		CollectOptions{Attic: filepath.Join(t.TempDir(), "attic"), Now: f.now}); err != nil {
		t.Fatal(err)
	}
	kept := "snapshots/monday/opkg/unstable/amd64/"
	if got := read(kept + "Packages"); got != was || !strings.Contains(got, "hello_1_amd64.opk") {
		t.Errorf("the snapshot's feed: got\n%s\nwant\n%s", got, was)
	}
	if faults, err := f.a.Check(context.Background(), CheckOptions{Deep: true}); err != nil || faults != nil {
		t.Errorf("check: %v, %v", faults, err)
	}

	// As opkg goes by its text over http, and in a copy.
	server := httptest.NewServer(f.a.Handler())
	defer server.Close()
	copied := t.TempDir()
	if _, err := f.a.Push(context.Background(), "monday/unstable", &push.Rsync{Dest: copied}, push.Options{},
		f.now); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(was) {
		name, ok := strings.CutPrefix(strings.TrimSpace(line), "Filename: ")
		if !ok {
			continue
		}
		resp, err := http.Get(server.URL + "/" + filepath.Join(kept, name))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s: got %s", name, resp.Status)
		}
		if _, err := os.Stat(filepath.Join(copied, "opkg/unstable/amd64", name)); err != nil {
			t.Errorf("in the copy: %v", err)
		}
	}

	pooled := f.a.path("opkg/pool/2/main/h/hello/hello_1_amd64.opk")
	whole, err := os.ReadFile(pooled)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(pooled, whole[:len(whole)-1], 0o644); err != nil {
		t.Fatal(err)
	}
	if faults, err := f.a.Check(context.Background(), CheckOptions{Deep: true}); err != nil || len(faults) != 1 ||
		faults[0].Path != strings.TrimSuffix(kept, "/") {
		t.Errorf("check of a damaged package of the snapshot: %v, %v", faults, err)
	}
	if err := os.WriteFile(pooled, whole, 0o644); err != nil {
		t.Fatal(err)
	}

	// In the step that apt's clients see, not in the publication after it.
	if err := f.a.exchange(context.Background(), f.suite, "monday", f.now.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if got := read("opkg/unstable/amd64/Packages"); got != was {
		t.Errorf("after the rollback: got\n%s\nwant\n%s", got, was)
	}
	if err := f.a.RemoveSnapshot(context.Background(), "monday"); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(f.a.path("snapshots")); err != nil || len(left) != 0 {
		t.Errorf("left of the snapshot: %v, %v", left, err)
	}
	if _, err := os.Stat(pooled); err != nil {
		t.Errorf("the pool lost a package with the snapshot: %v", err)
	}
}
