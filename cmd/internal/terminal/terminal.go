// Package terminal is how the packmill command talks with a person: lines that
// are fit for a terminal, tables, progress, and questions.
package terminal

import (
	"fmt"
	"strings"
	"time"

	"packmill/spool"
)

// Clean makes a line from outside fit for a terminal.
func Clean(line string) string { return strings.TrimRight(spool.OneLine(line), " ") }

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
