package mail

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"packmill/cmd/internal/account"
	"packmill/cmd/internal/control"
	"packmill/internal/durable"
	"packmill/internal/policy"
	"packmill/internal/regular"
	"packmill/queue"
	"packmill/spool"
	"packmill/spool/upload"
)

// Signed says why the archive would not take the .changes at path as what a job
// made: it is of another version, or nobody signed it whose signature counts.
// It is the Signed of queue.Request.
func Signed(all *control.Settings, s *control.Suite) func(path string, t *queue.Ticket) error {
	return func(path string, t *queue.Ticket) error {
		data, err := regular.Read(path, maxChanges)
		if err != nil {
			return fmt.Errorf("the result cannot be read: %w", err)
		}
		return signedBy(all, s, t, filepath.Base(path), data)
	}
}

// signedBy is Signed for a .changes of that name in memory. A verdict is a
// queue.Refusal, every other error is trouble.
func signedBy(all *control.Settings, s *control.Suite, t *queue.Ticket, name string, data []byte) error {
	keys, whose := all.BuildKeys(s, t.BuildArch, t.Source, t.Component)
	ring, _, err := all.Keyring(keys)
	if err != nil {
		return err
	}
	text, _, err := ring.VerifyClear(data, time.Now())
	if err != nil {
		return queue.Refusal(fmt.Sprintf("%s: %v (keys of %s count)", name, err, whose))
	}
	c, err := upload.ParseChanges(name, text)
	if err != nil {
		return queue.Refusal(err.Error())
	}
	if policy.CompareVersions(c.Version, t.Plus()) != 0 {
		return queue.Refusal(fmt.Sprintf("%s is of version %s, and the job is of %s", name, c.Version, t.Plus()))
	}
	return nil
}

// PutSignature puts a signed .changes in the place of the unsigned one that the
// build made. The two must be the same but for the signature, which must count.
// It is the Result of queue.Request.
func PutSignature(
	all *control.Settings, s *control.Suite, signed []byte,
) func(dir string, t *queue.Ticket) (string, error) {
	return func(dir string, t *queue.Ticket) (string, error) {
		if t.Result == "" {
			return "", queue.Refusal("there is no result in the job")
		}
		path := filepath.Join(dir, t.Result)
		built, err := regular.Read(path, maxChanges)
		if err != nil {
			return "", err
		}
		if err := signedBy(all, s, t, t.Result, signed); err != nil {
			return "", err
		}
		if err := same(built, signed); err != nil || bytes.Equal(built, signed) {
			return t.Result, err // equal: an earlier run was cut off here
		}
		return t.Result, durable.WriteFile(path, signed, 0o644)
	}
}

// ask does on a job what a person says of it, if the settings and the
// specification of the operations allow it. by is the person who signed the
// statement, and must be known.
func (b *Box) ask(
	r *Reply, s *control.Suite, by *control.Uploader, st *statement,
) (f *spool.Found, reply *queue.Reply, err error) {
	text, word := r.Text, wordOf(r.Word)
	if text == "" && word.Op == queue.GiveBack {
		text = "said " + string(r.Word)
	}
	find := func() (*spool.Found, error) { return queue.Lookup(b.Tree, s.Name, r.Job.Arch, r.Job.ID) }
	request := func(f spool.Found) *queue.Request {
		q := word.Ask(text)
		q.Who, q.Build, q.Now, q.Dry = by.Name+" (signed mail)", r.Job.Mark, time.Now().UTC(), b.Dry
		q.Signer, q.Signed = !word.Override, Signed(b.Settings, s)
		q.May = func(t *queue.Ticket) string {
			if !by.Signs(s, f.Arch(), t.Source, t.Component) {
				return fmt.Sprintf("%s may not speak for builds of %s on %s: Allow in control/uploaders has no sign=%s for it",
					by.Name, t.Source, f.Arch(), f.Arch())
			}
			return unwanted(r, f, t)
		}
		if r.Word == UploadRem {
			q.Build = "" // which unwanted looks at
		}
		if r.Word == Sign {
			q.Result = PutSignature(b.Settings, s, st.file)
		}
		return q
	}
	err = account.As(b.Tree.Root(), "queue", func() (err error) {
		f, reply, err = queue.Patiently(b.Tree, find, request)
		return err
	})
	return f, reply, err
}

// unwanted says why nobody waits for that word about a job, or "".
func unwanted(r *Reply, f spool.Found, t *queue.Ticket) string {
	switch state := f.Place.State; {
	case r.Word == UploadRem && state == spool.Uploaded:
		if f.Place.State = spool.Built; t.Mark(f) != r.Job.Mark { // there it lay when its mail went out
			return "it was built again since then: this was said of another build"
		}
	case r.Word == UploadRem:
		return fmt.Sprintf("it is in %s now, not on its way to the archive", state)
	case state != spool.Built && (r.Word == Sign || state != spool.BuildAttempted):
		return fmt.Sprintf("it is in %s now, and nobody's word is waited for there", state)
	}
	return ""
}

// line is what became of a word, in one line.
func line(r *Reply, f *spool.Found, reply *queue.Reply, dry bool) string {
	what := fmt.Sprintf("%s on %s for %s: ", r.Job.ID, r.Job.Arch, r.Job.Suite)
	switch {
	case f == nil:
		return what + "there is no such job (any more)"
	case reply.Refusal != "":
		return what + "refused: " + strings.TrimRight(reply.Refusal, ".\n")
	case dry:
		return what + "would do " + string(r.Word)
	case reply.To == reply.From:
		return what + string(r.Word) + " is noted"
	}
	return what + string(r.Word) + ": " + reply.From.String() + " -> " + reply.To.String()
}
