package runner

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// The longest unused go first, and what nobody has used for a month; the half of a dead build goes after a day.
func TestSweepCaches(t *testing.T) {
	for _, x := range []struct {
		all  int64
		want []string
	}{
		{0, []string{".new-young", "a_1.tar", "b_1.tar", "c_1.tar"}},
		{300, []string{".new-young", "a_1.tar", "b_1.tar", "c_1.tar"}},
		{299, []string{".new-young", "a_1.tar", "b_1.tar"}},
		{100, []string{".new-young", "a_1.tar"}},
		{1, []string{".new-young"}},
	} {
		c := &Chroots{Dir: t.TempDir()}
		dir := filepath.Join(c.Dir, ccacheDir, "sid_amd64")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		const day = 24 * time.Hour
		for name, age := range map[string]time.Duration{"a_1.tar": time.Hour, "b_1.tar": 2 * day, "c_1.tar": 29 * day,
			"d_1.tar": 31 * day, ".new-young": time.Hour, ".new-old": day + time.Hour} {
			path, then := filepath.Join(dir, name), time.Now().Add(-age)
			if err := os.WriteFile(path, make([]byte, 100), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(path, then, then); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.SweepCaches(x.all); err != nil {
			t.Error(err)
		}
		var left []string
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			left = append(left, e.Name())
		}
		if !slices.Equal(left, x.want) {
			t.Errorf("of %d bytes: %v, want %v", x.all, left, x.want)
		}
	}
}

// A source's cache is that of a suite, an architecture and an archive.
func TestCacheOf(t *testing.T) {
	r := &Overlay{Chroots: &Chroots{Dir: t.TempDir(), User: buildAccount(t)}, Ccache: 1 << 30}
	seen := map[string]int{}
	for i, job := range []*Job{
		{Source: "hello", Suite: "sid", Arch: "amd64"},
		{Source: "hello2", Suite: "sid", Arch: "amd64"},
		{Source: "hello", Suite: "trixie", Arch: "amd64"},
		{Source: "hello", Suite: "sid", Arch: "arm64"},
		{Source: "hello", Suite: "sid", Arch: "amd64", Repos: []Repo{{Key: []byte("one")}}},
		{Source: "hello", Suite: "sid", Arch: "amd64", Repos: []Repo{{Key: []byte("other")}}},
		{Source: "hello", Suite: "sid", Arch: "amd64", Repos: []Repo{{Key: []byte("on")}, {Key: []byte("e")}}},
	} {
		job.Log = os.Stderr
		x, again := r.cacheFor(job), r.cacheFor(job)
		if x == nil || again == nil || x.path != again.path {
			t.Fatalf("job %d: %+v, then %+v", i, x, again)
		}
		if other, had := seen[x.path]; had {
			t.Errorf("jobs %d and %d have one cache, %s", other, i, x.path)
		}
		seen[x.path] = i
		if x.most > r.Ccache/4 {
			t.Errorf("job %d: %d bytes of %d", i, x.most, r.Ccache)
		}
	}
	if r.cacheFor(&Job{Source: "hello", Suite: "sid", Arch: "all", Log: os.Stderr}) != nil {
		t.Error("a cache of a build of all")
	}
	if r.Ccache = leastCache; r.cacheFor(&Job{Source: "hello", Suite: "sid", Arch: "amd64", Log: os.Stderr}) != nil {
		t.Error("a cache of a quarter of a MiB")
	}
}

// buildAccount is a user that builds may run as.
func buildAccount(t *testing.T) string {
	t.Helper()
	if os.Getuid() == 0 {
		return "nobody"
	}
	return ""
}
