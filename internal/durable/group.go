package durable

import (
	"errors"
	"sync"

	"golang.org/x/sys/unix"

	"packmill/internal/below"
)

// Group lets goroutines that rename at the same time share their syncs: what
// counts for a rename is one fsync of each of its two directories that began
// after the rename was made, whoever asked for it. The zero value is ready. A
// Group must not be copied.
//
// After a sync that failed nothing is acknowledged any more, not even what a
// later sync seems to cover: the kernel reports such an error once.
type Group struct {
	mu    sync.Mutex
	clock int // counts renames made and syncs begun
	dirs  map[string]*dirSyncs
	doubt error
}

// atOnce is the number of fsyncs of one directory that run side by side before
// callers wait for one to end. One alone is the fastest on a quiet disk, but
// then one that is held up by somebody else's work holds up all.
const atOnce = 2

// dirSyncs are the syncs of one directory.
type dirSyncs struct {
	callers int // who uses this
	running int
	begun   int // when the youngest began that did not fail
	ended   int // when the youngest began that ended well
	end     *sync.Cond
}

// Rename is the package's Rename of a name in one open directory to one in another,
// with shared syncs: what the directories were opened as says whose they share.
//
// Of a directory that is moved the new parent alone is synced: it has one name, so that
// ext4, xfs and btrfs write its move as one change of both parents.
func (g *Group) Rename(from *below.Dir, old string, to *below.Dir, name string) error {
	id, err := move(place{from.FD(), old}, place{to.FD(), name}, unix.RENAME_NOREPLACE)
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	made := g.tick()
	if err := g.sync(to, made); err != nil || id.dir || from.Name() == to.Name() {
		return err
	}
	return g.sync(from, made)
}

func (g *Group) tick() int {
	g.clock++
	return g.clock
}

// sync returns when a sync of the directory that began after since has ended. It is
// called with the lock.
func (g *Group) sync(dir *below.Dir, since int) error {
	name := dir.Name()
	d := g.dirs[name]
	if d == nil {
		d = &dirSyncs{end: sync.NewCond(&g.mu)}
		if g.dirs == nil {
			g.dirs = make(map[string]*dirSyncs)
		}
		g.dirs[name] = d
	}
	d.callers++
	defer func() {
		if d.callers--; d.callers == 0 {
			delete(g.dirs, name)
		}
	}()
	for g.doubt == nil && d.ended < since {
		if d.begun > since || d.running == atOnce {
			d.end.Wait()
		} else if err := g.run(dir, d); err != nil {
			return err
		}
	}
	return g.doubt
}

// run is one sync.
func (g *Group) run(dir *below.Dir, d *dirSyncs) error {
	began := g.tick()
	d.begun = began
	d.running++
	g.mu.Unlock()
	err := syncFD(dir.FD(), dir.Name())
	g.mu.Lock()
	d.running--
	d.end.Broadcast()
	switch {
	case err == nil:
		d.ended = max(d.ended, began)
	case errors.Is(err, ErrInDoubt):
		g.doubt = err
	case d.begun == began:
		d.begun = 0 // whoever waits for it tries for itself
	}
	return err
}
