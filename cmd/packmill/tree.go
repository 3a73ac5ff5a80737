package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"packmill/cmd/internal/control"
	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/survey"
	"packmill/cmd/internal/terminal"
	"packmill/internal/durable"
	"packmill/queue"
	"packmill/queue/buildlog"
	"packmill/queue/logs"
	"packmill/spool"
)

// open opens the tree of the command line.
func (c *cli) open() (*spool.Tree, error) {
	unix.Umask(0o002)
	t, err := spool.Open(c.Tree)
	if err != nil {
		return nil, daemon.Wrong{Err: err}
	}
	return t, nil
}

// print writes one JSON object a line, or the row that text makes of it.
func (c *cli) print(w io.Writer, v any, text string) {
	if !c.JSON {
		fmt.Fprintln(w, text)
		return
	}
	data, err := json.Marshal(v)
	if err == nil {
		fmt.Fprintf(w, "%s\n", data)
	}
}

type initCmd struct {
	Users   bool `help:"Give the tree to the daemons' own accounts (root only; the accounts must exist)."`
	Archive bool `help:"Only what packmill archive needs: an archive to be kept by hand, without daemons."`
}

func (initCmd) Help() string {
	return `Makes the tree at --tree with example settings in control, which say what to fill in, and the key with which reviewd vouches for what it lets in. What is there already stays. In a tree from before there was such a key, what is on its way is vouched for as it lies now: stop the daemons first.

Examples:
  packmill init
  packmill init --tree /srv/packages --archive       an archive alone; then: packmill archive --help`
}

func (i initCmd) Run(c *cli) error {
	if c.DryRun {
		fmt.Printf("would make or complete the tree %s\n", c.Tree)
		return nil
	}
	unix.Umask(0o002)
	if i.Archive {
		return i.archive(c)
	}
	made, err := i.complete(c)
	if err != nil {
		return err
	}
	fmt.Printf("The tree is %s\n", c.Tree)
	for _, f := range made {
		fmt.Printf("Fill in: %s\n", f)
	}
	return nil
}

// complete makes the tree, or what it lacks, and returns the example settings
// that it wrote.
func (i initCmd) complete(c *cli) (made []string, err error) {
	unix.Umask(0o002)
	if err := older(c.Tree); err != nil {
		return nil, err
	}
	t, err := spool.Init(c.Tree)
	if err != nil {
		return nil, err
	}
	if made, err = writeExamples(t.Root(), control.Files); err != nil || !i.Users {
		return made, err
	}
	if err := t.SetRights(); err != nil {
		return made, daemon.Wrong{Err: err}
	}
	return made, nil
}

// archive makes what an archive alone needs.
func (initCmd) archive(c *cli) error {
	for _, d := range []string{"archive", "attic"} {
		if err := durable.MkdirAll(filepath.Join(c.Tree, d), 0o775); err != nil {
			return err
		}
	}
	made, err := writeExamples(c.Tree, []string{control.SuitesFile})
	if err != nil {
		return err
	}
	fmt.Printf("The archive is %s\n", filepath.Join(c.Tree, "archive"))
	for _, f := range made {
		fmt.Printf("Fill in: %s\n", f)
	}
	fmt.Printf("Then: packmill key new archive --tree %s\n", c.Tree)
	return nil
}

type statusCmd struct{}

func (statusCmd) Run(c *cli) error {
	t, err := c.open()
	if err != nil {
		return err
	}
	set, _ := c.control() // what is where can be said without settings
	s, err := survey.StatusOf(t, set)
	if err != nil {
		return err
	}
	w := terminal.Table()
	if !c.JSON {
		fmt.Fprintln(w, "ITEMS\tSTATE\tSUITE\tARCH\tOLDEST")
	}
	for _, n := range s.Counts {
		oldest, work := "", ""
		if n.Oldest != nil {
			oldest = terminal.Age(*n.Oldest)
		}
		if n.Work > 0 {
			work = "\tabout " + buildlog.Span(time.Duration(n.Work*float64(time.Second))) + " of builds"
		}
		text := fmt.Sprintf("%d\t%s\t%s\t%s\t%s%s", n.Items, n.State, n.Suite, n.Arch, oldest, work)
		switch n.State {
		case survey.Full:
			text = "Nothing new is begun. " + n.Reason
		case survey.Incoming:
			text = fmt.Sprintf("%d\tincoming (unfinished or deferred)\t\t\t\t%s", n.Items, n.Dir)
		case survey.Stray:
			text = fmt.Sprintf("%d\tstray files, in no .changes\t\t\t%s\t%s", n.Items, oldest, n.Dir)
		}
		c.print(w, n, text)
	}
	if !c.JSON {
		for _, idle := range s.Idle {
			fmt.Fprintf(w, "\t%s\n", terminal.Clean(idle))
		}
		if len(s.Counts) == 0 {
			fmt.Fprintln(w, "nothing is anywhere")
		}
	}
	return w.Flush()
}

type lsCmd struct {
	Item  string   `arg:"" optional:"" help:"hello, hello_2.10-3 or an item's whole name; all if missing."`
	State []string `short:"s" help:"Only in these states." placeholder:"STATE"`
}

func (l *lsCmd) Run(c *cli) error {
	t, err := c.open()
	if err != nil {
		return err
	}
	var states []spool.State
	for _, s := range l.State {
		state := t.Named(s)
		if state == nil {
			return daemon.Wrong{Err: fmt.Errorf("there is no state %q; packmill status shows those that are in use", s)}
		}
		states = append(states, state)
	}
	found, err := survey.Find(t, "list", l.Item, states...)
	if err != nil {
		return err
	}
	w := terminal.Table()
	if !c.JSON {
		fmt.Fprintln(w, "STATE\tSUITE\tARCH\tITEM\tSINCE\tWHY")
	}
	source := ""
	if l.Item != "" && len(found) > 0 {
		source = found[0].Name.Source
	}
	waits := survey.NewWaits(t, source)
	for _, f := range found {
		r := survey.RowOf(t, f)
		if f.Place.State == spool.NeedsBuild {
			if err := waits.Tell(f, &r); err != nil {
				return err
			}
		}
		c.print(w, r, fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s", r.State, r.Suite, r.Arch, r.Item, terminal.Age(r.Since), r.Reason))
	}
	return w.Flush()
}

type showCmd struct {
	Item string `arg:"" help:"hello, hello_2.10-3 or an item's whole name."`
}

func (s *showCmd) Run(c *cli) error {
	t, err := c.open()
	if err != nil {
		return err
	}
	found, err := survey.Find(t, "show", s.Item)
	if err != nil {
		return err
	}
	for _, f := range found {
		dir := t.Path(f.Dir())
		events, _ := spool.ReadHistory(dir)
		builds, _ := buildlog.BuildsAt(dir)
		infos, err := filepath.Glob(filepath.Join(dir, "result", "*.buildinfo"))
		if err != nil {
			return err
		}
		if c.JSON {
			c.print(os.Stdout, struct {
				survey.Row
				History    []spool.Event    `json:"history"`
				Text       string           `json:"text,omitempty"`
				FirstError string           `json:"first_error,omitempty"`
				Builds     []buildlog.Build `json:"builds,omitempty"`
				Buildinfo  []string         `json:"buildinfo,omitempty"`
			}{survey.RowOf(t, f), events, spool.ReadReason(dir), buildlog.ErrorAt(dir), builds, infos}, "")
			continue
		}
		fmt.Printf("%s\n", f.Dir())
		if st, err := spool.ReadTicket(dir); err == nil {
			for line := range strings.Lines(string(st.Append(nil))) {
				fmt.Printf("  %s\n", terminal.Clean(line))
			}
		}
		fmt.Println()
		for _, e := range events {
			fmt.Printf("  %s  %s -> %s  by %s  %s\n", e.Time.Format(time.RFC3339), terminal.Clean(e.From), terminal.Clean(e.To), terminal.Clean(e.Who), terminal.Clean(e.Reason))
		}
		for _, b := range builds {
			fmt.Printf("  %s  build on %s: %s\n", b.Start.Format(time.RFC3339), terminal.Clean(b.Builder), terminal.Clean(logs.Numbers(&b)))
		}
		for _, name := range infos {
			fmt.Printf("  built with: %s\n", terminal.Clean(name))
		}
		text := spool.ReadReason(dir)
		// REASON has the first error while a person is asked.
		if first := buildlog.ErrorAt(dir); !strings.Contains(text, first) {
			text += "\n" + first
		}
		if text = strings.TrimSpace(text); text != "" {
			fmt.Println()
			for line := range strings.Lines(text) {
				fmt.Printf("  %s\n", terminal.Clean(line))
			}
		}
		fmt.Println()
	}
	return nil
}

// only is true of these states.
func only(states ...spool.State) func(spool.State) bool {
	return func(s spool.State) bool { return slices.Contains(states, s) }
}

// act claims each item that the patterns name in the given states and calls do
// on it. A pattern that names nothing, or something in more than one place, is
// refused before anything is done.
func (c *cli) act(patterns []string, states func(spool.State) bool, what string, do func(*spool.Item) error) error {
	t, err := c.open()
	if err != nil {
		return err
	}
	var all []spool.Found
	for _, p := range patterns {
		found, err := survey.Find(t, what, p, t.Where(states)...)
		if err != nil {
			return err
		}
		all = append(all, found...)
	}
	failed := 0
	for _, f := range all {
		if c.DryRun {
			fmt.Printf("would %s %s\n", what, f.Dir())
			continue
		}
		if err := c.actOn(t, f, do); err != nil {
			fmt.Fprintf(os.Stderr, "packmill: %s: %v\n", f.Dir(), err)
			failed++
		}
	}
	if failed > 0 {
		return daemon.ErrRefused
	}
	return nil
}

func (c *cli) actOn(t *spool.Tree, f spool.Found, do func(*spool.Item) error) error {
	it, err := t.ClaimSoon(f.Place, f.Name.String())
	if err != nil {
		return err
	}
	defer it.Release()
	from := it.Place
	if err := do(it); err != nil {
		return err
	}
	if it.Place != from {
		c.print(os.Stdout, survey.RowOf(t, spool.Found{Place: it.Place, Name: it.Name}), fmt.Sprintf("%s: %s -> %s", it.Name, from, it.Place))
	}
	return nil
}

type requeueCmd struct {
	Items   []string `arg:"" name:"item" help:"Items to try again."`
	Message string   `short:"m" help:"Why." default:"requeued"`
}

func (requeueCmd) Help() string {
	return `A refused upload is judged again, a failed or waiting build goes back to needs-build, a source in the master queue gets the jobs that it lacks.

Examples:
  packmill requeue hello_2.10-3 -m "key added to control/keys"`
}

// again reports whether what is there can be tried again.
func again(s spool.State) bool { return s.Requeue != nil }

func (r *requeueCmd) Run(c *cli) error {
	return c.act(r.Items, again, "requeue", func(it *spool.Item) error {
		if it.Place.State.Is(spool.Jobs) {
			// Who had it, and how often it was tried, is over.
			r := queue.WordAt(queue.Alone, "requeue").Ask(r.Message)
			r.Who, r.Now = terminal.Who(), time.Now()
			reply, err := queue.AskOf(it, r)
			if err == nil && reply.Refusal != "" {
				err = daemon.Refuse("%s", reply.Refusal)
			}
			return err
		}
		to := it.Place
		to.State = it.Place.State.Requeue
		replan := it.Place.State == spool.Master
		err := it.Move(spool.Person, terminal.Who(), spool.Verdict{To: to, Reason: r.Message})
		if err == nil && replan {
			// Nobody takes it before the lock drops. A source without a
			// plan in the master queue would be stuck there.
			err = queue.Replan(it)
		}
		return err
	})
}
