package archive

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"packmill/archive/opkg"
	"packmill/archive/push"
	"packmill/internal/durable"
)

// Destination is where Push copies the archive to: a *push.Rsync or *push.S3.
type Destination interface {
	Push(ctx context.Context, src push.Source, opt push.Options, now time.Time) (*push.Report, error)
}

// ErrPushing says that another process of this archive pushes to the place.
var ErrPushing = errors.New("a push to this place is under way")

// Push brings the copy at a destination in line with the archive, or, if view is
// not "", with a suite or snapshot of it: its opkg feeds, and the packages that
// it names. Only a push of the whole archive removes there what has left here.
// Other archives' suites must not lie at the same destination. The archive is
// locked for the moment of looking at it only: publications go on meanwhile.
func (a *Archive) Push(ctx context.Context, view string, to Destination, opt push.Options,
	now time.Time) (*push.Report, error) {
	id := ""
	switch d := to.(type) {
	case *push.Rsync:
		id = d.Dest
	case *push.S3:
		id = strings.Join([]string{d.Endpoint, d.Bucket, d.Prefix}, " ")
	}
	sum := sha256.Sum256([]byte(id))
	name := a.path("cache", "push-"+hex.EncodeToString(sum[:8]))
	mine, err := os.OpenFile(name+".lock", os.O_RDONLY|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("push: %w", err)
	}
	defer func() {
		// Whoever was forked meanwhile and has not begun its program yet has the
		// file open, too. If the push was cut off rsync keeps the lock to its end.
		if ctx.Err() == nil {
			unix.Flock(int(mine.Fd()), unix.LOCK_UN)
		}
		mine.Close()
	}()
	if err := durable.LockFile(mine); errors.Is(err, durable.ErrLocked) {
		return nil, ErrPushing
	} else if err != nil {
		return nil, fmt.Errorf("push: %w", err)
	}
	defer durable.RemoveAll(name)
	src, err := a.freeze(ctx, view, name)
	if err != nil {
		return nil, fmt.Errorf("push: %w", err)
	}
	switch d := to.(type) {
	case *push.Rsync:
		own := *d
		own.Lock = mine
		if own.Manifest == "" {
			own.Manifest = name + ".manifest"
		}
		to = &own
	case *push.S3:
		if d.Owner == "" {
			host, err := os.Hostname()
			if err != nil {
				return nil, err
			}
			own := *d
			own.Owner = host + ":" + a.root
			to = &own
		}
	}
	return to.Push(ctx, src, opt, now)
}

// freeze says what a push sends, as it is at one moment.
func (a *Archive) freeze(ctx context.Context, view, dir string) (push.Source, error) {
	src := push.Source{Root: a.root, Frozen: dir}
	unlock, err := a.lock(ctx)
	if err != nil {
		return src, err
	}
	defer unlock()
	if view == "" {
		return src, push.Freeze(a.root, dir, "")
	}
	p, err := a.readView(ctx, view)
	if err != nil {
		return src, err
	}
	defer p.close()
	if p.rel == nil {
		return src, fmt.Errorf("suite %s: %w", view, ErrNoSuite)
	}
	src.Part, src.Root = true, p.base()
	suite := filepath.Base(p.dir)
	if err := push.Freeze(src.Root, dir, suite); err != nil {
		return src, err
	}
	named := map[string]bool{}
	if err := errors.Join(p.references(named), a.papers(named)); err != nil {
		return src, err
	}
	src.Pool = sortedKeys(named)
	files, err := opkg.Files(dir, suite)
	src.Pool = append(src.Pool, files...)
	return src, err
}
