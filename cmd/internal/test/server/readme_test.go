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

func readme(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("../../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestReadmeStates compares the README's table of states with the code's.
func TestReadmeStates(t *testing.T) {
	var want strings.Builder
	want.WriteString("| state | directory | who takes it from there | what it means |\n| --- | --- | --- | --- |\n")
	for _, r := range spool.Standard.States {
		fmt.Fprintf(&want, "| %s | `%s/` | %s | %s |\n", r.Name, r.Dir, r.Who, r.What)
	}
	text := readme(t)
	i := strings.Index(text, "| state | directory |")
	if i < 0 {
		t.Fatalf("README.md has no table of states; it is:\n%s", want.String())
	}
	got, _, _ := strings.Cut(text[i:], "\n\n")
	if got+"\n" != want.String() {
		t.Errorf("README.md's table of states:\n%s\nwant:\n%s", got, want.String())
	}
}

// TestReadmeSettings holds the README's list of settings against the fields
// that the code reads, both ways.
func TestReadmeSettings(t *testing.T) {
	src, err := os.ReadFile("../../control/stanzas.go")
	if err != nil {
		t.Fatal(err)
	}
	read := map[string]bool{}
	for _, m := range regexp.MustCompile(`r\.(?:str|need|words|commas|lines|pairs|one|yes|number|span|size|limits|perPackage)\("([A-Z][A-Za-z-]*)"`).FindAllStringSubmatch(string(src), -1) {
		read[m[1]] = true
	}
	if len(read) < 30 {
		t.Fatalf("found only %d settings in stanzas.go; is it still the list?", len(read))
	}
	text := readme(t)
	_, text, ok := strings.Cut(text, "\n## Settings\n")
	if !ok {
		t.Fatal("README.md has no section Settings")
	}
	text, _, _ = strings.Cut(text, "\n## ")
	listed := map[string]bool{}
	for _, line := range regexp.MustCompile("(?m)^\\| `([^|]*)` \\|").FindAllStringSubmatch(text, -1) {
		for _, f := range strings.Split(line[1], "`, `") {
			listed[f] = true
		}
	}
	for f := range read {
		if !listed[f] {
			t.Errorf("README.md does not list the setting %s", f)
		}
	}
	for f := range listed {
		if !read[f] {
			t.Errorf("README.md lists the setting %s, which nothing reads", f)
		}
	}
}

// TestReadmePaths looks whether the files of the project that the README
// names are there.
func TestReadmePaths(t *testing.T) {
	for _, m := range regexp.MustCompile("[( `](scripts/[a-z0-9@/._-]*[a-z0-9])").FindAllStringSubmatch(readme(t), -1) {
		if _, err := os.Stat(filepath.Join("../../../..", m[1])); err != nil {
			t.Errorf("README.md names %s: %v", m[1], err)
		}
	}
}
