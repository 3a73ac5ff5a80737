package runner

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

// cage runs one command so that nothing of it outlives the call, whatever it
// does, nor the daemon if that dies.
//
// Between the daemon and the command stands a helper, this same program
// started again (see Reexec). Where the daemon is root, or the build has a
// user namespace, the helper is process 1 of a new pid namespace: its end is
// the end of all. Elsewhere it is a subreaper that kills what it inherits.
// The kernel kills the helper when the daemon dies; all of them hold the
// item's lock. A control group is used on top where one can be made.
type cage struct {
	log    *os.File // nil: output is thrown away
	lock   *os.File
	limits Limits
	disk   []string   // directories whose size is watched
	hold   []*os.File // further descriptors of the helper, from 6 on
}

// exit is how a caged command ended.
type exit struct {
	report         // what the helper says
	Limit   string // the limit that ended it
	Stopped bool   // the context ended it
	Killed  bool   // the helper gave no report
	OOM     bool   // the memory limit killed a process
	Usage   Usage
}

// after adds what an earlier run of the same build took.
func (x *exit) after(first *exit) {
	if first == nil {
		return
	}
	x.Usage.Start = first.Usage.Start
	x.Usage.CPU += first.Usage.CPU
	x.Usage.Memory = max(x.Usage.Memory, first.Usage.Memory)
	x.Usage.Disk = max(x.Usage.Disk, first.Usage.Disk)
	x.Usage.Log += first.Usage.Log
	x.Spent += first.Spent
}

// tick is how often limits are looked at.
const tick = 250 * time.Millisecond

// run starts the order's command and waits for its end. An error means that
// it was not run. prepare, if not nil, is called with the helper's process
// number after it was born and before it acts.
func (c *cage) run(ctx context.Context, o *order, prepare func(pid int) error) (*exit, error) {
	if err := ctx.Err(); err != nil {
		return &exit{Stopped: true}, nil
	}
	group, err := newCgroup(c.limits)
	if err != nil {
		return nil, err
	}
	defer group.remove()

	if c.limits.Tasks > 0 && group.pids == "" {
		// Not more than can be counted and killed; it is measured below.
		o.Tasks = c.limits.Tasks + c.limits.Tasks/8 + 8
	}
	text, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("build order: %w", err)
	}
	var toClose []io.Closer
	defer func() {
		for _, f := range toClose {
			f.Close()
		}
	}()
	pipe := func() (r, w *os.File) {
		if err == nil {
			if r, w, err = os.Pipe(); err == nil {
				toClose = append(toClose, r, w)
			}
		}
		return r, w
	}
	orderR, orderW := pipe()
	reportR, reportW := pipe()
	logR, logW := pipe()
	if err != nil {
		return nil, fmt.Errorf("build pipes: %w", err)
	}
	lock := c.lock
	if lock == nil {
		if lock, err = os.Open(os.DevNull); err != nil {
			return nil, err
		}
		toClose = append(toClose, lock)
	}

	cmd := &exec.Cmd{
		Path:       "/proc/self/exe",
		Args:       []string{helperName, o.Verb},
		Env:        []string{"PATH=" + defaultPath, "GOMAXPROCS=2"},
		Dir:        "/",
		Stdout:     logW,
		Stderr:     logW,
		ExtraFiles: []*os.File{orderR, reportW, lock}, // 3, 4, 5: see helper.go
		SysProcAttr: &syscall.SysProcAttr{
			Setsid:     true,
			Pdeathsig:  syscall.SIGKILL,
			Cloneflags: o.clone(),
		},
	}
	if !o.Init {
		// A subreaper must get the time to kill what it inherits: it sees
		// the end of the daemon on its order pipe.
		cmd.SysProcAttr.Pdeathsig = 0
	}
	o.mapUsers(cmd.SysProcAttr)
	cmd.ExtraFiles = append(cmd.ExtraFiles, c.hold...)

	start := time.Now()
	born := make(chan error)
	dead := make(chan error, 1)
	go func() {
		// The signal of a parent's death comes when the thread dies that
		// made the child (prctl(2)), so this thread stays until its end.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		born <- err
		if err == nil {
			dead <- cmd.Wait()
		}
	}()
	if err := <-born; err != nil {
		return nil, fmt.Errorf("start build helper: %w", startCure(err, o))
	}
	orderR.Close()
	reportW.Close()
	logW.Close()

	kill := func() {
		group.kill()
		orderW.Close()
		if o.Init {
			cmd.Process.Kill()
		}
	}
	abandon := func(err error) (*exit, error) {
		kill()
		cmd.Process.Kill()
		<-dead
		return nil, err
	}
	if err := group.add(cmd.Process.Pid); err != nil {
		// A group that vanished or refuses is done without.
		group.remove()
		group = &cgroup{}
	}
	if prepare != nil {
		if err := prepare(cmd.Process.Pid); err != nil {
			return abandon(err)
		}
	}
	if _, err := orderW.Write(append(text, '\n')); err != nil {
		return abandon(fmt.Errorf("build helper: %w: does main call build.Reexec first?", err))
	}

	var last atomic.Int64 // time of the last output
	last.Store(time.Now().UnixNano())
	var size atomic.Int64
	var logFull atomic.Bool
	var logErr error
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		buf := make([]byte, 128<<10)
		for {
			n, err := logR.Read(buf)
			if n > 0 {
				last.Store(time.Now().UnixNano())
				b := buf[:n]
				if l := c.limits.Log; l > 0 && size.Load()+int64(n) > l {
					b = b[:max(0, l-size.Load())]
					logFull.Store(true)
				}
				if len(b) > 0 && logErr == nil && c.log != nil {
					var w int
					w, logErr = c.log.Write(b)
					size.Add(int64(w))
				}
			}
			if err != nil {
				return
			}
		}
	}()
	reports := make(chan []byte, 1)
	go func() {
		data, _ := io.ReadAll(io.LimitReader(reportR, 1<<20))
		reports <- data
	}()

	x := &exit{}
	x.Usage.Start = start.UTC()
	end := func(limit string) {
		if x.Limit == "" && !x.Stopped {
			x.Limit = limit
			kill()
		}
	}
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	done := ctx.Done()
	hardKill := time.Time{}
	// What no control group measures or limits is watched by sampling.
	unkept := group.memory == "" || c.limits.Tasks > 0 && group.pids == ""
	watch := newWatch(c.disk)
	measured := time.Time{}
	for running := true; running; {
		select {
		case <-dead:
			running = false
		case <-done:
			done = nil
			x.Stopped = true
			kill()
		case now := <-ticker.C:
			l := c.limits
			switch {
			case logFull.Load():
				end(LimitLog)
			case l.Wall > 0 && now.Sub(start) > l.Wall:
				end(LimitWall)
			case l.Silence > 0 && now.UnixNano()-last.Load() > int64(l.Silence):
				end(LimitSilence)
			case group.oomKills() > 0:
				end(LimitMemory)
			case group.refusedForks() > 0:
				end(LimitTasks)
			}
			if unkept && now.Sub(measured) > time.Second {
				measured = now
				tasks, memory := measure(cmd.Process.Pid)
				x.Usage.Memory = max(x.Usage.Memory, memory)
				if l.Memory > 0 && memory > l.Memory {
					end(LimitMemory)
				}
				if l.Tasks > 0 && tasks > l.Tasks {
					end(LimitTasks)
				}
			}
			if used := watch.look(now, l.Disk); used > 0 {
				x.Usage.Disk = max(x.Usage.Disk, used)
				if l.Disk > 0 && used > l.Disk {
					end(LimitDisk)
				}
			}
			if x.Limit != "" || x.Stopped {
				// A helper that is no init ends when it has killed the
				// rest; if it does not, the rest is found by the lock.
				if hardKill.IsZero() {
					hardKill = now.Add(15 * time.Second)
				} else if now.After(hardKill) {
					cmd.Process.Kill()
				}
			}
		}
	}
	x.Usage.Memory = max(x.Usage.Memory, group.peak())
	x.Usage.CPU = group.cpu()
	if x.Usage.CPU == 0 && cmd.ProcessState != nil {
		x.Usage.CPU = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	}
	x.OOM = group.oomKills() > 0
	if group.refusedForks() > 0 && x.Limit == "" && !x.Stopped {
		x.Limit = LimitTasks
	}
	group.kill()
	killHolders(c.lock)
	select {
	case <-copied:
	case <-time.After(5 * time.Second):
		// Something that we may not kill holds the log open.
		logR.Close()
		<-copied
	}
	if logFull.Load() && x.Limit == "" && !x.Stopped {
		x.Limit = LimitLog
	}
	reportR.SetReadDeadline(time.Now().Add(time.Second))
	if data := <-reports; len(data) == 0 {
		x.Killed = true
	} else if err := json.Unmarshal(data, &x.report); err != nil {
		x.Killed = true
	}
	x.Usage.Disk = max(x.Usage.Disk, watch.walk(time.Now()))
	x.Usage.Disk = max(x.Usage.Disk, x.report.Disk)
	x.Usage.Log = size.Load()
	x.Usage.End = time.Now().UTC()
	if logErr != nil {
		return nil, fmt.Errorf("write build log: %w", logErr)
	}
	if x.report.Error != "" && x.Limit == "" && !x.Stopped {
		err := errors.New(x.report.Error)
		if x.report.Setup {
			err = fmt.Errorf("%s: %w", x.report.Error, ErrSetup)
		}
		return nil, err
	}
	return x, nil
}

// startCure says what to do about a helper that cannot be born.
func startCure(err error, o *order) error {
	if o.clone()&unix.CLONE_NEWUSER != 0 && (errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSPC)) {
		return fmt.Errorf("%w: user namespaces are not allowed here; set user.max_user_namespaces and, on Debian before 11, kernel.unprivileged_userns_clone: %w", err, ErrSetup)
	}
	if o.Init && errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w: namespaces are not allowed here: %w", err, ErrSetup)
	}
	return err
}
