package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// accountArg makes this program run a command and say on descriptor 3 what it
// used: COMMAND [ARG ...].
const accountArg = "--account"

// used is what a command needed, user and system time together, with all
// processes that it started and that ended before it: also those whose parents
// did not wait for them, as gpgme leaves gpg behind.
type used struct {
	wall, cpu time.Duration
	memory    int64 // bytes, the largest process
}

// measured runs a command and returns what it used. Text that it writes is
// the error's if it fails.
func measured(env []string, dir string, args ...string) (used, error) {
	return limited(context.Background(), env, dir, args...)
}

// limited is measured for a command that is stopped, with all that it started,
// when ctx ends; then the error is ctx's.
func limited(ctx context.Context, env []string, dir string, args ...string) (used, error) {
	u, _, err := account(ctx, env, dir, args...)
	return u, err
}

// account runs a command in a process that collects whatever the command
// leaves behind, so that the kernel counts it there.
func account(ctx context.Context, env []string, dir string, args ...string) (u used, output string, err error) {
	self, err := os.Executable()
	if err != nil {
		return used{}, "", err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return used{}, "", err
	}
	defer r.Close()
	cmd := exec.CommandContext(ctx, self, append([]string{accountArg}, args...)...)
	cmd.Env, cmd.Dir, cmd.ExtraFiles = append(os.Environ(), env...), dir, []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 10 * time.Second // a daemon that was started may hold the pipe
	err = cmd.Run()
	w.Close()
	if ctx.Err() != nil {
		return used{}, "", ctx.Err()
	}
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		text := out.String()
		return used{}, "", fmt.Errorf("%s: %w: %s", strings.Join(args[:min(3, len(args))], " "), err,
			text[max(0, len(text)-2000):])
	}
	var line [3]int64
	if err := json.NewDecoder(r).Decode(&line); err != nil {
		return used{}, "", fmt.Errorf("%s: no account of it: %w", args[0], err)
	}
	return used{time.Duration(line[0]), time.Duration(line[1]), line[2]}, out.String(), nil
}

// accountProcess does what accountArg says, and ends as the command did.
func accountProcess(args []string) (done bool, err error) {
	if len(args) < 2 || args[0] != accountArg {
		return false, nil
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return true, err
	}
	account := os.NewFile(3, "account")
	syscall.CloseOnExec(3)
	path, err := exec.LookPath(args[1])
	if err != nil {
		return true, err
	}
	t := time.Now()
	p, err := os.StartProcess(path, args[1:], &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
	if err != nil {
		return true, err
	}
	var line [3]int64
	var status unix.WaitStatus
	for flags := 0; ; {
		var st unix.WaitStatus
		pid, err := unix.Wait4(-1, &st, flags, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid == 0 {
			break
		}
		if pid == p.Pid {
			// What still runs then is a daemon.
			line[0], status, flags = int64(time.Since(t)), st, unix.WNOHANG
		}
	}
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_CHILDREN, &ru); err != nil {
		return true, err
	}
	line[1], line[2] = ru.Utime.Nano()+ru.Stime.Nano(), ru.Maxrss<<10
	if err := json.NewEncoder(account).Encode(line); err != nil {
		return true, err
	}
	if !status.Exited() {
		return true, fmt.Errorf("%s was killed by signal %d", args[1], status.Signal())
	}
	os.Exit(status.ExitStatus())
	return true, nil
}

// agentCPU is what the gpg-agent of the home directory has used so far: gpg
// lets it sign, and it is nobody's child.
func agentCPU(gnupg string) (time.Duration, error) {
	cmd := exec.Command("gpg-connect-agent", "--no-autostart", "getinfo pid", "/bye")
	cmd.Env = append(os.Environ(), "GNUPGHOME="+gnupg)
	out, err := cmd.Output()
	w := strings.Fields(string(out))
	if err != nil || len(w) < 2 {
		return 0, nil // it does not run yet
	}
	pid, err := strconv.Atoi(w[1])
	if err != nil {
		return 0, fmt.Errorf("gpg-agent says %q for its process: %w", out, err)
	}
	// The clock of another process's CPU time (clock_getcpuclockid(3)).
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^uint32(pid)<<3|2), &ts); err != nil {
		return 0, fmt.Errorf("CPU time of gpg-agent: %w", err)
	}
	return time.Duration(ts.Nano()), nil
}

// signing is limited for a command that has gpg sign.
func signing(ctx context.Context, gnupg, dir string, args ...string) (used, error) {
	before, err := agentCPU(gnupg)
	if err != nil {
		return used{}, err
	}
	u, err := limited(ctx, []string{"GNUPGHOME=" + gnupg}, dir, args...)
	if err != nil {
		return u, err
	}
	after, err := agentCPU(gnupg)
	u.cpu += after - before
	return u, err
}

// plus is what two commands need one after the other.
func (u used) plus(o used) used {
	return used{u.wall + o.wall, u.cpu + o.cpu, max(u.memory, o.memory)}
}
