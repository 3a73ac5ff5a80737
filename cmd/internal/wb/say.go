package wb

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"packmill/cmd/internal/account"
	"packmill/internal/clean"
	"packmill/queue"
	"packmill/spool"
)

// Say asks for one operation on the build at f, which lies and waits for a
// person's word. One that has moved since it was found is refused.
func Say(t *spool.Tree, f spool.Found, r *queue.Request) (*Line, error) {
	r.Now = time.Now().UTC()
	find := func() (*spool.Found, error) {
		if _, err := os.Lstat(t.Path(f.Dir())); errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return &f, nil
	}
	reply := &queue.Reply{From: f.Place, Refusal: "it has moved; look with packmill ls"}
	err := account.As(t.Root(), f.Dir(), func() error {
		there, answer, err := queue.Patiently(t, find, func(spool.Found) *queue.Request { return r })
		if there != nil {
			reply = answer
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return LineOf(f, r, reply), nil
}

// Choice says what can be said of the build at f.
func Choice(f spool.Found) string {
	var words []string
	for _, w := range queue.WordsAt(queue.AtBuild) {
		if w.Op == queue.Upload && f.Place.State != spool.Built {
			continue
		}
		if w.Arg != "" {
			w.Name += " -m " + w.Arg
		}
		words = append(words, w.Name)
	}
	item := strings.ReplaceAll(f.Name.ID(), ":", "%3a")
	return fmt.Sprintf("What you can say: packmill build %s  %s -a %s\n", strings.Join(words, " | "), item, f.Arch())
}

// Info is what is known of a job, a line each; "": it has moved on.
func Info(t *spool.Tree, f spool.Found) string {
	tk, err := queue.TicketAt(t, f)
	if err != nil {
		return ""
	}
	text := f.Dir() + "\n"
	for line := range strings.Lines(string(tk.Stanza().Append(nil)) + spool.ReadReason(t.Path(f.Dir()))) {
		text += "  " + clean.Line(strings.TrimRight(line, "\n")) + "\n"
	}
	return text
}
