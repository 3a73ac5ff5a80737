package view

import (
	"log/slog"
	"path/filepath"

	"github.com/fsnotify/fsnotify"

	"packmill/spool"
)

// watcher gathers what inotify says.
type watcher struct {
	*spool.Hints
	notify *fsnotify.Watcher // nil: there is no inotify
	dirs   map[string]bool   // that are watched
}

func watchTree(log *slog.Logger) *watcher {
	w := &watcher{Hints: spool.NewHints(), dirs: map[string]bool{}}
	n, err := fsnotify.NewBufferedWatcher(16384)
	if err != nil {
		log.Warn("no inotify: looking at the tree once a minute; raise fs.inotify.max_user_instances", "err", err)
		return w
	}
	w.notify = n
	go w.Drain(n, log, func(op fsnotify.Op, _ string) bool { return op != fsnotify.Chmod })
	return w
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
