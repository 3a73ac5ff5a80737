package control

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Store gives the settings in force: they are read again when a file in
// control has changed, and when that goes wrong the last good ones stay.
type Store struct {
	dir string
	log *slog.Logger

	mu      sync.Mutex
	now     *Settings
	stamp   string // of the files that were read last, good or bad
	checked time.Time
}

// recheck is how old a look at the files may be. Files younger than writing may
// be half written: whoever writes one in place empties it first.
const (
	recheck = time.Second
	writing = 100 * time.Millisecond
)

// NewStore reads the settings for the first time. That they are wrong then is
// an error: there are no good ones to go on with.
func NewStore(dir string, log *slog.Logger) (*Store, error) {
	is, _ := stamp(dir)
	s := &Store{dir: dir, log: log, stamp: is, checked: time.Now()}
	now, err := Load(dir)
	if err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	s.now = now
	return s, nil
}

// Look returns the settings in force, and does not rely on a look of a moment
// ago: for who was told of a change.
func (s *Store) Look() *Settings {
	s.mu.Lock()
	s.checked = time.Time{}
	s.mu.Unlock()
	return s.Get()
}

// Get returns the settings in force.
func (s *Store) Get() *Settings {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.checked) < recheck {
		return s.now
	}
	s.checked = time.Now()
	is, newest := stamp(s.dir)
	if is == s.stamp {
		return s.now
	}
	for range 10 {
		if age := time.Since(newest); age < 0 || age >= writing {
			break
		}
		time.Sleep(writing)
		is, newest = stamp(s.dir)
	}
	s.stamp = is
	now, err := Load(s.dir)
	if err == nil && len(now.Suites) == 0 && len(s.now.Suites) > 0 {
		err = fmt.Errorf("%s: there is no suite any more; what is in force goes on until the daemons are started again",
			filepath.Join(s.dir, "suites"))
	}
	if err != nil {
		s.log.Error("settings are wrong: the last good ones stay in force", "err", err)
		return s.now
	}
	s.now = now
	s.log.Info("settings read again")
	return s.now
}

// stamp tells whether any file was written or replaced; a key that was exported
// anew over its old file (it may be revoked now) changes no directory. newest is
// when one of them was written last.
func stamp(dir string) (out string, newest time.Time) {
	names := append([]string{KeysDir}, Files...)
	if keys, err := os.ReadDir(filepath.Join(dir, KeysDir)); err == nil {
		for _, k := range keys {
			names = append(names, filepath.Join(KeysDir, k.Name()))
		}
	}
	for _, name := range names {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			out += name + " -\n"
			continue
		}
		var ino uint64
		if sys, ok := st.Sys().(*syscall.Stat_t); ok {
			ino = sys.Ino
		}
		written := st.ModTime()
		if st.Size() == 0 && time.Since(written) < time.Minute {
			written = time.Now() // its writer will go on
		}
		if written.After(newest) {
			newest = written
		}
		out += fmt.Sprintf("%s %d %d %d\n", name, st.Size(), st.ModTime().UnixNano(), ino)
	}
	return out, newest
}
