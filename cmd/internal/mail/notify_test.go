package mail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/mail"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	gomail "github.com/emersion/go-message/mail"
	"github.com/google/go-cmp/cmp"

	"packmill/cmd/internal/control"
	"packmill/spool"
)

// program writes a sendmail that runs some shell commands.
func program(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sendmail")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAddress(t *testing.T) {
	for in, want := range map[string]string{
		"ann@example.org":                   "ann@example.org",
		"Ann Example <ann+x@example.org>":   "ann+x@example.org",
		"\"Ann, Example\" <a@example.org>":  "a@example.org",
		"":                                  "",
		"ann":                               "",
		"-oQ/tmp@example.org":               "",
		"\"-oQ/tmp\"@example.org":           "",
		"\"|sh\"@example.org":               "!", // as an address it is a name with a bar
		"a@example.org, b@example.org":      "",
		"a@example.org\nBcc: b@x.org":       "",
		"a@example.org\x00":                 "",
		"a b@example.org":                   "",
		"\"a b\"@example.org":               "",
		"a@[127.0.0.1]":                     "a@[127.0.0.1]",
		strings.Repeat("a", 250) + "@x.org": "",
	} {
		got, err := Address(in)
		if want == "!" {
			if err == nil && strings.ContainsAny(got, " \t\n<>,;\"") {
				t.Errorf("%q: got %q", in, got)
			}
			continue
		}
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v, want %q", in, got, err, want)
		}
	}
}

// Who hears of what: by event and word, each address once for each program and
// sender.
func TestEnvelopes(t *testing.T) {
	notices := []control.Notice{
		{Event: "log", To: []string{BuildSigners, "x@example.org", Signer, Maintainer}, Via: "/a", From: "f@example.org"},
		{Event: "*", To: []string{"all@example.org", "x@example.org"}, Via: "/a", From: "f@example.org"},
		{Event: "log", To: []string{Builder}, Via: "/b"},
		{Event: "failed", To: []string{"never@example.org"}, Via: "/a"},
	}
	m := &Message{Event: "log", People: map[string]string{
		BuildSigners: "Ann <ann@example.org>,,x@example.org,-bad@example.org",
		Maintainer:   "Team, The <a@example.org>, b@example.org", Builder: "host@example.org",
	}}
	want := []envelope{
		{"/a", "f@example.org", []string{"ann@example.org", "x@example.org", "all@example.org"}},
		{"/b", "", []string{"host@example.org"}},
	}
	if diff := cmp.Diff(want, envelopes(notices, m), cmp.AllowUnexported(envelope{})); diff != "" {
		t.Error(diff)
	}
}

// A message comes out as it went in, and nothing of it breaks out of where it
// belongs.
func TestFormat(t *testing.T) {
	binary := []byte("\x00\x1f\x8b\n.\n\r\n--boundary\nFrom x\n")
	changes := "Format: 1.8\nBinary: a\n b =\nMaintainer: Äñn <a@example.org>\n" + strings.Repeat("x", 500) + "\n"
	m := &Message{
		Event: "log", Item: "i", Key: "k", Date: time.Now(), Subject: "Log\r\nBcc: evil@example.org\x1b[31m of Ä",
		Body: "one \x1b]0;x\x07\n.\nFrom two\n\n\u202ethree\r\n-- \n",
		Parts: []Part{{Name: "a.changes", Inline: true, Data: []byte(changes)},
			{Name: "\"a\n\".log.gz", Type: "application/gzip", Data: binary}},
	}
	for _, parts := range []int{0, 2} {
		x := *m
		x.Parts = m.Parts[:parts]
		text, from, err := x.format(envelope{from: "Builds <builds@example.org>",
			to: []string{"a@example.org", "b@example.org"}})
		if err != nil || from != "builds@example.org" {
			t.Fatalf("from %q, %v", from, err)
		}
		if bytes.ContainsAny(text, "\x00\x1b\x07\r") || bytes.Contains(text, []byte("\nBcc")) {
			t.Errorf("control characters, or a header that broke out:\n%q", text)
		}
		for _, l := range bytes.Split(text, []byte("\n")) {
			if len(l) > 998 {
				t.Errorf("a line of %d bytes", len(l))
			}
		}
		r, err := gomail.CreateReader(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for {
			p, err := r.NextPart()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			data, err := io.ReadAll(p.Body)
			if err != nil {
				t.Fatal(err)
			}
			if kind, _, _ := p.Header.(interface {
				ContentType() (string, map[string]string, error)
			}).ContentType(); kind == "text/plain" {
				data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
			}
			got = append(got, string(data))
		}
		want := []string{"one  ]0;x\n.\nFrom two\n\n three\n--\n", changes, string(binary)}[:1+parts]
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		h, err := mail.ReadMessage(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if id := h.Header.Get("Message-Id"); !Own(id) || h.Header.Get("Auto-Submitted") != "auto-generated" ||
			len(h.Header["Mime-Version"]) != 1 {
			t.Errorf("header: %v", h.Header)
		}
	}
}

// The Message-ID says which occasion a mail is about: the same again has the
// same.
func TestMessageID(t *testing.T) {
	id := func(item, event, key string) string {
		m := &Message{Event: event, Item: item, Key: key, Date: time.Now()}
		text, _, err := m.format(envelope{from: "b@example.org", to: []string{"a@example.org"}})
		if err != nil {
			t.Fatal(err)
		}
		h, err := mail.ReadMessage(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		return h.Header.Get("Message-Id")
	}
	seen := map[string]bool{id("a", "log", "1"): true}
	if !seen[id("a", "log", "1")] {
		t.Error("the same message has another Message-ID")
	}
	for _, x := range [][3]string{{"a", "log", "2"}, {"a", "failed", "1"}, {"b", "log", "1"}} {
		if got := id(x[0], x[1], x[2]); seen[got] {
			t.Errorf("%v: Message-ID %s twice", x, got)
		} else {
			seen[got] = true
		}
	}
	for s, want := range map[string]bool{
		"<" + strings.Repeat("0a", 20) + ".packmill@example.org>": true,
		"<x.packmill@example.org>":                                false,
		"<" + strings.Repeat("0a", 20) + ".packmill@a>\nx":        false,
	} {
		if Own(s) != want {
			t.Errorf("Own(%q): got %v", s, !want)
		}
	}
}

// A sendmail gets its arguments and text whole; one that fails, hangs or is
// not there is an error, and the others are still tried.
func TestSend(t *testing.T) {
	dir := t.TempDir()
	tree, err := spool.Init(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	good := program(t, fmt.Sprintf("printf '%%s\\n' \"$@\" >%[1]s/args\ncat >%[1]s/text", dir))
	m := &Message{Event: "log", Item: "i", Key: "k", Date: time.Now(), Subject: "s", Body: "b\n"}
	notice := func(via string) control.Notice {
		return control.Notice{Event: "log", To: []string{"a@example.org", "b@example.org"}, Via: via, From: "f@example.org"}
	}
	n, err := Send(context.Background(), tree,
		[]control.Notice{notice(program(t, "echo no \x1b space >&2; exit 75")), notice("/nowhere"), notice(good)}, m)
	if n != 2 || err == nil || !strings.Contains(err.Error(), "exit status 75: no   space") ||
		!strings.Contains(err.Error(), "/nowhere") {
		t.Errorf("got %d, %v", n, err)
	}
	args, err := os.ReadFile(dir + "/args")
	if want := "-i\n-f\nf@example.org\n--\na@example.org\nb@example.org\n"; err != nil || string(args) != want {
		t.Errorf("arguments: got %q, %v, want %q", args, err, want)
	}
	if text, err := os.ReadFile(dir + "/text"); err != nil || !bytes.HasSuffix(text, []byte("\n\nb\n")) {
		t.Errorf("text: %q, %v", text, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if n, err := Send(ctx, tree, []control.Notice{notice(program(t, "sleep 1000"))}, m); n != 0 || err == nil {
		t.Errorf("one that hangs: got %d, %v", n, err)
	}
	if n, err := Send(context.Background(), tree,
		[]control.Notice{{Event: "log", To: []string{"a@example.org"}, Via: good, From: "a\nb"}}, m); n != 0 || err == nil ||
		!strings.Contains(err.Error(), "From in control/notify") {
		t.Errorf("a bad From: got %d, %v", n, err)
	}
}
