package runner

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"packmill/internal/durable"

	"golang.org/x/sys/unix"
)

// empty makes dir an empty directory. It does not follow a link.
func empty(dir string) error {
	st, err := os.Lstat(dir)
	if os.IsNotExist(err) {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return fmt.Errorf("build directory: %w", err)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("build directory: %w", err)
	}
	if !st.IsDir() {
		return fmt.Errorf("build directory %s: not a directory", dir)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("build directory: %w", err)
	}
	for _, e := range entries {
		if err := durable.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("empty build directory: %w", err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return fmt.Errorf("build directory: %w", err)
	}
	return nil
}

// scratchDir makes a directory below base for one build, locked as long as
// anything of the build holds the lock, and removes first what builds of dead
// daemons left there.
func scratchDir(base, prefix string, remove func(dir string) error) (dir string, lock *os.File, err error) {
	fail := func(err error) (string, *os.File, error) {
		return "", nil, fmt.Errorf("scratch space for builds: %w: %w", err, ErrSetup)
	}
	old, err := filepath.Glob(filepath.Join(base, prefix+"*"))
	if err != nil {
		return fail(err)
	}
	for _, dir := range old {
		lock, err := lockDir(dir, unix.LOCK_EX)
		if err != nil {
			continue // in use, or another user's
		}
		// One that was made this moment is not locked yet.
		if st, err := lock.Stat(); err == nil && time.Since(st.ModTime()) > time.Minute {
			remove(dir)
		}
		lock.Close()
	}
	if dir, err = os.MkdirTemp(base, prefix); err != nil {
		return fail(err)
	}
	if lock, err = lockDir(dir, unix.LOCK_EX); err != nil {
		return fail(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		lock.Close()
		return fail(err)
	}
	return dir, lock, nil
}

// open reports whether everybody can walk to a directory.
func open(dir string) bool {
	st, err := os.Stat(dir)
	return err == nil && st.Mode()&1 != 0 && (filepath.Dir(dir) == dir || open(filepath.Dir(dir)))
}

// usage is the space that the files below dir take on the disk, in bytes.
// What cannot be read is not counted.
func usage(dir string) int64 {
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
		w.size += usage(dir)
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

// takeBack makes the plain files of dir ours again after a build as another
// user, readable by everybody and writable by nobody else. Nothing of the
// build runs any more, so nobody swaps a file meanwhile.
func takeBack(dir string) error {
	uid, gid := os.Geteuid(), os.Getegid()
	if err := os.Lchown(dir, uid, gid); err != nil {
		return fmt.Errorf("take back results: %w", err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return fmt.Errorf("take back results: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("take back results: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		// A link to an inode elsewhere keeps its owner and mode.
		var st unix.Stat_t
		if unix.Lstat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink != 1 {
			continue
		}
		if err := os.Lchown(path, uid, gid); err != nil {
			return fmt.Errorf("take back results: %w", err)
		}
		if err := os.Chmod(path, 0o644); err != nil {
			return fmt.Errorf("take back results: %w", err)
		}
	}
	return nil
}

// openPlain opens a plain file that has no other name, and nothing else.
func openPlain(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink != 1 {
		f.Close()
		return nil, fmt.Errorf("%s is not a plain file with one name", filepath.Base(path))
	}
	return f, nil
}

// tailOf returns at most the last n bytes of the log, opened anew: the
// descriptor that it is written by need not be readable.
func tailOf(log *os.File, n int64) ([]byte, error) {
	f, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", log.Fd()))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file", log.Name())
	}
	start := max(0, st.Size()-n)
	return io.ReadAll(io.NewSectionReader(f, start, n))
}
