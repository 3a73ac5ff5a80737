package pages

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/semaphore"

	"packmill/cmd/internal/view"
	"packmill/internal/clean"
)

// page is a kind of page.
type page struct {
	path     string // of http.ServeMux, without the method
	template string // its file
	what     string // it shows, for people and programs
	object   any    // of its JSON, for the list of fields
	find     func(*Site, *http.Request) (*sheet, error)
	query    []string // words of the query that it knows
	heavy    bool     // it reads much: few at once
	printed  bool     // it shows what a build printed, as it is
}

// sheet is one page.
type sheet struct {
	Title    string
	Commands []string // that show the same
	Events   string   // the query of /events that tells of its changes; "": it does not change
	Feed     string   // the address of the feed that tells of them
	Data     any      // the object of its JSON

	Page    string // its template
	Query   string // what stands in the search box
	JSON    string // its address
	Now     view.Now
	At      time.Time
	Version string
}

// problem is an error that is the asker's: its text is for the page.
type problem struct {
	status int
	text   string
}

func (p *problem) Error() string { return p.text }

func notHere(format string, args ...any) error {
	return &problem{http.StatusNotFound, fmt.Sprintf(format, args...)}
}

func wrong(format string, args ...any) error {
	return &problem{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

var errBusy = &problem{http.StatusServiceUnavailable, "others ask for much just now; try again in some seconds"}

// jsonKey marks a request for the object of a page.
type jsonKey struct{}

// formed takes .json off the address: the page is the same.
func formed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path, ok := strings.CutSuffix(r.URL.EscapedPath(), ".json")
		if !ok {
			next.ServeHTTP(w, r)
			return
		}
		if path == "/index" {
			path = "/"
		}
		plain, err := url.PathUnescape(path)
		if err != nil {
			http.Error(w, "the address is broken", http.StatusBadRequest)
			return
		}
		r = r.WithContext(context.WithValue(r.Context(), jsonKey{}, true))
		u := *r.URL
		u.Path, u.RawPath = plain, path
		r.URL = &u
		next.ServeHTTP(w, r)
	})
}

func wantsJSON(r *http.Request) bool { return r.Context().Value(jsonKey{}) != nil }

// page answers with a page: made anew when the view has changed, and at least every
// few seconds, for it says how long ago things were.
func (s *Site) page(p *page) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-s.view.Ready():
		default:
			w.Header().Set("Retry-After", "2")
			s.refuse(w, r, &problem{http.StatusServiceUnavailable, "the tree is being read; try again in some seconds"})
			return
		}
		p.known(r)
		a, err := s.kept.get(s.view.Now().Number, key(r), func() (*answer, error) { return s.make(p, r) })
		if err != nil {
			s.refuse(w, r, err)
			return
		}
		a.send(w, r)
	})
}

// known leaves of the query what the page asks for: other words make no other page.
func (p *page) known(r *http.Request) {
	if r.URL.RawQuery == "" {
		return
	}
	q := url.Values{}
	for word, v := range r.URL.Query() {
		if slices.Contains(p.query, word) {
			q.Set(word, v[0])
		}
	}
	u := *r.URL
	u.RawQuery = q.Encode()
	r.URL = &u
}

// key is that of a page whose query is known: its words are sorted.
func key(r *http.Request) string {
	if wantsJSON(r) {
		return r.URL.EscapedPath() + ".json?" + r.URL.RawQuery
	}
	return r.URL.EscapedPath() + "?" + r.URL.RawQuery
}

// takeTurn waits for a turn, as long as people do.
func takeTurn(ctx context.Context, turn *semaphore.Weighted) bool {
	wait, enough := context.WithTimeout(ctx, heavyWait)
	defer enough()
	return turn.Acquire(wait, 1) == nil
}

// heavyTurn waits for a turn at what reads much, of which no client has all.
func (s *Site) heavyTurn(ctx context.Context, r *http.Request) (leave func(), ok bool) {
	who := s.clients.of(r)
	if !who.enter(aHeavy) {
		return nil, false
	}
	if !takeTurn(ctx, s.heavy) {
		who.leave(aHeavy)
		return nil, false
	}
	return func() { s.heavy.Release(1); who.leave(aHeavy) }, true
}

func (s *Site) lightTurn(ctx context.Context, _ *http.Request) (leave func(), ok bool) {
	return func() { s.light.Release(1) }, takeTurn(ctx, s.light)
}

// make finds what a page shows, and writes it.
func (s *Site) make(p *page, r *http.Request) (*answer, error) {
	// Others may wait for the same page: it is not given up with the first who asked.
	ctx, stop := context.WithTimeout(context.WithoutCancel(r.Context()), heavyTime)
	defer stop()
	turn := s.lightTurn
	if p.heavy {
		turn = s.heavyTurn
	}
	leave, ok := turn(ctx, r)
	if !ok {
		return nil, errBusy
	}
	defer leave()
	now := s.view.Now()
	x, err := p.find(s, r.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	a := &answer{number: now.Number, at: time.Now()}
	if wantsJSON(r) {
		a.kind = "application/json"
		data, err := json.Marshal(x.Data)
		if err != nil {
			return nil, err
		}
		a.body = append(clean.JSON(data), '\n')
	} else {
		a.kind = "text/html; charset=utf-8"
		x.Page, x.Now, x.JSON = p.template, now, addressOfJSON(r.URL)
		if a.body, err = s.write(x); err != nil {
			return nil, err
		}
	}
	if !p.printed {
		a.body = s.discreet(a.body)
	}
	a.etag, a.changed = digest(a.body), a.at
	return a, nil
}

func addressOfJSON(u *url.URL) string {
	path := u.EscapedPath()
	if path == "/" {
		path = "/index"
	}
	path += ".json"
	if u.RawQuery != "" {
		path += "?" + u.Query().Encode()
	}
	return path
}

// write writes a sheet as HTML in which nothing hides.
func (s *Site) write(x *sheet) ([]byte, error) {
	x.Version, x.At = s.version, time.Now().UTC()
	var b bytes.Buffer
	if err := s.templates.ExecuteTemplate(&b, x.Page+".html", x); err != nil {
		return nil, err
	}
	return clean.Escape(make([]byte, 0, b.Len()), b.Bytes()), nil
}

// forAll lets other people's pages read an answer.
func forAll(h http.Header) {
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Cross-Origin-Resource-Policy", "cross-origin")
}

// refuse answers with an error: of the asker's, or of ours, which the log has.
func (s *Site) refuse(w http.ResponseWriter, r *http.Request, err error) {
	p := (*problem)(nil)
	if !errors.As(err, &p) {
		s.log.Warn("a page cannot be made", "path", r.URL.Path, "err", err)
		p = &problem{http.StatusInternalServerError, "this cannot be shown just now; the log of statusd says why"}
		if errors.Is(err, context.DeadlineExceeded) {
			p = &problem{http.StatusServiceUnavailable, "this took too long; ask for less"}
		}
	}
	h := w.Header()
	h.Set("Cache-Control", "no-cache")
	if p.status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "5")
	}
	var body []byte
	if wantsJSON(r) {
		h.Set("Content-Type", "application/json")
		data, jerr := json.Marshal(failed{p.text, p.status})
		if jerr != nil {
			data = []byte("{}")
		}
		body = append(clean.JSON(data), '\n')
	} else {
		h.Set("Content-Type", "text/html; charset=utf-8")
		x := &sheet{Title: http.StatusText(p.status), Page: "problem", Data: failed{p.text, p.status}, Now: s.view.Now()}
		body, err = s.write(x)
		if err != nil {
			body = []byte(http.StatusText(p.status))
		}
	}
	w.WriteHeader(p.status)
	w.Write(body)
}

// failed is how an error looks in JSON, as the packmill command has it, with the
// status of HTTP.
type failed struct {
	Error  string `json:"error"`
	Status int    `json:"status"`
}

func (s *Site) missing(w http.ResponseWriter, r *http.Request) {
	s.refuse(w, r, notHere("there is no page %s", r.URL.Path))
}

// digest names content.
func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:12])
}
