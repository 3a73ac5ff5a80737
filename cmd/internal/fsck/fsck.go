// Package fsck checks everything that a tree promises: packmill fsck is this
// function, and so is the check at the end of every test that kills daemons.
//
//	every item in exactly one state,           spool.Tree.Fsck
//	whole, with a history that ends there
//	every upload taken in is somewhere         spool.Tree.Lost
//	what is published is in the pool           archive.Check
//	no source without what its mode asks       modes
//	at most one job of a version               queue.CheckLedgers
//	no stray file                              spool.Tree.Fsck, and strays in the archive
package fsck

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"packmill/archive"
	"packmill/archive/opkg"
	"packmill/cmd/internal/account"
	"packmill/cmd/internal/control"
	"packmill/internal/deb822"
	"packmill/internal/durable"
	"packmill/internal/paper"
	"packmill/internal/regular"
	"packmill/queue"
	"packmill/queue/lacking"
	"packmill/queue/quinndiff"
	"packmill/spool"
	"packmill/spool/upload"
)

// Kinds of findings beside those of package spool.
const (
	Archive    spool.Kind = "archive"    // a client of the archive would trip over it
	Incomplete spool.Kind = "incomplete" // an item lacks a file of its own, or has other bytes
	TooSoon    spool.Kind = "too soon"   // a source is published without what its suite's Publish asks for
	Misplaced  spool.Kind = "misplaced"  // mv brought it to where no daemon's account may write in it
	NoSettings spool.Kind = "settings"   // the settings cannot be read, so not everything was checked
)

// Check reports what breaks the promises of the tree. It changes nothing, and
// may run beside working daemons: what is on its way is no finding. With Deep it
// also reads every byte of the items' files.
func Check(ctx context.Context, t *spool.Tree, how archive.CheckOptions) ([]spool.Finding, error) {
	var trouble error
	found, err := t.Fsck(func(f spool.Found) []spool.Finding {
		list, err := incomplete(t, f, how.Deep)
		trouble = errors.Join(trouble, err)
		return append(list, misplaced(t, f)...)
	})
	if err := errors.Join(err, trouble); err != nil {
		return nil, err
	}
	for i, f := range found {
		if f.Kind == spool.Abandoned {
			found[i].Cure = "it is given back to needs-build"
			found[i].Repair = func() error { return giveBack(t, f.Path) }
		}
	}
	more := func(list []spool.Finding, err error) error {
		found = append(found, list...)
		return err
	}
	if err := errors.Join(more(queue.CheckLedgers(t)), more(published(ctx, t, how)), more(litter(t))); err != nil {
		return found, err
	}
	set, err := control.Load(t.Path("control"))
	if err != nil {
		return append(found,
			spool.Finding{Kind: NoSettings, Path: "control", Text: err.Error(),
				Cure: "mend the settings, and run it again"}), nil
	}
	if err := more(t.Lost(time.Now().Add(-set.LeastKeep()))); err != nil {
		return found, err
	}
	// Indexes that a client cannot read nobody can, and that was said.
	unreadable := slices.ContainsFunc(found, func(f spool.Finding) bool { return f.Kind == Archive })
	if err := more(modes(ctx, t, set)); err != nil && !unreadable {
		return found, err
	}
	return found, nil
}

// giveBack is what buildd does with a job whose builder is gone.
func giveBack(t *spool.Tree, dir string) error {
	p, ok := t.PlaceOf(filepath.Dir(dir))
	if !ok {
		return spool.ErrGone
	}
	it, err := t.Claim(p, filepath.Base(dir))
	if err != nil {
		return err
	}
	defer it.Release()
	reply, err := queue.AskOf(it,
		&queue.Request{Op: queue.GiveBack, Override: true, Who: "fsck", Message: "its builder is gone", Now: time.Now()})
	if err == nil && reply.Refusal != "" {
		err = errors.New(reply.Refusal)
	}
	return err
}

// misplaced finds a job where reviewd takes what comes: where each daemon is an account, that one
// may not write in it, and who may in jobs reaches nothing there.
func misplaced(t *spool.Tree, f spool.Found) []spool.Finding {
	if f.Place.State != spool.Intake && f.Place.State != spool.Review || !t.Separate() {
		return nil
	}
	tk, err := queue.TicketAt(t, f)
	if err != nil || tk.BuildArch == "" {
		return nil
	}
	to, why := queue.Misfit(t, f, tk)
	return []spool.Finding{{Kind: Misplaced, Path: f.Dir(), Text: why, Cure: "it goes to " + to.Dir() + " with a REASON",
		Repair: func() error {
			it, err := t.Claim(f.Place, f.Name.String())
			if err != nil {
				return err
			}
			defer it.Release()
			return queue.PutRight(it, to, "fsck", why)
		}}}
}

// incomplete says what an item lacks of what its own .dsc and .changes list. The
// caller has its lock.
func incomplete(t *spool.Tree, f spool.Found, deep bool) ([]spool.Finding, error) {
	// What is not for an architecture never had its files, and what is installed
	// left them to the pool.
	if !f.Place.State.Is(spool.Whole) {
		return nil, nil
	}
	dir := t.Path(f.Dir())
	// What archived has published, and is about to file, is in the pool.
	if _, err := os.Lstat(t.Path("archive/published", f.Place.Suite, f.Name.String())); err == nil &&
		f.Place.State == spool.Uploaded {
		return nil, nil
	}
	tk, err := queue.TicketAt(t, f)
	if err != nil {
		return nil, nil // Fsck says so
	}
	lists := map[string]string{tk.Dsc: dir, tk.Changes: dir} // a binNMU has no .changes of its source
	if f.Place.State == spool.Uploaded || f.Place.State == spool.Built {
		lists[tk.Result] = filepath.Join(dir, "result")
	}
	delete(lists, "")
	var why []string
	for name, in := range lists {
		text, err := listed(in, name, deep)
		if err != nil {
			return nil, fmt.Errorf("fsck %s: %w", f.Dir(), err)
		}
		if text != "" {
			why = append(why, text)
		}
	}
	if len(why) == 0 {
		return nil, nil
	}
	// A person's mv asks for no lock: what left meanwhile lacks nothing.
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	slices.Sort(why)
	text := strings.Join(why, "; ")
	return []spool.Finding{{Kind: Incomplete, Path: f.Dir(), Text: text,
		Cure: "it goes to " + spool.In(spool.Rejected).Dir() +
			" with a REASON; upload it again, or give the job back when the source is whole",
		Repair: func() error { return t.Quarantine(f, text) }}}, nil
}

// published is what a client of the archive would trip over. That is a person's
// to mend: the pool's bytes are nowhere else.
func published(ctx context.Context, t *spool.Tree, how archive.CheckOptions) ([]spool.Finding, error) {
	a, err := archive.Open(t.Path("archive"))
	if err != nil {
		return nil, err
	}
	faults, err := a.Check(ctx, how)
	var out []spool.Finding
	for _, x := range faults {
		out = append(out, spool.Finding{Kind: Archive, Path: "archive/" + x.Path, Text: x.Text,
			Cure: "restore the file from a backup, or remove the package and upload it again"})
	}
	return out, err
}

// modes finds sources that are published without what Publish: together asks
// for. An architecture has settled when it has the binaries, or a job that is
// settled without them, or one that was and is tried again (late binaries).
//
// By presence: only a job that is seen open, and never was anything else, or
// seen installed without its packages, is a fault.
func modes(ctx context.Context, t *spool.Tree, set *control.Settings) ([]spool.Finding, error) {
	a, err := archive.Open(t.Path("archive"))
	if err != nil {
		return nil, err
	}
	specific, err := lacking.ReadSpecific(t.Path("control"))
	if err != nil {
		return nil, err
	}
	var out []spool.Finding
	for i := range set.Suites {
		if s := &set.Suites[i]; s.Publish == "together" {
			found, err := tooSoon(ctx, t, a, s, specific)
			if err != nil {
				return nil, err
			}
			out = append(out, found...)
		}
	}
	return out, nil
}

// tooSoon is modes of one suite. The jobs are looked at between two looks at the indexes:
// what is published meanwhile has its binaries in the second.
func tooSoon(
	ctx context.Context, t *spool.Tree, a *archive.Archive, s *control.Suite, specific *quinndiff.Specific,
) (out []spool.Finding, err error) {
	type pair struct{ source, job *spool.Found }
	open := map[string]pair{}
	for again := range 2 {
		view, err := lacking.Read(a, s.Lacking())
		if err != nil {
			return nil, err
		}
		var errs []error
		view.Needed(specific, func(n quinndiff.Needed) {
			id := n.Source + "_" + n.Version + " " + n.Arch
			x := open[id]
			switch {
			case !n.State.Wanted():
			case again == 0:
				x.source, x.job, err = ofMissing(t, s.Name, &n)
				if errs = append(errs, err); x.source != nil && x.job != nil {
					open[id] = x
				}
			case x.job != nil:
				text, err := unsettled(ctx, a, t, view, &n, x.source, x.job)
				if errs = append(errs, err); text != "" {
					out = append(out, spool.Finding{Kind: TooSoon, Path: x.job.Dir(), Text: text,
						Cure: "let it be built, or take the source out: packmill archive rm " + s.Name + " " + n.Source})
				}
			}
		})
		if err := errors.Join(errs...); err != nil || len(open) == 0 {
			return nil, err
		}
	}
	return out, nil
}

// ofMissing finds the source that was published, and the job of what is missing of it:
// the one that came furthest.
func ofMissing(t *spool.Tree, suite string, n *quinndiff.Needed) (source, job *spool.Found, err error) {
	source, err = queue.InstalledSource(t, suite, spool.Name{Source: n.Source, Version: n.Version})
	if source == nil || err != nil {
		return nil, nil, err
	}
	var places []spool.Place
	for _, s := range t.Where(func(s spool.State) bool { return s.Is(spool.Jobs) && s.Has("ARCH") }) {
		places = append(places, spool.In(s, suite, n.Arch))
	}
	found, err := t.Of(n.Source, places...)
	for i := range found {
		if found[i].Name.Version == n.Version {
			job = &found[i]
		}
	}
	return source, job, err
}

// unsettled says why the source should not be published without this job's
// packages, "" if it may.
func unsettled(
	ctx context.Context, a *archive.Archive, t *spool.Tree, view *lacking.View, n *quinndiff.Needed,
	source, job *spool.Found,
) (string, error) {
	if job.Place.State == spool.Installed {
		files, err := upload.Peek(t.Path(job.Dir(), "result"), resultOf(t, job))
		if err != nil {
			return "", nil // one that came from elsewhere
		}
		var names []string
		for _, f := range files {
			if name, _, ok := strings.Cut(f.Name, "_"); ok && strings.HasSuffix(f.Name, ".deb") {
				names = append(names, name)
			}
		}
		removed, err := TakenOut(t.Path(job.Dir()))
		if err != nil {
			return "", err
		}
		names = slices.DeleteFunc(names, func(name string) bool { return slices.Contains(removed, name) })
		if n.Arch != "all" {
			names = view.Lacks(n.Arch, names)
		} else if has, err := a.Builders(ctx, job.Place.Suite, names); err != nil {
			return "", err
		} else { // one for all may not be in any architecture's index yet
			names = slices.DeleteFunc(names, func(name string) bool { return has[name] != "" })
		}
		if len(names) == 0 {
			return "", nil
		}
		return fmt.Sprintf("%s %s is published, and its build for %s is said to be; but the suite has none of: %s",
			n.Source, n.Version, n.Arch, strings.Join(names, " ")), nil
	}
	if job.Place.State.Is(spool.Settled) {
		return "", nil // also if mv took it there, which its history does not know yet
	}
	// What quinn-diff asked for later, and a source that came by hand, are not
	// in the plan.
	plan, err := queue.ReadPlan(t.Path(source.Dir()))
	if err != nil || !slices.Contains(plan.Jobs, n.Arch) {
		return "", nil
	}
	if tk, err := queue.TicketAt(t, *job); err != nil || queue.FromArchive(tk) {
		return "", nil
	}
	events, err := spool.ReadHistory(t.Path(job.Dir()))
	if err != nil || len(events) == 0 {
		return "", nil // it has moved on
	}
	for _, e := range events {
		if p, _ := t.PlaceOf(e.To); p.State.Is(spool.Settled) {
			return "", nil
		}
	}
	return fmt.Sprintf("%s %s is published, in a suite with Publish: together, and %s has never settled",
		n.Source, n.Version, n.Arch), nil
}

func resultOf(t *spool.Tree, f *spool.Found) string {
	tk, err := queue.TicketAt(t, *f)
	if err != nil {
		return ""
	}
	return tk.Result
}

// listed says what does not fit of the files that a .dsc or .changes in dir
// names: size, and if deep SHA-256. An error is our trouble.
func listed(dir, name string, deep bool) (string, error) {
	// Never a link or a pipe: a builder that is not trusted may have put it there.
	st, err := paper.Read(dir, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return name + " is not there", nil
	case errors.Is(err, regular.ErrNotRegular):
		return name + " is no file", nil
	case errors.Is(err, regular.ErrLarge), errors.As(err, new(*deb822.Error)):
		return err.Error(), nil
	case err != nil:
		return "", err
	}
	form := paper.Short
	if strings.HasSuffix(name, ".changes") {
		form = paper.Long
	}
	files, err := paper.Files(st, form)
	if err != nil {
		return err.Error(), nil
	}
	for _, x := range files {
		f, err := regular.OpenIn(dir, x.Name)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, regular.ErrNotRegular) {
			return fmt.Sprintf("%s names %s, and there is no such file", name, x.Name), nil
		}
		if err != nil {
			return "", err
		}
		h := sha256.New()
		var size int64
		if deep {
			size, err = regular.Stream(h, f)
		} else if info, serr := f.Stat(); serr == nil {
			size = info.Size()
		} else {
			err = serr
		}
		f.Close()
		switch {
		case err != nil:
			return "", err
		case size != x.Size:
			return fmt.Sprintf("%s is of %d bytes, and %s says %d", x.Name, size, name, x.Size), nil
		case deep && x.SHA256 != "" && fmt.Sprintf("%x", h.Sum(nil)) != x.SHA256:
			return fmt.Sprintf("%s has another SHA-256 than %s says", x.Name, name), nil
		}
	}
	return "", nil
}

// litter looks for what is nobody's in the archive's own directories: what a
// crash left half-written, and what is neither file nor directory. A link may
// be a suite's second name or a feed, nowhere below a pool.
func litter(t *spool.Tree) ([]spool.Finding, error) {
	var out []spool.Finding
	root := t.Path("archive")
	now := time.Now()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		rel := filepath.Join("archive", strings.TrimPrefix(path, root))
		info, err := d.Info()
		if err != nil {
			return nil
		}
		link := d.Type()&fs.ModeSymlink != 0
		switch pooled := strings.Contains(rel, "/pool/"); {
		case rel == "archive/incoming" || rel == "archive/installed" || rel == "archive/cache":
			return filepath.SkipDir // the engine's, and what may be thrown away
		case spool.HalfWritten(d.Name(), info.ModTime(), now):
			out = append(out, spool.Finding{Kind: spool.Leftover, Path: rel, Text: "a write that a crash cut off",
				Cure:   "it is removed",
				Repair: func() error { return durable.RemoveAll(path) }})
			if d.IsDir() {
				return filepath.SkipDir
			}
		case d.IsDir() && now.Sub(info.ModTime()) > time.Hour && opkg.HalfMade(path):
			out = append(out, spool.Finding{Kind: spool.Leftover, Path: rel,
				Text: "a feed that a crash cut off before it was in force", Cure: "it is removed",
				Repair: func() error { return durable.RemoveAll(path) }})
			return filepath.SkipDir
		case !d.IsDir() && !d.Type().IsRegular() && (!link || pooled):
			text := fmt.Sprintf("the archive has files and directories, and this is one of mode %s", d.Type())
			out = append(out, spool.Finding{Kind: spool.Stray, Path: rel, Text: text,
				Cure:   "it goes to attic/strays with a REASON",
				Repair: func() error { return t.PutAway(rel, text) }})
		}
		return nil
	})
	return out, err
}

// Mend does what the finding says mends it, as the account whose turn it is there. That somebody else came first is no
// error.
func Mend(t *spool.Tree, x spool.Finding) error {
	mend := x.Mend
	if x.Kind != spool.WrongRight && x.Kind != spool.Unready && x.Kind != Misplaced { // which are root's to mend
		mend = func() error { return account.As(t.Root(), x.Path, x.Mend) }
	}
	if err := mend(); !errors.Is(err, spool.ErrGone) {
		return err
	}
	return nil
}
