package main

import (
	"context"
	"sync"
	"time"

	"packmill/cmd/internal/base"
	"packmill/cmd/internal/control"
)

// baseRetry is how soon a suite's Base is fetched again after a failure.
const baseRetry = 10 * time.Minute

// bases fetches what suites are built on.
type bases struct {
	m     *master
	nudge chan struct{}

	mu      sync.Mutex
	running map[string]bool
	tried   map[string]time.Time
}

// lists returns the Packages files of a suite's Base on an architecture;
// complete says that they are all there is. A suite without Base has none,
// and what its builders are given besides is not known.
func (b *bases) lists(ctx context.Context, s *control.Suite, arch string) (paths []string, complete bool) {
	below := base.Of(b.m.Tree.Root(), s, arch)
	if below == nil {
		return nil, false
	}
	if b.due(below) {
		if b.m.Once {
			b.fetch(ctx, below, s, arch)
		} else {
			go b.fetch(ctx, below, s, arch)
		}
	}
	paths = below.Lists()
	return paths, len(paths) > 0
}

// due reports whether it is time to fetch, and takes it down.
func (b *bases) due(below *base.Base) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	dir := below.Dir()
	if b.running[dir] || !below.Due() || time.Since(b.tried[dir]) < baseRetry && !below.Moved().After(b.tried[dir]) {
		return false
	}
	b.running[dir], b.tried[dir] = true, time.Now()
	return true
}

func (b *bases) fetch(ctx context.Context, below *base.Base, s *control.Suite, arch string) {
	err := below.Fetch(ctx)
	b.mu.Lock()
	delete(b.running, below.Dir())
	b.mu.Unlock()
	if err != nil {
		b.m.Log.Warn("no new indexes of the Base: what is there is used, or the suite's own packages alone",
			"suite", s.Name, "arch", arch, "err", err)
		return
	}
	b.m.Log.Info("fetched the indexes of the Base", "suite", s.Name, "arch", arch)
	b.ask()
}

// ask asks release for a scan.
func (b *bases) ask() {
	select {
	case b.nudge <- struct{}{}:
	default:
	}
}
