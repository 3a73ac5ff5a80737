package chroots

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"packmill/cmd/internal/control"
	"packmill/cmd/internal/daemon"
	"packmill/queue/runner"
)

// newSet is that of two suites and four builders: two with one store, one that has
// its own and builds for one suite, and one that needs no chroot.
func newSet(t *testing.T) *Set {
	t.Helper()
	root := t.TempDir()
	t.Setenv("PACKMILL_CHROOTS", filepath.Join(root, "shared"))
	files := map[string]string{
		"suites": "Suite: sid\nArchitectures: amd64 i386\nBase: deb http://mirror.invalid sid main\n\n" +
			"Suite: bare\nArchitectures: amd64\n",
		"builders": "Name: one\nArchitectures: amd64\nRunner: overlay\n\nName: two\nArchitectures: amd64 i386\n" +
			"Runner: overlay\n\n" +
			"Name: own\nArchitectures: i386\nSuites: sid\nRunner: overlay\nChroots: " + root + "/own\n\n" +
			"Name: none\nArchitectures: amd64\nRunner: exec /bin/true\n",
	}
	if err := os.Mkdir(filepath.Join(root, "control"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(root, "control", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	set, err := control.Load(filepath.Join(root, "control"))
	if err != nil {
		t.Fatal(err)
	}
	return &Set{Tree: root, Settings: set}
}

// named are the chroots that Each gives, as STORE/NAME.
func named(t *testing.T, s *Set, suite, arch string, none error) ([]string, error) {
	t.Helper()
	var suites []control.Suite
	for _, x := range s.Settings.Suites {
		if suite == "" || x.Name == suite {
			suites = append(suites, x)
		}
	}
	var out []string
	err := s.Each(suites, arch, none, func(places []Place) error {
		for i := range places {
			out = append(out, filepath.Base(places[i].Store.Dir)+"/"+places[i].Name())
		}
		return nil
	})
	slices.Sort(out)
	return out, err
}

// Each chroot that builders need is there once, in the store of its builder.
func TestEach(t *testing.T) {
	s, none := newSet(t), errors.New("none")
	for _, c := range []struct {
		builder, suite, arch string
		want                 []string
	}{
		{"", "", "", []string{"own/sid-i386", "shared/bare-amd64", "shared/sid-amd64", "shared/sid-i386"}},
		{"", "sid", "i386", []string{"own/sid-i386", "shared/sid-i386"}},
		{"one", "", "", []string{"shared/bare-amd64", "shared/sid-amd64"}},
		{"own", "", "", []string{"own/sid-i386"}},
	} {
		s.Builder = c.builder
		if got, err := named(t, s, c.suite, c.arch, none); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%+v: got %q, %v", c, got, err)
		}
	}
	for _, c := range []struct{ builder, suite, arch string }{{"none", "", ""}, {"own", "bare", ""}, {"", "", "arm64"}} {
		s.Builder = c.builder
		if got, err := named(t, s, c.suite, c.arch, none); err != none {
			t.Errorf("%+v: got %q, %v, want %v", c, got, err, none)
		}
	}
	s.Builder = "nosuch"
	var wrong daemon.Wrong
	if _, err := named(t, s, "", "", none); !errors.As(err, &wrong) || !strings.Contains(err.Error(), "nosuch") {
		t.Errorf("a builder that is not there: got %v", err)
	}
}

func TestStores(t *testing.T) {
	s := newSet(t)
	for builder, want := range map[string][]string{"": {"shared", "own"}, "own": {"own"}, "two": {"shared"}} {
		s.Builder = builder
		var got []string
		for _, store := range s.Stores() {
			got = append(got, filepath.Base(store.Dir))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", builder, got, want)
		}
	}
}

// A chroot that nobody made is stale; one that has no Base cannot be made, and the
// settings are to blame.
func TestPlace(t *testing.T) {
	s := newSet(t)
	store := s.Stores()[0]
	sid, _ := s.Settings.Suite("sid")
	bare, _ := s.Settings.Suite("bare")
	p := &Place{store, sid, "amd64"}
	if why, err := p.Stale(time.Hour); err != nil || why != "there is none yet" {
		t.Errorf("got %q, %v", why, err)
	}
	var wrong daemon.Wrong
	if err := (&Place{store, bare, "amd64"}).Check(); !errors.As(err, &wrong) ||
		!strings.Contains(err.Error(), "no Base") {
		t.Errorf("without a Base: got %v", err)
	}
}

func TestSetUp(t *testing.T) {
	var wrong daemon.Wrong
	if err := SetUp(fmt.Errorf("no emulator: %w", runner.ErrSetup)); !errors.As(err, &wrong) {
		t.Errorf("what a change of the machine mends: got %#v", err)
	}
	if err := SetUp(os.ErrPermission); err != os.ErrPermission {
		t.Errorf("another error: got %#v", err)
	}
}

// A chroot that is not there cannot be removed; one that is goes from where it lies, and with dry it stays.
func TestRemove(t *testing.T) {
	s := newSet(t)
	told := func(dry bool) (out []string, err error) {
		err = s.Remove("sid", "i386", dry, func(ch *runner.Chroot, dir string) {
			out = append(out, filepath.Base(dir)+"/"+ch.Name())
		})
		return out, err
	}
	var wrong daemon.Wrong
	if out, err := told(false); !errors.As(err, &wrong) || out != nil {
		t.Errorf("of none: got %q, %v", out, err)
	}
	dir := filepath.Join(s.Stores()[1].Dir, "sid-i386/20261129T120000.000000Z")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	const info = "Suite: sid\nArchitecture: i386\nMade: 2026-11-29T12:00:00Z\n"
	if err := os.WriteFile(filepath.Join(dir, "info"), []byte(info), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, dry := range []bool{true, false} {
		rows, err := s.Rows()
		if err != nil || len(rows) != 1 || rows[0].Name() != "sid-i386" || rows[0].Dir != s.Stores()[1].Dir || rows[0].Owner == "" {
			t.Errorf("rows: %+v, %v", rows, err)
		}
		if out, err := told(dry); err != nil || !slices.Equal(out, []string{"own/sid-i386"}) {
			t.Errorf("dry %v: got %q, %v", dry, out, err)
		}
	}
	if rows, err := s.Rows(); err != nil || len(rows) != 0 {
		t.Errorf("it lies there still: %+v, %v", rows, err)
	}
}
