// Package incoming reads the drop directories: spool/incoming, a directory in
// it for each ssh account, and the DELAYED directories of both. They hold
// plain files, as uploaders leave them, and no items.
package incoming

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"packmill/internal/below"
	"packmill/internal/pattern"
	"packmill/internal/policy"
	"packmill/spool"
	"packmill/spool/upload"
)

// Root is the drop directory below the tree.
const Root = "spool/incoming"

// DelayedDir is where uploads wait for some days, in directories 0-day to
// 15-day, as dput --delayed puts them.
const DelayedDir = "DELAYED"

// StatusSuffix ends the name of the file in which an uploader finds what
// became of the .changes whose name precedes it.
const StatusSuffix = ".status"

var dayDir = pattern.Lazy(`^([0-9]|1[0-5])-day$`)

// accountName is what a directory of an ssh account may be called.
var accountName = pattern.Lazy(`^[a-zA-Z0-9_][a-zA-Z0-9_.+-]{0,63}$`)

// Dir is one directory in which uploads arrive.
type Dir struct {
	Rel     string // below Root: "", "alice", "DELAYED/3-day", "alice/DELAYED/3-day"
	Account string // of ssh, or "" for the shared directory
	Days    int    // that an upload waits after its arrival

	held *below.Dir // see Box.Hold
	gone bool       // Hold found none
}

// String is the directory below the tree.
func (d Dir) String() string { return filepath.Join(Root, d.Rel) }

// ParseDir is the inverse of Rel.
func ParseDir(rel string) Dir {
	d := Dir{Rel: rel}
	parts := strings.Split(rel, "/")
	if n := len(parts); n >= 2 && parts[n-2] == DelayedDir && dayDir().MatchString(parts[n-1]) {
		d.Days, _ = strconv.Atoi(strings.TrimSuffix(parts[n-1], "-day")) // two digits at most
		parts = parts[:n-2]
	}
	if len(parts) == 1 {
		d.Account = parts[0]
	}
	return d
}

// Delayed is the directory of the same account whose uploads wait so many days.
func (d Dir) Delayed(days int) Dir {
	return ParseDir(filepath.Join(d.Account, DelayedDir, fmt.Sprintf("%d-day", days)))
}

// Box reads the drop directories of a tree. It may be used by several
// goroutines.
type Box struct {
	Tree *spool.Tree

	mu     sync.Mutex
	seen   map[string]peeked
	lists  map[string]map[string][]string // by directory and listed file: the .changes of the last Note
	proofs map[string]proof               // by account
}

// peeked is what a .changes lists, as long as nobody touches it: a crowd of
// waiting uploads is read once.
type peeked struct {
	id    string // of the file as it was read
	files []upload.File
	err   error
}

// Hold opens a drop directory: what is done with the Dir that it returns is done
// there and nowhere else, also if whoever may write above puts a link or another
// directory in its place meanwhile. The caller ends it with Close. The error is
// fs.ErrNotExist if there is none, or something else in its place; in the Dir that
// comes with an error nothing is ever found.
func (b *Box) Hold(d Dir) (Dir, error) {
	held, err := below.Open(b.Tree.Root(), d.String())
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
		err = &fs.PathError{Op: "open", Path: d.String(), Err: fs.ErrNotExist}
	}
	d.held, d.gone = held, err != nil
	return d, err
}

// Close ends what Hold began. It may be called on any Dir.
func (d Dir) Close() {
	if d.held != nil {
		d.held.Close()
	}
}

// Path is a drop directory's path, or that of something in it: of one that is held
// by its descriptor, for this process alone.
func (b *Box) Path(d Dir, elem ...string) string {
	switch {
	case d.held != nil:
		return d.held.Path(elem...)
	case d.gone:
		return filepath.Join(append([]string{"/proc/self/fd/none"}, elem...)...)
	}
	return filepath.Join(append([]string{b.Tree.Path(Root, d.Rel)}, elem...)...)
}

// Dirs lists the drop directories that there are, the shared one first. One that
// bears an account's name and is not its own is none.
func (b *Box) Dirs() []Dir {
	out := append([]Dir{{}}, b.delayed("")...)
	for _, name := range directories(b.Tree.Path(Root)) {
		if name == DelayedDir || !accountName().MatchString(name) {
			continue
		}
		if _, ok := b.owner(name); ok {
			out = append(out, ParseDir(name))
			out = append(out, b.delayed(name)...)
		}
	}
	return out
}

// directories are those in dir, as far as it can be read, sorted. The files among which
// they lie may be very many.
func directories(dir string) (names []string) {
	f, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer f.Close()
	for err == nil {
		var some []os.DirEntry
		some, err = f.ReadDir(1024)
		for _, e := range some {
			if e.IsDir() {
				names = append(names, e.Name())
			}
		}
	}
	sort.Strings(names)
	return names
}

// Watched lists the directories in which something may arrive: Dirs, and those
// in which one of them may be made.
func (b *Box) Watched() []string {
	var out []string
	for _, d := range b.Dirs() {
		out = append(out, b.Path(d))
		if days := b.Path(d, DelayedDir); d.Rel == d.Account {
			if st, err := os.Lstat(days); err == nil && st.IsDir() {
				out = append(out, days)
			}
		}
	}
	return out
}

// Of lists the drop directories of one account, "" for the shared ones.
func (b *Box) Of(account string) []Dir {
	return append([]Dir{ParseDir(account)}, b.delayed(account)...)
}

func (b *Box) delayed(below string) []Dir {
	rel := filepath.Join(below, DelayedDir)
	if st, err := os.Lstat(b.Tree.Path(Root, rel)); err != nil || !st.IsDir() {
		return nil
	}
	entries, err := os.ReadDir(b.Tree.Path(Root, rel))
	if err != nil {
		return nil
	}
	var out []Dir
	for _, e := range entries {
		if e.IsDir() && dayDir().MatchString(e.Name()) {
			out = append(out, ParseDir(filepath.Join(rel, e.Name())))
		}
	}
	return out
}

// Names lists a drop directory, sorted. One that cannot be read is empty.
func (b *Box) Names(d Dir) []string {
	if d.held == nil {
		var err error
		if d, err = b.Hold(d); err != nil {
			return nil
		}
		defer d.Close()
	}
	names, err := d.held.Names()
	if err != nil {
		return nil
	}
	sort.Strings(names)
	return names
}

// IsChanges reports whether a file of this name can be the head of an upload.
func IsChanges(name string) bool {
	return strings.HasSuffix(name, ".changes") && policy.CheckFile(name) == nil
}

// Misnamed reports whether a file is meant as the head of an upload, but bears a
// name that none can have.
func Misnamed(name string) bool {
	return strings.HasSuffix(name, ".changes") && !IsChanges(name)
}

// Listed gives the names that the .changes files of a drop directory list.
func (b *Box) Listed(d Dir) map[string]bool {
	out := map[string]bool{}
	for _, n := range b.Names(d) {
		if !IsChanges(n) {
			continue
		}
		files, err := b.Peek(d, n)
		if err != nil {
			continue
		}
		for _, f := range files {
			out[f.Name] = true
		}
	}
	return out
}

// Note remembers what the named .changes of a drop directory list, for StillListed.
func (b *Box) Note(d Dir, changes []string) {
	lists := map[string][]string{}
	for _, n := range changes {
		files, err := b.Peek(d, n)
		if err != nil {
			continue
		}
		for _, f := range files {
			lists[f.Name] = append(lists[f.Name], n)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lists == nil {
		b.lists = map[string]map[string][]string{}
	}
	b.lists[d.Rel] = lists
}

// StillListed reports whether a .changes of the last Note that is still there lists the
// file. It costs the same however many uploads wait; before the first Note all are read.
func (b *Box) StillListed(d Dir, file string) bool {
	b.mu.Lock()
	lists, noted := b.lists[d.Rel]
	b.mu.Unlock()
	if !noted {
		return b.Listed(d)[file]
	}
	return slices.ContainsFunc(lists[file], func(changes string) bool {
		var st unix.Stat_t
		return unix.Lstat(b.Path(d, changes), &st) == nil
	})
}

// Peek is upload.Peek of a .changes in a drop directory.
func (b *Box) Peek(d Dir, name string) ([]upload.File, error) {
	path := b.Path(d, name)
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return upload.Peek(b.Path(d), name)
	}
	key := filepath.Join(d.Rel, name)
	id := fmt.Sprint(st.Dev, st.Ino, st.Size, st.Mode, st.Ctim)
	b.mu.Lock()
	p, ok := b.seen[key]
	b.mu.Unlock()
	if ok && p.id == id {
		return p.files, p.err
	}
	p = peeked{id: id}
	p.files, p.err = upload.Peek(b.Path(d), name)
	// A file that was written within the clock's tick may change again
	// without a new time.
	if time.Since(Changed(&st)) > time.Second {
		b.mu.Lock()
		if b.seen == nil || len(b.seen) > 10000 {
			b.seen = map[string]peeked{}
		}
		b.seen[key] = p
		b.mu.Unlock()
	}
	return p.files, p.err
}

// Forget drops what is remembered of a .changes that is not there any more: it is not asked for again.
func (b *Box) Forget(d Dir, name string) {
	b.mu.Lock()
	delete(b.seen, filepath.Join(d.Rel, name))
	b.mu.Unlock()
}

// Changed is when anything happened to a file last. Uploaders set mtimes as
// they like, but nobody sets a ctime.
func Changed(st *unix.Stat_t) time.Time { return time.Unix(st.Ctim.Unix()) }

// Stray is something in a drop directory that belongs to nothing.
type Stray struct {
	Dir  Dir
	Name string // any bytes
	Size int64
	Age  time.Duration
}

// Strays lists what no .changes in a drop directory lists. Directories of
// accounts, uploads, commands and our own notes are no strays, nor is what is
// Misnamed: that is refused.
func (b *Box) Strays(d Dir) []Stray {
	listed := b.Listed(d)
	var out []Stray
	for _, n := range b.Names(d) {
		if listed[n] || IsChanges(n) || upload.IsCommands(n) || strings.HasSuffix(n, ".changes"+StatusSuffix) {
			continue
		}
		var st unix.Stat_t
		if unix.Lstat(b.Path(d, n), &st) != nil {
			continue
		}
		if Misnamed(n) && st.Mode&unix.S_IFMT == unix.S_IFREG {
			continue
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR &&
			(n == DelayedDir && d.Days == 0 || d.Rel == "" && accountName().MatchString(n)) {
			continue
		}
		out = append(out, Stray{d, n, st.Size, time.Since(Changed(&st))})
	}
	return out
}
