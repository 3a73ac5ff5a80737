package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"packmill/cmd/internal/account"
	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/setup"
	"packmill/cmd/internal/survey"
	"packmill/cmd/internal/terminal"
	"packmill/cmd/internal/usage"
	"packmill/queue"
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
		terminal.Print(os.Stdout, "would make or complete the tree %s\n", c.Tree)
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
	terminal.Print(os.Stdout, "The tree is %s\n", c.Tree)
	for _, f := range made {
		terminal.Print(os.Stdout, "Fill in: %s\n", f)
	}
	return nil
}

// complete makes the tree, or what it lacks, and returns the example settings
// that it wrote.
func (i initCmd) complete(c *cli) (made []string, err error) {
	unix.Umask(0o002)
	made, left, err := setup.Tree(c.Tree)
	warn(left)
	if err == nil && i.Users {
		err = setup.Users(c.Tree)
	}
	return made, err
}

// archive makes what an archive alone needs.
func (initCmd) archive(c *cli) error {
	made, err := setup.Archive(c.Tree)
	if err != nil {
		return err
	}
	terminal.Print(os.Stdout, "The archive is %s\n", filepath.Join(c.Tree, "archive"))
	for _, f := range made {
		terminal.Print(os.Stdout, "Fill in: %s\n", f)
	}
	terminal.Print(os.Stdout, "Then: packmill key new archive --tree %s\n", c.Tree)
	return nil
}

// choice is what is listed or counted.
type choice struct {
	Items []string   `arg:"" optional:"" name:"item" help:"hello, hello_2.10-3, 'lib*' or an item's whole name; all if missing."`
	State []string   `short:"s" help:"Only in these states." placeholder:"STATE"`
	Suite string     `help:"Only of this suite; wildcards too." placeholder:"SUITE"`
	Arch  string     `short:"a" help:"Only of this architecture; wildcards too." placeholder:"ARCH"`
	Older usage.Span `help:"Only what has been where it is for longer: 90m, 12h, 7d, 2w." placeholder:"TIME"`
}

// filter is what the choice means.
func (x *choice) filter(t *spool.Tree, verb string) (*survey.Filter, error) {
	states, err := survey.States(t, x.State)
	return &survey.Filter{Verb: verb, Patterns: x.Items, States: states, Suite: x.Suite, Arch: x.Arch,
		Older: time.Duration(x.Older)}, err
}

type statusCmd struct {
	choice
	watch
	paged
}

func (statusCmd) Help() string {
	return `Examples:
  packmill status
  packmill status --suite sid -a amd64
  packmill status 'lib*' -s dep-wait -s bd-uninstallable --older 7d`
}

func (x *statusCmd) Run(c *cli) error {
	t, err := c.open()
	if err != nil {
		return err
	}
	f, err := x.filter(t, "count")
	if err != nil {
		return err
	}
	return x.show(c, func(s *terminal.Screen) error { return c.status(t, s, f) })
}

// status shows how much of what is meant is where.
func (c *cli) status(t *spool.Tree, s *terminal.Screen, f *survey.Filter) error {
	set, refused := c.control() // what is where can be said without settings
	status, err := survey.StatusOf(t, set, f)
	if err != nil {
		return err
	}
	if errors.Is(refused, fs.ErrPermission) {
		status.Closed, refused = append(status.Closed, survey.Whose(t.Root(), t.Path("control"))), nil
	}
	c.note(status.Closed)
	if refused != nil && !c.JSON {
		terminal.Print(s.Out, "The settings are refused, and the last good ones in force: %s\n",
			terminal.Clean(refused.Error()))
	}
	l := c.list(s, terminal.Column{Name: "ITEMS"}, terminal.Column{Name: "STATE", Least: 16, Paint: survey.Colour},
		suiteColumn, archColumn, terminal.Column{Name: "OLDEST"}, terminal.Column{Least: 8})
	for _, n := range status.Counts {
		if n.State == survey.Full && !c.JSON {
			fmt.Fprintln(s.Out, s.Paint(terminal.Red, "Nothing new is begun. ")+terminal.Clean(n.Reason))
			continue
		}
		l.add(n, n.Cells()...)
	}
	nothing := "nothing that is meant is anywhere"
	if len(status.Counts) > 0 {
		nothing = ""
	}
	if err := l.end(nothing); err != nil || c.JSON {
		return err
	}
	for _, idle := range status.Idle {
		terminal.Print(s.Out, "%s\n", s.Wrap(terminal.Clean(idle), "  "))
	}
	return nil
}

type lsCmd struct {
	choice
	watch
	paged
}

func (lsCmd) Help() string {
	return `Examples:
  packmill ls                              everything, in the order of a package's life
  packmill ls hello
  packmill ls 'lib*' --suite sid -s build-attempted -s dep-wait
  packmill ls -s review --older 3d
  packmill ls -w -s building               goes on showing what is built`
}

func (l *lsCmd) Run(c *cli) error {
	t, err := c.open()
	if err != nil {
		return err
	}
	f, err := l.filter(t, "list")
	if err != nil {
		return err
	}
	return l.show(c, func(s *terminal.Screen) error { return c.ls(t, s, f, "") })
}

// ls lists the items that are meant.
func (c *cli) ls(t *spool.Tree, s *terminal.Screen, f *survey.Filter, nothing string) error {
	var drops []survey.Row
	if f.States == nil && f.Suite == "" && f.Arch == "" && f.Older == 0 {
		set, _ := c.control() // what is there can be said without settings
		drops = survey.Drops(t, set, f.Patterns...)
	}
	found, err := c.find(t, f)
	if err != nil && !(len(drops) > 0 && errors.Is(err, daemon.ErrRefused)) {
		return err
	}
	waits := survey.NewWaitsOf(t, found)
	item := itemColumn
	if !s.Terminal() {
		item.Name = "ITEM"
	}
	l := c.list(s, stateColumn, suiteColumn, archColumn, item, sinceColumn, whyColumn)
	add := func(r survey.Row) {
		l.add(r, r.State, r.Suite, r.Arch, itemCell(s, &r), terminal.Age(r.Since), r.Reason)
	}
	for _, r := range drops {
		add(r)
	}
	for _, x := range found {
		r, err := waits.Row(x)
		if err != nil {
			return err
		}
		add(r)
	}
	return l.end(nothing)
}

type showCmd struct {
	Item string `arg:"" help:"hello, hello_2.10-3 or an item's whole name; wildcards too."`
	paged
}

func (s *showCmd) Run(c *cli) error {
	t, err := c.open()
	if err != nil {
		return err
	}
	found, err := c.find(t, &survey.Filter{Verb: "show", Patterns: []string{s.Item}})
	if err != nil {
		return err
	}
	for _, f := range found {
		x, err := survey.ItemOf(t, f)
		if err != nil {
			return err
		}
		if c.JSON {
			c.print(os.Stdout, x, "")
			continue
		}
		x.Print(c.screen())
	}
	return nil
}

// act claims each item that the patterns name in the given states, as far as
// the flags mean it, and calls do on it, which says what it did with what it
// did not move. A pattern that names nothing is refused before anything is done.
func (c *cli) act(
	p *pick, patterns []string, states func(spool.State) bool, verb string, do func(*spool.Item) (string, error),
) error {
	t, err := c.open()
	if err != nil {
		return err
	}
	found, refused, closed, err := p.filter(verb, patterns, states).MeantEach(t)
	c.note(closed)
	if err != nil {
		return err
	}
	var bad error
	for _, err := range refused {
		bad = daemon.ErrRefused
		c.tellError(err, daemon.ExitRefused)
	}
	for _, f := range found {
		r := acted{Row: survey.RowOf(t, f), Did: "would " + verb, DryRun: c.DryRun}
		if c.DryRun {
			c.print(os.Stdout, r, fmt.Sprintf("would %s %s", verb, f.Dir()))
			continue
		}
		err := account.As(t.Root(), f.Dir(), func() error { return c.actOn(t, f, do) })
		switch {
		case errors.Is(err, fs.ErrPermission):
			return err // the next one would end the same way
		case err != nil:
			bad = daemon.ErrRefused
			c.tellError(fmt.Errorf("%s: %w", f.Name.ID(), err), daemon.ExitRefused)
		}
	}
	return bad
}

// acted is what became of an item, for JSON.
type acted struct {
	survey.Row
	Did    string `json:"did"`
	DryRun bool   `json:"dry_run,omitempty"`
}

func (c *cli) actOn(t *spool.Tree, f spool.Found, do func(*spool.Item) (string, error)) error {
	it, err := t.ClaimSoon(f.Place, f.Name.String())
	if err != nil {
		return err
	}
	defer it.Release()
	from := it.Place
	did, err := do(it)
	if err != nil {
		return err
	}
	if did == "" {
		did = fmt.Sprintf("%s -> %s", from, it.Place)
	}
	r := acted{Row: survey.RowOf(t, spool.Found{Place: it.Place, Name: it.Name}), Did: did}
	c.print(os.Stdout, r, terminal.Clean(it.Name.ID()+": "+did))
	return nil
}

type requeueCmd struct {
	Items   []string `arg:"" name:"item" help:"Items to try again; wildcards too."`
	Message string   `short:"m" help:"Why." default:"requeued" placeholder:"TEXT"`
	pick
}

func (requeueCmd) Help() string {
	return `A refused upload is judged again, a failed or waiting build goes back to needs-build, a source in the master queue gets the jobs that it lacks.

Examples:
  packmill requeue hello_2.10-3 -m "key added to control/keys"`
}

// again reports whether what is there can be tried again.
func again(s spool.State) bool { return s.Requeue != nil }

func (r *requeueCmd) Run(c *cli) error {
	return c.act(&r.pick, r.Items, again, "requeue", func(it *spool.Item) (string, error) {
		err := queue.Requeue(it, terminal.Who(), r.Message)
		if why := queue.Refusal(""); errors.As(err, &why) {
			err = daemon.Refuse("%s", why)
		}
		return "", err
	})
}
