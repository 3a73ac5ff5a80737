package setup

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"packmill/cmd/internal/control"
	"packmill/internal/openpgp"
	"time"
)

// TestSettings: what setup writes are settings that the daemons take, and say
// what was answered; what a person wrote stays.
func TestSettings(t *testing.T) {
	dir := t.TempDir()
	base, err := Base("bookworm", "http://mirror.example/debian")
	if err != nil {
		t.Fatal(err)
	}
	a := &Answers{Suite: "stable", Archs: []string{"amd64", "i386"}, Base: base, From: "A <a@packmill.invalid>",
		Runner: "overlay", Review: "new", Fingerprint: strings.Repeat("AB", 20)}
	for _, name := range []string{"suites", "notify"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("# nothing but words\n#\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	wrote, kept, err := WriteSettings(dir, Settings(a))
	if err != nil || len(kept) > 0 || !slices.Equal(wrote, []string{"builders", "notify", "suites"}) {
		t.Fatalf("got %v, kept %v, %v", wrote, kept, err)
	}
	s, err := control.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	x, ok := s.Suite("stable")
	if !ok || !slices.Equal(x.Base, base) || x.Review != "new" || x.Opkg || len(s.Builders) != 1 ||
		s.Builders[0].Runner != "overlay" || s.Notify[0].From != a.From {
		t.Errorf("got %+v, %+v, %+v", x, s.Builders, s.Notify)
	}
	for _, opkg := range []bool{true, false} {
		a.Opkg = opkg
		feeds := t.TempDir()
		if _, _, err := WriteSettings(feeds, Settings(a)); err != nil {
			t.Fatal(err)
		}
		if s, err := control.Load(feeds); err != nil || s.Suites[0].Opkg != opkg {
			t.Errorf("feeds for opkg %v: got %+v, %v", opkg, s, err)
		}
	}
	a.Suite = "another"
	if wrote, kept, err := WriteSettings(dir, Settings(a)); err != nil || len(wrote) > 0 || len(kept) != 3 {
		t.Errorf("again: wrote %v, kept %v, %v; want that all stay", wrote, kept, err)
	}
}

func TestBase(t *testing.T) {
	for _, r := range Releases() {
		lines, err := Base(r, "http://mirror.example/debian")
		if err != nil || len(lines) == 0 || !strings.HasPrefix(lines[0], "deb http") {
			t.Errorf("%s: got %q, %v", r, lines, err)
		}
	}
	if _, err := Base("trixie", ""); err == nil || !strings.Contains(err.Error(), "write an apt line") {
		t.Errorf("without a mirror: got %v, want that an apt line is asked for", err)
	}
	if _, err := Base("bookwrom", ""); err == nil || !strings.Contains(err.Error(), "bookworm, noble, sid, trixie") {
		t.Errorf("got %v, want the names that are known", err)
	}
}

func TestAddUploader(t *testing.T) {
	dir := t.TempDir()
	key, err := openpgp.Generate("Ann", "ann@packmill.invalid", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"keys"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "uploaders"), []byte("# who may upload\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := AddUploader(dir, "ann", key.Fingerprint(), "source", key.Public()); err != nil {
		t.Fatal(err)
	}
	if err := AddUploader(dir, "robot", "", "source, packages=robot-*", nil); err != nil {
		t.Fatal(err)
	}
	s, err := control.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Uploaders) != 2 || s.Uploaders[0].Fingerprints[0] != key.Fingerprint() || s.Uploaders[1].Account != "robot" {
		t.Errorf("got %+v", s.Uploaders)
	}
	if _, missing, err := s.Keyring(s.UploaderKeys()); err != nil || len(missing) > 0 {
		t.Errorf("control/keys lacks %v, %v", missing, err)
	}
}
