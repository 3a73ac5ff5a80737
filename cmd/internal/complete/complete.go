// Package complete knows the words that an argument on packmill's command line may
// be: items, suites, architectures, packages of the archive.
package complete

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"packmill/archive"
	"packmill/cmd/internal/control"
	"packmill/queue"
	"packmill/spool"
)

// Argument is an argument that a person has begun to write.
type Argument struct {
	Tree    string
	Command string   // with those that it is below: "archive snapshot rm"
	Takes   []string // what the command calls its arguments
	Many    bool     // the last of them may be given several times
	Args    []string // those that stand before this one
	Last    string   // what there is of it
}

// Words are what the argument may become. Not all of them begin with Last.
func (x *Argument) Words() (out []string) {
	if states := items(x.Command); states != nil && (x.Command != "cancel" || len(x.Args) == 0) {
		out = x.ids(states)
	}
	switch {
	case x.Command == "wb":
		out = append(out, x.wb()...)
	case x.Command == "cancel" && len(x.Args) > 0, x.Command == "quinn-diff", strings.HasPrefix(x.Command, "chroot "):
		out = append(out, x.named()...)
	case strings.HasPrefix(x.Command, "archive "):
		out = append(out, x.archive()...)
	}
	return out
}

func (x *Argument) settings() (*control.Settings, error) {
	return control.Load(filepath.Join(x.Tree, "control"))
}

// is is true of one state.
func is(state spool.State) func(spool.State) bool {
	return func(s spool.State) bool { return s == state }
}

// items says which items a command takes: those in the states of which it
// is true.
func items(command string) func(spool.State) bool {
	switch {
	case slices.Contains([]string{"status", "ls", "show", "why", "wait", "log", "log show", "log ls"}, command):
		return func(spool.State) bool { return true }
	case command == "build sign":
		return is(spool.Built)
	case command == "build", strings.HasPrefix(command, "build "):
		return func(s spool.State) bool { return queue.May(queue.Manual, s) }
	case strings.HasPrefix(command, "review "):
		return is(spool.Review)
	case command == "cancel":
		return func(s spool.State) bool { return queue.May(queue.Cancel, s) }
	case command == "requeue":
		return func(s spool.State) bool { return s.Requeue != nil }
	}
	return nil
}

// archive are the suites, snapshots or packages that the next argument of a
// command of the archive may be.
func (x *Argument) archive() []string {
	dir := filepath.Join(x.Tree, "archive")
	if _, err := os.Stat(dir); err != nil || len(x.Takes) == 0 {
		return nil
	}
	arg := x.Takes[min(len(x.Args), len(x.Takes)-1)]
	a, err := archive.Open(dir)
	if err != nil || len(x.Args) >= len(x.Takes) && !x.Many {
		return nil
	}
	var out []string
	snapshots, _ := a.Snapshots()
	switch {
	case arg == "package":
		list, _ := a.List(context.Background(), x.Args[0], x.Last+"*")
		for _, e := range list {
			if e.Source == "" || x.Command == "archive show" || x.Command == "archive override" {
				out = append(out, e.Package)
			}
		}
		return out
	case arg == "snapshot", x.Command == "archive snapshot rm":
		for _, s := range snapshots {
			out = append(out, s.Name)
		}
		return out
	case arg == "view", arg == "from" && x.Command != "archive move", x.Command == "archive diff":
		for _, s := range snapshots {
			out = append(out, s.Name+"/"+s.Suite)
		}
	case arg != "suite" && arg != "from" && arg != "to":
		return nil
	}
	if s, err := x.settings(); err == nil {
		out = append(out, s.SuiteNames()...)
	}
	return out
}

// named are the suites and architectures that the next argument may be:
// of cancel an architecture, of the others a suite, then an architecture.
func (x *Argument) named() []string {
	set, err := x.settings()
	if err != nil {
		return nil
	}
	switch {
	case x.Command == "cancel":
		return append(archsOf(set.Suites), "ANY", "ALL")
	case len(x.Args) == 0:
		return set.SuiteNames()
	case len(x.Args) == 1 && x.Command != "quinn-diff":
		if s, ok := set.Suite(x.Args[0]); ok {
			return archsOf([]control.Suite{*s})
		}
		return archsOf(set.Suites)
	}
	return nil
}

// wb completes wb's grammar: CMD PKG... . ARCH... . SUITE.
func (x *Argument) wb() []string {
	args := x.Args
	if len(args) == 0 {
		return strings.Fields(queue.Names(queue.WordsAt(queue.AtWb)))
	}
	set, err := x.settings()
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
		out = x.ids(func(s spool.State) bool { return queue.May(op, s) })
		said = len(args) > 1
	case 1:
		out = append(archsOf(set.Suites), "all", "ANY", "ALL")
	case 2:
		out = set.SuiteNames()
	}
	if said && part < 2 {
		out = append(out, ".")
	}
	return out
}

func archsOf(suites []control.Suite) (names []string) {
	for i := range suites {
		names = append(names, suites[i].Architectures...)
	}
	return names
}

// ids are the names by which a person may say the items, each item once: the
// source, or where there are several of it, or its version is begun, with the
// version. An epoch's colon, at which bash splits words, is written as in the
// item's name.
func (x *Argument) ids(states func(spool.State) bool) []string {
	t, err := spool.Open(x.Tree)
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
		if len(all) == 1 && !strings.HasPrefix(x.Last, source+"_") {
			all = []string{source}
		}
		out = append(out, all...)
	}
	return out
}
