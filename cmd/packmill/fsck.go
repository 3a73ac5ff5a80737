package main

import (
	"context"
	"fmt"
	"os"

	"packmill/archive"
	"packmill/spool"
)

type fsckCmd struct {
	Repair bool `help:"Mend what has one right answer, and put the rest where a person finds it."`
	Deep   bool `help:"Read every byte of the archive's pool."`
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
	findings, err := t.Fsck()
	if err != nil {
		return err
	}
	// What a client of the archive would trip over is a person's to mend: the
	// pool's bytes are nowhere else.
	if a, err := archive.Open(t.Path("archive")); err != nil {
		return err
	} else if faults, err := a.Check(context.Background(), f.Deep); err != nil {
		return err
	} else {
		for _, x := range faults {
			findings = append(findings, spool.Finding{Kind: "archive", Path: "archive/" + x.Path, Text: x.Text,
				Cure: "restore the file from a backup, or remove the package and upload it again"})
		}
	}
	left := 0
	for _, x := range findings {
		c.print(os.Stdout, x, x.String())
		if !f.Repair || !x.Mendable() {
			left++
			continue
		}
		if c.DryRun {
			fmt.Printf("would mend %s: %s\n", x.Path, x.Cure)
			left++
			continue
		}
		if err := x.Mend(); err != nil {
			fmt.Fprintf(os.Stderr, "packmill: %v\n", err)
			left++
		}
	}
	if left > 0 {
		return fmt.Errorf("%w: %d findings left", errRefused, left)
	}
	return nil
}
