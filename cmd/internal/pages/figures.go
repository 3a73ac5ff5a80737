package pages

import (
	"net/http"
	"time"

	"packmill/cmd/internal/metrics"
	"packmill/cmd/internal/survey"
	"packmill/cmd/internal/view"
	"packmill/spool"
)

// figures are what is for other programs' pages: metrics, feeds and badges.
func (s *Site) figures() {
	h := metrics.Handler(&metrics.Site{
		Shown: func(suite string) bool { return !s.view.Hides(suite) },
		Tree:  s.view.Tree(), Settings: s.view.Settings, Listeners: s.view.Listeners, Log: s.log,
		Look: func() ([]survey.Count, time.Time) {
			counts, at := s.view.Counts(), s.view.Now().Proved
			s.work(counts)
			return counts, at
		},
	})
	s.Handle("GET /metrics", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if wantsJSON(r) { // the web server before us keeps the world from /metrics, and not from /metrics.json
			s.missing(w, r)
			return
		}
		h.ServeHTTP(w, r)
	}))
	s.feeds()
	s.badges()
}

// work fills in how long the builds may take that wait, by those before.
func (s *Site) work(counts []survey.Count) {
	type queue struct{ suite, arch string }
	sums := map[queue]float64{}
	for _, f := range s.view.Items(view.Where{States: survey.Only(spool.NeedsBuild)}) {
		took, _ := s.view.Takes(f.Name.Source, f.Place.Suite, f.Arch())
		sums[queue{f.Place.Suite, f.Arch()}] += took.Seconds()
	}
	for i := range counts {
		if c := &counts[i]; c.State == spool.NeedsBuild.Name {
			c.Work = sums[queue{c.Suite, c.Arch}]
		}
	}
}

// ready reports whether the tree was read once; if not, it says so.
func (s *Site) ready(w http.ResponseWriter, r *http.Request) bool {
	select {
	case <-s.view.Ready():
		return true
	default:
		w.Header().Set("Retry-After", "2")
		s.refuse(w, r, &problem{http.StatusServiceUnavailable, "the tree is being read; try again in some seconds"})
		return false
	}
}
