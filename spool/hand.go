package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"packmill/internal/durable"
)

// ArchField is the ticket's field that makes an item a job: the architecture that
// it is for. What an item is stands in its ticket; its name and its directory a
// person may have changed.
const ArchField = "Build-Architecture"

// adopt gives a job that a person's mv brought to where jobs of several
// architectures meet the name that it has there, which ends in its architecture.
func (it *Item) adopt() error {
	if it.Place.Arch != "" || it.Name.Arch != "" {
		return nil
	}
	name := it.Name
	if name.Arch = it.ownArch(); name.Arch == "" {
		return nil // a source, or whoever serves it says so
	}
	if err := it.rename(it.Path(), it.Place, &name); err != nil {
		return fmt.Errorf("name %s for its architecture: %w", it.Name, err)
	}
	it.Name = name
	return nil
}

// ownArch is the architecture that the ticket says the item is a job of; "" of a source, or
// if it says none that a name can end in.
func (it *Item) ownArch() string {
	st, err := it.Ticket()
	if err != nil {
		return ""
	}
	name := it.Name
	name.Arch = st.Get(ArchField)
	if n, err := ParseName(name.String()); err != nil || n != name {
		return ""
	}
	return name.Arch
}

// leftoverAge is the age at which a half-written file in a claimed item is of a
// process that was killed: who holds the lock writes under it, and who asks for
// something without it needs milliseconds.
const leftoverAge = 5 * time.Second

// tidy removes what a write that was cut off left in the item.
func (it *Item) tidy() {
	for _, name := range it.names() {
		if !strings.HasPrefix(name, durable.NewPrefix) {
			continue
		}
		path := it.At(name)
		if st, err := os.Lstat(path); err == nil && it.tree.now().Sub(st.ModTime()) > leftoverAge {
			durable.RemoveAll(path) // if it cannot be removed, the next one will try
		}
	}
}

// names lists the item. Each claim comes by here: it takes an answer that leaves half of
// the buffer free for the last one, where package os asks the kernel once more.
func (it *Item) names() (names []string) {
	var buf [8192]byte
	for {
		n, err := unix.ReadDirent(int(it.lock.Fd()), buf[:])
		if err != nil || n <= 0 {
			return names
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
		if n < len(buf)/2 {
			return names
		}
	}
}

// BroughtByHand reports whether a person's mv brought the item that lies at dir to
// the place, noticed or not.
func BroughtByHand(dir string, at Place) bool {
	if _, moved := handMove(dir, at); moved {
		return true
	}
	last, ok := lastEvent(dir)
	return ok && last.Who == ByHand
}

// Unnoticed reports whether a person's mv brought the item that lies at dir to the place, and
// nothing has claimed it since; and whether its REASON says why it lies there all the same: that
// of a move does, whose line in the history a power cut took away, or a person's own. Such a
// REASON is younger than the history's last line.
func Unnoticed(dir string, at Place) (unnoticed, explained bool) {
	if _, moved := handMove(dir, at); !moved {
		return false, false
	}
	last, _ := lastEvent(dir)
	said, err := os.Lstat(filepath.Join(dir, ReasonFile))
	// (What mv brought gets its REASON after its line.)
	return true, err == nil && last.Who != ByHand && said.ModTime().After(last.Time)
}

// Arrivals tells what has come to places since they were looked at last, by
// whatever way: of the states that no loop serves, in which a person's mv would
// go unnoticed.
type Arrivals struct {
	Tree *Tree
	// First is since when what lies there counts, when a place is looked at for
	// the first time; the zero time: everything.
	First time.Time

	looked map[Place]look
}

// A look is when a place was listed, and what was in it.
type look struct {
	at    time.Time
	names []string // sorted
}

// coarse is by how much the clock of files may run behind.
const coarse = 50 * time.Millisecond

// In lists what has come to the place. Again makes the next look list it anew.
func (a *Arrivals) In(p Place) (found []Found, err error) {
	now := a.Tree.now()
	last, before := a.looked[p]
	if !before {
		last.at = a.First
	}
	since := last.at.Add(-coarse)
	var st unix.Stat_t
	if err := unix.Lstat(a.Tree.Path(p.Dir()), &st); errors.Is(err, unix.ENOENT) {
		return nil, nil
	} else if err != nil {
		return nil, &fs.PathError{Op: "stat", Path: p.Dir(), Err: err}
	}
	if time.Unix(st.Mtim.Unix()).Before(since) {
		return nil, nil
	}
	names, err := a.Tree.List(p)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		// (What went away and came back between two looks is as it was.)
		if _, known := slices.BinarySearch(last.names, name); known {
			continue
		}
		n, err := ParseName(name)
		if err != nil {
			continue
		}
		// A rename changes the time of the status of what is renamed.
		if unix.Lstat(filepath.Join(a.Tree.Path(p.Dir()), name), &st) != nil || time.Unix(st.Ctim.Unix()).Before(since) {
			continue
		}
		if news, _ := Unnoticed(filepath.Join(a.Tree.Path(p.Dir()), name), p); news {
			if err := a.Tree.Note(n); err != nil {
				return nil, err
			}
		}
		found = append(found, Found{p, n})
	}
	if a.looked == nil {
		a.looked = map[Place]look{}
	}
	a.looked[p] = look{now, names}
	return found, nil
}

// Again makes the next look at a place list what this one did: something there
// was busy.
func (a *Arrivals) Again(p Place) { delete(a.looked, p) }

// ForeignItem is what a daemon says once of an item that it cannot work on, where each is an account: see
// Item.Foreign.
const ForeignItem = "moved by hand to where this account may not write in it; if it stays there: packmill fsck --repair, as root"

// Foreign reports whether who runs the program may not write in the item: a job's directory
// is the queues' group's, and a source's the desk's, wherever mv brings it.
func (it *Item) Foreign() bool {
	return errors.Is(unix.Faccessat(unix.AT_FDCWD, it.At(), unix.W_OK, unix.AT_EACCESS), unix.EACCES)
}

// Writable says why who runs the program may not move the item to a place, or
// nil: it is asked before the first write, so that what is refused leaves no
// trace. A place that is not there yet is made by who may.
func (it *Item) Writable(to Place) error {
	dirs := []string{it.Place.Dir(), to.Dir()}
	if dirs[0] == dirs[1] {
		dirs = dirs[:1]
	}
	for _, dir := range dirs {
		path := it.tree.Path(dir)
		err := unix.Faccessat(unix.AT_FDCWD, path, unix.W_OK|unix.X_OK, unix.AT_EACCESS)
		for errors.Is(err, unix.ENOENT) && dir != "." {
			dir = filepath.Dir(dir)
			err = unix.Faccessat(unix.AT_FDCWD, it.tree.Path(dir), unix.W_OK|unix.X_OK, unix.AT_EACCESS)
		}
		if err != nil {
			return &fs.PathError{Op: "change", Path: path, Err: err}
		}
	}
	return nil
}
