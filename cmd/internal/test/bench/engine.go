package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"packmill/spool"
)

// Sizes of the engine's measures.
const (
	longQueue  = 100_000
	shortQueue = 1_000
	claims     = 2_000 // measured in one round
	rounds     = 5     // of each; the middle one counts
	claimers   = 8
	burst      = 20_000
	wakes      = 300
)

var (
	needsBuild = spool.In(spool.NeedsBuild, "sid", "amd64")
	building   = spool.In(spool.Building, "sid", "amd64")
)

// engine measures spool and internal/durable.
func engine(b *bench) error {
	for _, f := range []func(*bench) error{claimFigures, scanFigures, fanOutFigures, wakeFigures, burstFigures,
		daemonFigures} {
		if err := f(b); err != nil {
			return err
		}
	}
	return nil
}

// queueOf makes a tree with n items in needs-build, as a queue has them: a
// ticket and a history in each. It does not sync each: the queue is old.
func queueOf(root string, n int) (*spool.Tree, error) {
	t, err := spool.Init(root)
	if err != nil {
		return nil, err
	}
	for _, p := range []spool.Place{needsBuild, building} {
		if err := t.Ensure(p); err != nil {
			return nil, err
		}
	}
	return t, errors.Join(fillQueue(t, 0, n), t.LearnNames())
}

// itemName is the name of the i-th item of a queue.
func itemName(i int) string {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(i) * time.Second)
	return spool.NewName(spool.NormalClass, at, fmt.Sprintf("source%06d", i), "1.0-1").String()
}

func fillQueue(t *spool.Tree, first, n int) error {
	for i := first; i < first+n; i++ {
		if err := fillItem(t.Path(needsBuild.Dir(), itemName(i))); err != nil {
			return err
		}
	}
	unix.Sync()
	return nil
}

func fillItem(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	source := spool.SourceOf(filepath.Base(dir))
	ticket := fmt.Sprintf("Source: %s\nVersion: 1.0-1\nDistribution: sid\nArchitecture: any\nDsc: %[1]s_1.0-1.dsc\n"+
		"Build-Architecture: amd64\n", source)
	if err := os.WriteFile(filepath.Join(dir, spool.TicketFile), []byte(ticket), 0o644); err != nil {
		return err
	}
	line := "2026-01-01T00:00:00Z\tnew\t" + needsBuild.Dir() + "\tmaster-buildd\tfan-out\n"
	return os.WriteFile(filepath.Join(dir, spool.HistoryFile), []byte(line), 0o644)
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// claimRate lets n workers of one daemon's loop take items of the queue until
// count have gone to building, durably, and returns how many a second.
func claimRate(t *spool.Tree, n, count int) (float64, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var taken atomic.Int64
	var start, end time.Time
	var once, last sync.Once
	loop := &spool.Loop{
		Tree: t, By: spool.Buildd, Log: quiet(), Workers: n, Once: true,
		Places: func() ([]spool.Place, error) { return []spool.Place{needsBuild}, nil },
		Via: func(*spool.Item) spool.Verdict {
			once.Do(func() { start = time.Now() })
			return spool.Verdict{To: building, Reason: "taken"}
		},
		Handle: func(context.Context, *spool.Item) (spool.Verdict, error) {
			if taken.Add(1) == int64(count) {
				last.Do(func() { end = time.Now() })
				cancel()
			}
			return spool.Verdict{}, nil
		},
	}
	if err := loop.Run(ctx); err != nil {
		return 0, err
	}
	if taken.Load() < int64(count) {
		return 0, fmt.Errorf("took %d of %d items", taken.Load(), count)
	}
	return float64(count) / end.Sub(start).Seconds(), nil
}

// bareRate is the same with nothing but rename and fsync of the new directory, as the engine does.
func bareRate(t *spool.Tree, n, count int) (float64, error) {
	names, err := t.List(needsBuild)
	if err != nil {
		return 0, err
	}
	names = names[:min(count, len(names))]
	from, to := t.Path(needsBuild.Dir()), t.Path(building.Dir())
	var next atomic.Int64
	var g sync.WaitGroup
	errs := make([]error, n)
	start := time.Now()
	for w := range n {
		g.Go(func() {
			for errs[w] == nil {
				i := int(next.Add(1)) - 1
				if i >= len(names) {
					return
				}
				errs[w] = errors.Join(
					unix.Renameat2(unix.AT_FDCWD, from+"/"+names[i], unix.AT_FDCWD, to+"/"+names[i], unix.RENAME_NOREPLACE),
					fsyncDir(to))
			}
		})
	}
	g.Wait()
	return float64(len(names)) / time.Since(start).Seconds(), errors.Join(errs...)
}

func fsyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// middle is the median.
func middle(x []float64) float64 {
	s := slices.Sorted(slices.Values(x))
	return s[len(s)/2]
}

func claimFigures(b *bench) error {
	b.progress("engine: making queues of %d and %d items", longQueue, shortQueue)
	long, err := queueOf(filepath.Join(b.dir, "long"), longQueue)
	if err != nil {
		return err
	}
	// The engine asks Go for more places to run than there are processors; the
	// peer is a program that does not, and besides, one that does.
	places := runtime.GOMAXPROCS(0)
	var engine, bare, tuned, short []float64
	for r := range rounds {
		b.progress("engine: durable claims, round %d of %d", r+1, rounds)
		e, err := claimRate(long, claimers, claims)
		if err != nil {
			return err
		}
		more, err := bareRate(long, claimers, claims)
		if err != nil {
			return err
		}
		engines := runtime.GOMAXPROCS(places)
		raw, err := bareRate(long, claimers, claims)
		if err != nil {
			return err
		}
		runtime.GOMAXPROCS(engines)
		small, err := queueOf(filepath.Join(b.dir, fmt.Sprint("short", r)), shortQueue)
		if err != nil {
			return err
		}
		s, err := claimRate(small, claimers, shortQueue)
		if err != nil {
			return err
		}
		engine, bare, tuned, short = append(engine, e), append(bare, raw), append(tuned, more), append(short, s)
	}
	e, raw, more, s := middle(engine), middle(bare), middle(tuned), middle(short)
	b.figure(Figure{Name: "engine.claims", Value: e, Unit: "1/s",
		Versus: fmt.Sprintf("rename + fsync of the new directory, %d goroutines: %.0f/s", claimers, raw),
		Ratio:  e / raw, Goal: "ratio >= 0.8", Met: e/raw >= 0.8})
	b.figure(Figure{Name: "engine.claims-places", Value: e, Unit: "1/s",
		Versus: fmt.Sprintf("the same with the engine's GOMAXPROCS: %.0f/s", more), Ratio: e / more})
	b.figure(Figure{Name: "engine.claim-cost", Value: 1e6 / e, Unit: "us",
		Versus: fmt.Sprintf("a queue of %d items: %.0f us", shortQueue, 1e6/s),
		Ratio:  s / e, Goal: "ratio <= 1.3", Met: s/e <= 1.3})
	return nil
}

func scanFigures(b *bench) error {
	t, err := spool.Open(filepath.Join(b.dir, "long"))
	if err != nil {
		return err
	}
	missing := longQueue
	var mine, raw []float64
	for range rounds {
		start := time.Now()
		names, err := t.List(needsBuild)
		if err != nil {
			return err
		}
		mine = append(mine, time.Since(start).Seconds())
		missing = longQueue - len(names)

		start = time.Now()
		f, err := os.Open(t.Path(needsBuild.Dir()))
		if err != nil {
			return err
		}
		list, err := f.Readdirnames(-1)
		f.Close()
		if err != nil {
			return err
		}
		sort.Strings(list)
		raw = append(raw, time.Since(start).Seconds())
	}
	m, r := middle(mine)*1000, middle(raw)*1000
	b.figure(Figure{Name: "engine.scan", Value: m, Unit: "ms",
		Versus: fmt.Sprintf("sorted Readdirnames of the same %d names: %.1f ms", longQueue-missing, r),
		Ratio:  m / r, Goal: "ratio <= 1.3", Met: m/r <= 1.3})
	return nil
}

// fanOutFigures measures the engine's part of a fan-out: jobs that lie ready in
// a source item go to ten architectures' queues, each move durable.
func fanOutFigures(b *bench) error {
	const archs = 10
	t, err := spool.Init(filepath.Join(b.dir, "fanout"))
	if err != nil {
		return err
	}
	var mine, raw []float64
	for r := range 20 {
		name := spool.NewName(spool.NormalClass, time.Now(), fmt.Sprintf("source%d", r), "1.0-1")
		arch := func(a int) string { return fmt.Sprintf("arch%d", a) }
		src, err := t.Create(spool.In(spool.Uploaded, "sid"), name, spool.MasterD, "bench", "made", func(dir string) error {
			for a := range archs {
				egg := filepath.Join(dir, arch(a))
				if err := fillItem(egg); err != nil {
					return err
				}
				if err := os.Remove(filepath.Join(egg, spool.HistoryFile)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		start := time.Now()
		for a := range archs {
			err = errors.Join(err,
				src.Hatch(arch(a), spool.In(spool.NeedsBuild, "sid", arch(a)), name, spool.MasterD, "bench", "fan-out"))
		}
		if took := time.Since(start); r > 0 { // the first one makes the directories
			mine = append(mine, took.Seconds()*1000)
		}
		src.Release()
		if err != nil {
			return err
		}

		took, err := rawFanOut(b.dir, r, archs)
		if err != nil {
			return err
		}
		if r > 0 {
			raw = append(raw, took.Seconds()*1000)
		}
	}
	m, w := middle(mine), middle(raw)
	b.figure(Figure{Name: "engine.fan-out", Value: m, Unit: "ms",
		Versus: fmt.Sprintf("%d times write, rename, fsync of both directories: %.1f ms", archs, w), Ratio: m / w})
	return nil
}

// rawFanOut does by system calls what the r-th fan-out does.
func rawFanOut(dir string, r, archs int) (time.Duration, error) {
	from, to := filepath.Join(dir, fmt.Sprint("raw", r)), filepath.Join(dir, "rawto")
	for a := range archs {
		for _, d := range []string{from, to} {
			if err := os.MkdirAll(filepath.Join(d, fmt.Sprint("arch", a)), 0o755); err != nil {
				return 0, err
			}
		}
	}
	if err := fsyncDir(from); err != nil {
		return 0, err
	}
	start := time.Now()
	var err error
	for a := range archs {
		job, home := filepath.Join(from, fmt.Sprint("arch", a)), filepath.Join(to, fmt.Sprint("arch", a))
		err = errors.Join(err, os.WriteFile(filepath.Join(job, "history"), []byte("x\n"), 0o644),
			unix.Rename(job, filepath.Join(home, fmt.Sprint(r))), fsyncDir(home), fsyncDir(from))
	}
	return time.Since(start), err
}

// watching runs a loop on what is being built until stop is called; seen is told
// of each item at the handler's first line.
func watching(t *spool.Tree, seen func(name string)) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	loop := &spool.Loop{
		Tree: t, By: spool.Buildd, Log: quiet(),
		Places: func() ([]spool.Place, error) { return []spool.Place{building}, nil },
		Handle: func(_ context.Context, it *spool.Item) (spool.Verdict, error) {
			seen(it.Name.String())
			return spool.Stay(0, ""), nil
		},
	}
	done := make(chan error)
	go func() { done <- loop.Run(ctx) }()
	return func() error {
		cancel()
		return <-done
	}
}

func wakeFigures(b *bench) error {
	t, err := queueOf(filepath.Join(b.dir, "wake"), wakes+1)
	if err != nil {
		return err
	}
	at := make(chan time.Time, 1)
	stop := watching(t, func(string) { at <- time.Now() })
	var took []float64
	for i := range wakes + 1 {
		name := itemName(i)
		start := time.Now()
		if err := unix.Rename(t.Path(needsBuild.Dir(), name), t.Path(building.Dir(), name)); err != nil {
			return err
		}
		select {
		case when := <-at:
			if i > 0 { // the first one may have met the loop's start
				took = append(took, when.Sub(start).Seconds()*1000)
			}
		case <-time.After(2 * time.Minute):
			return fmt.Errorf("item %s was not seen in two minutes", name)
		}
		time.Sleep(5 * time.Millisecond) // the loop is asleep again
	}
	if err := stop(); err != nil {
		return err
	}
	slices.Sort(took)
	m := took[len(took)/2]
	b.figure(Figure{Name: "engine.wake", Value: m, Unit: "ms", Versus: "", Goal: "value < 1", Met: m < 1})
	b.figure(Figure{Name: "engine.wake-p99", Value: took[len(took)*99/100], Unit: "ms"})
	return nil
}

func burstFigures(b *bench) error {
	b.progress("engine: a burst of %d items", burst)
	t, err := queueOf(filepath.Join(b.dir, "burst"), burst)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	seen := map[string]bool{}
	all := make(chan struct{})
	stop := watching(t, func(name string) {
		mu.Lock()
		defer mu.Unlock()
		if seen[name] = true; len(seen) == burst {
			select {
			case <-all:
			default:
				close(all)
			}
		}
	})
	start := time.Now()
	for i := range burst {
		name := itemName(i)
		if err := unix.Rename(t.Path(needsBuild.Dir(), name), t.Path(building.Dir(), name)); err != nil {
			return err
		}
	}
	select {
	case <-all:
	case <-time.After(2 * time.Minute):
	}
	took := time.Since(start)
	if err := stop(); err != nil {
		return err
	}
	b.figure(Figure{Name: "engine.burst-lost", Value: float64(burst - len(seen)), Unit: "items",
		Versus: fmt.Sprintf("%d items renamed at once, all handled after %s", burst, took.Round(time.Millisecond)),
		Goal:   "value = 0", Met: len(seen) == burst})
	return nil
}

// daemonFigures looks at real daemons: the most memory that buildd ever had
// while it served the long queue for a while, and the processor time of each
// daemon that has nothing to do.
func daemonFigures(b *bench) error {
	bin := filepath.Join(b.dir, "bin")
	if out, err := exec.Command("go", "build", "-o", bin+"/", "./cmd/reviewd", "./cmd/master-buildd", "./cmd/buildd",
		"./cmd/archived").CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w: %s", err, out)
	}
	long, err := spool.Open(filepath.Join(b.dir, "long"))
	if err != nil {
		return err
	}
	taken, err := long.List(building)
	if err != nil {
		return err
	}
	for _, name := range taken {
		if err := os.Rename(long.Path(building.Dir(), name), long.Path(needsBuild.Dir(), name)); err != nil {
			return err
		}
	}
	idle, err := spool.Init(filepath.Join(b.dir, "idle"))
	if err != nil {
		return err
	}
	for _, t := range []*spool.Tree{long, idle} {
		if err := daemonSettings(t); err != nil {
			return err
		}
	}
	b.progress("engine: buildd on %d items for %s", longQueue, serveFor)
	pid, stop, err := startDaemon(filepath.Join(bin, "buildd"), "--arch", "amd64", "--tree", long.Root())
	if err != nil {
		return err
	}
	time.Sleep(serveFor)
	peak, merr := memoryOf(pid)
	if err := errors.Join(merr, stop()); err != nil {
		return err
	}
	rest, err := long.List(needsBuild)
	if err != nil {
		return err
	}
	b.figure(Figure{Name: "engine.memory", Value: peak, Unit: "MiB",
		Versus: fmt.Sprintf("buildd, which took %d of %d items meanwhile", longQueue-len(rest), longQueue),
		Goal:   "value < 64", Met: peak < 64})
	return idleFigures(b, bin, idle)
}

// idleFigures measures the processor time of daemons that have nothing to do.
func idleFigures(b *bench, bin string, idle *spool.Tree) (err error) {
	b.progress("engine: idle daemons for %s", idleFor)
	programs := [][]string{{"reviewd"}, {"master-buildd"}, {"buildd", "--arch", "amd64"}, {"archived"}}
	var pids []int
	for _, p := range programs {
		pid, stop, err := startDaemon(filepath.Join(bin, p[0]), append(p[1:], "--tree", idle.Root())...)
		if err != nil {
			return err
		}
		defer stop()
		pids = append(pids, pid)
	}
	time.Sleep(3 * time.Second) // they have begun
	before := make([]time.Duration, len(pids))
	for i, pid := range pids {
		if before[i], err = processorOf(pid); err != nil {
			return err
		}
	}
	time.Sleep(idleFor)
	for i, pid := range pids {
		now, err := processorOf(pid)
		if err != nil {
			return err
		}
		share := 100 * (now - before[i]).Seconds() / idleFor.Seconds()
		b.figure(Figure{Name: "engine.idle-" + programs[i][0], Value: share, Unit: "%", Goal: "value < 0.1",
			Met: share < 0.1})
	}
	return nil
}

// How long the daemons are looked at.
const (
	serveFor = 20 * time.Second
	idleFor  = time.Minute
)

// daemonSettings are those of a suite whose builds fail at once.
func daemonSettings(t *spool.Tree) error {
	program := t.Path("control", "no")
	return errors.Join(
		os.WriteFile(t.Path("control", "suites"), []byte("Suite: sid\nArchitectures: amd64\nLog-Review: manual\n"), 0o644),
		os.WriteFile(t.Path("control", "builders"),
			[]byte("Name: bench\nArchitectures: amd64\nJobs: 2\nRunner: exec "+program+"\n"), 0o644),
		os.WriteFile(program, []byte("#!/bin/sh\nexit 2\n"), 0o755))
}

func startDaemon(path string, args ...string) (pid int, stop func() error, err error) {
	cmd := exec.Command(path, args...)
	if err := cmd.Start(); err != nil {
		return 0, nil, err
	}
	return cmd.Process.Pid, func() error {
		err := cmd.Process.Kill()
		cmd.Wait()
		if errors.Is(err, os.ErrProcessDone) {
			err = fmt.Errorf("%s ended by itself: %s", filepath.Base(path), cmd.ProcessState)
		}
		return err
	}, nil
}

// memoryOf is the most memory that a process ever had, in MiB.
func memoryOf(pid int) (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, line, _ := bytes.Cut(status, []byte("\nVmHWM:"))
	var kb float64
	_, err = fmt.Sscan(strings.TrimSpace(string(line)), &kb)
	return kb / 1024, err
}

// processorOf is the time that a process has used, to the nanosecond.
func processorOf(pid int) (time.Duration, error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(tasks) == 0 {
		return 0, fmt.Errorf("process %d: no schedstat: %v", pid, err)
	}
	var sum time.Duration
	for _, name := range tasks {
		text, err := os.ReadFile(name)
		if err != nil {
			return 0, err
		}
		var ns int64
		if _, err := fmt.Sscan(string(text), &ns); err != nil {
			return 0, err
		}
		sum += time.Duration(ns)
	}
	return sum, nil
}
