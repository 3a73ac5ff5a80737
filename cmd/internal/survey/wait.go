package survey

import (
	"fmt"
	"slices"
	"strings"

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
// upload was refused or another has taken its place.
func ProgressOf(t *spool.Tree, pattern, suite string) (*Progress, error) {
	found, _, err := read(t, pattern, nil)
	if err != nil {
		return nil, err
	}
	found = slices.DeleteFunc(found, func(f spool.Found) bool {
		return suite != "" && f.Place.Suite != suite && f.Place.Suite != ""
	})
	if len(found) == 0 {
		return nil, nil
	}
	newest := slices.MaxFunc(found, func(a, b spool.Found) int {
		return policy.CompareVersions(a.Name.Version, b.Name.Version)
	})
	if several := sourcesOf(found); len(several) > 1 {
		return nil, daemon.Refuse("%s means several packages: %s; name one", spool.OneLine(pattern), strings.Join(several, ", "))
	}
	p := &Progress{Source: newest.Name.Source, Version: newest.Name.Version, Suite: suite}
	found = slices.DeleteFunc(found, func(f spool.Found) bool { return f.Name.Version != newest.Name.Version })
	p.judge(t, found)
	return p, nil
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
		p.Ended, p.Status = true, 1
		last := found[len(found)-1]
		p.Text = fmt.Sprintf("it lies in %s: %s", last.Place, RowOf(t, last).Reason)
	}
}
