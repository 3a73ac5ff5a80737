// Package trouble keeps a log readable and a machine quiet while something goes
// wrong for hours: it is said once, and tried again later and later.
package trouble

import (
	"packmill/internal/pattern"
	"sync"
	"time"
)

// Said is what was said of each of several things. The zero value is ready, and
// for use by several goroutines.
type Said struct {
	mu   sync.Mutex
	last map[string]string
}

// New reports whether text is another than the one that was said of a thing last,
// and notes it: then it is worth a line.
func (s *Said) New(of, text string) bool {
	return s.differs(of, text, func(a, b string) bool { return a == b })
}

// Fresh is New of an error; one that is alike is none.
func (s *Said) Fresh(of string, err error) bool { return s.differs(of, err.Error(), Alike) }

func (s *Said) differs(of, text string, same func(a, b string) bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, said := s.last[of]
	if said && same(old, text) {
		return false
	}
	if s.last == nil {
		s.last = map[string]string{}
	}
	s.last[of] = text
	return true
}

// Over forgets a thing and returns what was said of it last, "" if nothing was.
func (s *Said) Over(of string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.last[of]
	delete(s.last, of)
	return old
}

// Alike reports whether two errors differ at most in the names of temporary
// files.
func Alike(a, b string) bool {
	return temporary().ReplaceAllString(a, "") == temporary().ReplaceAllString(b, "")
}

var temporary = pattern.Lazy(`[0-9a-f]{16}|[0-9]{5,}`)

// Backoff is how long to wait after trouble: First, then twice as long each time,
// at most Last.
type Backoff struct{ First, Last time.Duration }

// After is the wait after one that came to nothing, which was of 0 if there was
// none.
func (b Backoff) After(wait time.Duration) time.Duration {
	return min(max(b.First, 2*wait), b.Last)
}
