// Package usage says in a person's words what is wrong with a command line.
package usage

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"packmill/cmd/internal/daemon"
	"packmill/internal/near"
	"packmill/internal/pattern"
	"packmill/spool"

	"github.com/alecthomas/kong"
)

// spoken are kong's errors and what they mean, for people.
var spoken = []struct {
	kong func() *regexp.Regexp
	text string
}{
	{pattern.Lazy(`^expected one of (.*)$`), `say what to do: one of $1`},
	{pattern.Lazy(`^missing flags: (.*)$`), `it needs $1`},
	{pattern.Lazy(`^expected "(.*)"$`), `it needs $1`},
	{pattern.Lazy(`^unexpected argument (\S+)$`), `there is no place for the word $1 here`},
	{pattern.Lazy(`^unexpected argument (\S+), did you mean (.*)\?$`), `there is no $1; did you mean $2?`},
	{pattern.Lazy(`^unknown flag (\S+)$`), `there is no option $1`},
	{pattern.Lazy(`^unknown flag (\S+), did you mean (.*)\?$`), `there is no option $1; did you mean $2?`},
	{pattern.Lazy(`^(--\S+): (?:expected|missing) .*\(<?EOL>?\).*$`), `$1 wants a value`},
	{pattern.Lazy(`^(--[^ :=]+)(?:=\S*)?: (?:expected|missing) .* but got "EOL".*$`), `$1 wants a value`},
	{pattern.Lazy(`^(--\S+) must be one of (.*) but got (.*)$`), `$1 is one of $2, not $3`},
	{pattern.Lazy(`^<(.*)> must be one of (.*) but got (.*)$`), `$1 is one of $2, not $3`},
}

// Of is a parser's error in a person's words.
func Of(err error) error {
	text := err.Error()
	for _, s := range spoken {
		if s.kong().MatchString(text) {
			text = s.kong().ReplaceAllString(text, s.text)
			break
		}
	}
	node := commandOf(err)
	if node == nil {
		return fmt.Errorf("%s\nTry: packmill --help", text)
	}
	if names := children(node); len(names) > 0 {
		if strings.HasPrefix(err.Error(), "expected one of") {
			text = "say what to do: one of " + strings.Join(names, ", ")
		}
		text = strings.Replace(text, "there is no place for the word", "there is no command", 1)
		text = strings.TrimSuffix(text, " here")
	}
	command := strings.Join(append([]string{"packmill"}, strings.Fields(node.Path())...), " ")
	return fmt.Errorf("%s\nTry: %s --help", text, command)
}

// commandOf is the command at which kong stopped.
func commandOf(err error) *kong.Node {
	parse := (*kong.ParseError)(nil)
	if !errors.As(err, &parse) || parse.Context == nil {
		return nil
	}
	if n := parse.Context.Selected(); n != nil {
		return n
	}
	return parse.Context.Model.Node
}

// children are the names of a group's commands.
func children(n *kong.Node) (names []string) {
	for _, c := range n.Children {
		if !c.Hidden {
			names = append(names, c.Name)
		}
	}
	return names
}

// Mistyped turns the refusal of a list that a group of commands begins with into
// a question, if what was not found is nearly one of the commands.
func Mistyped(ctx *kong.Context, items []string, err error) error {
	if len(items) == 0 || !errors.Is(err, daemon.ErrRefused) {
		return err
	}
	group := ctx.Selected().Parent
	if hint := near.Hint(items[0], children(group)); hint != "" {
		return daemon.Wrong{Err: fmt.Errorf("there is no %s %s; %s", strings.Join(strings.Fields(group.FullPath()), " "),
			spool.OneLine(items[0]), hint)}
	}
	return err
}
