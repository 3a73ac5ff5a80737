package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"packmill/internal/durable"
	"packmill/queue/runner"
)

// Build is one job at a Peer: a runner.Runner whose Run may be called again in the next session.
type Build struct {
	*Peer
	Token string

	// LogStart is where the builder's log begins in the job's: what is behind it came from there.
	LogStart int64
	// Begun says that the builder has the job, so that one without it has lost it; Begin notes that.
	Begun bool
	Begin func() error
	// Since is when the attempt began, in whichever session: the limit of time counts from there.
	Since time.Time
	// Heard is called now and then, as long as the builder answers.
	Heard func()
	// Room, if set, says why there is no room for so many bytes.
	Room func(bytes int64) error
	// Signed, if set, gets the .changes of a good build, signed with the builder's own key.
	Signed func(text string)
}

// ErrLost says that nothing is to come of the job: the package has no part in that.
var ErrLost = errors.New("the builder has lost the job: it was started again, or somebody took it away there")

// errFlood and errLate end a build at the master.
var (
	errFlood = errors.New("the builder sends more log than the limit allows")
	errLate  = errors.New("the builder does not keep the limit of time")
)

// grace is what a builder has beyond the limit of time, which it keeps itself: for fetching and
// sending.
func grace(wall time.Duration) time.Duration { return wall/4 + time.Hour }

// left is for how long the builder may go on. One that was away beyond its time has a while to say that it has built
// the job: that may have been long ago.
func (b *Build) left(wall time.Duration, now time.Time) time.Duration {
	if wall <= 0 {
		return math.MaxInt64
	}
	return max(b.Since.Add(wall+grace(wall)).Sub(now), answerWithin)
}

// Run builds the job there. ErrAway says that the session ended first.
func (b *Build) Run(ctx context.Context, job *runner.Job) (*runner.Result, error) {
	if b.Since.IsZero() {
		b.Since = time.Now()
	}
	if b.Begun && !b.Has(b.Token) {
		return nil, ErrLost
	}
	if err := b.give(ctx, job); err != nil {
		return nil, b.away(ctx, err)
	}
	work, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late := time.AfterFunc(b.left(job.Limits.Wall, time.Now()), func() { cancel(errLate) })
	defer late.Stop()
	more := func() {
		if late.Stop() && job.Limits.Wall > 0 {
			late.Reset(grace(job.Limits.Wall))
		}
	}
	go b.heartbeat(work, b.Peer, cancel)
	var out Outcome
	var logged int64
	g, both := errgroup.WithContext(work)
	g.Go(func() error { return b.again(both, func() error { return b.followLog(both, job, &logged) }) })
	g.Go(func() error {
		err := b.again(both, func() error { return b.s.ask(both, "GET", b.path("outcome"), MaxOrder, nil, &out) })
		if err == nil {
			more() // for the rest of the log, and the results
		}
		return err
	})
	err := g.Wait()
	if err == nil {
		err = b.again(work, func() error {
			err := b.results(work, job, &out)
			if errors.Is(err, errRoom) {
				more()
			}
			return err
		})
	}
	if cause := context.Cause(work); cause != nil && err != nil {
		err = cause
	}
	res, err := b.judge(ctx, job, &out, err)
	if res != nil {
		res.Usage = out.Usage(b.Since, logged)
	}
	return res, err
}

func (b *Build) path(what string) string { return "/1/jobs/" + b.Token + "/" + what }

// give hands the job out, which it may have been already.
func (b *Build) give(ctx context.Context, job *runner.Job) error {
	if !b.Begun {
		for _, dir := range []string{job.Dir, job.Result} {
			if err := errors.Join(durable.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
				return err
			}
		}
	}
	src := filepath.Dir(job.Dsc)
	files, err := sumsOf(src)
	if err != nil {
		return err
	}
	b.mu.Lock()
	b.jobs[b.Token] = &given{src, files}
	b.mu.Unlock()
	if b.Begun {
		return nil
	}
	o := orderOf(job, files)
	if err := b.again(ctx, func() error { return b.s.soon("PUT", "/1/jobs/"+b.Token, 0, o, nil) }); err != nil {
		return err
	}
	b.Begun = true
	return b.Begin()
}

// again tries until it works, the builder says no, or the session or ctx ends.
func (b *Build) again(ctx context.Context, try func() error) error {
	for {
		err := try()
		switch {
		case err == nil, final(err), ctx.Err() != nil:
			return err
		case b.over(ctx):
			return ErrAway
		}
	}
}

// final tells what another try, or another session, would not change.
func final(err error) bool {
	var s *status
	return errors.As(err, &s) || errors.Is(err, errFlood) || errors.Is(err, errLate) || errors.Is(err, errSum) ||
		errors.Is(err, errTake)
}

// away is err, or ErrAway where that is the reason.
func (b *Build) away(ctx context.Context, err error) error {
	if ctx.Err() == nil && b.over(ctx) {
		return ErrAway
	}
	return err
}

// heartbeat asks now and then how the build is: a builder may answer the line and have forgotten the job. It may outlive
// Run for a while, and has nothing to do with the next session.
func (b *Build) heartbeat(ctx context.Context, p *Peer, end func(error)) {
	for miss := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(keepAlive):
		}
		err := p.s.soon("GET", "/1/jobs/"+b.Token, maxText, nil, nil)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			miss = 0
			b.Heard()
		case isStatus(err, http.StatusNotFound):
			end(ErrLost)
			return
		default:
			if miss++; miss > 1 {
				p.Close()
				return
			}
		}
	}
}

// followLog appends what the builder has of the log behind what came already.
func (b *Build) followLog(ctx context.Context, job *runner.Job, have *int64) error {
	st, err := job.Log.Stat()
	if err != nil {
		return err
	}
	*have = st.Size() - b.LogStart
	a, err := b.s.do(ctx, "GET", b.path("log"), nil, "Range", fmt.Sprintf("bytes=%d-", *have))
	if err != nil {
		return err
	}
	defer a.Body.Close()
	most := MaxLog(job.Limits)
	n, err := io.Copy(job.Log, io.LimitReader(a.Body, most-*have+1))
	if *have += n; err == nil && *have > most {
		return errFlood
	}
	return err
}

// errTake says that the results are none that anybody should keep.
var errTake = errors.New("the builder's results are not taken")

// errRoom is this machine's trouble: the results wait at the builder until there is room.
var errRoom = errors.New("no room for the results")

// results fetches what a good build made, into the job's result directory.
func (b *Build) results(ctx context.Context, job *runner.Job, out *Outcome) error {
	if out.Outcome != runner.Good.String() {
		return nil
	}
	most := job.Limits.Disk
	if most <= 0 {
		most = MaxResult
	}
	if err := CheckSums(out.Files, most); err != nil {
		return fmt.Errorf("%w: %w", errTake, err)
	}
	// What an earlier session has fetched has lain where others write.
	missing := slices.DeleteFunc(slices.Clone(out.Files), func(f Sum) bool {
		have, err := sumOf(filepath.Join(job.Result, f.Name))
		return err == nil && have == f
	})
	var bytes int64
	for _, f := range missing {
		bytes += f.Size
	}
	if b.Room != nil {
		if err := b.Room(bytes); err != nil {
			return fmt.Errorf("%w: %w", errRoom, err)
		}
	}
	for _, f := range missing {
		if err := b.s.fetch(ctx, b.path("result/"+f.Name), job.Dir, f); err != nil {
			return err
		}
		if err := durable.Replace(filepath.Join(job.Dir, f.Name), filepath.Join(job.Result, f.Name)); err != nil {
			return err
		}
	}
	return nil
}

// judge makes the master's result of the builder's, or of what went wrong on the way.
func (b *Build) judge(ctx context.Context, job *runner.Job, out *Outcome, err error) (*runner.Result, error) {
	switch {
	case ctx.Err() != nil:
		b.s.soon("DELETE", "/1/jobs/"+b.Token, 0, nil, nil)
		return &runner.Result{Reason: "the build was stopped", Stopped: true, Exit: -1}, nil
	case errors.Is(err, ErrAway):
		return nil, ErrAway
	case errors.Is(err, ErrLost), isStatus(err, http.StatusNotFound):
		return nil, ErrLost
	case err != nil:
		if !final(err) && b.away(ctx, err) == ErrAway {
			return nil, ErrAway
		}
		b.s.soon("DELETE", "/1/jobs/"+b.Token, 0, nil, nil)
		return &runner.Result{Reason: Clip(err.Error()), Exit: -1}, nil
	case out.Outcome == "" && out.Setup:
		return nil, fmt.Errorf("on %s: %s: %w", Clip(b.Hello.Host), Clip(out.Reason), runner.ErrSetup)
	case out.Outcome == "":
		return nil, fmt.Errorf("on %s: %s", Clip(b.Hello.Host), Clip(out.Reason))
	}
	res := out.Believe(job)
	if res.Outcome == runner.Good && out.Signed != "" && b.Signed != nil {
		b.Signed(out.Signed)
	}
	return res, nil
}
