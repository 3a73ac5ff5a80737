package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"packmill/queue"
	"packmill/spool"
)

// putOut takes out of archive/installed what a person's mv brought there: what was
// not published is not installed, whatever the directory says.
func (p *publisher) putOut() error {
	places, err := p.Tree.Places(spool.Installed)
	if err != nil {
		return err
	}
	var errs []error
	for _, at := range places {
		found, err := p.arrivals.In(at)
		if err != nil {
			return err
		}
		for _, f := range found {
			if !spool.BroughtByHand(p.Tree.Path(f.Dir()), at) {
				continue
			}
			if err := p.putOutOne(f); errors.Is(err, spool.ErrBusy) {
				p.arrivals.Again(at)
			} else if err != nil && !errors.Is(err, spool.ErrGone) {
				errs = append(errs, fmt.Errorf("put %s out: %w", f.Dir(), err))
			}
		}
	}
	return errors.Join(errs...)
}

func (p *publisher) putOutOne(f spool.Found) error {
	at := f.Place
	it, err := p.Tree.Claim(f.Place, f.Name.String())
	if err != nil {
		return err
	}
	defer it.Release()
	events, err := spool.ReadHistory(it.Path())
	if err != nil {
		return err
	}
	t, broken := queue.TicketOf(it)
	job := broken == nil && t.BuildArch != ""
	// What archived files has no packages in it any more: they are in the pool, and
	// were taken out before the move. A history may lack its last line after a
	// power cut, so it alone says nothing. A job that was never built has none either.
	if has, err := holdsPackages(it.Path()); err != nil || !has && (!job || t.Result != "") {
		return err
	}
	filed := func(e spool.Event) bool { return e.To == at.Dir() && e.Who != spool.ByHand }
	if slices.ContainsFunc(events, filed) {
		return nil // it was published, and has come back
	}
	to := spool.In(spool.Rejected)
	if job {
		to = spool.In(spool.BuildAttempted, t.Suite, t.BuildArch)
	}
	return queue.PutRight(it, to, p.Name, "nothing of it was published: only archived files here what it has published")
}

// holdsPackages reports whether an item has files that the pool keeps.
func holdsPackages(dir string) (bool, error) {
	found := false
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && pooled(d.Name()) {
			found = true
			return fs.SkipAll
		}
		return err
	})
	return found, err
}
