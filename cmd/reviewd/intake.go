package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"packmill/archive"
	"packmill/cmd/internal/daemon"
	"packmill/queue"
	"packmill/spool"
	"packmill/spool/durable"
	"packmill/spool/upload"
)

// intake is the review daemon.
type intake struct {
	*daemon.Env
	archive *archive.Archive
	rules   *rules            // made of the settings in force
	waiting map[string]string // what unfinished uploads lack, as it was logged
}

func (in *intake) loop() *spool.Loop {
	in.waiting = map[string]string{}
	return in.Loop(spool.Reviewd, &spool.Loop{
		Places: func() []spool.Place { return []spool.Place{spool.In(spool.Intake)} },
		Also:   in.dropDirs,
		Before: in.arrivals,
		Handle: in.judge,
		Poison: func(*spool.Item) spool.Place { return spool.In(spool.Rejected) },
	})
}

// judge takes the claimed upload's files, checks everything, and says where it
// goes. It may run again after a crash at any point: as long as the item has
// its upload directory, the copies are made anew from it.
func (in *intake) judge(_ context.Context, it *spool.Item) (spool.Verdict, error) {
	st, err := it.Ticket()
	if err != nil {
		return spool.Verdict{}, err
	}
	t, err := queue.ReadTicket(st)
	if err != nil {
		return spool.Verdict{}, err
	}
	r, err := in.currentRules()
	if err != nil {
		return spool.Verdict{}, err
	}
	ctx := r.context(in, it, t)
	var early []upload.Finding
	if _, err := os.Lstat(it.Path(uploadDir)); err == nil {
		early, err = in.copy(it, t, ctx)
		if errors.Is(err, errTaken) {
			return spool.Verdict{To: spool.In(spool.Attic), Reason: "another process took the upload"}, nil
		}
		if err != nil {
			return spool.Verdict{}, err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return spool.Verdict{}, err
	}
	u, findings, err := upload.Read(it.Path(), t.Changes, ctx)
	if err != nil {
		return spool.Verdict{}, err
	}
	findings = append(early, findings...)
	if u.Changes != nil && upload.Worst(findings) < upload.Error &&
		(u.Changes.Source != it.Name.Source || u.Changes.Version != it.Name.Version) {
		findings = append(findings, upload.Finding{Check: "name", Level: upload.Error,
			Text: "the .changes file changed while it was taken in; upload it again"})
	}
	fill(t, u, findings)
	bad := upload.Worst(findings) >= upload.Error
	if !bad {
		if err := in.remember(it, u); err != nil {
			return spool.Verdict{}, err
		}
	}
	if err := it.SetTicket(t.Stanza()); err != nil {
		return spool.Verdict{}, err
	}
	if !bad {
		// An item is complete in itself: what the uploader left to the
		// pool (an upstream tarball) is linked beside the rest.
		for _, f := range u.Pool {
			if err := in.fromPool(it, f.Name); err != nil {
				return spool.Verdict{}, err
			}
		}
	}
	if bad {
		// What was not copied, or is somebody else's, goes with the
		// item: nothing that a person sent is deleted.
		if err := in.keepRest(it); err != nil {
			return spool.Verdict{}, err
		}
		it.Dirty()
		return spool.Verdict{To: spool.In(spool.Rejected), Reason: firstError(findings), Text: refusal(t, findings)}, nil
	}
	// The copies are synced one by one; with the directory they are all
	// there, and only then may the uploader's own files go.
	if err := durable.SyncDir(it.Path()); err != nil {
		return spool.Verdict{}, err
	}
	if err := durable.RemoveAll(it.Path(uploadDir)); err != nil {
		return spool.Verdict{}, err
	}
	it.Dirty()
	suite := u.Suite.Name
	if s, ok := in.Settings.Get().Suite(suite); ok && (s.Review == "never" || s.Review == "new" && !u.New) {
		return spool.Verdict{To: spool.In(spool.Accepted, suite), Reason: "accepted by rule: Review: " + s.Review}, nil
	}
	return spool.Verdict{To: spool.In(spool.Review, suite), Reason: "complete and verified"}, nil
}

// errTaken says that an intake item got no upload: another process was faster.
var errTaken = errors.New("another process took the upload")

// fetch brings a file from the drop directory into the item's upload
// directory: renamed, or linked if another upload there lists it too.
func (in *intake) fetch(it *spool.Item, account, name string) (linked bool, err error) {
	from, to := in.Tree.Path(incoming, account, name), it.Path(uploadDir, name)
	if _, err := os.Lstat(to); err == nil {
		return sameFile(from, to), nil // by an earlier run
	}
	if !strings.HasSuffix(name, ".changes") && in.wanted(account, name) {
		return true, durable.Link(from, to)
	}
	return false, durable.Rename(from, to)
}

// wanted reports whether another .changes in the drop directory lists a file.
func (in *intake) wanted(account, name string) bool {
	for _, c := range in.changesIn(account) {
		files, err := upload.Peek(in.Tree.Path(incoming, account), c)
		if err == nil && slices.ContainsFunc(files, func(f upload.File) bool { return f.Name == name }) {
			return true
		}
	}
	return false
}

// copy makes the item's own copies of the upload's files, of which nobody has
// a handle, and hashes them on the way. It begins by removing what an earlier
// run left. In the shared drop directory the other files are touched only if
// the signature is good: without one the .changes may name somebody else's.
func (in *intake) copy(it *spool.Item, t *queue.Ticket, ctx *upload.Context) ([]upload.Finding, error) {
	if err := sweep(it); err != nil {
		return nil, err
	}
	ctx.Sums = map[string]upload.Sums{}
	if _, err := in.fetch(it, t.Account, t.Changes); errors.Is(err, fs.ErrNotExist) {
		return nil, errTaken
	} else if err != nil {
		return nil, err
	}
	var findings []upload.Finding
	take := func(name string, links bool) error {
		sums, err := upload.Take(it.Path(uploadDir), it.Path(), name, upload.TakeOptions{Links: links, MD5: true, SHA1: true})
		var bad *upload.FileError
		if errors.As(err, &bad) {
			findings = append(findings, upload.Finding{Check: "file", Level: upload.Error, Text: bad.Text})
			return nil
		}
		if err != nil {
			return err
		}
		ctx.Sums[name] = sums
		return nil
	}
	if err := take(t.Changes, false); err != nil || len(findings) > 0 {
		return findings, err
	}
	if t.Account == "" && !in.signed(it, t, ctx) {
		return nil, nil // Read says why
	}
	files, err := upload.Peek(it.Path(), t.Changes)
	if err != nil {
		return nil, nil // Read says why
	}
	for _, f := range files {
		linked, err := in.fetch(it, t.Account, f.Name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // Read says that it is missing
		}
		if err != nil {
			return nil, err
		}
		if err := take(f.Name, linked); err != nil {
			return nil, err
		}
	}
	return findings, nil
}

// signed reports whether the .changes bears a good signature of an uploader.
func (in *intake) signed(it *spool.Item, t *queue.Ticket, ctx *upload.Context) bool {
	data, err := os.ReadFile(it.Path(t.Changes))
	if err != nil || ctx.Keyring == nil {
		return false
	}
	_, _, err = ctx.Keyring.VerifyClear(data, ctx.Now)
	return err == nil
}

// sweep removes the copies of an earlier run.
func sweep(it *spool.Item) error {
	entries, err := os.ReadDir(it.Path())
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch n := e.Name(); {
		case n == spool.TicketFile, n == spool.HistoryFile, n == spool.ReasonFile, n == uploadDir, strings.HasPrefix(n, ".tries"):
		default:
			if err := durable.RemoveAll(it.Path(n)); err != nil {
				return err
			}
		}
	}
	return nil
}

// keepRest empties the upload directory of a refused item: files of which the
// item has a copy go, the others are kept beside it.
func (in *intake) keepRest(it *spool.Item) error {
	entries, err := os.ReadDir(it.Path(uploadDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if _, err := os.Lstat(it.Path(e.Name())); err == nil {
			continue
		}
		if err := durable.Rename(it.Path(uploadDir, e.Name()), it.Path(e.Name())); err != nil {
			return err
		}
	}
	if err := durable.SyncDir(it.Path()); err != nil {
		return err
	}
	return durable.RemoveAll(it.Path(uploadDir))
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

// ledger is where the hashes of all uploads that were taken lie, below the
// tree: a file each, for ever, so that an old upload cannot be played again.
const ledger = "journal/uploads"

func (in *intake) ledgerPath(hash string) string {
	return in.Tree.Path(ledger, hash[:2], hash)
}

// remember puts an upload into the ledger, before it is acknowledged. Its own
// entry from an earlier run is no replay.
func (in *intake) remember(it *spool.Item, u *upload.Upload) error {
	path := in.ledgerPath(u.Hash)
	if err := durable.MkdirAll(filepath.Dir(path), 0o775); err != nil {
		return err
	}
	line := fmt.Sprintf("%s taken in on %s\n", it.Name, time.Now().UTC().Format(time.DateOnly))
	err := durable.CreateFile(path, []byte(line), 0o664)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// seen asks the ledger. The item's own entry does not count.
func (in *intake) seen(it *spool.Item, hash string) (string, bool) {
	data, err := os.ReadFile(in.ledgerPath(hash))
	if err != nil {
		return "", false
	}
	name, fate, _ := strings.Cut(strings.TrimSpace(string(data)), " ")
	if name == it.Name.String() {
		return "", false
	}
	return fate, true
}
