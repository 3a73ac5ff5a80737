// Package terminal is how the packmill command talks with a person: lines that
// are fit for a terminal, tables, progress, and questions.
package terminal

import (
	"fmt"
	"io"
	"strings"
	"time"

	"packmill/internal/clean"
)

// Clean makes a line from outside fit for a terminal.
func Clean(line string) string { return strings.TrimRight(clean.Line(line), " ") }

// Print writes text that a person reads. What came from outside, wherever in it,
// does nothing: only a newline and a tab act. Colours go another way (Table).
func Print(w io.Writer, format string, args ...any) {
	w.Write(clean.Escape(nil, fmt.Appendf(nil, format, args...)))
}

// Age says how long ago a time was, in one unit.
func Age(t time.Time) string {
	switch d := time.Since(t); {
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(0, int(d.Seconds())))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
}
