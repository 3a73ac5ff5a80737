package main

import (
	"fmt"
	"os"
)

type fsckCmd struct {
	Repair bool `help:"Mend what has one right answer."`
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
	left := 0
	for _, x := range findings {
		c.print(os.Stdout, x, x.String())
		if !f.Repair || !x.Mendable() {
			left++
			continue
		}
		if c.DryRun {
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
