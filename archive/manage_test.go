package archive

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"packmill/internal/deb/debtest"
)

var ctx = context.Background()

func (f *fixture) sound() {
	f.Helper()
	faults, err := f.a.Check(ctx, CheckOptions{Deep: true})
	if err != nil {
		f.Errorf("check: %v", err)
	}
	for _, s := range faults {
		f.Errorf("check: %s", s)
	}
}

func (f *fixture) planned(p *Plan, err error) *Plan {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
	for _, r := range p.Refused {
		f.Errorf("refused: %s", r)
	}
	return p
}

func (f *fixture) list(view string) string {
	f.Helper()
	list, err := f.a.List(ctx, view, "")
	if err != nil {
		f.Fatal(err)
	}
	var out []string
	for _, e := range list {
		out = append(out, e.Package+"_"+e.Version+"_"+e.Arch)
	}
	return strings.Join(out, " ")
}

func (f *fixture) wantList(view, want string) {
	f.Helper()
	if got := f.list(view); got != want {
		f.Errorf("%s: got %q, want %q", view, got, want)
	}
}

// stable is a second suite on the same pool.
func (f *fixture) stable() Suite {
	s := f.suite
	s.Name, s.Codename, s.Aliases = "stable", "", nil
	s.Architectures = []string{"amd64"}
	s.Contents = true
	return s
}

func TestCopyMoveRemove(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	t.Parallel()
	f := newFixture(t)
	f.suite.Translations = true
	stable := f.stable()
	u := hello("1")
	u.Debs[0].Fields = "Description: short\n And long.\n"
	f.accepted(f.upload(u),
		f.upload(debtest.Upload{Source: debtest.Source{Name: "other", Version: "5"},
			Debs: []debtest.Deb{{Name: "other", Version: "5", Arch: "i386"}, {Name: "other", Version: "5"}}}))
	before := f.list("unstable")

	p := f.planned(f.a.Copy(ctx, "unstable", stable, []string{"hello"}, ChangeOptions{Dry: true}, f.now))
	if len(p.Added) != 3 || p.Changed {
		t.Errorf("dry copy: got %+v, want 3 added and no change", p)
	}
	if _, err := f.a.List(ctx, "stable", ""); !errors.Is(err, ErrNoSuite) {
		t.Errorf("after a dry copy: got %v, want %v", err, ErrNoSuite)
	}
	// A transition: both at once, with what stable cannot take left out.
	p = f.planned(f.a.Copy(ctx, "unstable", stable, []string{"hello", "other_5"}, ChangeOptions{}, f.now))
	if got, want := fmt.Sprint(p.Notes), "[other 5 of i386 stays out: stable has no such architecture.]"; got != want {
		t.Errorf("notes: got %s, want %s", got, want)
	}
	f.wantList("stable", "hello_1_amd64 hello_1_source hello-doc_1_all other_5_amd64 other_5_source")
	f.wantList("unstable", before)
	f.sound()
	c := newClient(t, strings.ReplaceAll(f.source(), "unstable", "stable"), f.key, "amd64")
	c.run("apt-get", "update")
	c.run("apt-get", "download", "hello", "hello-doc", "other")
	s2 := *f
	s2.suite = stable
	if got := s2.text("main/i18n/Translation-en"); !strings.Contains(got, "And long.") {
		t.Errorf("translations of stable: got %q", got)
	}
	if got := s2.text("main/Contents-all"); got != "usr/share/doc/hello/a b.txt\tmisc/hello-doc\n" {
		t.Errorf("contents of stable: got %q", got)
	}

	// A suite without translations has the descriptions in its Packages, as if
	// the upload had come there.
	plain, direct := *f, newFixture(t)
	plain.suite.Name, plain.suite.Codename, plain.suite.Aliases, plain.suite.Translations = "plain", "", nil, false
	f.planned(f.a.Copy(ctx, "unstable", plain.suite, []string{"hello"}, ChangeOptions{}, f.now))
	direct.accepted(direct.upload(u))
	if got, want := plain.text("main/binary-amd64/Packages"), direct.text("main/binary-amd64/Packages"); got != want {
		t.Errorf("packages of plain: got %s, want %s", got, want)
	}

	// The older one does not come back by itself.
	f.accepted(f.upload(hello("2")))
	f.planned(f.a.Copy(ctx, "unstable", stable, []string{"hello"}, ChangeOptions{}, f.now))
	if err := f.a.Snapshot(ctx, f.suite, "later", f.now); err != nil {
		t.Fatal(err)
	}
	f.accepted(f.upload(hello("3")))
	f.planned(f.a.Copy(ctx, "unstable", stable, []string{"hello"}, ChangeOptions{}, f.now))
	p, err := f.a.Copy(ctx, "later/unstable", stable, []string{"hello"}, ChangeOptions{}, f.now)
	if err != nil || len(p.Refused) == 0 || !strings.Contains(p.Refused[0], "stable has the newer version 3") {
		t.Errorf("copy of an older version: got %+v, %v, want refused", p, err)
	}
	f.planned(f.a.Copy(ctx, "later/unstable", stable, []string{"hello"}, ChangeOptions{Force: true}, f.now))
	f.wantList("stable", "hello_2_amd64 hello_2_source hello-doc_2_all other_5_amd64 other_5_source")

	f.planned(f.a.Move(ctx, f.suite, stable, []string{"hello"}, ChangeOptions{}, f.now))
	f.wantList("stable", "hello_3_amd64 hello_3_source hello-doc_3_all other_5_amd64 other_5_source")
	f.wantList("unstable", "other_5_amd64 other_5_i386 other_5_source")
	f.planned(f.a.Remove(ctx, stable, []string{"hello-doc"}, ChangeOptions{}, f.now))
	f.wantList("stable", "hello_3_amd64 hello_3_source other_5_amd64 other_5_source")
	f.planned(f.a.Remove(ctx, stable, []string{"hello"}, ChangeOptions{}, f.now))
	f.wantList("stable", "other_5_amd64 other_5_source")
	if got := s2.text("main/Contents-amd64"); strings.Contains(got, "hello") {
		t.Errorf("contents after the removal: got %q", got)
	}
	for _, names := range [][]string{{"nothing"}, {"other", "nothing"}, {"other_4"}} {
		p, err = f.a.Remove(ctx, stable, names, ChangeOptions{}, f.now)
		if err != nil || len(p.Refused) != 1 || p.Refused[0] != names[len(names)-1]+": stable has no such package." {
			t.Errorf("removal of %q: got %+v, %v, want refused", names, p, err)
		}
	}
	f.wantList("stable", "other_5_amd64 other_5_source")
	f.sound()
}

func TestOverrideInPlace(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.accepted(f.upload(hello("1")))
	f.planned(f.a.Override(ctx, f.suite, "hello-doc", Override{Section: "doc", Priority: "extra"}, ChangeOptions{}, f.now))
	for _, arch := range []string{"amd64", "i386", "all"} {
		if got := f.text("main/binary-" + arch + "/Packages"); !strings.Contains(got, "Section: doc\n") ||
			!strings.Contains(got, "Priority: extra\n") {
			t.Errorf("%s: got %s", arch, got)
		}
	}
	f.sound()
}

func TestSnapshotDiffRollback(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	t.Parallel()
	f := newFixture(t)
	f.suite.Opkg, f.suite.ValidFor = &Opkg{}, time.Hour
	f.accepted(f.upload(hello("1")))
	if err := f.a.Snapshot(ctx, f.suite, "monday", f.now); err != nil {
		t.Fatal(err)
	}
	if err := f.a.Snapshot(ctx, f.suite, "monday", f.now); err == nil {
		t.Error("a second snapshot of the name: got no error")
	}
	c := newClient(t, f.source(), f.key, "amd64")
	c.run("apt-get", "update")
	f.accepted(f.upload(hello("2")), f.upload(debtest.Upload{Source: debtest.Source{Name: "other", Version: "5"}}))
	f.wantList("monday/unstable", "hello_1_amd64 hello_1_source hello-doc_1_all")

	// The snapshot is an address of its own, and takes no space but for names.
	feed, err := filepath.EvalSymlinks(f.a.path("snapshots/monday/opkg/unstable/amd64"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{glob(t, f.a, "snapshots/monday/dists/unstable/main/binary-amd64/by-hash/SHA256/*"),
		f.a.path("snapshots/monday/dists/unstable/main/binary-amd64/Packages.xz"), filepath.Join(feed, "Packages.gz")} {
		if st, err := os.Stat(name); err != nil || st.Sys().(*syscall.Stat_t).Nlink < 2 {
			t.Errorf("%s: %v, want a hard link", name, err)
		}
	}
	if to, err := os.Readlink(f.a.path("snapshots/monday/pool")); err != nil || to != "../../pool" {
		t.Errorf("the snapshot's pool: got %q, %v", to, err)
	}
	old := newClient(t, strings.ReplaceAll(f.source(), f.a.Root(), f.a.Root()+"/snapshots/monday"), f.key, "amd64")
	old.run("apt-get", "update")
	old.run("apt-get", "download", "hello=1", "hello-doc=1")
	if data, err := os.ReadFile(f.a.path("snapshots/monday/dists/unstable/InRelease")); err != nil ||
		strings.Contains(string(data), "Valid-Until") {
		t.Errorf("a snapshot that apt refuses after an hour: %v, %s", err, data)
	}

	d, err := f.a.Diff(ctx, "monday/unstable", "unstable")
	if got, want := fmt.Sprint(d,
		err), "[{hello amd64 1 2} {hello source 1 2} {hello-doc all 1 2} {other source  5}] <nil>"; got != want {
		t.Errorf("diff: got %s, want %s", got, want)
	}
	c.run("apt-get", "update")
	if got := c.run("apt-cache", "policy", "hello"); !strings.Contains(got, "Candidate: 2") {
		t.Errorf("before the rollback: got %s", got)
	}
	f.now = f.now.Add(time.Minute)
	if err := f.a.Rollback(ctx, f.suite, "monday", f.now); err != nil {
		t.Fatal(err)
	}
	c.run("apt-get", "update")
	if got := c.run("apt-cache", "policy", "hello"); !strings.Contains(got, "Candidate: 1") {
		t.Errorf("after the rollback: got %s", got)
	}
	if feed, err := os.ReadFile(f.a.path("opkg/unstable/amd64/Packages")); err != nil ||
		strings.Contains(string(feed), "Version: 2") || !strings.Contains(string(feed), "Version: 1") {
		t.Errorf("feed after the rollback: %v, got %s", err, feed)
	}
	f.sound()
	// And on from there.
	f.accepted(f.upload(hello("4")))
	f.wantList("unstable", "hello_4_amd64 hello_4_source hello-doc_4_all")
	f.sound()
	c.run("apt-get", "update")
	c.run("apt-get", "download", "hello=4")
	if _, err := os.Stat(f.a.path("dists/.new-unstable")); err == nil {
		t.Error("the exchanged directory is still there")
	}
}

func TestCollect(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	attic := f.a.path("attic")
	f.accepted(f.upload(hello("1")))
	if err := f.a.Snapshot(ctx, f.suite, "monday", f.now); err != nil {
		t.Fatal(err)
	}
	f.accepted(f.upload(hello("2")))
	f.accepted(f.upload(hello("3")))
	day := 24 * time.Hour
	at := f.now
	run := func(dry bool) *Collected {
		t.Helper()
		c, err := f.a.Collect(ctx, CollectOptions{Attic: attic, Stay: 3 * day, Dry: dry, Now: at})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	want := func(when string, c *Collected, waiting, moved, deleted int) {
		t.Helper()
		if len(c.Waiting) != waiting || len(c.Moved) != moved || len(c.Deleted) != deleted {
			t.Errorf("%s: got %+v, want %d waiting, %d moved, %d deleted", when, c, waiting, moved, deleted)
		}
	}
	want("first", run(false), 4, 0, 0) // hello 2: .dsc, tarball, two packages
	at = at.Add(2 * day)
	want("after 2 days", run(false), 4, 0, 0)
	at = at.Add(day)
	want("after 3 days, dry", run(true), 0, 4, 0)
	want("after 3 days", run(false), 0, 4, 0)
	if _, err := os.Stat(filepath.Join(attic, "pool/main/h/hello/hello_2_amd64.deb")); err != nil {
		t.Errorf("in the attic: %v", err)
	}
	f.sound()
	at = at.Add(2 * day)
	want("after 5 days", run(false), 0, 0, 0)
	at = at.Add(day)
	want("after 6 days", run(false), 0, 0, 4)
	if err := f.a.RemoveSnapshot(ctx, "monday"); err != nil {
		t.Fatal(err)
	}
	want("without the snapshot", run(false), 4, 0, 0)
	f.sound()
}
