package control

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"packmill/internal/openpgp"
	"packmill/queue"
	"packmill/queue/runner"
	"packmill/spool"
)

const suite = "Suite: stable\nArchitectures: amd64 i386\n"

// control writes files into a directory and returns it.
func control(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestWrong: what is wrong is refused with file, line and cure, all of it at once.
func TestWrong(t *testing.T) {
	rows := []struct {
		file, text string
		want       string // of the error, without the directory; several lines for several errors
	}{
		{"suites", "Suite: stable\n",
			"suites:1: missing; name the architectures that the suite is built for, such as: Architectures: amd64"},
		{"suites", "Architectures: amd64\n", "suites:1: the stanza has no Suite"},
		{"suites", suite + "Review: sometimes\n", "suites:3: "},
		{"suites", suite + "Publish: now\n", "suites:3: "},
		{"suites", suite + "Tries: many\n", "suites:3: "},
		{"suites", suite + "Tries: 0\n", "suites:3: "},
		{"suites", suite + "Incomplete: soon\n", "suites:3: "},
		{"suites", suite + "Max-Upload: 1 elephant\n", "suites:3: "},
		{"suites", suite + "Contents: perhaps\n", "suites:3: "},
		{"suites", suite + "Compress: lzma\n", "suites:3: "},
		{"suites", suite + "Indep-On: arm64\n", `suites:3: "arm64" is not one of the suite's Architectures (amd64 i386)`},
		{"suites", "Suite: stable\nArchitectures: amd64 all\n", `suites:2: "all" is not an architecture to build on`},
		{"suites", "Suite: stable\nArchitectures: ../amd64\n", "suites:2: architecture "},
		{"suites", "Suite: ../stable\nArchitectures: amd64\n", "suites:1: "},
		{"suites", suite + "Reveiw: never\n", "Review"},
		{"suites", suite + "Checks: date=loud\n", "suites:3: date=loud: the level is error, warning, remark or off"},
		{"suites", suite + "Checks: dates=off\n", `suites:3: "dates" is no check; a suite may set: signature-age `},
		{"suites", suite + "Checks: signature=off\n",
			"suites:3: signature cannot be set: what the archive promises hangs on it"},
		{"suites", suite + "Checks: checksum=warning\n", "suites:3: checksum cannot be set"},
		{"suites", suite + "Checks: date=off, date=error\n", "suites:3: date is there as off and as error; write it once"},
		{"uploaders", "Name: ann\nAccount: ann\nAllow: sign=amd64, sign=i386\n",
			"uploaders:3: sign is there a second time; write it once, with blanks between: sign=i386 ..."},
		{"uploaders", "Name: ann\nAccount: ann\nAllow: source, suites=sid, suites=stable\n", "uploaders:3: suites is there a second time"},
		{"suites", suite + "Limits: lib*\n", `suites:3: "lib*" limits nothing; write such as: lib* Timeout=3d Disk=60G`},
		{"suites", suite + "Limits: lib* Patience=3d\n", `suites:3: "Patience=3d" is no limit; there are Timeout, `},
		{"suites", suite + "Limits: lib* Disk=much\n", `suites:3: "Disk=much" is no limit; there are Timeout, `},
		{"builders", "Name: b\nArchitectures: amd64\nPackages: /(/\n", "builders:3: error parsing regexp"},
		{"builders", "Name: b\nArchitectures: amd64\nLast: [\n", `builders:3: "[" is not a pattern; `},
		{"builders", "Name: b\nArchitectures: amd64\nQuiet: 22-6\n", `builders:3: "22-6" is not a part of the day; write such as 22:00-06:30`},
		{"suites", suite + "Below: testing\n", `there is no suite "testing"`},

		{"suites", suite + "\n" + suite, "suites:4: there is a second stanza for the suite stable; put them together"},
		{"suites", suite + "Aliases: x\n\nSuite: other\nArchitectures: amd64\nAliases: x\n", `"x" is a name of the suites stable and other; a name can mean only one`},
		{"suites", suite + "Suite: again\n", "suites:3: "},
		{"suites", "no colon\n", "suites:1: "},
		{"uploaders", "Name: ann\n", `uploaders:1: neither Fingerprint nor Account; nobody could upload as "ann"`},
		{"uploaders", "Account: ann\n", "uploaders:1: the stanza has no Name"},
		{"uploaders", "Name: ann\nFingerprint: DEADBEEF\n", `uploaders:2: "DEADBEEF" is not the fingerprint`},
		{"uploaders", "Name: ann\nAccount: ann\nAllow: everything\n", `uploaders:3: "everything" is not known`},
		{"uploaders", "Name: ann\nAccount: ann\nAllow: packages=[\n", "uploaders:3: packages=[: not a pattern"},
		{"builders", "Name: b\n", "builders:1: missing; name what this builder builds"},
		{"builders", "Name: b\nArchitectures: amd64\nRunner: exec relative\n", "builders:3: "},
		{"builders", "Name: b\nArchitectures: amd64\nRunner: pbuilder\n", "builders:3: "},
		{"notify", "Event: logs\nTo: a@example.org\n", `notify:1: "logs" is not known; use received or accepted or rejected or commands or asked or published or superseded or removed or log or failed or rebuilt or good or old or aside or *`},
		{"notify", "To: a@example.org\n", "notify:1: the stanza has no Event"},
		{"notify", "Event: log\n",
			"notify:1: missing; write addresses, or signer, maintainer, builder, build-signers, with commas between"},
		{"notify", "Event: log\nTo: signer, uploader\n", `notify:2: "uploader" is no address and none of signer, maintainer, builder, build-signers; write name@host`},
		{"notify", "Event: *\nTo: root\n", `notify:2: "root" is no address`},
		{"notify", "Event: *\nTo: Ann, <ann@example.org>\n", `notify:2: "Ann" is no address`},
		{"general", "Two-Persons: both\n", "general:1: "},
		{"general", "Reserve: -1\n", "general:1: "},
	}
	for _, r := range rows {
		dir := control(t, map[string]string{r.file: r.text})
		_, err := Load(dir)
		if r.want == "" {
			continue
		}
		if err == nil {
			t.Errorf("%q: no error, want %q", r.text, r.want)
			continue
		}
		if got := strings.ReplaceAll(err.Error(), dir+"/", ""); !strings.Contains(got, r.want) {
			t.Errorf("%q:\ngot  %s\nwant %s", r.text, got, r.want)
		}
	}
	_, err := Load(control(t, map[string]string{
		"suites": suite + "Tries: x\nReview: y\n", "uploaders": "Name: z\n",
	}))
	if err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("three faults: got %v, want a line for each", err)
	}
}

func TestGood(t *testing.T) {
	dir := control(t, map[string]string{
		"suites": "# ours\n" + suite +
			"Codename: bookworm\nAliases: current\nChecks: date=off, maintainer=warning\nIncomplete: 2h\nMax-Upload: 1G\n",
		"uploaders": "Name: ann\nFingerprint: 0123 4567 89ab cdef 0123  4567 89AB CDEF 0123 4567\n" +
			"Allow: suites=stable, packages=lib* hello, source, binary=amd64, new=no\n\nName: dora\nAccount: dora\n",
		"builders": "Name: b\nArchitectures: amd64 all\nFingerprint: 0123456789ABCDEF0123456789ABCDEF01234567\n",
	})
	s, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"stable", "bookworm", "current"} {
		if x, ok := s.Suite(name); !ok || x.Name != "stable" {
			t.Errorf("Suite(%q): got %v, %v", name, x, ok)
		}
	}
	x := s.Suites[0]
	if x.IndepOn != "amd64" || x.Incomplete != 2*time.Hour || x.Review != "always" || x.Publish != "together" ||
		x.Tries != 3 {
		t.Errorf("suite: got %+v", x)
	}
	if diff := cmp.Diff(map[string]string{"date": "off", "maintainer": "warning"}, x.Checks); diff != "" {
		t.Error(diff)
	}
	want := Allow{Suites: []string{"stable"}, Packages: []string{"lib*", "hello"}, Source: true, Binary: []string{"amd64"}}
	if diff := cmp.Diff(want, s.Uploaders[0].Allow); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(Allow{Source: true, New: true}, s.Uploaders[1].Allow); diff != "" {
		t.Error(diff)
	}
}

// TestBuildKeys: whose signature lets binaries through, by review of logs,
// architecture, suite, package and component.
func TestBuildKeys(t *testing.T) {
	fpr := func(c string) string { return strings.Repeat(c, 40) }
	s, err := Load(control(t, map[string]string{
		"suites": suite + "Aliases: current\n\nSuite: hand\nArchitectures: amd64\nLog-Review: manual\n",
		"uploaders": "Name: all\nFingerprint: " + fpr("A") + "\nAllow: sign\n\n" +
			"Name: some\nFingerprint: " + fpr("B") +
			"\nAllow: sign=amd64, packages=lib*, suites=current hand, components=main\n\n" +
			"Name: source\nFingerprint: " + fpr("C") + "\n\n" +
			"Name: any\nFingerprint: " + fpr("D") + "\nAllow: sign=any, suites=hand, binary\n",
		"builders": "Name: b\nArchitectures: amd64 all\nFingerprint: " + fpr("1") +
			"\n\nName: c\nArchitectures: i386\nFingerprint: " + fpr("2") + "\n",
	}))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []struct{ suite, arch, source, component, want string }{
		{"stable", "amd64", "hello", "main", "A1"},
		{"stable", "amd64", "libx", "main", "AB1"},
		{"stable", "amd64", "libx", "contrib", "A1"},
		{"stable", "i386", "libx", "main", "A2"},
		{"stable", "all", "libx", "main", "A1"},
		{"stable", "arm64", "libx", "main", "A"},
		{"hand", "amd64", "libx", "main", "ABD"},
		{"hand", "all", "libx", "main", "A"},
	} {
		x, _ := s.Suite(r.suite)
		keys, whose := s.BuildKeys(x, r.arch, r.source, r.component)
		got := ""
		for _, k := range keys {
			got += k[:1]
		}
		if got != r.want || strings.Contains(whose, "builders") != (r.suite == "stable") {
			t.Errorf("%v: got %q (%s)", r, got, whose)
		}
	}
}

// TestLimitsOf: what the builder says of a package goes over what its suite
// says, and that over the builder's own limits.
func TestLimitsOf(t *testing.T) {
	s, err := Load(control(t, map[string]string{
		"suites":   suite + "Limits:\n lib* Timeout=2d Disk=10G\n /office$/ Memory=8G Silence=5h\n",
		"builders": "Name: b\nArchitectures: amd64\nTimeout: 3h\nTasks: 500\nLimits:\n libreoffice Timeout=3d Max-Log=2G\n",
	}))
	if err != nil {
		t.Fatal(err)
	}
	got := s.Builders[0].LimitsOf(&s.Suites[0], "libreoffice")
	want := runner.Limits{Wall: 3 * day, Silence: 5 * time.Hour, Log: 2 << 30, Memory: 8 << 30, Tasks: 500, Disk: 10 << 30}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := s.Builders[0].LimitsOf(&s.Suites[0],
		"hello"); got != (runner.Limits{Wall: 3 * time.Hour, Silence: 150 * time.Minute, Log: 1 << 30, Tasks: 500}) {
		t.Errorf("hello: got %+v", got)
	}
}

// TestJob: one job of a builder's, for a build and for its repetition: what the
// ticket says goes over what the suite says.
func TestJob(t *testing.T) {
	tree, err := spool.Init(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s, err := Load(control(t, map[string]string{
		"suites":   suite + "Profiles: nodoc\nOptions: terse\nPackage-Options:\n hello noopt\n",
		"builders": "Name: b\nArchitectures: amd64 all\nRunner: exec /bin/true\nCross-From: arm64\nNice: 7\nTimeout: 3h\nJobs: 2\n",
	}))
	if err != nil {
		t.Fatal(err)
	}
	suite, b := &s.Suites[0], &s.Builders[0]
	name := spool.Name{Source: "hello", Version: "2.10-3"}
	job := func(arch string, tk *queue.Ticket) *runner.Job {
		t.Helper()
		tk.Source = name.Source
		j, err := b.Job(tree, spool.Found{Place: spool.In(spool.Building, suite.Name, arch), Name: name}, tk, suite)
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	at := time.Unix(1700000000, 0)
	j := job("amd64", &queue.Ticket{BuildProfiles: []string{"nocheck"}, BinNMU: 2, BinNMUText: "why",
		BinNMUBy: "A <a@b.c>", BinNMUTime: at})
	if !slices.Equal(j.Profiles, []string{"nocheck"}) || !slices.Equal(j.Options, []string{"noopt"}) {
		t.Errorf("profiles %q, options %q", j.Profiles, j.Options)
	}
	if j.Source != "hello" || j.Version != "2.10-3" || j.Arch != "amd64" || j.On != "" || j.CrossFrom != "arm64" {
		t.Errorf("%s %s for %s on %q, from %q", j.Source, j.Version, j.Arch, j.On, j.CrossFrom)
	}
	if j.Nice != 7 || j.Limits.Wall != 3*time.Hour || j.Parallel != max(1, runtime.NumCPU()/2) {
		t.Errorf("nice %d, limits %+v, parallel %d", j.Nice, j.Limits, j.Parallel)
	}
	if want := (runner.BinNMU{Number: 2, Changelog: "why", Maintainer: "A <a@b.c>", Time: at}); j.BinNMU == nil ||
		*j.BinNMU != want {
		t.Errorf("binNMU %+v, want %+v", j.BinNMU, want)
	}
	if j := job("all", &queue.Ticket{}); j.On != "amd64" || j.CrossFrom != "" || j.BinNMU != nil ||
		!slices.Equal(j.Profiles, []string{"nodoc"}) {
		t.Errorf("all: on %q, from %q, binNMU %v, profiles %q", j.On, j.CrossFrom, j.BinNMU, j.Profiles)
	}
	// Where the source says that its packages for all are built, if the suite has that.
	for says, want := range map[string]string{"i386": "i386", "arm64": "amd64"} {
		if j := job("all", &queue.Ticket{IndepArch: says}); j.On != want {
			t.Errorf("Build-Indep-Architecture: %s: built on %q, want %s", says, j.On, want)
		}
	}
}

// TestQuiet: parts of the day, over midnight too.
func TestQuiet(t *testing.T) {
	for hours, rows := range map[string]map[string]string{
		"22:00-06:30": {"21:59": "", "22:00": "06:30", "23:59": "06:30", "00:00": "06:30", "06:29": "06:30", "06:30": ""},
		"12:00-13:00": {"11:59": "", "12:00": "13:00", "13:00": ""},
		"00:00-00:00": {"00:00": "00:00", "23:59": "00:00"},
	} {
		h, err := parseHours(hours)
		if err != nil {
			t.Fatal(err)
		}
		for at, want := range rows {
			now, err := time.Parse("2006-01-02 15:04", "2026-11-21 "+at)
			if err != nil {
				t.Fatal(err)
			}
			end, ok := h.within(now)
			if ok != (want != "") || ok && (end.Format("15:04") != want || !end.After(now) || end.Sub(now) > day) {
				t.Errorf("%s at %s: got %v, %v; want %q", hours, at, end, ok, want)
			}
		}
	}
}

// TestStore: wrong settings leave the last good ones in force, and a key that is
// written over is noticed.
func TestStore(t *testing.T) {
	key, err := openpgp.Generate("ann", "ann@example.org", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	dir := control(t, map[string]string{"suites": suite,
		"uploaders": "Name: ann\nFingerprint: " + key.Fingerprint() + "\n", "keys/ann.asc": string(key.Public())})
	var log bytes.Buffer
	s, err := NewStore(dir, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	look := s.Look
	first := look()
	if ring, missing, err := first.Keyring(first.UploaderKeys()); err != nil || len(missing) != 0 ||
		len(ring.Fingerprints()) != 1 {
		t.Errorf("Keyring: got %v, missing %v, %v", ring, missing, err)
	}
	if look() != first {
		t.Error("read again though nothing changed")
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("suites", suite+"Review: sometimes\n")
	if look() != first || !strings.Contains(log.String(), "the last good ones stay in force") {
		t.Errorf("wrong settings: got others, log %q", &log)
	}
	write("suites", "")
	if look() != first || !strings.Contains(log.String(), "there is no suite any more") {
		t.Errorf("no suites: got other settings, log %q", &log)
	}
	write("suites", suite+"Review: never\n")
	second := look()
	if second == first || second.Suites[0].Review != "never" {
		t.Error("mended settings are not in force")
	}
	// In place, so that the directory of keys does not change.
	other, err := openpgp.Generate("bob", "bob@example.org", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	write("keys/ann.asc", string(other.Public())+"\n")
	third := look()
	if third == second {
		t.Fatal("a key that was written over is not noticed")
	}
	if _, missing, err := third.Keyring(third.UploaderKeys()); err != nil || len(missing) != 1 {
		t.Errorf("Keyring: missing %v, %v, want ann's", missing, err)
	}
	if _, err := NewStore(control(t, map[string]string{"suites": "Suite: x\n"}), slog.Default()); err == nil {
		t.Error("wrong settings at the start are no error")
	}
}
