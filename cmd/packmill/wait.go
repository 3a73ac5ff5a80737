package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"packmill/cmd/internal/survey"
	"packmill/internal/clean"
	"packmill/spool"
)

type waitCmd struct {
	Package string        `arg:"" help:"hello, for its newest version, or hello_2.10-3."`
	Suite   string        `short:"s" help:"Only in this suite." placeholder:"SUITE"`
	Timeout time.Duration `help:"Give up after this: 30m, 2h. Without it, never." placeholder:"TIME"`
}

func (waitCmd) Help() string {
	return `Waits until a package is published on all architectures that it is for, or is not going to be. For scripts and for
what runs after each commit: it may be begun before the upload has arrived. What it sees is said each time that it changes.

Exit status 0: published, 1: refused, or replaced by a newer version, 2: a build failed, 4: not yet when the time was over.

Examples:
  packmill wait hello_2.10-3 -s sid
  dput mill hello_2.10-3_source.changes && packmill wait hello_2.10-3 --timeout 2h`
}

// waitLooks are the pauses between looks: the last stays.
var waitLooks = []time.Duration{time.Second, time.Second, time.Second, 2 * time.Second, 5 * time.Second}

// timeUp is the status of a wait that came to no end.
const timeUp = 4

func (w *waitCmd) Run(c *cli) error {
	t, err := c.open()
	if err != nil {
		return err
	}
	if all, err := c.control(); err != nil {
		return err
	} else if w.Suite != "" {
		if _, err := theSuite(all, w.Suite, ""); err != nil {
			return err
		}
	}
	ctx, stop := interruptible()
	defer stop()
	var over <-chan time.Time
	if w.Timeout > 0 {
		over = time.After(w.Timeout)
	}
	said, last := "", survey.Progress{}
	for look := 0; ; look++ {
		p, err := survey.ProgressOf(t, w.Package, w.Suite)
		if err != nil {
			return err
		}
		if p == nil {
			p = &survey.Progress{Source: w.Package, Suite: w.Suite, Text: "nothing of it is here yet"}
		}
		// An item that is moved during a look may be seen nowhere: the end is seen twice.
		if p.Ended && *p == last {
			return w.end(c, p)
		}
		if last = *p; !c.JSON && p.Text != said && !p.Ended {
			said = p.Text
			fmt.Fprintf(os.Stderr, "%s: %s\n", clean.Line(p.Source), clean.Line(said))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-over:
			p.Text = "the time is over: " + p.Text
			p.Status = timeUp
			return w.end(c, p)
		case <-time.After(waitLooks[min(look, len(waitLooks)-1)]):
		}
	}
}

// end says how it ended, with the exit status.
func (w *waitCmd) end(c *cli, p *survey.Progress) error {
	text := fmt.Sprintf("%s %s: %s", p.Source, p.Version, p.Text)
	switch {
	case c.JSON:
		c.print(os.Stdout, p, "")
		if p.Status == 0 {
			return nil
		}
	case p.Status == 0:
		fmt.Println(clean.Line(text))
		return nil
	}
	return exitError{p.Status, errors.New(spool.OneLine(text))}
}
