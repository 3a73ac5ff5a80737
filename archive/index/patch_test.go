package index

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"packmill/internal/compression"
)

// TestScript lets apt's own rred make each text of the one before it, and the last of the first.
func TestScript(t *testing.T) {
	const rred = "/usr/lib/apt/methods/rred"
	r := rand.New(rand.NewPCG(5, 8))
	dir := t.TempDir()
	w := world{}
	var st State
	var patches []string
	file := func(round int, kind string) string { return filepath.Join(dir, fmt.Sprintf("%s.%d", kind, round)) }
	apply := func(from int, patches ...string) {
		t.Helper()
		out := filepath.Join(dir, "out")
		msg, err := exec.Command(rred, append([]string{"-t", file(from, "text"), out}, patches...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, msg)
		}
		got, err := os.ReadFile(out)
		if err != nil || !bytes.Equal(got, w.text()) {
			t.Fatalf("the text of round %d with %d patches is not the last one (%v)", from, len(patches), err)
		}
	}
	for round := range 14 {
		x := open(t, dir, Stanzas, st)
		edits := map[string][]byte{}
		for range []int{2000, 1, 2, 40, 1 + r.IntN(300)}[min(round, 4)] {
			key := fmt.Sprintf("p%05d", r.IntN(2400))
			switch kind := r.IntN(4); {
			case kind == 0 && round > 0:
				delete(w, key)
				edits[key] = nil
				continue
			case kind == 1 && w[key] != "":
				// A line of it is another, or one more.
				w[key] = w[key][:len(w[key])-1] + []string{"Last: 1\n\n", "\n"}[r.IntN(2)]
				w[key] = string(bytes.Replace([]byte(w[key]), []byte("Version: "), []byte("Version: 1"), 1))
			default:
				w[key] = stanza(r, key)
			}
			edits[key] = []byte(w[key])
		}
		if err := x.Edit(edits); err != nil {
			t.Fatal(err)
		}
		text, err := x.Script()
		if err != nil {
			t.Fatal(err)
		}
		st = write(t, x, []compression.Kind{compression.Gzip})
		if err := os.WriteFile(file(round, "text"), w.text(), 0o600); err != nil {
			t.Fatal(err)
		}
		if round == 0 {
			continue
		}
		if text == nil {
			t.Fatalf("round %d: no script", round)
		}
		if len(edits) < 50 && len(text) > len(edits)*4096+100 {
			t.Errorf("round %d: %d bytes for %d edits", round, len(text), len(edits))
		}
		if err := os.WriteFile(file(round, "patch"), text, 0o600); err != nil {
			t.Fatal(err)
		}
		patches = append(patches, file(round, "patch"))
		apply(round-1, patches[round-1])
		apply(0, patches...)
	}

	// Most of it another: no script is better than a long one.
	x := open(t, dir, Stanzas, st)
	edits := map[string][]byte{}
	for key := range w {
		edits[key] = []byte(stanza(r, key))
	}
	if err := x.Edit(edits); err != nil {
		t.Fatal(err)
	}
	if text, err := x.Script(); err != nil || text != nil {
		t.Errorf("of another text: %d bytes, %v", len(text), err)
	}
}

// TestSameLines: what is common is whole lines, and is counted once.
func TestSameLines(t *testing.T) {
	for _, c := range []struct {
		a, b       string
		head, tail int
	}{
		{"a\nb\nc\n", "a\nx\nc\n", 2, 2},
		{"a\nb\n", "a\nb\n", 4, 0},
		{"a\na\n", "a\n", 2, 0},
		{"xa\n", "a\n", 0, 0},
		{"x\na\n", "a\n", 0, 2},
		{"ab\n", "cb\n", 0, 0},
		{"", "a\n", 0, 0},
		{"a\na\na\n", "a\na\n", 4, 0},
	} {
		head := sameLines([]byte(c.a), []byte(c.b))
		if tail := sameLastLines([]byte(c.a[head:]), []byte(c.b[head:])); head != c.head || tail != c.tail {
			t.Errorf("%q, %q: %d and %d bytes, want %d and %d", c.a, c.b, head, tail, c.head, c.tail)
		}
	}
}
