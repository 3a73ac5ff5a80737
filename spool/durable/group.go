package durable

import (
	"sync"

	"golang.org/x/sys/unix"
)

// Group shares directory syncs between goroutines: moves that happen together
// pay for few fsyncs of each directory. The zero value is ready. A Group must
// not be copied.
//
// A caller's sync is one that began after the call, so everything that the
// caller changed before is covered.
type Group struct {
	mu   sync.Mutex
	dirs map[string]*dirSyncs
}

// atOnce is the number of fsyncs of one directory that run side by side before
// callers begin to share. One by one is slower than no sharing at all: a journal
// puts those that overlap into one commit, and without a journal they keep the
// disk's queue filled.
const atOnce = 4

// dirSyncs is the work on one directory: some rounds run, at most one waits.
type dirSyncs struct {
	running int
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
	if d.running < atOnce {
		d.running++
		g.mu.Unlock()
		err := SyncDir(dir)
		g.next(dir, d)
		return err
	}
	if d.waiting == nil {
		d.waiting = &round{done: make(chan struct{})}
	}
	r := d.waiting
	g.mu.Unlock()
	<-r.done
	return r.err
}

// next ends a running round and starts the one that waits.
func (g *Group) next(dir string, d *dirSyncs) {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := d.waiting
	if r == nil {
		if d.running--; d.running == 0 {
			delete(g.dirs, dir)
		}
		return
	}
	d.waiting = nil
	go func() {
		r.err = SyncDir(dir)
		close(r.done)
		g.next(dir, d)
	}()
}

// Rename is the package's Rename with shared syncs.
func (g *Group) Rename(from, to string) error {
	return rename(from, to, unix.RENAME_NOREPLACE, g.SyncDir)
}
