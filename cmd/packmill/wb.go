package main

import (
	"fmt"
	"os"
	"strings"

	"packmill/cmd/internal/control"
	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/terminal"
	"packmill/cmd/internal/wb"
	"packmill/queue"
)

// wbCmd is wanna-build's person's command, with wb's own grammar.
type wbCmd struct {
	Words []string `arg:"" optional:"" passthrough:"" name:"words" help:"CMD PKG[_VER]... . ARCH... [. SUITE] [. -m TEXT]"`
}

func (wbCmd) Help() string {
	var b strings.Builder
	b.WriteString(`Operations on build jobs, in the words of Debian's wb:

  CMD PKG[_VERSION]... . ARCH... [. SUITE...] [. -m TEXT] [--extra-depends LIST] [--override] [--changes FILE] [--dry-run] [--json]
  --file FILE   the same, an order a line (- is standard input): all of them, or none if one cannot be read

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
ARCH is an architecture of the suite, all, ANY (every one but all), ALL (with all), or -ARCH to leave one out. SUITE may be missing where there is only one, and there may be several.

With --extra-depends the job also needs these packages to be built; a binNMU waits in bd-uninstallable until they can be installed, and so a whole transition can be asked for at once. A binNMU over one that waits takes its place. All architectures of one number bear one time, also those that are asked for later. An order on a running build needs --override, which ends the build first (cancel does so in any case).

Who you are the system says, never an option. What the specification of the operations does not allow is refused with the reason, and exit status 1; --override does what is not usual, and is written into the history.

Examples:
  packmill wb gb hello_2.10-3 . ANY -i386 . sid -m "mirror was down"
  packmill wb dw app . amd64 . sid . -m "libfoo-dev (>= 2)"
  packmill wb nmu libfoo . ANY . sid . -m "Rebuild against libbar 5"
  packmill wb nmu 5 app tool . ANY . stable . -m "rebuild" --extra-depends "libfoo (>= 2)"
  packmill wb profiles gcc . arm64 . sid . -m stage1        breaks a ring; wb nmu rebuilds it whole when that is over`)
	return b.String()
}

func (w *wbCmd) Run(c *cli) error {
	if len(w.Words) > 0 && w.Words[0] == "--file" {
		return w.file(c)
	}
	o, err := wb.Parse(w.Words)
	if err != nil {
		return daemon.Wrong{Err: err}
	}
	return c.order("name one after a second point", o)
}

// file does the orders of a file, none of them if one cannot be read.
func (w *wbCmd) file(c *cli) error {
	orders, err := wb.ReadFile(w.Words[1:])
	if err != nil {
		return daemon.Wrong{Err: err}
	}
	return c.order("name one after a second point", orders...)
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
	return c.order("name one with -s",
		&wb.Order{Op: queue.Cancel, Packages: []string{x.Package}, Archs: x.Arch, Suites: suites(x.Suite),
			Message: x.Message, Override: x.Override})
}

// suites is a list of one, or of none.
func suites(name string) []string {
	if name == "" {
		return nil
	}
	return []string{name}
}

// order does orders and prints what became of each. All are made at one time: the
// binNMUs of a transition bear the same. how says where a suite is named.
func (c *cli) order(how string, orders ...*wb.Order) error {
	t, err := c.open()
	if err != nil {
		return err
	}
	all, err := c.control()
	if err != nil {
		return err
	}
	for _, o := range orders {
		c.JSON, c.DryRun = c.JSON || o.JSON, c.DryRun || o.Dry
	}
	runs, err := wb.Runs(t, all, how, orders)
	if err != nil {
		return err
	}
	refused := false
	for _, r := range runs {
		r.Who, r.Dry = terminal.Who(), c.DryRun
		err := r.Do(func(l *wb.Line) {
			if r.Order.Op == queue.Info && l.Found != nil && l.Refusal == "" && !c.JSON {
				terminal.Print(os.Stdout, "%s", wb.Info(t, *l.Found))
			}
			c.tell(l)
			refused = refused || l.Refusal != ""
		})
		if err != nil {
			return err
		}
	}
	if refused {
		return daemon.ErrRefused
	}
	return nil
}

// tell prints what became of an operation.
func (c *cli) tell(l *wb.Line) {
	out := os.Stdout
	if l.Refusal != "" && !c.JSON {
		out = os.Stderr
	}
	c.print(out, l, terminal.Clean(l.Text()))
}

// theSuite is the one that is named, or the only one. how says where to name it.
func theSuite(all *control.Settings, name, how string) (*control.Suite, error) {
	s, err := all.TheSuite(name, how)
	if err != nil {
		return nil, daemon.Wrong{Err: err}
	}
	return s, nil
}
