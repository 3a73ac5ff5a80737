package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

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

// published says why what was in the archive cannot wait for review: its files are in the pool.
func published(events []spool.Event) string {
	if slices.ContainsFunc(events, func(e spool.Event) bool {
		return strings.HasPrefix(e.To, "archive/installed/") && e.Who != spool.ByHand
	}) {
		return "it was published, and its files are in the archive; packmill archive copy brings it to another suite"
	}
	return ""
}

func (in *intake) handMovedOne(f spool.Found) error {
	dir := in.Tree.Path(f.Dir())
	events, err := spool.ReadHistory(dir)
	noticed := slices.ContainsFunc(events, func(e spool.Event) bool { return e.Who == spool.ByHand })
	if unnoticed, _ := spool.Unnoticed(dir, f.Place); err == nil && !noticed && !unnoticed {
		return nil // a daemon or a command moved it
	}
	t, err := queue.TicketAt(in.Tree, f)
	if err != nil {
		return nil // it has moved, or fsck says it
	}
	why := ""
	if f.Place.State == spool.Review {
		if _, why = queue.Misfit(in.Tree, f, t); why == "" {
			why = published(events)
		}
	}
	// A job in rejected master-buildd puts right.
	if why == "" && (f.Place.State != spool.Rejected || t.BuildArch != "" || spool.ReadReason(dir) != "" ||
		!spool.BroughtByHand(dir, f.Place)) {
		return nil
	}
	it, err := in.Tree.Claim(f.Place, f.Name.String())
	if err != nil {
		return err
	}
	defer it.Release()
	if it.Foreign() {
		in.Log.Error(spool.ForeignItem, "item", it.Name.String(), "state", it.Place.State, "suite", it.Place.Suite, "reason", why)
		return nil
	}
	if why != "" {
		return queue.PutRight(it, spool.In(spool.Rejected), in.Name, why)
	}
	return it.WriteFile(spool.ReasonFile,
		fmt.Appendf(nil, "It was refused by hand (mv), without a word why.\nTo have it judged again: packmill requeue %s\n",
			it.Name))
}
