package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"packmill/internal/durable"
	"packmill/queue/runner"
)

// Builder is the builder's end: the jobs of one machine, over any number of sessions.
//
// Its directory has jobs/TOKEN for each job, with its source, log, work, result and at last its
// outcome, and sources/SHA256 for the files of sources that it was sent. A job without an outcome when a
// Builder is made is one that its predecessor lost.
type Builder struct {
	Dir   string
	Log   *slog.Logger
	Hello func() Hello // all but Tokens
	Ready func(arch string) error
	// Build builds the job, whose paths and log are set, as the order and this machine's settings say.
	Build func(ctx context.Context, o *Order, job *runner.Job) (*runner.Result, error)
	// Sign, if set, signs the .changes of a good build with this machine's key.
	Sign func(text []byte) ([]byte, error)

	ctx  context.Context
	stop context.CancelFunc
	lock io.Closer // of Dir

	fetching singleflight.Group // by SHA-256 of a source's file: two jobs would fetch it into one .part

	mu      sync.Mutex
	jobs    map[string]*job
	session *session
	renewed chan struct{} // closed when session has changed
}

// job is one of a Builder's.
type job struct {
	token, dir string
	end        context.CancelFunc
	done       chan struct{} // closed when it has its outcome
}

// maxTokens bounds the jobs that the master has not asked away.
const maxTokens = 1000

// Open looks at what an earlier Builder left, of which none may be running: durable.ErrLocked. Close ends what
// runs.
func (b *Builder) Open() error {
	b.ctx, b.stop = context.WithCancel(context.Background())
	b.jobs, b.renewed = map[string]*job{}, make(chan struct{})
	for _, dir := range []string{"jobs", "sources"} {
		if err := durable.MkdirAll(filepath.Join(b.Dir, dir), 0o755); err != nil {
			return err
		}
	}
	var err error
	if b.lock, err = durable.Lock(filepath.Join(b.Dir, "lock"), 0o644); err != nil {
		return fmt.Errorf("the jobs in %s are another builder's, which runs (two masters need two directories): %w",
			b.Dir, err)
	}
	found, err := os.ReadDir(filepath.Join(b.Dir, "jobs"))
	if err != nil {
		return err
	}
	for _, e := range found {
		dir := filepath.Join(b.Dir, "jobs", e.Name())
		if _, err := os.Stat(filepath.Join(dir, OutcomeFile)); err == nil {
			done := make(chan struct{})
			close(done)
			b.jobs[e.Name()] = &job{e.Name(), dir, func() {}, done}
			continue
		}
		b.Log.Warn("a job was lost when this builder ended", "item", e.Name())
		if err := durable.RemoveAll(dir); err != nil {
			return err
		}
	}
	return b.tidySources()
}

// Close ends what is built, waits for that, and leaves Dir to another Builder.
func (b *Builder) Close() {
	b.stop()
	b.mu.Lock()
	jobs := make([]*job, 0, len(b.jobs))
	for _, j := range b.jobs {
		jobs = append(jobs, j)
	}
	b.mu.Unlock()
	for _, j := range jobs {
		<-j.done
	}
	b.lock.Close()
}

// Serve is one session with the master, until it ends: the next one begins after that. A *Refused error has the
// master's reason.
func (b *Builder) Serve(ctx context.Context, conn io.ReadWriteCloser) (err error) {
	s, err := begin(conn, false, b.handler())
	if err != nil {
		return err
	}
	defer s.Close()
	defer context.AfterFunc(ctx, func() { s.Close() })()
	hello := b.Hello()
	hello.Oldest, hello.Newest, hello.Time = Oldest, Newest, time.Now().UTC()
	b.mu.Lock()
	for token := range b.jobs {
		hello.Tokens = append(hello.Tokens, token)
	}
	b.mu.Unlock()
	var welcome Welcome
	if err := s.soon("POST", "/hello", maxHello, &hello, &welcome); err != nil {
		if no := (*status)(nil); errors.As(err, &no) && no.code == http.StatusForbidden {
			return &Refused{no.text}
		}
		return err
	}
	b.Log.Info("the master knows this builder", "as", welcome.Builder, "protocol", welcome.Protocol)
	for token, why := range welcome.Drop {
		b.drop(token, why)
	}
	b.use(s)
	<-s.CloseChan() // master knows that it is closed; a newer one may have taken its place
	return ErrAway
}

// use makes a session the one by which the master is asked.
func (b *Builder) use(s *session) {
	b.mu.Lock()
	b.session = s
	close(b.renewed)
	b.renewed = make(chan struct{})
	b.mu.Unlock()
}

// master is the session, waited for.
func (b *Builder) master(ctx context.Context) (*session, error) {
	for {
		b.mu.Lock()
		s, renewed := b.session, b.renewed
		b.mu.Unlock()
		if s != nil && !s.IsClosed() {
			return s, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-renewed:
		}
	}
}

// RoundTrip asks the master: a Builder is an http.RoundTripper, for its archive.
func (b *Builder) RoundTrip(r *http.Request) (*http.Response, error) {
	s, err := b.master(r.Context())
	if err != nil {
		return nil, err
	}
	return s.http.Transport.RoundTrip(r)
}

// Fetch writes a file of the master's archive.
func (b *Builder) Fetch(ctx context.Context, path string, to io.Writer) error {
	s, err := b.master(ctx)
	if err != nil {
		return err
	}
	a, err := s.do(ctx, "GET", "/1/archive/"+path, nil)
	if isStatus(err, http.StatusNotFound) {
		return fmt.Errorf("%s: %w", path, fs.ErrNotExist)
	}
	if err != nil {
		return err
	}
	defer a.Body.Close()
	_, err = io.Copy(to, a.Body)
	return err
}

func (b *Builder) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /1/ready/{arch}", func(w http.ResponseWriter, r *http.Request) {
		if err := b.Ready(r.PathValue("arch")); err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
		}
	})
	mux.HandleFunc("PUT /1/jobs/{token}", b.take)
	mux.HandleFunc("DELETE /1/jobs/{token}", func(_ http.ResponseWriter, r *http.Request) {
		b.drop(r.PathValue("token"), "the master has done with it")
	})
	with := func(do func(w http.ResponseWriter, r *http.Request, j *job)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			b.mu.Lock()
			j := b.jobs[r.PathValue("token")]
			b.mu.Unlock()
			if j == nil {
				http.Error(w, "no such job", http.StatusNotFound)
				return
			}
			do(w, r, j)
		}
	}
	mux.HandleFunc("GET /1/jobs/{token}", with(func(http.ResponseWriter, *http.Request, *job) {}))
	mux.HandleFunc("GET /1/jobs/{token}/log", with(sendLog))
	mux.HandleFunc("GET /1/jobs/{token}/outcome", with(func(w http.ResponseWriter, r *http.Request, j *job) {
		select {
		case <-j.done:
			serveFile(w, r, filepath.Join(j.dir, OutcomeFile))
		case <-r.Context().Done():
		}
	}))
	mux.HandleFunc("GET /1/jobs/{token}/result/{name}", with(func(w http.ResponseWriter, r *http.Request, j *job) {
		serveFile(w, r, filepath.Join(j.dir, ResultDir, filepath.Base(r.PathValue("name"))))
	}))
	return mux
}

// logLook is how soon a line of the log is on its way.
const logLook = 100 * time.Millisecond

// sendLog sends the log from where it is asked for, and goes on as it grows.
func sendLog(w http.ResponseWriter, r *http.Request, j *job) {
	from := int64(0)
	fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
	f, err := os.Open(filepath.Join(j.dir, LogFile))
	if err == nil {
		_, err = f.Seek(from, io.SeekStart)
	}
	if err != nil {
		answer(w, nil, err)
		return
	}
	defer f.Close()
	flush := http.NewResponseController(w)
	flush.Flush()
	for over := false; ; {
		n, err := io.Copy(w, f)
		if err != nil || flush.Flush() != nil || over && n == 0 {
			return
		}
		if n > 0 {
			continue
		}
		select {
		case <-j.done:
			over = true
		case <-r.Context().Done():
			return
		case <-time.After(logLook):
		}
	}
}

// take begins a job, once.
func (b *Builder) take(w http.ResponseWriter, r *http.Request) {
	var o Order
	token := r.PathValue("token")
	err := readJSON(r.Body, MaxOrder, &o)
	if err == nil {
		err = b.begin(token, &o)
	}
	answer(w, struct{}{}, err)
}

func (b *Builder) begin(token string, o *Order) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.jobs[token] != nil {
		return nil
	}
	if err := b.valid(token, o); err != nil {
		return &status{http.StatusBadRequest, err.Error()}
	}
	dir := filepath.Join(b.Dir, "jobs", token)
	for _, d := range []string{dir, filepath.Join(dir, SourceDir)} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	text, err := json.Marshal(o)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, OrderFile), text, 0o644)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, LogFile), nil, 0o644)
	}
	if err == nil {
		err = durable.SyncDir(filepath.Join(b.Dir, "jobs"))
	}
	if err != nil {
		return errors.Join(err, durable.RemoveAll(dir))
	}
	ctx, cancel := context.WithCancel(b.ctx)
	j := &job{token, dir, cancel, make(chan struct{})}
	b.jobs[token] = j
	go b.run(ctx, j, o)
	return nil
}

// drop ends a job and forgets it.
func (b *Builder) drop(token, why string) {
	b.mu.Lock()
	j := b.jobs[token]
	delete(b.jobs, token)
	b.mu.Unlock()
	if j == nil {
		return
	}
	b.Log.Info("forgets a job", "item", token, "reason", why)
	j.end()
	go func() {
		<-j.done
		if err := durable.RemoveAll(j.dir); err != nil {
			b.Log.Warn("a job's directory stays", "item", token, "err", err)
		}
	}()
}
