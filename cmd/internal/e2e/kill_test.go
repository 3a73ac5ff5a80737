//go:build system

package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestKill kills the daemons at random moments, as kill -9 does, while
// packages go their way. All of them arrive, once each.
func TestKill(t *testing.T) {
	t.Run("exec", func(t *testing.T) {
		kills(t, 10, "exec "+filepath.Join(scripts, "..", "cmd/internal/e2e/testdata/build-here"), 150*time.Millisecond, 4*time.Minute)
	})
	t.Run("sbuild", func(t *testing.T) {
		kills(t, 2, "sbuild", 1500*time.Millisecond, 8*time.Minute)
	})
}

// kills sends n packages while one daemon after the other is killed. A builder
// is killed twice at most: an item whose handling ended three times comes to a
// person, which is right and not what is tried here.
func kills(t *testing.T, n int, runner string, every time.Duration, within time.Duration) {
	arch := machine(t)
	s := newSite(t)
	alice := s.newUploader("alice")
	s.set(setting{publish: "together", archs: []string{arch}, runner: runner, extra: "Tries: 100\n", people: []string{alice.stanza("source")}})
	chroot := s.chroot(suite, arch)
	s.sshd(alice)
	s.serve()
	s.daemons(arch, "all")

	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	dice := rand.New(rand.NewPCG(seed, 0))
	stop, stopped, struck := make(chan struct{}), make(chan struct{}), map[string]int{}
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Duration(dice.Int64N(int64(2 * every)))):
			}
			victim := []string{"reviewd", "master-buildd", "archived"}[dice.IntN(3)]
			for _, b := range []string{"buildd-" + arch, "buildd-all"} {
				// Only while it builds, or the two kills would be wasted.
				if _, builds := s.in("queue/"+suite+"/"+strings.TrimPrefix(b, "buildd-")+"/building", "killed*", "*"); builds && struck[b] < 2 && dice.IntN(4) == 0 {
					victim = b
					struck[b]++
				}
			}
			s.kill(victim)
		}
	}()
	halt := sync.OnceFunc(func() { close(stop); <-stopped })
	defer halt()

	name := func(i int) string { return fmt.Sprintf("killed%02d", i) }
	for i := range n {
		p := name(i)
		alice.dput("packmill", alice.make(source{name: p, version: "1.1", suite: suite, any: []string{p}, all: []string{p + "-doc"}}))
	}
	for i := range n {
		s.await(time.Minute, "spool/review/"+suite, name(i), "1.1")
		s.must("packmill", "review", "accept", name(i))
	}
	begin := time.Now()
	done := func(i int) bool {
		_, a := s.in("archive/installed/"+suite+"/"+arch+"/*", name(i), "1.1")
		_, b := s.in("archive/installed/"+suite+"/all/*", name(i), "1.1")
		return a && b
	}
	s.until(within, "all packages are installed", func() bool {
		for i := range n {
			if !done(i) {
				return false
			}
		}
		return true
	})
	halt()
	counts := map[string]int{}
	s.mu.Lock()
	for n, p := range s.procs {
		counts[n] = p.kills
	}
	s.mu.Unlock()
	t.Logf("all of it in %v, with these kills: %v", time.Since(begin).Round(time.Millisecond), counts)
	for _, d := range []string{"reviewd", "master-buildd", "archived", "buildd-" + arch} {
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
// runs on, the package is given back, and the next builder takes it.
func TestStop(t *testing.T) {
	arch := machine(t)
	s := newSite(t)
	alice := s.newUploader("alice")
	s.set(setting{publish: "together", archs: []string{arch}, people: []string{alice.stanza("source")}})
	s.chroot(suite, arch)
	s.sshd(alice)
	s.daemons(arch)
	alice.dput("packmill", alice.make(source{name: "long", version: "1", suite: suite, any: []string{"long"}, slow: 617}))
	s.await(30*time.Second, "spool/review/"+suite, "long", "1")
	s.must("packmill", "review", "accept", "long")
	item := s.await(time.Minute, "queue/"+suite+"/"+arch+"/building", "long", "1")
	s.until(2*time.Minute, "the build sleeps", func() bool {
		data, _ := os.ReadFile(filepath.Join(item, "log"))
		return strings.Contains(string(data), "\nsleep 617")
	})
	begin := time.Now()
	s.end("buildd-" + arch)
	t.Logf("buildd ended its build in %v", time.Since(begin).Round(time.Millisecond))
	for p := range s.sleepers() {
		t.Errorf("process %s of the build runs on", p)
	}
	s.await(5*time.Second, "queue/"+suite+"/"+arch+"/needs-build", "long", "1")

	// And by a kill, which leaves the builder no time for anything.
	s.start("buildd-"+arch, "buildd", "--tree", s.tree, "--arch", arch)
	s.until(2*time.Minute, "the build sleeps again", func() bool { return len(s.sleepers()) > 0 })
	before := s.sleepers()
	s.kill("buildd-" + arch)
	s.until(10*time.Second, "the first build has ended with its builder", func() bool {
		for p := range s.sleepers() {
			if before[p] {
				return false
			}
		}
		return true
	})
	s.until(2*time.Minute, "the next builder has taken it and builds", func() bool { return len(s.sleepers()) > 0 })
	s.end("buildd-" + arch)
	s.await(5*time.Second, "queue/"+suite+"/"+arch+"/needs-build", "long", "1")
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
