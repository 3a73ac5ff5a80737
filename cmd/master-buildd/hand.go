package main

import (
	"errors"
	"fmt"

	"packmill/queue"
	"packmill/spool"
)

// misfit puts a claimed item right that cannot lie where it does, and reports
// whether it was one.
func (m *master) misfit(it *spool.Item) (bool, error) {
	t, err := queue.TicketOf(it)
	if err != nil {
		return false, nil // whoever serves it says so
	}
	from := it.Place
	to, why := queue.Misfit(m.Tree, spool.Found{Place: it.Place, Name: it.Name}, t)
	if why == "" {
		return false, nil
	}
	if err := queue.PutRight(it, to, m.Name, why); err != nil {
		return false, err
	}
	m.Log.Warn("moved by hand to where it cannot be",
		"item", it.Name.String(), "from", from.Dir(), "to", to.Dir(), "reason", why)
	return true, spool.ErrGone
}

// putRight looks at what has come to the states of jobs, and to rejected, where
// none can be: what a person's mv brought to where it cannot be goes where it can,
// and what waits for a person says why.
func (m *master) putRight() error {
	places, err := m.Tree.Places(append(m.Tree.ArchStates(), spool.Rejected)...)
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range places {
		found, err := m.arrivals.In(p)
		if err != nil {
			return err
		}
		for _, f := range found {
			if err := m.putRightOne(f); errors.Is(err, spool.ErrBusy) {
				m.arrivals.Again(p)
			} else if err != nil && !errors.Is(err, spool.ErrGone) {
				errs = append(errs, fmt.Errorf("%s: %w", f.Dir(), err))
			}
		}
	}
	return errors.Join(errs...)
}

func (m *master) putRightOne(f spool.Found) error {
	dir := m.Tree.Path(f.Dir())
	t, err := queue.TicketAt(m.Tree, f)
	if err != nil {
		return nil // it has moved, or fsck says it
	}
	_, why := queue.Misfit(m.Tree, f, t)
	text, before := f.Place.State.ByHand, spool.ReadReason(dir)
	unnoticed, explained := spool.Unnoticed(dir, f.Place)
	if why == "" && (text == "" || !unnoticed && (before != "" || !spool.BroughtByHand(dir, f.Place))) {
		return nil
	}
	it, err := m.Tree.Claim(f.Place, f.Name.String())
	if err != nil {
		return err
	}
	defer it.Release()
	if why != "" {
		_, err := m.misfit(it)
		return err
	}
	if explained {
		return nil // the claim has written the history's line
	}
	reason := fmt.Appendf(nil, text, it.Name)
	if before != "" {
		reason = append(reason, "Before that:\n"+before...)
	}
	return it.WriteFile(spool.ReasonFile, reason)
}
