package survey

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"packmill/archive"
	"packmill/cmd/internal/control"
	"packmill/spool"
	"packmill/spool/incoming"
	"packmill/spool/upload"
)

// What a person asks about and that is no item: uploads that are not taken in yet, and what somebody
// brought into the archive by hand.

// Published is the state of what is in the archive without having been built here.
const Published = "published"

// Drops are the uploads that lie in incoming, whole or not, of those that a pattern means (none: all). Directories that
// the person may not read are left out.
func Drops(t *spool.Tree, set *control.Settings, patterns ...string) (rows []Row) {
	box := &incoming.Box{Tree: t}
	for _, d := range box.Dirs() {
		for _, name := range box.Names(d) {
			source, rest, _ := strings.Cut(name, "_")
			version, _, _ := strings.Cut(rest, "_")
			n := spool.Name{Source: source, Version: version}
			if !incoming.IsChanges(name) || len(patterns) > 0 && !slices.ContainsFunc(patterns, n.Matches) {
				continue
			}
			var st unix.Stat_t
			if unix.Lstat(box.Path(d, name), &st) != nil {
				continue
			}
			rows = append(rows, Row{Item: name, State: Incoming, Source: source, Version: version, Dir: d.String(),
				Since: incoming.Changed(&st), Who: d.Account, Reason: waitsFor(box, d, name, &st, set)})
		}
	}
	return rows
}

// waitsFor says why an upload is not taken in yet.
func waitsFor(box *incoming.Box, d incoming.Dir, name string, st *unix.Stat_t, set *control.Settings) string {
	if until := incoming.Changed(st).AddDate(0, 0, d.Days); d.Days > 0 && until.After(time.Now()) {
		return "deferred until " + until.UTC().Format(time.RFC3339)
	}
	files, err := box.Peek(d, name)
	switch {
	case errors.Is(err, upload.ErrUnfinished):
		return "the .changes file is cut off"
	case errors.Is(err, fs.ErrPermission):
		return "the .changes file cannot be read"
	}
	var missing []string
	for _, f := range files {
		if here, err := os.Lstat(box.Path(d, f.Name)); err != nil || here.Size() != f.Size {
			missing = append(missing, f.Name)
		}
	}
	if len(missing) > 0 {
		return "it is not complete without " + strings.Join(missing, ", ")
	}
	if set != nil {
		if err := set.General.Room(box.Tree.Root(), 0); err != nil {
			return "nothing is taken in: " + err.Error()
		}
	}
	return "reviewd takes it in"
}

// archived is where the archive has the source that a pattern names; of one with wildcards nothing is known.
func archived(t *spool.Tree, pattern string) (source string, versions []archive.Version, err error) {
	if spool.IsPattern(pattern) {
		return "", nil, nil
	}
	a, err := archive.Open(t.Path("archive"))
	if err != nil {
		return "", nil, err
	}
	source, _, _ = strings.Cut(pattern, "_")
	versions, err = a.Versions(context.Background(), source)
	return source, versions, err
}

// compare holds what the items tell of a source against what the archive has: it marks those of which that has nothing
// any more, and returns answers for what it has and no item tells of.
func compare(items []*Answer, source string, versions []archive.Version) (brought []*Answer) {
	for _, a := range items {
		gone := !slices.ContainsFunc(versions, func(v archive.Version) bool {
			return v.Suite == a.Suite && v.Version == a.Version
		})
		if source == a.Source && a.State == spool.Installed.Name && gone {
			a.Next = "nothing: it was published, and the archive has it no more"
		}
	}
	for _, v := range versions {
		if slices.ContainsFunc(items, func(a *Answer) bool {
			return a.Suite == v.Suite && a.Version == v.Version && a.State != spool.Rejected.Name
		}) {
			continue
		}
		brought = append(brought, &Answer{Row: Row{Item: source + "_" + v.Version, State: Published, Suite: v.Suite,
			Arch: spool.SourceArch, Source: source, Version: v.Version, Dir: "archive/dists/" + v.Suite,
			Reason: "it was brought there by hand: packmill archive copy, move, include or import"},
			Next: "nothing: clients have it"})
	}
	return brought
}
