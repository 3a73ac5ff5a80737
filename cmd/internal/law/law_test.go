// Package law holds the law of imports: they point one way, from the programs
// to the leaves.
package law

import (
	"os/exec"
	"strings"
	"testing"
)

// layer is a package tree and what of the project it may import, beside
// itself.
var layers = []struct {
	tree string
	may  []string
}{
	{"packmill/internal/durable", nil},
	{"packmill/internal/deb822", nil},
	{"packmill/internal/policy", []string{"packmill/internal/deb822"}},
	{"packmill/internal/openpgp", nil},
	{"packmill/spool/upload", []string{"packmill/internal/durable", "packmill/internal/deb822", "packmill/internal/policy", "packmill/internal/openpgp"}},
	// The archive knows no states.
	{"packmill/archive", []string{"packmill/internal/durable", "packmill/internal/deb822", "packmill/internal/policy", "packmill/internal/openpgp", "packmill/spool/upload"}},
	// Builds and the comparison of indexes know neither.
	{"packmill/queue/build", []string{"packmill/internal/durable", "packmill/internal/deb822", "packmill/internal/policy", "packmill/internal/openpgp", "packmill/spool/upload"}},
	{"packmill/queue/quinndiff", []string{"packmill/internal/deb822", "packmill/internal/policy"}},
	{"packmill/queue/installability", []string{"packmill/internal/deb822", "packmill/internal/policy"}},
	// The engine, and the queues on it.
	{"packmill/spool", []string{"packmill/internal/durable", "packmill/internal/deb822", "packmill/internal/policy"}},
	{"packmill/queue", []string{"packmill/spool"}},
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
			break // the narrowest tree comes first
		}
	}
	for _, l := range layers {
		if !seen[l.tree] {
			t.Errorf("no package below %s: is the law up to date?", l.tree)
		}
	}
}
