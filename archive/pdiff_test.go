package archive

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"packmill/internal/deb/debtest"
)

// many is an upload of a hundred packages that compress badly.
func many() debtest.Upload {
	u := debtest.Upload{Source: debtest.Source{Name: "many", Version: "1"}}
	for i := range 100 {
		text := ""
		for n := range 8 {
			text += fmt.Sprintf(" %x\n", sha256.Sum256(fmt.Append(nil, i, n)))
		}
		u.Debs = append(u.Debs, debtest.Deb{Name: fmt.Sprintf("many%02d", i), Source: "many", Version: "1",
			Fields: "Homepage: https://packmill.example/\nNotes:" + text})
	}
	return u
}

// TestPdiffs: apt fetches what changed, and no index that it has; also over several publications at once, after a rollback,
// from an export, and when the patches are not made any more.
func TestPdiffs(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	t.Parallel()
	f := newFixture(t)
	f.suite.Pdiffs = true
	f.accepted(f.upload(many()), f.upload(hello("1")))
	var mu sync.Mutex
	var asked []string
	files := f.a.Handler()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked = append(asked, r.URL.Path)
		mu.Unlock()
		r.Header.Del("If-Modified-Since") // of whole seconds, in which several publications of this test lie
		files.ServeHTTP(w, r)
	}))
	defer s.Close()
	// update lets an apt update; it reports whether it fetched indexes of binaries whole, and how many patches.
	update := func(c *client, version string) (whole, patches int) {
		t.Helper()
		mu.Lock()
		asked = nil
		mu.Unlock()
		out := c.run("apt-get", "update")
		for _, p := range asked {
			switch {
			case !strings.Contains(p, "/main/binary-amd64/"):
			case strings.HasSuffix(p, ".gz") && strings.Contains(p, "/Packages.diff/"):
				patches++
			case strings.Contains(p, "binary-amd64/by-hash/"):
				whole++
			}
		}
		if got := c.run("apt-cache", "policy", "hello"); !strings.Contains(got, "Candidate: "+version+"\n") {
			t.Errorf("got %s\nafter %s", got, out)
		}
		lists, _ := filepath.Glob(filepath.Join(c.dir, "state/lists/*_main_binary-amd64_Packages"))
		if len(lists) != 1 {
			t.Fatalf("apt has %d lists", len(lists))
		}
		if got, err := os.ReadFile(lists[0]); err != nil || string(got) != f.text("main/binary-amd64/Packages") {
			t.Errorf("%v: apt's list is not what is published", err)
		}
		return whole, patches
	}
	source := strings.ReplaceAll(f.source(), "file:"+f.a.Root(), s.URL)
	c := newClient(t, source, f.key, "amd64")
	if whole, patches := update(c, "1"); whole != 1 || patches != 0 {
		t.Errorf("the first: %d indexes and %d patches", whole, patches)
	}
	f.now = f.now.Add(time.Minute)
	if err := f.a.Snapshot(ctx, f.suite, "monday", f.now); err != nil {
		t.Fatal(err)
	}
	f.accepted(f.upload(hello("2")))
	if whole, patches := update(c, "2"); whole != 0 || patches != 1 {
		t.Errorf("after a publication: %d indexes and %d patches", whole, patches)
	}
	for v := range 3 {
		f.accepted(f.upload(hello(fmt.Sprint(v + 3))))
	}
	f.sound()
	if whole, patches := update(c, "5"); whole != 0 || patches != 3 {
		t.Errorf("after three: %d indexes and %d patches", whole, patches)
	}
	if whole, patches := update(c, "5"); whole != 0 || patches != 0 {
		t.Errorf("after nothing: %d indexes and %d patches", whole, patches)
	}

	// A copy has them too, and check sees one that is not what its list says.
	dir := t.TempDir()
	if _, err := f.a.Export(ctx, "unstable", dir, ExportOptions{}); err != nil {
		t.Fatal(err)
	}
	const diff = "dists/unstable/main/binary-amd64/Packages.diff"
	ours, there := tree(t, f.a.path(diff)), tree(t, filepath.Join(dir, diff))
	if n := len(there); n != 4+2 || slices.ContainsFunc(there, func(n string) bool { return !slices.Contains(ours, n) }) {
		t.Errorf("the copy has %q, ours %q", there, ours)
	}
	patch := filepath.Join(diff, ours[slices.IndexFunc(ours, func(n string) bool { return strings.HasSuffix(n, ".gz") })])
	data, err := os.ReadFile(f.a.path(patch))
	if err == nil {
		err = os.WriteFile(f.a.path(patch), append(data, 0), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	if faults, err := f.a.Check(ctx, CheckOptions{}); err != nil || len(faults) != 1 || !strings.Contains(faults[0].String(), patch) {
		t.Errorf("a damaged patch: %v, %v", faults, err)
	}
	if err := os.WriteFile(f.a.path(patch), data, 0o644); err != nil {
		t.Fatal(err)
	}

	f.now = f.now.Add(time.Minute)
	if err := f.a.Rollback(ctx, f.suite, "monday", f.now); err != nil {
		t.Fatal(err)
	}
	f.sound()
	update(c, "1")
	f.accepted(f.upload(hello("6")))
	f.sound()
	if whole, patches := update(c, "6"); whole != 0 || patches != 1 {
		t.Errorf("after the rollback: %d indexes and %d patches", whole, patches)
	}
	f.suite.Pdiffs = false
	f.accepted(f.upload(hello("7")))
	f.sound()
	if _, err := os.Stat(f.a.path(diff, "Index")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("they are not made any more, and there is an Index: %v", err)
	}
	if whole, patches := update(c, "7"); whole != 1 || patches != 0 {
		t.Errorf("without: %d indexes and %d patches", whole, patches)
	}
}
