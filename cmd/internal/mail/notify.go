// Package mail is all that Packmill writes to people by the sendmail interface,
// as control/notify says, and what they answer. A message goes only to addresses
// that the settings name, or that the caller vouches for: what a signed file says
// of itself, and never an unsigned one. The log of a build goes to a person, and
// what the person says of it comes back: by mail, signed, or on the command line,
// in the words of Debian's buildd.
package mail

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/mail"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-message"
	gomail "github.com/emersion/go-message/mail"

	"packmill/cmd/internal/control"
	"packmill/internal/pattern"
	"packmill/queue"
	"packmill/spool"
)

// The words of To that stand for people whom the upload, or the settings, tell.
const (
	Signer       = "signer"        // of the upload
	Maintainer   = "maintainer"    // of the package
	Builder      = "builder"       // Email of control/builders
	BuildSigners = "build-signers" // whoever may sign the build
)

// patience is how long a sendmail may take for one message.
const patience = time.Minute

// Message is what is said, to whomever it goes.
type Message struct {
	Event   string // received, accepted, rejected, ... of control/notify
	Item    string // the item's name, and Key, make the Message-ID: a repetition has the same
	Key     string // what tells this occasion from another of the same event
	Subject string
	Body    string
	Of      time.Time // when it happened; what is old nobody wants to be told any more (Teller)
	Date    time.Time
	Parts   []Part // files that go with the text
	// Answer, of an answer to a mail, is that mail's Message-ID, without its
	// angle brackets.
	Answer string
	// Told is the directory of the item that notes that it was said, if it is not the
	// one that there was something to say of (Teller).
	Told string
	// People are the addresses that the words of To stand for here, with commas
	// between where it may be several; a word that is missing is nobody.
	People map[string]string
	// ReplyTo is who gets the answer; "": whom From names.
	ReplyTo string
	About
}

// Part is a file that goes with a message.
type Part struct {
	Name   string
	Type   string // of one that is not inline: application/gzip, ...
	Inline bool   // text that is shown under the message; it is UTF-8
	Data   []byte
}

// Thread names the upload that an item came from: what is mailed of it, and of
// its builds, is one thread.
func Thread(t *queue.Ticket, n spool.Name) string {
	return t.Received.UTC().Format(time.RFC3339Nano) + "_" + n.ID()
}

// ownID is a Message-ID as format makes it.
var ownID = pattern.Lazy(`^<?[0-9a-f]{40}\.packmill@[^<>@]+>?$`)

// Own reports whether a Message-ID is one that this package made.
func Own(messageID string) bool { return ownID().MatchString(messageID) }

// envelope is one mail: the same message may go out by several programs.
type envelope struct {
	via, from string
	to        []string
}

// tells reports whether a notice is about the message.
func tells(n control.Notice, m *Message) bool {
	return n.Event == m.Event || n.Event == "*" && !slices.Contains(asked, m.Event)
}

// envelopes says who hears of an event by mail.
func envelopes(notices []control.Notice, m *Message) []envelope {
	var out []envelope
	for _, n := range notices {
		if !tells(n, m) {
			continue
		}
		var to []string
		for _, word := range n.To {
			switch word {
			case Signer, Maintainer:
				to = append(to, m.People[word])
			case Builder, BuildSigners:
				to = append(to, strings.Split(m.People[word], ",")...)
			default:
				to = append(to, word)
			}
		}
		for _, word := range to {
			addr, err := Address(word)
			if err != nil {
				continue
			}
			i := slices.IndexFunc(out, func(e envelope) bool { return e.via == n.Via && e.from == n.From })
			if i < 0 {
				i = len(out)
				out = append(out, envelope{via: n.Via, from: n.From})
			}
			if !slices.Contains(out[i].to, addr) {
				out[i].to = append(out[i].to, addr)
			}
		}
	}
	return out
}

// Recipients are the addresses that the notices name for the message.
func Recipients(notices []control.Notice, m *Message) (to []string) {
	for _, e := range envelopes(notices, m) {
		to = append(to, e.to...)
	}
	return to
}

// Way is a notice of an event to somebody whom no stanza names for it: it goes
// the way of the mails about the other events.
func Way(notices []control.Notice, event, to string, others ...string) control.Notice {
	n := control.Notice{Event: event, To: []string{to}, Via: control.Sendmail}
	for _, x := range notices {
		if x.Hook == "" && slices.Contains(others, x.Event) {
			n.Via, n.From = x.Via, x.From
			break
		}
	}
	return n
}

// Address takes the plain address out of "Name <address>" or an address. What
// a mail program could take for an option, or for more than one address, is
// refused.
func Address(s string) (string, error) {
	if s != spool.OneLine(s) {
		return "", errors.New("address with control characters")
	}
	a, err := mail.ParseAddress(s)
	if err != nil {
		return "", fmt.Errorf("address %q: %w", s, err)
	}
	local, host, ok := strings.Cut(a.Address, "@")
	if !ok || !plain(local, "!#$%&'*+-/=?^_`{|}~.") || !plain(host, "-.[]:") || strings.HasPrefix(local,
		"-") || len(a.Address) > 254 {
		return "", fmt.Errorf("address %q: not of the form name@host", s)
	}
	return a.Address, nil
}

// plain reports whether s is letters, digits and the characters of also.
func plain(s, also string) bool {
	for _, c := range []byte(s) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte(also, c) >= 0) {
			return false
		}
	}
	return s != ""
}

// Send mails the message to everybody whom the notices name for its event: where the
// tree's daemons have accounts of their own, by a letter that maild hands on, as are
// the calls of hooks in any tree. It returns how many addresses it was handed over for. After an error some may
// have it; the caller does it again later.
func Send(ctx context.Context, tree *spool.Tree, notices []control.Notice, m *Message) (int, error) {
	n := 0
	var errs []error
	for _, e := range envelopes(notices, m) {
		text, from, err := m.format(e)
		switch {
		case err != nil:
		case tree.Separate():
			err = (&outgoing{Via: e.via, From: from, To: e.to, text: text}).post(tree)
		default:
			err = deliver(ctx, e.via, from, e.to, text)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		n += len(e.to)
	}
	for _, x := range notices {
		if x.Hook == "" || !tells(x, m) {
			continue
		}
		call, err := m.hook(x)
		if err == nil {
			err = call.post(tree)
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	return n, errors.Join(errs...)
}

// id names an occasion of the message's item.
func (m *Message) id(key string) string {
	return fmt.Sprintf("%.20x", sha256.Sum256([]byte(m.Item+" "+key)))
}

// format writes the message as RFC 5322 has it; every header is encoded, and
// none can break out of its line.
func (m *Message) format(e envelope) (text []byte, from string, err error) {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "localhost"
	}
	sender := &mail.Address{Name: "Packmill", Address: "packmill@" + host}
	if e.from != "" {
		if sender, err = mail.ParseAddress(e.from); err != nil {
			return nil, "", fmt.Errorf("From in control/notify: %q: %w", e.from, err)
		}
	}
	if from, err = Address(sender.Address); err != nil {
		return nil, "", fmt.Errorf("From in control/notify: %w", err)
	}
	var h gomail.Header
	h.SetDate(m.Date)
	h.SetAddressList("From", []*gomail.Address{{Name: spool.OneLine(sender.Name), Address: from}})
	var to []*gomail.Address
	for _, a := range e.to {
		to = append(to, &gomail.Address{Address: a})
	}
	h.SetAddressList("To", to)
	h.SetSubject(spool.OneLine(m.Subject))
	_, domain, _ := strings.Cut(from, "@")
	id := func(key string) string { return m.id(key) + ".packmill@" + domain }
	if m.ReplyTo != "" {
		h.SetAddressList("Reply-To", []*gomail.Address{{Address: m.ReplyTo}})
	}
	h.SetMessageID(id(m.Event + " " + m.Key))
	h.SetMsgIDList("References", []string{id("")}) // one thread for each upload
	h.Set("Auto-Submitted", "auto-generated")
	if m.Answer != "" {
		h.Set("Auto-Submitted", "auto-replied")
		h.SetMsgIDList("References", []string{m.Answer})
		h.SetMsgIDList("In-Reply-To", []string{m.Answer})
	}
	h.Set("X-Packmill-Event", m.Event)
	var body strings.Builder
	for line := range strings.Lines(m.Body) {
		body.WriteString(strings.TrimRight(spool.OneLine(strings.TrimRight(line, "\n")), " ") + "\r\n")
	}
	text, err = m.write(h, body.String())
	return bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n")), from, err
}

// write is the message under its header: the text alone, or the text and the
// parts.
func (m *Message) write(h gomail.Header, body string) ([]byte, error) {
	shown := func(h *message.Header) {
		h.SetContentType("text/plain", map[string]string{"charset": "utf-8"})
		h.Set("Content-Transfer-Encoding", "quoted-printable")
	}
	var b bytes.Buffer
	put := func(w *message.Writer, err error, data string) error {
		if err != nil {
			return err
		}
		if _, err := io.WriteString(w, data); err != nil {
			return err
		}
		return w.Close()
	}
	h.Set("MIME-Version", "1.0")
	if len(m.Parts) == 0 {
		shown(&h.Header)
		w, err := message.CreateWriter(&b, h.Header)
		err = put(w, err, body)
		return b.Bytes(), err
	}
	h.SetContentType("multipart/mixed", nil)
	mw, err := message.CreateWriter(&b, h.Header)
	if err != nil {
		return nil, err
	}
	var ph message.Header
	shown(&ph)
	w, err := mw.CreatePart(ph)
	if err := put(w, err, body); err != nil {
		return nil, err
	}
	for _, p := range m.Parts {
		var ph message.Header
		if p.Inline {
			shown(&ph)
			ph.SetContentDisposition("inline", map[string]string{"filename": p.Name})
		} else {
			ph.SetContentType(p.Type, nil)
			ph.Set("Content-Transfer-Encoding", "base64")
			ph.SetContentDisposition("attachment", map[string]string{"filename": p.Name})
		}
		w, err := mw.CreatePart(ph)
		if err := put(w, err, string(p.Data)); err != nil {
			return nil, err
		}
	}
	err = mw.Close()
	return b.Bytes(), err
}

// deliver hands the text to a sendmail: -i (a lone dot ends nothing), -f and
// the recipients as arguments; none is taken from the text.
func deliver(ctx context.Context, via, from string, to []string, text []byte) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, via, append([]string{"-i", "-f", from, "--"}, to...)...)
	cmd.Stdin = bytes.NewReader(text)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		err = fmt.Errorf("it did not end within %v", patience)
	}
	if err != nil {
		if len(out) > 400 {
			out = out[:400]
		}
		return fmt.Errorf("%s: %w: %s", via, err, spool.OneLine(strings.TrimSpace(string(out))))
	}
	return nil
}
