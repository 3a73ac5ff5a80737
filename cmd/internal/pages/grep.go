package pages

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"regexp/syntax"
	"time"

	"packmill/internal/clean"
	"packmill/queue/buildlog"
	"packmill/queue/logs"
)

// Grep is a search over the logs of builds, as packmill log grep makes it.
type Grep struct {
	Query   string  `json:"query"`
	Matches []Match `json:"matches"`
	More    bool    `json:"more"` // there may be others: the search was cut off

	Package, Arch, Suite, State, Since string `json:"-"`
	Fixed, IgnoreCase                  bool   `json:"-"`
}

// Match is a line, with the fields of packmill log grep.
type Match struct {
	Source  string    `json:"source"`
	Version string    `json:"version"`
	Suite   string    `json:"suite"`
	Arch    string    `json:"arch"`
	Start   time.Time `json:"start"`
	Outcome string    `json:"outcome"`
	Line    int       `json:"line"`
	Text    string    `json:"text"`
	At      string    `json:"-"`
}

// Bounds of a search over logs.
const (
	maxMatches = 500
	maxPerLog  = 20
	maxPattern = 500
	grepDays   = 30 // without a word about it
)

var errEnough = errors.New("enough")

// grep searches the logs, and sends what it finds as it finds it.
func (s *Site) grep(w http.ResponseWriter, r *http.Request) {
	x, f, err := s.asked(r)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	ctx, stop := context.WithTimeout(r.Context(), heavyTime)
	defer stop()
	leave, ok := s.heavyTurn(ctx, r)
	if !ok {
		s.refuse(w, r, errBusy)
		return
	}
	defer leave()
	q := buildlog.Query{Pattern: x.Query, Fixed: x.Fixed, IgnoreCase: x.IgnoreCase, PerFile: maxPerLog, Workers: 1}
	out := &found{site: s, w: w, json: wantsJSON(r), grep: x}
	if !out.json {
		out.head()
	}
	if x.Query != "" {
		_, err = logs.Search(ctx, s.view.Tree(), f, q, func(l *logs.Log, m buildlog.Match) error {
			if s.view.Hides(l.Suite) {
				return nil
			}
			return out.add(Match{l.Source, l.Version, l.Suite, l.Arch, l.Start, l.Outcome, m.Line, m.Text,
				buildAt(l.Build) + "?from=" + fromOf(m.Line)})
		}, func(file string, err error) { s.log.Debug("search", "file", file, "err", err) })
	}
	bad := (*syntax.Error)(nil)
	if x.More = errors.Is(err, errEnough) || ctx.Err() != nil; !x.More && err != nil && !errors.As(err, &bad) {
		s.log.Warn("the logs cannot be searched", "err", err)
	}
	out.end()
}

// asked reads what is searched for.
func (s *Site) asked(r *http.Request) (*Grep, buildlog.Filter, error) {
	q := r.URL.Query()
	x := &Grep{Query: q.Get("q"), Package: q.Get("package"), Arch: q.Get("arch"), Suite: q.Get("suite"),
		State: q.Get("state"),
		Since: q.Get("since"), Fixed: q.Get("fixed") != "", IgnoreCase: q.Get("case") != "", Matches: []Match{}}
	if len(x.Query) > maxPattern {
		return nil, buildlog.Filter{}, wrong("the pattern is too long")
	}
	var words []string
	if x.State != "" {
		words = []string{x.State}
	}
	f, err := logs.Filter(x.Package, words)
	if err != nil {
		return nil, f, wrong("%v", err)
	}
	if !x.Fixed {
		if _, err := syntax.Parse(x.Query, syntax.Perl); err != nil {
			return nil, f, wrong("the pattern: %v", err)
		}
	}
	days := number(x.Since)
	if days <= 0 || days > 1000 {
		days = grepDays
	}
	f.Suite, f.Arch, f.Since = x.Suite, x.Arch, time.Now().AddDate(0, 0, -days)
	if s.view.Hides(f.Suite) {
		return nil, f, notHere("there is no suite %s", f.Suite)
	}
	return x, f, nil
}

// found is what a search has found, on its way.
type found struct {
	site *Site
	w    http.ResponseWriter
	json bool
	grep *Grep
	n    int
}

func (o *found) part(name string, data any) {
	o.w.Write(o.site.fragment(name, data))
	http.NewResponseController(o.w).Flush()
}

func (o *found) head() {
	h := o.w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Accel-Buffering", "no")
	o.part("grep-head", o.site.dressed(&sheet{Title: "Search the logs", Data: o.grep}))
}

func (o *found) add(m Match) error {
	if o.n++; o.n > maxMatches {
		return errEnough
	}
	if o.json {
		o.grep.Matches = append(o.grep.Matches, m)
		return nil
	}
	o.part("grep-row", m)
	return nil
}

func (o *found) end() {
	if o.json {
		h := o.w.Header()
		h.Set("Content-Type", "application/json")
		h.Set("Cache-Control", "no-cache")
		forAll(h)
		if data, err := json.Marshal(o.grep); err == nil {
			o.w.Write(append(clean.JSON(data), '\n'))
		}
		return
	}
	o.part("grep-foot", o.site.dressed(&sheet{Data: struct {
		*Grep
		Found int
	}{o.grep, min(o.n, maxMatches)}, Commands: []string{"packmill log grep PATTERN"}}))
}
