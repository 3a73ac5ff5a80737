package cage

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is one line of the process table.
type process struct {
	pid, parent int
	zombie      bool
}

// processes reads the process table (proc(5), /proc/PID/stat).
func processes() []process {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	var all []process
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		data, err := os.ReadFile("/proc/" + name + "/stat")
		if err != nil {
			continue
		}
		// The name in brackets may hold anything, brackets too.
		f := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
		if len(f) < 2 {
			continue
		}
		parent, _ := strconv.Atoi(f[1])
		all = append(all, process{pid, parent, f[0] == "Z"})
	}
	return all
}

// descendants returns the living descendants of a process.
func descendants(root int) []int {
	children := map[int][]process{}
	for _, p := range processes() {
		children[p.parent] = append(children[p.parent], p)
	}
	var found []int
	queue := []int{root}
	for len(queue) > 0 {
		var next []int
		for _, pid := range queue {
			for _, c := range children[pid] {
				next = append(next, c.pid)
				if !c.zombie {
					found = append(found, c.pid)
				}
			}
		}
		queue = next
	}
	return found
}

// killDescendants ends everything below this process, which must be a
// subreaper, and reaps it. Everybody is stopped before anybody is killed:
// a family that grows cannot outrun that.
func killDescendants() {
	self := os.Getpid()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		stopped := map[int]bool{}
		for round := 0; round < 50; round++ {
			fresh := false
			for _, pid := range descendants(self) {
				if !stopped[pid] {
					stopped[pid], fresh = true, true
					unix.Kill(pid, unix.SIGSTOP)
				}
			}
			if !fresh {
				break
			}
		}
		for pid := range stopped {
			unix.Kill(pid, unix.SIGKILL)
		}
		for {
			var status syscall.WaitStatus
			pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
			if err == syscall.ECHILD {
				return
			}
			if pid <= 0 && err != syscall.EINTR {
				break
			}
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// tasksOf counts the tasks of a user.
func tasksOf(uid int) int {
	n := 0
	for _, p := range processes() {
		if st, err := os.Stat("/proc/" + strconv.Itoa(p.pid)); err == nil && int(st.Sys().(*syscall.Stat_t).Uid) == uid {
			if threads, err := os.ReadDir("/proc/" + strconv.Itoa(p.pid) + "/task"); err == nil {
				n += len(threads)
			}
		}
	}
	return n
}

// measure counts the tasks below a process and the memory that is theirs
// alone: what is watched where no control group can keep a limit.
func measure(root int) (tasks int, memory int64) {
	for _, pid := range append(descendants(root), root) {
		data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
		if err != nil {
			continue
		}
		for _, line := range strings.Split(string(data), "\n") {
			key, value, _ := strings.Cut(line, ":")
			f := strings.Fields(value)
			if len(f) == 0 {
				continue
			}
			n, _ := strconv.ParseInt(f[0], 10, 64)
			switch key {
			case "RssAnon", "RssShmem":
				memory += n << 10
			case "Threads":
				tasks += int(n)
			}
		}
	}
	return tasks, memory
}
