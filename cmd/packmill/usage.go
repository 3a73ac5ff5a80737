package main

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"packmill/cmd/internal/daemon"
	"packmill/internal/near"
	"packmill/spool"

	"github.com/alecthomas/kong"
)

// spoken are kong's errors and what they mean, for people.
var spoken = []struct {
	kong *regexp.Regexp
	text string
}{
	{regexp.MustCompile(`^expected one of (.*)$`), `say what to do: one of $1`},
	{regexp.MustCompile(`^missing flags: (.*)$`), `it needs $1`},
	{regexp.MustCompile(`^expected "(.*)"$`), `it needs $1`},
	{regexp.MustCompile(`^unexpected argument (\S+)$`), `there is no place for the word $1 here`},
	{regexp.MustCompile(`^unexpected argument (\S+), did you mean (.*)\?$`), `there is no $1; did you mean $2?`},
	{regexp.MustCompile(`^unknown flag (\S+)$`), `there is no option $1`},
	{regexp.MustCompile(`^unknown flag (\S+), did you mean (.*)\?$`), `there is no option $1; did you mean $2?`},
	{regexp.MustCompile(`^(--\S+): (?:expected|missing) .*\(<?EOL>?\).*$`), `$1 wants a value`},
	{regexp.MustCompile(`^(--[^ :=]+)(?:=\S*)?: (?:expected|missing) .* but got "EOL".*$`), `$1 wants a value`},
	{regexp.MustCompile(`^(--\S+) must be one of (.*) but got (.*)$`), `$1 is one of $2, not $3`},
	{regexp.MustCompile(`^<(.*)> must be one of (.*) but got (.*)$`), `$1 is one of $2, not $3`},
}

// usage says in a person's words what is wrong with a command line.
func usage(err error) error {
	text := err.Error()
	for _, s := range spoken {
		if s.kong.MatchString(text) {
			text = s.kong.ReplaceAllString(text, s.text)
			break
		}
	}
	command := "packmill"
	if parse := (*kong.ParseError)(nil); errors.As(err, &parse) && parse.Context != nil && parse.Context.Selected() != nil {
		command = strings.Join(strings.Fields(parse.Context.Selected().FullPath()), " ")
	}
	return fmt.Errorf("%s\nTry: %s --help", text, command)
}

// mistyped turns the refusal of a list that a group of commands begins with into
// a question, if what was not found is nearly one of the commands.
func mistyped(ctx *kong.Context, items []string, err error) error {
	if len(items) == 0 || !errors.Is(err, daemon.ErrRefused) {
		return err
	}
	group := ctx.Selected().Parent
	var names []string
	for _, n := range group.Children {
		names = append(names, n.Name)
	}
	if hint := near.Hint(items[0], names); hint != "" {
		return daemon.Wrong{Err: fmt.Errorf("there is no %s %s; %s", strings.Join(strings.Fields(group.FullPath()), " "), spool.OneLine(items[0]), hint)}
	}
	return err
}
