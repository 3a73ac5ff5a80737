package desk

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"packmill/cmd/internal/control"
	"packmill/cmd/internal/mail"
	"packmill/cmd/internal/survey"
	"packmill/cmd/internal/terminal"
	"packmill/internal/durable"
	"packmill/internal/regular"
	"packmill/spool"
)

// OpinionsFile in an item has a line for each word of a reviewer that did not
// move it: time, person, verb and text, with tabs between. In a tree of one user
// the rule of two persons is decided by it.
const OpinionsFile = "opinions"

// maxOpinions bounds what is read of the file, bytes.
const maxOpinions = 16 << 20

// Opinion is one line of it.
type Opinion struct {
	Time time.Time `json:"time"`
	Who  string    `json:"who"`
	Verb string    `json:"verb"` // accept, hold, release or ask
	Text string    `json:"text,omitempty"`
}

// ReadOpinions gives what reviewers said of the item at dir, oldest first.
func ReadOpinions(dir string) []Opinion {
	data, err := regular.Read(filepath.Join(dir, OpinionsFile), maxOpinions)
	if err != nil {
		return nil
	}
	var out []Opinion
	for line := range strings.Lines(string(data)) {
		w := strings.SplitN(strings.TrimSuffix(line, "\n"), "\t", 4)
		if len(w) != 4 {
			continue
		}
		at, err := time.Parse(time.RFC3339, w[0])
		if err == nil {
			out = append(out, Opinion{at, w[1], w[2], w[3]})
		}
	}
	return out
}

// Held gives the hold that is in force, if there is one.
func Held(opinions []Opinion) (Opinion, bool) {
	for _, o := range slices.Backward(opinions) {
		switch o.Verb {
		case "hold":
			return o, true
		case "release":
			return Opinion{}, false
		}
	}
	return Opinion{}, false
}

// Say writes a reviewer's word that moves nothing: an opinion, and a line in
// the history.
func Say(it *spool.Item, who, verb, text string) error {
	line := fmt.Sprintf("%s\t%s\t%s\t%s\n",
		time.Now().UTC().Format(time.RFC3339), spool.OneLine(who), verb, spool.OneLine(text))
	if err := durable.Append(it.Path(OpinionsFile), []byte(line), 0o664); err != nil {
		return err
	}
	if text != "" {
		verb += ": " + text
	}
	if err := it.Note(who, verb); err != nil {
		return err
	}
	return durable.SyncTree(it.Path())
}

// lately is for how long a reviewer who reads an upload may take it for what lies in its
// place now.
const lately = 24 * time.Hour

// Replaced says which upload of the same source waited for review until this one came in
// its place, or was taken back by its uploader shortly before; "": none. Whoever read that
// one has not read this, whatever its version says.
func (d *Desk) Replaced(it *spool.Item) (string, error) {
	since := survey.RowOf(d.tree, spool.Found{Place: it.Place, Name: it.Name}).Since
	found, err := d.tree.Find(it.Name.Source, spool.Attic)
	if err != nil {
		return "", err
	}
	for _, f := range slices.Backward(found) {
		events, err := spool.ReadHistory(d.tree.Path(f.Dir()))
		if err != nil || len(events) == 0 {
			continue
		}
		if last := events[len(events)-1]; last.From == it.Place.Dir() && since.Sub(last.Time) < lately {
			return f.Name.ID(), nil
		}
	}
	return "", nil
}

// Accept lets an upload through to the build queues. Where two persons must
// accept, the first one's word is kept, and more says that it takes another.
func (d *Desk) Accept(it *spool.Item, who, text string) (more bool, err error) {
	if d.set.General.TwoPersons {
		if enough, err := d.seconded(it, who); err != nil {
			return false, err
		} else if !enough {
			return true, Say(it, who, "accept", text)
		}
	}
	return false, it.Move(spool.Person, who, spool.Verdict{To: spool.In(spool.Accepted, it.Place.Suite), Reason: text})
}

// said reports whether the file has somebody else's word for the upload.
func said(opinions []Opinion, who string) bool {
	return slices.ContainsFunc(opinions, func(o Opinion) bool { return o.Verb == "accept" && o.Who != spool.OneLine(who) })
}

// Template is what an editor shows who is to say why verb is done to uploads; lines with # in front are left out.
func (d *Desk) Template(verb string, items []string) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "\n# Why? This goes to the uploader. Lines with # in front are left out; "+
		"an empty text changes nothing.\n#\n")
	for _, i := range items {
		found, err := survey.Find(d.tree, verb, i, spool.Review)
		if err != nil {
			return "", err
		}
		for _, f := range found {
			x, _, err := d.Look(f)
			if err != nil {
				return "", err
			}
			fmt.Fprintf(&b, "# %s %s %s (%s), uploaded by %s\n", verb, x.Source, x.Version, x.Suite, terminal.Clean(x.Uploader))
			for _, line := range x.Remarks {
				fmt.Fprintf(&b, "#   %s\n", terminal.Clean(line))
			}
		}
	}
	return b.String(), nil
}

// Reject refuses an upload; its uploader reads the text and what the checks
// had remarked.
func Reject(it *spool.Item, who, text string) error {
	full := fmt.Sprintf("%s %s was refused by %s:\n\n%s\n", it.Name.Source, it.Name.Version, who, text)
	if st, err := it.Ticket(); err == nil && st.Get("Remarks") != "" {
		full += "\nThe checks had remarked:\n" + st.Get("Remarks") + "\n"
	}
	return it.Move(spool.Person, who, spool.Verdict{To: spool.In(spool.Rejected), Reason: text, Text: full})
}

// Hold marks an upload as on hold.
func Hold(it *spool.Item, who, text string) error {
	if err := Say(it, who, "hold", text); err != nil {
		return err
	}
	return it.WriteFile(spool.ReasonFile, []byte("On hold by "+who+":\n"+text+"\n"))
}

// Release takes the hold off.
func Release(it *spool.Item, who, text string) error {
	if err := Say(it, who, "release", text); err != nil {
		return err
	}
	return durable.Remove(it.Path(spool.ReasonFile))
}

// Ask sends a question to the uploader by mail.
func (d *Desk) Ask(it *spool.Item, who, text string) error {
	st, err := it.Ticket()
	if err != nil {
		return err
	}
	m := &mail.Message{
		Event: "asked", Item: it.Name.String(), Key: time.Now().UTC().Format(time.RFC3339Nano), Date: time.Now(),
		Subject: fmt.Sprintf("%s %s for %s: a question", it.Name.Source, it.Name.Version, it.Place.Suite),
		Body: fmt.Sprintf("%s asks about %s %s, which waits for review:\n\n%s\n",
			who, it.Name.Source, it.Name.Version, text),
		People:  map[string]string{mail.Signer: st.Get("Email"), mail.Maintainer: st.Get("Maintainer")},
		ReplyTo: d.addressOf(who),
		About:   mail.About{Source: it.Name.Source, Version: it.Name.Version, Suite: it.Place.Suite},
	}
	sent, err := mail.Send(context.Background(), d.tree, d.askers(), m)
	if err != nil {
		return err
	}
	if sent == 0 {
		return fmt.Errorf("nobody to ask: its uploader has no Email in control/uploaders")
	}
	return Say(it, who, "ask", text)
}

// addressOf is where the answer to a person's question goes: the Email of the
// uploader of that name or account, or what Debian's tools take it from. "": not known.
func (d *Desk) addressOf(who string) string {
	said := []string{os.Getenv("DEBEMAIL"), os.Getenv("EMAIL")}
	for _, u := range d.set.Uploaders {
		if u.Account == who || u.Name == who {
			said = slices.Insert(said, 0, u.Email)
		}
	}
	for _, s := range said {
		if addr, err := mail.Address(s); err == nil {
			return addr
		}
	}
	return ""
}

// askers are the notices of questions: what control/notify says of asked, or
// the signer.
func (d *Desk) askers() []control.Notice {
	signer := control.Notice{Event: "asked", To: []string{mail.Signer}, Via: "/usr/sbin/sendmail"}
	for _, n := range d.set.Notify {
		switch {
		case n.Hook != "":
			continue
		case n.Event == "asked":
			return d.set.Notify
		}
		signer.Via, signer.From = n.Via, n.From
	}
	return append(slices.Clone(d.set.Notify), signer)
}
