// Package deb822 reads and writes the stanzas of Debian control files
// (Debian Policy 5.1, deb822(5)).
//
// Parse is for files that people or strangers wrote: strict, within limits,
// with errors that name file, line and cure. Scanner is for indexes, which
// have tens of thousands of stanzas: it streams and does not allocate for
// each stanza. Both take linear time on any input.
package deb822

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Field is one field of a stanza.
type Field struct {
	Name  string // as written; names compare without case
	Value string // see Stanza
	Line  int    // of the field's name, from 1; 0 for a field made by Set
}

// Stanza is a paragraph of fields, in the order in which they stand.
//
// A field's Value is its first line without blanks around it, then "\n" and
// the text of each continuation line, without its one leading blank (the mark
// of a continuation) and without trailing blanks. A list of files therefore
// begins with "\n", and a line " ." of a long description is the text ".".
type Stanza struct {
	File   string // the name that Parse was given
	Line   int    // of the first field, from 1
	Fields []Field
}

// Error says what is wrong, and where.
type Error struct {
	File string
	Line int // from 1; 0 if no line is to blame
	Msg  string
}

func (e *Error) Error() string {
	switch {
	case e.File == "" && e.Line == 0:
		return e.Msg
	case e.File == "":
		return fmt.Sprintf("line %d: %s", e.Line, e.Msg)
	case e.Line == 0:
		return e.File + ": " + e.Msg
	}
	return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Msg)
}

// Get returns the value of the field, or "" if there is none.
func (s *Stanza) Get(name string) string {
	f, _ := s.Lookup(name)
	return f.Value
}

// Lookup returns the field and reports whether the stanza has it.
func (s *Stanza) Lookup(name string) (Field, bool) {
	if i := s.index(name); i >= 0 {
		return s.Fields[i], true
	}
	return Field{}, false
}

func (s *Stanza) index(name string) int {
	for i := range s.Fields {
		if sameName(s.Fields[i].Name, name) {
			return i
		}
	}
	return -1
}

// Set gives the field a new value, in its place, or adds it at the end.
func (s *Stanza) Set(name, value string) {
	if i := s.index(name); i >= 0 {
		s.Fields[i].Value = value
		return
	}
	s.Fields = append(s.Fields, Field{Name: name, Value: value})
}

// Del removes the field, if it is there.
func (s *Stanza) Del(name string) {
	if i := s.index(name); i >= 0 {
		s.Fields = append(s.Fields[:i], s.Fields[i+1:]...)
	}
}

// Errorf returns an Error that points at the named field's line, or at the
// stanza's first line if the field is missing.
func (s *Stanza) Errorf(field, format string, args ...any) *Error {
	e := &Error{File: s.File, Line: s.Line, Msg: fmt.Sprintf(format, args...)}
	if f, ok := s.Lookup(field); ok && f.Line > 0 {
		e.Line = f.Line
	}
	return e
}

// Append appends the stanza's canonical text to dst: a line for each field and
// each continuation, without the empty line that separates stanzas.
//
// No value can break out of its field, and what Append writes Parse reads:
// an empty continuation line is written as " .", and a character that Parse
// refuses as U+FFFD.
func (s *Stanza) Append(dst []byte) []byte {
	for i := range s.Fields {
		f := &s.Fields[i]
		dst = append(dst, f.Name...)
		dst = append(dst, ':')
		first, rest, more := strings.Cut(f.Value, "\n")
		if first = strings.Trim(first, " \t"); first != "" {
			dst = append(dst, ' ')
			dst = appendClean(dst, first)
		}
		dst = append(dst, '\n')
		for more {
			var line string
			line, rest, more = strings.Cut(rest, "\n")
			dst = append(dst, ' ')
			if line = strings.TrimRight(line, " \t"); line == "" {
				line = "."
			}
			dst = appendClean(dst, line)
			dst = append(dst, '\n')
		}
	}
	return dst
}

func appendClean(dst []byte, text string) []byte {
	for i := 0; i < len(text); i++ {
		if c := text[i]; c >= utf8.RuneSelf || refused(c) {
			for _, r := range text {
				if r < utf8.RuneSelf && refused(byte(r)) {
					r = utf8.RuneError
				}
				dst = utf8.AppendRune(dst, r)
			}
			return dst
		}
	}
	return append(dst, text...)
}

// Words splits a value at ASCII blanks and newlines. strings.Fields would
// also split at a no-break space, where dpkg and apt do not.
func Words(value string) []string {
	var words []string
	start := -1
	for i := 0; i < len(value); i++ {
		switch value[i] {
		case ' ', '\t', '\n':
			if start >= 0 {
				words = append(words, value[start:i])
				start = -1
			}
		default:
			if start < 0 {
				start = i
			}
		}
	}
	if start >= 0 {
		words = append(words, value[start:])
	}
	return words
}

// sameName compares two field names as Policy 5.1 does: ASCII, without case.
func sameName[A, B string | []byte](a A, b B) bool {
	if len(a) != len(b) {
		return false
	}
	for i := 0; i < len(a); i++ {
		if a[i] != b[i] && lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// refused reports whether an ASCII character has no place inside a line.
func refused(c byte) bool { return c < ' ' && c != '\t' || c == 0x7f }
