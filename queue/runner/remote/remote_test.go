package remote

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"packmill/internal/deb/debtest"
	"packmill/internal/durable"
	"packmill/queue/runner"
)

// wire is a connection that ends after some bytes of both directions, and notes what went over it.
type wire struct {
	net.Conn
	of *cut
	up bool
}

// cut is when the two ends of a wire lose each other.
type cut struct {
	sync.Mutex
	after int // bytes; negative: never
	sent  [2]bytes.Buffer
	edges []int // bytes of both directions together when a frame begins
	conns []net.Conn
}

func (w *wire) Write(p []byte) (int, error) {
	c := w.of
	c.Lock()
	total := c.sent[0].Len() + c.sent[1].Len()
	n, dead := len(p), false
	if c.after >= 0 && total+n >= c.after {
		n, dead = max(0, c.after-total), true
	}
	i := 0
	if w.up {
		i = 1
	}
	c.edges = append(c.edges, total)
	c.sent[i].Write(p[:n])
	c.Unlock()
	m, err := w.Conn.Write(p[:n])
	if dead {
		for _, conn := range c.conns {
			conn.Close()
		}
		return m, io.ErrClosedPipe
	}
	return m, err
}

// soFar is a copy, of what went over the wire until now: the ends of a session send on after its build.
func (c *cut) soFar() *cut {
	c.Lock()
	defer c.Unlock()
	out := &cut{edges: slices.Clone(c.edges)}
	for i := range c.sent {
		out.sent[i].Write(c.sent[i].Bytes())
	}
	return out
}

// wires joins two ends.
func wires(after int) (master, builder net.Conn, c *cut) {
	c = &cut{after: after}
	a, b := net.Pipe()
	c.conns = []net.Conn{a, b}
	return &wire{a, c, false}, &wire{b, c, true}, c
}

// site is a master's item and a builder, on one disk.
type site struct {
	*testing.T
	job     *runner.Job
	builder *Builder
	master  *Build
	dir     string
	sum     map[string][32]byte // of what a build makes
	log     string
	drop    map[string]string
}

const token = "0123456789abcdef0123456789abcdef"

// newSite makes one whose builds are those of a program.
func newSite(t *testing.T, size int) *site {
	t.Helper()
	s := &site{T: t, dir: t.TempDir(), sum: map[string][32]byte{}, drop: map[string]string{}}
	for d := s.dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		os.Chmod(d, 0o755)
	}
	at := func(name string) string { return filepath.Join(s.dir, name) }
	for _, d := range []string{"made", "item/source", "builder"} {
		s.must(os.MkdirAll(at(d), 0o755))
	}
	noise := make([]byte, size)
	for i := range noise {
		noise[i] = byte(rand.N(256))
	}
	s.must(os.WriteFile(at("item/source/hello_1.0-1.dsc"), []byte("Source: hello\n"), 0o644))
	s.must(os.WriteFile(at("item/source/hello_1.0.orig.tar.gz"), noise, 0o644))
	up := debtest.Upload{Source: debtest.Source{Name: "hello", Version: "1.0-1"}, NoSource: true, Distribution: "sid",
		Debs: []debtest.Deb{{Name: "hello", Version: "1.0-1", Arch: "amd64", Packing: "gz",
			Files: []debtest.File{{Path: "usr/share/noise", Body: string(noise)}}}}}
	_, err := up.Write(at("made"))
	s.must(err)
	made, err := os.ReadDir(at("made"))
	s.must(err)
	for _, e := range made {
		data, err := os.ReadFile(filepath.Join(at("made"), e.Name()))
		s.must(err)
		s.sum[e.Name()] = sha256.Sum256(data)
	}
	s.log = strings.Repeat("a line of the log\n", size/200+1)
	s.must(os.WriteFile(at("text"), []byte(s.log), 0o644))
	s.program(fmt.Sprintf("echo begin >>%[1]s/builds; cat %[1]s/text; cp %[1]s/made/* $PACKMILL_RESULT/", s.dir))
	log, err := os.OpenFile(at("item/log"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o644)
	s.must(err)
	fmt.Fprintln(log, "a line of the master's")
	t.Cleanup(func() { log.Close() })
	s.job = &runner.Job{Source: "hello", Version: "1.0-1", Suite: "sid", Arch: "amd64", Packages: []string{"hello"},
		Dsc: at("item/source/hello_1.0-1.dsc"), Dir: at("item/work"), Result: at("item/result"), Log: log}
	st, err := log.Stat()
	s.must(err)
	s.master = &Build{Token: token, LogStart: st.Size(), Begin: func() error { return nil }, Heard: func() {}}
	s.start()
	return s
}

func (s *site) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *site) program(text string) {
	s.must(os.WriteFile(filepath.Join(s.dir, "program"), []byte("#!/bin/sh\n"+text+"\n"), 0o755))
}

// start makes the builder, or makes it anew.
func (s *site) start() {
	s.Helper()
	if s.builder != nil {
		s.builder.Close()
	}
	r := &runner.Exec{Path: filepath.Join(s.dir, "program")}
	s.builder = &Builder{Dir: filepath.Join(s.dir, "builder"), Log: slog.New(slog.DiscardHandler),
		Hello: func() Hello { return Hello{Host: "far", Jobs: 1} }, Ready: r.Ready,
		Build: func(ctx context.Context, _ *Order, job *runner.Job) (*runner.Result, error) { return r.Run(ctx, job) }}
	s.must(s.builder.Open())
	s.Cleanup(s.builder.Close)
}

// session is one, that is cut after some bytes.
func (s *site) session(after int) (*runner.Result, *cut, error) {
	s.Helper()
	m, far, c := wires(after)
	served := make(chan struct{})
	go func() {
		defer close(served)
		s.builder.Serve(s.Context(), far)
	}()
	defer func() {
		m.Close()
		<-served // a builder has one session at a time
	}()
	p, err := Accept(m, s.dir, func(h *Hello) (*Welcome, string) {
		return &Welcome{Builder: "b", Drop: s.drop},
			h.Skewed(time.Now())
	})
	if err != nil {
		return nil, c.soFar(), err
	}
	defer p.Close()
	s.master.Peer = p
	res, err := s.master.Run(s.Context(), s.job)
	return res, c.soFar(), err
}

// good wants the result and the log of one build.
func (s *site) good(what string, res *runner.Result, err error) {
	s.Helper()
	if err != nil || res.Outcome != runner.Good {
		s.Fatalf("%s: got %+v, %v; want it good", what, res, err)
	}
	for name, want := range s.sum {
		data, err := os.ReadFile(filepath.Join(s.job.Result, name))
		if err != nil || sha256.Sum256(data) != want {
			s.Errorf("%s: %s is not what was built (%v)", what, name, err)
		}
	}
	log, err := os.ReadFile(s.job.Log.Name())
	if want := "a line of the master's\n" + s.log; err != nil || string(log) != want {
		s.Errorf("%s: the log has %d bytes, want %d: %v", what, len(log), len(want), err)
	}
	if data, _ := os.ReadFile(filepath.Join(s.dir, "builds")); string(data) != "begin\n" {
		s.Errorf("%s: it was built %d times", what, strings.Count(string(data), "\n"))
	}
}

// again makes the site as before its build.
func (s *site) again() {
	s.Helper()
	s.builder.drop(token, "test")
	s.must(os.Truncate(s.job.Log.Name(), s.master.LogStart))
	s.master.Begun = false
	for _, name := range []string{"builds", "item/work", "item/result", "builder/sources"} {
		s.must(os.RemoveAll(filepath.Join(s.dir, name)))
	}
	s.must(os.Mkdir(filepath.Join(s.dir, "builder/sources"), 0o755))
	for {
		if _, err := os.Stat(filepath.Join(s.dir, "builder/jobs", token)); err != nil {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// step is how many places a cut passes over: the system tests cut at all.
var step = 12

// TestCut: a session that is cut at each edge of a frame, and at any byte, costs another session and nothing else.
func TestCut(t *testing.T) {
	s := newSite(t, 40_000)
	res, whole, err := s.session(-1)
	s.good("whole", res, err)
	total := whole.sent[0].Len() + whole.sent[1].Len()
	at := slices.Clone(whole.edges)
	for i := range whole.sent {
		at = append(at, edges(t, whole.sent[i].Bytes())...)
	}
	for range 100 {
		at = append(at, rand.N(total))
	}
	slices.Sort(at)
	at = slices.Compact(at)
	t.Logf("%d bytes, cut at %d places", total, len(at))
	for i, after := range at {
		if i%step != 0 {
			continue
		}
		s.again()
		res, _, err := s.session(after)
		what := fmt.Sprintf("cut after %d of %d bytes", after, total)
		// In this run it may have needed fewer bytes than in the first.
		for n := 0; err != nil; n++ {
			if n == 3 {
				t.Fatalf("%s: %v", what, err)
			}
			res, _, err = s.session(-1)
		}
		s.good(what, res, err)
	}
}

// edges are where yamux' frames begin, counted in one direction.
func edges(t *testing.T, data []byte) (at []int) {
	for i := 0; i+12 <= len(data); {
		at = append(at, i)
		size := 0
		if data[i+1] == 0 { // data
			size = int(binary.BigEndian.Uint32(data[i+8:]))
		}
		i += 12 + size
	}
	if len(at) < 10 {
		t.Fatalf("%d frames in %d bytes: that is no yamux", len(at), len(data))
	}
	return at
}

// TestManyCuts: each session brings a few bytes more, and what has come is not sent again.
func TestManyCuts(t *testing.T) {
	s := newSite(t, 300_000)
	res, whole, err := s.session(-1)
	s.good("whole", res, err)
	total := whole.sent[0].Len() + whole.sent[1].Len()
	s.again()
	sent, sessions := 0, 0
	for err = errors.New("begin"); err != nil; sessions++ {
		if sessions == 200 {
			t.Fatalf("after %d sessions: %v", sessions, err)
		}
		var c *cut
		res, c, err = s.session(60_000)
		sent += c.sent[0].Len() + c.sent[1].Len()
	}
	s.good("in many sessions", res, err)
	if sessions < 5 || sent > 2*total {
		t.Errorf("%d bytes in %d sessions, %d in one", sent, sessions, total)
	}
}

// TestSourcesStay: what the builder has of a source is not sent again.
func TestSourcesStay(t *testing.T) {
	s := newSite(t, 200_000)
	res, first, err := s.session(-1)
	s.good("first", res, err)
	keep := filepath.Join(s.dir, "keep")
	s.must(os.Rename(filepath.Join(s.dir, "builder/sources"), keep))
	s.must(os.Mkdir(filepath.Join(s.dir, "builder/sources"), 0o755))
	s.again()
	s.must(os.Remove(filepath.Join(s.dir, "builder/sources")))
	s.must(os.Rename(keep, filepath.Join(s.dir, "builder/sources")))
	res, second, err := s.session(-1)
	s.good("second", res, err)
	if down := second.sent[0].Len(); down > first.sent[0].Len()-200_000 {
		t.Errorf("the second build of the source sent %d bytes down, the first %d", down, first.sent[0].Len())
	}
}

// TestLost: a builder that was started anew says what it lost, and a build that is over survives that.
func TestLost(t *testing.T) {
	s := newSite(t, 1000)
	s.program("echo begin >>" + s.dir + "/builds; exec sleep 1000")
	begun := make(chan struct{})
	s.master.Begin = func() error { close(begun); return nil }
	done := make(chan error)
	go func() { _, _, err := s.session(-1); done <- err }()
	<-begun
	s.master.Peer.Close()
	if err := <-done; !errors.Is(err, ErrAway) {
		t.Fatalf("got %v, want ErrAway", err)
	}
	s.start()
	res, _, err := s.session(-1)
	if !errors.Is(err, ErrLost) {
		t.Errorf("got %+v, %v; want ErrLost", res, err)
	}
}

// TestOverAtBuilder: what was built before a builder's restart is not built again.
func TestOverAtBuilder(t *testing.T) {
	s := newSite(t, 1000)
	res, _, err := s.session(-1)
	s.good("first", res, err)
	s.start()
	s.must(os.RemoveAll(s.job.Result))
	s.must(os.MkdirAll(s.job.Result, 0o755))
	s.must(os.Truncate(s.job.Log.Name(), s.master.LogStart))
	res, _, err = s.session(-1)
	s.good("after a restart of the builder", res, err)
}

// TestTwoOfOneSource: two jobs that need the same file at once fetch it once, and both have it whole.
func TestTwoOfOneSource(t *testing.T) {
	s := newSite(t, 500_000)
	m, far, c := wires(-1)
	go s.builder.Serve(t.Context(), far)
	p, err := Accept(m, s.dir, func(*Hello) (*Welcome, string) { return &Welcome{}, "" })
	s.must(err)
	defer p.Close()
	s.master.Peer = p
	second, job := *s.master, *s.job
	second.Token = strings.Repeat("a", 32)
	job.Dir, job.Result = job.Dir+"2", job.Result+"2"
	job.Log, err = os.Create(s.job.Log.Name() + "2")
	s.must(err)
	defer job.Log.Close()
	second.LogStart = 0
	type ended struct {
		res *runner.Result
		err error
	}
	done := make(chan ended)
	go func() { res, err := s.master.Run(t.Context(), s.job); done <- ended{res, err} }()
	go func() { res, err := second.Run(t.Context(), &job); done <- ended{res, err} }()
	for range 2 {
		if e := <-done; e.err != nil || e.res.Outcome != runner.Good {
			t.Errorf("got %+v, %v; want it good", e.res, e.err)
		}
	}
	c.Lock()
	defer c.Unlock()
	if down := c.sent[0].Len(); down > 700_000 {
		t.Errorf("%d bytes down for a source of 500000", down)
	}
}

// TestTidied: a source that no job has used for long goes when a job is over, and not only at a restart.
func TestTidied(t *testing.T) {
	s := newSite(t, 10)
	old := filepath.Join(s.builder.Dir, "sources", strings.Repeat("0", 64))
	s.must(os.WriteFile(old, nil, 0o644))
	then := time.Now().Add(-2 * keepSources)
	s.must(os.Chtimes(old, then, then))
	res, _, err := s.session(-1)
	s.good("whole", res, err)
	s.builder.Close()
	if _, err := os.Stat(old); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an old source: %v; want it gone", err)
	}
}

// TestOrderPin: the builder hears how the master pins its archive.
func TestOrderPin(t *testing.T) {
	s := newSite(t, 10)
	s.must(os.MkdirAll(filepath.Join(s.dir, "dists/sid"), 0o755))
	s.must(os.WriteFile(filepath.Join(s.dir, "dists/sid/InRelease"), []byte("Suite: sid\nNotAutomatic: yes\n"), 0o644))
	s.job.Repos = []runner.Repo{{Dir: s.dir, Suite: "sid"}}
	if got := orderOf(s.job, nil).Repos[0]; got.Pin != "a=sid" || got.Dir != "" {
		t.Errorf("got %+v; want the pin and no Dir", got)
	}
}

// TestNoRoom: a master without room takes the results when it has some, and neither the builder nor the package is
// to blame.
func TestNoRoom(t *testing.T) {
	s := newSite(t, 1000)
	asked := 0
	s.master.Room = func(bytes int64) error {
		if asked++; asked == 1 {
			return unix.ENOSPC
		}
		if bytes < 1000 {
			t.Errorf("asked for room for %d bytes", bytes)
		}
		return nil
	}
	res, _, err := s.session(-1)
	s.good("after a while without room", res, err)
	if asked != 2 {
		t.Errorf("asked %d times for room", asked)
	}
}

// TestLeft: the limit of time counts over sessions, and who was away beyond it may still say what was built.
func TestLeft(t *testing.T) {
	now := time.Now()
	for _, c := range []struct{ wall, ago, want time.Duration }{
		{4 * time.Hour, 0, 6 * time.Hour},
		{4 * time.Hour, 5 * time.Hour, time.Hour},
		{4 * time.Hour, 50 * time.Hour, answerWithin},
		{0, 50 * time.Hour, math.MaxInt64},
	} {
		b := &Build{Since: now.Add(-c.ago)}
		if got := b.left(c.wall, now); got != c.want {
			t.Errorf("%s after the begin with a limit of %s: got %s, want %s", c.ago, c.wall, got, c.want)
		}
	}
}

// TestTwoBuilders: one directory is one builder's, or the second would take the first's jobs for lost ones.
func TestTwoBuilders(t *testing.T) {
	s := newSite(t, 10)
	job := filepath.Join(s.builder.Dir, "jobs", token)
	s.must(os.Mkdir(job, 0o755))
	other := &Builder{Dir: s.builder.Dir, Log: s.builder.Log}
	if err := other.Open(); !errors.Is(err, durable.ErrLocked) {
		t.Errorf("a second builder: got %v, want ErrLocked", err)
	}
	if _, err := os.Stat(job); err != nil {
		t.Errorf("the first builder's job: %v", err)
	}
	s.builder.Close()
	if err := other.Open(); err != nil {
		t.Errorf("after the first: %v", err)
	}
	other.Close()
}

// TestNoPlace: a builder that cannot keep the source says so, and does not hold the job.
func TestNoPlace(t *testing.T) {
	s := newSite(t, 1000)
	dsc, err := sumOf(s.job.Dsc)
	s.must(err)
	s.must(os.Mkdir(filepath.Join(s.dir, "builder/sources", dsc.SHA256+partSuffix), 0o755)) // where the file would come
	if _, _, err := s.session(-1); err == nil || !strings.Contains(err.Error(), "fetch the source") {
		t.Errorf("got %v", err)
	}
}

// TestStop: who ends the build ends it there too.
func TestStop(t *testing.T) {
	s := newSite(t, 1000)
	s.program("echo $$ >>" + s.dir + "/builds; exec sleep 1000")
	m, far, _ := wires(-1)
	go s.builder.Serve(t.Context(), far)
	p, err := Accept(m, s.dir, func(*Hello) (*Welcome, string) { return &Welcome{}, "" })
	s.must(err)
	defer p.Close()
	s.master.Peer = p
	ctx, cancel := context.WithCancel(t.Context())
	s.master.Begin = func() error { cancel(); return nil }
	res, err := s.master.Run(ctx, s.job)
	if err != nil || !res.Stopped {
		t.Errorf("got %+v, %v; want it stopped", res, err)
	}
	forgotten := func() bool { // a job's directory goes last
		left, err := os.ReadDir(filepath.Join(s.builder.Dir, "jobs"))
		s.must(err)
		return len(left) == 0
	}
	for !forgotten() {
		time.Sleep(time.Millisecond)
	}
}

// TestRefused: the sentence arrives, and no job.
func TestRefused(t *testing.T) {
	for what, h := range map[string]Hello{
		"no version that both speak": {Oldest: Newest + 1, Newest: Newest + 2},
		"a clock that is wrong":      {Oldest: Oldest, Newest: Newest, Time: time.Now().Add(time.Hour)},
	} {
		m, far, _ := wires(-1)
		got := make(chan error, 1)
		go func() {
			s, err := begin(far, false, nil)
			if err == nil {
				err = s.soon("POST", "/hello", maxHello, &h, &Welcome{})
			}
			got <- err
		}()
		_, err := Accept(m, t.TempDir(), func(h *Hello) (*Welcome, string) { return &Welcome{}, h.Skewed(time.Now()) })
		var no *Refused
		if said := <-got; !errors.As(err, &no) || said == nil || said.Error() != no.Text || len(no.Text) < 40 {
			t.Errorf("%s: the master says %v, the builder hears %v", what, err, said)
		}
	}
}

// TestRubbish: bytes that are no session end it, at either end, and nothing hangs.
func TestRubbish(t *testing.T) {
	for range 50 {
		a, b := net.Pipe()
		noise := make([]byte, 200)
		for i := range noise {
			noise[i] = byte(rand.N(256))
		}
		go func() {
			go io.Copy(io.Discard, b)
			b.Write(noise)
			b.Close()
		}()
		if p, err := Accept(a, t.TempDir(), func(*Hello) (*Welcome, string) { return &Welcome{}, "" }); err == nil {
			p.Close()
			t.Errorf("a session with %x", noise)
		}
	}
}

func TestMain(m *testing.M) {
	runner.Reexec()
	os.Exit(m.Run())
}
