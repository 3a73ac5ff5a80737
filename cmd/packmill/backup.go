package main

import (
	"os"

	"packmill/cmd/internal/backup"
	"packmill/cmd/internal/terminal"
)

type backupCmd struct {
	To    string `arg:"" help:"A directory, or what rsync calls one: HOST:DIR."`
	Tries int    `default:"20" help:"How often to copy what has moved meanwhile."`
}

func (backupCmd) Help() string {
	return `Copies the tree with rsync while everything runs, and again what has changed meanwhile, until nothing has: what is there then was so at one moment. Each further time takes only what is new. On a tree in which something moves all the time it ends with 111, and what is there is no backup yet: stop the daemons for the moment that it takes, or take a snapshot of the file system.

To restore: rsync -aHX --numeric-ids BACKUP/ TREE/ (from HOST:DIR with -M--fake-super: the account there need not be root, and whose the files are is noted beside them), then packmill init --users --tree TREE, packmill fsck --deep, packmill archive check. Secret keys are in it (control/private).

Examples:
  packmill backup /backup/packmill
  packmill backup backup@other:/srv/packmill`
}

func (x *backupCmd) Run(c *cli) error {
	t, err := c.open()
	if err != nil {
		return err
	}
	b := &backup.Backup{Tree: t, To: x.To, Tries: x.Tries}
	if c.DryRun {
		terminal.Print(os.Stdout, "would copy %s to %s\n", t.Root(), x.To)
		return nil
	}
	if err := b.Check(); err != nil {
		return err
	}
	ctx, stop := interruptible()
	defer stop()
	progress := terminal.Begin("copying")
	n, err := b.Run(ctx)
	progress.End()
	if err != nil {
		return err
	}
	if !c.JSON {
		terminal.Print(os.Stdout, "%s is the tree as it was at one moment (copied %s)\n", x.To, terminal.Counted(n, "time"))
	}
	return nil
}
