package terminal

import (
	"bufio"
	"strings"

	"github.com/rivo/uniseg"
)

// Column is a column of a table.
type Column struct {
	Name  string
	Least int                      // it may be cut to this width where the terminal is narrow; 0: never
	Paint func(cell string) Colour // of a cell; nil: plain
}

// Table is rows for people: one line each, the columns as wide as what is in
// them. On a terminal no line is longer than it is wide: the widest columns
// that may be cut are. Elsewhere nothing is cut.
type Table struct {
	screen  *Screen
	columns []Column
	rows    [][]string
}

// gap is what is between columns.
const gap = 2

// NewTable makes a table of these columns.
func NewTable(s *Screen, columns ...Column) *Table { return &Table{screen: s, columns: columns} }

// Row adds a row: a cell for each column, or fewer. What is in it comes from
// outside, and is cleaned.
func (t *Table) Row(cells ...string) {
	row := make([]string, len(t.columns))
	for i := range cells {
		row[i] = Clean(cells[i])
	}
	t.rows = append(t.rows, row)
}

// Len is the number of rows.
func (t *Table) Len() int { return len(t.rows) }

// Flush writes the table, if it has rows.
func (t *Table) Flush() error {
	if len(t.rows) == 0 {
		return nil
	}
	width := t.fit()
	w := bufio.NewWriter(t.screen.Out)
	head := make([]string, len(t.columns))
	for i, c := range t.columns {
		head[i] = c.Name
	}
	t.line(w, head, width, true)
	for _, row := range t.rows {
		t.line(w, row, width, false)
	}
	t.rows = nil
	return w.Flush()
}

// fit is the width of each column; 0 of one that is empty.
func (t *Table) fit() []int {
	width := make([]int, len(t.columns))
	for i := range t.columns {
		for _, row := range t.rows {
			width[i] = max(width[i], uniseg.StringWidth(row[i]))
		}
		if width[i] > 0 {
			width[i] = max(width[i], len(t.columns[i].Name))
		}
	}
	if !t.screen.Terminal() {
		return width
	}
	for over(width) > t.screen.Width {
		widest := -1
		for i, c := range t.columns {
			if c.Least > 0 && width[i] > c.Least && (widest < 0 || width[i] > width[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			break // line cuts what is left over
		}
		width[widest]--
	}
	return width
}

// over is the width of a line.
func over(width []int) int {
	sum := -gap
	for _, w := range width {
		if w > 0 {
			sum += w + gap
		}
	}
	return sum
}

// line writes a row. No blanks stand at its end.
func (t *Table) line(w *bufio.Writer, row []string, width []int, head bool) {
	left := t.screen.Width
	pad := 0
	for i, cell := range row {
		if width[i] == 0 {
			continue
		}
		cell = t.screen.Cut(cell, width[i])
		if t.screen.Terminal() {
			cell = t.screen.Cut(cell, max(0, left-pad))
		}
		n := uniseg.StringWidth(cell)
		if n > 0 {
			w.WriteString(strings.Repeat(" ", pad))
			left -= pad + n
			pad = 0
		}
		switch paint := t.columns[i].Paint; {
		case head:
			w.WriteString(t.screen.Paint(Bold, cell))
		case paint != nil:
			w.WriteString(t.screen.Paint(paint(row[i]), cell))
		default:
			w.WriteString(cell)
		}
		pad += width[i] - n + gap
	}
	w.WriteByte('\n')
}

// Cut shortens text to a width, and shows that it did. A width of 0 leaves
// nothing.
func (s *Screen) Cut(text string, width int) string {
	if uniseg.StringWidth(text) <= width {
		return text
	}
	mark := "..."
	if s.wide {
		mark = "…"
	}
	room := width - uniseg.StringWidth(mark)
	if room < 0 {
		return strings.Repeat(".", width)
	}
	var b strings.Builder
	for g := uniseg.NewGraphemes(text); g.Next(); {
		if room -= g.Width(); room < 0 {
			break
		}
		b.WriteString(g.Str())
	}
	return b.String() + mark
}

// Wrap breaks text at blanks into lines that fit the terminal, those after the
// first with indent in front. Elsewhere it stays one line.
func (s *Screen) Wrap(text, indent string) string {
	if !s.Terminal() {
		return text
	}
	var b strings.Builder
	column, blanks := 0, "" // those at the end of a line are left out: on a full screen they would begin another
	for word := range strings.SplitAfterSeq(text, " ") {
		bare := strings.TrimSuffix(word, " ")
		if bare == "" {
			blanks += word
			continue
		}
		n := uniseg.StringWidth(bare)
		if column+len(blanks)+n > s.Width && column > len(indent) {
			b.WriteString("\n" + indent)
			column, blanks = len(indent), ""
		}
		b.WriteString(blanks + bare)
		column += len(blanks) + n
		blanks = word[len(bare):]
	}
	return b.String()
}
