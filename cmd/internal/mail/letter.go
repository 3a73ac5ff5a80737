package mail

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/emersion/go-message"

	"packmill/internal/openpgp"
	"packmill/internal/pattern"
)

// What a mail may be. Everything in it is a stranger's until a signature has
// been verified, and of what is verified only the signed bytes count.
const (
	MaxMail  = 8 << 20 // bytes of one mail
	maxDepth = 8       // of parts in parts
	maxParts = 200
)

// letter is a mail with what may be signed in it. Nothing is verified.
type letter struct {
	id    string   // Message-ID without angle brackets, if it is one
	auto  string   // why no program may answer it; "" for a person's mail
	clear [][]byte // cleartext signed messages, each as VerifyClear wants it
	mime  []signedPart
	parts int
}

// signedPart is a part that a detached signature covers (PGP/MIME, RFC 3156).
type signedPart struct {
	raw []byte // with CR LF, as it was signed
	sig []byte // armored
}

// readLetter takes a mail apart, of any line ends, with or without the
// envelope line of mbox. Its errors say what is wrong with the mail.
func readLetter(data []byte) (*letter, error) {
	if len(data) > MaxMail {
		return nil, fmt.Errorf("the mail has more than %d bytes", MaxMail)
	}
	data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
	if bytes.HasPrefix(data, []byte("From ")) {
		_, data, _ = bytes.Cut(data, []byte("\n"))
	}
	l := &letter{}
	e, err := l.open(data)
	if err != nil {
		return nil, err
	}
	if id := strings.Trim(strings.TrimSpace(e.Header.Get("Message-Id")), "<>"); len(id) <= 400 &&
		messageID().MatchString(id) {
		l.id = id
	}
	l.auto = automatic(&e.Header)
	return l, l.walk(data, 0)
}

// open reads an entity's header and decodes its body. A charset that is not
// known matters not: signatures cover bytes.
func (l *letter) open(data []byte) (*message.Entity, error) {
	e, err := message.Read(bytes.NewReader(data))
	if err != nil && !message.IsUnknownCharset(err) {
		return nil, fmt.Errorf("not a mail: %w", err)
	}
	return e, nil
}

var messageID = pattern.Lazy(`^[!-;=?-~]+@[!-;=?-~]+$`)

// automatic says by which sign a mail is a program's and not a person's: it is
// not answered and does nothing, or two programs would write to each other for
// ever (RFC 3834).
func automatic(h *message.Header) string {
	has := func(name string, values ...string) string {
		v := strings.ToLower(strings.TrimSpace(h.Get(name)))
		for _, w := range values {
			if v == w || strings.HasPrefix(v, w+" ") || strings.HasPrefix(v, w+";") {
				return name + ": " + w
			}
		}
		return ""
	}
	if v := strings.ToLower(strings.TrimSpace(h.Get("Auto-Submitted"))); v != "" && v != "no" &&
		!strings.HasPrefix(v, "no ") && !strings.HasPrefix(v, "no;") {
		return "Auto-Submitted"
	}
	for _, name := range []string{"X-Packmill-Event", "List-Id"} {
		if h.Has(name) {
			return name
		}
	}
	if Own(h.Get("Message-Id")) {
		return "our own Message-ID"
	}
	if s := has("Precedence", "bulk", "junk", "list", "auto_reply"); s != "" {
		return s
	}
	if s := has("Return-Path", "<>", "<mailer-daemon>"); s != "" {
		return s
	}
	if t, _, _ := h.ContentType(); t == "multipart/report" {
		return t
	}
	return ""
}

// NullSender says whether the environment, as mail systems set it for a program
// that they deliver to, tells of a mail without a sender: a bounce.
func NullSender() bool {
	s, ok := os.LookupEnv("SENDER")
	return ok && (s == "" || s == "<>" || strings.EqualFold(s, "MAILER-DAEMON"))
}

// walk looks through the parts of the entity for what may be signed.
func (l *letter) walk(data []byte, depth int) error {
	if l.parts++; depth > maxDepth || l.parts > maxParts {
		return errors.New("the mail has too many parts")
	}
	e, err := l.open(data)
	if err != nil {
		return err
	}
	kind, params, _ := e.Header.ContentType()
	if !strings.HasPrefix(kind, "multipart/") {
		text, err := io.ReadAll(io.LimitReader(e.Body, MaxMail))
		if err != nil {
			return nil // a broken encoding: there is nothing to be read in it
		}
		l.scan(text)
		return nil
	}
	parts := split(data, params["boundary"])
	if kind == "multipart/signed" && len(parts) == 2 &&
		strings.EqualFold(params["protocol"], "application/pgp-signature") {
		if s, err := l.open(parts[1]); err == nil {
			if sig, err := io.ReadAll(io.LimitReader(s.Body, 1<<20)); err == nil {
				l.mime = append(l.mime, signedPart{bytes.ReplaceAll(parts[0], []byte("\n"), []byte("\r\n")), sig})
			}
		}
	}
	for _, p := range parts {
		if err := l.walk(p, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// split gives the parts of a multipart entity as they stand, byte for byte:
// what is between two lines of the boundary, without the line end before the
// second (RFC 2046 section 5.1.1).
func split(data []byte, boundary string) [][]byte {
	_, body, ok := bytes.Cut(data, []byte("\n\n"))
	if !ok || boundary == "" || len(boundary) > 200 {
		return nil
	}
	var parts [][]byte
	begin, at := -1, 0
	for line := range bytes.Lines(body) {
		rest, ok := bytes.CutPrefix(line, []byte("--"+boundary))
		rest = bytes.TrimRight(rest, " \t\n")
		if last := string(rest) == "--"; ok && (last || len(rest) == 0) {
			if begin >= 0 {
				parts = append(parts, body[begin:max(begin, at-1)])
			}
			if begin = at + len(line); last || len(parts) > maxParts {
				return parts
			}
		}
		at += len(line)
	}
	return nil // cut off: whatever it was, it is not whole
}

const (
	beginClear = "-----BEGIN PGP SIGNED MESSAGE-----"
	endClear   = "-----END PGP SIGNATURE-----"
)

// scan finds the cleartext signed messages of a text: from a line that begins
// one to the line that ends its signature. What stands around them, such as
// what a mail program quotes, is not signed and counts for nothing.
func (l *letter) scan(text []byte) {
	text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	begin, at := -1, 0
	for line := range bytes.Lines(text) {
		word := string(bytes.TrimRight(line, " \t\n"))
		switch {
		case word == beginClear && begin < 0:
			begin = at
		case word == endClear && begin >= 0:
			l.clear = append(l.clear, tidy(text[begin:at+len(line)]))
			begin = -1
		}
		at += len(line)
	}
}

// tidy takes away what mail programs add to the lines around a signed text and
// no signature covers: blanks at line ends.
func tidy(block []byte) []byte {
	var out []byte
	for line := range bytes.Lines(block) {
		out = append(out, bytes.TrimRight(line, " \t\n")...)
		out = append(out, '\n')
	}
	return out
}

// statement is what somebody has signed.
type statement struct {
	text []byte // what the signature covers and a person wrote: lines that end with "\n"
	file []byte // the whole cleartext signed message; nil with PGP/MIME
	sig  *openpgp.Signature
}

// verify returns the one thing in the mail that is signed by a key of the ring.
func (l *letter) verify(ring *openpgp.Keyring, now time.Time) (*statement, error) {
	switch {
	case len(l.clear) == 1:
		text, sig, err := ring.VerifyClear(l.clear[0], now)
		if err != nil {
			return nil, err
		}
		return &statement{text, l.clear[0], sig}, nil
	case len(l.clear) > 1:
		return nil, errors.New("it holds more than one signed text; send one in each mail")
	case len(l.mime) == 1:
		sig, err := ring.VerifyMIME(l.mime[0].raw, l.mime[0].sig, now)
		if err != nil {
			return nil, err
		}
		in := &letter{}
		text, err := in.firstText(bytes.ReplaceAll(l.mime[0].raw, []byte("\r\n"), []byte("\n")), 0)
		return &statement{text, nil, sig}, err
	case len(l.mime) > 1:
		return nil, errors.New("it holds more than one signed part; send one in each mail")
	}
	return nil, errors.New("nothing in it is signed")
}

// firstText is the first text that a person sees of an entity.
func (l *letter) firstText(data []byte, depth int) ([]byte, error) {
	if l.parts++; depth > maxDepth || l.parts > maxParts {
		return nil, errors.New("the signed part has too many parts")
	}
	e, err := l.open(data)
	if err != nil {
		return nil, err
	}
	kind, params, _ := e.Header.ContentType()
	if strings.HasPrefix(kind, "multipart/") {
		for _, p := range split(data, params["boundary"]) {
			if text, err := l.firstText(p, depth+1); err != nil || text != nil {
				return text, err
			}
		}
		return nil, nil
	}
	if kind != "text/plain" && kind != "" {
		return nil, nil
	}
	text, err := io.ReadAll(io.LimitReader(e.Body, MaxMail))
	if err != nil {
		return nil, fmt.Errorf("the signed text: %w", err)
	}
	return bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n")), nil
}
