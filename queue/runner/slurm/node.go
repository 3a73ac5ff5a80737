package slurm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"packmill/internal/durable"
	"packmill/queue/runner"
	"packmill/queue/runner/remote"
)

// taken is what a run says of itself when it takes the job.
type taken struct {
	Node, Job string
	Time      time.Time
}

// goneEvery is how soon a run sees that nobody waits for it.
const goneEvery = 5 * time.Second

// builds builds a job as its order says.
type builds = func(context.Context, *Order, *runner.Job) (*runner.Result, error)

// Node is a job of the cluster, on its node: it builds the job in dir, unless another run has it, and leaves the
// outcome there.
func Node(ctx context.Context, dir string, build builds) error {
	err := take(dir)
	if errors.Is(err, fs.ErrExist) {
		fmt.Fprintln(os.Stderr, "another run of this job has taken it; this one builds nothing")
		return nil
	}
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(dir, remote.LogFile), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer log.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go watch(ctx, dir, cancel)
	var o Order
	var res *runner.Result
	job := &runner.Job{}
	if err = readJSON(filepath.Join(dir, remote.OrderFile), &o); err == nil {
		err = o.check(dir)
	}
	if err == nil {
		job = o.Job(dir, log)
		res, err = build(ctx, &o, job)
	}
	if res != nil && res.Outcome != runner.Good {
		// Slurm signals every process of a job, the build's first as it may be.
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
	out := remote.OutcomeOf(job, res, err)
	if ctx.Err() != nil {
		out = &remote.Outcome{Outcome: runner.GiveBack.String(), Reason: "the build was stopped", Stopped: true}
	}
	text, err := json.Marshal(out)
	if err != nil {
		return err
	}
	if err := durable.SyncTree(filepath.Join(dir, remote.ResultDir)); err != nil && out.Outcome == runner.Good.String() {
		return err
	}
	return durable.WriteFile(filepath.Join(dir, remote.OutcomeFile), text, 0o644)
}

// take makes this run the one that builds the job; fs.ErrExist says that another is.
func take(dir string) error {
	node := os.Getenv("SLURMD_NODENAME")
	if node == "" {
		node, _ = os.Hostname()
	}
	text, err := json.Marshal(taken{node, os.Getenv("SLURM_JOB_ID"), time.Now().UTC()})
	if err != nil {
		return err
	}
	// NFS keeps O_EXCL, and knows no rename that replaces nothing.
	f, err := os.OpenFile(filepath.Join(dir, takenFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Sync(), f.Close())
}

// check refuses an order of another version, and a source that is not what the master sent.
func (o *Order) check(dir string) error {
	if o.Protocol != remote.Newest {
		return fmt.Errorf("the master speaks version %d of the protocol and this node %d: install the same packmill on both",
			o.Protocol, remote.Newest)
	}
	return remote.Sound(filepath.Join(dir, remote.SourceDir), o.Files)
}

// watch ends a run whose directory is gone: the master has given the job back, or somebody cancelled it.
func watch(ctx context.Context, dir string, end func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(goneEvery):
		}
		if _, err := os.Lstat(filepath.Join(dir, takenFile)); errors.Is(err, fs.ErrNotExist) {
			end()
			return
		}
	}
}
