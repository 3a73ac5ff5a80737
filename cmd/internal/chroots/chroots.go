// Package chroots says which chroots the builders of a tree need, where they lie and
// whose they are.
package chroots

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"time"

	"packmill/cmd/internal/account"
	"packmill/cmd/internal/control"
	"packmill/cmd/internal/daemon"
	"packmill/queue/runner"
	"packmill/spool"
)

// Place is where a chroot lies, or will.
type Place struct {
	Store *runner.Chroots
	Suite *control.Suite
	Arch  string
}

// Name is how people call the chroot.
func (p *Place) Name() string { return p.Suite.Name + "-" + p.Arch }

// Set is the chroots of a tree's builders, or of one of them.
type Set struct {
	Tree     string
	Settings *control.Settings
	Builder  string // a stanza of control/builders; "": all
}

// Each calls do with the chroots that the builders need: for these suites, and
// this architecture if it is not empty. Root acts as the user who builds: those
// of the stanzas with a User come first, which root makes for it; then it
// becomes the account that the units build as. none says what is wrong if there
// are none.
func (s *Set) Each(suites []control.Suite, arch string, none error, do func([]Place) error) error {
	named := func(b *control.Builder) bool { return b.User != "" }
	unnamed := func(b *control.Builder) bool { return b.User == "" }
	first, err := s.places(suites, arch, named)
	if err != nil {
		return err
	}
	rest, err := s.places(suites, arch, unnamed)
	if err != nil {
		return err
	}
	if len(first)+len(rest) == 0 {
		return none
	}
	errs := []error{do(first)}
	if u := s.account(); len(rest) > 0 && u != nil {
		if err := account.Become(u); err != nil {
			return errors.Join(append(errs, err)...)
		}
		if rest, err = s.places(suites, arch, unnamed); err != nil { // theirs lie elsewhere
			return err
		}
	}
	return errors.Join(append(errs, do(rest))...)
}

// forOthers reports whether who runs the program acts for the users who build.
func forOthers() bool { return os.Getuid() == 0 && os.Getenv("PACKMILL_CHROOTS") == "" }

// account is who builds where the daemons have accounts: packmill-build, or the
// owner of a tree that belongs to one user. Nil: who runs the program, or nobody
// is known.
func (s *Set) account() *user.User {
	if !forOthers() {
		return nil
	}
	name := account.OwnerOf(filepath.Join(s.Tree, "queue"))
	if name == spool.UserMaster {
		name = spool.UserBuild
	}
	if u, err := user.Lookup(name); err == nil && u.Uid != "0" {
		return u
	}
	return nil
}

// places are those of all chroots that these builders need, each once.
func (s *Set) places(suites []control.Suite, arch string, mine func(*control.Builder) bool) (found []Place, err error) {
	for i := range s.Settings.Builders {
		b := &s.Settings.Builders[i]
		if !s.means(b) || !mine(b) {
			continue
		}
		store := b.ChrootStore()
		for j := range suites {
			for _, a := range b.ChrootsOf(&suites[j]) {
				p := Place{store, &suites[j], a}
				known := slices.ContainsFunc(found, func(o Place) bool {
					return o.Store.Dir == p.Store.Dir && o.Name() == p.Name()
				})
				if (arch == "" || a == arch) && !known {
					found = append(found, p)
				}
			}
		}
	}
	if s.Builder != "" && !slices.ContainsFunc(s.Settings.Builders, func(b control.Builder) bool {
		return b.Name == s.Builder
	}) {
		err = daemon.Wrong{Err: fmt.Errorf("there is no builder %s in control/builders", s.Builder)}
	}
	return found, err
}

func (s *Set) means(b *control.Builder) bool { return s.Builder == "" || b.Name == s.Builder }

// Stores are the directories of chroots, each once: those of the builders'
// stanzas, and for root, where a stanza names none, those of the users who
// build here without being root, as the units have it.
func (s *Set) Stores() (found []*runner.Chroots) {
	add := func(store *runner.Chroots) {
		if !slices.ContainsFunc(found, func(o *runner.Chroots) bool { return o.Dir == store.Dir }) {
			found = append(found, store)
		}
	}
	unnamed := false
	for i := range s.Settings.Builders {
		if b := &s.Settings.Builders[i]; s.means(b) {
			add(b.ChrootStore())
			unnamed = unnamed || b.Chroots == ""
		}
	}
	if !unnamed || !forOthers() {
		return found
	}
	// Of a tree that belongs to one user, that one.
	for _, name := range []string{spool.UserBuild, account.OwnerOf(s.Tree)} {
		if u, err := user.Lookup(name); err == nil && u.Uid != "0" {
			add(&runner.Chroots{Dir: control.ChrootDirOf(u), User: name})
		}
	}
	return found
}

// Row is a chroot that is there, with whose it is and where.
type Row struct {
	runner.Chroot
	Owner, Dir string
}

// Rows are the chroots that there are.
func (s *Set) Rows() (rows []Row, err error) {
	for _, store := range s.Stores() {
		list, err := store.List()
		if err != nil {
			return nil, err
		}
		for _, ch := range list {
			rows = append(rows, Row{ch, account.OwnerOf(store.Dir), store.Dir})
		}
	}
	return rows, nil
}

// Remove removes a chroot wherever it is, or with dry only looks; did tells of each. A build that runs in it goes on to
// its end.
func (s *Set) Remove(suite, arch string, dry bool, did func(*runner.Chroot, string)) error {
	errs, found := []error{}, false
	for _, store := range s.Stores() {
		ch, err := store.Lookup(suite, arch)
		if errors.Is(err, runner.ErrNoChroot) {
			continue
		}
		if err != nil {
			return daemon.Wrong{Err: err}
		}
		if found = true; !dry {
			err = SetUp(store.Remove(suite, arch))
		}
		if err == nil {
			did(ch, store.Dir)
		}
		errs = append(errs, err)
	}
	if !found {
		return daemon.Wrong{Err: fmt.Errorf("there is no chroot %s-%s; packmill chroot ls shows all", suite, arch)}
	}
	return errors.Join(errs...)
}

// Check says why the chroot cannot be made here, or nil.
func (p *Place) Check() error {
	if len(p.Suite.Base) == 0 {
		return daemon.Wrong{Err: p.Suite.Stanza.Errorf("Base",
			"the suite %s has no Base; say which apt lines its builds stand on", p.Suite.Name)}
	}
	if err := p.Store.Ready(p.Arch); err != nil {
		return SetUp(fmt.Errorf("make chroot %s: %w", p.Name(), err))
	}
	return nil
}

// Make makes the chroot, which may take minutes; what goes on goes to log.
func (p *Place) Make(ctx context.Context, log *os.File) (*runner.Chroot, error) {
	if err := os.MkdirAll(p.Store.Dir, 0o755); err != nil {
		return nil, err
	}
	r := runner.Recipe{Suite: p.Suite.Name, Arch: p.Arch, Base: p.Suite.Base, Log: log}
	if err := p.Store.Create(ctx, r); err != nil {
		return nil, SetUp(err)
	}
	return p.Store.Lookup(p.Suite.Name, p.Arch)
}

// Stale says why the chroot must be made anew: it is older than that, its Base has
// changed, or it is not there. "": it need not be.
func (p *Place) Stale(age time.Duration) (why string, err error) {
	ch, err := p.Store.Lookup(p.Suite.Name, p.Arch)
	switch {
	case errors.Is(err, runner.ErrNoChroot):
		return "there is none yet", nil
	case err != nil:
		return "", err
	}
	return ch.Stale(p.Suite.Base, age, time.Now()), nil
}

// SetUp marks an error that a change of the machine or of the settings alone
// mends.
func SetUp(err error) error {
	if errors.Is(err, runner.ErrSetup) {
		return daemon.Wrong{Err: err}
	}
	return err
}
