package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"packmill/queue/builders"
	"packmill/queue/runner"
	"packmill/queue/runner/remote"
	"packmill/spool"
)

// Sizes of the measures of builders on other machines.
const (
	farmSize = 200
	farmIdle = 30 * time.Second
	farmJobs = 200
	farmLogs = 20 // builds with a long log
	farmLog  = 4 << 20
)

// farmFigures measures builders on other machines: what they cost the master idle, and how many builds and how much log
// come through beside as many workers of a local build daemon. The master's end of each session is a process, as sshd
// starts it; the builders' ends are in this one, and build with the program that the local daemon builds with.
func farmFigures(b *bench) error {
	bin, err := programs(b, "packmill", "buildd", "internal/test/fakebuilder")
	if err != nil {
		return err
	}
	if err := farmOverhead(b, bin); err != nil {
		return fmt.Errorf("overhead: %w", err)
	}
	tree, err := farmTree(filepath.Join(b.dir, "farm"), bin, farmSize)
	if err != nil {
		return err
	}
	f, err := newFleet(b, tree, bin, farmSize, serving(tree, bin))
	if err != nil {
		return err
	}
	defer f.close()
	if err := farmAtRest(b, "farm.idle", farmSize, f.cost); err != nil {
		return fmt.Errorf("idle: %w", err)
	}
	f.close()
	if b.sessions > 0 {
		if err := farmBySSH(b, bin, b.sessions); err != nil {
			return fmt.Errorf("by ssh: %w", err)
		}
	}
	return farmBusy(b, bin)
}

// farmTree makes a tree with n builders on other machines, f0 ..., and one here.
func farmTree(dir, bin string, n int) (*spool.Tree, error) {
	all := []string{fmt.Sprintf("Name: here\nJobs: %d\nRunner: exec %s", n, filepath.Join(bin, "fakebuilder"))}
	for i := range n {
		all = append(all, fmt.Sprintf("Name: f%d\nJobs: 1\nRunner: remote", i))
	}
	return overheadTree(dir, all...)
}

// fleet is builders on other machines, and their sessions.
type fleet struct {
	tree *spool.Tree
	cmds []*exec.Cmd // the master's ends
	ends []*remote.Builder
	stop context.CancelFunc
	wait sync.WaitGroup
	once sync.Once
}

// newFleet makes one whose sessions are these commands, and waits until the master knows all of it.
func newFleet(b *bench, tree *spool.Tree, bin string, n int, session func(name string) *exec.Cmd) (*fleet, error) {
	ctx, cancel := context.WithCancel(context.Background())
	f := &fleet{tree: tree, stop: cancel}
	dir, err := os.MkdirTemp(b.dir, "fleet-")
	if err != nil {
		return nil, err
	}
	r := &runner.Exec{Path: filepath.Join(bin, "fakebuilder")}
	for i := range n {
		end := &remote.Builder{Dir: filepath.Join(dir, strconv.Itoa(i)), Log: quiet(),
			Hello: func() remote.Hello { return remote.Hello{Host: "bench", Jobs: 1} }, Ready: r.Ready,
			Build: func(ctx context.Context, _ *remote.Order, job *runner.Job) (*runner.Result, error) {
				return r.Run(ctx, job)
			}}
		if err := end.Open(); err != nil {
			return f, err
		}
		f.ends = append(f.ends, end)
		if err := f.call(ctx, end, session(fmt.Sprint("f", i))); err != nil {
			return f, err
		}
	}
	return f, present(tree, n)
}

// serving are the master's ends without ssh.
func serving(tree *spool.Tree, bin string) func(name string) *exec.Cmd {
	return func(name string) *exec.Cmd {
		return exec.Command(filepath.Join(bin, "buildd"), "--tree", tree.Root(), "--builder", name, "--serve")
	}
}

// call makes the session of a builder, until it ends.
func (f *fleet) call(ctx context.Context, end *remote.Builder, cmd *exec.Cmd) error {
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	f.cmds = append(f.cmds, cmd)
	f.wait.Go(func() {
		end.Serve(ctx, &remote.Pipe{Reader: out, Writer: in,
			Shut: func() error { return errors.Join(in.Close(), out.Close()) }})
		cmd.Wait()
	})
	return nil
}

// close ends all sessions.
func (f *fleet) close() {
	f.once.Do(func() {
		f.stop()
		f.wait.Wait()
		for _, e := range f.ends {
			e.Close()
		}
	})
}

// cost is what the sessions' processes here have used of the processors, and use of memory: what they have in common
// is counted once.
func (f *fleet) cost() (cpu time.Duration, memory int64, err error) {
	var pids []int
	for _, c := range f.cmds {
		pids = append(pids, c.Process.Pid)
	}
	return costOf(pids)
}

// costOf is what processes have used of the processors, and use of memory.
func costOf(pids []int) (cpu time.Duration, memory int64, err error) {
	for _, pid := range pids {
		used, held, err := costOfOne(pid)
		if err != nil {
			return 0, 0, err
		}
		cpu, memory = cpu+used, memory+held
	}
	return cpu, memory, nil
}

func costOfOne(pid int) (cpu time.Duration, memory int64, err error) {
	stat, err1 := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	roll, err2 := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err := errors.Join(err1, err2); err != nil {
		return 0, 0, err
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	for _, ticks := range fields[11:13] {
		n, err := strconv.Atoi(ticks)
		if err != nil {
			return 0, 0, err
		}
		cpu += time.Duration(n) * 10 * time.Millisecond
	}
	for line := range strings.Lines(string(roll)) {
		var kb int64
		if n, _ := fmt.Sscanf(line, "Pss: %d kB", &kb); n == 1 {
			memory += kb << 10
		}
	}
	return cpu, memory, nil
}

// farmAtRest measures n builders that have nothing to do.
func farmAtRest(b *bench, name string, n int, cost func() (time.Duration, int64, error)) error {
	b.progress("%s: %d builders for %s", name, n, farmIdle)
	time.Sleep(5 * time.Second) // what begins has begun
	before, _, err := cost()
	if err != nil {
		return err
	}
	time.Sleep(farmIdle)
	after, memory, err := cost()
	if err != nil {
		return err
	}
	core := (after - before).Seconds() / farmIdle.Seconds() * 100
	each := float64(memory) / float64(n) / 1e6
	b.figure(Figure{Name: name + ".cpu", Value: core, Unit: "% of a core", Goal: fmt.Sprintf("< 10 %%, %d builders", n),
		Met: core < 10})
	b.figure(Figure{Name: name + ".memory", Value: each, Unit: "MB each", Goal: "< 10 MB", Met: each < 10})
	return nil
}

// farmOverhead measures what a build on another machine costs more than one here.
func farmOverhead(b *bench, bin string) error {
	var took [2]time.Duration
	for i, where := range []string{"local", "remote"} {
		tree, err := farmTree(filepath.Join(b.dir, "overhead-"+where), bin, 1)
		if err == nil {
			err = overheadJobs(b, tree, bin, overheadBuilds)
		}
		if err != nil {
			return err
		}
		if err := os.RemoveAll(filepath.Join(bin, "builds")); err != nil {
			return err
		}
		took[i], err = overheadOf(tree, bin, func() error {
			_, _, err := farmRun(b, tree, bin, where, 1)
			return err
		})
		if err != nil {
			return err
		}
	}
	more := took[1] - took[0]
	b.figure(
		Figure{
			Name:   "farm.overhead",
			Value:  more.Seconds(),
			Unit:   "s",
			Versus: "a local build",
			Ratio:  took[1].Seconds() / took[0].Seconds(),
			Goal:   "< 0.5 s more",
			Met:    more < 500*time.Millisecond,
		},
	)
	return nil
}

// farmRun builds all that waits in a tree, here by as many workers or by n builders on other machines, and returns
// how long that took, from when all builders are there and see the jobs, and what the master used of its processors,
// without what it builds with.
func farmRun(b *bench, tree *spool.Tree, bin, where string, n int) (took, cpu time.Duration, err error) {
	waits := tree.Path(spool.In(spool.NeedsBuild, "stable", "amd64").Dir())
	aside := tree.Root() + "-aside"
	if err := errors.Join(os.Rename(waits, aside), os.Mkdir(waits, 0o755)); err != nil {
		return 0, 0, err
	}
	f := &fleet{}
	if where == "local" {
		cmd := exec.Command(filepath.Join(bin, "buildd"), "--tree", tree.Root(), "--builder", "here")
		if err := cmd.Start(); err != nil {
			return 0, 0, err
		}
		defer func() { cmd.Process.Signal(syscall.SIGTERM); cmd.Wait() }()
		f.cmds = append(f.cmds, cmd)
		if err := present(tree, 1); err != nil {
			return 0, 0, err
		}
	} else {
		if f, err = newFleet(b, tree, bin, n, serving(tree, bin)); f != nil {
			defer f.close()
		}
		if err != nil {
			return 0, 0, err
		}
	}
	time.Sleep(2 * time.Second)
	before, _, err := f.cost()
	if err != nil {
		return 0, 0, err
	}
	jobs, err := os.ReadDir(aside)
	if err != nil {
		return 0, 0, err
	}
	begun := time.Now()
	for _, j := range jobs {
		if err := os.Rename(filepath.Join(aside, j.Name()), filepath.Join(waits, j.Name())); err != nil {
			return 0, 0, err
		}
	}
	for time.Since(begun) < 5*time.Minute {
		left, err := tree.Find("", spool.NeedsBuild, spool.Building)
		if err != nil {
			return 0, 0, err
		}
		if len(left) == 0 {
			took = time.Since(begun)
			after, _, err := f.cost()
			return took, after - before, err
		}
		time.Sleep(50 * time.Millisecond)
	}
	return 0, 0, errors.New("the builds do not end")
}

// present waits until so many build daemons are in the roster.
func present(tree *spool.Tree, n int) error {
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		here, err := builders.Read(tree.Path(spool.BuildersDir))
		if err != nil || len(here) == n {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("%d of %d builders are there", len(here), n)
		}
	}
}

// farmBusy measures builders that all have something to do.
func farmBusy(b *bench, bin string) error {
	text := filepath.Join(b.dir, "long-log")
	if err := os.WriteFile(text, logText(farmLog, 1), 0o644); err != nil {
		return err
	}
	for _, what := range []struct {
		name, unit string
		jobs       int
		each       float64 // of the unit
		orders     string
	}{{"farm.builds", "1/s", farmJobs, 1, ""}, {"farm.log", "MB/s", farmLogs, farmLog / 1e6, "print " + text + "\n"}} {
		var rate, used [2]float64
		for i, where := range []string{"local", "remote"} {
			tree, err := farmTree(filepath.Join(b.dir, what.name+"-"+where), bin, farmSize)
			if err == nil {
				err = overheadJobs(b, tree, bin, what.jobs)
			}
			if err == nil {
				err = farmOrders(bin, what.jobs, what.orders)
			}
			if err != nil {
				return err
			}
			b.progress("%s: %d builds, %s", what.name, what.jobs, where)
			took, cpu, err := farmRun(b, tree, bin, where, farmSize)
			if err != nil {
				return err
			}
			rate[i] = float64(what.jobs) * what.each / took.Seconds()
			used[i] = cpu.Seconds() * 1000 / float64(what.jobs)
		}
		versus := fmt.Sprintf("%d workers of a local daemon", farmSize)
		b.figure(Figure{Name: what.name, Value: rate[1], Unit: what.unit, Versus: versus, Ratio: rate[1] / rate[0]})
		b.figure(Figure{Name: what.name + ".cpu", Value: used[1], Unit: "ms a build", Versus: versus,
			Ratio: used[1] / used[0]})
	}
	return nil
}

// farmOrders tells the instant builder what to do in these builds.
func farmOrders(bin string, jobs int, orders string) error {
	dir := filepath.Join(bin, "script")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for i := range jobs {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("package%d_1.0_amd64", i)), []byte(orders), 0o644); err != nil {
			return err
		}
	}
	return nil
}
