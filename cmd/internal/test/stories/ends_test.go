package stories

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

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
