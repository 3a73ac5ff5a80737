package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"packmill/queue"
	"packmill/spool"
	"packmill/spool/deb822"
	"packmill/spool/policy"
	"packmill/spool/upload"
)

// incoming is the drop directory below the tree.
const incoming = "spool/incoming"

// uploadDir inside an intake item holds the uploader's own files, renamed out
// of incoming: the claim. The copies that are checked and kept lie in the item
// itself, and uploadDir goes when they are complete.
const uploadDir = "upload"

// drops lists the drop directories: "" is the shared one, the others are
// accounts.
func (in *intake) drops() []string {
	out := []string{""}
	entries, err := os.ReadDir(in.Tree.Path(incoming))
	if err != nil {
		return out
	}
	for _, e := range entries {
		if e.IsDir() && policy.CheckFile(e.Name()) == nil {
			out = append(out, e.Name())
		}
	}
	return out
}

func (in *intake) dropDirs() []string {
	var dirs []string
	for _, a := range in.drops() {
		dirs = append(dirs, in.Tree.Path(incoming, a))
	}
	return dirs
}

// arrivals claims every upload in the drop directories that is complete.
func (in *intake) arrivals(ctx context.Context) (bool, error) {
	did := false
	var errs []error
	for _, account := range in.drops() {
		for _, name := range in.changesIn(account) {
			if ctx.Err() != nil {
				return did, nil
			}
			if err := in.Room(); err != nil {
				return did, err
			}
			took, err := in.arrive(account, name)
			did = did || took
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", filepath.Join(incoming, account, name), err))
			}
		}
	}
	return did, errors.Join(errs...)
}

// changesIn lists the .changes files of a drop directory, oldest name first.
func (in *intake) changesIn(account string) []string {
	f, err := os.Open(in.Tree.Path(incoming, account))
	if err != nil {
		return nil
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil
	}
	var out []string
	for _, n := range names {
		if strings.HasSuffix(n, ".changes") && policy.CheckFile(n) == nil {
			out = append(out, n)
		}
	}
	sort.Strings(out)
	return out
}

// arrive claims one upload if it is complete, or will never be.
func (in *intake) arrive(account, name string) (bool, error) {
	dir := in.Tree.Path(incoming, account)
	files, err := upload.Peek(dir, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case errors.Is(err, upload.ErrUnfinished):
		return in.overdue(account, name, "the .changes file is cut off")
	case hopeless(err):
		// It will never be good: let the checks say what is wrong.
		if busy, err := upload.Writing(dir, name); err != nil || busy {
			return false, nil
		}
		return in.claim(account, name)
	case err != nil:
		return false, err
	}
	if busy, err := upload.Writing(dir, name); err != nil || busy {
		return false, nil
	}
	var missing []string
	for _, f := range files {
		st, err := os.Lstat(filepath.Join(dir, f.Name))
		switch {
		case err != nil:
			missing = append(missing, f.Name+" is not there")
		case !st.Mode().IsRegular():
			// A link or a pipe under a listed name: nothing to wait for.
		case st.Size() < f.Size:
			missing = append(missing, fmt.Sprintf("%s has %d of %d bytes", f.Name, st.Size(), f.Size))
		default:
			if busy, err := upload.Writing(dir, f.Name); err == nil && busy {
				missing = append(missing, f.Name+" is still being written")
			}
		}
	}
	if len(missing) > 0 {
		return in.overdue(account, name, strings.Join(missing, "; "))
	}
	return in.claim(account, name)
}

// hopeless reports whether Peek said that the file can never be taken.
func hopeless(err error) bool {
	var bad *upload.FileError
	var text *deb822.Error
	return errors.As(err, &bad) || errors.As(err, &text)
}

// overdue refuses an upload that was not completed in time. Its other files
// stay where they are.
func (in *intake) overdue(account, name, what string) (bool, error) {
	st, err := os.Lstat(in.Tree.Path(incoming, account, name))
	if err != nil {
		return false, nil
	}
	limit := in.patience()
	age := time.Since(st.ModTime())
	if age < limit {
		in.noteWaiting(account, name, what)
		return false, nil
	}
	return in.claim(account, name)
}

// patience is the shortest Incomplete of the suites: which suite an unfinished
// upload is for nobody knows for sure.
func (in *intake) patience() time.Duration {
	limit := 24 * time.Hour
	for i, s := range in.Settings.Get().Suites {
		if i == 0 || s.Incomplete < limit {
			limit = s.Incomplete
		}
	}
	return limit
}

// noteWaiting says once what an upload still lacks.
func (in *intake) noteWaiting(account, name, what string) {
	key := account + "/" + name
	if in.waiting[key] != what {
		in.waiting[key] = what
		in.Log.Info("waits for the rest", "item", key, "reason", what)
	}
}

// claim makes the intake item and renames the .changes into it. Whoever
// renames it has the upload; who comes second finds it gone.
func (in *intake) claim(account, name string) (bool, error) {
	delete(in.waiting, account+"/"+name)
	source, version := guess(in.Tree.Path(incoming, account), name)
	ticket := &queue.Ticket{Source: source, Version: version, Suite: "unknown", Changes: name, Account: account, Received: time.Now().UTC()}
	it, err := in.Tree.Create(spool.In(spool.Intake), spool.NewName(spool.NormalClass, ticket.Received, source, version),
		spool.Reviewd, in.Name, "arrived as "+filepath.Join(account, name), func(dir string) error {
			if err := os.Mkdir(filepath.Join(dir, uploadDir), 0o775); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, spool.TicketFile), ticket.Stanza().Append(nil), 0o664)
		})
	if err != nil {
		return false, err
	}
	defer it.Release()
	if _, err := in.fetch(it, account, name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return true, err
	}
	return true, nil
}

// guess reads the source and version of a .changes that nobody has verified,
// to name its item. What cannot be a name becomes "unknown" and 0.
func guess(dir, name string) (source, version string) {
	source, version = "unknown", "0"
	f, _, err := upload.Open(dir, name)
	if err != nil {
		return source, version
	}
	defer f.Close()
	head, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return source, version
	}
	for line := range bytes.Lines(head) {
		key, value, _ := bytes.Cut(bytes.TrimRight(line, "\r\n"), []byte(":"))
		words := deb822.Words(string(value))
		if len(words) == 0 {
			continue
		}
		switch {
		case bytes.EqualFold(key, []byte("Source")) && policy.CheckSource(words[0]) == nil && source == "unknown":
			source = words[0]
		case bytes.EqualFold(key, []byte("Version")) && policy.CheckVersion(words[0]) == nil && version == "0":
			// "Version: GnuPG" in an armor header is no version.
			version = words[0]
		}
	}
	return source, version
}

// sameFile tells whether two names are one file.
func sameFile(a, b string) bool {
	var x, y unix.Stat_t
	return unix.Lstat(a, &x) == nil && unix.Lstat(b, &y) == nil && x.Dev == y.Dev && x.Ino == y.Ino
}
