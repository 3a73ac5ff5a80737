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
	base, err := Base("bookworm", Mirrors{Main: "http://mirror.example/debian"})
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
	if err := a.Check(); err != nil {
		t.Errorf("before anything is made: %v", err)
	}
	if err := (&Answers{Suite: "stable", Archs: []string{"all"}, Runner: "overlay", Review: "new"}).Check(); err == nil ||
		!strings.HasPrefix(err.Error(), "suites:") {
		t.Errorf("what the daemons refuse passes: %v", err)
	}
	a.Suite = "another"
	if wrote, kept, err := WriteSettings(dir, Settings(a)); err != nil || len(wrote) > 0 || len(kept) != 3 {
		t.Errorf("again: wrote %v, kept %v, %v; want that all stay", wrote, kept, err)
	}
}

// TestFollow: set up again, units and advice are of the settings that stay.
func TestFollow(t *testing.T) {
	a := &Answers{Suite: "another", Archs: []string{"riscv64"}}
	a.follow(&control.Settings{Suites: []control.Suite{{Name: "stable"}}, Builders: []control.Builder{
		{Architectures: []string{"amd64", "all"}}, {Architectures: []string{"i386", "amd64"}},
		{Architectures: []string{"arm64"}, Runner: "remote"}}})
	if a.Suite != "stable" || !slices.Equal(a.Archs, []string{"amd64", "i386"}) {
		t.Errorf("got %s and %q, want stable and amd64 i386", a.Suite, a.Archs)
	}
}

// TestUnits: the pages are units like the others, for who wants them.
func TestUnits(t *testing.T) {
	for _, pages := range []bool{true, false} {
		a := &Answers{Archs: []string{"amd64"}, Pages: pages}
		units := a.Units()
		for _, name := range units {
			file := strings.Replace(strings.Replace(name, "@amd64", "@", 1), "@all", "@", 1)
			if _, err := os.Stat(filepath.Join("../../../scripts/systemd", file)); err != nil {
				t.Error(err)
			}
		}
		if slices.Contains(units, "statusd.service") != pages || slices.Contains(units, "statusd.socket") != pages {
			t.Errorf("pages %t: got %q", pages, units)
		}
	}
	socket, err := os.ReadFile("../../../scripts/systemd/statusd.socket")
	if err != nil || !strings.Contains(string(socket), "\nListenStream="+PagesAddress+"\n") {
		t.Errorf("the socket does not listen at %s: %v\n%s", PagesAddress, err, socket)
	}
}

func TestBase(t *testing.T) {
	for _, r := range Releases() {
		lines, err := Base(r, Mirrors{Main: "http://mirror.example/debian"})
		if err != nil || len(lines) == 0 {
			t.Errorf("%s: got %q, %v", r, lines, err)
		}
		for _, l := range lines {
			if !strings.HasPrefix(l, "deb http") {
				t.Errorf("%s: got %q", r, l)
			}
		}
	}
	// Where apt of this machine has its security updates from, builds have them from.
	lines, err := Base("trixie", Mirrors{"http://mirror.example/debian", "http://mirror.example/security"})
	if want := "deb http://mirror.example/security trixie-security main"; err != nil || lines[len(lines)-1] != want {
		t.Errorf("got %q, %v, want %q at the end", lines, err, want)
	}
	if _, err := Base("trixie", Mirrors{}); err == nil || !strings.Contains(err.Error(), "write an apt line") {
		t.Errorf("without a mirror: got %v, want that an apt line is asked for", err)
	}
	if _, err := Base("bookwrom", Mirrors{}); err == nil || !strings.Contains(err.Error(), "bookworm, noble, sid, trixie") {
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
	asc := filepath.Join(dir, "ann.asc")
	if err := os.WriteFile(asc, key.Public(), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct{ name, allow, email, file string }{
		{"ann", "source", "", asc}, {"robot", "source, packages=robot-*", "", ""},
		{"bob", "source", "Bob <bob@packmill.invalid>", asc},
	} {
		u, err := ReadUploader(x.name, x.allow, x.email, x.file)
		if err != nil {
			t.Fatal(err)
		}
		if err := u.add(dir); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ReadUploader("eve", "source", "-eve@packmill.invalid", ""); err == nil {
		t.Error("an address that sendmail takes for an option passes")
	}
	s, err := control.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"ann@packmill.invalid", "", "bob@packmill.invalid"} {
		if len(s.Uploaders) != 3 || s.Uploaders[i].Email != want {
			t.Fatalf("got %+v, want mail to %q", s.Uploaders, want)
		}
	}
	if s.Uploaders[0].Fingerprints[0] != key.Fingerprint() || s.Uploaders[1].Account != "robot" {
		t.Errorf("got %+v", s.Uploaders)
	}
	if _, missing, err := s.Keyring(s.UploaderKeys()); err != nil || len(missing) > 0 {
		t.Errorf("control/keys lacks %v, %v", missing, err)
	}
}

// TestUnit: what systemd 252 and 257 said of units on booted machines.
func TestUnit(t *testing.T) {
	const runs, repeats, down, waits = "runs", "repeats", "down", "waits"
	for _, c := range []struct{ name, says, want string }{
		{"a daemon", "ActiveState=active\nSubState=running\nJob=\n", runs},
		{"its start waits for another", "ActiveState=inactive\nSubState=dead\nJob=988\n", waits},
		{"it has not said yet that it is ready", "ActiveState=activating\nSubState=start\nJob=1055\n", waits},
		{"RestartSec goes by", "ActiveState=activating\nSubState=auto-restart\nJob=\n", repeats},
		{"it failed", "ActiveState=failed\nSubState=failed\nJob=\n", down},
		{"started, but its ConditionPathExists does not hold", "ActiveState=inactive\nSubState=dead\nJob=\n", down},
	} {
		u := parseUnit(c.says)
		if got := map[string]bool{runs: u.Runs(), repeats: u.Repeats(), down: u.Down(),
			waits: !u.Runs() && !u.Repeats() && !u.Down()}; !got[c.want] ||
			len(slices.DeleteFunc([]string{runs, repeats, down, waits}, func(k string) bool { return !got[k] })) != 1 {
			t.Errorf("%s: got %v of %+v, want that it %s", c.name, got, u, c.want)
		}
	}
}
