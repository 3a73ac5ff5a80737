package main

import (
	"errors"
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
	bad   []string  // different packages that failed here in a row
	last  time.Time // when the last of them ended
	pause time.Time // until when nothing is begun after it
	until time.Time // until when the builder is set aside
	lack  error     // of what the machine has too little, see spool.Lacks
	rest  time.Time // when to try whether it has some again
	now   func() time.Time
}

// lackRest is between two looks whether the machine has again what it lacked.
const lackRest = 10 * time.Second

// lacks notes that a build could not begin for want of room, files or quota: the
// fault of no package, and not this builder's for an hour.
func (h *health) lacks(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lack, h.rest = err, h.now().Add(lackRest)
}

// After a package that ended without a verdict nothing is begun for the builder's
// Pause, after the second for longer times that; then others are tried. With the third
// the builder is set aside for asideFor, so that a broken chroot does not eat the queue,
// and a trouble of seconds stops nobody for longer than it lasts. Then one package is
// tried.
const (
	maxBad   = 3
	longer   = 6
	asideFor = time.Hour
)

// failed notes a build that began at a time and ended without a verdict. elsewhere says
// that the package failed so on another builder too: then it is the package's fault. It
// reports whether the builder is set aside with that.
func (h *health) failed(source string, begun time.Time, elsewhere bool, pause time.Duration) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	same := pause > 0 && begun.Before(h.last) // it ran when the one before it fell
	if elsewhere || len(h.bad) < maxBad && (same || slices.Contains(h.bad, source)) {
		return false
	}
	if !slices.Contains(h.bad, source) {
		h.bad = append(h.bad, source)
	}
	h.last = h.now()
	if len(h.bad) < maxBad {
		if len(h.bad) > 1 {
			pause *= longer
		}
		h.pause = h.last.Add(pause)
		return false
	}
	h.until = h.last.Add(asideFor)
	return true
}

// worked notes that a build came to a verdict on the package, good or bad. It
// reports whether the builder was set aside before.
func (h *health) worked() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	was := !h.until.IsZero()
	h.bad, h.until, h.pause = nil, time.Time{}, time.Time{}
	return was
}

// errAside is in the error of aside when it is not just room that lacks.
var errAside = errors.New("set aside")

// aside says why the builder takes nothing now.
func (h *health) aside() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.now().Before(h.rest) {
		return fmt.Errorf("a build could not begin: %w; the next is tried in %s", h.lack, lackRest)
	}
	if h.now().Before(h.pause) {
		return fmt.Errorf("the last build here ended without a verdict (%s); the next is begun at %s",
			h.bad[len(h.bad)-1], h.pause.UTC().Format(time.RFC3339))
	}
	if !h.now().Before(h.until) {
		return nil
	}
	return fmt.Errorf("this builder is %w until %s: %d different packages in a row failed here without a verdict (%s): "+
		"look at its chroot and its log, then start it again",
		errAside, h.until.UTC().Format(time.RFC3339), len(h.bad), strings.Join(h.bad, ", "))
}
