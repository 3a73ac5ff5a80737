package logs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"packmill/queue"
	"packmill/queue/buildlog"
	"packmill/spool"
)

// pollEvery is how often a followed build is looked at.
const pollEvery = 100 * time.Millisecond

// Ending is how a build that was followed ended, in the numbers of the
// builders' contract: it is the exit status of who followed it.
type Ending int

// The endings.
const (
	Built     Ending = 0
	Failed    Ending = 2
	Depends   Ending = 3 // it waits for dependencies
	NoVerdict Ending = 4
)

func (e Ending) String() string {
	switch e {
	case Built:
		return "it was built"
	case Failed:
		return "the build failed"
	case Depends:
		return "the build waits for dependencies"
	}
	return "the build ended without a verdict"
}

// EndingOf is the ending that an outcome means.
func EndingOf(outcome string) Ending {
	for word, e := range map[string]Ending{"built": Built, "failed": Failed, "dep-wait": Depends,
		"bd-uninstallable": Depends} {
		if slices.Contains(outcomes[word], outcome) {
			return e
		}
	}
	return NoVerdict
}

// ErrNone says that no build runs, and none waits to.
var ErrNone = errors.New("no build runs, and none waits to")

// SeveralError says that more than one build fits.
type SeveralError struct{ Where []string }

func (e *SeveralError) Error() string { return "several builds: " + strings.Join(e.Where, ", ") }

// Follower prints the log of a build as it comes.
type Follower struct {
	Tree   *spool.Tree
	Filter buildlog.Filter
	Writer func() io.WriteCloser // makes what the log goes to
	Say    func(text string)     // tells the person what is waited for, and what came of it
}

// Follow prints the log of the build that runs, waiting for one that is still
// to begin, until it ends. ErrNone: there is nothing to wait for; a
// *SeveralError: the filter is too wide. The end of the context is no verdict.
func (x *Follower) Follow(ctx context.Context) (Ending, error) {
	said := ""
	for {
		found, err := x.find()
		if err != nil {
			return NoVerdict, err
		}
		switch {
		case len(found) == 0:
			return NoVerdict, ErrNone
		case len(found) > 1:
			e := &SeveralError{}
			for _, o := range found {
				e.Where = append(e.Where, o.Name.ID()+" on "+o.Arch()+" in "+o.Place.Suite)
			}
			return NoVerdict, e
		case found[0].Place.State == spool.Building:
			end, done, err := x.tail(ctx, x.Tree.Path(found[0].Dir()))
			if done || err != nil {
				return end, err
			}
		default:
			if s := fmt.Sprintf("%s waits in %s; packmill why %s says for what",
				found[0].Name.ID(), found[0].Place, found[0].Name.Source); s != said {
				said = s
				x.Say(s)
			}
		}
		select {
		case <-ctx.Done():
			return NoVerdict, nil
		case <-time.After(pollEvery):
		}
	}
}

// find gives the jobs that are meant and build, or if there are none those
// that wait to.
func (x *Follower) find() ([]spool.Found, error) {
	found, err := x.Tree.Find(x.Filter.Source, append(x.Tree.Are(spool.Waits), spool.Building)...)
	if err != nil {
		return nil, err
	}
	found = slices.DeleteFunc(found, func(o spool.Found) bool {
		b := buildlog.Build{Source: o.Name.Source, Version: o.Name.Version, Suite: o.Place.Suite, Arch: o.Arch(),
			Start: time.Now()}
		return !x.Filter.Match(&b)
	})
	runs := func(o spool.Found) bool { return o.Place.State == spool.Building }
	if slices.ContainsFunc(found, runs) {
		found = slices.DeleteFunc(found, func(o spool.Found) bool { return !runs(o) })
	}
	return found, nil
}

// tail prints the log of the build whose item lies at dir until it ends, also
// when the item has moved by then: a descriptor holds it. done is false if the
// build ended before it was seen.
func (x *Follower) tail(ctx context.Context, dir string) (end Ending, done bool, err error) {
	hold, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return NoVerdict, false, nil
	}
	if err != nil {
		return NoVerdict, false, err
	}
	defer hold.Close()
	item := fmt.Sprintf("/proc/self/fd/%d", hold.Fd())
	begun, _ := queue.Claimed(x.Tree, item)
	out := x.Writer()
	err = x.copy(ctx, out, item, begun)
	if err = errors.Join(err, out.Close()); err != nil || ctx.Err() != nil {
		return NoVerdict, true, err
	}
	all, err := buildlog.BuildsAt(item)
	if err != nil {
		return NoVerdict, true, err
	}
	for _, b := range slices.Backward(all) {
		if b.Start.Equal(begun) {
			x.Say(fmt.Sprintf("%s on %s: %s: %s", b.ID(), b.Arch, Numbers(&b), b.Reason))
			return EndingOf(b.Outcome), true, nil
		}
	}
	x.Say("the build was taken away from its builder")
	return NoVerdict, true, nil
}

// copy copies the log of the build that began at a time as it comes,
// until the build ends or the context does.
func (x *Follower) copy(ctx context.Context, out io.Writer, item string, begun time.Time) error {
	var log io.ReadCloser
	defer func() {
		if log != nil {
			log.Close()
		}
	}()
	for {
		// Asked before the log is read: what was written before the end is
		// printed.
		over := x.ended(item, begun)
		if log == nil {
			var err error
			if log, err = current(item, begun, over); err != nil {
				return err
			}
		}
		if log != nil {
			if _, err := io.Copy(out, log); err != nil {
				return err
			}
		}
		if over {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pollEvery):
		}
	}
}

// ended reports whether the build that began at a time has left building.
func (x *Follower) ended(item string, begun time.Time) bool {
	events, _ := spool.ReadHistory(item)
	if len(events) == 0 {
		return true
	}
	p, _ := x.Tree.PlaceOf(events[len(events)-1].To)
	at, _ := queue.Claimed(x.Tree, item)
	return p.State != spool.Building || !at.Equal(begun)
}

// current opens the log of the build that began at a time: nil if it is not
// there yet, and what lies there is an earlier one's. last says that no other
// will come.
func current(item string, begun time.Time, last bool) (io.ReadCloser, error) {
	st, err := os.Lstat(filepath.Join(item, buildlog.LogFile))
	// The clock of files runs some milliseconds behind.
	if errors.Is(err, fs.ErrNotExist) || err == nil && !last && st.ModTime().Before(begun.Add(-50*time.Millisecond)) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r, err := buildlog.Open(filepath.Join(item, buildlog.LogFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return r, err
}
