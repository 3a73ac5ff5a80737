package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"packmill/archive"
	"packmill/archive/pool"
	"packmill/cmd/internal/control"
	"packmill/cmd/internal/fsck"
	"packmill/internal/deb"
	"packmill/internal/durable"
	"packmill/queue"
	"packmill/queue/lacking"
	"packmill/queue/quinndiff"
	"packmill/spool"
	"packmill/spool/upload"
)

// regain looks for builds that lie in archive/installed and of which the suite has
// nothing, though it has their source: an architecture that the suite lost and has again
// begins without packages. The index is right, not the record. What the pool still has
// whole is published again, for other bytes can never take its names; of the rest the
// record goes to the attic, and quinn-diff has it built.
//
// What is for all no architecture takes with it. Busy says that it must be tried again.
func (p *publisher) regain(all *control.Settings, s *control.Suite) (busy bool, err error) {
	view, err := lacking.Read(p.archive, s.Lacking())
	if err != nil {
		return false, err
	}
	builds, err := p.lost(s, view)
	if err != nil || len(builds) == 0 {
		return false, err
	}
	suite, err := all.Archive(s)
	if err != nil {
		return false, err
	}
	sources, err := view.Sources(func(name, version string) bool { return builds[name+"_"+version] != nil })
	if err != nil {
		return false, err
	}
	r := &regaining{publisher: p, view: view, components: append(slices.Clone(suite.Components), "main", suite.Dbgsym),
		back: map[string]bool{}}
	var errs []error
	for id, src := range sources {
		for _, b := range builds[id] {
			switch err := r.one(b, src.Files); {
			case errors.Is(err, spool.ErrBusy):
				busy = true
			case err != nil && !errors.Is(err, spool.ErrGone):
				errs = append(errs, fmt.Errorf("regain %s: %w", b.Dir(), err))
			}
		}
	}
	if r.retired {
		// master-buildd looks again what is lacking, also where no publication follows.
		now := p.now()
		errs = append(errs, os.Chtimes(p.Tree.Path("archive/dists", s.Name, "Release"), now, now))
	}
	return busy, errors.Join(errs...)
}

// lost are the records of builds of which the suite has nothing, by source and version.
func (p *publisher) lost(s *control.Suite, view *lacking.View) (map[string][]record, error) {
	builds := map[string][]record{}
	var errs []error
	fresh := map[string]bool{} // architectures that the suite's Release does not know
	for _, arch := range s.Architectures {
		known, err := p.archive.IndexFiles(s.Name, arch)
		if errors.Is(err, archive.ErrNoSuite) {
			return nil, nil // nothing was published of it
		}
		fresh[arch], errs = err == nil && len(known) == 0, append(errs, err)
	}
	// Packages-arch-specific says what is built, not what stays published.
	view.Needed(nil, func(n quinndiff.Needed) {
		if n.State != quinndiff.Uncompiled && n.State != quinndiff.OutOfDate || n.Arch == "all" {
			return
		}
		found, err := p.recordsOf(s, &n, fresh[n.Arch])
		if errs = append(errs, err); len(found) > 0 {
			id := n.Source + "_" + n.Version
			builds[id] = append(builds[id], found...)
		}
	})
	return builds, errors.Join(errs...)
}

// record is a build in archive/installed.
type record struct {
	spool.Found
	ticket *queue.Ticket
	fresh  bool // the suite's Release does not know the architecture
}

// recordsOf are the builds of a version for an architecture, the newest binNMU first; none
// if one of them waits for the archive.
func (p *publisher) recordsOf(s *control.Suite, n *quinndiff.Needed, fresh bool) (out []record, err error) {
	found, err := p.Tree.Of(n.Source, spool.In(spool.Installed, s.Name, n.Arch), spool.In(spool.Uploaded, s.Name))
	if err != nil {
		return nil, err
	}
	for _, f := range found {
		if f.Name.Version != n.Version || f.Arch() != n.Arch {
			continue
		}
		if f.Place.State == spool.Uploaded {
			return nil, nil
		}
		t, err := queue.TicketAt(p.Tree, f)
		if err != nil {
			continue // it has moved, or fsck says it
		}
		out = append(out, record{f, t, fresh})
	}
	slices.SortFunc(out, func(a, b record) int { return cmp.Compare(b.ticket.BinNMU, a.ticket.BinNMU) })
	return out, nil
}

// regaining is what regain knows of a suite.
type regaining struct {
	*publisher
	view       *lacking.View
	components []string
	retired    bool            // a record went to the attic
	back       map[string]bool // ARCH/SOURCE_VERSION that is published again
}

// one puts a record right. Of several of one version the first that the pool has is enough:
// the others were there before it.
func (r *regaining) one(b record, source map[string]string) error {
	key := b.Place.Arch + "/" + b.Name.ID()
	if r.back[key] {
		return nil
	}
	meant, err := fsck.TakenOut(r.Tree.Path(b.Dir()))
	if err != nil {
		return err
	}
	files, names, err := r.packages(b, meant)
	if err != nil {
		return err
	}
	switch {
	case b.ticket.Result != "" && len(names) == 0, b.ticket.Result == "" && !b.fresh:
		return nil // a person took them out
	case len(names) > 0 && len(r.view.Lacks(b.Place.Arch, names)) == 0:
		return nil // another source makes them now
	}
	it, err := r.Tree.ClaimSoon(b.Place, b.Name.String())
	if err != nil {
		return err
	}
	defer it.Release()
	v := spool.Verdict{To: spool.In(spool.Attic), Reason: "neither the suite nor the pool has its packages any more"}
	if files != nil {
		err := fetch(it, files, source)
		if err == nil {
			v = spool.Verdict{To: spool.In(spool.Uploaded, b.Place.Suite),
				Reason: "the suite has lost its packages, and the pool has them"}
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := it.Move(spool.Archived, r.Name, v); err != nil {
		return err
	}
	r.back[key] = v.To.State == spool.Uploaded
	r.retired = r.retired || !r.back[key]
	r.Log.Info("moved", "item", b.Name.String(), "from", b.Place.Dir(), "to", it.Place.Dir(), "reason", v.Reason)
	return nil
}

// packages are the names of a build's packages, without those that a person took out, and
// their files in the pool by their names: nil unless all of them are there.
func (r *regaining) packages(b record, meant []string) (files map[string]string, names []string, err error) {
	listed, err := upload.Peek(r.Tree.Path(b.Dir(), "result"), b.ticket.Result)
	if err != nil {
		return nil, nil, nil // it came from elsewhere
	}
	files = map[string]string{}
	for _, f := range listed {
		name, _, _ := strings.Cut(f.Name, "_")
		if !deb.IsFile(f.Name) || slices.Contains(meant, name) {
			continue
		}
		if filepath.Ext(f.Name) == ".deb" { // the others are in no Packages that is read here
			names = append(names, name)
		}
		if path := r.pooled(b.Name.Source, f.Name, f.Size); files != nil && path != "" {
			files[f.Name] = path
		} else {
			files = nil
		}
	}
	return files, names, nil
}

// pooled is where in the pool a package lies, "" if it is not there. Its bytes are
// verified when it is published.
func (r *regaining) pooled(source, name string, size int64) string {
	for _, c := range r.components {
		path := filepath.Join(r.archive.Root(), pool.Dir(c, source), name)
		if st, err := os.Lstat(path); err == nil && c != "" && st.Mode().IsRegular() && st.Size() == size {
			return path
		}
	}
	return ""
}

// fetch gives a claimed record the files back that the pool took from it: of the build, and
// of its source, so that it is whole as every job is.
func fetch(it *spool.Item, result, source map[string]string) error {
	for name, path := range result {
		if err := durable.LinkOrCopy(path, it.Path("result", name), 0o644); err != nil {
			return err
		}
	}
	for name, path := range source {
		if err := durable.LinkOrCopy(path, it.Path(name), 0o644); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	it.Dirty()
	return nil
}
