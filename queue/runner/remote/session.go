package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/yamux"

	"packmill/spool"
)

// Timing of a session. A peer that hangs is seen after the sum of the first two.
const (
	keepAlive    = 15 * time.Second
	writeTimeout = 40 * time.Second
	answerWithin = 40 * time.Second // for what needs no thought
)

// Pipe is a connection of two pipes.
type Pipe struct {
	io.Reader
	io.Writer
	Shut func() error
}

// Close shuts both pipes: with one of them open yamux waits for ever.
func (p *Pipe) Close() error { return p.Shut() }

// session is one end of a connection: it asks by http, and answers by handler.
type session struct {
	*yamux.Session
	http *http.Client
}

// stream ends its session when that takes no bytes: yamux itself would go on and leave the other
// end waiting.
type stream struct {
	net.Conn
	of *yamux.Session
}

// maxFrame is what is written at once: a slow line takes it within writeTimeout.
const maxFrame = 16 << 10

func (s *stream) Write(p []byte) (n int, err error) {
	for n < len(p) {
		m, err := s.Conn.Write(p[n:min(len(p), n+maxFrame)])
		n += m
		if errors.Is(err, yamux.ErrConnectionWriteTimeout) {
			s.of.Close()
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// listener gives net/http the streams that the other end opens, of which so many may be open at a time as turn holds:
// each has a buffer here. nil: any number.
type listener struct {
	*yamux.Session
	turn chan struct{}
}

// maxStreams is how many requests of a builder the master answers at a time; the others wait.
const maxStreams = 100

func (l listener) Accept() (net.Conn, error) {
	var done func()
	if l.turn != nil {
		select {
		case l.turn <- struct{}{}:
		case <-l.CloseChan():
			return nil, io.EOF
		}
		done = sync.OnceFunc(func() { <-l.turn })
	}
	c, err := l.Session.Accept()
	if err != nil {
		return nil, err // of the session, which is over
	}
	return &accepted{stream{c, l.Session}, done}, nil
}

// accepted is a stream that the other end opened. It is one until both ends have closed it.
type accepted struct {
	stream
	done func() // nil: nobody counts
}

func (a *accepted) Close() error {
	err := a.stream.Close()
	if a.done != nil {
		a.SetReadDeadline(time.Time{})
		go func() {
			io.Copy(io.Discard, a.Conn) // yamux itself ends one that the other end does not close
			a.done()
		}()
	}
	return err
}

// begin makes a session of a connection, which it closes in the end.
func begin(conn io.ReadWriteCloser, master bool, handler http.Handler) (*session, error) {
	c := yamux.DefaultConfig()
	c.KeepAliveInterval, c.ConnectionWriteTimeout, c.AcceptBacklog = keepAlive, writeTimeout, 64
	c.LogOutput = io.Discard
	c.StreamOpenTimeout = 0 // a stream may wait for its turn; keepAlive sees a dead peer
	open := yamux.Client
	if master {
		open = yamux.Server
	}
	y, err := open(conn, c)
	if err != nil {
		conn.Close()
		return nil, err
	}
	var turn chan struct{}
	if master {
		turn = make(chan struct{}, maxStreams)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: answerWithin, MaxHeaderBytes: 16 << 10,
		ErrorLog: log.New(io.Discard, "", 0)}
	go server.Serve(listener{y, turn})
	dial := func(context.Context, string, string) (net.Conn, error) {
		s, err := y.Open()
		if err != nil {
			return nil, err
		}
		return &stream{s, y}, nil
	}
	return &session{y, &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true,
		MaxResponseHeaderBytes: 16 << 10, DisableCompression: true}}}, nil
}

// status is an answer that is no success.
type status struct {
	code int
	text string
}

func (s *status) Error() string { return s.text }

// isStatus reports whether the other end answered so.
func isStatus(err error, code int) bool {
	var s *status
	return errors.As(err, &s) && s.code == code
}

// do asks; the caller closes the body. What is no success is a *status.
func (s *session) do(ctx context.Context, method, path string, body []byte, head ...string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://peer"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	for i := 0; i+1 < len(head); i += 2 {
		r.Header.Set(head[i], head[i+1])
	}
	a, err := s.http.Do(r)
	if err != nil {
		return nil, err
	}
	if a.StatusCode/100 == 2 {
		return a, nil
	}
	defer a.Body.Close()
	text, err := io.ReadAll(io.LimitReader(a.Body, maxText))
	if err != nil {
		return nil, err
	}
	return nil, &status{a.StatusCode, spool.OneLine(string(bytes.TrimSpace(text)))}
}

// ask sends one value and reads another; either may be nil.
func (s *session) ask(ctx context.Context, method, path string, limit int64, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	a, err := s.do(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	if out == nil {
		return nil
	}
	return readJSON(a.Body, limit, out)
}

// soon is ask of what needs no thought.
func (s *session) soon(method, path string, limit int64, in, out any) error {
	ctx, cancel := context.WithTimeout(context.Background(), answerWithin)
	defer cancel()
	return s.ask(ctx, method, path, limit, in, out)
}

func readJSON(r io.Reader, limit int64, out any) error {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return err
	}
	if int64(len(data)) > limit {
		return &status{http.StatusRequestEntityTooLarge, fmt.Sprintf("more than %d bytes", limit)}
	}
	if err := json.Unmarshal(data, out); err != nil {
		return &status{http.StatusBadRequest, err.Error()}
	}
	return nil
}

// answer writes a value, or what is wrong.
func answer(w http.ResponseWriter, value any, err error) {
	var s *status
	switch {
	case errors.As(err, &s):
		http.Error(w, s.text, s.code)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	default:
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(value)
	}
}
