package mail

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"syscall"
	"time"

	"packmill/archive"
	"packmill/internal/deb822"
	"packmill/internal/durable"
	"packmill/internal/regular"
	"packmill/spool"
)

// EventRemoved is that a person took a source out of a suite.
const EventRemoved = "removed"

// Removal is a source that a person takes out of a suite. It is noted in spool.RemovedDir before it goes, and
// reviewd tells of it when it has gone: so a death at any point loses no word of it, and what stays is not told.
type Removal struct {
	Suite, Source, Version, Who string
	At                          time.Time
}

// Announce notes the sources among what is about to leave a suite. Until done is called nobody looks whether they have
// gone; it is never nil.
func Announce(
	ctx context.Context, tree *spool.Tree, suite string, gone []archive.Entry, who string,
) (done func(), err error) {
	dir := tree.Path(spool.RemovedDir)
	lock, err := durable.Await(ctx, dir, 0)
	if err != nil {
		return func() {}, err
	}
	at := time.Now().UTC().Format(time.RFC3339Nano)
	var errs []error
	for _, e := range gone {
		if e.Arch != "source" {
			continue
		}
		st := &deb822.Stanza{}
		for _, field := range [][2]string{{"Suite", suite}, {"Source", e.Package}, {"Version", e.Version},
			{"Who", spool.OneLine(who)}, {"At", at}} {
			st.Set(field[0], field[1])
		}
		errs = append(errs, durable.CreateFile(tree.Path(spool.RemovedDir, at+"."+rand.Text()[:8]), st.Append(nil), 0o640))
	}
	return func() { lock.Close() }, errors.Join(errs...)
}

// Removals calls do for each that was announced, when whoever removes has ended, and forgets it after
// that; after an error it comes again. What somebody else wrote there than who may change the archive is
// forgotten at once.
func Removals(tree *spool.Tree, do func(*Removal) error) error {
	dir := tree.Path(spool.RemovedDir)
	entries, err := os.ReadDir(dir)
	if len(entries) == 0 {
		if errors.Is(err, fs.ErrNotExist) {
			err = nil // a tree from before there was one
		}
		return err
	}
	lock, err := durable.Lock(dir, 0)
	if errors.Is(err, durable.ErrLocked) {
		return nil // in the next round
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	if entries, err = os.ReadDir(dir); err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		path := tree.Path(spool.RemovedDir, e.Name())
		r, err := readRemoval(tree, path)
		if r == nil && err == nil {
			os.Remove(path) // a directory with something in it stays
			continue
		}
		if err == nil {
			err = do(r)
		}
		if err == nil {
			err = durable.Remove(path)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// readRemoval reads one; nil is what does not count.
func readRemoval(tree *spool.Tree, path string) (*Removal, error) {
	f, err := regular.Open(path)
	if err != nil {
		return nil, nil
	}
	defer f.Close()
	var owner, st syscall.Stat_t
	if err := errors.Join(syscall.Stat(tree.Path("archive"), &owner), syscall.Fstat(int(f.Fd()), &st)); err != nil {
		return nil, err
	}
	data, err := regular.ReadAll(f, 4<<10)
	if err != nil || st.Nlink != 1 || st.Uid != owner.Uid && st.Uid != 0 {
		return nil, nil
	}
	x, err := deb822.ParseOne(path, data, deb822.Hostile)
	if err != nil {
		return nil, nil
	}
	r := &Removal{Suite: x.Get("Suite"), Source: x.Get("Source"), Version: x.Get("Version"), Who: x.Get("Who")}
	if r.At, err = time.Parse(time.RFC3339Nano, x.Get("At")); err != nil {
		return nil, nil
	}
	return r, nil
}
