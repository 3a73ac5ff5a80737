//go:build system

package remote

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"packmill/queue/runner"
)

// road is a network between the two ends: bytes may take long on it, or vanish, and nobody is told.
type road struct {
	delay time.Duration
	rate  int   // bytes a second; 0: any
	after int   // bytes of both directions after which it breaks; negative: never
	at    *edge // where it breaks, instead
	lost  [2]bool
	full  bool // a broken direction takes no bytes, as when the kernel's buffer is full
	reset bool // both ends hear of it

	mu     sync.Mutex
	sent   int
	broken bool
	gone   [2]bool // whether a direction is broken
	frames [2]frames
	all    [2]*roadEnd
}

// edge is a place in what one direction carries: a yamux frame, counted from 0, and bytes of it that still arrive.
type edge struct{ from, frame, bytes int }

// frameHead is the length of the header of a yamux frame.
const frameHead = 12

// frames is a reader of yamux's frames that are written in pieces.
type frames struct {
	empty []bool // whether those that are over had a header and no more
	head  []byte // of the one that is not
	body  int    // bytes of it that are to come, once its header is whole
	read  int    // bytes of it that came
}

// take reads one more byte.
func (f *frames) take(b byte) {
	f.read++
	if len(f.head) < frameHead {
		f.head = append(f.head, b)
		if len(f.head) == frameHead && f.head[1] == 0 { // data
			f.body = int(binary.BigEndian.Uint32(f.head[8:]))
		}
	} else {
		f.body--
	}
	if len(f.head) == frameHead && f.body == 0 {
		*f = frames{empty: append(f.empty, f.read == frameHead)}
	}
}

// before is how many bytes of p arrive, and whether the road breaks behind them.
func (r *road) before(from int, p []byte) (n int, breaks bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	was, f := r.broken, &r.frames[from]
	n = len(p)
	for i, b := range p {
		switch {
		case r.at == nil:
			r.broken = r.broken || r.after >= 0 && r.sent >= r.after
			r.gone[from] = r.broken
		case r.at.from == from && len(f.empty) == r.at.frame && f.read == r.at.bytes && !r.broken:
			r.broken, r.gone[from] = true, true
		case r.broken && f.read == 0: // the other direction, which has its edge too
			r.gone[from] = true
		}
		if r.gone[from] {
			n = min(n, i)
		}
		f.take(b)
		r.sent++
	}
	if !r.reset && !r.lost[from] {
		n = len(p)
	}
	return n, r.broken && !was
}

// roadEnd is one end of it.
type roadEnd struct {
	net.Conn
	of     *road
	from   int // 0: the master
	way    chan piece
	closed chan struct{}
	once   sync.Once
}

type piece struct {
	data []byte
	at   time.Time
	last bool // the road is reset behind it
}

// ends joins two ends by a road.
func (r *road) ends() (master, builder *roadEnd) {
	a, b := net.Pipe()
	end := func(c net.Conn, from int) *roadEnd {
		e := &roadEnd{Conn: c, of: r, from: from, way: make(chan piece, 1<<12), closed: make(chan struct{})}
		go e.carry()
		return e
	}
	r.all = [2]*roadEnd{end(a, 0), end(b, 1)}
	return r.all[0], r.all[1]
}

func (e *roadEnd) Close() error {
	e.once.Do(func() { close(e.closed) })
	return e.Conn.Close()
}

func (e *roadEnd) Write(p []byte) (int, error) {
	r := e.of
	n, breaks := r.before(e.from, p)
	last := breaks && r.reset
	if n > 0 || last {
		select {
		case e.way <- piece{append([]byte(nil), p[:n]...), time.Now().Add(r.delay), last}:
		case <-e.closed:
			return 0, io.ErrClosedPipe
		}
	}
	if n < len(p) && r.full {
		<-e.closed
		return n, io.ErrClosedPipe
	}
	return len(p), nil
}

// carry brings pieces to the other end, each when it has been on its way for long enough.
func (e *roadEnd) carry() {
	for {
		select {
		case <-e.closed:
			return
		case p := <-e.way:
			time.Sleep(time.Until(p.at))
			if e.of.rate > 0 {
				time.Sleep(time.Duration(len(p.data)) * time.Second / time.Duration(e.of.rate))
			}
			if _, err := e.Conn.Write(p.data); err != nil {
				return
			}
			if p.last {
				for _, end := range e.of.all {
					end.Close()
				}
			}
		}
	}
}

// over is one session over a road; both ends have noticed its end when it returns.
func (s *site) over(r *road) (*runner.Result, error) {
	s.Helper()
	m, far := r.ends()
	ended := make(chan error, 1)
	go func() { ended <- s.builder.Serve(s.Context(), far) }()
	p, err := Accept(
		m,
		s.dir,
		func(h *Hello) (*Welcome, string) { return &Welcome{Builder: "b"}, h.Skewed(time.Now()) },
	)
	var res *runner.Result
	if err == nil {
		s.master.Peer = p
		res, err = s.master.Run(s.Context(), s.job)
		p.Close()
	}
	<-ended
	return res, err
}

// String says what is the matter with it.
func (r *road) String() string {
	at := fmt.Sprintf("%d bytes", r.after)
	if r.at != nil {
		at = fmt.Sprintf("frame %d of end %d and %d bytes", r.at.frame, r.at.from, r.at.bytes)
	}
	return fmt.Sprintf("delay %v, rate %d, lost %v, full %v, reset %v, after %s", r.delay, r.rate, r.lost, r.full, r.reset, at)
}

// TestSilence: a network that loses what is sent, in both directions or one, at a hundred random bytes and behind the
// header of each frame that has a body, is noticed by both ends within a minute, and costs another session and nothing
// else; one that is far away or slow costs nothing at all. All are tried at once.
func TestSilence(t *testing.T) {
	s := newSite(t, 40_000)
	whole := &road{after: -1}
	res, err := s.over(whole)
	s.good("whole", res, err)
	all := []*road{{after: -1, delay: 300 * time.Millisecond}, {after: -1, rate: 5000}}
	for range 25 {
		for _, r := range []*road{{lost: [2]bool{true, true}}, {lost: [2]bool{true, false}}, {lost: [2]bool{false, true}},
			{lost: [2]bool{true, true}, full: true}} {
			r.after = rand.N(whole.sent)
			all = append(all, r)
		}
	}
	for _, r := range whole.cuts() {
		if r.held() {
			all = append(all, r)
		}
	}
	var wait sync.WaitGroup
	for _, r := range all {
		what := r.String()
		wait.Go(func() {
			t.Run(what, func(t *testing.T) {
				s := newSite(t, 40_000)
				begun := time.Now()
				res, err := s.over(r)
				took := time.Since(begun)
				for n := 0; err != nil; n++ {
					if r.after < 0 || n == 3 {
						t.Fatal(err)
					}
					res, err = s.over(&road{after: -1})
				}
				s.good(what, res, err)
				t.Log(took.Round(time.Second))
			})
		})
	}
	wait.Wait()
}

var long = flag.Bool("remote.long", false, "cut a session at all edges of its frames, and not at some; scripts/test long")

// aWhile is how long the builds of TestEdges take: signs of life go over the line meanwhile.
const aWhile = 40 * time.Second

// edgeSite is a site whose builds take a while.
func edgeSite(t *testing.T) *site {
	s := newSite(t, 20_000)
	build := s.builder.Build
	s.builder.Build = func(ctx context.Context, o *Order, job *runner.Job) (*runner.Result, error) {
		select {
		case <-ctx.Done():
		case <-time.After(aWhile):
		}
		return build(ctx, o, job)
	}
	return s
}

// TestEdges: a network that breaks before, within or behind the header of a yamux frame, whichever frame of a session
// that is, costs time and nothing else: all packets are lost, or those of one direction, or the connection is reset.
// Time is synctest's, so that a minute of silence takes none.
func TestEdges(t *testing.T) {
	every := 13 // prime to the eight or twelve cuts of a frame
	if *long {
		every = 1
	}
	// yamux keeps timers for its next session, and one must not come into a bubble, or out of it.
	emptyPools := func() { runtime.GC(); runtime.GC() }
	emptyPools()
	defer emptyPools()
	synctest.Test(t, func(t *testing.T) {
		whole := &road{after: -1}
		s := edgeSite(t)
		res, err := s.over(whole)
		s.good("whole", res, err)
		all := slices.DeleteFunc(whole.cuts(), (*road).held)
		tried, broke := 0, 0
		for i := rand.N(every); i < len(all); i += every {
			edgeSite(t).brokenOnce(all[i])
			if tried++; all[i].broken {
				broke++
			}
		}
		t.Logf("%d and %d frames, %d cuts, of which %d were tried and %d broke a session", len(whole.frames[0].empty),
			len(whole.frames[1].empty), len(all), tried, broke)
		// No session has quite as many frames as another.
		if broke < tried*3/4 {
			t.Errorf("of %d sessions %d broke", tried, broke)
		}
	})
}

// cuts are roads that break where a frame of this one was.
func (r *road) cuts() (all []*road) {
	for from := range 2 {
		for frame, empty := range r.frames[from].empty {
			for _, bytes := range []int{0, frameHead / 2, frameHead} {
				if bytes == frameHead && empty {
					continue // where the next one begins
				}
				for _, x := range []*road{{reset: true}, {lost: [2]bool{true, true}}, {lost: [2]bool{true, false}},
					{lost: [2]bool{false, true}}} {
					x.at = &edge{from, frame, bytes}
					all = append(all, x)
				}
			}
		}
	}
	return all
}

// held reports whether the road loses what comes behind the header of a frame. Yamux waits for that with a lock held,
// which synctest does not take for waiting: TestSilence tries it.
func (r *road) held() bool { return r.at.bytes == frameHead && r.lost[r.at.from] }

// brokenOnce is a build over a road that breaks, and over a good one then. Both ends know of it in time.
func (s *site) brokenOnce(r *road) {
	s.Helper()
	what := r.String()
	begun := time.Now()
	res, err := s.over(r)
	if took := time.Since(begun); took > aWhile+keepAlive+writeTimeout+answerWithin {
		s.Errorf("%s: it was noticed after %s", what, took)
	}
	if err != nil {
		if !r.broken {
			s.Errorf("%s: %v", what, err)
		}
		res, err = s.over(&road{after: -1})
	}
	s.good(what, res, err)
	s.builder.Close()
	s.job.Log.Close()
}
