package cage

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// cgroupPrefix begins the name of every control group made here, followed by
// the process that made it and a number.
const cgroupPrefix = "packmill-build."

// cgroupSelf is the group that this process moves itself into where
// controllers can only be handed down from a group without processes.
const cgroupSelf = "packmill-daemon"

var cgroupSerial atomic.Int64

// cgroup is the set of control groups of one build: a version 2 group, for
// killing everything at once, and for limits either the same group or groups
// of the version 1 controllers. Any of them may be missing: what this machine
// allows is used, and the rest is done without.
type cgroup struct {
	unified string // directory of the version 2 group, or empty
	memory  string // directory whose files limit memory
	pids    string // directory whose files limit tasks
	v1      []string
}

// hierarchy is a mounted control group file system and this process' place
// in it.
type hierarchy struct {
	dir         string   // this process' own group
	v2          bool     // the unified hierarchy
	controllers []string // of a version 1 mount
}

// own are the hierarchies of this machine.
func own() []hierarchy {
	mountinfo, err1 := os.ReadFile("/proc/self/mountinfo")
	self, err2 := os.ReadFile("/proc/self/cgroup")
	if err1 != nil || err2 != nil {
		return nil
	}
	return hierarchies(string(mountinfo), string(self))
}

// Groups are the directories of this process' own control groups.
func Groups() (dirs []string) {
	for _, h := range own() {
		dirs = append(dirs, h.dir)
	}
	return dirs
}

// hierarchies reads what is mounted and where this process is, from the text
// of /proc/self/mountinfo and /proc/self/cgroup (proc(5), cgroups(7)).
func hierarchies(mountinfo, self string) []hierarchy {
	own := map[string]string{}
	for _, line := range strings.Split(self, "\n") {
		f := strings.SplitN(line, ":", 3)
		if len(f) != 3 {
			continue
		}
		if f[0] == "0" && f[1] == "" {
			own[""] = f[2]
			continue
		}
		for _, c := range strings.Split(f[1], ",") {
			own[c] = f[2]
		}
	}
	var found []hierarchy
	for _, line := range strings.Split(mountinfo, "\n") {
		before, after, ok := strings.Cut(line, " - ")
		if !ok {
			continue
		}
		b, a := strings.Fields(before), strings.Fields(after)
		if len(b) < 5 || len(a) < 3 {
			continue
		}
		root, mount := unescapeMount(b[3]), unescapeMount(b[4])
		switch a[0] {
		case "cgroup2":
			if p, ok := own[""]; ok {
				if dir, ok := below(mount, root, p); ok {
					found = append(found, hierarchy{dir: dir, v2: true})
				}
			}
		case "cgroup":
			var have []string
			var dir string
			for _, opt := range strings.Split(a[2], ",") {
				if p, ok := own[opt]; ok && (opt == "memory" || opt == "pids") {
					if d, ok := below(mount, root, p); ok {
						have, dir = append(have, opt), d
					}
				}
			}
			if len(have) > 0 {
				found = append(found, hierarchy{dir: dir, controllers: have})
			}
		}
	}
	return found
}

// below turns a group's path into a directory of the mount that shows root.
func below(mount, root, path string) (string, bool) {
	if strings.HasPrefix(path, "/..") {
		return "", false
	}
	if root != "/" {
		rest, ok := strings.CutPrefix(path, root)
		if !ok || rest != "" && rest[0] != '/' {
			return "", false
		}
		path = rest
	}
	return filepath.Join(mount, path), true
}

// unescapeMount undoes the octal escapes of mountinfo.
func unescapeMount(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// newCgroup makes the groups of one build. It fails only if a group refuses a
// limit; without any usable group it returns an empty set.
func newCgroup(limits Limits) (*cgroup, error) {
	name := cgroupPrefix + strconv.Itoa(os.Getpid()) + "." + strconv.FormatInt(cgroupSerial.Add(1), 10)
	g := &cgroup{}
	for _, h := range own() {
		base := h.dir
		if h.v2 && filepath.Base(base) == cgroupSelf {
			base = filepath.Dir(base)
		}
		if h.v2 {
			handDown(base)
		}
		sweep(base)
		dir := filepath.Join(base, name)
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		if h.v2 {
			if g.unified != "" {
				os.Remove(dir)
				continue
			}
			g.unified = dir
			if exists(filepath.Join(dir, "memory.max")) {
				g.memory = dir
			}
			if exists(filepath.Join(dir, "pids.max")) {
				g.pids = dir
			}
			continue
		}
		g.v1 = append(g.v1, dir)
		for _, c := range h.controllers {
			if c == "memory" && g.memory == "" {
				g.memory = dir
			}
			if c == "pids" && g.pids == "" {
				g.pids = dir
			}
		}
	}
	if err := g.limit(limits); err != nil {
		g.remove()
		return nil, err
	}
	return g, nil
}

// handDown gives the children of a delegated group the controllers for
// memory and tasks. A group that has processes of its own cannot (cgroups(7),
// "no internal processes"), so this process moves into a child first; that
// is done only in a group that is ours alone.
func handDown(base string) {
	have, err := os.ReadFile(filepath.Join(base, "cgroup.controllers"))
	if err != nil {
		return
	}
	on, err := os.ReadFile(filepath.Join(base, "cgroup.subtree_control"))
	if err != nil {
		return
	}
	var want []string
	for _, c := range []string{"memory", "pids"} {
		if hasWord(have, c) && !hasWord(on, c) {
			want = append(want, "+"+c)
		}
	}
	if len(want) == 0 {
		return
	}
	control := filepath.Join(base, "cgroup.subtree_control")
	order := []byte(strings.Join(want, " "))
	if os.WriteFile(control, order, 0) == nil {
		return
	}
	procs, err := os.ReadFile(filepath.Join(base, "cgroup.procs"))
	if err != nil || strings.TrimSpace(string(procs)) != strconv.Itoa(os.Getpid()) {
		return
	}
	own := filepath.Join(base, cgroupSelf)
	if err := os.Mkdir(own, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return
	}
	if os.WriteFile(filepath.Join(own, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0) == nil {
		os.WriteFile(control, order, 0)
	}
}

func hasWord(text []byte, word string) bool {
	for _, f := range bytes.Fields(text) {
		if string(f) == word {
			return true
		}
	}
	return false
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// sweep removes the empty groups of processes that are gone. A group that
// still has processes stays: their keeper holds the lock of their build.
func sweep(base string) {
	entries, err := os.ReadDir(base)
	if err != nil {
		return
	}
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), cgroupPrefix)
		if !ok {
			continue
		}
		pid, _, _ := strings.Cut(rest, ".")
		if !exists("/proc/" + pid) {
			unix.Rmdir(filepath.Join(base, e.Name()))
		}
	}
}

// limit sets what the groups can keep. The rest is watched by sampling.
func (g *cgroup) limit(l Limits) error {
	if l.Memory > 0 && g.memory != "" {
		file := "memory.limit_in_bytes"
		if g.memory == g.unified {
			file = "memory.max"
		}
		if err := os.WriteFile(filepath.Join(g.memory, file), []byte(strconv.FormatInt(l.Memory, 10)), 0); err != nil {
			return fmt.Errorf("limit memory: %w", err)
		}
		if g.memory == g.unified {
			// No swapping: a build over its limit must end, not crawl.
			os.WriteFile(filepath.Join(g.memory, "memory.swap.max"), []byte("0"), 0)
		}
	}
	if l.Tasks > 0 && g.pids != "" {
		if err := os.WriteFile(filepath.Join(g.pids, "pids.max"), []byte(strconv.Itoa(l.Tasks)), 0); err != nil {
			return fmt.Errorf("limit tasks: %w", err)
		}
	}
	return nil
}

// add puts a process, before it starts others, into the version 1 groups and,
// unless it was born there, into the version 2 group.
func (g *cgroup) add(pid int) error {
	dirs := g.v1
	if g.unified != "" {
		dirs = append([]string{g.unified}, dirs...)
	}
	for _, dir := range dirs {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
			return fmt.Errorf("put process into control group %s: %w", dir, err)
		}
	}
	return nil
}

// kill ends every process in the groups. It returns at once; the processes
// are gone soon after.
func (g *cgroup) kill() {
	if g.unified != "" {
		if os.WriteFile(filepath.Join(g.unified, "cgroup.kill"), []byte("1"), 0) == nil {
			return
		}
	}
	for _, pid := range g.processes() {
		unix.Kill(pid, unix.SIGKILL)
	}
}

// killAll ends every process in the groups and waits until they are gone.
func (g *cgroup) killAll() {
	for end := time.Now().Add(10 * time.Second); len(g.processes()) > 0 && time.Now().Before(end); {
		g.kill()
		time.Sleep(2 * time.Millisecond)
	}
}

// processes lists what is in the groups.
func (g *cgroup) processes() []int {
	var pids []int
	dirs := g.v1
	if g.unified != "" {
		dirs = []string{g.unified}
	}
	for _, dir := range dirs {
		// Builds may have made groups below ours.
		filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err != nil || !d.IsDir() {
				return nil
			}
			data, _ := os.ReadFile(filepath.Join(path, "cgroup.procs"))
			for _, f := range strings.Fields(string(data)) {
				if pid, err := strconv.Atoi(f); err == nil && pid > 0 {
					pids = append(pids, pid)
				}
			}
			return nil
		})
	}
	return pids
}

// remove deletes the groups. It waits a little for the last processes.
func (g *cgroup) remove() {
	dirs := g.v1
	if g.unified != "" {
		dirs = append(dirs[:len(dirs):len(dirs)], g.unified)
	}
	for _, dir := range dirs {
		for end := time.Now().Add(2 * time.Second); ; time.Sleep(2 * time.Millisecond) {
			removeTree(dir)
			if !exists(dir) || time.Now().After(end) {
				break
			}
		}
	}
}

// removeTree removes a control group and those below it, deepest first.
func removeTree(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			removeTree(filepath.Join(dir, e.Name()))
		}
	}
	unix.Rmdir(dir)
}

// peak returns the highest memory use so far, in bytes.
func (g *cgroup) peak() int64 {
	if g.memory == "" {
		return 0
	}
	if g.memory == g.unified {
		return number(filepath.Join(g.memory, "memory.peak"))
	}
	return number(filepath.Join(g.memory, "memory.max_usage_in_bytes"))
}

// cpu returns the processor time used so far, or 0 if it cannot be told.
func (g *cgroup) cpu() time.Duration {
	if g.unified == "" {
		return 0
	}
	return time.Duration(keyed(filepath.Join(g.unified, "cpu.stat"), "usage_usec")) * time.Microsecond
}

// oomKills counts the processes killed for the memory limit.
func (g *cgroup) oomKills() int64 {
	if g.memory == "" {
		return 0
	}
	if g.memory == g.unified {
		return keyed(filepath.Join(g.memory, "memory.events"), "oom_kill")
	}
	return keyed(filepath.Join(g.memory, "memory.oom_control"), "oom_kill")
}

// refusedForks counts the forks refused for the task limit.
func (g *cgroup) refusedForks() int64 {
	if g.pids == "" {
		return 0
	}
	return keyed(filepath.Join(g.pids, "pids.events"), "max")
}

func number(path string) int64 {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	return n
}

// keyed reads a flat keyed file: one key and one number a line.
func keyed(path, key string) int64 {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	for _, line := range strings.Split(string(data), "\n") {
		if k, v, ok := strings.Cut(line, " "); ok && k == key {
			n, _ := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
			return n
		}
	}
	return 0
}
