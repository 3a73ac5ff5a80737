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
	bad   []string // different packages that failed here in a row
	until time.Time
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

// worked notes that a build came to a verdict on the package, good or bad. It
// reports whether the builder was set aside before.
func (h *health) worked() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	was := !h.until.IsZero()
	h.bad, h.until = nil, time.Time{}
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
	if !h.now().Before(h.until) {
		return nil
	}
	return fmt.Errorf("this builder is %w until %s: %d different packages in a row failed here without a verdict (%s): look at its chroot and its log, then start it again",
		errAside, h.until.UTC().Format(time.RFC3339), len(h.bad), strings.Join(h.bad, ", "))
}
