package pages

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"packmill/cmd/internal/survey"
	"packmill/cmd/internal/view"
	"packmill/cmd/internal/view/viewtest"
	"packmill/queue"
	"packmill/queue/buildlog"
	"packmill/queue/logs"
	"packmill/spool"
)

// The head of what goes on for ever ends: the connection is somebody else's next.
func TestHead(t *testing.T) {
	s, server := serve(t, newTree(t, viewtest.Size{Packages: 3, Archs: viewtest.Archs[:1], Building: 1}))
	b, _ := s.view.Running(s.view.Items(view.Where{States: survey.Only(spool.Building)})[0])
	for _, at := range []string{"/events", buildAt(b) + "/events", buildAt(b) + "/log"} {
		ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
		r, err := http.NewRequestWithContext(ctx, http.MethodHead, server.URL+at, nil)
		if err != nil {
			t.Fatal(err)
		}
		w, err := http.DefaultClient.Do(r)
		if err != nil || w.StatusCode != http.StatusOK {
			t.Fatalf("%s: %v, %v", at, w, err)
		}
		w.Body.Close()
		// The same connection answers the next one.
		if w, _ := get(t, server.URL+"/schema"); w.StatusCode != http.StatusOK {
			t.Errorf("after %s: got %s", at, w.Status)
		}
		stop()
	}
}

// Words that a page does not know make no other page, and only a few pages are made at once.
func TestTurns(t *testing.T) {
	s, server := serve(t, newTree(t, viewtest.Size{Packages: 3, Archs: viewtest.Archs[:1]}))
	one, _ := get(t, server.URL+"/list?state=installed")
	if err := s.light.Acquire(t.Context(), maxLight); err != nil {
		t.Fatal(err)
	}
	if w, body := get(t, server.URL+"/list?from=1"); w.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("out of turn: got %s: %s", w.Status, body)
	}
	s.light.Release(maxLight)
	get(t, server.URL+"/list?state=installed")
	before := len(s.kept.pages)
	for _, i := range []string{"1", "2", "3"} {
		w, body := get(t, server.URL+"/list?state=installed&i="+i+"&state=built")
		if w.StatusCode != one.StatusCode || strings.Contains(string(body), "i="+i) {
			t.Errorf("i=%s: got %s: %s", i, w.Status, body)
		}
	}
	if got := len(s.kept.pages); got != before {
		t.Errorf("kept: got %d pages, want %d", got, before)
	}
}

// A log is not read for longer than somebody waits for it.
func TestLogGivenUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	write(t, path, "a line\n")
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := (&Build{}).readLog(ctx, path, 0); err != context.Canceled {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}

// Builds of two versions run side by side, and neither ends the other's page.
func TestRunsBeside(t *testing.T) {
	tree := newTree(t, viewtest.Size{Packages: 3, Archs: viewtest.Archs[:1]})
	base := time.Now().UTC().Add(-time.Hour).Truncate(time.Microsecond)
	for i, version := range []string{"1-1", "1-2"} {
		p := spool.In(spool.Building, viewtest.Suite, "amd64")
		dir := tree.Path(p.Dir(), spool.NewName(spool.NormalClass, base.Add(time.Duration(i)*time.Minute), "beside",
			version).String())
		makeDir(t, dir)
		tk := queue.Ticket{Source: "beside", Version: version, Suite: viewtest.Suite, BuildArch: "amd64"}
		write(t, filepath.Join(dir, spool.TicketFile), string(tk.Stanza().Append(nil)))
		at := base.Add(time.Duration(10+i) * time.Minute).Format(time.RFC3339Nano)
		write(t, filepath.Join(dir, spool.HistoryFile), at+"\t"+spool.In(spool.NeedsBuild, viewtest.Suite, "amd64").Dir()+
			"\t"+p.Dir()+"\tbuildd\ttaken\n")
	}
	s, _ := serve(t, tree)
	found := s.view.Package("beside")
	if len(found) != 2 {
		t.Fatal(found)
	}
	for _, f := range found {
		b, ok := s.view.Running(f)
		if !ok || !s.runs(&logs.Log{Build: b}) {
			t.Errorf("%s: it runs, got %v", f.Name, b)
		}
		b.Start = b.Start.Add(-time.Second)
		if s.runs(&logs.Log{Build: b}) {
			t.Errorf("%s: a build that never began runs", f.Name)
		}
	}
}

// linesIn are the lines that an event has.
func linesIn(t *testing.T, event []byte) (lines []string) {
	t.Helper()
	_, data, _ := strings.Cut(string(event), "\ndata: ")
	if err := json.Unmarshal([]byte(data), &lines); err != nil {
		t.Fatalf("%v: %q", err, event)
	}
	return lines
}

// A line that is longer than what is read at once comes in parts, and one that is not complete at the end.
func TestTailInParts(t *testing.T) {
	path := filepath.Join(t.TempDir(), buildlog.LogFile)
	long := strings.Repeat("x", readAtOnce+10)
	write(t, path, "one\n"+long+"\ntwo\npart")
	tl := &tail{build: &logs.Log{Path: path}, news: make(chan struct{})}
	tl.read(false)
	at, n := int64(0), 0
	for {
		event, to, _, _ := tl.next(at)
		if at = to; event == nil {
			break
		}
		n += len(linesIn(t, event))
	}
	if want := int64(4 + len(long) + 1 + 4); at != want || n != 4 {
		t.Errorf("it ended at %d with %d lines, want %d, before the part of a line, with 4", at, n, want)
	}
	tl.read(true)
	if event, _, _, _ := tl.next(at); !slices.Equal(linesIn(t, event), []string{"part"}) {
		t.Errorf("the end: %q", event)
	}
}

// Whoever follows a log, from whatever line on and however far behind, has every line once and in order: of what
// is shared, and of what he reads by himself.
func TestTailsAgree(t *testing.T) {
	chance := rand.New(rand.NewPCG(5, 6))
	path := filepath.Join(t.TempDir(), buildlog.LogFile)
	write(t, path, "begun\n")
	log, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	text := "begun\n"
	tl := &tail{build: &logs.Log{Path: path}, news: make(chan struct{})}
	type reader struct {
		from, at int64
		got      []string
	}
	var readers []*reader
	step := func(x *reader) (over, more bool) {
		event, to, over, _ := tl.next(x.at)
		if x.at = to; event != nil {
			x.got = append(x.got, linesIn(t, event)...)
		}
		return over, event != nil
	}
	for i := range 3000 {
		switch chance.IntN(4) {
		case 0: // a build writes lines, and parts of them
			some := fmt.Sprintf("line %d %s\n", i, strings.Repeat("y", chance.IntN(300)))
			some = some[:len(some)-chance.IntN(2)*min(5, len(some))]
			text += some
			if _, err := log.WriteString(some); err != nil {
				t.Fatal(err)
			}
		case 1:
			tl.read(false)
		case 2:
			if len(readers) < 20 { // who has read the page goes on behind a line of it, which may be newer than the tail
				at := int64(strings.LastIndexByte(text[:chance.IntN(len(text)+1)], '\n') + 1)
				readers = append(readers, &reader{from: at, at: at})
			}
		default:
			if len(readers) > 0 {
				step(readers[chance.IntN(len(readers))])
			}
		}
	}
	tl.read(true)
	for _, x := range readers {
		for over, more := false, true; !over || more; {
			over, more = step(x)
		}
		if got, want := strings.Join(x.got, "\n"), strings.TrimSuffix(text[x.from:], "\n"); got != want {
			t.Errorf("from %d: got %d bytes, want %d: %.200q", x.from, len(got), len(want), got)
		}
	}
}

func makeDir(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o775); err != nil {
		t.Fatal(err)
	}
}

// A client is the address that a web server of this machine names, or the one that connects; and each has its
// share, of which others have nothing.
func TestClients(t *testing.T) {
	c := newClients()
	ask := func(remote string, forwarded ...string) *client {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = remote
		r.Header["X-Forwarded-For"] = forwarded
		return c.of(r)
	}
	if got := ask("127.0.0.1:1"); got != nil {
		t.Error("this machine's own programs are limited")
	}
	if got := ask("@", "127.0.0.1"); got != nil {
		t.Error("this machine's own browsers are limited, behind a socket")
	}
	bad := ask("192.0.2.1:1000")
	for what, same := range map[string]*client{
		"another port":       ask("192.0.2.1:1001"),
		"what it says":       ask("192.0.2.1:1001", "198.51.100.7"),
		"a server's word":    ask("127.0.0.1:1", "198.51.100.7, 192.0.2.1"),
		"on a socket":        ask("@", "192.0.2.1"),
		"two headers of it":  ask("[::1]:1", "198.51.100.7", "192.0.2.1"),
		"its mapped address": ask("[::ffff:192.0.2.1]:1"),
	} {
		if same != bad {
			t.Errorf("%s: it is taken for another", what)
		}
	}
	if ask("[2001:db8::1]:1") != ask("[2001:db8::ffff:2]:1") || ask("[2001:db8::1]:1") == ask("[2001:db8:0:1::1]:1") {
		t.Error("a network of IPv6 is not one client")
	}
	for range mostOf[aHeavy] {
		if !bad.enter(aHeavy) {
			t.Fatal("its share is refused")
		}
	}
	if bad.enter(aHeavy) || !ask("192.0.2.2:1").enter(aHeavy) {
		t.Error("a client has more than its share, or another less")
	}
	bad.leave(aHeavy)
	if !bad.enter(aHeavy) {
		t.Error("what was given back is not to be had")
	}
}

// Who asks too often is told so, and others are answered; who listens too often, too.
func TestTooOften(t *testing.T) {
	s, server := serve(t, newTree(t, viewtest.Size{Packages: 3, Archs: viewtest.Archs[:1]}))
	refused := 0
	for range burst + perSecond {
		w, _ := get(t, server.URL+"/static/mark.svg", "X-Forwarded-For", "192.0.2.1")
		if w.StatusCode == http.StatusTooManyRequests {
			refused++
		}
	}
	if refused == 0 {
		t.Error("nobody is refused")
	}
	if w, _ := get(t, server.URL+"/", "X-Forwarded-For", "192.0.2.2"); w.StatusCode != http.StatusOK {
		t.Errorf("another: got %s", w.Status)
	}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr = "192.0.2.3:1"
	s.clients.of(r).has[aStream].Store(mostOf[aStream])
	if w, _ := get(t, server.URL+"/events", "X-Forwarded-For", "192.0.2.3"); w.StatusCode != http.StatusTooManyRequests {
		t.Errorf("one more listener: got %s", w.Status)
	}
}

// Of a log the last lines are kept, in order, however many there are; or those from a number on.
func TestLogParts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	for _, lines := range []int{0, 1, linesShown - 1, linesShown, linesShown + 1, 2*linesShown + 7} {
		var text strings.Builder
		for i := range lines {
			fmt.Fprintln(&text, "line", i+1)
		}
		write(t, path, text.String()+"part")
		for _, from := range []int{0, 1, 5, lines} {
			x := &Build{Runs: true}
			if err := x.readLog(t.Context(), path, from); err != nil {
				t.Fatal(err)
			}
			first := from
			if from == 0 {
				first = max(1, lines-linesShown+1)
			}
			want := min(linesShown, max(0, lines-first+1))
			if x.From != max(1, first) || len(x.Text) != want || x.End != int64(text.Len()) {
				t.Errorf("%d lines from %d: got %d from %d to byte %d, want %d from %d to %d", lines, from, len(x.Text), x.From,
					x.End, want, first, text.Len())
			}
			for i, got := range x.Text {
				if got != fmt.Sprintf("line %d", x.From+i) {
					t.Fatalf("%d lines from %d: line %d is %q", lines, from, x.From+i, got)
				}
			}
		}
	}
}
