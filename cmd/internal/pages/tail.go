package pages

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"packmill/internal/clean"
	"packmill/internal/regular"
	"packmill/queue/buildlog"
	"packmill/queue/logs"
	"packmill/spool"
)

// tails are the logs that somebody follows.
type tails struct {
	mu   sync.Mutex
	open map[string]*tail // by the build's address
}

// tail is the end of a log. It is read once, and written as events once, for all who follow it.
type tail struct {
	build   *logs.Log
	readers int // guarded by the lock of tails
	stop    context.CancelFunc

	mu     sync.Mutex
	log    *os.File // nil: there is none yet
	at     int64    // how far it was read
	chunks []chunk  // the newest, in order
	over   bool     // the build has ended, and all was read
	news   chan struct{}
}

// chunk is lines of a log as an event.
type chunk struct {
	from, to int64 // bytes
	event    []byte
}

// Bounds of what is kept of a tail. Who is further behind reads by himself.
const (
	chunksKept = 16
	lineWithin = 64 << 10 // before the end, where the last line begins
)

// tailOf joins those who follow a log; leave ends that.
func (s *Site) tailOf(l *logs.Log) (t *tail, leave func()) {
	key := buildAt(l.Build)
	s.tails.mu.Lock()
	defer s.tails.mu.Unlock()
	if t = s.tails.open[key]; t == nil {
		ctx, stop := context.WithCancel(context.Background())
		t = &tail{build: l, stop: stop, news: make(chan struct{})}
		if t.find(); t.log != nil {
			t.at = lastLine(t.log)
		}
		s.tails.open[key] = t
		go t.run(ctx, func() bool { return s.runs(l) })
	}
	t.readers++
	return t, func() {
		s.tails.mu.Lock()
		defer s.tails.mu.Unlock()
		if t.readers--; t.readers == 0 {
			t.stop()
			delete(s.tails.open, key)
		}
	}
}

// find opens the log, if it is there.
func (t *tail) find() {
	if t.log == nil && t.build.Path != "" && !strings.HasSuffix(t.build.Path, buildlog.Suffix) {
		if f, err := regular.Open(t.build.Path); err == nil {
			t.log = f
		}
	}
}

// lastLine is where the last line begins that is not complete, or else the end.
func lastLine(log *os.File) int64 {
	info, err := log.Stat()
	if err != nil {
		return 0
	}
	from := max(0, info.Size()-lineWithin)
	end, err := io.ReadAll(io.NewSectionReader(log, from, info.Size()-from))
	if err != nil {
		return info.Size()
	}
	return from + int64(bytes.LastIndexByte(end, '\n')+1)
}

// run reads what is written, until the build has ended or nobody follows it any more.
func (t *tail) run(ctx context.Context, runs func() bool) {
	defer func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.log != nil {
			t.log.Close()
		}
	}()
	asked, goesOn := time.Now(), t.build.Outcome == buildlog.Running
	for {
		if goesOn && time.Since(asked) >= askEvery {
			asked, goesOn = time.Now(), runs() // asked before the log is read
		}
		t.read(!goesOn)
		if !goesOn {
			<-ctx.Done() // the log stays open for those who are behind
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(tailEvery):
		}
	}
}

// read takes what was written since, in whole lines; at the end also what is left.
func (t *tail) read(over bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.find()
	before := t.at
	for t.log != nil {
		info, err := t.log.Stat()
		if err != nil {
			break
		}
		if t.at > info.Size() {
			t.at = info.Size()
		}
		data := some(t.log, t.at, info.Size(), over)
		if len(data) == 0 {
			break
		}
		c := chunk{from: t.at, to: t.at + int64(len(data)), event: linesEvent(data, t.at+int64(len(data)))}
		if t.chunks, t.at = append(t.chunks, c), c.to; len(t.chunks) > chunksKept {
			t.chunks = append([]chunk(nil), t.chunks[len(t.chunks)-chunksKept/2:]...)
		}
	}
	if t.over = over; over || t.at != before {
		close(t.news)
		t.news = make(chan struct{})
	}
}

// some reads lines between two places, not too many at once. A line that is longer than what is read at once
// comes in parts; one that is not complete comes if the end is the last.
func some(log io.ReaderAt, at, end int64, last bool) []byte {
	buf := make([]byte, max(0, min(readAtOnce, end-at)))
	n, err := log.ReadAt(buf, at)
	if err != nil && err != io.EOF {
		return nil
	}
	data := buf[:n]
	if i := bytes.LastIndexByte(data, '\n'); i >= 0 && (!last || at+int64(n) < end) {
		return data[:i+1]
	} else if i < 0 && !last && n < readAtOnce {
		return nil
	}
	return data
}

// next is what follows a place of the log, and where that ends. Where nothing does, news is closed when there is
// more, and over says that there will be none. A place that the log has not is its end.
func (t *tail) next(at int64) (event []byte, to int64, over bool, news <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if at < 0 || at > t.at && !t.has(at) {
		at = t.at
	}
	until := max(at, t.at) // who has read the log's page may be ahead
	for i := len(t.chunks) - 1; i >= 0 && t.chunks[i].from >= at; i-- {
		if until = t.chunks[i].from; until == at {
			return t.chunks[i].event, t.chunks[i].to, false, nil
		}
	}
	if t.log != nil {
		if data := some(t.log, at, until, true); len(data) > 0 {
			to = at + int64(len(data))
			return linesEvent(data, to), to, false, nil
		}
	}
	return nil, at, t.over, t.news
}

// has reports whether the log has as many bytes. The lock is held.
func (t *tail) has(bytes int64) bool {
	if t.log == nil {
		return false
	}
	info, err := t.log.Stat()
	return err == nil && bytes <= info.Size()
}

// follow sends the lines of a log as they are written: "lines" with a list of texts,
// whose id is where they end, and "end". The query's at, or the last id, says where to
// go on; without one it begins at the end.
func (s *Site) follow(w http.ResponseWriter, r *http.Request) {
	l, err := s.theBuild(r)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	at, err := strconv.ParseInt(cmp.Or(r.Header.Get("Last-Event-ID"), r.URL.Query().Get("at")), 10, 64)
	if err != nil {
		at, err = -1, nil
	}
	st, ok := s.stream(w, r)
	if !ok {
		return
	}
	defer st.end()
	t, leave := s.tailOf(l)
	defer leave()
	beat := time.NewTicker(beatEvery)
	defer beat.Stop()
	for err == nil {
		event, to, over, news := t.next(at)
		at = to
		switch {
		case event != nil:
			err = st.send(event)
			continue
		case over:
			st.say("event: end\ndata: %s\n\n", "the build has ended")
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-news:
		case <-beat.C:
			err = st.say(": still here\n\n")
		}
	}
}

// runs reports whether a build goes on.
func (s *Site) runs(l *logs.Log) bool {
	for _, f := range s.view.Package(l.Source) {
		if f.Place.State == spool.Building && f.Place.Suite == l.Suite && f.Arch() == l.Arch {
			if b, ok := s.view.Running(f); ok && b.Start.Equal(l.Start) {
				return true // others are of older versions, which go on, too
			}
		}
	}
	return false
}

// linesEvent is lines as an event: a list of JSON, each line escaped and cut, with the place where they end.
func linesEvent(data []byte, end int64) []byte {
	var out []string
	for l := range bytes.Lines(data) {
		l = bytes.TrimRight(l, "\n")
		out = append(out, (&logLine{l[:min(len(l), longestLine)], len(l)}).String())
	}
	list, err := json.Marshal(out)
	if err != nil {
		list = []byte("[]")
	}
	return fmt.Appendf(nil, "id: %d\nevent: lines\ndata: %s\n\n", end, clean.JSON(list))
}
