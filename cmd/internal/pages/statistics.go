package pages

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"packmill/cmd/internal/view"
)

// dayForm is a day, as the view has it.
const dayForm = "2006-01-02"

// Statistics is what the builds of the last days came to.
type Statistics struct {
	Last  int         `json:"last_days"` // which these are about
	Days  []view.Day  `json:"days"`      // the newest first
	Archs []Tally     `json:"archs"`
	Kinds []KindCount `json:"kinds"` // of first errors

	Plot    plot  `json:"-"`
	Periods []int `json:"-"` // about which one may ask
}

// Tally is the builds of those days on one architecture.
type Tally struct {
	Arch    string  `json:"arch"`
	Built   int     `json:"built"`
	Failed  int     `json:"failed"`
	Waits   int     `json:"waits"`
	Other   int     `json:"other"`
	Percent int     `json:"percent"` // built, of those with a verdict
	Wall    float64 `json:"wall_s"`
	Mean    float64 `json:"mean_s"`
}

// KindCount is how often a kind of first error was met.
type KindCount struct {
	Kind   string `json:"kind"`
	Builds int    `json:"builds"`
}

func (s *Site) statistics(r *http.Request) (*sheet, error) {
	x, of := &Statistics{}, month
	for _, p := range []period{month, {91, 1}, {52, 7}} {
		x.Periods = append(x.Periods, p.all())
		if number(r.URL.Query().Get("days")) == p.all() {
			of = p
		}
	}
	now := time.Now()
	x.Last = of.all()
	since := of.first(now).Format(dayForm)
	x.Days = slices.DeleteFunc(s.view.Days(), func(d view.Day) bool { return d.Date < since })
	archs, kinds := map[string]*Tally{}, map[string]int{}
	for _, d := range x.Days {
		t := archs[d.Arch]
		if t == nil {
			t = &Tally{Arch: d.Arch}
			archs[d.Arch] = t
		}
		t.Built += d.Built
		t.Failed += d.Failed
		t.Waits += d.Waits
		t.Other += d.Other
		t.Wall += d.Wall
		for k, n := range d.Kinds {
			kinds[k] += n
		}
	}
	for _, a := range slices.Sorted(maps.Keys(archs)) {
		t := *archs[a]
		if n := t.Built + t.Failed; n > 0 {
			t.Percent, t.Mean = 100*t.Built/n, t.Wall/float64(n+t.Waits+t.Other)
		}
		x.Archs = append(x.Archs, t)
	}
	for k, n := range kinds {
		x.Kinds = append(x.Kinds, KindCount{k, n})
	}
	slices.SortFunc(x.Kinds, func(a, b KindCount) int {
		return cmp.Or(cmp.Compare(b.Builds, a.Builds), cmp.Compare(a.Kind, b.Kind))
	})
	x.Plot = plotDays(x.Days, now, of)
	return &sheet{Title: "Statistics", Commands: []string{fmt.Sprintf("packmill log ls --since %dd", x.Last)}, Events: "all=1",
		Data: x}, nil
}
