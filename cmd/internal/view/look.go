package view

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"packmill/spool"
)

// stamp says whether a directory has changed since it was listed.
type stamp struct {
	inode   uint64
	changed time.Time
	sure    bool // it was older than the clock's grain when it was listed
}

// grain is how far the clock of files may run behind.
const grain = 50 * time.Millisecond

func stampOf(info fs.FileInfo, now time.Time) stamp {
	s := stamp{changed: info.ModTime(), sure: now.Sub(info.ModTime()) > grain}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		s.inode = sys.Ino
	}
	return s
}

// look looks at all directories, and lists those that have changed.
func (v *View) look() error {
	begun := time.Now()
	places, err := v.tree.Places()
	closed, err := spool.Closed(err)
	if err != nil {
		return err
	}
	listed, stamps, n := map[spool.Place][]string{}, map[spool.Place]stamp{}, 0
	for _, p := range places {
		if v.hides(p.Suite) {
			continue
		}
		info, err := os.Lstat(v.tree.Path(p.Dir()))
		if err != nil {
			continue // it has gone: that is seen below
		}
		s := stampOf(info, time.Now())
		if old, ok := v.dirs[p]; ok && old.sure && old == s {
			stamps[p] = s
			continue
		}
		names, err := v.tree.List(p)
		shut, err := spool.Closed(err)
		closed = append(closed, shut...)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		listed[p], stamps[p] = names, s
		if n += len(names); n >= atOnce { // the names of a whole distribution are many times what is kept of them
			v.replace(listed)
			listed, n = map[spool.Place][]string{}, 0
		}
	}
	for p := range v.dirs {
		if _, ok := stamps[p]; !ok {
			listed[p] = nil
		}
	}
	v.dirs = stamps
	v.replace(listed)
	v.prove(closed, begun)
	return nil
}

// prove notes that all directories were looked at, but for those that are closed.
func (v *View) prove(closed []string, begun time.Time) {
	slices.Sort(closed)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.closed, v.proved = slices.Compact(closed), begun
}

// atOnce is how many names are gathered before they are taken in.
const atOnce = 50_000

// entry is an item that a listing has.
type entry struct {
	source string
	item
}

// showable are the items of listings that may be shown. Of what is held that is known: where a
// suite is hidden, the tickets of all that was ever refused need not be read again.
func (v *View) showable(listed map[spool.Place][]string) (out []spool.Found) {
	held := map[spool.Found]bool{}
	v.mu.RLock()
	if len(v.hidden) > 0 {
		for source, all := range v.held.sources {
			for _, x := range all {
				p := v.held.places[x.place]
				if _, ok := listed[p]; ok && p.Suite == "" {
					held[v.held.found(source, x)] = true
				}
			}
		}
	}
	v.mu.RUnlock()
	for p, list := range listed {
		for _, s := range list {
			if n, err := spool.ParseName(s); err == nil {
				if f := (spool.Found{Place: p, Name: n}); held[f] || v.shows(f) {
					out = append(out, f)
				}
			}
		}
	}
	return out
}

// replace makes what is held of places what the listings have.
func (v *View) replace(listed map[spool.Place][]string) {
	if len(listed) == 0 {
		return // mostly nothing has changed since the last look
	}
	names := v.showable(listed)
	var touched []Touched
	v.mu.Lock()
	v.held.shrink()
	fresh, at := make(map[entry]bool, len(names)), map[uint32]bool{}
	for p := range listed {
		at[v.held.number(p)] = true
	}
	for _, f := range names {
		fresh[entry{f.Name.Source, v.held.pack(f.Place, f.Name)}] = true
	}
	touch := func(e entry) {
		if len(touched) < maxTouched {
			touched = append(touched, touchedBy(v.held.found(e.source, e.item)))
		}
	}
	var gone []entry
	for source, all := range v.held.sources {
		for _, x := range all {
			switch e := (entry{source, x}); {
			case !at[x.place]:
			case fresh[e]:
				delete(fresh, e)
			default:
				gone = append(gone, e)
			}
		}
	}
	for _, e := range gone {
		v.held.remove(e.source, e.item)
		touch(e)
	}
	for e := range fresh {
		v.held.add(e.source, e.item)
		touch(e)
	}
	many := len(gone)+len(fresh) > len(touched)
	v.change(len(gone)+len(fresh) > 0)
	v.mu.Unlock()
	v.tell(touched, many)
}

// change notes that something changed. The lock is held.
func (v *View) change(did bool) {
	if did {
		v.number++
		v.changed = time.Now()
	}
}

// grow notes that something changed that is no item: who is told asks for pages of a new number.
func (v *View) grow() {
	v.mu.Lock()
	v.change(true)
	v.mu.Unlock()
}

// hinted looks at the names that hints speak of. It reports whether they speak of what
// only a look at all directories can find.
func (v *View) hinted(hints map[string]map[string]bool) (all bool) {
	var touched []Touched
	for dir, names := range hints {
		rel, err := filepath.Rel(v.tree.Root(), dir)
		if err != nil {
			continue
		}
		p, ok := v.tree.PlaceOf(rel)
		if !ok {
			switch rel {
			case spool.BuildersDir:
				touched = append(touched, Touched{Builders: true})
			case "journal", "control":
			default:
				all = true // a suite or an architecture has come or gone
			}
			continue
		}
		for name := range names {
			if t, did := v.check(p, name); did {
				touched = append(touched, t)
			}
		}
	}
	if slices.ContainsFunc(touched, func(t Touched) bool { return t.Builders }) {
		v.grow()
	}
	v.tell(touched, false)
	return all
}

// check looks whether an item is at a place, and reports whether that is news.
func (v *View) check(p spool.Place, name string) (Touched, bool) {
	n, err := spool.ParseName(name)
	if err != nil {
		return Touched{}, false
	}
	f := spool.Found{Place: p, Name: n}
	info, err := os.Lstat(v.tree.Path(f.Dir()))
	there := err == nil && info.IsDir() && v.shows(f)
	v.mu.Lock()
	defer v.mu.Unlock()
	x := v.held.pack(p, n)
	did := false
	if there {
		did = v.held.add(n.Source, x)
	} else {
		did = v.held.remove(n.Source, x)
	}
	v.change(did)
	return touchedBy(f), did
}
