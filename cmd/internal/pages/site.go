// Package pages shows a view of the tree to browsers and to programs: each page as
// HTML, and with .json behind its address as the object that the page was made of,
// with the field names of the packmill command.
//
// A page is a row of the table in table.go: its address, its template, and the
// function that finds what it shows. What came from outside is text: html/template
// quotes it, and everything that leaves goes through package clean, which makes
// visible what would act, hide or reorder.
package pages

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/klauspost/compress/gzhttp"
	"golang.org/x/net/netutil"
	"golang.org/x/sync/semaphore"

	"packmill/cmd/internal/view"
)

//go:embed templates static
var files embed.FS

// Limits of what strangers may ask for.
const (
	maxConnections = 4096
	maxListeners   = 2000             // event streams; more are told to come again later
	maxLight       = 8                // pages that are made at once
	maxRaw         = 32               // logs that are sent whole at once
	maxHeavy       = 3                // searches, comparisons and other things that read much, at once
	heavyWait      = 2 * time.Second  // how long one waits for its turn
	heavyTime      = 20 * time.Second // how long it may take
)

// Site answers requests with pages of a view.
type Site struct {
	view      *view.View
	log       *slog.Logger
	version   string
	archiveAt string // the archive's address: see Fetched
	mux       *http.ServeMux
	templates *template.Template
	kept      cache
	light     *semaphore.Weighted // turns of pages that are made
	heavy     *semaphore.Weighted
	whole     *semaphore.Weighted // logs that are sent whole
	streams   *semaphore.Weighted
	clients   *clients
	tails     tails
}

// New makes the site of a view.
func New(v *view.View, log *slog.Logger, version string) (*Site, error) {
	s := &Site{view: v, log: log, version: version, mux: http.NewServeMux(), heavy: semaphore.NewWeighted(maxHeavy),
		light: semaphore.NewWeighted(maxLight), whole: semaphore.NewWeighted(maxRaw),
		streams: semaphore.NewWeighted(maxListeners), clients: newClients(),
		tails: tails{open: map[string]*tail{}}}
	var err error
	if s.templates, err = template.New("").Funcs(s.words()).ParseFS(files, "templates/*.html"); err != nil {
		return nil, err
	}
	for _, p := range pages() {
		s.mux.Handle("GET "+p.path, s.page(&p))
	}
	s.mux.HandleFunc("GET /events", s.events)
	s.Handle("GET /static/", static())
	s.mux.HandleFunc("/", s.missing)
	s.routes()
	s.figures()
	return s, nil
}

// Handle adds an address that is no page: a feed, a badge, figures, packed where the client takes it. The
// pattern is that of http.ServeMux, with GET.
func (s *Site) Handle(pattern string, h http.Handler) {
	pack, err := gzhttp.NewWrapper(gzhttp.MinSize(worthPacking), gzhttp.EnableZstd(true), gzhttp.PreferZstd(true),
		gzhttp.SuffixETag(packed), gzhttp.ExceptContentTypes([]string{"application/zstd"}))
	if err != nil {
		panic(err) // a fault of the program, found by its first test
	}
	answer := pack(h)
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		// What was sent packed is named so; it is the same answer.
		if tag := r.Header.Get("If-None-Match"); tag != "" {
			r.Header.Set("If-None-Match", asPacked.Replace(tag))
		}
		answer(w, r)
	})
}

// Handler answers everything, with safe headers, and nothing but GET.
func (s *Site) Handler() http.Handler { return safe(formed(s.patient(s.mux))) }

// Serve answers at a listener until the context ends, and what was asked before it.
func (s *Site) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler: s.Handler(), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 20 * time.Second,
		WriteTimeout: time.Minute, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog:    slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return ctx }, ConnState: s.clients.connected,
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		<-ctx.Done()
		soon, stop := context.WithTimeout(context.Background(), 3*time.Second)
		defer stop()
		if server.Shutdown(soon) != nil {
			server.Close()
		}
	}()
	if err := server.Serve(netutil.LimitListener(l, maxConnections)); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	<-ended // Serve returns when the answers under way have still to be sent
	return nil
}

// Print writes the first page.
func (s *Site) Print(w io.Writer) error {
	r, err := http.NewRequest(http.MethodGet, "/", nil)
	if err != nil {
		return err
	}
	answer := httptest.NewRecorder()
	s.mux.ServeHTTP(answer, r)
	if answer.Code != http.StatusOK {
		return fmt.Errorf("the first page: %s", http.StatusText(answer.Code))
	}
	_, err = io.Copy(w, answer.Body)
	return err
}

// mayLoad is what a browser may do with a page: nothing that is not from here.
const mayLoad = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// safe sets the headers that every answer has, and lets only reading pass.
func safe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", mayLoad)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", "interest-cohort=()")
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "this only shows; packmill changes things", http.StatusMethodNotAllowed)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// packed ends the ETag of what is sent packed.
const packed = "-packed"

var asPacked = strings.NewReplacer(packed+"-zstd", "", packed+"-gzip", "", packed, "")

// static serves the style sheet and the script. They change with the program alone:
// their address has its digest.
func static() http.Handler {
	sub, err := fs.Sub(files, "static")
	if err != nil {
		panic(err) // a fault of the program, found by its first test
	}
	return http.StripPrefix("/static/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := r.URL.Path
		data, err := fs.ReadFile(sub, name)
		if err != nil {
			http.NotFound(w, r)
			return
		}
		if r.URL.Query().Get("v") == digest(data) {
			w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
		}
		w.Header().Set("ETag", `"`+digest(data)+`"`)
		http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(data))
	}))
}
