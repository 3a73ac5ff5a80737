package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"packmill/internal/durable"
	"packmill/queue"
	"packmill/queue/buildlog"
	"packmill/spool"
	"packmill/spool/incoming"
)

// Timing of the broom.
const (
	sweepEvery = 10 * time.Minute
	// Whoever writes below tmp gives up after a day: what is older than this
	// and not locked is nobody's.
	birthAge = 36 * time.Hour
)

// goneDir below tmp takes what is removed for good: in one rename it leaves
// the attic whole, and a crash leaves the rest for the next time.
const goneDir = "tmp/gone"

// sweep puts away what has had its time: refused uploads, strays, old things
// in the attic, half-written ones of dead processes. Nothing that a person
// sent is removed before it has lain in the attic.
func (in *intake) sweep(ctx context.Context) error {
	if time.Since(in.swept) < sweepEvery {
		return nil
	}
	in.swept = time.Now()
	g := in.Settings.Get().General
	var errs []error
	for _, d := range in.box.Dirs() {
		if ctx.Err() != nil {
			return nil
		}
		d, err := in.box.Hold(d)
		if err != nil {
			continue
		}
		if err := in.sweepStrays(d, g.Strays); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", d, err))
		}
		in.sweepStatus(d, g.Strays)
		d.Close()
	}
	errs = append(errs, in.sweepYes(),
		in.sweepItems(ctx, spool.Rejected, in.keepRejected, func(it *spool.Item) error {
			return it.Move(spool.Reviewd, in.Name, spool.Verdict{To: spool.In(spool.Attic), Reason: "its age in rejected is over"})
		}),
		in.sweepItems(ctx, spool.Attic, in.keepAttic, in.removeItem),
		in.sweepLogs(g.Logs),
		in.sweepTmp(ctx))
	return errors.Join(errs...)
}

// keepAttic is how long what lies in the attic is kept: a job that a person
// cancelled for as long as its version is the suite's, or it would be made again.
func (in *intake) keepAttic(it *spool.Item) time.Duration {
	if t, err := queue.TicketOf(it); err == nil && t.BuildArch != "" && queue.Cancelled(in.Tree, spool.Found{Place: it.Place, Name: it.Name}) {
		standing, _, err := queue.StandingOf(context.Background(), in.Tree, in.archive, t.Suite, t)
		if err != nil || standing == queue.Current || standing == queue.Coming {
			return math.MaxInt64
		}
	}
	return in.Settings.Get().General.Attic
}

// keepRejected is how long a refused upload is kept.
func (in *intake) keepRejected(it *spool.Item) time.Duration {
	s := in.Settings.Get()
	if st, err := it.Ticket(); err == nil {
		if x, ok := s.Suite(st.Get("Distribution")); ok {
			return x.KeepRejected
		}
	}
	var keep time.Duration
	for _, x := range s.Suites {
		keep = max(keep, x.KeepRejected)
	}
	if keep == 0 {
		keep = 30 * 24 * time.Hour
	}
	return keep
}

// sweepItems does something with each item of a state that has lain there for
// as long as keep says.
func (in *intake) sweepItems(ctx context.Context, s spool.State, keep func(*spool.Item) time.Duration, do func(*spool.Item) error) error {
	place := spool.In(s)
	names, err := in.Tree.List(place)
	if err != nil {
		return err
	}
	least := in.Settings.Get().LeastKeep()
	var errs []error
	for _, name := range names {
		if ctx.Err() != nil {
			return nil
		}
		// The name tells the birth, which is older than the move.
		if n, err := spool.ParseName(name); err != nil || time.Since(n.Time) < least {
			continue
		}
		it, err := in.Tree.Claim(place, name)
		if err != nil {
			continue // somebody works on it, or it has gone
		}
		events, err := spool.ReadHistory(it.Path())
		if err == nil && len(events) > 0 && time.Since(events[len(events)-1].Time) >= keep(it) {
			err = do(it)
		}
		it.Release()
		if err != nil && !errors.Is(err, spool.ErrGone) {
			errs = append(errs, fmt.Errorf("sweep %s: %w", filepath.Join(place.Dir(), name), err))
		}
	}
	return errors.Join(errs...)
}

// removeItem takes an item out of the tree, for good.
func (in *intake) removeItem(it *spool.Item) error {
	gone := in.Tree.Path(goneDir)
	if err := durable.MkdirAll(gone, 0o775); err != nil {
		return err
	}
	name := filepath.Base(it.Path())
	if err := durable.Rename(it.Path(), filepath.Join(gone, name)); err != nil {
		return err
	}
	in.Log.Info("removed for good", "item", name, "state", spool.Attic)
	return durable.RemoveAll(filepath.Join(gone, name))
}

// sweepLogs removes old logs of builds.
func (in *intake) sweepLogs(keep time.Duration) error {
	n, err := buildlog.Store{Dir: in.Tree.Path(spool.LogsDir)}.Sweep(time.Now().Add(-keep))
	if n > 0 {
		in.Log.Info("removed old logs of builds", "items", n)
	}
	return err
}

// sweepYes removes reviewers' words for what does not wait for review any more.
func (in *intake) sweepYes() error {
	entries, err := os.ReadDir(in.Tree.Path(spool.YesDir))
	if err != nil || len(entries) == 0 {
		return nil // a tree of an older time has none
	}
	found, err := in.Tree.Find("", spool.Review)
	if err != nil {
		return err
	}
	waits := map[string]bool{}
	for _, f := range found {
		waits[f.Name.String()] = true
	}
	for _, e := range entries {
		i := strings.LastIndexByte(e.Name(), '.')
		if st, err := e.Info(); err == nil && (i < 0 || !waits[e.Name()[:i]]) && time.Since(st.ModTime()) > time.Hour {
			os.Remove(in.Tree.Path(spool.YesDir, e.Name())) // next time, if not now
		}
	}
	return nil
}

// sweepTmp removes births that nobody holds and what removeItem left.
func (in *intake) sweepTmp(ctx context.Context) error {
	var errs []error
	for _, dir := range []string{in.Tree.Path("tmp"), in.Tree.Path(goneDir)} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			if ctx.Err() != nil {
				return nil
			}
			path := filepath.Join(dir, e.Name())
			if path == in.Tree.Path(goneDir) || inUse(path) {
				continue
			}
			if err := durable.RemoveAll(path); err != nil {
				errs = append(errs, err)
				continue
			}
			in.Log.Info("removed a left-over", "item", e.Name(), "state", "tmp")
		}
	}
	return errors.Join(errs...)
}

// inUse reports whether something below tmp may still be somebody's.
func inUse(path string) bool {
	var st unix.Stat_t
	return unix.Lstat(path, &st) != nil || time.Since(incoming.Changed(&st)) < birthAge || durable.Locked(path)
}

// sweepStrays makes one item of all old strays of a drop directory; it goes
// through intake to the attic.
func (in *intake) sweepStrays(d incoming.Dir, keep time.Duration) error {
	var names []string
	for _, s := range in.box.Strays(d) {
		if s.Age >= keep && !in.stuck[filepath.Join(d.Rel, s.Name)] {
			names = append(names, s.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	t := &queue.Ticket{Source: "strays", Version: "0", Suite: "unknown", Account: d.Account, Drop: d.Rel, Received: time.Now().UTC()}
	it, err := in.Tree.Create(spool.In(spool.Intake), spool.NewName(spool.NormalClass, t.Received, t.Source, t.Version),
		spool.Reviewd, in.Name, "strays of "+d.String(), func(dir string) error {
			if err := os.Mkdir(filepath.Join(dir, uploadDir), 0o775); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, spool.TicketFile), t.Stanza().Append(nil), 0o664)
		})
	if err != nil {
		return err
	}
	defer it.Release()
	var errs []error
	for _, n := range names {
		if _, err := durable.MoveAll(in.box.Path(d), it.Path(uploadDir), []string{n}); err != nil {
			// Somebody else's directory cannot be moved: said once.
			in.stuck[filepath.Join(d.Rel, n)] = true
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// sweepStatus removes our own notes to uploaders once they are old.
func (in *intake) sweepStatus(d incoming.Dir, keep time.Duration) {
	for _, n := range in.box.Names(d) {
		if !strings.HasSuffix(n, ".changes"+incoming.StatusSuffix) {
			continue
		}
		path := in.box.Path(d, n)
		info, err := os.Lstat(path)
		if err != nil || !info.Mode().IsRegular() || time.Since(info.ModTime()) < keep {
			continue
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) == os.Geteuid() {
			os.Remove(path) // next time, if not now
		}
	}
}
