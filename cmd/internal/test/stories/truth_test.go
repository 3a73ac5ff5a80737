package stories

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"packmill/spool"
	"packmill/spool/upload/uploadtest"
)

// lacks fails if the text has one of the lines.
func (m *mill) lacks(got string, lines ...string) {
	m.Helper()
	for _, l := range lines {
		if strings.Contains("\n"+got+"\n", "\n"+l+"\n") {
			m.Errorf("there is %q in\n%s", l, got)
		}
	}
}

// has fails if the text has not one of the lines.
func (m *mill) has(got string, lines ...string) {
	m.Helper()
	for _, l := range lines {
		if !strings.Contains("\n"+got+"\n", "\n"+l+"\n") {
			m.Errorf("no %q in\n%s", l, got)
		}
	}
}

// published is what the suite has of a source.
func (m *mill) published(suite, source string) string {
	m.Helper()
	return m.packmill("archive", "ls", suite, source, "--json")
}

// A source that a person takes out of the suite stays out, whatever of it still
// waits or is being built: its copy in the master queue goes, and so does each
// job; what a running build makes is never published.
func TestRemovedStaysRemoved(t *testing.T) {
	t.Parallel()
	m := newMill(t, "Publish: source-first", "Architectures: amd64 i386")
	release := m.hold("bad_1.0_i386")
	m.script("slow_1.0_i386", "dep-wait libnowhere")
	m.upload(uploadtest.Package{Source: "bad", Version: "1.0"})
	m.upload(uploadtest.Package{Source: "slow", Version: "1.0"})
	for _, d := range []string{"reviewd", "master-buildd", "buildd-amd64", "archived"} {
		m.once(d)
	}
	builder := m.start("buildd-i386")
	m.until("it is being built for i386", func() bool { return strings.Contains(m.where(), "building i386 bad_1.0") })
	m.until("the other waits", func() bool { return strings.Contains(m.where(), "dep-wait i386 slow_1.0") })
	m.has(m.where(), "installed amd64 bad_1.0", "master source bad_1.0", "installed amd64 slow_1.0",
		"master source slow_1.0")
	m.packmill("archive", "rm", "stable", "bad", "slow", "--yes")
	for _, d := range []string{"master-buildd", "archived"} {
		m.once(d)
	}
	m.has(m.where(), "attic source bad_1.0", "attic source slow_1.0", "attic i386 slow_1.0")
	release()
	m.until("the build has ended", func() bool { return !strings.Contains(m.where(), "building") })
	builder.kill()
	got := m.settle()
	m.has(got, "attic i386 bad_1.0")
	m.lacks(got, "uploaded i386 bad_1.0", "master source bad_1.0", "needs-build i386 bad_1.0", "needs-build amd64 bad_1.0")
	if out := m.published("stable", "*"); strings.TrimSpace(out) != "" {
		t.Errorf("published after the removal:\n%s", out)
	}
	m.sound()
}

// The last job of a source that was taken out settles before master-buildd looks at the
// archive: the copy that waited for it is not published in its place.
func TestRemovedBeforeItsLastJob(t *testing.T) {
	t.Parallel()
	m := newMill(t, "Publish: source-first")
	m.upload(uploadtest.Package{Source: "bad", Version: "1.0"})
	m.step("reviewd", "master-buildd", "archived")
	m.packmill("archive", "rm", "stable", "bad", "--yes")
	m.wb("fail bad . amd64 -m no")
	got := m.settle()
	m.has(got, "attic source bad_1.0", "attic amd64 bad_1.0")
	m.lacks(got, "master source bad_1.0", "uploaded source bad_1.0")
	if out := m.published("stable", "*"); strings.TrimSpace(out) != "" {
		t.Errorf("published after the removal:\n%s", out)
	}
	m.sound()
}

// What is built of a version that is not the suite's any more is late: it goes to
// the attic, and never waits for its source. (A failed build given back, a binNMU,
// and a source that was taken out, each of which ends after that.)
func TestLateBinaries(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	t.Parallel()
	m := newMill(t, "Publish: source-first", "Architectures: amd64 i386")
	date := time.Now().Add(-time.Minute)
	m.script("again_1.0-1_i386", "fail no")
	for _, s := range []string{"again", "rebuilt", "gone"} {
		m.upload(uploadtest.Package{Source: s, Version: "1.0-1", Date: date})
	}
	m.settle()
	never := filepath.Join(m.home, "late")
	for _, s := range []string{"again", "rebuilt", "gone"} {
		m.script(s+"_1.0-1_i386", "wait "+never)
	}
	m.wb("gb again . i386")
	m.wb("nmu rebuilt . i386 -m rebuild")
	m.wb("nmu gone . i386 -m rebuild")
	text, err := os.ReadFile(filepath.Join(m.tree, "control/builders"))
	m.must(err)
	m.control("builders", strings.Replace(string(text), "Jobs: 2", "Jobs: 4", 1))
	builder := m.start("buildd-i386")
	m.until("all three are being built", func() bool { return strings.Count(m.where(), "building i386") == 3 })
	for _, s := range []string{"again", "rebuilt"} {
		m.upload(uploadtest.Package{Source: s, Version: "1.0-2", Date: date})
	}
	for _, d := range []string{"reviewd", "master-buildd", "archived", "buildd-amd64", "master-buildd", "archived"} {
		m.once(d)
	}
	m.packmill("archive", "rm", "stable", "gone", "--yes")
	m.once("master-buildd")
	m.must(os.WriteFile(never, nil, 0o644))
	m.until("all have ended", func() bool { return !strings.Contains(m.where(), "building i386") })
	builder.kill()
	got := m.settle()
	for _, s := range []string{"again", "rebuilt", "gone"} {
		m.has(got, "attic i386 "+s+"_1.0-1")
		m.lacks(got, "uploaded i386 "+s+"_1.0-1")
	}
	m.has(got, "installed i386 again_1.0-2", "installed i386 rebuilt_1.0-2")
	m.sound()
}

// A job that mv brought to another architecture's queue, and that somebody puts away before a
// daemon has put it right, is in the attic what its ticket says, and fsck finds it there.
func TestPutAwayWhereAHandBroughtIt(t *testing.T) {
	t.Parallel()
	m := newMill(t, "Publish: source-first", "Architectures: amd64 i386")
	for _, s := range []string{"cancelled", "replaced"} {
		m.upload(uploadtest.Package{Source: s, Version: "1.0"})
	}
	m.step("reviewd", "master-buildd")
	for source, arch := range map[string]string{"cancelled": "all", "replaced": "arm64"} {
		for _, f := range m.found(source, spool.NeedsBuild) {
			if f.Place.Arch != "i386" {
				continue
			}
			dir := filepath.Join(m.tree, spool.In(spool.NeedsBuild, "stable", arch).Dir())
			m.must(os.MkdirAll(dir, 0o775))
			m.must(os.Rename(filepath.Join(m.tree, f.Dir()), filepath.Join(dir, f.Name.String())))
		}
	}
	m.packmill("cancel", "cancelled", "all", "-m", "nobody wants it")
	m.upload(uploadtest.Package{Source: "replaced", Version: "1.1"})
	m.step("reviewd", "master-buildd")
	got := m.where()
	m.has(got, "attic i386 cancelled_1.0", "attic i386 replaced_1.0")
	m.lacks(got, "attic all cancelled_1.0", "attic arm64 replaced_1.0")
	m.sound()
}

// requeue of what archived refused is judged by its birth, not by its name, whose
// order has changed since it came.
func TestRequeueRefusedByArchive(t *testing.T) {
	t.Parallel()
	for _, publish := range []string{"together", "source-first"} {
		t.Run(publish, func(t *testing.T) {
			t.Parallel()
			m := newMill(t, "Publish: "+publish, "Weights: urgency-medium=200")
			m.upload(uploadtest.Package{Source: "hello", Version: "1.0"})
			for _, d := range []string{"reviewd", "master-buildd"} {
				m.once(d)
			}
			if publish == "together" { // otherwise the source goes ahead
				m.once("buildd-amd64")
				m.once("master-buildd")
			}
			uploaders, err := os.ReadFile(filepath.Join(m.tree, "control/uploaders"))
			m.must(err)
			m.control("uploaders", "Name: other\nAccount: other")
			m.once("archived")
			m.has(m.where(), "rejected source hello_1.0")
			m.control("uploaders", string(uploaders))
			m.packmill("requeue", filepath.Base(m.item(spool.Rejected, "hello")))
			got := m.settle()
			m.has(got, "installed source hello_1.0", "installed amd64 hello_1.0")
			m.lacks(got, "rejected source hello_1.0", "uploaded amd64 hello_1.0", "uploaded source hello_1.0")
			m.sound()
		})
	}
}

// The same upload sent again while the first waits is refused; the status file of
// the first keeps its good word.
func TestSentAgain(t *testing.T) {
	t.Parallel()
	m := newMill(t, "Review: always")
	dir := filepath.Join(m.tree, "spool/incoming/alice")
	m.must(os.MkdirAll(dir, 0o775))
	send := func() {
		t.Helper()
		p := uploadtest.Package{Source: "hello", Version: "1.0", Signer: m.signer, Date: time.Now().Truncate(time.Hour)}
		_, err := p.Write(dir)
		m.must(err)
	}
	keep := t.TempDir()
	send()
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	m.must(err)
	for _, n := range names {
		data, err := os.ReadFile(n)
		m.must(err)
		m.must(os.WriteFile(filepath.Join(keep, filepath.Base(n)), data, 0o644))
	}
	m.once("reviewd")
	m.has(m.where(), "review source hello_1.0")
	for _, n := range names {
		data, err := os.ReadFile(filepath.Join(keep, filepath.Base(n)))
		m.must(err)
		m.must(os.WriteFile(n, data, 0o644))
	}
	m.once("reviewd")
	m.has(m.where(), "review source hello_1.0", "rejected source hello_1.0")
	status, err := os.ReadFile(m.one("spool/incoming/alice/*.status"))
	m.must(err)
	if !strings.HasPrefix(string(status), "spool/review/stable ") {
		t.Errorf("the status file: %s", status)
	}
}

// A person who cancels a job means it: it is not made again when what lay in the
// attic has been swept, by whichever way it came there; and it may be when the
// suite has moved on.
func TestCancelLasts(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	t.Parallel()
	m := newMill(t, "Publish: source-first", "Architectures: amd64 i386")
	m.control("general", "Keep-Attic: 1s")
	for _, s := range []string{"cancelled", "moved"} {
		m.script(s+"_1.0_i386", "fail no")
		m.upload(uploadtest.Package{Source: s, Version: "1.0"})
	}
	m.settle()
	m.packmill("cancel", "cancelled", "i386", "-m", "nobody wants it")
	at := m.item(spool.BuildAttempted, "moved")
	m.must(os.Rename(at, filepath.Join(m.tree, "attic", filepath.Base(at)+"_i386")))
	m.once("master-buildd")
	time.Sleep(1100 * time.Millisecond)
	for range 2 {
		m.once("reviewd") // which sweeps
		m.touch("stable") // and a merge
		m.once("master-buildd")
		m.once("reviewd")
	}
	got := m.settle()
	for _, s := range []string{"cancelled", "moved"} {
		m.has(got, "attic i386 "+s+"_1.0")
		m.lacks(got, "build-attempted i386 "+s+"_1.0", "needs-build i386 "+s+"_1.0")
		if n := m.builds()[s+"_1.0_i386"]; n != 1 {
			t.Errorf("%s was built %d times", s, n)
		}
	}
	m.upload(uploadtest.Package{Source: "cancelled", Version: "1.1"})
	m.settle()
	m.once("reviewd")
	m.lacks(m.where(), "attic i386 cancelled_1.0")
	m.sound()
}

// touch makes the suite's indexes new, so that master-buildd merges.
func (m *mill) touch(suite string) {
	m.Helper()
	now := time.Now()
	m.must(os.Chtimes(filepath.Join(m.tree, "archive/dists", suite, "Release"), now, now))
}

// What a person took is over when a newer version is there.
func TestTakenAndReplaced(t *testing.T) {
	t.Parallel()
	m := newMill(t, "Publish: source-first")
	m.upload(uploadtest.Package{Source: "hello", Version: "1.0"})
	for _, d := range []string{"reviewd", "master-buildd", "archived"} {
		m.once(d)
	}
	m.wb("take hello . amd64")
	m.upload(uploadtest.Package{Source: "hello", Version: "1.1"})
	got := m.settle()
	m.has(got, "attic amd64 hello_1.0", "installed amd64 hello_1.1")
	m.lacks(got, "building amd64 hello_1.0")
	m.sound()
}

// A file that a kill left half-written in an item goes with the next handler.
func TestLeftover(t *testing.T) {
	t.Parallel()
	m := newMill(t)
	m.upload(uploadtest.Package{Source: "hello", Version: "1.0"})
	m.once("reviewd")
	item := m.item(spool.Accepted, "hello")
	old := time.Now().Add(-time.Minute)
	m.must(os.WriteFile(filepath.Join(item, ".new-12345"), []byte("ha"), 0o664))
	m.must(os.Chtimes(filepath.Join(item, ".new-12345"), old, old))
	m.once("master-buildd")
	if left, err := filepath.Glob(filepath.Join(m.tree, "queue/stable/*/*/.new-*")); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
}
