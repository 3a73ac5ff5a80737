package mail

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"packmill/cmd/internal/control"
	"packmill/cmd/internal/daemon"
	"packmill/internal/clean"
	"packmill/internal/regular"
	"packmill/queue"
	"packmill/queue/buildlog"
	"packmill/spool"
)

// The events of control/notify that are about builds.
const (
	EventLog    = "log"    // a good build, whose log waits for a person's signature
	EventFailed = "failed" // a build that came to something else
	// EventRebuilt is that packages of a source that was published before are in the
	// archive: a binNMU's, or an architecture's that had none. A mass rebuild makes many.
	EventRebuilt = "rebuilt"
	// EventGood is a good build that its builder signs: nobody has to do anything.
	EventGood = "good"
	// EventOld is that something has waited for long.
	EventOld = "old"

	eventAnswer = "answer" // what became of a signed reply; it goes to who signed
)

// asked are the events of which only those hear who name them: "*" is without.
var asked = []string{EventRebuilt, EventGood, EventOld}

// maxMailedLog is how much of a log goes by mail: of a longer one the beginning
// and the end.
const maxMailedLog = 8 << 20

// NewTeller mails the logs of builds, as control/notify says. places gives the
// directories of a state that the caller answers for.
func NewTeller(env *daemon.Env, places func(spool.State) func() ([]spool.Place, error)) *Teller {
	return &Teller{
		Tree: env.Tree, Settings: env.Settings, Log: env.Log, Once: env.Once,
		Places: func() (all []spool.Place, err error) {
			for _, s := range env.Tree.Where(func(s spool.State) bool {
				return s.Has("ARCH") && s != spool.Installed && s.Tells != ""
			}) {
				more, e := places(s)()
				all, err = append(all, more...), errors.Join(err, e)
			}
			return all, err
		},
		Lock: func(p spool.Place) string { return filepath.Dir(env.Tree.Path(p.Dir())) },
		Say: func(p spool.Place, n spool.Name, dir string, events []spool.Event) (*Message, error) {
			all := env.Settings.Get()
			// The log is long: it is not read for nobody.
			if !slices.ContainsFunc(all.Notify, func(x control.Notice) bool {
				return x.Event == "*" || x.Event == p.State.Tells
			}) {
				return nil, nil
			}
			for _, e := range slices.Backward(events) {
				if e.From != e.To {
					if !ended(env.Tree, e) {
						break
					}
					return compose(env.Tree, all, spool.Found{Place: p, Name: n}, e)
				}
			}
			return nil, nil
		},
	}
}

// ended reports whether a move tells of a build's end, or of a result that the
// archive refused; master-buildd moves jobs between the same states.
func ended(tree *spool.Tree, e spool.Event) bool {
	from, _ := tree.PlaceOf(e.From)
	return from.State == spool.Building || from.State == spool.Uploaded
}

// outcome is the state's name in the subject of the mail, as buildd has it.
func outcome(tree *spool.Tree, s spool.State, at spool.Event) string {
	from, _ := tree.PlaceOf(at.From)
	switch {
	case from.State == spool.Uploaded:
		return "refused"
	case s == spool.Built:
		return "successful"
	case s == spool.BuildAttempted:
		return "attempted"
	}
	return s.Name
}

// compose makes the mail about the build of a job that has just ended.
func compose(tree *spool.Tree, all *control.Settings, f spool.Found, at spool.Event) (*Message, error) {
	t, err := queue.TicketAt(tree, f)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // it has moved on
	}
	if err != nil {
		return nil, err
	}
	mark := t.Mark(f)
	m := &Message{
		Event: f.Place.State.Tells, Item: Thread(t, f.Name), Key: f.Place.State.Tells + " " + mark, Of: at.Time,
		Date: time.Now(),
		Subject: fmt.Sprintf("Log for %s build of %s_%s on %s (dist=%s)",
			outcome(tree, f.Place.State, at), t.Source, t.Plus(), f.Arch(), f.Place.Suite),
		Body:   Summary(tree, f, t, at) + hint(f, t, Job{mark, t.Source + "_" + t.Version, f.Arch(), f.Place.Suite}),
		People: map[string]string{Maintainer: t.Maintainer, Signer: t.Email},
		About:  About{t.Source, t.Plus(), f.Place.Suite, f.Arch()},
	}
	if t.Uploader == "" {
		m.People = map[string]string{}
	}
	s, ok := all.Suite(f.Place.Suite)
	if ok {
		var signers []string
		for _, u := range all.Signers(s, f.Arch(), t.Source, t.Component) {
			signers = append(signers, u.Email)
		}
		m.People[BuildSigners] = strings.Join(signers, ",")
	}
	_, name, named := strings.Cut(t.Builder, "/") // buildd-amd64/big, or buildd-amd64
	for _, b := range all.Builders {
		if b.Name == name || !named && slices.Contains(b.Architectures, f.Arch()) {
			m.People[Builder] = b.Email
			break
		}
	}
	dir := tree.Path(f.Dir())
	if t.Result != "" && f.Place.State == spool.Built {
		data, err := regular.Read(filepath.Join(dir, "result", t.Result), maxChanges)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		// What hides something is not shown, and nobody should sign it unseen.
		inline := bytes.Equal(clean.Escape(nil, data), data)
		m.Parts = append(m.Parts, Part{Name: t.Result, Type: "application/octet-stream", Inline: inline, Data: data})
	}
	log, err := packLog(filepath.Join(dir, buildlog.LogFile), maxMailedLog)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return nil, err
	}
	id := strings.ReplaceAll(t.Source+"_"+t.Plus(), ":", "%3a")
	m.Parts = append(m.Parts, Part{Name: fmt.Sprintf("%s_%s.log.gz", id, f.Arch()), Type: "application/gzip", Data: log})
	return m, nil
}

// TellGood mails the log of a good build, which lies at f still and is about to go on to
// the archive, to whom control/notify names for that.
func TellGood(ctx context.Context, tree *spool.Tree, all *control.Settings, f spool.Found) error {
	if !slices.ContainsFunc(all.Notify, func(x control.Notice) bool { return x.Event == EventGood }) {
		return nil
	}
	m, err := compose(tree, all, f, spool.Event{Time: time.Now(), From: f.Place.Dir(), Reason: "built and signed"})
	if m == nil || err != nil {
		return err
	}
	m.Event, m.Subject = EventGood, strings.Replace(m.Subject, f.Place.State.Name, "successful", 1)
	_, err = Send(ctx, tree, all.Notify, m)
	return err
}

// Summary says what is known of a build, for a mail or a terminal. Nothing of
// it can act on either.
func Summary(tree *spool.Tree, f spool.Found, t *queue.Ticket, at spool.Event) string {
	dir := tree.Path(f.Dir())
	var b strings.Builder
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%-14s %s\n", name+":", spool.OneLine(value))
		}
	}
	line("Source", t.Source)
	line("Version", t.Plus())
	line("Architecture", f.Arch())
	line("Distribution", f.Place.Suite)
	line("State", f.Place.State.Name)
	line("Why", at.Reason)
	line("Builder", t.Builder)
	line("Waits for", t.DepWait)
	if builds, err := buildlog.BuildsAt(dir); err == nil && len(builds) > 0 {
		last := builds[len(builds)-1]
		line("Began", last.Start.Format(time.RFC3339))
		line("Took", (time.Duration(last.Wall*1000) * time.Millisecond).Round(time.Second/10).String())
	}
	line("Result", t.Result)
	line("Item", f.Name.String())
	if text := buildlog.ErrorAt(dir); text != "" && f.Place.State != spool.Built {
		b.WriteString("\n" + text)
	}
	if t.Previous != "" {
		b.WriteString("\nVersions before did not build here:\n" + strings.TrimRight(t.Previous, "\n") + "\n")
	}
	return b.String()
}

// hint says what a person can answer, and how.
func hint(f spool.Found, t *queue.Ticket, j Job) string {
	var b strings.Builder
	switch f.Place.State {
	case spool.Built:
		fmt.Fprintf(&b, "\nIt waits for your word. Read the log; if all is well answer with the signed .changes:\n"+
			"  gpg --clearsign %s\nand the mail's text is %s.asc. Otherwise answer", t.Result, t.Result)
	case spool.BuildAttempted:
		b.WriteString("\nIt waits for your word: answer")
	default:
		return "\nIt goes on by itself when what it lacks is there; nobody has to do anything.\n"
	}
	b.WriteString(" with a signed mail that begins with one of\n")
	for _, w := range queue.WordsAt(queue.ByMail) {
		if Word(w.Name) == Sign {
			continue // said by the signed .changes
		}
		fmt.Fprintf(&b, "  %-22s %s\n", strings.TrimSpace(w.Name+" "+w.Arg), w.What)
	}
	fmt.Fprintf(&b, "and that holds this line, quoted or not:\n\n%s\n\nOr on the server: packmill build show %s_%s\n",
		j, t.Source, strings.ReplaceAll(t.Version, ":", "%3a"))
	return b.String()
}

// maxChanges bounds a .changes.
const maxChanges = 4 << 20

// packLog compresses a log, escaped: what a stranger's program printed must not
// act on the terminal of who reads it. Of one that is longer than limit, in
// bytes, the middle is left out.
func packLog(path string, limit int) ([]byte, error) {
	r, err := buildlog.Open(path)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	e := clean.NewEscaper(z)
	_, err = io.CopyN(e, r, int64(limit/2))
	if err == nil {
		// Of the rest only the end is kept.
		var tail []byte
		left, n, chunk := 0, 0, make([]byte, 256<<10)
		trim := func() {
			over := max(0, len(tail)-limit/2)
			left, tail = left+over, append(tail[:0], tail[over:]...)
		}
		for err == nil {
			n, err = r.Read(chunk)
			if tail = append(tail, chunk[:n]...); len(tail) > limit {
				trim()
			}
		}
		if trim(); left > 0 {
			fmt.Fprintf(e, "\n\n[%d bytes are left out here; the log on the server is whole]\n\n", left)
		}
		e.Write(tail)
	}
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("read log: %w", err)
	}
	if err := e.Close(); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
