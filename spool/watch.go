package spool

import (
	"fmt"
	"log/slog"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

// watcher turns inotify's events into hints.
type watcher struct {
	*Hints
	log    *slog.Logger
	notify *fsnotify.Watcher // nil: we poll
	done   chan struct{}

	dirs map[string]dirID // what is watched; of the loop's goroutine only
	warn map[string]bool
}

type dirID struct{ dev, ino uint64 }

// remote are the file systems of which inotify sees only this machine's
// changes, or none: statfs(2) types.
var remote = map[int64]string{
	unix.NFS_SUPER_MAGIC: "nfs", unix.SMB_SUPER_MAGIC: "smb", unix.CIFS_SUPER_MAGIC: "cifs", unix.SMB2_SUPER_MAGIC: "smb",
	unix.FUSE_SUPER_MAGIC: "fuse", unix.V9FS_MAGIC: "9p", unix.CEPH_SUPER_MAGIC: "ceph", unix.AFS_SUPER_MAGIC: "afs",
}

// remoteKind is which of them dir is on, "" of any other.
func remoteKind(dir string) string {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return ""
	}
	return remote[int64(st.Type)]
}

// newWatcher never fails: without inotify it says so once and the loop polls.
func newWatcher(root string, log *slog.Logger) *watcher {
	w := &watcher{
		Hints: NewHints(), log: log, done: make(chan struct{}), dirs: map[string]dirID{}, warn: map[string]bool{},
	}
	if kind := remoteKind(root); kind != "" {
		log.Warn("the file system sends no reliable events: scanning every few seconds", "type", kind, "root", root)
		close(w.done)
		return w
	}
	n, err := fsnotify.NewBufferedWatcher(8192)
	if err != nil {
		log.Warn("no inotify: scanning every few seconds; raise fs.inotify.max_user_instances", "err", err)
		close(w.done)
		return w
	}
	w.notify = n
	go func() {
		defer close(w.done)
		w.Drain(n, log, worth)
	}()
	return w
}

// worth tells what may have brought something. A chmod says nothing of arrivals, and our own access to
// files makes many. That an item left is no arrival either, and each claim makes one such event.
func worth(op fsnotify.Op, name string) bool {
	left := op == fsnotify.Rename || op == fsnotify.Remove
	return op != fsnotify.Chmod && !(left && likeItem(name))
}

// polling reports whether the loop must look by itself every few seconds.
func (w *watcher) polling() bool { return w.notify == nil || len(w.warn) > 0 }

// follow makes the watched directories exactly dirs. A directory that was
// replaced under its name is watched anew; that inotify has no watch left is
// said once, and then the loop polls.
func (w *watcher) follow(dirs []string) {
	if w.notify == nil {
		return
	}
	want := make(map[string]bool, len(dirs))
	for _, d := range dirs {
		want[d] = true
		var st unix.Stat_t
		if err := unix.Stat(d, &st); err != nil {
			delete(w.dirs, d)
			continue
		}
		id := dirID{uint64(st.Dev), st.Ino}
		if w.dirs[d] == id {
			continue
		}
		w.notify.Remove(d)
		if err := w.notify.Add(d); err != nil {
			if !w.warn[d] {
				w.warn[d] = true
				w.log.Warn("cannot watch: scanning every few seconds; raise fs.inotify.max_user_watches", "dir", d, "err", err)
			}
			delete(w.dirs, d)
			continue
		}
		delete(w.warn, d)
		w.dirs[d] = id
		w.Lost() // what came before the watch
	}
	for d := range w.dirs {
		if !want[d] {
			w.notify.Remove(d)
			delete(w.dirs, d)
		}
	}
	for d := range w.warn {
		if !want[d] {
			delete(w.warn, d)
		}
	}
}

func (w *watcher) close() error {
	if w.notify == nil {
		return nil
	}
	err := w.notify.Close()
	<-w.done
	if err != nil {
		return fmt.Errorf("close watcher: %w", err)
	}
	return nil
}
