package stories

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gomail "github.com/emersion/go-message/mail"

	"packmill/internal/openpgp"
	"packmill/spool"
	"packmill/spool/upload/uploadtest"
)

// sink is a sendmail that keeps what it is given: arguments, then the text.
func (m *mill) sink() string {
	dir := m.TempDir()
	path := filepath.Join(dir, "sendmail")
	m.must(os.WriteFile(path,
		[]byte(fmt.Sprintf("#!/bin/sh\nf=$(mktemp %s/XXXXXX)\nprintf '%%s\\n' \"$*\" >$f\ncat >>$f\nmv $f $f.mail\n",
			dir)), 0o755))
	m.control("notify", "Event: log\nTo: build-signers\nFrom: Builds <builds@example.org>\nVia: "+path+"\n\nEvent: failed\nTo: builder, build-signers\nFrom: Builds <builds@example.org>\nVia: "+path+"\n")
	return dir
}

// letter is a mail that went out.
type letter struct {
	to      []string
	subject string
	id      string
	header  mail.Header
	text    string
	files   map[string][]byte
	raw     []byte
}

// letters takes what lies in the sink, sorted by subject.
func (m *mill) letters(sink string) []letter {
	m.Helper()
	names, err := filepath.Glob(filepath.Join(sink, "*.mail"))
	m.must(err)
	var out []letter
	for _, n := range names {
		data, err := os.ReadFile(n)
		m.must(err)
		m.must(os.Remove(n))
		args, raw, _ := strings.Cut(string(data), "\n")
		_, to, _ := strings.Cut(args, " -- ")
		l := readLetter(m.T, []byte(raw))
		l.to = strings.Fields(to)
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b letter) int { return strings.Compare(a.subject, b.subject) })
	return out
}

func readLetter(t *testing.T, raw []byte) letter {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%v\n%s", err, raw)
		}
	}
	plain, err := mail.ReadMessage(bytes.NewReader(raw))
	must(err)
	r, err := gomail.CreateReader(bytes.NewReader(raw))
	must(err)
	l := letter{header: plain.Header, raw: raw, files: map[string][]byte{}}
	l.subject, err = r.Header.Subject()
	must(err)
	l.id = plain.Header.Get("Message-Id")
	for {
		p, err := r.NextPart()
		if errors.Is(err, io.EOF) {
			return l
		}
		must(err)
		data, err := io.ReadAll(p.Body)
		must(err)
		data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
		_, params, _ := p.Header.(interface {
			ContentDisposition() (string, map[string]string, error)
		}).ContentDisposition()
		if name := params["filename"]; name != "" {
			l.files[name] = data
		} else {
			l.text += string(data)
		}
	}
}

// job is the line of a log's mail that says which build it is about.
func (l *letter) job() string {
	for line := range strings.Lines(l.text) {
		if strings.HasPrefix(line, "Job: ") {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

const from = "From: Ann <ann@example.org>\nTo: builds@example.org\nSubject: Re: a log\nMessage-ID: <1@example.org>\n"

// clear is a mail whose text is signed in itself, with something unsigned
// around it, as mail programs and lists put there.
func clear(t *testing.T, by *openpgp.Signer, text string) string {
	t.Helper()
	signed, err := by.Clearsign([]byte(text), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return from + "Content-Type: text/plain; charset=utf-8\n\nHello,\n\n" + string(signed) +
		"\n-- \nnot-for-us, says the footer of a list\n"
}

// inMIME is a mail with a signature beside the text (PGP/MIME).
func inMIME(t *testing.T, by *openpgp.Signer, text string) string {
	t.Helper()
	part := "Content-Type: text/plain; charset=utf-8\n\n" + text
	sig, err := by.Detach([]byte(strings.ReplaceAll(part, "\n", "\r\n")), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return from + "MIME-Version: 1.0\nContent-Type: multipart/signed; micalg=pgp-sha512;\n" +
		" protocol=\"application/pgp-signature\"; boundary=\"=_b\"\n\n" +
		"--=_b\n" + part + "\n--=_b\nContent-Type: application/pgp-signature\n\n" + string(sig) + "\n--=_b--\n"
}

// attached is a mail with a signed file.
func attached(t *testing.T, by *openpgp.Signer, file []byte) string {
	t.Helper()
	signed, err := by.Clearsign(file, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return from + "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: text/plain\n\n" +
		"retry, but this is not signed\n--x\n" +
		"Content-Type: application/octet-stream\nContent-Transfer-Encoding: base64\n" +
		"Content-Disposition: attachment; filename=x.changes.asc\n\n" +
		base64.StdEncoding.EncodeToString(signed) + "\n--x--\n"
}

// bring gives a mail to packmill mail, as a mail system does.
func (m *mill) bring(text string) int {
	m.Helper()
	cmd := exec.Command(filepath.Join(bin, "packmill"), "--tree", m.tree, "mail")
	cmd.Stdin = strings.NewReader(text)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		m.Fatal(err)
	}
	m.Logf("packmill mail: %s", bytes.TrimSpace(out))
	return cmd.ProcessState.ExitCode()
}

func (m *mill) stateOf(source string) string {
	tree, err := spool.Open(m.tree)
	m.must(err)
	found, err := tree.Find(source)
	m.must(err)
	for _, f := range found {
		if f.Arch() == "amd64" {
			return f.Place.State.Name
		}
	}
	return "nowhere"
}

// The log of each build goes to those who may sign it, and what they answer is
// done if it is signed, fits, and is theirs to say.
func TestMailRoundTrips(t *testing.T) {
	t.Parallel()
	m := newMill(t, "Log-Review: manual")
	sink := m.sink()
	ann := m.person("ann", "sign=amd64")
	ivy := m.person("ivy", "sign=i386")
	stranger, err := openpgp.Generate("mallory", "mallory@example.org", time.Now().Add(-time.Hour))
	m.must(err)
	names := []string{"signs", "attaches", "fails", "retries", "waits", "givesback", "notforus", "byhand", "unsigned",
		"unknown", "other", "source",
		"forged", "robot", "changed", "twotexts", "nojob", "replayed", "stale", "state", "mine", "newer", "purged", "takenback"}
	for _, n := range names {
		m.upload(uploadtest.Package{Source: n, Version: "1:2.0-1"})
	}
	m.script("lacks_1_amd64", "dep-wait libnone (>= 4)")
	m.upload(uploadtest.Package{Source: "lacks", Version: "1"})
	m.script("fails_1%3a2.0-1_amd64", "fail \x1b]0;owned\x07undefined reference to frobnicate")
	m.once("reviewd")
	m.once("master-buildd")
	m.once("buildd-amd64")
	logs := map[string]letter{}
	for _, l := range m.letters(sink) {
		if got := strings.Join(l.to, " "); got != "ann@example.org" {
			t.Errorf("%s went to %s", l.subject, got)
		}
		name, _, _ := strings.Cut(strings.Fields(l.subject)[5], "_")
		logs[name] = l
	}
	for _, n := range names {
		l, status := logs[n], "successful"
		if n == "fails" {
			status = "attempted"
		}
		if want := "Log for " + status + " build of " + n + "_1:2.0-1 on amd64 (dist=stable)"; l.subject != want {
			t.Fatalf("got subject %q, want %q", l.subject, want)
		}
		if z, err := gzip.NewReader(bytes.NewReader(l.files[n+"_1%3a2.0-1_amd64.log.gz"])); err != nil {
			t.Errorf("%s: log: %v, files %v", n, err, len(l.files))
		} else if log, err := io.ReadAll(z); err != nil || !strings.Contains(string(log), "building "+n) ||
			bytes.ContainsAny(log, "\x1b\x07") {
			t.Errorf("%s: log: %q, %v", n, log, err)
		}
		if l.job() == "" || !strings.Contains(l.text, "dep-wait RELATIONS") || strings.Contains(l.text, "\x1b") {
			t.Errorf("%s: text:\n%s", n, l.text)
		}
		built, err := os.ReadFile(m.one("queue/stable/amd64/*/*_" + n + "_*/ticket"))
		m.must(err)
		if changes := l.files[n+"_2.0-1_amd64.changes"]; n != "fails" &&
			!bytes.Contains(changes, []byte("\nSource: "+n+"\n")) {
			t.Errorf("%s: the .changes:\n%s\n%s", n, changes, built)
		}
	}
	if l := logs["lacks"]; l.subject != "Log for dep-wait build of lacks_1 on amd64 (dist=stable)" ||
		!strings.Contains(l.text, "libnone (>= 4)") || l.job() != "" {
		t.Errorf("dep-wait: %s\n%s", l.subject, l.text)
	}
	if !strings.Contains(logs["fails"].text, "undefined reference to frobnicate") {
		t.Errorf("no first error in\n%s", logs["fails"].text)
	}
	// A second run tells nothing again.
	m.once("buildd-amd64")
	if again := m.letters(sink); len(again) > 0 {
		t.Errorf("told again: %s", again[0].subject)
	}

	quoted := func(n string) string {
		l := logs[n]
		return "\n\nOn Monday the builds wrote:\n> " + strings.ReplaceAll(l.text, "\n", "\n> ") + "\n"
	}
	changes := func(n string) []byte { l := logs[n]; return l.files[n+"_2.0-1_amd64.changes"] }
	sign := func(n string) string { return clear(t, ann, string(changes(n))) }
	retryReplayed := clear(t, ann, "retry\n\n"+logsJob(logs, "replayed"))
	rows := []struct {
		what, name, mail string
		state            string
		to, subject      string // of the answer; "" for none
	}{
		{"a signed .changes", "signs", sign("signs"), "uploaded", "ann", "Done: sign"},
		{"a signed .changes as a file", "attaches", attached(t, ann, changes("attaches")), "uploaded", "ann", "Done: sign"},
		{"fail", "fails", inMIME(t, ann, "fail frobnicate\nis missing"+quoted("fails")), "failed", "ann", "Done: fail"},
		{"retry", "retries", clear(t, ann, "retry"+quoted("retries")), "needs-build", "ann", "Done: retry"},
		{"dep-wait", "waits", clear(t, ann, quoted("waits")+"\n  Dep-Wait libnone (>= 2), libx\n"), "dep-wait", "ann",
			"Done: dep-wait"},
		{"giveback", "givesback", inMIME(t, ann, "giveback\n"+logsJob(logs, "givesback")+"\n"), "needs-build", "ann",
			"Done: giveback"},
		{"not-for-us", "notforus", clear(t, ann, "not-for-us it needs a disk\n"+logsJob(logs, "notforus")), "not-for-us",
			"ann", "Done: not-for-us"},
		{"manual", "byhand", clear(t, ann, "manual\n"+logsJob(logs, "byhand")), "built", "ann", "Done: manual"},
		{"newvers", "newer", clear(t, ann, "newvers 1:2.0-2\n"+logsJob(logs, "newer")), "attic", "ann", "Done: newvers"},
		{"purge", "purged", clear(t, ann, "purge\n"+logsJob(logs, "purged")), "attic", "ann", "Done: purge"},
		{"upload-rem too early", "takenback", clear(t, ann, "upload-rem\n"+logsJob(logs, "takenback")), "built", "ann",
			"it is in built now"},
		{"signed in error", "takenback", sign("takenback"), "uploaded", "ann", "Done: sign"},
		{"upload-rem of another build", "takenback",
			clear(t, ann, "upload-rem\nJob: 0123456789abcdef0123"+logsJob(logs, "takenback")[25:]), "uploaded", "ann",
			"of another build"},
		{"upload-rem", "takenback", clear(t, ann, "upload-rem oops\n"+logsJob(logs, "takenback")), "needs-build", "ann",
			"Done: upload-rem"},
		{"nobody signed", "unsigned", from + "\nfail\n" + quoted("unsigned"), "built", "", ""},
		{"nobody signed a .changes", "unsigned", from + "\n" + string(changes("unsigned")), "built", "", ""},
		{"an unknown key", "unknown", clear(t, stranger, "fail x"+quoted("unknown")), "built", "", ""},
		{"an unknown key's .changes", "unknown", attached(t, stranger, changes("unknown")), "built", "", ""},
		{"a key of another architecture",
			"other", clear(t, ivy, "fail x\n"+logsJob(logs, "other")), "built", "ivy", "may not speak"},
		{"its .changes", "other", clear(t, ivy, string(changes("other"))), "built", "ivy", "may not speak"},
		{"who may upload sources", "source", attached(t, m.signer, changes("source")), "built", "up", "may not speak"},
		{"From of another", "forged",
			strings.Replace(clear(t, ivy, "not-for-us\n"+logsJob(logs, "forged")), "ann@example.org", "victim@example.org",
				1), "built", "ivy", "may not speak"},
		{"a program's mail", "robot", "Auto-Submitted: auto-replied\n" + clear(t, ann, "retry\n"+logsJob(logs, "robot")),
			"built", "", ""},
		{"a list's mail", "robot", "Precedence: bulk\n" + clear(t, ann, "retry\n"+logsJob(logs, "robot")), "built", "", ""},
		{"a bounce", "robot", "Return-Path: <>\n" + clear(t, ann, "retry\n"+logsJob(logs, "robot")), "built", "", ""},
		{"our own mail", "robot", string(logs["robot"].raw), "built", "", ""},
		{"another .changes", "changed",
			clear(t, ann, strings.Replace(string(changes("changed")), "Urgency: ", "Urgency: very-",
				1)), "built", "ann", "is not the .changes"},
		{"a .changes of another build", "changed",
			clear(t, ann, strings.ReplaceAll(string(changes("signs")), "signs",
				"changed")), "built", "ann", "is not the .changes"},
		{"two signed texts", "twotexts", sign("twotexts") + "\n" + strings.SplitN(sign("twotexts"), "\n\n", 2)[1], "built",
			"", ""},
		{"without the line Job", "nojob", clear(t, ann, "retry\n"), "built", "ann", "the line that begins with Job:"},
		{"two builds at once", "nojob", clear(t, ann, "retry\n"+logsJob(logs, "nojob")+"\n"+logsJob(logs, "mine")), "built",
			"ann", "more than one build"},
		{"no word", "nojob", clear(t, ann, "please "+logsJob(logs, "nojob")), "built", "ann", "is not a word"},
		{"retry", "replayed", retryReplayed, "needs-build", "ann", "Done: retry"},
		{"retry again", "replayed", retryReplayed, "needs-build", "ann", "taken before"},
		{"retry a third time", "replayed", retryReplayed, "needs-build", "", ""},
		{"a .changes again", "signs", sign("signs"), "uploaded", "ann", "taken before"},
		{"a word about what is judged", "fails", clear(t, ann, "retry"+quoted("fails")), "failed", "ann",
			"it is in failed now"},
		{"mail of no form", "mine", "\x00\xff\n\n", "built", "", ""},
	}
	m.letters(sink)
	for _, r := range rows {
		if got := m.bring(r.mail); got != 0 {
			t.Errorf("%s: exit status %d", r.what, got)
		}
		if got := m.stateOf(r.name); got != r.state {
			t.Errorf("%s: %s is in %s, want %s", r.what, r.name, got, r.state)
		}
		sent := m.letters(sink)
		if r.to == "" {
			if len(sent) > 0 {
				t.Errorf("%s: answered: to %s: %s", r.what, sent[0].to, sent[0].subject)
			}
			continue
		}
		if len(sent) != 1 || len(sent[0].to) != 1 || sent[0].to[0] != r.to+"@example.org" ||
			!strings.Contains(sent[0].subject+sent[0].text, r.subject) {
			t.Errorf("%s: %d answers, want one to %s that says %q", r.what, len(sent), r.to, r.subject)
			for _, l := range sent {
				t.Logf("to %s: %s\n%s", l.to, l.subject, l.text)
			}
		} else if h := sent[0].header; h.Get("Auto-Submitted") != "auto-replied" ||
			h.Get("In-Reply-To") != "<1@example.org>" {
			t.Errorf("%s: the answer's header: %v", r.what, h)
		}
	}
	// The build of a word is not another build, whatever else is the same.
	m.bring(clear(t, ann, "retry\n"+logsJob(logs, "stale")))
	m.once("buildd-amd64")
	m.letters(sink)
	m.bring(clear(t, ann, "fail an old log\n"+logsJob(logs, "stale")))
	if sent := m.letters(sink); m.stateOf("stale") != "built" || len(sent) != 1 ||
		!strings.Contains(sent[0].text, "it was built again") {
		t.Errorf("stale: in %s, answers %+v", m.stateOf("stale"), sent)
	}
	// Trouble keeps the mail: a job that is held, settings that are wrong, no tree.
	held, err := spool.Open(m.tree)
	m.must(err)
	found, err := held.Find("mine", spool.Built)
	m.must(err)
	it, err := held.Claim(found[0].Place, found[0].Name.String())
	m.must(err)
	mine := sign("mine")
	if got := m.bring(mine); got != 75 {
		t.Errorf("a held job: exit status %d", got)
	}
	it.Release()
	good, err := os.ReadFile(filepath.Join(m.tree, "control/suites"))
	m.must(err)
	m.control("suites", "Suite: stable")
	if got := m.bring(mine); got != 75 {
		t.Errorf("wrong settings: exit status %d", got)
	}
	m.control("suites", string(good))
	if out, err := exec.Command(filepath.Join(bin, "packmill"), "--tree", "/nowhere",
		"mail").CombinedOutput(); err == nil || err.(*exec.ExitError).ExitCode() != 75 {
		t.Errorf("no tree: %v, %s", err, out)
	}
	if got := m.bring(mine); got != 0 || m.stateOf("mine") != "uploaded" {
		t.Errorf("brought again: exit status %d, in %s", got, m.stateOf("mine"))
	}
	// What was signed by mail is published, and what was taken back is not.
	m.once("master-buildd")
	m.once("archived")
	if got := m.stateOf("takenback"); got != "built" {
		t.Errorf("what was taken back and built again is in %s, want built", got)
	}
	for _, n := range []string{"signs", "attaches", "mine"} {
		if got := m.stateOf(n); got != "installed" {
			t.Errorf("%s is in %s", n, got)
		}
	}
	m.sound()
}

func logsJob(logs map[string]letter, n string) string { l := logs[n]; return l.job() + "\n" }

// Maildir: each message is taken once, however many fetch at a time, and lies in
// cur afterwards; one that cannot be taken now stays in new.
func TestMaildir(t *testing.T) {
	t.Parallel()
	m := newMill(t, "Log-Review: manual")
	sink := m.sink()
	ann := m.person("ann", "sign")
	for i := range 6 {
		m.upload(uploadtest.Package{Source: fmt.Sprintf("pkg%d", i), Version: "1"})
	}
	m.once("reviewd")
	m.once("master-buildd")
	m.once("buildd-amd64")
	box := filepath.Join(t.TempDir(), "Maildir")
	for _, d := range []string{"new", "cur", "tmp"} {
		m.must(os.MkdirAll(filepath.Join(box, d), 0o700))
	}
	for i, l := range m.letters(sink) {
		m.must(os.WriteFile(filepath.Join(box, "new", fmt.Sprintf("%d.m.host", i)),
			[]byte(clear(t, ann, string(l.files[fmt.Sprintf("pkg%d_1_amd64.changes", i)]))), 0o600))
	}
	m.must(os.WriteFile(filepath.Join(box, "new", "9.m.host"), []byte(from+"\nnothing\n"), 0o600))
	tree, err := spool.Open(m.tree)
	m.must(err)
	found, err := tree.Find("pkg5", spool.Built)
	m.must(err)
	it, err := tree.Claim(found[0].Place, found[0].Name.String())
	m.must(err)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			out, err := m.try("mail", "--maildir", box)
			m.Logf("%v %s", err, out)
		})
	}
	wg.Wait()
	it.Release()
	list := func(d string) int {
		e, err := os.ReadDir(filepath.Join(box, d))
		m.must(err)
		return len(e)
	}
	if list("new") != 1 || list("cur") != 6 {
		t.Errorf("%d messages in new, want the one that must wait; %d in cur", list("new"), list("cur"))
	}
	m.packmill("mail", "--maildir", box)
	if list("new") != 0 || list("cur") != 7 {
		t.Errorf("%d messages in new, %d in cur", list("new"), list("cur"))
	}
	if answers := m.letters(sink); len(answers) != 6 {
		t.Errorf("%d answers for 6 signed mails", len(answers))
	}
	for i := range 6 {
		if got := m.stateOf(fmt.Sprintf("pkg%d", i)); got != "uploaded" {
			t.Errorf("pkg%d is in %s", i, got)
		}
	}
}
