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
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"packmill/archive/pool"
	"packmill/internal/deb822"
	"packmill/internal/durable"
	"packmill/internal/policy"
	"packmill/queue"
	"packmill/spool"
	"packmill/spool/incoming"
	"packmill/spool/upload"
)

// uploadDir inside an intake item holds the uploader's own files, renamed out
// of incoming: the claim. The copies that are checked and kept lie in the item
// itself, and uploadDir goes when they are complete (see settleUpload).
const uploadDir = "upload"

// leftAlone is how long a .changes that can never be good must have been left
// alone, where the kernel cannot tell whether anybody writes to it.
const leftAlone = time.Minute

// arrivals claims every upload in the drop directories that is complete, and
// carries out what waits for its day.
func (in *intake) arrivals(ctx context.Context) (bool, error) {
	in.mu.Lock()
	in.nudged = false
	in.mu.Unlock()
	if err := in.Room(); err != nil {
		// What is swept makes room.
		return false, errors.Join(err, in.sweep(ctx))
	}
	if err := in.handMoved(); err != nil {
		return false, err
	}
	// Several directories at a time: their syncs share the journal's commits.
	var g errgroup.Group
	g.SetLimit(workers)
	var did atomic.Bool
	var mu sync.Mutex
	var errs []error
	for _, d := range in.box.Dirs() {
		g.Go(func() error {
			took, wrong, err := in.arrivalsIn(ctx, d)
			if took {
				did.Store(true)
			}
			mu.Lock()
			errs = append(errs, wrong...)
			mu.Unlock()
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return did.Load(), err
	}
	if err := in.sweep(ctx); err != nil {
		errs = append(errs, err)
	}
	return did.Load(), errors.Join(errs...)
}

// arrivalsIn claims what is complete in one drop directory. It reports whether
// there was any, and what went wrong with single ones; err ends the process.
func (in *intake) arrivalsIn(ctx context.Context, d incoming.Dir) (did bool, wrong []error, err error) {
	d, err = in.box.Hold(d)
	if err != nil {
		return false, nil, nil // it has gone, or is none any more
	}
	defer d.Close()
	var left []string // the .changes that stay
	for _, name := range in.box.Names(d) {
		arrive := in.arrive
		switch {
		case incoming.IsChanges(name):
		case incoming.Misnamed(name):
			arrive = in.arriveMisnamed
		case upload.IsCommands(name):
			arrive = in.arriveCommands
		default:
			continue
		}
		if ctx.Err() != nil {
			return did, wrong, nil
		}
		if in.foreign(d, name) {
			continue
		}
		took, err := arrive(ctx, d, name)
		if took {
			did = true
			in.box.Forget(d, name)
		} else if incoming.IsChanges(name) {
			left = append(left, name)
		}
		if errors.Is(err, durable.ErrInDoubt) {
			return did, wrong, err
		}
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %w", filepath.Join(d.String(), name), err))
		}
	}
	in.box.Note(d, left) // of all, or not at all: a file that no .changes lists may be taken away
	return did, wrong, nil
}

// foreign reports, and says, that a file in an account's directory is not from
// that account: nothing follows from it.
func (in *intake) foreign(d incoming.Dir, name string) bool {
	var st unix.Stat_t
	if d.Account == "" || unix.Lstat(in.box.Path(d, name), &st) != nil {
		return false
	}
	why := in.box.Foreign(d, &st)
	if why != "" {
		in.noteWaiting(d, name, name+why)
	}
	return why != ""
}

// arrive claims one upload if it is complete, or will never be.
func (in *intake) arrive(ctx context.Context, d incoming.Dir, name string) (bool, error) {
	dir := in.box.Path(d)
	var st unix.Stat_t
	if unix.Lstat(in.box.Path(d, name), &st) != nil {
		return false, nil // another process was faster
	}
	newest := incoming.Changed(&st)
	if wait := time.Duration(d.Days)*24*time.Hour - time.Since(newest); wait > 0 {
		in.noteWaiting(d, name, fmt.Sprintf("deferred for %d days, until %s",
			d.Days, newest.Add(time.Duration(d.Days)*24*time.Hour).UTC().Format(time.RFC3339)))
		return false, nil
	}
	files, err := in.box.Peek(d, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case errors.Is(err, fs.ErrPermission):
		in.lookAgain(newest)
		return in.overdue(d, name, newest, name+unreadable)
	case errors.Is(err, upload.ErrUnfinished):
		return in.overdue(d, name, newest, "the .changes file is cut off")
	case hopeless(err):
		// It will never be good: let the checks say what is wrong. But half
		// a file may look like that too.
		if in.writing(dir, name) || !canLease(&st) && time.Since(newest) < leftAlone {
			in.lookAgain(newest)
			return false, nil
		}
		return in.claim(d, name)
	case err != nil:
		return false, err
	}
	missing, size, newest := in.missing(ctx, d, name, &st, files)
	if len(missing) > 0 {
		return in.overdue(d, name, newest, strings.Join(missing, "; "))
	}
	// What is kept is a copy, of what lies there and not of what is said to.
	err = in.RoomFor(size)
	if err == nil {
		err = in.roomOf(d.Account, size)
	}
	if err != nil {
		in.noteWaiting(d, name, err.Error())
		return false, nil
	}
	return in.claim(d, name)
}

// missing says what an upload still waits for, how many bytes of it are there,
// and when anything of it last changed; st is its .changes.
func (in *intake) missing(ctx context.Context, d incoming.Dir, name string, st *unix.Stat_t, files []upload.File) (
	missing []string, size int64, newest time.Time,
) {
	size, newest = st.Size, incoming.Changed(st)
	if in.writing(in.box.Path(d), name) {
		missing = append(missing, name+stillWritten)
		in.lookAgain(newest)
	}
	if st.Nlink > 1 {
		// An older sftp renames by a link and an unlink.
		missing = append(missing, fmt.Sprintf("%s has %d names", name, st.Nlink))
	}
	for _, f := range files {
		why, at, real := in.hinders(ctx, d, f)
		size += real
		if why != "" {
			missing = append(missing, why)
			if strings.HasSuffix(why, stillWritten) || strings.HasSuffix(why, unreadable) {
				in.lookAgain(at)
			}
		}
		if at.After(newest) {
			newest = at
		}
	}
	return missing, size, newest
}

// Why a file that is there cannot be taken yet.
const (
	stillWritten = " is still being written"
	unreadable   = " cannot be read: its mode forbids it (chmod 644)"
)

// The end of a writer and a new mode are events that nobody hears.
const (
	lookSoon = 50 * time.Millisecond
	lookLate = 30 * time.Second
)

// lookAgain asks for another scan: soon, if the file is being changed now,
// later the longer nothing has happened to it.
func (in *intake) lookAgain(last time.Time) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.nudged {
		return
	}
	in.nudged = true
	time.AfterFunc(min(max(lookSoon, time.Since(last)/4), lookLate), func() {
		select {
		case in.nudge <- struct{}{}:
		default:
		}
	})
}

// hinders says why a file that a .changes lists cannot be taken yet, "" if it
// can, when it was last changed, and how many bytes it has there. What can never
// be taken is not waited for: whoever copies it refuses it.
func (in *intake) hinders(ctx context.Context, d incoming.Dir, f upload.File) (why string, at time.Time, size int64) {
	dir := in.box.Path(d)
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(dir, f.Name), &st); err != nil {
		if _, err := in.elsewhere(ctx, f); err == nil {
			return "", at, 0
		}
		return f.Name + " is not there", at, 0
	}
	at = incoming.Changed(&st)
	if why := in.box.Foreign(d, &st); why != "" {
		return f.Name + why, at, st.Size
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		// A link or a pipe under a listed name: nothing to wait for.
	case st.Size < f.Size:
		return fmt.Sprintf("%s has %d of %d bytes", f.Name, st.Size, f.Size), at, st.Size
	case st.Size > f.Size:
		// It only grows.
	case st.Nlink > 1:
		return fmt.Sprintf("%s has %d names", f.Name, st.Nlink), at, st.Size
	default:
		busy, err := upload.Writing(dir, f.Name)
		if errors.Is(err, fs.ErrPermission) {
			return f.Name + unreadable, at, st.Size
		}
		if err == nil && busy {
			return f.Name + stillWritten, at, st.Size
		}
		// A client that writes several pieces side by side leaves holes for a moment.
		if _, yes := upload.Hole(dir, f.Name); yes && time.Since(at) < leftAlone {
			return f.Name + stillWritten, at, st.Size
		}
	}
	return "", at, st.Size
}

// elsewhere finds a file in another upload of the same source that is here
// already, or in the pool: two uploads that share an orig tarball share one
// file, and whoever is claimed first takes it along. The content is compared.
func (in *intake) elsewhere(ctx context.Context, f upload.File) (string, error) {
	source, _, ok := strings.Cut(f.Name, "_")
	if !ok || !strings.Contains(f.Name, ".orig") || f.SHA256 == "" || policy.CheckSource(source) != nil {
		return "", fs.ErrNotExist
	}
	places, err := in.Tree.Places(in.Tree.Where(func(s spool.State) bool {
		return s.Is(spool.Sources) && !s.Is(spool.Settled|spool.Kept)
	})...)
	if err != nil {
		return "", err
	}
	found, err := in.Tree.Of(source, places...)
	if err != nil {
		return "", err
	}
	var dirs []string
	for _, x := range found {
		if x.Arch() == "" {
			dirs = append(dirs, in.Tree.Path(x.Dir()))
		}
	}
	for _, c := range in.components() {
		dirs = append(dirs, filepath.Join(in.archive.Root(), pool.Dir(c, source)))
	}
	for _, dir := range dirs {
		st, err := os.Lstat(filepath.Join(dir, f.Name))
		if err != nil || st.Size() != f.Size {
			continue
		}
		sha, err := in.hash(ctx, dir, f.Name)
		if err != nil && !hopeless(err) && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		if err == nil && sha == f.SHA256 {
			return filepath.Join(dir, f.Name), nil
		}
	}
	return "", fs.ErrNotExist
}

// hash is the SHA-256 of a file of ours. Nobody has verified the .changes that
// make us ask, and they may ask again with each scan: a file that nobody touched is
// read once.
func (in *intake) hash(ctx context.Context, dir, name string) (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(dir, name), &st); err != nil {
		return "", &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	id := fmt.Sprint(st.Dev, st.Ino, st.Size, st.Mtim, st.Ctim)
	in.mu.Lock()
	sha, known := in.hashes[id]
	in.mu.Unlock()
	if known {
		return sha, nil
	}
	sums, err := upload.Sum(ctx, dir, name, upload.TakeOptions{})
	if err != nil {
		return "", err
	}
	if time.Since(incoming.Changed(&st)) > time.Second {
		in.mu.Lock()
		if len(in.hashes) > 10000 || in.hashes == nil {
			in.hashes = map[string]string{}
		}
		in.hashes[id] = sums.SHA256
		in.mu.Unlock()
	}
	return sums.SHA256, nil
}

// writing reports whether somebody has the file open for writing.
func (in *intake) writing(dir, name string) bool {
	busy, err := upload.Writing(dir, name)
	return err == nil && busy
}

// canLease reports whether Writing can know: a lease is for the file's owner,
// or root.
func canLease(st *unix.Stat_t) bool {
	return os.Geteuid() == 0 || int(st.Uid) == os.Geteuid()
}

// hopeless reports whether Peek said that the file can never be taken.
func hopeless(err error) bool {
	var bad *upload.FileError
	var text *deb822.Error
	return errors.As(err, &bad) || errors.As(err, &text)
}

// overdue refuses an upload in which nothing has moved for too long: newest is
// when anything did last.
func (in *intake) overdue(d incoming.Dir, name string, newest time.Time, what string) (bool, error) {
	if time.Since(newest) < in.patience()+time.Duration(d.Days)*24*time.Hour {
		in.noteWaiting(d, name, what)
		return false, nil
	}
	return in.claim(d, name)
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
func (in *intake) noteWaiting(d incoming.Dir, name, what string) {
	key := filepath.Join(d.Rel, name)
	if in.waiting.New(key, what) {
		in.Log.Info("waits for the rest", "item", key, "reason", what)
		writeStatus(in.Env, in.box, d.Account, name, d.String(), time.Now(), "waits: "+what, "")
	}
}

// claim makes the intake item and renames the .changes into it. Whoever
// renames it has the upload; who comes second finds it gone.
func (in *intake) claim(d incoming.Dir, name string) (bool, error) {
	in.waiting.Over(filepath.Join(d.Rel, name))
	step("complete", name)
	source, version, err := guess(in.box.Path(d), name)
	if err != nil {
		return false, err
	}
	return in.birth(&queue.Ticket{Source: source, Version: version, Changes: name}, d, name)
}

// misnamed is what a .changes is called in its item whose own name is none
// that one can have.
const misnamed = "misnamed_0.changes"

// arriveMisnamed claims a .changes of such a name when it has lain as long as an
// upload may that is not complete: until then it may get a better one.
func (in *intake) arriveMisnamed(_ context.Context, d incoming.Dir, name string) (bool, error) {
	var st unix.Stat_t
	if unix.Lstat(in.box.Path(d, name), &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG ||
		time.Since(incoming.Changed(&st)) < in.patience() {
		return false, nil
	}
	return in.birth(&queue.Ticket{Source: "unknown", Version: "0", Changes: misnamed}, d, name)
}

// birth makes an intake item for the named file and renames it into it.
func (in *intake) birth(ticket *queue.Ticket, d incoming.Dir, name string) (bool, error) {
	if begun, err := in.begun(ticket, d, name); err != nil || begun {
		return false, err
	}
	as, how := name, "arrived as "+filepath.Join(d.Rel, name)
	if ticket.Changes == misnamed {
		as, how = misnamed, "arrived as "+strconv.QuoteToASCII(name)+" in "+d.String()
	}
	ticket.Suite, ticket.Account, ticket.Drop, ticket.Received = "unknown", d.Account, d.Rel, time.Now().UTC()
	it, err := in.Tree.Create(spool.In(spool.Intake),
		spool.NewName(spool.NormalClass, ticket.Received, ticket.Source, ticket.Version),
		spool.Reviewd, in.Name, how, func(dir string) error {
			if err := os.Mkdir(filepath.Join(dir, uploadDir), 0o775); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, spool.TicketFile), ticket.Stanza().Append(nil), 0o644)
		})
	if err != nil {
		return false, err
	}
	defer it.Release()
	step("born", name)
	// Whoever judges it syncs both directories before the original goes.
	if err := durable.RenameUnsynced(in.box.Path(d, name), it.Path(uploadDir, as)); err != nil &&
		!errors.Is(err, fs.ErrNotExist) {
		return true, err
	}
	return true, nil
}

// begun reports whether an intake item waits for this upload already: a
// process made it and was killed before it could rename the .changes into it,
// or is just about to. Judging it fetches the upload.
func (in *intake) begun(ticket *queue.Ticket, d incoming.Dir, name string) (bool, error) {
	found, err := in.Tree.Of(ticket.Source, spool.In(spool.Intake))
	if err != nil {
		return false, err
	}
	for _, f := range found {
		if f.Name.Version != ticket.Version {
			continue
		}
		dir := in.Tree.Path(f.Dir())
		st, err := spool.ReadTicket(dir)
		if err != nil || st.Get("Changes") != ticket.Changes || st.Get("Commands") != ticket.Commands ||
			st.Get("Drop") != d.Rel {
			continue
		}
		if entries, err := os.ReadDir(filepath.Join(dir, uploadDir)); err == nil && len(entries) == 0 {
			return true, nil
		}
		// A power cut can leave a file's rename half done: under both names.
		a, aerr := os.Lstat(in.box.Path(d, name))
		b, berr := os.Lstat(filepath.Join(dir, uploadDir, name))
		if aerr == nil && berr == nil && os.SameFile(a, b) {
			_, err := durable.MoveAll(in.box.Path(d), filepath.Join(dir, uploadDir), []string{name})
			return true, err
		}
	}
	return false, nil
}

// guess reads the source and version of a .changes that nobody has verified,
// to name its item. What cannot be a name, or be read at all, becomes "unknown"
// and 0.
func guess(dir, name string) (source, version string, err error) {
	source, version = "unknown", "0"
	f, _, err := upload.Open(dir, name)
	if hopeless(err) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return source, version, nil
	}
	if err != nil {
		return "", "", err
	}
	defer f.Close()
	head, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return "", "", err
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
	return source, version, nil
}
