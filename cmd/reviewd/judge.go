package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"packmill/internal/durable"
	"packmill/queue"
	"packmill/spool"
	"packmill/spool/statement"
	"packmill/spool/upload"
)

// judge takes the claimed upload's files, checks everything, and says where it
// goes. It may run again after a crash at any point: as long as the item has
// its upload directory, the copies are made anew from it.
func (in *intake) judge(ctx context.Context, it *spool.Item) (spool.Verdict, error) {
	st, err := it.Ticket()
	if err != nil {
		return spool.Verdict{}, err
	}
	t, err := queue.ReadTicket(st)
	if err != nil {
		return spool.Verdict{}, err
	}
	if _, why := queue.Misfit(in.Tree, spool.Found{Place: it.Place, Name: it.Name}, t); why != "" {
		return spool.Verdict{
			To: spool.In(spool.Rejected), Reason: why,
			Text: "This was moved here by hand. It cannot be judged: " + why + ".\n",
		}, nil
	}
	if in.outrun(it) {
		return spool.Verdict{}, fmt.Errorf("an older upload of it is being judged: %w", spool.ErrBusy)
	}
	if err := in.alone(it); err != nil {
		return spool.Verdict{}, err
	}
	if t.Commands != "" {
		return in.judgeCommands(ctx, it, t)
	}
	if t.Changes == "" {
		return spool.Verdict{
			To: spool.In(spool.Attic), Reason: "strays: no .changes listed them for longer than Keep-Strays",
		}, nil
	}
	limit, dear := upload.Limits{Time: in.Settings.Get().General.MaxTime}.TimeFor(in.bulk(it, t))
	ctx, stop := context.WithTimeoutCause(ctx, limit, upload.ErrCost)
	defer stop()
	j := &judgement{intake: in, it: it, t: t, dear: dear}
	if early, err := j.findOut(ctx); err != nil || early != nil {
		return *cmp.Or(early, &spool.Verdict{}), err
	}
	if upload.Worst(j.findings) >= upload.Error {
		return j.refuse()
	}
	step("judged", t.Changes)
	if err := j.keep(); err != nil {
		return spool.Verdict{}, err
	}
	return j.letIn(ctx)
}

// between is for tests, and nil: it is called at each step of intake between a check and
// the use of what was checked, with the name of the .changes.
var between func(step, changes string)

func step(name, changes string) {
	if between != nil {
		between(name, changes)
	}
}

// judgement is what is known of an upload while it is judged.
type judgement struct {
	*intake
	it       *spool.Item
	t        *queue.Ticket
	dear     string // what is said of an upload that takes too long
	u        *upload.Upload
	findings []upload.Finding
	older    []spool.Found // uploads of the same source that wait for review
}

// findOut examines the upload and fills its ticket. A verdict says that there
// is nothing to judge, or not yet.
func (j *judgement) findOut(ctx context.Context) (*spool.Verdict, error) {
	r, err := j.currentRules()
	if err != nil {
		return nil, err
	}
	var inReview []spool.Found
	j.u, j.findings, inReview, err = j.examine(ctx, j.it, j.t, r)
	switch {
	case errors.Is(err, errTaken):
		return &spool.Verdict{To: spool.In(spool.Attic), Reason: "another process took the upload"}, nil
	case errors.Is(err, errWriting):
		later := spool.Stay(stillWriting, "somebody writes to it")
		return &later, nil
	case errors.Is(err, upload.ErrCost):
		j.findings = append(j.findings,
			upload.Finding{Check: "cost", Level: upload.Error, Text: j.t.Changes + ": " + j.dear})
	case err != nil:
		return nil, err
	}
	if j.u.Suite != nil && upload.Worst(j.findings) < upload.Error {
		older, more, err := j.waitingUploads(j.u, inReview)
		if err != nil {
			return nil, err
		}
		j.older, j.findings = older, append(j.findings, more...)
	}
	fill(j.t, j.u, j.findings)
	return nil, nil
}

// refuse sends the upload to rejected. What was not copied, or is somebody
// else's, goes with the item: nothing that a person sent is deleted.
func (j *judgement) refuse() (spool.Verdict, error) {
	// Of an earlier judgement, before it was requeued.
	if err := durable.Remove(j.it.Path(statement.File)); err != nil {
		return spool.Verdict{}, err
	}
	if err := j.it.SetTicket(j.t.Stanza()); err != nil {
		return spool.Verdict{}, err
	}
	if err := settleUpload(j.it); err != nil {
		return spool.Verdict{}, err
	}
	j.it.Dirty()
	return spool.Verdict{
		To: spool.In(spool.Rejected), Reason: firstError(j.findings), Text: refusal(j.t, j.findings),
	}, nil
}

// keep makes the item complete in itself and signs for it: what the uploader
// left to the pool (an upstream tarball) is linked beside the rest.
func (j *judgement) keep() error {
	for _, f := range j.u.Pool {
		if err := j.fromPool(j.it, f.Name); err != nil {
			return err
		}
	}
	// The ticket's own sync is one of the item's directory, which settles the
	// upload too; the ledger is as early.
	if err := markTaken(j.it); err != nil {
		return err
	}
	step("settles", j.t.Changes)
	said, err := j.state(j.t, j.u)
	if err != nil {
		return err
	}
	var g errgroup.Group
	g.Go(func() error { return j.remember(j.it, j.u.Hash) })
	g.Go(func() error { return j.it.SetTicket(j.t.Stanza()) })
	g.Go(func() error { return j.it.WriteFile(statement.File, said) })
	if err := g.Wait(); err != nil {
		return err
	}
	step("stated", j.t.Changes)
	return emptyTaken(j.it)
}

// letIn says whether the upload goes to review, or is accepted by the suite's rule.
func (j *judgement) letIn(ctx context.Context) (spool.Verdict, error) {
	step("moves", j.t.Changes)
	v, err := j.takePlace(j.it, j.t, j.older)
	if err != nil {
		return spool.Verdict{}, err
	}
	suite := j.u.Suite.Name
	if s, ok := j.Settings.Get().Suite(suite); ok && s.Review != "always" {
		why, err := j.whyReview(ctx, s.Review)
		if err != nil {
			return spool.Verdict{}, err
		}
		if why == "" {
			v.To, v.Reason = spool.In(spool.Accepted, suite), "accepted by rule: Review: "+s.Review
			return v, nil
		}
		v.Reason = "complete and verified; a person must see it: " + why
	}
	v.To = spool.In(spool.Review, suite)
	if why := foreign(j.u); why != "" {
		v.Text = "A reviewer decides about names that its uploader has no right to: " + why +
			".\nTo accept it is to let it have them.\n"
	}
	v.Reason = cmp.Or(v.Reason, "complete and verified")
	return v, nil
}

// whyReview says why a person must see an upload in spite of the suite's rule
// (Review: new or never), or "".
func (j *judgement) whyReview(ctx context.Context, rule string) (string, error) {
	why := foreign(j.u)
	if rule != "new" || why != "" {
		return why, nil
	}
	why, err := j.news(ctx, j.it, j.t, j.u)
	if errors.Is(err, upload.ErrCost) {
		return "it takes too long to compare it with the last version", nil
	}
	return why, err
}
