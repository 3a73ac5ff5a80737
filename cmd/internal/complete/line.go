package complete

import (
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// line is a command line that a person has begun to write, as far as it is read.
type line struct {
	tree    string
	command *kong.Node // that its words have named so far
	path    []string   // those words
	args    []string   // the arguments
	option  string     // whose value the next word is; "": none
}

// Line gives what the last of the words may become, by the grammar below root,
// in the tree that the words name, or else in this one.
func Line(root *kong.Node, tree string, words []string) []string {
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	last := ""
	if n := len(words); n > 0 {
		last, words = words[n-1], words[:n-1]
	}
	l := &line{tree: tree, command: root}
	for _, w := range words {
		l.read(w)
	}
	var out []string
	switch {
	case l.option != "": // its value is a word of the person's own
	case strings.HasPrefix(last, "-"):
		out = l.flags()
	default:
		out = append(l.commands(), l.arguments(last)...)
	}
	out = slices.DeleteFunc(out, func(w string) bool { return !strings.HasPrefix(w, last) })
	slices.Sort(out)
	return slices.Compact(out)
}

// read takes one more word.
func (l *line) read(w string) {
	if l.option != "" {
		if l.option == "--tree" {
			l.tree = w
		}
		l.option = ""
		return
	}
	if tree, ok := strings.CutPrefix(w, "--tree="); ok {
		l.tree = tree
		return
	}
	if w == "--tree" || w == "-m" || w == "--message" {
		l.option = w
		return
	}
	i := slices.IndexFunc(l.command.Children, func(n *kong.Node) bool { return n.Name == w })
	if i >= 0 {
		l.command, l.path = l.command.Children[i], append(l.path, w)
	} else if !strings.HasPrefix(w, "-") {
		l.args = append(l.args, w)
	}
}

// flags are the options that the command takes, and those that all take.
func (l *line) flags() (out []string) {
	for _, group := range l.command.AllFlags(true) {
		for _, f := range group {
			out = append(out, "--"+f.Name)
		}
	}
	return out
}

// commands are those of the group that the words have named.
func (l *line) commands() (out []string) {
	for _, n := range l.command.Children {
		if !n.Hidden {
			out = append(out, n.Name)
		}
	}
	return out
}

// arguments are what the command's next argument may be.
func (l *line) arguments(last string) []string {
	next := Argument{Tree: l.tree, Command: strings.Join(l.path, " "), Args: l.args, Last: last}
	for _, p := range l.command.Positional {
		next.Takes = append(next.Takes, p.Name)
		next.Many = p.IsCumulative()
	}
	return next.Words()
}
