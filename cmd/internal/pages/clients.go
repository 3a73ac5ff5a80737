package pages

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// What one client may ask for, beside what all may: an office behind one address gets on with it, and who takes
// all there is leaves some to others.
const (
	perSecond     = 50 // requests, for long
	burst         = 300
	connectionsOf = 256
	maxClients    = 50_000 // that are told apart; more are one
	forgetClients = time.Minute
	networkOfV6   = 64 // bits: who has one address of it has all
)

// kind is something of which a client may have only so many at once.
type kind int

const (
	aStream kind = iota
	aHeavy
	aWhole
	kinds
)

var mostOf = [kinds]int64{aStream: 200, aHeavy: 2, aWhole: 8}

// client is one of those who ask: nil is a program of this machine, which is not limited.
type client struct {
	rate *rate.Limiter
	has  [kinds]atomic.Int64
}

func newClient() *client { return &client{rate: rate.NewLimiter(perSecond, burst)} }

// enter takes one of a kind, unless the client has its share already. leave gives it back.
func (c *client) enter(k kind) bool {
	if c == nil || c.has[k].Add(1) <= mostOf[k] {
		return true
	}
	c.leave(k)
	return false
}

func (c *client) leave(k kind) {
	if c != nil {
		c.has[k].Add(-1)
	}
}

// idle reports whether nothing is lost if the client is forgotten.
func (c *client) idle(now time.Time) bool {
	for k := range c.has {
		if c.has[k].Load() > 0 {
			return false
		}
	}
	return c.rate.TokensAt(now) >= burst
}

// clients are those who asked lately.
type clients struct {
	mu     sync.Mutex
	known  map[netip.Addr]*client
	open   map[netip.Addr]int // connections
	others *client            // when there are too many to tell apart
	swept  time.Time
}

func newClients() *clients {
	return &clients{known: map[netip.Addr]*client{}, open: map[netip.Addr]int{}, others: newClient()}
}

// of is the client that a request comes from.
func (c *clients) of(r *http.Request) *client {
	at := remoteOf(r.RemoteAddr)
	if local(at) {
		// A web server of this machine says for whom it asks; only its own word, which is the last, counts.
		words := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
		if at = remoteOf(strings.TrimSpace(words[len(words)-1])); local(at) {
			return nil
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if x := c.known[at]; x != nil {
		return x
	}
	if now := time.Now(); len(c.known) >= maxClients || now.Sub(c.swept) > forgetClients {
		c.sweep(now)
	}
	if len(c.known) >= maxClients {
		return c.others
	}
	x := newClient()
	c.known[at] = x
	return x
}

func (c *clients) sweep(now time.Time) {
	c.swept = now
	for at, x := range c.known {
		if x.idle(now) {
			delete(c.known, at)
		}
	}
}

// remoteOf is the address of a client, with a port or without: the zero one of what is none, as a socket's path.
func remoteOf(text string) netip.Addr {
	var at netip.Addr
	if with, err := netip.ParseAddrPort(text); err == nil { // as most are
		at = with.Addr()
	} else if plain, err := netip.ParseAddr(text); err == nil {
		at = plain
	}
	if at = at.Unmap().WithZone(""); at.Is6() {
		if p, err := at.Prefix(networkOfV6); err == nil && !at.IsLoopback() {
			return p.Addr()
		}
	}
	return at
}

func local(at netip.Addr) bool { return !at.IsValid() || at.IsLoopback() }

// patient lets no client ask faster than its share.
func (s *Site) patient(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c := s.clients.of(r); c != nil && !c.rate.Allow() {
			w.Header().Set("Retry-After", "2")
			s.refuse(w, r, &problem{http.StatusTooManyRequests, "you ask too often; try again in some seconds"})
			return
		}
		next.ServeHTTP(w, r)
	})
}

// connected counts the connections of a client, and closes what is more than its share.
func (c *clients) connected(conn net.Conn, state http.ConnState) {
	at := remoteOf(conn.RemoteAddr().String())
	if local(at) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch state {
	case http.StateNew:
		if c.open[at]++; c.open[at] > connectionsOf {
			conn.Close()
		}
	case http.StateClosed, http.StateHijacked:
		if c.open[at]--; c.open[at] <= 0 {
			delete(c.open, at)
		}
	}
}
