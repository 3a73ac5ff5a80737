package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
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

func (w *waitCmd) Run(c *cli) error {
	t, err := c.open()
	if err != nil {
		return err
	}
	if all, err := c.control(); err != nil {
		return err
	} else if w.Suite != "" {
		s, err := theSuite(all, w.Suite, "")
		if err != nil {
			return err
		}
		w.Suite = s.Name // where things lie has no other name
	}
	ctx, stop := interruptible()
	defer stop()
	p, err := survey.Await(ctx, t, w.Package, w.Suite, w.Timeout, func(p *survey.Progress) {
		if !c.JSON {
			fmt.Fprintf(os.Stderr, "%s: %s\n", clean.Line(p.Source), clean.Line(p.Text))
		}
	})
	if err != nil {
		return err
	}
	text := strings.TrimSpace(p.Source+" "+p.Version) + ": " + p.Text
	if c.JSON {
		c.print(os.Stdout, p, "")
	} else if p.Status == 0 {
		fmt.Println(clean.Line(text))
	}
	if p.Status == 0 {
		return nil
	}
	return exitError{p.Status, errors.New(spool.OneLine(text))}
}
