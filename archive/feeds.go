package archive

import (
	"context"
	"fmt"
	"path/filepath"

	"packmill/archive/opkg"
)

// Opkg are the settings of a suite's feeds for opkg: one for each
// architecture, with the packages of all components but Suite.Dbgsym.
type Opkg struct {
	opkg.Options          // names of architectures, extension
	Sources      bool     // a feed "src" with the source packages
	Keys         []string // files of the usign keys that sign Packages.sig, the first one everywhere; none leaves it out

	// Layout is where clients find the feeds beside opkg/SUITE/ARCH, below opkg: a path
	// with words for what differs (see checkLayout). There is a feed for the packages
	// for all too then, and a Packages.manifest, as OpenWrt's image builder wants it.
	Layout string
}

// feeds brings the suite's opkg feeds in line with what is published. They are
// made from the published indexes, so a run that was cut off before this, or in
// it, is made good by the next one.
func (t *transaction) feeds(keys signing, rep *Report) error {
	if t.suite.Opkg == nil {
		if err := t.link(nil); err != nil {
			return err
		}
		return opkg.Drop(t.a.root, t.suite.Name, nil)
	}
	p, err := t.a.read(t.p.ctx, t.suite.Name)
	if err != nil {
		return err
	}
	defer p.close()
	archs := t.suite.archs()
	if t.suite.Opkg.Layout != "" {
		archs = append(archs, "all")
	}
	if t.suite.Opkg.Sources {
		archs = append(archs, "source")
	}
	var names []string
	links := map[string]string{}
	for _, arch := range archs {
		feed := opkg.Feed{Root: t.a.root, Suite: t.suite.Name, Arch: arch, Options: t.suite.Opkg.Options,
			Usign: keys.usign, OpenPGP: signersOf(keys.openpgp), Manifest: t.suite.Opkg.Layout != "", Progress: t.a.Progress}
		of := feed.Of(arch)
		parts, err := t.parts(p, arch, of)
		if err != nil {
			return err
		}
		for _, part := range parts {
			feed.Part, feed.Section = part.name(), part.section
			names = append(names, feed.Name())
			if at := t.suite.Opkg.at(t.suite.Name, of, &part); at != "" && t.suite.Opkg.Layout != "" {
				links[at] = feed.Name()
			}
			if err := t.feed(p, &feed, part.components, rep); err != nil {
				return err
			}
		}
	}
	if err := t.link(links); err != nil {
		return err
	}
	return opkg.Drop(t.a.root, t.suite.Name, names)
}

// feed brings one feed in line.
func (t *transaction) feed(p *published, feed *opkg.Feed, components []string, rep *Report) error {
	var indexes []opkg.Index
	for _, c := range components {
		path := feedIndex(c, feed.Arch)
		indexes = append(indexes, opkg.Index{SHA256: p.state(path).Text.SHA256,
			Open: func() (opkg.Blocks, error) { return p.blocks(path) }})
	}
	did, err := feed.Publish(t.p.ctx, indexes, t.now)
	if err != nil {
		return err
	}
	rep.Changed = rep.Changed || did.Changed
	for _, s := range did.Skipped {
		rep.Warnings = append(rep.Warnings, fmt.Sprintf("the opkg feed %s/%s goes without %s", feed.Suite, feed.Name(), s))
	}
	return nil
}

// blocks are the plain text of an index.
func (p *published) blocks(path string) (opkg.Blocks, error) {
	x, err := p.index(path)
	if err != nil {
		return opkg.Blocks{}, err
	}
	return opkg.Blocks{N: x.Blocks(), Sum: x.BlockSum, Read: x.Block}, nil
}

// checkFeeds applies every rule that an opkg client relies on to the suite's
// feeds, in the archive's tree or a snapshot's. It returns what is wrong, each with
// the feed's name.
func checkFeeds(ctx context.Context, root string, suite Suite, opt opkg.CheckOptions) ([]string, error) {
	names, err := opkg.Feeds(root, suite.Name)
	if err != nil {
		return nil, err
	}
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
