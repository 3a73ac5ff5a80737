package deb822

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

const (
	scanBuffer = 64 << 10 // bytes, to begin with
	scanStanza = 64 << 20 // bytes of one stanza at most
	scanFields = 256      // of one stanza at most
)

// Scanner reads an index (Packages, Sources) stanza by stanza:
//
//	sc := deb822.NewScanner(r)
//	for sc.Next() {
//		name := sc.Get("Package")
//		...
//	}
//	if err := sc.Err(); err != nil { ... }
//
// What it returns is valid until the next call of Next. It refuses what has
// two readings: a field twice, a NUL, a carriage return, a line without a
// colon. As apt does, it takes a line of blanks only as a continuation line.
// It does not check UTF-8.
type Scanner struct {
	File string // name in errors; NewScanner takes it from a reader with a Name method

	// Odd, if set, is told of each stanza that is refused, and the next one is
	// read: of an index that others made one stanza does not spoil the rest.
	Odd func(error)

	r       io.Reader
	eof     bool
	err     error
	buf     []byte
	start   int // of the stanza, in buf
	stop    int // of the stanza's text
	next    int // where the next stanza is looked for
	end     int // of what was read
	line    int // lines before next
	before  int // lines before start
	first   int // line of the stanza's first field
	fields  []span
	seen    uint64 // one bit for the hash of each name in the stanza
	scratch []byte
}

// span is a field's place relative to the stanza's start: name [begin,colon),
// value (colon,end).
type span struct {
	begin, colon, end int
	more              bool // has continuation lines
}

// NewScanner returns a Scanner that reads from r.
func NewScanner(r io.Reader) *Scanner {
	s := &Scanner{r: r, buf: make([]byte, scanBuffer)}
	if n, ok := r.(interface{ Name() string }); ok {
		s.File = n.Name()
	}
	return s
}

// nameChar marks what a field name may consist of (deb822(5)).
var nameChar = func() (t [256]bool) {
	for c := '!'; c <= '~'; c++ {
		t[c] = c != ':'
	}
	return
}()

// Next reads the next stanza. It reports whether there is one; if not, Err
// says whether the index ended well.
func (s *Scanner) Next() bool {
	for !s.read() {
		if e := (*Error)(nil); s.Odd == nil || !errors.As(s.err, &e) {
			return false
		}
		s.Odd(s.err)
		s.err = nil
		s.pass()
	}
	return true
}

// pass moves behind the stanza at next, to the empty line after it.
func (s *Scanner) pass() {
	s.line = s.before
	for {
		s.start, s.stop = s.next, s.next
		i := bytes.IndexByte(s.buf[s.next:s.end], '\n')
		if i < 0 && !s.eof && s.fill() {
			continue
		}
		if i < 0 {
			s.next = s.end // of a last line, or our own trouble
			return
		}
		s.line++
		s.next += i + 1
		if i == 0 {
			return
		}
	}
}

func (s *Scanner) read() bool {
	s.fields, s.scratch, s.seen = s.fields[:0], s.scratch[:0], 0
	s.start, s.stop, s.before = s.next, s.next, s.line
	if s.err != nil {
		return false
	}
	pos := s.next // of the line
	from := pos   // no newline in buf[pos:from]
	for {
		i := bytes.IndexByte(s.buf[from:s.end], '\n')
		if i < 0 && !s.eof {
			searched, at := s.end-s.start, pos-s.start
			if !s.fill() {
				s.fields = s.fields[:0]
				return false
			}
			pos, from = s.start+at, s.start+searched
			continue
		}
		eol, after := from+i, from+i+1
		if i < 0 {
			eol, after = s.end, s.end
		}
		if pos < eol {
			s.line++
			if !s.take(pos, eol) {
				return false
			}
			s.stop = after
		} else { // an empty line, or the end
			if i >= 0 {
				s.line++
			}
			s.next = after
			if len(s.fields) > 0 {
				return true
			}
			s.start, s.stop, s.before = after, after, s.line
			if i < 0 {
				return false
			}
		}
		pos, from = after, after
	}
}

// take reads the line buf[pos:eol], which is not empty, of the stanza that begins at start.
func (s *Scanner) take(pos, eol int) bool {
	if s.Odd != nil {
		if i := bytes.IndexAny(s.buf[pos:eol], "\r\x00"); i >= 0 {
			return s.fail("character %#02x", s.buf[pos+i])
		}
	}
	switch c := s.buf[pos]; c {
	case ' ', '\t':
		if len(s.fields) == 0 {
			return s.fail("continuation line without a field before it")
		}
		f := &s.fields[len(s.fields)-1]
		f.end, f.more = eol-s.start, true
		return true
	case '#', '-':
		return s.fail("field name begins with %q", c)
	}
	line := s.buf[pos:eol]
	colon, hash := 0, uint64(0)
	for colon < len(line) && nameChar[line[colon]] {
		hash = hash*31 + uint64(line[colon]|0x20)
		colon++
	}
	if colon == len(line) || line[colon] != ':' || colon == 0 {
		return s.fail("no field name and colon at the beginning of %s", excerpt(line))
	}
	if len(s.fields) == 0 {
		s.first = s.line
	}
	bit := uint64(1) << ((hash * 0x9e3779b97f4a7c15) >> 58)
	if s.seen&bit != 0 && !s.fresh(line[:colon]) {
		return false
	}
	s.seen |= bit
	at := pos - s.start
	s.fields = append(s.fields, span{begin: at, colon: at + colon, end: eol - s.start})
	return true
}

// fresh refuses the name of a field that the stanza has already, and one field too many.
func (s *Scanner) fresh(name []byte) bool {
	for i := range s.fields {
		f := &s.fields[i]
		if f.colon-f.begin == len(name) && sameName(s.buf[s.start+f.begin:s.start+f.colon], name) {
			return s.fail("field %s is here a second time in one stanza", name)
		}
	}
	if len(s.fields) >= scanFields {
		return s.fail("more than %d fields in one stanza", scanFields)
	}
	return true
}

// fill reads more, after what is there from the stanza's start on.
func (s *Scanner) fill() bool {
	if s.start > 0 {
		copy(s.buf, s.buf[s.start:s.end])
		s.end -= s.start
		s.stop -= s.start
		s.next -= s.start
		s.start = 0
	}
	if s.end == len(s.buf) {
		if s.end >= scanStanza {
			return s.fail("stanza of more than %d bytes", scanStanza)
		}
		bigger := make([]byte, 2*len(s.buf))
		copy(bigger, s.buf[:s.end])
		s.buf = bigger
	}
	for range 100 {
		n, err := s.r.Read(s.buf[s.end:])
		fresh := s.buf[s.end : s.end+n]
		s.end += n
		for _, c := range [2]byte{0, '\r'} {
			if s.Odd != nil {
				break // each line is looked at
			}
			if i := bytes.IndexByte(fresh, c); i >= 0 {
				s.line += bytes.Count(s.buf[s.stop:s.end-n+i], []byte{'\n'}) + 1
				return s.fail("character %#02x", c)
			}
		}
		switch {
		case err == io.EOF:
			s.eof = true
			return true
		case err != nil:
			s.err = fmt.Errorf("read %s: %w", s.name(), err)
			return false
		case n > 0:
			return true
		}
	}
	s.err = fmt.Errorf("read %s: %w", s.name(), io.ErrNoProgress)
	return false
}

func (s *Scanner) name() string {
	if s.File == "" {
		return "index"
	}
	return s.File
}

func (s *Scanner) fail(format string, args ...any) bool {
	s.err = &Error{File: s.File, Line: s.line, Msg: fmt.Sprintf(format, args...) + "; make the index again"}
	s.fields = s.fields[:0]
	s.stop = s.start
	return false
}

// Get returns the value of the stanza's field, as Stanza describes it, or nil
// if there is none.
func (s *Scanner) Get(name string) []byte {
	for i := range s.fields {
		f := &s.fields[i]
		if f.colon-f.begin == len(name) && sameName(s.buf[s.start+f.begin:s.start+f.colon], name) {
			return s.value(f)
		}
	}
	return nil
}

func (s *Scanner) value(f *span) []byte {
	raw := s.buf[s.start+f.colon+1 : s.start+f.end]
	if !f.more {
		return trim(raw)
	}
	begin := len(s.scratch)
	for first := true; ; first = false {
		i := bytes.IndexByte(raw, '\n')
		line := raw
		if i >= 0 {
			line = raw[:i]
		}
		if first {
			s.scratch = append(s.scratch, trim(line)...)
		} else {
			s.scratch = append(s.scratch, '\n')
			s.scratch = append(s.scratch, trimRight(line[1:])...)
		}
		if i < 0 {
			break
		}
		raw = raw[i+1:]
	}
	return s.scratch[begin:len(s.scratch):len(s.scratch)]
}

// Raw returns the stanza's text as it stands, without the empty line after it.
func (s *Scanner) Raw() []byte { return s.buf[s.start:s.stop] }

// Stanza is the stanza that Next has found, held to the rules of Parse.
func (s *Scanner) Stanza() (*Stanza, error) {
	st, err := ParseOne(s.File, s.Raw(), Hostile)
	if e := (*Error)(nil); errors.As(err, &e) && e.Line > 0 {
		e.Line += s.first - 1
	}
	if err != nil {
		return nil, err
	}
	st.Line += s.first - 1
	for i := range st.Fields {
		st.Fields[i].Line += s.first - 1
	}
	return st, nil
}

// Line returns the line of the stanza's first field, from 1.
func (s *Scanner) Line() int { return s.first }

// Err returns the error that ended the reading, or nil at a good end. What
// is wrong with the text is an *Error.
func (s *Scanner) Err() error { return s.err }

func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	return trimRight(b)
}

func trimRight(b []byte) []byte {
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}
