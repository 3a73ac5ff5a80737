package pages

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/net/html"

	"packmill/cmd/internal/control"
	"packmill/cmd/internal/survey"
	"packmill/cmd/internal/usage"
	"packmill/cmd/internal/view"
	"packmill/cmd/internal/view/viewtest"
	"packmill/internal/clean"
	"packmill/queue"
	"packmill/queue/builders"
	"packmill/queue/buildlog"
	"packmill/spool"
)

// serve serves a tree until the test ends.
func serve(t testing.TB, tree *spool.Tree) (*Site, *httptest.Server) {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	set, err := control.NewStore(tree.Path("control"), log)
	if err != nil {
		t.Fatal(err)
	}
	v := view.New(tree, set, log)
	s, err := New(v, log, "statusd test")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- v.Run(ctx) }()
	server := httptest.NewServer(s.Handler())
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	<-v.Ready()
	return s, server
}

func newTree(t testing.TB, size viewtest.Size) *spool.Tree {
	t.Helper()
	tree, err := viewtest.Make(filepath.Join(t.TempDir(), "tree"), size)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func get(t testing.TB, address string, headers ...string) (*http.Response, []byte) {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Body.Close()
	body, err := io.ReadAll(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return w, body
}

// kindOf is the kind of page that an address is, by the first row of the table that
// fits.
func kindOf(path string) string {
	mux := http.NewServeMux()
	for _, p := range pages() {
		mux.Handle("GET "+p.path, http.NotFoundHandler())
	}
	_, pattern := mux.Handler(httptest.NewRequest(http.MethodGet, path, nil))
	return strings.TrimPrefix(pattern, "GET ")
}

// crawl asks for every page that can be reached, at most so many of each kind, and
// looks at each: that it is there, well formed, and clean. It gives the texts.
func crawl(t *testing.T, server *httptest.Server, most int) map[string]string {
	t.Helper()
	todo, seen, kinds, texts := []string{"/", "/schema", "/search?q=li"}, map[string]bool{}, map[string]int{},
		map[string]string{}
	for len(todo) > 0 {
		at := todo[0]
		todo = todo[1:]
		at, _, _ = strings.Cut(at, "#")
		path, _, _ := strings.Cut(at, "?")
		if at == "" || seen[at] || strings.HasPrefix(at, "/static/") {
			continue
		}
		seen[at] = true
		kind := kindOf(path)
		if kinds[kind]++; kinds[kind] > most {
			continue
		}
		w, body := get(t, server.URL+at)
		texts[at] = string(body)
		if w.StatusCode != http.StatusOK {
			t.Errorf("%s: %s: %s", at, w.Status, body)
			continue
		}
		if !strings.HasPrefix(w.Header.Get("Content-Type"), "text/html") {
			continue
		}
		if !bytes.Equal(clean.Escape(nil, body), body) {
			t.Errorf("%s: something in it hides", at)
		}
		links := wellFormed(t, at, body)
		todo = append(todo, links...)
	}
	return texts
}

// empty are the elements of HTML without an end.
var empty = []string{"meta", "link", "input", "img", "br", "option"}

// wellFormed looks at a page as a strict reader does: every element is closed where it
// should be, no name is given twice, nothing is inline that the policy forbids. It
// gives the links.
func wellFormed(t *testing.T, at string, body []byte) (links []string) {
	t.Helper()
	var open []string
	ids := map[string]bool{}
	heads := 0
	z := html.NewTokenizer(bytes.NewReader(body))
	for {
		switch z.Next() {
		case html.ErrorToken:
			if z.Err() != io.EOF || len(open) > 0 {
				t.Errorf("%s: %v, open: %v", at, z.Err(), open)
			}
			if heads != 1 {
				t.Errorf("%s: %d headings of the first order", at, heads)
			}
			return links
		case html.StartTagToken:
			tok := z.Token()
			if !slices.Contains(empty, tok.Data) {
				open = append(open, tok.Data)
			}
			if tok.Data == "h1" {
				heads++
			}
			for _, a := range tok.Attr {
				switch {
				case a.Key == "id" && ids[a.Val]:
					t.Errorf("%s: two elements are called %s", at, a.Val)
				case a.Key == "id":
					ids[a.Val] = true
				case a.Key == "style" || strings.HasPrefix(a.Key, "on"):
					t.Errorf("%s: %s has %s", at, tok.Data, a.Key)
				case a.Key == "href" && tok.Data == "a":
					links = append(links, a.Val)
				}
			}
			if tok.Data == "script" && !slices.ContainsFunc(tok.Attr, func(a html.Attribute) bool {
				return a.Key == "src" && strings.HasPrefix(a.Val, "/static/")
			}) {
				t.Errorf("%s: a script that is not ours", at)
			}
		case html.EndTagToken:
			name := z.Token().Data
			if len(open) == 0 || open[len(open)-1] != name {
				t.Errorf("%s: </%s> where %v are open", at, name, open)
				return links
			}
			open = open[:len(open)-1]
		}
	}
}

// Every page that can be reached is there and well formed, and the object of each has
// the fields that /schema says.
func TestPages(t *testing.T) {
	tree := newTree(t, viewtest.Size{Packages: 40, Archs: viewtest.Archs[:2], Building: 4})
	_, server := serve(t, tree)
	texts := crawl(t, server, 6)
	tried := map[string]bool{}
	for at := range texts {
		path, query, _ := strings.Cut(at, "?")
		kind := kindOf(path)
		for _, p := range pages() {
			if p.path != kind || tried[kind] || strings.HasSuffix(path, ".json") {
				continue
			}
			tried[kind] = true
			w, body := get(t, server.URL+path+suffix(path)+"?"+query)
			var got map[string]any
			if err := json.Unmarshal(body, &got); err != nil || w.StatusCode != http.StatusOK {
				t.Errorf("%s: %s, %v: %s", at, w.Status, err, body)
				continue
			}
			known := map[string]bool{}
			for _, f := range usage.Fields(reflect.TypeOf(p.object)) {
				name, _, _ := strings.Cut(f, " ")
				known[strings.TrimSuffix(name, "?")] = true
			}
			for name := range got {
				if !known[name] {
					t.Errorf("%s has %s, which /schema does not name", at, name)
				}
			}
		}
	}
	for _, p := range pages() {
		if !tried[p.path] && p.path != "/upload/{changes}" {
			t.Errorf("no link leads to %s", p.path)
		}
	}
}

func suffix(path string) string {
	if path == "/" {
		return "index.json"
	}
	return ".json"
}

// A page says what the tree has, under the name by which people look for it.
func TestWhereIsMyUpload(t *testing.T) {
	tree := newTree(t, viewtest.Size{Packages: 30, Archs: viewtest.Archs[:1]})
	s, server := serve(t, tree)
	f := s.view.Items(view.Where{States: survey.Only(spool.Review)})[0]
	name := f.Name.Source + "_" + f.Name.Version + "_source.changes"
	if _, body := get(t, server.URL+"/upload/"+name); !bytes.Contains(body, []byte("> review</span>")) {
		t.Errorf("%s: %s", name, body)
	}
	if w, _ := get(t, server.URL+"/package/nosuch"); w.StatusCode != http.StatusNotFound {
		t.Errorf("got %s", w.Status)
	}
}

// Nothing changes anything, and every answer says what a browser may do with it.
func TestOnlyReads(t *testing.T) {
	_, server := serve(t, newTree(t, viewtest.Size{Packages: 3, Archs: viewtest.Archs[:1]}))
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch, "PURGE"} {
		r, err := http.NewRequest(method, server.URL+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		w, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		w.Body.Close()
		if w.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("%s: got %s", method, w.Status)
		}
	}
	for _, at := range []string{"/", "/nosuch", "/static/style.css", "/index.json", "/static/../site.go",
		"/%2e%2e/etc/passwd"} {
		w, _ := get(t, server.URL+at)
		if !strings.HasPrefix(w.Header.Get("Content-Security-Policy"), "default-src 'none'") ||
			w.Header.Get("Set-Cookie") != "" ||
			w.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: got %v", at, w.Header)
		}
	}
}

// Who has a page already is told so, packed or not.
func TestNotModified(t *testing.T) {
	_, server := serve(t, newTree(t, viewtest.Size{Packages: 3, Archs: viewtest.Archs[:1]}))
	for _, packing := range []string{"identity", "gzip", "zstd"} {
		w, _ := get(t, server.URL+"/schema", "Accept-Encoding", packing)
		if got := w.Header.Get("Content-Encoding"); got != packing && packing != "identity" {
			t.Errorf("%s: packed with %q", packing, got)
		}
		if w, _ = get(t, server.URL+"/schema", "Accept-Encoding", packing, "If-None-Match",
			w.Header.Get("ETag")); w.StatusCode != http.StatusNotModified {
			t.Errorf("%s: got %s, want 304", packing, w.Status)
		}
	}
}

// A page is the same in every coding, and says how long it is.
func TestPacked(t *testing.T) {
	_, server := serve(t, newTree(t, viewtest.Size{Packages: 3, Archs: viewtest.Archs[:1]}))
	_, plain := get(t, server.URL+"/schema.json", "Accept-Encoding", "identity")
	for accepts, coding := range map[string]string{"gzip": "gzip", "gzip, deflate, br, zstd": "zstd",
		"gzip;q=1.0, zstd; q=0": "gzip", "br": "", "GZIP": "gzip", "": "", "gzip;q=0": ""} {
		w, body := get(t, server.URL+"/schema.json", "Accept-Encoding", cmp.Or(accepts, "identity"))
		if got := w.Header.Get("Content-Encoding"); got != coding || w.ContentLength != int64(len(body)) {
			t.Errorf("%s: got %q and a length of %d, want %q and %d", accepts, got, w.ContentLength, coding, len(body))
		}
		var r io.Reader = bytes.NewReader(body)
		var err error
		switch coding {
		case "gzip":
			r, err = gzip.NewReader(r)
		case "zstd":
			r, err = zstd.NewReader(r)
		}
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%s: %v; got %d bytes, want %d", accepts, err, len(got), len(plain))
		}
	}
}

// A page that is made anew and says the same has not changed.
func TestLastModified(t *testing.T) {
	s, server := serve(t, newTree(t, viewtest.Size{Packages: 3, Archs: viewtest.Archs[:1]}))
	before, _ := get(t, server.URL+"/schema.json")
	long := time.Now().Add(-time.Hour)
	for _, a := range s.kept.pages {
		a.at, a.changed = long, long
	}
	w, _ := get(t, server.URL+"/schema.json")
	if got, want := w.Header.Get("Last-Modified"), long.UTC().Format(http.TimeFormat); got != want ||
		w.Header.Get("ETag") != before.Header.Get("ETag") {
		t.Errorf("got %s, want %s", got, want)
	}
	w, _ = get(t, server.URL+"/schema.json", "If-Modified-Since", w.Header.Get("Last-Modified"))
	if w.StatusCode != http.StatusNotModified {
		t.Errorf("got %s, want 304", w.Status)
	}
}

// What a stranger wrote into an address is one word of a command, whoever copies it.
func TestCommand(t *testing.T) {
	for _, word := range []string{"hello", "libsigc++-2.0", "", "a b", "x'; touch /tmp/x; '", "$(id)", "`id`", "*", "-s"} {
		out, err := exec.Command("sh", "-c", command("printf", "[%s]", "ls", word)).Output()
		if got, want := string(out), "[ls]["+word+"]"; err != nil || got != want {
			t.Errorf("%q: got %q, %v, want %q", word, got, err, want)
		}
	}
}

// A search has of each source what its newest version is, side by side.
func TestSearch(t *testing.T) {
	s, server := serve(t, newTree(t, viewtest.Size{Packages: 60, Archs: viewtest.Archs[:3]}))
	one, two := viewtest.Name(3), viewtest.Name(17)
	var x Search
	_, body := get(t, server.URL+"/search.json?q="+one+"+"+strings.ToUpper(two))
	if err := json.Unmarshal(body, &x); err != nil {
		t.Fatal(err)
	}
	for _, source := range []string{one, two} {
		i := slices.IndexFunc(x.Rows, func(r SearchRow) bool { return r.Source == source && r.Suite == viewtest.Suite })
		if i < 0 {
			t.Errorf("%s is not found: %s", source, body)
			continue
		}
		want := map[string]string{}
		for _, f := range s.view.Package(source) {
			if f.Name.Version == x.Rows[i].Version && f.Place.Suite == viewtest.Suite {
				want[cmp.Or(f.Arch(), spool.SourceArch)] = f.Place.State.Name
			}
		}
		if !maps.Equal(x.Rows[i].States, want) || len(want) < 4 {
			t.Errorf("%s: got %v, want %v", source, x.Rows[i].States, want)
		}
	}
}

// hostile is what a stranger may write into any field: markup, what acts on a terminal,
// what turns text around, and what is no UTF-8.
const hostile = "\"'><script src=//evil.example/x></script><img src=x onerror=alert(1)>{{.}}" +
	"\x1b]0;t\x07\u202e\u2066\u200b\xff"

// hostileTree is a tree in which strangers wrote what they may.
func hostileTree(t *testing.T) *spool.Tree {
	t.Helper()
	tree := newTree(t, viewtest.Size{Packages: 12, Archs: viewtest.Archs[:1], Building: 1})
	found, err := tree.Find("")
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 10<<20)
	for _, f := range found {
		dir := tree.Path(f.Dir())
		events, _ := spool.ReadHistory(dir)
		to := f.Place.Dir()
		at := time.Now()
		if len(events) > 0 {
			at = events[len(events)-1].Time
		}
		line := fmt.Sprintf("%s\t%s\t%s\t%s\t%s\n", at.Format(time.RFC3339Nano), to, to, hostile,
			strings.ReplaceAll(hostile, "\n", " "))
		history, err := os.ReadFile(filepath.Join(dir, spool.HistoryFile))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, spool.HistoryFile), string(history)+line)
		write(t, filepath.Join(dir, spool.ReasonFile), hostile+"\n"+hostile)
		write(t, filepath.Join(dir, buildlog.FirstErrorFile), hostile)
		st, err := spool.ReadTicket(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, field := range []string{"Maintainer", "Changed-By", "Uploader", "Builder", "Dep-Wait", "Remarks",
			"Previous-Failure"} {
			st.Set(field, strings.Map(func(r rune) rune {
				if r < ' ' {
					return -1
				}
				return r
			}, hostile))
		}
		write(t, filepath.Join(dir, spool.TicketFile), string(st.Append(nil)))
		if f.IsJob() {
			write(t, filepath.Join(dir, buildlog.LogFile), hostile+"\n"+long+"\n"+hostile+"\n+"+strings.Repeat("-",
				78)+"+\n| "+hostile+" |\n")
		}
	}
	return tree
}

// Whatever strangers wrote, pages show it as text.
func TestHostileTree(t *testing.T) {
	_, server := serve(t, hostileTree(t))
	for at, text := range crawl(t, server, 3) {
		if strings.Contains(text, "<script src=//") || strings.Contains(text, "<img src=x") {
			t.Errorf("%s: what a stranger wrote is markup", at)
		}
		if len(text) > 4<<20 && !strings.HasSuffix(at, "/log") {
			t.Errorf("%s: %d bytes", at, len(text))
		}
	}
}

// A hidden suite is on no page, by whatever address it is asked for.
func TestHiddenSuite(t *testing.T) {
	tree := newTree(t, viewtest.Size{Packages: 5, Archs: viewtest.Archs[:1]})
	start := time.Now().UTC().Truncate(time.Microsecond)
	tk := queue.Ticket{Source: "embargoed", Version: "1-1", Suite: "secret", BuildArch: "amd64",
		Changes: "embargoed_1-1_source.changes"}
	for _, p := range []spool.Place{spool.In(spool.Building, "secret", "amd64"), spool.In(spool.Review, "secret"),
		spool.In(spool.Rejected)} {
		dir := tree.Path(p.Dir(), spool.NewName(spool.NormalClass, start, "embargoed", "1-1").String())
		if err := os.MkdirAll(dir, 0o775); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, spool.TicketFile), string(tk.Stanza().Append(nil)))
		write(t, filepath.Join(dir, buildlog.LogFile), "embargoed hole\n")
	}
	b := buildlog.Build{Source: "embargoed", Version: "1-1", Suite: "secret", Arch: "amd64", Start: start,
		Outcome: buildlog.Good}
	log := filepath.Join(t.TempDir(), "log")
	write(t, log, "embargoed hole\n")
	if err := (buildlog.Store{Dir: tree.Path(spool.LogsDir)}).Keep(log, &b); err != nil {
		t.Fatal(err)
	}
	_, server := serve(t, tree)
	for at, text := range crawl(t, server, 20) {
		if strings.Contains(text, "embargoed") || strings.Contains(text, "secret") {
			t.Errorf("%s: %s", at, text)
		}
	}
	for _, at := range []string{"/package/embargoed", "/suite/secret", "/suite/secret/amd64", buildAt(b),
		buildAt(b) + "/log", buildAt(b) + "/log.zst",
		buildAt(b) + "/events", reviewAt("secret", spool.NewName(spool.NormalClass, start, "embargoed",
			"1-1").String()), "/archive/secret"} {
		if w, body := get(t, server.URL+at); w.StatusCode != http.StatusNotFound || strings.Contains(string(body), "hole") {
			t.Errorf("%s: %s", at, w.Status)
		}
	}
	for _, at := range []string{"/search/logs?q=hole", "/search/logs.json?q=hole",
		"/upload/embargoed_1-1_source.changes.json", "/search.json?q=embargoed"} {
		_, body := get(t, server.URL+at)
		if text := strings.ReplaceAll(string(body), url.QueryEscape("q=hole"), ""); strings.Contains(text,
			"embargoed hole") || strings.Contains(text, `"item"`) ||
			strings.Contains(text, `"source"`) || strings.Contains(text, `["embargoed"]`) {
			t.Errorf("%s: %s", at, body)
		}
	}
}

// The log of a build that runs comes as it is written, in whole lines, and its end is
// told.
func TestLogGrows(t *testing.T) {
	tree := newTree(t, viewtest.Size{Packages: 3, Archs: viewtest.Archs[:1], Building: 1})
	s, server := serve(t, tree)
	f := s.view.Items(view.Where{States: survey.Only(spool.Building)})[0]
	b, _ := s.view.Running(f)
	w, err := http.Get(server.URL + buildAt(b) + "/events?at=0")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Body.Close()
	if got := w.Header.Get("X-Accel-Buffering"); got != "no" {
		t.Errorf("X-Accel-Buffering: %q", got)
	}
	text := make(chan string)
	go func() {
		defer close(text)
		buf := make([]byte, 64<<10)
		for {
			n, err := w.Body.Read(buf)
			text <- string(buf[:n])
			if err != nil {
				return
			}
		}
	}()
	got := ""
	until := func(want string) {
		t.Helper()
		for !strings.Contains(got, want) {
			select {
			case some, ok := <-text:
				if !ok {
					t.Fatalf("it ended without %q: %q", want, got)
				}
				got += some
			case <-time.After(20 * time.Second):
				t.Fatalf("%q was not sent: %q", want, got)
			}
		}
	}
	until("Build-Time")
	log, err := os.OpenFile(tree.Path(f.Dir(), buildlog.LogFile), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(log, "one more\x1b[2J line\nand a part")
	until(`one more\\x1b[2J line"]`)
	if strings.Contains(got, "and a part") {
		t.Error("a line that is not complete was sent")
	}
	log.Close()
	to := spool.In(spool.BuildAttempted, f.Place.Suite, f.Arch())
	if err := os.MkdirAll(tree.Path(to.Dir()), 0o775); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tree.Path(f.Dir()), tree.Path(to.Dir(), f.Name.String())); err != nil {
		t.Fatal(err)
	}
	until("event: end")
}

// Pages are whole while the tree moves under them.
func TestTreeMoves(t *testing.T) {
	tree := newTree(t, viewtest.Size{Packages: 15, Archs: viewtest.Archs[:2]})
	_, server := serve(t, tree)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan bool)
	go func() {
		defer close(done)
		for i := 0; ctx.Err() == nil; i++ {
			from, to := spool.In(spool.Installed, viewtest.Suite, "amd64"), spool.In(spool.NeedsBuild, viewtest.Suite, "amd64")
			found, _ := tree.Find("", from.State, to.State)
			for _, f := range found {
				other := to
				if f.Place.State == to.State {
					other = from.Of(f.Name.Source)
				}
				if os.MkdirAll(tree.Path(other.Dir()), 0o775) == nil {
					os.Rename(tree.Path(f.Dir()), tree.Path(other.Dir(), f.Name.String()))
				}
			}
		}
	}()
	for range 10 {
		for _, at := range []string{"/", "/list", "/suite/sid/amd64", "/package/" + viewtest.Name(3), "/statistics"} {
			w, body := get(t, server.URL+at)
			if w.StatusCode != http.StatusOK && !(w.StatusCode == http.StatusNotFound && strings.HasPrefix(at, "/package")) {
				t.Fatalf("%s: %s: %s", at, w.Status, body)
			}
		}
	}
	stop()
	<-done
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o664); err != nil {
		t.Fatal(err)
	}
}

// BenchmarkStart asks for the first page of a tree of a distribution's size: cold is
// made anew each time, warm is what others find who ask for it within the same change.
func BenchmarkStart(b *testing.B) {
	tree := newTree(b, viewtest.Size{Packages: 38_000, Archs: viewtest.Archs, Bare: true})
	s, _ := serve(b, tree)
	handler := s.Handler()
	ask := func(b *testing.B) {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		if w.Code != http.StatusOK {
			b.Fatal(w.Code)
		}
	}
	b.Run("cold", func(b *testing.B) {
		for b.Loop() {
			s.kept.put(key(httptest.NewRequest(http.MethodGet, "/", nil)), &answer{})
			ask(b)
		}
	})
	b.Run("warm", func(b *testing.B) {
		for b.Loop() {
			ask(b)
		}
	})
}

// Addresses of people are shown when the settings say so, and not before.
func TestAddresses(t *testing.T) {
	tree := newTree(t, viewtest.Size{Packages: 2, Archs: viewtest.Archs[:1]})
	_, server := serve(t, tree)
	at := server.URL + "/package/" + viewtest.Name(0)
	for _, form := range []string{"", ".json"} {
		if _, body := get(t, at+form); bytes.Contains(body, []byte("ada@")) || !bytes.Contains(body, []byte("Ada Example")) {
			t.Errorf("got %s", body)
		}
	}
	write(t, tree.Path("control", "general"), "Show-Addresses: yes\n")
	for deadline := time.Now().Add(20 * time.Second); ; {
		if _, body := get(t, at); bytes.Contains(body, []byte("ada@example.org")) {
			return
		} else if time.Now().After(deadline) {
			t.Fatalf("got %s", body)
		}
	}
}

// What fails and did not before is said so: on the pages of the package, of the architecture and of the build.
func TestNewlyBroken(t *testing.T) {
	tree := newTree(t, viewtest.Size{Packages: 240, Archs: viewtest.Archs[:1]})
	s, server := serve(t, tree)
	seen, lastGood := map[bool]int{}, 0
	for _, f := range s.view.Items(view.Where{States: survey.Only(spool.BuildAttempted), Arch: "amd64"}) {
		is := false
		for _, other := range s.view.Package(f.Name.Source) {
			is = is || other.Arch() == "amd64" && other.Place.State == spool.Installed
		}
		seen[is]++
		b := s.view.BuildsOf(f.Name.Source)
		i := slices.IndexFunc(b, func(b buildlog.Build) bool { return b.Arch == "amd64" && b.Version == f.Name.Version })
		var x Build
		if _, body := get(t, server.URL+buildAt(b[i])+".json"); json.Unmarshal(body, &x) != nil {
			t.Fatalf("got %s", body)
		}
		if g := x.LastGood; g != nil {
			if lastGood++; g.Outcome != buildlog.Good || g.Arch != "amd64" || !g.Start.Before(x.Start) {
				t.Errorf("%s: the last good build is %+v", x.ID(), g)
			}
		}
		for _, at := range []string{packageAt(f.Name.Source), buildAt(b[i])} {
			_, body := get(t, server.URL+at+".json")
			if got := strings.Contains(string(body), `"0.9-1"`) && strings.Contains(string(body), `"was_good":`); got != is {
				t.Errorf("%s: newly broken: got %t, want %t", at, got, is)
			}
		}
	}
	if lastGood == 0 {
		t.Error("no page of a failed build leads to the last good one")
	}
	if seen[true] == 0 || seen[false] == 0 {
		t.Fatal("nothing to look at", seen)
	}
	if _, body := get(t, server.URL+"/suite/sid.json"); !strings.Contains(string(body),
		fmt.Sprintf(`"newly_broken_items":%d`, seen[true])) {
		t.Errorf("the suite's page does not count %d: %s", seen[true], body)
	}
	if _, body := get(t, server.URL+"/suite/sid/amd64"); !strings.Contains(string(body), fmt.Sprintf("%d newly broken",
		seen[true])) {
		t.Errorf("the architecture's page does not count %d: %s", seen[true], body)
	}
}

// The builders' page says what each builds, how its builds ended, and how busy it was: of one that does not run, too.
func TestBuildersPage(t *testing.T) {
	tree := newTree(t, viewtest.Size{Packages: 20, Archs: viewtest.Archs[:2], Building: 2})
	post, err := builders.Enter(tree.Path(spool.BuildersDir), builders.Entry{Daemon: "buildd-amd64/one", Builder: "one",
		Archs: []string{"amd64"}, Since: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(post.Leave)
	s, server := serve(t, tree)
	for deadline := time.Now().Add(20 * time.Second); len(s.view.Works()) < 2; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the record of builds is not read")
		}
	}
	var x Builders
	if _, body := get(t, server.URL+"/builders.json"); json.Unmarshal(body, &x) != nil || len(x.Works) < 2 {
		t.Fatalf("got %s", body)
	}
	built, failed, since := 0, 0, time.Now().UTC().AddDate(0, 0, -30).Format("2006-01-02")
	for _, d := range s.view.Days() {
		if d.Arch == "amd64" && d.Date >= since {
			built, failed = built+d.Built, failed+d.Failed
		}
	}
	w := x.Works[0]
	if w.Builder != "buildd-amd64/one" || w.Built != built || w.Failed != failed ||
		built == 0 || w.Load <= 0 || w.Last == nil {
		t.Errorf("got %+v, want %d built, %d failed", w, built, failed)
	}
	_, body := get(t, server.URL+"/builders")
	for _, want := range []string{"takes jobs of amd64", "does not run", `href="` + buildAt(*w.Last) + `"`} {
		if !strings.Contains(string(body), want) {
			t.Errorf("the page does not say %q", want)
		}
	}
}

// Of what waits or failed the colour of its age tells how long; what has reached its end has none.
func TestAges(t *testing.T) {
	day := 24 * time.Hour
	for _, c := range []struct {
		state string
		ago   time.Duration
		want  string
	}{{"needs-build", time.Hour, "age fresh"}, {"needs-build", 2 * day, ""}, {"build-attempted", 8 * day, "age old"},
		{"review", 22 * day, "age stale"}, {"dep-wait", 21*day - time.Hour, "age old"}, {"installed", 90 * day, ""},
		{"not-for-us", 90 * day, ""}, {"rejected", time.Hour, ""}, {"attic", 90 * day, ""}} {
		got := string(since(c.state, time.Now().Add(-c.ago)))
		_, class, ok := strings.Cut(got, `class="`)
		if class, _, _ = strings.Cut(class, `"`); class != c.want || ok != (c.want != "") {
			t.Errorf("%s for %v: got %s, want the class %q", c.state, c.ago, got, c.want)
		}
	}
}
