package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"packmill/internal/durable"
	"packmill/spool"
)

// ErrTwice says that the architecture has a job for this version already, in
// whatever state: none is made.
var ErrTwice = errors.New("there is a job for it already")

// birthFile lies in every job, and its second name in the ledger of its
// architecture, queue/SUITE/ARCH/ledger/SOURCE_VERSION (with _bN for a
// binNMU). Making that second name is the one step that decides who may make
// a job: link(2) fails for all but the first. The job may then be anywhere,
// or on its way: as long as it exists the kernel counts two names, so nothing
// has to be looked for in directories between which jobs move.
//
// A count of one says that the job was swept: then another may be made. What a
// maker left that died before the job was born is found by its free lock.
const birthFile = "birth"

// ledgerKey is the name of a job's entry in the ledger.
func ledgerKey(source, version string, binNMU int) string {
	key := source + "_" + strings.ReplaceAll(version, ":", "%3a")
	if binNMU > 0 {
		key += fmt.Sprintf("_b%d", binNMU)
	}
	return key
}

// writeBirth makes the file that enter links; dir is a job that is not born
// yet.
func writeBirth(dir, suite, arch, key string) error {
	return os.WriteFile(filepath.Join(dir, birthFile), fmt.Appendf(nil, "%s %s %s\n", suite, arch, key), 0o664)
}

// enter writes the job that is being made at dir into the ledger: ErrTwice if
// another is there. A second call for the same directory is no error. The
// link becomes durable with the job: whoever moves dir to its place syncs the
// file first.
func enter(tree *spool.Tree, suite, arch, key, dir string) error {
	ledger := tree.Path("queue", suite, arch, spool.LedgerDir)
	lock, err := lockLedger(ledger)
	if err != nil {
		return fmt.Errorf("ledger of %s %s: %w", suite, arch, err)
	}
	defer lock.Close()
	entry, birth := filepath.Join(ledger, key), filepath.Join(dir, birthFile)
	for {
		err := os.Link(birth, entry)
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
		var have, mine unix.Stat_t
		if err := unix.Lstat(entry, &have); err != nil {
			return &fs.PathError{Op: "stat", Path: entry, Err: err}
		}
		if err := unix.Lstat(birth, &mine); err != nil {
			return &fs.PathError{Op: "stat", Path: birth, Err: err}
		}
		if have.Ino == mine.Ino && have.Dev == mine.Dev {
			return nil
		}
		if have.Nlink > 1 && !inAttic(tree, arch, key, have.Ino) {
			dead, err := tree.ForgetBirth(func(dir string) bool { return inodeOf(dir) == have.Ino })
			if err != nil {
				return err
			}
			if !dead {
				return fmt.Errorf("%s on %s in %s: %w", key, arch, suite, ErrTwice)
			}
		}
		if err := os.Remove(entry); err != nil {
			return err
		}
	}
}

// lockLedger makes the ledger if need be and locks it.
func lockLedger(dir string) (io.Closer, error) {
	lock, err := durable.Await(context.Background(), dir, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if err = durable.MkdirAll(dir, 0o775); err == nil {
			lock, err = durable.Await(context.Background(), dir, 0)
		}
	}
	return lock, err
}

// inAttic reports whether the job with this birth was seen in the attic: no
// daemon takes anything out of there. One that a person cancelled, by a command
// or with mv, does not count: it would be made again at once.
func inAttic(tree *spool.Tree, arch, key string, ino uint64) bool {
	source, _, _ := strings.Cut(key, "_")
	found, err := tree.Of(source, spool.In(spool.Attic))
	if err != nil {
		return false
	}
	for i := range found {
		f := &found[i]
		if dir := tree.Path(f.Dir()); inodeOf(dir) == ino && archOf(tree, f) == arch {
			return !Cancelled(tree, *f)
		}
	}
	return false
}

// Cancelled reports whether a person put the job that lies in the attic there,
// with cancel or with mv.
func Cancelled(tree *spool.Tree, f spool.Found) bool {
	dir := tree.Path(f.Dir())
	st, err := spool.ReadTicket(dir)
	return err == nil && (st.Get("Cancelled-By") != "" || spool.BroughtByHand(dir, f.Place))
}

// inodeOf is the birth file's in the job at dir, 0 if there is none.
func inodeOf(dir string) uint64 {
	var st unix.Stat_t
	if unix.Lstat(filepath.Join(dir, birthFile), &st) != nil {
		return 0
	}
	return st.Ino
}

// Adopt writes the jobs that no program of ours made (by a copy of the tree, or
// before there was a ledger) into it. What is published already is left out:
// the archive's indexes tell of it.
func Adopt(tree *spool.Tree) error {
	places, err := tree.Places(tree.Are(spool.Jobs)...)
	if err != nil {
		return err
	}
	for _, p := range places {
		if p.State == spool.Installed {
			continue
		}
		names, err := tree.List(p)
		if err != nil {
			return err
		}
		for _, name := range names {
			n, err := spool.ParseName(name)
			f := spool.Found{Place: p, Name: n}
			if err != nil || !f.IsJob() {
				continue
			}
			if err := adopt(tree, f); err != nil && !errors.Is(err, spool.ErrBusy) && !errors.Is(err, spool.ErrGone) &&
				!errors.Is(err, ErrTwice) {
				return fmt.Errorf("adopt %s: %w", f.Dir(), err)
			}
		}
	}
	return nil
}

func adopt(tree *spool.Tree, f spool.Found) error {
	var st unix.Stat_t
	if unix.Lstat(tree.Path(f.Dir(), birthFile), &st) == nil && st.Nlink > 1 {
		return nil
	}
	it, err := tree.Claim(f.Place, f.Name.String())
	if err != nil {
		return err
	}
	defer it.Release()
	t, err := TicketOf(it)
	if err != nil {
		return nil // its daemon says so
	}
	key := ledgerKey(t.Source, t.Version, t.BinNMU)
	if err := writeBirth(it.Path(), f.Place.Suite, f.Arch(), key); err != nil {
		return err
	}
	if err := durable.SyncTree(it.Path()); err != nil {
		return err
	}
	return enter(tree, f.Place.Suite, f.Arch(), key, it.Path())
}

// sweptFile in a ledger bears the time of its last sweep. No source begins with
// a point.
const sweptFile = ".swept"

// SweepLedgers takes away the entries of jobs that are no more, in each ledger
// that was not swept for the given time, and reports how many those were.
func SweepLedgers(tree *spool.Tree, every time.Duration) (int, error) {
	dirs, err := filepath.Glob(tree.Path("queue", "*", "*", spool.LedgerDir))
	if err != nil {
		return 0, err
	}
	n := 0
	for _, dir := range dirs {
		if st, err := os.Lstat(filepath.Join(dir, sweptFile)); err == nil && time.Since(st.ModTime()) < every {
			continue
		}
		did, err := sweepLedger(dir)
		n += did
		if err != nil {
			return n, err
		}
		if err := durable.WriteFile(filepath.Join(dir, sweptFile), nil, 0o664); err != nil {
			return n, err
		}
	}
	return n, nil
}

func sweepLedger(dir string) (int, error) {
	lock, err := lockLedger(dir)
	if err != nil {
		return 0, err
	}
	defer lock.Close()
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, e := range entries {
		var st unix.Stat_t
		path := filepath.Join(dir, e.Name())
		if e.Name()[0] == '.' || unix.Lstat(path, &st) != nil || st.Nlink > 1 {
			continue
		}
		if err := os.Remove(path); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// Unlisted is the kind of a finding for a ledger and a job that do not fit.
const Unlisted spool.Kind = "unlisted"

// CheckLedgers reports jobs that no ledger knows, which could be made a second
// time, and entries of jobs that are nowhere, for which no other can be made.
// Every job has its entry before it can be seen, and each is looked for until it
// was missed five times: it may be on its way. It changes nothing.
func CheckLedgers(tree *spool.Tree) ([]spool.Finding, error) {
	out, err := unlistedJobs(tree)
	if err != nil {
		return nil, err
	}
	entries, strays, err := ledgerEntries(tree)
	if err != nil {
		return nil, err
	}
	out = append(out, strays...)
	if err := lookForJobs(tree, entries); err != nil {
		return nil, err
	}
	if len(entries) > 0 {
		err = eachEntry(tree, func(path string, st *unix.Stat_t) {
			ino, rel := st.Ino, below(tree, path)
			if !entries[ino] {
				return
			}
			out = append(out, spool.Finding{
				Kind: Unlisted, Path: rel,
				Text: "the job of this entry is nowhere, and no other can be made while the entry is there",
				Cure: "the entry is removed", Repair: func() error { return strike(path, ino) },
			})
		})
	}
	slices.SortFunc(out, func(a, b spool.Finding) int { return strings.Compare(a.Path, b.Path) })
	return out, err
}

// unlistedJobs are the jobs that no ledger knows.
func unlistedJobs(tree *spool.Tree) (out []spool.Finding, err error) {
	places, err := tree.Places(tree.Are(spool.Jobs)...)
	if err != nil {
		return nil, err
	}
	for _, p := range places {
		if p.State == spool.Installed {
			continue
		}
		if err := tree.Each(p, func(name string) {
			n, err := spool.ParseName(name)
			f := spool.Found{Place: p, Name: n}
			if err != nil || !f.IsJob() {
				return
			}
			dir := tree.Path(f.Dir())
			var st unix.Stat_t
			err = unix.Lstat(filepath.Join(dir, birthFile), &st)
			if _, gone := os.Lstat(dir); gone != nil || err == nil && st.Nlink > 1 {
				return
			}
			out = append(out, spool.Finding{
				Kind: Unlisted, Path: f.Dir(), Text: "the ledger does not know the job, so it could be made twice",
				Cure:   "it is written into the ledger, as master-buildd does when it starts",
				Repair: func() error { return adopt(tree, f) },
			})
		}); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// ledgerEntries are the inodes of all entries, which an entry shares with its job, and
// what lies in ledgers and is none.
func ledgerEntries(tree *spool.Tree) (entries map[uint64]bool, strays []spool.Finding, err error) {
	entries = map[uint64]bool{}
	err = eachEntry(tree, func(path string, st *unix.Stat_t) {
		rel := below(tree, path)
		switch {
		case st.Mode&unix.S_IFMT != unix.S_IFREG:
			text := "an entry of a ledger is a file, and this is none"
			strays = append(strays, spool.Finding{
				Kind: spool.Stray, Path: rel, Text: text, Cure: "it goes to attic/strays with a REASON",
				Repair: func() error { return tree.PutAway(rel, text) },
			})
		case st.Nlink > 1: // with one name it is of a job that was swept, and hinders nobody
			entries[st.Ino] = true
		}
	})
	return entries, strays, err
}

// below is a path as it is said to people, below the tree.
func below(tree *spool.Tree, path string) string { return strings.TrimPrefix(path, tree.Root()+"/") }

// eachEntry calls do with each entry of all ledgers.
func eachEntry(tree *spool.Tree, do func(path string, st *unix.Stat_t)) error {
	return eachIn(tree.Path("queue", "*", "*", spool.LedgerDir), func(path string) {
		var st unix.Stat_t
		if filepath.Base(path)[0] != '.' && unix.Lstat(path, &st) == nil {
			do(path, &st)
		}
	})
}

// eachIn calls do with each name in the directories that fit a pattern; they may be
// long, and are not held.
func eachIn(pattern string, do func(path string)) error {
	dirs, err := filepath.Glob(pattern)
	if err != nil {
		return err
	}
	for _, path := range dirs {
		dir, err := os.Open(path)
		if err != nil {
			continue // it has gone, or is none
		}
		for err == nil {
			var names []string
			names, err = dir.Readdirnames(1024)
			for _, name := range names {
				do(path + "/" + name)
			}
		}
		dir.Close()
		// (readdir(3) of a directory that is removed meanwhile fails with ENOENT.)
		if err != io.EOF && !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return nil
}

// lookForJobs deletes the entries whose job it finds. A job may be on its way, so what
// is missed is looked for five times.
func lookForJobs(tree *spool.Tree, entries map[uint64]bool) error {
	found := func(dir string) { delete(entries, inodeOf(dir)) }
	// In the attic, and as an egg in a source that is fanned out, too.
	any := strings.NewReplacer("SUITE", "*", "ARCH", "*", "HASH", "*")
	for look := 0; len(entries) > 0 && look < 5; look++ {
		if look > 0 {
			time.Sleep(100 * time.Millisecond)
		}
		err := errors.Join(eachIn(tree.Path("tmp"), found), eachIn(tree.Path("tmp/gone"), found))
		for _, s := range tree.States {
			var eggs error
			items := eachIn(tree.Path(any.Replace(s.Dir)), func(item string) {
				found(item)
				if s.Is(spool.Sources | spool.Queued) {
					eggs = errors.Join(eggs, eachIn(item+"/"+jobsDir, found))
				}
			})
			err = errors.Join(err, items, eggs)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// strike removes an entry from its ledger, if it is that one still.
func strike(path string, ino uint64) error {
	lock, err := lockLedger(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer lock.Close()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil || st.Ino != ino {
		return spool.ErrGone
	}
	return durable.Remove(path)
}

// TicketOf reads the facts of a claimed item.
func TicketOf(it *spool.Item) (*Ticket, error) {
	st, err := it.Ticket()
	if err != nil {
		return nil, err
	}
	return ReadTicket(st)
}

// Damaged reports whether an error of TicketOf or TicketAt is the ticket's own:
// it is not there, or says what it must not. Any other is our trouble, such as
// too many open files, and no verdict on the item.
func Damaged(err error) bool {
	trouble := (*fs.PathError)(nil)
	return !errors.As(err, &trouble) || errors.Is(err, fs.ErrNotExist)
}

// TicketAt reads the facts of an item that was found and is not claimed.
func TicketAt(tree *spool.Tree, f spool.Found) (*Ticket, error) {
	st, err := spool.ReadTicket(tree.Path(f.Dir()))
	if err != nil {
		return nil, err
	}
	return ReadTicket(st)
}
