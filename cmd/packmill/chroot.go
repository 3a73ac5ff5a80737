package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"packmill/cmd/internal/chroots"
	"packmill/cmd/internal/control"
	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/terminal"
	"packmill/queue/runner"
)

type chrootCmd struct {
	Builder string `help:"The stanza of control/builders whose chroots are meant (default: of all builders)." placeholder:"NAME"`

	Create chrootCreate `cmd:"" help:"Make a chroot, or make it anew. Builds that run go on in the old one."`
	Update chrootUpdate `cmd:"" help:"Make those anew that are old, or whose Base has changed."`
	Ls     chrootLs     `cmd:"" help:"List chroots, and whose they are; root also those of the users who build here."`
	Rm     chrootRm     `cmd:"" help:"Remove a chroot; root also that of a user who builds here."`
}

func (chrootCmd) Help() string {
	return `Examples:
  packmill chroot create stable amd64
  packmill chroot create stable arm64 --dry-run    say what would be made, and whether arm64 runs here
  packmill chroot update                           make anew what is old or missing, as cron does at night
  packmill chroot ls --json
  packmill chroot rm stable i386

Root makes them as the user who builds here: the one that User in
control/builders names, or the account of the units (packmill-build).

A chroot of another architecture needs an emulator, unless the processor runs it:
qemu-user-static, and where there is no systemd binfmt-support. Builders with
Cross-From need the chroot of that architecture only.`
}

// control reads the settings of the command line's tree.
func (c *cli) control() (*control.Settings, error) {
	s, err := control.Load(filepath.Join(c.Tree, "control"))
	if err != nil {
		return nil, daemon.Wrong{Err: err}
	}
	return s, nil
}

// chroots are those of the tree's builders, or of the one that is named.
func (c *cli) chroots() (*chroots.Set, error) {
	all, err := c.control()
	if err != nil {
		return nil, err
	}
	return &chroots.Set{Tree: c.Tree, Settings: all, Builder: c.Chroot.Builder}, nil
}

// makeChroot makes one chroot, and shows that it goes on: it may take minutes.
func (c *cli) makeChroot(p *chroots.Place, why string) error {
	if err := p.Check(); err != nil {
		return err
	}
	if why != "" {
		why = ": " + why
	}
	if c.DryRun {
		terminal.Print(os.Stdout, "would make the chroot %s in %s%s\n", p.Name(), p.Store.Dir, why)
		return nil
	}
	ctx, stop := interruptible()
	defer stop()
	start := time.Now()
	long := "half a minute"
	if !runner.Native(p.Arch) {
		long = "six minutes: its programs are emulated"
	}
	terminal.Print(os.Stderr, "making the chroot %s in %s%s; this takes about %s\n", p.Name(), p.Store.Dir, why, long)
	ch, err := p.Make(ctx, os.Stderr)
	if err != nil {
		return err
	}
	c.print(os.Stdout, ch, fmt.Sprintf("made %s in %s", p.Name(), time.Since(start).Round(time.Second)))
	return nil
}

type chrootCreate struct {
	Suite string `arg:"" help:"A suite of control/suites."`
	Arch  string `arg:"" help:"The architecture: of the packages, or with Cross-From that one."`
}

func (x *chrootCreate) Run(c *cli) error {
	set, err := c.chroots()
	if err != nil {
		return err
	}
	s, ok := set.Settings.Suite(x.Suite)
	if !ok {
		return noSuite(set.Settings, x.Suite)
	}
	none := daemon.Wrong{Err: fmt.Errorf("no builder of control/builders builds for %s in a chroot of %s: "+
		"Architectures, Suites, Cross-From and Runner say who does", x.Suite, x.Arch)}
	return set.Each([]control.Suite{*s}, x.Arch, none, func(places []chroots.Place) error {
		var errs []error
		for i := range places {
			errs = append(errs, c.makeChroot(&places[i], ""))
		}
		return errors.Join(errs...)
	})
}

type chrootUpdate struct {
	MaxAge time.Duration `help:"Make chroots anew that are older (default: 20h). In one of more than a day each build fetches apt's lists first." default:"20h" placeholder:"TIME"`
}

func (x *chrootUpdate) Run(c *cli) error {
	set, err := c.chroots()
	if err != nil {
		return err
	}
	return set.Each(set.Settings.Suites, "", nil, func(places []chroots.Place) error {
		var errs []error
		for i := range places {
			why, err := places[i].Stale(x.MaxAge)
			if err == nil && why != "" {
				err = c.makeChroot(&places[i], why)
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
}

type chrootLs struct{}

func (chrootLs) Run(c *cli) error {
	set, err := c.chroots()
	if err != nil {
		return err
	}
	l := c.list(c.screen(), terminal.Column{Name: "CHROOT"}, terminal.Column{Name: "AGE"}, terminal.Column{Name: "MB"},
		terminal.Column{Name: "IN USE"}, terminal.Column{Name: "OWNER"}, terminal.Column{Name: "DIRECTORY", Least: 12})
	rows, err := set.Rows()
	if err != nil {
		return err
	}
	for _, ch := range rows {
		used := map[bool]string{true: "yes"}[ch.Builds]
		l.add(ch, ch.Name(), terminal.Age(ch.Made), strconv.FormatInt(ch.Size>>20, 10), used, ch.Owner, ch.Dir)
	}
	return l.end("")
}

type chrootRm struct {
	Suite string `arg:"" help:"The suite; it need not be in control/suites any more."`
	Arch  string `arg:"" help:"The architecture."`
}

func (x *chrootRm) Run(c *cli) error {
	set, err := c.chroots()
	if err != nil {
		return err
	}
	return set.Remove(x.Suite, x.Arch, c.DryRun, func(ch *runner.Chroot, dir string) {
		text := fmt.Sprintf("removed %s from %s; a build that runs in it goes on to its end", ch.Name(), dir)
		if c.DryRun {
			text = fmt.Sprintf("would remove %s from %s", ch.Name(), dir)
		}
		c.print(os.Stdout, ch, text)
	})
}
