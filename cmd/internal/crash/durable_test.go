//go:build linux && amd64

package crash

import (
	"os"
	"path/filepath"
	"testing"

	"packmill/spool/durable"
)

func init() {
	victims["replace"] = func() error { return durable.WriteFile("file", []byte("the new text"), 0o644) }
}

// TestWriteFile strikes durable.WriteFile everywhere: the file has the old text
// or the new one, and if it says that it is done, the new one.
func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	tree := filepath.Join(dir, "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tree, "file"), []byte("the old text"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := &Sweep{
		Name: "durable.WriteFile", Tree: tree, Scratch: dir, Seed: 1, Workers: 2,
		Program: func(tree string) *Program { return victim(t, "replace", tree) },
		Settle:  func(string) error { return nil },
		Check: func(tree string, done bool) []string {
			b, err := os.ReadFile(filepath.Join(tree, "file"))
			if text := string(b); err != nil || text != "the new text" && (done || text != "the old text") {
				return []string{"the file has: " + text}
			}
			return nil
		},
	}
	tally, err := s.Run(0)
	report(t, s, tally, err)
}
