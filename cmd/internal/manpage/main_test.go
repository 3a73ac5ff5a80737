package main

import (
	"os"
	"os/exec"
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
	pages, _ := filepath.Glob(filepath.Join(dir, "man[18]/*"))
	if len(pages) != len(mains) {
		t.Errorf("got %q, want a page for each of %q", pages, mains)
	}
	for _, p := range append(pages, filepath.Join(dir, "man5/packmill.5")) {
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		want := []string{".SH NAME\n", ".SH SYNOPSIS\n", ".SH DESCRIPTION\n", ".SH EXIT STATUS\n"}
		if strings.HasSuffix(p, ".5") {
			want = []string{".SH NAME\n", ".SH CONTROL/SUITES\n.TP\n.B Suite\n",
				".B Publish\n", "Default: together.\n", ".SH CONTROL/GENERAL\n"}
		}
		for _, want := range want {
			if !strings.Contains(string(data), want) {
				t.Errorf("%s has no %q", filepath.Base(p), want)
			}
		}
		if strings.HasSuffix(p, "packmill.1") &&
			!strings.Contains(string(data), ".SS packmill archive import <suite> <from> <dist>\n") {
			t.Error("packmill.1 lacks the commands")
		}
		// What a group says of its commands stands before them, once.
		for _, group := range []string{"archive", "archive snapshot", "review", "log"} {
			if n := strings.Count(string(data), ".SS packmill "+group+" <command>\n"); strings.HasSuffix(p, "packmill.1") &&
				n != 1 {
				t.Errorf("packmill.1 has the group %s %d times", group, n)
			}
		}
		// groff's own opinion.
		var said strings.Builder
		cmd := exec.Command("man", "--warnings", "-E", "UTF-8", "-l", p)
		cmd.Stderr = &said
		if err := cmd.Run(); err != nil || said.Len() > 0 {
			t.Errorf("man (Debian's package man-db) -l %s: %v\n%s", filepath.Base(p), err, said.String())
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
toyd \- play
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
