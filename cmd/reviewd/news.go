package main

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"packmill/archive"
	"packmill/archive/pool"
	"packmill/internal/policy"
	"packmill/queue"
	"packmill/spool"
	"packmill/spool/upload"
)

// news says what in an upload a person must see where the suite's rule is
// Review: new: a package or a binary package that the suite does not have, or
// another debian/copyright. "" is nothing. What cannot be compared is news.
func (in *intake) news(ctx context.Context, it *spool.Item, t *queue.Ticket, u *upload.Upload) (string, error) {
	if u.New {
		return "the suite has no version of it", nil
	}
	if u.Dsc == nil {
		return "", nil // binaries of a source that is known
	}
	versions, err := in.archive.Versions(ctx, u.Changes.Source)
	if err != nil && !errors.Is(err, archive.ErrNoSuite) {
		return "", err
	}
	old, component := "", ""
	for _, v := range versions {
		if v.Suite == u.Suite.Name && (old == "" || policy.CompareVersions(v.Version, old) > 0) {
			old, component = v.Version, v.Component
		}
	}
	if old == "" {
		return "no version of it is published yet, to compare it with", nil
	}
	keep := func(name string) bool { return name == "debian/copyright" || name == "debian/control" }
	now, err := upload.Tree(ctx, it.Path(), t.Dsc, upload.Limits{}, keep)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(in.archive.Root(), pool.Dir(component, u.Changes.Source))
	was, err := upload.Tree(ctx, dir, u.Changes.Source+"_"+policy.WithoutEpoch(old)+".dsc", upload.Limits{}, keep)
	if errors.Is(err, fs.ErrNotExist) {
		return "the sources of " + old + " are not in the pool, to compare it with", nil
	}
	if err != nil {
		return "", err
	}
	var news []string
	known := packages(was["debian/control"].Text)
	for _, b := range append(packages(now["debian/control"].Text), u.Dsc.Binary...) {
		if !slices.Contains(known, b) {
			known = append(known, b)
			news = append(news, "binary package "+b)
		}
	}
	if was["debian/copyright"].SHA256 != now["debian/copyright"].SHA256 {
		news = append(news, "debian/copyright")
	}
	return strings.Join(news, ", "), nil
}

// packages are the binary packages that a debian/control makes.
func packages(control []byte) (out []string) {
	for line := range bytes.Lines(control) {
		if k, v, ok := bytes.Cut(line, []byte(":")); ok && strings.EqualFold(string(k), "Package") {
			out = append(out, string(bytes.TrimSpace(v)))
		}
	}
	return out
}
