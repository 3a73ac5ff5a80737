package view

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"packmill/internal/regular"
	"packmill/spool"
)

// Move is a line of the journal: an item came to be, or went from one state to another.
type Move struct {
	spool.Event
	Item    string `json:"item"`
	Source  string `json:"source"`
	Version string `json:"version"`
	State   string `json:"state"` // where it went
	Suite   string `json:"suite,omitempty"`
	Arch    string `json:"arch,omitempty"`
}

// Bounds of what is kept and read of the journal.
const (
	maxMoves = 4000
	maxTail  = 2 << 20 // bytes of the past that are read at the beginning
	maxRead  = 8 << 20 // bytes that are read at once later
)

// journal is how far the journal was read, and the newest moves of it.
type journal struct {
	day   string
	at    int64
	moves []Move // the newest last; guarded by the view's lock
}

// forget makes the journal be read again from the beginning.
func (j *journal) forget() { *j = journal{} }

const dayForm = "2006-01-02"

// openJournal reads the end of yesterday's and of today's.
func (v *View) openJournal() {
	now := time.Now().UTC()
	for _, day := range []string{now.AddDate(0, 0, -1).Format(dayForm), now.Format(dayForm)} {
		v.journal.day, v.journal.at = day, 0
		if info, err := os.Stat(v.tree.Path("journal", day)); err == nil {
			v.journal.at = max(0, info.Size()-maxTail)
		}
		v.readDay(v.journal.at > 0)
	}
}

// readJournal reads what was added, and looks at what it speaks of.
func (v *View) readJournal() {
	today := time.Now().UTC().Format(dayForm)
	if v.journal.day == "" {
		v.openJournal()
		return
	}
	fresh := v.readDay(false)
	if v.journal.day != today {
		v.journal.day, v.journal.at = today, 0
		fresh = append(fresh, v.readDay(false)...)
	}
	var touched []Touched
	for _, m := range fresh {
		for _, at := range []string{m.From, m.To} {
			p, ok := v.tree.PlaceOf(at)
			if !ok {
				continue
			}
			for _, name := range namesAt(p, m) {
				if t, did := v.check(p, name); did {
					touched = append(touched, t)
				}
			}
		}
	}
	if len(fresh) > 0 {
		v.grow() // also where the hints told of the items before: the moves are new
	}
	v.tell(touched, len(touched) == 0 && len(fresh) > 0)
}

// namesAt are the names that an item of the journal may have at a place: where jobs of
// several architectures meet, theirs follows.
func namesAt(p spool.Place, m Move) []string {
	n, err := spool.ParseName(m.Item)
	if err != nil {
		return nil
	}
	names := []string{m.Item}
	for _, arch := range []string{"", m.Arch, spool.SourceArch} {
		if n.Arch = arch; !slices.Contains(names, n.String()) {
			names = append(names, n.String())
		}
	}
	return names
}

// readDay reads what was added to the day's file. torn says that it begins inside of a line.
func (v *View) readDay(torn bool) (fresh []Move) {
	f, err := regular.Open(v.tree.Path("journal", v.journal.day))
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			v.log.Warn("the journal cannot be read", "err", err)
		}
		return nil
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() < v.journal.at {
		v.journal.at = 0
	}
	if _, err := f.Seek(v.journal.at, io.SeekStart); err != nil {
		return nil
	}
	data, err := io.ReadAll(io.LimitReader(f, maxRead))
	if err != nil {
		return nil
	}
	data = data[:bytes.LastIndexByte(data, '\n')+1] // a line may be half written
	v.journal.at += int64(len(data))
	for line := range bytes.Lines(data) {
		if torn {
			torn = false
			continue
		}
		var m Move
		if json.Unmarshal(line, &m) == nil && v.explain(&m) {
			fresh = append(fresh, m)
		}
	}
	v.mu.Lock()
	v.journal.moves = append(v.journal.moves, fresh...)
	if n := len(v.journal.moves); n > maxMoves {
		v.journal.moves = slices.Clone(v.journal.moves[n-maxMoves:])
	}
	v.mu.Unlock()
	return fresh
}

// explain fills in what a line of the journal means, and reports whether it may be
// shown.
func (v *View) explain(m *Move) bool {
	n, err := spool.ParseName(m.Item)
	if err != nil {
		return false
	}
	from, _ := v.tree.PlaceOf(m.From)
	to, ok := v.tree.PlaceOf(m.To)
	if !ok {
		return false
	}
	m.Source, m.Version, m.Arch, m.State = n.Source, n.Version, n.Arch, to.State.Name
	for _, p := range []spool.Place{from, to} {
		if p.Arch != "" {
			m.Arch = p.Arch
		}
		if p.Suite == "" {
			continue
		}
		if m.Suite = p.Suite; v.hides(p.Suite) {
			return false
		}
	}
	if m.Suite != "" || len(v.hidden) == 0 {
		return true
	}
	return slices.ContainsFunc(namesAt(to, *m), func(name string) bool {
		n, err := spool.ParseName(name)
		return err == nil && v.shows(spool.Found{Place: to, Name: n})
	})
}

// Moves lists at most so many moves since a time, the newest first.
func (v *View) Moves(since time.Time, most int) []Move {
	v.mu.RLock()
	defer v.mu.RUnlock()
	var out []Move
	for _, m := range slices.Backward(v.journal.moves) {
		if len(out) == most || m.Time.Before(since) {
			break
		}
		out = append(out, m)
	}
	return out
}
