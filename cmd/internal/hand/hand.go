// Package hand is the archive as a person works on it, past the queues: opened as its owner, with the suites
// of the settings. Commands print what it returns.
package hand

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"packmill/archive"
	"packmill/cmd/internal/account"
	"packmill/cmd/internal/base"
	"packmill/cmd/internal/control"
	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/terminal"
	"packmill/internal/deb"
	"packmill/internal/durable"
)

// Hand is what every command of the archive works with.
type Hand struct {
	*archive.Archive
	Settings *control.Settings
	Tree     string          // the directory that archive and control lie in
	Who      string          // the person
	Ctx      context.Context // ends with an interrupt; a publication in its midst leaves nothing visible
	Say      func(error)     // of trouble that does not end a command
}

// Open opens the archive of a tree and its settings, and becomes the archive's owner.
func Open(ctx context.Context, tree string, say func(error)) (*Hand, error) {
	if err := Alone(tree); err != nil {
		return nil, err
	}
	s, err := control.Load(filepath.Join(tree, "control"))
	if err != nil {
		return nil, daemon.Wrong{Err: err}
	}
	who := terminal.Who()
	dir := filepath.Join(tree, "archive")
	if err := account.BecomeOwner(dir); err != nil {
		return nil, err
	}
	a, err := archive.Open(dir)
	if err != nil {
		return nil, err
	}
	return &Hand{a, s, tree, who, ctx, say}, nil
}

// Alone checks that what an archive needs is there: of the tree, control and
// archive. It syncs them, for an earlier process may have been killed between a
// change and its sync.
func Alone(tree string) error {
	unix.Umask(0o002)
	for _, d := range []string{"control", "archive"} {
		if err := durable.SyncFS(filepath.Join(tree, d)); err != nil {
			return daemon.Wrong{Err: fmt.Errorf("no archive in %s: %w; make one with: packmill init --archive --tree %[1]s, "+
				"or the whole tree without --archive", tree, err)}
		}
	}
	return nil
}

// Suite is a suite of the settings as the archive wants it.
func (h *Hand) Suite(name string) (archive.Suite, error) {
	x, ok := h.Settings.Suite(name)
	if !ok {
		return archive.Suite{}, daemon.Wrong{Err: h.Settings.NoSuite(name)}
	}
	out, err := h.Settings.Archive(x)
	if err != nil {
		return out, daemon.Wrong{Err: err}
	}
	return out, nil
}

// Publishing shows a person who waits how far the feeds for opkg are, which are slow to make the
// first time, until end is called.
func (h *Hand) Publishing() (end func()) {
	p := terminal.Begin("publishing")
	h.Progress = p.Count
	return p.End
}

// Missing turns a suite that is not there into a refusal.
func Missing(err error) error {
	if errors.Is(err, archive.ErrNoSuite) {
		err = fmt.Errorf("%w: nothing is published under this name (packmill archive include SUITE publishes one that is "+
			"configured; packmill archive ls lists what there is, snapshots as NAME/SUITE)", err)
	}
	if errors.Is(err, archive.ErrNoSuite) || errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%w: %w", daemon.ErrRefused, err)
	}
	return err
}

// Inclusions are what .changes files of a suite list. Who asks is trusted, and force lets versions go down.
func Inclusions(suite string, changes []string, force bool) (batch []archive.Inclusion, err error) {
	for _, n := range changes {
		if deb.IsFile(n) || filepath.Ext(n) == ".dsc" {
			return nil, daemon.Wrong{Err: fmt.Errorf("%s is no .changes file: name the one that dpkg-buildpackage made beside "+
				"it; packages without one come from a directory (dpkg-scanpackages . >Packages, "+
				"then packmill archive import %s DIR ./ --unsigned --sourceless)", n, suite)}
		}
		batch = append(batch, archive.Inclusion{Dir: filepath.Dir(n), Changes: filepath.Base(n), Force: force})
	}
	return batch, nil
}

// Breaks finds what a removal breaks, with the suite's Base in sight: as master-buildd
// fetched it, or, where none runs, as it is fetched now.
func (h *Hand) Breaks(suite string, removed []archive.Entry) ([]archive.Broken, error) {
	set, _ := h.Settings.Suite(suite)
	return h.Archive.Breaks(h.Ctx, suite, removed, func(arch string) []string {
		below := base.Of(h.Tree, set, arch)
		if below == nil {
			return nil
		}
		if below.Due() {
			if err := below.Fetch(h.Ctx); err != nil && below.Lists() == nil {
				h.Say(fmt.Errorf("the Base of %s cannot be read, so what the suite lacks is taken to be there: %w", suite, err))
			}
		}
		return below.Lists()
	})
}

// Staying is "1 other that stays" or "2 others that stay".
func Staying(broken []archive.Broken) string {
	return terminal.Counted(len(broken), "other") +
		map[bool]string{true: " that stays", false: " that stay"}[len(broken) == 1]
}
