package logs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"packmill/queue/buildlog"
	"packmill/spool"
)

// Search looks for a query in the logs that the filter means, the newest first,
// and calls emit for each match. A log that cannot be read is told to bad. Of a
// build that ends while it is searched the log has moved: it is looked for
// again, and no line is told twice.
func Search(ctx context.Context, t *spool.Tree, f buildlog.Filter, q buildlog.Query,
	emit func(*Log, buildlog.Match) error, bad func(file string, err error)) (total buildlog.Found, err error) {
	todo, err := List(t, f)
	if err != nil {
		return total, err
	}
	for round := 0; round < 3 && len(todo) > 0; round++ {
		paths, of := make([]string, len(todo)), map[string]*Log{}
		for i := range todo {
			paths[i] = todo[i].Path
			of[paths[i]] = &todo[i]
		}
		gone := map[attempt]bool{} // builds that have ended since they were listed
		found, err := buildlog.Grep(ctx, paths, q, func(m buildlog.Match) error {
			return emit(of[m.File], m)
		}, func(file string, err error) {
			if errors.Is(err, fs.ErrNotExist) {
				gone[of[file].attempt()] = true
				return
			}
			bad(file, err)
		})
		total.Files += found.Files - len(gone)
		total.Matches += found.Matches
		total.Bytes += found.Bytes
		if err != nil || len(gone) == 0 {
			return total, err
		}
		again := f
		again.Outcomes = nil // what ran then has an outcome now
		all, err := List(t, again)
		if err != nil {
			return total, err
		}
		todo = nil
		for _, l := range all {
			if gone[l.attempt()] {
				todo = append(todo, l)
			}
		}
	}
	return total, nil
}

// Hit is a line of a log that was found, as programs get it.
type Hit struct {
	Source  string    `json:"source"`
	Version string    `json:"version"`
	Suite   string    `json:"suite"`
	Arch    string    `json:"arch"`
	Start   time.Time `json:"start"`
	Outcome string    `json:"outcome"`
	Line    int       `json:"line"`
	Text    string    `json:"text"`
	Path    string    `json:"path"`
}

// Hit is a match in the log.
func (l *Log) Hit(m buildlog.Match) Hit {
	return Hit{l.Source, l.Version, l.Suite, l.Arch, l.Start, l.Outcome, m.Line, m.Text, m.File}
}

// Build names the build of the hit, for people.
func (h *Hit) Build() string {
	return fmt.Sprintf("%s_%s %s %s %s %s", h.Source, h.Version, h.Arch, h.Suite,
		h.Start.Format("2006-01-02T15:04:05Z"), h.Outcome)
}
