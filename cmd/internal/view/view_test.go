package view

import (
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"packmill/cmd/internal/control"
	"packmill/cmd/internal/survey"
	"packmill/cmd/internal/view/viewtest"
	"packmill/queue"
	"packmill/spool"
)

// newView is a view of a tree, kept up to date until the test ends.
func newView(t testing.TB, tree *spool.Tree) *View {
	t.Helper()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	set, err := control.NewStore(tree.Path("control"), log)
	if err != nil {
		t.Fatal(err)
	}
	v := New(tree, set, log)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- v.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-v.Ready():
	case err := <-done:
		t.Fatal(err)
	}
	return v
}

func newTree(t testing.TB, packages int) *spool.Tree {
	t.Helper()
	tree, err := viewtest.Make(filepath.Join(t.TempDir(), "tree"), viewtest.Size{Packages: packages,
		Archs: viewtest.Archs[:2], Building: 3})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// same compares the view with what find sees in the tree.
func same(t *testing.T, v *View) bool {
	t.Helper()
	all, err := v.Tree().Find("")
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for _, f := range all {
		if f.Place.Suite != "secret" {
			want = append(want, f.Dir())
		}
	}
	for _, f := range v.Items(Where{}) {
		got = append(got, f.Dir())
	}
	slices.Sort(want)
	slices.Sort(got)
	return slices.Equal(got, want)
}

// wait waits until something is true, waking with each change of the view.
func wait(t *testing.T, v *View, what string, is func() bool) {
	t.Helper()
	sub := v.Subscribe(nil)
	defer sub.Close()
	ctx, stop := context.WithTimeout(context.Background(), 20*time.Second)
	defer stop()
	for !is() {
		select {
		case <-sub.Changed():
		case <-ctx.Done():
			t.Fatalf("%s: not seen", what)
		}
	}
}

// The view has what the tree has: at first, after the engine's moves, after a person's
// mv, and when a suite and an architecture are new.
func TestViewFollowsTheTree(t *testing.T) {
	tree := newTree(t, 60)
	v := newView(t, tree)
	if !same(t, v) {
		t.Fatal("the view is not the tree at first")
	}
	status, err := survey.StatusOf(tree, nil, &survey.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	var want []survey.Count
	for _, c := range status.Counts {
		c.Work = 0
		want = append(want, c)
	}
	if got := v.Counts(); !slices.EqualFunc(got, want, func(a, b survey.Count) bool {
		return a.State == b.State && a.Suite == b.Suite && a.Arch == b.Arch && a.Items == b.Items &&
			a.Oldest.Equal(*b.Oldest)
	}) {
		t.Errorf("counts: got %v, want %v", got, want)
	}

	needs := Where{States: survey.Only(spool.NeedsBuild, spool.BuildAttempted)}
	byAge := v.Items(needs)
	slices.SortStableFunc(byAge, func(a, b spool.Found) int { return a.Name.Time.Compare(b.Name.Time) })
	for _, most := range []int{1, 3, len(byAge), 1000} {
		got, all := v.Oldest(needs, most)
		if all != len(byAge) || !slices.EqualFunc(got, byAge[:min(most, all)], func(a, b spool.Found) bool {
			return a.Name.Time.Equal(b.Name.Time)
		}) {
			t.Errorf("the oldest %d: got %v of %d, want them of %v", most, got, all, byAge)
		}
	}

	job := v.Items(Where{States: survey.Only(spool.NeedsBuild), Arch: "amd64"})[0]
	it, err := tree.Claim(job.Place, job.Name.String())
	if err != nil {
		t.Fatal(err)
	}
	if err := it.Move(spool.Buildd, "buildd-amd64", spool.Verdict{To: spool.In(spool.Building, viewtest.Suite,
		"amd64"), Reason: "taken"}); err != nil {
		t.Fatal(err)
	}
	it.Release()
	wait(t, v, "the engine's move", func() bool { return same(t, v) })
	wait(t, v, "its line in the journal", func() bool {
		m := v.Moves(time.Now().Add(-time.Minute), 1)
		return len(m) == 1 && m[0].Source == job.Name.Source && m[0].State == "building" && m[0].Arch == "amd64"
	})

	installed := v.Items(Where{States: survey.Only(spool.Installed)})[0]
	to := spool.In(spool.Failed, "fresh", "hurd-amd64")
	if err := os.MkdirAll(tree.Path(to.Dir()), 0o775); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tree.Path(installed.Dir()), tree.Path(to.Dir(), installed.Name.String())); err != nil {
		t.Fatal(err)
	}
	wait(t, v, "a mv to a new suite", func() bool { return same(t, v) })
}

// What is in a hidden suite is nowhere, and what cannot be told apart neither.
func TestHidden(t *testing.T) {
	tree := newTree(t, 20)
	for _, p := range []spool.Place{spool.In(spool.NeedsBuild, "secret", "amd64"), spool.In(spool.Review, "secret"),
		spool.In(spool.Rejected), spool.In(spool.Attic)} {
		n := spool.NewName(spool.NormalClass, time.Now(), "embargoed", "1-1")
		dir := tree.Path(p.Dir(), n.String())
		tk := queue.Ticket{Source: "embargoed", Version: "1-1", Suite: "secret"}
		if err := os.MkdirAll(dir, 0o775); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, spool.TicketFile), tk.Stanza().Append(nil), 0o664); err != nil {
			t.Fatal(err)
		}
	}
	torn := spool.NewName(spool.NormalClass, time.Now(), "torn", "1-1")
	if err := os.MkdirAll(tree.Path(spool.Intake.Dir, torn.String()), 0o775); err != nil {
		t.Fatal(err)
	}
	v := newView(t, tree)
	seen := func() string {
		var b strings.Builder
		for _, c := range v.Counts() {
			b.WriteString(c.Suite + " " + c.State + "\n")
		}
		for _, s := range v.Suites() {
			b.WriteString(s.Name + "\n")
		}
		b.WriteString(strings.Join(v.Sources("", 1000), "\n"))
		return b.String()
	}
	if got := seen(); strings.Contains(got, "secret") || strings.Contains(got, "embargoed") ||
		strings.Contains(got, "torn") {
		t.Errorf("got %s", got)
	}
	suites, err := os.ReadFile(tree.Path("control", "suites"))
	if err != nil {
		t.Fatal(err)
	}
	open := strings.Replace(string(suites), "Hidden: yes", "Hidden: no", 1)
	if err := os.WriteFile(tree.Path("control", "suites"), []byte(open), 0o644); err != nil {
		t.Fatal(err)
	}
	wait(t, v, "the suite that is not hidden any more", func() bool {
		return len(v.Package("embargoed")) == 4 && len(v.Package("torn")) == 1
	})
}

// One suite is hidden in place of another that has gone.
func TestHiddenInPlace(t *testing.T) {
	v := &View{}
	for _, name := range []string{"secret", "embargo"} {
		v.adopt(&control.Settings{Suites: []control.Suite{{Name: "stable"}, {Name: name, Hidden: true}}})
		if !v.Hides(name) || v.Hides("stable") {
			t.Errorf("%s is hidden, stable is not; got %v and %v", name, v.Hides(name), v.Hides("stable"))
		}
	}
}

// A directory that is closed is told, and none of a hidden suite.
func TestClosed(t *testing.T) {
	tree := newTree(t, 1)
	v := newView(t, tree)
	shown := tree.Path(spool.In(spool.Building, viewtest.Suite, "amd64").Dir())
	v.prove([]string{shown, tree.Path(spool.In(spool.Building, "secret", "amd64").Dir()), shown,
		tree.Path("archive/dists/secret")}, time.Now())
	if got := v.Now().Closed; !slices.Equal(got, []string{shown}) {
		t.Errorf("got %v, want %s", got, shown)
	}
}

// When another suite is hidden, what is of the shown ones stays in sight.
func TestHiddenLater(t *testing.T) {
	tree := newTree(t, 20)
	log := slog.New(slog.DiscardHandler)
	set, err := control.NewStore(tree.Path("control"), log)
	if err != nil {
		t.Fatal(err)
	}
	v := New(tree, set, log)
	if err := v.look(); err != nil {
		t.Fatal(err)
	}
	all := len(v.Items(Where{Suite: viewtest.Suite}))
	for _, hidden := range []string{"other", viewtest.Suite} {
		want := all
		if hidden == viewtest.Suite {
			want = 0
		}
		if !v.adopt(&control.Settings{Suites: []control.Suite{{Name: hidden, Hidden: true}}}) {
			t.Errorf("%s: it is not news", hidden)
		}
		if got := len(v.Items(Where{Suite: viewtest.Suite})); got != want {
			t.Errorf("%s is hidden: got %d items, want %d", hidden, got, want)
		}
		if err := v.look(); err != nil {
			t.Fatal(err)
		}
		if got := len(v.Items(Where{Suite: viewtest.Suite})); got != want {
			t.Errorf("%s is hidden, after a look: got %d items, want %d", hidden, got, want)
		}
	}
}

// How much there is, how old, and what is chosen is the same as by looking at all items, whatever came and went.
func TestHolding(t *testing.T) {
	tree := newTree(t, 1)
	set, err := control.NewStore(tree.Path("control"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	v := New(tree, set, slog.New(slog.DiscardHandler))
	chance := rand.New(rand.NewPCG(1, 2))
	begun := time.Now().UTC().Truncate(time.Microsecond)
	states := []spool.State{spool.NeedsBuild, spool.Installed, spool.Failed}
	v.mu.Lock()
	var there []entry
	for i := range 5000 {
		if len(there) > 0 && chance.IntN(5) < 2 {
			k := chance.IntN(len(there))
			if !v.held.remove(there[k].source, there[k].item) {
				t.Fatal("it is not there")
			}
			there = slices.Delete(there, k, k+1)
			continue
		}
		at := begun.Add(-time.Duration(chance.IntN(1e6)) * time.Second)
		n := spool.NewName(spool.NormalClass, at, viewtest.Name(i%50), "1-1")
		p := spool.In(states[chance.IntN(3)], viewtest.Suite, viewtest.Archs[chance.IntN(2)]).Of(n.Source)
		e := entry{n.Source, v.held.pack(p, n)}
		if v.held.add(e.source, e.item) {
			there = append(there, e)
		}
	}
	v.mu.Unlock()
	type key struct{ state, arch string }
	items, oldest := map[key]int{}, map[key]time.Time{}
	for source := range v.held.sources {
		for _, f := range v.Package(source) {
			k := key{f.Place.State.Name, f.Place.Arch}
			if items[k]++; items[k] == 1 || f.Name.Time.Before(oldest[k]) {
				oldest[k] = f.Name.Time
			}
		}
	}
	for _, c := range v.Counts() {
		k := key{c.State, c.Arch}
		if c.Items != items[k] || !c.Oldest.Equal(oldest[k]) {
			t.Errorf("%v: got %d since %v, want %d since %v", k, c.Items, c.Oldest, items[k], oldest[k])
		}
		delete(items, k)
		for _, s := range states {
			if s.Name == c.State && c.Arch != "" {
				if got := len(v.Items(Where{States: survey.Only(s), Arch: c.Arch})); got != c.Items {
					t.Errorf("%v: got %d items, want %d", k, got, c.Items)
				}
			}
		}
	}
	if len(items) > 0 {
		t.Errorf("not counted: %v", items)
	}
}

// BenchmarkView reads a tree of a distribution's size, and says what memory that needs.
func BenchmarkView(b *testing.B) {
	tree, err := viewtest.Make(filepath.Join(b.TempDir(), "tree"), viewtest.Size{Packages: 38_000,
		Archs: viewtest.Archs, Bare: true})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		v := newView(b, tree)
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		b.ReportMetric(float64(m.HeapAlloc)/1e6, "MB")
		b.ReportMetric(float64(v.Now().Items), "items")
	}
}

// BenchmarkAsk asks a view of a distribution's size what the first page asks.
func BenchmarkAsk(b *testing.B) {
	v := newView(b, newTree(b, 1))
	listed := map[spool.Place][]string{}
	begun := time.Now().Add(-time.Hour)
	for i := range 38_000 {
		name := spool.NewName(spool.NormalClass, begun.Add(time.Duration(i)*time.Millisecond), viewtest.Name(i), "1.0-1")
		for k, arch := range viewtest.Archs {
			state := spool.Installed
			switch (i + k) % 100 {
			case 0, 1, 2, 3:
				state = spool.NeedsBuild
			case 4, 5:
				state = spool.BuildAttempted
			}
			p := spool.In(state, viewtest.Suite, arch).Of(name.Source)
			listed[p] = append(listed[p], name.String())
		}
	}
	v.replace(listed)
	b.Run("counts", func(b *testing.B) {
		for b.Loop() {
			v.Counts()
		}
	})
	b.Run("failed", func(b *testing.B) {
		for b.Loop() {
			v.Items(Where{States: survey.Only(spool.BuildAttempted)})
		}
	})
	b.Run("oldest", func(b *testing.B) {
		for b.Loop() {
			v.Oldest(Where{States: survey.Only(spool.BuildAttempted)}, 12)
		}
	})
	b.Run("building", func(b *testing.B) {
		for b.Loop() {
			v.Items(Where{States: survey.Only(spool.Building)})
		}
	})
}
