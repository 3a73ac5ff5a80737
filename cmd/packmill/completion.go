package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"packmill/archive"
	"packmill/cmd/internal/control"
	"packmill/cmd/internal/terminal"
	"packmill/queue"
	"packmill/spool"
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

// completions ask the program itself, so they know the items of the moment.
var completions = map[string]string{
	"bash": `_packmill() {
	local IFS=$'\n'
	COMPREPLY=($(packmill complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -F _packmill packmill
`,
	"zsh": `#compdef packmill
_packmill() {
	local -a found=("${(@f)$(packmill complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
	compadd -- ${found:#}
}
if [[ ${funcstack[1]} = _packmill ]]; then _packmill; else compdef _packmill packmill; fi
`,
	"fish": `complete -c packmill -f -a '(packmill complete -- (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)'
`,
}

func (x completionCmd) Run(*cli) error {
	fmt.Print(completions[x.Shell])
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
		if states := completed(command); states != nil && (command != "cancel" || len(args) == 0) {
			out = append(out, itemIDs(c.Tree, states, last)...)
		}
		switch {
		case command == "wb":
			out = append(out, c.wbWords(args, last)...)
		case command == "cancel" && len(args) > 0, command == "quinn-diff", strings.HasPrefix(command, "chroot "):
			out = append(out, c.settingsWords(command, args)...)
		case len(path) > 1 && path[0] == "archive":
			out = append(out, c.archiveWords(command, node.Positional, args, last)...)
		}
	}
	slices.Sort(out)
	for _, w := range slices.Compact(out) {
		if strings.HasPrefix(w, last) {
			terminal.Print(os.Stdout, "%s\n", w)
		}
	}
	return nil
}

// completed says which items a command takes: those in the states of which it
// is true.
func completed(command string) func(spool.State) bool {
	switch {
	case slices.Contains([]string{"ls", "show", "why", "log", "log show", "log ls"}, command):
		return func(spool.State) bool { return true }
	case command == "build sign":
		return only(spool.Built)
	case command == "build", strings.HasPrefix(command, "build "):
		return judged
	case strings.HasPrefix(command, "review "):
		return only(spool.Review)
	case command == "cancel":
		return func(s spool.State) bool { return queue.May(queue.Cancel, s) }
	case command == "requeue":
		return again
	}
	return nil
}

// archiveWords are the suites, snapshots or packages that the next argument of a
// command of the archive may be.
func (c *cli) archiveWords(path string, takes []*kong.Positional, args []string, last string) []string {
	dir := filepath.Join(c.Tree, "archive")
	if _, err := os.Stat(dir); err != nil || len(takes) == 0 {
		return nil
	}
	arg := takes[min(len(args), len(takes)-1)]
	a, err := archive.Open(dir)
	if err != nil || len(args) >= len(takes) && !arg.IsCumulative() {
		return nil
	}
	var out []string
	snapshots, _ := a.Snapshots()
	switch {
	case arg.Name == "package":
		list, _ := a.List(context.Background(), args[0], last+"*")
		for _, e := range list {
			if e.Source == "" || path == "archive show" || path == "archive override" {
				out = append(out, e.Package)
			}
		}
		return out
	case arg.Name == "snapshot", path == "archive snapshot rm":
		for _, s := range snapshots {
			out = append(out, s.Name)
		}
		return out
	case arg.Name == "view", arg.Name == "from" && path != "archive move", path == "archive diff":
		for _, s := range snapshots {
			out = append(out, s.Name+"/"+s.Suite)
		}
	case arg.Name != "suite" && arg.Name != "from" && arg.Name != "to":
		return nil
	}
	if s, err := c.control(); err == nil {
		out = append(out, suitesOf(s)...)
	}
	return out
}

// settingsWords are the suites and architectures that the next argument may be:
// of cancel an architecture, of the others a suite, then an architecture.
func (c *cli) settingsWords(command string, args []string) []string {
	set, err := c.control()
	if err != nil {
		return nil
	}
	switch {
	case command == "cancel":
		return append(archsOf(set.Suites), "ANY", "ALL")
	case len(args) == 0:
		return suitesOf(set)
	case len(args) == 1 && command != "quinn-diff":
		if s, ok := set.Suite(args[0]); ok {
			return archsOf([]control.Suite{*s})
		}
		return archsOf(set.Suites)
	}
	return nil
}

// wbWords completes wb's grammar: CMD PKG... . ARCH... . SUITE.
func (c *cli) wbWords(args []string, last string) []string {
	if len(args) == 0 {
		return strings.Fields(queue.Names(queue.WordsAt(queue.AtWb)))
	}
	set, err := c.control()
	if err != nil {
		return nil
	}
	part := 0
	for _, a := range args {
		if a == "." {
			part++
		}
	}
	said := args[len(args)-1] != "." // a point may follow
	var out []string
	switch part {
	case 0:
		op := queue.Op(args[0])
		out = itemIDs(c.Tree, func(s spool.State) bool { return queue.May(op, s) }, last)
		said = len(args) > 1
	case 1:
		out = append(archsOf(set.Suites), "all", "ANY", "ALL")
	case 2:
		out = suitesOf(set)
	}
	if said && part < 2 {
		out = append(out, ".")
	}
	return out
}

func suitesOf(s *control.Settings) (names []string) {
	for i := range s.Suites {
		names = append(names, s.Suites[i].Name)
	}
	return names
}

func archsOf(suites []control.Suite) (names []string) {
	for i := range suites {
		names = append(names, suites[i].Architectures...)
	}
	return names
}

// itemIDs are the names by which a person may say the items, each item once: the
// source, or where there are several of it, or its version is begun, with the
// version. An epoch's colon, at which bash splits words, is written as in the
// item's name.
func itemIDs(root string, states func(spool.State) bool, last string) []string {
	t, err := spool.Open(root)
	if err != nil {
		return nil
	}
	found, err := t.Find("", t.Where(states)...)
	if _, err = spool.Closed(err); err != nil {
		return nil
	}
	versions := map[string][]string{}
	for _, f := range found {
		v := f.Name.Source + "_" + strings.ReplaceAll(f.Name.Version, ":", "%3a")
		if !slices.Contains(versions[f.Name.Source], v) {
			versions[f.Name.Source] = append(versions[f.Name.Source], v)
		}
	}
	var out []string
	for source, all := range versions {
		if len(all) == 1 && !strings.HasPrefix(last, source+"_") {
			all = []string{source}
		}
		out = append(out, all...)
	}
	return out
}
