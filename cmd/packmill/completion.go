package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

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
	words := x.Words
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	last := ""
	if len(words) > 0 {
		last, words = words[len(words)-1], words[:len(words)-1]
	}
	parser, err := grammar(&cli{})
	if err != nil {
		return err
	}
	node := parser.Model.Node
	path, args, value := []string{}, []string{}, false
	for _, w := range words {
		switch {
		case value:
			value = false
		case w == "--tree" || w == "-m" || w == "--message":
			value = true
		case strings.HasPrefix(w, "--tree="):
			c.Tree = strings.TrimPrefix(w, "--tree=")
		default:
			i := slices.IndexFunc(node.Children, func(n *kong.Node) bool { return n.Name == w })
			if i >= 0 {
				node, path = node.Children[i], append(path, w)
			} else if !strings.HasPrefix(w, "-") {
				args = append(args, w)
			}
		}
	}
	for i, w := range words {
		if w == "--tree" && i+1 < len(words) {
			c.Tree = words[i+1]
		}
	}
	if value {
		return nil // a word of the person's own
	}
	var out []string
	if strings.HasPrefix(last, "-") {
		for _, group := range node.AllFlags(true) {
			for _, f := range group {
				out = append(out, "--"+f.Name)
			}
		}
	} else {
		for _, n := range node.Children {
			if !n.Hidden {
				out = append(out, n.Name)
			}
		}
		command := strings.Join(path, " ")
		next := complete.Argument{Tree: c.Tree, Command: command, Args: args, Last: last}
		for _, p := range node.Positional {
			next.Takes = append(next.Takes, p.Name)
			next.Many = p.IsCumulative()
		}
		out = append(out, next.Words()...)
	}
	slices.Sort(out)
	for _, w := range slices.Compact(out) {
		if strings.HasPrefix(w, last) {
			terminal.Print(os.Stdout, "%s\n", w)
		}
	}
	return nil
}
