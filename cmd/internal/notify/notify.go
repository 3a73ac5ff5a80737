// Package notify mails people by the sendmail interface, as control/notify
// says. A message goes only to addresses that the settings name, or that the
// caller vouches for: what a signed file says of itself, and never an unsigned
// one.
package notify

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/mail"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	gomail "github.com/emersion/go-message/mail"

	"packmill/cmd/internal/settings"
	"packmill/spool"
)

// The words of To that stand for somebody whom the upload tells.
const (
	Signer     = "signer"
	Maintainer = "maintainer"
	Builder    = "builder"
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
	Date    time.Time
	// People are the addresses that the words Signer, Maintainer and Builder
	// stand for here; a word that is missing is nobody.
	People map[string]string
}

// envelope is one mail: the same message may go out by several programs.
type envelope struct {
	via, from string
	to        []string
}

// envelopes says who hears of an event.
func envelopes(notices []settings.Notice, m *Message) []envelope {
	var out []envelope
	for _, n := range notices {
		if n.Event != m.Event && n.Event != "*" {
			continue
		}
		for _, to := range n.To {
			switch to {
			case Signer, Maintainer, Builder:
				to = m.People[to]
			}
			addr, err := Address(to)
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
	if !ok || !plain(local, "!#$%&'*+-/=?^_`{|}~.") || !plain(host, "-.[]:") || strings.HasPrefix(local, "-") || len(a.Address) > 254 {
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

// Send mails the message to everybody whom the notices name for its event. It
// returns how many addresses it was handed over for. After an error some may
// have it; the caller does it again later.
func Send(ctx context.Context, notices []settings.Notice, m *Message) (int, error) {
	n := 0
	var errs []error
	for _, e := range envelopes(notices, m) {
		text, from, err := m.format(e)
		if err == nil {
			err = deliver(ctx, e.via, from, e.to, text)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		n += len(e.to)
	}
	return n, errors.Join(errs...)
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
	id := func(key string) string {
		return fmt.Sprintf("%.20x.packmill@%s", sha256.Sum256([]byte(m.Item+" "+key)), domain)
	}
	h.SetMessageID(id(m.Event + " " + m.Key))
	h.SetMsgIDList("References", []string{id("")}) // one thread for each upload
	h.Set("Auto-Submitted", "auto-generated")
	h.Set("X-Packmill-Event", m.Event)
	h.SetContentType("text/plain", map[string]string{"charset": "utf-8"})
	h.Set("Content-Transfer-Encoding", "quoted-printable")
	var b bytes.Buffer
	w, err := gomail.CreateSingleInlineWriter(&b, h)
	if err != nil {
		return nil, "", err
	}
	for line := range strings.Lines(m.Body) {
		if _, err = fmt.Fprintf(w, "%s\r\n", strings.TrimRight(spool.OneLine(strings.TrimRight(line, "\n")), " ")); err != nil {
			return nil, "", err
		}
	}
	if err := w.Close(); err != nil {
		return nil, "", err
	}
	return bytes.ReplaceAll(b.Bytes(), []byte("\r\n"), []byte("\n")), from, nil
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
