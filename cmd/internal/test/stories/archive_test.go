package stories

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"packmill/spool"
	"packmill/spool/upload/uploadtest"
)

// twoSuites is a mill with stable and testing.
func twoSuites(t *testing.T) *mill {
	t.Helper()
	m := newMill(t)
	m.control("suites", m.suites()+"\nSuite: testing\nArchitectures: amd64\nReview: always\nSign-With: private/archive.key")
	return m
}

// again is the upload of a source to testing, with the .dsc of the one to stable.
func again(p uploadtest.Package) uploadtest.Package {
	p.Changes = func(text string) string {
		return strings.NewReplacer("Distribution: stable", "Distribution: testing", ") stable;", ") testing;").Replace(text)
	}
	return p
}

// What archive copy brings settles the jobs that would build it once more, whatever
// they wait for, and the source that waits for them; who reviews the same source for
// a second suite is told of it before.
func TestCopySettlesJobs(t *testing.T) {
	t.Parallel()
	m := twoSuites(t)
	date := time.Now().Add(-time.Minute)
	sources := []string{"waits", "failed", "runs"}
	for _, s := range sources {
		m.upload(uploadtest.Package{Source: s, Version: "1.0", Date: date})
	}
	m.settle()
	for _, s := range sources {
		m.upload(again(uploadtest.Package{Source: s, Version: "1.0", Date: date}))
	}
	m.once("reviewd")
	var shown struct{ Elsewhere []string }
	if err := json.Unmarshal([]byte(m.packmill("review", "show", "waits", "--no-lintian", "--json")),
		&shown); err != nil ||
		len(shown.Elsewhere) != 1 ||
		!strings.HasSuffix(shown.Elsewhere[0], "packmill archive copy stable testing waits_1.0") {
		t.Errorf("the reviewer is told %q, %v", shown.Elsewhere, err)
	}
	m.packmill("review", "accept", "waits", "failed", "runs")
	m.script("failed_1.0_amd64", "fail it")
	m.script("runs_1.0_amd64", "depends other-things\nwait "+filepath.Join(m.home, "end"))
	m.once("master-buildd")
	m.wb("dw waits . amd64 . testing -m libnowhere")
	builder := m.start("buildd-amd64")
	m.until("one failed and one is being built", func() bool {
		got := m.where()
		return strings.Contains(got, "build-attempted amd64 failed_1.0") && strings.Contains(got, "building amd64 runs_1.0")
	})
	m.packmill(append([]string{"archive", "copy", "stable", "testing"}, sources...)...)
	m.step("master-buildd", "archived")
	m.must(os.WriteFile(filepath.Join(m.home, "end"), nil, 0o644))
	m.until("the build has ended", func() bool { return !strings.Contains(m.where(), "building") })
	builder.kill()
	got := m.settle()
	if n := strings.Count(got, "installed"); n != 12 || strings.Count(got, "\n") != 11 {
		t.Errorf("not all is installed, in both suites:\n%s", got)
	}
	if n := m.builds()["waits_1.0_amd64"]; n != 1 {
		t.Errorf("waits was built %d times", n)
	}
	for _, f := range m.found("runs", spool.Installed) {
		if f.Place.Suite == "testing" && f.Place.Arch == "amd64" &&
			!strings.Contains(m.packmill("show", f.Name.String()), "the suite has its packages already") {
			t.Errorf("the history of the build that ended later:\n%s", m.packmill("show", f.Name.String()))
		}
	}
	m.sound()
}

// TestWhatIsNoItem: ls and why know uploads that are not taken in yet, and what somebody brought into
// the archive or took out of it.
func TestWhatIsNoItem(t *testing.T) {
	t.Parallel()
	m := twoSuites(t)
	m.upload(uploadtest.Package{Source: "hello", Version: "1.0"})
	m.settle()
	m.upload(uploadtest.Package{Source: "later", Version: "2:1.0"})
	m.must(os.Remove(m.one("spool/incoming/later_*.dsc")))
	m.once("reviewd")
	m.says(m.packmill("ls", "later"), "incoming", "later_1.0", "it is not complete without later_1.0.dsc")
	m.says(m.packmill("ls"), "hello_1.0", "later_1.0")
	m.says(m.packmill("why", "later"), "later_1.0 source: incoming since", "it is not complete without later_1.0.dsc")
	m.control("general", "Reserve: 1000000G")
	m.upload(uploadtest.Package{Source: "late", Version: "1.0"})
	m.says(m.packmill("why", "late"), "nothing is taken in", "are free")

	if out := m.packmill("why", "hello"); strings.Contains(out, "testing") {
		t.Errorf("before it was copied:\n%s", out)
	}
	m.packmill("archive", "copy", "stable", "testing", "hello")
	m.says(m.packmill("why", "hello"), "hello_1.0 source: published in testing", "brought there by hand")
	m.says(m.packmill("why", "hello", "-s", "testing"), "published in testing")
	m.packmill("archive", "rm", "stable", "hello")
	m.says(m.packmill("why", "hello"), "published in testing", "the archive has it no more")
}
