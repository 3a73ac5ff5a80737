package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"packmill/cmd/internal/control"
	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/terminal"
	"packmill/cmd/internal/wb"
	"packmill/queue"
	"packmill/spool"
)

// wbCmd is wanna-build's person's command, with wb's own grammar.
type wbCmd struct {
	Words []string `arg:"" optional:"" passthrough:"" name:"words" help:"CMD PKG[_VER]... . ARCH... [. SUITE] [. -m TEXT]"`
}

func (wbCmd) Help() string {
	var b strings.Builder
	b.WriteString(`Operations on build jobs, in the words of Debian's wb:

  CMD PKG[_VERSION]... . ARCH... [. SUITE] [. -m TEXT] [--override] [--changes FILE] [--dry-run] [--json]

CMD is one of
`)
	for _, w := range queue.WordsAt(queue.AtWb) {
		name := w.Name
		if w.Arg != "" {
			name += " -m " + w.Arg
		}
		fmt.Fprintf(&b, "  %-24s %s\n", name, w.What)
	}
	b.WriteString(`
ARCH is an architecture of the suite, all, ANY (every one but all), ALL (with all), or -ARCH to leave one out. SUITE may be missing where there is only one.

Who you are the system says, never an option. What the specification of the operations does not allow is refused with the reason, and exit status 1; --override does what is not usual, and is written into the history.

Examples:
  packmill wb gb hello_2.10-3 . ANY -i386 . sid -m "mirror was down"
  packmill wb dw app . amd64 . sid . -m "libfoo-dev (>= 2)"
  packmill wb nmu libfoo . ANY . sid . -m "Rebuild against libbar 5"`)
	return b.String()
}

func (w *wbCmd) Run(c *cli) error {
	o, err := wb.Parse(w.Words)
	if err != nil {
		return daemon.Wrong{Err: err}
	}
	return c.order(o)
}

type cancelCmd struct {
	Package  string   `arg:"" help:"hello or hello_2.10-3."`
	Arch     []string `arg:"" help:"The architecture; ANY: every one but all, ALL: with all."`
	Suite    string   `short:"s" help:"The suite; may be missing where there is only one." placeholder:"SUITE"`
	Message  string   `short:"m" help:"Why." placeholder:"TEXT"`
	Override bool     `help:"Also what another person builds by hand."`
}

func (cancelCmd) Help() string {
	return `The job goes to the attic, and its source goes on without this architecture. A build that runs is ended first, with everything that it started; its builder does that within seconds, also where it is another user. What is in the archive, or on its way there, is refused with the reason (exit status 1).

Examples:
  packmill cancel hello amd64 -m "the wrong branch"
  packmill cancel hello_2.10-3 ANY -s sid --dry-run`
}

func (x *cancelCmd) Run(c *cli) error {
	return c.order(&wb.Order{Op: queue.Cancel, Packages: []string{x.Package}, Archs: x.Arch, Suite: x.Suite, Message: x.Message, Override: x.Override})
}

// order does an order and prints what became of it.
func (c *cli) order(o *wb.Order) error {
	c.JSON, c.DryRun = c.JSON || o.JSON, c.DryRun || o.Dry
	t, err := c.open()
	if err != nil {
		return err
	}
	all, err := c.control()
	if err != nil {
		return err
	}
	s, err := theSuite(all, o.Suite)
	if err != nil {
		return daemon.Wrong{Err: err}
	}
	r := &wb.Run{Tree: t, Settings: all, Suite: s, Order: o, Who: terminal.Who(), Now: time.Now().UTC(), Dry: c.DryRun}
	refused := false
	err = r.Do(func(l *wb.Line) {
		if o.Op == queue.Info && l.Found != nil && l.Refusal == "" && !c.JSON {
			info(t, *l.Found)
		}
		c.tell(l)
		refused = refused || l.Refusal != ""
	})
	if err == nil && refused {
		err = daemon.ErrRefused
	}
	return err
}

// tell prints what became of an operation.
func (c *cli) tell(l *wb.Line) {
	out := os.Stdout
	if l.Refusal != "" && !c.JSON {
		out = os.Stderr
	}
	c.print(out, l, terminal.Clean(l.Text()))
}

// info prints what is known of a job.
func info(t *spool.Tree, f spool.Found) {
	tk, err := queue.TicketAt(t, f)
	if err != nil {
		return // it has moved on, and the line says where to
	}
	fmt.Printf("%s\n", f.Dir())
	for line := range strings.Lines(string(tk.Stanza().Append(nil)) + spool.ReadReason(t.Path(f.Dir()))) {
		fmt.Printf("  %s\n", terminal.Clean(line))
	}
}

// theSuite is the one that is named, or the only one.
func theSuite(all *control.Settings, name string) (*control.Suite, error) {
	if name == "" && len(all.Suites) == 1 {
		return &all.Suites[0], nil
	}
	if s, ok := all.Suite(name); ok && name != "" {
		return s, nil
	}
	var names []string
	for _, s := range all.Suites {
		names = append(names, s.Name)
	}
	if name == "" {
		return nil, fmt.Errorf("in which suite? name one after a second point: %s", strings.Join(names, " "))
	}
	return nil, fmt.Errorf("there is no suite %q; there are: %s", name, strings.Join(names, " "))
}
