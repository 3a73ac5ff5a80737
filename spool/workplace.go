package spool

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"packmill/internal/durable"
)

// workPrefix begins the names of workplaces.
const workPrefix = "work-"

// Workplace makes a directory under tmp in which this process's account alone writes,
// whoever else may write in the item that it is for. (tmp is sticky where others write
// there too, so nobody else takes its name away.) It is somebody's for as long as a
// process has the lock.
func (t *Tree) Workplace() (dir string, lock *os.File, err error) {
	birth, err := t.birthDir()
	if err != nil {
		return "", nil, fmt.Errorf("work directory: %w", err)
	}
	dir = t.Path("tmp", workPrefix+strings.TrimPrefix(filepath.Base(birth), birthPrefix))
	if lock, err = lockDir(birth); err == nil {
		// Under its name it is locked from the first moment.
		if err = errors.Join(os.Chmod(birth, 0o755), durable.RenameUnsynced(birth, dir)); err == nil {
			return dir, lock, nil
		}
		lock.Close()
	}
	return "", nil, fmt.Errorf("work directory: %w", errors.Join(err, durable.RemoveAll(birth)))
}

// ForgetWork removes the workplaces of this account whose processes are dead.
func (t *Tree) ForgetWork() error {
	_, err := t.ForgetBirth(func(dir string) bool {
		var st unix.Stat_t
		return strings.HasPrefix(filepath.Base(dir), workPrefix) && unix.Lstat(dir, &st) == nil &&
			int(st.Uid) == os.Geteuid()
	})
	return err
}
