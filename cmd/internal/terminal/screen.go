package terminal

import (
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// Screen is what output goes to.
type Screen struct {
	Out    io.Writer
	Width  int  // columns; 0: it is no terminal, and nothing is cut
	Height int  // lines
	Colour bool // a terminal that shows colours to a person who wants them
	wide   bool // it shows characters beyond ASCII
}

// Stdout is standard output. NO_COLOR (no-color.org) and a dumb terminal have
// no colours.
func Stdout() *Screen {
	s := &Screen{Out: os.Stdout}
	fd := int(os.Stdout.Fd())
	if !term.IsTerminal(fd) {
		return s
	}
	s.Width, s.Height = 80, 24
	if size, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ); err == nil && size.Col > 0 && size.Row > 0 {
		s.Width, s.Height = int(size.Col), int(size.Row)
	}
	kind := os.Getenv("TERM")
	s.Colour = os.Getenv("NO_COLOR") == "" && kind != "dumb" && kind != ""
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := os.Getenv(name); v != "" {
			s.wide = strings.Contains(strings.ToUpper(strings.ReplaceAll(v, "-", "")), "UTF8")
			break
		}
	}
	return s
}

// Terminal reports whether a person looks.
func (s *Screen) Terminal() bool { return s.Width > 0 }

// Colour is how a word is shown: an SGR sequence, "" as the rest.
type Colour string

// The colours.
const (
	Plain  Colour = ""
	Bold   Colour = "1"
	Red    Colour = "31"
	Green  Colour = "32"
	Yellow Colour = "33"
	Cyan   Colour = "36"
	Dim    Colour = "2"
)

// Paint gives text in a colour, where there are any.
func (s *Screen) Paint(c Colour, text string) string {
	if !s.Colour || c == Plain || text == "" {
		return text
	}
	return "\x1b[" + string(c) + "m" + text + "\x1b[0m"
}
