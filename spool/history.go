package spool

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"packmill/internal/clean"
	"packmill/internal/durable"
	"packmill/internal/regular"
)

// The files of an item that the engine writes.
const (
	TicketFile  = "ticket"  // deb822: the facts
	HistoryFile = "history" // one line a move, append only, for people
	ReasonFile  = "REASON"  // why it lies where a person must act
	LeaseFile   = "lease"   // of a job that a builder on another machine has, see Lease
	triesFile   = ".tries"  // the handlings that have not ended, see unfinished
)

// Event is one line of a history: a move, and how it came to be.
type Event struct {
	Time   time.Time `json:"time"`
	From   string    `json:"from"` // a place's directory, or "new"
	To     string    `json:"to"`
	Who    string    `json:"who"` // a daemon's name, or a person's
	Reason string    `json:"reason,omitempty"`
}

// ByHand is the who of a move that a person made with mv.
const ByHand = "mv"

// line is the event as it stands in the history: five fields with a tab
// between. Control characters of the reason become spaces, so an event is
// always one line.
func (e Event) line() []byte {
	return fmt.Appendf(nil, "%s\t%s\t%s\t%s\t%s\n",
		e.Time.UTC().Format(time.RFC3339Nano), e.From, e.To, OneLine(e.Who), OneLine(e.Reason))
}

// OneLine makes text from outside fit for a line of a record.
func OneLine(s string) string { return clean.Line(s) }

func parseEvent(line string) (Event, bool) {
	f := strings.SplitN(line, "\t", 5)
	if len(f) != 5 {
		return Event{}, false
	}
	t, err := time.Parse(time.RFC3339Nano, f[0])
	if err != nil {
		return Event{}, false
	}
	return Event{t, f[1], f[2], f[3], f[4]}, true
}

// maxHistory bounds what is read of a history: an item has tens of moves.
const maxHistory = 1 << 20

// ReadHistory reads the history of the item that lies at dir, oldest first. Lines that a
// crash tore are passed over. A missing history is an empty one.
func ReadHistory(dir string) ([]Event, error) {
	f, err := regular.Open(filepath.Join(dir, HistoryFile))
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxHistory))
	if err != nil {
		return nil, err
	}
	var out []Event
	for line := range strings.Lines(string(data)) {
		if e, ok := parseEvent(strings.TrimSuffix(line, "\n")); ok {
			out = append(out, e)
		}
	}
	return out, nil
}

// ReadReason reads the REASON of the item that lies at dir, for people: "" if
// there is none.
func ReadReason(dir string) string {
	data, err := regular.Read(filepath.Join(dir, ReasonFile), maxSmall)
	if err != nil {
		return ""
	}
	return string(data)
}

// lastEvent reads only the end of a history.
func lastEvent(dir string) (Event, bool) {
	var buf [4096]byte
	end, err := regular.Tail(filepath.Join(dir, HistoryFile), buf[:])
	if err != nil {
		return Event{}, false
	}
	lines := strings.Split(strings.TrimRight(string(end), "\n"), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if e, ok := parseEvent(lines[i]); ok {
			return e, true
		}
	}
	return Event{}, false
}

// journalLine is an event with the item it happened to.
type journalLine struct {
	Event
	Item string `json:"item"`
}

// record writes the event into the day's journal. The journal is a record and
// not a truth: an error is the caller's to log, never to act on.
func (t *Tree) record(name string, e Event) error {
	line, err := json.Marshal(journalLine{e, name})
	if err != nil {
		return err
	}
	day := filepath.Join(t.root, "journal", e.Time.UTC().Format("2006-01-02"))
	return durable.Append(day, append(line, '\n'), 0o664)
}
