package main

import (
	"os"

	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/survey"
)

type whyCmd struct {
	Package string `arg:"" help:"hello or hello_2.10-3."`
	Suite   string `short:"s" help:"Only in this suite." placeholder:"SUITE"`
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
		if _, err := theSuite(all, y.Suite); err != nil {
			return daemon.Wrong{Err: err}
		}
	}
	answers, err := survey.Why(t, all, y.Package, y.Suite)
	if err != nil {
		return err
	}
	for _, a := range answers {
		c.print(os.Stdout, a, a.Text())
	}
	return nil
}
