package deb822

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits bounds what Parse reads.
type Limits struct {
	Size       int64 // bytes of the file
	Fields     int   // of one stanza
	Lines      int   // of the file
	LineLength int   // bytes, without the newline
	Comments   bool  // lines that begin with '#' are skipped
}

// Hostile is for uploads: the largest .changes and .dsc files of Debian stay
// far below these limits. Settings is for the files of our own administrators.
var (
	Hostile  = Limits{Size: 8 << 20, Fields: 200, Lines: 100_000, LineLength: 256 << 10}
	Settings = Limits{Size: 8 << 20, Fields: 200, Lines: 100_000, LineLength: 64 << 10, Comments: true}
)

// fewFields is the number of fields up to which a linear search for a
// duplicate is faster than a map.
const fewFields = 24

// Parse reads all stanzas of data; file is its name in errors. Refused are
// what is not UTF-8, control characters, carriage returns, two fields of one
// name in a stanza, lines of blanks only, and all that exceeds the limits.
// The last newline may be missing. An error is always an *Error.
func Parse(file string, data []byte, lim Limits) ([]Stanza, error) {
	return parse(file, data, lim, lim.Lines)
}

func parse(file string, data []byte, lim Limits, most int) ([]Stanza, error) {
	if int64(len(data)) > lim.Size {
		return nil, &Error{File: file, Msg: fmt.Sprintf("%d bytes are more than the limit of %d; make the file smaller",
			len(data), lim.Size)}
	}
	p := parser{file: file, lim: lim, most: most}
	for rest := string(data); rest != ""; { // names and values are parts of it
		var raw string
		raw, rest, _ = strings.Cut(rest, "\n")
		p.n++
		if err := p.line(raw); err != nil {
			return nil, err
		}
	}
	p.endStanza()
	return p.out, nil
}

// parser gathers the stanzas of a file, line by line.
type parser struct {
	file string
	lim  Limits
	most int // stanzas

	n    int // of the line
	out  []Stanza
	cur  *Stanza        // the last of out, until it ends
	seen map[string]int // line of each field of cur, once it has many
	text []string       // lines of the value of cur's last field
}

func (p *parser) fail(format string, args ...any) error {
	return &Error{File: p.file, Line: p.n, Msg: fmt.Sprintf(format, args...)}
}

func (p *parser) line(raw string) error {
	if p.n > p.lim.Lines {
		return p.fail("more than %d lines; make the file smaller", p.lim.Lines)
	}
	if len(raw) > p.lim.LineLength {
		return p.fail("line of %d bytes, the limit is %d; fold it", len(raw), p.lim.LineLength)
	}
	if why := badLine(raw); why != "" {
		return p.fail("%s", why)
	}
	switch {
	case raw == "":
		p.endStanza()
	case raw[0] == '#' && p.lim.Comments:
	case raw[0] == ' ' || raw[0] == '\t':
		return p.continued(raw)
	default:
		return p.field(raw)
	}
	return nil
}

func (p *parser) continued(raw string) error {
	line := strings.TrimRight(raw[1:], " \t")
	if line == "" {
		return p.fail("line of blanks only; remove the blanks to end the stanza, " +
			"or write \" .\" for an empty line in the field")
	}
	if p.cur == nil {
		return p.fail("continuation line without a field before it; " +
			"remove the blank at its beginning, or put the field's name above it")
	}
	p.text = append(p.text, line)
	return nil
}

// field begins a field, and a stanza if it is the first one there.
func (p *parser) field(raw string) error {
	name, value, ok := strings.Cut(raw, ":")
	if !ok {
		return p.fail("no colon after the field name in %s; "+
			"write \"Name: value\", or begin a continuation line with a blank", excerpt(raw))
	}
	if why := badName(name); why != "" {
		return p.fail("field name %s %s", excerpt(name), why)
	}
	if p.cur == nil {
		if len(p.out) == p.most {
			return p.fail("a second stanza begins, where only one may be; remove it, or the empty line before it")
		}
		p.out = append(p.out, Stanza{File: p.file, Line: p.n, Fields: make([]Field, 0, 16)})
		p.cur, p.seen = &p.out[len(p.out)-1], nil
	} else {
		p.endField()
	}
	if len(p.cur.Fields) >= p.lim.Fields {
		return p.fail("more than %d fields in one stanza; separate stanzas with an empty line", p.lim.Fields)
	}
	if before := p.before(name); before != 0 {
		return p.fail("field %s is here a second time, after line %d; remove one of them", name, before)
	}
	p.cur.Fields = append(p.cur.Fields, Field{Name: name, Line: p.n})
	p.text = append(p.text, strings.Trim(value, " \t"))
	return nil
}

// before returns the line where the stanza has a field of that name already, or 0.
func (p *parser) before(name string) int {
	if p.seen == nil && len(p.cur.Fields) < fewFields {
		if f, ok := p.cur.Lookup(name); ok {
			return f.Line
		}
		return 0
	}
	if p.seen == nil {
		p.seen = make(map[string]int)
		for i := range p.cur.Fields {
			p.seen[strings.ToLower(p.cur.Fields[i].Name)] = p.cur.Fields[i].Line
		}
	}
	key := strings.ToLower(name)
	line := p.seen[key]
	p.seen[key] = p.n
	return line
}

func (p *parser) endField() {
	if len(p.text) > 0 {
		p.cur.Fields[len(p.cur.Fields)-1].Value = strings.Join(p.text, "\n")
		p.text = p.text[:0]
	}
}

func (p *parser) endStanza() {
	if p.cur != nil {
		p.endField()
		p.cur = nil
	}
}

// ParseOne reads a file of exactly one stanza.
func ParseOne(file string, data []byte, lim Limits) (*Stanza, error) {
	all, err := parse(file, data, lim, 1)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, &Error{File: file, Msg: "no fields; one stanza of \"Name: value\" lines is needed"}
	}
	return &all[0], nil
}

// badLine says why a line is refused, or "".
func badLine(line string) string {
	i := 0
	for i < len(line) && !odd[line[i]] {
		i++
	}
	if i == len(line) {
		return ""
	}
	for ; i < len(line); i++ {
		switch c := line[i]; {
		case c == '\r':
			return "carriage return; write lines that end in a newline alone (dos2unix does it)"
		case c == 0:
			return "NUL byte; this is not a text file"
		case refused(c):
			return fmt.Sprintf("control character %#02x; remove it", c)
		}
	}
	if !utf8.ValidString(line) {
		return "not UTF-8; convert the file (iconv -t UTF-8)"
	}
	return ""
}

// odd marks the bytes that need a closer look.
var odd = func() (t [256]bool) {
	for c := range t {
		t[c] = refused(byte(c)) || c >= utf8.RuneSelf
	}
	return
}()

// badName says what is wrong with a field name (deb822(5)), or "".
func badName(name string) string {
	switch {
	case len(name) == 0:
		return "is empty; write \"Name: value\""
	case name[0] == '#':
		return "begins with '#'; comments are not allowed here, remove the line"
	case name[0] == '-':
		return "begins with '-'; begin it with a letter"
	case len(name) > 128:
		return "is longer than 128 bytes; shorten it"
	}
	for i := range len(name) {
		c := name[i]
		if c == ' ' || c == '\t' {
			return "contains a blank; write the colon directly after the name, and begin a continuation line with a blank"
		}
		if c < '!' || c > '~' {
			return "is not ASCII; use letters, digits and '-'"
		}
	}
	return ""
}

// excerpt quotes the beginning of text from outside.
func excerpt[T string | []byte](b T) string {
	const most = 40
	if len(b) > most {
		return fmt.Sprintf("%q...", b[:most])
	}
	return fmt.Sprintf("%q", b)
}
