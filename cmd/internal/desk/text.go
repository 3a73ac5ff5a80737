package desk

import (
	"fmt"
	"io"
	"strings"
	"time"

	"packmill/cmd/internal/terminal"
)

// Print writes the report for a person. Every line of the upload is cleaned.
func (r *Report) Print(w io.Writer) {
	s := sheet{w}
	r.whose(s)
	r.brings(s)
	r.said(s)
	r.changes(s)
	r.differs(s)
	terminal.Print(w, "\n")
}

// sheet is what a report is written on.
type sheet struct{ w io.Writer }

// line writes a fact, if it is known.
func (s sheet) line(name, value string) {
	if value != "" {
		terminal.Print(s.w, "%-14s %s\n", name+":", terminal.Clean(value))
	}
}

// list writes what there is of something: of very much, the beginning.
func (s sheet) list(title string, items []string) {
	if len(items) == 0 {
		return
	}
	terminal.Print(s.w, "\n%s:\n", title)
	for i, x := range items {
		if i == 40 && len(items) > 45 {
			terminal.Print(s.w, "  ... and %d more\n", len(items)-i)
			break
		}
		terminal.Print(s.w, "  %s\n", terminal.Clean(x))
	}
}

// whose says what upload it is, who sent it and by what right.
func (r *Report) whose(s sheet) {
	kind := "update of " + r.Against
	if r.Against == "" {
		kind = "new"
	}
	s.line("Source", r.Source)
	s.line("Version", r.Version+" ("+kind+")")
	s.line("Suite", r.Suite)
	s.line("Waits since", r.Since.Format(time.RFC3339))
	s.line("Uploader", r.Uploader)
	s.line("Signed by", r.Fingerprint)
	s.line("Rights", r.Rights)
	s.line("Changed by", r.ChangedBy)
	s.line("Maintainer", r.Maintain)
	s.line("On hold by", r.Hold)
	s.line("Waits for it", strings.Join(r.Waits, " "))
	s.line("Item", r.Dir)
}

// brings says what lies in the upload, and what the checks remarked.
func (r *Report) brings(s sheet) {
	var files []string
	for _, f := range r.Files {
		files = append(files, fmt.Sprintf("%10d  %s", f.Size, f.Name))
	}
	s.list("Files", files)
	s.list("Changes", splitLines([]byte(r.Changelog)))
	s.list("Remarks of the checks", r.Remarks)
	s.list("In another suite already", r.Elsewhere)
}

// said is what reviewers said of this upload, and of those before it.
func (r *Report) said(s sheet) {
	var now, before []string
	for _, o := range r.Opinions {
		now = append(now, fmt.Sprintf("%s  %s  %s  %s", o.Time.Format(time.RFC3339), o.Who, o.Verb, o.Text))
	}
	for _, e := range r.Earlier {
		before = append(before, fmt.Sprintf("%s  %s by %s: %s", e.Time.Format(time.RFC3339), e.Version, e.Who, e.Reason))
	}
	s.list("What reviewers said", now)
	s.list("Refused before", before)
}

// changes says what is new for those who build and install it.
func (r *Report) changes(s sheet) {
	s.list("New binary packages", r.NewBinaries)
	s.list("Binary packages that are gone", r.GoneBinaries)
	s.list("New build dependencies", r.NewDepends)
	s.list("Build dependencies that are gone", r.GoneDepends)
	s.list("Maintainer scripts that differ", r.Scripts)
	s.list("Copyright files that differ", r.Copyright)
	s.list("New tags of lintian", r.Lintian)
	s.line("\nLintian", r.LintianNote)
}

// differs says which files changed, and how.
func (r *Report) differs(s sheet) {
	if r.Against != "" {
		s.list("Files added", r.Added)
		s.list("Files removed", r.Removed)
		s.list("Files changed", r.Changed)
	} else {
		s.list("Files", r.Added)
	}
	if r.Diff == "" {
		return
	}
	terminal.Print(s.w, "\nDifferences to %s:\n", r.Against)
	for l := range strings.Lines(r.Diff) {
		terminal.Print(s.w, "%s\n", strings.TrimRight(l, "\n"))
	}
}
