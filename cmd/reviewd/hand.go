package main

import (
	"errors"
	"fmt"

	"packmill/queue"
	"packmill/spool"
)

// handMoved looks at what has come to the states that wait for a person: what a
// person's mv brought to where it cannot be is refused, and what was refused by
// mv says so.
func (in *intake) handMoved() error {
	places, err := in.Tree.Places(spool.Review, spool.Rejected)
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range places {
		found, err := in.hands.In(p)
		if err != nil {
			return err
		}
		for _, f := range found {
			if err := in.handMovedOne(f); errors.Is(err, spool.ErrBusy) {
				in.hands.Again(p)
			} else if err != nil && !errors.Is(err, spool.ErrGone) {
				errs = append(errs, fmt.Errorf("%s: %w", f.Dir(), err))
			}
		}
	}
	return errors.Join(errs...)
}

func (in *intake) handMovedOne(f spool.Found) error {
	dir := in.Tree.Path(f.Dir())
	t, err := queue.TicketAt(in.Tree, f)
	if err != nil {
		return nil // it has moved, or fsck says it
	}
	why := ""
	if f.Place.State == spool.Review {
		_, why = queue.Misfit(in.Tree, f, t)
	}
	if why == "" && (f.Place.State != spool.Rejected || spool.ReadReason(dir) != "" ||
		!spool.BroughtByHand(dir, f.Place)) {
		return nil
	}
	it, err := in.Tree.Claim(f.Place, f.Name.String())
	if err != nil {
		return err
	}
	defer it.Release()
	if why != "" {
		return queue.PutRight(it, spool.In(spool.Rejected), in.Name, why)
	}
	return it.WriteFile(spool.ReasonFile,
		fmt.Appendf(nil, "It was refused by hand (mv), without a word why.\nTo have it judged again: packmill requeue %s\n",
			it.Name))
}
