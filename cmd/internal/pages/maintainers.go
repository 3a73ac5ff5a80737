package pages

import (
	"cmp"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"packmill/cmd/internal/control"
	"packmill/cmd/internal/view"
	"packmill/internal/near"
	"packmill/spool"
)

// Maintainers is who stands behind packages.
type Maintainers struct {
	People []Person `json:"people"` // by name
	From   int      `json:"from"`   // number of the first, from 0
	All    int      `json:"all"`

	Earlier, Later string `json:"-"`
}

// Person is one who maintains or uploads source packages: whoever goes by one name is one.
type Person struct {
	Name      string `json:"name"`
	Maintains int    `json:"maintains"` // source packages
	Uploaded  int    `json:"uploaded"`  // source packages, of the newest version
	Broken    int    `json:"broken"`    // of all these: those of which a build failed
	Moving    int    `json:"moving"`    // of all these: those of which something goes on or waits
}

// Maintainer is the packages of one person, those that failed first.
type Maintainer struct {
	Name   string       `json:"name"`
	Rows   []Maintained `json:"rows"`
	From   int          `json:"from"` // number of the first, from 0
	All    int          `json:"all"`
	Broken int          `json:"broken"` // rows of all in which something failed

	Archs          []string `json:"-"`
	Earlier, Later string   `json:"-"`
}

// Maintained is a package of somebody's in a suite.
type Maintained struct {
	SearchRow
	Maintains bool `json:"maintains"`
	Uploaded  bool `json:"uploaded"`
}

// namesOf are the names of who stands behind a source: a person is told by the name, for the address may not be
// shown. Who has no name is nobody here, unless addresses are shown.
func (s *Site) namesOf(p view.People) (maintainer, uploader string) {
	shown := s.view.Settings().General.ShowAddresses
	name, rest, _ := strings.Cut(p.Maintainer, "<")
	name = strings.Trim(name, " \t\"")
	if name == "" && shown {
		name = strings.Trim(rest, "> ")
	}
	for _, n := range []*string{&name, &p.Uploader} {
		if strings.Contains(*n, "@") && !shown {
			*n = ""
		}
	}
	return name, p.Uploader
}

func (s *Site) maintainers(r *http.Request) (*sheet, error) {
	people, err := s.view.People(r.Context())
	if err != nil {
		return nil, err
	}
	broken, moving := s.inState(failedState), s.inState(underWay)
	all := map[string]*Person{}
	for source, p := range people {
		maintainer, uploader := s.namesOf(p)
		for i, name := range slices.Compact([]string{maintainer, uploader}) {
			if name == "" {
				continue
			}
			if all[name] == nil {
				all[name] = &Person{Name: name}
			}
			x := all[name]
			x.Broken, x.Moving = x.Broken+broken[source], x.Moving+moving[source]
			if i == 0 {
				x.Maintains++
			}
			if name == uploader {
				x.Uploaded++
			}
		}
	}
	x := &Maintainers{All: len(all), People: []Person{}}
	names := slices.SortedFunc(maps.Keys(all), func(a, b string) int {
		return cmp.Or(cmp.Compare(strings.ToLower(a), strings.ToLower(b)), cmp.Compare(a, b))
	})
	x.From = min(max(0, number(r.URL.Query().Get("from"))), max(0, len(names)-1))
	for _, name := range names[x.From:min(len(names), x.From+perPage)] {
		x.People = append(x.People, *all[name])
	}
	x.Earlier, x.Later = pager(r, x.From, perPage, x.All)
	return &sheet{Title: "Maintainers", Commands: []string{"packmill ls"}, Events: "all=1", Data: x}, nil
}

// failedState is true of builds that failed and wait for a person's word.
func failedState(s spool.State) bool { return s == spool.BuildAttempted || s == spool.Failed }

// underWay is true of what goes on or waits, and did not fail.
func underWay(s spool.State) bool {
	switch groupOf(s.Name) {
	case "work", "wait":
		return true
	case "done":
		return s != spool.Installed
	}
	return false
}

// inState says, with a 1, which sources have something in these states.
func (s *Site) inState(states func(spool.State) bool) map[string]int {
	out := map[string]int{}
	for _, f := range s.view.Items(view.Where{States: states}) {
		out[f.Name.Source] = 1
	}
	return out
}

func (s *Site) maintainer(r *http.Request) (*sheet, error) {
	people, err := s.view.People(r.Context())
	if err != nil {
		return nil, err
	}
	x := &Maintainer{Name: r.PathValue("who"), Rows: []Maintained{}}
	var all []Maintained
	known := map[string]bool{}
	for source, p := range people {
		maintainer, uploader := s.namesOf(p)
		known[maintainer], known[uploader] = true, true
		if x.Name == "" || maintainer != x.Name && uploader != x.Name {
			continue
		}
		for _, row := range searchRows(s.view.Package(source)) {
			all = append(all, Maintained{row, maintainer == x.Name, uploader == x.Name})
		}
	}
	if len(all) == 0 {
		text := "nobody here is called " + x.Name
		if did := near.Hint(x.Name, slices.Sorted(maps.Keys(known))); did != "" {
			text += "; " + did
		}
		return nil, notHere("%s", text)
	}
	slices.SortFunc(all, func(a, b Maintained) int {
		return cmp.Or(cmp.Compare(a.urgency(s.view.Tree()), b.urgency(s.view.Tree())), cmp.Compare(a.Source, b.Source), cmp.Compare(a.Suite, b.Suite))
	})
	x.All = len(all)
	for _, row := range all {
		if row.urgency(s.view.Tree()) == 0 {
			x.Broken++
		}
	}
	x.From = min(max(0, number(r.URL.Query().Get("from"))), max(0, len(all)-1))
	x.Rows = all[x.From:min(len(all), x.From+perPage)]
	x.Earlier, x.Later = pager(r, x.From, perPage, x.All)
	shown := make([]SearchRow, 0, len(x.Rows))
	for _, row := range x.Rows {
		shown = append(shown, row.SearchRow)
	}
	x.Archs = archsOf(shown)
	page := &sheet{Title: x.Name, Events: "all=1", Data: x, Commands: []string{"packmill ls"}}
	is := func(u control.Uploader) bool { return u.Name == x.Name }
	if slices.ContainsFunc(s.view.Settings().Uploaders, is) {
		page.Feed = feedAt("uploads", x.Name)
	}
	return page, nil
}

// urgency is 0 of what failed, 1 of what is under way, 2 of what is at its end.
func (m *Maintained) urgency(t *spool.Tree) int {
	out := 2
	for _, name := range m.States {
		state := t.Named(name)
		if state != nil && failedState(state) {
			return 0
		}
		if state != nil && underWay(state) {
			out = 1
		}
	}
	return out
}

func maintainerAt(name string) string { return "/maintainer/" + url.PathEscape(name) }
