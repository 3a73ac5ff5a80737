package runner

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// account is a user of this machine that builds run as.
type account struct {
	Name     string
	UID, GID int
	Groups   []uint32 // all of them; schroot looks at them
}

// lookupAccount finds the user that builds run as. Root must name one: no
// build ever runs as root. Anybody else builds as themselves.
func lookupAccount(name string) (*account, error) {
	if os.Getuid() != 0 {
		u, err := user.Current()
		if err != nil {
			return nil, fmt.Errorf("look up own user: %w", err)
		}
		if name != "" && name != u.Username {
			return nil, fmt.Errorf("build as %s: this process runs as %s and cannot become another user: %w", name, u.Username, ErrSetup)
		}
		return &account{Name: u.Username, UID: os.Getuid(), GID: os.Getgid()}, nil
	}
	if name == "" {
		return nil, fmt.Errorf("builds never run as root: name a build user (User in control/builders) or run the daemon as one: %w", ErrSetup)
	}
	u, err := user.Lookup(name)
	if err != nil {
		return nil, fmt.Errorf("build user: %w; make it with: useradd --system --add-subids-for-system --create-home %s: %w", err, name, ErrSetup)
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("build user %s: %w", name, err)
	}
	if uid == 0 {
		return nil, fmt.Errorf("build user %s is root: builds never run as root: %w", name, ErrSetup)
	}
	a := &account{Name: name, UID: uid, GID: gid, Groups: []uint32{uint32(gid)}}
	groups, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("build user %s: %w", name, err)
	}
	for _, g := range groups {
		// A build user in root's group is a mistake of somebody's.
		if n, err := strconv.ParseUint(g, 10, 32); err == nil && n != 0 && !slices.Contains(a.Groups, uint32(n)) {
			a.Groups = append(a.Groups, uint32(n))
		}
	}
	return a, nil
}

// idmap maps a user namespace: its root is the account, and its users and
// groups from 1 on are the account's subordinate ones (subuid(5)).
type idmap struct {
	UID, GID       int
	SubUID, SubGID int // first subordinate
	Count          int // how many
}

// subordinates reads the ranges of /etc/subuid and /etc/subgid.
func (a *account) subordinates() (*idmap, error) {
	su, nu, err := subrange("/etc/subuid", a.Name, a.UID)
	if err != nil {
		return nil, err
	}
	sg, ng, err := subrange("/etc/subgid", a.Name, a.UID)
	if err != nil {
		return nil, err
	}
	return &idmap{a.UID, a.GID, su, sg, min(nu, ng)}, nil
}

// subrange returns the first range of at least 65536 ids, what a Debian
// system needs (Policy 9.2.2), that the file gives the user.
func subrange(file, name string, uid int) (start, count int, err error) {
	f, err := os.Open(file)
	if err == nil {
		defer f.Close()
		s := bufio.NewScanner(f)
		for s.Scan() {
			p := strings.Split(strings.TrimSpace(s.Text()), ":")
			if len(p) != 3 || p[0] != name && p[0] != strconv.Itoa(uid) {
				continue
			}
			first, err1 := strconv.Atoi(p[1])
			n, err2 := strconv.Atoi(p[2])
			if err1 == nil && err2 == nil && first > 0 && n >= 65535 {
				return first, min(n, 65536), nil
			}
		}
	}
	return 0, 0, fmt.Errorf("%s gives user %s no range of 65536 ids; add one with: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 %s (or another free range): %w", file, name, name, ErrSetup)
}

// mapUsers prepares the user namespace. Root writes the maps itself. For
// anybody else newuidmap does after the birth (see mapLater); until then the
// helper is nobody there and would lose its capabilities when it is executed,
// so it gets them as ambient ones.
func (o *order) mapUsers(attr *syscall.SysProcAttr) {
	m := o.Roots
	if m == nil {
		return
	}
	if os.Getuid() != 0 {
		last := number("/proc/sys/kernel/cap_last_cap")
		for c := int64(0); c <= last; c++ {
			attr.AmbientCaps = append(attr.AmbientCaps, uintptr(c))
		}
		return
	}
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: m.UID, Size: 1}, {ContainerID: 1, HostID: m.SubUID, Size: m.Count}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: m.GID, Size: 1}, {ContainerID: 1, HostID: m.SubGID, Size: m.Count}}
	attr.GidMappingsEnableSetgroups = true
	attr.Credential = &syscall.Credential{Uid: 0, Gid: 0}
}

// mapLater returns what has to be done after the birth of a helper whose
// maps could not be written before: nil for root.
func (m *idmap) mapLater() func(pid int) error {
	if m == nil || os.Getuid() == 0 {
		return nil
	}
	return func(pid int) error {
		for program, c := range map[string][2]int{"newuidmap": {m.UID, m.SubUID}, "newgidmap": {m.GID, m.SubGID}} {
			out, err := exec.Command(program, strconv.Itoa(pid), "0", strconv.Itoa(c[0]), "1", "1", strconv.Itoa(c[1]), strconv.Itoa(m.Count)).CombinedOutput()
			if errors.Is(err, exec.ErrNotFound) {
				return fmt.Errorf("%s is missing; install uidmap: %w", program, ErrSetup)
			}
			if err != nil {
				return fmt.Errorf("%s: %s: %w", program, strings.TrimSpace(string(out)), err)
			}
		}
		return nil
	}
}
