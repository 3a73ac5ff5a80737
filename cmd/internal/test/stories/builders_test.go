package stories

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"packmill/spool"
	"packmill/spool/upload/uploadtest"
)

// buildd runs one build daemon until nothing is left for it to do.
func (m *mill) buildd(args ...string) {
	m.Helper()
	cmd := exec.Command(filepath.Join(bin, "buildd"), append([]string{"--tree", m.tree, "--once"}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		m.Fatalf("buildd %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// queued uploads packages, in this order, and brings their jobs into the
// build queues.
func (m *mill) queued(packages ...uploadtest.Package) {
	m.Helper()
	for _, p := range packages {
		m.upload(p)
		m.once("reviewd")
	}
	m.once("master-buildd")
}

// builder writes control/builders: the one builder of newMill with these
// fields.
func (m *mill) builder(lines ...string) {
	m.Helper()
	old, err := os.ReadFile(filepath.Join(m.tree, "control/builders"))
	m.must(err)
	stanza, _, _ := strings.Cut(strings.Replace(string(old), "\nJobs: 2", "", 1), "\n#\n")
	m.control("builders", strings.TrimSpace(stanza)+"\n#\n"+strings.Join(lines, "\n"))
}

// order lists the sources in the order in which their builds began.
func (m *mill) order() (sources []string) {
	m.Helper()
	data, err := os.ReadFile(filepath.Join(m.home, "builds"))
	if err != nil && !os.IsNotExist(err) {
		m.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) == 4 && f[1] == "begin" {
			source, _, _ := strings.Cut(f[2], "_")
			sources = append(sources, source)
		}
	}
	return sources
}

// TestFilters: what a builder keeps to, and that why says it.
func TestFilters(t *testing.T) {
	m := newMill(t, "Components: main contrib")
	p := func(source, section string) uploadtest.Package {
		return uploadtest.Package{Source: source, Version: "1", Section: section, Distribution: "stable"}
	}
	m.queued(p("late", "misc"), p("alpha", "misc"), p("libalpha", "misc"), p("libold", "misc"), p("other", "contrib/misc"))
	why := func(source, want string) {
		t.Helper()
		if got := m.packmill("why", source); !strings.Contains(got, "b1: "+want) {
			t.Errorf("why %s:\n%s\nwant: b1: %s", source, got, want)
		}
	}
	built := func(want string) {
		t.Helper()
		m.buildd("--builder", "b1")
		if got := strings.Join(m.order(), " "); got != want {
			t.Errorf("built: %s\nwant: %s\n%s", got, want, m.packmill("ls"))
		}
	}
	m.builder("Jobs: 1", "Min-Age: 2h")
	why("alpha", "it must be 2h old (Min-Age); it is at 2")
	built("")
	m.builder("Jobs: 1", "Quiet: 00:00-12:00 12:00-00:00")
	why("alpha", "it is the builder's quiet time (Quiet) until ")
	built("")
	m.builder("Jobs: 1", "Suites: unstable")
	why("alpha", "it builds for unstable only")
	built("")
	m.builder("Jobs: 1", "Packages: /^lib.*[a-z]$/", "Not-Packages: *old")
	why("alpha", "not one of the builder's Packages")
	why("libold", "one of the builder's Not-Packages")
	why("libalpha", "takes it when it is its turn")
	built("libalpha")
	m.builder("Jobs: 1", "Components: contrib")
	why("alpha", "not one of the builder's Components")
	built("libalpha other")
	// The oldest waits until nothing else does.
	m.builder("Jobs: 1", "Last: /^late$/")
	why("late", "takes it when nothing else waits (Last)")
	built("libalpha other alpha libold late")
}

// TestManyArchitectures: one daemon builds what its builder's stanza has, Jobs
// at once; all of them meet, or the builds fail.
func TestManyArchitectures(t *testing.T) {
	m := newMill(t, "Architectures: amd64 i386")
	meet := filepath.Join(m.home, "meet")
	m.must(os.WriteFile(meet, []byte(fmt.Sprintf(`#!/bin/sh
: > %[1]s/met.$PACKMILL_ARCH
for i in $(seq 600); do
	[ -e %[1]s/met.amd64 ] && [ -e %[1]s/met.i386 ] && [ -e %[1]s/met.all ] && exec %[1]s/fakebuilder
	sleep 0.1
done
exit 2
`, m.home)), 0o755))
	builders, err := os.ReadFile(filepath.Join(m.tree, "control/builders"))
	m.must(err)
	m.control("builders", strings.NewReplacer("Jobs: 2", "Jobs: 3", m.home+"/fakebuilder", meet).Replace(string(builders)))
	m.queued(uploadtest.Package{Source: "three", Version: "1", Distribution: "stable"},
		uploadtest.Package{Source: "data", Version: "1", Distribution: "stable", Architecture: "all"})
	m.buildd("--builder", "b1")
	if got := m.builds(); len(got) != 3 || got["three_1_amd64"] != 1 || got["three_1_i386"] != 1 ||
		got["data_1_all"] != 1 {
		t.Errorf("builds: %v\n%s%s", got, m.packmill("ls"), m.logs())
	}
}

// TestJobs: never more builds at once than the builder's Jobs.
func TestJobs(t *testing.T) {
	t.Parallel()
	m := newMill(t)
	for i := range 3 {
		p := fmt.Sprintf("pkg%d", i)
		m.script(p+"_1_amd64", "sleep 1s")
		m.queued(uploadtest.Package{Source: p, Version: "1", Distribution: "stable"})
	}
	m.buildd("--builder", "b1") // Jobs: 2
	data, err := os.ReadFile(filepath.Join(m.home, "builds"))
	m.must(err)
	at, begun := 0, 0
	for line := range strings.Lines(string(data)) {
		switch strings.Fields(line)[1] {
		case "begin":
			at, begun = at+1, begun+1
		case "end":
			at--
		}
		if at > 2 {
			t.Fatalf("three at once:\n%s", data)
		}
	}
	if begun != 3 || at != 0 {
		t.Errorf("%d builds began and %d did not end:\n%s", begun, at, data)
	}
}

// TestJobsChange: how many builds there are at once follows the settings while the daemon runs, up and down; what runs
// goes on.
func TestJobsChange(t *testing.T) {
	t.Parallel()
	m := newMill(t)
	m.builder("Jobs: 1")
	var release func()
	for _, p := range []string{"one", "two", "three", "four"} {
		release = m.hold(p + "_1_amd64")
		m.queued(uploadtest.Package{Source: p, Version: "1", Distribution: "stable"})
	}
	log, err := os.Create(filepath.Join(m.home, "log"))
	m.must(err)
	defer log.Close()
	cmd := m.command(context.Background(), "buildd-amd64")
	cmd.Stderr = log
	m.must(cmd.Start())
	defer func() { cmd.Process.Signal(syscall.SIGTERM); cmd.Wait() }()
	began := func(n int) {
		t.Helper()
		m.until(fmt.Sprintf("%d builds began", n), func() bool { return len(m.builds()) == n })
		if got := len(m.found("", spool.Building)); got != n {
			t.Errorf("%d are in building, want %d", got, n)
		}
	}
	began(1)
	m.builder("Jobs: 3")
	began(3)
	m.builder("Jobs: 1")
	m.until("it knows", func() bool {
		text, err := os.ReadFile(log.Name())
		m.must(err)
		return strings.Count(string(text), "settings read again") == 2
	})
	release()
	m.until("all are built", func() bool { return len(m.found("", spool.NeedsBuild, spool.Building)) == 0 })
	data, err := os.ReadFile(filepath.Join(m.home, "builds"))
	m.must(err)
	if before, _, ok := strings.Cut(string(data), "begin four"); !ok || strings.Count(before, " end ") != 3 {
		t.Errorf("the fourth was begun beside others:\n%s", data)
	}
}

// TestResume: what a builder refused while it was paused it takes at once when a person lets it go on.
func TestResume(t *testing.T) {
	t.Parallel()
	m := newMill(t)
	m.packmill("builder", "pause", "b1")
	m.queued(uploadtest.Package{Source: "hello", Version: "1", Distribution: "stable"})
	log, err := os.Create(filepath.Join(m.home, "log"))
	m.must(err)
	defer log.Close()
	cmd := m.command(context.Background(), "buildd-amd64", "--debug")
	cmd.Stderr = log
	m.must(cmd.Start())
	defer func() { cmd.Process.Signal(syscall.SIGTERM); cmd.Wait() }()
	m.until("it refuses the job", func() bool {
		text, err := os.ReadFile(log.Name())
		m.must(err)
		return strings.Contains(string(text), "it takes nothing now")
	})
	m.packmill("builder", "resume", "b1")
	m.until("hello is built", func() bool { return len(m.found("hello", spool.NeedsBuild, spool.Building)) == 0 })
}

// TestSuspect: what failed in a way that may be the machine's fault is tried
// once more, by another builder.
func TestSuspect(t *testing.T) {
	m := newMill(t)
	builders, err := os.ReadFile(filepath.Join(m.tree, "control/builders"))
	m.must(err)
	m.control("builders", string(builders)+"\n"+strings.Replace(string(builders), "Name: b1", "Name: b2", 1))
	m.script("full_1_amd64", "fail write: No space left on device")
	m.queued(uploadtest.Package{Source: "full", Version: "1", Distribution: "stable"})
	begun := time.Now()
	m.buildd("--builder", "b1", "--arch", "amd64")
	if got := m.ticket("full", "Suspect"); got != "b1" {
		t.Errorf("Suspect: %q\n%s", got, m.packmill("ls"))
	}
	m.due("full", begun, time.Minute)
	m.script("full_1_amd64", "")
	m.buildd("--builder", "b1", "--arch", "amd64")
	if got := m.packmill("why", "full"); !strings.Contains(got, "b1: it came back from here, so b2 tries it") ||
		m.builds()["full_1_amd64"] != 1 {
		t.Errorf("on the same builder: %v\n%s", m.builds(), got)
	}
	m.buildd("--builder", "b2", "--arch", "amd64")
	m.want(m.where(), "master source full_1", "uploaded amd64 full_1")

	// Once, and not more; trouble of the builder in between is none of it.
	m.queued(uploadtest.Package{Source: "ever", Version: "1", Distribution: "stable"})
	for i, said := range []string{"trouble", "fail write: No space left on device",
		"fail write: No space left on device"} {
		m.script("ever_1_amd64", said)
		begun := time.Now()
		m.buildd("--builder", []string{"b2", "b1", "b2"}[i], "--arch", "amd64")
		if i < 2 {
			m.due("ever", begun, time.Minute<<i)
		}
	}
	if got := m.where(); !strings.Contains(got, "build-attempted amd64 ever_1") {
		t.Errorf("suspect twice: %s", got)
	}
	// What a person gives back goes to another builder; what one retries, to any.
	m.script("ever_1_amd64", "fail it")
	why := func(after string, want ...string) {
		t.Helper()
		got := m.packmill("why", "ever")
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("after %s: no %q in\n%s", after, w, got)
			}
		}
	}
	m.packmill("build", "giveback", "ever")
	why("giveback", "b1: takes it when it is its turn", "b2: it came back from here, so b1 tries it; if not by ")
	m.buildd("--builder", "b2", "--arch", "amd64")
	why("giveback, on the same builder", "b2: it came back from here")
	m.buildd("--builder", "b1", "--arch", "amd64")
	m.packmill("build", "retry", "ever")
	why("retry", "b1: takes it when it is its turn", "b2: takes it when it is its turn")
}

// TestDelay: trouble of a builder is tried again later and later, and comes to
// a person in the end.
func TestDelay(t *testing.T) {
	m := newMill(t, "Tries: 3")
	m.script("sick_1_amd64", "trouble")
	m.queued(uploadtest.Package{Source: "sick", Version: "1", Distribution: "stable"})
	for i := range 2 {
		begun := time.Now()
		m.buildd("--builder", "b1")
		m.buildd("--builder", "b1")
		if got := m.builds()["sick_1_amd64"]; got != i+1 {
			t.Fatalf("built %d times; want %d", got, i+1)
		}
		m.due("sick", begun, time.Minute<<i)
	}
	m.buildd("--builder", "b1")
	if got := m.where(); !strings.Contains(got, "build-attempted amd64 sick_1") {
		t.Errorf("after three: %s", got)
	}
}

// TestLimits: the limits that a suite and a builder have for some packages hold
// for their builds and for no other, and people hear which was reached.
func TestLimits(t *testing.T) {
	m := newMill(t, "Limits: sleeps Timeout=1s")
	m.builder("Jobs: 1", "Limits: floods Max-Log=64K")
	said := filepath.Join(m.home, "said")
	m.must(os.WriteFile(said, bytes.Repeat([]byte("x\n"), 64<<10), 0o644))
	m.script("sleeps_1_amd64", "wait "+filepath.Join(m.home, "never"))
	for _, p := range []string{"floods", "talks"} {
		m.script(p+"_1_amd64", "print "+said)
	}
	for _, p := range []string{"sleeps", "floods", "talks"} {
		m.queued(uploadtest.Package{Source: p, Version: "1", Distribution: "stable"})
	}
	m.buildd("--builder", "b1")
	if got := m.where(); !strings.Contains(got, "uploaded amd64 talks_1") {
		t.Errorf("without a limit:\n%s", got)
	}
	for p, want := range map[string]string{"sleeps": "limit of time", "floods": "its log reached"} {
		if got := m.packmill("why", p); !strings.Contains(got, "build-attempted") || !strings.Contains(got, want) {
			t.Errorf("why %s: no %q in\n%s", p, want, got)
		}
	}
}

// TestCounted: an attempt stands on disk before it begins, so that a package
// that ends its builder each time comes to a person.
func TestCounted(t *testing.T) {
	t.Parallel()
	m := newMill(t, "Tries: 2")
	m.script("kills_1_amd64", "wait "+filepath.Join(m.home, "never"))
	m.queued(uploadtest.Package{Source: "kills", Version: "1", Distribution: "stable"})
	b := m.start("buildd-amd64")
	for i := range 2 {
		m.until("it is being built", func() bool { return m.builds()["kills_1_amd64"] == i+1 })
		b.kill()
	}
	m.until("it came to a person", func() bool { return strings.Contains(m.where(), "build-attempted amd64 kills_1") })
	if got := m.packmill("why", "kills"); !strings.Contains(got, "its builder (buildd-amd64) is gone (2 attempts)") {
		t.Errorf("why:\n%s", got)
	}
}

// ticket is a field of the ticket of the one waiting job of a source.
func (m *mill) ticket(source, field string) string {
	m.Helper()
	data, err := os.ReadFile(filepath.Join(m.item(spool.NeedsBuild, source), "ticket"))
	m.must(err)
	for line := range strings.Lines(string(data)) {
		if v, ok := strings.CutPrefix(line, field+": "); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// due checks that a job waits for so long, counted from a moment since begun,
// and ends the waiting.
func (m *mill) due(source string, begun time.Time, wait time.Duration) {
	m.Helper()
	at, err := time.Parse(time.RFC3339Nano, m.ticket(source, "Not-Before"))
	m.must(err)
	if at.Before(begun.Add(wait).Truncate(time.Second)) || at.After(time.Now().Add(wait)) {
		m.Errorf("tried again at %v, given back between %v and now; want %v later", at, begun, wait)
	}
	path := filepath.Join(m.item(spool.NeedsBuild, source), "ticket")
	data, err := os.ReadFile(path)
	m.must(err)
	old := []byte("Not-Before: " + m.ticket(source, "Not-Before"))
	m.must(os.WriteFile(path,
		bytes.Replace(data, old, []byte("Not-Before: "+time.Now().Add(-time.Minute).UTC().Format(time.RFC3339)), 1), 0o664))
}

// TestRebuildRefuses: what cannot be compared is refused with the reason.
func TestRebuildRefuses(t *testing.T) {
	m := newMill(t)
	m.upload(uploadtest.Package{Source: "hello", Version: "1", Distribution: "stable"})
	m.settle()
	for args, want := range map[string]string{
		"hello":                     "exit status 100: say --check",
		"--check nothing":           "exit status 1: nothing that was built and published here is called nothing",
		"--check hello -a i386":     "exit status 1: nothing that was built and published here is called hello",
		"--check hello":             "exit status 1: hello_1 for amd64 has no .buildinfo",
		"--check hello --builder x": "exit status 1: no builder of control/builders can build hello_1 for amd64 here",
	} {
		out, err := m.try(append([]string{"rebuild"}, strings.Fields(args)...)...)
		status, text, _ := strings.Cut(want, ": ")
		if err == nil || err.Error() != status || !strings.Contains(out, text) {
			t.Errorf("rebuild %s: %v: %s; want %s", args, err, out, want)
		}
	}
	m.sound()
}

// What fells three builds in one moment is one trouble: the builder rests, and goes on.
func TestOneTrouble(t *testing.T) {
	t.Parallel()
	m := newMill(t, "Tries: 1")
	m.builder("Jobs: 3", "Pause: 1s")
	end := filepath.Join(m.home, "end")
	for _, p := range []string{"bada", "badb", "badc"} {
		m.script(p+"_1.0_amd64", "wait "+end+"\ntrouble")
		m.upload(uploadtest.Package{Source: p, Version: "1.0"})
	}
	m.step("reviewd", "master-buildd")
	m.start("buildd-amd64")
	m.until("all three are being built", func() bool { return strings.Count(m.where(), "building amd64") == 3 })
	m.must(os.WriteFile(end, nil, 0o644))
	m.until("all three have fallen", func() bool { return strings.Count(m.where(), "build-attempted amd64") == 3 })
	m.upload(uploadtest.Package{Source: "good", Version: "1.0"})
	m.step("reviewd", "master-buildd")
	m.until("the next is built", func() bool { return strings.Contains(m.where(), "uploaded amd64 good_1.0") })
}

// TestWithoutKey: a builder that could not sign takes nothing, and says so before it has built in vain.
func TestWithoutKey(t *testing.T) {
	t.Parallel()
	m := newMill(t)
	key, away := filepath.Join(m.tree, "control/private/builder.key"), filepath.Join(m.home, "key")
	m.must(os.Rename(key, away))
	m.upload(uploadtest.Package{Source: "hello", Version: "1.0"})
	m.once("reviewd")
	m.once("master-buildd")
	log, err := m.command(t.Context(), "buildd-amd64", "--once").CombinedOutput()
	m.must(err)
	m.says(string(log), "level=ERROR", "this machine cannot build", "builder.key")
	if n := m.builds()["hello_1.0_amd64"]; n != 0 {
		t.Errorf("it was built %d times", n)
	}
	m.must(os.Rename(away, key))
	m.want(m.settle(), "installed amd64 hello_1.0", "installed source hello_1.0")
}
