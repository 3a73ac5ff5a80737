package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
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
		if u, err := user.Lookup(d.Name()); err == nil && !slices.Contains(names, d.Name()) && t.dropOf(u) {
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

// dropOf reports whether a directory in spool/incoming is the account's of its name. Anybody
// can make one there with any name.
func (t *Tree) dropOf(u *user.User) bool {
	info, err := os.Lstat(t.Path("spool/incoming", u.Username))
	if err != nil || !info.IsDir() || u.Uid == "0" {
		return false
	}
	return strconv.FormatUint(uint64(info.Sys().(*syscall.Stat_t).Uid), 10) == u.Uid
}

// RecordAccounts brings the file up to the machine after an account came or went. In a tree of one user, which has no
// such file, and in one that was restored and not given to its accounts here yet, it changes nothing: the old numbers
// say whose the files are.
func (t *Tree) RecordAccounts() error {
	list, err := t.readAccounts()
	if err != nil || len(list) == 0 {
		return err
	}
	for _, a := range list {
		if id := a.here(); id != 0 && id != a.id {
			return nil
		}
	}
	return t.recordAccounts()
}

// recordAccounts writes the file as the machine has them.
func (t *Tree) recordAccounts() error {
	list, err := t.accounts()
	if err != nil {
		return err
	}
	return t.writeAccounts(list)
}

func (t *Tree) writeAccounts(list []account) error {
	text := "# Made by packmill init --users: whose the tree's files are, " +
		"should it be restored where the numbers are others.\n"
	for _, a := range list {
		text += fmt.Sprintf("%s %s %d\n", a.kind, a.name, a.id)
	}
	if old, err := os.ReadFile(t.Path(AccountsFile)); err == nil && string(old) == text {
		return nil
	}
	return durable.WriteFile(t.Path(AccountsFile), []byte(text), 0o644)
}

// readAccounts reads the file; a tree that has none has an empty list.
func (t *Tree) readAccounts() (list []account, err error) {
	data, err := os.ReadFile(t.Path(AccountsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for i, line := range strings.Split(strings.TrimSuffix(string(data), "\n"), "\n") {
		if strings.HasPrefix(line, "#") {
			continue
		}
		var a account
		n, err := fmt.Sscanf(line, "%s %s %d", &a.kind, &a.name, &a.id)
		if n != 3 || a.kind != "user" && a.kind != "group" || a.id <= 0 {
			return nil, fmt.Errorf("%s:%d: %q is not \"user NAME NUMBER\" or \"group NAME NUMBER\" (%v)",
				t.Path(AccountsFile), i+1, line, err)
		}
		list = append(list, a)
	}
	return list, nil
}

// here is the number that an account or group has on this machine, 0 if there is none.
func (a account) here() int {
	if a.kind == "group" {
		id, _ := groupID(a.name)
		return id
	}
	u, err := user.Lookup(a.name)
	if err != nil {
		return 0
	}
	id, _ := strconv.Atoi(u.Uid)
	return id
}

// numbers are what numbers of users and of groups become.
type numbers struct{ users, groups map[int]int }

func (n *numbers) of(kind string) map[int]int {
	if kind == "user" {
		return n.users
	}
	return n.groups
}

func (n *numbers) none() bool { return len(n.users)+len(n.groups) == 0 }

// moved are the numbers of those in the list that belong to others here, or to
// nobody, and what they are here. Whom this machine does not know becomes root: a
// number that is free today may be a stranger's tomorrow. On the machine that the tree
// was made on there are none: who is merely gone, as a removed uploader, moves nothing.
func moved(list []account) numbers {
	m, elsewhere := numbers{map[int]int{}, map[int]int{}}, false
	for _, a := range list {
		if now := a.here(); now != a.id {
			m.of(a.kind)[a.id] = now
			elsewhere = elsewhere || now != 0
		}
	}
	if !elsewhere {
		return numbers{}
	}
	return m
}

// firstSpare is where numbers are looked for that are nobody's: Debian Policy section
// 9.2.2 keeps them for allocations that no machine makes by itself.
const firstSpare = 60000

// spares are numbers that are nobody's for those that one has there and another here.
func spares(ids map[int]int, nobody func(id int) bool) map[int]int {
	taken := slices.Collect(maps.Values(ids))
	out, next := map[int]int{}, firstSpare
	for _, was := range slices.Sorted(maps.Keys(ids)) {
		if !slices.Contains(taken, was) {
			continue
		}
		for _, used := ids[next]; used || !nobody(next) || slices.Contains(taken, next); _, used = ids[next] {
			next++
		}
		out[was] = next
		next++
	}
	return out
}

// reown gives every file of a tree that was restored from another machine to the accounts
// whose it was there. Two that have swapped their numbers go by way of spare ones, which are
// noted before the rest is done: a run that was cut off goes on where it was.
func (t *Tree) reown() error {
	list, err := t.readAccounts()
	if err != nil {
		return err
	}
	way := moved(list)
	if way.none() {
		return nil
	}
	by := numbers{
		spares(way.users, func(id int) bool { _, err := user.LookupId(strconv.Itoa(id)); return err != nil }),
		spares(way.groups, func(id int) bool { _, err := user.LookupGroupId(strconv.Itoa(id)); return err != nil }),
	}
	if by.none() {
		return t.renumber(way)
	}
	if err := t.renumber(by); err != nil {
		return err
	}
	for i, a := range list {
		if spare, ok := by.of(a.kind)[a.id]; ok {
			list[i].id = spare
		}
	}
	if err := t.writeAccounts(list); err != nil {
		return err
	}
	return t.renumber(moved(list))
}

// renumber changes the owners and groups of all files of the tree.
func (t *Tree) renumber(n numbers) error {
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
		uid, newUser := n.users[int(st.Uid)]
		gid, newGroup := n.groups[int(st.Gid)]
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
