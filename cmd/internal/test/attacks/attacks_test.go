// Package attacks holds the table of what was tried against Packmill, attacks.txt,
// to what is there.
package attacks

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const top = "../../../.."

// attackers are those of SECURITY.md, in its words.
var attackers = []string{
	"one without a key", "an uploader", "the package that is built", "a taken-over account", "a reviewer", "a local user",
	"who sends mail", "who is between apt and us", "a hostile repository", "a web client",
}

// tests are the names of all tests of the repository.
func tests(t *testing.T) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	form := regexp.MustCompile(`(?m)^func (Test[A-Z0-9]\w*)\(t \*testing\.T\)`)
	err := filepath.WalkDir(top, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range form.FindAllStringSubmatch(string(text), -1) {
			out[m[1]] = true
		}
		return err
	})
	if err != nil || len(out) < 100 {
		t.Fatalf("only %d tests: %v", len(out), err)
	}
	return out
}

// TestAttacks: each row of the table names an attacker of SECURITY.md, a line that
// exists, and a test that exists; none is there twice; and they are many.
func TestAttacks(t *testing.T) {
	data, err := os.ReadFile("attacks.txt")
	if err != nil {
		t.Fatal(err)
	}
	corpus, err := os.ReadFile(filepath.Join(top, "spool/upload/testdata/corpus.txt"))
	if err != nil {
		t.Fatal(err)
	}
	security, err := os.ReadFile(filepath.Join(top, "SECURITY.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range attackers {
		if !strings.Contains(strings.ToLower(string(security)), "**"+a) {
			t.Errorf("SECURITY.md does not say who %q is", a)
		}
	}
	known, files, seen, rows := tests(t), map[string]string{}, map[string]bool{}, 0
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		rows++
		cells := strings.Split(line, " | ")
		if len(cells) != 5 || slices.Contains(cells, "") {
			t.Errorf("%q: not five cells with \" | \" between", line)
			continue
		}
		who, tried, by, test := cells[0], cells[1], cells[3], cells[4]
		if !slices.ContainsFunc(attackers, func(a string) bool { return who == a || strings.HasPrefix(who, a+" of ") }) {
			t.Errorf("%q: no attacker of %q", line, attackers)
		}
		if key := who + tried; seen[key] {
			t.Errorf("%q: there twice", line)
		} else {
			seen[key] = true
		}
		file, what, _ := strings.Cut(by, ":")
		if files[file] == "" {
			text, err := os.ReadFile(filepath.Join(top, file))
			if err != nil {
				t.Errorf("%q: %v", line, err)
				continue
			}
			files[file] = string(text)
		}
		if what == "" || !regexp.MustCompile(`\b`+regexp.QuoteMeta(what)+`\b`).MatchString(files[file]) {
			t.Errorf("%q: %s has no %s", line, file, what)
		}
		if base, _, _ := strings.Cut(test, "/"); !known[base] {
			t.Errorf("%q: there is no test %s", line, base)
		}
		if test == "TestCorpus" && !strings.Contains(string(corpus), "\n"+tried+"\n") {
			t.Errorf("%q: testdata/corpus.txt has no such row", line)
		}
	}
	if rows < 150 {
		t.Errorf("%d rows; there were at least 150", rows)
	}
}
