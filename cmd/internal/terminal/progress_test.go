package terminal

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"
)

// screen is a terminal that a test reads.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

// waits until the screen has said all of these words, and gives what it said.
func (s *screen) waits(t *testing.T, words ...string) string {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		s.mu.Lock()
		text := s.text.String()
		s.mu.Unlock()
		missing := ""
		for _, w := range words {
			if !strings.Contains(text, w) {
				missing = w
			}
		}
		if missing == "" {
			return text
		}
		if time.Now().After(end) {
			t.Fatalf("never %q in %q", missing, text)
		}
	}
}

// What takes long is shown: turning at first, then how far it is; and the line
// is gone in the end.
func TestProgress(t *testing.T) {
	s := &screen{}
	p := begin("reading", s, 0)
	s.waits(t, "reading")
	for done := int64(0); done < 10; done++ {
		p.Bytes(done<<20, 10<<20)
		time.Sleep(20 * time.Millisecond)
	}
	s.waits(t, "%", "MB")
	p.End()
	if got := s.text.String(); !strings.HasSuffix(got, "\r") && !strings.HasSuffix(got, "\x1b[2K\r") {
		t.Errorf("the line stays: %q", got[max(0, len(got)-80):])
	}
}

// What is quick shows nothing, and neither does what nobody looks at.
func TestProgressOfQuick(t *testing.T) {
	s := &screen{}
	p := begin("reading", s, time.Hour)
	p.Count(1, 2)
	p.End()
	q := begin("reading", nil, 0)
	q.Count(1, 2)
	q.End()
	if got := s.text.String(); got != "" {
		t.Errorf("shown: %q", got)
	}
}
