package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"packmill/archive/mirror"
	"packmill/internal/deb822"
	"packmill/internal/durable"
	"packmill/internal/policy"
)

// ImportOptions say how a repository is imported.
type ImportOptions struct {
	// Sourceless takes binaries whose source package the repository does not
	// have.
	Sourceless bool

	// Packages are patterns (path.Match) of which one must match the name of a
	// source or of one of its packages; none take all.
	Packages []string

	// Fetches is how many files are fetched at a time; 4 if zero.
	Fetches int

	// Progress, if set, is called from several goroutines as files arrive.
	Progress func(ImportProgress)

	// DryRun finds out what there is to do, and does nothing.
	DryRun bool
}

// ImportProgress says how far an import has come.
type ImportProgress struct {
	Uploads, AllUploads int
	Bytes, AllBytes     int64
}

// ImportReport says what an import did.
type ImportReport struct {
	Report
	Uploads []*mirror.Upload // what there was to do; Report.Results is in its order
	There   int              // uploads that were in the suite already
	Odd     []error          // entries of the repository's indexes that were left out
}

// Import brings the packages of another repository into a suite, as one
// publication: sources with their binaries, each checked as an upload is.
// What is refused, or broken in the repository, stays out and is reported; an old version in the repository is
// passed over if the suite has a newer one. Fetched files lie below cache until
// then, so an import that was cut off goes on where it was.
func (a *Archive) Import(ctx context.Context, suite Suite, repo *mirror.Repository, opt ImportOptions,
	now time.Time) (*ImportReport, error) {
	if err := suite.check(); err != nil {
		return nil, err
	}
	all, err := repo.Uploads(ctx)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(u *mirror.Upload) bool { return !opt.takes(u) })
	rep := &ImportReport{Odd: repo.Odd}
	if rep.Uploads, err = a.missing(ctx, suite, all); err != nil {
		return nil, err
	}
	rep.There = len(all) - len(rep.Uploads)
	if opt.DryRun || len(rep.Uploads) == 0 {
		return rep, nil
	}
	stage := a.path("cache", "import-"+suite.Name)
	if err := os.MkdirAll(stage, 0o700); err != nil {
		return nil, err
	}
	if repo.Copies() {
		if err := room(stage, rep.Uploads); err != nil {
			return nil, err
		}
	}
	batch, broken, err := fetchAll(ctx, repo, rep.Uploads, stage, opt)
	if err != nil {
		return nil, err
	}
	for i, u := range rep.Uploads {
		batch[i].Component, batch[i].Sourceless = u.Component, opt.Sourceless
		batch[i].Overrides = map[string]Override{}
		for _, f := range u.Files {
			if f.Package != "" {
				batch[i].Overrides[f.Package] = Override{Section: f.Section, Priority: f.Priority, Tag: f.Tag}
			} else if filepath.Ext(f.Name) == ".dsc" {
				batch[i].Overrides["src:"+u.Source] = Override{Section: f.Section, Priority: f.Priority, Tag: f.Tag}
			}
		}
	}
	whole := slices.DeleteFunc(slices.Clone(batch), func(in Inclusion) bool { return in.Dir == "" })
	did, err := a.Publish(ctx, suite, whole, now)
	if err != nil {
		return nil, err
	}
	rep.Report = *did
	rep.Results = nil
	for i := range batch {
		if batch[i].Dir == "" {
			rep.Results = append(rep.Results, broken[i])
			continue
		}
		rep.Results = append(rep.Results, did.Results[0])
		did.Results = did.Results[1:]
	}
	return rep, durable.RemoveAll(stage)
}

// room says why the uploads cannot all be fetched into stage, which may have some
// of them already.
func room(stage string, uploads []*mirror.Upload) error {
	var need int64
	for _, u := range uploads {
		need += u.Size()
	}
	err := filepath.WalkDir(stage, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			var st fs.FileInfo
			if st, err = d.Info(); err == nil {
				need -= st.Size()
			}
		}
		return err
	})
	var st unix.Statfs_t
	if err == nil {
		err = unix.Statfs(stage, &st)
	}
	if free := int64(st.Bavail) * st.Bsize; err == nil && need > free {
		err = fmt.Errorf("what there is to import has %d bytes more, and only %d are free below %s; "+
			"make room, or take some of its components or architectures", need, free, stage)
	}
	return err
}

// takes reports whether an upload is among those that are asked for.
func (o *ImportOptions) takes(u *mirror.Upload) bool {
	names := []string{u.Source}
	for _, f := range u.Files {
		names = append(names, f.Package)
	}
	return len(o.Packages) == 0 || slices.ContainsFunc(o.Packages, func(pattern string) bool {
		return slices.ContainsFunc(names, func(n string) bool {
			ok, err := path.Match(pattern, n)
			return err == nil && ok && n != ""
		})
	})
}

// fetchAll fetches uploads into directories of their own below stage. One that
// the repository does not have whole has no directory, but a result.
func fetchAll(ctx context.Context, repo *mirror.Repository, uploads []*mirror.Upload, stage string,
	opt ImportOptions) ([]Inclusion, []Result, error) {
	var (
		mu   sync.Mutex
		prog = ImportProgress{AllUploads: len(uploads)}
	)
	for _, u := range uploads {
		prog.AllBytes += u.Size()
	}
	batch, broken := make([]Inclusion, len(uploads)), make([]Result, len(uploads))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, opt.Fetches))
	if opt.Fetches == 0 {
		g.SetLimit(4)
	}
	for i, u := range uploads {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			// The name is the upload's own: another list after a restart must not
			// meet its files under another number.
			dir := filepath.Join(stage,
				u.Source+"_"+policy.WithoutEpoch(u.Version)+"_"+u.Component+"_"+strconv.Itoa(len(u.Version)))
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return err
			}
			name, err := repo.Fetch(ctx, u, dir)
			if fault := (mirror.ErrBroken{}); errors.As(err, &fault) {
				broken[i] = Result{Changes: u.Source + " " + u.Version, Outcome: Refused, Reason: fault.Error()}
			} else if err != nil {
				return err
			} else {
				batch[i] = Inclusion{Dir: dir, Changes: name}
			}
			mu.Lock()
			defer mu.Unlock()
			prog.Uploads++
			prog.Bytes += u.Size()
			if opt.Progress != nil {
				opt.Progress(prog)
			}
			return nil
		})
	}
	return batch, broken, g.Wait()
}

// missing leaves out what the suite has already, and old versions that it
// could not take any more.
func (a *Archive) missing(ctx context.Context, suite Suite, all []*mirror.Upload) ([]*mirror.Upload, error) {
	p, err := a.read(ctx, suite.Name)
	if err != nil {
		return nil, err
	}
	defer p.close()
	var out []*mirror.Upload
	for _, u := range all {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		kept := *u
		kept.Files = nil
		news := false
		for _, f := range u.Files {
			if f.Package == "" {
				kept.Files = append(kept.Files, f)
				continue
			}
			state, err := p.compare(suite, f)
			if err != nil {
				return nil, err
			}
			if state == fresh {
				kept.Files = append(kept.Files, f)
				news = true
			}
		}
		if u.HasSource {
			there, err := p.hasSource(u)
			if err != nil {
				return nil, err
			}
			news = news || !there
		}
		if news {
			out = append(out, &kept)
		}
	}
	return out, nil
}

type standing int

const (
	fresh  standing = iota // the suite lacks it
	same                   // it has exactly this
	passed                 // it has a newer one
)

// compare says how a binary package stands to the suite.
func (p *published) compare(suite Suite, f mirror.File) (standing, error) {
	for _, c := range suite.components() {
		if filepath.Ext(f.Name) == ".udeb" {
			c += installer
		}
		list, err := p.stanzas(packagesPath(c, f.Arch), f.Package)
		if err != nil {
			return fresh, err
		}
		for i := range list {
			if list[i].Get("SHA256") == f.SHA256 {
				return same, nil
			}
			if policy.CompareVersions(list[i].Get("Version"), f.Version) > 0 {
				return passed, nil
			}
		}
	}
	return fresh, nil
}

// hasSource reports whether the suite has the upload's source package, or a
// newer one.
func (p *published) hasSource(u *mirror.Upload) (bool, error) {
	s, _, err := p.source(p.components(), u.Source, u.Version)
	if err != nil || s != nil {
		return s != nil, err
	}
	for _, c := range p.components() {
		list, err := p.stanzas(sourcesPath(c), u.Source)
		if err != nil {
			return false, err
		}
		if slices.ContainsFunc(list, func(st deb822.Stanza) bool {
			return policy.CompareVersions(st.Get("Version"), u.Version) > 0
		}) {
			return true, nil
		}
	}
	return false, nil
}
