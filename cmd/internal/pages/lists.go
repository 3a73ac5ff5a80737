package pages

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"
	"time"

	"packmill/cmd/internal/survey"
	"packmill/cmd/internal/view"
	"packmill/queue/buildlog"
	"packmill/spool"
)

// List is items, as packmill ls has them.
type List struct {
	State string       `json:"state,omitempty"`
	Suite string       `json:"suite,omitempty"`
	Arch  string       `json:"arch,omitempty"`
	Items []survey.Row `json:"items"`
	From  int          `json:"from"` // number of the first, from 0
	All   int          `json:"all"`

	Earlier, Later string `json:"-"`
}

// perPage is how many rows a list has.
const perPage = 500

// anyPerson stands, where a state is asked for, for those that wait for a person.
const anyPerson = "needs-a-person"

func (s *Site) list(r *http.Request) (*sheet, error) {
	q := r.URL.Query()
	x := &List{State: q.Get("state"), Suite: q.Get("suite"), Arch: q.Get("arch")}
	w := view.Where{Suite: x.Suite, Arch: x.Arch, States: needsPerson}
	words := []string{"packmill", "ls"}
	if x.State != anyPerson {
		w.States = nil
		if x.State != "" {
			state := s.view.Tree().Named(x.State)
			if state == nil {
				return nil, notHere("there is no state %s", x.State)
			}
			w.States = survey.Only(state)
			words = append(words, "-s", x.State)
		}
	}
	if x.Suite != "" {
		words = append(words, "--suite", x.Suite)
	}
	if x.Arch != "" {
		words = append(words, "-a", x.Arch)
	}
	commands := []string{command(words...)}
	if x.State == anyPerson {
		commands = []string{"packmill build ls", "packmill review"}
	}
	found := s.view.Items(w)
	x.All = len(found)
	x.From = min(max(0, number(q.Get("from"))), max(0, len(found)-1))
	x.Items = s.rows(found[x.From:min(len(found), x.From+perPage)])
	x.Earlier, x.Later = pager(r, x.From, perPage, x.All)
	title := cmp.Or(x.State, "all items")
	return &sheet{Title: title, Commands: commands, Events: about("suite", x.Suite, "arch", x.Arch, "all",
		"1"), Data: x}, nil
}

func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0
	}
	return n
}

// pager gives the addresses of what is before and after a part of a list.
func pager(r *http.Request, from, most, all int) (earlier, later string) {
	at := func(n int) string {
		q := r.URL.Query()
		q.Set("from", strconv.Itoa(n))
		return r.URL.EscapedPath() + "?" + q.Encode()
	}
	if from > 0 {
		earlier = at(max(0, from-most))
	}
	if from+most < all {
		later = at(from + most)
	}
	return earlier, later
}

// Suite is what one suite has.
type Suite struct {
	Suite         string         `json:"suite"`
	Architectures []string       `json:"architectures,omitempty"`
	Counts        []survey.Count `json:"counts"`
	Needs         []survey.Row   `json:"needs_a_person"` // the first
	NeedsAll      int            `json:"needs_a_person_items"`
	Broken        []FailedItem   `json:"newly_broken"` // what fails and did not before, the newest first
	BrokenAll     int            `json:"newly_broken_items"`
	Moves         []view.Move    `json:"moves"`

	Matrix []matrix `json:"-"`
}

func (s *Site) suite(r *http.Request) (*sheet, error) {
	x := &Suite{Suite: r.PathValue("suite")}
	set, known := s.view.Settings().Suite(x.Suite)
	if known {
		x.Suite, x.Architectures = set.Name, set.Architectures
	}
	for _, c := range s.view.Counts() {
		if c.Suite == x.Suite {
			x.Counts = append(x.Counts, c)
		}
	}
	if !known && x.Counts == nil {
		return nil, notHere("there is no suite %s", x.Suite)
	}
	for _, m := range s.matrices(x.Counts) {
		if m.Suite == x.Suite {
			x.Matrix = append(x.Matrix, m)
		}
	}
	needs := s.view.Items(view.Where{States: needsPerson, Suite: x.Suite})
	x.NeedsAll = len(needs)
	x.Needs = s.rows(needs[:min(len(needs), suiteNeeds)])
	x.Broken = slices.DeleteFunc(s.failed(view.Where{Suite: x.Suite}), func(f FailedItem) bool { return f.WasGood == "" })
	slices.SortStableFunc(x.Broken, func(a, b FailedItem) int { return b.Since.Compare(a.Since) })
	x.BrokenAll = len(x.Broken)
	x.Broken = x.Broken[:min(len(x.Broken), brokenShown)]
	for _, m := range s.view.Moves(time.Now().AddDate(0, 0, -1), 4000) {
		if m.Suite == x.Suite && len(x.Moves) < 50 {
			x.Moves = append(x.Moves, m)
		}
	}
	return &sheet{Title: x.Suite, Commands: []string{"packmill ls --suite " + x.Suite}, Events: about("suite", x.Suite),
		Feed: feedAt("suite", x.Suite), Data: x}, nil
}

// Arch is what one architecture of a suite has.
type Arch struct {
	Suite    string         `json:"suite"`
	Arch     string         `json:"arch"`
	Counts   []survey.Count `json:"counts"`
	Building []Running      `json:"building"`
	Queue    []Queued       `json:"queue"` // the first, in order
	QueueAll int            `json:"queue_items"`
	Failures []Failure      `json:"failures"` // of what waits for a person's word, most first
	Days     []view.Day     `json:"days"`

	Plot plot `json:"-"`
}

// Running is a build that runs.
type Running struct {
	buildlog.Build
	Estimate float64 `json:"estimate_s,omitempty"` // how long it may take in all
	Percent  int     `json:"percent,omitempty"`    // of the estimate: no promise
	At       string  `json:"-"`
}

// Queued is a job that waits for a builder.
type Queued struct {
	survey.Row
	Begins float64 `json:"begins_in_s,omitempty"` // by the estimates of what is before it, if one builder takes all
}

// Failure is a kind of first error, and what failed with it.
type Failure struct {
	Kind  string       `json:"kind"`
	Items []FailedItem `json:"items"`
}

// FailedItem is a build that failed.
type FailedItem struct {
	survey.Row
	Kind    string `json:"kind"`               // of its first error
	Error   string `json:"error,omitempty"`    // the line
	Tries   int    `json:"tries,omitempty"`    // how often it was built
	WasGood string `json:"was_good,omitempty"` // the version before that was built: the failure is new
	At      string `json:"-"`
}

// New is how many of them fail and did not before.
func (f *Failure) New() (n int) {
	for _, x := range f.Items {
		if x.WasGood != "" {
			n++
		}
	}
	return n
}

const (
	queueRows    = 100
	brokenShown  = 20
	suiteNeeds   = 30
	failuresRead = 1000
)

func (s *Site) arch(r *http.Request) (*sheet, error) {
	x := &Arch{Suite: r.PathValue("suite"), Arch: r.PathValue("arch")}
	for _, c := range s.view.Counts() {
		if c.Suite == x.Suite && c.Arch == x.Arch {
			x.Counts = append(x.Counts, c)
		}
	}
	set, known := s.view.Settings().Suite(x.Suite)
	if x.Counts == nil && (!known || !slices.Contains(append(set.Architectures, "all", spool.SourceArch), x.Arch)) {
		return nil, notHere("the suite %s has no architecture %s", x.Suite, x.Arch)
	}
	where := view.Where{Suite: x.Suite, Arch: x.Arch}
	x.Building = s.running(where)
	x.queue(s, where)
	x.failures(s, where)
	for _, d := range s.view.Days() {
		if d.Suite == x.Suite && d.Arch == x.Arch {
			x.Days = append(x.Days, d)
		}
	}
	x.Plot = plotDays(x.Days, time.Now(), month)
	return &sheet{Title: x.Arch + " in " + x.Suite, Events: about("suite", x.Suite, "arch", x.Arch), Data: x,
		Commands: []string{"packmill ls --suite " + x.Suite + " -a " + x.Arch, "packmill log ls -s " +
			x.Suite + " -a " + x.Arch + " --since 7d"}}, nil
}

// running are the builds that run, those that began first, first.
func (s *Site) running(w view.Where) (out []Running) {
	w.States = survey.Only(spool.Building)
	for _, f := range s.view.Items(w) {
		b, ok := s.view.Running(f)
		if !ok {
			continue
		}
		r := Running{Build: b, At: buildAt(b)}
		if took, _ := s.view.Takes(b.Source, b.Suite, b.Arch); took > 0 {
			r.Estimate = took.Seconds()
			r.Percent = min(99, int(100*b.Wall/r.Estimate))
		}
		out = append(out, r)
	}
	slices.SortStableFunc(out, func(a, b Running) int { return a.Start.Compare(b.Start) })
	return out
}

func (x *Arch) queue(s *Site, w view.Where) {
	w.States = survey.Only(spool.NeedsBuild)
	found := s.view.Items(w)
	x.QueueAll = len(found)
	begins := 0.0
	for i, f := range found[:min(len(found), queueRows)] {
		q := Queued{Row: s.view.Row(f), Begins: begins}
		q.Ahead = i
		if took, _ := s.view.Takes(f.Name.Source, x.Suite, x.Arch); took > 0 {
			q.Estimate = took.Seconds()
			begins += q.Estimate
		}
		x.Queue = append(x.Queue, q)
	}
}

func (x *Arch) failures(s *Site, w view.Where) {
	kinds := map[string]*Failure{}
	for _, f := range s.failed(w) {
		if kinds[f.Kind] == nil {
			kinds[f.Kind] = &Failure{Kind: f.Kind}
		}
		kinds[f.Kind].Items = append(kinds[f.Kind].Items, f)
	}
	for _, k := range kinds {
		x.Failures = append(x.Failures, *k)
	}
	slices.SortFunc(x.Failures, func(a, b Failure) int {
		return cmp.Or(cmp.Compare(len(b.Items), len(a.Items)), cmp.Compare(a.Kind, b.Kind))
	})
}

// failed are the builds that failed and wait for a person's word: not more than so many are read.
func (s *Site) failed(w view.Where) (out []FailedItem) {
	w.States = survey.Only(spool.BuildAttempted, spool.Failed)
	found := s.view.Items(w)
	for _, f := range found[:min(len(found), failuresRead)] {
		item, version := FailedItem{Row: s.view.Row(f), Kind: "unknown"}, f.Name.Version
		if all, err := buildlog.BuildsAt(s.view.Tree().Path(f.Dir())); err == nil && len(all) > 0 {
			last := all[len(all)-1]
			item.At, item.Tries, version = buildAt(last), len(all), last.Version
			if last.Error != nil {
				item.Kind, item.Error = last.Error.Kind, last.Error.Text
			}
		}
		item.WasGood = s.view.WasGood(f.Name.Source, version, f.Place.Suite, f.Arch())
		out = append(out, item)
	}
	return out
}
