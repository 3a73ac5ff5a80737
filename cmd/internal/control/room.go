package control

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Room says why nothing new should be begun on the file system of dir: after
// bytes more, less space would be free than Reserve keeps back, or fewer inodes
// are than Reserve-Inodes, or nobody can write there. The text stays the same
// while the trouble does.
func (g General) Room(dir string, bytes int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("statfs %s: %w", dir, err)
	}
	switch free := int64(st.Bavail) * st.Bsize; {
	case st.Flags&unix.ST_RDONLY != 0:
		return fmt.Errorf("%s: mounted read-only: look at the kernel's log, then: mount -o remount,rw", dir)
	case free < g.ReserveBytes+bytes && bytes > 0:
		return fmt.Errorf("%s: no room for %d MiB beside the %d that are kept back (Reserve in control/general): make room",
			dir, (bytes>>20)+1, g.ReserveBytes>>20)
	case free < g.ReserveBytes:
		return fmt.Errorf("%s: less than %d MiB are free (Reserve in control/general): make room", dir, g.ReserveBytes>>20)
	case st.Files > 0 && int64(st.Ffree) < g.ReserveInodes: // some file systems say 0 of 0
		return fmt.Errorf("%s: fewer than %d inodes are free (Reserve-Inodes in control/general): make room",
			dir, g.ReserveInodes)
	}
	return nil
}
