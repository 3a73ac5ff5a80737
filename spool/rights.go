package spool

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"packmill/internal/below"
	"packmill/internal/regular"
	"packmill/spool/statement"
)

// The accounts of the daemons, where each runs as its own user.
const (
	UserReview  = "packmill-review"
	UserMaster  = "packmill-master"
	UserBuild   = "packmill-build"
	UserArchive = "packmill-archive"
	UserMail    = "packmill-mail"   // maild; and mail to it is read by packmill mail
	UserStatus  = "packmill-status" // statusd, which looks and writes nowhere
)

// The groups that open directories to them and to people. An item is writable for
// the group whose turn it can be (see ItemGroup), and for those of it alone who reach
// it through the directories above.
const (
	GroupAll    = "packmill"        // every daemon, and every person who moves items
	GroupReview = "packmill-review" // reviewd, and reviewers
	// who takes from or refuses into accepted and rejected: reviewd, reviewers, master-buildd, archived
	GroupDesk = "packmill-desk"
	// master-buildd, buildd, and who works on the build queues; archived, which gives back refused binaries
	GroupQueue   = "packmill-queue"
	GroupPublish = "packmill-publish" // the archive queue: master-buildd, buildd, archived
	GroupStatus  = "packmill-status"  // statusd, and who else looks everywhere and changes nothing
)

// ItemGroup is the group that may write in a source, and in a job: in its directory,
// to which records are added and in which small files are replaced. The upload's
// files and every other are writable for who made them. The kernel lets nobody give
// away what another made, so an item keeps its group through all states.
func ItemGroup(job bool) string {
	if job {
		return GroupQueue
	}
	return GroupDesk
}

// Give gives a directory that was just made for an item to the group of its kind, in a
// tree whose daemons run as different users: what is made in it is the group's then.
func (t *Tree) Give(dir string, job bool) error {
	if !t.Separate() {
		return nil
	}
	gid, err := t.groupID(ItemGroup(job))
	if err != nil {
		return err
	}
	if err := os.Lchown(dir, -1, gid); err != nil {
		return fmt.Errorf("rights: %w", err)
	}
	return nil
}

// groupID is the function of that name for what daemons do with each item: a group
// that was found once is not looked up again while they run.
func (t *Tree) groupID(name string) (int, error) {
	if gid, ok := t.groups.Load(name); ok {
		return gid.(int), nil
	}
	gid, err := groupID(name)
	if err == nil {
		t.groups.Store(name, gid)
	}
	return gid, err
}

func groupID(name string) (int, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, fmt.Errorf("rights: %w; make the groups first: systemd-sysusers scripts/systemd/packmill.sysusers", err)
	}
	return strconv.Atoi(g.Gid)
}

// Members says which of the groups each account is in, beside its own. People
// are added by hand: a reviewer to GroupAll, GroupReview and GroupDesk.
var Members = []struct {
	User   string
	Groups []string
}{
	{UserReview, []string{GroupAll, GroupDesk}},
	{UserMaster, []string{GroupAll, GroupDesk, GroupQueue, GroupPublish}},
	{UserBuild, []string{GroupAll, GroupQueue, GroupPublish}},
	{UserArchive, []string{GroupAll, GroupDesk, GroupQueue, GroupPublish}},
	{UserMail, []string{GroupAll, GroupQueue, GroupPublish}},
	{UserStatus, nil}, // the others' groups write
}

// Right is the owner, group and mode of one directory of the tree, or a file.
type Right struct {
	Dir   string // below the tree
	Owner string
	Group string
	Mode  fs.FileMode // with ModeSetgid and ModeSticky
	// Shared says that what is made below takes the group over: the
	// directories of suites and architectures.
	Shared bool
	// Inner is the group of these, which writes there, where the directory itself only
	// lets Group in.
	Inner string
	// Look lets GroupStatus read, where strangers may not: by an access control list, since
	// the one group that a directory has writes there.
	Look bool
}

// Below is the right of the directories below a shared one: where the group may
// write, it may there.
func (r Right) Below() Right {
	if r.Inner != "" {
		r.Group, r.Mode = r.Inner, sharedMode
	}
	if r.Mode&0o020 != 0 {
		r.Mode = sharedMode
	}
	return r
}

// closed are directories below which only the owner of what is there writes,
// whichever group makes it.
var closed = []string{KeysDir, BaseDir}

// writable lists what others than its owner may write to in such a directory.
func (t *Tree) writable(dir string) (paths []string, err error) {
	err = filepath.WalkDir(t.Path(dir), func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // fetched anew meanwhile, or not there yet
		}
		if err != nil || !d.IsDir() && !d.Type().IsRegular() {
			return err
		}
		st, err := d.Info()
		if err == nil && st.Mode()&0o022 != 0 {
			paths = append(paths, path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	return paths, err
}

// shut takes the right to write there from others. Who could write there may
// swap a name meanwhile: nothing outside of the directory is touched.
func (t *Tree) shut(dir string) error {
	paths, err := t.writable(dir)
	if err != nil || len(paths) == 0 {
		return err
	}
	root, err := os.OpenRoot(t.Path(dir))
	if err != nil {
		return fmt.Errorf("rights: %w", err)
	}
	defer root.Close()
	var errs []error
	for _, p := range paths {
		rel, err := filepath.Rel(t.Path(dir), p)
		if err == nil {
			var st fs.FileInfo
			if st, err = root.Lstat(rel); err == nil && (st.IsDir() || st.Mode().IsRegular()) {
				err = root.Chmod(rel, st.Mode().Perm()&^0o022)
			}
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("rights: %w", err)
	}
	return nil
}

// Rights is the list of owners, groups and modes of a tree whose daemons run as
// different users. packmill init --users makes it so, and fsck checks it. In a
// tree that belongs to one user the list has no meaning.
//
// buildd, which runs what strangers wrote, reaches the queues, the archive
// queue and nothing else; uploaders see their own directories only.
func (t Table) Rights() []Right {
	out := slices.Clone(beside)
	for _, s := range t.States {
		r := s.Right
		r.Dir, r.Shared = s.root(), s.Has("SUITE")
		if !slices.ContainsFunc(out, func(o Right) bool { return o.Dir == r.Dir }) {
			out = append(out, r)
		}
	}
	return out
}

// beside are the rights of what is beside the states, or above them.
var beside = []Right{
	{Dir: ".", Owner: "root", Group: "root", Mode: 0o755},
	{Dir: "control", Owner: "root", Group: GroupAll, Mode: 0o750, Look: true},
	{Dir: "control/private", Owner: "root", Group: GroupAll, Mode: 0o710},
	{Dir: statement.SecretFile, Owner: UserReview, Group: UserReview, Mode: 0o600},
	{Dir: statement.PublicFile, Owner: "root", Group: GroupAll, Mode: 0o644},
	{Dir: formatFile, Owner: "root", Group: GroupAll, Mode: 0o644},
	{Dir: "tmp", Owner: "root", Group: GroupAll, Mode: fs.ModeSetgid | fs.ModeSticky | 0o770},
	{Dir: "journal", Owner: "root", Group: GroupAll, Mode: fs.ModeSetgid | 0o770, Look: true},
	{Dir: NamesDir, Owner: "root", Group: GroupAll, Mode: fs.ModeSetgid | 0o770, Look: true},
	{Dir: LogsDir, Owner: "root", Group: GroupAll, Mode: fs.ModeSetgid | 0o775},
	{Dir: BuildersDir, Owner: "root", Group: GroupAll, Mode: fs.ModeSetgid | 0o775},
	{Dir: "spool", Owner: "root", Group: "root", Mode: 0o755},
	{Dir: "spool/incoming", Owner: UserReview, Group: GroupReview, Mode: fs.ModeSticky | 0o773},
	{Dir: filepath.Dir(LettersDir), Owner: "root", Group: GroupAll, Mode: 0o750},
	// All of that group add letters, and read only their own.
	{Dir: LettersDir, Owner: UserMail, Group: UserMail, Mode: fs.ModeSetgid | fs.ModeSticky | 0o777},
	// reviewd forgets, and sweeps.
	{Dir: RemovedDir, Owner: UserReview, Group: GroupAll, Mode: fs.ModeSetgid | fs.ModeSticky | 0o770},
	{Dir: YesDir, Owner: UserReview, Group: GroupReview, Mode: fs.ModeSticky | 0o770},
	{Dir: "archive", Owner: UserArchive, Group: UserArchive, Mode: 0o755},
	{Dir: "archive/pool", Owner: UserArchive, Group: UserArchive, Mode: 0o755},
	{Dir: "archive/dists", Owner: UserArchive, Group: UserArchive, Mode: 0o755},
	{Dir: KeysDir, Owner: UserArchive, Group: UserArchive, Mode: 0o755},
	{Dir: filepath.Dir(BaseDir), Owner: UserArchive, Group: GroupAll, Mode: 0o750},
	{Dir: BaseDir, Owner: UserMaster, Group: UserMaster, Mode: 0o755},
}

// ids resolves the names of a Right.
func (r Right) ids() (uid, gid int, err error) {
	u, err := user.Lookup(r.Owner)
	if err != nil {
		return 0, 0, fmt.Errorf("rights: %w; make the accounts first: systemd-sysusers scripts/systemd/packmill.sysusers",
			err)
	}
	if uid, err = strconv.Atoi(u.Uid); err != nil {
		return 0, 0, err
	}
	gid, err = groupID(r.Group)
	return uid, gid, err
}

// SetRights gives the tree to the daemons' accounts: every directory of the
// list, the directories of suites and architectures below the shared ones, and
// the items. A tree that was restored where the accounts have other numbers is given
// to them first. It must be called by root, and may be called again at any time.
func (t *Tree) SetRights() error {
	gids, err := itemGroups()
	if err != nil {
		return err
	}
	if err := t.reown(); err != nil {
		return err
	}
	for _, r := range t.Rights() {
		if err := t.setRight(r); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for _, dir := range closed {
		if err := t.shut(dir); err != nil {
			return err
		}
	}
	if err := t.giveDrops(); err != nil {
		return err
	}
	places, err := t.Places()
	if err != nil {
		return err
	}
	for _, p := range places {
		if !p.State.shared() {
			continue
		}
		names, err := t.List(p)
		if err != nil {
			return err
		}
		for _, name := range names {
			n, err := ParseName(name)
			if err != nil {
				continue // fsck says it
			}
			f := Found{p, n}
			if err := giveItem(t.Path(f.Dir()), f.IsJob(), gids); err != nil {
				return err
			}
		}
	}
	return t.recordAccounts()
}

// itemGroups are the groups of sources and of jobs.
func itemGroups() (map[bool]int, error) {
	gids := map[bool]int{}
	for _, job := range []bool{false, true} {
		gid, err := groupID(ItemGroup(job))
		if err != nil {
			return nil, err
		}
		gids[job] = gid
	}
	return gids, nil
}

func (t *Tree) setRight(r Right) error {
	dirs, err := t.shared(r)
	if err != nil {
		return err
	}
	for i, d := range append([]string{r.Dir}, dirs...) {
		if i == 1 {
			r = r.Below()
		}
		if err := r.set(t.Root(), d); err != nil {
			return fmt.Errorf("rights: %w", err)
		}
	}
	return nil
}

// set gives one directory, or file, what the right says. Some lie below directories of
// accounts, which may put a link in the way, to something of root's in the tree too: none
// is followed (os.Root follows those that stay in it, whatever O_NOFOLLOW says).
func (r Right) set(root, rel string) error {
	uid, gid, err := r.ids()
	if err != nil {
		return err
	}
	above, err := below.Open(root, filepath.Dir(rel))
	if err != nil {
		return err
	}
	defer above.Close()
	fd, err := unix.Openat(above.FD(), filepath.Base(rel), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: filepath.Join(root, rel), Err: err}
	}
	f := os.NewFile(uintptr(fd), rel)
	defer f.Close()
	return errors.Join(f.Chown(uid, gid), f.Chmod(r.Mode), letLook(f, r))
}

// share gives a directory that was just made, below one that only lets people in, to
// the group that writes there. Only its owner can.
func (t *Tree) share(p Place) error {
	group := p.State.Right.Inner
	if group == "" || !t.Separate() {
		return nil
	}
	var st unix.Stat_t
	gid, err := t.groupID(group)
	if err != nil || unix.Stat(t.Path(p.Dir()), &st) != nil || int(st.Gid) == gid || int(st.Uid) != os.Geteuid() {
		return err
	}
	return os.Lchown(t.Path(p.Dir()), -1, gid)
}

// giveDrops gives the directories of sftp accounts that an older uploader add made,
// reviewd's and of the account's group, to the accounts: who owns one is whom
// uploads are from.
func (t *Tree) giveDrops() error {
	review, err := user.Lookup(UserReview)
	if err != nil {
		return err
	}
	group, err := user.LookupGroup(GroupReview)
	if err != nil {
		return err
	}
	gid, err := strconv.Atoi(group.Gid)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(t.Path("spool/incoming"))
	if err != nil {
		return err
	}
	defer root.Close()
	entries, err := os.ReadDir(root.Name())
	if err != nil {
		return err
	}
	for _, e := range entries {
		u, uerr := user.Lookup(e.Name())
		st, err := root.Lstat(e.Name())
		if err != nil || uerr != nil || !st.IsDir() {
			continue
		}
		sys := st.Sys().(*syscall.Stat_t)
		if strconv.FormatUint(uint64(sys.Uid), 10) != review.Uid || strconv.FormatUint(uint64(sys.Gid), 10) != u.Gid {
			continue
		}
		uid, err := strconv.Atoi(u.Uid)
		if err != nil {
			return err
		}
		if err := root.Lchown(e.Name(), uid, gid); err != nil {
			return fmt.Errorf("rights: %w", err)
		}
		if err := root.Chmod(e.Name(), fs.ModeSetgid|0o770); err != nil {
			return fmt.Errorf("rights: %w", err)
		}
	}
	return nil
}

// sharedMode is the mode of items, and of the directories below a shared one.
const sharedMode = fs.ModeSetgid | 0o775

// shared lists the directories below a shared one that lead to states, and are
// states.
func (t *Tree) shared(r Right) ([]string, error) {
	if !r.Shared {
		return nil, nil
	}
	places, err := t.Places()
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, p := range places {
		for d := p.Dir(); strings.HasPrefix(d, r.Dir+"/"); d = filepath.Dir(d) {
			if !slices.Contains(dirs, d) {
				dirs = append(dirs, d)
			}
		}
	}
	return dirs, nil
}

// records are the files of an item that several accounts add lines to. Every other is
// made anew when it changes.
var records = []string{HistoryFile, triesFile, "opinions", "told", "builds", "birth"}

// giveItem makes an item its kind's group's. Its owner stays who made it: that is a
// fact that others decide by (see MadeBy). So what was made as a job, in which the
// queues' group writes, becomes no source by a name that somebody gave it.
func giveItem(dir string, job bool, gids map[bool]int) error {
	// The group may swap a name meanwhile: nothing outside of the item is touched.
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("rights: %w", err)
	}
	defer root.Close()
	st, err := root.Lstat(".")
	if err != nil {
		return fmt.Errorf("rights: %w", err)
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); !job && ok && int(sys.Gid) == gids[true] {
		return nil // archived refuses it, and says so
	}
	gid := gids[job]
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if err := root.Lchown(rel, -1, gid); err != nil {
			return fmt.Errorf("rights: %w", err)
		}
		if d.IsDir() {
			return root.Chmod(rel, sharedMode)
		}
		if d.Type().IsRegular() {
			mode := fs.FileMode(0o644)
			if slices.Contains(records, rel) {
				mode = 0o664
			}
			return root.Chmod(rel, mode)
		}
		return nil
	})
}

// Separate reports whether the tree's daemons run as different users: tmp
// belongs to GroupAll. Which group a number is is looked up once, and a tree that
// is given to GroupAll has another number from then on.
func (t *Tree) Separate() bool {
	var st unix.Stat_t
	if unix.Stat(t.Path("tmp"), &st) != nil {
		return false
	}
	if is, ok := t.groupAll.Load(st.Gid); ok {
		return is.(bool)
	}
	g, err := user.LookupGroup(GroupAll)
	is := err == nil && g.Gid == strconv.FormatUint(uint64(st.Gid), 10)
	if err == nil || errors.As(err, new(user.UnknownGroupError)) {
		t.groupAll.Store(st.Gid, is)
	}
	return is
}

// MadeBy reports whether one of the accounts, or root, made the item as what it is: its
// directory is theirs, and of its kind's group. (A job's directory is master-buildd's too,
// but who may write in it can put a source's files there.) In a tree of one user
// everything is made by that one, and the answer is yes.
func (it *Item) MadeBy(users ...string) (bool, error) {
	if !it.tree.Separate() {
		return true, nil
	}
	gid, err := it.tree.groupID(ItemGroup(Found{it.Place, it.Name}.IsJob()))
	if err != nil {
		return false, err
	}
	st, err := it.lock.Stat()
	if err != nil {
		return false, err
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); !ok || int(sys.Gid) != gid {
		return false, nil
	}
	return isOf(st, users)
}

// ReadBy reads a small file of the item if one of the accounts, or root, made it, as
// MadeBy reports of the item itself; of any other it says fs.ErrNotExist.
func (it *Item) ReadBy(name string, users ...string) ([]byte, error) {
	f, err := regular.Open(it.At(name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if it.tree.Separate() {
		st, err := f.Stat()
		if err != nil {
			return nil, err
		}
		if ours, err := isOf(st, users); err != nil {
			return nil, err
		} else if !ours {
			return nil, &fs.PathError{Op: "trust", Path: it.Path(name), Err: fs.ErrNotExist}
		}
	}
	return io.ReadAll(io.LimitReader(f, maxSmall))
}

// isOf reports whether something belongs to one of the accounts, or to root.
func isOf(st fs.FileInfo, users []string) (bool, error) {
	sys, ok := st.Sys().(*syscall.Stat_t)
	for _, name := range append(users, "root") {
		u, err := user.Lookup(name)
		if err != nil {
			return false, err
		}
		if ok && u.Uid == strconv.FormatUint(uint64(sys.Uid), 10) {
			return true, nil
		}
	}
	return false, nil
}

// WrongRight is the kind of Finding for a directory that does not fit Rights.
const WrongRight Kind = "wrong right"

// rights compares the directories with the list, in a tree to which it
// applies. The owner of a directory below a shared one is whoever made it first.
func (c *checker) rights() error {
	list, err := c.tree.readAccounts()
	if err != nil {
		return err
	}
	if way := moved(list); !way.none() {
		c.report(Finding{
			WrongRight, AccountsFile,
			fmt.Sprintf("%d accounts and groups have other numbers here than where the tree was made",
				len(way.users)+len(way.groups)),
			"packmill init --users gives the files to this machine's", c.tree.SetRights,
		})
		return nil // every file would be a finding of its own
	}
	if !c.separate {
		return nil
	}
	for _, r := range c.tree.Rights() {
		uid, gid, err := r.ids()
		if err != nil {
			c.report(Finding{WrongRight, r.Dir, err.Error(), "make the accounts", nil})
			continue
		}
		mend := func() error { return c.tree.setRight(r) }
		if !c.fits(r.Dir, uid, gid, r.Mode) {
			c.report(Finding{WrongRight, r.Dir, fmt.Sprintf("it must be %s, of %s and group %s", r.Mode, r.Owner, r.Group),
				"packmill init --users makes it so", mend})
		} else if c.tree.lacksLook(r.Dir, r) {
			c.report(Finding{WrongRight, r.Dir, fmt.Sprintf("the group %s, which may read it (getfacl), cannot", GroupStatus),
				"packmill init --users makes it so", mend})
		}
		dirs, err := c.tree.shared(r)
		if err != nil {
			return err
		}
		if len(dirs) == 0 {
			continue
		}
		in := r.Below()
		if _, gid, err = in.ids(); err != nil {
			return err
		}
		for _, d := range dirs {
			if !c.fits(d, -1, gid, in.Mode) {
				c.report(Finding{WrongRight, d, fmt.Sprintf("it must be %s, of group %s", in.Mode, in.Group),
					"packmill init --users makes it so", mend})
			}
		}
	}
	return c.shut()
}

// shut looks into the directories that nobody but their owners may write in.
func (c *checker) shut() error {
	for _, dir := range closed {
		paths, err := c.tree.writable(dir)
		if err != nil {
			return err
		}
		if len(paths) > 0 {
			c.report(Finding{WrongRight, dir,
				fmt.Sprintf("others than the owner may write to %d files and directories in it, as %s",
					len(paths), filepath.Base(paths[0])),
				"packmill init --users takes that away", func() error { return c.tree.shut(dir) }})
		}
	}
	return nil
}

// fits reports whether a directory has that owner (-1: any), group and mode. One
// that is missing is not wrong.
func (c *checker) fits(rel string, uid, gid int, mode fs.FileMode) bool {
	st, err := os.Lstat(c.tree.Path(rel))
	if err != nil {
		return true
	}
	sys := st.Sys().(*syscall.Stat_t)
	return (uid < 0 || int(sys.Uid) == uid) && int(sys.Gid) == gid &&
		st.Mode()&(fs.ModePerm|fs.ModeSetgid|fs.ModeSticky) == mode
}

// mine checks whose an item is: in a tree of several users its kind's group's, and
// otherwise the tree's owner's.
func (c *checker) mine(f Found, uid uint32) {
	rel := f.Dir()
	dir := c.tree.Path(rel)
	switch group := c.groups[f.IsJob()]; {
	case c.separate && !c.fits(rel, -1, group, sharedMode):
		c.report(Finding{WrongRight, rel, fmt.Sprintf("it must be %s, of group %s: who else could write in it is not who may",
			sharedMode, ItemGroup(f.IsJob())),
			"it is made so (by root, or its owner)", func() error { return giveItem(dir, f.IsJob(), c.groups) }})
	case !c.separate && uid != c.tree.id.Uid:
		c.report(Finding{WrongRight, rel,
			fmt.Sprintf("it belongs to the user %d, and the tree to %d, who may not be able to move it", uid, c.tree.id.Uid),
			"it is given to the tree's owner (only root can)", func() error {
				return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
					return errors.Join(err, os.Lchown(path, int(c.tree.id.Uid), int(c.tree.id.Gid)))
				})
			}})
	}
}
