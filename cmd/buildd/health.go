package main

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// health judges whose fault it is when builds end without a verdict: that of
// one package, which fails wherever it is built, or this builder's, on which
// one package after another fails.
type health struct {
	mu    sync.Mutex
	bad   []string // different packages that failed here in a row
	until time.Time
	now   func() time.Time
}

// After maxBad different packages the builder is set aside for asideFor, so
// that a broken chroot does not eat the queue. Then one package is tried.
const (
	maxBad   = 3
	asideFor = time.Hour
)

// failed notes a build that ended without a verdict. elsewhere says that the
// package failed so on another builder too: then it is the package's fault. It
// reports whether the builder is set aside with that.
func (h *health) failed(source string, elsewhere bool) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if elsewhere || slices.Contains(h.bad, source) && len(h.bad) < maxBad {
		return false
	}
	if !slices.Contains(h.bad, source) {
		h.bad = append(h.bad, source)
	}
	if len(h.bad) < maxBad {
		return false
	}
	h.until = h.now().Add(asideFor)
	return true
}

// worked notes that a build came to a verdict on the package, good or bad.
func (h *health) worked() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.bad, h.until = nil, time.Time{}
}

// aside says why the builder takes nothing now.
func (h *health) aside() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.now().Before(h.until) {
		return nil
	}
	return fmt.Errorf("this builder is set aside until %s: %d different packages in a row failed here without a verdict (%s): look at its chroot and its log, then start it again",
		h.until.UTC().Format(time.RFC3339), len(h.bad), strings.Join(h.bad, ", "))
}
