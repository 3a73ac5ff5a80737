package main

import (
	"errors"
	"os"
	"slices"

	"packmill/archive"
	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/terminal"
	"packmill/internal/policy"
	"packmill/queue/lacking"
	"packmill/queue/quinndiff"
)

type quinnDiffCmd struct {
	Suite     string   `arg:"" optional:"" help:"The suite; may be missing where there is only one."`
	Arch      []string `short:"a" help:"Only these architectures." placeholder:"ARCH"`
	All       bool     `help:"Also what is up to date, and what is not for the architecture, with the reason."`
	IgnoreAll bool     `name:"ignore-arch-all" short:"i" help:"Leave the architecture all out."`
	WarnOlder bool     `short:"w" help:"Say on standard error of which sources newer binaries are there."`
	Sources   []string `help:"Sources files, of any archive, in place of a suite's." type:"existingfile" placeholder:"FILE"`
	Packages  []string `help:"With them the Packages files of --arch." type:"existingfile" placeholder:"FILE"`
	Specific  string   `help:"With them a Packages-arch-specific." type:"existingfile" placeholder:"FILE"`
}

func (quinnDiffCmd) Help() string {
	return `Prints what the archive lacks, in quinn-diff's lines: section/source_version.dsc [priority:out-of-date|partial|uncompiled]. Before the lines of each architecture stands its name, where there are several. master-buildd makes jobs of it by itself. With --sources and --packages it compares files of any archive, compressed or not.

Examples:
  packmill quinn-diff sid --arch amd64
  packmill quinn-diff --sources Sources.xz --packages Packages.xz --arch amd64 -w`
}

func (q *quinnDiffCmd) Run(c *cli) error {
	last := ""
	each := func(n quinndiff.Needed) {
		if len(q.Arch) > 0 && !slices.Contains(q.Arch, n.Arch) || q.IgnoreAll && n.Arch == "all" {
			return
		}
		if q.WarnOlder && n.Installed != "" && policy.CompareVersions(n.Installed, n.Version) > 0 {
			terminal.Print(os.Stderr, "packmill: %s: %s is there of %s, and the source is of %s\n",
				n.Arch, n.Installed, n.Source, n.Version)
		}
		if !n.State.Wanted() && !q.All {
			return
		}
		if n.Arch != last && !c.JSON && len(q.Arch) != 1 {
			terminal.Print(os.Stdout, "%s:\n", n.Arch)
		}
		last = n.Arch
		q.print(c, &n)
	}
	if len(q.Sources)+len(q.Packages) > 0 {
		return q.files(each)
	}
	return q.suite(c, each)
}

// suite compares what a suite of the tree has.
func (q *quinnDiffCmd) suite(c *cli, each func(quinndiff.Needed)) error {
	t, err := c.open()
	if err != nil {
		return err
	}
	all, err := c.control()
	if err != nil {
		return err
	}
	s, err := theSuite(all, q.Suite, "name one")
	if err != nil {
		return err
	}
	specific, err := lacking.ReadSpecific(t.Path("control"))
	if err != nil {
		return daemon.Wrong{Err: err}
	}
	a, err := archive.Open(t.Path("archive"))
	if err != nil {
		return err
	}
	v, err := lacking.Read(a, s.Lacking())
	if err != nil {
		return err
	}
	v.Needed(specific, each)
	return nil
}

// files compares files.
func (q *quinnDiffCmd) files(each func(quinndiff.Needed)) error {
	if len(q.Arch) != 1 || len(q.Sources) == 0 || q.Suite != "" {
		return daemon.Wrong{Err: errors.New("to compare files name them with --sources and --packages, " +
			"and with --arch the one architecture that they are of")}
	}
	f := quinndiff.Files{Sources: q.Sources, Packages: q.Packages, Arch: q.Arch[0]}
	if q.Specific != "" {
		data, err := os.ReadFile(q.Specific)
		if err != nil {
			return err
		}
		if f.Specific, err = quinndiff.ParseSpecific(q.Specific, data); err != nil {
			return daemon.Wrong{Err: err}
		}
	}
	needed, refused, err := f.Diff()
	if err != nil {
		return err
	}
	for _, err := range refused {
		terminal.Print(os.Stderr, "packmill: left out: %v\n", err)
	}
	for n := range needed {
		each(n)
	}
	return nil
}

func (q *quinnDiffCmd) print(c *cli, n *quinndiff.Needed) {
	text := n.Line()
	if n.Reason != "" {
		text += " " + n.Reason
	}
	c.print(os.Stdout, struct {
		Arch      string   `json:"arch"`
		Source    string   `json:"source"`
		Version   string   `json:"version"`
		State     string   `json:"state"`
		Installed string   `json:"installed,omitempty"`
		Missing   []string `json:"missing,omitempty"`
		Older     []string `json:"older,omitempty"`
		Reason    string   `json:"reason,omitempty"`
	}{n.Arch, n.Source, n.Version, n.State.String(), n.Installed, n.Missing, n.Older, n.Reason}, terminal.Clean(text))
}
