//go:build linux && amd64

package crash

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"packmill/archive"
	"packmill/cmd/internal/fsck"
	"packmill/spool"
	"packmill/spool/upload/uploadtest"
)

// working is a small real tree: hello0 is published in sid and stable, with feeds;
// hello1 waits for its builders.
var working = stage(func(t testing.TB) *site {
	s := newSite(t, "never", "together")
	suite, err := os.ReadFile(filepath.Join(s.tree, "control/suites"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(suite), "Opkg: no", "Opkg: yes", 1)
	s.write("control/suites", text+"\n"+strings.Replace(text, "Suite: sid", "Suite: stable", 1))
	s.drop(uploadtest.Package{Source: "hello0"})
	for _, d := range [][]string{once[0], once[1], once[2], once[3], once[1], once[4]} {
		s.must(d[0], d[1:]...)
	}
	s.must("packmill", "archive", "copy", "sid", "stable", "hello0")
	s.drop(uploadtest.Package{Source: "hello1"})
	s.must("reviewd", "--once")
	s.must("master-buildd", "--once")
	return s
})

// A breaker does to a tree what must never happen.
type breaker struct {
	*site
	old time.Time
}

func (b *breaker) do(errs ...error) {
	b.t.Helper()
	for _, err := range errs {
		if err != nil {
			b.t.Fatal(err)
		}
	}
}

// one finds the one path that fits a pattern below the tree.
func (b *breaker) one(pattern string) string {
	b.t.Helper()
	m, err := filepath.Glob(filepath.Join(b.tree, pattern))
	if err != nil || len(m) != 1 {
		b.t.Fatalf("%s: %d fit, want one (%v)", pattern, len(m), err)
	}
	return m[0]
}

func (b *breaker) at(rel string) string { return filepath.Join(b.tree, rel) }

// aged writes a file whose writer would be long done.
func (b *breaker) aged(rel string) {
	b.t.Helper()
	b.write(rel, "x")
	b.do(os.Chtimes(b.at(rel), b.old, b.old), os.Chtimes(filepath.Dir(b.at(rel)), b.old, b.old))
}

// move is mv.
func (b *breaker) move(from, dir string) {
	b.t.Helper()
	b.do(os.MkdirAll(b.at(dir), 0o775), os.Rename(from, filepath.Join(b.at(dir), filepath.Base(from))))
}

// includeSource publishes a source past the queues, from files in these places.
func (b *breaker) includeSource(patterns ...string) {
	b.t.Helper()
	dir, err := os.MkdirTemp(b.dir, "include-")
	b.do(err)
	for _, p := range patterns {
		m, err := filepath.Glob(b.at(p))
		b.do(err)
		for _, from := range m {
			data, err := os.ReadFile(from)
			b.do(err, os.WriteFile(filepath.Join(dir, filepath.Base(from)), data, 0o644))
		}
	}
	m, err := filepath.Glob(filepath.Join(dir, "*.changes"))
	if err != nil || len(m) != 1 {
		b.t.Fatalf("%d .changes to include (%v)", len(m), err)
	}
	b.must("packmill", "archive", "include", "sid", m[0])
}

func rootBit() int {
	if os.Getuid() == 0 {
		return 1
	}
	return 0
}

const (
	job  = "queue/sid/amd64/needs-build/*_hello1_1-1"
	job2 = "queue/sid/arm64/needs-build/*_hello1_1-1"
	deb  = "archive/pool/main/h/hello0/hello0_1-1_amd64.deb"
)

// Each promise is broken on purpose: fsck says so, --repair mends what has one
// right answer and says what is left, and a second fsck finds only that.
func TestFsckFindsAndMends(t *testing.T) {
	for _, tt := range []struct {
		what  string
		spoil func(b *breaker)
		want  []string // "kind path", as path.Match
		left  []string // the same after the repair
		there string   // is there then
	}{
		{"nothing", func(*breaker) {}, nil, nil, ""},

		// Every item in exactly one state, whole, under one name.
		{"an item copied into a second state", func(b *breaker) {
			b.do(CopyTree(b.one(job), b.at("queue/sid/amd64/failed/"+filepath.Base(b.one(job)))))
		}, []string{"twice " + job, "unlisted queue/sid/amd64/failed/*",
			"untold queue/sid/amd64/failed/*"}, nil, "attic/*_hello1_1-1_amd64/REASON"},
		{"no ticket", func(b *breaker) { b.do(os.Remove(b.one(job + "/ticket"))) },
			[]string{"bad item " + job}, nil, "spool/rejected/*_hello1_1-1_amd64/REASON"},
		{"a tarball is gone", func(b *breaker) { b.do(os.Remove(b.one(job + "/*.orig.tar.*"))) },
			[]string{"incomplete " + job}, nil, "spool/rejected/*_hello1_1-1_amd64/REASON"},
		{"a tarball has other bytes", func(b *breaker) {
			p := b.one(job + "/*.orig.tar.*")
			data, err := os.ReadFile(p)
			data[len(data)-1] ^= 1
			b.do(err, os.Remove(p), os.WriteFile(p, data, 0o644))
		}, []string{"incomplete " + job}, nil, "spool/rejected/*_hello1_1-1_amd64/REASON"},

		// The history ends where the item lies.
		{"a move by hand", func(b *breaker) { b.move(b.one(job), "queue/sid/amd64/failed") },
			[]string{"untold queue/sid/amd64/failed/*"}, nil, "queue/sid/amd64/failed/*/ticket"},
		{"a torn history", func(b *breaker) {
			b.do(os.Truncate(b.one(job+"/history"), 20))
		}, []string{"untold " + job}, nil, ""},
		{"garbage in the journal", func(b *breaker) {
			b.write("journal/"+time.Now().UTC().Format("2006-01-02"), "{\"item\":\x00\n\xff\n")
		}, nil, nil, ""},

		// At most one claim, and nobody's is given back.
		{"a claim whose builder is gone", func(b *breaker) { b.move(b.one(job), "queue/sid/amd64/building") },
			[]string{"abandoned queue/sid/amd64/building/*", "untold queue/sid/amd64/building/*"}, nil, job},

		// A version has one job, and every job is known.
		{"an entry of no job", func(b *breaker) {
			b.do(os.Link(b.one(job+"/birth"), filepath.Join(b.dir, "birth")), os.RemoveAll(b.one(job)))
		}, []string{"lost " + job, "unlisted queue/sid/amd64/ledger/hello1_1-1"}, nil, ""},
		{"a job that the ledger does not know", func(b *breaker) {
			b.do(os.Remove(b.at("queue/sid/amd64/ledger/hello1_1-1")))
		},
			[]string{"unlisted " + job}, nil, "queue/sid/amd64/ledger/hello1_1-1"},
		{"an entry that is a link", func(b *breaker) { b.do(os.Symlink("hello1_1-1", b.at("queue/sid/amd64/ledger/x_1"))) },
			[]string{"stray queue/sid/amd64/ledger/x_1"}, nil, "attic/strays/*/REASON"},

		// What was taken in is somewhere.
		{"a source is nowhere", func(b *breaker) { b.do(os.RemoveAll(b.one("queue/sid/master/*"))) },
			[]string{"lost queue/sid/master/*_hello1_1-1"}, nil, ""},
		{"a job is nowhere", func(b *breaker) { b.do(os.RemoveAll(b.one(job2))) }, []string{"lost " + job2}, nil, ""},

		// What is published is in the pool with those bytes.
		{"a pool file is gone", func(b *breaker) { b.do(os.Remove(b.at(deb))) },
			[]string{"archive " + deb}, []string{"archive " + deb}, ""},
		{"a pool file has other bytes", func(b *breaker) {
			data, err := os.ReadFile(b.at(deb))
			data[len(data)-1] ^= 1
			b.do(err, os.Remove(b.at(deb)), os.WriteFile(b.at(deb), data, 0o644))
		}, []string{"archive " + deb}, []string{"archive " + deb}, ""},
		{"an index is gone", func(b *breaker) {
			m, err := filepath.Glob(b.at("archive/dists/sid/main/binary-amd64/by-hash/SHA256/*"))
			b.do(err)
			for _, f := range m {
				b.do(os.Remove(f))
			}
		}, []string{"archive archive/dists/sid/main/binary-amd64/by-hash/SHA256/*"}, []string{"archive archive/dists/sid/main/binary-amd64/by-hash/SHA256/*"}, ""},
		{"half a feed", func(b *breaker) { b.aged("archive/opkg/sid/.amd64.000099/Packages") },
			[]string{"leftover archive/opkg/sid/.amd64.000099"}, nil, ""},

		// Publish: together.
		{"a source without any of its builds", func(b *breaker) {
			b.includeSource("queue/sid/master/*/hello1_*")
			b.move(b.one("queue/sid/master/*"), "archive/installed/sid/source/h")
		}, []string{"too soon " + job, "too soon " + job2,
			"untold archive/installed/sid/source/h/*"}, []string{"too soon " + job, "too soon " + job2}, ""},
		{"a source whose builds are installed and not there", func(b *breaker) {
			b.must("packmill", "archive", "rm", "sid", "hello0", "--force", "--no-check")
			b.includeSource("archive/installed/sid/source/h/*/*_source.changes", "archive/pool/main/h/hello0/*[cz]")
		}, []string{"too soon archive/installed/sid/a*/h/*"}, []string{"too soon archive/installed/sid/a*/h/*"}, ""},

		// No stray file.
		{"a file in the root", func(b *breaker) { b.write("core", "x") }, []string{"stray core"}, nil, "attic/strays/*/core"},
		{"a file in a queue", func(b *breaker) { b.write("queue/sid/amd64/needs-build/x", "x") },
			[]string{"stray queue/sid/amd64/needs-build/x"}, nil, "attic/strays/*/x"},
		{"a link in the place of an item", func(b *breaker) {
			name := filepath.Base(b.one(job))
			b.do(os.Symlink(b.one(job), b.at("queue/sid/amd64/failed/"+name)))
		}, []string{"stray queue/sid/amd64/failed/*"}, nil, job},
		{"a suite that is a link", func(b *breaker) {
			b.do(os.Symlink("sid", b.at("queue/trixie")))
		}, []string{"stray queue/trixie"}, nil, ""},
		{"a link in an item", func(b *breaker) { b.do(os.Symlink("/etc/passwd", b.one(job)+"/hello1_2.dsc")) },
			[]string{"stray " + job + "/hello1_2.dsc"}, nil, "attic/strays/*/hello1_2.dsc"},
		{"a pipe for a history", func(b *breaker) {
			b.do(os.Remove(b.one(job+"/history")), unix.Mkfifo(b.one(job)+"/history", 0o666))
		}, []string{"stray " + job + "/history", "untold " + job}, nil, "attic/strays/*/history"},
		{"a directory for a ticket", func(b *breaker) {
			b.do(os.Remove(b.one(job+"/ticket")), os.Mkdir(b.one(job)+"/ticket", 0o777))
		}, []string{"stray " + job + "/ticket", "bad item " + job}, nil, "spool/rejected/*_hello1_1-1_amd64/REASON"},
		{"a device in a queue", func(b *breaker) {
			b.do(unix.Mknod(b.at("queue/sid/amd64/needs-build/null"), unix.S_IFCHR|0o666, 0))
		},
			[]string{"stray queue/sid/amd64/needs-build/null"}, nil, ""},
		{"a pipe in the pool", func(b *breaker) { b.do(unix.Mkfifo(b.at("archive/pool/main/h/hello0/p"), 0o666)) },
			[]string{"stray archive/pool/main/h/hello0/p"}, nil, ""},
		{"a link in the pool", func(b *breaker) { b.do(os.Symlink("/etc", b.at("archive/pool/main/h/etc"))) },
			[]string{"stray archive/pool/main/h/etc"}, nil, ""},
		{"half-written files", func(b *breaker) {
			b.aged(strings.TrimPrefix(b.one(job), b.tree+"/") + "/.new-1")
			b.aged("archive/pool/main/h/hello0/.new-2")
			b.aged("archive/dists/.new-sid/Release")
			b.aged("tmp/new-3/ticket")
			b.aged("tmp/4")
			b.write("archive/pool/main/h/hello0/.new-5", "young")
		}, []string{"leftover " + job + "/.new-1", "leftover archive/pool/main/h/hello0/.new-2",
			"leftover archive/dists/.new-sid",
			"leftover tmp/new-3", "leftover tmp/4"}, nil, "archive/pool/main/h/hello0/.new-5"},
		{"a directory of the tree is gone", func(b *breaker) { b.do(os.Remove(b.at("spool/rejected"))) },
			[]string{"unready spool/rejected"}, nil, "spool/rejected"},

		{"settings that cannot be read", func(b *breaker) { b.write("control/suites", "Suite sid\n") },
			[]string{"settings control"}, []string{"settings control"}, ""},
		{"an item of another user", func(b *breaker) {
			if os.Getuid() == 0 { // nobody else can give anything away
				b.do(os.Chown(b.one(job), 65534, 65534))
			}
		}, []string{"wrong right " + job}[:rootBit()], nil, ""},
	} {
		t.Run(tt.what, func(t *testing.T) {
			b := &breaker{working(t), time.Now().Add(-2 * time.Hour)}
			t.Parallel()
			tree, err := spool.Open(b.tree)
			if err != nil {
				t.Fatal(err)
			}
			tt.spoil(b)
			check := func(when string, want []string) []spool.Finding {
				t.Helper()
				found, err := fsck.Check(context.Background(), tree, archive.CheckOptions{Deep: true})
				if err != nil {
					t.Fatal(err)
				}
				met := map[string]bool{}
				for _, f := range found {
					ok := false
					for _, w := range want {
						if m, _ := path.Match(w, fmt.Sprintf("%s %s", f.Kind, f.Path)); m {
							ok, met[w] = true, true
						}
					}
					if !ok {
						t.Errorf("%s: found %s, want %q", when, f, want)
					}
				}
				for _, w := range want {
					if !met[w] {
						t.Errorf("%s: not found: %q; found %v", when, w, found)
					}
				}
				return found
			}
			for _, f := range check("broken", tt.want) {
				if f.Mendable() {
					if err := f.Mend(); err != nil {
						t.Error(err)
					}
				}
			}
			check("mended", tt.left)
			if tt.there != "" {
				if m, _ := filepath.Glob(b.at(tt.there)); len(m) == 0 {
					t.Errorf("%s is not there", tt.there)
				}
			}
		})
	}
}
