package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/user"
	"strings"
	"time"

	"packmill/archive"
	"packmill/cmd/internal/control"
	"packmill/internal/trouble"
	"packmill/queue"
	"packmill/queue/runner"
	"packmill/queue/runner/slurm"
	"packmill/spool"
)

// cluster is where this builder's jobs go, or nil: they are built here, or by a builder that has called.
func (b *builder) cluster() (*slurm.Cluster, *control.Builder, error) {
	x, err := b.stanza()
	if err != nil || !x.Clustered() {
		return nil, nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.clusterOf != x { // the settings are new
		c, err := x.Cluster()
		if err != nil {
			return nil, nil, err
		}
		b.slurm, b.clusterOf = c, x
	}
	return b.slurm, x, nil
}

// master is this tree among those that may share the directory.
func (b *builder) master() string {
	host, _ := os.Hostname()
	return host + ":" + b.Tree.Root()
}

// tendEvery is between two looks for jobs of the cluster that nobody waits for.
const tendEvery = time.Minute

// tend goes on with the jobs of the cluster that an earlier process submitted, and ends those that nobody waits for.
func (b *builder) tend(ctx context.Context) {
	c, x, err := b.cluster()
	if c == nil || err != nil || ctx.Err() != nil {
		return
	}
	if err := b.adopt(ctx, x); err != nil {
		b.Log.Error("jobs of the cluster", "err", err)
	}
	if time.Since(b.tended) < tendEvery {
		return
	}
	b.tended = time.Now()
	err = c.Sweep(b.master(), func(item, token string) bool {
		l, err := spool.ReadLease(item)
		return err != nil && !errors.Is(err, fs.ErrNotExist) || l != nil && l.Token == token
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		b.Log.Warn("jobs of the cluster that nobody waits for", "err", err)
	}
}

// adopt takes over the jobs that this builder's stanza has in the cluster, and no process follows. How long none did
// makes no difference, as long as nobody has given them back.
func (b *builder) adopt(ctx context.Context, x *control.Builder) error {
	places, err := b.places(spool.Building)()
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range places {
		names, err := b.Tree.List(p)
		errs = append(errs, err)
		for _, name := range names {
			if l := spool.Leased(b.Tree.Path(p.Dir(), name), time.Time{}); l == nil || l.Builder != x.Name {
				continue
			}
			it, err := b.Tree.Claim(p, name)
			if errors.Is(err, spool.ErrBusy) || errors.Is(err, spool.ErrGone) {
				continue
			}
			if err != nil {
				errs = append(errs, err)
				continue
			}
			l := spool.Leased(it.Path(), time.Time{})
			begun, _ := b.claimed(it)
			if _, asked := queue.EndRequest(it.Path(), begun); asked || l == nil || l.Builder != x.Name {
				it.Release() // giveBack says what becomes of it
				continue
			}
			b.wait.Go(func() {
				defer it.Release()
				b.running.Add(1)
				defer b.running.Add(-1)
				if err := b.goOn(ctx, it, l); err != nil {
					b.Log.Error("a job of the cluster", "item", it.Name.String(), "err", err)
				}
			})
		}
	}
	return errors.Join(errs...)
}

// oncePatience is how long a run with --once waits for a cluster or a disk that does not answer.
const oncePatience = 10 * time.Second

// clustered is the runner of an attempt in the cluster. The lease is on disk before Slurm hears of the job; ctx ends
// with this process.
func (a *attempt) clustered(ctx context.Context, c *slurm.Cluster, job *runner.Job) (*slurm.Build, error) {
	resumed := a.lease != nil
	if a.lease == nil {
		fmt.Fprintf(job.Log, "Packmill: Slurm has the job; its log follows when a node has begun it\n")
		st, err := job.Log.Stat()
		if err != nil {
			return nil, err
		}
		a.lease = spool.NewLease(a.x.Name, a.x.Lease)
		a.lease.LogStart, a.lease.Begun = st.Size(), true
		if err := a.lease.Write(a.it.Path()); err != nil {
			return nil, err
		}
	}
	options := a.x.SlurmOf(job.Suite, job.Arch, job.Source)
	inside, err := a.x.Inside(options)
	if err != nil {
		return nil, err
	}
	var said trouble.Said
	held, dir, l := a.it.Lock(), a.it.Path(), a.lease
	patience := time.Duration(0)
	if a.Once {
		patience = oncePatience // the next run of cron goes on
	}
	note := func(err error) {
		if err != nil && !movedAway(held, dir) {
			a.Log.Error("a lease cannot be renewed", "item", a.it.Name.String(), "err", err)
		}
	}
	return &slurm.Build{Cluster: c, Options: options, Token: l.Token, Master: a.master(), Item: dir, Builder: inside,
		Archive:  cmp.Or(a.x.Archive, a.Tree.Path("archive")),
		LogStart: l.LogStart, Resumed: resumed, Since: a.t.Begun, Leave: ctx.Done(), Room: a.RoomFor, Patience: patience,
		Heard: func() { note(l.Renew(dir)) },
		Says: func(text string) {
			if text != l.Says {
				l.Says = text
				note(l.Write(dir))
			}
		},
		Trouble: func(err error) {
			if said.Fresh("slurm", err) {
				a.Log.Warn("the cluster", "item", a.it.Name.String(), "err", err)
			}
		},
	}, nil
}

// leaves is what becomes of a job in the cluster when this process ends.
func (a *attempt) leaves() (spool.Verdict, error) {
	reason := "this process ends and the job goes on in Slurm; the next one finds it again"
	return spool.Stay(0, reason), a.it.Note(a.who(), reason)
}

// node is buildd --node: a job of the cluster, on its node. It knows no tree.
func node(ctx context.Context) error {
	if u, err := user.Current(); err == nil && os.Getenv("HOME") == "" {
		os.Setenv("HOME", u.HomeDir) // where the node's own chroots are
	}
	return slurm.Node(ctx, cli.Node, buildInside)
}

// buildInside builds the master's job as its builder's stanza says of the nodes.
func buildInside(ctx context.Context, o *slurm.Order, job *runner.Job) (*runner.Result, error) {
	x, cpus, err := control.BuilderInside(o.Builder)
	if err != nil {
		return nil, err
	}
	r, err := x.NewRunner()
	if err != nil {
		return nil, err
	}
	if err := r.Ready(job.On); err != nil {
		return nil, err
	}
	repos := job.Repos
	x.Fit(job, func(on, dir string) (paths []string, err error) {
		for _, r := range repos {
			more, err := indexes(ctx, r, on, dir)
			if err != nil {
				return nil, err
			}
			paths = append(paths, more...)
		}
		return paths, nil
	})
	job.Parallel = cpus
	return r.Run(ctx, job)
}

// indexes are the Packages files of a repository that the node sees as a directory, or fetches into dir.
func indexes(ctx context.Context, r runner.Repo, on, dir string) (paths []string, err error) {
	if r.URI == "" {
		a, err := archive.Open(r.Dir)
		if err != nil {
			return nil, err
		}
		files, err := a.IndexFiles(r.Suite, on)
		for _, f := range files {
			paths = append(paths, f.Path)
		}
		return paths, err
	}
	get := func(ctx context.Context, path string, to io.Writer) error {
		return fetchURL(ctx, strings.TrimSuffix(r.URI, "/")+"/"+path, to)
	}
	for _, component := range r.Components {
		path, err := index(ctx, fmt.Sprintf("dists/%s/%s/binary-%s/Packages", r.Suite, component, on), dir, get)
		if err != nil {
			return nil, err
		}
		if path != "" {
			paths = append(paths, path)
		}
	}
	return paths, nil
}

// fetchURL fetches a file from a web server; fs.ErrNotExist says that it has none.
func fetchURL(ctx context.Context, url string, to io.Writer) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		_, err = io.Copy(to, resp.Body)
		return err
	case http.StatusNotFound:
		return fmt.Errorf("%s: %w", url, fs.ErrNotExist)
	}
	return fmt.Errorf("%s: %s", url, resp.Status)
}
