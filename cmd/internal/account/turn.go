package account

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// As does something below a tree as the account whose turn it is with what lies at
// rel, if root runs the program: the owner of the first directory on the way there that
// is not root's. Above that nobody else can exchange a name, and below it root writes
// nothing: whatever link or directory is put in the way of a command leads where
// that account could go by itself. Who is not root stays who they are.
func As(tree, rel string, do func() error) error {
	if os.Geteuid() != 0 {
		return do()
	}
	who := turn(tree, rel)
	if who == nil {
		return do()
	}
	own, err := syscall.Getgroups()
	if err != nil {
		return err
	}
	groups, gid := groupsOf(int(who.Uid), int(who.Gid))
	if err := put(groups, gid, int(who.Uid)); err != nil {
		return errors.Join(fmt.Errorf("become the owner of %s: %w", filepath.Join(tree, rel), err), put(own, 0, 0))
	}
	defer back(own)
	return do()
}

// Back does something within As as who runs the program: what is only theirs to read,
// or must be theirs.
func Back(do func() error) error {
	uid, gid := os.Geteuid(), os.Getegid()
	if os.Getuid() != 0 || uid == 0 {
		return do()
	}
	groups, err := syscall.Getgroups()
	if err != nil {
		return err
	}
	if err := put(groups, 0, 0); err != nil {
		return err
	}
	defer func() {
		if err := put(groups, gid, uid); err != nil {
			panic(err) // as root nothing more is done
		}
	}()
	return do()
}

// put takes groups and effective ids, for all threads. The real ids stay, so root
// can come back.
func put(groups []int, gid, uid int) error {
	if os.Geteuid() != 0 {
		if err := syscall.Setresuid(-1, 0, -1); err != nil {
			return err
		}
	}
	if err := syscall.Setgroups(groups); err != nil {
		return err
	}
	if err := syscall.Setresgid(-1, gid, -1); err != nil {
		return err
	}
	return syscall.Setresuid(-1, uid, -1)
}

func back(groups []int) {
	if err := put(groups, 0, 0); err != nil {
		panic(err) // whoever comes next would be somebody else
	}
}

// turn is the owner of the first directory on the way from the tree to rel that is not
// root's, or of a link that somebody put in its place; nil if all are root's.
func turn(tree, rel string) *syscall.Stat_t {
	path := tree
	for _, word := range append([]string{"."}, strings.Split(filepath.Clean(rel), "/")...) {
		path = filepath.Join(path, word)
		look := os.Lstat
		if word == "." {
			look = os.Stat // the tree itself may be behind a link of root's
		}
		info, err := look(path)
		if err != nil {
			return nil
		}
		if st := info.Sys().(*syscall.Stat_t); st.Uid != 0 {
			return st
		}
		if !info.IsDir() {
			return nil
		}
	}
	return nil
}

// groupsOf are the groups of a user, and the first of them; of one that the system
// does not know that group alone.
func groupsOf(uid, gid int) (groups []int, first int) {
	u, err := user.LookupId(strconv.Itoa(uid))
	if err != nil {
		return []int{gid}, gid
	}
	if n, err := strconv.Atoi(u.Gid); err == nil {
		gid = n
	}
	groups = []int{gid}
	ids, err := u.GroupIds()
	if err != nil {
		return groups, gid
	}
	for _, id := range ids {
		if n, err := strconv.Atoi(id); err == nil {
			groups = append(groups, n)
		}
	}
	return groups, gid
}
