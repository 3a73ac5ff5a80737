// Package logs finds the logs of builds wherever they are: plain in the items
// of jobs, and compressed in the tree's store (queue/buildlog). It lists,
// follows and searches them.
package logs

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"packmill/internal/policy"
	"packmill/queue"
	"packmill/queue/buildlog"
	"packmill/queue/runner"
	"packmill/spool"
)

// outcomes are the words for what came of builds and the outcomes that they
// mean.
var outcomes = map[string][]string{
	"built":            {buildlog.Good},
	"failed":           {buildlog.Attempted, runner.Quarantined.String()},
	"dep-wait":         {runner.DepWait.String()},
	"bd-uninstallable": {runner.Uninstallable.String()},
	"given-back":       {runner.GiveBack.String(), buildlog.Lost},
	"cancelled":        {buildlog.Cancelled},
	"running":          {buildlog.Running},
}

// Words are those that Filter knows for outcomes.
func Words() []string { return slices.Sorted(maps.Keys(outcomes)) }

// Filter is what people mean by a package (hello, hello_2.10-3, an item's whole
// name, or "" for all) and by words for outcomes, each one or several with
// commas.
func Filter(pattern string, words []string) (f buildlog.Filter, err error) {
	if pattern != "" {
		if n, err := spool.ParseName(pattern); err == nil {
			f.Source, f.Version = n.Source, n.Version
		} else {
			f.Source, f.Version, _ = strings.Cut(pattern, "_")
			f.Version = strings.ReplaceAll(f.Version, "%3a", ":")
		}
		if err := policy.CheckSource(f.Source); err != nil {
			return f, err
		}
	}
	for _, list := range words {
		for w := range strings.SplitSeq(list, ",") {
			o, ok := outcomes[w]
			if !ok {
				return f, fmt.Errorf("there is no state %q of builds; there are: %s", w, strings.Join(Words(), ", "))
			}
			f.Outcomes = append(f.Outcomes, o...)
		}
	}
	return f, nil
}

// StoreOf is the tree's store of logs.
func StoreOf(t *spool.Tree) buildlog.Store { return buildlog.Store{Dir: t.Path(spool.LogsDir)} }

// Log is a build whose log lies at Path.
type Log struct {
	buildlog.Build
	Path string `json:"path"`
}

// attempt is what two logs of one attempt have in common.
type attempt struct {
	source, version, suite, arch string
	start                        int64 // microseconds
}

func (l *Log) attempt() attempt {
	return attempt{l.Source, l.Version, l.Suite, l.Arch, l.Start.UnixMicro()}
}

// Plain lists the plain logs in the items of jobs: of those that the filter
// names, wherever they are, or of all that are open.
func Plain(t *spool.Tree, f buildlog.Filter) ([]Log, error) {
	states := t.Are(spool.Jobs | spool.Queued)
	if f.Source != "" {
		states = append(states, spool.Installed, spool.Attic)
	}
	found, err := t.Find(f.Source, states...)
	// Not all states are for everybody; logs are, and the store has them.
	if _, err = spool.Closed(err); err != nil {
		return nil, err
	}
	var out []Log
	for _, x := range found {
		l, ok := logOf(t, x)
		if !ok {
			continue
		}
		if _, err := os.Lstat(l.Path); err == nil && f.Match(&l.Build) {
			out = append(out, l)
		}
	}
	return out, nil
}

// logOf is the plain log of a job. ok is false of what has none.
func logOf(t *spool.Tree, f spool.Found) (l Log, ok bool) {
	if f.Arch() == "" || f.Arch() == spool.SourceArch {
		return l, false
	}
	dir := t.Path(f.Dir())
	l.Path = filepath.Join(dir, buildlog.LogFile)
	if f.Place.State != spool.Building {
		all, err := buildlog.BuildsAt(dir)
		if err != nil || len(all) == 0 {
			return l, false
		}
		l.Build = all[len(all)-1]
		return l, true
	}
	tk, err := queue.TicketAt(t, f)
	if err != nil {
		return l, false // it has moved on
	}
	l.Build = buildlog.Build{Source: tk.Source, Version: tk.Plus(), Suite: f.Place.Suite, Arch: f.Arch(),
		Builder: tk.Builder,
		Outcome: buildlog.Running}
	l.Start, _ = queue.Claimed(t, dir)
	l.Wall = time.Since(l.Start).Seconds()
	return l, true
}

// List lists the logs that the filter means, plain and compressed, the newest
// first. Of a build that has ended the compressed one is taken, which does not
// move.
func List(t *spool.Tree, f buildlog.Filter) ([]Log, error) {
	out, err := Plain(t, f)
	if err != nil {
		return nil, err
	}
	store := StoreOf(t)
	kept, err := store.Logs(f)
	if err != nil {
		return nil, err
	}
	known := map[attempt]int{}
	for i := range out {
		known[out[i].attempt()] = i
	}
	for _, b := range kept {
		l := Log{Build: b, Path: store.Path(b.Log)}
		if i, ok := known[l.attempt()]; ok {
			out[i].Path = l.Path
			continue
		}
		out = append(out, l)
	}
	slices.SortStableFunc(out, func(a, b Log) int { return b.Start.Compare(a.Start) })
	return out, nil
}

// Newest opens the newest of the logs that the filter means, and says how many others there are; nil: there is none.
func Newest(t *spool.Tree, f buildlog.Filter) (l *Log, others int, r io.ReadCloser, err error) {
	for try := 0; ; try++ {
		all, err := List(t, f)
		if err != nil || len(all) == 0 {
			return nil, 0, nil, err
		}
		r, err := buildlog.Open(all[0].Path)
		if errors.Is(err, fs.ErrNotExist) && try < 2 {
			continue // it has just moved on
		}
		return &all[0], len(all) - 1, r, err
	}
}

// Builds lists the builds that the filter means, the newest first, those that
// run among them: also where the log itself is there no more.
func Builds(t *spool.Tree, f buildlog.Filter) ([]buildlog.Build, error) {
	plain, err := Plain(t, f)
	if err != nil {
		return nil, err
	}
	var out []buildlog.Build
	for _, l := range plain {
		if l.Outcome == buildlog.Running {
			out = append(out, l.Build)
		}
	}
	err = StoreOf(t).Builds(f, func(b *buildlog.Build) bool { out = append(out, *b); return true })
	slices.SortStableFunc(out, func(a, b buildlog.Build) int { return b.Start.Compare(a.Start) })
	return out, err
}

// Numbers says in words what a build took.
func Numbers(b *buildlog.Build) string {
	out := []string{b.Outcome}
	seconds := func(what string, s float64) {
		if s > 0 {
			out = append(out, what+" "+(time.Duration(s*1000)*time.Millisecond).Round(100*time.Millisecond).String())
		}
	}
	bytes := func(what string, n int64) {
		if n > 0 {
			out = append(out, what+" "+size(n))
		}
	}
	seconds("wall", b.Wall)
	seconds("cpu", b.CPU)
	bytes("memory", b.Memory)
	bytes("disk", b.Disk)
	if rate := b.CacheRate(); rate != "" {
		out = append(out, "ccache "+rate)
	}
	bytes("log", b.Size)
	seconds("waited", b.Wait)
	return strings.Join(out, ", ")
}

// size is a number of bytes for people: never 0.0 of what is not nothing.
func size(n int64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%d KiB", cmp.Or(n>>10, 1))
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}
