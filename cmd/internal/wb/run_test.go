package wb

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"packmill/cmd/internal/control"
	"packmill/queue"
	"packmill/spool"
)

// An order is done for each architecture that it means, and each has a line:
// what was done, what was refused, and what is not there.
func TestRun(t *testing.T) {
	tree, err := spool.Init(filepath.Join(t.TempDir(), "tree"))
	if err != nil {
		t.Fatal(err)
	}
	for arch, s := range map[string]spool.State{"amd64": spool.DepWait, "i386": spool.AutoNotForUs} {
		tk := queue.Ticket{Source: "hello", Version: "1", Suite: "sid", BuildArch: arch}
		it, err := tree.Create(spool.In(s, "sid", arch), spool.NewName(50, time.Now(), "hello", "1"), spool.MasterD,
			"master-buildd", "made", func(dir string) error {
				return os.WriteFile(filepath.Join(dir, spool.TicketFile), tk.Stanza().Append(nil), 0o664)
			})
		if err != nil {
			t.Fatal(err)
		}
		it.Release()
	}
	suite := &control.Suite{Name: "sid", Architectures: []string{"amd64", "i386"}}
	do := func(dry bool, line string) string {
		t.Helper()
		o, err := Parse(strings.Fields(line))
		if err != nil {
			t.Fatal(err)
		}
		r := &Run{Tree: tree, Settings: &control.Settings{Suites: []control.Suite{*suite}}, Suite: suite, Order: o,
			Who: "ann", Now: time.Now(), Dry: dry}
		var out []string
		if err := r.Do(func(l *Line) { out = append(out, l.Text()) }); err != nil {
			t.Fatal(err)
		}
		return strings.Join(out, "\n")
	}
	for _, c := range []struct {
		dry        bool
		line, want string
	}{
		{false, "gb hello . ANY",
			"hello_1 on amd64 (dep-wait): refused: it does not wait for a decision; do it with --override if you mean it"},
		{true, "gb hello . amd64 --override", "would do hello_1 on amd64: dep-wait -> needs-build"},
		{false, "gb hello . amd64 --override", "hello_1 on amd64: dep-wait -> needs-build"},
		{false, "gb hello . i386", "hello_1 on i386 (auto-not-for-us): refused: its source, or Packages-arch-specific, " +
			"leaves this architecture out; it comes back when they do not"},
		{false, "gb world . amd64", "world on amd64: refused: there is no such job; packmill ls shows what there is, " +
			"and master-buildd makes jobs of what is accepted"},
		{false, "manual hello . amd64 -m mine", "hello_1 on amd64 (needs-build): refused"},
	} {
		if got := do(c.dry, c.line); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s (dry %v):\ngot  %s\nwant %s", c.line, c.dry, got, c.want)
		}
	}
	if found, err := tree.Find("hello", spool.NeedsBuild); err != nil || len(found) != 1 {
		t.Errorf("not given back: %v, %v", found, err)
	}
}
