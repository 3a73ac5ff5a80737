package buildlog

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"regexp"
	"regexp/syntax"
	"runtime"
	"sync"
	"sync/atomic"
	"unicode"
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
func Grep(ctx context.Context, files []string, q Query, emit func(Match) error, bad func(file string, err error)) (Found, error) {
	m, err := newMatcher(q)
	if err != nil {
		return Found{}, err
	}
	if q.PerFile <= 0 {
		q.PerFile = 1000
	}
	workers := q.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	type answer struct {
		matches []Match
		err     error
	}
	// Answers wait for their turn in a window, so that a slow first file does
	// not let the answers of all others pile up.
	answers := make([]chan answer, len(files))
	for i := range answers {
		answers[i] = make(chan answer, 1)
	}
	window := make(chan struct{}, 16*workers)
	var next, read atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			s := &searcher{m: m, limit: q.PerFile}
			for {
				select {
				case window <- struct{}{}:
				case <-ctx.Done():
					return
				}
				i := int(next.Add(1) - 1)
				if i >= len(files) || ctx.Err() != nil {
					return
				}
				matches, n, err := s.file(ctx, files[i])
				read.Add(n)
				answers[i] <- answer{matches, err}
			}
		}()
	}
	found := Found{}
	for i := range answers {
		var a answer
		select {
		case a = <-answers[i]:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		<-window
		found.Files++
		for _, match := range a.matches {
			if err := emit(match); err != nil {
				cancel(err)
				break
			}
			found.Matches++
		}
		if a.err != nil && bad != nil {
			bad(files[i], a.err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	err = context.Cause(ctx)
	cancel(nil)
	wg.Wait()
	found.Bytes = read.Load()
	return found, err
}

// matcher finds lines. A text that every match must contain, if there is
// one, is looked for first; the regular expression sees only lines with it.
type matcher struct {
	re   *regexp.Regexp // nil: the needle is the whole pattern
	need []byte         // in lower case with fold; nil: none
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
	need, fold := required(parsed)
	m := &matcher{re: re, fold: fold, need: need}
	if parsed.Op == syntax.OpLiteral && len(need) == len(string(parsed.Rune)) {
		m.re = nil
	}
	return m, nil
}

// required returns the longest text that is in everything the expression
// matches, as far as that is easily seen.
func required(re *syntax.Regexp) (text []byte, fold bool) {
	switch re.Op {
	case syntax.OpLiteral:
		fold = re.Flags&syntax.FoldCase != 0
		s := string(re.Rune)
		if fold {
			s = ""
			for _, r := range re.Rune {
				// Signs with a third case (K, long s) and those beyond
				// ASCII would need more than a change of one bit.
				if r >= 0x80 || simpleFolds(r) > 2 {
					if len(s) > 0 {
						break
					}
					continue
				}
				s += string(unicode.ToLower(r))
			}
		}
		return []byte(s), fold
	case syntax.OpCapture, syntax.OpPlus:
		return required(re.Sub[0])
	case syntax.OpRepeat:
		if re.Min > 0 {
			return required(re.Sub[0])
		}
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			if t, f := required(sub); len(t) > len(text) {
				text, fold = t, f
			}
		}
	}
	return text, fold
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
	buf   []byte
	lower []byte
}

const blockSize = 1 << 20

// file searches one log.
func (s *searcher) file(ctx context.Context, path string) (matches []Match, read int64, err error) {
	r, err := Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer r.Close()
	if s.buf == nil {
		s.buf = make([]byte, 2*blockSize)
	}
	have, line := 0, 1
	cut := false // the block begins inside a line that was too long
	for {
		if ctx.Err() != nil {
			return matches, read, nil
		}
		n, rerr := io.ReadFull(r, s.buf[have:have+blockSize])
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
	if s.m.fold && len(s.m.need) > 0 {
		s.lower = appendLower(s.lower[:0], block)
		hay = s.lower
	}
	counted := 0
	for pos := 0; pos < len(block); {
		start := pos
		if len(s.m.need) > 0 {
			i := bytes.Index(hay[pos:], s.m.need)
			if i < 0 {
				break
			}
			start = bytes.LastIndexByte(block[:pos+i], '\n') + 1
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
			matches = append(matches, Match{path, line, string(Escape(nil, text))})
			if len(matches) >= s.limit {
				break
			}
		}
		pos = stop + 1
	}
	return matches
}

// appendLower appends text with ASCII letters in lower case.
func appendLower(dst, text []byte) []byte {
	n := len(dst)
	dst = append(dst, text...)
	for i, c := range dst[n:] {
		if c-'A' < 26 {
			dst[n+i] = c | 0x20
		}
	}
	return dst
}
