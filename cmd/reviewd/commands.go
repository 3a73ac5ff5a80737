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
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"packmill/internal/durable"
	"packmill/queue"
	"packmill/spool"
	"packmill/spool/incoming"
	"packmill/spool/upload"
)

// answersFile in an item of commands has a line for each command that was
// carried out: a second run goes on behind the last.
const answersFile = "answers"

// arriveCommands claims a .commands file that is whole.
func (in *intake) arriveCommands(_ context.Context, d incoming.Dir, name string) (bool, error) {
	var st unix.Stat_t
	if unix.Lstat(in.box.Path(d, name), &st) != nil {
		return false, nil
	}
	newest := incoming.Changed(&st)
	err := upload.PeekCommands(in.box.Path(d), name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case hopeless(err):
	case err != nil || in.writing(in.box.Path(d), name):
		if time.Since(newest) < in.patience() {
			in.lookAgain(newest)
			return false, nil
		}
	}
	return in.birth(&queue.Ticket{Source: "dcut", Version: "0", Commands: name}, d, name)
}

// judgeCommands verifies a .commands file and carries it out, with the rights
// of who signed it.
func (in *intake) judgeCommands(ctx context.Context, it *spool.Item, t *queue.Ticket) (spool.Verdict, error) {
	r, err := in.currentRules()
	if err != nil {
		return spool.Verdict{}, err
	}
	if !upload.IsCommands(t.Commands) {
		return spool.Verdict{}, fmt.Errorf("ticket: %q is not the name of a .commands file", t.Commands)
	}
	limit, dear := upload.Limits{Time: in.Settings.Get().General.MaxTime}.TimeFor(0)
	ctx, stop := context.WithTimeoutCause(ctx, limit, upload.ErrCost)
	defer stop()
	if taken, err := in.takeCommands(it, t); err != nil {
		return spool.Verdict{}, err
	} else if !taken {
		return spool.Verdict{To: spool.In(spool.Attic), Reason: "another process took it"}, nil
	}
	c, findings, err := upload.ParseCommands(it.Path(uploadDir), t.Commands, r.context(ctx, in, it, t))
	if err != nil {
		return spool.Verdict{}, err
	}
	if c.Uploader != nil {
		t.Uploader, t.Email = c.Uploader.Name, c.Uploader.Email
	}
	if c.Signature != nil {
		t.Fingerprint = c.Signature.Fingerprint
	}
	if err := it.SetTicket(t.Stanza()); err != nil {
		return spool.Verdict{}, err
	}
	it.Dirty()
	if upload.Worst(findings) >= upload.Error {
		var b strings.Builder
		fmt.Fprintf(&b, "%s was refused.\n\n", t.Commands)
		for _, f := range findings {
			fmt.Fprintf(&b, "%s (%s): %s\n", f.Level, f.Check, f.Text)
		}
		return spool.Verdict{To: spool.In(spool.Rejected), Reason: firstError(findings), Text: b.String()}, nil
	}
	if err := in.remember(it, c.Hash); err != nil {
		return spool.Verdict{}, err
	}
	x := &executor{
		context: ctx, in: in, it: it, rules: r, uploader: c.Uploader, account: t.Account,
		name: t.Commands, dear: dear, drop: incoming.ParseDir(t.Drop),
	}
	defer x.close()
	return x.carryOut(c.List)
}

// takeCommands brings the .commands file into the item. It reports false if
// another process was faster.
func (in *intake) takeCommands(it *spool.Item, t *queue.Ticket) (bool, error) {
	own := it.Path(uploadDir)
	if _, err := os.Lstat(filepath.Join(own, t.Commands)); !errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	d, err := in.box.Hold(incoming.ParseDir(t.Drop))
	if err != nil {
		return false, err
	}
	defer d.Close()
	moved, err := durable.MoveAll(in.box.Path(d), own, []string{t.Commands})
	return len(moved) > 0, err
}

// executor carries out the commands of one uploader. What it takes away goes
// into the commands' own item, and with it to the attic.
type executor struct {
	held     []incoming.Dir
	context  context.Context
	in       *intake
	it       *spool.Item
	rules    *rules
	uploader *upload.Uploader
	account  string
	name     string // of the .commands file
	dear     string // what is said when they take too long
	drop     incoming.Dir
}

// carryOut does what the commands say, one after the other, and writes down the answers.
func (x *executor) carryOut(list []upload.Command) (spool.Verdict, error) {
	done, _ := os.ReadFile(x.it.Path(answersFile))
	for i, cmd := range list {
		if i < bytes.Count(done, []byte("\n")) {
			continue
		}
		answer, err := x.do(cmd)
		if errors.Is(err, upload.ErrCost) {
			return spool.Verdict{
				To: spool.In(spool.Rejected), Reason: x.name + ": " + x.dear,
				Text: fmt.Sprintf("%s was carried out in part: %s.\n\n%s", x.name, x.dear, done),
			}, nil
		}
		if err != nil {
			return spool.Verdict{}, err
		}
		line := spool.OneLine(fmt.Sprintf("%s %s: %s", cmd.Verb, cmd.Pattern, answer)) + "\n"
		if err := durable.Append(x.it.Path(answersFile), []byte(line), 0o664); err != nil {
			return spool.Verdict{}, err
		}
	}
	answers, err := os.ReadFile(x.it.Path(answersFile))
	if err != nil {
		return spool.Verdict{}, err
	}
	return spool.Verdict{
		To: spool.In(spool.Attic), Reason: fmt.Sprintf("%d commands of %s", len(list), x.uploader.Name),
		Text: fmt.Sprintf("%s was carried out:\n\n%s", x.name, answers),
	}, nil
}

// hold opens those of the drop directories that there are, until close.
func (x *executor) hold(dirs ...incoming.Dir) (out []incoming.Dir) {
	for _, d := range dirs {
		if d, err := x.in.box.Hold(d); err == nil {
			out, x.held = append(out, d), append(x.held, d)
		}
	}
	return out
}

func (x *executor) close() {
	for _, d := range x.held {
		d.Close()
	}
	x.held = nil
}

func (x *executor) do(c upload.Command) (string, error) {
	switch c.Verb {
	case upload.Remove:
		return x.remove(c)
	case upload.Cancel:
		return x.cancel(c)
	case upload.Reschedule:
		return x.reschedule(c)
	}
	return "not known", nil
}

// remove takes waiting files away.
func (x *executor) remove(c upload.Command) (string, error) {
	dirs := []incoming.Dir{incoming.ParseDir(x.account)}
	switch {
	case c.Delayed >= 0:
		dirs = []incoming.Dir{dirs[0].Delayed(c.Delayed)}
	case c.Search:
		dirs = x.in.box.Of(x.account)
	}
	var gone, others []string
	for _, d := range x.hold(dirs...) {
		owners, err := x.owners(d)
		if err != nil {
			return "", err
		}
		var names []string
		for _, n := range x.in.box.Names(d) {
			st, err := os.Lstat(x.in.box.Path(d, n))
			if err != nil || st.IsDir() || !c.Matches(n) || strings.HasSuffix(n, incoming.StatusSuffix) {
				continue
			}
			if !x.may(d, n, owners) {
				others = append(others, n)
				continue
			}
			names = append(names, n)
		}
		moved, err := x.away(d, names)
		if err != nil {
			return "", err
		}
		gone = append(gone, moved...)
	}
	switch {
	case len(gone)+len(others) == 0:
		return "no such file waits", nil
	case len(others) > 0:
		return fmt.Sprintf("removed %s; of another uploader, and not touched: %s", list(gone), list(others)), nil
	}
	return "removed " + list(gone), nil
}

func list(names []string) string {
	if len(names) == 0 {
		return "nothing"
	}
	return strings.Join(names, " ")
}

// away moves files of a drop directory into the item.
func (x *executor) away(d incoming.Dir, names []string) ([]string, error) {
	if len(names) == 0 {
		return nil, nil
	}
	to := x.it.Path(uploadDir, "from-"+strings.ReplaceAll(d.String(), "/", "_"))
	if err := durable.MkdirAll(to, 0o775); err != nil {
		return nil, err
	}
	return durable.MoveAll(x.in.box.Path(d), to, names)
}

// may reports whether a waiting file is the uploader's to take away. What lies in
// an account's own directory is. In the shared one it is a .changes that he signed;
// of what else lies there, and that nobody else's .changes lists, what came from the
// same user as the commands, and is named after a source for which he has a right:
// that his own .changes lists it proves nothing.
func (x *executor) may(d incoming.Dir, name string, owners map[string]string) bool {
	if d.Account != "" {
		return d.Account == x.account
	}
	whose := owners[name]
	if whose != "" && whose != x.uploader.Name {
		return false
	}
	if whose != "" && incoming.IsChanges(name) {
		return true
	}
	var file, commands unix.Stat_t
	if unix.Lstat(x.in.box.Path(d, name), &file) != nil || unix.Lstat(x.it.Path(uploadDir, x.name), &commands) != nil {
		return false
	}
	source, _, _ := strings.Cut(name, "_")
	return file.Uid == commands.Uid && x.uploader.May(source)
}

// owners says whose the files of a drop directory are, as far as signatures
// tell: the uploader's name, by file.
func (x *executor) owners(d incoming.Dir) (map[string]string, error) {
	out := map[string]string{}
	for _, n := range x.in.box.Names(d) {
		if !incoming.IsChanges(n) {
			continue
		}
		if x.context.Err() != nil {
			return nil, context.Cause(x.context)
		}
		who := x.owner(d, n)
		files, err := x.in.box.Peek(d, n)
		if err != nil || who == "" {
			out[n] = who
			continue
		}
		out[n] = who
		for _, f := range files {
			if out[f.Name] == "" || out[f.Name] == x.uploader.Name {
				out[f.Name] = who
			}
		}
	}
	return out, nil
}

// owner is who signed a waiting .changes, or whose account it lies in; "" if
// nobody can tell.
func (x *executor) owner(d incoming.Dir, name string) string {
	f, _, err := upload.Open(x.in.box.Path(d), name)
	if err != nil {
		return ""
	}
	defer f.Close()
	var data bytes.Buffer
	if _, err := data.ReadFrom(io.LimitReader(f, upload.MaxChanges)); err != nil || x.rules.ring == nil {
		return ""
	}
	_, sig, err := x.rules.ring.VerifyClear(data.Bytes(), time.Now())
	if err != nil {
		return ""
	}
	for _, u := range x.rules.uploaders {
		if slices.Contains(u.Fingerprints, sig.Fingerprint) {
			return u.Name
		}
	}
	return ""
}

// deferred finds a .changes in the DELAYED directories.
func (x *executor) deferred(name string) (d incoming.Dir, files []string, refusal string, err error) {
	for _, d := range x.hold(x.in.box.Of(x.account)[1:]...) {
		if _, err := os.Lstat(x.in.box.Path(d, name)); err != nil || !incoming.IsChanges(name) {
			continue
		}
		if !x.may(d, name, map[string]string{name: x.owner(d, name)}) {
			return d, nil, "it is another uploader's", nil
		}
		listed, err := x.in.box.Peek(d, name)
		if err != nil {
			return d, []string{name}, "", nil
		}
		owners, err := x.owners(d)
		if err != nil {
			return d, nil, "", err
		}
		for _, f := range listed {
			if x.may(d, f.Name, owners) {
				files = append(files, f.Name)
			}
		}
		return d, append(files, name), "", nil
	}
	return d, nil, "no such upload is deferred", nil
}

// cancel takes a deferred upload away, or one that waits for review or for the
// queues.
func (x *executor) cancel(c upload.Command) (string, error) {
	d, files, refusal, err := x.deferred(c.Pattern)
	if err != nil {
		return "", err
	}
	if refusal == "" {
		_, err := x.away(d, files)
		return "cancelled in " + d.String(), err
	}
	found, err := x.in.Tree.Find("", spool.Review, spool.Accepted)
	if err != nil {
		return "", err
	}
	for _, f := range found {
		st, err := spool.ReadTicket(x.in.Tree.Path(f.Dir()))
		if err != nil && !queue.Damaged(err) {
			return "", err
		}
		if err != nil || st.Get("Changes") != c.Pattern {
			continue
		}
		if st.Get("Uploader") != x.uploader.Name {
			return "it is another uploader's", nil
		}
		it, err := x.in.Tree.Claim(f.Place, f.Name.String())
		if errors.Is(err, spool.ErrGone) {
			continue
		}
		if err != nil {
			return "", err
		}
		from := it.Place
		err = it.Move(spool.Reviewd, x.in.Name,
			spool.Verdict{To: spool.In(spool.Attic), Reason: "cancelled by its uploader, " + x.uploader.Name})
		it.Release()
		if err != nil {
			return "", err
		}
		return "cancelled in " + from.String(), nil
	}
	if refusal == "no such upload is deferred" {
		refusal = "no such upload is deferred or waits for review"
	}
	return refusal, nil
}

// reschedule makes a deferred upload wait so many days from now.
func (x *executor) reschedule(c upload.Command) (string, error) {
	d, files, refusal, err := x.deferred(c.Pattern)
	if err != nil {
		return "", err
	}
	if refusal != "" {
		return refusal, nil
	}
	to := d.Delayed(c.Days)
	if to.Rel != d.Rel {
		above := x.hold(incoming.Dir{Rel: filepath.Dir(to.Rel)})
		if len(above) == 0 {
			return "", fmt.Errorf("%s: %w", filepath.Dir(to.String()), fs.ErrNotExist)
		}
		if err := durable.MkdirAll(x.in.box.Path(above[0], filepath.Base(to.Rel)), 0o775); err != nil {
			return "", err
		}
		there := x.hold(to)
		if len(there) == 0 {
			return "", fmt.Errorf("%s: %w", to, fs.ErrNotExist)
		}
		to = there[0]
		if _, err := durable.MoveAll(x.in.box.Path(d), x.in.box.Path(to), files); errors.Is(err, fs.ErrExist) {
			return "a file of the same name waits in " + to.String() + " already", nil
		} else if err != nil {
			return "", err
		}
	}
	return "waits in " + to.String() + ", from now", nil
}
