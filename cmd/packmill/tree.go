package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"packmill/cmd/internal/control"
	"packmill/cmd/internal/daemon"
	"packmill/internal/durable"
	"packmill/queue"
	"packmill/queue/builders"
	"packmill/queue/buildlog"
	"packmill/spool"
	"packmill/spool/incoming"
	"packmill/spool/upload"
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

// who is the person, as the system knows by the uid: never an option, and never
// what the environment says of a user, or a history could be made to lie. Only
// root, who may lie anyway, is taken for who called sudo.
func who() string {
	if u, err := user.LookupId(strconv.Itoa(os.Getuid())); err == nil {
		if sudo := os.Getenv("SUDO_USER"); u.Uid == "0" && sudo != "" {
			return sudo + " (sudo)"
		}
		return u.Username
	}
	return fmt.Sprintf("uid %d", os.Getuid())
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

// table is aligned output for people.
func table() *tabwriter.Writer { return tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0) }

// age says how long ago a time was, in one unit.
func age(t time.Time) string {
	switch d := time.Since(t); {
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(0, int(d.Seconds())))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
}

// row is an item as lists show it.
type row struct {
	Item    string    `json:"item"`
	State   string    `json:"state"`
	Suite   string    `json:"suite,omitempty"`
	Arch    string    `json:"arch,omitempty"`
	Source  string    `json:"source"`
	Version string    `json:"version"`
	Dir     string    `json:"dir"`
	Since   time.Time `json:"since"`
	Who     string    `json:"who,omitempty"`    // who moved it there
	Reason  string    `json:"reason,omitempty"` // of the last move

	// Of a job in needs-build.
	Ahead    int     `json:"ahead,omitempty"`      // jobs that are built before it
	Estimate float64 `json:"estimate_s,omitempty"` // how long the build may take
}

// waits says how long jobs that wait for a builder may take, and how many are
// before each.
type waits struct {
	tree   *spool.Tree
	source string // only this one is asked about; "": any
	times  *buildlog.Times
	queues map[spool.Place][]string
}

// of estimates one job.
func (w *waits) of(f spool.Found) (e buildlog.Estimate, known bool, ahead int, err error) {
	if w.times == nil {
		w.queues = map[spool.Place][]string{}
		if w.times, err = coldStore(w.tree).Times(w.source); err != nil {
			return e, false, 0, err
		}
	}
	names, ok := w.queues[f.Place]
	if !ok && f.Place.State == spool.NeedsBuild {
		if names, err = w.tree.List(f.Place); err != nil {
			return e, false, 0, err
		}
		w.queues[f.Place] = names
	}
	ahead, _ = slices.BinarySearch(names, f.Name.String())
	e, known = w.times.Of(f.Name.Source, f.Place.Suite, f.Arch())
	return e, known, ahead, nil
}

// tell adds the estimate to a row, and to its reason in words: "about 4 min, 3
// before it".
func (w *waits) tell(f spool.Found, r *row) error {
	e, known, ahead, err := w.of(f)
	if err != nil {
		return err
	}
	var words []string
	if known {
		r.Estimate = e.Took.Seconds()
		words = append(words, e.String())
	}
	if r.Ahead = ahead; ahead > 0 {
		words = append(words, fmt.Sprintf("%d before it", ahead))
	}
	if len(words) > 0 {
		r.Reason = strings.TrimPrefix(r.Reason+"; "+strings.Join(words, ", "), "; ")
	}
	return nil
}

// rowOf reads what a list shows of an item. An item that has moved on since it
// was found has only its name.
func rowOf(t *spool.Tree, f spool.Found) row {
	r := row{
		Item: f.Name.String(), State: f.Place.State.Name, Suite: f.Place.Suite, Arch: f.Arch(),
		Source: f.Name.Source, Version: f.Name.Version, Dir: f.Dir(), Since: f.Name.Time,
	}
	if events, err := spool.ReadHistory(t.Path(f.Dir())); err == nil && len(events) > 0 {
		last := events[len(events)-1]
		r.Since, r.Who, r.Reason = last.Time, last.Who, last.Reason
	}
	return r
}

type initCmd struct {
	Users   bool `help:"Give the tree to the daemons' own accounts (root only; the accounts must exist)."`
	Archive bool `help:"Only what packmill archive needs: an archive to be kept by hand, without daemons."`
}

func (initCmd) Help() string {
	return `Makes the tree at --tree with example settings in control, which say what to fill in. What is there already stays.

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
	t, err := spool.Init(c.Tree)
	if err != nil {
		return err
	}
	made, err := writeExamples(t.Root(), control.Files)
	if err != nil {
		return err
	}
	if i.Users {
		if err := t.SetRights(); err != nil {
			return daemon.Wrong{Err: err}
		}
	}
	fmt.Printf("The tree is %s\n", t.Root())
	for _, f := range made {
		fmt.Printf("Fill in: %s\n", f)
	}
	return nil
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
	w := table()
	if !c.JSON {
		fmt.Fprintln(w, "ITEMS\tSTATE\tSUITE\tARCH\tOLDEST")
	}
	type line struct {
		State  string     `json:"state"`
		Suite  string     `json:"suite,omitempty"`
		Arch   string     `json:"arch,omitempty"`
		Dir    string     `json:"dir,omitempty"` // of what is no item yet
		Items  int        `json:"items"`
		Oldest *time.Time `json:"oldest,omitempty"`
		Work   float64    `json:"estimate_s,omitempty"` // of all builds that wait here
		Reason string     `json:"reason,omitempty"`     // of the state "full"
	}
	if set, err := c.control(); err == nil {
		if err := set.General.Room(t.Root(), 0); err != nil {
			c.print(os.Stdout, line{State: "full", Reason: err.Error()}, "Nothing new is begun. "+err.Error())
		}
	}
	box := &incoming.Box{Tree: t}
	drops := 0
	for _, d := range box.Dirs() {
		uploads := 0
		for _, n := range box.Names(d) {
			if incoming.IsChanges(n) || incoming.Misnamed(n) || upload.IsCommands(n) {
				uploads++
			}
		}
		strays := box.Strays(d)
		if uploads > 0 {
			c.print(w, line{State: "incoming", Dir: d.String(), Items: uploads}, fmt.Sprintf("%d\tincoming (unfinished or deferred)\t\t\t\t%s", uploads, d))
		}
		if len(strays) > 0 {
			oldest := strays[0]
			for _, s := range strays {
				if s.Age > oldest.Age {
					oldest = s
				}
			}
			since := time.Now().Add(-oldest.Age)
			c.print(w, line{State: "stray", Dir: d.String(), Items: len(strays), Oldest: &since},
				fmt.Sprintf("%d\tstray files, in no .changes\t\t\t%s\t%s", len(strays), age(since), d))
		}
		drops += uploads + len(strays)
	}
	wait := &waits{tree: t}
	// Installed has a directory for each letter; people want one line.
	var lines []line
	index := map[string]int{}
	places, err := t.Places()
	if err != nil {
		return err
	}
	for _, p := range places {
		names, err := t.List(p)
		if err != nil {
			return err
		}
		if len(names) == 0 {
			continue
		}
		key := p.State.Name + "/" + p.Suite + "/" + p.Arch
		i, ok := index[key]
		if !ok {
			i = len(lines)
			index[key] = i
			lines = append(lines, line{State: p.State.Name, Suite: p.Suite, Arch: p.Arch})
		}
		lines[i].Items += len(names)
		if p.State == spool.NeedsBuild {
			for _, name := range names {
				n, err := spool.ParseName(name)
				if err != nil {
					continue
				}
				e, known, _, err := wait.of(spool.Found{Place: p, Name: n})
				if err != nil {
					return err
				}
				if known {
					lines[i].Work += e.Took.Seconds()
				}
			}
		}
		if n, err := spool.ParseName(names[0]); err == nil && (lines[i].Oldest == nil || n.Time.Before(*lines[i].Oldest)) {
			lines[i].Oldest = &n.Time
		}
	}
	for _, l := range lines {
		oldest := ""
		if l.Oldest != nil {
			oldest = age(*l.Oldest)
		}
		work := ""
		if l.Work > 0 {
			work = "\tabout " + buildlog.Span(time.Duration(l.Work*float64(time.Second))) + " of builds"
		}
		c.print(w, l, fmt.Sprintf("%d\t%s\t%s\t%s\t%s%s", l.Items, l.State, l.Suite, l.Arch, oldest, work))
	}
	daemons, err := builders.Read(t.Path(spool.BuildersDir))
	if err != nil {
		return err
	}
	for _, d := range daemons {
		if d.Refuses != "" && !c.JSON {
			fmt.Fprintf(w, "\t%s takes nothing now: %s\n", clean(d.Daemon), clean(d.Refuses))
		}
		for _, arch := range slices.Sorted(maps.Keys(d.Lacks)) {
			if !c.JSON {
				fmt.Fprintf(w, "\t%s takes nothing for %s: %s\n", clean(d.Daemon), clean(arch), clean(d.Lacks[arch]))
			}
		}
	}
	if len(lines) == 0 && drops == 0 && !c.JSON {
		fmt.Fprintln(w, "nothing is anywhere")
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
	found, err := t.Find(l.Item, states...)
	if err != nil {
		return err
	}
	if len(found) == 0 && l.Item != "" {
		return fmt.Errorf("%w: nothing here is called %s", errRefused, spool.OneLine(l.Item))
	}
	w := table()
	if !c.JSON {
		fmt.Fprintln(w, "STATE\tSUITE\tARCH\tITEM\tSINCE\tWHY")
	}
	wait := &waits{tree: t}
	if l.Item != "" && len(found) > 0 {
		wait.source = found[0].Name.Source
	}
	for _, f := range found {
		r := rowOf(t, f)
		if f.Place.State == spool.NeedsBuild {
			if err := wait.tell(f, &r); err != nil {
				return err
			}
		}
		c.print(w, r, fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s", r.State, r.Suite, r.Arch, r.Item, age(r.Since), r.Reason))
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
	found, err := t.Find(s.Item)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return fmt.Errorf("%w: nothing here is called %s", errRefused, spool.OneLine(s.Item))
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
				row
				History    []spool.Event    `json:"history"`
				Text       string           `json:"text,omitempty"`
				FirstError string           `json:"first_error,omitempty"`
				Builds     []buildlog.Build `json:"builds,omitempty"`
				Buildinfo  []string         `json:"buildinfo,omitempty"`
			}{rowOf(t, f), events, spool.Waiting(dir), buildlog.ErrorAt(dir), builds, infos}, "")
			continue
		}
		fmt.Printf("%s\n", f.Dir())
		if st, err := spool.ReadTicket(dir); err == nil {
			for line := range strings.Lines(string(st.Append(nil))) {
				fmt.Printf("  %s\n", clean(line))
			}
		}
		fmt.Println()
		for _, e := range events {
			fmt.Printf("  %s  %s -> %s  by %s  %s\n", e.Time.Format(time.RFC3339), clean(e.From), clean(e.To), clean(e.Who), clean(e.Reason))
		}
		for _, b := range builds {
			fmt.Printf("  %s  build on %s: %s\n", b.Start.Format(time.RFC3339), clean(b.Builder), clean(numbers(&b)))
		}
		for _, name := range infos {
			fmt.Printf("  built with: %s\n", clean(name))
		}
		text := spool.Waiting(dir)
		// REASON has the first error while a person is asked.
		if first := buildlog.ErrorAt(dir); !strings.Contains(text, first) {
			text += "\n" + first
		}
		if text = strings.TrimSpace(text); text != "" {
			fmt.Println()
			for line := range strings.Lines(text) {
				fmt.Printf("  %s\n", clean(line))
			}
		}
		fmt.Println()
	}
	return nil
}

// clean makes a line from outside fit for a terminal.
func clean(line string) string { return strings.TrimRight(spool.OneLine(line), " ") }

// only is true of these states.
func only(states ...spool.State) func(spool.State) bool {
	return func(s spool.State) bool { return slices.Contains(states, s) }
}

// act claims each item that the patterns name in the given states and calls do
// on it. A pattern that names nothing, or something in more than one place, is
// refused before anything is done.
func (c *cli) act(patterns []string, states func(spool.State) bool, what string, do func(*spool.Tree, *spool.Item) error) error {
	t, err := c.open()
	if err != nil {
		return err
	}
	var all []spool.Found
	for _, p := range patterns {
		found, err := t.Find(p, t.Where(states)...)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return c.absent(t, p, what)
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
		return errRefused
	}
	return nil
}

func (c *cli) actOn(t *spool.Tree, f spool.Found, do func(*spool.Tree, *spool.Item) error) error {
	var it *spool.Item
	var err error
	for range 20 { // a mover lets go of it in milliseconds
		if it, err = t.Claim(f.Place, f.Name.String()); !errors.Is(err, spool.ErrBusy) {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err != nil {
		return err
	}
	defer it.Release()
	from := it.Place
	if err := do(t, it); err != nil {
		return err
	}
	if it.Place != from {
		c.print(os.Stdout, rowOf(t, spool.Found{Place: it.Place, Name: it.Name}), fmt.Sprintf("%s: %s -> %s", it.Name, from, it.Place))
	}
	return nil
}

// absent says where the thing is instead, if it is anywhere.
func (c *cli) absent(t *spool.Tree, pattern, what string) error {
	found, err := t.Find(pattern)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return fmt.Errorf("%w: nothing here is called %s", errRefused, spool.OneLine(pattern))
	}
	var where []string
	for _, f := range found {
		if p := f.Place.String(); !slices.Contains(where, p) {
			where = append(where, p)
		}
	}
	return fmt.Errorf("%w: %s cannot be %sed where it is: %s", errRefused, spool.OneLine(pattern), strings.TrimSuffix(what, "e"), strings.Join(where, ", "))
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
	return c.act(r.Items, again, "requeue", func(t *spool.Tree, it *spool.Item) error {
		if it.Place.State.Is(spool.Jobs) {
			// Who had it, and how often it was tried, is over.
			reply, err := queue.AskOf(it, &queue.Request{Op: queue.GiveBack, Override: true, Who: who(), Message: r.Message, Now: time.Now()})
			if err == nil && reply.Refusal != "" {
				err = fmt.Errorf("%w: %s", errRefused, reply.Refusal)
			}
			return err
		}
		to := it.Place
		to.State = it.Place.State.Requeue
		replan := it.Place.State == spool.Master
		err := it.Move(spool.Person, who(), spool.Verdict{To: to, Reason: r.Message})
		if err == nil && replan {
			// Nobody takes it before the lock drops. A source without a
			// plan in the master queue would be stuck there.
			err = queue.Replan(it)
		}
		return err
	})
}
