package archive

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/gofrs/flock"

	"packmill/archive/push"
	"packmill/spool/durable"
	"packmill/spool/policy"
)

// Destination is where Push copies the archive to: a *push.Rsync or *push.S3.
type Destination interface {
	Push(ctx context.Context, root, frozen string, opt push.Options, now time.Time) (*push.Report, error)
}

// ErrPushing says that another process of this archive pushes under the name.
var ErrPushing = errors.New("a push of this name is under way")

// Push brings the copy at a destination in line with the archive. The name is
// the caller's, one for each destination; what the push keeps lies under it in
// the cache. The archive is locked for the moment of looking at it only:
// publications go on meanwhile.
func (a *Archive) Push(ctx context.Context, name string, to Destination, opt push.Options, now time.Time) (*push.Report, error) {
	if err := policy.CheckSuite(name); err != nil {
		return nil, fmt.Errorf("push: name of the destination: %w", err)
	}
	mine := flock.New(a.path("cache", "push-"+name+".lock"))
	ok, err := mine.TryLock()
	if err != nil {
		return nil, fmt.Errorf("push %s: %w", name, err)
	}
	if !ok {
		return nil, fmt.Errorf("push %s: %w", name, ErrPushing)
	}
	defer mine.Close()
	frozen := a.path("cache", "push-"+name)
	defer durable.RemoveAll(frozen)
	if err := a.freeze(ctx, frozen); err != nil {
		return nil, fmt.Errorf("push %s: %w", name, err)
	}
	switch d := to.(type) {
	case *push.Rsync:
		if d.Manifest == "" {
			own := *d
			own.Manifest = a.path("cache", "push-"+name+".manifest")
			to = &own
		}
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
	return to.Push(ctx, a.root, frozen, opt, now)
}

func (a *Archive) freeze(ctx context.Context, dir string) error {
	unlock, err := a.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return push.Freeze(a.root, dir)
}
