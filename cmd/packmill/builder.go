package main

import (
	"os"
	"strings"

	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/farm"
	"packmill/cmd/internal/terminal"
	"packmill/spool"
)

type builderCmd struct {
	Keys string `help:"The authorized_keys file (default: /etc/packmill/builders.keys where the daemons have accounts of their own, else the user's)." placeholder:"FILE" type:"path"`

	Add    builderAdd    `cmd:"" help:"Let a builder on another machine call here."`
	Ls     builderLs     `cmd:"" help:"List the builders on other machines: who is here, and what each builds."`
	Rm     builderRm     `cmd:"" help:"Take a builder's key and stanza away."`
	Pause  builderPause  `cmd:"" help:"Give a builder nothing more; what it builds goes on."`
	Drain  builderDrain  `cmd:"" help:"Give a builder nothing more, and end its daemon when it has brought all."`
	Resume builderResume `cmd:"" help:"Give it jobs again."`
}

func (builderCmd) Help() string {
	return `Builders on other machines call by ssh, need no open port, no database and no shared disk, and can do what their stanza says and nothing more.

Examples:
  packmill builder add pi4 pi4_id_ed25519.pub arm64 armhf     here, as root
  buildd --master packmill-build@HOST                         there
  packmill builder ls
  packmill builder drain pi4`
}

// farm opens what the commands of builders need.
func (c *cli) farm() (*farm.Farm, error) {
	set, err := c.control()
	if err != nil {
		return nil, err
	}
	tree, err := spool.Open(c.Tree)
	if err != nil {
		return nil, daemon.Wrong{Err: err}
	}
	return &farm.Farm{Tree: tree, Settings: set, Keys: c.Builder.Keys}, nil
}

type builderAdd struct {
	Name  string   `arg:"" help:"The builder's name in control/builders and in histories."`
	Key   string   `arg:"" name:"key.pub" help:"The public ssh key of the account that calls." type:"existingfile"`
	Archs []string `arg:"" name:"arch" help:"The architectures that it builds; all is one of them."`
}

func (b *builderAdd) Run(c *cli) error {
	f, err := c.farm()
	if err != nil {
		return err
	}
	if c.DryRun {
		terminal.Print(os.Stdout, "would let %s build %s\n", b.Name, strings.Join(b.Archs, " "))
		return nil
	}
	keys, err := f.Add(b.Name, b.Key, b.Archs)
	if err != nil {
		return err
	}
	terminal.Print(os.Stdout, "%s may build %s; its key is in %s. On its host: buildd --master %s@THIS-HOST\n", b.Name,
		strings.Join(b.Archs, " "), keys, spool.UserBuild)
	return nil
}

type builderLs struct{}

func (builderLs) Run(c *cli) error {
	f, err := c.farm()
	if err != nil {
		return err
	}
	rows, err := f.Rows()
	if err != nil {
		return err
	}
	for _, r := range rows {
		c.print(os.Stdout, r, r.String())
	}
	return nil
}

type builderRm struct {
	Name string `arg:"" help:"The builder."`
}

func (b *builderRm) Run(c *cli) error {
	f, err := c.farm()
	if err != nil {
		return err
	}
	if c.DryRun {
		terminal.Print(os.Stdout, "would take %s away\n", b.Name)
		return nil
	}
	return f.Remove(b.Name)
}

type builderPause struct {
	Name string `arg:"" help:"The builder."`
}

func (b *builderPause) Run(c *cli) error { return c.takes(b.Name, "no") }

type builderDrain struct {
	Name string `arg:"" help:"The builder."`
}

func (b *builderDrain) Run(c *cli) error { return c.takes(b.Name, "drain") }

type builderResume struct {
	Name string `arg:"" help:"The builder."`
}

func (b *builderResume) Run(c *cli) error { return c.takes(b.Name, "yes") }

// takes says whether a builder gets jobs.
func (c *cli) takes(name, word string) error {
	f, err := c.farm()
	if err != nil {
		return err
	}
	if c.DryRun {
		terminal.Print(os.Stdout, "would write Takes: %s for %s\n", word, name)
		return nil
	}
	return f.Takes(name, word)
}

type serveBuilderCmd struct {
	Name string `arg:""`
}

// Run becomes the build daemon of the builder that has called: sshd starts it, as authorized_keys says.
func (s *serveBuilderCmd) Run(c *cli) error { return farm.Serve(c.Tree, s.Name) }
