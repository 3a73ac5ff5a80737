package stories

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"packmill/archive"
	"packmill/cmd/internal/control"
	"packmill/cmd/internal/mail"
	"packmill/spool"
	"packmill/spool/upload/uploadtest"
)

// told makes control/notify say everything to the uploader, and rebuilt to another.
func (m *mill) told() (sink string) {
	sink = m.sink()
	way := "\nFrom: Archive <archive@example.org>\nVia: " + sink + "/sendmail\n"
	m.control("notify", "Event: *\nTo: signer"+way+"\nEvent: rebuilt\nTo: buildds@example.org"+way)
	return sink
}

// suite is a suite of the settings as the archive has it.
func (m *mill) suite(name string) archive.Suite {
	m.Helper()
	all, err := control.Load(filepath.Join(m.tree, "control"))
	m.must(err)
	s, _ := all.Suite(name)
	out, err := all.Archive(s)
	m.must(err)
	return out
}

// tells compares the letters of one event, as "TO: SUBJECT".
func (m *mill) tells(letters []letter, event string, want ...string) {
	m.Helper()
	var got []string
	for _, l := range letters {
		if l.header.Get("X-Packmill-Event") == event {
			got = append(got, strings.Join(l.to, " ")+": "+l.subject)
		}
	}
	if !slices.Equal(got, want) {
		m.Errorf("%s: got %q, want %q", event, got, want)
	}
}

// mine uploads into an account's own directory; the function returned reads the
// status file there.
func (m *mill) mine(p uploadtest.Package) (status func() string) {
	m.Helper()
	dir := filepath.Join(m.tree, "spool/incoming/up")
	m.must(os.MkdirAll(dir, 0o755))
	p.Signer = m.signer
	name, err := p.Write(dir)
	m.must(err)
	return func() string {
		m.Helper()
		data, err := os.ReadFile(filepath.Join(dir, name+".status"))
		m.must(err)
		return string(data)
	}
}

// TestPublishedIsTold: an uploader hears once what is published of an upload, and
// what was not built; of binNMUs who asks for them.
func TestPublishedIsTold(t *testing.T) {
	t.Parallel()
	m := newMill(t, "Architectures: amd64 i386")
	sink := m.told()
	m.script("hello_1.0_i386", "fail no such instruction")
	status := m.mine(uploadtest.Package{Source: "hello", Version: "1.0"})
	m.settle()
	all := m.letters(sink)
	m.tells(all, "published", "up@example.org: hello 1.0 for stable: published (source amd64)")
	said := status()
	m.says(said, "archive/installed/stable/source/h since ",
		": published in stable, source amd64 at ", ", apt install hello; failed on i386: error: no such instruction\n")

	// A death between the mail and its note: the same mail again, by its name.
	id := ""
	for _, l := range all {
		if l.header.Get("X-Packmill-Event") == "published" {
			id = l.id
			m.says(l.text, "hello 1.0 is published in stable: source amd64.",
				"  apt update && apt install hello", "failed on i386: error: no such instruction")
		}
	}
	src := ""
	for _, f := range m.found("hello", spool.Installed) {
		if !f.IsJob() {
			src = filepath.Join(m.tree, f.Dir())
		}
	}
	m.must(os.Remove(filepath.Join(src, "told")))
	m.once("reviewd")
	if again := m.letters(sink); len(again) != 1 || again[0].id != id {
		t.Errorf("got %v, want the one mail again", again)
	}
	m.once("reviewd")
	if again := m.letters(sink); len(again) != 0 {
		t.Errorf("told twice: %v", again)
	}
	if got := status(); got != said {
		t.Errorf("the status changed, from\n%s\nto\n%s", said, got)
	}

	// What comes late is told as it comes, and a binNMU to who asks for it.
	m.script("hello_1.0_i386", "")
	m.packmill("requeue", "hello")
	m.wb("nmu hello . amd64 . stable . -m 'a new libc'")
	m.settle()
	all = m.letters(sink)
	m.tells(all, "published", "up@example.org: hello 1.0 for stable: published (i386)")
	m.tells(all, "rebuilt", "buildds@example.org: hello 1.0+b1 for stable: rebuilt on amd64")
	if got := status(); strings.Contains(got, "failed") || !strings.Contains(got, "source amd64 i386 at ") {
		t.Errorf("status at the end: %q", got)
	}

	// A version that another replaces before it is published.
	m.upload(uploadtest.Package{Source: "hello", Version: "1.1"})
	m.once("reviewd")
	m.once("master-buildd")
	m.upload(uploadtest.Package{Source: "hello", Version: "1.2"})
	m.settle()
	m.tells(m.letters(sink), "superseded", "up@example.org: hello 1.1 for stable: superseded")
	m.sound()
}

// TestRemovedIsTold: an uploader hears once that a person took an upload out of the archive, also if that
// person's command dies between the two; what stays is not told of, whoever says that it goes.
func TestRemovedIsTold(t *testing.T) {
	t.Parallel()
	m := newMill(t)
	sink := m.told()
	statuses := map[string]func() string{}
	for _, name := range []string{"hello", "gone", "stays"} {
		statuses[name] = m.mine(uploadtest.Package{Source: name, Version: "1.0"})
	}
	m.settle()
	m.letters(sink)
	tree, err := spool.Open(m.tree)
	m.must(err)
	noted := func() int {
		list, err := os.ReadDir(tree.Path(spool.RemovedDir))
		m.must(err)
		return len(list)
	}
	announce := func(name string) (done func()) {
		entries := []archive.Entry{{Package: name, Version: "1.0", Arch: "source"}, {Package: name, Version: "1.0", Arch: "amd64"}}
		done, err := mail.Announce(t.Context(), tree, "stable", entries, "rita")
		m.must(err)
		return done
	}
	announce("stays")() // died before it removed anything
	m.packmill("archive", "rm", "stable", "gone", "--yes")
	m.once("reviewd")
	m.tells(m.letters(sink), "removed", "up@example.org: gone 1.0 for stable: removed")
	m.says(statuses["gone"](), ": removed from stable by ")
	m.says(statuses["stays"](), ": published in stable")

	done := announce("hello")
	m.once("reviewd") // the command has not ended
	if n := noted(); n != 1 {
		t.Errorf("%d removals are noted while one runs", n)
	}
	a, err := archive.Open(tree.Path("archive"))
	m.must(err)
	_, err = a.Remove(t.Context(), m.suite("stable"), []string{"hello"}, archive.ChangeOptions{}, time.Now())
	m.must(err)
	done() // died before it said anything
	m.once("reviewd")
	m.once("reviewd")
	all := m.letters(sink)
	m.tells(all, "removed", "up@example.org: hello 1.0 for stable: removed")
	m.says(all[0].text, "rita took hello 1.0 out of stable")
	if n := noted(); n != 0 {
		t.Errorf("%d removals are noted when all is told", n)
	}
	m.sound()
}

// TestReminded: once a day people hear of what has waited for long, and with each good build
// of its log, if they ask.
func TestReminded(t *testing.T) {
	t.Parallel()
	m := newMill(t)
	sink := m.sink()
	way := "\nTo: ann@example.org\nVia: " + sink + "/sendmail\n"
	m.control("notify", "Event: old"+way+"\nEvent: good"+way)
	m.script("stuck_1.0_amd64", "fail it")
	for _, s := range []string{"stuck", "fine"} {
		m.upload(uploadtest.Package{Source: s, Version: "1.0"})
	}
	m.settle()
	all := m.letters(sink)
	m.tells(all, "old")
	m.tells(all, "good", "ann@example.org: Log for successful build of fine_1.0 on amd64 (dist=stable)")
	if len(all) != 1 || len(all[0].files["fine_1.0_amd64.log.gz"]) == 0 {
		t.Errorf("the log is not with it: %v", all)
	}
	m.control("general", "Remind: 1s")
	m.until("it is told", func() bool {
		m.must(os.Remove(filepath.Join(m.tree, "journal/uploads/reminded")))
		m.once("reviewd")
		all = m.letters(sink)
		return len(all) > 0
	})
	m.once("reviewd")
	all = append(all, m.letters(sink)...)
	m.tells(all, "old", "ann@example.org: 1 wait for long")
	m.says(all[0].text, "stuck_1.0 in queue/stable/amd64/build-attempted")
}

// TestSourceFirstIsTold: where a source goes ahead, each thing is told as it comes,
// and the copy that waited for the last of it changes nothing that was said.
func TestSourceFirstIsTold(t *testing.T) {
	t.Parallel()
	m := newMill(t, "Architectures: amd64 i386", "Publish: source-first")
	sink := m.told()
	status := m.mine(uploadtest.Package{Source: "hello", Version: "1.0"})
	for _, d := range []string{"reviewd", "master-buildd", "archived", "reviewd"} {
		m.once(d)
	}
	m.says(status(), "published in stable, source at ",
		"apt source hello=1.0; still to come: amd64 (needs-build), i386 (needs-build)\n")
	m.settle()
	m.tells(m.letters(sink), "published", "up@example.org: hello 1.0 for stable: published (amd64)",
		"up@example.org: hello 1.0 for stable: published (i386)", "up@example.org: hello 1.0 for stable: published (source)")
	m.says(status(), "published in stable, source amd64 i386 at ", ", apt install hello\n")
	m.sound()
}
