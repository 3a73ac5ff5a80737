package pages

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"time"

	"packmill/cmd/internal/view"
	"packmill/internal/clean"
	"packmill/internal/regular"
	"packmill/queue/buildlog"
	"packmill/queue/logs"
)

// Build is one build, with a part of its log.
type Build struct {
	buildlog.Build
	Lines    int       `json:"lines"`          // of the log
	From     int       `json:"from"`           // number of the first line here, from 1
	Text     []string  `json:"text"`           // the lines, escaped
	Sections []Section `json:"sections"`       // of the whole log
	Gone     bool      `json:"gone,omitempty"` // the log was old enough to be removed
	Estimate float64   `json:"estimate_s,omitempty"`
	WasGood  string    `json:"was_good,omitempty"` // of one that failed: the version before that was built

	LastGood *buildlog.Build `json:"last_good,omitempty"` // of one that was not built: the newest before that was

	Outputs []Output `json:"outputs,omitempty"` // of one that was built: what it made
	Again   []string `json:"again,omitempty"`   // commands that build the same once more

	Parts          []part           `json:"-"`
	At             string           `json:"-"`
	ErrorAt        string           `json:"-"`
	Earlier, Later string           `json:"-"`
	End            int64            `json:"-"` // bytes that were read
	Next           int              `json:"-"`
	Runs           bool             `json:"-"`
	Others         []buildlog.Build `json:"-"`
}

// Section is a part of a log that sbuild gave a headline.
type Section struct {
	Name string `json:"name"`
	Line int    `json:"line"`
	At   string `json:"-"`
}

// part is lines below one headline.
type part struct {
	Name  string
	N     int // of its headline
	Open  bool
	Lines []line
}

type line struct {
	N     int
	Text  string
	Error bool
}

// Bounds of what is shown of a log.
const (
	linesShown  = 2000 // on one page
	longestLine = 4 << 10
	maxSections = 100
	readAtOnce  = 32 << 10
	tailEvery   = 300 * time.Millisecond
	askEvery    = 2 * time.Second // whether the build goes on
)

// routes are the addresses of logs that are no pages.
func (s *Site) routes() {
	s.mux.HandleFunc("GET /build/{suite}/{arch}/{id}/{start}/events", s.follow)
	s.Handle("GET /build/{suite}/{arch}/{id}/{start}/log", http.HandlerFunc(s.raw))
	s.Handle("GET /build/{suite}/{arch}/{id}/{start}/log.zst", http.HandlerFunc(s.raw))
	s.Handle("GET /search/logs", http.HandlerFunc(s.grep))
}

// theBuild finds the build that an address names.
func (s *Site) theBuild(r *http.Request) (*logs.Log, error) {
	source, version, ok := strings.Cut(r.PathValue("id"), "_")
	at, err := time.Parse(startForm, r.PathValue("start"))
	if !ok || err != nil {
		return nil, wrong("the address names no build: it ends in SUITE/ARCH/SOURCE_VERSION/TIME")
	}
	l, err := s.view.Log(buildlog.Build{Source: source, Version: version, Suite: r.PathValue("suite"),
		Arch: r.PathValue("arch"), Start: at})
	if errors.Is(err, view.ErrNoBuild) {
		return nil, notHere("there is no such build of %s (any more)", source)
	}
	return l, err
}

func (s *Site) build(r *http.Request) (*sheet, error) {
	l, err := s.theBuild(r)
	if err != nil {
		return nil, err
	}
	x := &Build{Build: l.Build, At: buildAt(l.Build), Runs: l.Outcome == buildlog.Running}
	if took, _ := s.view.Takes(l.Source, l.Suite, l.Arch); x.Runs && took > 0 {
		x.Estimate = took.Seconds()
	}
	if logs.EndingOf(x.Outcome) == logs.Failed {
		x.WasGood = s.view.WasGood(x.Source, x.Version, x.Suite, x.Arch)
	}
	if f, t := s.jobOf(&x.Build); t != nil {
		if x.Outcome == buildlog.Good {
			x.Outputs = s.outputs(f, t)
		}
		x.Again = s.again(&x.Build, f, t)
	}
	from := number(r.URL.Query().Get("from"))
	if err := x.readLog(r.Context(), l.Path, from); err != nil {
		return nil, err
	}
	x.fold()
	if x.Error != nil {
		x.ErrorAt = x.lineAt(x.Error.Line)
	}
	for i := range x.Sections {
		x.Sections[i].At = x.lineAt(x.Sections[i].Line)
	}
	page := func(n int) string { return fmt.Sprintf("%s?from=%d", x.At, n) }
	if x.From > 1 {
		x.Earlier = page(max(1, x.From-linesShown))
	}
	if x.From+len(x.Text)-1 < x.Lines {
		x.Later = page(x.From + linesShown)
	}
	for _, b := range s.view.BuildsOf(x.Source) { // the newest first
		if x.Outcome != buildlog.Good && x.LastGood == nil && b.Outcome == buildlog.Good && b.Suite == x.Suite &&
			b.Arch == x.Arch && b.Start.Before(x.Start) {
			x.LastGood = &b
		}
		if (b.Arch != x.Arch || b.Start != x.Start) && len(x.Others) < 20 {
			x.Others = append(x.Others, b)
		}
	}
	return &sheet{Title: fmt.Sprintf("%s on %s: %s", x.ID(), x.Arch, x.Outcome), Query: x.Source, Data: x,
		Commands: []string{fmt.Sprintf("packmill log -s %s %s %s", x.Suite, x.ID(), x.Arch)}}, nil
}

// lineAt is the address of a line: on this page, or on the one that has it.
func (x *Build) lineAt(n int) string {
	if n >= x.From && n < x.From+len(x.Text) {
		return fmt.Sprintf("#L%d", n)
	}
	return fmt.Sprintf("%s?from=%d#L%d", x.At, max(1, n-20), n)
}

// readLog reads the part of the log that begins with a line, or with 0 its end.
func (x *Build) readLog(ctx context.Context, path string, from int) error {
	if path == "" {
		x.Gone = true
		return nil
	}
	log, err := buildlog.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		x.Gone = !x.Runs
		x.From, x.Next = 1, 1
		return nil
	}
	if err != nil {
		return err
	}
	defer log.Close()
	r := &logReader{from: from}
	x.End, err = io.Copy(r, io.LimitReader(while{ctx, log}, 4<<30))
	x.Text = r.finish(!x.Runs)
	x.End -= int64(r.rest)
	x.Lines, x.Sections, x.Next = r.n, r.sections, r.n+1
	x.From = max(1, from)
	if from <= 0 {
		x.From = r.n - len(x.Text) + 1
	}
	return err
}

// while reads for as long as a context lasts.
type while struct {
	ctx context.Context
	io.Reader
}

func (w while) Read(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.Reader.Read(p)
}

// logReader takes a log apart as it comes, in bounded memory.
type logReader struct {
	from     int       // number of the first line that is kept; 0: the last lines are
	kept     []logLine // of the last lines, a ring
	n        int       // lines so far
	line     []byte    // that is not complete
	rest     int       // bytes of it
	bar      bool      // the line before was a bar
	sections []Section
}

// logLine is the beginning of a line, as it is, and how many bytes it had.
type logLine struct {
	text []byte
	all  int
}

func (l *logLine) String() string {
	text := string(clean.Escape(nil, l.text))
	if more := l.all - len(l.text); more > 0 {
		text += fmt.Sprintf(" … and %d bytes more in this line", more)
	}
	return text
}

func (r *logReader) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			r.take(rest)
			break
		}
		r.take(rest[:i])
		r.end()
		rest = rest[i+1:]
	}
	return len(p), nil
}

// take keeps what is shown of a line.
func (r *logReader) take(part []byte) {
	r.rest += len(part)
	r.line = append(r.line, part[:min(len(part), max(0, longestLine-len(r.line)))]...)
}

func (r *logReader) end() {
	r.n++
	bar := len(r.line) > 20 && r.line[0] == '+' && len(bytes.Trim(r.line, "+-\r")) == 0
	if name, ok := bytes.CutPrefix(r.line, []byte("| ")); ok && r.bar && len(r.sections) < maxSections {
		r.sections = append(r.sections, Section{Name: clean.Line(strings.TrimRight(string(name), " |\r")), Line: r.n})
	}
	r.bar = bar
	switch {
	case r.from > 0 && (r.n < r.from || r.n >= r.from+linesShown):
	case len(r.kept) < linesShown:
		r.kept = append(r.kept, logLine{bytes.Clone(r.line), r.rest})
	default:
		oldest := &r.kept[(r.n-1)%linesShown]
		oldest.text, oldest.all = append(oldest.text[:0], r.line...), r.rest
	}
	r.line, r.rest = r.line[:0], 0
}

// finish ends the log and gives the lines that are kept: of one that is still written, a
// line that is not complete stays for later.
func (r *logReader) finish(whole bool) []string {
	if whole && r.rest > 0 {
		r.end()
	}
	first := 0
	if r.from <= 0 && r.n > linesShown {
		first = r.n % linesShown
	}
	out := make([]string, 0, len(r.kept))
	for _, l := range append(r.kept[first:], r.kept[:first]...) {
		out = append(out, l.String())
	}
	return out
}

// fold puts the lines below their headlines: that with the first error is open, and the
// last one, and those of a short log.
func (x *Build) fold() {
	starts, bars := map[int]string{}, map[int]bool{}
	for _, s := range x.Sections {
		starts[s.Line] = s.Name
		bars[s.Line-1], bars[s.Line+1] = true, true // they only frame the headline
	}
	parts := []part{{}}
	for i, text := range x.Text {
		n := x.From + i
		if name, ok := starts[n]; ok {
			parts = append(parts, part{Name: name, N: n})
		}
		if bars[n] || starts[n] != "" {
			continue
		}
		last := &parts[len(parts)-1]
		bad := x.Error != nil && x.Error.Line == n
		last.Lines = append(last.Lines, line{n, text, bad})
		last.Open = last.Open || bad
	}
	for i := range parts {
		p := &parts[i]
		p.Open = p.Open || p.Name == "" || i >= len(parts)-2 || strings.HasPrefix(p.Name, "Build") && x.Error == nil
		if len(p.Lines) > 0 {
			x.Parts = append(x.Parts, *p)
		}
	}
}

// raw sends a log as it is: plain, or packed as it lies in the store.
func (s *Site) raw(w http.ResponseWriter, r *http.Request) {
	l, err := s.theBuild(r)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	packed := strings.HasSuffix(r.URL.Path, ".zst")
	if l.Path == "" || packed && !strings.HasSuffix(l.Path, buildlog.Suffix) {
		s.refuse(w, r, notHere("there is no such log (any more)"))
		return
	}
	who := s.clients.of(r)
	if !who.enter(aWhole) {
		s.refuse(w, r, errBusy)
		return
	}
	defer who.leave(aWhole)
	if !s.whole.TryAcquire(1) {
		s.refuse(w, r, errBusy)
		return
	}
	defer s.whole.Release(1)
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(10 * time.Minute))
	name := l.Source + "_" + l.Version + "_" + l.Arch + ".log"
	h := w.Header()
	h.Set("Cache-Control", "no-cache")
	if packed {
		f, err := regular.Open(l.Path)
		if err != nil {
			s.refuse(w, r, notHere("there is no such log (any more)"))
			return
		}
		defer f.Close()
		h.Set("Content-Type", "application/zstd")
		h.Set("Content-Disposition", `attachment; filename="`+name+`.zst"`)
		http.ServeContent(w, r, "", l.Start, f)
		return
	}
	log, err := buildlog.Open(l.Path)
	if err != nil {
		s.refuse(w, r, notHere("there is no such log (any more)"))
		return
	}
	defer log.Close()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Disposition", `inline; filename="`+name+`"`)
	if r.Method != http.MethodHead {
		io.Copy(w, log)
	}
}
