package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"packmill/internal/durable"
)

// AccountsFile has the numbers of the accounts and groups that the tree's files belong to, in
// lines such as "user packmill-review 990". The kernel keeps numbers alone, and on another
// machine, where a backup is restored, others have them.
const AccountsFile = "control/accounts"

// account is one line of the file.
type account struct {
	kind, name string // kind is user or group
	id         int
}

// accounts are those of this machine to whom files of the tree belong: the daemons', and whose
// directories lie in spool/incoming, with their groups.
func (t *Tree) accounts() ([]account, error) {
	names := []string{}
	for _, m := range Members {
		names = append(names, m.User)
	}
	drops, err := os.ReadDir(t.Path("spool/incoming"))
	if err != nil {
		return nil, err
	}
	for _, d := range drops {
		if d.IsDir() && !slices.Contains(names, d.Name()) {
			names = append(names, d.Name())
		}
	}
	var list []account
	for _, name := range names {
		if u, err := user.Lookup(name); err == nil {
			id, err := strconv.Atoi(u.Uid)
			if err != nil {
				return nil, err
			}
			list = append(list, account{"user", name, id})
		}
	}
	for _, name := range append([]string{GroupAll, GroupReview, GroupDesk, GroupQueue, GroupPublish}, names...) {
		if id, err := groupID(name); err == nil && !slices.Contains(list, account{"group", name, id}) {
			list = append(list, account{"group", name, id})
		}
	}
	return list, nil
}

// recordAccounts writes the file as the machine has them.
func (t *Tree) recordAccounts() error {
	list, err := t.accounts()
	if err != nil {
		return err
	}
	text := "# Made by packmill init --users: whose the tree's files are, should it be restored where the numbers are others.\n"
	for _, a := range list {
		text += fmt.Sprintf("%s %s %d\n", a.kind, a.name, a.id)
	}
	if old, err := os.ReadFile(t.Path(AccountsFile)); err == nil && string(old) == text {
		return nil
	}
	return durable.WriteFile(t.Path(AccountsFile), []byte(text), 0o644)
}

// moved are the numbers of the tree's users and groups that belong to others here, or to
// nobody, and what they are here. Whom this machine does not know becomes root: a
// number that is free today may be a stranger's tomorrow. Both are empty on the
// machine that the tree was made on.
func (t *Tree) moved() (uids, gids map[int]int, err error) {
	data, err := os.ReadFile(t.Path(AccountsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	list, err := t.accounts()
	if err != nil {
		return nil, nil, err
	}
	ids := map[string]map[int]int{"user": {}, "group": {}}
	elsewhere := false // who is merely gone, as a removed uploader, moves nothing
	for i, line := range strings.Split(strings.TrimSuffix(string(data), "\n"), "\n") {
		if strings.HasPrefix(line, "#") {
			continue
		}
		var was account
		if n, err := fmt.Sscanf(line, "%s %s %d", &was.kind, &was.name, &was.id); n != 3 || ids[was.kind] == nil || was.id <= 0 {
			return nil, nil, fmt.Errorf("%s:%d: %q is not \"user NAME NUMBER\" or \"group NAME NUMBER\" (%v)",
				t.Path(AccountsFile), i+1, line, err)
		}
		now := 0
		for _, a := range list {
			if a.kind == was.kind && a.name == was.name {
				now = a.id
				elsewhere = elsewhere || now != was.id
			}
		}
		if now != was.id {
			ids[was.kind][was.id] = now
		}
	}
	if !elsewhere {
		return nil, nil, nil
	}
	return ids["user"], ids["group"], nil
}

// reown gives every file of a tree that was restored from another machine to the accounts
// whose it was there. Each changes hands once, so that two accounts may have swapped their numbers.
func (t *Tree) reown() error {
	uids, gids, err := t.moved()
	if err != nil || len(uids)+len(gids) == 0 {
		return err
	}
	root, err := os.OpenRoot(t.Root())
	if err != nil {
		return err
	}
	defer root.Close()
	seen := map[uint64]bool{} // jobs share their sources' files
	return fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := root.Lstat(path)
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		uid, newUser := uids[int(st.Uid)]
		gid, newGroup := gids[int(st.Gid)]
		if !newUser && !newGroup || seen[st.Ino] {
			return nil
		}
		if !newUser {
			uid = -1
		}
		if !newGroup {
			gid = -1
		}
		seen[st.Ino] = st.Nlink > 1 && !d.IsDir()
		if err := root.Lchown(path, uid, gid); err != nil {
			return fmt.Errorf("rights: %w", err)
		}
		return nil
	})
}
