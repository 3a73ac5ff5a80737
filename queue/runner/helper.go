package runner

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
	"time"

	"golang.org/x/sys/unix"
)

// helperName is the name under which this program starts itself again.
const helperName = "packmill-build-helper"

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Descriptors of a helper. Standard output and error are the log.
const (
	orderFd  = 3 // one JSON line; open as long as the daemon wants the build
	reportFd = 4 // one JSON object
	lockFd   = 5 // the item's lock, or /dev/null
)

// order is what a helper is told.
type order struct {
	Verb string
	Init bool // in a pid and a mount namespace of its own

	Argv        []string
	Env         []string
	Dir         string
	After       []string // not Init: run when the command and all that it left have ended, also if the daemon has
	User        *account // become this user for the command; nil: stay
	Nice        int
	Tasks       int // more processes than this are refused to the user; 0: no limit
	View        *view
	Roots       *idmap // a user namespace
	Inside      *inside
	Personality bool // say that this is a 32-bit machine

	killing sync.Mutex // what is killed is not After
}

// report is what a helper says at its end.
type report struct {
	Exit   int           // exit status of the command; -1: ended by Signal
	Signal int           // signal that ended it
	Error  string        // the command was not run
	Setup  bool          // Error needs a change of the machine
	Stage  string        // overlay: where the build ended
	Status string        // overlay: like sbuild's
	Fetch  bool          // overlay: a download failed
	Spent  time.Duration // overlay: before and after apt and the build
	Disk   int64         // scratch space in use at the end, bytes

	Layer    string   // overlay: key of the build-dependencies' layer
	Packages []string // overlay: what is in it, as apt says
}

// view is a private place for a build user: a file system in memory with
// the files it may see, mounted where only this build sees it. It goes when
// the build's namespace does.
type view struct {
	Size  int64             // bytes; 0: the kernel's half of the memory
	Dirs  []string          // made in it, owned by the user
	Copy  map[string]string // name in it: file to copy, readable by the user
	Binds map[string]string // name in it: directory or file to mount
}

// viewRoot is where a view is mounted. The File Hierarchy Standard has it on
// every machine; the rest of the machine does not see the mount.
const viewRoot = "/mnt"

func (o *order) clone() uintptr {
	var flags uintptr
	if o.Init {
		flags |= unix.CLONE_NEWPID | unix.CLONE_NEWNS
	}
	if o.Roots != nil {
		flags |= unix.CLONE_NEWUSER | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC
	}
	return flags
}

// Reexec turns this process into a build's helper if a runner started it as
// one, and does not return then. Call it first in main.
func Reexec() {
	if len(os.Args) == 0 || os.Args[0] != helperName {
		return
	}
	os.Exit(helper())
}

func helper() int {
	reportFile := os.NewFile(reportFd, "report")
	// What the daemon handed over is for this process, not for the build.
	unix.CloseRange(3, ^uint(0)>>1&0x7fffffff, unix.CLOSE_RANGE_CLOEXEC)
	orders := bufio.NewReader(os.NewFile(orderFd, "order"))
	line, err := orders.ReadBytes('\n')
	if err != nil {
		return 111 // the daemon is gone, or changed its mind
	}
	r := &report{}
	finish := func() int {
		data, err := json.Marshal(r)
		if err == nil {
			_, err = reportFile.Write(data)
		}
		if err != nil {
			return 111
		}
		return 0
	}
	var o order
	if err := json.Unmarshal(line, &o); err != nil {
		r.Error = fmt.Sprintf("build order: %v", err)
		return finish()
	}
	// The pipe ends when the daemon dies or wants the build dead.
	go func() {
		io.Copy(io.Discard, orders)
		if !o.Init {
			o.killing.Lock()
			killDescendants()
			o.killing.Unlock()
		}
		if len(o.After) == 0 {
			os.Exit(111)
		}
	}()
	if err := o.act(r); err != nil {
		r.Error = err.Error()
		r.Setup = errors.Is(err, ErrSetup)
	}
	return finish()
}

// act does what the order says.
func (o *order) act(r *report) error {
	unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	if o.Nice != 0 {
		// A thread's, and its children's: what this goroutine starts.
		runtime.LockOSThread()
		now, _ := unix.Getpriority(unix.PRIO_PROCESS, 0) // the bare call gives 20 - niceness
		unix.Setpriority(unix.PRIO_PROCESS, 0, min(20-now+o.Nice, 19))
	}
	// When memory runs out, a build goes before the daemons.
	os.WriteFile("/proc/self/oom_score_adj", []byte("500"), 0)
	if o.Init {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("make mounts private: %w", err)
		}
	} else if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become subreaper: %w", err)
	}
	switch o.Verb {
	case "run":
		return o.run(r)
	case "overlay":
		return o.overlay(r)
	}
	return fmt.Errorf("build helper: unknown verb %q", o.Verb)
}

// run runs one command to its end and then everything it left behind.
func (o *order) run(r *report) error {
	if o.Init {
		if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
			return fmt.Errorf("mount /proc: %w", err)
		}
	}
	if o.View != nil {
		if err := o.View.mount(o.User); err != nil {
			return err
		}
	}
	attr := &syscall.SysProcAttr{Setsid: true}
	if o.User != nil {
		attr.Credential = &syscall.Credential{Uid: uint32(o.User.UID), Gid: uint32(o.User.GID), Groups: o.User.Groups}
	}
	argv := o.Argv
	if o.Tasks > 0 && os.Getuid() != 0 {
		// Not for this process: its own threads need room.
		n := o.Tasks + tasksOf(os.Getuid())
		argv = append([]string{"prlimit", fmt.Sprintf("--nproc=%d:%d", n, n), "--"}, argv...)
	}
	var err error
	r.Exit, r.Signal, err = spawn(argv, o.Env, o.Dir, attr)
	if !o.Init {
		o.killing.Lock()
		defer o.killing.Unlock()
		killDescendants()
		if len(o.After) > 0 {
			// It complains where the command has left nothing to do.
			exec.Command(o.After[0], o.After[1:]...).Run()
		}
	}
	if o.View != nil {
		var st unix.Statfs_t
		if unix.Statfs(viewRoot, &st) == nil {
			r.Disk = int64(st.Blocks-st.Bfree) * st.Bsize
		}
	}
	return err
}

// spawn runs a command with the lock as its descriptor 3 and reaps whatever
// ends until the command has. The command's output is the log.
func spawn(argv, env []string, dir string, attr *syscall.SysProcAttr) (code, signal int, err error) {
	return spawnTo(1, argv, env, dir, attr)
}

// spawnTo is spawn with another standard output.
func spawnTo(out uintptr, argv, env []string, dir string, attr *syscall.SysProcAttr) (code, signal int, err error) {
	path := argv[0]
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
	pid, err := syscall.ForkExec(path, argv, &syscall.ProcAttr{
		Dir: dir, Env: env, Files: []uintptr{null.Fd(), out, 2, lockFd}, Sys: attr,
	})
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

// mount makes the view. The helper is root in a mount namespace of its own.
func (v *view) mount(user *account) error {
	// Sources are opened before the mount hides what lies below it.
	sources := map[string]*os.File{}
	defer func() {
		for _, f := range sources {
			f.Close()
		}
	}()
	for name, path := range v.Copy {
		f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if err != nil {
			return fmt.Errorf("build view: %w", err)
		}
		sources[name] = f
	}
	for name, path := range v.Binds {
		fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("build view: open %s: %w", path, err)
		}
		sources[name] = os.NewFile(uintptr(fd), path)
	}
	options := "mode=755"
	if v.Size > 0 {
		options += fmt.Sprintf(",size=%d", v.Size)
	}
	if err := unix.Mount("tmpfs", viewRoot, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return fmt.Errorf("mount build view on %s: %w", viewRoot, err)
	}
	own := func(path string) error {
		if user == nil {
			return nil
		}
		return os.Chown(path, user.UID, user.GID)
	}
	for _, d := range v.Dirs {
		if err := os.Mkdir(filepath.Join(viewRoot, d), 0o755); err != nil {
			return fmt.Errorf("build view: %w", err)
		}
		if err := own(filepath.Join(viewRoot, d)); err != nil {
			return fmt.Errorf("build view: %w", err)
		}
	}
	for name := range v.Copy {
		to := filepath.Join(viewRoot, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return fmt.Errorf("build view: %w", err)
		}
		f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return fmt.Errorf("build view: %w", err)
		}
		_, err = io.Copy(f, sources[name])
		if err = errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("build view: copy %s: %w", filepath.Base(to), err)
		}
	}
	for name := range v.Binds {
		to := filepath.Join(viewRoot, name)
		f := sources[name]
		info, err := f.Stat()
		if err != nil {
			return fmt.Errorf("build view: %w", err)
		}
		if info.IsDir() {
			err = os.MkdirAll(to, 0o755)
		} else if err = os.MkdirAll(filepath.Dir(to), 0o755); err == nil {
			err = os.WriteFile(to, nil, 0o644)
		}
		if err != nil {
			return fmt.Errorf("build view: %w", err)
		}
		from := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
		if err := unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("build view: mount %s: %w", strings.TrimPrefix(f.Name(), viewRoot), err)
		}
	}
	// Programs that insist on /tmp get this one: nobody else sees what they
	// write there, and it goes too.
	if exists(viewRoot + "/tmp") {
		if err := unix.Mount(viewRoot+"/tmp", "/tmp", "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("build view: mount /tmp: %w", err)
		}
	}
	return nil
}
