package archive

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"packmill/archive/mirror"
	"packmill/internal/deb/debtest"
)

// A .udeb is for the installer alone: apt meets it only where it is asked for.
func TestInstallerPackages(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	t.Parallel()
	f := newFixture(t)
	f.suite.Contents, f.suite.Translations = true, true
	u := hello("1")
	u.Source.Binary = append(u.Source.Binary, "hello-udeb")
	u.Debs = append(u.Debs,
		debtest.Deb{Name: "hello-udeb", Source: "hello", Version: "1", Udeb: true,
			Fields: "Section: debian-installer\nDescription: says hello\n While it installs.\n"})
	f.accepted(f.upload(u))
	f.wantHave("main/binary-amd64/Packages", "hello 1, hello-doc 1")
	f.wantHave("main/debian-installer/binary-amd64/Packages", "hello-udeb 1")
	f.wantHave("main/debian-installer/binary-i386/Packages", "")
	if got := f.text("main/debian-installer/binary-amd64/Packages"); !strings.Contains(got, " While it installs.\n") ||
		!strings.Contains(got, "Filename: pool/main/h/hello/hello-udeb_1_amd64.udeb\n") {
		t.Errorf("got %s, want the whole description, and a place in the pool", got)
	}
	if got := f.text("main/Contents-amd64"); strings.Contains(got, "udeb") {
		t.Errorf("Contents: got %s", got)
	}
	if got, want := f.text("main/Contents-udeb-amd64"), "usr/share/doc/hello-udeb/copyright\tdebian-installer/hello-udeb\n"; got != want {
		t.Errorf("Contents-udeb: got %q, want %q", got, want)
	}
	c := newClient(t, f.source(), f.key, "amd64")
	c.run("apt-get", "update")
	if out, err := c.try("apt-get", "download", "hello-udeb"); err == nil {
		t.Errorf("apt finds it among the packages of systems: %s", out)
	}
	c = newClient(t, "deb [] file:"+f.a.Root()+" unstable main/debian-installer\n", f.key, "amd64")
	c.run("apt-get", "update")
	c.run("apt-get", "download", "hello-udeb")

	// It goes where its source goes.
	stable := f.stable()
	f.planned(f.a.Copy(ctx, "unstable", stable, []string{"hello"}, ChangeOptions{}, f.now))
	f.wantList("stable", "hello_1_amd64 hello_1_source hello-doc_1_all hello-udeb_1_amd64")
	to := newFixture(t)
	rep, err := to.a.Import(ctx, to.suite,
		open(t, mirror.Source{URL: f.a.Root(), Suite: "unstable", Keyring: ring(t, f.key)}), ImportOptions{}, to.now)
	if err != nil || len(rep.Results) != 1 || rep.Results[0].Outcome != Published {
		t.Fatalf("import: %+v, %v", rep, err)
	}
	if got, want := to.text("main/debian-installer/binary-amd64/Packages"), f.text("main/debian-installer/binary-amd64/Packages"); got != want {
		t.Errorf("imported: got %s, want %s", got, want)
	}
	f.accepted(f.upload(hello("2"))) // without it: it stays as it is, with its source
	f.wantHave("main/source/Sources", "hello 2, hello 1*")
	f.planned(f.a.Remove(ctx, f.suite, []string{"hello-udeb"}, ChangeOptions{}, f.now))
	f.wantHave("main/debian-installer/binary-amd64/Packages", "")
	if got := f.text("main/Contents-udeb-amd64"); got != "" {
		t.Errorf("Contents-udeb without packages: got %q", got)
	}
	f.wantHave("main/source/Sources", "hello 2")
	f.sound()
}

// A .buildinfo lies beside its source, for who wants to build the package
// again, as long as a suite has the version.
func TestBuildinfo(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	u := hello("1")
	u.Buildinfo = "Format: 1.0\nSource: hello\n"
	f.accepted(f.upload(u))
	at := f.a.path("pool/main/h/hello/hello_1_amd64.buildinfo")
	want := func(at, text string) {
		t.Helper()
		if got, err := os.ReadFile(at); err != nil || string(got) != text {
			t.Errorf("%s: got %q, %v, want %q", filepath.Base(at), got, err, text)
		}
	}
	want(at, u.Buildinfo)
	// The same packages, built once more.
	again := u
	again.Buildinfo += "Installed-Build-Depends: other (= 1)\n"
	rep := f.accepted(f.upload(again))
	if r := rep.Results[0]; r.Outcome != AlreadyThere ||
		fmt.Sprint(r.Notes) != "[hello_1_amd64.buildinfo: the archive keeps the one that it has.]" {
		t.Errorf("again: got %v, notes %q", r.Outcome, r.Notes)
	}
	want(at, u.Buildinfo)
	bad := f.upload(hello2(u))
	edit(t, filepath.Join(bad.Dir, "hello_2_amd64.buildinfo"), replace("hello", "hallo"))
	if r := f.publish(bad).Results[0]; r.Outcome != Refused ||
		!strings.HasPrefix(r.Reason, "hello_2_amd64.buildinfo: SHA-256 differs from") {
		t.Errorf("other bytes: got %v: %s", r.Outcome, r.Reason)
	}
	attic := filepath.Join(t.TempDir(), "attic")
	collect := func() {
		if _, err := f.a.Collect(ctx, CollectOptions{Attic: attic, Stay: time.Hour, Now: f.now}); err != nil {
			t.Fatal(err)
		}
		f.now = f.now.Add(2 * time.Hour)
	}
	collect()
	collect()
	want(at, u.Buildinfo)
	out := filepath.Join(t.TempDir(), "out")
	if _, err := f.a.Export(ctx, "unstable", out, ExportOptions{}); err != nil {
		t.Fatal(err)
	}
	want(filepath.Join(out, "pool/main/h/hello/hello_1_amd64.buildinfo"), u.Buildinfo)
	f.accepted(f.upload(hello2(u)))
	collect()
	collect()
	want(filepath.Join(attic, "pool/main/h/hello/hello_1_amd64.buildinfo"), u.Buildinfo)
	want(f.a.path("pool/main/h/hello/hello_2_amd64.buildinfo"), u.Buildinfo)
}

// hello2 is the next version of an upload of hello.
func hello2(u debtest.Upload) debtest.Upload {
	out := hello("2")
	out.Buildinfo = u.Buildinfo
	return out
}

// The forms that the settings name are there, and those that they no longer name
// are not.
func TestFormsChange(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, tc := range []struct{ forms, want []string }{
		{[]string{"gz", "zst"}, []string{"Packages.gz", "Packages.zst"}},
		{[]string{"xz"}, []string{"Packages.xz"}},
		{[]string{"plain", "xz"}, []string{"Packages", "Packages.xz"}},
		{[]string{"xz"}, []string{"Packages.xz"}},
	} {
		f.suite.Compress = tc.forms
		f.accepted()
		found, err := filepath.Glob(f.a.path("dists/unstable/main/binary-amd64/Packages*"))
		for i := range found {
			found[i] = filepath.Base(found[i])
		}
		if err != nil || !slices.Equal(found, tc.want) {
			t.Errorf("forms %q: got %q, %v", tc.forms, found, err)
		}
		if rep := f.accepted(); rep.Changed {
			t.Errorf("forms %q: published again, though all is as it was asked for", tc.forms)
		}
	}
}

// TestDdeb publishes debug symbols under the name that Ubuntu gives them.
func TestDdeb(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.suite.Dbgsym = "debug"
	f.suite.Components = []string{"main", "debug"}
	u := hello("1")
	u.Debs = append(u.Debs,
		debtest.Deb{Name: "hello-dbgsym", Source: "hello", Version: "1", Ddeb: true,
			Fields: "Auto-Built-Package: debug-symbols\nDepends: hello (= 1)\n"})
	f.accepted(f.upload(u))
	f.wantHave("debug/binary-amd64/Packages", "hello-dbgsym 1")
	c := newClient(t, strings.ReplaceAll(f.source(), "contrib", "debug"), f.key, "amd64")
	c.run("apt-get", "update")
	c.run("apt-get", "download", "hello-dbgsym")
	f.sound()
	to := newFixture(t)
	to.suite = f.suite
	rep, err := to.a.Import(ctx, to.suite,
		open(t, mirror.Source{URL: f.a.Root(), Suite: "unstable", Keyring: ring(t, f.key)}), ImportOptions{}, f.now)
	if err != nil || len(rep.Results) == 0 {
		t.Fatalf("import: got %+v, %v", rep, err)
	}
	to.wantHave("debug/binary-amd64/Packages", "hello-dbgsym 1")
}
