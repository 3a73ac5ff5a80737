package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"packmill/queue/runner"
)

// Peer is a builder on another machine, as the master sees it, for one session.
type Peer struct {
	Hello   Hello
	Welcome Welcome

	// Archive is the directory of the master's archive, which the builder may read.
	Archive string

	s     *session
	admit func(*Hello) (*Welcome, string)
	came  chan error

	mu   sync.Mutex
	jobs map[string]*given
}

// given is a job that this session has handed out.
type given struct {
	dir   string // of its source
	files []Sum
}

// helloWithin is how long a builder may take to say who it is.
const helloWithin = time.Minute

// Accept waits for the builder's hello on a connection and answers it as admit says: with a welcome, or a
// sentence why not, which is in the *Refused error.
func Accept(conn io.ReadWriteCloser, archive string, admit func(*Hello) (*Welcome, string)) (*Peer, error) {
	p := &Peer{Archive: archive, admit: admit, came: make(chan error, 1), jobs: map[string]*given{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /hello", p.hello)
	mux.HandleFunc("GET /1/jobs/{token}/source/{name}", p.source)
	mux.HandleFunc("GET /1/archive/{path...}", p.archive)
	var err error
	if p.s, err = begin(conn, true, mux); err != nil {
		return nil, err
	}
	select {
	case err = <-p.came:
	case <-p.s.CloseChan():
		err = ErrAway
	case <-time.After(helloWithin):
		err = errors.New("the builder says nothing")
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// hello answers the first request.
func (p *Peer) hello(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.admit == nil {
		http.Error(w, "once is enough", http.StatusConflict)
		return
	}
	err := readJSON(r.Body, maxHello, &p.Hello)
	why := ""
	if err == nil {
		var welcome *Welcome
		version := 0
		if version, why = speak(&p.Hello); why == "" {
			if welcome, why = p.admit(&p.Hello); why == "" {
				p.Welcome = *welcome
				p.Welcome.Protocol = version
			}
		}
	}
	if why != "" {
		err = &Refused{why}
		http.Error(w, why, http.StatusForbidden)
	} else {
		answer(w, &p.Welcome, err)
	}
	p.admit = nil
	if err != nil {
		http.NewResponseController(w).Flush()
		time.AfterFunc(time.Second, func() { p.came <- err }) // it reads why before the session ends
		return
	}
	p.came <- nil
}

// Close ends the session.
func (p *Peer) Close() { p.s.Close() }

// Gone is closed when the session has ended.
func (p *Peer) Gone() <-chan struct{} { return p.s.CloseChan() }

// Has reports whether the builder said that it has a job.
func (p *Peer) Has(token string) bool { return slices.Contains(p.Hello.Tokens, token) }

// Ready asks what the builder's machine lacks to build in a chroot of an architecture.
func (p *Peer) Ready(arch string) error {
	err := p.s.soon("GET", "/1/ready/"+arch, maxText, nil, nil)
	if s := (*status)(nil); errors.As(err, &s) {
		return fmt.Errorf("on %s: %s: %w", Clip(p.Hello.Host), s.text, runner.ErrSetup)
	}
	return err
}

// Forget tells the builder that the master has all it wants of a job.
func (p *Peer) Forget(token string) error {
	p.mu.Lock()
	delete(p.jobs, token)
	p.mu.Unlock()
	return p.s.soon("DELETE", "/1/jobs/"+token, 0, nil, nil)
}

// source answers with a file of a job's source: of one that this session handed out, and one that it named.
func (p *Peer) source(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	job := p.jobs[r.PathValue("token")]
	p.mu.Unlock()
	name := r.PathValue("name")
	if job == nil || !slices.ContainsFunc(job.files, func(f Sum) bool { return f.Name == name }) {
		http.Error(w, "no such file", http.StatusNotFound)
		return
	}
	serveFile(w, r, filepath.Join(job.dir, name))
}

// archive answers with a file of what clients fetch anyway.
func (p *Peer) archive(w http.ResponseWriter, r *http.Request) {
	name := path.Clean("/" + r.PathValue("path"))
	if !strings.HasPrefix(name, "/dists/") && !strings.HasPrefix(name, "/pool/") {
		http.Error(w, "no such file", http.StatusNotFound)
		return
	}
	root, err := os.OpenRoot(p.Archive)
	if err != nil {
		http.Error(w, "no such file", http.StatusNotFound)
		return
	}
	defer root.Close()
	r.URL.Path, r.URL.RawPath = name, ""
	http.FileServerFS(root.FS()).ServeHTTP(w, r)
}

// over tells whether the session is over, and waits a little for that: a request may fail first.
func (p *Peer) over(ctx context.Context) bool {
	select {
	case <-p.s.CloseChan():
		return true
	case <-ctx.Done():
	case <-time.After(time.Second):
	}
	return p.s.IsClosed()
}
