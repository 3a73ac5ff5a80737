package mail

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"packmill/cmd/internal/control"
	"packmill/cmd/internal/replay"
	"packmill/internal/openpgp"
	"packmill/spool"
)

// repliesDir is the ledger of all signed replies: what was done, and which
// refusals were answered.
const repliesDir = "journal/replies"

// Box takes replies to build logs.
type Box struct {
	Tree     *spool.Tree
	Settings *control.Settings
	Log      *slog.Logger
	Dry      bool // say what would be done
}

// Outcome is what became of one mail.
type Outcome struct {
	ID     string `json:"message_id,omitempty"`
	Signer string `json:"signer,omitempty"` // of control/uploaders
	Word   Word   `json:"word,omitempty"`
	About  string `json:"about,omitempty"` // the word and the build
	Item   string `json:"item,omitempty"`
	Done   bool   `json:"done"`
	Text   string `json:"text"` // a sentence
}

// Take reads one mail and does what it says, if it is signed by somebody whom
// the settings let say it. Who signed hears by mail what became of it, at the
// address of the settings; nobody else is ever written to. An error is
// trouble that may pass: the mail is to be brought again.
func (b *Box) Take(ctx context.Context, data []byte) (*Outcome, error) {
	l, err := readLetter(data)
	if err != nil {
		return b.passOver(&Outcome{Text: err.Error()}), nil
	}
	o := &Outcome{ID: l.id}
	if l.auto != "" {
		o.Text = "sent by a program (" + l.auto + "): passed over"
		return b.passOver(o), nil
	}
	ring, _, err := b.Settings.Keyring(b.Settings.UploaderKeys())
	if err != nil {
		return nil, err
	}
	now := time.Now()
	st, err := l.verify(ring, now)
	if err != nil {
		o.Text = "passed over: " + err.Error()
		return b.passOver(o), nil
	}
	i := slices.IndexFunc(b.Settings.Uploaders, func(u control.Uploader) bool {
		return slices.Contains(u.Fingerprints, st.sig.Fingerprint)
	})
	by := &b.Settings.Uploaders[i]
	o.Signer = by.Name
	hash := openpgp.CanonicalHash(st.text)
	book := replay.Ledger{Dir: b.Tree.Path(repliesDir)}
	entry, err := book.Lines(hash)
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(entry, func(l string) bool { return strings.HasPrefix(l, "done ") }); i >= 0 {
		o.Text = "a mail that says the same was taken before and changes nothing: " + strings.TrimPrefix(entry[i], "done ")
	} else if err := b.obey(st, by, o); err != nil {
		return nil, err
	}
	if b.Dry {
		return o, nil
	}
	b.Log.Info("reply", "item", o.Item, "by", by.Name, "reason", o.Text)
	note := "answered " + openpgp.CanonicalHash([]byte(o.Text))
	if o.Done {
		note = fmt.Sprintf("done %s, %s, said by %s", now.UTC().Format(time.RFC3339), spool.OneLine(o.Text),
			spool.OneLine(by.Name))
	} else if slices.Contains(entry, note) {
		return o, nil // whoever sends it again and again is not answered each time
	}
	if err := book.Add(hash, note); err != nil {
		return nil, err
	}
	if err := b.answer(ctx, l, st, by, o, note); err != nil {
		// It is done and cannot be done again: the answer alone is lost.
		b.Log.Error("answer", "to", by.Name, "err", err)
	}
	return o, nil
}

// passOver logs a mail that nobody is answered for.
func (b *Box) passOver(o *Outcome) *Outcome {
	b.Log.Warn("mail", "id", o.ID, "reason", o.Text)
	return o
}

// obey does what was signed. What is refused stands in the outcome; an error
// may pass.
func (b *Box) obey(st *statement, by *control.Uploader, o *Outcome) error {
	r, err := ParseReply(st.text)
	if err == nil && r.Word == Sign && st.file == nil {
		err = errors.New("the .changes must bear a signature of its own, which the archive can keep: gpg --clearsign it, " +
			"and send that as the mail's text or as a file")
	}
	if err != nil {
		o.Text = "nothing was done: " + err.Error()
		return nil
	}
	o.Word, o.About = r.Word, fmt.Sprintf("%s %s on %s for %s", r.Word, r.Job.ID, r.Job.Arch, r.Job.Suite)
	s, ok := b.Settings.Suite(r.Job.Suite)
	if !ok {
		o.Text = fmt.Sprintf("nothing was done: there is no suite %s", r.Job.Suite)
		return nil
	}
	f, reply, err := b.ask(r, s, by, st)
	if err != nil {
		return err
	}
	if reply != nil && reply.Busy {
		return errors.New(reply.Refusal)
	}
	o.Text = line(r, f, reply, b.Dry)
	if f != nil {
		o.Item, o.Done = f.Name.String(), reply.Refusal == "" && !b.Dry
	}
	return nil
}

// answer tells the signer what became of a reply.
func (b *Box) answer(
	ctx context.Context, l *letter, st *statement, by *control.Uploader, o *Outcome, key string,
) error {
	subject := "Done: " + o.About
	if !o.Done {
		subject = "Not done: " + cmp.Or(o.About, "what you answered")
	}
	quoted := ""
	for n, line := range strings.Split(strings.TrimRight(string(st.text), "\n"), "\n") {
		if n == 20 {
			quoted += "> ...\n"
			break
		}
		quoted += fmt.Sprintf("> %.200s\n", line)
	}
	m := &Message{
		Event: eventAnswer, Item: o.Item, Key: key + l.id, Date: time.Now(), Answer: l.id,
		Subject: subject,
		Body: fmt.Sprintf("%s.\n\nThis was signed by %s (%s) on %s:\n\n%s", strings.TrimRight(o.Text, ".\n"),
			by.Name, st.sig.Fingerprint, st.sig.Created.Format(time.RFC3339), quoted),
	}
	n := Way(b.Settings.Notify, eventAnswer, by.Email, EventLog, EventFailed, "*")
	sent, err := Send(ctx, b.Tree, []control.Notice{n}, m)
	if err == nil && sent == 0 {
		err = fmt.Errorf("%s has no Email in control/uploaders", by.Name)
	}
	return err
}
