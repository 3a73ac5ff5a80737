package main

import (
	"fmt"

	"packmill/cmd/internal/survey"
	"packmill/cmd/internal/terminal"
)

type whyCmd struct {
	Package string `arg:"" help:"hello or hello_2.10-3; wildcards too."`
	Suite   string `short:"s" help:"Only in this suite." placeholder:"SUITE"`
	watch
	paged
}

func (whyCmd) Help() string {
	return `Says, for each architecture, where a package is, since when, what must happen next and who does it, what it waits for and what waits for it, why each builder would not take it now, and how long it took before.

Examples:
  packmill why hello`
}

func (y *whyCmd) Run(c *cli) error {
	t, err := c.open()
	if err != nil {
		return err
	}
	all, err := c.control()
	if err != nil {
		return err
	}
	if y.Suite != "" {
		if _, err := theSuite(all, y.Suite, ""); err != nil {
			return err
		}
	}
	return y.show(c, func(s *terminal.Screen) error {
		answers, closed, err := survey.Why(t, all, y.Package, y.Suite)
		c.note(closed)
		for _, a := range answers {
			if c.JSON {
				c.print(s.Out, a, "")
			} else {
				fmt.Fprintln(s.Out, a.Text(s)) // clean, and it has colours
			}
		}
		return err
	})
}
