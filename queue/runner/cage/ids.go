package cage

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"packmill/internal/durable"

	"golang.org/x/sys/unix"
)

// Range is what one build has at a time of the subordinate ids of the build
// user (subuid(5)): Count users from UID on and Count groups from GID on. The
// first of them is root in the build.
type Range struct {
	UID, GID int
}

// Count is how many ids a build has, what a Debian system needs (Policy
// 9.2.2).
const Count = 65536

// Name is different for each range of an account.
func (r Range) Name() string { return strconv.Itoa(r.UID) }

// Ranges cuts the account's subordinate ids of /etc/subuid and /etc/subgid
// into ranges: there can be as many builds at a time. There is at least one.
func (a *Account) Ranges() ([]Range, error) {
	users, err := subids("/etc/subuid", a)
	if err != nil {
		return nil, err
	}
	groups, err := subids("/etc/subgid", a)
	if err != nil {
		return nil, err
	}
	var all []Range
	for i := range min(len(users), len(groups)) {
		all = append(all, Range{users[i], groups[i]})
	}
	return all, nil
}

// subids returns the first ids of the ranges that the file gives the account.
func subids(file string, a *Account) (all []int, err error) {
	f, err := os.Open(file)
	if err == nil {
		defer f.Close()
		s := bufio.NewScanner(f)
		for s.Scan() {
			p := strings.Split(strings.TrimSpace(s.Text()), ":")
			if len(p) != 3 || p[0] != a.Name && p[0] != strconv.Itoa(a.UID) {
				continue
			}
			first, err1 := strconv.Atoi(p[1])
			n, err2 := strconv.Atoi(p[2])
			for err1 == nil && err2 == nil && first > 0 && n >= Count {
				all = append(all, first)
				first, n = first+Count, n-Count
			}
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s gives user %s no range of 65536 ids; add one with: "+
			"usermod --add-subuids 100000-165535 --add-subgids 100000-165535 %s (or another free range; "+
			"65536 more for each further build at a time): %w", file, a.Name, a.Name, ErrSetup)
	}
	return all, nil
}

// rangesDir is where the locks of an account's ranges lie, for all trees and
// daemons of the machine. Everybody has this directory, also in a unit of
// systemd that sees a /tmp of its own.
func rangesDir(a *Account) string { return fmt.Sprintf("/dev/shm/packmill-ids.%d", a.UID) }

// Take waits for a range of the account that no build has, and calls busy, if
// not nil, before it waits. The range is taken as long as the file is open
// anywhere.
func (a *Account) Take(ctx context.Context, busy func(ranges int)) (Range, *os.File, error) {
	ranges, err := a.Ranges()
	if err != nil {
		return Range{}, nil, err
	}
	dir, err := a.openRanges()
	if err != nil {
		return Range{}, nil, err
	}
	defer dir.Close()
	for {
		for _, r := range ranges {
			lock, err := lockRange(dir, r, a)
			if err == nil {
				return r, lock, nil
			}
			if !errors.Is(err, durable.ErrLocked) {
				return Range{}, nil, fmt.Errorf("lock subordinate ids in %s: %w", rangesDir(a), err)
			}
		}
		if busy != nil {
			busy(len(ranges))
			busy = nil
		}
		select {
		case <-ctx.Done():
			return Range{}, nil, context.Cause(ctx)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// openRanges opens the directory of the locks, which only the account and root
// may write to.
func (a *Account) openRanges() (*os.Root, error) {
	name := rangesDir(a)
	if err := os.Mkdir(name, 0o700); err == nil {
		os.Lchown(name, a.UID, a.GID)
	} else if !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("locks of subordinate ids: %w: %w", err, ErrSetup)
	}
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err != nil {
		return nil, fmt.Errorf("locks of subordinate ids: %s: %w", name, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || st.Mode&0o022 != 0 || int(st.Uid) != a.UID && st.Uid != 0 {
		return nil, fmt.Errorf("locks of subordinate ids: %s is not a directory of %s alone; remove it: %w",
			name, a.Name, ErrSetup)
	}
	return os.OpenRoot(name)
}

func lockRange(dir *os.Root, r Range, a *Account) (*os.File, error) {
	f, err := dir.OpenFile(r.Name(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if os.Getuid() == 0 {
		f.Chown(a.UID, a.GID)
	}
	if err := durable.LockFile(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Inside prepares a process in a user namespace of its own whose ids from 0 on
// are those of the range: it has no other, and no right over any other
// namespace.
func (r Range) Inside(uid int) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Setsid:                     true,
		Cloneflags:                 unix.CLONE_NEWUSER,
		UidMappings:                []syscall.SysProcIDMap{{ContainerID: 0, HostID: r.UID, Size: Count}},
		GidMappings:                []syscall.SysProcIDMap{{ContainerID: 0, HostID: r.GID, Size: Count}},
		GidMappingsEnableSetgroups: true,
		// As initgroups(3) does: a login without any supplementary group is not known to programs.
		Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid), Groups: []uint32{uint32(uid)}},
	}
}

// mapUsers prepares the warden's user namespace, in which the account and its
// ranges have the numbers that they have outside. Root writes the maps itself.
// For anybody else newuidmap does after the birth (see mapLater); until then the
// warden is nobody there and would lose its capabilities when it is executed.
// Here as there it keeps them as ambient ones.
func (o *Order) mapUsers(attr *syscall.SysProcAttr) {
	attr.AmbientCaps = allCaps()
	if os.Getuid() != 0 {
		return
	}
	a := o.User
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: a.UID, HostID: a.UID, Size: 1}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: a.GID, HostID: a.GID, Size: 1}}
	for _, r := range o.Ranges {
		attr.UidMappings = append(attr.UidMappings, syscall.SysProcIDMap{ContainerID: r.UID, HostID: r.UID, Size: Count})
		attr.GidMappings = append(attr.GidMappings, syscall.SysProcIDMap{ContainerID: r.GID, HostID: r.GID, Size: Count})
	}
	attr.GidMappingsEnableSetgroups = true
	attr.Credential = &syscall.Credential{Uid: uint32(a.UID), Gid: uint32(a.GID)}
}

// allCaps are the capabilities that this kernel has.
func allCaps() (caps []uintptr) {
	for c := int64(0); c <= number("/proc/sys/kernel/cap_last_cap"); c++ {
		caps = append(caps, uintptr(c))
	}
	return caps
}

// mapLater maps the warden's ids where that could not be done at its birth.
func (o *Order) mapLater(pid int) error {
	if len(o.Ranges) == 0 || os.Getuid() == 0 {
		return nil
	}
	users := []string{strconv.Itoa(pid), strconv.Itoa(o.User.UID), strconv.Itoa(o.User.UID), "1"}
	groups := []string{strconv.Itoa(pid), strconv.Itoa(o.User.GID), strconv.Itoa(o.User.GID), "1"}
	for _, r := range o.Ranges {
		users = append(users, strconv.Itoa(r.UID), strconv.Itoa(r.UID), strconv.Itoa(Count))
		groups = append(groups, strconv.Itoa(r.GID), strconv.Itoa(r.GID), strconv.Itoa(Count))
	}
	for program, args := range map[string][]string{"newuidmap": users, "newgidmap": groups} {
		out, err := exec.Command(program, args...).CombinedOutput()
		if errors.Is(err, exec.ErrNotFound) {
			return fmt.Errorf("%s is missing; install uidmap: %w", program, ErrSetup)
		}
		if err != nil {
			return fmt.Errorf("%s: %s: %w", program, strings.TrimSpace(string(out)), err)
		}
	}
	return nil
}

// subidFiles are the account's lines of /etc/subuid and /etc/subgid with the
// order's ranges alone, for programs that make namespaces of their own.
func (o *Order) subidFiles() map[string][]byte {
	files := map[string][]byte{}
	for _, r := range o.Ranges {
		files["subuid"] = fmt.Appendf(files["subuid"], "%s:%d:%d\n", o.User.Name, r.UID, Count)
		files["subgid"] = fmt.Appendf(files["subgid"], "%s:%d:%d\n", o.User.Name, r.GID, Count)
	}
	return files
}
