package main

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"time"

	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/survey"
	"packmill/cmd/internal/terminal"
	"packmill/cmd/internal/usage"
	"packmill/internal/clean"
	"packmill/spool"
)

// print writes one JSON object a line, or the text that a person reads. Both are
// clean: whatever somebody wrote into a field does nothing at a terminal.
func (c *cli) print(w io.Writer, v any, text string) {
	if !c.JSON {
		terminal.Print(w, "%s\n", text)
		return
	}
	data, err := json.Marshal(v)
	if err == nil {
		w.Write(append(clean.JSON(data), '\n'))
	}
}

// screen is what output goes to.
func (c *cli) screen() *terminal.Screen {
	if c.Screen == nil {
		c.Screen = terminal.Stdout()
	}
	return c.Screen
}

// list is a table for a person, or for a program one JSON object a row.
type list struct {
	c      *cli
	screen *terminal.Screen
	table  *terminal.Table
}

func (c *cli) list(s *terminal.Screen, columns ...terminal.Column) *list {
	return &list{c, s, terminal.NewTable(s, columns...)}
}

// add adds a row.
func (l *list) add(v any, cells ...string) {
	if l.c.JSON {
		l.c.print(l.screen.Out, v, "")
		return
	}
	l.table.Row(cells...)
}

// end writes the table, or that there is nothing.
func (l *list) end(nothing string) error {
	if l.table.Len() == 0 && nothing != "" && !l.c.JSON {
		terminal.Print(l.screen.Out, "%s\n", nothing)
	}
	return l.table.Flush()
}

// The columns that several lists have. What a person calls a package is short
// on a terminal, and the item's whole name elsewhere.
var (
	stateColumn = terminal.Column{Name: "STATE", Paint: survey.Colour}
	suiteColumn = terminal.Column{Name: "SUITE", Least: 8}
	archColumn  = terminal.Column{Name: "ARCH"}
	itemColumn  = terminal.Column{Name: "PACKAGE", Least: 16}
	sinceColumn = terminal.Column{Name: "SINCE"}
	whyColumn   = terminal.Column{Name: "WHY", Least: 10}
)

func itemCell(s *terminal.Screen, r *survey.Row) string {
	if s.Terminal() {
		return r.Source + "_" + r.Version
	}
	return r.Item
}

// pick chooses among items. Its flags are those of every command that lists.
type pick struct {
	Arch  string     `short:"a" help:"Only of this architecture; wildcards too." placeholder:"ARCH"`
	Suite string     `short:"s" help:"Only of this suite; wildcards too." placeholder:"SUITE"`
	Older usage.Span `help:"Only what has been where it is for longer: 90m, 12h, 7d, 2w." placeholder:"TIME"`
}

// filter is what the flags mean.
func (p *pick) filter(verb string, patterns []string, states func(spool.State) bool) *survey.Filter {
	return &survey.Filter{Verb: verb, Patterns: patterns, States: states, Suite: p.Suite, Arch: p.Arch,
		Older: time.Duration(p.Older)}
}

// find looks for items, and notes which directories are closed to the person.
func (c *cli) find(t *spool.Tree, f *survey.Filter) ([]spool.Found, error) {
	found, closed, err := f.Find(t)
	c.note(closed)
	return found, err
}

// meant is find for what is done something with: nothing is a refusal.
func (c *cli) meant(t *spool.Tree, f *survey.Filter) ([]spool.Found, error) {
	found, closed, err := f.Meant(t)
	c.note(closed)
	return found, err
}

// note says once which directories are left out.
func (c *cli) note(closed []string) {
	if len(closed) > 0 && !c.noted {
		c.noted = true
		terminal.Print(os.Stderr, "packmill: left out, since they are closed to you: %s\n",
			terminal.Clean(strings.Join(closed, ", ")))
	}
}

// watch is the flag of lists that can be looked at for long.
type watch struct {
	Watch bool `short:"w" help:"Go on showing it, until interrupted."`
}

// show calls look, once or again and again.
func (w *watch) show(c *cli, look func(*terminal.Screen) error) error {
	if !w.Watch {
		return look(c.screen())
	}
	ctx, stop := interruptible()
	defer stop()
	return terminal.Watch(ctx, c.screen(), look)
}

// paged are commands that are read more than answered: a terminal shows them
// through a pager.
type paged struct{}

func (paged) isPaged() {}

// failed is how an error looks in JSON.
type failed struct {
	Error string `json:"error"`
	Exit  int    `json:"exit"`
}

// tellError prints an error to standard error, as text or as one JSON object,
// and gives the status back.
func (c *cli) tellError(err error, status int) int {
	if c.JSON {
		c.print(os.Stderr, failed{err.Error(), status}, "")
		return status
	}
	for line := range strings.Lines(err.Error()) {
		terminal.Print(os.Stderr, "packmill: %s\n", strings.TrimRight(line, "\n"))
	}
	return status
}

// end prints why a command ended badly, if it did, and gives its exit status.
func (c *cli) end(err error) int {
	var exit exitError
	switch err = survey.Rights(err, c.Tree); {
	case err == nil:
		return daemon.ExitDone
	case errors.As(err, &exit):
		return c.tellError(exit.err, exit.status)
	case errors.Is(err, daemon.ErrRefused):
		if err.Error() == daemon.ErrRefused.Error() {
			return daemon.ExitRefused // the reasons were printed
		}
		return c.tellError(err, daemon.ExitRefused)
	}
	return c.tellError(err, daemon.StatusOf(err))
}
