package server

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"packmill/spool"
)

func readPage(t *testing.T, page string) string {
	t.Helper()
	data, err := os.ReadFile("../../../../" + page)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestReadmeStates compares the table of doc/states.md of states with the code's.
func TestReadmeStates(t *testing.T) {
	var want strings.Builder
	want.WriteString("| state | directory | who takes it from there | what it means |\n| --- | --- | --- | --- |\n")
	for _, r := range spool.Standard.States {
		fmt.Fprintf(&want, "| %s | `%s/` | %s | %s |\n", r.Name, r.Dir, r.Who, r.What)
	}
	text := readPage(t, "doc/states.md")
	i := strings.Index(text, "| state | directory |")
	if i < 0 {
		t.Fatalf("doc/states.md has no table of states; it is:\n%s", want.String())
	}
	got, _, _ := strings.Cut(text[i:], "\n\n")
	if got+"\n" != want.String() {
		t.Errorf("doc/states.md's table of states:\n%s\nwant:\n%s", got, want.String())
	}
}

// TestReadmeSettings holds the list of settings in doc/settings.md against the fields
// that the code reads, both ways.
func TestReadmeSettings(t *testing.T) {
	var src []byte
	for _, file := range []string{"stanzas.go", "slurm.go"} {
		text, err := os.ReadFile(filepath.Join("../../control", file))
		if err != nil {
			t.Fatal(err)
		}
		src = append(src, text...)
	}
	read := map[string]bool{}
	for _, m := range regexp.MustCompile(`r\.(?:str|need|words|commas|lines|pairs|one|yes|number|span|size|limits|perPackage)\("([A-Z][A-Za-z-]*)"`).FindAllSubmatch(src, -1) {
		read[string(m[1])] = true
	}
	if len(read) < 30 {
		t.Fatalf("found only %d settings in the files that read stanzas; are they still there?", len(read))
	}
	text := readPage(t, "doc/settings.md")
	listed := map[string]bool{}
	for _, line := range regexp.MustCompile("(?m)^\\| `([^|]*)` \\|").FindAllStringSubmatch(text, -1) {
		for _, f := range strings.Split(line[1], "`, `") {
			listed[f] = true
		}
	}
	for f := range read {
		if !listed[f] {
			t.Errorf("doc/settings.md does not list the setting %s", f)
		}
	}
	for f := range listed {
		if !read[f] {
			t.Errorf("doc/settings.md lists the setting %s, which nothing reads", f)
		}
	}
}

// TestReadmePaths looks whether the files of the project that the README and the
// pages name are there, and keeps the README short.
func TestReadmePaths(t *testing.T) {
	root := "../../../.."
	pages, err := filepath.Glob(filepath.Join(root, "doc/*.md"))
	if err != nil || len(pages) == 0 {
		t.Fatalf("pages: %q, %v", pages, err)
	}
	for _, page := range append(pages, filepath.Join(root, "README.md")) {
		text := readPage(t, strings.TrimPrefix(page, root+"/"))
		for _, m := range regexp.MustCompile("[( `](scripts/[a-z0-9@/._-]*[a-z0-9])").FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(root, m[1])); err != nil {
				t.Errorf("%s names %s: %v", page, m[1], err)
			}
		}
		for _, m := range regexp.MustCompile(`\]\(([A-Za-z/.]*\.md)\)`).FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s leads to %s: %v", page, m[1], err)
			}
		}
	}
	if n := strings.Count(readPage(t, "README.md"), "\n"); n >= 150 {
		t.Errorf("README.md has %d lines; the rest belongs into doc/", n)
	}
}
