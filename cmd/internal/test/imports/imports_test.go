// Package imports holds the law of imports: they point one way, from the
// programs to what knows nothing of the project.
package imports

import (
	"os/exec"
	"strings"
	"testing"
)

// layers are the floors of the house, each with what of the project it may
// import beside itself, and why there is no more.
var layers = []struct {
	tree string
	may  []string
}{
	// The ground: files, papers, signatures. What knows no state serves everybody.
	{"packmill/internal", nil},
	// The engine and the uploads. What the archive is made of is not its business.
	{"packmill/spool", []string{"packmill/internal"}},
	// The archive can be used without a spool, so it knows no states.
	{"packmill/archive", []string{"packmill/internal"}},
	// Jobs are items, made of what uploads bring and of what the archive lacks.
	{"packmill/queue", []string{"packmill/internal", "packmill/spool", "packmill/archive"}},
	// Programs, their settings and their tests may use everything.
	{"packmill/cmd", []string{"packmill"}},
}

func within(pkg, tree string) bool { return pkg == tree || strings.HasPrefix(pkg, tree+"/") }

func TestImportsPointOneWay(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "packmill/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		for _, l := range layers {
			if !within(f[0], l.tree) {
				continue
			}
			seen[l.tree] = true
			for _, imp := range f[1:] {
				ok := !within(imp, "packmill") || within(imp, l.tree)
				for _, m := range l.may {
					ok = ok || within(imp, m)
				}
				if !ok {
					t.Errorf("%s imports %s; %s may import only %s", f[0], imp, l.tree, strings.Join(l.may, ", "))
				}
			}
		}
	}
	for _, l := range layers {
		if !seen[l.tree] {
			t.Errorf("no package below %s: is the law up to date?", l.tree)
		}
	}
}
