package stories

import (
	"slices"
	"strings"
	"syscall"
	"testing"

	"packmill/spool/upload/uploadtest"
)

// TestArchitectureRegained: a suite that loses an architecture and has it again has there
// what it had, without a build, for as long as the pool has it; then it is built. What
// waited, was built or was on its way to the archive meanwhile is built.
func TestArchitectureRegained(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	t.Parallel()
	for _, publish := range []string{"together", "source-first"} {
		t.Run(publish, func(t *testing.T) {
			t.Parallel()
			m := newMillIn(t, shm(t), "Architectures: amd64 i386", "Publish: "+publish)
			all := m.suites()
			m.lose(strings.Replace(all, "amd64 i386", "amd64", 1))
			m.regain(all)
			m.regainWithoutPool(all)
		})
	}
}

// hadOnIt is what i386 has of the suite that loses it.
var hadOnIt = []string{"again 1:1.0-1+b1", "barred 1:1.0-1", "plain 1:1.0-1", "tool 1.0"}

// lose publishes some packages, and takes i386 from the suite while it has others in its
// queues.
func (m *mill) lose(settings string) {
	m.Helper()
	m.upload(uploadtest.Package{Source: "tool", Version: "1.0", Binary: []string{"tool", "tool-tests"}})
	m.upload(uploadtest.Package{Source: "docs", Version: "1.0", Architecture: "all"})
	for _, source := range []string{"again", "plain", "barred"} {
		m.upload(uploadtest.Package{Source: source, Version: "1:1.0-1"})
	}
	m.settle()
	m.wb("nmu 1 again . i386 . stable -m again")
	m.settle()
	m.packmill("archive", "rm", "stable", "tool-tests", "--yes")
	m.control("packages-arch-specific", "%barred: !i386")
	m.wantOn("i386", hadOnIt...)
	// Of these, i386 is built, is being built and is not begun when the suite loses it.
	m.builderTakes(1)
	release := m.hold("runs_1.0_i386")
	for _, source := range []string{"built", "runs", "waits"} {
		m.upload(uploadtest.Package{Source: source, Version: "1.0"})
		m.once("reviewd")
	}
	m.step("master-buildd", "buildd-amd64")
	b := m.start("buildd-i386")
	m.until("the second is being built", func() bool { return strings.Contains(m.where(), "building i386 runs_1.0") })
	m.control("suites", settings)
	m.step("archived", "master-buildd")
	release()
	m.until("it has ended", func() bool { return !strings.Contains(m.where(), "building") })
	m.must(b.cmd.Process.Signal(syscall.SIGTERM))
	b.cmd.Wait()
	m.settle()
	m.waitsForSomething()
	m.sound()
	m.wantOn("amd64", "again 1:1.0-1", "barred 1:1.0-1", "built 1.0", "plain 1:1.0-1", "runs 1.0", "tool 1.0", "waits 1.0")
}

// regain gives i386 back while the pool has all that it had.
func (m *mill) regain(settings string) {
	m.Helper()
	before := m.builds()
	m.control("suites", settings)
	m.settle()
	had := append(slices.Clone(hadOnIt), "built 1.0", "runs 1.0", "waits 1.0")
	m.wantOn("i386", had...)
	for id, n := range m.builds() {
		if of, _, _ := strings.Cut(id, "_"); n != before[id] && !slices.Contains([]string{"built", "runs", "waits"}, of) {
			m.Errorf("%s was built again, and the pool had it", id)
		}
	}
	m.control("packages-arch-specific", "")
	m.settle()
	m.wantOn("i386", had...)
	m.waitsForSomething()
	m.sound()
}

// regainWithoutPool takes i386 away and gives it back when the pool has nothing of it.
func (m *mill) regainWithoutPool(settings string) {
	m.Helper()
	m.control("suites", strings.Replace(settings, "amd64 i386", "amd64", 1))
	m.settle()
	m.packmill("archive", "gc", "--stay", "0s")
	m.packmill("archive", "gc", "--stay", "0s")
	before := m.builds()
	m.control("suites", settings)
	// A person publishes before archived sees the settings, and master-buildd has looked then.
	m.packmill("archive", "rm", "stable", "docs", "--yes")
	master := m.start("master-buildd")
	m.until("master-buildd has looked", func() bool { return !strings.Contains(m.where(), "auto-not-for-us") })
	m.once("archived")
	m.until("a job is made", func() bool { return strings.Contains(m.where(), "needs-build i386 plain_1:1.0-1") })
	m.must(master.cmd.Process.Signal(syscall.SIGTERM))
	master.cmd.Wait()
	m.settle()
	m.wantOn("i386", "again 1:1.0-1", "barred 1:1.0-1", "built 1.0", "plain 1:1.0-1", "runs 1.0",
		"tool 1.0", "tool-tests 1.0", "waits 1.0")
	for _, id := range []string{"again_1:1.0-1_i386", "plain_1:1.0-1_i386", "tool_1.0_i386"} {
		if n := m.builds()[id]; n != before[id]+1 {
			m.Errorf("%s was built %d times, want %d: %v", id, n, before[id]+1, m.builds())
		}
	}
	m.waitsForSomething()
	m.sound()
}

// wantOn compares what the stable suite has for an architecture alone.
func (m *mill) wantOn(arch string, want ...string) {
	m.Helper()
	var got []string
	for line := range strings.Lines(m.packmill("archive", "ls", "stable")) {
		if f := strings.Fields(line); len(f) > 3 && f[2] == arch {
			got = append(got, f[0]+" "+f[1])
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		m.Fatalf("the suite has on %s\n%q, want\n%q\n%s", arch, got, want, m.packmill("ls"))
	}
}
