package main

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"packmill/cmd/internal/mail"
	"packmill/queue"
	"packmill/queue/buildlog"
	"packmill/spool"
)

// end is what an upload has come to so far: what of it is published, what was not
// built, and what is still to come.
type end struct {
	source spool.Found   // in installed, or where it waits for its jobs
	ticket *queue.Ticket // its own
	since  time.Time     // when the last of it came to where it lies
	in     []string      // architectures, and spool.SourceArch
	failed []string      // sentences
	later  []string      // architectures, with the job's state
	before []string      // of in: published by a Packmill that told nobody of it
}

// sayJob tells of a job that has come to an end: by mail, if it is published, and in
// the status file of the upload.
func (t *teller) sayJob(f spool.Found, job *queue.Ticket) (*mail.Message, error) {
	switch {
	case f.Place.State != spool.Installed && f.Place.State != spool.BuildAttempted:
		return nil, nil
	case job.BinNMU == 0 && !queue.FromArchive(job):
		src, err := queue.SourceOf(t.Tree, f.Place.Suite, f.Name)
		if src == nil || err != nil {
			return nil, err
		}
		return t.sayEnd(*src)
	case f.Place.State == spool.BuildAttempted:
		return nil, nil // the uploader has no part in it
	}
	src, err := queue.InstalledSource(t.Tree, f.Place.Suite, f.Name)
	if src == nil || err != nil {
		return nil, err
	}
	e, err := t.endOf(*src)
	if e == nil || err != nil || e.since.Before(t.Tree.Since()) {
		return nil, err
	}
	m := t.message(e, mail.EventRebuilt, f.Arch()+" "+job.Plus())
	id := job.Source + " " + job.Plus()
	m.Version, m.Arch = job.Plus(), f.Arch()
	m.Subject = fmt.Sprintf("%s for %s: rebuilt on %s", id, f.Place.Suite, f.Arch())
	m.Body = fmt.Sprintf("%s is published in %s for %s.\n\n%s\n", id, f.Place.Suite, f.Arch(), job.BinNMUText)
	return m, nil
}

// sayEnd tells what an upload has come to: everything in its status file, and by mail
// what is published and was not told.
func (t *teller) sayEnd(src spool.Found) (*mail.Message, error) {
	e, err := t.endOf(src)
	if e == nil || err != nil {
		return nil, err
	}
	if e.ticket.Changes != "" {
		writeStatus(t.Env, t.box, e.ticket.Account, e.ticket.Changes, src.Place.String(), e.since, e.line(), e.text())
	}
	var told []string
	event := spool.Installed.Tells
	for _, line := range mail.Told(t.Tree.Path(src.Dir())) {
		if words := strings.Fields(line); len(words) > 0 && words[0] == event {
			told = append(told, words[1:]...)
		}
	}
	told = append(told, e.before...)
	fresh := slices.DeleteFunc(slices.Clone(e.in), func(a string) bool { return slices.Contains(told, a) })
	if len(fresh) == 0 {
		return nil, nil
	}
	what := strings.Join(fresh, " ")
	m := t.message(e, event, what)
	m.Subject = fmt.Sprintf("%s %s for %s: published (%s)", e.ticket.Source, e.ticket.Version, src.Place.Suite, what)
	m.Body = fmt.Sprintf("%s %s is %s", e.ticket.Source, e.ticket.Version, e.text())
	return m, nil
}

// message is a mail about what is published of an upload. what tells it from others
// of the event: it is noted in the source, so that it is said once, whichever of its
// jobs gave the occasion.
func (t *teller) message(e *end, event, what string) *mail.Message {
	m := &mail.Message{
		Event: event, Item: mail.Thread(e.ticket, e.source.Name), Key: event + " " + what, Told: t.Tree.Path(e.source.Dir()),
		Of: e.since, Date: time.Now(), People: map[string]string{},
		About: mail.About{Source: e.ticket.Source, Version: e.ticket.Version, Suite: e.source.Place.Suite},
	}
	if e.ticket.Uploader != "" {
		m.People[mail.Signer] = e.ticket.Email
		m.People[mail.Maintainer] = e.ticket.Maintainer
	}
	return m
}

// endOf looks what an upload has come to; nil says that it is just not there, or that
// its suite is no more. mail.ErrSoon: a job of it is about to be in installed.
func (t *teller) endOf(src spool.Found) (*end, error) {
	s, ok := t.Settings.Get().Suite(src.Place.Suite)
	tk, err := queue.TicketAt(t.Tree, src)
	if !ok || errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	jobs, err := queue.JobsOf(t.Tree, s.Name, append(slices.Clone(s.Architectures), "all"), src.Name)
	if err != nil {
		return nil, err
	}
	e := &end{source: src, ticket: tk}
	if src.Place.State == spool.Installed {
		e.published(t.Tree, src, append([]string{spool.SourceArch}, tk.Has...)...)
	}
	for _, f := range jobs {
		if queue.Filing(t.Tree, f) {
			return nil, mail.ErrSoon
		}
		e.add(t.Tree, f)
	}
	return e, nil
}

// add notes where a job is.
func (e *end) add(tree *spool.Tree, f spool.Found) {
	switch s := f.Place.State; {
	case s == spool.Installed:
		e.published(tree, f, f.Arch())
	case s == spool.BuildAttempted || s == spool.Failed:
		_, why := e.came(tree, f)
		if builds, _ := buildlog.BuildsAt(tree.Path(f.Dir())); len(builds) > 0 && builds[len(builds)-1].Error != nil {
			why = builds[len(builds)-1].Error.Text
		}
		e.failed = append(e.failed, fmt.Sprintf("failed on %s: %.200s", f.Arch(), strings.Join(strings.Fields(why), " ")))
	case s == spool.Uploaded || !s.Is(spool.Settled):
		e.later = append(e.later, fmt.Sprintf("%s (%s)", f.Arch(), s))
	}
}

// published notes what of an item is in the archive.
func (e *end) published(tree *spool.Tree, f spool.Found, archs ...string) {
	e.in = append(e.in, archs...)
	if at, _ := e.came(tree, f); at.Before(tree.Since()) {
		e.before = append(e.before, archs...)
	}
}

// came notes when an item came to where it lies, and says why.
func (e *end) came(tree *spool.Tree, f spool.Found) (at time.Time, why string) {
	events, _ := spool.ReadHistory(tree.Path(f.Dir()))
	for _, x := range slices.Backward(events) {
		if x.From != x.To {
			if x.Time.After(e.since) {
				e.since = x.Time
			}
			return x.Time, x.Reason
		}
	}
	return time.Time{}, ""
}

// line is all of it in one line.
func (e *end) line() string {
	var parts []string
	if len(e.in) > 0 {
		parts = append(parts, fmt.Sprintf("published in %s, %s at %s, %s",
			e.source.Place.Suite, strings.Join(e.in, " "), e.since.UTC().Format(time.RFC3339), e.install()))
	}
	return strings.Join(append(parts, e.rest()...), "; ")
}

// text is the same for a mail, a line each.
func (e *end) text() string {
	var b strings.Builder
	if len(e.in) > 0 {
		in := strings.Join(e.in, " ")
		fmt.Fprintf(&b, "published in %s: %s.\n\n  apt update && %s\n", e.source.Place.Suite, in, e.install())
	}
	for _, x := range e.rest() {
		fmt.Fprintf(&b, "\n%s\n", x)
	}
	return b.String()
}

// rest is what is not published.
func (e *end) rest() []string {
	out := slices.Clone(e.failed)
	if len(e.later) > 0 {
		out = append(out, "still to come: "+strings.Join(e.later, ", "))
	}
	return out
}

// install is what a client of the archive says to have it.
func (e *end) install() string {
	const most = 8
	names := e.ticket.Binary
	if len(e.in) == 1 && e.in[0] == spool.SourceArch || len(names) == 0 {
		return "apt source " + e.ticket.Source + "=" + e.ticket.Version
	}
	return "apt install " + strings.Join(names[:min(most, len(names))], " ")
}
