package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"packmill/archive"
	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/mail"
	"packmill/queue"
	"packmill/spool"
	"packmill/spool/incoming"
	"packmill/spool/upload"
)

// newTeller mails people about what became of their uploads, and writes status
// files.
func newTeller(env *daemon.Env, a *archive.Archive) *mail.Teller {
	t := &teller{Env: env, box: &incoming.Box{Tree: env.Tree}, archive: a}
	return &mail.Teller{
		Tree: env.Tree, Settings: env.Settings, Log: env.Log, Once: env.Once, Say: t.say, Places: t.places,
		Also: func(ctx context.Context) error { return errors.Join(t.remind(ctx), t.removed(ctx)) },
		Lock: func(spool.Place) string { return env.Tree.Path("spool") },
	}
}

type teller struct {
	*daemon.Env
	box     *incoming.Box
	archive *archive.Archive
	next    time.Time // when it looks at what was published
}

// places are those of uploads, and those where their jobs come to an end. What was
// published has a thousand directories: a hundredth of the time goes into listing them.
func (t *teller) places() ([]spool.Place, error) {
	states := append(t.Tree.Where(func(s spool.State) bool {
		return s.Is(spool.Sources) && s.Tells != "" && s != spool.Installed
	}), spool.BuildAttempted, spool.Attic)
	start := time.Now()
	if !start.Before(t.next) {
		states = append(states, spool.Installed)
		defer func() { t.next = time.Now().Add(100 * time.Since(start)) }()
	}
	return t.Tree.Places(states...)
}

// say makes the message about an upload.
func (t *teller) say(p spool.Place, n spool.Name, dir string, events []spool.Event) (*mail.Message, error) {
	if len(events) == 0 {
		return nil, nil
	}
	st, err := spool.ReadTicket(dir)
	if err != nil {
		return nil, nil // gone, or fsck's business
	}
	tk, err := queue.ReadTicket(st)
	if err != nil {
		return nil, nil
	}
	switch f := (spool.Found{Place: p, Name: n}); {
	case tk.BuildArch != "":
		return t.sayJob(f, tk)
	case p.State == spool.Installed:
		return t.sayEnd(f)
	case p.State == spool.Attic && tk.Changes != "":
		if ahead, err := t.wentAhead(tk); ahead != nil || err != nil {
			return nil, err // it has its last word there
		}
	}
	at, last := t.arrival(p, events), events[len(events)-1]
	text := spool.ReadReason(dir)
	if first := tk.Changes + tk.Commands; first != "" && !(p.State == spool.Rejected && t.goesOn(tk, n)) {
		writeStatus(t.Env, t.box, tk.Account, first, p.String(), last.Time, last.Reason, text)
	}
	event := p.State.Tells
	if tk.Commands != "" && event == "" {
		event = "commands" // which were carried out, and put away
	}
	if p.State == spool.Attic && n.Arch == "" && strings.HasPrefix(last.Reason, queue.SupersededBy) {
		event = "superseded"
	}
	if event == "" || event == "superseded" && at.Time.Before(t.Tree.Since()) {
		return nil, nil
	}
	m := &mail.Message{
		Event: event, Item: mail.Thread(tk, n), Key: event + " " + at.Time.UTC().Format(time.RFC3339Nano), Of: at.Time,
		Date:    time.Now(),
		Subject: subject(event, n, tk), Body: body(event, n, tk, at, text), People: map[string]string{},
		About: mail.About{Source: tk.Source, Version: tk.Version, Suite: tk.Suite},
	}
	// Who is not known by a good signature, or by the account, has no
	// uploader: then nothing that the files say is believed.
	if tk.Uploader != "" {
		m.People[mail.Signer] = tk.Email
		m.People[mail.Maintainer] = tk.Maintainer
	}
	return m, nil
}

// wentAhead is the source in the archive of which an item was a copy, in a suite with
// Publish: source-first; nil: there is none.
func (t *teller) wentAhead(copy *queue.Ticket) (*spool.Found, error) {
	f, err := queue.InstalledSource(t.Tree, copy.Suite, spool.Name{Source: copy.Source, Version: copy.Version})
	if f == nil || err != nil {
		return nil, err
	}
	if tk, err := queue.TicketAt(t.Tree, *f); err != nil || !tk.Received.Equal(copy.Received) {
		return nil, nil
	}
	return f, nil
}

// goesOn reports whether a refused upload was sent before and the first is on its
// way, or published: its word in the status file stays.
func (t *teller) goesOn(refused *queue.Ticket, n spool.Name) bool {
	found, err := t.Tree.Find(n.ID(), t.Tree.Where(func(s spool.State) bool {
		return s.Is(spool.Sources) && !s.Is(spool.Raw)
	})...)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(found, func(f spool.Found) bool {
		first, err := queue.TicketAt(t.Tree, f)
		return err == nil && first.BuildArch == "" && first.Changes == refused.Changes && first.Account == refused.Account
	})
}

// arrival is the move that brought an item to the state of which people hear: of
// what was accepted they hear once.
func (t *teller) arrival(p spool.Place, events []spool.Event) spool.Event {
	accepted := p.State.Tells == spool.Accepted.Tells
	for _, e := range slices.Backward(events) {
		to, _ := t.Tree.PlaceOf(e.To)
		if !accepted && e.From != e.To || to.State == spool.Accepted {
			return e
		}
	}
	return events[len(events)-1]
}

func subject(event string, n spool.Name, t *queue.Ticket) string {
	switch {
	case t.Commands != "":
		return t.Commands + ": " + map[bool]string{true: "carried out", false: "refused"}[event == "commands"]
	case t.Source == "unknown":
		return t.Changes + ": " + event
	case t.Suite != "unknown":
		return fmt.Sprintf("%s %s for %s: %s", t.Source, t.Version, t.Suite, event)
	}
	return fmt.Sprintf("%s %s: %s", t.Source, t.Version, event)
}

func body(event string, n spool.Name, t *queue.Ticket, at spool.Event, text string) string {
	var b strings.Builder
	switch event {
	case "received":
		fmt.Fprintf(&b, "%s is complete and verified, and waits for a reviewer.\n\n%s\n", t.Changes, at.Reason)
	case "superseded":
		fmt.Fprintf(&b, "%s goes no further: it is %s.\n", t.Changes, at.Reason)
	case "accepted":
		fmt.Fprintf(&b, "%s was accepted by %s and goes to the build queues.\n\n%s\n", t.Changes, at.Who, at.Reason)
	default:
		if text == "" {
			text = fmt.Sprintf("%s was refused by %s.\n\n%s\n", t.Changes, at.Who, at.Reason)
		}
		b.WriteString(text)
	}
	if t.Remarks != "" && event != "rejected" {
		fmt.Fprintf(&b, "\nRemarks:\n%s\n", t.Remarks)
	}
	fmt.Fprintf(&b, "\nSource: %s\nVersion: %s\nDistribution: %s\n", t.Source, t.Version, t.Suite)
	if t.Fingerprint != "" {
		fmt.Fprintf(&b, "Signed-By: %s\n", t.Fingerprint)
	}
	fmt.Fprintf(&b, "Item: %s\n", n)
	return b.String()
}

// writeStatus writes beside where an upload arrived what became of it, if that is
// an account's own directory: one line, and the text if there is one. A later
// word stays. The directory is the account's: a name that it has made itself,
// of whatever kind, is replaced and never followed. The note is for people;
// that it cannot be written keeps nobody.
func writeStatus(env *daemon.Env, box *incoming.Box, account, name, where string, since time.Time, what, text string) {
	if account == "" {
		return
	}
	d, err := box.Hold(incoming.ParseDir(account))
	if err != nil {
		return // it has none, or none that is a directory of ours
	}
	defer d.Close()
	dir := box.Path(d)
	path := filepath.Join(dir, name+incoming.StatusSuffix)
	since = since.UTC().Truncate(time.Microsecond)
	word := spool.OneLine(fmt.Sprintf("%s since %s: %s", where, since.Format(time.RFC3339), what))
	if f, info, err := upload.Open(dir, name+incoming.StatusSuffix); err == nil {
		head := make([]byte, 4096)
		n, _ := f.Read(head)
		f.Close()
		line, _, _ := strings.Cut(string(head[:n]), "\n")
		if old := strings.SplitN(line, " ", 4); len(old) == 4 && old[1] == "since" {
			at, err := time.Parse(time.RFC3339, strings.TrimSuffix(old[2], ":"))
			// The file's own time has the parts of the second, in which more may have become of it.
			if exact := info.ModTime(); exact.Truncate(time.Second).Equal(at) {
				at = exact
			}
			if err == nil && (at.After(since) || line == word) {
				return
			}
		}
	}
	if text != "" {
		text = "\n" + text
	}
	data := []byte(word + "\n" + text)
	os.Remove(path)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o644)
	if err == nil {
		_, err = f.Write(data)
		at := unix.NsecToTimeval(since.UnixNano())
		err = cmp.Or(err, unix.Futimes(int(f.Fd()), []unix.Timeval{at, at}))
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}
	if err != nil {
		env.Log.Warn("status file", "item", name, "err", err)
	}
}
