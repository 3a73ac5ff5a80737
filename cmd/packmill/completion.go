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
		if states := completed(strings.Join(path, " ")); states != nil {
			out = append(out, itemIDs(c.Tree, states)...)
		}
		if len(path) > 1 && path[0] == "archive" {
			out = append(out, c.archiveWords(strings.Join(path, " "), node.Positional, args, last)...)
		}
	}
	slices.Sort(out)
	for _, w := range slices.Compact(out) {
		if strings.HasPrefix(w, last) {
			fmt.Fprintln(os.Stdout, w)
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
		for i := range s.Suites {
			out = append(out, s.Suites[i].Name)
		}
	}
	return out
}

// itemIDs are the names by which a person may say the items. An epoch's colon,
// at which bash splits words, is written as in the item's name.
func itemIDs(root string, states func(spool.State) bool) []string {
	t, err := spool.Open(root)
	if err != nil {
		return nil
	}
	found, err := t.Find("", t.Where(states)...)
	if err != nil {
		return nil
	}
	var out []string
	for _, f := range found {
		out = append(out, f.Name.Source, f.Name.Source+"_"+strings.ReplaceAll(f.Name.Version, ":", "%3a"))
	}
	return out
}
