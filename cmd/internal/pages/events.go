package pages

import (
	"fmt"
	"net/http"
	"time"

	"packmill/cmd/internal/view"
)

const (
	streamType = "text/event-stream"
	beatEvery  = 20 * time.Second       // proxies close what is silent for a minute
	calm       = 500 * time.Millisecond // between two events of one stream
)

// stream is a response that goes on: server-sent events.
type stream struct {
	w   http.ResponseWriter
	rc  *http.ResponseController
	end func()
}

// stream begins one. Where too many are open it answers that, and ok is false; so it is where only
// the head is asked for, which ends.
func (s *Site) stream(w http.ResponseWriter, r *http.Request) (st *stream, ok bool) {
	if r.Method == http.MethodHead {
		w.Header().Set("Content-Type", streamType)
		return nil, false
	}
	who := s.clients.of(r)
	if !who.enter(aStream) {
		w.Header().Set("Retry-After", "30")
		http.Error(w, "you listen often enough already", http.StatusTooManyRequests)
		return nil, false
	}
	if !s.streams.TryAcquire(1) {
		who.leave(aStream)
		w.Header().Set("Retry-After", "30")
		http.Error(w, "too many listen already", http.StatusServiceUnavailable)
		return nil, false
	}
	st = &stream{w, http.NewResponseController(w), func() { s.streams.Release(1); who.leave(aStream) }}
	// A stream is not cut off by the time that an answer may take.
	if err := st.rc.SetWriteDeadline(time.Time{}); err != nil {
		s.log.Debug("stream", "err", err)
	}
	h := w.Header()
	h.Set("Content-Type", streamType)
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Accel-Buffering", "no") // nginx would keep it
	w.WriteHeader(http.StatusOK)
	if err := st.rc.Flush(); err != nil { // also of a log that is silent for long the stream is open now
		s.log.Debug("stream", "err", err)
	}
	return st, true
}

// say sends one event; an error says that nobody listens any more.
func (st *stream) say(format string, args ...any) error {
	return st.send(fmt.Appendf(nil, format, args...))
}

func (st *stream) send(event []byte) error {
	st.rc.SetWriteDeadline(time.Now().Add(30 * time.Second)) // one who does not read is let go
	if _, err := st.w.Write(event); err != nil {
		return err
	}
	return st.rc.Flush()
}

// events tells of changes: "change" with the view's number. The query says of which:
// source, suite, arch.
func (s *Site) events(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	source, suite, arch := q.Get("source"), q.Get("suite"), q.Get("arch")
	sub := s.view.Subscribe(func(t view.Touched) bool {
		fits := func(want, is string) bool { return want == "" || want == is }
		return fits(source, t.Source) && fits(suite, t.Suite) && fits(arch, t.Arch)
	})
	defer sub.Close()
	st, ok := s.stream(w, r)
	if !ok {
		return
	}
	defer st.end()
	if st.say("retry: 3000\nevent: now\ndata: %d\n\n", s.view.Now().Number) != nil {
		return
	}
	beat := time.NewTicker(beatEvery)
	defer beat.Stop()
	for {
		var err error
		select {
		case <-r.Context().Done():
			return
		case <-beat.C:
			err = st.say(": still here\n\n")
		case <-sub.Changed():
			n := s.view.Now().Number
			if err = st.say("id: %d\nevent: change\ndata: %d\n\n", n, n); err == nil {
				select {
				case <-r.Context().Done():
					return
				case <-time.After(calm):
				}
			}
		}
		if err != nil {
			return
		}
	}
}
