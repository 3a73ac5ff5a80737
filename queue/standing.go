package queue

import (
	"context"
	"path/filepath"

	"packmill/archive"
	"packmill/internal/policy"
	"packmill/spool"
)

// Standing says how a version of a source stands in a suite: what the published
// index says, and only where that has nothing to say, what lies in the tree.
type Standing string

// The standings.
const (
	Current  Standing = "current"    // the suite is built from it
	Coming   Standing = "coming"     // accepted, and not published yet
	Replaced Standing = "superseded" // the suite is built from a newer one
	Removed  Standing = "removed"    // it was published, or gave up its place, and the suite has none
	Unknown  Standing = "unknown"    // neither: its source may be with the reviewers
)

// Over reports whether nothing of the version will be published any more.
func (s Standing) Over() bool { return s == Replaced || s == Removed }

// Why is the standing as the reason of a move; version is that of StandingOf.
func (s Standing) Why(version string) string {
	if s == Replaced {
		return SupersededBy + "version " + version
	}
	return "its source was removed from the suite"
}

// SupersededBy begins the reason of what went to the attic before a newer version.
const SupersededBy = "superseded by "

// HasAlready is the reason of a job's end that others brought about.
const HasAlready = "the suite has its packages already"

// StandingOf says how a source's version stands in the suite, and which version
// the suite is built from. t is the ticket of the job for which it is asked.
func StandingOf(
	ctx context.Context, tree *spool.Tree, a *archive.Archive, suite string, t *Ticket,
) (Standing, string, error) {
	coming, err := findComing(tree, suite, t)
	if err != nil {
		return Unknown, "", err
	}
	// After the queues: what was published meanwhile is met here.
	current, err := a.Current(ctx, suite, t.Source)
	if err != nil {
		return Unknown, "", err
	}
	switch c := policy.CompareVersions(current, t.Version); {
	case current != "" && c == 0:
		return Current, current, nil
	case current != "" && c > 0:
		return Replaced, current, nil
	case coming != nil:
		return Coming, current, nil
	}
	if was, err := wasPublished(tree, suite, t); err != nil || was {
		return Removed, current, err
	}
	return Unknown, current, nil
}

// findComing looks for the source of a version on its way, also for one that goes
// ahead of its binaries: in the order of its moves, so that what moves meanwhile is
// not missed everywhere.
func findComing(tree *spool.Tree, suite string, t *Ticket) (*spool.Found, error) {
	f, err := findJob(tree, tree.Are(spool.Sources|spool.Queued), suite, "", t.version())
	if f != nil || err != nil {
		return f, err
	}
	return findJob(tree, []spool.State{spool.Uploaded}, suite, spool.SourceArch, t.version())
}

// wasPublished reports whether the source of a job was in the archive at some time,
// or lies in the attic: by the records of what was installed, and by the job
// itself, which quinn-diff or a binNMU made from what is published.
func wasPublished(tree *spool.Tree, suite string, t *Ticket) (bool, error) {
	if FromArchive(t) {
		return true, nil
	}
	f, err := findJob(tree, []spool.State{spool.Installed}, suite, spool.SourceArch, t.version())
	if f != nil || err != nil {
		return f != nil, err
	}
	f, err = Retired(tree, suite, t.version())
	return f != nil, err
}

// WentAhead reports whether the source that waits for its jobs at f went ahead of
// them and was published: another item of the same birth lies in installed.
func WentAhead(tree *spool.Tree, f spool.Found) (bool, error) {
	t, err := TicketAt(tree, f)
	if err != nil {
		return false, nil // it has moved, or fsck says it
	}
	filed, err := tree.Of(t.Source, spool.In(spool.Installed, f.Place.Suite, spool.SourceArch))
	if err != nil {
		return false, err
	}
	for _, x := range filed {
		if o, err := TicketAt(tree, x); err == nil && o.Version == t.Version && o.Received.Equal(t.Received) {
			return true, nil
		}
	}
	return false, nil
}

// FromArchive reports whether a job was made from a source that was published
// already, and not by the fan-out of an upload.
func FromArchive(t *Ticket) bool { return t.BuildArch != "" && t.Changes == "" }

// unjudged is the suite of an upload that reviewd has not judged yet.
const unjudged = "unknown"

// Misfit says why an item cannot lie where it does, and where it can: a person's
// mv may bring anything anywhere, and what an item is stands in its ticket. ""
// says that it fits.
func Misfit(tree *spool.Tree, f spool.Found, t *Ticket) (to spool.Place, why string) {
	job := t.BuildArch != ""
	home := spool.In(spool.BuildAttempted, t.Suite, t.BuildArch)
	inQueue := f.Place.Arch != "" && f.Place.State != spool.Installed
	switch {
	case !job && inQueue:
		return spool.In(spool.Rejected), noJob(f.Place)
	case !job && t.Suite == unjudged && f.Place.Suite != "":
		return spool.In(spool.Rejected), "it was never judged; mv it to " + spool.In(spool.Intake).Dir()
	case !job:
		if f.Place.Suite != "" && f.Place.Suite != t.Suite && f.Place.State != spool.Accepted &&
			f.Place.State != spool.Review {
			return spool.In(spool.Rejected), "it is for the suite " + t.Suite + ", and " + f.Place.Dir() + " is for " +
				f.Place.Suite +
				"; to have it in that suite, mv it to " + spool.In(spool.Accepted, f.Place.Suite).Dir()
		}
		return f.Place, ""
	case policy.CheckArch(t.BuildArch) != nil:
		return spool.In(spool.Rejected), "its ticket names no architecture that it could be built for"
	}
	if s := f.Place.State; s.Is(spool.Sources) && !s.Is(spool.Jobs) && s != spool.Attic {
		return home, "it is a job of " + t.BuildArch + ", and " + f.Place.Dir() +
			" is for sources; to have it built, give it back"
	}
	switch {
	case f.Place.Suite != "" && f.Place.Suite != t.Suite:
		return home, "it is a job of the suite " + t.Suite + ", and cannot be one of " + f.Place.Suite +
			"; there the source is accepted, or packmill archive copy takes what was built"
	case inQueue && f.Place.Arch != t.BuildArch:
		return home, "it is a job of " + t.BuildArch + ", and cannot be built as one of " + f.Place.Arch +
			"; give it back to have it built again"
	case f.Place.State == spool.Built && !hasResult(tree, f, t):
		return home, "nothing that was built lies in it; give it back to have it built"
	}
	return f.Place, ""
}

// noJob says why a source cannot be where jobs are.
func noJob(p spool.Place) string {
	return "it is a source, and " + p.Dir() + " is for jobs of " + p.Arch + "; to have it built, mv it to " +
		spool.In(spool.Accepted, p.Suite).Dir()
}

func hasResult(tree *spool.Tree, f spool.Found, t *Ticket) bool {
	if t.Result == "" {
		return false
	}
	found, err := filepath.Glob(tree.Path(f.Dir(), "result", t.Result))
	return err != nil || len(found) > 0
}

// PutRight moves a claimed item that Misfit says cannot lie where it does.
func PutRight(it *spool.Item, to spool.Place, who, why string) error {
	text := "This was moved to " + it.Place.Dir() + " by hand. It cannot be there: " + why + ".\n"
	if to.State == spool.BuildAttempted {
		text += "To try again: packmill requeue " + it.Name.String() + "\n"
	}
	return it.PutRight(to, who, why, text)
}
