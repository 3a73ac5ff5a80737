// Package backup copies a tree while everything runs.
//
// A tree is whole at every moment, also if its machine dies then: each change is a
// rename. A copy takes longer than a moment. So it is made again, of what has changed,
// until nothing has changed while it was made: then what lies there was the tree all that
// time.
package backup

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"packmill/cmd/internal/daemon"
	"packmill/spool"
)

// left are what a backup goes without: what is made again from the rest.
var left = []string{"archive/cache", "tmp", spool.BuildersDir, spool.NamesDir}

// Backup is a copy that is to be made.
type Backup struct {
	Tree  *spool.Tree
	To    string // as rsync takes it
	Tries int
}

// ErrMoves says that something changed during every copy.
var ErrMoves = errors.New("something moved during every copy, so what lies there is no backup yet")

// Run makes the copy, and returns how often it copied.
func (b *Backup) Run(ctx context.Context) (rounds int, err error) {
	if strings.HasPrefix(b.To, "-") || b.To == "" {
		return 0, daemon.Wrong{Err: fmt.Errorf("%q is no place for a backup", b.To)}
	}
	before, err := b.look()
	if err == nil && Local(b.To) {
		err = os.MkdirAll(b.To, 0o700)
	}
	if err != nil {
		return 0, err
	}
	for rounds = 1; rounds <= b.Tries; rounds++ {
		copied := b.copy(ctx)
		if copied != nil && !errors.Is(copied, errPart) {
			return rounds, copied
		}
		after, err := b.look()
		if err != nil || after == before && (copied == nil || rounds > 1) {
			return rounds, cmp.Or(err, copied)
		}
		before = after
	}
	return b.Tries, ErrMoves
}

// errPart says that something could not be copied: it may just have moved.
var errPart = errors.New("not everything was copied")

// copy brings the copy in line with what is there.
func (b *Backup) copy(ctx context.Context) error {
	// A second has room for two publications of one size: times count to their end.
	args := []string{"-aHX", "--numeric-ids", "--modify-window=-1", "--delete", "--delete-excluded"}
	if !Local(b.To) {
		// The account there need not be root: whose the files are, it notes beside them.
		args = append(args, "-M--fake-super")
	}
	for _, x := range left {
		args = append(args, "--exclude=/"+x+"/**")
	}
	cmd := exec.CommandContext(ctx, "rsync", append(args, "--", b.Tree.Root()+"/", strings.TrimSuffix(b.To, "/")+"/")...)
	var said strings.Builder
	cmd.Stderr = &said
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	err := cmd.Run()
	// rsync(1): partial transfer due to error, due to vanished source files
	const part, vanished = 23, 24
	exit := (*exec.ExitError)(nil)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, exec.ErrNotFound):
		return daemon.Wrong{Err: fmt.Errorf("%w; apt install rsync", err)}
	case errors.As(err, &exit) && exit.ExitCode() == vanished:
		return nil
	case errors.As(err, &exit) && exit.ExitCode() == part:
		err = errPart
	}
	return fmt.Errorf("rsync: %w: %.400s", err, spool.OneLine(strings.TrimSpace(said.String())))
}

// look sums up what the tree is: every name, inode, size and time. What grows in the
// job of a build that runs is not looked at: that job is given back after a restore,
// and built again.
func (b *Backup) look() (sum [sha256.Size]byte, err error) {
	h := sha256.New()
	root := b.Tree.Root()
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		for _, x := range left {
			if rel == x {
				return fs.SkipDir
			}
		}
		var st syscall.Stat_t
		if err := syscall.Lstat(path, &st); err != nil {
			return nil // its directory tells
		}
		if p, ok := b.Tree.PlaceOf(filepath.Dir(rel)); ok && p.State == spool.Building && d.IsDir() {
			fmt.Fprintf(h, "%q %d\n", rel, st.Ino)
			return fs.SkipDir
		}
		fmt.Fprintf(h, "%q %d %d %d %d %o %d\n", rel, st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano(), st.Mode, st.Uid)
		return nil
	})
	return [sha256.Size]byte(h.Sum(nil)), err
}

// Local reports whether the copy lies in a directory of this machine.
func Local(to string) bool {
	host, _, remote := strings.Cut(to, ":")
	return !remote || strings.Contains(host, "/")
}

// Check says why the copy cannot be there: inside the tree it would copy itself.
func (b *Backup) Check() error {
	if !Local(b.To) {
		return nil
	}
	to, err := filepath.Abs(b.To)
	if err != nil {
		return err
	}
	if rel, err := filepath.Rel(resolved(b.Tree.Root()), resolved(to)); err == nil && filepath.IsLocal(rel) {
		return daemon.Wrong{Err: fmt.Errorf("%s is in the tree; make the backup elsewhere", b.To)}
	}
	return nil
}

// resolved is an absolute path without the symbolic links of what there is of it.
func resolved(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil || filepath.Dir(path) == path {
		return cmp.Or(real, path)
	}
	return filepath.Join(resolved(filepath.Dir(path)), filepath.Base(path))
}
