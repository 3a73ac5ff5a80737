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
	line := func(k, v string) {
		if v != "" {
			terminal.Print(w, "%-14s %s\n", k+":", terminal.Clean(v))
		}
	}
	list := func(title string, items []string) {
		if len(items) == 0 {
			return
		}
		terminal.Print(w, "\n%s:\n", title)
		for i, x := range items {
			if i == 40 && len(items) > 45 {
				terminal.Print(w, "  ... and %d more\n", len(items)-i)
				break
			}
			terminal.Print(w, "  %s\n", terminal.Clean(x))
		}
	}
	kind := "update of " + r.Against
	if r.Against == "" {
		kind = "new"
	}
	line("Source", r.Source)
	line("Version", r.Version+" ("+kind+")")
	line("Suite", r.Suite)
	line("Waits since", r.Since.Format(time.RFC3339))
	line("Uploader", r.Uploader)
	line("Signed by", r.Fingerprint)
	line("Rights", r.Rights)
	line("Changed by", r.ChangedBy)
	line("Maintainer", r.Maintain)
	line("On hold by", r.Hold)
	line("Waits for it", strings.Join(r.Waits, " "))
	line("Item", r.Dir)
	var files []string
	for _, f := range r.Files {
		files = append(files, fmt.Sprintf("%10d  %s", f.Size, f.Name))
	}
	list("Files", files)
	list("Changes", splitLines([]byte(r.Changelog)))
	list("Remarks of the checks", r.Remarks)
	list("In another suite already", r.Elsewhere)
	var said []string
	for _, o := range r.Opinions {
		said = append(said, fmt.Sprintf("%s  %s  %s  %s", o.Time.Format(time.RFC3339), o.Who, o.Verb, o.Text))
	}
	list("What reviewers said", said)
	said = nil
	for _, e := range r.Earlier {
		said = append(said, fmt.Sprintf("%s  %s by %s: %s", e.Time.Format(time.RFC3339), e.Version, e.Who, e.Reason))
	}
	list("Refused before", said)
	list("New binary packages", r.NewBinaries)
	list("Binary packages that are gone", r.GoneBinaries)
	list("New build dependencies", r.NewDepends)
	list("Build dependencies that are gone", r.GoneDepends)
	list("Maintainer scripts that differ", r.Scripts)
	list("Copyright files that differ", r.Copyright)
	list("New tags of lintian", r.Lintian)
	line("\nLintian", r.LintianNote)
	if r.Against != "" {
		list("Files added", r.Added)
		list("Files removed", r.Removed)
		list("Files changed", r.Changed)
	} else {
		list("Files", r.Added)
	}
	if r.Diff != "" {
		terminal.Print(w, "\nDifferences to %s:\n", r.Against)
		for l := range strings.Lines(r.Diff) {
			terminal.Print(w, "%s\n", strings.TrimRight(l, "\n"))
		}
	}
	terminal.Print(w, "\n")
}
