package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"packmill/archive"
	"packmill/cmd/internal/control"
	"packmill/cmd/internal/fsck"
	"packmill/cmd/internal/survey"
	"packmill/queue"
	"packmill/spool"
)

// crowds are how many jobs of one architecture wait. For every tenth a source waits too,
// and a job of an older version lies in the attic.
var crowds = []int{100, 10_000, 100_000}

// perCrowd is how many packages each operation is measured with; the middle one counts.
const perCrowd = 41

// A task is something that is done with one package. It must cost the same however many
// others there are. Times has the middle one of each crowd, in seconds.
type task struct {
	name  string
	times []float64
	do    func(c *crowd, i int) (time.Duration, error)
}

// growthFigures measures what is done with one package, among few others and among many,
// and what reads all of them: that is linear, and says its rate.
func growthFigures(b *bench) error {
	tasks := []*task{
		{name: "fan-out", do: (*crowd).fanOut}, // with Supersede, which finds nothing
		{name: "supersede", do: (*crowd).supersede},
		{name: "join", do: (*crowd).join},
		{name: "find", do: (*crowd).find}, // as packmill ls PACKAGE
		{name: "why", do: (*crowd).why},
		{name: "wb", do: (*crowd).wb},
		{name: "standing", do: (*crowd).standing},
		{name: "claim", do: (*crowd).claim},
	}
	whole := &wholes{}
	for _, n := range crowds {
		b.progress("queue: operations on one package among %d", n)
		c, err := newCrowd(filepath.Join(b.dir, fmt.Sprint("crowd", n)), n)
		if err != nil {
			return err
		}
		for _, t := range tasks {
			var times []float64
			for i := range perCrowd {
				took, err := t.do(c, i)
				if err != nil {
					return fmt.Errorf("%s among %d: %w", t.name, n, err)
				}
				times = append(times, took.Seconds())
			}
			t.times = append(t.times, middle(times))
		}
		if err := whole.measure(c); err != nil {
			return err
		}
	}
	last := len(crowds) - 1
	for _, t := range tasks {
		ratio := t.times[last] / t.times[0]
		b.figure(Figure{Name: "queue." + t.name, Value: t.times[last] * 1e6, Unit: "us",
			Versus: fmt.Sprintf("%d waiting, not %d: %.0f us; %d: %.0f us", crowds[0], crowds[last], t.times[0]*1e6,
				crowds[1], t.times[1]*1e6),
			Ratio: ratio, Goal: "ratio <= 1.2", Met: ratio <= 1.2})
	}
	whole.figures(b)
	return nil
}

// crowd is a tree in which many jobs wait.
type crowd struct {
	tree *spool.Tree
	set  *control.Settings
	n    int

	open []*spool.Item // sources that were fanned out, for what comes after that
}

func newCrowd(dir string, n int) (*crowd, error) {
	tree, err := spool.Init(dir)
	if err != nil {
		return nil, err
	}
	c := &crowd{tree: tree, n: n}
	places := []spool.Place{needsBuild, building, spool.In(spool.Master, "sid"), spool.In(spool.Attic),
		spool.In(spool.BuildAttempted, "sid", "amd64")}
	for _, p := range places {
		if err := tree.Ensure(p); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(tree.Path("queue/sid/amd64", spool.LedgerDir), 0o775); err != nil {
		return nil, err
	}
	for i := range n {
		name, err := spool.ParseName(itemName(i))
		if err != nil {
			return nil, err
		}
		err = fill(tree, needsBuild, name, "amd64")
		if i%10 == 0 {
			old := name
			old.Version, old.Arch = "0.9-1", "amd64"
			err = errors.Join(err, fill(tree, places[2], name, ""), fill(tree, places[3], old, "amd64"))
		}
		if err != nil {
			return nil, err
		}
	}
	if err := errors.Join(daemonSettings(tree), tree.LearnNames()); err != nil {
		return nil, err
	}
	c.set, err = control.Load(tree.Path("control"))
	return c, err
}

// fill makes an item as it would lie there, with all that fsck looks at; not synced: the
// queue is old.
func fill(tree *spool.Tree, p spool.Place, n spool.Name, arch string) error {
	dir := tree.Path(p.Dir(), n.String())
	t := &queue.Ticket{Source: n.Source, Version: n.Version, Suite: "sid", Architecture: []string{"any"}, BuildArch: arch}
	line := "2026-01-01T00:00:00Z\tnew\t" + p.Dir() + "\tmaster-buildd\tfan-out\n"
	err := errors.Join(os.Mkdir(dir, 0o755),
		os.WriteFile(filepath.Join(dir, spool.TicketFile), t.Stanza().Append(nil), 0o644),
		os.WriteFile(filepath.Join(dir, spool.HistoryFile), []byte(line), 0o644))
	if arch != "" {
		birth := filepath.Join(dir, "birth")
		err = errors.Join(err, os.WriteFile(birth, nil, 0o644),
			os.Link(birth, tree.Path("queue/sid", arch, spool.LedgerDir, n.Source+"_"+n.Version)))
	}
	return err
}

var benched = queue.Suite{Name: "sid", Architectures: []string{"amd64"}}

func mySource(i int) string { return fmt.Sprintf("mine%d", i) }

// accept fans a version of one of our own sources out, as master-buildd does.
func (c *crowd) accept(i int, version string) (it *spool.Item, took time.Duration, err error) {
	if it, err = acceptedSource(c.tree, mySource(i), version); err != nil {
		return nil, 0, err
	}
	start := time.Now()
	if err := queue.Supersede(c.tree, "sid", it.Name, "bench"); err != nil {
		return nil, 0, err
	}
	v, err := queue.FanOut(c.tree, it, benched, "bench")
	if err == nil {
		err = it.Move(spool.MasterD, "bench", v)
	}
	return it, time.Since(start), err
}

func (c *crowd) fanOut(i int) (time.Duration, error) {
	it, took, err := c.accept(i, "1.0-1")
	if err == nil {
		it.Release()
	}
	return took, err
}

// supersede is the fan-out of a newer version, which sends the older one's job and source
// to the attic.
func (c *crowd) supersede(i int) (time.Duration, error) {
	it, took, err := c.accept(i, "1.0-2")
	c.open = append(c.open, it)
	return took, err
}

// join ends as it would by a builder that tried and failed.
func (c *crowd) join(i int) (time.Duration, error) {
	it := c.open[i]
	defer it.Release()
	name := it.Name.String()
	if err := os.Rename(c.tree.Path(needsBuild.Dir(), name),
		c.tree.Path(spool.In(spool.BuildAttempted, "sid", "amd64").Dir(), name)); err != nil {
		return 0, err
	}
	start := time.Now()
	v, err := queue.Join(c.tree, it, benched)
	if err == nil && v.To.State != spool.Uploaded {
		err = fmt.Errorf("%s", v.Reason)
	}
	if err == nil {
		err = it.Move(spool.MasterD, "bench", v)
	}
	return time.Since(start), err
}

// other is a source that waits for its job, from all over the queue.
func (c *crowd) other(i int) string {
	return spool.SourceOf(itemName(i * c.n / perCrowd / 10 * 10))
}

// job is one of the jobs that wait, another for each i.
func (c *crowd) job(i int) string { return spool.SourceOf(itemName(i * c.n / perCrowd)) }

func (c *crowd) find(i int) (time.Duration, error) {
	start := time.Now()
	found, _, err := (&survey.Filter{Verb: "list", Patterns: []string{c.other(i)}}).Find(c.tree)
	if err == nil && len(found) != 3 {
		err = fmt.Errorf("found %d of %s, want its source, its job and its older version", len(found), c.other(i))
	}
	return time.Since(start), err
}

func (c *crowd) why(i int) (time.Duration, error) {
	start := time.Now()
	_, _, err := survey.Why(c.tree, c.set, c.job(i), "sid")
	return time.Since(start), err
}

func (c *crowd) wb(i int) (time.Duration, error) {
	start := time.Now()
	f, err := queue.Lookup(c.tree, "sid", "amd64", c.job(i))
	if err == nil && f == nil {
		err = fmt.Errorf("no job of %s", c.job(i))
	}
	if err == nil {
		_, err = queue.Ask(c.tree, *f, &queue.Request{Op: queue.Priority, Who: "bench", Signer: true, Number: 10,
			Now: time.Now()})
	}
	return time.Since(start), err
}

func (c *crowd) standing(i int) (time.Duration, error) {
	a, err := archive.Open(c.tree.Path("archive"))
	if err != nil {
		return 0, err
	}
	start := time.Now()
	_, _, err = queue.StandingOf(context.Background(), c.tree, a, "sid",
		&queue.Ticket{Source: c.other(i), Version: "1.0-1", Suite: "sid", BuildArch: "amd64"})
	return time.Since(start), err
}

// claim is what a builder does with a job that it finds in its list, which inotify keeps.
func (c *crowd) claim(i int) (time.Duration, error) {
	f, err := queue.Lookup(c.tree, "sid", "amd64", c.job(i))
	if err != nil || f == nil {
		return 0, fmt.Errorf("no job of %s: %w", c.job(i), err)
	}
	start := time.Now()
	it, err := c.tree.Claim(f.Place, f.Name.String())
	if err != nil {
		return 0, err
	}
	defer it.Release()
	err = it.Move(spool.Buildd, "bench", spool.Verdict{To: building, Reason: "taken"})
	return time.Since(start), err
}

// wholes are the times of what reads all of a tree, for each crowd, in seconds.
type wholes struct {
	status, ls, fsck []float64
	memory           int64 // of fsck among the most
}

func (w *wholes) measure(c *crowd) error {
	start := time.Now()
	if _, err := survey.StatusOf(c.tree, c.set, &survey.Filter{}); err != nil {
		return err
	}
	w.status = append(w.status, time.Since(start).Seconds())
	start = time.Now()
	found, _, err := (&survey.Filter{}).Find(c.tree) // as packmill ls
	if err != nil {
		return err
	}
	for _, f := range found {
		survey.RowOf(c.tree, f)
	}
	w.ls = append(w.ls, time.Since(start).Seconds())
	self, err := os.Executable()
	if err != nil {
		return err
	}
	u, err := measured(nil, "", self, fsckArg, c.tree.Root())
	w.fsck, w.memory = append(w.fsck, u.wall.Seconds()), int64(u.memory)
	return err
}

func (w *wholes) figures(b *bench) {
	last := len(crowds) - 1
	n := float64(crowds[last])
	b.figure(Figure{Name: "queue.status", Value: w.status[last], Unit: "s",
		Versus: fmt.Sprintf("%.0f names a second; %d jobs: %.4f s", 1.2*n/w.status[last], crowds[0], w.status[0]),
		Goal:   "<= 0.1 s", Met: w.status[last] <= 0.1})
	few, many := w.ls[1]/float64(crowds[1]), w.ls[last]/n
	b.figure(Figure{Name: "queue.ls", Value: w.ls[last], Unit: "s",
		Ratio: many / few, Goal: "ratio <= 1.2", Met: many/few <= 1.2,
		Versus: fmt.Sprintf("%.0f items a second; among %d jobs: %.0f", 1.2/many, crowds[1], 1.2/few)})
	b.figure(Figure{Name: "queue.fsck", Value: w.fsck[last], Unit: "s",
		Versus: fmt.Sprintf("%.0f items a second; among %d jobs: %.0f", 1.2*n/w.fsck[last], crowds[1],
			1.2*float64(crowds[1])/w.fsck[1])})
	b.figure(Figure{Name: "queue.fsck.memory", Value: float64(w.memory) / 1e6, Unit: "MB", Goal: "<= 100 MB",
		Met: w.memory <= 100e6})
}

// fsckTree is packmill fsck; what it finds in a tree that was only filled does not count.
func fsckTree(root string) error {
	tree, err := spool.Open(root)
	if err != nil {
		return err
	}
	_, err = fsck.Check(context.Background(), tree, archive.CheckOptions{})
	return err
}
