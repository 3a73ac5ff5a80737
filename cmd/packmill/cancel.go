package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"packmill/queue"
	"packmill/spool"
)

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
	o := &order{op: queue.Cancel, packages: []string{x.Package}, archs: x.Arch, suite: x.Suite, message: x.Message, override: x.Override}
	return o.run(c)
}

// patience is how long a builder is given to end a build.
const patience = 30 * time.Second

// askBuilder asks the builder that holds a job to end it, and waits until it
// has. No reply says that the job left building in another way: look again.
func (d *wbRun) askBuilder(f spool.Found) (*queue.Reply, error) {
	reply := &queue.Reply{Role: queue.Other, From: f.Place, To: spool.In(spool.Attic), Name: f.Name}
	dir := d.tree.Path(f.Dir())
	if tk, err := queue.TicketAt(d.tree, f); err == nil {
		reply.Ticket = tk
	}
	if d.c.DryRun {
		return reply, nil
	}
	hold, err := os.Open(dir)
	if err == nil {
		defer hold.Close()
		err = queue.RequestCancel(dir, who(), d.order.message)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if errors.Is(err, fs.ErrPermission) {
		reply.Refusal = "you may not write into it; who works on the build queues is in the groups " + spool.GroupAll + " and " + spool.GroupQueue
		return reply, nil
	}
	if err != nil {
		return nil, err
	}
	// The descriptor follows the item where it goes.
	link := fmt.Sprintf("/proc/self/fd/%d", hold.Fd())
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(25 * time.Millisecond) {
		now, err := os.Readlink(link)
		if err != nil {
			return nil, err
		}
		if now == dir {
			continue
		}
		if filepath.Dir(now) == d.tree.Path(reply.To.Dir()) {
			if n, err := spool.ParseName(filepath.Base(now)); err == nil {
				reply.Name = n
			}
			return reply, nil
		}
		return nil, nil
	}
	reply.Refusal = fmt.Sprintf("its builder was asked to end the build and has not done so in %v; it will when it comes to it, if it still runs: packmill why %s", patience, f.Name.Source)
	return reply, nil
}
