package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"packmill/cmd/internal/promise"
	"packmill/spool"
)

type fsckCmd struct {
	Repair bool `help:"Mend what has one right answer, and put the rest where a person finds it."`
	Deep   bool `help:"Read every byte of the items' files and of the archive's pool."`
}

func (fsckCmd) Help() string {
	return `Reports everything that breaks the tree's promises, and what would mend it; changes nothing without --repair. It may run beside working daemons. With -n, --repair only says what it would do.

Examples:
  packmill fsck
  packmill fsck --repair -n
  packmill fsck --deep`
}

func (f *fsckCmd) Run(c *cli) error {
	t, err := c.open()
	if err != nil {
		return err
	}
	findings, err := promise.Check(context.Background(), t, f.Deep)
	if err != nil {
		return err
	}
	// Everything is explained before the first thing is changed.
	for _, x := range findings {
		text := x.String()
		if f.Repair && c.DryRun && x.Mendable() {
			text += " (with --repair)"
		}
		c.print(os.Stdout, struct {
			spool.Finding
			Mendable bool `json:"mendable"`
		}{x, x.Mendable()}, text)
	}
	left := len(findings)
	for _, x := range findings {
		if !f.Repair || c.DryRun || !x.Mendable() {
			continue
		}
		switch err := x.Mend(); {
		case errors.Is(err, spool.ErrGone): // somebody else came first
		case err != nil:
			fmt.Fprintf(os.Stderr, "packmill: %v\n", err)
			continue
		case !c.JSON:
			fmt.Printf("%s: done: %s\n", x.Path, x.Cure)
		}
		left--
	}
	if left > 0 {
		return fmt.Errorf("%w: %d findings left", errRefused, left)
	}
	return nil
}
