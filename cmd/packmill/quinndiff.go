package main

import (
	"os"

	"packmill/archive"
	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/terminal"
	"packmill/queue/lacking"
	"packmill/queue/quinndiff"
)

type quinnDiffCmd struct {
	Suite string   `arg:"" optional:"" help:"The suite; may be missing where there is only one."`
	Arch  []string `short:"a" help:"Only these architectures." placeholder:"ARCH"`
	All   bool     `help:"Also what is up to date, and what is not for the architecture, with the reason."`
}

func (quinnDiffCmd) Help() string {
	return `Prints what the archive lacks, in quinn-diff's lines: section/source_version.dsc [priority:out-of-date|partial|uncompiled]. Before the lines of each architecture stands its name, where there are several. master-buildd makes jobs of it by itself.

Examples:
  packmill quinn-diff sid --arch amd64`
}

func (q *quinnDiffCmd) Run(c *cli) error {
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
	only := map[string]bool{}
	for _, arch := range q.Arch {
		only[arch] = true
	}
	last := ""
	v.Needed(specific, func(n quinndiff.Needed) {
		if !n.State.Wanted() && !q.All || len(only) > 0 && !only[n.Arch] {
			return
		}
		if n.Arch != last && !c.JSON && len(q.Arch) != 1 {
			terminal.Print(os.Stdout, "%s:\n", n.Arch)
		}
		last = n.Arch
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
	})
	return nil
}
