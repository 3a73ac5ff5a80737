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
		err = queue.RequestCancel(dir, d.Who, d.Order.Message)
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
		if filepath.Dir(now) == d.Tree.Path(reply.To.Dir()) {
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
