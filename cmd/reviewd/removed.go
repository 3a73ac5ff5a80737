package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"packmill/archive"
	"packmill/cmd/internal/mail"
	"packmill/queue"
	"packmill/spool"
)

// removed tells of sources that a person took out of the archive: by mail, and in the status files of their uploads.
func (t *teller) removed(ctx context.Context) error {
	return mail.Removals(t.Tree, func(r *mail.Removal) error {
		if err := t.tellRemoved(ctx, r); err != nil {
			return fmt.Errorf("tell of %s %s: %w", r.Source, r.Version, err)
		}
		return nil
	})
}

func (t *teller) tellRemoved(ctx context.Context, r *mail.Removal) error {
	versions, err := t.archive.Versions(ctx, r.Source)
	if err != nil && !errors.Is(err, archive.ErrNoSuite) {
		return err
	}
	if slices.ContainsFunc(versions, func(v archive.Version) bool {
		return v.Suite == r.Suite && v.Version == r.Version
	}) {
		return nil // it was refused, or cut off before; or is there again
	}
	m := &mail.Message{
		Event: mail.EventRemoved, Item: r.Source + "_" + r.Version, Key: r.At.Format(time.RFC3339Nano), Date: time.Now(),
		About:   mail.About{Source: r.Source, Version: r.Version, Suite: r.Suite},
		Subject: fmt.Sprintf("%s %s for %s: removed", r.Source, r.Version, r.Suite),
		Body: fmt.Sprintf("%s took %s %s out of %s, with what was built of it. "+
			"Clients that have it keep it.\n", r.Who, r.Source, r.Version, r.Suite),
		People: map[string]string{},
	}
	f, err := queue.InstalledSource(t.Tree, r.Suite, spool.Name{Source: r.Source, Version: r.Version})
	if err != nil {
		return err
	}
	if f != nil { // of what was imported nobody is known who sent it
		tk, err := queue.TicketAt(t.Tree, *f)
		if err != nil {
			return err
		}
		m.Item = mail.Thread(tk, f.Name)
		if tk.Uploader != "" {
			m.People = map[string]string{mail.Signer: tk.Email, mail.Maintainer: tk.Maintainer}
		}
		if tk.Changes != "" {
			writeStatus(t.Env, t.box, tk.Account, tk.Changes, f.Place.String(), r.At, "removed from "+r.Suite+" by "+r.Who, "")
		}
	}
	_, err = mail.Send(ctx, t.Tree, t.Settings.Get().Notify, m)
	return err
}
