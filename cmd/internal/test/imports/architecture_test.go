package imports

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const root = "../../../.."

// TestArchitectureNamesWhatIsThere holds every path and every name of Go in
// ARCHITECTURE.md and CONTRIBUTING.md against the source.
func TestArchitectureNamesWhatIsThere(t *testing.T) {
	names := declared(t)
	goName := regexp.MustCompile(`^[a-z]+(\.[A-Za-z]\w*){1,2}$`)
	path := regexp.MustCompile(`^(cmd|spool|queue|archive|internal|scripts)/[\w./-]+$`)
	for _, page := range []string{"ARCHITECTURE.md", "CONTRIBUTING.md"} {
		text, err := os.ReadFile(filepath.Join(root, page))
		if err != nil {
			t.Fatal(err)
		}
		seen := 0
		for _, m := range regexp.MustCompile("`([^`\n]+)`").FindAllStringSubmatch(string(text), -1) {
			for _, word := range strings.Fields(m[1]) {
				switch {
				case strings.HasPrefix(word, "spool/incoming"): // in a tree
				case path.MatchString(word):
					seen++
					if _, err := os.Stat(filepath.Join(root, word)); err != nil {
						t.Errorf("%s: %v", page, err)
					}
				case goName.MatchString(word) && !strings.HasSuffix(word, ".go"):
					seen++
					if !names[word] {
						t.Errorf("%s names %s, which the source does not declare", page, word)
					}
				}
			}
		}
		if page == "ARCHITECTURE.md" && seen < 40 {
			t.Errorf("%s: only %d paths and names were recognised", page, seen)
		}
	}
}

// declared are the names that the packages declare, as PACKAGE.Name and
// PACKAGE.Type.Method; a program's package has the name of its folder.
func declared(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		pkg := filepath.Base(filepath.Dir(path)) + "."
		for _, decl := range file.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				name := d.Name.Name
				if d.Recv != nil {
					name = receiver(d.Recv.List[0].Type) + "." + name
				}
				names[pkg+name] = true
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					switch s := spec.(type) {
					case *ast.TypeSpec:
						names[pkg+s.Name.Name] = true
					case *ast.ValueSpec:
						for _, n := range s.Names {
							names[pkg+n.Name] = true
						}
					}
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func receiver(x ast.Expr) string {
	if star, ok := x.(*ast.StarExpr); ok {
		x = star.X
	}
	if id, ok := x.(*ast.Ident); ok {
		return id.Name
	}
	return ""
}
