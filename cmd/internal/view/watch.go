package view

import (
	"errors"
	"log/slog"
	"path/filepath"
	"sync"

	"github.com/fsnotify/fsnotify"

	"packmill/spool"
)

// watcher gathers what inotify says. It says where to look, never what is there.
type watcher struct {
	log    *slog.Logger
	notify *fsnotify.Watcher // nil: there is no inotify
	wake   chan struct{}     // one token: there is something to take
	dirs   map[string]bool   // that are watched

	mu    sync.Mutex
	hints map[string]map[string]bool // directory -> names
	count int
	all   bool // the hints are not complete
}

// maxHints is how many names are remembered between two looks.
const maxHints = 4096

func watchTree(log *slog.Logger) *watcher {
	w := &watcher{log: log, wake: make(chan struct{}, 1), dirs: map[string]bool{}, hints: map[string]map[string]bool{}}
	n, err := fsnotify.NewBufferedWatcher(16384)
	if err != nil {
		log.Warn("no inotify: looking at the tree once a minute; raise fs.inotify.max_user_instances", "err", err)
		return w
	}
	w.notify = n
	go w.drain()
	return w
}

// drain reads both channels for ever: who leaves one alone hears nothing any more.
func (w *watcher) drain() {
	for {
		select {
		case e, ok := <-w.notify.Events:
			if !ok {
				return
			}
			if e.Op != fsnotify.Chmod {
				w.hint(filepath.Dir(e.Name), filepath.Base(e.Name))
			}
		case err, ok := <-w.notify.Errors:
			if !ok {
				return
			}
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				w.log.Warn("watch", "err", err)
			}
			w.lost()
		}
	}
}

func (w *watcher) hint(dir, name string) {
	w.mu.Lock()
	names := w.hints[dir]
	if names == nil {
		names = map[string]bool{}
		w.hints[dir] = names
	}
	if !names[name] {
		names[name] = true
		w.count++
	}
	if w.count > maxHints {
		w.all, w.hints, w.count = true, map[string]map[string]bool{}, 0
	}
	w.mu.Unlock()
	w.poke()
}

// lost says that everything must be looked at.
func (w *watcher) lost() {
	w.mu.Lock()
	w.all = true
	w.mu.Unlock()
	w.poke()
}

func (w *watcher) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// take empties the hints. all says that they are not complete.
func (w *watcher) take() (hints map[string]map[string]bool, all bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	hints, all = w.hints, w.all
	w.hints, w.count, w.all = map[string]map[string]bool{}, 0, false
	return hints, all
}

// follow makes the watched directories these. One that was replaced under its name is
// seen by the looks at everything.
func (w *watcher) follow(dirs []string) {
	if w.notify == nil {
		return
	}
	want := map[string]bool{}
	for _, d := range dirs {
		want[d] = true
		if w.dirs[d] {
			continue
		}
		if err := w.notify.Add(d); err == nil {
			w.dirs[d] = true
		}
	}
	for d := range w.dirs {
		if !want[d] {
			w.notify.Remove(d)
			delete(w.dirs, d)
		}
	}
}

func (w *watcher) close() {
	if w.notify != nil {
		w.notify.Close()
	}
}

// watched are the directories in which names come and go, and those above them. What
// is installed lies in hundreds; it comes by way of the archive queue, and the journal
// tells of it.
func (v *View) watched() []string {
	dirs := []string{v.tree.Path("journal"), v.tree.Path("control"), v.tree.Path(spool.BuildersDir)}
	known := map[string]bool{}
	places, err := v.tree.Places(v.tree.Where(func(s spool.State) bool { return !s.Has("HASH") })...)
	if _, err := spool.Closed(err); err != nil {
		v.log.Warn("the tree cannot be read", "err", err)
	}
	for _, p := range places {
		if v.hides(p.Suite) {
			continue
		}
		for d := p.Dir(); d != "." && d != "spool" && d != "archive"; d = filepath.Dir(d) {
			if !known[d] {
				known[d] = true
				dirs = append(dirs, v.tree.Path(d))
			}
		}
	}
	return dirs
}
