package wb

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"packmill/queue"
	"packmill/spool"
)

// What is asked of a build is done where it was found; of one that has moved
// meanwhile nothing is, and the line says so.
func TestSay(t *testing.T) {
	tree, err := spool.Init(filepath.Join(t.TempDir(), "tree"))
	if err != nil {
		t.Fatal(err)
	}
	tk := queue.Ticket{Source: "hello", Version: "1", Suite: "sid", BuildArch: "amd64"}
	it, err := tree.Create(spool.In(spool.DepWait, "sid", "amd64"), spool.NewName(50, time.Now(), "hello", "1"),
		spool.MasterD, "master-buildd", "made", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, spool.TicketFile), tk.Stanza().Append(nil), 0o664)
		})
	if err != nil {
		t.Fatal(err)
	}
	f := spool.Found{Place: it.Place, Name: it.Name}
	it.Release()
	for _, c := range []struct {
		dry  bool
		want string
	}{
		{true, "would do hello_1 on amd64: dep-wait -> needs-build"},
		{false, "hello_1 on amd64: dep-wait -> needs-build"},
		{false, "hello_1 on amd64 (dep-wait): refused: it has moved; look with packmill ls"},
	} {
		l, err := Say(tree, f, &queue.Request{Op: queue.GiveBack, Override: true, Who: "ann", Dry: c.dry})
		if err != nil {
			t.Fatal(err)
		}
		if got := l.Text(); !strings.HasPrefix(got, c.want) {
			t.Errorf("dry %v: got %q, want %q", c.dry, got, c.want)
		}
	}
}

// Info is the ticket, and why the job lies there, with nothing in it that acts on a terminal.
func TestInfo(t *testing.T) {
	tree, err := spool.Init(filepath.Join(t.TempDir(), "tree"))
	if err != nil {
		t.Fatal(err)
	}
	tk := queue.Ticket{Source: "hello", Version: "1", Suite: "sid", BuildArch: "amd64"}
	it, err := tree.Create(spool.In(spool.DepWait, "sid", "amd64"), spool.NewName(50, time.Now(), "hello", "1"),
		spool.MasterD, "master-buildd", "made", func(dir string) error {
			return errors.Join(os.WriteFile(filepath.Join(dir, spool.TicketFile), tk.Stanza().Append(nil), 0o664),
				os.WriteFile(filepath.Join(dir, spool.ReasonFile), []byte("it wants\n\x1b[2Jlibfoo-dev\n"), 0o664))
		})
	if err != nil {
		t.Fatal(err)
	}
	f := spool.Found{Place: it.Place, Name: it.Name}
	it.Release()
	text := Info(tree, f)
	if !strings.HasPrefix(text, f.Dir()+"\n  Source: hello\n") || !strings.HasSuffix(text, "libfoo-dev\n") ||
		strings.Contains(text, "\x1b") {
		t.Errorf("got %q", text)
	}
	f.Name.Version = "2"
	if text := Info(tree, f); text != "" {
		t.Errorf("of what is not there: %q", text)
	}
}

func TestChoice(t *testing.T) {
	name := spool.NewName(50, time.Now(), "hello", "1:2-1")
	built := Choice(spool.Found{Place: spool.In(spool.Built, "sid", "amd64"), Name: name})
	failed := Choice(spool.Found{Place: spool.In(spool.BuildAttempted, "sid", "amd64"), Name: name})
	if !strings.Contains(built, "sign | ") || strings.Contains(failed, "sign") {
		t.Errorf("only what was built can be signed: %q, %q", built, failed)
	}
	for _, text := range []string{built, failed} {
		if !strings.HasSuffix(text, "  hello_1%3a2-1 -a amd64\n") || !strings.Contains(text, "fail -m ") {
			t.Errorf("got %q", text)
		}
	}
}
