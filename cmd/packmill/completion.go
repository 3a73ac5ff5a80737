package main

import (
	"fmt"
	"os"

	"packmill/cmd/internal/complete"
	"packmill/cmd/internal/terminal"
)

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"The shell: bash, zsh or fish."`
}

func (completionCmd) Help() string {
	return `Examples:
  source <(packmill completion bash)
  packmill completion bash >/etc/bash_completion.d/packmill
  packmill completion zsh >/usr/local/share/zsh/site-functions/_packmill
  packmill completion fish >~/.config/fish/completions/packmill.fish`
}

func (x completionCmd) Run(*cli) error {
	fmt.Print(complete.Scripts[x.Shell])
	return nil
}

// completeCmd prints what the last of its words may become, a line each. It is
// for completion scripts.
type completeCmd struct {
	Words []string `arg:"" optional:"" passthrough:"" help:"The words of the command line so far; the last is completed."`
}

func (x *completeCmd) Run(c *cli) error {
	parser, err := grammar(&cli{}, "")
	if err != nil {
		return err
	}
	for _, w := range complete.Line(parser.Model.Node, c.Tree, x.Words) {
		terminal.Print(os.Stdout, "%s\n", w)
	}
	return nil
}
