package cage

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
)

// Account is a user of this machine that builds run as.
type Account struct {
	Name     string
	UID, GID int
	Groups   []uint32 // all of them; schroot looks at them
}

// LookupAccount finds the user that builds run as. Root must name one: no
// build ever runs as root. Anybody else builds as themselves.
func LookupAccount(name string) (*Account, error) {
	if os.Getuid() != 0 {
		// Not user.Current, which remembers root where root has become this user.
		u, err := user.LookupId(strconv.Itoa(os.Getuid()))
		if err != nil {
			return nil, fmt.Errorf("look up own user: %w", err)
		}
		if name != "" && name != u.Username {
			return nil, fmt.Errorf("build as %s: this process runs as %s and cannot become another user: %w",
				name, u.Username, ErrSetup)
		}
		return &Account{Name: u.Username, UID: os.Getuid(), GID: os.Getgid()}, nil
	}
	if name == "" {
		return nil, fmt.Errorf("builds never run as root: name a build user (User in control/builders) or run the daemon "+
			"as one: %w", ErrSetup)
	}
	u, err := user.Lookup(name)
	if err != nil {
		return nil, fmt.Errorf("build user: %w; make it with: useradd --system --add-subids-for-system --create-home %s: %w",
			err, name, ErrSetup)
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("build user %s: %w", name, err)
	}
	if uid == 0 {
		return nil, fmt.Errorf("build user %s is root: builds never run as root: %w", name, ErrSetup)
	}
	a := &Account{Name: name, UID: uid, GID: gid, Groups: []uint32{uint32(gid)}}
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
