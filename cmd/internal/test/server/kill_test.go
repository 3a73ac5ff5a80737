//go:build system

package server

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestKillAnyDaemon kills the daemons at random moments of their work, as kill
// -9 does, while packages go their way. All of them arrive, once each.
func TestKillAnyDaemon(t *testing.T) {
	t.Run("exec", func(t *testing.T) {
		kills(t, 6, "exec "+filepath.Join(scripts, "..", "cmd/internal/test/server/testdata/build-here"), 12, 3,
			400*time.Millisecond)
	})
	t.Run("overlay", func(t *testing.T) {
		kills(t, 2, "overlay", 6, 2, 1500*time.Millisecond)
	})
}

// kills sends n packages while each daemon is killed a number of times, at most
// gap after it has something to do. The numbers and gaps are such that no
// item can be under its handler's hands in five deaths, ten seconds apart: then
// it comes to a person, which is right and not what is tried here.
func kills(t *testing.T, n int, runner string, daemon, builder int, gap time.Duration) {
	arch := machine(t)
	s := newSite(t)
	alice := s.newUploader("alice")
	s.set(setting{publish: "together", archs: []string{arch}, runner: runner, extra: "Tries: 100\n",
		people: []string{alice.stanza("source")}})
	chroot := s.chroot(arch)
	s.sshd(alice)
	s.serve()
	s.daemons(arch, "all")

	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	var killers sync.WaitGroup
	stop := make(chan struct{})
	halt := sync.OnceFunc(func() { close(stop); killers.Wait() })
	defer halt()
	for i, k := range []struct {
		victim string
		times  int
		work   []string // where it lies
	}{
		{"reviewd", daemon, []string{"spool/incoming/*", "spool/intake/*"}},
		{"master-buildd", daemon, []string{"spool/accepted/" + suite + "/*", "queue/" + suite + "/master/*"}},
		{"archived", daemon, []string{"archive/incoming/" + suite + "/*"}},
		{"buildd-" + arch, builder, []string{"queue/" + suite + "/" + arch + "/building/*"}},
		{"buildd-all", builder, []string{"queue/" + suite + "/all/building/*"}},
	} {
		killers.Go(func() {
			dice := rand.New(rand.NewPCG(seed, uint64(i)))
			for k.times > 0 {
				wait := 5 * time.Millisecond
				busy := slices.ContainsFunc(k.work, func(dir string) bool {
					m, _ := filepath.Glob(filepath.Join(s.tree, dir))
					return len(m) > 0
				})
				if busy {
					wait = time.Duration(dice.Int64N(int64(gap)))
				}
				select {
				case <-stop:
					return
				case <-time.After(wait):
				}
				if busy && s.kill(k.victim) {
					k.times--
				}
			}
		})
	}

	name := func(i int) string { return fmt.Sprintf("killed%02d", i) }
	for i := range n {
		p := name(i)
		alice.dput("packmill",
			alice.make(source{name: p, version: "1.1", suite: suite, any: []string{p}, all: []string{p + "-doc"}}))
	}
	for i := range n {
		s.await("spool/review/"+suite, name(i), "1.1")
		s.must("packmill", "review", "accept", name(i))
	}
	begin := time.Now()
	for i := range n {
		for _, a := range []string{arch, "all", "source"} {
			s.await("archive/installed/"+suite+"/"+a+"/*", name(i), "1.1")
		}
	}
	halt()
	counts := map[string]int{}
	s.mu.Lock()
	for n, p := range s.procs {
		counts[n] = p.kills
	}
	s.mu.Unlock()
	t.Logf("all of it in %v, with these kills: %v", time.Since(begin).Round(time.Millisecond), counts)
	for _, d := range []string{"reviewd", "master-buildd", "archived", "buildd-" + arch, "buildd-all"} {
		if counts[d] == 0 {
			t.Errorf("%s was never killed: the test showed nothing about it", d)
		}
	}

	var names strings.Builder
	for i := range n {
		fmt.Fprintf(&names, " %s %s-doc", name(i), name(i))
		for _, want := range []string{name(i) + "_1.1_" + arch + ".deb", name(i) + "-doc_1.1_all.deb", name(i) + "_1.1.dsc"} {
			if m, _ := filepath.Glob(filepath.Join(s.tree, "archive/pool/*/*/*", want)); len(m) != 1 {
				t.Errorf("pool has %q, want exactly one %s", m, want)
			}
		}
	}
	s.client(chroot, suite, "apt-get -q -y --no-install-recommends install"+names.String())
	s.stop()
	// What was being written at a kill is swept, and nothing else was amiss.
	out, _ := s.run("packmill", "fsck", "--repair", "--json")
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "{") && !strings.Contains(line, "leftover") {
			t.Errorf("packmill fsck after the kills: %s", line)
		}
	}
	s.fsck()
	if left := s.processes(); len(left) > 0 {
		t.Errorf("still running in the tree after all daemons ended: %q", left)
	}
	if left, _ := filepath.Glob(filepath.Join(s.tree, "spool/incoming/*")); len(left) > 0 {
		t.Errorf("left in incoming: %q", left)
	}
}

// TestStop stops a builder in the middle of a build: nothing of the build
// runs on, the package is given back, and the next builder takes it. (sbuild is stopped
// so by queue/runner's TestSbuildStop and TestKillRunner, and by stories' TestCancelReal.)
func TestStop(t *testing.T) {
	arch := machine(t)
	s := newSite(t)
	alice := s.newUploader("alice")
	s.set(setting{publish: "together", archs: []string{arch}, runner: "overlay", people: []string{alice.stanza("source")}})
	s.chroot(arch)
	s.sshd(alice)
	s.daemons(arch)
	alice.dput("packmill", alice.make(source{name: "long", version: "1", suite: suite, any: []string{"long"}, slow: 617}))
	s.await("spool/review/"+suite, "long", "1")
	s.must("packmill", "review", "accept", "long")
	item := s.await("queue/"+suite+"/"+arch+"/building", "long", "1")
	s.until("the build sleeps", func() bool {
		data, _ := os.ReadFile(filepath.Join(item, "log"))
		return strings.Contains(string(data), "\nsleep 617") && len(s.sleepers()) > 0
	})
	begin := time.Now()
	s.end("buildd-" + arch)
	t.Logf("buildd ended its build in %v", time.Since(begin).Round(time.Millisecond))
	for p := range s.sleepers() {
		t.Errorf("process %s of the build runs on", p)
	}
	s.await("queue/"+suite+"/"+arch+"/needs-build", "long", "1")

	// And by a kill, which leaves the builder no time for anything.
	s.start("buildd-"+arch, "buildd", "--tree", s.tree, "--arch", arch)
	s.until("the build sleeps again", func() bool { return len(s.sleepers()) > 0 })
	before := s.sleepers()
	s.kill("buildd-" + arch)
	s.until("the first build has ended with its builder", func() bool {
		for p := range s.sleepers() {
			if before[p] {
				return false
			}
		}
		return true
	})
	s.until("the next builder has taken it and builds", func() bool { return len(s.sleepers()) > 0 })
	s.end("buildd-" + arch)
	s.await("queue/"+suite+"/"+arch+"/needs-build", "long", "1")
	s.stop()
	s.fsck()
}

// sleepers are the processes that TestStop's package sleeps in, anywhere on
// the machine below the user or its subordinate ids.
func (s *site) sleepers() map[string]bool {
	found := map[string]bool{}
	m, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range m {
		if data, err := os.ReadFile(f); err == nil && string(data) == "sleep\x00617\x00" {
			found[filepath.Base(filepath.Dir(f))] = true
		}
	}
	return found
}

// processes are those that work in the tree or have a file of it open.
func (s *site) processes() []string {
	var found []string
	links, _ := filepath.Glob("/proc/[0-9]*/cwd")
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, l := range append(links, fds...) {
		if to, err := os.Readlink(l); err == nil && strings.HasPrefix(to, s.tree+"/") {
			cmdline, _ := os.ReadFile(filepath.Join("/proc", strings.Split(l, "/")[2], "cmdline"))
			found = append(found, fmt.Sprintf("%s -> %s (%s)", l, to, strings.ReplaceAll(string(cmdline), "\x00", " ")))
		}
	}
	return found
}
