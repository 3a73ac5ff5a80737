package uploadtest

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"packmill/internal/openpgp"
)

// TestDpkgSource: dpkg-source unpacks what is written, every checksum checked, and
// dpkg-buildpackage builds it (two of them, for that takes seconds).
func TestDpkgSource(t *testing.T) {
	signer, err := openpgp.Generate("Test Person", "test@example.org", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []Package{
		{Source: "quilt", Version: "1.0-1"},
		{Source: "quilt", Version: "2:1.0-1~bpo+1", Packing: "xz", Architecture: "all"},
		{Source: "native", Version: "3.1", Architecture: "all", Binary: []string{"native-a", "native-b"}},
		{Source: "old", Version: "1.0-2", Format: "1.0"},
		{Source: "older", Version: "7", Format: "1.0"},
	} {
		t.Run(p.Source+"_"+p.Version, func(t *testing.T) {
			dir := t.TempDir()
			p.Signer = signer
			changes, err := p.Write(dir)
			if err != nil {
				t.Fatal(err)
			}
			dscs, _ := filepath.Glob(filepath.Join(dir, "*.dsc"))
			if len(dscs) != 1 || !strings.HasSuffix(changes, "_source.changes") {
				t.Fatalf("got %q and %q", dscs, changes)
			}
			run := func(in string, args ...string) {
				t.Helper()
				cmd := exec.Command(args[0], args[1:]...)
				cmd.Dir = in
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("%q: %v\n%s(install dpkg-dev if it is missing)", args, err, out)
				}
			}
			run(dir, "dpkg-source", "-x", dscs[0], "tree")
			if p.Source != "quilt" && p.Source != "native" || p.Packing != "" {
				return
			}
			run(filepath.Join(dir, "tree"), "dpkg-buildpackage", "-us", "-uc", "-b", "-d")
			debs, _ := filepath.Glob(filepath.Join(dir, "*.deb"))
			if len(debs) != max(1, len(p.Binary)) {
				t.Errorf("built %q", debs)
			}
			run(dir, "dpkg", "-x", debs[0], "installed")
			program, _ := filepath.Glob(filepath.Join(dir, "installed/usr/bin/*"))
			out, err := exec.Command(program[0]).Output()
			if err != nil || string(out) != p.Source+" "+p.Version+"\n" {
				t.Errorf("the installed program says %q, %v", out, err)
			}
		})
	}
}
