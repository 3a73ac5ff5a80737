package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// RenameUnsynced is Rename without its syncs. It is for a first step that a
// power cut may take back, when whoever comes next finds the old name and does
// it again; the caller syncs both directories before anything is built on it.
func RenameUnsynced(from, to string) error {
	_, err := move(at(from), at(to), unix.RENAME_NOREPLACE)
	return err
}

// MoveAll moves the named entries of one directory to another and syncs each
// of the two once, the new one first. It never replaces. Names that are gone
// are passed over; after an error some may have been moved, and it can be done
// again. A name that a power cut left in both (a file's move is not one change
// on every file system) is taken out of from. What is moved is not synced itself.
func MoveAll(from, to string, names []string) (moved []string, err error) {
	if moved, err = MoveAllUnsynced(from, to, names); err != nil || len(moved) == 0 {
		return moved, err
	}
	return moved, syncBoth(from, to, SyncDir)
}

// MoveAllUnsynced is MoveAll without the syncs, as RenameUnsynced is.
func MoveAllUnsynced(from, to string, names []string) (moved []string, err error) {
	for _, name := range names {
		a, b := filepath.Join(from, name), filepath.Join(to, name)
		id, err := identify(a)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return moved, &fs.PathError{Op: "rename", Path: a, Err: err}
		}
		err = unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_NOREPLACE)
		if errors.Is(err, fs.ErrExist) {
			if there, ierr := identify(b); ierr == nil && there == id {
				err = os.Remove(a)
			}
		}
		switch {
		case err == nil || happened(id, at(a), at(b)):
			moved = append(moved, name)
		case errors.Is(err, fs.ErrNotExist):
		default:
			return moved, &os.LinkError{Op: "rename", Old: a, New: b, Err: err}
		}
	}
	return moved, nil
}
