package buildlog

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"regexp"
	"regexp/syntax"
	"runtime"
	"sync"
	"sync/atomic"
	"unicode"

	"packmill/internal/clean"
)

// Match is a line that matches.
type Match struct {
	File string
	Line int    // from 1
	Text string // escaped, at most maxLine bytes of the line
}

// Query says what Grep looks for.
type Query struct {
	Pattern    string // RE2 syntax (regexp/syntax); ^ and $ are a line's ends
	Fixed      bool   // Pattern is plain text
	IgnoreCase bool
	PerFile    int // at most so many matches of each file; 0: 1000
	Workers    int // files read at once; 0: one for each processor
}

// Found is what Grep read.
type Found struct {
	Files, Matches int
	Bytes          int64 // of uncompressed text
}

// maxLine bounds what is kept of a line.
const maxLine = 4 << 10

// Grep searches the logs, compressed or not, in parallel and calls emit for
// each match, one at a time, in the order of files and lines. A log that
// cannot be read is told to bad and does not end the search; an error of emit
// or of the pattern, and the end of the context, do.
func Grep(
	ctx context.Context, files []string, q Query, emit func(Match) error, bad func(file string, err error),
) (Found, error) {
	m, err := newMatcher(q)
	if err != nil {
		return Found{}, err
	}
	if q.PerFile <= 0 {
		q.PerFile = 1000
	}
	if q.Workers <= 0 {
		q.Workers = runtime.GOMAXPROCS(0)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s := newSearch(files, q.Workers)
	var wg sync.WaitGroup
	for range q.Workers {
		wg.Go(func() { s.work(ctx, &searcher{m: m, limit: q.PerFile}) })
	}
	found := s.collect(ctx, cancel, emit, bad)
	err = context.Cause(ctx)
	cancel(nil)
	wg.Wait()
	found.Bytes = s.read.Load()
	return found, err
}

// search is the work of one Grep: its workers take file after file, and each answer
// waits at its file's place for its turn.
type search struct {
	files   []string
	next    atomic.Int64 // file to be taken
	read    atomic.Int64 // bytes
	answers []chan answer
	// window has room for the answers that wait: a slow first file does not let
	// those of all others pile up.
	window chan struct{}
}

// answer is what one file has.
type answer struct {
	matches []Match
	err     error
}

func newSearch(files []string, workers int) *search {
	s := &search{files: files, answers: make([]chan answer, len(files)), window: make(chan struct{}, 16*workers)}
	for i := range s.answers {
		s.answers[i] = make(chan answer, 1)
	}
	return s
}

// work searches files until there are no more.
func (s *search) work(ctx context.Context, one *searcher) {
	defer one.in.Close()
	for {
		select {
		case s.window <- struct{}{}:
		case <-ctx.Done():
			return
		}
		i := int(s.next.Add(1) - 1)
		if i >= len(s.files) || ctx.Err() != nil {
			return
		}
		matches, n, err := one.file(ctx, s.files[i])
		s.read.Add(n)
		s.answers[i] <- answer{matches, err}
	}
}

// collect tells the answers in the order of the files. An error of emit ends the
// search.
func (s *search) collect(
	ctx context.Context, end context.CancelCauseFunc, emit func(Match) error, bad func(file string, err error),
) (found Found) {
	for i, file := range s.files {
		var a answer
		select {
		case a = <-s.answers[i]:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			return found
		}
		<-s.window
		found.Files++
		for _, match := range a.matches {
			if err := emit(match); err != nil {
				end(err)
				break
			}
			found.Matches++
		}
		if a.err != nil && bad != nil {
			bad(file, a.err)
		}
	}
	return found
}

// matcher finds lines. Texts of which every match must contain one, if there
// are such, are looked for first; the regular expression sees only lines with one.
type matcher struct {
	re   *regexp.Regexp // nil: the needle is the whole pattern
	need [][]byte       // in lower case with fold; nil: none
	fold bool
}

func newMatcher(q Query) (*matcher, error) {
	pattern := q.Pattern
	if q.Fixed {
		pattern = regexp.QuoteMeta(pattern)
	}
	flags := ""
	if q.IgnoreCase {
		flags = "(?i)"
	}
	re, err := regexp.Compile(flags + pattern)
	if err != nil {
		return nil, fmt.Errorf("pattern: %w", err)
	}
	parsed, err := syntax.Parse(flags+pattern, syntax.Perl)
	if err != nil {
		return nil, fmt.Errorf("pattern: %w", err)
	}
	parsed = parsed.Simplify()
	n := required(parsed)
	m := &matcher{re: re}
	for _, x := range n {
		m.fold = m.fold || x.fold
	}
	for _, x := range n {
		if m.fold {
			x.text = appendLower(nil, x.text)
		}
		m.need = append(m.need, x.text)
	}
	if parsed.Op == syntax.OpLiteral && len(n) == 1 && len(n[0].text) == len(string(parsed.Rune)) {
		m.re = nil
	}
	return m, nil
}

// needle is a text, in lower case with fold.
type needle struct {
	text []byte
	fold bool
}

// maxNeedles is how many texts are looked for at once.
const maxNeedles = 8

// required returns texts of which one is in everything that the expression
// matches, as far as that is easily seen: long ones.
func required(re *syntax.Regexp) []needle {
	switch re.Op {
	case syntax.OpLiteral:
		if re.Flags&syntax.FoldCase == 0 {
			return []needle{{text: []byte(string(re.Rune))}}
		}
		// Signs with a third case (K, long s) and those beyond ASCII would
		// need more than a change of one bit: the longest part without them.
		var best, part []byte
		for _, r := range re.Rune {
			if r >= 0x80 || simpleFolds(r) > 2 {
				part = nil
				continue
			}
			if part = append(part, byte(unicode.ToLower(r))); len(part) > len(best) {
				best = part
			}
		}
		if best != nil {
			return []needle{{best, true}}
		}
	case syntax.OpCapture, syntax.OpPlus:
		return required(re.Sub[0])
	case syntax.OpRepeat:
		if re.Min > 0 {
			return required(re.Sub[0])
		}
	case syntax.OpAlternate:
		var all []needle
		for _, sub := range re.Sub {
			n := required(sub)
			if n == nil || len(all)+len(n) > maxNeedles {
				return nil
			}
			all = append(all, n...)
		}
		return all
	case syntax.OpConcat:
		var best []needle
		var run []byte // of neighbours, some of them in either case
		for _, sub := range re.Sub {
			n := required(sub)
			if shortest(n) > shortest(best) {
				best = n
			}
			if sub.Op != syntax.OpLiteral || len(n) != 1 || len(n[0].text) != len(string(sub.Rune)) {
				run = nil
				continue
			}
			if run = appendLower(run, n[0].text); len(run) > shortest(best) {
				best = []needle{{run[:len(run):len(run)], true}}
			}
		}
		return best
	}
	return nil
}

// shortest is the length of the shortest text, 0 if there is none.
func shortest(n []needle) int {
	least := 0
	for i, x := range n {
		if i == 0 || len(x.text) < least {
			least = len(x.text)
		}
	}
	return least
}

// simpleFolds counts the runes that equal r without case.
func simpleFolds(r rune) int {
	n := 1
	for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
		n++
	}
	return n
}

// searcher is one worker's buffers.
type searcher struct {
	m     *matcher
	limit int
	in    reader
	buf   []byte
	lower []byte
	next  []int // where each needle is next, or noMore
}

const blockSize = 1 << 20

// noMore is beyond every block.
const noMore = 1 << 30

// file searches one log.
func (s *searcher) file(ctx context.Context, path string) (matches []Match, read int64, err error) {
	if err := s.in.open(path); err != nil {
		return nil, 0, err
	}
	defer s.in.shut()
	if s.buf == nil {
		s.buf = make([]byte, 2*blockSize)
	}
	have, line := 0, 1
	cut := false // the block begins inside a line that was too long
	for {
		if ctx.Err() != nil {
			return matches, read, nil
		}
		n, rerr := io.ReadFull(&s.in, s.buf[have:have+blockSize])
		read += int64(n)
		have += n
		end := rerr != nil
		block := s.buf[:have]
		keep := 0
		if !end {
			if i := bytes.LastIndexByte(block, '\n'); i >= 0 {
				keep = have - i - 1
				block = block[:i+1]
			}
			// No newline in a whole block: it is searched as it is.
			if keep > blockSize {
				keep = 0
			}
		}
		matches = s.block(path, block, line, cut, matches)
		if len(matches) >= s.limit {
			return matches[:s.limit], read, nil
		}
		line += bytes.Count(block, newline)
		cut = len(block) > 0 && block[len(block)-1] != '\n'
		copy(s.buf, s.buf[have-keep:have])
		have = keep
		if end {
			if rerr == io.EOF || rerr == io.ErrUnexpectedEOF {
				rerr = nil
			}
			return matches, read, rerr
		}
	}
}

var newline = []byte{'\n'}

// block finds the matching lines of a block that begins with the given line.
func (s *searcher) block(path string, block []byte, line int, cut bool, matches []Match) []Match {
	hay := block
	if s.m.fold {
		s.lower = appendLower(s.lower[:0], block)
		hay = s.lower
	}
	s.next = append(s.next[:0], make([]int, len(s.m.need))...)
	for i := range s.next {
		s.next[i] = -1
	}
	counted := 0
	for pos := 0; pos < len(block); {
		start := pos
		if len(s.m.need) > 0 {
			at := s.needle(hay, pos)
			if at == noMore {
				break
			}
			start = bytes.LastIndexByte(block[:at], '\n') + 1
			start = max(start, pos)
		}
		stop := len(block)
		if i := bytes.IndexByte(block[start:], '\n'); i >= 0 {
			stop = start + i
			// The text may hold a newline only if the pattern has one.
		}
		text := block[start:stop]
		if s.m.re == nil || s.m.re.Match(text) {
			line += bytes.Count(block[counted:start], newline)
			counted = start
			if len(text) > maxLine {
				text = text[:maxLine]
			}
			matches = append(matches, Match{path, line, string(clean.Escape(nil, text))})
			if len(matches) >= s.limit {
				break
			}
		}
		pos = stop + 1
	}
	return matches
}

// needle is where one of the needles is next, from pos on.
func (s *searcher) needle(hay []byte, pos int) int {
	first := noMore
	for i, need := range s.m.need {
		if s.next[i] < pos {
			s.next[i] = noMore
			if j := bytes.Index(hay[pos:], need); j >= 0 {
				s.next[i] = pos + j
			}
		}
		first = min(first, s.next[i])
	}
	return first
}

// appendLower appends text with ASCII letters in lower case.
func appendLower(dst, text []byte) []byte {
	n := len(dst)
	dst = append(dst, text...)
	out := dst[n:]
	for ; len(out) >= 8; out = out[8:] {
		// Eight bytes at a time: the high bit of each of upper marks a letter
		// from A to Z, two bits down is what makes it a small one.
		const ones = 0x0101010101010101
		x := binary.LittleEndian.Uint64(out)
		low := x &^ (0x80 * ones)
		upper := (low + (0x80-'A')*ones) &^ (low + (0x80-'Z'-1)*ones) &^ x & (0x80 * ones)
		binary.LittleEndian.PutUint64(out, x|upper>>2)
	}
	for i, c := range out {
		if c-'A' < 26 {
			out[i] = c | 0x20
		}
	}
	return dst
}
