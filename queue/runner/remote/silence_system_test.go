//go:build system

package remote

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"packmill/queue/runner"
)

// road is a network between the two ends: bytes may take long on it, or vanish, and nobody is told.
type road struct {
	delay time.Duration
	rate  int // bytes a second; 0: any
	after int // bytes of both directions after which it breaks; negative: never
	lost  [2]bool
	full  bool // a broken direction takes no bytes, as when the kernel's buffer is full

	mu   sync.Mutex
	sent int
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
}

// ends joins two ends by a road.
func (r *road) ends() (master, builder *roadEnd) {
	a, b := net.Pipe()
	end := func(c net.Conn, from int) *roadEnd {
		e := &roadEnd{Conn: c, of: r, from: from, way: make(chan piece, 1<<12), closed: make(chan struct{})}
		go e.carry()
		return e
	}
	return end(a, 0), end(b, 1)
}

func (e *roadEnd) Close() error {
	e.once.Do(func() { close(e.closed) })
	return e.Conn.Close()
}

func (e *roadEnd) Write(p []byte) (int, error) {
	r := e.of
	r.mu.Lock()
	n := len(p)
	if r.after >= 0 && r.lost[e.from] {
		n = min(n, max(0, r.after-r.sent))
	}
	r.sent += len(p)
	r.mu.Unlock()
	if n > 0 {
		select {
		case e.way <- piece{append([]byte(nil), p[:n]...), time.Now().Add(r.delay)}:
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

// TestSilence: a network that loses what is sent, in both directions or one, at a hundred random bytes, is noticed by
// both ends within a minute, and costs another session and nothing else; one that is far away or slow costs nothing at
// all. All are tried at once.
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
	var wait sync.WaitGroup
	for _, r := range all {
		what := fmt.Sprintf("delay %v, rate %d, lost %v, full %v, after %d of %d bytes", r.delay, r.rate, r.lost, r.full,
			r.after, whole.sent)
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
