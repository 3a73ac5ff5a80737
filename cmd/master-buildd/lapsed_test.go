package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"packmill/queue"
	"packmill/spool"
)

// TestLapsed: a job whose builder on another machine is gone for good comes back though no build daemon runs; one that
// is somebody's stays.
func TestLapsed(t *testing.T) {
	const span = time.Hour
	for name, c := range map[string]struct {
		ago    time.Duration // since the builder was heard
		by     string        // who took it by hand
		cancel bool
		locked bool
		want   spool.State
	}{
		"gone":      {ago: 2 * span, want: spool.NeedsBuild},
		"holds":     {ago: span / 2, want: spool.Building},
		"just-now":  {ago: span + lapsedFor/2, want: spool.Building},
		"locked":    {ago: 2 * span, locked: true, want: spool.Building},
		"by-hand":   {ago: 2 * span, by: "anna", want: spool.Building},
		"cancelled": {ago: 2 * span, cancel: true, want: spool.Attic},
	} {
		t.Run(name, func(t *testing.T) {
			m := newTestMaster(t)
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			tk := queue.Ticket{Source: "hello", Version: "1", Suite: "sid", BuildArch: "amd64", Builder: "buildd/far",
				TakenBy: c.by}
			it, err := m.Tree.Create(spool.In(spool.NeedsBuild, "sid", "amd64"),
				spool.NewName(spool.NormalClass, time.Now(), "hello", "1"), spool.MasterD, "test", "made",
				func(dir string) error {
					return os.WriteFile(filepath.Join(dir, spool.TicketFile), tk.Stanza().Append(nil), 0o664)
				})
			must(err)
			must(it.Move(spool.Buildd, "buildd/far", spool.Verdict{To: spool.In(spool.Building, "sid", "amd64")}))
			must(spool.NewLease("far", span).Write(it.Path()))
			then := time.Now().Add(-c.ago)
			must(os.Chtimes(filepath.Join(it.Path(), spool.LeaseFile), then, then))
			if c.cancel {
				must(queue.RequestEnd(it.Path(), queue.End{Who: "anna", Text: "enough"}))
			}
			if !c.locked {
				it.Release()
			}
			must(m.giveBackLapsed())
			if c.locked {
				it.Release()
			}
			found, err := m.Tree.Find("hello")
			must(err)
			if len(found) != 1 || found[0].Place.State != c.want {
				t.Errorf("got %v, want one in %s", found, c.want)
			}
		})
	}
}
