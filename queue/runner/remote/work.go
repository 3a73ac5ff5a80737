package remote

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"packmill/internal/durable"
	"packmill/queue/runner"
)

// The names in a job's directory.
const (
	OrderFile   = "order"
	SourceDir   = "source"
	LogFile     = "log"
	WorkDir     = "work"
	ResultDir   = "result"
	OutcomeFile = "outcome"
)

// keepSources is how long the file of a source stays after it was used.
const keepSources = 14 * 24 * time.Hour

// valid refuses an order that no master sends.
func (b *Builder) valid(token string, o *Order) error {
	if raw, err := hex.DecodeString(token); err != nil || len(raw) != 16 {
		return errors.New("a job's token is 32 hexadecimal digits")
	}
	if len(b.jobs) >= maxTokens {
		return errors.New("too many jobs")
	}
	if !slices.ContainsFunc(o.Files, func(f Sum) bool { return f.Name == o.Dsc }) {
		return fmt.Errorf("the .dsc %q is none of the files", o.Dsc)
	}
	return CheckSums(o.Files, MaxResult)
}

// run takes a job from its order to its outcome.
func (b *Builder) run(ctx context.Context, j *job, o *Order) {
	defer close(j.done)
	res, job, err := b.build(ctx, j, o)
	if b.ctx.Err() != nil && (err != nil || res.Stopped) {
		// This builder ends: the job has no outcome, and the master hears that it is lost.
		if err := durable.RemoveAll(j.dir); err != nil {
			b.Log.Warn("a job's directory stays", "item", j.token, "err", err)
		}
		return
	}
	out := b.outcome(job, res, err)
	text, err := json.Marshal(out)
	if err == nil {
		err = durable.WriteFile(filepath.Join(j.dir, OutcomeFile), text, 0o644)
	}
	if err != nil && ctx.Err() == nil {
		b.Log.Error("the outcome of a job cannot be kept", "item", j.token, "err", err)
	}
	for _, dir := range []string{WorkDir, SourceDir} {
		if err := durable.RemoveAll(filepath.Join(j.dir, dir)); err != nil {
			b.Log.Warn("a directory of a job stays", "item", j.token, "err", err)
		}
	}
	if err := b.tidySources(); err != nil {
		b.Log.Warn("old sources stay", "err", err)
	}
}

func (b *Builder) build(ctx context.Context, j *job, o *Order) (*runner.Result, *runner.Job, error) {
	log, err := os.OpenFile(filepath.Join(j.dir, LogFile), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return nil, nil, err
	}
	defer log.Close()
	if err := b.fetchSource(ctx, j, o); err != nil {
		return nil, nil, fmt.Errorf("fetch the source: %w", err)
	}
	job := o.Job(j.dir, log)
	res, err := b.Build(ctx, o, job)
	return res, job, err
}

// fetchSource brings the files of the source that are not here already.
func (b *Builder) fetchSource(ctx context.Context, j *job, o *Order) error {
	store := filepath.Join(b.Dir, "sources")
	for _, f := range o.Files {
		kept := filepath.Join(store, f.SHA256)
		if err := b.keep(ctx, "/1/jobs/"+j.token+"/source/"+f.Name, kept, f); err != nil {
			return err
		}
		if err := durable.LinkOrCopy(kept, filepath.Join(j.dir, SourceDir, f.Name), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// keep brings one file to kept, for all jobs that want it just now.
func (b *Builder) keep(ctx context.Context, path, kept string, f Sum) error {
	for {
		_, err, _ := b.fetching.Do(f.SHA256, func() (any, error) { return nil, b.keepAlone(ctx, path, kept, f) })
		if !errors.Is(err, context.Canceled) || ctx.Err() != nil {
			return err
		}
		// The job that fetched it for this one was dropped.
	}
}

func (b *Builder) keepAlone(ctx context.Context, path, kept string, f Sum) error {
	// First, so that tidySources does not take it meanwhile.
	now := time.Now()
	if err := os.Chtimes(kept, now, now); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// It is looked at again: a build of an earlier job may have had it by another name.
	if sum, err := sumOf(kept); err == nil && sum.Size == f.Size && sum.SHA256 == f.SHA256 {
		return nil
	}
	if err := durable.Remove(kept); err != nil {
		return err
	}
	return b.fetchFile(ctx, path, filepath.Dir(kept), Sum{f.SHA256, f.Size, f.SHA256})
}

// fetchFile fetches over as many sessions as it takes. What this machine's disk refuses is the job's end here: another
// builder may have room.
func (b *Builder) fetchFile(ctx context.Context, path, dir string, f Sum) error {
	for {
		s, err := b.master(ctx)
		if err != nil {
			return err
		}
		err = s.fetch(ctx, path, dir, f)
		var no *status
		if err == nil || errors.Is(err, errSum) || errors.Is(err, errHere) || ctx.Err() != nil ||
			errors.As(err, &no) && no.code != http.StatusNotFound {
			return err
		}
		// Not found: this session's master has not handed the job out yet. Anything else: the session ends.
		wait := 50 * time.Millisecond
		if no == nil {
			wait = time.Second
		}
		select {
		case <-ctx.Done():
		case <-s.CloseChan():
		case <-time.After(wait):
		}
	}
}

// outcome is what the master hears.
func (b *Builder) outcome(job *runner.Job, res *runner.Result, err error) *Outcome {
	out := OutcomeOf(job, res, err)
	if out.Outcome == runner.Good.String() && b.Sign != nil {
		signed, err := b.Sign(res.Text)
		if err != nil {
			return &Outcome{Reason: Clip(err.Error())}
		}
		out.Signed = string(signed)
	}
	return out
}

// tidySources removes what no job has used for long.
func (b *Builder) tidySources() error {
	dir := filepath.Join(b.Dir, "sources")
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range files {
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > keepSources {
			if err := durable.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
