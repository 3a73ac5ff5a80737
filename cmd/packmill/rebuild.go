package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"

	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/rebuild"
	"packmill/cmd/internal/terminal"
)

type rebuildCmd struct {
	Package string `arg:"" help:"hello or hello_2.10-3, as it is published."`
	Check   bool   `help:"Compare with what is published, and publish nothing. Needed: there is no other way yet to rebuild here; packmill wb nmu makes a new binary version."`
	Suite   string `short:"s" help:"Only of this suite." placeholder:"SUITE"`
	Arch    string `short:"a" help:"Only this architecture." placeholder:"ARCH"`
	Builder string `help:"The stanza of control/builders that builds (default: another one than built it, if there is one)." placeholder:"NAME"`
	Keep    string `help:"Keep log and results below this directory, also if all is the same." placeholder:"DIR" type:"path"`
}

func (rebuildCmd) Help() string {
	return `Builds a published package once more, from the source in the pool, in another directory, another locale and time zone and now, and says of each file whether it has the same bits as what was published, by the .buildinfo that is kept. Nothing is published. Run it as the build user, or as root. What differs is kept, with the log; diffoscope shows where. The runner exec does not know of directory and locale.

Exit status: 0 the same, 1 different (or it does not build any more, or nothing fits), 100 wrong use, 111 may pass.

Examples:
  packmill rebuild --check hello
  packmill rebuild --check hello -s stable -a amd64 --json`
}

func (x *rebuildCmd) Run(c *cli) error {
	if !x.Check {
		return daemon.Wrong{Err: errors.New("say --check: the result is compared and never published; " +
			"for a new binary version there is packmill wb nmu")}
	}
	t, err := c.open()
	if err != nil {
		return err
	}
	all, err := c.control()
	if err != nil {
		return err
	}
	ask := &rebuild.Ask{Pattern: x.Package, Suite: x.Suite, Arch: x.Arch, Builder: x.Builder, Keep: x.Keep}
	found, err := ask.Find(t)
	if err != nil {
		return err
	}
	ctx, stop := interruptible()
	defer stop()
	same := true
	for _, f := range found {
		plan, err := ask.Plan(ctx, t, all, f)
		if err != nil {
			return err
		}
		if c.DryRun {
			terminal.Print(os.Stdout, "%s\n", plan)
			continue
		}
		r, err := plan.Do(ctx)
		if err != nil {
			return err
		}
		c.print(os.Stdout, r, r.Text())
		same = same && r.Same
	}
	if !same {
		return daemon.Refuse("not all of it came out the same")
	}
	return nil
}

// interruptible is a context that ends when the person or the system wants the
// program to.
func interruptible() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
}
