package stories

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestUpgrade: testdata/first-tree.tar.xz is a tree of the first commit that had all the daemons
// (84fd835, 2026-11-21): one package published, one in the queue, one in review.
// Programs refuse it, packmill init brings it along, all go on, and nobody is told anew.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	m := newMill(t)
	m.must(os.RemoveAll(m.tree))
	m.must(os.Mkdir(m.tree, 0o755))
	if out, err := exec.Command("tar", "-C", m.tree, "-xJf", "testdata/first-tree.tar.xz").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	builders, err := os.ReadFile(filepath.Join(m.tree, "control/builders"))
	m.must(err)
	m.control("builders", strings.Replace(string(builders), "/usr/bin/false", m.home+"/fakebuilder", 1))
	sink := m.told()
	for _, program := range []string{"reviewd", "master-buildd", "archived", "maild"} {
		if out, err := m.command(t.Context(), program, "--once").CombinedOutput(); err == nil ||
			!strings.Contains(string(out), "packmill init") {
			t.Errorf("%s takes the older tree: %v\n%s", program, err, out)
		}
	}
	m.packmill("init")
	m.packmill("review", "accept", "waiting")
	m.want(m.settle(), "installed amd64 published_1.0", "installed amd64 queued_1.0", "installed amd64 waiting_1.0",
		"installed source published_1.0", "installed source queued_1.0", "installed source waiting_1.0")
	m.sound()
	m.tells(m.letters(sink), "published", "up@example.org: queued 1.0 for stable: published (source amd64)",
		"up@example.org: waiting 1.0 for stable: published (source amd64)")
}
