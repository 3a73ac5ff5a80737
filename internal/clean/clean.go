// Package clean makes text from outside fit to be seen: what a stranger's program
// printed, what somebody wrote into a file, what a file is called. Nothing of it
// reaches a terminal, a page or a mail but through here.
package clean

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Escape appends text to dst with everything made visible that could act on a
// terminal, reorder text or hide in it: control characters other than newline
// and tab, C1 controls, bidirectional and invisible marks, and bytes that are
// not UTF-8, each as \xNN or \u{N}. Colours (ESC [ ... m) are left out, and a
// carriage return before a newline too.
func Escape(dst, text []byte) []byte {
	for len(text) > 0 {
		c := text[0]
		switch {
		case c >= ' ' && c < 0x7f || c == '\n' || c == '\t':
			// A run of harmless bytes at once.
			n := 1
			for n < len(text) && (text[n] >= ' ' && text[n] < 0x7f || text[n] == '\n' || text[n] == '\t') {
				n++
			}
			dst, text = append(dst, text[:n]...), text[n:]
		case c == 0x1b && colour(text) > 0:
			text = text[colour(text):]
		case c == '\r' && len(text) > 1 && text[1] == '\n':
			text = text[1:]
		case c < utf8.RuneSelf:
			dst, text = appendByte(dst, c), text[1:]
		default:
			r, n := utf8.DecodeRune(text)
			switch {
			case r == utf8.RuneError && n == 1:
				dst = appendByte(dst, c)
			case hidden(r):
				dst = fmt.Appendf(dst, `\u{%x}`, r)
			default:
				dst = append(dst, text[:n]...)
			}
			text = text[n:]
		}
	}
	return dst
}

// Line makes text fit for a line of a record or a terminal: a newline, and what
// Escape would make visible, becomes a space.
func Line(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == utf8.RuneError || r >= utf8.RuneSelf && hidden(r) {
			return ' '
		}
		return r
	}, s)
}

// JSON makes the same visible in JSON that encoding/json wrote: it means what it
// meant, and the runes stand in it as \uNNNN.
func JSON(data []byte) []byte {
	var out []byte
	for from := 0; from < len(data); {
		r, n := utf8.DecodeRune(data[from:])
		if r == 0x7f || r >= utf8.RuneSelf && hidden(r) {
			if high, low := utf16.EncodeRune(r); high != utf8.RuneError {
				out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
			} else {
				out = fmt.Appendf(out, `\u%04x`, r)
			}
		} else {
			out = append(out, data[from:from+n]...)
		}
		from += n
	}
	return out
}

// appendByte appends a byte as \xNN.
func appendByte(dst []byte, c byte) []byte {
	const digits = "0123456789abcdef"
	return append(dst, '\\', 'x', digits[c>>4], digits[c&15])
}

// hidden reports whether a rune above ASCII is not simply a visible sign:
// controls, format characters such as the bidirectional ones, line and
// paragraph separators, private and unassigned ones.
func hidden(r rune) bool {
	return !unicode.IsGraphic(r) || unicode.In(r, unicode.Zs) && r != 0xa0 || r == 0x2800 || r == 0x3164 || r == 0xffa0 ||
		r == 0x115f || r == 0x1160
}

// colour returns the length of an SGR sequence at the beginning of text, or 0.
func colour(text []byte) int {
	if len(text) < 3 || text[1] != '[' {
		return 0
	}
	for i := 2; i < len(text) && i < 40; i++ {
		switch c := text[i]; {
		case c == 'm' || c == 'K':
			return i + 1
		case (c < '0' || c > '9') && c != ';' && c != ':':
			return 0
		}
	}
	return 0
}

// Escaper writes escaped text to w, for logs that come in pieces: a sequence
// that is cut between two writes is put together. Close writes what is left.
type Escaper struct {
	w    io.Writer
	rest []byte
	out  []byte
}

// NewEscaper returns an Escaper that writes to w.
func NewEscaper(w io.Writer) *Escaper { return &Escaper{w: w} }

func (e *Escaper) Write(p []byte) (int, error) {
	text := append(e.rest, p...)
	cut := len(text) - unfinished(text)
	e.out = Escape(e.out[:0], text[:cut])
	e.rest = append(e.rest[:0], text[cut:]...)
	if _, err := e.w.Write(e.out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close writes the rest. It does not close the writer below.
func (e *Escaper) Close() error {
	e.out = Escape(e.out[:0], e.rest)
	e.rest = nil
	_, err := e.w.Write(e.out)
	return err
}

// unfinished returns how many bytes at the end may be the beginning of
// something longer.
func unfinished(text []byte) int {
	for n := 1; n <= 40 && n <= len(text); n++ {
		tail := text[len(text)-n:]
		switch {
		case tail[0] == '\r' && n == 1:
			return n
		case tail[0] == 0x1b:
			if colour(tail) > 0 {
				return 0
			}
			for _, c := range tail[1:] {
				if (c < '0' || c > '9') && c != ';' && c != ':' && c != '[' {
					return 0
				}
			}
			return n
		case n < utf8.UTFMax && utf8.RuneStart(tail[0]) && tail[0] >= utf8.RuneSelf && !utf8.FullRune(tail):
			return n
		}
	}
	return 0
}
