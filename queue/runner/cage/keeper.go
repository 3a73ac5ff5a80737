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
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Names under which this program starts itself again.
const (
	keeperName = "packmill-build-keeper"
	wardenName = "packmill-build-warden"
)

// DefaultPath is the PATH of what runs in a cage.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Descriptors of keeper and warden. Standard output and error are the log.
const (
	orderFd  = 3 // one JSON line; open as long as the command is wanted
	reportFd = 4 // one JSON object
	outFd    = 5 // what the warden hands out
	filesFd  = 6 // Order.Files files; after them, the keeper's locks
)

// Order is what keeper and warden are told.
type Order struct {
	Verb string // of Reexec's verbs; empty: run Argv
	Own  bool   // the command has a pid and a mount namespace of its own

	// User is whom Argv runs as; nil: as the daemon. With Ranges there is a user
	// namespace too, in which the warden may do what root may to the files of
	// the user and of these ids; and an ipc, a uts and a cgroup namespace.
	User   *Account
	Ranges []Range
	As     Identity // whom Argv runs as in the user namespace

	Argv    []string
	Env     []string
	Dir     string
	After   []string // run when the command and all that it left have ended, also if the daemon has
	Nice    int
	Tasks   int    // more processes than this are refused to the user; 0: no limit
	View    *View  // with Ranges: what is seen of the machine; nil: all
	Files   int    // how many files the warden gets
	Linux32 bool   // say that this is a 32-bit machine (personality(2))
	Detail  []byte // for the verb
}

// Identity is whom a command in a user namespace runs as.
type Identity int

const (
	AsUser   Identity = iota // the account, with no right but to make namespaces of the order's ranges
	AsKeeper                 // the account, with root's rights over the account's and the ranges' files
	AsRoot                   // root of a further namespace, of the first range alone
)

// Report is what a warden says at its end.
type Report struct {
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
	Files    []string // overlay: of which files

	Cache        int64 // overlay: bytes of the compiler cache that follows the results; 0: none does
	Hits, Misses int64 // overlay: of that cache
}

// fail puts an error into the report.
func (r *Report) fail(err error) {
	r.Error, r.Setup = err.Error(), errors.Is(err, ErrSetup)
}

// send writes the report.
func (r *Report) send() int {
	data, err := json.Marshal(r)
	if err == nil {
		_, err = os.NewFile(reportFd, "report").Write(data)
	}
	if err != nil {
		return 111
	}
	return 0
}

func (o *Order) clone() uintptr {
	var flags uintptr
	if o.Own {
		flags |= unix.CLONE_NEWPID | unix.CLONE_NEWNS
	}
	if len(o.Ranges) > 0 {
		flags |= unix.CLONE_NEWUSER | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWCGROUP
	}
	return flags
}

// Reexec turns this process into a keeper or a warden if a cage started it as
// one, and does not return then. Call it first in main.
func Reexec(verbs map[string]Verb) {
	if len(os.Args) == 0 {
		return
	}
	switch {
	case os.Args[0] == keeperName:
		os.Exit(keep())
	case os.Args[0] == wardenName:
		os.Exit(ward(verbs))
	case filepath.Base(os.Args[0]) == "chroot":
		os.Exit(changeRoot(os.Args[1:]))
	}
}

// keep is the keeper: it starts the warden, and ends when nothing is left of
// it. Its locks are open until then.
func keep() int {
	unix.CloseRange(3, 1<<31-1, unix.CLOSE_RANGE_CLOEXEC)
	orders := bufio.NewReader(os.NewFile(orderFd, "order"))
	line, err := orders.ReadBytes('\n')
	if err != nil {
		return 111 // the daemon is gone, or changed its mind
	}
	var o Order
	if err := json.Unmarshal(line, &o); err != nil {
		(&Report{Error: fmt.Sprintf("build order: %v", err)}).send()
		return 0
	}
	if !o.Own {
		// What a killed warden leaves comes to this process.
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			(&Report{Error: fmt.Sprintf("become subreaper: %v", err)}).send()
			return 0
		}
	}
	status := 0
	onThread(func() { status = o.keep(line, orders) })
	return status
}

// keep starts the warden and waits for its end and that of all below it.
func (o *Order) keep(line []byte, orders io.Reader) int {
	files := []*os.File{os.NewFile(reportFd, "report"), os.NewFile(outFd, "out")}
	for i := range o.Files {
		files = append(files, os.NewFile(uintptr(filesFd+i), "file"))
	}
	warden, tell, err := o.startWarden(files)
	if err != nil {
		r := &Report{}
		r.fail(err)
		status := r.send()
		runtime.KeepAlive(files)
		return status
	}
	for _, f := range files {
		f.Close() // they are the warden's
	}
	var killing sync.Mutex // what is killed is not After
	ended := false
	go func() {
		// The pipe ends when the daemon dies or wants the command dead.
		io.Copy(io.Discard, orders)
		if o.Own {
			warden.Process.Kill()
			return
		}
		for done := false; !done; time.Sleep(time.Millisecond) {
			killing.Lock()
			if done = ended; !done {
				killDescendants()
			}
			killing.Unlock()
		}
	}()
	tell.Write(line)
	// Process 1 of a pid namespace ends last in it.
	warden.Wait()
	if !o.Own {
		killing.Lock()
		killDescendants()
		ended = true
		killing.Unlock()
	}
	if len(o.After) > 0 {
		// It complains where the command has left nothing to do.
		exec.Command(o.After[0], o.After[1:]...).Run()
	}
	return 0
}

// startWarden starts the warden, in namespaces of its own, and returns the pipe
// to tell it the order.
func (o *Order) startWarden(files []*os.File) (*exec.Cmd, *os.File, error) {
	orderR, orderW, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer orderR.Close()
	warden := &exec.Cmd{
		Path:       "/proc/self/exe",
		Args:       []string{wardenName},
		Env:        []string{"PATH=" + DefaultPath, "GOMAXPROCS=2"},
		Dir:        "/",
		Stdout:     os.Stdout,
		Stderr:     os.Stderr,
		ExtraFiles: append([]*os.File{orderR}, files...),
		SysProcAttr: &syscall.SysProcAttr{
			Setsid:     true,
			Pdeathsig:  syscall.SIGKILL,
			Cloneflags: o.clone(),
		},
	}
	if !o.Own {
		// It must have the time to kill what it inherits; it sees the
		// keeper's end on its order pipe.
		warden.SysProcAttr.Pdeathsig = 0
	}
	if len(o.Ranges) > 0 {
		o.mapUsers(warden.SysProcAttr)
	}
	if err := warden.Start(); err != nil {
		return nil, nil, fmt.Errorf("start build helper: %w", startCure(err, o))
	}
	if err := o.mapLater(warden.Process.Pid); err != nil {
		warden.Process.Kill()
		warden.Wait()
		return nil, nil, err
	}
	return warden, orderW, nil
}
