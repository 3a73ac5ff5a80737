package stories

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"packmill/spool"
	"packmill/spool/upload/uploadtest"
)

// wb runs packmill wb.
func (m *mill) wb(line string) string {
	m.Helper()
	out, err := m.tryWb(line)
	if err != nil {
		m.Fatalf("packmill wb %s: %v\n%s", line, err, out)
	}
	return out
}

// tryWb splits a line at blanks; what comes after -m is one word.
func (m *mill) tryWb(line string) (string, error) {
	words, text, said := strings.Cut(line, " -m ")
	args := append([]string{"wb"}, strings.Fields(words)...)
	if said {
		args = append(args, "-m", text)
	}
	return m.try(args...)
}

// refused runs packmill wb and wants exit status 1 and a sentence.
func (m *mill) refused(line, want string) {
	m.Helper()
	out, err := m.tryWb(line)
	exit, ok := err.(*exec.ExitError)
	if !ok || exit.ExitCode() != 1 || !strings.Contains(out, want) {
		m.Errorf("packmill wb %s: %v, %q; want exit status 1 and %q", line, err, out, want)
	}
}

// Debian's story in the words of wb: Failed, with a bug number added, a new
// version that says why the one before failed, Dep-Wait, a binNMU.
func TestWb(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	t.Parallel()
	m := newMill(t, "Publish: source-first")
	m.script("app_1.0_amd64", "fail undefined reference to frobnicate")
	m.upload(uploadtest.Package{Source: "app", Version: "1.0"})
	m.settle()
	m.refused("gb app_1.1 . amd64", "no such job")
	m.refused("take app . amd64", "has it; ask there")
	m.refused("built app . amd64", "buildd")
	before := m.where()
	if out := m.wb("fail app . amd64 --dry-run -m x"); !strings.Contains(out,
		"would do app_1.0 on amd64: build-attempted -> failed") || m.where() != before {
		t.Errorf("dry run: %s", out)
	}
	m.wb("fail app_1.0 . ANY . stable -m does not link")
	m.wb("fail app . amd64 -m bug 4711")
	m.refused("gb app . amd64", "--override")
	if got := m.packmill("show", "app_1.0"); strings.Contains(got, "mallory") || !strings.Contains(got, "does not link") ||
		!strings.Contains(got, "bug 4711") {
		t.Errorf("the texts of the failure are not there:\n%s", got)
	}
	// The next version's job says why this one failed.
	m.script("app_1.1_amd64", "dep-wait libfrob (>= 2)")
	m.upload(uploadtest.Package{Source: "app", Version: "1.1"})
	m.settle()
	if got := m.packmill("show", "app_1.1"); !strings.Contains(got, "does not link") ||
		!strings.Contains(got, "bug 4711") {
		t.Errorf("the next version does not say why the one before failed:\n%s", got)
	}
	m.wb("dw app . amd64 -m libother")
	if got := m.wb("info app . amd64"); !strings.Contains(got, "libfrob (>= 2), libother") {
		t.Errorf("dep-wait was not merged:\n%s", got)
	}
	m.script("app_1.1_amd64", "")
	m.wb("gb app . amd64 --override -m it has what it needs")
	m.wb("bp 100 app . amd64")
	if got := m.packmill("ls", "app", "-s", "needs-build"); !strings.Contains(got, " 40-") {
		t.Errorf("bp 100 of class 50:\n%s", got)
	}
	m.settle()
	// Installed; a binNMU comes beside it.
	m.refused("gb app . amd64", "nmu builds it anew")
	m.refused("nmu app . amd64", "say why")
	m.wb("nmu app . ANY -m Rebuild against libfrob 3")
	if out := m.wb("nmu app . amd64 -m again"); !strings.Contains(out, "in the place of +b1") {
		t.Errorf("a second binNMU over the first: %s", out)
	}
	m.wb("nmu 0 app . amd64")
	m.wb("nmu app . ANY -m Rebuild against libfrob 3")
	if got := m.settle(); strings.Count(got, "installed amd64 app_1.1") != 2 {
		t.Errorf("the binNMU is not installed:\n%s\n%s", got, m.packmill("ls", "app"))
	}
	if debs, _ := filepath.Glob(filepath.Join(m.tree, "archive/pool/main/a/app/*+b1_amd64.deb")); len(debs) != 1 {
		t.Errorf("the pool has no +b1: %v", debs)
	}
	if out := m.wb("nmu app . amd64 --dry-run --json -m once more"); !strings.Contains(out, `"version":"1.1+b2"`) {
		t.Errorf("the next binNMU: %s", out)
	}
	m.sound()
}

// The architectures of a suite change while everything runs: a new one gets
// the jobs that it lacks, those of a dropped one are retired.
func TestArchitectureComesAndGoes(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	t.Parallel()
	m := newMill(t, "Publish: source-first")
	m.upload(uploadtest.Package{Source: "hello", Version: "1.0"})
	m.upload(uploadtest.Package{Source: "docs", Version: "1.0", Architecture: "all"})
	m.upload(uploadtest.Package{Source: "only", Version: "1.0", Architecture: "amd64"})
	m.settle()
	m.control("packages-arch-specific", "%never: !i386\n")
	m.upload(uploadtest.Package{Source: "never", Version: "1.0"})
	m.settle()
	suites := m.suites()
	m.control("suites", strings.Replace(suites, "Architectures: amd64", "Architectures: amd64 i386", 1))
	m.once("archived") // the suite has the new architecture
	m.once("master-buildd")
	if got := m.where(); !strings.Contains(got, "needs-build i386 hello_1.0") || strings.Contains(got, "i386 docs") ||
		strings.Contains(got, "i386 only") || strings.Contains(got, "i386 never") {
		t.Errorf("a new architecture:\n%s", got)
	}
	m.control("suites", suites)
	m.once("archived")
	m.once("master-buildd")
	if got := m.where(); strings.Contains(got, "needs-build i386") || !strings.Contains(got, "attic i386 hello_1.0") {
		t.Errorf("a dropped architecture:\n%s", got)
	}
	// It comes back, and its jobs with it.
	m.control("suites", strings.Replace(suites, "Architectures: amd64", "Architectures: amd64 i386", 1))
	m.once("archived")
	m.once("master-buildd")
	if got := m.settle(); !strings.Contains(got, "installed i386 hello_1.0") {
		t.Errorf("an architecture that came back:\n%s", got)
	}
	m.sound()
}

// What is in the way of a job that cannot be built yet is known before a
// builder tries: another open source will make it. A chain of packages is
// built in its order, each once, whatever order they came in.
func chain(t *testing.T, m *mill, packages, depth int) {
	t.Helper()
	for i := packages - 1; i >= 0; i-- {
		p := uploadtest.Package{Source: fmt.Sprintf("pkg%04d", i), Version: "1.0"}
		if i%depth != 0 {
			p.BuildDepends = fmt.Sprintf("pkg%04d (>= 1.0)", i-1)
		}
		m.upload(p)
	}
	m.once("reviewd")
	m.once("master-buildd")
	start := time.Now()
	for _, name := range []string{"master-buildd", "archived", "buildd-amd64", "buildd-amd64", "buildd-amd64"} {
		m.start(name)
	}
	m.untilIn(10*time.Minute, "all are installed", func() bool {
		found, _ := filepath.Glob(filepath.Join(m.tree, "archive/installed/stable/amd64/*/*"))
		return len(found) == packages
	})
	t.Logf("%d packages, chains of %d: %v", packages, depth, time.Since(start).Round(time.Millisecond))
	for id, n := range m.builds() {
		if n != 1 {
			t.Errorf("%s was built %d times", id, n)
		}
	}
	if n := len(m.builds()); n != packages {
		t.Errorf("%d builds, want %d", n, packages)
	}
	m.sound()
}

// The long form is a suite that comes to be out of nothing:
//
//	go test -run TestChain -packages 1000 -depth 50 ./cmd/internal/test/stories
var (
	packages = flag.Int("packages", 60, "packages of TestChain")
	depth    = flag.Int("depth", 12, "packages of a chain of dependencies")
)

func TestChain(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	t.Parallel()
	chain(t, newMill(t, "Publish: source-first"), *packages, *depth)
}

// untilIn is until with a limit.
func (m *mill) untilIn(limit time.Duration, what string, ok func() bool) {
	m.Helper()
	deadline := time.Now().Add(limit)
	for !ok() {
		if time.Now().After(deadline) {
			m.Fatalf("after %v still not: %s\n%s", limit, what, tail(m.packmill("ls")))
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// Two masters, ten builders (five daemons with two jobs each), two operators
// and quinn-diff (an architecture is added in the middle of it) at once:
// nothing is built twice that nobody gave back, and nothing is in two states.
func TestNeverTwice(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	t.Parallel()
	m := newMill(t, "Publish: source-first")
	for _, name := range []string{
		"master-buildd", "master-buildd", "reviewd", "archived", "archived",
		"buildd-amd64", "buildd-amd64", "buildd-amd64", "buildd-i386", "buildd-i386",
	} {
		m.start(name)
	}
	const packages = 25
	var operators sync.WaitGroup
	for n := range 2 {
		operators.Go(func() {
			for i := n; i < 2*packages; i += 2 {
				// What must not make a second build of anything.
				m.try("wb", "gb", fmt.Sprintf("pkg%02d", i%packages), ".", "ANY", "-m", "operator") // refused, or before a result
				m.try("wb", "bp", fmt.Sprint(i%7*10), fmt.Sprintf("pkg%02d", (i*3)%packages), ".", "ANY")
				m.try("requeue", fmt.Sprintf("pkg%02d", (i*5)%packages))
			}
		})
	}
	for i := range packages {
		m.upload(uploadtest.Package{Source: fmt.Sprintf("pkg%02d", i), Version: "1.0"})
		if i == packages/2 {
			m.control("suites", strings.Replace(m.suites(), "Architectures: amd64", "Architectures: amd64 i386", 1))
		}
	}
	jobs := func() []string {
		found, _ := filepath.Glob(filepath.Join(m.tree, "archive/installed/stable/*/p/*_pkg*"))
		return slices.DeleteFunc(found, func(f string) bool { return strings.Contains(f, "/source/") })
	}
	m.until("all are installed on both", func() bool { return len(jobs()) == 2*packages })
	operators.Wait()
	for _, dir := range jobs() {
		_, id, _ := strings.Cut(filepath.Base(dir), "_")
		id += "_" + filepath.Base(filepath.Dir(filepath.Dir(dir)))
		history, err := os.ReadFile(filepath.Join(dir, "history"))
		m.must(err)
		again := 0
		for line := range strings.Lines(string(history)) {
			if f := strings.Split(line, "\t"); len(f) == 5 && strings.HasSuffix(f[1], "/building") &&
				strings.HasSuffix(f[2], "/needs-build") && strings.HasPrefix(f[4], "gb: operator") {
				again++
			}
		}
		if n := m.builds()[id]; n < 1 || n > 1+again {
			t.Errorf("%s was built %d times, and given back %d times while it was built:\n%s", id, n, again, history)
		}
	}
	debs, _ := filepath.Glob(filepath.Join(m.tree, "archive/pool/main/p/*/*.deb"))
	if len(debs) != 2*packages {
		t.Errorf("%d packages in the pool, want %d", len(debs), 2*packages)
	}
	for _, arch := range []string{"amd64", "i386"} {
		if entries, err := filepath.Glob(filepath.Join(m.tree, "queue/stable", arch, "ledger/pkg*")); err != nil ||
			len(entries) != packages {
			t.Errorf("the ledger of %s has %d entries, want %d: %v", arch, len(entries), packages, err)
		}
	}
	m.sound()
}

// An order on a source that a person's mv brought among jobs is refused with the cure, and
// leaves it the source that it is.
func TestOrderOnASourceAmongJobs(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	t.Parallel()
	m := newMillIn(t, shm(t), "Review: always")
	for _, source := range []string{"app", "web"} {
		m.upload(uploadtest.Package{Source: source, Version: "1.0"})
	}
	m.once("reviewd")
	among := filepath.Join(m.tree, "queue/stable/amd64/needs-build")
	m.must(os.MkdirAll(among, 0o775))
	for _, source := range []string{"app", "web"} {
		from := m.item(spool.Review, source)
		m.must(os.Rename(from, filepath.Join(among, filepath.Base(from))))
		m.refused("bp 5 "+source+" . amd64 . stable", "it is a source")
		m.refused("fail "+source+" . amd64 . stable --override -m no", "spool/accepted/stable")
		if out, err := m.try("requeue", source); err == nil {
			t.Errorf("requeue of a source among jobs: %s", out)
		}
		if arch := m.ticket(source, "Build-Architecture"); arch != "" {
			t.Errorf("the ticket of the source %s says that it is a job of %s", source, arch)
		}
	}
	// One a person brings where it belongs, the other one a daemon finds.
	from := m.item(spool.NeedsBuild, "app")
	m.must(os.MkdirAll(filepath.Join(m.tree, "spool/accepted/stable"), 0o775))
	m.must(os.Rename(from, filepath.Join(m.tree, "spool/accepted/stable", filepath.Base(from))))
	m.want(m.settle(), "installed amd64 app_1.0", "installed source app_1.0", "rejected source web_1.0")
	m.sound()
}
