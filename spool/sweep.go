package spool

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"packmill/internal/durable"
)

// GoneDir below tmp takes what is removed for good: in one rename it leaves its
// state whole, and a crash leaves the rest for the next time.
const GoneDir = "tmp/gone"

// Sweep does something with each item of a place that mine means and that has lain
// there for as long as keep says, which is at least least. Who sweeps is who may
// write in the item.
func (t *Tree) Sweep(
	ctx context.Context, p Place, least time.Duration,
	mine func(Found) bool, keep func(*Item) time.Duration, do func(*Item) error,
) error {
	names, err := t.List(p)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		if ctx.Err() != nil {
			return nil
		}
		// The name tells the birth, which is older than the move.
		n, err := ParseName(name)
		if err != nil || time.Since(n.Time) < least || !mine(Found{p, n}) {
			continue
		}
		it, err := t.Claim(p, name)
		if err != nil {
			continue // somebody works on it, or it has gone
		}
		events, err := ReadHistory(it.At())
		if err == nil && len(events) > 0 && time.Since(events[len(events)-1].Time) >= keep(it) {
			err = do(it)
		}
		it.Release()
		if err != nil && !errors.Is(err, ErrGone) {
			errs = append(errs, fmt.Errorf("sweep %s: %w", filepath.Join(p.Dir(), name), err))
		}
	}
	return errors.Join(errs...)
}

// Remove takes the item out of the tree, for good.
func (it *Item) Remove() error {
	gone := it.tree.Path(GoneDir)
	if err := durable.MkdirAll(gone, 0o775); err != nil {
		return err
	}
	to := filepath.Join(gone, it.Name.String())
	if err := durable.Rename(it.Path(), to); err != nil {
		return err
	}
	return durable.RemoveAll(to)
}
