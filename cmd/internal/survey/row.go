package survey

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"packmill/queue"
	"packmill/queue/buildlog"
	"packmill/spool"
)

// Row is an item as lists show it.
type Row struct {
	Item    string    `json:"item"`
	State   string    `json:"state"`
	Suite   string    `json:"suite,omitempty"`
	Arch    string    `json:"arch,omitempty"`
	Source  string    `json:"source"`
	Version string    `json:"version"`
	Dir     string    `json:"dir"`
	Since   time.Time `json:"since"`
	Who     string    `json:"who,omitempty"`    // who moved it there
	Reason  string    `json:"reason,omitempty"` // of the last line of its history

	Before string `json:"before,omitempty"` // why versions before failed, until one was good

	// Of a job in needs-build.
	Ahead    int     `json:"ahead,omitempty"`      // jobs that are built before it
	Estimate float64 `json:"estimate_s,omitempty"` // how long the build may take
}

// RowOf reads what a list shows of an item. An item that has moved on since it
// was found has only its name.
func RowOf(t *spool.Tree, f spool.Found) Row {
	r := Row{
		Item: f.Name.String(), State: f.Place.State.Name, Suite: f.Place.Suite, Arch: f.Arch(),
		Source: f.Name.Source, Version: f.Name.Version, Dir: f.Dir(), Since: f.Name.Time,
	}
	if events, err := spool.ReadHistory(t.Path(f.Dir())); err == nil && len(events) > 0 {
		r.Reason = events[len(events)-1].Reason
		for _, e := range slices.Backward(events) {
			if e.From != e.To { // what is said of it there does not make it younger
				r.Since, r.Who = e.Time, e.Who
				break
			}
		}
	}
	if f.Place.State.Is(spool.Waits) || f.Place.State == spool.Building {
		if tk, err := queue.TicketAt(t, f); err == nil && tk.Previous != "" {
			r.Before = tk.Previous
			r.Reason = strings.TrimPrefix(r.Reason+"; before: "+shortened(spool.OneLine(tk.Previous)), "; ")
		}
	}
	return r
}

// shortened is the end of a long text: the newest is last.
func shortened(text string) string {
	const most = 160
	if len(text) > most {
		text = "..." + strings.ToValidUTF8(text[len(text)-most:], "")
	}
	return text
}

// Takes says how long a build may take, and whether that is known.
type Takes func(source, suite, arch string) (buildlog.Estimate, bool)

// Waits says how long jobs that wait for a builder may take, and how many are
// before each.
type Waits struct {
	tree   *spool.Tree
	source string // only this one is asked about; "": any
	few    bool   // are asked about, so queues are counted and not held in order
	takes  Takes  // nil: the record of builds is not read yet
	queues map[spool.Place][]string
}

// NewWaits makes Waits of a source's jobs, or of any with "".
func NewWaits(t *spool.Tree, source string) *Waits {
	return &Waits{tree: t, source: source, queues: map[spool.Place][]string{}}
}

// NewWaitsOf makes Waits of the jobs that were found.
func NewWaitsOf(t *spool.Tree, found []spool.Found) *Waits {
	source := ""
	for i, f := range found {
		if i > 0 && f.Name.Source != source {
			return NewWaits(t, "")
		}
		source = f.Name.Source
	}
	w := NewWaits(t, source)
	w.few = true
	return w
}

// Of estimates one job: known says that there is an estimate, ahead how many
// jobs are before it.
func (w *Waits) Of(f spool.Found) (e buildlog.Estimate, known bool, ahead int, err error) {
	if err := w.read(); err != nil {
		return e, false, 0, err
	}
	e, known = w.takes(f.Name.Source, f.Place.Suite, f.Arch())
	if f.Place.State == spool.NeedsBuild {
		ahead, err = w.before(f)
	}
	return e, known, ahead, err
}

// read reads the record of builds, once.
func (w *Waits) read() error {
	if w.takes != nil {
		return nil
	}
	times, err := buildlog.Store{Dir: w.tree.Path(spool.LogsDir)}.Times(w.source)
	if err == nil {
		w.takes = times.Of
	}
	return err
}

// before counts the jobs that are built before one that waits.
func (w *Waits) before(f spool.Found) (n int, err error) {
	if w.few {
		return w.tree.Before(f.Place, f.Name.String())
	}
	names, ok := w.queues[f.Place]
	if !ok {
		if names, err = w.tree.List(f.Place); err != nil {
			return 0, err
		}
		w.queues[f.Place] = names
	}
	n, _ = slices.BinarySearch(names, f.Name.String())
	return n, nil
}

// Row is RowOf, with the estimate of a job in needs-build.
func (w *Waits) Row(f spool.Found) (Row, error) {
	r := RowOf(w.tree, f)
	if f.Place.State != spool.NeedsBuild {
		return r, nil
	}
	return r, w.tell(f, &r)
}

// tell adds the estimate to the row of a job in needs-build, and to its reason
// in words: "about 4 min, 3 before it".
func (w *Waits) tell(f spool.Found, r *Row) error {
	e, known, ahead, err := w.Of(f)
	if err != nil {
		return err
	}
	var words []string
	if known {
		r.Estimate = e.Took.Seconds()
		words = append(words, e.String())
	}
	if r.Ahead = ahead; ahead > 0 {
		words = append(words, fmt.Sprintf("%d before it", ahead))
	}
	if len(words) > 0 {
		r.Reason = strings.TrimPrefix(r.Reason+"; "+strings.Join(words, ", "), "; ")
	}
	return nil
}
