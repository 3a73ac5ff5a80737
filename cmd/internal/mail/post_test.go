package mail

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"packmill/cmd/internal/control"
	"packmill/internal/durable"
	"packmill/spool"
)

// newPost makes a tree whose mails go by the program that runs the script.
func newPost(t *testing.T, script string) (p *Post, via string) {
	t.Helper()
	tree, err := spool.Init(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	via = program(t, script)
	if err := os.WriteFile(tree.Path("control/notify"), []byte("Event: *\nTo: signer\nVia: "+via+"\n"),
		0o644); err != nil {
		t.Fatal(err)
	}
	store, err := control.NewStore(tree.Path("control"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return &Post{Tree: tree, Settings: store, Log: slog.New(slog.DiscardHandler)}, via
}

func (p *Post) waiting(t *testing.T) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(p.Tree.Path(spool.LettersDir))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func (p *Post) once(t *testing.T) {
	t.Helper()
	if err := p.Serve(context.Background(), true); err != nil {
		t.Fatal(err)
	}
}

// TestPost: letters go out in their order, and what a sendmail does not take stays
// and goes later, while the others go.
func TestPost(t *testing.T) {
	dir := t.TempDir()
	p, via := newPost(t, fmt.Sprintf(`case $* in *bad@*) [ -e %[1]s/well ] || { echo no; exit 75; };; esac; { echo "$@"; cat; } >>%[1]s/out`, dir))
	for _, to := range []string{"one@example.org", "bad@example.org", "two@example.org"} {
		if err := (&outgoing{Via: via, From: "f@example.org", To: []string{to},
			text: []byte("to " + to + "\n\n{}\n")}).post(p.Tree); err != nil {
			t.Fatal(err)
		}
	}
	p.once(t)
	line := func(to string) string { return "-i -f f@example.org -- " + to + "\nto " + to + "\n\n{}\n" }
	out, err := os.ReadFile(filepath.Join(dir, "out"))
	if want := line("one@example.org") + line("two@example.org"); err != nil || string(out) != want {
		t.Errorf("got %q, %v, want %q", out, err, want)
	}
	if left := p.waiting(t); len(left) != 1 {
		t.Fatalf("left: %q, want the one that failed", left)
	}
	if err := os.WriteFile(filepath.Join(dir, "well"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	p.once(t) // too early
	if left := p.waiting(t); len(left) != 1 {
		t.Fatalf("brought again at once: %q", left)
	}
	(&Post{Tree: p.Tree, Settings: p.Settings, Log: p.Log}).once(t)
	if out, err = os.ReadFile(filepath.Join(dir, "out")); err != nil ||
		!strings.HasSuffix(string(out), line("bad@example.org")) {
		t.Errorf("got %q, %v", out, err)
	}
	if left := p.waiting(t); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

// TestPostRefuses: whoever may write a letter does not say what is run, nor with
// which options; what is half written waits for its writer, and not for ever.
func TestPostRefuses(t *testing.T) {
	dir := t.TempDir()
	evil := program(t, "touch "+dir+"/evil")
	p, via := newPost(t, "touch "+dir+"/evil; cat >/dev/null")
	put := func(name, text string) string {
		t.Helper()
		path := p.Tree.Path(spool.LettersDir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	letter := func(via, from, to string) string {
		return fmt.Sprintf("{\"via\":%q,\"from\":%q,\"to\":[%s]}\n\ntext\n", via, from, to)
	}
	put("a", letter(evil, "f@example.org", `"a@example.org"`))
	put("b", letter(via, "-oQ/tmp@example.org", `"a@example.org"`))
	put("c", letter(via, "f@example.org", `"a@example.org, b@example.org"`))
	put("d", letter(via, "f@example.org", ""))
	put("e", "no letter\n")
	put("f", "")
	good := put("good", letter(via, "f@example.org", `"a@example.org"`))
	if err := os.Rename(good, filepath.Join(dir, "good")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "good"), good); err != nil {
		t.Fatal(err)
	}
	put(durable.NewPrefix+"1", letter(via, "f@example.org", `"a@example.org"`))
	old := put(durable.NewPrefix+"2", "")
	if then := time.Now().Add(-2 * leftoverAge); os.Chtimes(old, then, then) != nil {
		t.Fatal("chtimes")
	}
	p.once(t)
	if _, err := os.Lstat(filepath.Join(dir, "evil")); err == nil {
		t.Error("a program was run")
	}
	if got, want := strings.Join(p.waiting(t), " "), ".new-1 a b c d e f good"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
