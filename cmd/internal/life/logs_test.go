package life

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"packmill/queue/build/buildlog"
	"packmill/spool/upload/uploadtest"
)

// cold lists the cold store, the newest log first.
func (m *mill) cold() []buildlog.Build {
	m.Helper()
	all, err := buildlog.Store{Dir: filepath.Join(m.tree, "logs")}.Logs(buildlog.Filter{})
	m.must(err)
	return all
}

// What a failed build said first is in its item, in what people are shown, and
// in the record; its log is in the cold store and plain in the item.
func TestFirstError(t *testing.T) {
	t.Parallel()
	m := newMill(t)
	said := filepath.Join(m.home, "said")
	m.must(os.WriteFile(said, []byte("cc -c frob.c\nfrob.c:12:3: error: expected ';' before \x1b]0;owned\x07'}'\nmake: *** [Makefile:2: frob.o] Error 1\n"), 0o644))
	m.script("hello_1.0_amd64", "print "+said+"\nfail it")
	m.upload(uploadtest.Package{Source: "hello", Version: "1.0"})
	m.want(m.settle(), "build-attempted amd64 hello_1.0", "installed source hello_1.0")

	want := `frob.c:12:3: error: expected ';' before \x1b]0;owned\x07'}'`
	for _, args := range [][]string{{"why", "hello"}, {"show", "hello"}, {"show", "hello", "--json"}} {
		out := m.packmill(args...)
		text := want
		if args[len(args)-1] == "--json" {
			quoted, _ := json.Marshal(want)
			text = string(quoted[1 : len(quoted)-1])
		}
		if !strings.Contains(out, text) || strings.Contains(out, "\x1b") {
			t.Errorf("packmill %q:\n%q\nwant %q", args, out, text)
		}
	}
	item := m.item("build-attempted", "hello")
	if got := buildlog.ErrorAt(item); !strings.HasPrefix(got, "first error (compiler), line ") || !strings.Contains(got, "  > "+want+"\n") {
		t.Errorf("first-error: %q", got)
	}
	builds, err := buildlog.BuildsAt(item)
	if err != nil || len(builds) != 1 {
		t.Fatalf("builds: %+v, %v", builds, err)
	}
	b := builds[0]
	if b.Outcome != buildlog.Attempted || b.Error == nil || b.Error.Text != want || b.Wall <= 0 || b.Wait <= 0 || b.Overhead <= 0 || b.Size == 0 || b.Builder != "buildd-amd64" {
		t.Errorf("the record: %+v", b)
	}
	plain, err := os.ReadFile(filepath.Join(item, "log"))
	m.must(err)
	stored := m.cold()
	if len(stored) != 1 || stored[0].Log != b.Log || !stored[0].Start.Equal(b.Start) {
		t.Fatalf("the cold store: %+v, want the log %q", stored, b.Log)
	}
	if got := readAll(t, filepath.Join(m.tree, "logs", b.Log)); got != string(plain) {
		t.Errorf("the cold log: %q, want %q", got, plain)
	}
	m.sound()

	// Tried again with success, nothing is left of the error.
	m.script("hello_1.0_amd64", "")
	m.packmill("requeue", "hello_1.0")
	m.want(m.settle(), "installed amd64 hello_1.0", "installed source hello_1.0")
	// The archive's record keeps no plain log: the cold store has both.
	if plain, _ := filepath.Glob(filepath.Join(m.tree, "archive/installed/stable/amd64/h/*/log*")); len(plain) != 0 {
		t.Errorf("installed items have plain logs: %v", plain)
	}
	if stored := m.cold(); len(stored) != 2 || stored[0].Outcome != buildlog.Good {
		t.Errorf("the cold store: %+v", stored)
	}
	if out := m.packmill("why", "hello"); strings.Contains(out, "expected ';'") {
		t.Errorf("packmill why still tells of the error:\n%s", out)
	}
	m.sound()
}
