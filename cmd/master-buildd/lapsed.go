package main

import (
	"errors"
	"fmt"
	"time"

	"packmill/queue"
	"packmill/spool"
)

// lapsedFor is how long after its end a lease is left to the build daemons: each that serves the architecture gives
// the job back within a second.
const lapsedFor = time.Minute

// giveBackLapsed gives back what builders on other machines had that are gone for good, where no build daemon is left
// that would. One job that cannot be read stops no other.
func (m *master) giveBackLapsed() error {
	places, err := m.Tree.Places(spool.Building)
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range places {
		names, err := m.Tree.List(p)
		if err != nil {
			errs = append(errs, err)
		}
		for _, name := range names {
			if !lapsed(m.Tree.Path(p.Dir(), name)) {
				continue
			}
			err := m.giveBack(p, name)
			if err != nil && !errors.Is(err, spool.ErrBusy) && !errors.Is(err, spool.ErrGone) {
				errs = append(errs, fmt.Errorf("give back %s: %w", name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// lapsed reports whether the job at dir is a builder's whose lease ended a while ago.
func lapsed(dir string) bool {
	l, err := spool.ReadLease(dir)
	return err == nil && l != nil && time.Since(l.Until()) > lapsedFor
}

func (m *master) giveBack(p spool.Place, name string) error {
	it, err := m.Tree.Claim(p, name)
	if err != nil {
		return err
	}
	defer it.Release()
	t, err := queue.TicketOf(it)
	if err != nil || t.TakenBy != "" || !lapsed(it.Path()) {
		return err
	}
	v := spool.Verdict{To: spool.In(spool.NeedsBuild, p.Suite, p.Arch),
		Reason: fmt.Sprintf("given back: its builder (%s) is gone, and its lease has ended", t.Builder)}
	begun, _ := queue.Claimed(m.Tree, it.Path())
	if e, asked := queue.EndRequest(it.Path(), begun); asked && !e.Hand {
		v = spool.Verdict{To: spool.In(spool.Attic), Reason: "cancelled by " + e.Who + ": " + e.Text,
			Text: queue.CancelText(it.Place, it.Name, e.Who, e.Text)}
		t.CancelledBy = e.Who
		if err := it.SetTicket(t.Stanza()); err != nil {
			return err
		}
	}
	// The lease that stays in it, the next attempt removes.
	if err := it.Move(spool.MasterD, m.Name, v); err != nil {
		return err
	}
	m.Log.Warn("gave back", "item", it.Name.String(), "to", it.Place.Dir(), "reason", v.Reason)
	return nil
}
