package survey

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"packmill/cmd/internal/terminal"
	"packmill/queue/buildlog"
	"packmill/queue/logs"
	"packmill/spool"
)

// Item is all that is known of an item.
type Item struct {
	Row
	History    []spool.Event    `json:"history"`
	Text       string           `json:"text,omitempty"` // its REASON
	FirstError string           `json:"first_error,omitempty"`
	Builds     []buildlog.Build `json:"builds,omitempty"`
	Buildinfo  []string         `json:"buildinfo,omitempty"`

	ticket string // as it is written
}

// ItemOf reads an item. What cannot be read of it is left out: it may have moved
// on since it was found.
func ItemOf(t *spool.Tree, f spool.Found) (*Item, error) {
	dir := t.Path(f.Dir())
	infos, err := filepath.Glob(filepath.Join(dir, "result", "*.buildinfo"))
	if err != nil {
		return nil, err
	}
	x := &Item{Row: RowOf(t, f), Text: spool.ReadReason(dir), FirstError: buildlog.ErrorAt(dir), Buildinfo: infos}
	x.History, _ = spool.ReadHistory(dir)
	x.Builds, _ = buildlog.BuildsAt(dir)
	if ticket, err := spool.ReadTicket(dir); err == nil {
		x.ticket = string(ticket.Append(nil))
	}
	return x, nil
}

// Print writes it for a person. Every line of the item is cleaned, and those that are sentences fit the screen.
func (x *Item) Print(s *terminal.Screen) {
	w := s.Out
	lines := func(text string) {
		for line := range strings.Lines(text) {
			terminal.Print(w, "  %s\n", terminal.Clean(line))
		}
	}
	terminal.Print(w, "%s\n", x.Dir)
	lines(x.ticket)
	terminal.Print(w, "\n")
	for _, e := range x.History {
		terminal.Print(w, "%s\n", s.Wrap(fmt.Sprintf("  %s  %s -> %s  by %s  %s", e.Time.Format(time.RFC3339),
			terminal.Clean(e.From), terminal.Clean(e.To), terminal.Clean(e.Who), terminal.Clean(e.Reason)), "      "))
	}
	for _, b := range x.Builds {
		terminal.Print(w, "%s\n", s.Wrap(fmt.Sprintf("  %s  build on %s: %s", b.Start.Format(time.RFC3339),
			terminal.Clean(b.Builder), terminal.Clean(logs.Numbers(&b))), "      "))
	}
	for _, name := range x.Buildinfo {
		terminal.Print(w, "  built with: %s\n", terminal.Clean(name))
	}
	if why := x.why(); why != "" {
		terminal.Print(w, "\n")
		lines(why)
	}
	terminal.Print(w, "\n")
}

// why is the REASON, with the first error of the build's log.
func (x *Item) why() string {
	if strings.Contains(x.Text, x.FirstError) { // as it does while a person is asked
		return strings.TrimSpace(x.Text)
	}
	return strings.TrimSpace(x.Text + "\n" + x.FirstError)
}
