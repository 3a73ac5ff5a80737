package spool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func newTree(t testing.TB) *Tree {
	t.Helper()
	tree, err := Init(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

var t0 = time.Date(2026, 11, 21, 11, 35, 0, 123456000, time.UTC)

// born makes an item that holds one file and lets it go.
func born(t testing.TB, tree *Tree, p Place, by Actor, name Name) {
	t.Helper()
	it, err := tree.Create(p, name, by, string(by), "test", func(dir string) error {
		return os.WriteFile(filepath.Join(dir, "f"), []byte("x"), 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	it.Release()
}

func TestPlaceOfIsDirsInverse(t *testing.T) {
	for _, s := range Standard.States {
		p := In(s, "sid", "amd64").Of("hello")
		got, ok := Standard.PlaceOf(p.Dir())
		if !ok || got != p {
			t.Errorf("PlaceOf(%q): got %v %v, want %v", p.Dir(), got, ok, p)
		}
	}
	for _, bad := range []string{"", "spool", "spool/review", "queue/sid/amd64", "queue/sid/amd64/nowhere",
		"queue/../x/amd64/building", "attic/x"} {
		if p, ok := Standard.PlaceOf(bad); ok {
			t.Errorf("PlaceOf(%q): got %v, want none", bad, p)
		}
	}
}

func TestName(t *testing.T) {
	n := NewName(50, t0, "hello", "1:2.10-3")
	want := "50-20261121T113500.123456Z_hello_1%3a2.10-3"
	if n.String() != want {
		t.Errorf("String: got %q, want %q", n.String(), want)
	}
	back, err := ParseName(want)
	if err != nil || back != n {
		t.Errorf("ParseName(%q): got %+v, %v", want, back, err)
	}
	for pattern, want := range map[string]bool{
		"hello": true, "hello_1:2.10-3": true, "hello_1%3a2.10-3": true, want: true,
		"hell": false, "hello_2.10-3": false, "": false,
	} {
		if got := n.Matches(pattern); got != want {
			t.Errorf("Matches(%q): got %v, want %v", pattern, got, want)
		}
	}
	for _, bad := range []string{
		"", "hello", "50-20261121T113500.123456Z_hello", "5-20261121T113500.123456Z_hello_1",
		"50-20261121T113500Z_hello_1", "50-20261121T113500.123456Z_../x_1", "50-20261121T113500.123456Z_hello_1:2",
		"50-20261121T113500.123456Z_hello_1_amd64_x", "50-20269921T113500.123456Z_hello_1",
	} {
		if n, err := ParseName(bad); err == nil {
			t.Errorf("ParseName(%q): got %+v, want an error", bad, n)
		}
	}
}

func TestMoveWritesHistoryReasonAndJournal(t *testing.T) {
	tree := newTree(t)
	name := NewName(50, t0, "hello", "1")
	born(t, tree, In(Intake), Reviewd, name)
	it, err := tree.Claim(In(Intake), name.String())
	if err != nil {
		t.Fatal(err)
	}
	v := Verdict{To: In(Rejected), Reason: "bad\nsignature\x1b[31m", Text: "Sign it."}
	if err := it.Move(Reviewd, "reviewd", v); err != nil {
		t.Fatal(err)
	}
	it.Release()
	dir := tree.Path("spool/rejected", name.String())
	if got := ReadReason(dir); got != "Sign it.\n" {
		t.Errorf("REASON: got %q", got)
	}
	events, err := ReadHistory(dir)
	if err != nil || len(events) != 2 {
		t.Fatalf("history: got %v, %v; want two events", events, err)
	}
	if e := events[1]; e.From != "spool/intake" || e.To != "spool/rejected" || e.Reason != "bad signature [31m" {
		t.Errorf("history: got %+v", e)
	}
	days, _ := os.ReadDir(tree.Path("journal"))
	days = slices.DeleteFunc(days, func(e os.DirEntry) bool { return e.IsDir() })
	if len(days) != 1 {
		t.Fatalf("journal: got %d files, want 1", len(days))
	}
	data, _ := os.ReadFile(tree.Path("journal", days[0].Name()))
	if got := strings.Count(string(data), "\n"); got != 2 {
		t.Errorf("journal: got %d lines, want 2:\n%s", got, data)
	}
	// A person puts it back: REASON goes.
	it, err = tree.Claim(In(Rejected), name.String())
	if err != nil {
		t.Fatal(err)
	}
	defer it.Release()
	if err := it.Move(Person, "root", Verdict{To: In(Intake), Reason: "again"}); err != nil {
		t.Fatal(err)
	}
	if got := ReadReason(it.Path()); got != "" {
		t.Errorf("REASON after the next move: got %q, want none", got)
	}
}

func TestMoveKeepsToTheTable(t *testing.T) {
	tree := newTree(t)
	name := NewName(50, t0, "hello", "1")
	born(t, tree, In(Intake), Reviewd, name)
	it, err := tree.Claim(In(Intake), name.String())
	if err != nil {
		t.Fatal(err)
	}
	defer it.Release()
	for _, tc := range []struct {
		by Actor
		to Place
	}{{Buildd, In(Review, "sid")}, {Reviewd, In(Installed, "sid", "amd64")}, {Person, In(Accepted, "sid")}} {
		if err := it.Move(tc.by, "x", Verdict{To: tc.to}); !errors.Is(err, ErrIllegal) {
			t.Errorf("%s: intake -> %s: got %v, want ErrIllegal", tc.by, tc.to, err)
		}
	}
}

func TestClaimIsAlone(t *testing.T) {
	tree := newTree(t)
	name := NewName(50, t0, "hello", "1")
	born(t, tree, In(NeedsBuild, "sid", "amd64"), MasterD, name)
	var won atomic.Int32
	var wg sync.WaitGroup
	hold := make(chan struct{})
	for range 16 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			it, err := tree.Claim(In(NeedsBuild, "sid", "amd64"), name.String())
			if err == nil {
				won.Add(1)
				<-hold
				it.Release()
			} else if !errors.Is(err, ErrBusy) {
				t.Error(err)
				close(hold)
			}
		}()
	}
	for won.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(10 * time.Millisecond)
	close(hold)
	wg.Wait()
	if won.Load() < 1 {
		t.Errorf("claims: got %d", won.Load())
	}
	if _, err := tree.Claim(In(NeedsBuild, "sid", "amd64"), NewName(50, t0, "other", "1").String()); !errors.Is(err,
		ErrGone) {
		t.Errorf("claim of nothing: got %v, want ErrGone", err)
	}
}

// The lock is on what lies there now: a directory that was moved away and
// replaced between open and flock must not be taken for the item.
func TestClaimComparesTheInode(t *testing.T) {
	tree := newTree(t)
	name := NewName(50, t0, "hello", "1")
	p := In(NeedsBuild, "sid", "amd64")
	born(t, tree, p, MasterD, name)
	dir := tree.Path(p.Dir(), name.String())
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Add(1)
	go func() { // two directories take turns under the name
		defer wg.Done()
		other := tree.Path("tmp", "other")
		os.Mkdir(other, 0o755)
		for {
			select {
			case <-stop:
				return
			default:
				unix.Renameat2(unix.AT_FDCWD, dir, unix.AT_FDCWD, other, unix.RENAME_EXCHANGE)
			}
		}
	}()
	deadline := time.Now().Add(200 * time.Millisecond)
	for time.Now().Before(deadline) {
		f, err := lockDir(dir)
		if err != nil {
			continue
		}
		f.Close()
	}
	close(stop)
	wg.Wait()
	// Deterministic half: hold the one, exchange, and ask for the name.
	f, err := lockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Renameat2(unix.AT_FDCWD, dir, unix.AT_FDCWD, tree.Path("tmp", "other"),
		unix.RENAME_EXCHANGE); err != nil {
		t.Fatal(err)
	}
	g, err := lockDir(dir)
	if err != nil {
		t.Fatalf("the new directory under the name is free: %v", err)
	}
	g.Close()
}

func TestHandMoveIsNoticed(t *testing.T) {
	tree := newTree(t)
	name := NewName(50, t0, "hello", "1")
	born(t, tree, In(Intake), Reviewd, name)
	if err := tree.Ensure(In(Accepted, "sid")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tree.Path("spool/intake", name.String()),
		tree.Path("spool/accepted/sid", name.String())); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second claim has nothing to notice
		it, err := tree.Claim(In(Accepted, "sid"), name.String())
		if err != nil {
			t.Fatal(err)
		}
		it.Release()
	}
	events, _ := ReadHistory(tree.Path("spool/accepted/sid", name.String()))
	if len(events) != 2 || events[1].Who != ByHand || events[1].From != "spool/intake" ||
		events[1].To != "spool/accepted/sid" {
		t.Errorf("history: got %+v, want the birth and one move by %s", events, ByHand)
	}
}

func TestHatch(t *testing.T) {
	tree := newTree(t)
	name := NewName(50, t0, "hello", "1")
	it, err := tree.Create(In(Intake), name, Reviewd, "reviewd", "", func(dir string) error {
		return os.MkdirAll(filepath.Join(dir, "jobs/amd64"), 0o755)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer it.Release()
	p := In(NeedsBuild, "sid", "amd64")
	if err := it.Hatch("jobs/amd64", p, name, MasterD, "master-buildd", "new"); err != nil {
		t.Fatal(err)
	}
	if err := it.Hatch("jobs/amd64", p, name, MasterD, "master-buildd", "new"); !errors.Is(err, ErrGone) {
		t.Errorf("second Hatch: got %v, want ErrGone", err)
	}
	names, _ := tree.List(p)
	if len(names) != 1 || names[0] != name.String() {
		t.Errorf("queue: got %v", names)
	}
}

func TestNamesMeetInTheAttic(t *testing.T) {
	tree := newTree(t)
	name := NewName(50, t0, "hello", "1")
	for _, arch := range []string{"amd64", "i386", "amd64"} {
		p := In(NeedsBuild, "sid", arch)
		born(t, tree, p, MasterD, name)
		it, err := tree.Claim(p, name.String())
		if err != nil {
			t.Fatal(err)
		}
		if err := it.Move(MasterD, "master-buildd", Verdict{To: In(Attic), Reason: "superseded"}); err != nil {
			t.Fatal(err)
		}
		it.Release()
	}
	names, _ := tree.List(In(Attic))
	want := "[50-20261121T113500.123456Z_hello_1_amd64 50-20261121T113500.123456Z_hello_1_i386 " +
		"50-20261121T113500.123457Z_hello_1_amd64]"
	if fmt.Sprint(names) != want {
		t.Errorf("attic: got %v, want %v", names, want)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(dir); !errors.Is(err, ErrNoTree) || !strings.Contains(err.Error(), "packmill init") {
		t.Errorf("Open of an empty directory: got %v, want ErrNoTree and the cure", err)
	}
}

func testLoop(tree *Tree) *Loop {
	return &Loop{
		Tree: tree, By: Reviewd, Log: slog.New(slog.DiscardHandler), Once: true,
		Places: func() ([]Place, error) { return []Place{In(Intake)}, nil },
		Handle: func(context.Context, *Item) (Verdict, error) { return Verdict{To: In(Rejected), Reason: "r"}, nil },
		Poison: func(*Item) Place { return In(Rejected) },
	}
}

func TestLoopServesInOrder(t *testing.T) {
	tree := newTree(t)
	for i, class := range []int{50, 20, 90, 50} {
		born(t, tree, In(Intake), Reviewd, NewName(class, t0.Add(time.Duration(-i)*time.Second), "pp", fmt.Sprint(i)))
	}
	var got []string
	l := testLoop(tree)
	l.Handle = func(_ context.Context, it *Item) (Verdict, error) {
		got = append(got, it.Name.Version)
		return Verdict{To: In(Rejected)}, nil
	}
	if err := l.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	if want := "[1 3 0 2]"; fmt.Sprint(got) != want {
		t.Errorf("order: got %v, want %v", got, want)
	}
}

func TestLoopGoesOnAfterABadItem(t *testing.T) {
	tree := newTree(t)
	for i := range 3 {
		born(t, tree, In(Intake), Reviewd, NewName(50, t0.Add(time.Duration(i)), "pp", fmt.Sprint(i+1)))
	}
	l := testLoop(tree)
	n := 0
	l.Handle = func(_ context.Context, it *Item) (Verdict, error) {
		n++
		if n == 1 {
			return Verdict{}, errors.New("no")
		}
		if n == 2 {
			panic("planted")
		}
		return Verdict{To: In(Rejected)}, nil
	}
	if err := l.Run(context.Background()); !errors.Is(err, ErrLeft) {
		t.Errorf("Run: got %v, want ErrLeft", err)
	}
	left, _ := tree.List(In(Intake))
	done, _ := tree.List(In(Rejected))
	if len(left) != 2 || len(done) != 1 {
		t.Errorf("left %v, done %v; want two and one", left, done)
	}
}

func TestLoopQuarantinesPoison(t *testing.T) {
	tree := newTree(t)
	name := NewName(50, t0, "pp", "1")
	born(t, tree, In(Intake), Reviewd, name)
	for range maxPanics {
		l := testLoop(tree)
		l.Handle = func(context.Context, *Item) (Verdict, error) { panic("planted") }
		l.Run(context.Background())
	}
	if got, _ := tree.List(In(Intake)); len(got) != 1 {
		t.Fatalf("after %d panics: got %v in intake, want it there still", maxPanics, got)
	}
	testLoop(tree).Run(context.Background())
	if text := ReadReason(tree.Path("spool/rejected", name.String())); !strings.Contains(text, "packmill requeue") {
		t.Errorf("REASON of the quarantined item: got %q", text)
	}
}

// TestLoopScanShare: events that ask for scans while there is something to do, and scans are long, leave the time to
// the work; what came meanwhile is found.
func TestLoopScanShare(t *testing.T) {
	tree := newTree(t)
	for i := range 100 {
		born(t, tree, In(Intake), Reviewd, NewName(50, t0.Add(time.Duration(i)), "pp", fmt.Sprint(i+1)))
	}
	const long = 20 * time.Millisecond
	incoming := tree.Path("spool/incoming")
	l := testLoop(tree)
	l.Also = func() []string { return []string{incoming} }
	scans := 0
	var seen int // files, in the last scan
	l.Before = func(context.Context) (bool, error) {
		scans++
		files, err := os.ReadDir(incoming)
		seen = len(files)
		time.Sleep(long)
		return false, err
	}
	l.Handle = func(_ context.Context, it *Item) (Verdict, error) {
		return Verdict{To: In(Rejected)}, os.WriteFile(filepath.Join(incoming, it.Name.Version), nil, 0o644)
	}
	begun := time.Now()
	if err := l.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	// The first, one when nothing is ready any more, and that of Once.
	if most := 3 + int(time.Since(begun)/((1+scanShare)*long)); scans > most {
		t.Errorf("%d scans of %s in %s, want at most %d", scans, long, time.Since(begun), most)
	}
	if seen != 100 {
		t.Errorf("the last scan saw %d files, want 100", seen)
	}
}

func TestUnfinished(t *testing.T) {
	tests := []struct {
		text           string
		deaths, panics int
	}{
		{"", 0, 0},
		{"1000\n1001\n1003\n1009\n", 1, 0},
		{"1000\n1010\n1020\n1021\n", 3, 0},
		{"1000\npanic\n1001\npanic\n", 1, 2},
		{"2000\n1000\n", 2, 0}, // the clock was set back
		{"1000\n10", 2, 0},     // the last write was cut short
	}
	for _, tt := range tests {
		if d, p := unfinished(tt.text); d != tt.deaths || p != tt.panics {
			t.Errorf("unfinished(%q): got %d deaths, %d panics, want %d, %d", tt.text, d, p, tt.deaths, tt.panics)
		}
	}
}

// serve runs a loop in the background and returns its end.
func serve(t *testing.T, l *Loop) {
	t.Helper()
	l.Once = false
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("after two minutes still not: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func count(tree *Tree, p Place) int {
	names, _ := tree.List(p)
	return len(names)
}

func TestLoopTakesArrivalsAndBurst(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	tree := newTree(t)
	l := testLoop(tree)
	l.Workers, l.Tick = 4, time.Hour // only events and overflows help
	serve(t, l)
	const n = 4500 // above maxHints
	for i := range n {
		name := NewName(50, t0, "pp", fmt.Sprint(i+1)).String()
		os.Mkdir(tree.Path("tmp", name), 0o755)
		os.Rename(tree.Path("tmp", name), tree.Path("spool/intake", name))
	}
	until(t, "all are handled", func() bool { return count(tree, In(Rejected)) == n })
}

func TestLoopWaitsForABusyItem(t *testing.T) {
	tree := newTree(t)
	name := NewName(50, t0, "pp", "1")
	born(t, tree, In(Intake), Reviewd, name)
	it, err := tree.Claim(In(Intake), name.String())
	if err != nil {
		t.Fatal(err)
	}
	l := testLoop(tree)
	l.Tick = time.Hour
	var handled atomic.Bool
	l.Handle = func(context.Context, *Item) (Verdict, error) {
		handled.Store(true)
		return Verdict{To: In(Rejected)}, nil
	}
	serve(t, l)
	time.Sleep(50 * time.Millisecond)
	if handled.Load() {
		t.Error("handled while the lock was held")
	}
	it.Release()
	until(t, "the freed item is handled", handled.Load)
}

// While the only hand builds for hours, what falls due must not wake the loop
// again and again.
func TestLoopRestsWhileItsHandsAreBusy(t *testing.T) {
	tree := newTree(t)
	held := NewName(50, t0, "held", "1")
	born(t, tree, In(Intake), Reviewd, held)
	it, err := tree.Claim(In(Intake), held.String())
	if err != nil {
		t.Fatal(err)
	}
	defer it.Release()
	born(t, tree, In(Intake), Reviewd, NewName(60, t0, "long", "1"))
	var used time.Duration
	l := testLoop(tree)
	l.Handle = func(context.Context, *Item) (Verdict, error) {
		time.Sleep(2 * busyRetry) // the held item falls due
		before := cpu()
		time.Sleep(5 * busyRetry)
		used = cpu() - before
		return Verdict{To: In(Rejected)}, nil
	}
	l.Run(context.Background())
	if used > busyRetry {
		t.Errorf("the loop used %v of the processor in %v of waiting", used, 5*busyRetry)
	}
}

// cpu is the processor time of this process so far.
func cpu() time.Duration {
	var u unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func TestLoopWatchesAReplacedDirectory(t *testing.T) {
	tree := newTree(t)
	l := testLoop(tree)
	l.Tick = 50 * time.Millisecond
	serve(t, l)
	until(t, "it runs", func() bool { return l.Tree.Check() == nil })
	os.Rename(tree.Path("spool/intake"), tree.Path("spool/old"))
	os.Mkdir(tree.Path("spool/intake"), 0o755)
	born(t, tree, In(Intake), Reviewd, NewName(50, t0, "pp", "1"))
	until(t, "the item in the new directory is handled", func() bool { return count(tree, In(Rejected)) == 1 })
}

func TestLoopEndsWhenTheTreeIsReplaced(t *testing.T) {
	tree := newTree(t)
	l := testLoop(tree)
	l.Once, l.Tick = false, 20*time.Millisecond
	done := make(chan error, 1)
	go func() { done <- l.Run(context.Background()) }()
	os.Rename(tree.Root(), tree.Root()+".away")
	t.Cleanup(func() { os.RemoveAll(tree.Root() + ".away") })
	select {
	case err := <-done:
		if !errors.Is(err, ErrNoTree) {
			t.Errorf("Run: got %v, want ErrNoTree", err)
		}
	case <-time.After(2 * time.Minute):
		t.Fatal("Run stood still on a tree that is gone")
	}
}

func TestStirLooksAgain(t *testing.T) {
	tree := newTree(t)
	name := NewName(50, t0, "hello", "1")
	born(t, tree, In(Intake), Reviewd, name)
	l := testLoop(tree)
	l.Tick = time.Hour
	l.Also = func() []string { return []string{tree.Path("spool/rejected")} }
	var looks atomic.Int32
	l.Handle = func(context.Context, *Item) (Verdict, error) {
		if looks.Add(1) == 1 {
			return Stay(0, "waits for its sibling"), nil
		}
		return Verdict{To: In(Review, "sid")}, nil
	}
	serve(t, l)
	until(t, "the first look", func() bool { return looks.Load() == 1 })
	os.Mkdir(tree.Path("spool/rejected", NewName(50, t0, "hello", "1").String()+"_amd64"), 0o755)
	until(t, "it moved", func() bool { return count(tree, In(Review, "sid")) == 1 })
}

// Two items that need each other in one batch, one of which is still held by
// its mover at the first look: the other one stayed by then, and must be looked
// at again with it.
func TestBatchTakesWhatStayedWithTheBusy(t *testing.T) {
	tree := newTree(t)
	source := NewName(50, t0, "hello", "1")
	binary := source
	binary.Arch = "amd64"
	born(t, tree, In(Intake), Reviewd, source)
	born(t, tree, In(Intake), Reviewd, binary)
	mover, err := tree.Claim(In(Intake), binary.String())
	if err != nil {
		t.Fatal(err)
	}
	l := testLoop(tree)
	l.Tick = time.Hour
	var looks atomic.Int32
	l.Batch = func(_ context.Context, items []*Item) ([]Verdict, error) {
		looks.Add(1)
		out := make([]Verdict, len(items))
		for i := range out {
			if len(items) == 2 {
				out[i] = Verdict{To: In(Rejected)}
			} else {
				out[i] = Stay(0, "waits for the other")
			}
		}
		return out, nil
	}
	serve(t, l)
	until(t, "the source was looked at alone", func() bool { return looks.Load() > 0 })
	mover.Release()
	until(t, "both moved", func() bool { return count(tree, In(Rejected)) == 2 })
}

// What lies in tmp is nobody's item and is never served.
func TestCreateLeavesNothingWhenFillFails(t *testing.T) {
	tree := newTree(t)
	_, err := tree.Create(In(Intake), NewName(50, t0, "pp", "1"), Reviewd, "reviewd", "", func(dir string) error {
		os.WriteFile(filepath.Join(dir, "half"), nil, 0o644)
		return fs.ErrInvalid
	})
	if !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("Create: got %v, want fill's error", err)
	}
	left, _ := os.ReadDir(tree.Path("tmp"))
	if len(left) != 0 || count(tree, In(Intake)) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A batch has all that lies there, also what stayed before: the item that
// comes may be the one that the others wait for, and find them there.
func TestBatchTakesWhatStayed(t *testing.T) {
	tree := newTree(t)
	l := testLoop(tree)
	l.Tick = time.Hour
	var looks atomic.Int32
	l.Batch = func(_ context.Context, items []*Item) ([]Verdict, error) {
		looks.Add(1)
		out := make([]Verdict, len(items))
		for i := range items {
			if len(items) > 1 {
				out[i].To = In(Rejected)
			}
		}
		return out, nil
	}
	born(t, tree, In(Intake), Reviewd, NewName(50, t0, "binary", "1"))
	serve(t, l)
	until(t, "the first look", func() bool { return count(tree, In(Intake)) == 1 && looks.Load() > 0 })
	born(t, tree, In(Intake), Reviewd, NewName(50, t0, "source", "1"))
	until(t, "both went together", func() bool { return count(tree, In(Rejected)) == 2 })
}

// With two workers a batch that takes long holds up its own place alone, of which there is one at a time.
func TestBatchesOfTwoPlaces(t *testing.T) {
	tree := newTree(t)
	slow, quick := In(Review, "slow"), In(Review, "quick")
	l := testLoop(tree)
	l.Once, l.Tick, l.Workers = false, time.Hour, 2
	l.Places = func() ([]Place, error) {
		return []Place{slow, quick}, errors.Join(tree.Ensure(slow), tree.Ensure(quick))
	}
	begun, end := make(chan Place, 10), make(chan struct{})
	l.Batch = func(_ context.Context, items []*Item) ([]Verdict, error) {
		begun <- items[0].Place
		if items[0].Place == slow {
			<-end
		}
		out := make([]Verdict, len(items))
		for i := range out {
			out[i].To = In(Rejected)
		}
		return out, nil
	}
	bring := func(p Place, version string) {
		t.Helper()
		name := NewName(50, t0, "hello", version)
		born(t, tree, In(Intake), Reviewd, name)
		it, err := tree.Claim(In(Intake), name.String())
		if err != nil {
			t.Fatal(err)
		}
		defer it.Release()
		if err := it.Move(Reviewd, "test", Verdict{To: p}); err != nil {
			t.Fatal(err)
		}
	}
	bring(slow, "1")
	serve(t, l)
	if at := <-begun; at != slow {
		t.Fatalf("the first batch is of %v, want %v", at, slow)
	}
	bring(slow, "2")
	for i := range 3 {
		bring(quick, fmt.Sprint(i+3))
		if at := <-begun; at != quick {
			t.Fatalf("beside the first batch there is one of %v, want %v", at, quick)
		}
	}
	close(end)
	if at := <-begun; at != slow {
		t.Errorf("after the first batch there is one of %v, want %v", at, slow)
	}
	until(t, "all moved", func() bool { return count(tree, In(Rejected)) == 5 })
}

// What would stay again is not opened because something else of its place comes, or at a scan; and is when it would not
// stay any more, or when an event names it.
func TestWhatWouldStayIsPassedOver(t *testing.T) {
	tree := newTree(t)
	nudge, seen := make(chan struct{}), make(chan []string, 100)
	var over atomic.Bool
	l := testLoop(tree)
	l.Tick, l.Nudge = time.Hour, nudge
	l.Same = func(Place, string) bool { return !over.Load() }
	l.Batch = func(_ context.Context, items []*Item) ([]Verdict, error) {
		var names []string
		for _, it := range items {
			names = append(names, it.Name.Source)
		}
		seen <- names
		return make([]Verdict, len(items)), nil
	}
	next := func(want ...string) {
		t.Helper()
		if got := <-seen; !slices.Equal(got, want) {
			t.Fatalf("looked at %v, want %v", got, want)
		}
	}
	born(t, tree, In(Intake), Reviewd, NewName(50, t0, "one", "1"))
	serve(t, l)
	next("one")
	nudge <- struct{}{} // a scan that finds nothing to do
	born(t, tree, In(Intake), Reviewd, NewName(50, t0, "two", "1"))
	next("two")
	name := tree.Path(In(Intake).Dir(), NewName(50, t0, "one", "1").String())
	if err := errors.Join(os.Rename(name, tree.Path("tmp/x")), os.Rename(tree.Path("tmp/x"), name)); err != nil {
		t.Fatal(err)
	}
	next("one")
	over.Store(true)
	nudge <- struct{}{}
	next("one", "two")
}

// With --debug a loop says what it looked at, and why it left an item where it is.
func TestLoopSaysWhatStays(t *testing.T) {
	tree := newTree(t)
	p := In(NeedsBuild, "sid", "amd64")
	name := NewName(50, t0, "hello", "1")
	born(t, tree, p, MasterD, name)
	for level, want := range map[slog.Level]bool{slog.LevelDebug: true, slog.LevelInfo: false} {
		var out strings.Builder
		l := &Loop{
			Tree: tree, By: Buildd, Log: slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: level})), Once: true,
			Places: func() ([]Place, error) { return []Place{p}, nil },
			Handle: func(context.Context, *Item) (Verdict, error) { return Stay(0, "waits for rain"), nil },
		}
		if err := l.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, line := range []string{`msg=scanned places=1 items=1`, "msg=stays item=" + name.String() + ` state=needs-build suite=sid arch=amd64 reason="waits for rain"`} {
			if strings.Contains(out.String(), line) != want {
				t.Errorf("at level %s %q is there: %v, want %v; got:\n%s", level, line, !want, want, out.String())
			}
		}
	}
}
