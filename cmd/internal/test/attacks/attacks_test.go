// Package attacks holds the table of what was tried against Packmill, attacks.txt,
// to what is there.
package attacks

import (
	"go/ast"
	"go/parser"
	"go/token"
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
	"a builder on another machine", "who sends mail", "who is between apt and us", "a hostile repository", "a web client",
}

// tests are the names of all tests of the repository, each with the directories that
// have one of that name.
func tests(t *testing.T) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	form := regexp.MustCompile(`(?m)^func (Test[A-Z0-9]\w*)\(t \*testing\.T\)`)
	err := filepath.WalkDir(top, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		dir, err := filepath.Rel(top, filepath.Dir(path))
		if err != nil {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range form.FindAllStringSubmatch(string(text), -1) {
			if !slices.Contains(out[m[1]], dir) {
				out[m[1]] = append(out[m[1]], dir)
			}
		}
		return err
	})
	if err != nil || len(out) < 100 {
		t.Fatalf("only %d tests: %v", len(out), err)
	}
	return out
}

// declared are the names that a file declares: of a Go file those of its functions,
// methods, types, constants, variables and struct fields, but no name that it only
// calls, nor a local one; of any other file every word outside of its comments.
func declared(t *testing.T, file string) map[string]bool {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(top, file))
	if err != nil {
		t.Error(err)
		return nil
	}
	out := map[string]bool{}
	if !strings.HasSuffix(file, ".go") {
		word := regexp.MustCompile(`\w+`)
		for line := range strings.Lines(string(text)) {
			if !strings.HasPrefix(strings.TrimSpace(line), "#") {
				for _, w := range word.FindAllString(line, -1) {
					out[w] = true
				}
			}
		}
		return out
	}
	tree, err := parser.ParseFile(token.NewFileSet(), file, text, parser.SkipObjectResolution)
	if err != nil {
		t.Error(err)
		return nil
	}
	for _, d := range tree.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			out[d.Name.Name] = true
		case *ast.GenDecl:
			for _, s := range d.Specs {
				switch s := s.(type) {
				case *ast.ValueSpec:
					for _, n := range s.Names {
						out[n.Name] = true
					}
				case *ast.TypeSpec:
					out[s.Name.Name] = true
					if of, ok := s.Type.(*ast.StructType); ok {
						for _, f := range of.Fields.List {
							for _, n := range f.Names {
								out[n.Name] = true
							}
						}
					}
				}
			}
		}
	}
	return out
}

// refused are the uploads of the corpus that are refused, each with the checks that
// refuse it.
func refused(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(top, "spool/upload/testdata/corpus.txt"))
	if err != nil {
		t.Fatal(err)
	}
	_, below, ok := strings.Cut(string(text), "\n# Uploads that are refused.\n")
	if !ok {
		t.Fatal("corpus.txt does not say where the refused uploads begin")
	}
	out, name := map[string][]string{}, ""
	for line := range strings.Lines(below) {
		line = strings.TrimSuffix(line, "\n")
		if told, ok := strings.CutPrefix(line, "    error "); ok {
			check, _, _ := strings.Cut(told, ":")
			out[name] = append(out[name], check)
		} else if !strings.HasPrefix(line, " ") {
			name = line
		}
	}
	return out
}

// TestAttacks: each row of the table names an attacker of SECURITY.md, a name that the
// file declares, and a test that exists, in one directory or in that which is named;
// what a row of TestCorpus tries is refused there by that check; none is there twice;
// and they are many.
func TestAttacks(t *testing.T) {
	data, err := os.ReadFile("attacks.txt")
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
	known, corpus := tests(t), refused(t)
	files, seen, rows := map[string]map[string]bool{}, map[string]bool{}, 0
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
		who, tried, what, by, test := cells[0], cells[1], cells[2], cells[3], cells[4]
		if !slices.ContainsFunc(attackers, func(a string) bool { return who == a || strings.HasPrefix(who, a+" of ") }) {
			t.Errorf("%q: no attacker of %q", line, attackers)
		}
		if key := who + tried; seen[key] {
			t.Errorf("%q: there twice", line)
		} else {
			seen[key] = true
		}
		file, name, _ := strings.Cut(by, ":")
		if files[file] == nil {
			files[file] = declared(t, file)
		}
		if !files[file][name] {
			t.Errorf("%q: %s declares no %s", line, file, name)
		}
		dir, base, ok := strings.Cut(test, ":")
		if !ok {
			dir, base = "", test
		}
		base, _, _ = strings.Cut(base, "/")
		switch dirs := known[base]; {
		case len(dirs) == 0, ok && !slices.Contains(dirs, dir):
			t.Errorf("%q: there is no test %s", line, test)
		case !ok && len(dirs) > 1:
			t.Errorf("%q: %s has a test %s each; name it DIR:%s", line, strings.Join(dirs, " and "), base, base)
		}
		if test == "TestCorpus" {
			check, _, _ := strings.Cut(strings.TrimPrefix(what, "the upload, by check "), ";")
			if checks := corpus[tried]; !slices.Contains(checks, check) {
				t.Errorf("%q: testdata/corpus.txt has it refused by %q", line, checks)
			}
		}
	}
	if rows < 300 {
		t.Errorf("%d rows; there were at least 300", rows)
	}
}
