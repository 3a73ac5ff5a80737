// Package cage runs one command so that it reaches nothing of the machine that
// it was not given, and nothing of it outlives the call, whatever it does, nor
// the daemon if that dies.
//
// Two processes stand between the daemon and the command, both this same
// program started again (see Reexec):
//
//	daemon    knows the job, reads the log, watches the limits
//	keeper    holds the locks, outside of the command's namespaces; kills all
//	          below it when the daemon dies or says so, and ends after them
//	warden    process 1 of the command's namespaces; makes its mounts
//	command   has standard input from null, standard output and error to a
//	          pipe, and no other descriptor
//
// So a lock is free only when nothing of the command runs, although nothing of
// the command ever sees a descriptor of it. Where there are no namespaces (see
// Order.Own) keeper and warden are subreapers, and each ends what the other
// leaves if somebody kills that. A control group is used on top where one can
// be made.
package cage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Cage is what a command runs in.
type Cage struct {
	Log    *os.File   // nil: output is thrown away
	Lock   []*os.File // locked descriptors that the keeper holds until nothing of the command runs
	Limits Limits
	Disk   []string              // directories whose size is watched
	Files  []*os.File            // plain files for the warden, in the order of their names in the order
	Take   func(io.Reader) error // reads what the warden hands out (see Warden.Out); nil: nothing
}

// tick is how often limits are looked at.
const tick = 250 * time.Millisecond

// Run starts the order's command and waits for its end. An error means that
// it was not run.
func (c *Cage) Run(ctx context.Context, o *Order) (*Exit, error) {
	if ctx.Err() != nil {
		return &Exit{Stopped: true}, nil
	}
	b, err := c.begin(o)
	if err != nil {
		return nil, err
	}
	defer b.close()
	b.listen()
	b.watch(ctx)
	b.bury()
	return b.end()
}

// caged is a command that runs.
type caged struct {
	*Cage
	o     *Order
	group *cgroup
	files []*os.File // to close
	start time.Time

	order, report, log, out *os.File // our ends of the keeper's pipes
	keeper                  *exec.Cmd
	dead                    chan error

	last    atomic.Int64 // time of the last output
	size    atomic.Int64 // of the log
	full    atomic.Bool  // the log is at its limit
	logErr  error        // writing the log
	copied  chan struct{}
	reports chan []byte
	taken   chan error

	exit  Exit
	space *watch
	since time.Time // of the last measurement
}

// begin starts the keeper and tells it the order.
func (c *Cage) begin(o *Order) (_ *caged, err error) {
	b := &caged{Cage: c, o: o, dead: make(chan error, 1), copied: make(chan struct{}), reports: make(chan []byte, 1),
		taken: make(chan error, 1)}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	if b.group, err = newCgroup(c.Limits); err != nil {
		return nil, err
	}
	if c.Limits.Tasks > 0 && b.group.pids == "" {
		// Not more than can be counted and killed; it is measured below.
		o.Tasks = c.Limits.Tasks + c.Limits.Tasks/8 + 8
	}
	o.Files = len(c.Files)
	text, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("build order: %w", err)
	}
	if err := b.startKeeper(); err != nil {
		return nil, err
	}
	if err := b.group.add(b.keeper.Process.Pid); err != nil {
		// A group that vanished or refuses is done without.
		b.group.remove()
		b.group = &cgroup{}
	}
	if _, err := b.order.Write(append(text, '\n')); err != nil {
		b.kill()
		b.keeper.Process.Kill()
		<-b.dead
		return nil, fmt.Errorf("build helper: %w: does main call runner.Reexec first?", err)
	}
	return b, nil
}

// startKeeper starts the keeper with our pipes.
func (b *caged) startKeeper() error {
	if os.Args[0] == keeperName { // a program whose main does not call Reexec would start itself for ever
		return errors.New("a build helper starts a build: main must call runner.Reexec first")
	}
	var err error
	pipe := func() (r, w *os.File) {
		if err == nil {
			if r, w, err = os.Pipe(); err == nil {
				b.files = append(b.files, r, w)
			}
		}
		return r, w
	}
	orderR, orderW := pipe()
	reportR, reportW := pipe()
	outR, outW := pipe()
	logR, logW := pipe()
	if err != nil {
		return fmt.Errorf("build pipes: %w", err)
	}
	b.order, b.report, b.out, b.log = orderW, reportR, outR, logR
	b.keeper = &exec.Cmd{
		Path:        "/proc/self/exe",
		Args:        []string{keeperName},
		Env:         []string{"PATH=" + DefaultPath, "GOMAXPROCS=2"},
		Dir:         "/",
		Stdout:      logW,
		Stderr:      logW,
		ExtraFiles:  append(append([]*os.File{orderR, reportW, outW}, b.Files...), b.Lock...), // see keeper.go
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	b.start = time.Now()
	if err := b.keeper.Start(); err != nil {
		return fmt.Errorf("start build helper: %w", err)
	}
	go func() { b.dead <- b.keeper.Wait() }()
	for _, f := range []*os.File{orderR, reportW, outW, logW} {
		f.Close()
	}
	return nil
}

// close gives back what begin took.
func (b *caged) close() {
	for _, f := range b.files {
		f.Close()
	}
	if b.group != nil {
		b.group.remove()
	}
}

// kill ends the command. It returns at once.
func (b *caged) kill() {
	b.group.kill()
	b.order.Close()
}

// listen reads what comes out of the keeper's pipes.
func (b *caged) listen() {
	b.last.Store(time.Now().UnixNano())
	go b.copyLog()
	go func() {
		data, _ := io.ReadAll(io.LimitReader(b.report, 1<<20))
		b.reports <- data
	}()
	go func() {
		var err error
		if b.Take != nil {
			err = b.Take(b.out)
		}
		io.Copy(io.Discard, b.out)
		b.taken <- err
	}()
}

// copyLog writes down what the command says, to the limit.
func (b *caged) copyLog() {
	defer close(b.copied)
	buf := make([]byte, 128<<10)
	for {
		n, err := b.log.Read(buf)
		if n > 0 {
			b.last.Store(time.Now().UnixNano())
			text := buf[:n]
			if l := b.Limits.Log; l > 0 && b.size.Load()+int64(n) > l {
				text = text[:max(0, l-b.size.Load())]
				b.full.Store(true)
			}
			if len(text) > 0 && b.logErr == nil && b.Log != nil {
				var w int
				w, b.logErr = b.Log.Write(text)
				b.size.Add(int64(w))
			}
		}
		if err != nil {
			return
		}
	}
}

// watch looks after the command until its keeper ends.
func (b *caged) watch(ctx context.Context) {
	b.exit.Usage.Start = b.start.UTC()
	b.space = newWatch(b.Disk)
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	done := ctx.Done()
	last := time.Time{} // when a keeper that does not end is killed
	for {
		select {
		case <-b.dead:
			return
		case <-done:
			done = nil
			b.exit.Stopped = true
			b.kill()
		case now := <-ticker.C:
			b.look(now)
			if b.exit.Limit == "" && !b.exit.Stopped {
				continue
			}
			if last.IsZero() {
				last = now.Add(30 * time.Second)
			} else if now.After(last) {
				b.keeper.Process.Kill()
			}
		}
	}
}

// limit ends a command that has reached a limit.
func (b *caged) limit(name string) {
	if b.exit.Limit == "" && !b.exit.Stopped {
		b.exit.Limit = name
		b.kill()
	}
}

// refused ends a command to which the kernel refused memory or processes.
func (b *caged) refused() {
	switch {
	case b.group.oomKills() > 0:
		b.limit(LimitMemory)
	case b.group.refusedForks() > 0:
		b.limit(LimitTasks)
	}
}

// look compares the command with its limits.
func (b *caged) look(now time.Time) {
	l := b.Limits
	switch {
	case b.full.Load():
		b.limit(LimitLog)
	case l.Wall > 0 && now.Sub(b.start) > l.Wall:
		b.limit(LimitWall)
	case l.Silence > 0 && now.UnixNano()-b.last.Load() > int64(l.Silence):
		b.limit(LimitSilence)
	}
	b.refused()
	// What no control group measures or limits is watched by sampling.
	if (b.group.memory == "" || l.Tasks > 0 && b.group.pids == "") && now.Sub(b.since) > time.Second {
		b.since = now
		tasks, memory := measure(b.keeper.Process.Pid)
		b.exit.Usage.Memory = max(b.exit.Usage.Memory, memory)
		if l.Memory > 0 && memory > l.Memory {
			b.limit(LimitMemory)
		}
		if l.Tasks > 0 && tasks > l.Tasks {
			b.limit(LimitTasks)
		}
	}
	if used := b.space.look(now, l.Disk); used > 0 {
		b.exit.Usage.Disk = max(b.exit.Usage.Disk, used)
		if l.Disk > 0 && used > l.Disk {
			b.limit(LimitDisk)
		}
	}
}

// bury sees to it that nothing is left of the command: the keeper has ended
// after it, unless somebody killed the keeper.
func (b *caged) bury() {
	x := &b.exit
	x.Usage.Memory = max(x.Usage.Memory, b.group.peak())
	x.Usage.CPU = b.group.cpu()
	if s := b.keeper.ProcessState; x.Usage.CPU == 0 && s != nil {
		x.Usage.CPU = s.UserTime() + s.SystemTime()
	}
	// What the kernel did may have been the command's end, before anybody looked.
	b.refused()
	b.group.killAll()
	select {
	case <-b.copied:
	case <-time.After(5 * time.Second):
		// Something that we may not kill holds the log open.
		b.log.Close()
		<-b.copied
	}
	if b.full.Load() && x.Limit == "" && !x.Stopped {
		x.Limit = LimitLog
	}
}

// end says how the command ended.
func (b *caged) end() (*Exit, error) {
	x := &b.exit
	soon := time.Now().Add(time.Second)
	b.report.SetReadDeadline(soon)
	if data := <-b.reports; len(data) == 0 {
		x.Killed = true
	} else if err := json.Unmarshal(data, &x.Report); err != nil {
		x.Killed = true
	}
	b.out.SetReadDeadline(soon)
	takeErr := <-b.taken
	x.Usage.Disk = max(x.Usage.Disk, b.space.walk(time.Now()), x.Report.Disk)
	x.Usage.Log = b.size.Load()
	x.Usage.End = time.Now().UTC()
	if b.logErr != nil {
		return nil, fmt.Errorf("write build log: %w", b.logErr)
	}
	if x.Limit != "" || x.Stopped {
		return x, nil
	}
	if x.Report.Error != "" {
		err := errors.New(x.Report.Error)
		if x.Report.Setup {
			err = fmt.Errorf("%s: %w", x.Report.Error, ErrSetup)
		}
		return nil, err
	}
	if takeErr != nil && !x.Killed {
		return nil, takeErr
	}
	return x, nil
}

// startCure says what to do about a warden that cannot be born.
func startCure(err error, o *Order) error {
	if o.clone()&unix.CLONE_NEWUSER != 0 && (errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSPC)) {
		return fmt.Errorf("%w: user namespaces are not allowed here; set user.max_user_namespaces and, "+
			"on Debian before 11, kernel.unprivileged_userns_clone: %w", err, ErrSetup)
	}
	if o.Own && errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w: namespaces are not allowed here: %w", err, ErrSetup)
	}
	return err
}

// onThread runs f on a thread that stays until f ends: the signal of a
// parent's death comes when the thread dies that made the child (prctl(2)).
func onThread(f func()) {
	done := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer close(done)
		f()
	}()
	<-done
}
