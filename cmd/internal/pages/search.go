package pages

import (
	"cmp"
	"maps"
	"net/http"
	"slices"
	"strings"

	"packmill/internal/policy"
	"packmill/spool"
)

// Search is what words mean: source packages that have one of them in their names, side by side.
type Search struct {
	Query   string      `json:"query"`
	Sources []string    `json:"sources"`
	Rows    []SearchRow `json:"rows"`
	Changes string      `json:"changes,omitempty"` // it is the name of one

	Archs []string `json:"-"`
}

// SearchRow is the newest version of a source in a suite.
type SearchRow struct {
	Source  string            `json:"source"`
	Version string            `json:"version"`
	Suite   string            `json:"suite,omitempty"`
	States  map[string]string `json:"states"` // by architecture; of the source itself by "source"
}

// Bounds of a search.
const (
	maxFound = 200
	maxWords = 20
)

func (s *Site) search(r *http.Request) (*sheet, error) {
	x := &Search{Query: strings.TrimSpace(r.URL.Query().Get("q")), Sources: []string{}, Rows: []SearchRow{}}
	words, ls := strings.Fields(x.Query), []string{"packmill", "ls"}
	for _, word := range words[:min(len(words), maxWords)] {
		if strings.HasSuffix(word, ".changes") {
			x.Changes = word
		}
		source, _, _ := strings.Cut(word, "_")
		if source == "" {
			continue
		}
		ls = append(ls, "*"+source+"*")
		for _, name := range s.view.Sources(strings.ToLower(source), maxFound) {
			if !slices.Contains(x.Sources, name) && len(x.Sources) < maxFound {
				x.Sources = append(x.Sources, name)
			}
		}
	}
	for _, source := range x.Sources {
		x.Rows = append(x.Rows, searchRows(s.view.Package(source))...)
	}
	x.Archs = archsOf(x.Rows)
	return &sheet{Title: "Search", Query: x.Query, Events: "all=1", Data: x, Commands: []string{command(ls...)}}, nil
}

// archsOf are the columns that rows need: the source, and the architectures by name.
func archsOf(rows []SearchRow) []string {
	archs := map[string]bool{}
	for _, row := range rows {
		for arch := range row.States {
			archs[arch] = true
		}
	}
	delete(archs, spool.SourceArch)
	return append([]string{spool.SourceArch}, slices.Sorted(maps.Keys(archs))...)
}

// searchRows are the items of one source: a row for each suite, with its newest version.
func searchRows(found []spool.Found) (out []SearchRow) {
	for _, f := range found {
		if f.Place.State == spool.Attic {
			continue
		}
		i := slices.IndexFunc(out, func(r SearchRow) bool { return r.Suite == f.Place.Suite })
		if i < 0 {
			i, out = len(out), append(out, SearchRow{Source: f.Name.Source, Suite: f.Place.Suite})
		}
		row := &out[i]
		if c := policy.CompareVersions(f.Name.Version, row.Version); row.Version == "" || c > 0 {
			row.Version, row.States = f.Name.Version, map[string]string{}
		} else if c < 0 {
			continue
		}
		arch := cmp.Or(f.Arch(), spool.SourceArch)
		if was := row.States[arch]; was == "" || was == spool.Installed.Name { // it is built again
			row.States[arch] = f.Place.State.Name
		}
	}
	return out
}
