package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"packmill/archive/pool"
	"packmill/cmd/internal/control"
	"packmill/internal/durable"
	"packmill/internal/openpgp"
	"packmill/queue"
	"packmill/spool"
	"packmill/spool/upload"
)

// rules are the settings as package upload wants them, made once for as long
// as they are in force.
type rules struct {
	from      *control.Settings
	ring      *openpgp.Keyring
	uploaders []*upload.Uploader
	suites    []*upload.Suite
}

func (in *intake) currentRules() (*rules, error) {
	now := in.Settings.Get()
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.rules != nil && in.rules.from == now {
		return in.rules, nil
	}
	ring, missing, err := now.Keyring(now.UploaderKeys())
	if err != nil {
		return nil, err
	}
	for _, f := range missing {
		in.Log.Warn("no public key in control/keys: its owner cannot upload", "fingerprint", f)
	}
	r := &rules{from: now, ring: ring}
	for _, u := range now.Uploaders {
		r.uploaders = append(r.uploaders, u.Upload())
	}
	for _, s := range now.Suites {
		x, err := s.Upload()
		if err != nil {
			return nil, err
		}
		r.suites = append(r.suites, x)
	}
	in.rules = r
	return r, nil
}

// context is what the checks must know of the world for one upload.
func (r *rules) context(ctx context.Context, in *intake, it *spool.Item, t *queue.Ticket) *upload.Context {
	return &upload.Context{
		Now: time.Now(), Keyring: r.ring, Uploaders: r.uploaders, Suites: r.suites, Account: t.Account,
		Published: func(suite, source string) ([]string, error) { return in.published(ctx, t, suite, source) },
		BuiltBy: func(suite string, packages []string) (map[string]string, error) {
			return in.archive.Builders(ctx, suite, packages)
		},
		Deb:  inspect,
		Pool: func(name string) (string, int64, bool) { return in.poolFile(ctx, it, name) },
		Seen: func(hash string) (string, bool) { return in.seen(it, t, hash) },
	}
}

// published gives the versions of a source that a suite has, those on their
// way included: a version that is accepted but not published yet counts. A copy of
// the upload itself does not, such as the one that waits for its jobs while the
// archive refused the one that went ahead.
func (in *intake) published(ctx context.Context, t *queue.Ticket, suite, source string) ([]string, error) {
	var out []string
	// In the order in which a source goes: what moves on meanwhile is met
	// later, and nothing is missed.
	places, err := in.Tree.PlacesOf(suite, source, in.Tree.Are(spool.Sources|spool.Queued)...)
	if err != nil {
		return nil, err
	}
	found, err := in.Tree.Of(source, places...)
	if err != nil {
		return nil, err
	}
	for _, f := range found {
		if f.Name.Arch == "" || f.Name.Arch == spool.SourceArch {
			if o, err := queue.TicketAt(in.Tree, f); err == nil && o.Received.Equal(t.Received) {
				continue
			}
			out = append(out, f.Name.Version)
		}
	}
	versions, err := in.archive.Versions(ctx, source)
	if err != nil {
		return nil, err
	}
	for _, v := range versions {
		if v.Suite == suite {
			out = append(out, v.Version)
		}
	}
	return out, nil
}

// poolFile looks a file up in the pool, where its source would have it.
func (in *intake) poolFile(ctx context.Context, it *spool.Item, name string) (sha string, size int64, ok bool) {
	for _, path := range in.poolPaths(it, name) {
		if sha, size, err := in.archive.PoolFile(ctx, path); err == nil {
			return sha, size, true
		}
	}
	return "", 0, false
}

// poolPaths are where the pool could have a file of the item's source.
func (in *intake) poolPaths(it *spool.Item, name string) []string {
	var out []string
	for _, component := range in.components() {
		out = append(out, filepath.Join(pool.Dir(component, it.Name.Source), name))
	}
	return out
}

// fromPool links a file of the pool into the item, or copies it where the pool
// is another user's.
func (in *intake) fromPool(it *spool.Item, name string) error {
	var err error
	for _, path := range in.poolPaths(it, name) {
		if err = durable.LinkOrCopy(filepath.Join(in.archive.Root(), path), it.Path(name), 0o644); err == nil {
			return nil
		}
	}
	return fmt.Errorf("link %s from the pool: %w", name, err)
}

func (in *intake) components() []string {
	var out []string
	for _, s := range in.Settings.Get().Suites {
		out = append(out, s.Components...)
	}
	return out
}
