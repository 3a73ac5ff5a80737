package upload_test

import (
	"path/filepath"
	"strings"
	"testing"

	"packmill/spool/upload"
	"packmill/spool/upload/uploadtest"
)

// TestTree: whatever the format, the tree of a source package holds debian's
// files and upstream's, with the texts that were asked for.
func TestTree(t *testing.T) {
	for _, p := range []uploadtest.Package{
		{Source: "quilt", Version: "1.0-1", Packing: "xz"},
		{Source: "native", Version: "3"},
		{Source: "old", Version: "1.0-1", Format: "1.0"},
	} {
		p.Signer = theWorld().Ann
		p.Tree = []uploadtest.Member{uploadtest.Text(map[bool]string{true: "native-3/",
			false: p.Source + "-1.0/"}[p.Source == "native"]+"src/main.c", "int main;\n")}
		dir := t.TempDir()
		if _, err := p.Write(dir); err != nil {
			t.Fatal(err)
		}
		dsc, _ := filepath.Glob(filepath.Join(dir, "*.dsc"))
		tree, err := upload.Tree(t.Context(), dir, filepath.Base(dsc[0]), upload.Limits{}, func(n string) bool {
			return n == "debian/control"
		})
		if err != nil {
			t.Errorf("%s: %v", p.Source, err)
			continue
		}
		if c := tree["debian/control"]; !strings.HasPrefix(string(c.Text), "Source: "+p.Source+"\n") {
			t.Errorf("%s: debian/control is %q", p.Source, c.Text)
		}
		if c := tree["src/main.c"]; c.Size != 10 || c.SHA256 == "" || c.Text != nil {
			t.Errorf("%s: src/main.c is %+v", p.Source, c)
		}
		if _, ok := tree["debian/copyright"]; !ok {
			t.Errorf("%s: no debian/copyright", p.Source)
		}
	}
}
