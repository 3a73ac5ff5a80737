package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/incoming"
	"packmill/cmd/internal/notify"
	"packmill/queue"
	"packmill/spool"
	"packmill/spool/durable"
	"packmill/spool/upload"
)

// toldFile in an item has a line for each thing that was mailed about it: the
// event and the time of the move that it told of. It is written after the
// mail, so a crash between the two mails twice, and never not at all.
const toldFile = "told"

// Timing of the teller.
const (
	tellEvery  = time.Second
	tellFirst  = time.Minute // after a sendmail that failed; doubling
	tellLast   = time.Hour
	tellFor    = 7 * 24 * time.Hour // what is older nobody wants to be told
	mtimeGrain = 2 * time.Second
)

// teller mails people about what became of their uploads, and writes status
// files. It looks at where things lie and at what was told, so it does not
// matter who moved them, or whether it ran then. It locks no item, and a
// sendmail that fails or hangs stops nobody but it.
type teller struct {
	*daemon.Env
	box   *incoming.Box
	lock  *os.File                        // on the directory spool: one of us tells
	dirs  map[spool.Place]time.Time       // a place's mtime when it was last read
	done  map[spool.Place]map[string]bool // items of which everything is told
	again map[string]retry                // by the item's path
}

type retry struct {
	at time.Time
	by time.Duration
}

func newTeller(env *daemon.Env) *teller {
	return &teller{Env: env, box: &incoming.Box{Tree: env.Tree},
		dirs: map[spool.Place]time.Time{}, done: map[spool.Place]map[string]bool{}, again: map[string]retry{}}
}

// run tells until ctx ends. It returns no error: what goes wrong is logged and
// tried again.
func (t *teller) run(ctx context.Context) {
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	for {
		t.round(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// serve runs the teller beside the daemon's loops; with --once it tells when
// they have ended.
func (t *teller) serve(ctx context.Context, loops func(context.Context) error) error {
	if t.Once {
		err := loops(ctx)
		t.round(ctx)
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { t.run(ctx) })
	err := loops(ctx)
	cancel()
	wg.Wait()
	return err
}

// mine takes the lock that says who of several daemons tells.
func (t *teller) mine() bool {
	if t.lock != nil {
		return true
	}
	f, err := os.Open(t.Tree.Path("spool"))
	if err != nil {
		return false
	}
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		f.Close()
		return false
	}
	t.lock = f
	return true
}

// round looks at every place that has changed since it was last read, or has
// something left to be told.
func (t *teller) round(ctx context.Context) {
	if !t.mine() {
		return
	}
	places, err := t.Tree.Places(spool.Review, spool.Accepted, spool.Rejected, spool.Master, spool.Uploaded, spool.Attic)
	if err != nil {
		t.Log.Error("scan", "err", err)
	}
	for _, p := range places {
		var st unix.Stat_t
		if unix.Stat(t.Tree.Path(p.Dir()), &st) != nil {
			continue
		}
		mtime := time.Unix(st.Mtim.Unix())
		if t.dirs[p].Equal(mtime) {
			continue
		}
		now := time.Now()
		names, err := t.Tree.List(p)
		if err != nil {
			t.Log.Error("tell", "state", p.State, "err", err)
			continue
		}
		old, done, whole := t.done[p], map[string]bool{}, true
		for _, name := range names {
			if ctx.Err() != nil {
				return
			}
			if old[name] || t.tell(ctx, p, name) {
				done[name] = true
			} else {
				whole = false
			}
		}
		t.done[p] = done
		if whole && now.Sub(mtime) > mtimeGrain {
			t.dirs[p] = mtime
		}
	}
}

// tell says what there is to say of an item, and reports whether that is all.
func (t *teller) tell(ctx context.Context, p spool.Place, name string) bool {
	dir := t.Tree.Path(p.Dir(), name)
	if r, ok := t.again[dir]; ok && time.Now().Before(r.at) {
		return false
	}
	at, last, ok := t.arrival(p, name)
	if !ok {
		return false
	}
	n, err := spool.ParseName(name)
	if err != nil || at.Time.IsZero() || time.Since(at.Time) > tellFor {
		return true
	}
	st, err := spool.ReadTicket(dir)
	if err != nil {
		return true // gone, or fsck's business
	}
	tk, err := queue.ReadTicket(st)
	if err != nil || tk.BuildArch != "" {
		return true // a build's job is not an upload
	}
	text := spool.Waiting(dir)
	if first := tk.Changes + tk.Commands; first != "" {
		writeStatus(t.Env, t.box, tk.Account, first, p.String(), last.Time, last.Reason, text)
	}
	event := ""
	switch p.State {
	case spool.Review:
		event = "received"
	case spool.Rejected:
		event = "rejected"
	case spool.Attic:
		if tk.Commands != "" {
			event = "commands"
		}
	default:
		event = "accepted"
	}
	key := max(event, "-") + " " + at.Time.UTC().Format(time.RFC3339Nano)
	told, _ := os.ReadFile(filepath.Join(dir, toldFile))
	for line := range strings.Lines(string(told)) {
		if strings.TrimSpace(line) == key {
			return true
		}
	}
	if event != "" && !t.mail(ctx, dir, key, event, p, n, tk, at, text) {
		return false
	}
	delete(t.again, dir)
	// The item may have moved on: then its next place tells again, once.
	if f, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0); err == nil {
		defer unix.Close(f)
		if err := durable.Append(fmt.Sprintf("/proc/self/fd/%d/%s", f, toldFile), []byte(key+"\n"), 0o664); err != nil {
			t.Log.Error("tell", "item", name, "state", p.State, "err", err)
		}
	}
	return true
}

// arrival is the move that brought an item to the state it is told of, and the
// last one. A move
// that a person made with mv is written into the history first, which needs the lock: not
// ok says that it is held, or that the item has gone.
func (t *teller) arrival(p spool.Place, name string) (at, last spool.Event, ok bool) {
	dir := t.Tree.Path(p.Dir(), name)
	events, err := spool.ReadHistory(dir)
	if err != nil {
		return at, last, true
	}
	if len(events) == 0 || events[len(events)-1].To != p.Dir() {
		it, err := t.Tree.Claim(p, name)
		if err != nil {
			return at, last, false
		}
		it.Release()
		if events, err = spool.ReadHistory(dir); err != nil {
			return at, last, true
		}
	}
	if len(events) == 0 {
		return at, last, true
	}
	last = events[len(events)-1]
	accepted := p.State == spool.Accepted || p.State == spool.Master || p.State == spool.Uploaded
	for i := len(events) - 1; i >= 0; i-- {
		to, ok := spool.PlaceOf(events[i].To)
		if !accepted && events[i].From != events[i].To || ok && to.State == spool.Accepted {
			return events[i], last, true
		}
	}
	return at, last, true
}

// mail sends what there is to send, and reports whether that is done.
func (t *teller) mail(ctx context.Context, dir, key, event string, p spool.Place, n spool.Name, tk *queue.Ticket, at spool.Event, text string) bool {
	m := &notify.Message{
		Event: event, Item: tk.Received.UTC().Format(time.RFC3339Nano) + "_" + n.ID(), Key: key, Date: time.Now(),
		Subject: subject(event, n, tk), Body: body(event, n, tk, at, text), People: map[string]string{},
	}
	// Who is not known by a good signature, or by the account, has no
	// uploader: then nothing that the files say is believed.
	if tk.Uploader != "" {
		m.People[notify.Signer] = tk.Email
		m.People[notify.Maintainer] = tk.Maintainer
	}
	sent, err := notify.Send(ctx, t.Settings.Get().Notify, m)
	if err != nil {
		if ctx.Err() != nil {
			return false
		}
		r := t.again[dir]
		r.by = min(max(tellFirst, r.by*2), tellLast)
		r.at = time.Now().Add(r.by)
		t.again[dir] = r
		t.Log.Error("mail", "item", n.String(), "state", p.State, "suite", p.Suite, "err", err, "again", r.by)
		return false
	}
	if sent > 0 {
		t.Log.Info("told", "item", n.String(), "state", p.State, "suite", p.Suite, "reason", event, "to", sent)
	}
	return true
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
	dir := box.Path(incoming.ParseDir(account))
	path := filepath.Join(dir, name+incoming.StatusSuffix)
	since = since.UTC().Truncate(time.Second)
	if f, _, err := upload.Open(dir, name+incoming.StatusSuffix); err == nil {
		head := make([]byte, 512)
		n, _ := f.Read(head)
		f.Close()
		line, _, _ := strings.Cut(string(head[:n]), "\n")
		if old := strings.SplitN(line, " ", 4); len(old) == 4 && old[1] == "since" {
			at, err := time.Parse(time.RFC3339, strings.TrimSuffix(old[2], ":"))
			if err == nil && (at.After(since) || at.Equal(since) && old[0] == where) {
				return
			}
		}
	}
	if text != "" {
		text = "\n" + text
	}
	data := []byte(spool.OneLine(fmt.Sprintf("%s since %s: %s", where, since.Format(time.RFC3339), what)) + "\n" + text)
	os.Remove(path)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o644)
	if err == nil {
		_, err = f.Write(data)
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}
	if err != nil {
		env.Log.Warn("status file", "item", name, "err", err)
	}
}
