package main

import (
	"context"
	"os"

	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/doctor"
	"packmill/cmd/internal/terminal"
)

type doctorCmd struct {
	URL     string `name:"url" help:"Where clients fetch the archive: ask the web server too." placeholder:"URL"`
	Offline bool   `help:"Ask no mirror and no web server."`
}

func (doctorCmd) Help() string {
	return `Looks a server over: settings that are legal and cannot work, keys that are missing or expire, builders, chroots, subordinate ids and user namespaces, programs, units, sshd, mirrors, space, the clock. One line and one cure each; it changes nothing. Run it as root, who may read everything.

What is in the tree is packmill fsck's to judge.

Exit status: 0 nothing is wrong (there may be warnings), 1 something is.

Examples:
  packmill doctor
  packmill doctor --url http://archive.example.org/
  packmill doctor --json --offline`
}

func (d *doctorCmd) Run(c *cli) error {
	found := doctor.Look(context.Background(), doctor.Options{Tree: c.Tree, URL: d.URL, Offline: d.Offline})
	for _, f := range found {
		c.print(os.Stdout, f, f.String())
	}
	if n := doctor.Errors(found); n > 0 {
		return daemon.Refuse("%d things are wrong", n)
	}
	if len(found) == 0 && !c.JSON {
		terminal.Print(os.Stdout, "nothing is wrong\n")
	}
	return nil
}
