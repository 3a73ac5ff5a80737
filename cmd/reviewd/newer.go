package main

import (
	"errors"
	"fmt"
	"time"

	"packmill/internal/policy"
	"packmill/queue"
	"packmill/spool"
	"packmill/spool/upload"
)

// waitingUploads finds what a new upload takes the place of: of those of the
// same source that wait for review, the ones in the same suite. One of a higher
// version, or somebody else's of the same version, refuses the new one.
func (in *intake) waitingUploads(
	u *upload.Upload, found []spool.Found,
) (older []spool.Found, findings []upload.Finding, err error) {
	for _, f := range found {
		if f.Place.Suite != u.Suite.Name {
			continue
		}
		who := ""
		st, err := spool.ReadTicket(in.Tree.Path(f.Dir()))
		if err == nil {
			who = st.Get("Uploader")
		} else if !queue.Damaged(err) {
			return nil, nil, err
		}
		c := policy.CompareVersions(u.Changes.Version, f.Name.Version)
		switch {
		case c < 0:
			findings = append(findings, upload.Finding{Check: "waiting", Level: upload.Error,
				Text: fmt.Sprintf("version %s of it waits for review already; upload a higher version", f.Name.Version)})
		case c == 0 && who != u.Uploader.Name:
			findings = append(findings, upload.Finding{Check: "waiting", Level: upload.Error,
				Text: fmt.Sprintf("version %s of another uploader waits for review already; upload a higher version",
					f.Name.Version)})
		default:
			older = append(older, f)
		}
	}
	return older, findings, nil
}

// takePlace moves the older uploads to the attic and gives a verdict with the
// place in the order that the oldest of them had. The place is written down
// first, so that a crash between the two does not lose it. Where a reviewer
// was faster with one of them, ErrBusy: what he did decides about the new one.
func (in *intake) takePlace(it *spool.Item, t *queue.Ticket, older []spool.Found) (spool.Verdict, error) {
	v := spool.Verdict{Since: t.Since}
	since := t.Since
	var olds []*spool.Item
	for _, f := range older {
		old, err := in.Tree.Claim(f.Place, f.Name.String())
		if err != nil {
			return v, faster(f, err)
		}
		defer old.Release()
		olds = append(olds, old)
		if since.IsZero() || f.Name.Time.Before(since) {
			since = f.Name.Time
		}
		v.Class, v.Renew = f.Name.Class, true
	}
	if since != t.Since {
		t.Since, v.Since = since, since
		if err := it.SetTicket(t.Stanza()); err != nil {
			return v, err
		}
	}
	for i, old := range olds {
		err := old.Move(spool.Reviewd, in.Name,
			spool.Verdict{To: spool.In(spool.Attic), Reason: queue.SupersededBy + it.Name.ID()})
		if err != nil {
			return v, faster(older[i], err)
		}
	}
	if !v.Since.IsZero() {
		v.Reason = "complete and verified; takes the place of an older upload that waited since " +
			v.Since.UTC().Format(time.RFC3339)
	}
	return v, nil
}

// faster makes busy of gone: the new upload is judged again.
func faster(f spool.Found, err error) error {
	if errors.Is(err, spool.ErrGone) {
		err = spool.ErrBusy
	}
	return fmt.Errorf("%s: %w", f.Dir(), err)
}
