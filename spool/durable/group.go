package durable

import (
	"sync"

	"golang.org/x/sys/unix"
)

// Group shares directory syncs between goroutines: moves that happen together
// pay for one fsync of each directory. The zero value is ready. A Group must
// not be copied.
//
// A caller's sync is one that began after the call, so everything that the
// caller changed before is covered.
type Group struct {
	mu   sync.Mutex
	dirs map[string]*dirSyncs
}

// dirSyncs is the work on one directory: one round runs, at most one waits.
type dirSyncs struct {
	running bool
	waiting *round
}

// round is one fsync and all who wait for it.
type round struct {
	done chan struct{}
	err  error
}

// SyncDir is the package's SyncDir, shared with the others who ask at the
// same time.
func (g *Group) SyncDir(dir string) error {
	g.mu.Lock()
	if g.dirs == nil {
		g.dirs = make(map[string]*dirSyncs)
	}
	d := g.dirs[dir]
	if d == nil {
		d = &dirSyncs{}
		g.dirs[dir] = d
	}
	if d.waiting == nil {
		d.waiting = &round{done: make(chan struct{})}
	}
	r := d.waiting
	if d.running {
		g.mu.Unlock()
		<-r.done
		return r.err
	}
	d.running = true
	d.waiting = nil
	g.mu.Unlock()
	g.run(dir, d, r)
	return r.err
}

// run does one round and starts the next if somebody came meanwhile.
func (g *Group) run(dir string, d *dirSyncs, r *round) {
	r.err = SyncDir(dir)
	close(r.done)
	g.mu.Lock()
	defer g.mu.Unlock()
	next := d.waiting
	if next == nil {
		d.running = false
		delete(g.dirs, dir)
		return
	}
	d.waiting = nil
	go g.run(dir, d, next)
}

// Rename is the package's Rename with shared syncs.
func (g *Group) Rename(from, to string) error {
	return rename(from, to, unix.RENAME_NOREPLACE, g.SyncDir)
}
