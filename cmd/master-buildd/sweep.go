package main

import (
	"context"
	"math"
	"time"

	"packmill/archive"
	"packmill/queue"
	"packmill/spool"
)

// atticEvery is how often the attic is looked at.
const atticEvery = 10 * time.Minute

// sweep removes old jobs from the attic. One that a person cancelled stays for as
// long as its version is the suite's, or it would be made again.
func (m *master) sweep(ctx context.Context) error {
	if time.Since(m.swept) < atticEvery {
		return nil
	}
	m.swept = time.Now()
	a, err := archive.Open(m.Tree.Path("archive"))
	if err != nil {
		return err
	}
	all := m.Settings.Get()
	keep := func(it *spool.Item) time.Duration {
		if t, err := queue.TicketOf(it); err == nil && t.BuildArch != "" &&
			queue.Cancelled(m.Tree, spool.Found{Place: it.Place, Name: it.Name}) {
			standing, _, err := queue.StandingOf(ctx, m.Tree, a, t.Suite, t)
			if err != nil || standing == queue.Current || standing == queue.Coming {
				return math.MaxInt64
			}
		}
		return all.General.Attic
	}
	return m.Tree.Sweep(ctx, spool.In(spool.Attic), all.LeastKeep(), spool.Found.IsJob, keep, func(it *spool.Item) error {
		m.Log.Info("removed for good", "item", it.Name.String(), "state", spool.Attic)
		return it.Remove()
	})
}
