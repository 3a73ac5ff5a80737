package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"packmill/queue"
	"packmill/spool"
)

// jobFigures measures the fan-out of an accepted source into one architecture's
// queue (what older versions have open is looked for, too) and its join, in
// queues where few jobs wait and where many do.
func jobFigures(b *bench) error {
	const few, many, sources = 10, 10000, 40
	rate := map[string]map[int]float64{"fan-out": {}, "join": {}}
	for _, waiting := range []int{few, many} {
		b.progress("queue: fan-out and join with %d jobs waiting", waiting)
		dir := filepath.Join(b.dir, fmt.Sprint("jobs", waiting))
		out, join, err := jobTimes(dir, waiting, sources)
		if err != nil {
			return err
		}
		rate["fan-out"][waiting], rate["join"][waiting] = 1/out, 1/join
	}
	raw, err := rawMoves(filepath.Join(b.dir, "raw"), sources)
	if err != nil {
		return err
	}
	for _, name := range []string{"fan-out", "join"} {
		long, short := rate[name][many], rate[name][few]
		b.figure(Figure{Name: "queue." + name, Value: short, Unit: "1/s", Ratio: short * raw,
			Versus: fmt.Sprintf("write a file, rename a directory, fsync of the file and both directories: %.0f/s", 1/raw)})
		b.figure(Figure{Name: "queue." + name + "-long", Value: long, Unit: "1/s", Ratio: long / short,
			Versus: fmt.Sprintf("%d jobs waiting, not %d: %.0f/s", few, many, short), Goal: "ratio >= 0.8",
			Met: long/short >= 0.8})
	}
	return nil
}

// jobTimes gives the middle times of a fan-out and of a join, in seconds.
func jobTimes(dir string, waiting, sources int) (out, join float64, err error) {
	tree, err := spool.Init(dir)
	if err != nil {
		return 0, 0, err
	}
	needs := spool.In(spool.NeedsBuild, "sid", "amd64")
	if err := tree.Ensure(needs); err != nil {
		return 0, 0, err
	}
	for i := range waiting {
		name := spool.NewName(spool.NormalClass, time.Now(), fmt.Sprintf("other%d", i), "1.0-1")
		if err := fillItem(tree.Path(needs.Dir(), name.String())); err != nil {
			return 0, 0, err
		}
	}
	suite := queue.Suite{Name: "sid", Architectures: []string{"amd64"}}
	var outs, joins []float64
	for i := range sources {
		source := fmt.Sprintf("source%d", i)
		it, err := acceptedSource(tree, source)
		if err != nil {
			return 0, 0, err
		}
		start := time.Now()
		if err := queue.Supersede(tree, "sid", source, "1.0-1", "bench", spool.MasterD); err != nil {
			return 0, 0, err
		}
		v, err := queue.FanOut(tree, it, suite, "bench")
		if err == nil {
			err = it.Move(spool.MasterD, "bench", v)
		}
		if err != nil {
			return 0, 0, err
		}
		outs = append(outs, time.Since(start).Seconds())
		// It settles as it would by a builder that tried and failed.
		settled := tree.Path(spool.In(spool.BuildAttempted, "sid", "amd64").Dir())
		if err := os.MkdirAll(settled, 0o755); err != nil {
			return 0, 0, err
		}
		if err := unix.Rename(tree.Path(needs.Dir(), it.Name.String()),
			filepath.Join(settled, it.Name.String())); err != nil {
			return 0, 0, err
		}
		start = time.Now()
		v, err = queue.Join(tree, it, suite)
		if err == nil {
			err = it.Move(spool.MasterD, "bench", v)
		}
		if err != nil {
			return 0, 0, err
		}
		joins = append(joins, time.Since(start).Seconds())
		it.Release()
	}
	return middle(outs), middle(joins), nil
}

// acceptedSource makes a source item that waits for its fan-out.
func acceptedSource(tree *spool.Tree, source string) (*spool.Item, error) {
	t := &queue.Ticket{
		Source: source, Version: "1.0-1", Suite: "sid", Architecture: []string{"any"}, Dsc: source + "_1.0-1.dsc",
	}
	name := spool.NewName(spool.NormalClass, time.Now(), t.Source, t.Version)
	it, err := tree.Create(spool.In(spool.Intake), name, spool.Reviewd, "bench", "made", func(dir string) error {
		if err := os.WriteFile(filepath.Join(dir, t.Dsc), []byte("Source: "+t.Source+"\n"), 0o644); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, spool.TicketFile), t.Stanza().Append(nil), 0o644)
	})
	if err != nil {
		return nil, err
	}
	return it, it.Move(spool.Reviewd, "bench", spool.Verdict{To: spool.In(spool.Accepted, "sid")})
}

// rawMoves gives the middle time of one durable move by hand, in seconds.
func rawMoves(dir string, count int) (float64, error) {
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	for _, d := range []string{from, to} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return 0, err
		}
	}
	var times []float64
	for i := range count {
		name := fmt.Sprint(i)
		if err := os.Mkdir(filepath.Join(from, name), 0o755); err != nil {
			return 0, err
		}
		start := time.Now()
		f, err := os.Create(filepath.Join(from, name, "history"))
		if err != nil {
			return 0, err
		}
		_, err = f.WriteString("moved\n")
		if err == nil {
			err = f.Sync()
		}
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err == nil {
			err = unix.Rename(filepath.Join(from, name), filepath.Join(to, name))
		}
		for _, d := range []string{to, from} {
			if err == nil {
				err = fsyncDir(d)
			}
		}
		if err != nil {
			return 0, err
		}
		times = append(times, time.Since(start).Seconds())
	}
	return middle(times), nil
}
