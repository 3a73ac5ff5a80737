//go:build system

package archive

import (
	"flag"
	"strings"
	"testing"
)

var long = flag.Bool("archive.long", false, "ask apt after each of 200 publications")

// TestAptAlwaysInstalls: after each of 200 random publications apt installs, on each
// architecture, every package that it sees there, all of them at once.
func TestAptAlwaysInstalls(t *testing.T) {
	if !*long {
		t.Skip("dose answers the same question of 40 publications in TestAlwaysInstallable; scripts/test long asks apt")
	}
	f := newFixture(t)
	f.suite.Components = []string{"main"}
	f.accepted()
	clients, installed := map[string]*client{}, 0
	for _, arch := range f.suite.Architectures {
		clients[arch] = newClient(t, strings.ReplaceAll(f.source(), " contrib", ""), f.key, arch)
	}
	f.publishAtRandom(200, func(when string) {
		for _, arch := range f.suite.Architectures {
			clients[arch].run("apt-get", "update")
			names := strings.Fields(clients[arch].run("apt-cache", "pkgnames"))
			if len(names) == 0 {
				continue
			}
			out, err := clients[arch].try(append([]string{"apt-get", "-s", "install"}, names...)...)
			if n := strings.Count(out, "\nInst "); err != nil || n != len(names) {
				t.Fatalf("%s\n%s: apt installs %d of %q, %v:\n%s", when, arch, n, names, err, out)
			}
			installed += len(names)
		}
	})
	if t.Logf("%d packages were installed", installed); installed < 1000 {
		t.Errorf("that tells little")
	}
}
