package archive

import (
	"fmt"
	"path/filepath"
	"testing"

	"packmill/internal/deb/debtest"
)

// Cruft is what the newest version of a source does not build any more, for an
// architecture or at all, with its debug symbols; not what another source builds now,
// and not what came without its source.
func TestCruft(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	deb := func(name, source, version, arch string) debtest.Deb {
		return debtest.Deb{Name: name, Source: source, Version: version, Arch: arch}
	}
	up := func(source, version, arch string, binary []string, debs ...debtest.Deb) Inclusion {
		return f.upload(debtest.Upload{Source: debtest.Source{Name: source, Version: version, Binary: binary, Arch: arch},
			Debs: debs})
	}
	f.accepted(up("foo", "1", "any", []string{"foo", "foo-old", "foo-moved"},
		deb("foo", "foo", "1", "amd64"), deb("foo", "foo", "1", "i386"), deb("foo-old", "foo", "1", "amd64"), deb("foo-moved",
			"foo", "1", "amd64")),
		f.sourceless(alone(t, "libalone")))
	if got, err := f.a.Cruft(ctx, "unstable"); err != nil || len(got) > 0 {
		t.Errorf("at first: got %v, %v, want nothing", got, err)
	}
	f.accepted(up("foo", "2", "amd64", []string{"foo"}, deb("foo", "foo", "2", "amd64")),
		up("bar", "3", "any", []string{"foo-moved"}, deb("foo-moved", "bar", "3", "amd64")))
	got, err := f.a.Cruft(ctx, "unstable")
	if want := "[{{main i386 foo 1 foo} 2} {{main amd64 foo-old 1 foo} 2}]"; err != nil || fmt.Sprint(got) != want {
		t.Errorf("got %v, %v, want %s", got, err, want)
	}
}

// alone is a package of the source alone.
func alone(t *testing.T, name string) string {
	t.Helper()
	path, err := debtest.Deb{Name: name, Source: "alone (7)", Version: "1"}.Write(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// What was imported without its source is removed and copied by the source's name.
func TestSourcelessByName(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.accepted(f.sourceless(alone(t, "alone")), f.sourceless(alone(t, "libalone")), f.upload(hello("1")))
	stable := f.stable()
	p := f.planned(f.a.Copy(ctx, "unstable", stable, []string{"alone_7"}, ChangeOptions{}, f.now))
	if got, want := fmt.Sprint(p.Notes), "[alone comes without its source, which is not where it comes from.]"; got != want {
		t.Errorf("notes: got %s, want %s", got, want)
	}
	f.wantList("stable", "alone_1_amd64 libalone_1_amd64")
	if p, err := f.a.Remove(ctx, f.suite, []string{"alone_8"}, ChangeOptions{}, f.now); err != nil || len(p.Refused) != 1 {
		t.Errorf("of another version: got %+v, %v, want a refusal", p, err)
	}
	f.planned(f.a.Remove(ctx, f.suite, []string{"alone"}, ChangeOptions{}, f.now))
	f.wantList("unstable", "hello_1_amd64 hello_1_source hello-doc_1_all")
	f.planned(f.a.Remove(ctx, stable, []string{"alone_7"}, ChangeOptions{}, f.now))
	if got, err := filepath.Glob(f.a.path("pool/main/a/alone/*")); err != nil || len(got) != 2 {
		t.Errorf("the pool has %v, %v, want both until gc", got, err)
	}
	f.wantList("stable", "")
	f.sound()
}
