package survey

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"packmill/archive"
	"packmill/cmd/internal/control"
	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/terminal"
	"packmill/internal/deb/debtest"
	"packmill/internal/policy"
	"packmill/queue"
	"packmill/spool"
)

// newTree is a tree with one suite.
func newTree(t *testing.T) (*spool.Tree, *control.Settings) {
	t.Helper()
	tree, err := spool.Init(filepath.Join(t.TempDir(), "tree"))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"suites":   "Suite: sid\nArchitectures: amd64\n",
		"builders": "Name: one\nArchitectures: amd64\nRunner: exec /bin/true\n",
	} {
		if err := os.WriteFile(tree.Path("control", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	set, err := control.Load(tree.Path("control"))
	if err != nil {
		t.Fatal(err)
	}
	return tree, set
}

// job puts a job of hello 1 into a state.
func job(t *testing.T, tree *spool.Tree, source string, s spool.State, tk queue.Ticket) spool.Found {
	t.Helper()
	tk.Source, tk.Version, tk.Suite, tk.BuildArch = source, "1", "sid", "amd64"
	n := spool.NewName(spool.NormalClass, time.Now(), source, "1")
	it, err := tree.Create(spool.In(s, "sid", "amd64"), n, spool.MasterD, "master-buildd", "made for a test",
		func(dir string) error {
			return os.WriteFile(filepath.Join(dir, spool.TicketFile), tk.Stanza().Append(nil), 0o664)
		})
	if err != nil {
		t.Fatal(err)
	}
	defer it.Release()
	return spool.Found{Place: it.Place, Name: it.Name}
}

// What is nowhere is a refusal; what is elsewhere is one that says where.
func TestFind(t *testing.T) {
	tree, _ := newTree(t)
	job(t, tree, "hello", spool.NeedsBuild, queue.Ticket{})
	if found, err := Find(tree, "list", "hello"); err != nil || len(found) != 1 {
		t.Errorf("got %v, %v", found, err)
	}
	_, err := Find(tree, "accept", "hello", spool.Review)
	if want := "hello cannot be accepted where it is: queue/sid/amd64/needs-build"; !errors.Is(err, daemon.ErrRefused) ||
		!strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
	if _, err := Find(tree, "list", "world"); !errors.Is(err, daemon.ErrRefused) ||
		!strings.Contains(err.Error(), "world") {
		t.Errorf("got %v, want a refusal", err)
	}
	if found, err := Find(tree, "list", "", spool.Review); err != nil || len(found) != 0 {
		t.Errorf("all of nothing: got %v, %v", found, err)
	}
	// No daemon has met the name that a person gives.
	at := job(t, tree, "moved", spool.NeedsBuild, queue.Ticket{})
	other := at.Name
	other.Class = 10
	if err := os.Rename(tree.Path(at.Dir()), tree.Path(at.Place.Dir(), other.String())); err != nil {
		t.Fatal(err)
	}
	if found, err := Find(tree, "list", "moved"); err != nil || len(found) != 1 || found[0].Name != other {
		t.Errorf("another name by mv: got %v, %v", found, err)
	}
}

func TestStatusOf(t *testing.T) {
	tree, set := newTree(t)
	job(t, tree, "hello", spool.NeedsBuild, queue.Ticket{})
	job(t, tree, "world", spool.NeedsBuild, queue.Ticket{})
	if err := os.WriteFile(tree.Path("spool/incoming/x_1.dsc"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := StatusOf(tree, set, &Filter{})
	if err != nil || len(s.Counts) != 2 {
		t.Fatalf("got %+v, %v", s, err)
	}
	if c := s.Counts[0]; c.State != Stray || c.Items != 1 || c.Dir != "spool/incoming" {
		t.Errorf("strays: got %+v", c)
	}
	if c := s.Counts[1]; c.State != "needs-build" || c.Items != 2 || c.Suite != "sid" || c.Arch != "amd64" ||
		c.Oldest == nil {
		t.Errorf("jobs: got %+v", c)
	}
	job(t, tree, "world", spool.BDUninstallable, queue.Ticket{})
	for _, c := range []struct {
		only Filter
		want string
	}{
		{Filter{Patterns: []string{"w*", "other"}}, "needs-build 1, bd-uninstallable 1"},
		{Filter{Patterns: []string{"hello_1"}, Suite: "s*", Arch: "amd64"}, "needs-build 1"},
		{Filter{States: Only(spool.BDUninstallable)}, "bd-uninstallable 1"},
		{Filter{Arch: "i386"}, ""},
		{Filter{Older: time.Hour}, ""},
		{Filter{Older: time.Nanosecond}, "needs-build 2, bd-uninstallable 1"},
	} {
		s, err := StatusOf(tree, set, &c.only)
		var got []string
		for _, n := range s.Counts {
			got = append(got, fmt.Sprint(n.State, " ", n.Items))
		}
		if text := strings.Join(got, ", "); err != nil || text != c.want {
			t.Errorf("%+v: got %s, %v, want %s", c.only, text, err, c.want)
		}
	}
}

// TestNoSuite: nothing of a suite that nobody knows is a slip and no answer.
func TestNoSuite(t *testing.T) {
	tree, _ := newTree(t)
	settings := "Suite: sid\nCodename: unstable\nArchitectures: amd64\n\nSuite: stable\nArchitectures: amd64\n"
	if err := os.WriteFile(tree.Path("control/suites"), []byte(settings), 0o644); err != nil {
		t.Fatal(err)
	}
	job(t, tree, "hello", spool.NeedsBuild, queue.Ticket{})
	for suite, want := range map[string]string{"sdi": "did you mean sid?", "unstable": "another name of the suite sid",
		"stable": "", "s*": "", "x*": "", "sid": ""} {
		f := &Filter{Suite: suite}
		_, _, err := f.Find(tree)
		_, counted := StatusOf(tree, nil, f)
		for _, err := range []error{err, counted} {
			if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("suite %s: got %v, want %q", suite, err, want)
			}
		}
	}
}

func TestCells(t *testing.T) {
	ago := time.Now().Add(-2 * time.Hour)
	for _, c := range []struct {
		count Count
		want  string
	}{
		{Count{State: "needs-build", Suite: "sid", Arch: "amd64", Items: 2, Oldest: &ago, Work: 90},
			"2|needs-build|sid|amd64|2h|about 2 min of builds"},
		{Count{State: Incoming, Dir: "spool/incoming/ann", Items: 1}, "1|incoming (unfinished or deferred)||||spool/incoming/ann"},
		{Count{State: Stray, Dir: "spool/incoming", Items: 3}, "3|stray files, in no .changes||||spool/incoming"},
	} {
		if got := strings.Join(c.count.Cells(), "|"); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

// Why says what is next, who would do it, and what waits for the package.
func TestWhy(t *testing.T) {
	tree, set := newTree(t)
	job(t, tree, "hello", spool.NeedsBuild, queue.Ticket{Binary: []string{"libhello-dev"}})
	job(t, tree, "user", spool.DepWait, queue.Ticket{DepWait: "libhello-dev (>= 1)"})
	all, _, err := Why(tree, set, "hello", "")
	if err != nil || len(all) != 1 {
		t.Fatalf("got %+v, %v", all, err)
	}
	for _, want := range []string{"hello_1 amd64: needs-build since", "next:       a builder takes it",
		"blocks:     user_1 on amd64", "builder:    one: takes it when it is its turn; but no daemon of it runs"} {
		if text := all[0].Text(&terminal.Screen{}); !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
	all, _, err = Why(tree, set, "user", "sid")
	if err != nil || len(all) != 1 || all[0].WaitsFor != "libhello-dev (>= 1)" {
		t.Errorf("user: got %+v, %v", all, err)
	}
	if _, _, err := Why(tree, set, "hello", "other"); !errors.Is(err, daemon.ErrRefused) {
		t.Errorf("in another suite: got %v", err)
	}
}

// TestWhyLease: of a job at a builder on another machine it is said whose it is, and until when.
func TestWhyLease(t *testing.T) {
	tree, set := newTree(t)
	f := job(t, tree, "hello", spool.NeedsBuild, queue.Ticket{Builder: "buildd/far"})
	it, err := tree.Claim(f.Place, f.Name.String())
	if err != nil {
		t.Fatal(err)
	}
	if err := it.Move(spool.Buildd, "buildd/far", spool.Verdict{To: spool.In(spool.Building, "sid", "amd64")}); err != nil {
		t.Fatal(err)
	}
	it.Release()
	for _, c := range []struct {
		ago        time.Duration
		says, want string
	}{{10 * time.Minute, "", "keeps it until "}, {2 * time.Hour, "Slurm: PENDING (Resources)", "has lost it"}} {
		l := spool.NewLease("far", time.Hour)
		l.Says = c.says
		if err := l.Write(it.Path()); err != nil {
			t.Fatal(err)
		}
		then := time.Now().Add(-c.ago)
		if err := os.Chtimes(filepath.Join(it.Path(), spool.LeaseFile), then, then); err != nil {
			t.Fatal(err)
		}
		all, _, err := Why(tree, set, "hello", "")
		if err != nil || len(all) != 1 {
			t.Fatalf("got %+v, %v", all, err)
		}
		want := fmt.Sprintf("far on another machine has it by a lease, was heard %s ago, and %s", c.ago, c.want)
		if c.says != "" {
			want = "it does not run yet (" + c.says + "); " + want
		}
		if !strings.Contains(all[0].Next, "; "+want) {
			t.Errorf("got %q, want %q in it", all[0].Next, want)
		}
	}
}

// TestWhyNotForOpkg: what the feeds for opkg go without is said of its source, for
// as long as it is so.
func TestWhyNotForOpkg(t *testing.T) {
	tree, set := newTree(t)
	root := tree.Path("archive")
	a, err := archive.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	suite := archive.Suite{Name: "sid", Codename: "sid", Components: []string{"main"}, Architectures: []string{"amd64"},
		Opkg: &archive.Opkg{}}
	pooled := filepath.Join(root, "opkg/pool/2/main/h/hello/hello_%_amd64.opk")
	for _, version := range []string{"1", "2"} {
		u := debtest.Upload{Distribution: "sid", Source: debtest.Source{Name: "hello", Version: version},
			Debs: []debtest.Deb{{Name: "hello", Source: "hello", Version: version}}}
		changes, err := u.Write(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		batch := []archive.Inclusion{{Dir: filepath.Dir(changes), Changes: filepath.Base(changes)}}
		if _, err := a.Publish(context.Background(), suite, batch, time.Now()); err != nil {
			t.Fatal(err)
		}
		// The name of the next version is taken by another content.
		if version == "1" {
			if err := os.Link(strings.Replace(pooled, "%", "1", 1), strings.Replace(pooled, "%", "2", 1)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, source := range []string{"hello", "other"} {
		f := job(t, tree, source, spool.NeedsBuild, queue.Ticket{})
		to := tree.Path(spool.Place{State: spool.Installed, Suite: "sid", Arch: "amd64",
			Hash: policy.PoolPrefix(source)}.Dir(), filepath.Base(f.Dir()))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(tree.Path(f.Dir()), to); err != nil {
			t.Fatal(err)
		}
	}
	for source, want := range map[string]bool{"hello": true, "other": false} {
		all, _, err := Why(tree, set, source, "")
		if err != nil || len(all) == 0 {
			t.Fatalf("%s: got %+v, %v", source, all, err)
		}
		text := all[0].Text(&terminal.Screen{})
		if got := strings.Contains(text, "not opkg:   amd64: hello 2: ") &&
			strings.Contains(text, "raise the version"); got != want {
			t.Errorf("%s: said that opkg cannot take it: %v, want %v:\n%s", source, got, want, text)
		}
	}
}
