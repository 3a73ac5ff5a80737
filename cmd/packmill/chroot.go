package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"packmill/cmd/internal/account"
	"packmill/cmd/internal/control"
	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/terminal"
	"packmill/queue/runner"
	"packmill/spool"
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

// place is where a chroot lies, or will.
type place struct {
	store *runner.Chroots
	suite *control.Suite
	arch  string
}

// name is how people call the chroot.
func (p *place) name() string { return p.suite.Name + "-" + p.arch }

// each calls do with the chroots that the builders need: for these suites, and
// this architecture if it is not empty. Root acts as the user who builds: those
// of the stanzas with a User come first, which root makes for it; then it
// becomes the account that the units build as. none says what is wrong if there
// are none.
func (x *chrootCmd) each(c *cli, all *control.Settings, suites []control.Suite, arch string, none error, do func([]place) error) error {
	named := func(b *control.Builder) bool { return b.User != "" }
	unnamed := func(b *control.Builder) bool { return b.User == "" }
	first, err := x.places(all, suites, arch, named)
	if err != nil {
		return err
	}
	rest, err := x.places(all, suites, arch, unnamed)
	if err != nil {
		return err
	}
	if len(first)+len(rest) == 0 {
		return none
	}
	errs := []error{do(first)}
	if len(rest) > 0 && os.Getuid() == 0 && os.Getenv("PACKMILL_CHROOTS") == "" {
		if u := buildAccount(c.Tree); u != nil {
			if err := account.Become(u); err != nil {
				return errors.Join(append(errs, err)...)
			}
			if rest, err = x.places(all, suites, arch, unnamed); err != nil { // theirs lie elsewhere
				return err
			}
		}
	}
	return errors.Join(append(errs, do(rest))...)
}

// buildAccount is who builds where the daemons have accounts: packmill-build, or
// the owner of a tree that belongs to one user. Nil: root, or nobody is known.
func buildAccount(tree string) *user.User {
	names := []string{account.OwnerOf(filepath.Join(tree, "queue"))}
	if names[0] == spool.UserMaster {
		names = []string{spool.UserBuild}
	}
	if u, err := user.Lookup(names[0]); err == nil && u.Uid != "0" {
		return u
	}
	return nil
}

// places are those of all chroots that these builders need, each once.
func (x *chrootCmd) places(all *control.Settings, suites []control.Suite, arch string, mine func(*control.Builder) bool) (found []place, err error) {
	for i := range all.Builders {
		b := &all.Builders[i]
		if x.Builder != "" && b.Name != x.Builder || !mine(b) {
			continue
		}
		store := b.ChrootStore()
		for j := range suites {
			for _, a := range b.ChrootsOf(&suites[j]) {
				p := place{store, &suites[j], a}
				if (arch == "" || a == arch) && !slices.ContainsFunc(found, func(o place) bool { return o.store.Dir == p.store.Dir && o.name() == p.name() }) {
					found = append(found, p)
				}
			}
		}
	}
	if x.Builder != "" && !slices.ContainsFunc(all.Builders, func(b control.Builder) bool { return b.Name == x.Builder }) {
		err = daemon.Wrong{Err: fmt.Errorf("there is no builder %s in control/builders", x.Builder)}
	}
	return found, err
}

// stores are the directories of chroots, each once: those of the builders'
// stanzas, and for root, where a stanza names none, those of the users who
// build here without being root, as the units have it.
func (x *chrootCmd) stores(c *cli, all *control.Settings) (found []*runner.Chroots) {
	add := func(store *runner.Chroots) {
		if !slices.ContainsFunc(found, func(o *runner.Chroots) bool { return o.Dir == store.Dir }) {
			found = append(found, store)
		}
	}
	unnamed := false
	for i := range all.Builders {
		if b := &all.Builders[i]; x.Builder == "" || b.Name == x.Builder {
			add(b.ChrootStore())
			unnamed = unnamed || b.Chroots == ""
		}
	}
	if !unnamed || os.Getuid() != 0 || os.Getenv("PACKMILL_CHROOTS") != "" {
		return found
	}
	// Of a tree that belongs to one user, that one.
	for _, name := range []string{spool.UserBuild, account.OwnerOf(c.Tree)} {
		if u, err := user.Lookup(name); err == nil && u.Uid != "0" {
			add(&runner.Chroots{Dir: control.ChrootDirOf(u), User: name})
		}
	}
	return found
}

// setUp marks an error that a change of the machine or of the settings alone
// mends.
func setUp(err error) error {
	if errors.Is(err, runner.ErrSetup) {
		return daemon.Wrong{Err: err}
	}
	return err
}

// makeChroot makes one chroot, and shows that it goes on: it may take minutes.
func (c *cli) makeChroot(p place, why string) error {
	if len(p.suite.Base) == 0 {
		return daemon.Wrong{Err: p.suite.Stanza.Errorf("Base", "the suite %s has no Base; say which apt lines its builds stand on", p.suite.Name)}
	}
	if err := p.store.Ready(p.arch); err != nil {
		return setUp(fmt.Errorf("make chroot %s: %w", p.name(), err))
	}
	if why != "" {
		why = ": " + why
	}
	if c.DryRun {
		terminal.Print(os.Stdout, "would make the chroot %s in %s%s\n", p.name(), p.store.Dir, why)
		return nil
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	start := time.Now()
	long := "half a minute"
	if !runner.Native(p.arch) {
		long = "six minutes: its programs are emulated"
	}
	terminal.Print(os.Stderr, "making the chroot %s in %s%s; this takes about %s\n", p.name(), p.store.Dir, why, long)
	if err := os.MkdirAll(p.store.Dir, 0o755); err != nil {
		return err
	}
	if err := p.store.Create(ctx, p.suite.Name, p.arch, p.suite.Base, os.Stderr); err != nil {
		return setUp(err)
	}
	ch, err := p.store.Lookup(p.suite.Name, p.arch)
	if err != nil {
		return err
	}
	c.print(os.Stdout, ch, fmt.Sprintf("made %s in %s", p.name(), time.Since(start).Round(time.Second)))
	return nil
}

type chrootCreate struct {
	Suite string `arg:"" help:"A suite of control/suites."`
	Arch  string `arg:"" help:"The architecture: of the packages, or with Cross-From that one."`
}

func (x *chrootCreate) Run(c *cli) error {
	all, err := c.control()
	if err != nil {
		return err
	}
	s, ok := all.Suite(x.Suite)
	if !ok {
		return noSuite(all, x.Suite)
	}
	none := daemon.Wrong{Err: fmt.Errorf("no builder of control/builders builds for %s in a chroot of %s: Architectures, Suites, Cross-From and Runner say who does", x.Suite, x.Arch)}
	return c.Chroot.each(c, all, []control.Suite{*s}, x.Arch, none, func(places []place) error {
		var errs []error
		for _, p := range places {
			errs = append(errs, c.makeChroot(p, ""))
		}
		return errors.Join(errs...)
	})
}

type chrootUpdate struct {
	MaxAge time.Duration `help:"Make chroots anew that are older (default: 20h). In one of more than a day each build fetches apt's lists first." default:"20h" placeholder:"TIME"`
}

func (x *chrootUpdate) Run(c *cli) error {
	all, err := c.control()
	if err != nil {
		return err
	}
	return c.Chroot.each(c, all, all.Suites, "", nil, func(places []place) error {
		var errs []error
		for _, p := range places {
			errs = append(errs, x.renew(c, p))
		}
		return errors.Join(errs...)
	})
}

// renew makes one chroot anew if it is old, or not there.
func (x *chrootUpdate) renew(c *cli, p place) error {
	ch, err := p.store.Lookup(p.suite.Name, p.arch)
	why := "there is none yet"
	switch {
	case err == nil:
		why = ch.Stale(p.suite.Base, x.MaxAge, time.Now())
	case !errors.Is(err, runner.ErrNoChroot):
		return err
	}
	if why == "" {
		return nil
	}
	return c.makeChroot(p, why)
}

type chrootLs struct{}

func (chrootLs) Run(c *cli) error {
	all, err := c.control()
	if err != nil {
		return err
	}
	l := c.list(c.screen(), terminal.Column{Name: "CHROOT"}, terminal.Column{Name: "AGE"}, terminal.Column{Name: "MB"}, terminal.Column{Name: "IN USE"},
		terminal.Column{Name: "OWNER"}, terminal.Column{Name: "DIRECTORY", Least: 12})
	for _, store := range c.Chroot.stores(c, all) {
		list, err := store.List()
		if err != nil {
			return err
		}
		owner := account.OwnerOf(store.Dir)
		for _, ch := range list {
			used := ""
			if ch.Builds {
				used = "yes"
			}
			l.add(struct {
				runner.Chroot
				Owner, Dir string
			}{ch, owner, store.Dir}, ch.Name(), terminal.Age(ch.Made), strconv.FormatInt(ch.Size>>20, 10), used, owner, store.Dir)
		}
	}
	return l.end("")
}

type chrootRm struct {
	Suite string `arg:"" help:"The suite; it need not be in control/suites any more."`
	Arch  string `arg:"" help:"The architecture."`
}

func (x *chrootRm) Run(c *cli) error {
	all, err := c.control()
	if err != nil {
		return err
	}
	var errs []error
	found := false
	for _, store := range c.Chroot.stores(c, all) {
		ch, err := store.Lookup(x.Suite, x.Arch)
		if errors.Is(err, runner.ErrNoChroot) {
			continue
		}
		if err != nil {
			return daemon.Wrong{Err: err}
		}
		if found = true; c.DryRun {
			terminal.Print(os.Stdout, "would remove %s from %s\n", ch.Name(), store.Dir)
			continue
		}
		if err = setUp(store.Remove(x.Suite, x.Arch)); err == nil {
			c.print(os.Stdout, ch, fmt.Sprintf("removed %s from %s; a build that runs in it goes on to its end", ch.Name(), store.Dir))
		}
		errs = append(errs, err)
	}
	if !found {
		return daemon.Wrong{Err: fmt.Errorf("there is no chroot %s-%s; packmill chroot ls shows all", x.Suite, x.Arch)}
	}
	return errors.Join(errs...)
}
