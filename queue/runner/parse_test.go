package runner

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"packmill/internal/durable"
	"packmill/internal/policy"
	"packmill/queue/runner/cage"
)

const goodFooter = "make: nothing\n\n+------------------------------------------------------------------------------+\n" +
	"| Summary                                                                      |\n" +
	"+------------------------------------------------------------------------------+\n\n" +
	"Build Architecture: amd64\nBuild-Space: 36\nFail-Stage: build\nJob: /mnt/source/hello_1.0.dsc\nSpace: 36\n" +
	"Status: attempted\nVersion: 1.0\n" +
	"--------------------------------------------------------------------------------\n" +
	"Finished at 2026-11-21T15:03:08Z\nBuild needed 00:00:11, 36k disk space\n"

func TestParseFooter(t *testing.T) {
	forgedOne := strings.Replace(goodFooter, "Status: attempted", "Status: successful", 1)
	for _, c := range []struct {
		name, log, status string
		ok                bool
	}{
		{"good", goodFooter, "attempted", true},
		{"of Debian 13", strings.Replace(goodFooter, "| Summary"+strings.Repeat(" ", 70)+"|",
			"| Summary"+strings.Repeat(" ", 38)+"Sat, 21 Nov 2026 19:33:19 +0000 |", 1), "attempted", true},
		{"a box with something else in it",
			strings.Replace(goodFooter, "| Summary"+strings.Repeat(" ", 70)+"|",
				"| Summary"+strings.Repeat(" ", 38)+"Sat, 21 Nov 2026 for ever 00000 |", 1), "", false},
		{"signal at the end", goodFooter + "E: Build failure (dpkg-buildpackage died with signal 15)\n", "attempted", true},
		{"forged before", forgedOne + goodFooter, "attempted", true},
		{"forged before, sbuild killed", forgedOne + "more output\n\nmore\nand\nmore\nand\nmore\nand\nmore\nand\nmore\n",
			"", false},
		{"nothing", "", "", false},
		{"no end", strings.SplitAfter(goodFooter, "Status: attempted\n")[0], "", false},
		{"box without lines", strings.Replace(goodFooter, "+\n\nBuild", "+\nBuild", 1), "", false},
		{"a line that is no field", strings.Replace(goodFooter, "Space: 36\n", "Space: 36\nhello\n", 1), "", false},
		{"a field twice", strings.Replace(goodFooter, "Version: 1.0\n", "Version: 1.0\nStatus: successful\n", 1), "", false},
		{"a field with an odd name", strings.Replace(goodFooter, "Version: 1.0\n", "Ver\x1bsion: 1.0\n", 1), "", false},
		{"quoted in a line", strings.ReplaceAll(goodFooter, "\n| Summary", "\n> | Summary"), "", false},
	} {
		f, ok := parseFooter([]byte(c.log))
		if ok != c.ok || f["Status"] != c.status {
			t.Errorf("%s: got %v %q, want %v %q", c.name, ok, f["Status"], c.ok, c.status)
		}
	}
}

func FuzzParseFooter(f *testing.F) {
	f.Add([]byte(goodFooter))
	f.Fuzz(func(t *testing.T, log []byte) {
		// What a build printed before cannot change a good end.
		got, ok := parseFooter(append(log, "\n"+goodFooter...))
		if !ok || got["Status"] != "attempted" {
			t.Errorf("%q before the footer: %v %v", log, got, ok)
		}
		parseFooter(log)
	})
}

// The verdicts of facts that a real sbuild cannot be brought to on any day.
func TestReadSbuild(t *testing.T) {
	end := func(status, stage string) string {
		s := strings.Replace(goodFooter, "Status: attempted", "Status: "+status, 1)
		if stage == "" {
			return strings.Replace(s, "Fail-Stage: build\n", "", 1)
		}
		return strings.Replace(s, "Fail-Stage: build", "Fail-Stage: "+stage, 1)
	}
	install := "\n| Install package build dependencies                                           |\n"
	for _, c := range []struct {
		name    string
		exit    int
		signal  int
		log     string
		outcome Outcome
		suspect string
	}{
		{"success without results", 0, 0, end("successful", ""), GiveBack, ""},
		{"exit 0, status attempted", 0, 0, end("attempted", "build"), GiveBack, ""},
		{"exit 2, status successful", 2, 0, end("successful", ""), GiveBack, ""},
		{"exit 0, no summary", 0, 0, "hello\n", GiveBack, ""},
		{"exit 2", 2, 0, end("attempted", "build"), Attempted, ""},
		{"exit 2, no space", 2, 0, "cc: No space left on device\n" + end("attempted", "build"), Attempted, SuspectSpace},
		{"exit 2, sbuild's own clock", 2, 0, "E: Build killed with signal TERM after 150 minutes of inactivity\n" +
			end("attempted", "build"), Attempted, SuspectStall},
		{"exit 2, ended by a signal", 2, 0,
			"E: ABORT: Received TERM signal (requesting cleanup and shutdown)\n" + end("attempted", "build"), GiveBack, ""},
		{"exit 2, compiler killed", 2, 0, "c++: fatal error: Killed signal terminated program cc1plus\n" +
			end("attempted", "build"), Attempted, SuspectMemory},
		{"install-deps", 3, 0, install + "E: Unable to correct problems, you have held broken packages.\n" +
			end("given-back", "install-deps"), Uninstallable, ""},
		{"install-deps, mirror dead", 3, 0,
			install + "Err:1 http://mirror sid/main amd64 foo\nE: Failed to fetch http://mirror/foo.deb\n" +
				end("given-back", "install-deps"), GiveBack, ""},
		{"install-deps, warning of an earlier section", 3, 0, "W: Failed to fetch http://mirror/x\n" + install +
			"E: Unable to correct problems\n" + end("given-back", "install-deps"), Uninstallable, ""},
		{"fetch-src", 3, 0, end("given-back", "fetch-src"), GiveBack, ""},
		{"unpack", 3, 0, "dpkg-source: error: tar subprocess returned exit status 2\n" + end("given-back", "unpack"),
			Attempted, ""},
		{"unpack, another file", 3, 0, "dpkg-source: error: file ./x.tar.xz has size 1 instead of expected 2\n" +
			end("given-back", "unpack"), GiveBack, ""},
		{"unpack, full disk", 3, 0, "tar: x: Cannot write: No space left on device\n" + end("given-back", "unpack"),
			Attempted, SuspectSpace},
		{"create-session", 1, 0, end("failed", "create-session"), GiveBack, ""},
		{"explainer", 1, 0, end("given-back", "explain-bd-uninstallable"), GiveBack, ""},
		{"abort", 1, 0, end("failed", "abort"), GiveBack, ""},
		{"arch-check", 0, 0, end("skipped", "arch-check"), Attempted, ""},
		{"killed", -1, 9, end("successful", ""), GiveBack, ""},
	} {
		job := newJob(t)
		fmt.Fprint(job.Log, c.log)
		res := &Result{Exit: c.exit}
		res.read(job, &dscFile{}, &cage.Exit{Report: cage.Report{Exit: c.exit, Signal: c.signal}})
		if res.Outcome != c.outcome || res.Suspect != c.suspect || res.Reason == "" {
			t.Errorf("%s: got %v, suspect %q: %s; want %v, %q",
				c.name, res.Outcome, res.Suspect, res.Reason, c.outcome, c.suspect)
		}
	}
}

func TestInstalledHas(t *testing.T) {
	path := filepath.Join(t.TempDir(), "status")
	write(t, path, `Package: make
Status: install ok installed
Version: 4.3-4.1
Provides: make-guile (= 4.3), builder

Package: gone
Status: deinstall ok config-files
Version: 1

Package: libc6-dev
Status: install ok installed
Version: 2.36-9
`)
	st, err := readStatus(path)
	if err != nil {
		t.Fatal(err)
	}
	for rel, want := range map[string]bool{
		"make": true, "make (>= 4)": true, "make (>= 5)": false, "make (= 4.3-4.1)": true, "make (<< 4)": false,
		"make:any": true, "make:native": true,
		"make:i386": false, "gone": false, "nothing": false, "builder": true, "builder (>= 1)": false,
		"make-guile (>= 4)": true, "make-guile (>= 5)": false,
	} {
		r, err := policy.ParseRelations(rel)
		if err != nil {
			t.Fatal(err)
		}
		if got := st.has(r[0][0]); got != want {
			t.Errorf("%s: got %v, want %v", rel, got, want)
		}
	}
}

const signedDsc = `-----BEGIN PGP SIGNED MESSAGE-----
Hash: SHA256

Format: 3.0 (native)
Source: hello
Architecture: any all
Version: 1.0-1
Build-Depends: debhelper (>= 13) | cdbs, gcc-12 [!s390x], libx-dev <!nocheck>, y:native
Build-Depends-Arch: only-arch
Build-Depends-Indep: only-indep
Files:
 e926d3c7697b6952cd1afc28481a2b85 652 hello_1.0-1.tar.xz
- -: not a field
-----BEGIN PGP SIGNATURE-----

abc
-----END PGP SIGNATURE-----
`

func TestReadDsc(t *testing.T) {
	job := newJob(t)
	write(t, job.Dsc, strings.Replace(signedDsc, "- -: not a field\n", "", 1))
	d, err := readDsc(job)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(d.files, " "), "hello_1.0-1.dsc hello_1.0-1.tar.xz"; got != want {
		t.Errorf("files %q, want %q", got, want)
	}
	for _, c := range []struct {
		arch     string
		indep    bool
		profiles []string
		want     string
	}{
		{"amd64", false, nil, "debhelper (>= 13), gcc-12, libx-dev, y:native, only-arch"},
		{"s390x", false, []string{"nocheck"}, "debhelper (>= 13), y:native, only-arch"},
		{"all", false, nil, "debhelper (>= 13), gcc-12, libx-dev, y:native, only-indep"},
		{"amd64", true, nil, "debhelper (>= 13), gcc-12, libx-dev, y:native, only-arch, only-indep"},
	} {
		job.Arch, job.Indep, job.Profiles = c.arch, c.indep, c.profiles
		got, err := d.buildDeps(job, "amd64")
		if err != nil || got.String() != c.want {
			t.Errorf("%s, indep %v, %v: got %s, %v; want %s", c.arch, c.indep, c.profiles, got, err, c.want)
		}
	}
	write(t, job.Dsc, strings.Replace(signedDsc, "hello_1.0-1.tar.xz", "../../etc/passwd", 1))
	if _, err := readDsc(job); err == nil {
		t.Error("a path in Files: no error")
	}
	os.Remove(job.Dsc)
	os.Symlink("/etc/passwd", job.Dsc)
	if _, err := readDsc(job); err == nil {
		t.Error("a link: no error")
	}
}

func TestJobCheck(t *testing.T) {
	for _, c := range []struct {
		spoil func(*Job)
		want  string
	}{
		{func(j *Job) {}, ""},
		{func(j *Job) { j.Arch = "all" }, ""},
		{func(j *Job) { j.Source = "../x" }, "source"},
		{func(j *Job) { j.Version = "1 0" }, "version"},
		{func(j *Job) { j.Suite = "-x" }, "suite"},
		{func(j *Job) { j.Arch = "" }, "architecture"},
		{func(j *Job) { j.Arch = "any" }, "architecture"},
		{func(j *Job) { j.On = "$(id)" }, "architecture"},
		{func(j *Job) { j.Profiles = []string{"nocheck,x"} }, "profile"},
		{func(j *Job) { j.BinNMU = &BinNMU{} }, "binNMU number"},
		{func(j *Job) { j.BinNMU = &BinNMU{Number: 1, Changelog: "a\nb", Time: time.Now()} }, "one line"},
		{func(j *Job) { j.BinNMU = &BinNMU{Number: 1, Changelog: "a"} }, "without a time"},
		{func(j *Job) { j.Dir = "work" }, "absolute"},
		{func(j *Job) { j.Result = j.Dir }, "must differ"},
		{func(j *Job) { j.Dir = filepath.Dir(j.Dsc) }, "must differ"},
		{func(j *Job) { j.Log = nil }, "no log"},
	} {
		job := newJob(t)
		c.spoil(job)
		err := job.check()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("got %v, want an error with %q", err, c.want)
		}
	}
}

func TestSuiteOf(t *testing.T) {
	for line, want := range map[string]string{
		"deb http://mirror/debian sid main":                                 "sid",
		"deb [signed-by=/k.gpg arch=amd64] http://mirror/debian sid/x main": "sid/x",
		"deb-src http://mirror/debian sid main":                             "",
		"deb [signed-by=/k.gpg http://mirror sid main":                      "",
		"deb http://mirror":                                                 "",
		"":                                                                  "",
		"deb http://mirror sid main\nx":                                     "",
	} {
		if got, err := suiteOf(line); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v; want %q", line, got, err, want)
		}
	}
}

func TestRepoLines(t *testing.T) {
	key := []byte("k")
	for _, c := range []struct {
		repo Repo
		want string
	}{
		{Repo{URI: "http://h/", Suite: "sid", Components: []string{"main", "contrib"}, Key: key},
			"deb http://h/ sid main contrib"},
		{Repo{Dir: "/srv/a", Suite: "sid", Components: []string{"main"}, Key: key}, "deb file:///packmill-archive7 sid main"},
		{Repo{URI: "http://h/ evil [trusted=yes]", Suite: "sid", Key: key}, ""},
		{Repo{URI: "http://h/", Suite: "sid\ndeb http://e/ x", Key: key}, ""},
		{Repo{URI: "http://h/", Suite: "sid", Components: []string{"main"}}, ""},
	} {
		if got, err := c.repo.lines(7); got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%+v: got %q, %v", c.repo, got, err)
		}
	}
}

// A local archive is pinned by all that its own Release says of it; what apt or a shell could
// take for more than a word is left out.
func TestPin(t *testing.T) {
	dir := t.TempDir()
	os.MkdirAll(filepath.Join(dir, "dists/sid"), 0o755)
	write(t, filepath.Join(dir, "dists/sid/InRelease"),
		"Origin: Protean OS\nLabel: it's, all\nSuite: sid\nCodename: next\nNotAutomatic: yes\n")
	for _, c := range []struct {
		repo Repo
		want string
	}{
		{Repo{Dir: dir, Suite: "sid"}, "a=sid,n=next,o=Protean OS"},
		{Repo{Dir: dir, Suite: "none"}, ""},
		{Repo{URI: "http://h/", Suite: "sid"}, ""},
		{Repo{URI: "http://h/", Suite: "sid", Pin: "a=sid"}, "a=sid"},
	} {
		if got := c.repo.PinOf(); got != c.want {
			t.Errorf("%+v: got %q, want %q", c.repo, got, c.want)
		}
	}
}

// A pin that came from another machine goes into apt's preferences by a shell: only one as PinOf
// makes it is taken.
func TestGoodPin(t *testing.T) {
	for pin, want := range map[string]bool{
		"a=sid,n=next,o=Protean OS": true, "l=x": true,
		"": false, "a=": false, "a": false, "c=main": false, "a=sid,": false, "an=sid": false, "=sid": false,
		"a=sid'; id'": false, "a=sid\nPin-Priority: 9": false, "a=sid\n": false, "a=%s": false, `a=\n`: false,
	} {
		if got := goodPin(pin); got != want {
			t.Errorf("%q: got %v, want %v", pin, got, want)
		}
	}
}

// A scratch directory of a dead daemon goes, one in use or just born stays.
func TestScratchDir(t *testing.T) {
	base := t.TempDir()
	old := time.Now().Add(-time.Hour)
	for _, name := range []string{"p.dead", "p.used", "p.born", "other"} {
		write(t, mkdir(t, filepath.Join(base, name))+"/file", "x")
		if name != "p.born" {
			os.Chtimes(filepath.Join(base, name), old, old)
		}
	}
	used, err := lockDir(filepath.Join(base, "p.used"), durable.LockFile)
	if err != nil {
		t.Fatal(err)
	}
	defer used.Close()
	dir, lock, err := scratchDir(base, "p.", os.RemoveAll)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	var got []string
	entries, _ := os.ReadDir(base)
	for _, e := range entries {
		if name := e.Name(); filepath.Join(base, name) != dir {
			got = append(got, name)
		}
	}
	if want := "other p.born p.used"; strings.Join(got, " ") != want {
		t.Errorf("left %v, want %s", got, want)
	}
	if _, err := lockDir(dir, durable.LockFile); err == nil {
		t.Error("the new one is not locked")
	}
	if _, _, err := scratchDir(filepath.Join(base, "nothing"), "p.", os.RemoveAll); !errors.Is(err, ErrSetup) {
		t.Errorf("no base: %v", err)
	}
}

func mkdir(t *testing.T, path string) string {
	t.Helper()
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}
