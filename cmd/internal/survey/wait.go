package survey

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"packmill/cmd/internal/daemon"
	"packmill/internal/policy"
	"packmill/queue/logs"
	"packmill/spool"
)

// Progress is how far a version of a package has come in a suite.
type Progress struct {
	Source  string `json:"source"`
	Version string `json:"version"`
	Suite   string `json:"suite,omitempty"`
	Text    string `json:"text"` // what was seen, for people: "amd64 building, all uploaded"
	Ended   bool   `json:"ended"`
	Status  int    `json:"status"` // exit status: that of log -f, and 1 if it was refused or replaced
}

// ProgressOf looks how far the newest version of what a person calls pattern is, in one
// suite or with "" wherever it is. Nil says that nothing of it is here (yet).
//
// It has ended when all of it is published, with the first build that failed, or when the
// upload was refused or another has taken its place, and none is on its way in. A person who may not see where uploads
// wait must name the version, or an older one would be taken for the newest; one who may
// not see the jobs is refused: what is not seen is not published.
func ProgressOf(t *spool.Tree, pattern, suite string) (*Progress, error) {
	found, closed, err := read(t, pattern, nil)
	if err != nil {
		return nil, err
	}
	if err := enough(pattern, closed); err != nil {
		return nil, err
	}
	found = slices.DeleteFunc(found, func(f spool.Found) bool {
		return suite != "" && f.Place.Suite != suite && f.Place.Suite != ""
	})
	drop := arriving(t, pattern)
	if len(found) == 0 {
		return drop, nil
	}
	newest := slices.MaxFunc(found, func(a, b spool.Found) int {
		return policy.CompareVersions(a.Name.Version, b.Name.Version)
	})
	if several := sourcesOf(found); len(several) > 1 {
		return nil, daemon.Refuse("%s means several packages: %s; name one",
			spool.OneLine(pattern), strings.Join(several, ", "))
	}
	p := &Progress{Source: newest.Name.Source, Version: newest.Name.Version, Suite: suite}
	found = slices.DeleteFunc(found, func(f spool.Found) bool { return f.Name.Version != newest.Name.Version })
	p.judge(t, found)
	if drop == nil {
		return p, nil
	}
	switch later := policy.CompareVersions(drop.Version, withoutEpoch(p.Version)); {
	case later > 0 && suite == "", later == 0 && p.Status == refused:
		return drop, nil
	}
	return p, nil
}

// arriving is the newest of the uploads in incoming that the pattern means, or nil: what was
// sent again after a refusal has not been refused yet. Names of files have no epoch.
func arriving(t *spool.Tree, pattern string) *Progress {
	var newest *Progress
	for _, r := range Drops(t, nil, withoutEpoch(pattern)) {
		if newest == nil || policy.CompareVersions(r.Version, newest.Version) > 0 {
			newest = &Progress{Source: r.Source, Version: r.Version, Text: r.State + ": " + r.Reason}
		}
	}
	return newest
}

var epoch = regexp.MustCompile(`(^|_)[0-9]+(:|%3a)`)

// withoutEpoch is a version, or SOURCE_VERSION, as names of files have it.
func withoutEpoch(name string) string { return epoch.ReplaceAllString(name, "$1") }

// refused is the status of an upload that was refused, or that another has replaced.
const refused = 1

// waitLooks are the pauses between looks: the last stays.
var waitLooks = []time.Duration{time.Second, time.Second, time.Second, 2 * time.Second, 5 * time.Second}

// TimeUp is the status of a wait that came to no end.
const TimeUp = 4

// Await looks again and again until the package has come to its end or, if it is not 0,
// the patience is over. What it sees is told when it changes.
func Await(
	ctx context.Context, t *spool.Tree, pattern, suite string, patience time.Duration, tell func(*Progress),
) (*Progress, error) {
	var over <-chan time.Time
	if patience > 0 {
		over = time.After(patience)
	}
	var last Progress
	for look := 0; ; look++ {
		p, err := ProgressOf(t, pattern, suite)
		if err != nil {
			return nil, err
		}
		if p == nil {
			p = &Progress{Source: pattern, Suite: suite, Text: "nothing of it is here yet"}
		}
		// An item that is moved during a look may be seen nowhere: the end is seen twice.
		if p.Ended && *p == last {
			return p, nil
		}
		if p.Text != last.Text && !p.Ended {
			tell(p)
		}
		last = *p
		select {
		case <-ctx.Done():
			return nil, errors.New("interrupted")
		case <-over:
			p.Text, p.Status = "the time is over: "+p.Text, TimeUp
			return p, nil
		case <-time.After(waitLooks[min(look, len(waitLooks)-1)]):
		}
	}
}

// enough reports whether what a person may see is enough to say how far a package is.
func enough(pattern string, closed []string) error {
	for _, dir := range closed {
		if !strings.HasPrefix(dir, "spool/") {
			return daemon.Refuse("%s is closed to you, so how far %s is cannot be said", dir, spool.OneLine(pattern))
		}
	}
	if len(closed) > 0 && !strings.Contains(pattern, "_") {
		return daemon.Refuse("where uploads wait is closed to you (%s): name the version, %s_VERSION",
			strings.Join(closed, ", "), spool.OneLine(pattern))
	}
	return nil
}

// sourcesOf are the names of the sources among what was found.
func sourcesOf(found []spool.Found) (names []string) {
	for _, f := range found {
		names = append(names, f.Name.Source)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// judge says what the items of one version come to.
func (p *Progress) judge(t *spool.Tree, found []spool.Found) {
	var parts []string
	open, published := false, false
	for _, f := range found {
		s := f.Place.State
		arch := f.Arch()
		if arch == "" {
			arch = spool.SourceArch
		}
		if s == spool.Installed || !s.Is(spool.Kept) {
			parts = append(parts, arch+" "+s.String())
		}
		switch {
		case s == spool.Installed:
			published = published || arch == spool.SourceArch
		case s.Is(spool.Settled) && s.Requeue != nil && !s.Is(spool.Kept): // the build failed
			p.Ended, p.Status = true, int(logs.Failed)
			parts[len(parts)-1] += ": " + RowOf(t, f).Reason
		default:
			open = open || !s.Is(spool.Kept) && (s.Is(spool.Active) || !s.Is(spool.Settled))
		}
	}
	p.Text = strings.Join(parts, ", ")
	switch {
	case p.Ended || open:
	case published:
		p.Ended = true
		p.Text = "published: " + p.Text
	default:
		p.Ended, p.Status = true, refused
		last := found[len(found)-1]
		p.Text = fmt.Sprintf("it lies in %s: %s", last.Place, RowOf(t, last).Reason)
	}
}
