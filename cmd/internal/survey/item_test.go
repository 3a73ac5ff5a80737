package survey

import (
	"errors"
	"os"
	"strings"
	"testing"

	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/terminal"
	"packmill/queue"
	"packmill/queue/buildlog"
	"packmill/spool"
)

// An item is shown with its ticket, its history, its REASON and the first error of
// its log, once each, and without what would act on a terminal.
func TestItemOf(t *testing.T) {
	tree, _ := newTree(t)
	f := job(t, tree, "hello", spool.NeedsBuild, queue.Ticket{})
	show := func() string {
		x, err := ItemOf(tree, f)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		x.Print(&terminal.Screen{Out: &b})
		return b.String()
	}
	got := show()
	for _, want := range []string{f.Dir() + "\n", "  Source: hello\n", "by master-buildd  made for a test\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
	if strings.Contains(got, "\n\n\n") {
		t.Errorf("an empty part:\n%s", got)
	}
	if err := os.WriteFile(tree.Path(f.Dir(), "REASON"), []byte("it failed\x1b[31m\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := show(); !strings.Contains(got, "\n  it failed") || strings.Contains(got, "\x1b") {
		t.Errorf("with a REASON:\n%q", got)
	}
	for _, c := range []struct{ text, first, want string }{
		{"it failed\n", "", "it failed"},
		{"it failed\nx.c:1: error", "x.c:1: error", "it failed\nx.c:1: error"},
		{"it failed", "x.c:1: error", "it failed\nx.c:1: error"},
		{"", "x.c:1: error", "x.c:1: error"},
		{"", "", ""},
	} {
		if got := (&Item{Text: c.text, FirstError: c.first}).why(); got != c.want {
			t.Errorf("%q, %q: got %q", c.text, c.first, got)
		}
	}
	x := &Item{Builds: []buildlog.Build{{Builder: "one", Outcome: "failed"}}, Buildinfo: []string{"a.buildinfo"}}
	var b strings.Builder
	if x.Print(&terminal.Screen{Out: &b}); !strings.Contains(b.String(), "build on one: failed\n  built with: a.buildinfo\n") {
		t.Errorf("builds: got %q", b.String())
	}
	b.Reset()
	x.History = []spool.Event{{From: "accepted", To: "queue", Who: "one", Reason: "a long sentence of many words"}}
	if x.Print(&terminal.Screen{Out: &b, Width: 40}); !strings.Contains(b.String(), "\n      queue  by one  a long sentence of\n      many words\n") {
		t.Errorf("on a narrow terminal: got %q", b.String())
	}
}

// Of several patterns one that means nothing stops none of the others; a pattern
// alone is a refusal.
func TestMeantEach(t *testing.T) {
	tree, _ := newTree(t)
	job(t, tree, "hello", spool.NeedsBuild, queue.Ticket{})
	job(t, tree, "world", spool.NeedsBuild, queue.Ticket{})
	f := &Filter{Verb: "requeue", Patterns: []string{"hello", "nosuch", "*"}}
	found, refused, _, err := f.MeantEach(tree)
	if err != nil || len(found) != 2 {
		t.Errorf("got %v, %v, want each job once", found, err)
	}
	if len(refused) != 1 || !errors.Is(refused[0], daemon.ErrRefused) ||
		!strings.HasPrefix(refused[0].Error(), "nosuch: ") {
		t.Errorf("refused: got %v", refused)
	}
	f.Patterns = []string{"nosuch"}
	if _, refused, _, err := f.MeantEach(tree); !errors.Is(err, daemon.ErrRefused) || refused != nil {
		t.Errorf("alone: got %v, %v", refused, err)
	}
}

func TestStates(t *testing.T) {
	tree, _ := newTree(t)
	is, err := States(tree, []string{"review", "built"})
	if err != nil || !is(spool.Review) || !is(spool.Built) || is(spool.Building) {
		t.Errorf("got the wrong states, %v", err)
	}
	if is, err := States(tree, nil); is != nil || err != nil {
		t.Errorf("without names: got a filter, %v", err)
	}
	var wrong daemon.Wrong
	for name, want := range map[string]string{"reviw": "did you mean review?", "xyzzy": "there are: "} {
		if _, err := States(tree, []string{name}); !errors.As(err, &wrong) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", name, err, want)
		}
	}
}
