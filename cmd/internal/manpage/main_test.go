package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPrograms turns every program's package comment into a page: so each of
// them is one, with a synopsis and its exit status.
func TestPrograms(t *testing.T) {
	t.Chdir("../../..")
	dir := t.TempDir()
	mains, err := filepath.Glob("cmd/*/main.go")
	if err != nil {
		t.Fatal(err)
	}
	if len(mains) == 0 {
		return // no program yet
	}
	if err := run(dir); err != nil {
		t.Fatal(err)
	}
	pages, _ := filepath.Glob(filepath.Join(dir, "*"))
	if len(pages) != len(mains) {
		t.Errorf("got %q, want a page for each of %q", pages, mains)
	}
	for _, p := range pages {
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{".SH NAME\n", ".SH SYNOPSIS\n", ".SH DESCRIPTION\n", ".SH EXIT STATUS\n"} {
			if !strings.Contains(string(data), want) {
				t.Errorf("%s has no %q: the package comment lacks it", filepath.Base(p), strings.TrimSpace(want))
			}
		}
	}
}

func TestPage(t *testing.T) {
	got, err := page("toyd", "8", `Command toyd plays: it does nothing. Ever.

	toyd [--tree DIR]

It has a-hyphen and a back\slash.

	.not a command

Exit status: 0 done.
`)
	want := `.TH TOYD 8 "" Packmill
.SH NAME
toyd \- plays
.SH SYNOPSIS
.nf
toyd [\-\-tree DIR]
.fi
.SH DESCRIPTION
toyd plays: it does nothing. Ever.
.PP
It has a\-hyphen and a back\eslash.
.PP
.nf
\&.not a command
.fi
.SH EXIT STATUS
0 done.
`
	if err != nil || got != want {
		t.Errorf("page: %v\ngot:\n%s\nwant:\n%s", err, got, want)
	}
	for _, bad := range []string{"", "Command toyd.", "Package toyd plays.\n\n\ttoyd\n"} {
		if _, err := page("toyd", "8", bad); err == nil {
			t.Errorf("page(%q): got no error", bad)
		}
	}
}
