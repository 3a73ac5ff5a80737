package main

import (
	"context"
	"errors"
	"fmt"
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

// sweep puts away what has had its time: refused uploads, strays, old things
// in the attic, half-written ones of dead processes. Nothing that a person
// sent is removed before it has lain in the attic.
func (in *intake) sweep(ctx context.Context) error {
	if time.Since(in.swept) < sweepEvery {
		return nil
	}
	in.swept = time.Now()
	g, least := in.Settings.Get().General, in.Settings.Get().LeastKeep()
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
		in.Tree.Sweep(ctx, spool.In(spool.Rejected), least, isUpload, in.keepRejected, func(it *spool.Item) error {
			return it.Move(spool.Reviewd, in.Name,
				spool.Verdict{To: spool.In(spool.Attic), Reason: "its age in rejected is over"})
		}),
		in.Tree.Sweep(ctx, spool.In(spool.Attic), least, isUpload, func(*spool.Item) time.Duration { return g.Attic },
			func(it *spool.Item) error {
				in.Log.Info("removed for good", "item", it.Name.String(), "state", spool.Attic)
				return it.Remove()
			}),
		in.sweepLogs(g.Logs),
		in.sweepTmp(ctx))
	return errors.Join(errs...)
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

// isUpload reports whether what lies in the attic is an upload: jobs are master-buildd's.
func isUpload(f spool.Found) bool { return !f.IsJob() }

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

// sweepTmp removes births that nobody holds and what Item.Remove left.
func (in *intake) sweepTmp(ctx context.Context) error {
	var errs []error
	for _, dir := range []string{in.Tree.Path("tmp"), in.Tree.Path(spool.GoneDir)} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			if ctx.Err() != nil {
				return nil
			}
			path := filepath.Join(dir, e.Name())
			if path == in.Tree.Path(spool.GoneDir) || inUse(path) {
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
	t := &queue.Ticket{Source: "strays", Version: "0", Suite: "unknown", Account: d.Account, Drop: d.Rel,
		Received: time.Now().UTC()}
	it, err := in.Tree.Create(spool.In(spool.Intake), spool.NewName(spool.NormalClass, t.Received, t.Source, t.Version),
		spool.Reviewd, in.Name, "strays of "+d.String(), func(dir string) error {
			if err := os.Mkdir(filepath.Join(dir, uploadDir), 0o775); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, spool.TicketFile), t.Stanza().Append(nil), 0o644)
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

// sweepStatus removes our own notes to uploaders once they have lain there for so long: their mtime is that of what they
// tell of, which may have been days before.
func (in *intake) sweepStatus(d incoming.Dir, keep time.Duration) {
	for _, n := range in.box.Names(d) {
		if !strings.HasSuffix(n, ".changes"+incoming.StatusSuffix) {
			continue
		}
		path := in.box.Path(d, n)
		info, err := os.Lstat(path)
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if ok && int(st.Uid) == os.Geteuid() && time.Since(time.Unix(st.Ctim.Unix())) >= keep {
			os.Remove(path) // next time, if not now
		}
	}
}
