package mail

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"packmill/internal/openpgp"
	"packmill/internal/policy"
)

const job = "Job: 0123456789abcdef0123 hello_1%3a2.0-1 amd64 sid"

var theJob = Job{"0123456789abcdef0123", "hello_1:2.0-1", "amd64", "sid"}

const changesText = `Format: 1.8
Source: hello (2.0-1)
Binary: hello
Architecture: amd64
Version: 2.0-1+b2
Distribution: sid
Urgency: low
Maintainer: Ann <ann@example.org>
Changed-By: Ann <ann@example.org>
Changes:
 x
Checksums-Sha1:
 da39a3ee5e6b4b0d3255bfef95601890afd80709 1 hello_2.0-1+b2_amd64.deb
Checksums-Sha256:
 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 1 hello_2.0-1+b2_amd64.deb
Files:
 d41d8cd98f00b204e9800998ecf8427e 1 misc optional hello_2.0-1+b2_amd64.deb
Date: Sat, 21 Nov 2026 12:00:00 +0000
`

func TestParseReply(t *testing.T) {
	for _, r := range []struct {
		text string
		word Word
		said string // what follows the word
		err  string
	}{
		{"retry\n\n" + job + "\n", Retry, "", ""},
		{"\n  RETRY now, please\n> " + job + "\n", Retry, "now, please", ""},
		{"fail the test needs a network\nsee bug 1\n\nOn Monday\nthe builds wrote:\n> Source: hello\n> fail not this\n>\n>" +
			job + "\n>\n", Fail, "the test needs a network\nsee bug 1", ""},
		{"Builds wrote:\n> retry\n> > " + job + "\n\nfail really\n--\nAnn\nfail no\n", Fail, "really", ""},
		{"fail it says:\n> error 1\n" + job, Fail, "it says:", ""},
		{"fail it\nsays:\n\n> error 1\n" + job, Fail, "it\nsays:", ""}, // no introduction: the word begins it
		{"dep-wait libfoo-dev (>= 2),\n libbar-dev\n> Job: 0123456789abcdef0123\n> hello_1%3a2.0-1 amd64 sid\n",
			DepWait, "libfoo-dev (>= 2), libbar-dev", ""},
		{"giveback\n" + job + "\n" + job + "\n", GiveBack, "", ""},
		{"manual\n" + job, Manual, "", ""},
		{"not-for-us\n" + job, NotForUs, "", ""},

		{"", "", "", "it says nothing"},
		{"> retry\n> " + job, "", "", "it says nothing"},
		{"sign\n" + job, "", "", "is not a word"},
		{"please retry\n" + job, "", "", "is not a word"},
		{"fail\n" + job, "", "", "say why"},
		{"dep-wait\n" + job, "", "", "dep-wait: "},
		{"dep-wait a | b\n" + job, "", "", "dep-wait: "},
		{"dep-wait a (= 1)\n" + job, "", "", "dep-wait: "},
		{"retry\n", "", "", "the line that begins with Job:"},
		{"retry\nJob: 0123456789abcdef012 hello_1 amd64 sid\n", "", "", "the line that begins with Job:"},
		{"retry\nJob: 0123456789abcdef0123 ../hello_1 amd64 sid\n", "", "", "the line that begins with Job:"},
		{"retry\nJob: 0123456789abcdef0123 hello_1 ../amd64 sid\n", "", "", "the line that begins with Job:"},
		{"retry\n" + job + "\n" + strings.Replace(job, "amd64", "i386", 1), "", "", "more than one build"},
		{"fail " + strings.Repeat("x", maxText+1) + "\n" + job, "", "", "longer than"},
		{"Format: 1.8\nSource: x\n", "", "", "x"},
		{strings.Replace(changesText, "Architecture: amd64", "Architecture: amd64 i386", 1), "", "", "for one architecture"},
	} {
		got, err := ParseReply([]byte(r.text))
		if r.err != "" {
			if err == nil || !strings.Contains(err.Error(), r.err) {
				t.Errorf("%q: got %+v, %v, want an error that says %q", r.text, got, err, r.err)
			}
			continue
		}
		if err != nil || got.Word != r.word || got.Text != r.said || got.Job != theJob {
			t.Errorf("%q: got %+v, %v", r.text, got, err)
		}
	}
	// A .changes names its build itself: a binNMU is a job of the source's version.
	got, err := ParseReply([]byte("\n" + changesText))
	if want := (Job{"", "hello_2.0-1", "amd64", "sid"}); err != nil || got.Word != Sign || got.Job != want {
		t.Errorf("a .changes: got %+v, %v", got, err)
	}
}

// ann signs for the tests of this package.
var ann, ring = func() (*openpgp.Signer, *openpgp.Keyring) {
	s, err := openpgp.Generate("ann", "ann@example.org", time.Now().Add(-time.Hour))
	if err != nil {
		panic(err)
	}
	k, err := openpgp.ReadKeyring(s.Public())
	if err != nil {
		panic(err)
	}
	return s, k
}()

func clearsigned(t testing.TB, text string) string {
	t.Helper()
	out, err := ann.Clearsign([]byte(text), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func signedMIME(t testing.TB, part string) string {
	t.Helper()
	sig, err := ann.Detach([]byte(strings.ReplaceAll(part, "\n", "\r\n")), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return "Content-Type: multipart/signed; boundary=\"b\"; protocol=\"application/pgp-signature\"\n\n" +
		"for old programs\n--b\n" + part +
		"\n--b\nContent-Type: application/pgp-signature\n\n" + string(sig) + "\n--b--\n"
}

// What is signed is found wherever mail programs put it, and only that.
func TestLetter(t *testing.T) {
	const text = "retry\n- a dash\nFrom here\n" + job + "\n"
	block := clearsigned(t, text)
	plain := "Content-Type: text/plain; charset=utf-8\n\n" + text
	nested := func(depth int, leaf string) string {
		for i := range depth {
			leaf = fmt.Sprintf("Content-Type: multipart/mixed; boundary=n%d\n\n--n%d\n%s\n--n%d--\n", i, i, leaf, i)
		}
		return leaf
	}
	for _, r := range []struct{ what, mail, want string }{
		{"plain", "A: b\n\n" + block, text},
		{"with CR LF", strings.ReplaceAll("A: b\n\n"+block, "\n", "\r\n"), text},
		{"from an mbox", "From ann@example.org Sat Nov 21\nA: b\n\n" + block, text},
		{"an unknown charset", "Content-Type: text/plain; charset=klingon\n\n" + block, text},
		{"quoted-printable", "Content-Transfer-Encoding: quoted-printable\n\n" +
			strings.ReplaceAll(strings.ReplaceAll(block, "=", "=3D"), "amd64", "amd=\n64"), text},
		{"blanks at line ends", "A: b\n\n" + strings.ReplaceAll(block, "\n", " \n"), text},
		{"unsigned text around", "A: b\n\nfail no\n> " + block + "\nHi\n" + block + "fail no\n", text},
		{"PGP/MIME", signedMIME(t, plain), text},
		{"PGP/MIME, an alternative",
			signedMIME(t, "Content-Type: multipart/alternative; boundary=c\n\n--c\n"+plain+"\n--c\nContent-Type: text/html\n\n<b>x</b>\n--c--\n"), text},
		{"PGP/MIME below a list's footer", "Content-Type: multipart/mixed; boundary=l\n\n--l\n" + signedMIME(t, plain) +
			"\n--l\nContent-Type: text/plain\n\nfail no\n--l--\n", text},
		{"signed in itself in a signed part",
			signedMIME(t, "Content-Type: text/plain\n\n"+clearsigned(t, "fail x\n")), "fail x\n"},
		{"parts in parts", nested(maxDepth-1, "A: b\n\n"+block), text},

		{"too deep", nested(maxDepth+1, "A: b\n\n"+block), "!too many parts"},
		{"too many parts", "Content-Type: multipart/mixed; boundary=b\n\n" + strings.Repeat("--b\nA: b\n\nx\n", maxParts+5) +
			"--b--\n", "!too many parts"},
		{"too long", "A: b\n\n" + strings.Repeat("x", MaxMail), "!more than"},
		{"no header", "\x00\x01", "!"},
		{"nothing signed", "A: b\n\nretry\n", "!nothing in it is signed"},
		{"two signed texts", "A: b\n\n" + block + block, "!more than one signed text"},
		{"changed", "A: b\n\n" + strings.Replace(block, "retry", "not-for-us", 1), "!does not fit"},
		{"a changed part", strings.Replace(signedMIME(t, plain), "retry", "not-for-us", 1), "!does not fit"},
		{"another part before the signed one",
			strings.Replace(signedMIME(t, plain), "--b\n", "--b\nContent-Type: text/plain\n\nfail no\n--b\n",
				1), "!nothing in it is signed"},
		{"cut off", signedMIME(t, plain)[:300], "!nothing in it is signed"},
		{"signed HTML", signedMIME(t, "Content-Type: text/html\n\n<b>retry</b>\n"), ""},
	} {
		var got *statement
		l, err := readLetter([]byte(r.mail))
		if err == nil {
			got, err = l.verify(ring, time.Now())
		}
		if want, bad := strings.CutPrefix(r.want, "!"); bad {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want an error that says %q", r.what, err, want)
			}
			continue
		}
		if err != nil || strings.TrimRight(string(got.text), "\n") != strings.TrimRight(r.want, "\n") {
			t.Errorf("%s: got %+v, %v", r.what, got, err)
		}
	}
}

func TestAutomatic(t *testing.T) {
	for head, want := range map[string]bool{
		"Auto-Submitted: no": false, "Auto-Submitted: auto-replied": true, "Auto-Submitted: auto-generated; x=y": true,
		"Precedence: bulk": true, "Precedence: list": true, "Precedence: first-class": false,
		"Return-Path: <>": true, "Return-Path: <ann@example.org>": false, "Return-Path: <MAILER-DAEMON>": true,
		"List-Id: <x.example.org>": true, "X-Packmill-Event: log": true,
		"Content-Type: multipart/report; boundary=x":                            true,
		"Message-ID: <0123456789abcdef0123456789abcdef01234567.packmill@x.org>": true,
		"Message-ID: <1@x.org>":                                                 false,
	} {
		l, err := readLetter([]byte(head + "\n\nx\n"))
		if err != nil || (l.auto != "") != want {
			t.Errorf("%s: %q, %v", head, l.auto, err)
		}
	}
}

// Whatever is put around a signed text, what counts is the signed text, or
// nothing.
func FuzzLetter(f *testing.F) {
	const text = "retry\n" + job + "\n"
	block, part := clearsigned(f, text), signedMIME(f, "Content-Type: text/plain\n\n"+text)
	for _, s := range []string{"", "A: b\n\n", "Content-Type: multipart/mixed; boundary=b\n\n--b\nA: b\n\n",
		"Content-Transfer-Encoding: base64\n\n", "-----BEGIN PGP SIGNED MESSAGE-----\n", "> ", "\n--b--\n"} {
		f.Add([]byte(s), []byte("\n"+s), len(s)%2 == 0)
	}
	f.Fuzz(func(t *testing.T, before, after []byte, mime bool) {
		mid := block
		if mime {
			mid = part
		}
		data := slices.Concat(before, []byte(mid), after)
		l, err := readLetter(data)
		if err != nil {
			return
		}
		st, err := l.verify(ring, time.Now())
		if err != nil {
			return
		}
		if got := strings.TrimRight(string(st.text), "\n"); got != strings.TrimRight(text, "\n") {
			t.Errorf("%q: took %q as signed", data, got)
		}
	})
}

// Whatever is signed, a reply that is understood is one of the words about one
// job with sound names, and reading it takes no long time.
func FuzzParseReply(f *testing.F) {
	for _, s := range []string{"retry\n" + job, "fail x:\n> y\n>" + job, "dep-wait a (>= 1)\n" + job, changesText,
		"On\nx:\n> a\nfail b\n-- \n" + job} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := ParseReply(text)
		if err != nil {
			return
		}
		source, version, ok := strings.Cut(r.Job.ID, "_")
		if wordOf(r.Word) == nil || len(r.Text) > maxText || !ok || policy.CheckSource(source) != nil ||
			policy.CheckVersion(version) != nil {
			t.Errorf("%q: got %+v", text, r)
		}
		if r.Word == Sign != bytes.HasPrefix(bytes.TrimLeft(text, "\n \t"), []byte("Format:")) && r.Word == Sign {
			t.Errorf("%q: taken for a .changes", text)
		}
	})
}
