package archive

import (
	"os"
	"path/filepath"
	"testing"

	"packmill/internal/deb/debtest"
)

// The .changes that the caller verified is what counts, whatever lies in the
// directory by now.
func TestVerifiedTextIsUsed(t *testing.T) {
	f := newFixture(t)
	in := f.upload(debtest.Corpus(2, "1.0")[0])
	path := filepath.Join(in.Dir, in.Changes)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("exchanged after the check\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := f.publish(in).Results[0]; r.Outcome != Refused {
		t.Fatalf("the exchanged file alone: got %s, want refused", r.Outcome)
	}
	in.Text = text
	f.accepted(in)
}
