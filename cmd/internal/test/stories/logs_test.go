package stories

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"packmill/queue/buildlog"
	"packmill/spool"
	"packmill/spool/upload/uploadtest"
)

// cold lists the cold store, the newest log first.
func (m *mill) cold() []buildlog.Build {
	m.Helper()
	all, err := buildlog.Store{Dir: filepath.Join(m.tree, "logs")}.Logs(buildlog.Filter{})
	m.must(err)
	return all
}

// What a failed build said first is in its item, in what people are shown, and
// in the record; its log is in the cold store and plain in the item.
func TestFirstError(t *testing.T) {
	t.Parallel()
	m := newMill(t)
	said := filepath.Join(m.home, "said")
	m.must(os.WriteFile(said,
		[]byte("cc -c frob.c\nfrob.c:12:3: error: expected ';' before \x1b]0;owned\x07'}'\n"+
			"make: *** [Makefile:2: frob.o] Error 1\n"), 0o644))
	m.script("hello_1.0_amd64", "print "+said+"\nfail it")
	m.upload(uploadtest.Package{Source: "hello", Version: "1.0"})
	m.want(m.settle(), "build-attempted amd64 hello_1.0", "installed source hello_1.0")

	want := `frob.c:12:3: error: expected ';' before \x1b]0;owned\x07'}'`
	for _, args := range [][]string{{"why", "hello"}, {"show", "hello"}, {"show", "hello", "--json"}} {
		out := m.packmill(args...)
		text := want
		if args[len(args)-1] == "--json" {
			quoted, _ := json.Marshal(want)
			text = string(quoted[1 : len(quoted)-1])
		}
		if !strings.Contains(out, text) || strings.Contains(out, "\x1b") {
			t.Errorf("packmill %q:\n%q\nwant %q", args, out, text)
		}
	}
	item := m.item(spool.BuildAttempted, "hello")
	if got := buildlog.ErrorAt(item); !strings.HasPrefix(got, "first error (compiler), line ") ||
		!strings.Contains(got, "  > "+want+"\n") {
		t.Errorf("first-error: %q", got)
	}
	builds, err := buildlog.BuildsAt(item)
	if err != nil || len(builds) != 1 {
		t.Fatalf("builds: %+v, %v", builds, err)
	}
	b := builds[0]
	if b.Outcome != buildlog.Attempted || b.Error == nil || b.Error.Text != want || b.Wall <= 0 || b.CPU <= 0 ||
		b.Wait <= 0 || b.Overhead <= 0 || b.Size == 0 || b.Builder != "buildd-amd64" {
		t.Errorf("the record: %+v", b)
	}
	plain, err := os.ReadFile(filepath.Join(item, "log"))
	m.must(err)
	stored := m.cold()
	if len(stored) != 1 || stored[0].Log != b.Log || !stored[0].Start.Equal(b.Start) {
		t.Fatalf("the cold store: %+v, want the log %q", stored, b.Log)
	}
	if got := readAll(t, filepath.Join(m.tree, "logs", b.Log)); got != string(plain) {
		t.Errorf("the cold log: %q, want %q", got, plain)
	}
	m.sound()

	// Tried again with success, nothing is left of the error.
	m.script("hello_1.0_amd64", "")
	m.packmill("requeue", "hello_1.0")
	m.want(m.settle(), "installed amd64 hello_1.0", "installed source hello_1.0")
	// The archive's record keeps no plain log: the cold store has both.
	if plain, _ := filepath.Glob(filepath.Join(m.tree, "archive/installed/stable/amd64/h/*/log*")); len(plain) != 0 {
		t.Errorf("installed items have plain logs: %v", plain)
	}
	if stored := m.cold(); len(stored) != 2 || stored[0].Outcome != buildlog.Good {
		t.Errorf("the cold store: %+v", stored)
	}
	if out := m.packmill("why", "hello"); strings.Contains(out, "expected ';'") {
		t.Errorf("packmill why still tells of the error:\n%s", out)
	}
	m.sound()
}

// follow starts packmill log -f and returns what it prints, and how it ends.
func (m *mill) follow(args ...string) (out *safeBuffer, end func() int) {
	m.Helper()
	cmd := exec.Command(filepath.Join(bin, "packmill"), append([]string{"--tree", m.tree, "log", "-f"}, args...)...)
	out = &safeBuffer{}
	cmd.Stdout, cmd.Stderr = out, out
	m.must(cmd.Start())
	m.Cleanup(func() { cmd.Process.Kill() })
	return out, func() int {
		cmd.Wait()
		return cmd.ProcessState.ExitCode()
	}
}

// safeBuffer is a buffer that one goroutine fills while another looks.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// A log is followed from before the build begins until it ends, escaped; the
// exit status tells the outcome. What runs is searched with what has ended.
func TestFollow(t *testing.T) {
	t.Parallel()
	m := newMill(t)
	said, release := filepath.Join(m.home, "said"), filepath.Join(m.home, "release")
	m.must(os.WriteFile(said, []byte("before \x1b[2J\x00\u202e "+strings.Repeat("y", 3<<20)+" the needle\nlast words\n"),
		0o644))
	m.script("hello_1.0_amd64", "print "+said+"\nwait "+release)
	m.script("world_1.0_amd64", "print "+said+"\nfail it")
	m.upload(uploadtest.Package{Source: "hello", Version: "1.0"})
	m.upload(uploadtest.Package{Source: "world", Version: "1.0"})
	m.once("reviewd")
	m.once("master-buildd")
	out, end := m.follow("hello")
	m.until("it says that hello waits", func() bool {
		return strings.Contains(out.String(), "hello_1.0 waits in queue/stable/amd64/needs-build")
	})
	m.start("buildd-amd64")
	m.until("the log comes while it is built", func() bool { return strings.Contains(out.String(), "last words\n") })
	m.until("the other build has failed", func() bool {
		return strings.Contains(m.where(), "build-attempted amd64 world_1.0")
	})

	// The one runs, the other lies in the cold store.
	for _, tc := range []struct {
		want []string
		args []string
	}{
		{[]string{"hello_1.0_amd64 running", "world_1.0_amd64 attempted"}, []string{"needle"}},
		{[]string{"world_1.0_amd64 attempted"},
			[]string{"--state", "failed", "--since", "1d", "-s", "stable", "-a", "amd64", "NEEDLE", "-i"}},
		{[]string{"hello_1.0_amd64 running"}, []string{"-F", "the needle", "hello"}},
		{nil, []string{"-a", "i386", "needle"}},
		{nil, []string{"--state", "built", "needle"}},
	} {
		text, err := m.try(append([]string{"log", "grep", "--json"}, tc.args...)...)
		var got []string
		for line := range strings.Lines(text) {
			var x struct{ Source, Version, Arch, Outcome, Text string }
			if json.Unmarshal([]byte(line), &x) == nil && x.Source != "" {
				got = append(got, fmt.Sprintf("%s_%s_%s %s", x.Source, x.Version, x.Arch, x.Outcome))
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, tc.want) || (err == nil) != (len(tc.want) > 0) {
			t.Errorf("log grep %q: got %q, %v; want %q\n%s", tc.args, got, err, tc.want, tail(text))
		}
	}
	if ls := m.packmill("log", "ls"); !strings.Contains(ls, "running") || !strings.Contains(ls, "attempted, wall") ||
		!strings.Contains(ls, "hello") {
		t.Errorf("log ls:\n%s", ls)
	}

	m.must(os.WriteFile(release, nil, 0o644))
	if status := end(); status != 0 {
		t.Errorf("log -f of a good build ended with %d\n%s", status, tail(out.String()))
	}
	if got := out.String(); !strings.Contains(got, `before \x1b[2J\x00\u{202e} yyy`) || strings.ContainsAny(got, "\x1b\x00\u202e") || !strings.Contains(got, "hello_1.0 on amd64: good") {
		t.Errorf("log -f showed %q ... %q", got[:min(len(got), 300)], tail(got))
	}
	// One that has ended is printed, and its status is the same.
	out, end = m.follow("world")
	if status := end(); status != 2 || !strings.Contains(out.String(), "last words") {
		t.Errorf("log -f of a failed build ended with %d\n%s", status, tail(out.String()))
	}
	if got := m.packmill("log", "hello_1.0", "amd64"); strings.ContainsAny(got, "\x1b\x00\u202e") ||
		!strings.Contains(got, "last words\n") {
		t.Errorf("packmill log: %q", tail(got))
	}
	if out, err := m.try("log", "nothing"); err == nil || !strings.Contains(out, "there is no log of nothing") {
		t.Errorf("packmill log nothing: %v\n%s", err, out)
	}
}

// What a person cancels ends, with everything that it started, and its source
// goes on; mv brings it back.
func TestCancel(t *testing.T) {
	t.Parallel()
	m := newMill(t)
	never := filepath.Join(m.home, "never")
	m.script("hello_1.0_amd64", "wait "+never)
	m.script("moved_1.0_amd64", "wait "+never)
	for _, p := range []string{"hello", "moved", "waits"} {
		m.upload(uploadtest.Package{Source: p, Version: "1.0"})
	}
	m.once("reviewd")
	m.once("master-buildd")
	m.packmill("cancel", "waits", "amd64", "-m", "not wanted")
	m.start("buildd-amd64")
	m.until("both are being built",
		func() bool { b := m.builds(); return b["hello_1.0_amd64"] == 1 && b["moved_1.0_amd64"] == 1 })
	if out := m.packmill("cancel", "hello", "amd64", "--dry-run"); !strings.Contains(out,
		"would do hello_1.0 on amd64: building -> attic") {
		t.Errorf("cancel --dry-run: %s", out)
	}
	out, end := m.follow("hello")
	if got := m.packmill("cancel", "hello", "amd64", "-m", "the wrong branch"); !strings.Contains(got,
		"hello_1.0 on amd64: building -> attic") {
		t.Errorf("cancel: %s", got)
	}
	if status := end(); status != 4 || !strings.Contains(out.String(), "the wrong branch") {
		t.Errorf("log -f of a cancelled build ended with %d\n%s", status, out)
	}
	// A person's mv ends a build as well.
	item := m.item(spool.Building, "moved")
	m.must(os.Rename(item, filepath.Join(m.tree, "attic", filepath.Base(item)+"_amd64")))
	m.until("nothing of either build is left", func() bool {
		data, err := os.ReadFile(filepath.Join(m.home, "builds"))
		m.must(err)
		for line := range strings.Lines(string(data)) {
			f := strings.Fields(line)
			cmdline, err := os.ReadFile("/proc/" + f[3] + "/cmdline")
			if err == nil && strings.Contains(string(cmdline), m.home) {
				return false
			}
		}
		_, err = os.Lstat(filepath.Join(m.item(spool.Attic, "moved"), "work"))
		return os.IsNotExist(err)
	})
	for p, want := range map[string]string{"hello": "the wrong branch", "waits": "not wanted"} {
		if show := m.packmill("show", p); !strings.Contains(show, "Cancelled by ") || !strings.Contains(show, want) {
			t.Errorf("packmill show %s:\n%s", p, show)
		}
	}
	if stored := m.cold(); len(stored) != 1 || stored[0].Outcome != buildlog.Cancelled {
		t.Errorf("the cold store: %+v", stored)
	}
	// No other job is made of what was cancelled, by mv too.
	m.script("hello_1.0_amd64", "")
	m.script("moved_1.0_amd64", "")
	m.want(m.settle(), "attic amd64 hello_1.0", "attic amd64 moved_1.0", "attic amd64 waits_1.0",
		"installed source hello_1.0", "installed source moved_1.0", "installed source waits_1.0")
	for _, tc := range [][]string{{"hello", "i386"}, {"nothing", "amd64"}} {
		if out, err := m.try("cancel", tc[0], tc[1]); err == nil {
			t.Errorf("cancel %q was not refused: %s", tc, out)
		}
	}
	// The way back that REASON names.
	_, back, ok := strings.Cut(m.packmill("show", "hello"), "mv it to ")
	back, _, _ = strings.Cut(back, "\n")
	if !ok {
		t.Fatal("REASON names no way back")
	}
	for _, f := range m.found("hello") {
		if f.Place.State == spool.Attic {
			m.must(os.Rename(filepath.Join(m.tree, f.Dir()), filepath.Join(m.tree, strings.TrimSpace(back))))
		}
	}
	m.until("it was built", func() bool { return strings.Contains(m.settle(), "installed amd64 hello_1.0") })
	if out, err := m.try("cancel", "hello", "amd64"); err == nil || !strings.Contains(out, "packmill archive rm") {
		t.Errorf("cancel of what is in the archive: %v, %s", err, out)
	}
	m.sound()
}

// Old logs go by the setting, and the numbers of their builds stay.
func TestKeepLogs(t *testing.T) {
	t.Parallel()
	m := newMill(t)
	m.control("general", "Keep-Logs: 30d")
	m.upload(uploadtest.Package{Source: "hello", Version: "1.0"})
	m.settle()
	stored := m.cold()
	if len(stored) != 1 {
		t.Fatalf("the cold store: %+v", stored)
	}
	today := filepath.Join(m.tree, "logs", stored[0].Start.Format("2006-01-02"))
	m.must(os.CopyFS(filepath.Join(m.tree, "logs/2001-01-01"), os.DirFS(today)))
	m.once("reviewd")
	if got := m.cold(); len(got) != 1 || !got[0].Start.Equal(stored[0].Start) {
		t.Errorf("after the sweep: %+v", got)
	}
	if _, err := os.Stat(filepath.Join(m.tree, "logs/2001-01-01/stable/builds")); err != nil {
		t.Error(err)
	}
	m.sound()
}

// What waits is estimated by what was built, and a builder that is set aside
// says so where people ask why nothing is built.
func TestWhyNobodyBuilds(t *testing.T) {
	t.Parallel()
	m := newMill(t, "Tries: 1")
	why := func(want ...string) {
		t.Helper()
		got := m.packmill("why", "hello_1.1")
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("packmill why: no %q in\n%s", w, got)
			}
		}
	}
	sink := m.sink()
	m.upload(uploadtest.Package{Source: "hello", Version: "1.0"})
	m.settle()
	m.letters(sink)
	for _, p := range []string{"bada", "badb", "badc"} {
		m.script(p+"_1.0_amd64", "trouble")
		m.upload(uploadtest.Package{Source: p, Version: "1.0"})
	}
	m.upload(uploadtest.Package{Source: "hello", Version: "1.1"})
	m.once("reviewd")
	m.once("master-buildd")
	m.packmill("wb", "bp", "-500", "hello_1.1", ".", "amd64") // behind the others
	why("b1: takes it when it is its turn; but no daemon of it runs: start buildd --arch amd64 --builder b1",
		"before it:  3")
	// How long is not the test's to know.
	for _, tc := range []struct{ command, want string }{
		{"why hello_1.1", `takes:      about \d+ (s|min)\n`},
		{"ls hello_1.1", `about \d+ (s|min), 3 before it`},
		{"status", `about \d+ (s|min) of builds`},
	} {
		if got := m.packmill(strings.Fields(tc.command)...); !regexp.MustCompile(tc.want).MatchString(got) {
			t.Errorf("packmill %s: no %q in\n%s", tc.command, tc.want, got)
		}
	}
	var r struct {
		Ahead    int
		Estimate float64 `json:"estimate_s"`
	}
	if err := json.Unmarshal([]byte(m.packmill("ls", "hello_1.1", "-s", "needs-build", "--json")), &r); err != nil ||
		r.Ahead != 3 || r.Estimate <= 0 {
		t.Errorf("packmill ls --json: %+v, %v", r, err)
	}
	path := filepath.Join(m.tree, "control/builders")
	text, err := os.ReadFile(path)
	m.must(err)
	m.control("builders", strings.Replace(string(text), "Jobs: 2", "Jobs: 1\nPause: 0s", 1))
	m.start("buildd-amd64")
	m.until("the builder is set aside", func() bool { return strings.Contains(m.packmill("status"), "takes nothing now") })
	why("but buildd-amd64 takes nothing now: this builder is set aside until ",
		"3 different packages in a row failed here without a verdict (bada, badb, badc)",
		"; nobody is mailed of that: there is no Email in the stanza b1 of control/builders")
	if got := m.letters(sink); len(got) != 0 {
		t.Errorf("letters to nobody: %+v", got)
	}
	// Somebody is named now, and hears of it from the daemon that runs.
	m.control("builders", string(text)+"Email: Ann <ann@example.org>")
	var got []letter // without those of the event failed, which come to her too, before it or after
	m.until("a mail", func() bool {
		for _, l := range m.letters(sink) {
			if l.header.Get("X-Packmill-Event") == "aside" {
				got = append(got, l)
			}
		}
		return len(got) > 0
	})
	if len(got) != 1 || got[0].subject != "Builder b1 is set aside (buildd-amd64)" || got[0].to[0] != "ann@example.org" {
		t.Errorf("letters of the one that runs: %+v", got)
	}
	m.until("status does not say that nobody is mailed", func() bool {
		return !strings.Contains(m.packmill("status"), "nobody is mailed")
	})
	// Who had a job is forgotten when it is tried again.
	m.packmill("requeue", "bada")
	data, err := os.ReadFile(filepath.Join(m.item(spool.NeedsBuild, "bada"), "ticket"))
	m.must(err)
	if strings.Contains(string(data), "\nBuilder:") || strings.Contains(string(data), "\nTries:") {
		t.Errorf("after requeue:\n%s", data)
	}
}

// Who looks after a builder hears once that it was set aside, and once that it
// is back, over restarts of the daemon and a mail system that fails.
func TestMailAside(t *testing.T) {
	t.Parallel()
	m := newMill(t, "Tries: 1")
	sink := m.sink()
	settings, err := os.ReadFile(filepath.Join(m.tree, "control/builders"))
	m.must(err)
	m.control("builders", string(settings)+"Email: ann@example.org")
	working, err := os.ReadFile(filepath.Join(m.tree, "control/notify"))
	m.must(err)
	build := func(orders string, sources ...string) {
		t.Helper()
		for _, p := range sources {
			m.script(p+"_1.0_amd64", orders)
			m.upload(uploadtest.Package{Source: p, Version: "1.0"})
		}
		m.once("reviewd")
		m.once("master-buildd")
		m.once("buildd-amd64") // each time another process
	}
	// Beside them go those of the event failed, to the builder too.
	heard := func(want ...string) string {
		t.Helper()
		var got []string
		text := ""
		for _, l := range m.letters(sink) {
			if l.header.Get("X-Packmill-Event") == "aside" {
				got = append(got, strings.Join(l.to, " ")+": "+l.subject)
				text += l.header.Get("From") + "\n" + l.text
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("heard %q, want %q", got, want)
		}
		return text
	}
	m.control("notify", "Event: failed\nTo: builder\nVia: /bin/false")
	build("trouble", "bada", "badb", "badc")
	heard()
	m.control("notify", string(working))
	build("print /dev/null", "good")
	heard() // what was over before anybody could hear of it
	build("trouble", "badd", "bade", "badf")
	text := heard("ann@example.org: Builder b1 is set aside (buildd-amd64)")
	for _, want := range []string{"builds@example.org", "buildd-amd64 of the builder b1 on ",
		"3 different packages in a row", "start the daemon again"} {
		if !strings.Contains(text, want) {
			t.Errorf("the mail says no %q:\n%s", want, text)
		}
	}
	build("trouble", "badg", "badh", "badi") // started again, and set aside again
	heard()
	build("fail it", "faulty") // a verdict
	heard("ann@example.org: Builder b1 is back (buildd-amd64)")
	build("print /dev/null", "fine")
	heard()
	if left, _ := filepath.Glob(filepath.Join(m.tree, "builders/*")); len(left) != 0 {
		t.Errorf("left of it: %q", left)
	}
	m.sound()
}

// A build whose packages need those of its source's build for all waits in the archive
// queue while that has failed, and packmill why says so.
func TestWhyWaitsForAll(t *testing.T) {
	t.Parallel()
	m := newMill(t, "Publish: source-first")
	m.script("app_1.0_amd64", "only app\ndepends app-data (= 1.0)")
	m.script("app_1.0_all", "fail it")
	m.upload(uploadtest.Package{Source: "app", Version: "1.0", Binary: []string{"app", "app-data"},
		All: []string{"app-data"}})
	m.has(m.settle(), "uploaded amd64 app_1.0", "build-attempted all app_1.0")
	why := m.packmill("why", "app")
	for _, want := range []string{"app-data, without which apt cannot install", "all: build-attempted"} {
		if !strings.Contains(why, want) {
			t.Errorf("no %q in\n%s", want, why)
		}
	}
	m.script("app_1.0_all", "only app-data")
	m.wb("gb app . all")
	m.has(m.settle(), "installed amd64 app_1.0", "installed all app_1.0")
	// Built again, it asks for what nobody makes.
	m.script("app_1.0_amd64", "only app\ndepends app-data (= 1.0+b1)")
	m.wb("nmu app . amd64 . -m 'Rebuild'")
	m.has(m.settle(), "uploaded amd64 app_1.0")
	why = m.packmill("why", "app")
	cure := "packmill wb fail app . amd64 . stable"
	for _, want := range []string{"app-data (= 1.0+b1), which nobody makes", cure} {
		if !strings.Contains(strings.Join(strings.Fields(why), " "), want) {
			t.Errorf("no %q in\n%s", want, why)
		}
	}
	m.packmill(append(strings.Fields(cure)[1:], "-m", "not made for it")...)
	m.has(m.settle(), "failed amd64 app_1.0", "installed all app_1.0")
	m.sound()
}
