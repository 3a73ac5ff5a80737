package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/mail"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"packmill/cmd/internal/daemon"
	"packmill/spool"
	"packmill/spool/incoming"
	"packmill/spool/upload/uploadtest"
)

// outbox is a sendmail that keeps what it is given: arguments and text.
type outbox struct {
	s   *site
	dir string
}

// mail makes the site tell everything to the signer, the maintainer and an
// archive's address, by a program that first runs the given shell commands.
func (s *site) mail(before string) *outbox {
	s.t.Helper()
	o := &outbox{s, s.t.TempDir()}
	s.write("../sendmail",
		fmt.Sprintf("#!/bin/sh\n%s\nf=$(mktemp %s/XXXXXX)\nprintf '%%s\\n' \"$*\" >$f\ncat >>$f\nmv $f $f.mail\n",
			before, o.dir))
	path := s.tree.Path("../sendmail")
	if err := os.Chmod(path, 0o755); err != nil {
		s.t.Fatal(err)
	}
	s.write("control/notify",
		"Event: *\nTo: signer, maintainer, archive@example.org\nFrom: \"The Archive\" <archive@example.org>\nVia: "+path+"\n")
	return o
}

type letter struct {
	args string
	*mail.Message
	raw string
}

// letters reads what was sent, sorted by subject.
func (o *outbox) letters() []letter {
	o.s.t.Helper()
	names, _ := filepath.Glob(filepath.Join(o.dir, "*.mail"))
	var out []letter
	for _, n := range names {
		data, err := os.ReadFile(n)
		if err != nil {
			o.s.t.Fatal(err)
		}
		args, text, _ := strings.Cut(string(data), "\n")
		m, err := mail.ReadMessage(strings.NewReader(text))
		if err != nil {
			o.s.t.Fatalf("not a mail: %v\n%s", err, text)
		}
		out = append(out, letter{args, m, text})
	}
	slices.SortFunc(out, func(a, b letter) int {
		return strings.Compare(a.Header.Get("Subject"), b.Header.Get("Subject"))
	})
	return out
}

func subjects(letters []letter) (out []string) {
	for _, l := range letters {
		out = append(out, l.Header.Get("Subject"))
	}
	return out
}

// TestTold: each step is mailed once, to those whom it concerns, whoever made
// it and whenever.
func TestTold(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	o := s.mail("")
	dir, names := s.make(hello)
	s.put("ann", dir, names...)
	s.once()
	f := s.await("hello", spool.Review)
	status := func() string {
		data, _ := os.ReadFile(s.drop("ann", names[len(names)-1]+".status"))
		return string(data)
	}
	if got := status(); !strings.HasPrefix(got, "spool/review/stable since ") {
		t.Errorf("status: %q", got)
	}
	if err := s.tree.Ensure(spool.In(spool.Accepted, "stable")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(s.tree.Path(f.Dir()), s.tree.Path("spool/accepted/stable", f.Name.String())); err != nil {
		t.Fatal(err)
	}
	s.once()
	s.once()
	// It has gone on to the queues while nobody told: nothing is told twice.
	if err := s.tree.Ensure(spool.In(spool.Master, "stable")); err != nil {
		t.Fatal(err)
	}
	it, err := s.tree.Claim(spool.In(spool.Accepted, "stable"), f.Name.String())
	if err != nil {
		t.Fatal(err)
	}
	if err := it.Move(spool.MasterD, "master-buildd", spool.Verdict{To: spool.In(spool.Master, "stable")}); err != nil {
		t.Fatal(err)
	}
	it.Release()
	s.once()
	letters := o.letters()
	if got, want := subjects(letters), []string{"hello 1.0-1 for stable: accepted",
		"hello 1.0-1 for stable: received"}; !slices.Equal(got, want) {
		t.Fatalf("mails: got %q, want %q", got, want)
	}
	for _, l := range letters {
		if want := "-i -f archive@example.org -- ann@example.org test@example.org archive@example.org"; l.args != want {
			t.Errorf("sendmail got %q, want %q", l.args, want)
		}
		if l.Header.Get("Auto-Submitted") != "auto-generated" || l.Header.Get("Message-Id") == "" {
			t.Errorf("headers: %v", l.Header)
		}
	}
	if letters[0].Header.Get("References") != letters[1].Header.Get("References") {
		t.Error("the two are not in one thread")
	}
	if got := status(); !strings.HasPrefix(got, "queue/stable/master since ") {
		t.Errorf("status at the end: %q", got)
	}
}

// TestToldOfStrangers: what an unsigned file says is no address; the account's
// own directory says what is wrong, also to a key that nobody knows.
func TestToldOfStrangers(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	o := s.mail("")
	for _, drop := range []string{"", "ann"} {
		dir, names := s.make(uploadtest.Package{Source: "hello", Version: "1.0-1", Signer: keys().stranger,
			Maintainer: "Victim <victim@example.org>"})
		s.put(drop, dir, names...)
		s.once()
	}
	letters := o.letters()
	if len(letters) != 2 {
		t.Fatalf("%d mails, want 2", len(letters))
	}
	for _, l := range letters {
		if want := "-i -f archive@example.org -- archive@example.org"; l.args != want {
			t.Errorf("sendmail got %q, want %q", l.args, want)
		}
	}
	data, _ := os.ReadFile(s.drop("ann", "hello_1.0-1_source.changes.status"))
	if got := string(data); !strings.HasPrefix(got, "spool/rejected since ") || !strings.Contains(got, "key") {
		t.Errorf("status: %q", got)
	}
}

// TestToldInTheEnd: a sendmail that fails is asked again, and keeps nobody.
func TestToldInTheEnd(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	flag := filepath.Join(t.TempDir(), "down")
	if err := os.WriteFile(flag, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	o := s.mail("if [ -e " + flag + " ]; then echo down; exit 75; fi")
	dir, names := s.make(hello)
	s.put("", dir, names...)
	s.once()
	s.await("hello", spool.Review)
	if !strings.Contains(s.log.String(), "msg=mail") || !strings.Contains(s.log.String(), "exit status 75: down") {
		t.Errorf("the failure is not in the log")
	}
	if err := os.Remove(flag); err != nil {
		t.Fatal(err)
	}
	s.once()
	s.once()
	if got := subjects(o.letters()); len(got) != 1 {
		t.Errorf("mails: %q, want one", got)
	}
}

// TestLinkedStatus: what an account has made itself under the name of a status file is
// replaced by one, and what it leads to is neither written, nor made, nor waited for.
func TestLinkedStatus(t *testing.T) {
	t.Parallel()
	for kind, make := range map[string]func(victim, path string) error{
		"symbolic link": os.Symlink,
		"dangling link": func(victim, path string) error { return os.Symlink(victim+".new", path) },
		"hard link":     os.Link,
		"FIFO":          func(_, path string) error { return unix.Mkfifo(path, 0o644) },
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.write("victim", "another's\n")
			victim := s.tree.Path("victim")
			dir, names := s.make(hello)
			s.put("ann", dir, names...)
			path := s.drop("ann", names[len(names)-1]+".status")
			if err := make(victim, path); err != nil {
				t.Fatal(err)
			}
			s.once()
			s.await("hello", spool.Review)
			if got, err := os.ReadFile(victim); err != nil || string(got) != "another's\n" {
				t.Errorf("the victim: %q, %v", got, err)
			}
			if _, err := os.Lstat(victim + ".new"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("where the dangling link leads: %v", err)
			}
			st, err := os.Lstat(path)
			if err != nil || !st.Mode().IsRegular() {
				t.Fatalf("the status file: %v, %v", st, err)
			}
			if got, err := os.ReadFile(path); err != nil || !strings.HasPrefix(string(got), "spool/review/stable since ") {
				t.Errorf("the status file: %q, %v", got, err)
			}
		})
	}
}

// TestInjection: nothing in an upload can make a header, a recipient or an
// escape sequence.
func TestInjection(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	o := s.mail("")
	for i, m := range []string{
		"Eve\x1b[2J <eve@example.org>", "-oQ/tmp/x <-oQ/tmp/x@example.org>", "a <a@example.org>, b <b@example.org>",
		"x@example.org\n\nBcc: c@example.org",
		"\u202e <\u202e@example.org>", "<e\u00e9@example.org>", "-C/etc/passwd@example.org",
	} {
		p := uploadtest.Package{Source: fmt.Sprintf("evil%d", i), Version: "1.0-1", ChangedBy: "Test <t@example.org>",
			Signer: keys().ann}
		p.Changes = func(text string) string {
			lines := strings.Split(text, "\n")
			for i := range lines {
				if strings.HasPrefix(lines[i], "Maintainer:") {
					lines[i] = "Maintainer: " + strings.ReplaceAll(m, "\n", "\n ")
				}
			}
			return strings.Join(lines, "\n")
		}
		dir, names := s.make(p)
		s.put("", dir, names...)
	}
	s.once()
	letters := o.letters()
	if len(letters) != 7 {
		t.Errorf("%d mails, want 7", len(letters))
	}
	for _, l := range letters {
		_, to, _ := strings.Cut(l.args, " -- ")
		for _, a := range strings.Fields(to) {
			if a != "ann@example.org" && a != "archive@example.org" && a != "eve@example.org" {
				t.Errorf("recipient %q", a)
			}
		}
		for _, h := range []string{"Bcc", "Cc"} {
			if l.Header.Get(h) != "" {
				t.Errorf("a header %s", h)
			}
		}
		for _, c := range l.raw {
			if c < ' ' && c != '\n' || c > '~' {
				t.Errorf("a raw %q in a mail", c)
			}
		}
	}
}

// dcut sends a .commands file, signed by who.
func (s *site) dcut(drop string, signed func([]byte) []byte, commands ...string) {
	s.t.Helper()
	text := "Archive: example\nUploader: Ann <ann@example.org>\nCommands:\n " + strings.Join(commands, "\n ") + "\n"
	s.write(filepath.Join("spool/incoming", drop, fmt.Sprintf("ann-%d.commands", time.Now().UnixNano())),
		string(signed([]byte(text))))
}

func byAnn(t *testing.T) func([]byte) []byte {
	return func(text []byte) []byte {
		out, err := keys().ann.Clearsign(text, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
}

// TestCommands: dcut takes back what its signer has sent, and nothing else.
func TestCommands(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	o := s.mail("")
	k := keys()
	one := func(source string, p uploadtest.Package) []string {
		p.Source, p.Version = source, "1.0-1"
		dir, names := s.make(p)
		if p.Section == "" {
			p.Section = "3-day"
		}
		s.put(map[string]string{"3-day": "DELAYED/3-day", "now": ""}[p.Section], dir, names...)
		return names
	}
	one("mine", uploadtest.Package{Signer: k.ann})
	one("other", uploadtest.Package{Signer: k.bob})
	one("later", uploadtest.Package{Signer: k.ann})
	one("direct", uploadtest.Package{Signer: k.ann, Section: "now"})
	one("bobs", uploadtest.Package{Signer: k.bob, Section: "now"})
	s.write("spool/incoming/stray_1.dsc", "x")
	s.once()
	s.await("direct", spool.Review)
	if got := s.where("mine"); len(got) > 0 {
		t.Fatalf("a deferred upload was taken: %v", got)
	}
	var first []byte
	s.dcut("", func(text []byte) []byte {
		first = byAnn(t)(text)
		return first
	}, "cancel mine_1.0-1_source.changes", "cancel other_1.0-1_source.changes",
		"cancel direct_1.0-1_source.changes",
		"cancel bobs_1.0-1_source.changes", "reschedule later_1.0-1_source.changes 0-day",
		"rm --searchdirs other_*", "rm stray_1.dsc", "rm nothing_1.dsc")
	s.once()
	done := s.await("dcut", spool.Attic)
	got := s.reason(done)
	for _, want := range []string{
		"cancel mine_1.0-1_source.changes: cancelled in spool/incoming/DELAYED/3-day",
		"cancel other_1.0-1_source.changes: it is another uploader's",
		"cancel direct_1.0-1_source.changes: cancelled in spool/review/stable",
		"cancel bobs_1.0-1_source.changes: it is another uploader's",
		"reschedule later_1.0-1_source.changes: waits in spool/incoming/DELAYED/0-day, from now",
		"rm other_*: removed nothing; of another uploader, and not touched: other_1.0-1.debian.tar.gz",
		"rm stray_1.dsc: removed stray_1.dsc",
		"rm nothing_1.dsc: no such file waits",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no answer %q in:\n%s", want, got)
		}
	}
	s.once()
	s.await("later", spool.Review)
	s.await("direct", spool.Attic)
	s.await("bobs", spool.Review)
	if _, err := os.Lstat(s.tree.Path(done.Dir(), uploadDir, "from-spool_incoming_DELAYED_3-day",
		"mine_1.0-1.dsc")); err != nil {
		t.Errorf("the cancelled upload is not in the attic: %v", err)
	}
	var answer *letter
	for _, l := range o.letters() {
		if strings.HasSuffix(l.Header.Get("Subject"), "carried out") {
			answer = &l
		}
	}
	if answer == nil || !strings.Contains(answer.args, "ann@example.org") {
		t.Errorf("the answer: %+v", answer)
	}

	// Unsigned, by a stranger, and the same file again: refused.
	s.write("spool/incoming/stray_1.dsc", "x") // anew, which the first commands name
	for want, sign := range map[string]func([]byte) []byte{
		"were here before":     func([]byte) []byte { return first },
		"no OpenPGP signature": func(text []byte) []byte { return text },
		"not known here": func(text []byte) []byte {
			out, err := k.stranger.Clearsign(text, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			return out
		},
	} {
		before := len(s.where("dcut", spool.Rejected))
		s.dcut("", sign, "rm --searchdirs *")
		s.once()
		found := s.where("dcut", spool.Rejected)
		if len(found) != before+1 {
			t.Errorf("%s: not refused", want)
			continue
		}
		if got := s.reason(found[before]); !strings.Contains(got, "refused") || !strings.Contains(got, want) {
			t.Errorf("REASON: %s, want %q", got, want)
		}
	}
	if _, err := os.Lstat(s.drop("stray_1.dsc")); err != nil {
		t.Errorf("what the commands name that came again: %v", err)
	}
	if _, err := os.Lstat(s.drop("DELAYED/3-day/other_1.0-1.dsc")); err != nil {
		t.Errorf("bob's deferred upload: %v", err)
	}
}

// TestSwept: what was refused goes to the attic in time, and from there for
// good; a birth that nobody holds goes too, and nothing that is young.
func TestSwept(t *testing.T) {
	t.Parallel()
	s := newSite(t, "Keep-Rejected: 1s")
	dir, names := s.make(uploadtest.Package{Source: "bad", Version: "1.0-1", Signer: keys().stranger})
	s.put("ann", dir, names...)
	s.write("tmp/new-young/ticket", "x")
	s.write("tmp/gone/50-20200101T000000.000000Z_old_1/ticket", "x")
	s.once()
	s.await("bad", spool.Rejected)
	time.Sleep(1100 * time.Millisecond)
	s.once()
	f := s.await("bad", spool.Attic)
	if got := s.files(f); !slices.Contains(got, names[0]) {
		t.Errorf("the attic has %q", got)
	}
	s.write("control/general", "Reserve: 1M\nReserve-Inodes: 1\nKeep-Attic: 1s\n")
	time.Sleep(1100 * time.Millisecond)
	s.once()
	if got := s.where("bad"); len(got) > 0 {
		t.Errorf("still there: %v", got)
	}
	if _, err := os.Lstat(s.tree.Path("tmp/new-young")); err != nil {
		t.Error("a young birth was swept")
	}
}

// An uploader hears of each state of sources that has an event, also of one that
// is new in the table.
func TestTellsOfStates(t *testing.T) {
	tree, err := spool.Init(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	held := &spool.Row{Name: "held", Dir: "spool/held/SUITE", Traits: spool.Sources | spool.Whole, Tells: "received"}
	tree.States = append(slices.Clone(tree.States), held)
	place := spool.In(held, "sid")
	if err := tree.Ensure(place); err != nil {
		t.Fatal(err)
	}
	env := &daemon.Env{Tree: tree}
	places, err := newTeller(env, nil).Places()
	if err != nil || !slices.Contains(places, place) {
		t.Errorf("got %v, %v; want %s among them", places, err, place)
	}
	at := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	events := []spool.Event{{Time: at, From: "spool/intake", To: "spool/held/sid"},
		{Time: at, From: "spool/held/sid", To: "spool/held/sid"}}
	if got := (&teller{Env: env}).arrival(place, events); got != events[0] {
		t.Errorf("its arrival: got %v, want %v", got, events[0])
	}
}

// TestStatusKeepsOrder: of what became of an upload the last word stays, also when all was within a second and is told
// again.
func TestStatusKeepsOrder(t *testing.T) {
	tree, err := spool.Init(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(tree.Path("spool/incoming/up"), 0o755); err != nil {
		t.Fatal(err)
	}
	env := &daemon.Env{Tree: tree, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	box := &incoming.Box{Tree: tree}
	start := time.Date(2026, 12, 1, 12, 0, 0, 100_000_000, time.UTC)
	for _, x := range []struct {
		after      time.Duration
		what, want string
	}{
		{0, "accepted", "accepted"},
		{300 * time.Millisecond, "published", "published"},
		{700 * time.Millisecond, "removed", "removed"},
		{300 * time.Millisecond, "published", "removed"},
		{2 * time.Second, "published again", "published again"},
		{700 * time.Millisecond, "removed", "published again"},
	} {
		writeStatus(env, box, "up", "hello_1_source.changes", "here", start.Add(x.after), x.what, "")
		got, err := os.ReadFile(tree.Path("spool/incoming/up/hello_1_source.changes.status"))
		if err != nil || !strings.HasSuffix(strings.TrimSpace(string(got)), ": "+x.want) {
			t.Errorf("after %s at %s: got %q, %v; want %s", x.what, x.after, got, err, x.want)
		}
	}
	// It lies there since now, however long ago what it tells of was.
	in := &intake{Env: env, box: box}
	for _, x := range []struct {
		keep time.Duration
		lies bool
	}{{time.Hour, true}, {0, false}} {
		writeStatus(env, box, "up", "old_1_source.changes", "here", time.Now().AddDate(0, 0, -3), "rejected", "")
		in.sweepStatus(incoming.ParseDir("up"), x.keep)
		_, err := os.Lstat(tree.Path("spool/incoming/up/old_1_source.changes.status"))
		if (err == nil) != x.lies {
			t.Errorf("kept for %s: %v", x.keep, err)
		}
	}
}
