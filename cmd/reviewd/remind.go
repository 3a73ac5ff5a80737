package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"packmill/cmd/internal/control"
	"packmill/cmd/internal/mail"
	"packmill/internal/durable"
	"packmill/spool"
)

// remindEvery is how often people are told of what lies still.
const remindEvery = 24 * time.Hour

// remindedFile has the time of the last mail, so that a restart sends no other.
const remindedFile = uploads + "/reminded"

// remindLock is held by who sends it.
const remindLock = uploads + "/reminding"

// remind tells once a day of what has waited for longer than Remind: for a person, for
// packages, or for a builder.
func (t *teller) remind(ctx context.Context) error {
	all := t.Settings.Get()
	if !slices.ContainsFunc(all.Notify, func(n control.Notice) bool { return n.Event == mail.EventOld }) {
		return nil
	}
	if err := durable.MkdirAll(t.Tree.Path(uploads), 0o775); err != nil {
		return err
	}
	// Of several processes one sends it, and the others see then that it was sent.
	lock, err := durable.Lock(t.Tree.Path(remindLock), 0o664)
	if errors.Is(err, durable.ErrLocked) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	st, err := os.Lstat(t.Tree.Path(remindedFile))
	if err == nil && time.Since(st.ModTime()) < remindEvery {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	now := time.Now()
	lines, err := t.still(now.Add(-all.General.Remind))
	if err != nil {
		return err
	}
	if len(lines) > 0 {
		m := &mail.Message{
			Event: mail.EventOld, Item: mail.EventOld, Key: now.UTC().Format(time.DateOnly), Of: now, Date: now,
			Subject: fmt.Sprintf("%d wait for long", len(lines)),
			Body:    strings.Join(lines, "\n") + "\n\npackmill why NAME says what each waits for, and what can be done.\n",
			People:  map[string]string{},
		}
		if _, err := mail.Send(ctx, t.Tree, all.Notify, m); err != nil {
			return err
		}
	}
	return durable.WriteFile(t.Tree.Path(remindedFile), nil, 0o664)
}

// still lists what lies in a state since before that time and is not decided, the oldest
// first.
func (t *teller) still(before time.Time) (lines []string, err error) {
	found, err := t.Tree.Find("", t.Tree.Where(func(s spool.State) bool {
		return s == spool.Review || s.Is(spool.Waits) || s.Is(spool.Owned|spool.Whole)
	})...)
	if err != nil {
		return nil, err
	}
	for _, f := range found {
		events, err := spool.ReadHistory(t.Tree.Path(f.Dir()))
		if err != nil || len(events) == 0 {
			continue // it has moved
		}
		if since := t.arrival(f.Place, events).Time; since.Before(before) {
			lines = append(lines, fmt.Sprintf("%s  %s in %s", since.UTC().Format(time.DateOnly), f.Name.ID(), f.Place))
		}
	}
	slices.Sort(lines)
	return lines, nil
}
