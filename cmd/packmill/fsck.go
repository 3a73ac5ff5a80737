package main

import (
	"context"
	"os"

	"packmill/archive"
	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/fsck"
	"packmill/cmd/internal/terminal"
	"packmill/spool"
)

type fsckCmd struct {
	Repair bool `help:"Mend what has one right answer, and put the rest where a person finds it."`
	Deep   bool `help:"Read every byte of the items' files and of the archive's pool."`
}

func (fsckCmd) Help() string {
	return `Reports everything that breaks the tree's promises, and what would mend it; changes nothing without --repair. It may run beside working daemons: what is on its way is no finding.

Every item lies in exactly one state, whole, with a history that ends there; whatever was taken in is somewhere; every job is known to its ledger; what is published is in the pool with those bytes, and no source without what its suite's Publish asks for; nothing else lies anywhere; where daemons have their own users, owners, groups and modes are those of init --users.

--repair mends what has one right answer, and puts the rest into spool/rejected or attic/strays, with a REASON; what only a person can mend is left, and says what to do. Everything is printed before the first thing is changed. Exit status: 0 nothing is left, 1 something is.

Examples:
  packmill fsck
  packmill fsck --repair -n     what --repair would do
  packmill fsck --repair
  packmill fsck --deep --json`
}

func (f *fsckCmd) Run(c *cli) error {
	t, err := c.open()
	if err != nil {
		return err
	}
	progress := terminal.Begin("checking")
	findings, err := fsck.Check(context.Background(), t, archive.CheckOptions{Deep: f.Deep, Progress: progress.Bytes})
	progress.End()
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
		if err := fsck.Mend(t, x); err != nil {
			terminal.Print(os.Stderr, "packmill: %v\n", err)
			continue
		}
		if !c.JSON {
			terminal.Print(os.Stdout, "%s: done: %s\n", x.Path, x.Cure)
		}
		left--
	}
	if left > 0 {
		return daemon.Refuse("%d findings left", left)
	}
	return nil
}
