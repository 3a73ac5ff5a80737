package complete

import (
	"slices"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"packmill/spool"
)

// What a word may become, the words before it say: commands, options, the
// arguments of a command, in the tree that they name.
func TestLine(t *testing.T) {
	tree, err := spool.Init(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	it, err := tree.Create(spool.In(spool.NeedsBuild, "sid", "amd64"),
		spool.NewName(spool.NormalClass, time.Now(), "hello", "1"),
		spool.MasterD, "who", "why", func(string) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	it.Release()
	type command struct {
		Items   []string `arg:"" optional:"" name:"item"`
		Message string   `short:"m"`
	}
	var words struct {
		Tree   string
		Show   command  `cmd:""`
		Cancel command  `cmd:""`
		Secret command  `cmd:"" hidden:""`
		Build  struct { // a group
			Sign command `cmd:""`
			Fail command `cmd:""`
		} `cmd:""`
	}
	parser, err := kong.New(&words)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ words, want []string }{
		{nil, []string{"build", "cancel", "show"}},
		{[]string{"--", ""}, []string{"build", "cancel", "show"}},
		{[]string{"sh"}, []string{"show"}},
		{[]string{"build", ""}, []string{"fail", "sign"}},
		{[]string{"show", "--t"}, []string{"--tree"}},
		{[]string{"show", "-"}, []string{"--help", "--message", "--tree"}},
		{[]string{"--tree", tree.Root(), "show", ""}, []string{"hello"}},
		{[]string{"--tree=" + tree.Root(), "show", ""}, []string{"hello"}},
		{[]string{"show", "-m", ""}, nil}, // a word of the person's own
		{[]string{"--tree", tree.Root(), "cancel", "hello", ""}, []string{"ALL", "ANY"}},
		{[]string{"show", ""}, nil}, // where there is no tree
	} {
		if got := Line(parser.Model.Node, "/nowhere", c.words); !slices.Equal(got, c.want) {
			t.Errorf("%q: got %q, want %q", c.words, got, c.want)
		}
	}
}
