package view

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"time"

	"packmill/internal/policy"
	"packmill/queue"
	"packmill/queue/buildlog"
	"packmill/queue/logs"
	"packmill/spool"
)

// ErrNoBuild says that there is no such build, or that nothing may be said of it.
var ErrNoBuild = errors.New("no such build")

// BuildsOf lists the builds that the items of a source tell of, the newest first, those
// that run among them. Where the log lies is not in it: see Log.
func (v *View) BuildsOf(source string) (out []buildlog.Build) {
	for _, f := range v.Package(source) {
		if !f.IsJob() {
			continue
		}
		if b, ok := v.running(f); ok {
			out = append(out, b)
		}
		all, err := buildlog.BuildsAt(v.tree.Path(f.Dir()))
		if err != nil {
			continue // it has moved on
		}
		out = append(out, slices.DeleteFunc(all, func(b buildlog.Build) bool { return v.Hides(b.Suite) })...)
	}
	slices.SortStableFunc(out, func(a, b buildlog.Build) int { return b.Start.Compare(a.Start) })
	return out
}

// running is the build that a job in building has.
func (v *View) running(f spool.Found) (b buildlog.Build, ok bool) {
	if f.Place.State != spool.Building {
		return b, false
	}
	tk, err := queue.TicketAt(v.tree, f)
	if err != nil {
		return b, false
	}
	b = buildlog.Build{Source: tk.Source, Version: tk.Plus(), Suite: f.Place.Suite, Arch: f.Arch(), Builder: tk.Builder,
		Outcome: buildlog.Running}
	b.Start, b.Wait = start(v.tree, f)
	b.Wall = time.Since(b.Start).Seconds()
	return b, true
}

func start(t *spool.Tree, f spool.Found) (time.Time, float64) {
	at, waited := queue.Claimed(t, t.Path(f.Dir()))
	return at, waited.Seconds()
}

// WasGood is the newest version of a source before this one that was built in a suite on an architecture: where
// this one fails, the failure is new. "" says that none was, or that it was too long ago.
func (v *View) WasGood(source, version, suite, arch string) (good string) {
	for _, f := range v.Package(source) {
		is := f.Name.Version
		if f.Arch() != arch || policy.CompareVersions(is, version) >= 0 ||
			good != "" && policy.CompareVersions(is, good) <= 0 {
			continue
		}
		if f.Place.State == spool.Installed && f.Place.Suite == suite {
			good = is
		} else if all, err := buildlog.BuildsAt(v.tree.Path(f.Dir())); err == nil && len(all) > 0 {
			if last := all[len(all)-1]; last.Suite == suite && last.Outcome == buildlog.Good {
				good = is // it waits for a signature, or has made way
			}
		}
	}
	return good
}

// Running is the build of a job in building.
func (v *View) Running(f spool.Found) (buildlog.Build, bool) { return v.running(f) }

// Log finds one build, and its log: of one that runs, or whose log is not in the store
// yet, in its item. Path is "" where the log is there no more.
func (v *View) Log(want buildlog.Build) (*logs.Log, error) {
	if v.Hides(want.Suite) {
		return nil, ErrNoBuild
	}
	is := func(b *buildlog.Build) bool {
		return b.Source == want.Source && b.Version == want.Version && b.Suite == want.Suite && b.Arch == want.Arch &&
			b.Start.UnixMicro() == want.Start.UnixMicro()
	}
	var found *logs.Log
	for _, f := range v.Package(want.Source) {
		if f.Place.Suite != "" && f.Place.Suite != want.Suite || f.Arch() != want.Arch {
			continue
		}
		path := v.tree.Path(f.Dir(), buildlog.LogFile)
		if b, ok := v.running(f); ok && is(&b) {
			return &logs.Log{Build: b, Path: path}, nil
		}
		all, _ := buildlog.BuildsAt(v.tree.Path(f.Dir()))
		for i := range all {
			if is(&all[i]) {
				found = &logs.Log{Build: all[i]}
				if _, err := os.Lstat(path); err == nil && i == len(all)-1 {
					found.Path = path
				}
			}
		}
	}
	store := logs.StoreOf(v.tree)
	day := buildlog.Filter{Source: want.Source, Version: want.Version, Suite: want.Suite, Arch: want.Arch,
		Since: want.Start.Truncate(time.Microsecond), Before: want.Start.Add(time.Microsecond)}
	if found == nil {
		err := store.Builds(day, func(b *buildlog.Build) bool {
			if is(b) {
				found = &logs.Log{Build: *b}
			}
			return found == nil
		})
		if err != nil {
			return nil, err
		}
	}
	kept, err := store.Logs(day)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for i := range kept {
		if is(&kept[i]) {
			if found == nil {
				found = &logs.Log{Build: kept[i]}
			}
			found.Log, found.Path = kept[i].Log, store.Path(kept[i].Log)
		}
	}
	if found == nil {
		return nil, ErrNoBuild
	}
	return found, nil
}
