package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"packmill/cmd/internal/usage"
)

// TestParse: whatever a line begins with, it is read as by the grammar of all commands.
func TestParse(t *testing.T) {
	for _, args := range [][]string{
		{"ls", "review"}, {"--json", "archive", "ls", "sid"}, {"--tree", "status", "ls", "hello"}, {"--tree=ls", "why", "ls"},
		{"builder", "ls"}, {"quinn-diff"}, {"complete", "--", "ls", ""}, {"serve-builder", "pi4"}, {"log", "-f", "hello"},
		{}, {"frob"}, {"lss"}, {"ls", "--frob"}, {"archive"}, {"archive", "frob"}, {"wb", "gb", "hello", ".", "ANY"},
		{"-s", "ls", "ls"}, {"review", "accept"},
	} {
		var one, whole cli
		got, err := one.parse(args)
		parser, whole1 := grammar(&whole, "")
		if whole1 != nil {
			t.Fatal(whole1)
		}
		want, err2 := parser.Parse(args)
		if (err == nil) != (err2 == nil) || err != nil && usage.Of(err).Error() != usage.Of(err2).Error() {
			t.Errorf("%q: got %v, want %v", args, err, err2)
			continue
		}
		if err == nil && (got.Command() != want.Command() || one.Tree != whole.Tree || one.JSON != whole.JSON ||
			one.Ls.Items == nil != (whole.Ls.Items == nil)) {
			t.Errorf("%q: got %s (tree %s), want %s (tree %s)", args, got.Command(), one.Tree, want.Command(), whole.Tree)
		}
	}
}

// TestPages: what README and the pages tell people to type is what packmill understands.
func TestPages(t *testing.T) {
	pages, err := filepath.Glob("../../doc/*.md")
	if err != nil || len(pages) < 5 {
		t.Fatalf("%q, %v", pages, err)
	}
	line := regexp.MustCompile("(?m)^    (?:.*(?:&& |\\|\\| |; ))?packmill (.*)$|`(?:[^`\n]*&& )?packmill ([^`\n]+)`")
	word := regexp.MustCompile(`"[^"]*"|'[^']*'|\S+`)
	tried := 0
	for _, page := range append(pages, "../../README.md", "../../scripts/uploaders/README.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range line.FindAllStringSubmatch(string(text), -1) {
			inline := m[1] == ""
			command, _, _ := strings.Cut(m[1]+m[2], "   ")
			command = regexp.MustCompile(` *(  |[|>;)]|&&| #).*`).ReplaceAllString(command, "")
			var args []string
			for _, w := range word.FindAllString(command, -1) {
				args = append(args, strings.Trim(w, `"'`))
			}
			if strings.Contains(command, "--help") {
				continue // which ends the program
			}
			tried++
			_, err := (&cli{}).parse(args)
			if err == nil || strings.Contains(err.Error(), "no such file") {
				continue
			}
			// In a sentence a command may stand without its arguments.
			if !inline || strings.Contains(err.Error(), "unexpected") || strings.Contains(err.Error(), "unknown") {
				t.Errorf("%s: packmill %q: %v", filepath.Base(page), args, err)
			}
		}
	}
	if tried < 100 {
		t.Errorf("%d commands were tried, want 100 at least", tried)
	}
}
