//go:build system

package runner

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"packmill/queue/runner/cage"
)

// compiles is a recipe that compiles three files, with debugging information.
const compiles = `for i in 1 2 3; do echo "int f$$i(void) { return $$i; }" > $$i.c; gcc -g -O2 -c $$i.c || exit 1; done
sha256sum 1.o`

// cacheBed is a directory of chroots with the caches of its builds.
type cacheBed struct {
	*testing.T
	c      *Chroots
	ccache int64
	more   func(*Job)
}

// build builds a source, which must come out good, and returns its log and what it took.
func (b *cacheBed) build(s source) (string, Usage) {
	b.Helper()
	res, log := b.try(s)
	if res.Outcome != Good {
		b.Errorf("%+v: got %v: %s\n%s", s, res.Outcome, res.Reason, log)
	}
	return log, res.Usage
}

func (b *cacheBed) try(s source) (*Result, string) {
	b.Helper()
	job := newSystemJob(b.T)
	if s.build == "" {
		s.build = compiles
	}
	s.make(b.T, job)
	if b.more != nil {
		b.more(job)
	}
	res := mustRun(b.T, &Overlay{Chroots: b.c, Ccache: b.ccache}, job)
	return res, logText(b.T, job)
}

// want builds a source and compares how often the cache had what it compiles.
func (b *cacheBed) want(what string, s source, hits, misses int64) string {
	b.Helper()
	log, u := b.build(s)
	if u.CacheHits != hits || u.CacheMisses != misses {
		b.Errorf("%s: %d hits and %d misses, want %d and %d\n%s", what, u.CacheHits, u.CacheMisses, hits, misses, log)
	}
	return log
}

func (b *cacheBed) caches(of string) []string {
	b.Helper()
	found, err := filepath.Glob(filepath.Join(b.c.Dir, ccacheDir, "sid_amd64", of+"_*"))
	if err != nil {
		b.Fatal(err)
	}
	return found
}

// the is the only cache of a source.
func (b *cacheBed) the(source string) string {
	b.Helper()
	found := b.caches(source)
	if len(found) != 1 {
		b.Fatalf("caches of %s: %v", source, found)
	}
	return found[0]
}

// otherRange takes all ranges of ids but one that has no layer, and gives them back at the test's end.
func (b *cacheBed) otherRange() {
	b.Helper()
	had := map[int]bool{}
	for _, l := range layersOf(b.T, b.c) {
		had[rangeOf(b.T, l)] = true
	}
	user, err := cage.LookupAccount(b.c.User)
	if err != nil {
		b.Fatal(err)
	}
	for {
		r, held, err := user.Take(context.Background(), nil)
		if err != nil {
			b.Fatal(err)
		}
		if !had[r.UID] {
			held.Close()
			return
		}
		b.Cleanup(func() { held.Close() })
	}
}

// What a build has compiled the next one of the same source gets, whichever range of ids it has, and no other source
// does; whatever is wrong with it, builds are good.
func TestCcache(t *testing.T) {
	b := &cacheBed{T: t, c: layered(t), ccache: 1 << 30}
	if log := b.want("the first", source{}, 0, 3); !strings.Contains(log, "\nCcache: 0 hits of 3, 0 %\n") {
		t.Errorf("no line of the cache: %s", log)
	}
	if st, err := os.Stat(b.the("hello")); err != nil || st.Mode().Perm() != 0o600 || st.Size() < 1000 {
		t.Errorf("the cache: %v, %v", st, err)
	}
	b.want("another source", source{name: "other"}, 0, 3)
	t.Run("another range", func(t *testing.T) {
		b := *b
		b.T = t
		b.otherRange()
		if log := b.want("the second version", source{version: "2.0"}, 3, 0); !strings.Contains(log,
			"\nCcache: 3 hits of 3, 100 %\n") {
			t.Errorf("no line of the cache: %s", log)
		}
	})
	for name, f := range map[string]func(*cacheBed){"kept": (*cacheBed).kept, "damaged": (*cacheBed).damaged,
		"evil": (*cacheBed).evil} {
		t.Run(name, func(t *testing.T) { f(&cacheBed{T: t, c: b.c, ccache: 8 << 20}) })
	}
	b.more = func(job *Job) { job.ExtraConflicts = "ccache" }
	if log := b.want("a conflict", source{}, 0, 0); !strings.Contains(log,
		"W: no compiler cache: ccache cannot be installed") {
		t.Errorf("no word of the conflict: %s", log)
	}
	b.more, b.ccache = nil, 0
	if log := b.want("without the setting", source{}, 0, 0); strings.Contains(log, "cache") {
		t.Errorf("without the setting: %s", log)
	}
}

const compileMore = "echo 'int more;' > more.c; gcc -c more.c\n"

// kept: only a good build leaves a cache, of the size that it may have.
func (b *cacheBed) kept() {
	b.build(source{name: "failed"})
	was, err := os.ReadFile(b.the("failed"))
	if err != nil {
		b.Fatal(err)
	}
	if res, log := b.try(source{name: "failed", build: compileMore + "false"}); res.Outcome != Attempted ||
		res.Usage.CacheMisses != 1 {
		b.Errorf("a failure: %v, %+v\n%s", res.Outcome, res.Usage, log)
	}
	// Its results are not what it may make.
	b.more = func(job *Job) { job.Packages = []string{"nothing"} }
	if res, log := b.try(source{name: "failed", build: compileMore}); res.Outcome != Quarantined {
		b.Errorf("foreign results: %v\n%s", res.Outcome, log)
	}
	b.more = nil
	if is, err := os.ReadFile(b.the("failed")); err != nil || string(is) != string(was) {
		b.Errorf("a failed build has changed the cache: %v", err)
	}
	big := source{name: "big", build: compileMore + "head -c 3000000 /dev/urandom > $$CCACHE_DIR/junk"}
	if log, _ := b.build(big); !strings.Contains(log, "W: the compiler cache is not kept") || len(b.caches("big")) != 0 {
		b.Errorf("a large cache: %v\n%s", b.caches("big"), log)
	}
	if left, _ := filepath.Glob(filepath.Join(b.c.Dir, ccacheDir, "*", newCache+"*")); len(left) != 0 {
		b.Errorf("left: %v", left)
	}
}

// damaged: what came to lie where the cache was holds no build up.
func (b *cacheBed) damaged() {
	b.build(source{})
	path := b.the("hello")
	good, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	spoil := func(f func([]byte) []byte) func() error {
		return func() error { return os.WriteFile(path, f(append([]byte(nil), good...)), 0o600) }
	}
	for what, damage := range map[string]func() error{
		"half": spoil(func(d []byte) []byte { return d[:len(d)/2] }),
		// In what the entries say, and not only in their headers.
		"bits": spoil(func(d []byte) []byte {
			for i := 600; i < len(d); i += 97 {
				d[i] ^= 0x55
			}
			return d
		}),
		"zeros": spoil(func(d []byte) []byte {
			clear(d[len(d)/3 : len(d)/2])
			return d
		}),
		"link": func() error { return os.Symlink("/etc/passwd", path) },
	} {
		if err := os.RemoveAll(path); err != nil {
			b.Fatal(err)
		}
		if err := damage(); err != nil {
			b.Fatal(err)
		}
		if log, u := b.build(source{}); u.CacheHits+u.CacheMisses != 3 {
			b.Errorf("%s: %d hits, %d misses\n%s", what, u.CacheHits, u.CacheMisses, log)
		}
	}
	if err := os.RemoveAll(filepath.Join(b.c.Dir, ccacheDir)); err != nil {
		b.Fatal(err)
	}
}

// evil: of what a build puts into its cache nothing holds the next one up, and its settings are forgotten.
func (b *cacheBed) evil() {
	const do = `cd $$CCACHE_DIR; mkfifo pipe 0/pipe; ln -s /etc/passwd link; echo 'disable = true' > ccache.conf; ` +
		`mkdir -p tmp; mkfifo tmp/pipe; ln -s .. up; touch -- -rf "two words"`
	b.want("evil", source{name: "evil", build: compiles + "\n" + do}, 0, 3)
	b.want("after evil", source{name: "evil"}, 3, 0)
}
