package stories

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"packmill/spool"
	"packmill/spool/upload/uploadtest"
)

// reason is what a person finds of the one item of a source in a state.
func (m *mill) reason(state spool.State, source string) string {
	m.Helper()
	data, err := os.ReadFile(filepath.Join(m.item(state, source), spool.ReasonFile))
	m.must(err)
	return string(data)
}

// says fails unless the text holds all of the words.
func (m *mill) says(text string, words ...string) {
	m.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			m.Errorf("it does not say %q:\n%s", w, text)
		}
	}
}

// TestNamesOfABuild: a build makes the packages that its source names; with one
// more it is for a person, and nothing of it is signed.
func TestNamesOfABuild(t *testing.T) {
	m := newMill(t)
	m.script("mpkg_1.0_amd64", "also bash")
	m.upload(uploadtest.Package{Source: "mpkg", Version: "1.0"})
	m.want(m.settle(), "build-attempted amd64 mpkg_1.0", "installed source mpkg_1.0")
	m.says(m.reason(spool.BuildAttempted, "mpkg"), "bash", "does not name")
	m.script("mpkg_1.1_amd64", "also mpkg-dbgsym")
	m.upload(uploadtest.Package{Source: "mpkg", Version: "1.1"})
	m.settle()
	if got := m.packmill("archive", "ls", "stable"); strings.Contains(got, "bash") ||
		!strings.Contains(got, "mpkg-dbgsym") {
		t.Errorf("stable:\n%s", got)
	}
	m.sound()
}

// TestTakesOver: a name that another source has in the suite goes over to an
// upload only if its uploader may upload that source too, or a reviewer was
// shown it, whatever the suite's Review says.
func TestTakesOver(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	m := newMill(t)
	owner := m.signer
	m.upload(uploadtest.Package{Source: "spkg", Version: "1.0", Binary: []string{"tool", "other"}})
	m.want(m.settle(), "installed amd64 spkg_1.0", "installed source spkg_1.0")

	m.signer = m.person("mallory", "source, packages=mpkg")
	m.upload(uploadtest.Package{Source: "mpkg", Version: "2.0", Binary: []string{"mpkg", "tool"}})
	m.want(m.settle(), "installed amd64 spkg_1.0", "installed source spkg_1.0", "review source mpkg_2.0")
	m.says(m.reason(spool.Review, "mpkg"), "the binary package tool, which the source spkg builds in stable")
	m.says(m.packmill("review", "show", "mpkg", "--no-lintian"),
		"the binary package tool is built by the source spkg in stable")
	m.packmill("review", "accept", "mpkg")
	m.want(m.settle(), "installed amd64 mpkg_2.0", "installed amd64 spkg_1.0", "installed source mpkg_2.0",
		"installed source spkg_1.0")

	// Who may upload both needs nobody.
	m.signer = owner
	m.upload(uploadtest.Package{Source: "third", Version: "3.0", Binary: []string{"other"}})
	m.settle()
	if n := len(m.found("third", spool.Installed)); n != 2 {
		t.Errorf("third is not in the archive:\n%s", m.where())
	}

	// A name that another source gets while this one is built is not its own.
	release := m.hold("late_1.0_amd64")
	m.upload(uploadtest.Package{Source: "late", Version: "1.0", Binary: []string{"fresh"}})
	build := m.start("buildd-amd64")
	m.once("reviewd")
	m.once("master-buildd")
	m.until("late is being built", func() bool { return m.builds()["late_1.0_amd64"] == 1 })
	m.upload(uploadtest.Package{Source: "first", Version: "2.0", Binary: []string{"fresh"}})
	for range 3 {
		m.once("reviewd")
		m.once("master-buildd")
		m.until("first is built", func() bool { return len(m.found("first", spool.NeedsBuild, spool.Building)) == 0 })
		m.once("master-buildd")
		m.once("archived")
	}
	if n := len(m.found("first", spool.Installed)); n != 2 {
		t.Fatalf("first is not in the archive:\n%s", m.where())
	}
	release()
	m.until("late is built", func() bool { return len(m.found("late", spool.Building)) == 0 })
	build.cmd.Process.Signal(os.Interrupt)
	m.once("master-buildd")
	m.once("archived")
	m.says(m.reason(spool.BuildAttempted, "late"), "the package fresh is built by the source first in stable")
}

// TestRetarget: a reviewer may put an upload into another suite than it asked
// for, by mv too, if the uploader's rights cover that one.
func TestRetarget(t *testing.T) {
	m := newMill(t, "Review: always")
	m.control("suites", m.suites()+"\nSuite: testing\nArchitectures: amd64\nReview: always\nSign-With: private/archive.key")
	m.upload(uploadtest.Package{Source: "free", Version: "1.0"})
	m.signer = m.person("bound", "source, suites=stable")
	m.upload(uploadtest.Package{Source: "tied", Version: "1.0"})
	m.want(m.settle(), "review source free_1.0", "review source tied_1.0")
	for _, source := range []string{"free", "tied"} {
		from := m.item(spool.Review, source)
		m.must(os.Rename(from, filepath.Join(m.tree, "spool/accepted/testing", filepath.Base(from))))
	}
	m.want(m.settle(), "installed amd64 free_1.0", "installed source free_1.0", "rejected source tied_1.0")
	m.says(m.reason(spool.Rejected, "tied"), "bound may not upload it to testing", "the statement allows stable")
	if got := m.packmill("archive", "ls", "testing"); !strings.Contains(got, "free") {
		t.Errorf("testing:\n%s", got)
	}
	m.sound()
}

// TestOlderTree: what is on its way in a tree from before there were statements
// goes on after the next init, and nothing that is laid there later does.
func TestOlderTree(t *testing.T) {
	m := newMill(t, "Review: always")
	m.upload(uploadtest.Package{Source: "waits", Version: "1.0"})
	m.upload(uploadtest.Package{Source: "queued", Version: "1.0"})
	m.once("reviewd")
	m.packmill("review", "accept", "queued")
	m.once("master-buildd")
	statements := func() []string {
		names, err := filepath.Glob(filepath.Join(m.tree, "*/*/*/*/statement"))
		m.must(err)
		deep, err := filepath.Glob(filepath.Join(m.tree, "*/*/*/*/*/statement"))
		m.must(err)
		return append(names, deep...)
	}
	if n := len(statements()); n != 3 {
		t.Fatalf("%d statements, want those of a source in review, one in master and its job: %v", n, statements())
	}
	for _, name := range statements() {
		m.must(os.Remove(name))
	}
	m.must(os.Remove(filepath.Join(m.tree, "control/reviewd.asc")))
	m.must(os.Remove(filepath.Join(m.tree, "control/private/reviewd.key")))
	for _, d := range []string{"reviewd", "master-buildd", "buildd-amd64", "archived"} {
		out, err := m.command(t.Context(), d, "--once").CombinedOutput()
		if err == nil || !strings.Contains(string(out), "packmill init") {
			t.Errorf("%s without a key: %v\n%s", d, err, out)
		}
	}
	m.packmill("init")
	m.packmill("review", "accept", "waits")
	m.want(m.settle(), "installed amd64 queued_1.0", "installed amd64 waits_1.0", "installed source queued_1.0",
		"installed source waits_1.0")

	m.upload(uploadtest.Package{Source: "bare", Version: "1.0"})
	m.once("reviewd")
	m.must(os.Remove(filepath.Join(m.item(spool.Review, "bare"), "statement")))
	m.packmill("init")
	m.packmill("review", "accept", "bare")
	m.once("master-buildd")
	m.says(m.reason(spool.Rejected, "bare"), "there is no statement of reviewd with it")
	m.sound()
}

// TestNeverAccepted: an upload whose place a newer one took while it waited for
// review was accepted by nobody: from the attic it comes to no archive.
func TestNeverAccepted(t *testing.T) {
	m := newMill(t, "Review: always")
	m.upload(uploadtest.Package{Source: "hello", Version: "1.0"})
	m.want(m.settle(), "review source hello_1.0")
	m.upload(uploadtest.Package{Source: "hello", Version: "1.1"})
	m.want(m.settle(), "attic source hello_1.0", "review source hello_1.1")
	from := m.item(spool.Attic, "hello")
	m.must(os.Rename(from, filepath.Join(m.tree, "archive/incoming/stable", filepath.Base(from))))
	m.want(m.settle(), "rejected source hello_1.0", "review source hello_1.1")
	m.says(m.reason(spool.Rejected, "hello"), "there is no statement of reviewd with it")
}
