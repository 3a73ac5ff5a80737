package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"packmill/queue"
	"packmill/queue/buildlog"
	"packmill/queue/runner"
	"packmill/spool"
)

// lookEvery is how often a running build's item is looked at.
const lookEvery = 200 * time.Millisecond

// watchItem ends a build whose item, held by its lock, somebody moved away by hand, or
// asked its builder to cancel. It returns when ctx ends.
func watchItem(ctx context.Context, held *os.File, dir string, begun time.Time, end func()) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		_, asked := queue.EndRequest(dir, begun)
		if asked || movedAway(held, dir) {
			end()
			return
		}
	}
}

// movedAway reports whether the item that this process holds has left its
// place, or another lies there.
func movedAway(held *os.File, dir string) bool {
	now, err := os.Lstat(dir)
	mine, herr := held.Stat()
	return errors.Is(err, fs.ErrNotExist) || err == nil && herr == nil && !os.SameFile(now, mine)
}

// taken says what becomes of a build that a person ended, whatever it came to:
// a cancelled job goes to the attic, and one that was moved by hand stays where
// the person put it. ended is false of all others.
func (b *builder) taken(it *spool.Item, t *queue.Ticket, res *runner.Result) (v spool.Verdict, ended bool, err error) {
	var usage runner.Usage
	if res != nil {
		usage = res.Usage
	}
	begun, _ := b.claimed(it)
	if e, asked := queue.EndRequest(it.Path(), begun); asked {
		v, err := b.ended(it, t, e, usage)
		return v, true, err
	}
	if !movedAway(it.Lock(), it.Path()) {
		return spool.Verdict{}, false, nil
	}
	now, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", it.Lock().Fd())) // where it is now
	if err != nil {
		return spool.Verdict{}, true, err
	}
	b.Log.Warn("the build was ended: its item was moved away by hand", "item", it.Name.String(), "to", filepath.Dir(now))
	return spool.Verdict{}, true, spool.ErrGone
}

// ended is the verdict on a job whose build somebody asked to end.
func (b *builder) ended(it *spool.Item, t *queue.Ticket, e queue.End, u runner.Usage) (spool.Verdict, error) {
	if e.Hand {
		return b.handOver(it, t, e, u)
	}
	return b.cancelled(it, t, e.Who, e.Text, u), nil
}

// handOver makes the job that of the person who asked for it, as if they had taken
// it: it stays in building, and nobody gives it back.
func (b *builder) handOver(it *spool.Item, t *queue.Ticket, e queue.End, u runner.Usage) (spool.Verdict, error) {
	b.record(it, t, buildlog.Cancelled, "ended by "+e.Who+": "+e.Text, u)
	b.clearAway(it)
	t.Tries, t.Builder, t.TakenBy, t.BuiltBy = 0, e.Who, e.Who, ""
	if err := it.SetTicket(t.Stanza()); err != nil {
		return spool.Verdict{}, err
	}
	reason := "the build was ended for " + e.Who
	return spool.Stay(0, reason), it.Note(b.who(), reason)
}

// clearAway removes what a builder that was away had brought.
func (b *builder) clearAway(it *spool.Item) {
	if err := forgetResult(it); err != nil {
		b.Log.Warn("directory of a build that was ended stays", "item", it.Name.String(), "err", err)
	}
}

// cancelled is the verdict on a job whose build somebody asked to end.
func (b *builder) cancelled(it *spool.Item, t *queue.Ticket, who, text string, u runner.Usage) spool.Verdict {
	reason := "cancelled by " + who
	if text != "" {
		reason += ": " + text
	}
	b.record(it, t, buildlog.Cancelled, reason, u)
	b.clearAway(it)
	t.CancelledBy = who
	if err := it.SetTicket(t.Stanza()); err != nil {
		b.Log.Warn("ticket of a cancelled build", "item", it.Name.String(), "err", err)
	}
	return spool.Verdict{To: spool.In(spool.Attic), Reason: reason, Text: queue.CancelText(it.Place, it.Name, who, text)}
}
