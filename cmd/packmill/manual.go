package main

import (
	"strings"

	"github.com/alecthomas/kong"
)

// manualCmd prints the help of every command, one after the other. scripts/man
// makes a section of packmill(1) of it.
type manualCmd struct{}

func (manualCmd) Run(*cli) error {
	parser, err := grammar(&cli{})
	if err != nil {
		return err
	}
	for _, n := range parser.Model.Leaves(true) {
		ctx, err := kong.Trace(parser, strings.Fields(n.FullPath())[1:])
		if err != nil {
			return err
		}
		if err := ctx.PrintUsage(false); err != nil {
			return err
		}
	}
	return nil
}
