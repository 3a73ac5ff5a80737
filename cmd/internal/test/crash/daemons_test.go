//go:build linux && amd64

package crash

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"packmill/spool/upload/uploadtest"
)

// A scenario is one program that is struck, on a tree that stands just before
// it.
type scenario struct {
	name    string
	prepare func(t testing.TB) *site
	argv    []string
	again   [][]string // what runs afterwards, until nothing moves
	// want is where the items must be in the end: "DIR SOURCE_VERSION". A
	// verb that did not say that it was done may be undone.
	want   []string
	undone []string
	// compare, in the place of want: the tree is what the command comes to
	// when nothing strikes it, or what was there before.
	compare bool
	far     bool           // it writes where no power of ours is cut
	gone    string         // a pattern of paths that are not there in the end
	each    bool           // a kill takes the process whose call it is, one of several
	always  *regexp.Regexp // matches what is where, at every moment
}

const (
	rev  = "spool/review/sid"
	acc  = "spool/accepted/sid"
	up   = "archive/incoming/sid"
	inst = "archive/installed/sid/"
)

var (
	reviewd  = [][]string{{"reviewd", "--once"}}
	masterd  = [][]string{{"master-buildd", "--once"}}
	builddA  = [][]string{{"buildd", "--arch", "amd64", "--once"}}
	archived = [][]string{{"archived", "--once"}}
)

// accepted makes a site with uploads that have come to accepted.
func accepted(t testing.TB, publish string, sources ...string) *site {
	s := newSite(t, "never", publish)
	for _, x := range sources {
		s.drop(uploadtest.Package{Source: x, Version: "1-1"})
	}
	s.must("reviewd", "--once")
	return s
}

func queued(t testing.TB, publish string, sources ...string) *site {
	s := accepted(t, publish, sources...)
	s.must("master-buildd", "--once")
	return s
}

func builtAll(t testing.TB, publish string, sources ...string) *site {
	s := queued(t, publish, sources...)
	s.must("buildd", "--arch", "amd64", "--once")
	s.must("buildd", "--arch", "arm64", "--once")
	return s
}

// regained is a suite that has arm64 again, and what was published of it in its records.
func regained(t testing.TB) *site {
	s := builtAll(t, "together", "hello", "gone")
	s.must("master-buildd", "--once")
	s.must("archived", "--once")
	settings, err := os.ReadFile(filepath.Join(s.tree, "control/suites"))
	if err != nil {
		t.Fatal(err)
	}
	s.write("control/suites", strings.Replace(string(settings), "amd64 arm64", "amd64", 1))
	s.must("archived", "--once")
	debs, err := filepath.Glob(filepath.Join(s.tree, "archive/pool/main/g/gone/*_arm64.deb"))
	if err != nil || len(debs) != 1 {
		t.Fatalf("%v: %v", debs, err)
	}
	if err := os.Remove(debs[0]); err != nil {
		t.Fatal(err)
	}
	s.write("control/suites", string(settings))
	return s
}

// threeBuilt is where the jobs are whose builds are good, bad, and without what they need.
var threeBuilt = []string{
	"queue/sid/master broken_1-1", "queue/sid/master hello_1-1", "queue/sid/master waiting_1-1",
	"queue/sid/arm64/needs-build broken_1-1", "queue/sid/arm64/needs-build hello_1-1",
	"queue/sid/arm64/needs-build waiting_1-1",
	"queue/sid/amd64/build-attempted broken_1-1", "queue/sid/amd64/dep-wait waiting_1-1", up + " hello_1-1",
}

var scenarios = []scenario{
	{
		name: "reviewd",
		prepare: func(t testing.TB) *site {
			s := newSite(t, "always", "together")
			s.drop(uploadtest.Package{Source: "hello"})
			s.drop(uploadtest.Package{Source: "tampered", Changes: func(text string) string {
				return strings.Replace(text, "Maintainer: ", "Maintainer: x", 1) + "Nonsense\n"
			}})
			return s
		},
		argv: reviewd[0], again: reviewd,
		// A claim that got nothing before the crash is a record in the attic.
		want: []string{rev + " hello_1-1", "spool/rejected tampered_1-1", "?attic hello_1-1", "?attic tampered_1-1",
			"?attic unknown_0"},
	},
	{
		name: "master-buildd, fan-out", prepare: func(t testing.TB) *site { return accepted(t, "source-first", "hello") },
		argv: masterd[0], again: masterd,
		want: []string{"queue/sid/master hello_1-1", "queue/sid/amd64/needs-build hello_1-1",
			"queue/sid/arm64/needs-build hello_1-1", up + " hello_1-1"},
	},
	{
		name: "master-buildd, join", prepare: func(t testing.TB) *site { return builtAll(t, "together", "hello") },
		argv: masterd[0], again: masterd,
		want: []string{up + " hello_1-1", up + " hello_1-1", up + " hello_1-1"},
	},
	{
		name: "buildd", prepare: func(t testing.TB) *site { return queued(t, "together", "hello", "broken", "waiting") },
		argv: builddA[0], again: builddA,
		want: threeBuilt,
	},
	{
		// Either end of a session with a builder on another machine, and what it builds with.
		name: "buildd --master", prepare: farSite, far: true, each: true,
		argv: []string{"far-builder"}, again: [][]string{{"far-builder"}}, want: threeBuilt,
	},
	{
		// A cluster's master and its nodes.
		name: "buildd, a cluster", prepare: clusterSite, far: true, each: true,
		argv: builddA[0], again: builddA, want: threeBuilt, gone: outsideDir + "/jobs/" + strings.Repeat("?", 32),
	},
	{
		name: "archived",
		prepare: func(t testing.TB) *site {
			s := builtAll(t, "together", "hello")
			s.must("master-buildd", "--once")
			return s
		},
		argv: archived[0], again: archived,
		want: []string{inst + "amd64/h hello_1-1", inst + "arm64/h hello_1-1", inst + "source/h hello_1-1"},
	},
	{
		name: "archived, a second version",
		prepare: func(t testing.TB) *site {
			s := builtAll(t, "together", "hello")
			for range 2 {
				s.must("master-buildd", "--once")
				s.must("archived", "--once")
			}
			s.drop(uploadtest.Package{Source: "hello", Version: "1-2", NoOrig: true})
			for _, d := range once[:4] {
				s.must(d[0], d[1:]...)
			}
			s.must("master-buildd", "--once")
			return s
		},
		argv: archived[0], again: archived,
		want: []string{
			inst + "amd64/h hello_1-1", inst + "arm64/h hello_1-1", inst + "source/h hello_1-1",
			inst + "amd64/h hello_1-2", inst + "arm64/h hello_1-2", inst + "source/h hello_1-2",
		},
	},
	{
		// Of one the pool has the packages still, of the other it has them no more.
		name: "archived, an architecture that is back", prepare: regained,
		argv: archived[0], again: archived,
		want: []string{
			inst + "amd64/g gone_1-1", inst + "source/g gone_1-1", "attic gone_1-1",
			inst + "amd64/h hello_1-1", inst + "arm64/h hello_1-1", inst + "source/h hello_1-1",
		},
	},
	{
		name: "packmill review accept",
		prepare: func(t testing.TB) *site {
			s := newSite(t, "always", "together")
			s.drop(uploadtest.Package{Source: "hello"})
			s.must("reviewd", "--once")
			return s
		},
		argv: []string{"packmill", "review", "accept", "hello"}, again: reviewd,
		want: []string{acc + " hello_1-1"}, undone: []string{rev + " hello_1-1"},
	},
	{
		name: "packmill review reject",
		prepare: func(t testing.TB) *site {
			s := newSite(t, "always", "together")
			s.drop(uploadtest.Package{Source: "hello"})
			s.must("reviewd", "--once")
			return s
		},
		argv: []string{"packmill", "review", "reject", "hello", "-m", "no"}, again: reviewd,
		want: []string{"spool/rejected hello_1-1"}, undone: []string{rev + " hello_1-1"},
	},
	{
		name: "packmill requeue, a failed build",
		prepare: func(t testing.TB) *site {
			s := queued(t, "together", "broken")
			s.must("buildd", "--arch", "amd64", "--once")
			return s
		},
		argv: []string{"packmill", "requeue", "broken"}, again: masterd,
		// It names the source in the master queue, too.
		want: []string{"queue/sid/amd64/needs-build broken_1-1", "queue/sid/arm64/needs-build broken_1-1",
			"queue/sid/master broken_1-1"},
		undone: []string{"queue/sid/amd64/build-attempted broken_1-1", "queue/sid/arm64/needs-build broken_1-1",
			"queue/sid/master broken_1-1"},
	},
	{
		name: "packmill requeue, a refused upload",
		prepare: func(t testing.TB) *site {
			s := newSite(t, "always", "together")
			s.drop(uploadtest.Package{Source: "hello"})
			s.must("reviewd", "--once")
			s.must("packmill", "review", "reject", "hello", "-m", "no")
			return s
		},
		argv: []string{"packmill", "requeue", "hello"}, again: reviewd,
		want: []string{rev + " hello_1-1"}, undone: []string{"spool/rejected hello_1-1"},
	},
	{
		name: "packmill fsck --repair",
		prepare: func(t testing.TB) *site {
			s := queued(t, "together", "hello")
			s.write("queue/sid/amd64/needs-build/core", "x")
			old := time.Now().Add(-time.Hour)
			s.write("tmp/new-1/x", "x")
			if err := os.Chtimes(filepath.Join(s.tree, "tmp/new-1"), old, old); err != nil {
				t.Fatal(err)
			}
			m, _ := filepath.Glob(filepath.Join(s.tree, "queue/sid/arm64/needs-build/*"))
			to := filepath.Join(s.tree, "queue/sid/arm64/failed", filepath.Base(m[0]))
			if err := os.Rename(m[0], to); err != nil {
				t.Fatal(err)
			}
			return s
		},
		argv: []string{"packmill", "fsck", "--repair"}, again: [][]string{{"packmill", "fsck", "--repair"}},
		want: []string{"queue/sid/amd64/needs-build hello_1-1", "queue/sid/arm64/failed hello_1-1",
			"queue/sid/master hello_1-1"},
	},
}

// papers are the files that people and builders made, by content.
func papers(t testing.TB, tree string) map[[32]byte]string {
	sent := map[[32]byte]string{}
	for _, part := range []string{"spool", "queue", "archive/incoming"} {
		for k, v := range sums(t, filepath.Join(tree, part)) {
			if strings.Contains(v, ".tar.") || strings.HasSuffix(v, ".dsc") || strings.HasSuffix(v, ".changes") ||
				strings.HasSuffix(v, ".deb") {
				sent[k] = v
			}
		}
	}
	return sent
}

// sweep prepares the scenario.
func (c *scenario) sweep(t testing.TB) *Sweep {
	s := c.prepare(t)
	sent := papers(t, s.tree)
	var before, after account
	if c.compare {
		var err error
		if before, after, err = c.ends(s); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
	}
	return &Sweep{
		Name: c.name, Tree: s.tree, Scratch: s.dir, Seed: 1, Workers: 2, Far: c.far,
		Restarts: c.argv[0] != "packmill" && !c.far,
		Program: func(tree string) *Program {
			p := s.command(tree, c.argv[0], c.at(tree)[1:]...)
			p.KillCaller = c.each
			return p
		},
		Instant: func(tree string) []string {
			broken := served(filepath.Join(tree, "archive"))
			for _, b := range served(filepath.Join(tree, outsideDir, "copy")) {
				broken = append(broken, "the copy: "+b)
			}
			return broken
		},
		Settle: func(tree string) error { return s.settle(tree, c.again) },
		Check: func(tree string, acknowledged bool) []string {
			broken := append(promises(tree), witness(tree, sent)...)
			if left, _ := filepath.Glob(filepath.Join(tree, c.gone)); c.gone != "" && len(left) > 0 {
				broken = append(broken, fmt.Sprintf("left behind: %v", left))
			}
			if c.compare {
				return append(broken, c.judge(s, tree, before, after, acknowledged)...)
			}
			at := where(tree, c.want...)
			if len(at) > 0 && c.undone != nil && !acknowledged {
				if other := where(tree, c.undone...); len(other) == 0 {
					at = nil
				}
			}
			return append(broken, at...)
		},
	}
}
