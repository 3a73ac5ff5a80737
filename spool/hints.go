package spool

import (
	"errors"
	"log/slog"
	"path/filepath"
	"sync"

	"github.com/fsnotify/fsnotify"
)

// Hints are the names, by directory, that inotify told of until somebody takes them.
// A hint says where to look, never what is there; a lost one costs time, never
// truth, because everything is looked at again anyway.
type Hints struct {
	wake chan struct{} // one token: there is something to take

	mu    sync.Mutex
	names map[string]map[string]bool // directory -> names
	count int
	all   bool // the names are not complete
}

// maxHints is the number of names that are remembered between two looks. With more,
// a look at everything is cheaper.
const maxHints = 4096

// NewHints are none.
func NewHints() *Hints {
	return &Hints{wake: make(chan struct{}, 1), names: map[string]map[string]bool{}}
}

// Drain reads both of fsnotify's channels at once until they are closed: a watcher whose errors
// nobody reads is dead after the first overflow. An event that is not worth a look leaves no hint.
func (h *Hints) Drain(n *fsnotify.Watcher, log *slog.Logger, worth func(op fsnotify.Op, name string) bool) {
	for {
		select {
		case e, ok := <-n.Events:
			if !ok {
				return
			}
			if base := filepath.Base(e.Name); worth(e.Op, base) {
				h.add(filepath.Dir(e.Name), base)
			}
		case err, ok := <-n.Errors:
			if !ok {
				return
			}
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				log.Warn("watch", "err", err)
			}
			h.Lost()
		}
	}
}

func (h *Hints) add(dir, name string) {
	defer h.poke()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.all {
		return
	}
	names := h.names[dir]
	if names == nil {
		names = map[string]bool{}
		h.names[dir] = names
	}
	if names[name] {
		return
	}
	names[name] = true
	if h.count++; h.count > maxHints {
		h.lose()
	}
}

// Lost says that everything must be looked at.
func (h *Hints) Lost() {
	h.mu.Lock()
	h.lose()
	h.mu.Unlock()
	h.poke()
}

func (h *Hints) lose() { h.names, h.count, h.all = map[string]map[string]bool{}, 0, true }

func (h *Hints) poke() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// Wake has a token while there is something to take.
func (h *Hints) Wake() <-chan struct{} { return h.wake }

// Take empties the hints. all says that they are not complete.
func (h *Hints) Take() (names map[string]map[string]bool, all bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	names, all = h.names, h.all
	h.names, h.count, h.all = map[string]map[string]bool{}, 0, false
	return names, all
}
