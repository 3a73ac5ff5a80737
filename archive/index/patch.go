package index

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
)

// hunk replaces lines of a text: it begins at the line, the first is 1, and takes so many away.
type hunk struct {
	line, lines int
	text        []byte // what comes there
}

// Script is the ed script, as apt applies it, that makes the text that Write is about to publish out of the one that is
// published: what changed, the last first. It is nil where that is much of the text.
func (x *File) Script() ([]byte, error) {
	was := map[[sha256.Size]byte]int{}
	for i := range x.was {
		was[x.was[i].sum] = i
	}
	var hunks []hunk
	var fresh, all int64 // bytes
	var buf []byte
	line := 1
	for i, j := 0, 0; i < len(x.was) || j < len(x.blocks); {
		if i < len(x.was) && j < len(x.blocks) && x.was[i].sum == x.blocks[j].sum {
			text, err := x.st.read(&x.was[i], buf)
			if err != nil {
				return nil, err
			}
			buf, all = text, all+x.was[i].len
			line += bytes.Count(text, []byte{'\n'})
			i, j = i+1, j+1
			continue
		}
		oldEnd, newEnd := len(x.was), len(x.blocks)
		for n := j; n < len(x.blocks); n++ {
			if at, ok := was[x.blocks[n].sum]; ok && at >= i {
				oldEnd, newEnd = at, n
				break
			}
		}
		if sizeOf(x.blocks[j:newEnd]) > longestRun {
			return nil, nil
		}
		before, err := x.texts(x.was[i:oldEnd])
		if err != nil {
			return nil, err
		}
		after, err := x.texts(x.blocks[j:newEnd])
		if err != nil {
			return nil, err
		}
		all += int64(len(before))
		hunks = x.place.Format.hunks(hunks, line, before, after)
		line += bytes.Count(before, []byte{'\n'})
		i, j = oldEnd, newEnd
	}
	for _, h := range hunks {
		fresh += int64(len(h.text))
	}
	if fresh > max(all/4, smallScript) {
		return nil, nil
	}
	return script(hunks), nil
}

const (
	longestRun  = 64 << 20 // bytes of text that is compared at once
	smallScript = 64 << 10 // bytes, of which one is worth making however little text there is
)

func sizeOf(blocks []block) (n int64) {
	for i := range blocks {
		n += blocks[i].len
	}
	return n
}

// texts reads blocks, one after the other.
func (x *File) texts(blocks []block) ([]byte, error) {
	var out, buf []byte
	for i := range blocks {
		text, err := x.st.read(&blocks[i], buf)
		if err != nil {
			return nil, err
		}
		buf = text
		out = append(out, text...)
	}
	return out, nil
}

// hunks appends what makes after out of before, two runs of sorted records of which the first begins at the line.
func (f Format) hunks(out []hunk, line int, before, after []byte) []hunk {
	change := func(lines int, text []byte) {
		if n := len(out); n > 0 && out[n-1].line+out[n-1].lines == line {
			out[n-1].lines += lines
			out[n-1].text = append(slices.Clip(out[n-1].text), text...)
		} else if lines > 0 || len(text) > 0 {
			out = append(out, hunk{line, lines, text})
		}
		line += lines
	}
	for len(before) > 0 || len(after) > 0 {
		oldKey, old, oldRest := f.nextKey(before)
		newKey, now, newRest := f.nextKey(after)
		order := strings.Compare(string(oldKey), string(newKey))
		switch {
		case len(before) == 0 || len(after) > 0 && order > 0:
			change(0, now)
			after = newRest
		case len(after) == 0 || order < 0:
			change(bytes.Count(old, []byte{'\n'}), nil)
			before = oldRest
		default:
			head := sameLines(old, now)
			tail := sameLastLines(old[head:], now[head:])
			line += bytes.Count(old[:head], []byte{'\n'})
			change(bytes.Count(old[head:len(old)-tail], []byte{'\n'}), now[head:len(now)-tail])
			line += bytes.Count(old[len(old)-tail:], []byte{'\n'})
			before, after = oldRest, newRest
		}
	}
	return out
}

// sameLines is how many bytes the lines have with which both begin.
func sameLines(a, b []byte) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return bytes.LastIndexByte(a[:n], '\n') + 1
}

// sameLastLines is how many bytes the lines have with which both end; both end with a line's end.
func sameLastLines(a, b []byte) int {
	n := 0
	for n < len(a) && n < len(b) && a[len(a)-1-n] == b[len(b)-1-n] {
		n++
	}
	if n == len(a) || n == len(b) { // the whole of one: its beginning is a line's in the other, or not
		longer := a
		if len(b) > len(a) {
			longer = b
		}
		if n == len(longer) || longer[len(longer)-n-1] == '\n' {
			return n
		}
	}
	end := a[len(a)-n:]
	i := bytes.IndexByte(end, '\n')
	return len(end) - (i + 1)
}

// script is the ed script of hunks that follow each other. One with a line that ed takes for its end cannot be.
func script(hunks []hunk) []byte {
	out := []byte{}
	for _, h := range slices.Backward(hunks) {
		if bytes.HasPrefix(h.text, []byte(".\n")) || bytes.Contains(h.text, []byte("\n.\n")) {
			return nil
		}
		last := h.line + h.lines - 1
		switch {
		case h.lines == 0 && len(h.text) == 0:
			continue
		case h.lines == 0:
			out = fmt.Appendf(out, "%da\n", h.line-1)
		case h.lines == 1:
			out = fmt.Appendf(out, "%d", h.line)
		default:
			out = fmt.Appendf(out, "%d,%d", h.line, last)
		}
		switch {
		case len(h.text) == 0:
			out = append(out, "d\n"...)
			continue
		case h.lines > 0:
			out = append(out, "c\n"...)
		}
		out = append(append(out, h.text...), ".\n"...)
	}
	return out
}
