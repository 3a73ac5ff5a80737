package pages

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"packmill/cmd/internal/view"
	"packmill/internal/clean"
	"packmill/queue"
	"packmill/spool"
)

// Bounds of a feed.
const (
	maxEntries = 50
	feedKept   = 48 * time.Hour // of moves that a feed of a suite or an uploader has
)

// feeds are the addresses of feeds: of a package, of a suite, and of who uploads, by the name
// or account of control/uploaders or the fingerprint of a key.
func (s *Site) feeds() {
	for kind, news := range map[string]func(what string) (title, page string, list []view.Move){
		"package": s.newsOfPackage, "suite": s.newsOfSuite, "uploads": s.newsOfUploads,
	} {
		s.Handle("GET /feed/"+kind+"/{what}", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !s.ready(w, r) {
				return
			}
			if kind == "uploads" { // its tickets are read
				leave, ok := s.heavyTurn(r.Context(), r)
				if !ok {
					s.refuse(w, r, errBusy)
					return
				}
				defer leave()
			}
			what := r.PathValue("what")
			title, page, list := news(what)
			if title == "" {
				s.refuse(w, r, notHere("there is no feed of %s %s", kind, what))
				return
			}
			s.sendFeed(w, r, title, page, list)
		}))
	}
}

// newsOfPackage is what became of all that there is of a source, by the histories.
func (s *Site) newsOfPackage(source string) (title, page string, list []view.Move) {
	found := s.view.Package(source)
	if len(found) == 0 {
		return "", "", nil
	}
	for _, f := range found {
		events, err := s.view.History(f)
		if err != nil {
			continue // it has moved on meanwhile
		}
		for _, e := range events {
			to, ok := s.view.Tree().PlaceOf(e.To)
			if !ok || e.From == e.To {
				continue
			}
			arch := cmp.Or(to.Arch, f.Arch())
			list = append(list, view.Move{Event: e, Item: f.Name.String(), Source: f.Name.Source, Version: f.Name.Version,
				State: to.State.Name, Suite: cmp.Or(to.Suite, f.Place.Suite), Arch: arch})
		}
	}
	slices.SortStableFunc(list, func(a, b view.Move) int { return b.Time.Compare(a.Time) })
	return source, "/package/" + url.PathEscape(source), list
}

func (s *Site) newsOfSuite(suite string) (title, page string, list []view.Move) {
	for _, x := range s.view.Suites() {
		if x.Name == suite {
			return suite, "/suite/" + url.PathEscape(suite), s.news(func(m *view.Move) bool { return m.Suite == suite })
		}
	}
	return "", "", nil
}

func (s *Site) newsOfUploads(who string) (title, page string, list []view.Move) {
	for _, u := range s.view.Settings().Uploaders {
		if u.Name == who || u.Account == who || slices.Contains(u.Fingerprints, strings.ToUpper(who)) {
			return "uploads of " + u.Name, "/", s.news(func(m *view.Move) bool { return s.uploadedBy(m) == u.Name })
		}
	}
	return "", "", nil
}

// news are the newest moves of which is is true, to where people hear of it by mail, too.
func (s *Site) news(is func(*view.Move) bool) (list []view.Move) {
	for _, m := range s.view.Moves(time.Now().Add(-feedKept), maxMoves) {
		if state := s.view.Tree().Named(m.State); state != nil && state.Tells != "" && is(&m) {
			if list = append(list, m); len(list) == maxEntries {
				break
			}
		}
	}
	return list
}

// maxMoves bounds the moves that are looked at for a feed.
const maxMoves = 4000

// uploadedBy is the uploader's name in control/uploaders: "" if the item has moved on.
func (s *Site) uploadedBy(m *view.Move) string {
	p, ok := s.view.Tree().PlaceOf(m.To)
	if !ok {
		return ""
	}
	n, err := spool.ParseName(m.Item)
	if err != nil {
		return ""
	}
	t, err := queue.TicketAt(s.view.Tree(), spool.Found{Place: p.Of(n.Source), Name: n})
	if err != nil {
		return ""
	}
	return t.Uploader
}

// The elements of Atom (RFC 4287).
type (
	atomFeed struct {
		XMLName xml.Name    `xml:"http://www.w3.org/2005/Atom feed"`
		Title   string      `xml:"title"`
		ID      string      `xml:"id"`
		Updated string      `xml:"updated"`
		Author  string      `xml:"author>name"`
		Links   []atomLink  `xml:"link"`
		Entries []atomEntry `xml:"entry"`
	}
	atomLink struct {
		Rel  string `xml:"rel,attr"`
		Type string `xml:"type,attr"`
		Href string `xml:"href,attr"`
	}
	atomEntry struct {
		Title   string   `xml:"title"`
		ID      string   `xml:"id"`
		Updated string   `xml:"updated"`
		Link    atomLink `xml:"link"`
		Summary string   `xml:"summary"`
	}
)

// sendFeed sends moves, the newest first, as a feed. Links are relative: whatever server is in
// front, they lead there.
func (s *Site) sendFeed(w http.ResponseWriter, r *http.Request, title, page string, list []view.Move) {
	feed := &atomFeed{Title: visible("Packmill: " + title), ID: urn("feed", r.URL.Path), Author: "Packmill",
		Updated: time.Unix(0, 0).UTC().Format(time.RFC3339),
		Links:   []atomLink{{"self", "application/atom+xml", r.URL.EscapedPath()}, {"alternate", "text/html", page}}}
	newest := time.Unix(0, 0)
	for _, m := range list[:min(len(list), maxEntries)] {
		feed.Entries = append(feed.Entries, entryOf(&m))
		if m.Time.After(newest) {
			newest = m.Time
			feed.Updated = m.Time.UTC().Format(time.RFC3339)
		}
	}
	data, err := xml.MarshalIndent(feed, "", " ")
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	body := s.discreet(append([]byte(xml.Header), append(data, '\n')...))
	h := w.Header()
	h.Set("Content-Type", "application/atom+xml; charset=utf-8")
	h.Set("Cache-Control", "no-cache")
	h.Set("ETag", `"`+digest(body)+`"`)
	http.ServeContent(w, r, "", newest, bytes.NewReader(body))
}

func entryOf(m *view.Move) atomEntry {
	title := m.Source + " " + m.Version + ": " + m.State
	if m.Arch != "" && m.Arch != spool.SourceArch {
		title += " on " + m.Arch
	}
	if m.Suite != "" {
		title += " in " + m.Suite
	}
	text := m.Reason
	if text == "" && m.Who != "" {
		text = "by " + m.Who
	}
	return atomEntry{Title: visible(title), ID: urn(m.Item, m.Arch, m.To, m.Time.Format(time.RFC3339Nano)),
		Updated: m.Time.UTC().Format(time.RFC3339), Summary: visible(text),
		Link: atomLink{"alternate", "text/html", "/package/" + url.PathEscape(m.Source)}}
}

// visible is text in which nothing hides.
func visible(text string) string { return string(clean.Escape(nil, []byte(text))) }

// urn names what the words say, always with the same name, wherever it is served.
func urn(words ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(words, "\x00")))
	sum[6], sum[8] = sum[6]&0x0f|0x80, sum[8]&0x3f|0x80 // a UUID of our own making (RFC 9562, version 8)
	return fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", sum[0:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}
