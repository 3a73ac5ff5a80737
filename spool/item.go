package spool

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"packmill/internal/below"
	"packmill/internal/deb822"
	"packmill/internal/durable"
	"packmill/internal/regular"
	"packmill/spool/statement"
)

// Item is a claimed item: a directory with everything that the next step
// needs, and the lock on it. It belongs to one goroutine.
//
// The lock is flock(2) on the directory itself. It follows the item through
// renames, and the kernel drops it when the last process that has the
// descriptor is gone; a build inherits it (see Lock), so a daemon that dies
// under a running build does not free the job. For that reason the descriptor
// is the engine's own and not one of gofrs/flock, whose handle cannot be passed
// to a child and whose Unlock would free the child's lock too.
type Item struct {
	tree  *Tree
	Place Place
	Name  Name
	lock  *os.File
	more  []*os.File // further locks, that go with this one
	dirty bool       // names in the directory were changed and not synced
}

// Claim locks the named item. It does not wait: ErrBusy says that another
// process holds the lock, ErrGone that the item has left the place. A move
// that a person made with mv since is written into the history.
func (t *Tree) Claim(p Place, name string) (*Item, error) {
	n, err := ParseName(name)
	if err != nil {
		return nil, err
	}
	lock, err := t.lockBelow(p.Dir(), name)
	if err != nil {
		return nil, fmt.Errorf("claim %s/%s: %w", p.Dir(), name, err)
	}
	it := &Item{tree: t, Place: p, Name: n, lock: lock}
	it.tidy()
	if it.noticeHandMove() {
		t.Note(n) // if it cannot be written, fsck says so
		if err := it.adopt(); err != nil {
			it.Release()
			return nil, err
		}
	}
	return it, nil
}

// ClaimSoon is Claim that looks again for a second while another process holds
// the lock: a mover lets go of it in milliseconds.
func (t *Tree) ClaimSoon(p Place, name string) (*Item, error) {
	for end := time.Now().Add(claimSoon); ; time.Sleep(claimSoon / 40) {
		it, err := t.Claim(p, name)
		if !errors.Is(err, ErrBusy) || time.Now().After(end) {
			return it, err
		}
	}
}

const claimSoon = time.Second

// lockDir takes the lock and then compares: between open and flock the
// directory may have been moved, and something else may bear its name.
func lockDir(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil, ErrGone
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	f := os.NewFile(uintptr(fd), dir)
	return lockFile(f, func(now *unix.Stat_t) error { return unix.Lstat(dir, now) })
}

// lockBelow is lockDir of a name in a directory below the tree that no symbolic link
// leads to.
func (t *Tree) lockBelow(dir, name string) (*os.File, error) {
	d, err := below.Open(t.root, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrGone
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	f, err := d.File(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrGone
	}
	if err != nil {
		return nil, err
	}
	return lockFile(f, func(now *unix.Stat_t) error { return d.Lstat(name, now) })
}

// lockFile locks an open directory; there says what lies under its name now.
func lockFile(f *os.File, there func(*unix.Stat_t) error) (*os.File, error) {
	fd, dir := int(f.Fd()), f.Name()
	err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		f.Close()
		return nil, ErrBusy
	}
	if errors.Is(err, unix.ENOLCK) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) {
		err = fmt.Errorf("%w: %w", ErrNoLocks, err)
	}
	if err != nil {
		f.Close()
		return nil, &fs.PathError{Op: "flock", Path: dir, Err: err}
	}
	var held, now unix.Stat_t
	if err := unix.Fstat(fd, &held); err != nil {
		f.Close()
		return nil, &fs.PathError{Op: "stat", Path: dir, Err: err}
	}
	err = there(&now)
	if err != nil || held.Dev != now.Dev || held.Ino != now.Ino {
		f.Close()
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil, ErrGone
		}
		return nil, &fs.PathError{Op: "stat", Path: dir, Err: err}
	}
	return f, nil
}

// noticeHandMove writes the history line that mv did not write, and reports
// whether there was one to write.
func (it *Item) noticeHandMove() bool {
	e, ok := handMove(it.At(), it.Place)
	if !ok {
		return false
	}
	e.Time = it.tree.now().UTC()
	// The history is for people: that it could not be written must not
	// keep the item from being served.
	if durable.Append(it.At(HistoryFile), e.line(), 0o664) == nil {
		it.tree.record(it.Name.String(), e)
	}
	return true
}

// handMove compares the history's end with where the item lies.
func handMove(dir string, at Place) (Event, bool) {
	last, ok := lastEvent(dir)
	if !ok {
		return Event{From: "new", To: at.Dir(), Who: ByHand, Reason: "found without a history"}, true
	}
	if last.To == at.Dir() {
		return Event{}, false
	}
	if last.From == at.Dir() {
		return Event{From: last.To, To: at.Dir(), Who: ByHand,
			Reason: "lies here still, or again: the last move was interrupted or taken back"}, true
	}
	return Event{From: last.To, To: at.Dir(), Who: ByHand, Reason: "moved by hand"}, true
}

// Path is the absolute path of something in the item.
func (it *Item) Path(elem ...string) string {
	return it.tree.Path(append([]string{it.Place.Dir(), it.Name.String()}, elem...)...)
}

// At names something in the item by the descriptor that holds the lock: it stays
// in the item, also if somebody who may write there puts another directory, or a
// link, in its place. All that the engine itself reads and writes goes by it. It is
// for this process alone, and until Release.
func (it *Item) At(elem ...string) string {
	if it.lock == nil {
		return it.Path(elem...)
	}
	return below.Path(it.lock, elem...)
}

// Lock is the descriptor that holds the lock. A child that inherits it keeps
// the item locked for as long as it, or a child of its own that inherited it,
// lives. The caller must not close or unlock it.
func (it *Item) Lock() *os.File { return it.lock }

// Arch is a job's architecture, or "" for a source.
func (it *Item) Arch() string {
	return Found{it.Place, it.Name}.Arch()
}

// Hold keeps a further locked file until Release: for what must stay decided
// until the item has moved. The item closes it.
func (it *Item) Hold(f *os.File) { it.more = append(it.more, f) }

// Release lets the item go. If a child of this process holds the lock too, it
// stays locked: the descriptor is closed, not unlocked.
func (it *Item) Release() {
	for _, f := range it.more {
		f.Close()
	}
	it.more = nil
	if it.lock != nil {
		it.lock.Close()
		it.lock = nil
	}
}

// Ticket reads the item's facts.
func (it *Item) Ticket() (*deb822.Stanza, error) {
	return ReadTicket(it.At())
}

// ReadTicket reads the ticket of the item that lies at dir.
func ReadTicket(dir string) (*deb822.Stanza, error) {
	data, err := regular.Read(filepath.Join(dir, TicketFile), maxSmall)
	if err != nil {
		return nil, err
	}
	return deb822.ParseOne(TicketFile, data, deb822.Hostile)
}

// maxSmall bounds a file of the engine's own that is read whole.
const maxSmall = 4 << 20

// SetTicket writes the facts, in one step.
func (it *Item) SetTicket(t *deb822.Stanza) error {
	return it.WriteFile(TicketFile, t.Append(nil))
}

// WriteFile writes a file of the item in one step; on return it is on the disk.
func (it *Item) WriteFile(name string, data []byte) error {
	return durable.WriteFile(it.At(name), data, 0o644)
}

// Dirty says that the caller changed names in the item and left the sync to
// the next Move, which then syncs everything in the item once.
func (it *Item) Dirty() { it.dirty = true }

// Note writes a line into the history without a move: a person asked, a
// builder refused, an attempt was counted.
func (it *Item) Note(who, text string) error {
	e := Event{Time: it.tree.now().UTC(), From: it.Place.Dir(), To: it.Place.Dir(), Who: who, Reason: text}
	return durable.Append(it.At(HistoryFile), e.line(), 0o664)
}

// Verdict is what a handler thinks should become of an item. The engine makes
// the move.
type Verdict struct {
	To     Place         // where it goes; the zero Place: it stays
	Reason string        // one line, for the history
	Text   string        // for the REASON file; "" takes an old one away when the item moves
	Again  time.Duration // of an item that stays: look again then; 0: when something happens
	Class  int           // of a move: a new class, with NewClass
	Renew  bool          // Class is meant
	// of a move: a new time in the name, for what takes an older item's place in the order; zero: as it is
	Since time.Time
}

// Stay is the verdict that nothing can be done yet.
func Stay(again time.Duration, reason string) Verdict {
	return Verdict{Again: again, Reason: reason}
}

// Move makes the move that v asks for: the table is asked, the history and
// the REASON are written, and one rename follows, and the sync of its new parent.
// On return the item is at its new place and still locked.
//
// The history line is written before the rename, so that an item's history
// never lacks the move that brought it; a crash between the two leaves a line
// for a move that did not happen, which the next claim notices and says.
func (it *Item) Move(by Actor, who string, v Verdict) error {
	to := v.To
	to = to.Of(it.Name.Source)
	if !it.tree.Legal(it.Place.State, to.State, by) {
		return fmt.Errorf("move %s: %s -> %s by %s: %w", it.Name, it.Place, to, by, ErrIllegal)
	}
	if err := it.Writable(to); err != nil {
		return fmt.Errorf("move %s: %w", it.Name, err)
	}
	if v.Text != "" {
		text := strings.TrimRight(v.Text, "\n") + "\n"
		if err := it.WriteFile(ReasonFile, []byte(text)); err != nil {
			return fmt.Errorf("move %s: %w", it.Name, err)
		}
	} else if _, err := os.Lstat(it.At(ReasonFile)); err == nil {
		// (To ask first is cheaper for the many that have none.)
		if err := os.Remove(it.At(ReasonFile)); err != nil {
			return fmt.Errorf("move %s: %w", it.Name, err)
		}
		it.dirty = true
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("move %s: %w", it.Name, err)
	}
	if to.State == Attic && (it.Place.State == Review || it.Place.State == Rejected) {
		// Nobody accepted it, and more people reach the attic than the desk:
		// from there it must not go on.
		if err := durable.Remove(it.Path(statement.File)); err != nil {
			return fmt.Errorf("move %s: %w", it.Name, err)
		}
	}
	if it.dirty {
		if err := durable.SyncTree(it.At()); err != nil {
			return fmt.Errorf("move %s: %w", it.Name, err)
		}
		it.dirty = false
	}
	e := Event{Time: it.tree.now().UTC(), From: it.Place.Dir(), To: to.Dir(), Who: who, Reason: v.Reason}
	if err := durable.Append(it.At(HistoryFile), e.line(), 0o664); err != nil {
		return fmt.Errorf("move %s: %w", it.Name, err)
	}
	name := it.nameAt(to)
	if v.Renew {
		name.Class = v.Class
	}
	if !v.Since.IsZero() {
		name.Time = v.Since.UTC().Truncate(time.Microsecond)
	}
	if err := it.rename(it.Path(), to, &name); err != nil {
		return fmt.Errorf("move %s: %s -> %s: %w", it.Name, it.Place, to, err)
	}
	it.Place, it.Name = to, name
	it.tree.record(name.String(), e)
	return nil
}

// rename moves the directory at from to its name in a place, which is made if
// need be. Where old things are kept, a name that is taken gets a later
// microsecond.
func (it *Item) rename(from string, to Place, name *Name) error {
	t, made := it.tree, false
	rel, err := filepath.Rel(t.root, from)
	if err != nil {
		return err
	}
	old := filepath.Base(rel)
	src, err := below.Open(t.root, filepath.Dir(rel))
	if errors.Is(err, fs.ErrNotExist) {
		return ErrGone
	}
	if err != nil {
		return err
	}
	defer src.Close()
	if it.lock != nil && !sameAs(it.lock, src, old) {
		return ErrGone
	}
	noted := old
	if s := it.Place.State; s != nil && s.Right.Group == GroupReview {
		noted = "" // whoever learned the names when the machine started could not look there
	}
	for looks := 0; ; {
		if birth := name.birth(); !bears(noted, birth) {
			if err := t.Note(*name); err != nil {
				return err
			}
			noted = birth
		}
		err := t.renameInto(to, src, old, name.String())
		switch {
		case errors.Is(err, fs.ErrNotExist) && !made:
			if serr := src.Lstat(old, new(unix.Stat_t)); serr != nil {
				return ErrGone
			}
			if err := t.Ensure(to); err != nil {
				return err
			}
			made = true
		case errors.Is(err, fs.ErrExist) && to.State.Is(Kept):
			name.Time = name.Time.Add(time.Microsecond)
		case errors.Is(err, fs.ErrExist) && looks < 3 && t.givesWay(to, *name):
			looks++
		default:
			return err
		}
	}
}

// givesWay reports whether what lay under the name no longer does: a job that a person's mv
// brought there under its source's name gets its own.
func (t *Tree) givesWay(p Place, name Name) bool {
	it, err := t.ClaimSoon(p, name.String())
	if err != nil {
		return errors.Is(err, ErrGone)
	}
	defer it.Release()
	return it.Name != name
}

// sameAs reports whether what bears the name in the directory is the open item.
func sameAs(item *os.File, in *below.Dir, name string) bool {
	var held, now unix.Stat_t
	return unix.Fstat(int(item.Fd()), &held) == nil && in.Lstat(name, &now) == nil && held.Dev == now.Dev &&
		held.Ino == now.Ino
}

// renameInto is one try, from an open directory into a place.
func (t *Tree) renameInto(to Place, src *below.Dir, old, name string) error {
	dst, err := below.Open(t.root, to.Dir())
	if err != nil {
		return err
	}
	defer dst.Close()
	return t.group.Rename(src, old, dst, name)
}

// nameAt is the item's name in another place: a job's name ends in its
// architecture where jobs of several architectures meet.
func (it *Item) nameAt(to Place) Name {
	n := it.Name
	n.Arch = it.Arch()
	if it.Place.Arch != "" && to.Arch == "" {
		// A person's mv may have brought it to another architecture's place.
		n.Arch = cmp.Or(it.ownArch(), n.Arch)
	}
	// One that went ahead has its own name only where it can meet its copy.
	alone := n.Arch == SourceArch && !to.State.Is(Settled) && !to.State.Is(Kept)
	if to.Arch != "" || alone {
		n.Arch = ""
	}
	return n
}

// Create makes a new item: fill writes into a directory under tmp, which is
// then synced and renamed to its place. The item is returned claimed. If fill
// fails nothing is left.
func (t *Tree) Create(p Place, name Name, by Actor, who, reason string, fill func(dir string) error) (*Item, error) {
	if !t.Legal(Unborn, p.State, by) {
		return nil, fmt.Errorf("create %s in %s by %s: %w", name, p, by, ErrIllegal)
	}
	dir, err := t.birthDir()
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", name, err)
	}
	it := &Item{tree: t, Place: p, Name: name}
	if it.lock, err = lockDir(dir); err == nil {
		err = t.Give(dir, Found{p, name}.IsJob())
	}
	if err == nil {
		err = fill(dir)
	}
	if err == nil {
		err = it.born(dir, p, name, who, reason)
	}
	if err != nil {
		durable.RemoveAll(dir)
		it.Release()
		return nil, fmt.Errorf("create %s in %s: %w", name, p, err)
	}
	return it, nil
}

// birthPrefix begins the names of births.
const birthPrefix = "new-"

// birthDir makes a directory under tmp for an item that is to be. It is made
// with its final mode and never changed: where the daemons are different users
// it has group and setgid bit from tmp, and a service that may not set such
// bits itself still gets them.
func (t *Tree) birthDir() (string, error) {
	for {
		dir := t.Path("tmp", birthPrefix+fmt.Sprintf("%016x", rand.Uint64()))
		if err := os.Mkdir(dir, 0o775); !errors.Is(err, fs.ErrExist) {
			return dir, err
		}
	}
}

// ForgetBirth removes the births under tmp that mine says are meant and whose
// makers are dead: a living one holds the lock from the first moment.
func (t *Tree) ForgetBirth(mine func(dir string) bool) (bool, error) {
	entries, err := os.ReadDir(t.Path("tmp"))
	if err != nil {
		return false, err
	}
	did := false
	for _, e := range entries {
		dir := t.Path("tmp", e.Name())
		if !e.IsDir() || !mine(dir) {
			continue
		}
		lock, err := lockDir(dir)
		if errors.Is(err, ErrBusy) || errors.Is(err, ErrGone) {
			continue
		}
		if err == nil {
			err = durable.RemoveAll(dir)
			lock.Close()
		}
		if err != nil {
			return did, fmt.Errorf("forget birth: %w", err)
		}
		did = true
	}
	return did, nil
}

// born gives a finished directory its first line of history, syncs it and
// moves it to its place.
func (it *Item) born(dir string, p Place, name Name, who, reason string) error {
	p = p.Of(name.Source)
	e := Event{Time: it.tree.now().UTC(), From: "new", To: p.Dir(), Who: who, Reason: reason}
	if err := durable.Append(filepath.Join(dir, HistoryFile), e.line(), 0o664); err != nil {
		return err
	}
	if err := durable.SyncTree(dir); err != nil {
		return err
	}
	if err := it.rename(dir, p, &name); err != nil {
		return err
	}
	it.Place, it.Name = p, name
	it.tree.record(name.String(), e)
	return nil
}

// Hatch turns the directory rel inside the item into an item of its own, at p
// and under name. rel must hold its ticket and files already. A rel that is
// gone is ErrGone: it was hatched before, as a crash between two of them
// leaves it.
func (it *Item) Hatch(rel string, p Place, name Name, by Actor, who, reason string) error {
	if !it.tree.Legal(Unborn, p.State, by) {
		return fmt.Errorf("hatch %s in %s by %s: %w", name, p, by, ErrIllegal)
	}
	dir := it.Path(rel)
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return ErrGone
	}
	egg := &Item{tree: it.tree}
	if err := egg.born(dir, p, name, who, reason); err != nil {
		return fmt.Errorf("hatch %s in %s: %w", name, p, err)
	}
	return nil
}
