package wb

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

// patience is how long a builder is given to end a build.
const patience = 30 * time.Second

// handOver asks the builder that holds a job to end its build and let the person
// have it; then what the person asks for is done. No reply says so: look again.
func (d *Run) handOver(f spool.Found) (*queue.Reply, error) {
	reply := &queue.Reply{Role: queue.Other, From: f.Place, To: f.Place, Name: f.Name}
	tk, err := queue.TicketAt(d.Tree, f)
	if err != nil {
		return nil, nil
	}
	reply.Ticket = tk
	builder := tk.Builder
	if builder == "" {
		builder = "a builder"
	}
	switch {
	case d.Order.Op == queue.Priority || d.Order.Op == queue.Options || d.Order.Op == queue.Profiles ||
		d.Order.Op == queue.ExtraDepends || d.Order.Op == queue.ExtraConflicts:
		reply.Refusal = builder +
			" builds it at this moment, so that changes nothing; end the build first: packmill wb gb --override"
		return reply, nil
	case !d.Order.Override:
		reply.Refusal = builder + " builds it at this moment; --override ends the build and does it"
		return reply, nil
	case d.Dry:
		reply.Role, reply.Warning = queue.Override, "the running build is ended"
		return reply, nil
	}
	dir := d.Tree.Path(f.Dir())
	if err := queue.RequestEnd(dir,
		queue.End{Who: d.Who, Text: string(d.Order.Op) + " " + d.Order.Message, Hand: true}); errors.Is(err,
		fs.ErrPermission) {
		reply.Refusal = queue.NoRight(err)
		return reply, nil
	} else if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(25 * time.Millisecond) {
		now, err := queue.TicketAt(d.Tree, f)
		if err != nil || now.TakenBy == d.Who {
			return nil, nil // it is ours, or has left in another way
		}
	}
	reply.Refusal = fmt.Sprintf("its builder was asked to end the build and has not done so in %v; "+
		"it will when it comes to it, if it still runs: packmill why %s", patience, f.Name.Source)
	return reply, nil
}

// askBuilder asks the builder that holds a job to end it, and waits until it
// has. No reply says that the job left building in another way: look again.
func (d *Run) askBuilder(f spool.Found) (*queue.Reply, error) {
	reply := &queue.Reply{Role: queue.Other, From: f.Place, To: spool.In(spool.Attic), Name: f.Name}
	dir := d.Tree.Path(f.Dir())
	if tk, err := queue.TicketAt(d.Tree, f); err == nil {
		reply.Ticket = tk
	}
	if d.Dry {
		return reply, nil
	}
	hold, err := os.Open(dir)
	if err == nil {
		defer hold.Close()
		err = queue.RequestEnd(dir, queue.End{Who: d.Who, Text: d.Order.Message})
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if errors.Is(err, fs.ErrPermission) {
		reply.Refusal = "you may not write into it; who works on the build queues is in the groups " + spool.GroupAll +
			" and " + spool.GroupQueue
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
		if filepath.Dir(now) == d.Tree.Path(reply.To.Dir()) {
			if n, err := spool.ParseName(filepath.Base(now)); err == nil {
				reply.Name = n
			}
			return reply, nil
		}
		return nil, nil
	}
	reply.Refusal = fmt.Sprintf("its builder was asked to end the build and has not done so in %v; "+
		"it will when it comes to it, if it still runs: packmill why %s", patience, f.Name.Source)
	return reply, nil
}
