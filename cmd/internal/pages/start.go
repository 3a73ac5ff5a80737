package pages

import (
	"net/http"
	"slices"
	"syscall"
	"time"

	"packmill/cmd/internal/survey"
	"packmill/cmd/internal/view"
	"packmill/queue"
	"packmill/spool"
)

// Start is the first page.
type Start struct {
	Counts   []survey.Count `json:"counts"`         // as packmill status has them
	Needs    []survey.Row   `json:"needs_a_person"` // the oldest first
	NeedsAll int            `json:"needs_a_person_items"`
	Building []Running      `json:"building"` // those that began first, first
	Moves    []view.Move    `json:"moves"`    // of the last hour, the newest first
	Builders []Builder      `json:"builders"`
	Disk     Disk           `json:"disk"`
	Full     string         `json:"full,omitempty"` // why nothing new is begun

	Suites  []matrix  `json:"-"`
	Tiles   []tile    `json:"-"`
	Longest []Running `json:"-"` // those builds that the page has room for
}

// Disk is the room where the tree lies.
type Disk struct {
	Free        int64 `json:"free"` // bytes
	Size        int64 `json:"size"`
	FreeInodes  int64 `json:"free_inodes"`
	SizeInodes  int64 `json:"size_inodes"`
	UsedPercent int   `json:"used_percent"`
}

// tile is a number that is seen first.
type tile struct {
	Items int
	Word  string
	Class string
	At    string
}

// matrix is how much is where in one suite: a row for each architecture.
type matrix struct {
	Suite  string
	States []string
	Rows   []matrixRow
}

type matrixRow struct {
	Arch  string
	Cells []matrixCell
}

type matrixCell struct {
	State string
	Items int
}

// How many rows the first page has of each list.
const (
	startRows  = 12
	startMoves = 25
)

func (s *Site) start(*http.Request) (*sheet, error) {
	x := &Start{Counts: s.view.Counts(), Disk: s.disk()}
	x.Moves = s.view.Moves(time.Now().Add(-time.Hour), startMoves)
	var needs []spool.Found
	needs, x.NeedsAll = s.view.Oldest(view.Where{States: needsPerson}, startRows)
	x.Needs = s.rows(needs)
	slices.SortStableFunc(x.Needs, func(a, b survey.Row) int { return a.Since.Compare(b.Since) })
	x.Building = s.running(view.Where{})
	x.Building = x.Building[:min(len(x.Building), 4*startRows)]
	x.Longest = x.Building[:min(len(x.Building), startRows)]
	var err error
	if x.Builders, err = s.builders(); err != nil {
		return nil, err
	}
	if err := s.view.Settings().General.Room(s.view.Tree().Root(), 0); err != nil {
		x.Full = err.Error()
	}
	x.Suites = s.matrices(x.Counts)
	x.Tiles = tiles(x)
	return &sheet{Title: "What is where", Commands: []string{"packmill status"}, Events: "all=1", Data: x}, nil
}

// needsPerson is true of the states from which only a person takes things.
func needsPerson(s spool.State) bool {
	return s == spool.Review || queue.May(queue.Manual, s)
}

// rows reads what lists show of items. Those that have moved on are left out.
func (s *Site) rows(found []spool.Found) []survey.Row {
	out := make([]survey.Row, 0, len(found))
	for _, f := range found {
		out = append(out, s.view.Row(f))
	}
	return out
}

// disk is the room where the tree lies.
func (s *Site) disk() (d Disk) {
	var st syscall.Statfs_t
	if syscall.Statfs(s.view.Tree().Root(), &st) != nil {
		return d
	}
	block := int64(st.Bsize)
	d = Disk{Free: int64(st.Bavail) * block, Size: int64(st.Blocks) * block, FreeInodes: int64(st.Ffree),
		SizeInodes: int64(st.Files)}
	if d.Size > 0 {
		d.UsedPercent = int(100 - 100*d.Free/d.Size)
	}
	return d
}

// matrices lays the counts out: a table for each suite, a column for each state that
// has something.
func (s *Site) matrices(counts []survey.Count) (out []matrix) {
	type key struct{ suite, arch, state string }
	items := map[key]int{}
	var suites []string
	for _, x := range s.view.Suites() {
		suites = append(suites, x.Name)
	}
	archs := map[string][]string{}
	for _, c := range counts {
		if c.Suite == "" {
			continue
		}
		if c.Arch == "source" { // of what is installed; elsewhere a source's directory names no architecture
			c.Arch = ""
		}
		items[key{c.Suite, c.Arch, c.State}] += c.Items
		if !slices.Contains(suites, c.Suite) {
			suites = append(suites, c.Suite)
		}
		if !slices.Contains(archs[c.Suite], c.Arch) {
			archs[c.Suite] = append(archs[c.Suite], c.Arch)
		}
	}
	for _, suite := range suites {
		m := matrix{Suite: suite}
		for _, st := range s.view.Tree().States {
			if slices.ContainsFunc(archs[suite], func(a string) bool { return items[key{suite, a, st.Name}] > 0 }) {
				m.States = append(m.States, st.Name)
			}
		}
		slices.Sort(archs[suite])
		for _, a := range archs[suite] {
			row := matrixRow{Arch: a}
			for _, st := range m.States {
				row.Cells = append(row.Cells, matrixCell{st, items[key{suite, a, st}]})
			}
			m.Rows = append(m.Rows, row)
		}
		out = append(out, m)
	}
	return out
}

// tiles are the numbers that are seen first.
func tiles(x *Start) []tile {
	sum := map[string]int{}
	for _, c := range x.Counts {
		sum[c.State] += c.Items
	}
	return []tile{
		{x.NeedsAll, "need a person", "bad", "/list?state=needs-a-person"},
		{sum["building"], "building", "work", listAt("building", "", "")},
		{sum["needs-build"], "wait for a builder", "wait", listAt("needs-build", "", "")},
		{sum["dep-wait"] + sum["bd-uninstallable"], "wait for packages", "wait", listAt("dep-wait", "", "")},
		{sum["uploaded"], "to be published", "done", listAt("uploaded", "", "")},
		{sum["installed"], "in the archive", "done", listAt("installed", "", "")},
	}
}
