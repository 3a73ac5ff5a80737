// Package account lets a command that root runs act as the account whose files
// it works on, so that nothing is left there that the account cannot change.
package account

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// OwnerOf is who owns a file: a name, a number where there is none, or "".
func OwnerOf(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	uid := strconv.Itoa(int(info.Sys().(*syscall.Stat_t).Uid))
	if u, err := user.LookupId(uid); err == nil {
		return u.Username
	}
	return uid
}

// BecomeOwner makes root the owner of a directory for the rest of the run. Who
// is not root stays who they are, and finds out what is allowed.
func BecomeOwner(dir string) error {
	info, err := os.Stat(dir)
	if err != nil || os.Geteuid() != 0 {
		return nil
	}
	st := info.Sys().(*syscall.Stat_t)
	if st.Uid == 0 {
		return nil
	}
	if err := become(int(st.Uid), int(st.Gid)); err != nil {
		return fmt.Errorf("become the owner of %s: %w", dir, err)
	}
	return nil
}

// Become makes root a user for the rest of the run, with that user's home.
func Become(u *user.User) error {
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return err
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return err
	}
	if err := become(uid, gid); err != nil {
		return fmt.Errorf("become %s: %w", u.Username, err)
	}
	for name, value := range map[string]string{"HOME": u.HomeDir, "USER": u.Username, "LOGNAME": u.Username} {
		os.Setenv(name, value)
	}
	for _, name := range []string{"XDG_CACHE_HOME", "XDG_RUNTIME_DIR"} {
		os.Unsetenv(name)
	}
	// Files that root alone may see below /proc/self would be in newuidmap's way.
	return unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0)
}

// become takes the ids, and the further groups that the system knows.
func become(uid, gid int) error {
	groups, _ := groupsOf(uid, gid)
	if err := syscall.Setgroups(append(groups, gid)); err != nil {
		return err
	}
	if err := syscall.Setgid(gid); err != nil {
		return err
	}
	return syscall.Setuid(uid)
}

// OwnedAs gives a new file the owner, group and mode of another, if root makes
// it: the daemons are other users.
func OwnedAs(file, like string) error {
	info, err := os.Stat(like)
	if err != nil || os.Geteuid() != 0 {
		return nil // there is none, or nobody who could give files away
	}
	st := info.Sys().(*syscall.Stat_t)
	if err := os.Chown(file, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	return os.Chmod(file, info.Mode().Perm())
}
