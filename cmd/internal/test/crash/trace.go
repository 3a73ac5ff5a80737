//go:build linux && amd64

package crash

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Program is what Trace runs.
type Program struct {
	Path string
	Args []string // without the program's own name
	Env  []string // nil: the caller's
	Dir  string

	Roots      []string // trees whose changes count
	Children   bool     // count the changes of child processes too
	Reads      bool     // count opens for reading too
	KillAll    bool     // a kill takes the children along, as a power cut does
	KillCaller bool     // a kill takes the process whose call it is, also if that is a child
	Limit      time.Duration
}

// A Deed is what happens to one call.
type Deed int

const (
	Pass       Deed = iota
	KillBefore      // the program dies, the call does not happen
	KillAfter       // the call happens, the program does not hear of it
	Fail            // the call does nothing and returns Errno
	FailDone        // the call happens and returns Errno
	Short           // a write is cut to half of its length
	ShortKill       // the same, and the program dies
)

var deedNames = [...]string{"pass", "kill before", "kill after", "fail", "fail but done", "cut short",
	"cut short and kill"}

func (d Deed) String() string { return deedNames[d] }

// An Act is a Deed, and the error of those that fail.
type Act struct {
	Deed  Deed
	Errno unix.Errno
}

func (a Act) String() string {
	if a.Errno != 0 {
		return a.Deed.String() + " " + unix.ErrnoName(a.Errno)
	}
	return a.Deed.String()
}

// A Call is one system call that changes, or would change, a tree.
type Call struct {
	N     int // from 1
	PID   int
	Child bool // not made by the program itself but by a process below it
	Name  string
	verb  verb

	Path  string // absolute, with the directory's own links resolved
	Path2 string // of rename and link: the new name
	ino   uint64 // object of Path or of the descriptor before the call; 0 if there is none
	ino2  uint64 // object of Path2 before the call

	Flags  int
	Length int   // of a write
	Offset int64 // of a write or truncation
	Data   []byte

	Result int64 // after the call: at least 0, or
	Errno  unix.Errno
	Act    Act

	shape shape
	tid   int
	fd    int
}

func (c *Call) String() string {
	s := fmt.Sprintf("%d %s %s", c.N, c.Name, c.Path)
	if c.Path2 != "" {
		s += " -> " + c.Path2
	}
	if c.verb == vWrite {
		s += fmt.Sprintf(" %d bytes at %d", c.Length, c.Offset)
	}
	return s
}

// Syncs reports whether the call only makes earlier changes durable.
func (c *Call) Syncs() bool { return c.verb == vSync || c.verb == vSyncFS || c.verb == vSyncRange }

// Opens reports whether the call opens a file.
func (c *Call) Opens() bool { return c.verb == vOpen }

// Writes reports whether the call is a write with a length that can be cut.
func (c *Call) Writes() bool { return c.verb == vWrite && c.Length > 1 && c.shape.size >= 0 }

// Grows reports whether the call needs room on the disk.
func (c *Call) Grows() bool {
	switch c.verb {
	case vWrite, vClone, vAllocate, vLink, vSymlink, vMkdir, vMknod, vRename, vSync:
		return true
	case vOpen:
		return c.Flags&unix.O_CREAT != 0
	}
	return false
}

// A Run is what became of a traced program.
type Run struct {
	Calls  int // that counted
	Status unix.WaitStatus
	Output []byte // standard output and standard error
	Struck *Call  // the last call that did not pass
}

// Exit is the program's exit status, or -1 if a signal ended it.
func (r *Run) Exit() int { return r.Status.ExitStatus() }

// ErrLimit says that a program did not end in its time and was killed.
var ErrLimit = errors.New("time limit")

type thread struct {
	tid, tgid int
	born      bool  // its first stop is behind it
	call      *Call // while inside a counted call
}

type tracer struct {
	p        *Program
	roots    []string
	main     int
	threads  map[int]*thread
	waiting  []*thread // at the entry of a call that may count
	inside   *thread   // the one that is inside a counted call
	judge    func(*Call) Act
	after    func(*Call)
	run      Run
	leaderIn sync.Mutex
	pids     map[int]bool // under leaderIn: what a time-out must kill
}

// Trace runs p to its end, and the processes that it started to theirs. judge
// is asked before each counted call (nil: all pass), after is told after it
// (may be nil). Both run while the thread stands still.
func Trace(p *Program, judge func(*Call) Act, after func(*Call)) (*Run, error) {
	t := &tracer{p: p, threads: map[int]*thread{}, judge: judge, after: after, pids: map[int]bool{}}
	for _, r := range p.Roots {
		real, err := filepath.EvalSymlinks(r)
		if err != nil {
			return nil, fmt.Errorf("trace %s: %w", p.Path, err)
		}
		t.roots = append(t.roots, real)
	}
	errs := make(chan error, 1)
	// ptrace requests must come from the thread that started the program. The
	// goroutine ends locked, so that thread ends with it.
	go func() {
		runtime.LockOSThread()
		errs <- t.trace()
	}()
	if err := <-errs; err != nil {
		return &t.run, fmt.Errorf("trace %s: %w", filepath.Base(p.Path), err)
	}
	return &t.run, nil
}

func (t *tracer) trace() error {
	out, err := unix.MemfdCreate("output", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("memfd: %w", err)
	}
	output := os.NewFile(uintptr(out), "output")
	defer output.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	if err := t.start(null, output); err != nil {
		return err
	}
	limit := t.p.Limit
	if limit == 0 {
		limit = time.Minute
	}
	var late bool
	timer := time.AfterFunc(limit, func() {
		t.leaderIn.Lock()
		defer t.leaderIn.Unlock()
		late = true
		for pid := range t.pids {
			unix.Kill(pid, unix.SIGKILL)
		}
	})
	defer timer.Stop()
	err = t.loop()
	t.leaderIn.Lock()
	defer t.leaderIn.Unlock()
	t.run.Output = contents(output)
	if err == nil && late {
		err = ErrLimit
	}
	return err
}

// start starts the program, stops it after its exec, and lets it go on under our eyes.
func (t *tracer) start(null, output *os.File) (err error) {
	env := t.p.Env
	if env == nil {
		env = os.Environ()
	}
	t.main, err = syscall.ForkExec(t.p.Path, append([]string{t.p.Path}, t.p.Args...), &syscall.ProcAttr{
		Dir: t.p.Dir, Env: env,
		Files: []uintptr{null.Fd(), output.Fd(), output.Fd()},
		Sys:   &syscall.SysProcAttr{Ptrace: true},
	})
	if err != nil {
		return err
	}
	// wait4 with __WNOTHREAD sees only what this thread started.
	var ws unix.WaitStatus
	if _, err := unix.Wait4(t.main, &ws, unix.WALL, nil); err != nil {
		return err
	}
	if !ws.Stopped() {
		return fmt.Errorf("ended before its first instruction, status %#x", ws)
	}
	t.thread(t.main).born = true
	const options = unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK |
		unix.PTRACE_O_TRACEEXEC | unix.PTRACE_O_TRACESECCOMP | unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_EXITKILL
	if err := unix.PtraceSetOptions(t.main, options); err != nil {
		return fmt.Errorf("options: %w", err)
	}
	if err := injectFilter(t.main, filter(t.p.Reads)); err != nil {
		return err
	}
	return unix.PtraceCont(t.main, 0)
}

func contents(f *os.File) []byte {
	fi, err := f.Stat()
	if err != nil {
		return nil
	}
	b := make([]byte, fi.Size())
	n, _ := f.ReadAt(b, 0)
	return b[:n]
}

// thread returns what is known of a thread, which may be new.
func (t *tracer) thread(tid int) *thread {
	th := t.threads[tid]
	if th == nil {
		th = &thread{tid: tid, tgid: tgid(tid)}
		t.threads[tid] = th
		t.leaderIn.Lock()
		t.pids[th.tgid] = true
		t.leaderIn.Unlock()
	}
	return th
}

func tgid(tid int) int {
	if n := status(tid, "Tgid"); n != 0 {
		return n
	}
	return tid
}

// status is a number in /proc/TID/status, 0 if there is none.
func status(tid int, field string) (n int) {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	_, rest, _ := strings.Cut(string(b), "\n"+field+":")
	fmt.Sscan(rest, &n)
	return n
}

// loop serves stops until no traced thread is left.
func (t *tracer) loop() error {
	for {
		var ws unix.WaitStatus
		tid, err := t.wait(&ws)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.ECHILD) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("wait: %w", err)
		}
		if ws.Exited() || ws.Signaled() {
			t.gone(tid, ws)
			continue
		}
		if err := t.stopped(t.thread(tid), ws); err != nil && !errors.Is(err, unix.ESRCH) {
			return err // EXITKILL ends the program with this thread
		}
	}
}

// wait waits for a traced thread. This thread may have other children: those
// that another goroutine started when it ran here. They are that one's to wait
// for, so it looks first whose turn it is.
func (t *tracer) wait(ws *unix.WaitStatus) (int, error) {
	for {
		var info struct {
			signo, errno, code, _, pid int32
			_                          [108]byte
		}
		_, _, errno := unix.Syscall6(unix.SYS_WAITID, unix.P_ALL, 0, uintptr(unsafe.Pointer(&info)),
			unix.WEXITED|unix.WSTOPPED|unix.WNOWAIT|unix.WALL|unix.WNOTHREAD, 0, 0)
		if errno != 0 {
			return 0, errno
		}
		tid := int(info.pid)
		if t.threads[tid] == nil && status(tid, "TracerPid") != unix.Gettid() {
			time.Sleep(time.Millisecond)
			continue
		}
		// What was seen may be over: another thread's exit takes a stopped
		// one along, and a leader is waited for after its threads.
		if got, err := unix.Wait4(tid, ws, unix.WALL|unix.WNOTHREAD|unix.WNOHANG, nil); got != 0 || err != nil {
			return got, err
		}
	}
}

func (t *tracer) gone(tid int, ws unix.WaitStatus) {
	th := t.threads[tid]
	delete(t.threads, tid)
	if tid == t.main {
		t.run.Status = ws
	}
	t.leaderIn.Lock()
	delete(t.pids, tid)
	t.leaderIn.Unlock()
	for i, w := range t.waiting {
		if w.tid == tid {
			t.waiting = append(t.waiting[:i], t.waiting[i+1:]...)
			break
		}
	}
	if th != nil && th == t.inside {
		t.inside = nil
		t.admit()
	}
}

func (t *tracer) stopped(th *thread, ws unix.WaitStatus) error {
	sig := ws.StopSignal()
	switch {
	case sig == unix.SIGTRAP|0x80:
		return t.returned(th)
	case sig == unix.SIGTRAP && ws.TrapCause() == unix.PTRACE_EVENT_SECCOMP:
		t.waiting = append(t.waiting, th)
		return t.admit()
	case sig == unix.SIGTRAP && ws.TrapCause() == unix.PTRACE_EVENT_EXEC:
		th.tgid = th.tid
		return unix.PtraceCont(th.tid, 0)
	case sig == unix.SIGTRAP && ws.TrapCause() > 0:
		return unix.PtraceCont(th.tid, 0)
	case sig == unix.SIGSTOP && !th.born:
		th.born = true
		return unix.PtraceCont(th.tid, 0)
	}
	th.born = true
	if sig == unix.SIGSTOP || sig == unix.SIGTSTP || sig == unix.SIGTTIN || sig == unix.SIGTTOU {
		sig = 0 // a traced program is never left standing
	}
	if th.call != nil { // on its way out of the call
		return unix.PtraceSyscall(th.tid, int(sig))
	}
	return unix.PtraceCont(th.tid, int(sig))
}

// admit lets the next waiting threads go on, until one of them is inside a call
// that counts.
func (t *tracer) admit() error {
	for t.inside == nil && len(t.waiting) > 0 {
		th := t.waiting[0]
		t.waiting = t.waiting[1:]
		if err := t.enter(th); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

func (t *tracer) enter(th *thread) error {
	r, err := getRegisters(th.tid)
	if err != nil {
		return err
	}
	c := t.identify(th, r)
	if c == nil {
		return unix.PtraceCont(th.tid, 0)
	}
	t.run.Calls++
	c.N = t.run.Calls
	if t.judge != nil {
		c.Act = t.judge(c)
	}
	if c.Act.Deed != Pass {
		t.run.Struck = c
	}
	th.call = c
	switch c.Act.Deed {
	case KillBefore:
		t.kill(th)
		if t.dies(th) {
			return nil // Nothing moves any more: it stays where it is and dies there.
		}
	case Fail:
		r.skip()
		r.setResult(-int64(c.Act.Errno))
		if err := r.put(th.tid); err != nil {
			return err
		}
	case Short, ShortKill:
		if c.Writes() {
			c.Length /= 2
			r.setArg(c.shape.size, uint64(c.Length))
			if err := r.put(th.tid); err != nil {
				return err
			}
		}
	}
	t.inside = th
	return unix.PtraceSyscall(th.tid, 0)
}

// returned is the end of a call that counts.
func (t *tracer) returned(th *thread) error {
	c := th.call
	th.call = nil
	if th == t.inside {
		t.inside = nil
	}
	if c == nil {
		return unix.PtraceCont(th.tid, 0)
	}
	r, err := getRegisters(th.tid)
	if err != nil {
		return err
	}
	c.Result = r.result()
	if c.Result < 0 {
		c.Errno, c.Result = unix.Errno(-c.Result), -1
	} else if c.verb == vWrite || c.verb == vClone {
		c.Data = t.written(c)
	}
	if t.after != nil {
		t.after(c)
	}
	switch c.Act.Deed {
	case KillAfter, ShortKill:
		t.kill(th)
		if t.dies(th) {
			return t.admit()
		}
	case FailDone, Fail:
		r.setResult(-int64(c.Act.Errno))
		if err := r.put(th.tid); err != nil {
			return err
		}
	}
	if err := unix.PtraceCont(th.tid, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return t.admit()
}

// dies reports whether kill ends th: a child goes on.
func (t *tracer) dies(th *thread) bool { return t.p.KillAll || t.p.KillCaller || th.tgid == t.main }

// kill kills for a call of th.
func (t *tracer) kill(th *thread) {
	if t.p.KillCaller {
		unix.Kill(th.tgid, unix.SIGKILL)
		return
	}
	if t.p.KillAll {
		t.leaderIn.Lock()
		defer t.leaderIn.Unlock()
		for pid := range t.pids {
			unix.Kill(pid, unix.SIGKILL)
		}
	}
	unix.Kill(t.main, unix.SIGKILL)
}

// identify describes the call at whose entry th stands; nil if it does not
// count.
func (t *tracer) identify(th *thread, r *registers) *Call {
	s, ok := shapes[r.number()]
	if !ok {
		return nil
	}
	c := &Call{PID: th.tgid, Child: th.tgid != t.main, Name: s.name, verb: s.verb, shape: s, tid: th.tid, fd: -1}
	if c.Child && !t.p.Children {
		return nil
	}
	if !c.readFlags(r) {
		return nil
	}
	switch {
	case s.fd >= 0:
		c.fd = int(int32(r.arg(s.fd)))
	case s.path >= 0:
		c.Path, c.fd = t.path(th, r, s.dir, s.path)
	}
	if c.fd >= 0 {
		link, err := os.Readlink(c.proc())
		if err != nil {
			return nil
		}
		c.Path = link
	}
	if s.path2 >= 0 {
		c.Path2, _ = t.path(th, r, s.dir2, s.path2)
	}
	if !t.within(c.Path) && !t.within(c.Path2) {
		return nil
	}
	c.findInodes()
	if s.size >= 0 {
		c.Length = int(r.arg(s.size))
	}
	switch s.verb {
	case vWrite, vClone:
		c.Offset = t.offset(th, c, r)
	case vTruncate:
		c.Offset = int64(r.arg(s.off))
	}
	return c
}

// readFlags reports false if the flags cannot be read.
func (c *Call) readFlags(r *registers) bool {
	if c.shape.name == "creat" {
		c.Flags = unix.O_CREAT | unix.O_WRONLY | unix.O_TRUNC
	}
	if c.shape.flags < 0 {
		return true
	}
	c.Flags = int(int32(r.arg(c.shape.flags)))
	if c.shape.name == "openat2" { // struct open_how begins with the flags
		b, err := readMemory(c.tid, r.arg(c.shape.flags), 8)
		if err != nil || len(b) < 8 {
			return false
		}
		c.Flags = int(b[0]) | int(b[1])<<8 | int(b[2])<<16 | int(b[3])<<24
	}
	return true
}

func (c *Call) findInodes() {
	if c.fd >= 0 {
		var st unix.Stat_t
		if unix.Stat(c.proc(), &st) == nil {
			c.ino = st.Ino
		}
	} else {
		c.ino = inode(c.Path, c.verb == vOpen || c.verb == vTruncate || c.verb == vMode)
	}
	if c.Path2 != "" {
		c.ino2 = inode(c.Path2, false)
		if c.verb == vLink && c.Flags&unix.AT_SYMLINK_FOLLOW != 0 {
			c.ino = inode(c.Path, true)
		}
	}
}

func (c *Call) proc() string { return fmt.Sprintf("/proc/%d/fd/%d", c.tid, c.fd) }

func inode(path string, follow bool) uint64 {
	var st unix.Stat_t
	stat := unix.Lstat
	if follow {
		stat = unix.Stat
	}
	if stat(path, &st) != nil {
		return 0
	}
	return st.Ino
}

// path reads a path argument. A null or empty one means the descriptor itself.
func (t *tracer) path(th *thread, r *registers, dirArg, pathArg int) (path string, fd int) {
	dir := unix.AT_FDCWD
	if dirArg >= 0 {
		dir = int(int32(r.arg(dirArg)))
	}
	if addr := r.arg(pathArg); addr != 0 {
		var err error
		if path, err = readString(th.tid, addr); err != nil {
			return "", -1
		}
	}
	if path == "" {
		return "", dir
	}
	if !filepath.IsAbs(path) {
		at := fmt.Sprintf("/proc/%d/cwd", th.tid)
		if dir != unix.AT_FDCWD {
			at = fmt.Sprintf("/proc/%d/fd/%d", th.tid, dir)
		}
		base, err := os.Readlink(at)
		if err != nil {
			return "", -1
		}
		path = base + "/" + path
	}
	if number, ok := strings.CutPrefix(path, "/proc/self/fd/"); ok {
		path = fmt.Sprintf("/proc/%d/fd/%s", th.tid, number)
		number, below, _ := strings.Cut(number, "/")
		if below == "" {
			return path, -1
		}
		// What lies below a directory that is named by its descriptor.
		if base, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", th.tid, number)); err == nil {
			path = base + "/" + below
		}
	}
	path = strings.TrimRight(path, "/")
	parent, name := filepath.Split(path)
	if name == "." || name == ".." {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			return real, -1
		}
	}
	if real, err := filepath.EvalSymlinks(parent); err == nil {
		return filepath.Join(real, name), -1
	}
	return filepath.Clean(path), -1
}

func (t *tracer) within(path string) bool {
	for _, r := range t.roots {
		if path == r || strings.HasPrefix(path, r+"/") {
			return true
		}
	}
	return false
}

// offset is where a write will begin.
func (t *tracer) offset(th *thread, c *Call, r *registers) int64 {
	var flags, pos int64
	info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", c.tid, c.fd))
	if err == nil {
		fmt.Sscanf(string(info), "pos:\t%d\nflags:\t%o", &pos, &flags)
	}
	if flags&unix.O_APPEND != 0 {
		if fi, err := os.Stat(c.proc()); err == nil {
			return fi.Size()
		}
	}
	if c.shape.off < 0 {
		return pos
	}
	v := r.arg(c.shape.off)
	if !c.shape.offPtr {
		return int64(v)
	}
	if v == 0 {
		return pos
	}
	b, err := readMemory(th.tid, v, 8)
	if err != nil || len(b) < 8 {
		return pos
	}
	var n uint64
	for i := 7; i >= 0; i-- {
		n = n<<8 | uint64(b[i])
	}
	return int64(n)
}

// written reads back what a write put into the file: whatever call it was, and
// wherever the bytes came from.
func (t *tracer) written(c *Call) []byte {
	f, err := os.Open(c.proc())
	if err != nil {
		return nil
	}
	defer f.Close()
	n := c.Result
	if c.verb == vClone {
		fi, err := f.Stat()
		if err != nil {
			return nil
		}
		n, c.Offset = fi.Size(), 0
	}
	b := make([]byte, n)
	got, err := f.ReadAt(b, c.Offset)
	if err != nil && !errors.Is(err, fs.ErrClosed) && got == 0 {
		return nil
	}
	return b[:got]
}
