package pages

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"packmill/archive"
	"packmill/archive/release"
	"packmill/cmd/internal/desk"
	"packmill/cmd/internal/survey"
	"packmill/cmd/internal/usage"
	"packmill/cmd/internal/view"
	"packmill/internal/clean"
	"packmill/queue"
	"packmill/spool"
	"packmill/spool/incoming"
)

// fromOf is where a page of a log begins so that a line is in sight, and the line.
func fromOf(n int) string { return fmt.Sprintf("%d#L%d", max(1, n-20), n) }

// fragment is a template's text, with nothing in it that hides.
func (s *Site) fragment(name string, data any) []byte {
	var b bytes.Buffer
	if err := s.templates.ExecuteTemplate(&b, name, data); err != nil {
		s.log.Warn("a page cannot be made", "template", name, "err", err)
	}
	return clean.Escape(nil, b.Bytes())
}

// dressed gives a sheet what every page has.
func (s *Site) dressed(x *sheet) *sheet {
	x.Now, x.At, x.Version = s.view.Now(), time.Now().UTC(), s.version
	return x
}

// Review is what waits for a reviewer.
type Review struct {
	Waiting []desk.Waiting `json:"waiting"` // as packmill review has them, the oldest first
	All     int            `json:"all"`
}

// maxDesk is how many uploads the desk shows.
const maxDesk = 100

func (s *Site) review(*http.Request) (*sheet, error) {
	d, err := desk.Open(s.view.Tree(), s.view.Settings())
	if err != nil {
		return nil, err
	}
	found := s.view.Items(view.Where{States: survey.Only(spool.Review)})
	slices.SortStableFunc(found, func(a, b spool.Found) int { return a.Name.Time.Compare(b.Name.Time) })
	x := &Review{All: len(found), Waiting: []desk.Waiting{}}
	for _, f := range found[:min(len(found), maxDesk)] {
		w, _, err := d.Look(f)
		if errors.Is(err, fs.ErrNotExist) {
			continue // decided meanwhile
		}
		if err != nil {
			s.log.Debug("desk", "item", f.Name.String(), "err", err)
		}
		s.veil(&w, f)
		x.Waiting = append(x.Waiting, w)
	}
	slices.SortStableFunc(x.Waiting, func(a, b desk.Waiting) int { return a.Since.Compare(b.Since) })
	return &sheet{Title: "Waits for review", Commands: []string{"packmill review"}, Events: "all=1", Data: x}, nil
}

// veil takes out what may tell of a hidden suite.
func (s *Site) veil(w *desk.Waiting, f spool.Found) {
	s.view.Veil(&w.Row, f)
	if s.view.HidesAny() {
		w.Waits = nil
	}
}

// maxDiff is how much of the differences a page shows, in bytes.
const maxDiff = 512 << 10

func (s *Site) reviewed(r *http.Request) (*sheet, error) {
	n, err := spool.ParseName(r.PathValue("item"))
	f := spool.Found{Place: spool.In(spool.Review, r.PathValue("suite")), Name: n}
	if err != nil || !s.view.Has(f) {
		return nil, notHere("no such upload waits for review (any more)")
	}
	d, err := desk.Open(s.view.Tree(), s.view.Settings())
	if err != nil {
		return nil, err
	}
	x, err := d.Report(r.Context(), f, false)
	if err != nil {
		return nil, err
	}
	if s.view.HidesAny() {
		x.Earlier, x.Elsewhere, x.Rights = nil, nil, ""
	}
	s.veil(&x.Waiting, f)
	if len(x.Diff) > maxDiff {
		x.Diff = strings.ToValidUTF8(x.Diff[:maxDiff], "") + "\n... and more: packmill review show " + n.ID() + "\n"
	}
	return &sheet{Title: "Review of " + n.ID(), Query: n.Source, Commands: []string{"packmill review show " +
		n.ID()}, Data: x,
		Events: about("source", n.Source)}, nil
}

// Upload says where an upload is.
type Upload struct {
	Changes  string       `json:"changes"`
	Items    []survey.Row `json:"items"`
	Incoming []string     `json:"incoming,omitempty"` // the directories in which the file lies still
}

func (s *Site) upload(r *http.Request) (*sheet, error) {
	x := &Upload{Changes: r.PathValue("changes"), Items: []survey.Row{}}
	source, rest, _ := strings.Cut(x.Changes, "_")
	if source == "" || !strings.HasSuffix(rest, ".changes") {
		return nil, wrong("%s is not the name of a .changes file", x.Changes)
	}
	for _, f := range s.view.Package(source) {
		if tk, err := queue.TicketAt(s.view.Tree(), f); err == nil && tk.Changes == x.Changes {
			x.Items = append(x.Items, s.view.Row(f))
		}
	}
	if !s.view.HidesAny() {
		box := &incoming.Box{Tree: s.view.Tree()}
		for _, d := range box.Dirs() {
			if slices.Contains(box.Names(d), x.Changes) {
				x.Incoming = append(x.Incoming, d.String())
			}
		}
	}
	return &sheet{Title: x.Changes, Query: x.Changes, Events: about("source", source), Data: x,
		Commands: []string{command("packmill", "ls", source), command("packmill", "why", source)}}, nil
}

// Archive is what was published.
type Archive struct {
	Views     []string    `json:"views"` // suites, and snapshots as NAME/SUITE
	Published []Published `json:"published"`
}

// Published is what the Release file of a view says.
type Published struct {
	View  string    `json:"view"`
	Date  time.Time `json:"date"`
	Until time.Time `json:"valid_until,omitzero"`
	Archs []string  `json:"archs"`
	Areas []string  `json:"components"`
	Suite bool      `json:"-"` // and no snapshot
	Since string    `json:"-"` // of a snapshot: the address of what changed in the suite since
}

// theArchive is the archive, and the names in it that may be seen.
func (s *Site) theArchive() (*archive.Archive, []string, error) {
	a, err := archive.Open(s.view.Tree().Path("archive"))
	if err != nil {
		return nil, nil, err
	}
	views, err := a.Views()
	return a, slices.DeleteFunc(views, func(v string) bool { return s.view.Hides(v[strings.LastIndex(v, "/")+1:]) }), err
}

func (s *Site) archive(*http.Request) (*sheet, error) {
	a, views, err := s.theArchive()
	if err != nil {
		return nil, err
	}
	x := &Archive{Views: views, Published: []Published{}}
	for _, v := range views {
		dir := filepath.Join("dists", v)
		snapshot, suite, is := strings.Cut(v, "/")
		if is {
			dir = filepath.Join("snapshots", snapshot, "dists", suite)
		}
		p := Published{View: v, Suite: !is, Since: "/diff?" + about("from", v, "to", suite)}
		if r, err := release.Read(filepath.Join(a.Root(), dir)); err == nil && r != nil {
			p.Date, p.Until, p.Archs, p.Areas = r.Date, r.Until, strings.Fields(r.Get("Architectures")),
				strings.Fields(r.Get("Components"))
		}
		x.Published = append(x.Published, p)
	}
	return &sheet{Title: "The archive", Commands: []string{"packmill archive ls", "packmill archive snapshot"},
		Events: "all=1", Data: x}, nil
}

// ArchiveView is the packages of a suite or snapshot.
type ArchiveView struct {
	View    string  `json:"view"`
	Pattern string  `json:"pattern,omitempty"`
	Entries []Entry `json:"entries"`
	All     int     `json:"all"`
	Cruft   bool    `json:"-"`
}

// Entry is a package, with the fields of packmill archive ls.
type Entry struct {
	Package   string `json:"package"`
	Version   string `json:"version"`
	Arch      string `json:"arch"`
	Component string `json:"component"`
	Source    string `json:"source,omitempty"`
	Newest    string `json:"newest,omitempty"` // of cruft: the version of its source, which does not build it
}

func (s *Site) archiveView(r *http.Request) (*sheet, error) {
	q := r.URL.Query()
	x := &ArchiveView{View: r.PathValue("view"), Pattern: q.Get("q"), Cruft: q.Get("cruft") != "", Entries: []Entry{}}
	a, views, err := s.theArchive()
	if err != nil {
		return nil, err
	}
	_, known := s.view.Settings().Suite(x.View)
	published := slices.Contains(views, x.View)
	if !published && !known {
		return nil, notHere("nothing is published under the name %s", x.View)
	}
	words := []string{"packmill", "archive", "ls", x.View}
	switch {
	case !published: // nothing is in it yet
	case x.Cruft:
		words[2] = "cruft"
		list, err := a.Cruft(r.Context(), x.View)
		if err != nil {
			return nil, err
		}
		for _, e := range list {
			x.Entries = append(x.Entries, Entry{e.Package, e.Version, e.Arch, e.Component, e.Source, e.Newest})
		}
	default:
		list, err := a.List(r.Context(), x.View, x.Pattern)
		if errors.Is(err, path.ErrBadPattern) {
			return nil, wrong("%s is no pattern", x.Pattern)
		}
		if err != nil {
			return nil, err
		}
		for _, e := range list {
			x.Entries = append(x.Entries, Entry{e.Package, e.Version, e.Arch, e.Component, e.Source, ""})
		}
	}
	x.All = len(x.Entries)
	if !wantsJSON(r) {
		x.Entries = x.Entries[:min(len(x.Entries), perPage)]
	}
	return &sheet{Title: x.View, Commands: []string{command(words...)}, Events: about("suite", x.View), Data: x}, nil
}

// ArchiveDiff is what changed between two suites or snapshots.
type ArchiveDiff struct {
	From        string       `json:"from"`
	To          string       `json:"to"`
	Differences []Difference `json:"differences"`

	Views []string `json:"-"`
}

// Difference is a package, with the fields of packmill archive diff.
type Difference struct {
	Package string `json:"package"`
	Arch    string `json:"arch"`
	From    string `json:"from"`
	To      string `json:"to"`
}

func (s *Site) archiveDiff(r *http.Request) (*sheet, error) {
	q := r.URL.Query()
	x := &ArchiveDiff{From: q.Get("from"), To: q.Get("to"), Differences: []Difference{}}
	a, views, err := s.theArchive()
	if err != nil {
		return nil, err
	}
	x.Views = views
	if x.From != "" && x.To != "" {
		for _, v := range []string{x.From, x.To} {
			if !slices.Contains(views, v) {
				return nil, notHere("nothing is published under the name %s", v)
			}
		}
		list, err := a.Diff(r.Context(), x.From, x.To)
		if err != nil {
			return nil, err
		}
		for _, d := range list {
			x.Differences = append(x.Differences, Difference{d.Package, d.Arch, d.Old, d.New})
		}
		if !wantsJSON(r) && len(x.Differences) > 4*perPage {
			x.Differences = x.Differences[:4*perPage]
		}
	}
	return &sheet{Title: "What changed", Commands: []string{command("packmill", "archive", "diff", cmp.Or(x.From, "FROM"),
		cmp.Or(x.To, "TO"))}, Data: x}, nil
}

// States is what the words for states mean.
type States struct {
	States []StateWord `json:"states"` // in the order of a package's life
}

// StateWord is a state in words.
type StateWord struct {
	State string `json:"state"`
	What  string `json:"what"`
	Next  string `json:"next"`
}

func (s *Site) states(*http.Request) (*sheet, error) {
	x := &States{}
	for _, st := range s.view.Tree().States {
		x.States = append(x.States, StateWord{st.Name, strings.ReplaceAll(st.What, "`", ""), st.Next})
	}
	return &sheet{Title: "States", Commands: []string{"packmill status"}, Data: x}, nil
}

// Schema is what the pages are as JSON.
type Schema struct {
	Pages []PageSchema `json:"pages"`
}

// PageSchema is what one kind of page is as JSON.
type PageSchema struct {
	Path   string   `json:"path"`
	What   string   `json:"what"`
	Fields []string `json:"fields"`
}

func (s *Site) schema(*http.Request) (*sheet, error) {
	x := &Schema{}
	for _, p := range pages() {
		x.Pages = append(x.Pages, PageSchema{strings.Replace(p.path, "/{$}", "/index", 1) + ".json", p.what,
			usage.Fields(reflect.TypeOf(p.object))})
	}
	x.Pages = append(x.Pages, PageSchema{"/search/logs.json", "lines of logs", usage.Fields(reflect.TypeFor[Grep]())})
	return &sheet{Title: "For programs", Commands: []string{"packmill manual --schema"}, Data: x}, nil
}
