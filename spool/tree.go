package spool

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"packmill/internal/durable"
	"packmill/internal/policy"
	"packmill/spool/statement"
)

// Tree is one spool directory tree: control, tmp, spool, queue, archive,
// attic and journal below one root, on one file system.
type Tree struct {
	Table // its states and moves: Standard, of all trees but those of tests
	root  string
	id    unix.Stat_t // of the root, when it was opened
	since time.Time   // see Since
	group durable.Group
	now   func() time.Time

	groups   sync.Map // see groupID: name to int
	groupAll sync.Map // see Separate: a group's number to bool
}

// parts are the directories that a tree has even when it is empty: what begins
// its states' directories, and what is beside them.
func (t Table) parts() []string {
	out := []string{"control", "tmp", "journal", LogsDir, BuildersDir, "spool", "spool/incoming", "archive",
		"archive/pool", "archive/dists"}
	for _, s := range t.States {
		if root := s.root(); !slices.Contains(out, root) {
			out = append(out, root)
		}
	}
	return out
}

// Directories beside the phases that hold records. Nobody decides by them.
const (
	LogsDir     = "logs"     // the logs of builds, compressed, and what builds took: a directory a day
	BuildersDir = "builders" // what each build daemon that runs says of itself
)

// BaseDir is where master-buildd keeps the indexes that suites are built on. It
// is the only one of the archive's cache that is not archived's: init makes it,
// and a tree that lost it works, in what it knows of itself.
const BaseDir = "archive/cache/base"

// LettersDir holds mails that maild hands on, where the daemons have accounts of
// their own.
const LettersDir = "spool/mail/new"

// YesDir holds reviewers' words for uploads, a file each that is the person's, where two
// persons must accept and the daemons have accounts of their own.
const YesDir = "spool/yes"

// RemovedDir holds what a person takes out of the archive, a file each, until reviewd has told of it.
const RemovedDir = "spool/mail/removed"

// KeysDir holds the keys that clients verify suites with. A tree that lost it gets
// it back with the next publication.
const KeysDir = "archive/keys"

// Errors of a claim and of a tree.
var (
	// ErrBusy says that another process holds the item's lock. It may be
	// about to drop it: a mover renames before it lets go.
	ErrBusy = errors.New("another process works on it")
	// ErrGone says that the item has left the place.
	ErrGone = errors.New("it is not there any more")
	// ErrIllegal says that the table of moves does not know this move.
	ErrIllegal = errors.New("not a legal move")
	// ErrNoTree says that the directory is not a tree, or not one any more.
	ErrNoTree = errors.New("not a packmill tree")
	// ErrNoLocks says that the kernel can give no lock there: nobody could
	// know who works on an item.
	ErrNoLocks = errors.New("the file system has no locks (flock), or none left; put the tree on a local one: ext4, " +
		"xfs or btrfs")
)

// Init makes an empty tree at root, or what an existing one lacks, with the key
// of reviewd's statements.
func Init(root string) (*Tree, error) {
	t, err := Complete(root)
	if err != nil {
		return nil, err
	}
	if err := statement.MakeKey(root); err != nil {
		return nil, fmt.Errorf("init %s: %w", root, err)
	}
	return t, nil
}

// Complete is Init without the key: the directories alone.
func Complete(root string) (*Tree, error) {
	_, err := os.Lstat(filepath.Join(root, Accepted.root()))
	fresh := errors.Is(err, fs.ErrNotExist)
	if _, n, err := formats(root); err == nil && n > Format {
		return nil, newer(root, n)
	}
	if err := durable.MkdirAll(filepath.Join(root, "archive"), 0o775); err != nil {
		return nil, fmt.Errorf("init %s: %w", root, err)
	}
	// What lies in the archive and is not for its clients no web server shows.
	for _, p := range []string{Uploaded.root(), Installed.root(), filepath.Dir(BaseDir)} {
		if err := durable.MkdirAll(filepath.Join(root, p), 0o750); err != nil {
			return nil, fmt.Errorf("init %s: %w", root, err)
		}
	}
	for _, p := range append(Standard.parts(), BaseDir, KeysDir, LettersDir, RemovedDir, YesDir, NamesDir) {
		if err := durable.MkdirAll(filepath.Join(root, p), 0o775); err != nil {
			return nil, fmt.Errorf("init %s: %w", root, err)
		}
	}
	if err := bringAlong(root, fresh); err != nil {
		return nil, fmt.Errorf("init %s: %w", root, err)
	}
	t, err := Open(root)
	if err == nil && fresh {
		err = t.completeNames(t.States)
	}
	return t, err
}

// Open checks that root is a tree on one file system and that what is visible
// there is on the disk (syncfs: an earlier process may have been killed
// between a change and its sync).
func Open(root string) (*Tree, error) {
	abs, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	t := &Tree{Table: Standard, root: abs, now: time.Now}
	if err := unix.Stat(abs, &t.id); err != nil {
		return nil, fmt.Errorf("%s: %w: %w; make one with: packmill init --tree %s", abs, ErrNoTree, err, abs)
	}
	for _, p := range t.parts() {
		var st unix.Stat_t
		err := unix.Stat(filepath.Join(abs, p), &st)
		if err != nil {
			return nil, fmt.Errorf("%s: %w: %s: %w; complete it with: packmill init --tree %s", abs, ErrNoTree, p, err, abs)
		}
		if st.Dev != t.id.Dev {
			return nil, fmt.Errorf("%s: %s is on another file system; a move must be one rename, "+
				"so the whole tree lies on one (mount the file system at %s)", abs, p, abs)
		}
	}
	if err := t.checkFormat(); err != nil {
		return nil, err
	}
	if err := durable.SyncFS(abs); err != nil {
		return nil, err
	}
	if kind := remoteKind(abs); kind != "" {
		if err := t.probe(); err != nil {
			return nil, fmt.Errorf("%s: the file system (%s) is not fit for a tree: %w; put the tree on a local one: ext4, "+
				"xfs or btrfs", abs, kind, err)
		}
	}
	return t, nil
}

// probe tries on a file system that may lack it what every move needs: a lock
// that excludes and follows a directory through a rename which replaces nothing,
// and second names of files. Who may not write here moves nothing, and need not
// know.
func (t *Tree) probe() error {
	from, err := t.birthDir()
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
		return nil
	}
	if err != nil {
		return err
	}
	to := from + "-moved"
	defer durable.RemoveAll(from)
	defer durable.RemoveAll(to)
	lock, err := lockDir(from)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := os.WriteFile(filepath.Join(from, "a"), nil, 0o664); err != nil {
		return err
	}
	if err := os.Link(filepath.Join(from, "a"), filepath.Join(from, "b")); err != nil {
		return fmt.Errorf("it has no hard links: %w", err)
	}
	if err := durable.Rename(from, to); err != nil {
		return fmt.Errorf("it has no rename that replaces nothing: %w", err)
	}
	if second, err := lockDir(to); err == nil {
		second.Close()
		return errors.New("its locks (flock) exclude nobody, or do not follow a rename")
	} else if !errors.Is(err, ErrBusy) {
		return err
	}
	return nil
}

// Root is the absolute path of the tree.
func (t *Tree) Root() string { return t.root }

// Path is the absolute path of something in the tree.
func (t *Tree) Path(elem ...string) string {
	return filepath.Join(append([]string{t.root}, elem...)...)
}

// Check says whether the tree is still the one that was opened: an unmounted
// or replaced root must end a daemon, or it would stand still in silence.
func (t *Tree) Check() error {
	var st unix.Stat_t
	if err := unix.Stat(t.root, &st); err != nil {
		return fmt.Errorf("%s: %w: %w", t.root, ErrNoTree, err)
	}
	if st.Dev != t.id.Dev || st.Ino != t.id.Ino {
		return fmt.Errorf("%s: %w: it was unmounted or replaced while the program ran", t.root, ErrNoTree)
	}
	return nil
}

// Places lists the directories that there are, of the given states or of all,
// in the order of a package's life. After an error it is not all of them.
func (t *Tree) Places(states ...State) ([]Place, error) {
	return t.places(nil, states)
}

// PlacesOf is Places of what one source has in one suite, and of the states that
// have no directory for each suite. It looks into no directory of others.
func (t *Tree) PlacesOf(suite, source string, states ...State) ([]Place, error) {
	return t.places(map[string]string{"SUITE": suite, "HASH": policy.PoolPrefix(source)}, states)
}

// places has for the words in only the one element that they stand for.
func (t *Tree) places(only map[string]string, states []State) ([]Place, error) {
	var out []Place
	var errs []error
	for _, s := range t.States {
		if len(states) > 0 && !slices.Contains(states, s) {
			continue
		}
		some, err := t.expand("", strings.Split(s.Dir, "/"), only)
		out, errs = append(out, some...), append(errs, err)
	}
	return out, errors.Join(errs...)
}

// expand walks the directories that fit the rest of a shape below rel.
func (t *Tree) expand(rel string, rest []string, only map[string]string) ([]Place, error) {
	if len(rest) == 0 {
		p, ok := t.PlaceOf(rel)
		if !ok {
			return nil, nil
		}
		st, err := os.Lstat(t.Path(rel))
		switch {
		case errors.Is(err, fs.ErrPermission):
			return nil, err // closed, which is not absent
		case err != nil || !st.IsDir():
			return nil, nil
		}
		return []Place{p}, nil
	}
	word := rest[0]
	if one := only[word]; one != "" {
		word = one
	}
	if word != "SUITE" && word != "ARCH" && word != "HASH" {
		return t.expand(filepath.Join(rel, word), rest[1:], only)
	}
	entries, err := os.ReadDir(t.Path(rel))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []Place
	var errs []error
	for _, e := range entries {
		if e.IsDir() {
			some, err := t.expand(filepath.Join(rel, e.Name()), rest[1:], only)
			out, errs = append(out, some...), append(errs, err)
		}
	}
	return out, errors.Join(errs...)
}

// List returns the names of the items in a place, first to be served first.
// It opens and stats none of them. Names that are no item's are left out. A
// place that does not exist is empty.
func (t *Tree) List(p Place) ([]string, error) {
	var names []string
	if err := t.Each(p, func(name string) { names = append(names, name) }); err != nil {
		return nil, err
	}
	sort.Strings(names)
	return names, nil
}

// Each is List in whatever order they come, without holding them all.
func (t *Tree) Each(p Place, do func(name string)) error {
	dir, err := os.Open(t.Path(p.Dir()))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(1024)
		for _, name := range names {
			if likeItem(name) {
				do(name)
			}
		}
		if err == io.EOF || errors.Is(err, fs.ErrNotExist) { // it ended, or is removed meanwhile
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// Before counts the items of a place that are served before the named one.
func (t *Tree) Before(p Place, name string) (n int, err error) {
	err = t.Each(p, func(other string) {
		if other < name {
			n++
		}
	})
	return n, err
}

// likeItem is the cheap part of ParseName, for scans of long queues.
func likeItem(name string) bool {
	return len(name) > len("50-")+len(OrderTime)+3 && digit(name[0]) && digit(name[1]) && name[2] == '-'
}

// Ensure makes the directory of a place, if it is not there.
func (t *Tree) Ensure(p Place) error {
	mode := fs.FileMode(0o775)
	if !p.State.shared() {
		mode = p.State.Right.Mode.Perm() // whatever the group
	}
	if err := durable.MkdirAll(t.Path(p.Dir()), mode); err != nil {
		return err
	}
	return t.share(p)
}

// Find looks for the items that a person means by pattern (hello,
// hello_2.10-3 or a whole name, with wildcards or not), in the given states or
// in all. After an error it has what could be read: see Closed.
func (t *Tree) Find(pattern string, states ...State) ([]Found, error) {
	if source := sourceIn(pattern); source != "" {
		places, err := t.places(map[string]string{"HASH": policy.PoolPrefix(source)}, states)
		out, oerr := t.Seek(source, places...)
		out = slices.DeleteFunc(out, func(f Found) bool { return !f.Name.Matches(pattern) })
		return out, errors.Join(err, oerr)
	}
	places, err := t.Places(states...)
	errs := []error{err}
	var out []Found
	for _, p := range places {
		names, err := t.List(p)
		errs = append(errs, err)
		for _, s := range names {
			n, err := ParseName(s)
			if err == nil && (pattern == "" || n.Matches(pattern)) {
				out = append(out, Found{p, n})
			}
		}
	}
	return out, errors.Join(errs...)
}

// Closed takes an error of Places or Find apart: the directories that this user
// may not read, and the error that remains without them.
func Closed(err error) (dirs []string, rest error) {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		var errs []error
		for _, e := range many.Unwrap() {
			more, left := Closed(e)
			dirs, errs = append(dirs, more...), append(errs, left)
		}
		return dirs, errors.Join(errs...)
	}
	if p := (*fs.PathError)(nil); errors.Is(err, fs.ErrPermission) && errors.As(err, &p) {
		return []string{p.Path}, nil
	}
	return nil, err
}

// Found is where an item was seen. It may have moved since.
type Found struct {
	Place Place
	Name  Name
}

// Arch is the architecture of a job, or "" of a source.
func (f Found) Arch() string {
	if f.Place.Arch != "" {
		return f.Place.Arch
	}
	return f.Name.Arch
}

// IsJob reports whether it is a job of one architecture, and not a source.
func (f Found) IsJob() bool { return f.Arch() != "" && f.Arch() != SourceArch }

// Dir is the item's directory below the tree.
func (f Found) Dir() string { return filepath.Join(f.Place.Dir(), f.Name.String()) }
