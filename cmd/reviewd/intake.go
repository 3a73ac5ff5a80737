package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"packmill/archive"
	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/mail"
	"packmill/cmd/internal/replay"
	"packmill/internal/durable"
	"packmill/internal/openpgp"
	"packmill/internal/trouble"
	"packmill/queue"
	"packmill/spool"
	"packmill/spool/incoming"
	"packmill/spool/upload"
)

// workers is how many uploads are judged at a time: most of it is waiting for
// the disk, and syncs that come together cost one commit.
const workers = 4

// intake is the review daemon.
type intake struct {
	*daemon.Env
	archive *archive.Archive
	key     *openpgp.Signer // of the statements
	mu      sync.Mutex      // of rules, nudged and hashes
	rules   *rules          // made of the settings in force
	waiting trouble.Said    // what unfinished uploads lack
	box     *incoming.Box
	kept    keeping
	hashes  map[string]string // SHA-256 of files of ours that unfinished uploads ask for, see hash
	swept   time.Time         // when sweep ran last
	stuck   map[string]bool   // strays that could not be moved
	nudge   chan struct{}     // asks the loop to look again
	nudged  bool              // a nudge is on its way; one is enough
	hands   spool.Arrivals    // in review and rejected
	learned bool              // the names of what lies in reviewd's own states
}

func (in *intake) loop() *spool.Loop {
	in.stuck, in.box = map[string]bool{}, &incoming.Box{Tree: in.Tree}
	in.nudge, in.hands.Tree = make(chan struct{}, 1), in.Tree
	return in.Loop(spool.Reviewd, &spool.Loop{
		Nudge:   in.nudge,
		Workers: workers,
		Places:  func() ([]spool.Place, error) { return []spool.Place{spool.In(spool.Intake)}, nil },
		Also:    in.box.Watched,
		Before: func(ctx context.Context) (bool, error) {
			lerr := in.learn() // without it queues are read: it stops no upload
			did, err := in.arrivals(ctx)
			return did, errors.Join(lerr, err)
		},
		Handle: in.judge,
		Poison: func(*spool.Item) spool.Place { return spool.In(spool.Rejected) },
	})
}

// learn writes down the names of what master-buildd may not look at, once in a process' life.
func (in *intake) learn() error {
	if in.learned {
		return nil
	}
	err := in.Tree.LearnNames(in.Tree.Where(func(s spool.State) bool { return s.Right.Group == spool.GroupReview })...)
	in.learned = err == nil
	return err
}

// examine copies the upload and finds out everything about it, until ctx ends;
// then it returns what is known by then. inReview is what waited for review of
// the same source before.
func (in *intake) examine(ctx context.Context, it *spool.Item, t *queue.Ticket, r *rules) (
	u *upload.Upload, findings []upload.Finding, inReview []spool.Found, err error,
) {
	world := r.context(ctx, in, it, t)
	u = &upload.Upload{Name: t.Changes}
	if err := emptyTaken(it); err != nil {
		return u, nil, nil, err
	}
	if _, err := os.Lstat(it.Path(uploadDir)); errors.Is(err, fs.ErrNotExist) {
		return in.read(ctx, it, t, world, nil)
	} else if err != nil {
		return u, nil, nil, err
	}
	d, err := in.box.Hold(incoming.ParseDir(t.Drop))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return u, nil, nil, err
	}
	defer d.Close()
	early, err := in.copy(ctx, it, t, d, world)
	if err != nil {
		return u, early, nil, err
	}
	// Nothing is decided by it yet: that the uploader's files have come here, and the copy
	// of the .changes, are written to the disk while they are read.
	var claim errgroup.Group
	claim.Go(func() error { return syncMove(it.Path(uploadDir), in.box.Path(d)) })
	claim.Go(func() error { return durable.SyncPath(it.Path(t.Changes)) })
	u, findings, inReview, err = in.read(ctx, it, t, world, early)
	return u, findings, inReview, cmp.Or(claim.Wait(), err)
}

// read is the part of examine after the copying, which found early.
func (in *intake) read(ctx context.Context, it *spool.Item, t *queue.Ticket, world *upload.Context, early []upload.Finding) (
	u *upload.Upload, findings []upload.Finding, inReview []spool.Found, err error,
) {
	u = &upload.Upload{Name: t.Changes}
	if t.Changes == misnamed {
		how := "came under a name that none can have"
		if events, err := spool.ReadHistory(it.Path()); err == nil && len(events) > 0 {
			how = events[0].Reason
		}
		early = append(early, upload.Finding{Check: "name", Level: upload.Error,
			Text: "the .changes " + how +
				"; name it SOURCE_VERSION_source.changes, as dpkg-genchanges does, and upload it again"})
	}
	// Before Read asks what is accepted: what a reviewer lets through meanwhile
	// is met there.
	places, err := in.Tree.Places(spool.Review)
	if err == nil {
		inReview, err = in.Tree.Of(it.Name.Source, places...)
	}
	if err != nil {
		return u, nil, nil, err
	}
	u, findings, err = upload.Read(ctx, it.Path(), t.Changes, world)
	if errors.Is(err, fs.ErrNotExist) && len(early) > 0 {
		// Of a .changes that is no plain file there is no copy.
		u, findings, err = &upload.Upload{Name: t.Changes}, nil, nil
	}
	if err != nil {
		return u, early, nil, err
	}
	findings = append(early, findings...)
	if u.Changes != nil && upload.Worst(findings) < upload.Error &&
		(u.Changes.Source != it.Name.Source || u.Changes.Version != it.Name.Version) {
		findings = append(findings, upload.Finding{Check: "name", Level: upload.Error,
			Text: "the .changes file changed while it was taken in; upload it again"})
	}
	return u, findings, inReview, nil
}

// bulk is how many bytes an upload has, by what lies there and not by what it
// says of itself.
func (in *intake) bulk(it *spool.Item, t *queue.Ticket) (sum int64) {
	seen := map[string]bool{}
	add := func(dir, name string) {
		if st, err := os.Lstat(filepath.Join(dir, name)); err == nil && st.Mode().IsRegular() && !seen[name] {
			seen[name] = true
			sum += st.Size()
		}
	}
	own := it.Path(uploadDir)
	for _, dir := range []string{own, it.Path()} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			add(dir, e.Name())
		}
	}
	if files, err := upload.Peek(own, t.Changes); err == nil {
		for _, f := range files {
			add(in.box.Path(incoming.ParseDir(t.Drop)), f.Name)
		}
	}
	return sum
}

// outrun reports whether an older upload of the same source is in intake too:
// they are judged in the order in which they came, one after the other, or
// the first would be refused for a lower version. One that does not get on
// for a minute stops nobody.
func (in *intake) outrun(it *spool.Item) bool {
	if it.Name.Source == "unknown" {
		return false
	}
	found, err := in.Tree.Of(it.Name.Source, spool.In(spool.Intake))
	if err != nil {
		return true // nobody knows: soon again
	}
	return slices.ContainsFunc(found, func(f spool.Found) bool {
		return f.Name.String() < it.Name.String() && time.Since(f.Name.Time) < time.Minute
	})
}

// sourcesLock is locked by a byte for each source: whoever judges an upload
// has the byte of its source until the item has moved, so that of two uploads
// the second finds what became of the first, whichever process judges them.
const sourcesLock = uploads + "/lock"

// alone takes the lock of the item's source; ErrBusy says that another upload
// of it is being judged. An upload of no readable source is refused, and needs none.
func (in *intake) alone(it *spool.Item) error {
	if it.Name.Source == "unknown" {
		return nil
	}
	path := in.Tree.Path(sourcesLock)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o664)
	if errors.Is(err, fs.ErrNotExist) {
		if err = durable.MkdirAll(filepath.Dir(path), 0o775); err == nil {
			f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o664)
		}
	}
	if err != nil {
		return err
	}
	h := fnv.New64a()
	h.Write([]byte(it.Name.Source))
	// The lock belongs to the open file, not to the process: our workers shut
	// each other out as well.
	one := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: int64(h.Sum64() >> 2), Len: 1}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &one); err != nil {
		f.Close()
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			return fmt.Errorf("another upload of %s is being judged: %w", it.Name.Source, spool.ErrBusy)
		}
		return &fs.PathError{Op: "lock", Path: path, Err: err}
	}
	it.Hold(f)
	return nil
}

// errTaken says that an intake item got no upload: another process was faster.
var errTaken = errors.New("another process took the upload")

// errWriting says that somebody writes to a file of the upload.
var errWriting = errors.New("somebody writes to the upload")

// stillWriting is how long an upload that somebody writes to is left alone.
const stillWriting = 500 * time.Millisecond

// copy makes the item's own copies of the upload's files, of which nobody has
// a handle, and hashes them on the way; that of the .changes is not synced. It begins by removing what an earlier
// run left. In the shared drop directory the other files are touched only if
// the signature is good: without one the .changes may name somebody else's.
func (in *intake) copy(
	ctx context.Context, it *spool.Item, t *queue.Ticket, d incoming.Dir, world *upload.Context,
) ([]upload.Finding, error) {
	if err := removeCopies(it); err != nil {
		return nil, err
	}
	own := it.Path(uploadDir)
	world.Sums, world.Told = map[string]upload.Sums{}, map[string]bool{}
	// A crash may have come between the item's birth and the claim, or a
	// power cut left it in both places. Another one of that name is a new
	// upload.
	if _, err := durable.MoveAll(in.box.Path(d), own, []string{t.Changes}); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	if _, err := os.Lstat(filepath.Join(own, t.Changes)); errors.Is(err, fs.ErrNotExist) {
		return nil, errTaken
	}
	taker := &taker{
		in: in, it: it, changes: t.Changes, patient: time.Since(t.Received) < in.patience(),
		sums: world.Sums, told: world.Told,
	}
	step("claimed", t.Changes)
	// Before a byte is read: nobody knows yet which suite's limits hold.
	if err := taker.take(ctx, own, t.Changes, upload.TakeOptions{MaxSize: upload.MaxChanges, Unsynced: true}); err != nil ||
		len(taker.findings) > 0 {
		return taker.findings, err
	}
	step("copied the .changes", t.Changes)
	key, err := in.signed(it, t, world)
	signed := key != ""
	if err != nil {
		return nil, err
	}
	if t.Account == "" && !signed {
		return nil, nil // Read says why
	}
	taker.list = signed
	files, err := upload.Peek(it.Path(), t.Changes)
	if hopeless(err) || errors.Is(err, upload.ErrUnfinished) {
		world.Left = true
		return nil, nil // Read says why
	}
	if err != nil {
		return nil, err
	}
	files, mine := in.theirs(d, it, t, files, func(source string) bool { return world.May(key, source) })
	step("knows whose files", t.Changes)
	if _, err := durable.MoveAllUnsynced(in.box.Path(d), own, mine); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	step("took the files away", t.Changes)
	err = taker.takeAll(ctx, in.box.Path(d), files)
	step("copied", t.Changes)
	return taker.findings, err
}

// theirs says which of the listed files may be taken, and which of these may be
// taken away: rights are asked before anything moves. In an account's own
// directory a file of another user is not there. In the shared one only what
// came with the .changes (its uid), is named after its source, for which whoever
// signed it has a right, and is in no other .changes is taken away; what else is
// listed is copied where it lies, for it may be somebody else's.
func (in *intake) theirs(
	d incoming.Dir, it *spool.Item, t *queue.Ticket, files []upload.File, may func(source string) bool,
) (take []upload.File, away []string) {
	var head unix.Stat_t
	known := unix.Lstat(it.Path(uploadDir, t.Changes), &head) == nil
	for _, f := range files {
		var st unix.Stat_t
		here := unix.Lstat(in.box.Path(d, f.Name), &st) == nil
		if here && in.box.Foreign(d, &st) != "" {
			continue
		}
		take = append(take, f)
		if in.box.StillListed(d, f.Name) {
			continue
		}
		source, _, _ := strings.Cut(f.Name, "_")
		if d.Account != "" || !here || known && st.Uid == head.Uid && source == it.Name.Source && may(source) {
			away = append(away, f.Name)
		}
	}
	return take, away
}

// syncMove syncs two directories after files went from one to the other: the
// new names first, or a power cut could leave neither.
func syncMove(to, from string) error {
	if err := durable.SyncDir(to); err != nil {
		return err
	}
	return durable.SyncDir(from)
}

// borrow links a file that another upload took along, if there is one.
func (in *intake) borrow(ctx context.Context, it *spool.Item, f upload.File) error {
	from, err := in.elsewhere(ctx, f)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := durable.LinkOrCopy(from, it.Path(f.Name), 0o644); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// taker copies files into an item and gathers what is wrong with them.
type taker struct {
	in       *intake
	it       *spool.Item
	changes  string
	patient  bool // wait for those who still write
	list     bool // somebody vouches for the files: look into them on the way
	mu       sync.Mutex
	sums     map[string]upload.Sums
	told     map[string]bool
	findings []upload.Finding
}

// takeAll takes the listed files, each from the upload's own directory or, if it
// is not there, from the drop directory.
func (k *taker) takeAll(ctx context.Context, drop string, files []upload.File) error {
	own := k.it.Path(uploadDir)
	var g errgroup.Group
	g.SetLimit(workers)
	for _, f := range files {
		g.Go(func() error {
			from := own
			if _, err := os.Lstat(filepath.Join(own, f.Name)); errors.Is(err, fs.ErrNotExist) {
				from = drop
			}
			err := k.take(ctx, from, f.Name, upload.TakeOptions{Sized: true, Size: f.Size, Owner: k.changes})
			if errors.Is(err, fs.ErrNotExist) {
				err = k.in.borrow(ctx, k.it, f) // or Read says that it is missing
			}
			return err
		})
	}
	return g.Wait()
}

func (k *taker) take(ctx context.Context, dir, name string, opt upload.TakeOptions) error {
	opt.MD5, opt.SHA1, opt.List, opt.Mode = true, true, k.list, 0o644
	var bad *upload.FileError
	for range 2 {
		if k.patient && k.in.writing(dir, name) {
			return errWriting
		}
		sums, err := upload.Take(ctx, dir, k.it.Path(), name, opt)
		if err == nil {
			k.mu.Lock()
			k.sums[name] = sums
			k.mu.Unlock()
			return nil
		}
		if errors.Is(err, fs.ErrPermission) {
			bad = &upload.FileError{Name: name, Text: name + ": its mode forbids to read it; upload it with mode 644"}
			break
		}
		if !errors.As(err, &bad) {
			return err
		}
		// A file that changed under the copy gets a second chance.
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.told[name] = true
	k.findings = append(k.findings, upload.Finding{Check: cmp.Or(bad.Check, "file"), Level: upload.Error, Text: bad.Text})
	return nil
}

// signed is the key by which the .changes bears a good signature of an uploader, "" without.
func (in *intake) signed(it *spool.Item, t *queue.Ticket, ctx *upload.Context) (string, error) {
	if st, err := os.Lstat(it.Path(t.Changes)); err != nil || st.Size() > upload.MaxChanges {
		return "", err
	}
	data, err := os.ReadFile(it.Path(t.Changes))
	if err != nil || ctx.Keyring == nil {
		return "", err
	}
	_, sig, err := ctx.Keyring.VerifyClear(data, ctx.Now)
	if err != nil {
		return "", nil // Read says why
	}
	return sig.Fingerprint, nil
}

// removeCopies removes the copies of an earlier run.
func removeCopies(it *spool.Item) error {
	entries, err := os.ReadDir(it.Path())
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch n := e.Name(); {
		case n == spool.TicketFile, n == spool.HistoryFile, n == spool.ReasonFile, n == uploadDir, n == mail.ToldFile,
			strings.HasPrefix(n, ".tries"):
		default:
			if err := durable.RemoveAll(it.Path(n)); err != nil {
				return err
			}
		}
	}
	return nil
}

// takenDir is what uploadDir is called when the copies count and it does not.
const takenDir = ".taken"

// settleUpload makes the copies the item's files for good. The copies are
// synced one by one; one rename says that what the uploader sent is not needed
// any more, and only when that is on the disk, and with it the names of the copies, it
// goes. As long as uploadDir has its name the copies are made anew from it, so
// it must never be there in part.
func settleUpload(it *spool.Item) error {
	if err := markTaken(it); err != nil {
		return err
	}
	if err := durable.SyncDir(it.Path()); err != nil {
		return err
	}
	return emptyTaken(it)
}

// markTaken is the rename of settleUpload; the caller syncs the item's
// directory before emptyTaken. The rename is never on the disk without the
// names that were made in the same directory before it.
func markTaken(it *spool.Item) error {
	err := durable.RenameUnsynced(it.Path(uploadDir), it.Path(takenDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// emptyTaken ends what markTaken began: files of which the item has a copy
// go, the others are kept beside it.
func emptyTaken(it *spool.Item) error {
	entries, err := os.ReadDir(it.Path(takenDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var rest []string
	for _, e := range entries {
		if _, err := os.Lstat(it.Path(e.Name())); errors.Is(err, fs.ErrNotExist) {
			rest = append(rest, e.Name())
		}
	}
	if _, err := durable.MoveAll(it.Path(takenDir), it.Path(), rest); err != nil {
		return err
	}
	return durable.RemoveAll(it.Path(takenDir))
}

// fill writes what was found out into the ticket.
func fill(t *queue.Ticket, u *upload.Upload, findings []upload.Finding) {
	if u.Suite != nil {
		t.Suite = u.Suite.Name
	}
	t.Component, t.Section = u.Component, u.Section
	if u.Signature != nil {
		t.Fingerprint = u.Signature.Fingerprint
	}
	if u.Uploader != nil {
		t.Uploader, t.Email = u.Uploader.Name, u.Uploader.Email
	}
	if c := u.Changes; c != nil {
		t.Urgency, t.Maintainer, t.ChangedBy, t.Binary = c.Urgency, c.Maintainer, c.ChangedBy, c.Binary
		t.Has = nil
		for _, a := range c.Architectures {
			if a != "source" && u.Dsc != nil && len(u.Drop) == 0 {
				t.Has = append(t.Has, a)
			}
		}
		for _, f := range c.Files {
			if strings.HasSuffix(f.Name, ".dsc") {
				t.Dsc = f.Name
			}
		}
	}
	if d := u.Dsc; d != nil {
		t.IndepArch = d.Stanza.Get("Build-Indep-Architecture")
		t.Architecture, t.Priority = d.Architectures, d.Priority
		if len(d.Binary) > 0 {
			t.Binary = d.Binary
		}
	}
	var remarks []string
	for _, f := range findings {
		if f.Level < upload.Error {
			remarks = append(remarks, f.String())
		}
	}
	t.Remarks = strings.Join(remarks, "\n")
}

func firstError(findings []upload.Finding) string {
	n, first := 0, ""
	for _, f := range findings {
		if f.Level >= upload.Error {
			if n++; n == 1 {
				first = f.Text
			}
		}
	}
	if n > 1 {
		return fmt.Sprintf("%s (and %d more)", first, n-1)
	}
	return first
}

// refusal is the REASON of a refused upload: every finding, and what to do.
func refusal(t *queue.Ticket, findings []upload.Finding) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s was refused.\n\n", t.Changes)
	for _, level := range []upload.Level{upload.Error, upload.Warning, upload.Remark} {
		for _, f := range findings {
			if f.Level == level {
				fmt.Fprintf(&b, "%s (%s): %s\n", f.Level, f.Check, f.Text)
			}
		}
	}
	b.WriteString("\nMend what the errors say and upload the whole package again.\n")
	return b.String()
}

// uploads is the ledger of all uploads that were taken.
const uploads = "journal/uploads"

func (in *intake) ledger() replay.Ledger { return replay.Ledger{Dir: in.Tree.Path(uploads)} }

// remember puts an upload into the ledger, before it is acknowledged. Its own
// entry from an earlier run is no replay.
func (in *intake) remember(it *spool.Item, hash string) error {
	return in.ledger().Enter(hash, fmt.Sprintf("%s taken in on %s", it.Name, time.Now().UTC().Format(time.DateOnly)))
}

// seen asks the ledger. The item's own entry does not count: births are compared,
// since the order in the name may have changed (a class, a place in review).
func (in *intake) seen(it *spool.Item, t *queue.Ticket, hash string) (string, bool) {
	lines, err := in.ledger().Lines(hash)
	if err != nil || len(lines) == 0 {
		return "", false
	}
	name, fate, _ := strings.Cut(lines[0], " ")
	if name == it.Name.String() {
		return "", false
	}
	if n, err := spool.ParseName(name); err == nil {
		if n.ID() == it.Name.ID() && bornAs(t, n) {
			return "", false
		}
		if p, ok := in.whereIs(n); ok {
			fate += ", and is in " + p.String()
		}
	}
	return fate, true
}

// whereIs finds the source item that was born under a name: its order may
// have changed since.
func (in *intake) whereIs(born spool.Name) (spool.Place, bool) {
	found, err := in.Tree.Find(born.ID())
	if err != nil {
		return spool.Place{}, false
	}
	for _, f := range found {
		if f.Name == born {
			return f.Place, true
		}
		st, err := spool.ReadTicket(in.Tree.Path(f.Dir()))
		if err != nil || f.Arch() != "" && f.Arch() != spool.SourceArch {
			continue
		}
		if t, err := queue.ReadTicket(st); err == nil && bornAs(t, born) {
			return f.Place, true
		}
	}
	return spool.Place{}, false
}

// bornAs reports whether an item with this ticket was born under the name: the
// time in it is that at which the upload was received.
func bornAs(t *queue.Ticket, n spool.Name) bool {
	return t.Received.Truncate(time.Microsecond).Equal(n.Time)
}
