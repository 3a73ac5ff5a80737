package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/settings"
	"packmill/queue/build"
)

type chrootCmd struct {
	Builder string `help:"The stanza of control/builders whose chroots are meant (default: the first of the architecture)." placeholder:"NAME"`

	Create chrootCreate `cmd:"" help:"Make a chroot, or make it anew. Builds that run go on in the old one."`
	Update chrootUpdate `cmd:"" help:"Make those anew that are old, or whose Base has changed."`
	Ls     chrootLs     `cmd:"" help:"List chroots."`
	Rm     chrootRm     `cmd:"" help:"Remove a chroot."`
}

func (chrootCmd) Help() string {
	return `Examples:
  packmill chroot create stable amd64
  packmill chroot update --max-age 7d
  packmill chroot ls`
}

// control reads the settings of the command line's tree.
func (c *cli) control() (*settings.Settings, error) {
	s, err := settings.Load(filepath.Join(c.Tree, "control"))
	if err != nil {
		return nil, daemon.Wrong{Err: err}
	}
	return s, nil
}

// store finds the builder that builds an architecture and its chroots.
func (x *chrootCmd) store(s *settings.Settings, arch string) (*build.Chroots, error) {
	for i := range s.Builders {
		b := &s.Builders[i]
		if b.CrossFrom != "" && arch != "" && arch != b.CrossFrom {
			continue // built in the chroot of CrossFrom
		}
		if (x.Builder == "" || b.Name == x.Builder) && (arch == "" || slices.Contains(b.Architectures, arch)) {
			return b.ChrootStore(), nil
		}
	}
	return nil, daemon.Wrong{Err: fmt.Errorf("no builder in control/builders for %s%s", x.Builder, arch)}
}

// make makes one chroot, and shows that it goes on: it may take a minute.
func (c *cli) makeChroot(store *build.Chroots, s *settings.Suite, arch string) error {
	if len(s.Base) == 0 {
		return daemon.Wrong{Err: s.Stanza.Errorf("Base", "the suite %s has no Base; say which apt lines its builds stand on", s.Name)}
	}
	if c.DryRun {
		fmt.Printf("would make the chroot %s-%s in %s\n", s.Name, arch, store.Dir)
		return nil
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	start := time.Now()
	fmt.Printf("making the chroot %s-%s in %s; this takes about half a minute\n", s.Name, arch, store.Dir)
	if err := os.MkdirAll(store.Dir, 0o755); err != nil {
		return err
	}
	if err := store.Create(ctx, s.Name, arch, s.Base, os.Stderr); err != nil {
		return err
	}
	fmt.Printf("made %s-%s in %s\n", s.Name, arch, time.Since(start).Round(time.Second))
	return nil
}

type chrootCreate struct {
	Suite string `arg:"" help:"A suite of control/suites."`
	Arch  string `arg:"" help:"The architecture."`
}

func (x *chrootCreate) Run(c *cli) error {
	all, err := c.control()
	if err != nil {
		return err
	}
	s, ok := all.Suite(x.Suite)
	if !ok {
		return daemon.Wrong{Err: fmt.Errorf("there is no suite %s in control/suites", x.Suite)}
	}
	store, err := c.Chroot.store(all, x.Arch)
	if err != nil {
		return err
	}
	return c.makeChroot(store, s, x.Arch)
}

type chrootUpdate struct {
	MaxAge time.Duration `help:"Make chroots anew that are older." default:"168h"`
}

func (x *chrootUpdate) Run(c *cli) error {
	all, err := c.control()
	if err != nil {
		return err
	}
	var errs []error
	for i := range all.Suites {
		s := &all.Suites[i]
		for _, arch := range s.Architectures {
			store, err := c.Chroot.store(all, arch)
			if err != nil {
				continue // built elsewhere
			}
			ch, err := store.Lookup(s.Name, arch)
			if errors.Is(err, build.ErrNoChroot) {
				errs = append(errs, c.makeChroot(store, s, arch))
				continue
			}
			if err != nil {
				errs = append(errs, err)
				continue
			}
			if why := ch.Stale(s.Base, x.MaxAge, time.Now()); why != "" {
				fmt.Printf("%s: %s\n", ch.Name(), why)
				errs = append(errs, c.makeChroot(store, s, arch))
			}
		}
	}
	return errors.Join(errs...)
}

type chrootLs struct{}

func (chrootLs) Run(c *cli) error {
	all, err := c.control()
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	w := table()
	if !c.JSON {
		fmt.Fprintln(w, "CHROOT\tAGE\tMB\tIN USE\tDIRECTORY")
	}
	for i := range all.Builders {
		store := all.Builders[i].ChrootStore()
		if seen[store.Dir] {
			continue
		}
		seen[store.Dir] = true
		list, err := store.List()
		if err != nil {
			return err
		}
		for _, ch := range list {
			used := ""
			if ch.Builds {
				used = "yes"
			}
			c.print(w, ch, fmt.Sprintf("%s\t%s\t%d\t%s\t%s", ch.Name(), age(ch.Made), ch.Size>>20, used, store.Dir))
		}
	}
	return w.Flush()
}

type chrootRm struct {
	Suite string `arg:"" help:"A suite."`
	Arch  string `arg:"" help:"The architecture."`
}

func (x *chrootRm) Run(c *cli) error {
	all, err := c.control()
	if err != nil {
		return err
	}
	store, err := c.Chroot.store(all, x.Arch)
	if err != nil {
		return err
	}
	if c.DryRun {
		fmt.Printf("would remove %s-%s from %s\n", x.Suite, x.Arch, store.Dir)
		return nil
	}
	return store.Remove(x.Suite, x.Arch)
}
