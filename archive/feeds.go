package archive

import (
	"context"
	"path/filepath"

	"packmill/archive/opkg"
)

// Opkg are the settings of a suite's feeds for opkg: one for each
// architecture, with the packages of all components but Suite.Dbgsym.
type Opkg struct {
	opkg.Options          // names of architectures, extension
	Sources      bool     // a feed "src" with the source packages
	Keys         []string // files of the usign keys that sign Packages.sig, the first one everywhere; none leaves it out
}

// feeds brings the suite's opkg feeds in line with what is published. They are
// made from the published indexes, so a run that was cut off before this, or in
// it, is made good by the next one.
func (t *transaction) feeds(keys signing, rep *Report) error {
	if t.suite.Opkg == nil {
		return opkg.Drop(t.a.root, t.suite.Name, nil)
	}
	feed := opkg.Feed{Root: t.a.root, Suite: t.suite.Name, Options: t.suite.Opkg.Options, Usign: keys.usign, OpenPGP: signersOf(keys.openpgp)}
	p, err := t.a.read(t.p.ctx, t.suite.Name)
	if err != nil {
		return err
	}
	defer p.close()
	archs := t.suite.archs()
	if t.suite.Opkg.Sources {
		archs = append(archs, "source")
	}
	var names []string
	for _, arch := range archs {
		var indexes []opkg.Index
		for _, c := range t.suite.components() {
			if c == t.suite.Dbgsym {
				continue
			}
			path := packagesPath(c, arch)
			if arch == "source" {
				path = sourcesPath(c)
			}
			indexes = append(indexes, opkg.Index{SHA256: p.state(path).Text.SHA256,
				Open: func() (opkg.Blocks, error) { return p.blocks(path) }})
		}
		feed.Arch = arch
		names = append(names, feed.Name())
		did, err := feed.Publish(t.p.ctx, indexes, t.now)
		if err != nil {
			return err
		}
		rep.Changed = rep.Changed || did.Changed
		for _, s := range did.Skipped {
			rep.NotForOpkg = append(rep.NotForOpkg, feed.Name()+": "+s)
		}
	}
	return opkg.Drop(t.a.root, t.suite.Name, names)
}

// blocks are the plain text of an index.
func (p *published) blocks(path string) (opkg.Blocks, error) {
	x, err := p.index(path)
	if err != nil {
		return opkg.Blocks{}, err
	}
	return opkg.Blocks{N: x.Blocks(), Read: x.Block}, nil
}

// CheckFeeds applies every rule that an opkg client relies on to the suite's
// feeds, and compares each package file with its index if deep is set. It
// returns what is wrong, each with the feed's name.
func (a *Archive) CheckFeeds(ctx context.Context, suite Suite, opt opkg.CheckOptions, deep bool) ([]string, error) {
	return checkFeeds(ctx, a.root, suite, opt, deep)
}

// checkFeeds is CheckFeeds for the archive's tree or a snapshot's.
func checkFeeds(ctx context.Context, root string, suite Suite, opt opkg.CheckOptions, deep bool) ([]string, error) {
	names, err := opkg.Feeds(root, suite.Name)
	if err != nil {
		return nil, err
	}
	opt.SkipPackages = !deep
	var out []string
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		// What the settings name for all is known only with them.
		opt.Archs = nil
		if suite.Opkg != nil {
			opt.Archs = suite.Opkg.Seen(name)
		}
		_, wrong, err := opkg.Check(filepath.Join(root, "opkg", suite.Name, name), opt)
		if err != nil {
			return nil, err
		}
		for _, w := range wrong {
			out = append(out, name+": "+w)
		}
	}
	return out, nil
}
