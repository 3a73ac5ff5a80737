package desk

import (
	"strings"

	"packmill/cmd/internal/terminal"
)

// Kind says in a few words what an upload is and what reviewers said of it.
func (x *Waiting) Kind() string {
	text := "update"
	if x.New {
		text = "new"
	}
	if x.Hold != "" {
		text += ", on hold by " + x.Hold
	}
	if len(x.Accepts) > 0 {
		text += ", accepted by " + strings.Join(x.Accepts, ", ")
	}
	return text
}

// KindColour is that of a Kind.
func KindColour(kind string) terminal.Colour {
	switch {
	case strings.Contains(kind, "on hold by "):
		return terminal.Yellow
	case strings.HasPrefix(kind, "new"):
		return terminal.Bold
	}
	return terminal.Plain
}
