package terminal

import (
	"bytes"
	"strings"
	"testing"

	"github.com/rivo/uniseg"
	"pgregory.net/rapid"
)

// list makes the table that most commands print.
func list(s *Screen, rows ...[]string) string {
	var b bytes.Buffer
	s.Out = &b
	t := NewTable(s, Column{Name: "STATE", Paint: func(c string) Colour { return map[string]Colour{"failed": Red}[c] }},
		Column{Name: "ARCH"}, Column{Name: "PACKAGE", Least: 12}, Column{Name: "WHY", Least: 8})
	for _, r := range rows {
		t.Row(r...)
	}
	t.Flush()
	return b.String()
}

func TestTable(t *testing.T) {
	long := []string{"failed", "amd64", "libreoffice-l10n-in-a-very-long-name_1%3a24.2.3~rc1-2+deb13u1",
		"the compiler says: no such file or directory: /usr/include/x.h"}
	short := []string{"installed", "all", "hello_2.10-3", ""}
	for _, c := range []struct {
		what   string
		screen Screen
		rows   [][]string
		want   string
	}{
		{"no terminal: nothing is cut", Screen{}, [][]string{long, short},
			"STATE      ARCH   PACKAGE" + strings.Repeat(" ", len(long[2])-len("PACKAGE")+2) + "WHY\nfailed     amd64  " +
				long[2] + "  " + long[3] + "\ninstalled  all    hello_2.10-3\n"},
		{"80 columns", Screen{Width: 80, wide: true}, [][]string{long, short}, "" +
			"STATE      ARCH   PACKAGE                         WHY\n" +
			"failed     amd64  libreoffice-l10n-in-a-very-lo…  the compiler says: no such fi…\n" +
			"installed  all    hello_2.10-3\n"},
		{"without UTF-8", Screen{Width: 40}, [][]string{long}, "" +
			"STATE   ARCH   PACKAGE       WHY\n" +
			"failed  amd64  libreoffi...  the comp...\n"},
		{"narrower than can be", Screen{Width: 20, wide: true}, [][]string{long},
			"STATE   ARCH   PACK…\nfailed  amd64  libr…\n"},
		{"colour", Screen{Width: 60, Colour: true}, [][]string{{"failed", "all", "a"}},
			"\x1b[1mSTATE\x1b[0m   \x1b[1mARCH\x1b[0m  \x1b[1mPACKAGE\x1b[0m\n\x1b[31mfailed\x1b[0m  all   a\n"},
		{"an empty column", Screen{}, [][]string{{"failed", "", "a", "b"}}, "STATE   PACKAGE  WHY\nfailed  a        b\n"},
		{"escapes from outside", Screen{}, [][]string{{"failed", "x", "a", "\x1b[2Jb"}},
			"STATE   ARCH  PACKAGE  WHY\nfailed  x     a         [2Jb\n"},
		{"nothing", Screen{}, nil, ""},
	} {
		if got := list(&c.screen, c.rows...); got != c.want {
			t.Errorf("%s:\ngot\n%s\nwant\n%s", c.what, got, c.want)
		}
	}
}

// Whatever is in a table, on a terminal each row is one line, and none is wider
// than the terminal.
func TestTableFits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		width := rapid.IntRange(1, 100).Draw(t, "width")
		rows := rapid.SliceOfN(rapid.SliceOfN(rapid.String(), 4, 4), 1, 5).Draw(t, "rows")
		got := list(&Screen{Width: width, wide: rapid.Bool().Draw(t, "wide")}, rows...)
		lines := strings.Split(strings.TrimSuffix(got, "\n"), "\n")
		if len(lines) != len(rows)+1 {
			t.Fatalf("%d lines for %d rows:\n%q", len(lines), len(rows), got)
		}
		for _, l := range lines {
			if n := uniseg.StringWidth(l); n > width {
				t.Fatalf("%q is %d wide, the terminal %d", l, n, width)
			}
		}
	})
}

func TestWrap(t *testing.T) {
	s := &Screen{Width: 20}
	got := s.Wrap("  next:      a builder takes it when it is its turn", "             ")
	if want := "  next:      a\n             builder\n             takes\n             it when\n" +
		"             it is\n             its\n             turn"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := (&Screen{Width: 9}).Wrap("a  b words and", " "); got != "a  b\n words\n and" {
		t.Errorf("words to the edge: got %q", got)
	}
	if got := (&Screen{}).Wrap("a b", "  "); got != "a b" {
		t.Errorf("no terminal: %q", got)
	}
}
