package pages

import (
	"net/http"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"packmill/cmd/internal/view"
)

// Builder is a daemon that builds.
type Builder struct {
	Daemon  string            `json:"daemon"`
	Builder string            `json:"builder"`
	Archs   []string          `json:"archs"`
	Since   time.Time         `json:"since"`
	Refuses string            `json:"refuses,omitempty"` // why it takes nothing now
	Trouble string            `json:"trouble,omitempty"` // how its last build ended, if without a verdict
	Lacks   map[string]string `json:"lacks,omitempty"`   // what the machine lacks for an architecture
}

// builders are the daemons that run.
func (s *Site) builders() (out []Builder, err error) {
	list, err := s.view.Builders()
	for _, e := range list {
		out = append(out, Builder{e.Daemon, e.Builder, e.Archs, e.Since, e.Refuses, e.Trouble, e.Lacks})
	}
	return out, err
}

// Builders is who builds.
type Builders struct {
	Daemons  []Builder   `json:"daemons"`
	Building []Running   `json:"building"`
	Works    []view.Work `json:"works"` // what each did, those that do not run among them
	Load     float64     `json:"load"`  // of this machine, in the last minute

	Rows []builderRow `json:"-"`
}

// builderRow is what is said of one name, under which several processes may run.
type builderRow struct {
	Name string
	Runs []Builder
	Now  []Running
	Work *view.Work
}

// Percent is how many of the builds with a verdict were built: -1 of none.
func (r *builderRow) Percent() int {
	if r.Work == nil || r.Work.Built+r.Work.Failed == 0 {
		return -1
	}
	return 100 * r.Work.Built / (r.Work.Built + r.Work.Failed)
}

func (s *Site) buildersPage(*http.Request) (*sheet, error) {
	list, err := s.builders()
	if err != nil {
		return nil, err
	}
	x := &Builders{Daemons: list, Building: s.running(view.Where{}), Works: s.view.Works(), Load: load()}
	x.rows()
	return &sheet{Title: "Builders", Commands: []string{"packmill ls -s building", "packmill log ls"}, Events: "all=1",
		Data: x}, nil
}

// rows puts together what is said of one name: those that run come first.
func (x *Builders) rows() {
	row := func(name string) *builderRow {
		i := slices.IndexFunc(x.Rows, func(r builderRow) bool { return r.Name == name })
		if i < 0 {
			i = len(x.Rows)
			x.Rows = append(x.Rows, builderRow{Name: name})
		}
		return &x.Rows[i]
	}
	for _, d := range x.Daemons {
		r := row(d.Daemon)
		r.Runs = append(r.Runs, d)
	}
	for _, b := range x.Building {
		r := row(b.Builder)
		r.Now = append(r.Now, b)
	}
	for i := range x.Works {
		row(x.Works[i].Builder).Work = &x.Works[i]
	}
}

// load is that of this machine, in the last minute.
func load() float64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 0
	}
	return float64(info.Loads[0]) / (1 << 16)
}
