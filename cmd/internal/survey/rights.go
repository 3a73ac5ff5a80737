package survey

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/terminal"
)

// Whose is a directory that the person may not read, below the tree, with the
// group that may: "spool/review (packmill-review)".
func Whose(tree, dir string) string {
	name := strings.TrimPrefix(dir, tree+"/")
	if info, err := os.Lstat(dir); err == nil {
		gid := info.Sys().(*syscall.Stat_t).Gid
		if g, err := user.LookupGroupId(strconv.Itoa(int(gid))); err == nil {
			name += " (" + g.Name + ")"
		}
	}
	return name
}

// Rights makes one sentence of the system's refusal to let the person do
// something in the tree: what is whose, and how to become one of them. Other
// errors stay as they are.
func Rights(err error, tree string) error {
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	for _, path := range pathsOf(err) {
		if dir, st := denied(path); dir != "" {
			rel := strings.TrimPrefix(dir, strings.TrimSuffix(tree, "/")+"/")
			return daemon.Wrong{Err: fmt.Errorf("you may not do this: %s %s", rel, forWhom(st))}
		}
	}
	return daemon.Wrong{Err: fmt.Errorf("you may not do this: %w", err)}
}

// pathsOf are the paths that an error speaks of.
func pathsOf(err error) (paths []string) {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range many.Unwrap() {
			paths = append(paths, pathsOf(e)...)
		}
		return paths
	}
	switch e := err.(type) {
	case *fs.PathError:
		return []string{e.Path}
	case *os.LinkError:
		return []string{e.New, e.Old}
	}
	if next := errors.Unwrap(err); next != nil {
		return pathsOf(next)
	}
	return nil
}

// denied is the directory, at path or above it, that the person may not use as
// its owner may: "" if there is none.
func denied(path string) (string, *syscall.Stat_t) {
	for ; filepath.IsAbs(path) && path != "/"; path = filepath.Dir(path) {
		info, err := os.Lstat(path)
		if err != nil {
			continue // it is not there, or lies in what is closed
		}
		want := uint32(unix.R_OK | unix.W_OK)
		if info.IsDir() {
			want |= unix.X_OK
		}
		if unix.Faccessat(unix.AT_FDCWD, path, want, unix.AT_EACCESS) != nil {
			return path, info.Sys().(*syscall.Stat_t)
		}
	}
	return "", nil
}

// inGroup reports whether this process has the rights of the group.
func inGroup(gid int) bool {
	groups, err := os.Getgroups()
	return err == nil && (gid == os.Getegid() || slices.Contains(groups, gid))
}

// forWhom says who may, and what makes the person one of them.
func forWhom(st *syscall.Stat_t) string {
	owner := "uid " + strconv.Itoa(int(st.Uid))
	if u, err := user.LookupId(strconv.Itoa(int(st.Uid))); err == nil {
		owner = u.Username
	}
	g, err := user.LookupGroupId(strconv.Itoa(int(st.Gid)))
	// What a group may only read helps those alone who are not in it.
	opens := st.Mode&0o020 != 0 || st.Mode&0o040 != 0 && !inGroup(int(st.Gid))
	if err != nil || !opens || g.Name == owner || g.Name == "root" {
		return fmt.Sprintf("is for %s alone: run it as that user", owner)
	}
	person := terminal.Who()
	if u, err := user.LookupId(strconv.Itoa(os.Getuid())); err == nil {
		if ids, err := u.GroupIds(); err == nil && slices.Contains(ids, g.Gid) {
			return fmt.Sprintf("is for the group %s, which %s has joined since logging in: log in again", g.Name, person)
		}
	}
	return fmt.Sprintf("is for the group %s, and %s is not in it (as root: usermod -aG %s %s; then log in again)",
		g.Name, person, g.Name, person)
}
