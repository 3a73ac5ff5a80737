package mail

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"packmill/cmd/internal/daemon"
	"packmill/spool"
)

// A log goes whole and escaped; of a long one the beginning and the end.
func TestPackLog(t *testing.T) {
	const limit = 600 << 10
	path := filepath.Join(t.TempDir(), "log")
	pack := func(text []byte) string {
		t.Helper()
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
		data, err := packLog(path, limit)
		if err != nil {
			t.Fatal(err)
		}
		z, err := gzip.NewReader(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		out, err := io.ReadAll(z)
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	for text, want := range map[string]string{
		"": "", "one\ntwo": "one\ntwo", "a\x1b]0;x\x07\r\nb\xff\u202ec\n": "a\\x1b]0;x\\x07\nb\\xff\\u{202e}c\n",
	} {
		if got := pack([]byte(text)); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
	line := strings.Repeat("x", 99) + "\n"
	for _, n := range []int{limit / 2, limit, limit + 100, 3*limit + 700} {
		text := []byte("begin\n" + strings.Repeat(line, n/100) + "end\n")
		got := pack(text)
		left := len(text) - limit
		if left <= 0 {
			if got != string(text) {
				t.Errorf("%d bytes: not whole", len(text))
			}
			continue
		}
		note := fmt.Sprintf("\n\n[%d bytes are left out here; the log on the server is whole]\n\n", left)
		if want := string(text[:limit/2]) + note + string(text[len(text)-limit/2:]); got != want {
			t.Errorf("%d bytes: got %d, want %d; a note: %v", len(text), len(got), len(want), strings.Contains(got, note))
		}
	}
	// What is no plain file is not read, or waited for.
	os.Remove(path)
	if err := os.Symlink("/etc/passwd", path); err != nil {
		t.Fatal(err)
	}
	if _, err := packLog(path, limit); err == nil {
		t.Error("a symbolic link was followed")
	}
}

// Of each state of builds that has an event people hear, also of one that is
// new in the table; of sources and of other states they do not.
func TestTellsOfStates(t *testing.T) {
	tree, err := spool.Init(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	paused := &spool.Row{Name: "paused", Dir: "queue/SUITE/ARCH/paused", Traits: spool.Jobs, Tells: EventFailed}
	tree.States = append(slices.Clone(tree.States), paused)
	var got []spool.State
	places := func(s spool.State) func() ([]spool.Place, error) {
		return func() ([]spool.Place, error) { got = append(got, s); return nil, nil }
	}
	if _, err := NewTeller(&daemon.Env{Tree: tree}, places).Places(); err != nil {
		t.Fatal(err)
	}
	if want := []spool.State{spool.BDUninstallable, spool.DepWait, spool.Built, spool.BuildAttempted,
		paused}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
