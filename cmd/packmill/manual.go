package main

import (
	"os"
	"strings"

	"github.com/alecthomas/kong"
)

// manualCmd prints the help of every command, one after the other, and before
// those of a group what the group says of them all. scripts/man
// makes a section of packmill(1) of it.
type manualCmd struct {
	Schema bool `help:"What commands print with --json, in its place."`
}

func (m manualCmd) Run(*cli) error {
	if m.Schema {
		writeSchemas(os.Stdout)
		return nil
	}
	parser, err := grammar(&cli{}, "")
	if err != nil {
		return err
	}
	told := map[*kong.Node]bool{}
	var tell func(n *kong.Node) error
	tell = func(n *kong.Node) error {
		if n == parser.Model.Node || told[n] {
			return nil
		}
		told[n] = true
		if err := tell(n.Parent); err != nil || !n.Leaf() && n.Detail == "" {
			return err
		}
		n.DefaultCmd = nil // its own help, not that of what it does alone
		ctx, err := kong.Trace(parser, strings.Fields(n.FullPath())[1:])
		if err != nil {
			return err
		}
		return ctx.PrintUsage(false)
	}
	for _, n := range parser.Model.Leaves(true) {
		if err := tell(n); err != nil {
			return err
		}
	}
	return nil
}
