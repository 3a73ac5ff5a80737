package cage

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Verb is what a warden does with an order of that verb.
type Verb func(*Warden) error

// Warden is the process that stands above the command. Where the order has
// ranges it is the account in the user namespace, with all rights over it.
// While a command runs it has no descriptor of a directory or a file of the
// machine.
type Warden struct {
	*Order
	Report  Report
	Sources []*os.File // the order's files; whoever reads them closes them
	Out     *os.File   // a pipe to Cage.Take

	killing sync.Mutex // two that kill would reap each other's
}

// ward is the warden.
func ward(verbs map[string]Verb) int {
	// What a thread has, such as a session keyring, its children have.
	runtime.LockOSThread()
	unix.CloseRange(3, 1<<31-1, unix.CLOSE_RANGE_CLOEXEC)
	orders := bufio.NewReader(os.NewFile(orderFd, "order"))
	line, err := orders.ReadBytes('\n')
	if err != nil {
		return 111
	}
	w := &Warden{Order: &Order{}, Out: os.NewFile(outFd, "out")}
	if err := json.Unmarshal(line, w.Order); err != nil {
		w.Report.fail(fmt.Errorf("build order: %w", err))
		return w.Report.send()
	}
	for i := range w.Files {
		w.Sources = append(w.Sources, os.NewFile(uintptr(filesFd+i), "file"))
	}
	go func() {
		// The pipe ends with the keeper.
		io.Copy(io.Discard, orders)
		if !w.Own {
			w.killing.Lock()
			killDescendants()
		}
		os.Exit(111)
	}()
	if err := w.act(verbs); err != nil {
		w.Report.fail(err)
	}
	return w.Report.send()
}

// act does what the order says.
func (w *Warden) act(verbs map[string]Verb) error {
	unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	if w.Nice != 0 {
		now, _ := unix.Getpriority(unix.PRIO_PROCESS, 0) // the bare call gives 20 - niceness
		unix.Setpriority(unix.PRIO_PROCESS, 0, min(20-now+w.Nice, 19))
	}
	// When memory runs out, a build goes before the daemons.
	os.WriteFile("/proc/self/oom_score_adj", []byte("500"), 0)
	// A keyring without a key, or the daemon's would be the command's too.
	unix.Syscall(unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0)
	if w.Linux32 {
		const perLinux32 = 0x0008
		if _, _, err := unix.Syscall(unix.SYS_PERSONALITY, perLinux32, 0, 0); err != 0 {
			return fmt.Errorf("personality: %w", err)
		}
	}
	if err := w.separate(); err != nil {
		return err
	}
	if w.Verb == "" {
		return w.run()
	}
	verb := verbs[w.Verb]
	if verb == nil {
		return fmt.Errorf("build helper: unknown verb %q", w.Verb)
	}
	return verb(w)
}

// separate completes what the namespaces began.
func (w *Warden) separate() error {
	if !w.Own {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("become subreaper: %w", err)
		}
		return nil
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if len(w.Ranges) == 0 {
		return nil
	}
	if err := syscall.Setgroups(nil); err != nil {
		return fmt.Errorf("leave the groups: %w", err)
	}
	unix.Sethostname([]byte(hostname))
	scopeSockets()
	return nil
}

// hostname is that of the machine that a build sees.
const hostname = "packmill"

// scopeSockets keeps this thread and what it starts from abstract sockets of
// processes outside, which belong to a network and not to a file system, where
// the kernel can (landlock(7), Linux 6.12). It has no say where it can not.
func scopeSockets() {
	const scopeAbstract, scopeSignal = 1, 2
	attr := struct{ fs, net, scoped uint64 }{scoped: scopeAbstract | scopeSignal}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if errno != 0 {
		return
	}
	defer unix.Close(int(fd))
	unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0)
}

// MountProc mounts the pid namespace's /proc at a directory.
func MountProc(at string) error {
	if err := unix.Mount("proc", at, "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	return nil
}

// run runs one command to its end and then ends everything it left behind.
func (w *Warden) run() error {
	if w.View != nil {
		if err := w.View.mount(w); err != nil {
			return err
		}
	}
	if w.Own {
		if err := MountProc("/proc"); err != nil {
			return err
		}
	}
	c := &Command{Argv: w.Argv, Env: w.Env, Dir: w.Dir, Attr: w.attr()}
	if w.Tasks > 0 && os.Getuid() != 0 {
		// Not for this process: its own threads need room.
		c.limitTasks(w.Tasks + tasksOf(os.Getuid()))
	}
	var err error
	w.Report.Exit, w.Report.Signal, err = c.Run()
	if !w.Own {
		w.killing.Lock()
		defer w.killing.Unlock()
		killDescendants()
	} else {
		KillOthers()
	}
	if w.View != nil {
		w.Report.Disk = Used(ViewRoot)
		if err == nil && w.View.Hand != "" {
			if err := HandOut(w.Out, filepath.Join(ViewRoot, w.View.Hand)); err != nil {
				fmt.Printf("E: %v\n", err) // the daemon sees what is missing
			}
		}
	}
	return err
}

// attr is whom the command runs as.
func (w *Warden) attr() *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setsid: true}
	switch {
	case len(w.Ranges) == 0 && w.User != nil:
		a.Credential = &syscall.Credential{Uid: uint32(w.User.UID), Gid: uint32(w.User.GID), Groups: w.User.Groups}
	case len(w.Ranges) == 0:
	case w.As == AsRoot:
		return w.Ranges[0].Inside(0)
	case w.As == AsUser:
		// newuidmap is setuid to a root that the namespace does not have.
		unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
		a.AmbientCaps = []uintptr{unix.CAP_SETUID, unix.CAP_SETGID}
	}
	return a
}

// Command is a program that a warden runs.
type Command struct {
	Argv, Env []string
	Dir       string
	In        *os.File // standard input; nil: null
	Out       *os.File // standard output; nil: the log
	Attr      *syscall.SysProcAttr
}

// LimitTasks has more processes and threads than n refused to the command's user.
func (c *Command) limitTasks(n int) {
	c.Argv = append([]string{"prlimit", fmt.Sprintf("--nproc=%d:%d", n, n), "--"}, c.Argv...)
}

// LimitTasks has more processes than n refused to the command; 0: no limit.
func (c *Command) LimitTasks(n int) *Command {
	if n > 0 {
		c.limitTasks(n)
	}
	return c
}

// Run runs the command, with null, the log and nothing else open, and reaps
// whatever ends until the command has. signal is what ended it, or 0.
func (c *Command) Run() (code, signal int, err error) {
	path := c.Argv[0]
	if !filepath.IsAbs(path) {
		if path, err = exec.LookPath(path); err != nil {
			return 0, 0, fmt.Errorf("%w: install it: %w", err, ErrSetup)
		}
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, 0, err
	}
	defer null.Close()
	in, out := null.Fd(), uintptr(1)
	if c.In != nil {
		in = c.In.Fd()
	}
	if c.Out != nil {
		out = c.Out.Fd()
	}
	pid, err := syscall.ForkExec(path, c.Argv,
		&syscall.ProcAttr{Dir: c.Dir, Env: c.Env, Files: []uintptr{in, out, 2}, Sys: c.Attr})
	if err != nil {
		return 0, 0, fmt.Errorf("start %s: %w: %w", path, err, ErrSetup)
	}
	for {
		var status syscall.WaitStatus
		got, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return 0, 0, fmt.Errorf("wait for %s: %w", path, err)
		case got == pid && status.Exited():
			return status.ExitStatus(), 0, nil
		case got == pid && status.Signaled():
			return -1, int(status.Signal()), nil
		}
	}
}

// KillOthers ends everything else in the pid namespace and reaps it.
func KillOthers() {
	for {
		if unix.Kill(-1, unix.SIGKILL) == unix.ESRCH {
			return
		}
		var status syscall.WaitStatus
		if _, err := syscall.Wait4(-1, &status, 0, nil); err == syscall.ECHILD {
			return
		}
	}
}

// Used is how much of the file system at a path is in use, in bytes.
func Used(path string) int64 {
	var st unix.Statfs_t
	if unix.Statfs(path, &st) != nil {
		return 0
	}
	return int64(st.Blocks-st.Bfree) * st.Bsize
}

// changeRoot is chroot(8) as sbuild's unshare mode calls it, in a mount
// namespace that nobody else has: the old root is left for good, with no mount
// of it, so that root inside finds no way back.
func changeRoot(args []string) int {
	fail := func(status int, err error) int {
		fmt.Fprintln(os.Stderr, "chroot:", err)
		return status
	}
	if len(args) < 2 || strings.HasPrefix(args[0], "-") && args[0] != SessionFlag {
		return fail(125, errors.New("a directory and a command are needed"))
	}
	root, argv := args[0], args[1:]
	if args[0] == SessionFlag {
		var err error
		if root, argv, err = session(args[1:]); err != nil {
			return fail(125, err)
		}
	}
	if err := pivot(root); err != nil {
		return fail(125, err)
	}
	path, err := exec.LookPath(argv[0])
	if err == nil {
		err = syscall.Exec(path, argv, os.Environ())
	}
	return fail(127, err)
}

// pivot makes a directory the root and takes the old root away.
func pivot(dir string) error {
	if err := unix.Mount(dir, dir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mount %s: %w", dir, err)
	}
	return Pivot(dir)
}

// Pivot makes a mounted directory the root and takes the old root away.
func Pivot(dir string) error {
	if err := unix.Chdir(dir); err != nil {
		return fmt.Errorf("enter %s: %w", dir, err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the old root: %w", err)
	}
	return unix.Chdir("/")
}
