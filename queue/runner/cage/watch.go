package cage

import (
	"io/fs"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Space is the space that the files below dir take on the disk, in bytes.
// What cannot be read is not counted.
func Space(dir string) int64 {
	var total int64
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil && unix.Lstat(path, &st) == nil {
			total += st.Blocks * 512
		}
		return nil
	})
	return total
}

// watch looks after the size of directories without walking them all the
// time: a walk comes when the last one has become cheap beside the time since,
// and at once when their file systems have filled by what the directories may
// still grow. That alone would not do: others free space meanwhile.
type watch struct {
	dirs   []string
	size   int64 // of the directories, at the last walk
	filled int64 // bytes in use on their file systems then
	at     time.Time
	cost   time.Duration
}

// How often a directory is walked: at most once a second, and for a fiftieth
// of the time.
const (
	walkSoonest = time.Second
	walkShare   = 50
)

func newWatch(dirs []string) *watch {
	w := &watch{dirs: dirs, at: time.Now()}
	w.filled = w.fill()
	return w
}

// fill is what is in use on the file systems of the directories.
func (w *watch) fill() int64 {
	var total int64
	seen := map[unix.Fsid]bool{}
	for _, dir := range w.dirs {
		var st unix.Statfs_t
		if unix.Statfs(dir, &st) == nil && !seen[st.Fsid] {
			seen[st.Fsid] = true
			total += int64(st.Blocks-st.Bfree) * st.Bsize
		}
	}
	return total
}

// walk measures the directories, in bytes.
func (w *watch) walk(now time.Time) int64 {
	w.filled = w.fill()
	begin := time.Now()
	w.size = 0
	for _, dir := range w.dirs {
		w.size += Space(dir)
	}
	w.at, w.cost = now, time.Since(begin)
	return w.size
}

// look returns the size of the directories if it was worth measuring, else 0.
func (w *watch) look(now time.Time, limit int64) int64 {
	if len(w.dirs) == 0 {
		return 0
	}
	age := now.Sub(w.at)
	if age > max(walkSoonest, walkShare*w.cost) || limit > 0 && age > 2*w.cost && w.fill()-w.filled >= limit-w.size {
		return w.walk(now)
	}
	return 0
}
