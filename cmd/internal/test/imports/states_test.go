package imports

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"strings"
	"testing"

	"packmill/spool"
)

// What has to know of many states asks the table (spool.Table.Are, Where): a list
// of them would not have the next state. Two states that are meant by name are
// no list. The operations have a column for each state, and a test for it.
func TestNoListsOfStates(t *testing.T) {
	root := "../../../../"
	states, err := parser.ParseFile(token.NewFileSet(), root+"spool/state.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]bool{}
	ast.Inspect(states, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if ok && len(v.Values) == 1 {
			if p, ok := v.Values[0].(*ast.UnaryExpr); ok && p.Op == token.AND {
				rows[v.Names[0].Name] = true
			}
		}
		return true
	})
	if len(rows) != len(spool.Standard.States) {
		t.Errorf("state.go has the rows %v, and the table has %v", rows, spool.Standard.States)
	}
	out, err := exec.Command("git", "-C", root, "ls-files", "*.go").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range strings.Fields(string(out)) {
		if strings.HasSuffix(file, "_test.go") || strings.Contains(file, "/test/") || file == "queue/operations.go" ||
			file == "spool/state.go" {
			continue
		}
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, root+file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			var list []ast.Expr
			switch n := n.(type) {
			case *ast.CompositeLit:
				list = n.Elts
			case *ast.CallExpr:
				list = n.Args
			case *ast.CaseClause:
				list = n.List
			}
			named := 0
			for _, x := range list {
				if kv, ok := x.(*ast.KeyValueExpr); ok {
					x = kv.Key
				}
				if s, ok := x.(*ast.SelectorExpr); ok && rows[s.Sel.Name] {
					if p, ok := s.X.(*ast.Ident); ok && p.Name == "spool" {
						named++
					}
				}
			}
			if named > 2 {
				t.Errorf("%s: a list of %d states; ask the table", set.Position(n.Pos()), named)
			}
			return true
		})
	}
}
