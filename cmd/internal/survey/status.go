package survey

import (
	"maps"
	"slices"
	"strconv"
	"time"

	"packmill/cmd/internal/control"
	"packmill/cmd/internal/terminal"
	"packmill/queue/builders"
	"packmill/queue/buildlog"
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

// Cells are the columns of a table: how many, what, suite, architecture, age, and where or how much work.
func (n *Count) Cells() []string {
	cells := []string{strconv.Itoa(n.Items), n.State, n.Suite, n.Arch, "", n.Dir}
	if n.Oldest != nil {
		cells[4] = terminal.Age(*n.Oldest)
	}
	if n.Work > 0 {
		cells[5] = "about " + buildlog.Span(time.Duration(n.Work*float64(time.Second))) + " of builds"
	}
	switch n.State {
	case Incoming:
		cells[1] = "incoming (unfinished or deferred)"
	case Stray:
		cells[1] = "stray files, in no .changes"
	}
	return cells
}

// Status is a look at the whole tree.
type Status struct {
	Counts []Count
	Idle   []string // build daemons that take nothing now, and why
	Closed []string // directories that the person may not read, with their groups

	only *Filter
}

// StatusOf counts what of the items that are meant is where; if all are, what is no item
// yet, too. Without settings (nil) nothing is said of the space that they want free.
func StatusOf(t *spool.Tree, set *control.Settings, only *Filter) (*Status, error) {
	s := &Status{only: only}
	if set != nil {
		if err := set.General.Room(t.Root(), 0); err != nil {
			s.Counts = append(s.Counts, Count{State: Full, Reason: err.Error()})
		}
	}
	if only.all() {
		s.Counts = append(s.Counts, drops(t)...)
	}
	if err := s.items(t); err != nil {
		return nil, err
	}
	if len(s.Counts) == 0 {
		if err := NoSuite(t, only.Suite); err != nil {
			return nil, err
		}
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
		if s.only.States != nil && !s.only.States(p.State) {
			continue
		}
		n := &counted{waits: waits, place: p}
		if !s.only.all() {
			n.only = func(name string) bool { return s.only.counts(t, p, name) }
		}
		if err := s.leaveOut(t, t.Each(p, n.item)); err != nil {
			return err
		}
		if err := n.err; err != nil {
			return err
		}
		if n.items == 0 {
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
		c.Items += n.items
		c.Work += n.work
		if x, err := spool.ParseName(n.oldest); err == nil && (c.Oldest == nil || x.Time.Before(*c.Oldest)) {
			c.Oldest = &x.Time
		}
	}
	s.Counts, s.Closed = append(s.Counts, out...), once(s.Closed)
	return nil
}

// leaveOut notes what is closed, and gives the rest of the error.
func (s *Status) leaveOut(t *spool.Tree, err error) error {
	dirs, err := spool.Closed(err)
	for _, dir := range dirs {
		s.Closed = append(s.Closed, Whose(t.Root(), dir))
	}
	return err
}

// counted is what there is in one place. Its names are read one after the other and not
// held: a queue may be long.
type counted struct {
	waits  *Waits
	place  spool.Place
	only   func(name string) bool // nil: every one
	items  int
	oldest string  // a name
	work   float64 // seconds, of what waits for a builder
	err    error
}

func (c *counted) item(name string) {
	if c.only != nil && !c.only(name) {
		return
	}
	c.items++
	const class = len("50-") // before the time
	if c.oldest == "" || name[class:] < c.oldest[class:] {
		c.oldest = name
	}
	if c.place.State != spool.NeedsBuild || c.err != nil {
		return
	}
	if c.err = c.waits.read(); c.err == nil {
		if e, known := c.waits.takes(spool.SourceOf(name), c.place.Suite, c.place.Arch); known {
			c.work += e.Took.Seconds()
		}
	}
}
