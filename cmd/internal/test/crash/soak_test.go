//go:build linux && amd64 && system

package crash

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"packmill/archive"
	"packmill/cmd/internal/fsck"
	"packmill/spool"
	"packmill/spool/upload/uploadtest"
)

var (
	soakTime = flag.Duration("crash.soak", 30*time.Second, "how long TestSoak uploads and kills")
	soakSeed = flag.Uint64("crash.seed", 0, "seed of TestSoak; 0: of the time")
)

// soak is a whole site at work, and what its people know of it.
type soak struct {
	*site
	rng  *rand.Rand
	mu   sync.Mutex
	want map[string]string // source_version -> "published", "rejected" or "failed"
	last map[string]int    // revision of each source
	sent map[[32]byte]string
	done bool // of the killing
	kill int
	mv   int
	kids []*kid
}

// A kid is a daemon that is started again when it has died.
type kid struct {
	argv   []string
	mu     sync.Mutex
	cmd    *exec.Cmd
	out    output
	starts int
	stop   bool
}

// output is what a daemon has said so far; others look at it meanwhile.
type output struct {
	mu sync.Mutex
	b  []byte
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.b = append(o.b, p...)
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.b)
}

// TestSoak lets uploads, reviewers, builders and a murderer at one tree, with
// an inotify queue that overflows all the time, until nothing moves; then every
// upload is where it belongs.
func TestSoak(t *testing.T) {
	seed := *soakSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	fmt.Fprintf(os.Stderr, "crash: soak: -crash.seed %d\n", seed)
	tinyInotify(t)
	s := &soak{site: newSite(t, "always", "together"), rng: rand.New(rand.NewPCG(seed, 0)),
		want: map[string]string{}, last: map[string]int{}, sent: map[[32]byte]string{}}
	if err := os.Mkdir(filepath.Join(s.bin, "busy"), 0o777); err != nil && !os.IsExist(err) {
		t.Fatal(err)
	}
	for _, argv := range [][]string{
		{"reviewd"}, {"reviewd"}, {"master-buildd"}, {"archived"},
		{"buildd", "--arch", "amd64"}, {"buildd", "--arch", "amd64"}, {"buildd", "--arch", "arm64"},
		{"buildd", "--arch", "arm64"},
	} {
		s.kids = append(s.kids, &kid{argv: argv})
	}
	var g sync.WaitGroup
	for _, k := range s.kids {
		g.Go(func() { s.live(k) })
	}
	// Beside all that fsck says nothing but what a kill or a hand did. Two moves by
	// hand, to failed and back, can settle a job without a trace in its history.
	quiet := beside(t, s.tree, spool.Untold, spool.Leftover, spool.Abandoned, fsck.TooSoon)
	end := time.Now().Add(*soakTime)
	for time.Now().Before(end) {
		s.step()
		time.Sleep(time.Duration(s.rng.IntN(60)) * time.Millisecond)
	}
	fmt.Fprintf(os.Stderr, "crash: soak: %d uploads, %d daemons killed, %d moves by hand\n", len(s.want), s.kill, s.mv)
	s.mu.Lock()
	s.done = true
	s.mu.Unlock()
	rest := s.rest()
	quiet()
	for _, k := range s.kids {
		k.end()
	}
	g.Wait()
	if !rest {
		t.Errorf("the daemons did not come to rest in %s", restLimit)
	}
	if err := s.settle(s.tree, once); err != nil {
		t.Error(err)
	}
	s.judge()
	if t.Failed() {
		s.tell()
	}
}

// beside runs fsck again and again until the function that it returns is called,
// and takes every finding for a false one that is not of these kinds.
func beside(t *testing.T, dir string, but ...spool.Kind) (end func()) {
	tree, err := spool.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan int)
	go func() {
		n := 0
		for ; ctx.Err() == nil; n++ {
			found, err := fsck.Check(ctx, tree, archive.CheckOptions{Deep: n%4 == 3})
			if err != nil && ctx.Err() == nil {
				t.Errorf("fsck beside working daemons: %v", err)
			}
			for _, f := range found {
				if !slices.Contains(but, f.Kind) {
					t.Errorf("fsck beside working daemons found: %s", f)
				}
			}
		}
		done <- n
	}()
	return func() {
		stop()
		fmt.Fprintf(os.Stderr, "crash: %s: fsck ran %d times beside the daemons\n", t.Name(), <-done)
	}
}

// TestFsckBesideWork runs fsck while daemons work that nobody kills: it finds
// nothing at all.
func TestFsckBesideWork(t *testing.T) {
	s := newSite(t, "always", "together")
	m := s.work(t, append(slices.Clone(daemons), []string{"archived"}, []string{"buildd", "--arch", "amd64"})...)
	m.soak.rng = rand.New(rand.NewPCG(1, 2))
	quiet := beside(t, s.tree)
	accept := func() {
		if f := m.find(spool.Review); f != nil {
			s.plain(s.tree, "packmill", "review", "accept", f.Name.String())
		}
	}
	const n = 20
	for i := range n {
		s.drop(uploadtest.Package{Source: fmt.Sprintf("hello%d", i)})
		accept()
	}
	want := published(n)
	until(t, "all is published", func() bool { accept(); return len(where(s.tree, want...)) == 0 })
	quiet()
}

// restLimit bounds the time between the last upload and the last move.
const restLimit = 3 * time.Minute

// tinyInotify makes the kernel drop events: a queue holds 16. Only root can;
// others run with the queue they have.
func tinyInotify(t *testing.T) {
	const knob = "/proc/sys/fs/inotify/max_queued_events"
	old, err := os.ReadFile(knob)
	if err != nil {
		t.Fatal(err)
	}
	if os.WriteFile(knob, []byte("16\n"), 0) != nil {
		fmt.Fprintln(os.Stderr, "crash: soak: not root: the inotify queue keeps its length")
		return
	}
	t.Cleanup(func() {
		if err := os.WriteFile(knob, old, 0); err != nil {
			t.Errorf("put %s back to %s: %v", knob, old, err)
		}
	})
}

// live runs a daemon until end is called, again and again.
func (s *soak) live(k *kid) {
	for {
		k.mu.Lock()
		if k.stop {
			k.mu.Unlock()
			return
		}
		p := s.command(s.tree, k.argv[0], k.argv[1:]...)
		cmd := exec.Command(p.Path, p.Args...)
		cmd.Env, cmd.Dir = p.Env, p.Dir
		cmd.Stdout, cmd.Stderr = &k.out, &k.out
		err := cmd.Start()
		k.cmd = cmd
		k.starts++
		k.mu.Unlock()
		if err != nil {
			s.t.Error(err)
			return
		}
		err = cmd.Wait()
		k.mu.Lock()
		stop := k.stop
		k.mu.Unlock()
		if strings.Contains(k.out.String(), "panic:") {
			s.t.Errorf("%s panicked", k.argv)
			return
		}
		if code := cmd.ProcessState.ExitCode(); !stop && code != -1 && code != 111 {
			s.t.Errorf("%s ended by itself: %v", k.argv, err)
			return
		}
	}
}

func (k *kid) signal(sig unix.Signal) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.cmd != nil && k.cmd.Process != nil && k.cmd.ProcessState == nil {
		k.cmd.Process.Signal(sig)
	}
}

func (k *kid) end() {
	k.mu.Lock()
	k.stop = true
	k.mu.Unlock()
	k.signal(unix.SIGTERM)
}

// step does one thing that people, or fate, do.
func (s *soak) step() {
	switch n := s.rng.IntN(100); {
	case n < 12:
		s.upload()
	case n < 45:
		s.review()
	case n < 85:
		s.kids[s.rng.IntN(len(s.kids))].signal(unix.SIGKILL)
		s.kill++
	default:
		s.byHand()
	}
}

var soakKinds = []string{"hello", "hello", "hello", "broken", "tampered"}

func (s *soak) upload() {
	kind := soakKinds[s.rng.IntN(len(soakKinds))]
	source := fmt.Sprintf("%s%d", kind, s.rng.IntN(12))
	s.last[source]++
	version := fmt.Sprintf("1.%d-1", s.last[source])
	p := uploadtest.Package{Source: source, Version: version}
	switch kind {
	case "hello":
		s.want[source+"_"+version] = "published"
	case "broken":
		s.want[source+"_"+version] = "failed"
	case "tampered":
		s.want[source+"_"+version] = "rejected"
		p.Changes = func(text string) string {
			return strings.Replace(text, "Maintainer: ", "Maintainer: x", 1) + "Nonsense\n"
		}
	}
	// As a client does it: elsewhere first, so that the witness has seen
	// everything before the daemons do.
	dir, err := os.MkdirTemp(s.dir, "up-")
	if err != nil {
		s.t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "spool/incoming"), 0o755); err != nil {
		s.t.Fatal(err)
	}
	s.dropAt(dir, p)
	for k, v := range sums(s.t, dir) {
		s.sent[k] = v
	}
	files, _ := filepath.Glob(filepath.Join(dir, "spool/incoming/*"))
	slices.SortFunc(files, func(a, b string) int { // the .changes last
		return strings.Compare(fmt.Sprint(strings.HasSuffix(a, ".changes"), a),
			fmt.Sprint(strings.HasSuffix(b, ".changes"), b))
	})
	for _, f := range files {
		if err := os.Rename(f, filepath.Join(s.tree, "spool/incoming", filepath.Base(f))); err != nil {
			s.t.Fatal(err)
		}
	}
}

// find picks an item of a state at random.
func (s *soak) find(states ...spool.State) *spool.Found {
	t, err := spool.Open(s.tree)
	if err != nil {
		s.t.Fatal(err)
	}
	found, err := t.Find("", states...)
	if err != nil || len(found) == 0 {
		return nil
	}
	return &found[s.rng.IntN(len(found))]
}

// move is mv: it asks nobody.
func (s *soak) move(f *spool.Found, to spool.State) {
	dst := f.Place
	dst.State = to
	dir := filepath.Join(s.tree, dst.Dir())
	if err := os.MkdirAll(dir, 0o775); err != nil {
		s.t.Fatal(err)
	}
	if os.Rename(filepath.Join(s.tree, f.Dir()), filepath.Join(dir, f.Name.String())) == nil {
		s.mv++
	}
}

// review accepts what waits, with mv or with the command.
func (s *soak) review() {
	f := s.find(spool.Review)
	switch {
	case f == nil:
	case s.rng.IntN(2) == 0:
		s.move(f, spool.Accepted)
	default:
		s.plain(s.tree, "packmill", "review", "accept", f.Name.String())
	}
}

// byHand moves jobs to and fro, as a person may at any time.
func (s *soak) byHand() {
	switch s.rng.IntN(4) {
	case 0:
		if f := s.find(spool.NeedsBuild); f != nil {
			s.move(f, spool.Failed)
		}
	case 1:
		if f := s.find(spool.Failed); f != nil {
			s.move(f, spool.NeedsBuild)
		}
	case 2:
		if f := s.find(spool.Building); f != nil {
			s.move(f, spool.NeedsBuild)
		}
	case 3:
		if f := s.find(spool.BuildAttempted); f != nil {
			s.plain(s.tree, "packmill", "requeue", filepath.Base(f.Dir()))
		}
	}
}

// rest waits until nothing moves, and puts back what was put aside by hand.
func (s *soak) rest() bool {
	end := time.Now().Add(restLimit)
	last, since := "", time.Now()
	for time.Now().Before(end) {
		for f := s.find(spool.Review); f != nil; f = s.find(spool.Review) {
			s.move(f, spool.Accepted)
		}
		for f := s.find(spool.Failed); f != nil; f = s.find(spool.Failed) {
			s.move(f, spool.NeedsBuild)
		}
		s.again()
		put, err := passTime(s.tree)
		if err != nil {
			s.t.Log(err) // the file has moved on
		}
		now, _ := outline(s.tree)
		if now != last || put {
			last, since = now, time.Now()
		}
		if time.Since(since) > 5*time.Second {
			return true
		}
		time.Sleep(200 * time.Millisecond)
	}
	return false
}

// again puts back good packages whose builders were killed so often that they
// were laid before a person.
func (s *soak) again() {
	t, err := spool.Open(s.tree)
	if err != nil {
		s.t.Fatal(err)
	}
	found, err := t.Find("", spool.BuildAttempted)
	if err != nil {
		return // moved on
	}
	for _, f := range found {
		if strings.HasPrefix(f.Name.Source, "hello") {
			s.move(&f, spool.NeedsBuild)
		}
	}
}

// judge compares what became of each upload with what should have.
func (s *soak) judge() {
	t := s.t
	for _, b := range append(promises(s.tree), witness(s.tree, s.sent)...) {
		t.Error(b)
	}
	if m, _ := filepath.Glob(filepath.Join(s.bin, "busy/TWICE-*")); len(m) > 0 {
		t.Errorf("built twice at once: %v", m)
	}
	tree, err := spool.Open(s.tree)
	if err != nil {
		t.Fatal(err)
	}
	a, err := archive.Open(tree.Path("archive"))
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range s.want {
		source, version, _ := strings.Cut(id, "_")
		found, err := tree.Find(id)
		if err != nil {
			t.Fatal(err)
		}
		states := map[spool.State]int{}
		for _, f := range found {
			states[f.Place.State]++
		}
		newer := version != fmt.Sprintf("1.%d-1", s.last[source])
		has, err := a.Has(context.Background(), "sid", source, version)
		if err != nil {
			t.Fatal(err)
		}
		ok := false
		switch {
		case want == "rejected":
			ok = states[spool.Rejected] == 1 && states[spool.Rejected]+states[spool.Attic] == len(found)
		case newer && states[spool.Attic]+states[spool.Rejected]+states[spool.Installed]+states[spool.BuildAttempted] == len(found) && len(found) > 0:
			ok = true // a newer version took its place, at whatever point
		case want == "published":
			ok = has && states[spool.Installed] == 3
		case want == "failed":
			ok = has && states[spool.BuildAttempted] == 2 && states[spool.Installed] == 1
		}
		if !ok {
			t.Errorf("%s: it should be %s: in the archive %t, items %v", id, want, has, states)
		}
	}
}

// tell shows the end of each daemon's log.
func (s *soak) tell() {
	for _, k := range s.kids {
		lines := strings.Split(k.out.String(), "\n")
		s.t.Logf("%s:\n%s", k.argv, strings.Join(lines[max(0, len(lines)-25):], "\n"))
	}
	if out, err := s.plain(s.tree, "packmill", "status"); err == nil {
		s.t.Log(out)
	}
}
