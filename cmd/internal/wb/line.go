package wb

import (
	"fmt"
	"strings"

	"packmill/queue"
	"packmill/spool"
)

// Line is what became of one job, as --json prints it.
type Line struct {
	Op      string `json:"op"`
	Source  string `json:"source"`
	Version string `json:"version,omitempty"`
	Suite   string `json:"suite"`
	Arch    string `json:"arch"`
	From    string `json:"from,omitempty"`
	To      string `json:"to,omitempty"`
	Item    string `json:"item,omitempty"`
	Role    string `json:"role"`
	Done    bool   `json:"done"`
	DryRun  bool   `json:"dry_run,omitempty"`
	Refusal string `json:"refusal,omitempty"`
	Warning string `json:"warning,omitempty"`

	Found *spool.Found `json:"-"` // the job, if there is one, where it was
}

// LineOf is what became of a request on the job at f.
func LineOf(f spool.Found, r *queue.Request, reply *queue.Reply) *Line {
	l := &Line{
		Op: string(r.Op), Source: f.Name.Source, Version: f.Name.Version, Suite: f.Place.Suite, Arch: f.Arch(),
		Item: f.Name.String(),
		From: f.Place.State.Name, To: reply.To.State.String(), Role: string(reply.Role), DryRun: r.Dry,
		Refusal: reply.Refusal, Warning: reply.Warning, Done: reply.Refusal == "" && !r.Dry, Found: &f,
	}
	if l.Done && reply.Name.Source != "" {
		l.Item = reply.Name.String()
	}
	return l
}

// Text is the line for a person.
func (l *Line) Text() string {
	what := fmt.Sprintf("%s_%s on %s: ", l.Source, l.Version, l.Arch)
	if l.Version == "" {
		what = fmt.Sprintf("%s on %s: ", l.Source, l.Arch)
	}
	switch {
	case l.Refusal != "" && l.From != "":
		what = strings.TrimSuffix(what, ": ") + " (" + l.From + "): refused: " + l.Refusal
	case l.Refusal != "":
		what += "refused: " + l.Refusal
	case l.To == l.From:
		what += l.From + ": " + l.Op
	default:
		what += l.From + " -> " + l.To
	}
	if l.DryRun && l.Refusal == "" {
		what = "would do " + what
	}
	if l.Warning != "" {
		what += " (" + l.Warning + ")"
	}
	return what
}
