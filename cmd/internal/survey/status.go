package survey

import (
	"maps"
	"slices"
	"time"

	"packmill/cmd/internal/control"
	"packmill/queue/builders"
	"packmill/spool"
	"packmill/spool/incoming"
	"packmill/spool/upload"
)

// What is counted that is no state: uploads and files in incoming, a disk
// that is too full to begin anything, and a builder that takes nothing.
const (
	Full     = "full"
	Incoming = "incoming"
	Stray    = "stray"
)

// Count is how much there is of something in a suite and architecture.
type Count struct {
	State  string     `json:"state"`
	Suite  string     `json:"suite,omitempty"`
	Arch   string     `json:"arch,omitempty"`
	Dir    string     `json:"dir,omitempty"` // of what is no item yet
	Items  int        `json:"items"`
	Oldest *time.Time `json:"oldest,omitempty"`
	Work   float64    `json:"estimate_s,omitempty"` // of all builds that wait here
	Reason string     `json:"reason,omitempty"`     // of Full
}

// Status is a look at the whole tree.
type Status struct {
	Counts []Count
	Idle   []string // build daemons that take nothing now, and why
	Closed []string // directories that the person may not read, with their groups
}

// StatusOf counts what is where. Without settings (nil) nothing is said of the
// space that they want free.
func StatusOf(t *spool.Tree, set *control.Settings) (*Status, error) {
	s := &Status{}
	if set != nil {
		if err := set.General.Room(t.Root(), 0); err != nil {
			s.Counts = append(s.Counts, Count{State: Full, Reason: err.Error()})
		}
	}
	s.Counts = append(s.Counts, drops(t)...)
	if err := s.items(t); err != nil {
		return nil, err
	}
	daemons, err := builders.Read(t.Path(spool.BuildersDir))
	if err != nil {
		return nil, err
	}
	for _, d := range daemons {
		if d.Refuses != "" {
			s.Idle = append(s.Idle, d.Daemon+" takes nothing now: "+d.Refuses)
		}
		for _, arch := range slices.Sorted(maps.Keys(d.Lacks)) {
			s.Idle = append(s.Idle, d.Daemon+" takes nothing for "+arch+": "+d.Lacks[arch])
		}
	}
	return s, nil
}

// drops counts what lies in incoming and is no item yet.
func drops(t *spool.Tree) []Count {
	var out []Count
	box := &incoming.Box{Tree: t}
	for _, d := range box.Dirs() {
		uploads := 0
		for _, n := range box.Names(d) {
			if incoming.IsChanges(n) || incoming.Misnamed(n) || upload.IsCommands(n) {
				uploads++
			}
		}
		if uploads > 0 {
			out = append(out, Count{State: Incoming, Dir: d.String(), Items: uploads})
		}
		strays := box.Strays(d)
		if len(strays) == 0 {
			continue
		}
		oldest := strays[0].Age
		for _, s := range strays {
			oldest = max(oldest, s.Age)
		}
		since := time.Now().Add(-oldest)
		out = append(out, Count{State: Stray, Dir: d.String(), Items: len(strays), Oldest: &since})
	}
	return out
}

// items counts the items of each state, suite and architecture. Installed has
// a directory for each beginning of a name; people want one line.
func (s *Status) items(t *spool.Tree) error {
	var out []Count
	index := map[spool.Place]int{}
	waits := NewWaits(t, "")
	places, err := t.Places()
	if err := s.leaveOut(t, err); err != nil {
		return err
	}
	for _, p := range places {
		names, err := t.List(p)
		if err := s.leaveOut(t, err); err != nil {
			return err
		}
		if len(names) == 0 {
			continue
		}
		key := p
		key.Hash = ""
		i, ok := index[key]
		if !ok {
			i = len(out)
			index[key] = i
			out = append(out, Count{State: p.State.Name, Suite: p.Suite, Arch: p.Arch})
		}
		c := &out[i]
		c.Items += len(names)
		if p.State == spool.NeedsBuild {
			work, err := waits.sum(p, names)
			if err != nil {
				return err
			}
			c.Work += work
		}
		if n, err := spool.ParseName(names[0]); err == nil && (c.Oldest == nil || n.Time.Before(*c.Oldest)) {
			c.Oldest = &n.Time
		}
	}
	s.Counts, s.Closed = append(s.Counts, out...), once(s.Closed)
	return nil
}

// leaveOut notes what is closed, and gives the rest of the error.
func (s *Status) leaveOut(t *spool.Tree, err error) error {
	dirs, err := spool.Closed(err)
	for _, dir := range dirs {
		s.Closed = append(s.Closed, whose(t.Root(), dir))
	}
	return err
}

// sum estimates all jobs of a place, in seconds.
func (w *Waits) sum(p spool.Place, names []string) (s float64, err error) {
	for _, name := range names {
		n, err := spool.ParseName(name)
		if err != nil {
			continue
		}
		e, known, _, err := w.Of(spool.Found{Place: p, Name: n})
		if err != nil {
			return 0, err
		}
		if known {
			s += e.Took.Seconds()
		}
	}
	return s, nil
}
