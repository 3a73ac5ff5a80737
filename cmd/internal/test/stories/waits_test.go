package stories

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"packmill/queue/runner/overlay"
	"packmill/spool/upload/uploadtest"
)

// A suite is built on another repository, which apt fetches and verifies: what
// it lacks is known before a builder tries, directly and deep down
// (dose-builddebcheck), and what has come to it lets the jobs go on.
func TestBase(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	t.Parallel()
	base := newMill(t)
	base.script("libdeep_1.0_amd64", "depends ghost")
	base.upload(uploadtest.Package{Source: "libbase", Version: "1.0"})
	base.upload(uploadtest.Package{Source: "libdeep", Version: "1.0"})
	base.settle()

	m := newMill(t, "Publish: source-first",
		fmt.Sprintf("Base: deb [signed-by=%[1]s/archive/keys/stable.asc] file:%[1]s/archive stable main", base.tree))
	m.script("stubborn_1.0_amd64", "dep-wait libbase (>= 1.0)") // as if the builder saw it otherwise
	for source, needs := range map[string]string{"fine": "libbase (>= 1.0)", "far": "libbase (>= 2.0)", "deep": "libdeep",
		"first": "libnone | libbase", "stubborn": "libbase"} {
		m.upload(uploadtest.Package{Source: source, Version: "1.0", BuildDepends: needs})
	}
	got := m.settle()
	for _, want := range []string{"installed amd64 fine_1.0", "bd-uninstallable amd64 far_1.0",
		"bd-uninstallable amd64 deep_1.0", "bd-uninstallable amd64 first_1.0"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	for source, want := range map[string]string{"far": "libbase (>= 2.0)", "deep": "ghost", "first": "libnone"} {
		if why := m.packmill("why", source); !strings.Contains(why, want) {
			t.Errorf("why %s: no %q in\n%s", source, want, why)
		}
		if n := m.builds()[source+"_1.0_amd64"]; n != 0 {
			t.Errorf("%s was tried %d times", source, n)
		}
	}
	// The builder may have seen an older index, so what failed is tried once
	// more on the one that is known here, and then only on another.
	if n, why := m.builds()["stubborn_1.0_amd64"], m.packmill("why", "stubborn"); n < 2 || n > 3 ||
		!strings.Contains(why, "it is tried again when one of them changes") {
		t.Errorf("stubborn was tried %d times on two indexes:\n%s", n, why)
	}
	base.upload(uploadtest.Package{Source: "libdeep", Version: "1.1"})
	base.upload(uploadtest.Package{Source: "libbase", Version: "2.0"})
	base.settle()

	m.script("stubborn_1.0_amd64", "")
	// The next fetch, of this hour.
	m.must(os.Remove(filepath.Join(m.tree, "archive/cache/base/stable/amd64/fetched")))
	got = m.settle()
	for _, want := range []string{"installed amd64 far_1.0", "installed amd64 deep_1.0",
		"bd-uninstallable amd64 first_1.0", "installed amd64 stubborn_1.0"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s\n%s", want, got, m.packmill("ls"))
		}
	}
	m.sound()
}

// Another suite of the same tree as Base is read when it is published, not an hour later.
func TestOwnSuiteAsBase(t *testing.T) {
	t.Parallel()
	m := newMill(t)
	m.control("suites", m.suites()+"\nSuite: testing\nArchitectures: amd64\nReview: never\n"+
		"Sign-With: private/archive.key\n"+
		fmt.Sprintf("Base: deb [signed-by=%[1]s/archive/keys/stable.asc] file:%[1]s/archive stable main", m.tree))
	m.upload(uploadtest.Package{Source: "libbase", Version: "1.0"})
	m.settle()
	m.upload(uploadtest.Package{Source: "app", Version: "1.0", Distribution: "testing", BuildDepends: "libbase (>= 2.0)"})
	m.has(m.settle(), "bd-uninstallable amd64 app_1.0")
	m.upload(uploadtest.Package{Source: "libbase", Version: "2.0"})
	m.has(m.settle(), "installed amd64 app_1.0")
}

// A suite that clients take nothing of by themselves (Not-Automatic) builds against its own
// newer packages all the same, and not against such a suite of its Base: as apt decides in
// the build, by the same preferences, so it is judged before.
func TestNotAutomatic(t *testing.T) {
	t.Parallel()
	below := newMill(t)
	below.control("suites",
		below.suites()+"\nSuite: backports\nArchitectures: amd64\nReview: never\nSign-With: private/archive.key\n"+
			"Not-Automatic: yes")
	below.upload(uploadtest.Package{Source: "libfoo", Version: "1.0"})
	below.upload(uploadtest.Package{Source: "libfoo", Version: "3.0", Distribution: "backports"})
	below.settle()
	line := "deb [signed-by=%[1]s/archive/keys/%[2]s.asc] file:%[1]s/archive %[2]s main"
	lines := fmt.Sprintf(line, below.tree, "stable") + "\n" + fmt.Sprintf(line, below.tree, "backports")
	m := newMill(t, "Not-Automatic: yes", "Label: Ours", "Base: "+strings.ReplaceAll(lines, "\n", "\n "))
	m.upload(uploadtest.Package{Source: "libfoo", Version: "2.0"})
	m.settle()
	m.upload(uploadtest.Package{Source: "app", Version: "1.0", BuildDepends: "libfoo (>= 2.0)"})
	m.upload(uploadtest.Package{Source: "far", Version: "1.0", BuildDepends: "libfoo (>= 3.0)"})
	m.has(m.settle(), "installed amd64 app_1.0", "bd-uninstallable amd64 far_1.0")
	if n := m.builds()["far_1.0_amd64"]; n != 0 {
		t.Errorf("far was tried %d times", n)
	}
	// A build sees our archive as files, and the Base so, or by its address.
	web := httptest.NewServer(http.FileServer(http.Dir(below.tree + "/archive")))
	defer web.Close()
	own := "\n" + fmt.Sprintf(line, m.tree, "stable")
	for _, base := range []string{lines, strings.ReplaceAll(lines, "file:"+below.tree+"/archive", web.URL)} {
		for preferences, want := range map[string]string{overlay.Preferences("a=stable,n=stable,l=Ours"): "2.0", "": "1.0"} {
			if got := candidate(t, base+own, preferences, "libfoo"); got != want {
				t.Errorf("apt with the preferences %q and %s takes libfoo %s, want %s", preferences, base, got, want)
			}
		}
	}
	m.sound()
}

// aptOf are the options of an apt with a state of its own, which knows these lines and preferences, after its update.
func aptOf(t *testing.T, lines, preferences string, archs ...string) []string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for file, text := range map[string]string{"list": lines + "\n", "preferences": preferences, "status": ""} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	options := []string{"-o", "Dir::State=" + dir, "-o", "Dir::State::lists=" + dir + "/lists", "-o",
		"Dir::State::status=" + dir + "/status", "-o", "Dir::Cache=" + dir + "/cache",
		"-o", "Dir::Etc::sourcelist=" + dir + "/list", "-o", "Dir::Etc::sourceparts=-", "-o",
		"Dir::Etc::preferences=" + dir + "/preferences", "-o", "Dir::Etc::preferencesparts=-",
		"-o", "APT::Architecture=" + archs[0], "-o", "APT::Architectures=" + strings.Join(archs, ","), "-o",
		"APT::Sandbox::User=", "-o", "Acquire::Languages=none"}
	aptRun(t, options, "apt-get", "update")
	return options
}

// aptRun runs one of apt's programs so.
func aptRun(t *testing.T, options []string, argv ...string) string {
	t.Helper()
	out, err := exec.Command(argv[0], append(argv[1:len(argv):len(argv)], options...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", argv, err, out)
	}
	return string(out)
}

// candidate is the version that apt would install, by these lines and preferences.
func candidate(t *testing.T, lines, preferences, name string) string {
	t.Helper()
	out := aptRun(t, aptOf(t, lines, preferences, "amd64"), "apt-cache", "policy", name)
	_, rest, _ := strings.Cut(out, "Candidate: ")
	version, _, _ := strings.Cut(rest, "\n")
	return version
}

// Sources that need each other's packages are said to be a ring, and nobody
// tries them round and round.
func TestRing(t *testing.T) {
	t.Parallel()
	m := newMill(t, "Publish: source-first")
	m.upload(uploadtest.Package{Source: "egg", Version: "1.0", BuildDepends: "hen"})
	m.upload(uploadtest.Package{Source: "hen", Version: "1.0", BuildDepends: "egg"})
	m.upload(uploadtest.Package{Source: "cock", Version: "1.0", BuildDepends: "hen"})
	got := m.settle()
	if strings.Count(got, "bd-uninstallable amd64 ")+strings.Count(got, "dep-wait amd64 ") != 3 {
		t.Errorf("not all of them wait:\n%s", got)
	}
	why := m.packmill("why", "hen")
	for _, want := range []string{"wait for each other", "egg, hen", "blocks:     cock_1.0 on amd64"} {
		if !strings.Contains(why, want) {
			t.Errorf("no %q in\n%s", want, why)
		}
	}
	if why := m.packmill("why", "cock"); strings.Contains(why, "each other") {
		t.Errorf("cock is in no ring:\n%s", why)
	}
	for id, n := range m.builds() {
		if n > 1 {
			t.Errorf("%s was tried %d times", id, n)
		}
	}
	m.sound()
}

// A source that is taken out of the suite takes its jobs with it; a suite comes
// and goes while the daemons run.
func TestRemoved(t *testing.T) {
	t.Parallel()
	m := newMill(t, "Publish: source-first")
	m.script("hello_1.0_amd64", "fail no such header")
	m.upload(uploadtest.Package{Source: "hello", Version: "1.0"})
	m.upload(uploadtest.Package{Source: "world", Version: "1.0"})
	if got := m.settle(); !strings.Contains(got, "build-attempted amd64 hello_1.0") {
		t.Fatalf("hello did not fail:\n%s", got)
	}
	m.packmill("archive", "rm", "stable", "hello")
	got := m.settle()
	if !strings.Contains(got, "attic amd64 hello_1.0") || !strings.Contains(got, "installed amd64 world_1.0") {
		t.Errorf("the job of a source that was removed:\n%s", got)
	}
	for _, name := range []string{"reviewd", "master-buildd", "buildd-amd64", "archived"} {
		m.start(name)
	}
	suites := m.suites()
	m.control("suites", strings.TrimSpace(suites)+"\n\n"+strings.Replace(suites, "Suite: stable", "Suite: testing", 1))
	m.until("the new suite is there", func() bool {
		_, err := os.Stat(filepath.Join(m.tree, "archive/dists/testing/Release"))
		return err == nil
	})
	m.upload(uploadtest.Package{Source: "news", Version: "1.0", Distribution: "testing"})
	m.until("its first package is there", func() bool { return strings.Contains(m.where(), "installed amd64 news_1.0") })
	m.script("more_1.0_amd64", "fail too late")
	m.upload(uploadtest.Package{Source: "more", Version: "1.0", Distribution: "testing"})
	m.until("the next fails", func() bool { return strings.Contains(m.where(), "build-attempted amd64 more_1.0") })
	m.control("suites", suites)
	m.upload(uploadtest.Package{Source: "world", Version: "1.1"})
	m.until("the other suite goes on", func() bool { return strings.Contains(m.where(), "installed amd64 world_1.1") })
	m.upload(uploadtest.Package{Source: "late", Version: "1.0", Distribution: "testing"})
	m.until("what is for the dropped suite is refused", func() bool {
		return strings.Contains(m.where(), "rejected source late_1.0")
	})
}

// One request for a binNMU on several architectures: one number, one time, one
// changelog; what is cancelled on one is built on the others.
func TestBinNMU(t *testing.T) {
	t.Parallel()
	m := newMill(t, "Architectures: amd64 i386")
	m.upload(uploadtest.Package{Source: "app", Version: "1.0"})
	m.settle()
	out := m.wb("nmu app . ANY -m Rebuild against libfrob 3")
	if strings.Count(out, "1.0+b1") != 2 {
		t.Errorf("nmu ANY: %s", out)
	}
	tickets, _ := filepath.Glob(filepath.Join(m.tree, "queue/stable/*/needs-build/*app*/ticket"))
	times := map[string]bool{}
	for _, path := range tickets {
		text, err := os.ReadFile(path)
		m.must(err)
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, "Binary-NMU-Time:") || strings.HasPrefix(line, "Binary-NMU-Changelog:") {
				times[line] = true
			}
		}
	}
	if len(tickets) != 2 || len(times) != 2 {
		t.Errorf("%d jobs with %v; want two jobs with one time and one text", len(tickets), times)
	}
	m.wb("nmu 0 app . i386")
	got := m.settle()
	if strings.Count(got, "installed amd64 app_1.0") != 2 || strings.Count(got, "installed i386 app_1.0") != 1 ||
		!strings.Contains(got, "attic i386 app_1.0") {
		t.Errorf("after the cancellation on i386:\n%s", got)
	}
	if out := m.packmill("log", "grep", "binNMU by b1 Build Daemon <buildd@"); !strings.Contains(out, "app_1.0") {
		t.Errorf("it is not the builder's:\n%s", m.packmill("log", "grep", "binNMU by"))
	}
	// The next number is above that of every architecture.
	if out := m.wb("nmu app . ANY --dry-run -m again"); strings.Count(out, "1.0+b2") != 2 {
		t.Errorf("the next binNMU: %s", out)
	}
	m.sound()
}
