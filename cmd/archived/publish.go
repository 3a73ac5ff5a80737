package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"packmill/archive"
	"packmill/cmd/internal/control"
	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/fsck"
	"packmill/internal/durable"
	"packmill/internal/openpgp"
	"packmill/internal/policy"
	"packmill/queue"
	"packmill/queue/buildlog"
	"packmill/queue/lacking"
	"packmill/queue/quinndiff"
	"packmill/spool"
	"packmill/spool/statement"
	"packmill/spool/upload"
)

// suitesAtOnce is how many suites are published side by side: a long publication, or one that
// waits for an import by hand, does not hold the others up.
const suitesAtOnce = 2

// publisher is the archive daemon.
type publisher struct {
	*daemon.Env
	archive *archive.Archive
	now     func() time.Time
	done    *control.Settings // those with which every suite was published last
	renewed time.Time

	arrivals spool.Arrivals // in Installed
}

func (p *publisher) loop() *spool.Loop {
	l := p.Loop(spool.Archived, &spool.Loop{
		Places: func() ([]spool.Place, error) {
			for _, s := range p.Settings.Get().Suites {
				if err := p.Tree.Ensure(spool.In(spool.Uploaded, s.Name)); err != nil {
					p.Log.Error("make directory", "suite", s.Name, "err", err)
				}
			}
			return p.Tree.Places(spool.Uploaded)
		},
		Also:    func() []string { return []string{p.Tree.Path("archive/incoming")} },
		Workers: suitesAtOnce,
		Batch:   p.publish,
		Poison:  func(it *spool.Item) spool.Place { return refusedPlace(it, it.Place.Suite) },
	})
	l.Before = func(ctx context.Context) (bool, error) {
		l.Tick = min(time.Minute, often(p.Settings.Get()))
		return p.suites(ctx)
	}
	return l
}

// often is how often suites without changes are looked at, so that no Release
// expires: each hour, or more often if one lives for a short time.
func often(all *control.Settings) time.Duration {
	out := time.Hour
	for _, s := range all.Suites {
		if s.ValidFor > 0 {
			out = min(out, max(s.ValidFor/4, time.Second))
		}
	}
	return out
}

// suites makes every suite of the settings visible, empty ones too, and brings
// it in line when the settings change.
func (p *publisher) suites(ctx context.Context) (bool, error) {
	now := p.Settings.Get()
	if err := p.putOut(); err != nil {
		return false, err
	}
	for _, s := range now.Suites {
		if err := p.sweepRecords(s.Name); err != nil {
			return false, err
		}
	}
	if now == p.done && p.now().Sub(p.renewed) < often(now) {
		return false, nil
	}
	var errs []error // one suite's trouble leaves the others alone
	busy := false
	for i := range now.Suites {
		if s := &now.Suites[i]; p.archive.Busy(s.Name) { // for as long as an import: soon again
			busy = true
		} else {
			// First, while the Release does not know an architecture that is back.
			if now != p.done {
				again, err := p.regain(now, s)
				busy, errs = busy || again, append(errs, err)
			}
			errs = append(errs, p.align(ctx, now, s))
		}
	}
	if err := errors.Join(errs...); err != nil || busy {
		return false, err
	}
	p.done, p.renewed = now, p.now()
	return true, nil
}

// align brings a suite in line with its settings, and renews its Release if that
// is due.
func (p *publisher) align(ctx context.Context, all *control.Settings, s *control.Suite) error {
	suite, err := all.Archive(s)
	if err != nil {
		return err
	}
	report, err := p.archive.Publish(ctx, suite, nil, p.now())
	if err != nil {
		return fmt.Errorf("publish %s: %w", s.Name, err)
	}
	if report.Changed {
		p.Log.Info("published", "suite", s.Name)
	}
	p.warn(s.Name, report)
	return nil
}

// warn says what a person should know.
func (p *publisher) warn(suite string, report *archive.Report) {
	for _, w := range report.Warnings {
		p.Log.Warn("note", "suite", suite, "reason", w)
	}
}

// jobArch is the architecture of binaries, "" of a source: also of one that
// goes ahead of its binaries, whose name ends in _source.
func jobArch(it *spool.Item) string {
	if arch := it.Arch(); arch != spool.SourceArch {
		return arch
	}
	return ""
}

// entry is one item of a batch on its way through a publication.
type entry struct {
	item    *spool.Item
	ticket  *queue.Ticket
	arch    string          // "" of a source
	filed   map[string]bool // sources of the batch that are about to be in Installed
	verdict spool.Verdict
	decided bool
}

func (e *entry) decide(v spool.Verdict) { e.verdict, e.decided = v, true }

// publish is the loop's batch: everything that waits for one suite.
func (p *publisher) publish(ctx context.Context, items []*spool.Item) ([]spool.Verdict, error) {
	all := p.Settings.Get()
	name := items[0].Place.Suite
	s, ok := all.Suite(name)
	filed := map[string]bool{}
	entries := make([]*entry, len(items))
	for i, it := range items {
		e := &entry{item: it, arch: jobArch(it), filed: filed}
		entries[i] = e
		var err error
		e.ticket, err = queue.TicketOf(it)
		home, misfit := spool.Place{}, ""
		if err == nil {
			home, misfit = queue.Misfit(p.Tree, spool.Found{Place: it.Place, Name: it.Name}, e.ticket)
		}
		switch {
		case err != nil && !queue.Damaged(err):
			return nil, err
		case err != nil:
			e.decide(refuse(e, name, "the ticket cannot be read: "+err.Error()))
		case !ok || s.Name != name:
			e.decide(refuse(e, name, "there is no suite "+name+" in control/suites (any more)"))
		case misfit != "":
			e.decide(refuseTo(e, home, misfit))
		case exists(p.record(it)):
			// An earlier run published it and was cut off after that.
			v, err := p.file(e)
			if err != nil {
				return nil, err
			}
			e.decide(v)
		}
	}
	if ok {
		if err := p.include(ctx, all, s, entries); err != nil {
			return nil, err
		}
	}
	out := make([]spool.Verdict, len(entries))
	for i, e := range entries {
		out[i] = e.verdict
	}
	return out, nil
}

// include publishes what is ready among the undecided entries.
func (p *publisher) include(ctx context.Context, all *control.Settings, s *control.Suite, entries []*entry) error {
	batch, in, err := p.batch(ctx, all, s, entries)
	if err != nil || len(batch) == 0 {
		return err
	}
	start := time.Now()
	suite, err := all.Archive(s)
	if err != nil {
		return err
	}
	report, err := p.archive.Publish(ctx, suite, batch, start)
	if err != nil {
		return fmt.Errorf("publish %s: %w", s.Name, err)
	}
	p.Log.Info("published", "suite", s.Name, "items", len(batch), "took", time.Since(start).Round(time.Millisecond))
	p.warn(s.Name, report)
	for i, r := range report.Results {
		for _, n := range r.Notes {
			p.Log.Warn("note", "item", in[i].item.Name.String(), "suite", s.Name, "reason", n)
		}
		if err := p.settle(s, in[i], r); err != nil {
			return err
		}
	}
	return nil
}

// batch gathers what is ready among the undecided entries: the sources first,
// then what is for all, for whether other binaries can go depends on them.
func (p *publisher) batch(ctx context.Context, all *control.Settings, s *control.Suite, entries []*entry) (
	batch []archive.Inclusion, in []*entry, err error,
) {
	ordered := slices.Clone(entries)
	rank := func(e *entry) int { return slices.Index([]string{"", "all", e.arch}, e.arch) }
	slices.SortStableFunc(ordered, func(a, b *entry) int { return cmp.Compare(rank(a), rank(b)) })
	for _, e := range ordered {
		if e.decided {
			continue
		}
		ready, why, err := p.ready(ctx, s, e, entries)
		if err != nil {
			return nil, nil, err
		}
		if !ready {
			e.decide(why)
			continue
		}
		inc, reason, err := p.inclusion(all, s, e)
		if err != nil {
			return nil, nil, err
		}
		if reason != "" {
			if err := p.refuse(s, e, reason); err != nil {
				return nil, nil, err
			}
			continue
		}
		batch, in = append(batch, inc), append(in, e)
	}
	return batch, in, nil
}

// settle decides about an entry by what became of its publication.
func (p *publisher) settle(s *control.Suite, e *entry, r archive.Result) error {
	switch r.Outcome {
	case archive.Refused:
		return p.refuse(s, e, r.Reason)
	case archive.Waits:
		e.decide(spool.Stay(0, r.Reason))
		return nil
	}
	// What is published is never published again, though its files
	// are about to leave the item.
	if err := durable.MkdirAll(filepath.Dir(p.record(e.item)), 0o755); err != nil {
		return err
	}
	if err := durable.WriteFile(p.record(e.item), []byte(strings.Join(r.Files, "\n")+"\n"), 0o644); err != nil {
		return err
	}
	v, err := p.file(e)
	if err != nil {
		return err
	}
	e.decide(v)
	return nil
}

// twice reports whether a source comes to the archive's records by another
// item: with Publish: source-first it went ahead, and now its copy comes from
// the master queue.
func (p *publisher) twice(e *entry) (bool, error) {
	if e.arch != "" {
		return false, nil
	}
	id := e.item.Name.ID()
	if e.filed[id] {
		return true, nil
	}
	// In the order of its move, which another daemon may be making: so it is
	// not missed in both.
	found, err := p.Tree.Of(e.item.Name.Source, e.item.Place, spool.In(spool.Installed, e.item.Place.Suite, spool.SourceArch))
	if err != nil {
		return false, err
	}
	for _, f := range found {
		if f.Name.ID() == e.item.Name.ID() && (f.Place.State == spool.Installed ||
			f.Name.Arch == spool.SourceArch && f.Name != e.item.Name) {
			return true, nil
		}
	}
	e.filed[id] = true
	return false, nil
}

// recordsDir is where it is written down what is published already.
const recordsDir = queue.PublishedDir

func (p *publisher) record(it *spool.Item) string {
	return p.Tree.Path(recordsDir, it.Place.Suite, it.Name.String())
}

// sweepRecords takes the records away whose items have left the archive queue.
func (p *publisher) sweepRecords(suite string) error {
	records, err := os.ReadDir(p.Tree.Path(recordsDir, suite))
	if len(records) == 0 || err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return err
	}
	for _, r := range records {
		if exists(p.Tree.Path(spool.In(spool.Uploaded, suite).Dir(), r.Name())) {
			continue
		}
		if err := durable.Remove(p.Tree.Path(recordsDir, suite, r.Name())); err != nil {
			return err
		}
	}
	return nil
}

// ready says whether an entry can be published now: binaries need their
// source, in the suite or in this batch; a source of a suite that publishes
// together wants all its binaries beside it.
func (p *publisher) ready(
	ctx context.Context, s *control.Suite, e *entry, entries []*entry,
) (bool, spool.Verdict, error) {
	same := func(o *entry) bool {
		return o.item.Name.Source == e.item.Name.Source && o.item.Name.Version == e.item.Name.Version
	}
	if e.arch == "" {
		if why, err := p.wentAway(ctx, s, e); why != "" || err != nil {
			return false, spool.Verdict{To: spool.In(spool.Attic), Reason: why}, err
		}
		if s.Publish != "together" {
			return true, spool.Verdict{}, nil
		}
		found, err := p.Tree.Of(e.item.Name.Source, e.item.Place)
		if err != nil {
			return false, spool.Verdict{}, err
		}
		for _, f := range found {
			if f.Name.Version == e.item.Name.Version &&
				!slices.ContainsFunc(entries, func(o *entry) bool { return o.item.Name == f.Name }) {
				return false, spool.Stay(100*time.Millisecond, f.Name.String()+" is busy"), nil
			}
		}
		return true, spool.Verdict{}, nil
	}
	if slices.ContainsFunc(entries, func(o *entry) bool { return o.arch == "" && same(o) && !o.decided }) {
		return true, spool.Verdict{}, nil
	}
	standing, current, err := queue.StandingOf(ctx, p.Tree, p.archive, s.Name, e.ticket)
	switch {
	case err != nil:
		return false, spool.Verdict{}, err
	case standing == queue.Current:
		return true, spool.Verdict{}, nil
	case standing.Over():
		// A newer version took its place while it was built, or lay here, or
		// a person took the source out.
		return false, spool.Verdict{To: spool.In(spool.Attic), Reason: standing.Why(current)}, nil
	}
	return false, spool.Stay(0, "waits for its source"), nil
}

// wentAway says why a source that waited for its jobs is not published: it went ahead of
// them, and the suite has it no more. master-buildd drops such a copy; the last job may
// have settled before it did.
func (p *publisher) wentAway(ctx context.Context, s *control.Suite, e *entry) (string, error) {
	was, err := queue.WentAhead(p.Tree, spool.Found{Place: e.item.Place, Name: e.item.Name})
	if err != nil || !was {
		return "", err
	}
	current, err := p.archive.Current(ctx, s.Name, e.item.Name.Source)
	switch c := policy.CompareVersions(current, e.item.Name.Version); {
	case err != nil || current != "" && c == 0:
		return "", err
	case current != "" && c > 0:
		return queue.Replaced.Why(current), nil
	}
	return queue.Removed.Why(""), nil
}

// inclusion checks the right of whoever signed, now and not when the item was
// made: a key may have been revoked since. A reason is why it is refused; an
// error is our trouble, and the item stays.
func (p *publisher) inclusion(
	all *control.Settings, s *control.Suite, e *entry,
) (inc archive.Inclusion, reason string, err error) {
	if e.arch == "" {
		inc, err = p.source(all, s, e)
		return inc, statement.Refused(err), ours(err)
	}
	// The component is that of the package, or of its source. A job of what is
	// published already has no statement, and takes no name from another source.
	said, err := p.Vouched(e.item)
	if err != nil && (statement.Refused(err) == "" || exists(e.item.Path(statement.File))) {
		return inc, statement.Refused(err), ours(err)
	}
	inc = archive.Inclusion{
		Dir: e.item.Path("result"), Changes: e.ticket.Result, Kind: archive.Binary, Component: e.ticket.Component,
		Architectures: []string{e.arch}, Declared: true, Whole: true,
	}
	if said != nil {
		inc.Component, inc.TakesOver = said.Component, said.TakesOver
	}
	// Of one that is published again.
	if inc.Without, err = fsck.TakenOut(e.item.Path()); err != nil {
		return inc, "", err
	}
	if inc.Changes == "" {
		return inc, "the ticket names no result", nil
	}
	keys, whose := all.BuildKeys(s, e.arch, e.item.Name.Source, inc.Component)
	data, err := os.ReadFile(filepath.Join(inc.Dir, inc.Changes))
	if errors.Is(err, fs.ErrNotExist) {
		return inc, inc.Changes + " is not in the item any more", nil
	}
	if err != nil {
		return inc, "", err
	}
	inc.Text, reason, err = signedBy(all, inc.Changes, data, keys, whose)
	return inc, reason, err
}

// ours is an error that is no verdict.
func ours(err error) error {
	if statement.Refused(err) != "" {
		return nil
	}
	return err
}

// source verifies a source by reviewd's statement, and that its uploader has
// the right still. The .changes that it returns is the one that was let in, and
// the archive verifies every other file by that.
func (p *publisher) source(all *control.Settings, s *control.Suite, e *entry) (inc archive.Inclusion, err error) {
	refused := func(format string, args ...any) (archive.Inclusion, error) {
		return inc, &statement.Refusal{Text: fmt.Sprintf(format, args...)}
	}
	// A builder's account may write in the archive queue.
	if ok, err := e.item.MadeBy(spool.UserReview, spool.UserMaster); err != nil {
		return inc, err
	} else if !ok {
		return refused("neither %s nor %s made it as a source: that comes to the archive by reviewd and master-buildd",
			spool.UserReview, spool.UserMaster)
	}
	said, err := p.Vouched(e.item)
	if err != nil {
		return inc, err
	}
	i := slices.IndexFunc(all.Uploaders, func(u control.Uploader) bool { return u.Name == said.Uploader })
	if i < 0 {
		return refused("%s may not upload (any more): see control/uploaders", said.Uploader)
	}
	u := &all.Uploaders[i]
	if said.Dsc != "" && !u.Allow.Source || !u.Uploads(s, said.Source, said.Component) {
		return refused("%s may not upload %s to %s (any more): see Allow in control/uploaders", u.Name, said.Source, s.Name)
	}
	data, err := said.Text(e.item.Path(), said.Changes, upload.MaxChanges)
	if err != nil {
		return inc, err
	}
	inc = archive.Inclusion{
		Dir: e.item.Path(), Changes: said.Changes, Kind: archive.Source, Component: said.Component, Text: data,
		Declared: true, TakesOver: said.TakesOver,
	}
	if len(said.Has) > 0 {
		inc.Kind |= archive.Binary
		inc.Architectures = said.Has
	}
	if said.Fingerprint == "" {
		if said.Account == "" || u.Account != said.Account {
			return refused("the account %q may not upload (any more): see control/uploaders", said.Account)
		}
		return inc, nil
	}
	_, reason, err := signedBy(all, said.Changes, data, u.Fingerprints, "control/uploaders, of "+u.Name)
	if reason != "" {
		return refused("%s", reason)
	}
	return inc, err
}

// signedBy says why a file's content bears no good signature by one of the keys.
func signedBy(
	all *control.Settings, name string, data []byte, fingerprints []string, whose string,
) (same []byte, reason string, err error) {
	ring, _, err := all.Keyring(fingerprints)
	if err != nil {
		return nil, "", err
	}
	if _, _, err := ring.VerifyClear(data, time.Now()); err != nil {
		var r *openpgp.Refusal
		if errors.As(err, &r) {
			return nil, fmt.Sprintf("%s: %s (keys of %s count)", name, r.Text, whose), nil
		}
		return nil, fmt.Sprintf("%s: %v", name, err), nil
	}
	return data, "", nil
}

// refusedPlace is where what cannot be published goes: a source back to the
// uploader's side, a result to the person who judges builds.
func refusedPlace(it *spool.Item, suite string) spool.Place {
	if arch := jobArch(it); arch != "" {
		return spool.In(spool.BuildAttempted, suite, arch)
	}
	return spool.In(spool.Rejected)
}

// refuse says what becomes of what cannot be published. A job whose packages the
// suite has from elsewhere is over: master-buildd passes it on without a result, and a
// build that ended later made other files of the same names.
func (p *publisher) refuse(s *control.Suite, e *entry, reason string) error {
	had, err := p.had(s, e)
	if err != nil {
		return err
	}
	if !had {
		e.decide(refuse(e, s.Name, reason))
		return nil
	}
	v, err := p.file(e)
	v.Reason = queue.HasAlready
	if e.ticket.Result != "" {
		v.Reason += ", and what was built here is not published: " + reason
	}
	e.decide(v)
	return err
}

// had reports whether the suite has all packages that a job would make.
func (p *publisher) had(s *control.Suite, e *entry) (had bool, err error) {
	if e.arch == "" || e.ticket.BinNMU > 0 {
		return false, nil
	}
	view, err := lacking.Read(p.archive, s.Lacking())
	if err != nil {
		return false, err
	}
	view.Needed(nil, func(n quinndiff.Needed) {
		had = had || n.Arch == e.arch && n.Source == e.item.Name.Source && n.Version == e.item.Name.Version &&
			n.State == quinndiff.UpToDate
	})
	return had, nil
}

func refuse(e *entry, suite, reason string) spool.Verdict {
	return refuseTo(e, refusedPlace(e.item, suite), reason)
}

func refuseTo(e *entry, to spool.Place, reason string) spool.Verdict {
	return spool.Verdict{
		To: to, Reason: reason,
		Text: fmt.Sprintf("The archive refused it: %s\nWhen that is mended: packmill requeue %s\n", reason, e.item.Name),
	}
}

// file makes an item fit for archive/installed: its history, ticket and papers
// stay; what the pool has goes, and logs that the cold store has.
func (p *publisher) file(e *entry) (spool.Verdict, error) {
	stored := p.logsStored(e.item.Path())
	err := filepath.WalkDir(e.item.Path(), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if pooled(d.Name()) || stored && isLog(d.Name()) {
			return os.Remove(path)
		}
		return nil
	})
	if err != nil {
		return spool.Verdict{}, err
	}
	e.item.Dirty()
	if twice, err := p.twice(e); err != nil {
		return spool.Verdict{}, err
	} else if twice {
		return spool.Verdict{To: spool.In(spool.Attic),
			Reason: "every architecture has settled; the source was published before"}, nil
	}
	arch := e.arch
	if arch == "" {
		arch = spool.SourceArch
	}
	return spool.Verdict{To: spool.In(spool.Installed, e.item.Place.Suite, arch), Reason: "published"}, nil
}

// pooled reports whether a file of an item is one that the pool keeps.
func pooled(name string) bool {
	for _, end := range []string{".deb", ".udeb", ".ddeb", ".asc"} {
		if strings.HasSuffix(name, end) {
			return true
		}
	}
	return strings.Contains(name, ".tar.") || strings.HasSuffix(name, ".diff.gz")
}

// logsStored reports whether the cold store has the log of every attempt to
// build the item.
func (p *publisher) logsStored(dir string) bool {
	builds, err := buildlog.BuildsAt(dir)
	store := buildlog.Store{Dir: p.Tree.Path(spool.LogsDir)}
	return err == nil && len(builds) > 0 && !slices.ContainsFunc(builds, func(b buildlog.Build) bool {
		return b.Log == "" || !exists(store.Path(b.Log))
	})
}

// isLog reports whether a file of an item is a log: that of the last attempt,
// or of an earlier one.
func isLog(name string) bool {
	return name == buildlog.LogFile || strings.HasPrefix(name, buildlog.LogFile+".")
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
