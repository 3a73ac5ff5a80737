package remote

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/yamux"

	"packmill/queue/runner"
)

// liar is a builder that answers as it likes.
type liar struct {
	out  Outcome
	log  func(w http.ResponseWriter)
	file []byte
}

func (l *liar) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /1/jobs/{token}", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("DELETE /1/jobs/{token}", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /1/jobs/{token}/log", func(w http.ResponseWriter, _ *http.Request) {
		if l.log != nil {
			l.log(w)
		}
	})
	mux.HandleFunc("GET /1/jobs/{token}/outcome", func(w http.ResponseWriter,
		_ *http.Request) {
		json.NewEncoder(w).Encode(l.out)
	})
	mux.HandleFunc("GET /1/jobs/{token}/result/{name...}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-%d/%d", len(l.file)-1, len(l.file)))
		w.WriteHeader(http.StatusPartialContent)
		w.Write(l.file)
	})
	return mux
}

// TestHostileBuilder: what a builder of bad will says of a build, and sends, is bounded, and no file of it lies
// where a
// result would be taken from.
func TestHostileBuilder(t *testing.T) {
	sum := "0000000000000000000000000000000000000000000000000000000000000000"
	of8 := sha256.Sum256([]byte("evil too"))
	sumOf8 := hex.EncodeToString(of8[:])
	good := func(files ...Sum) Outcome { return Outcome{Outcome: "good", Files: files} }
	many := make([]Sum, maxFiles+1)
	for i := range many {
		many[i] = Sum{fmt.Sprintf("f%d", i), 1, sum}
	}
	for what, c := range map[string]struct {
		liar liar
		want string // in the reason of a give-back
	}{
		"a path as a name":       {liar{out: good(Sum{"../../evil", 1, sum})}, "file name"},
		"more files than anyone": {liar{out: good(many...)}, "files, and at most"},
		"more bytes than Disk":   {liar{out: good(Sum{"a_1_all.deb", 1 << 40, sum})}, "more bytes than are taken"},
		"a negative size":        {liar{out: good(Sum{"a_1_all.deb", -1, sum})}, "no SHA-256 and size"},
		"no checksum":            {liar{out: good(Sum{"a_1_all.deb", 4, ""}), file: []byte("evil")}, "no SHA-256 and size"},
		"half a checksum":        {liar{out: good(Sum{"a_1_all.deb", 4, sum[:32]}), file: []byte("evil")}, "no SHA-256 and size"},
		"a name twice":           {liar{out: good(Sum{"a_1_all.deb", 1, sum}, Sum{"a_1_all.deb", 1, sum})}, "named twice"},
		"other bytes":            {liar{out: good(Sum{"a_1_all.deb", 4, sum}), file: []byte("evil")}, errSum.Error()},
		"a path of its own":      {liar{out: good(Sum{"/etc/passwd_1", 1, sum})}, "file name"},
		"a name in a directory":  {liar{out: good(Sum{"result/a_1_all.deb", 1, sum})}, "file name"},
		"a name of backslashes":  {liar{out: good(Sum{`..\..\a_1`, 1, sum})}, "file name"},
		"a name with a NUL":      {liar{out: good(Sum{"a_1_all.deb\x00", 1, sum})}, "file name"},
		"more bytes than said":   {liar{out: good(Sum{"a_1_all.deb", 4, sumOf8}), file: []byte("evil too")}, errSum.Error()},
		"bytes without end":      {liar{out: good(Sum{"a_1_all.deb", 4, sum}), file: make([]byte, 8<<20)}, errSum.Error()},
		"good, and nothing":      {liar{out: good()}, "left no .changes"},
		"an outcome of its own":  {liar{out: Outcome{Outcome: "installed", Reason: "x\x1b[2Jy"}}, "x"},
		"relations that are none": {liar{out: Outcome{Outcome: "dep-wait", DepWait: []string{"a (>>"}}},
			"they are no relations"},
		"a flood": {liar{log: func(w http.ResponseWriter) {
			for line := []byte(strings.Repeat("flood\n", 10000)); ; {
				if _, err := w.Write(line); err != nil {
					return
				}
			}
		}}, errFlood.Error()},
	} {
		t.Run(what, func(t *testing.T) {
			s := newSite(t, 10)
			s.job.Limits = runner.Limits{Log: 1000, Disk: 1 << 20}
			m, far, _ := wires(-1)
			go func() {
				b, err := begin(far, false, c.liar.handler())
				if err == nil {
					b.soon("POST", "/hello", maxHello, &Hello{Oldest: Oldest, Newest: Newest, Time: time.Now()}, &Welcome{})
				}
			}()
			p, err := Accept(m, s.dir, func(*Hello) (*Welcome, string) { return &Welcome{}, "" })
			s.must(err)
			defer p.Close()
			s.master.Peer = p
			res, err := s.master.Run(t.Context(), s.job)
			if err != nil || res.Outcome != runner.GiveBack || !strings.Contains(res.Reason, c.want) ||
				strings.Contains(res.Reason, "\x1b") {
				t.Errorf("got %+v, %v; want a give-back with %q", res, err, c.want)
			}
			for _, dir := range []string{s.job.Result, s.job.Dir} {
				if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
					t.Errorf("left in %s: %v, %v", dir, left, err)
				}
			}
			if st, err := s.job.Log.Stat(); err != nil || st.Size() > 4<<20 {
				t.Errorf("a log of %d bytes", st.Size())
			}
		})
	}
}

// TestForeignResult: files whose sums are right and that are another package's come to a person.
func TestForeignResult(t *testing.T) {
	s := newSite(t, 10)
	s.job.Packages = []string{"other"}
	res, _, err := s.session(-1)
	if err != nil || res.Outcome != runner.Quarantined {
		t.Errorf("got %+v, %v; want it quarantined", res, err)
	}
}

// TestBuilderReaches: what a builder may ask of the master, and no more.
func TestBuilderReaches(t *testing.T) {
	s := newSite(t, 10)
	for name, text := range map[string]string{"dists/x": "public", "control/private/key": "secret",
		"secret": "secret"} {
		s.must(os.MkdirAll(filepath.Dir(filepath.Join(s.dir, name)), 0o755))
		s.must(os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o644))
	}
	m, far, _ := wires(-1)
	peer := make(chan *Peer)
	go func() {
		p, err := Accept(m, s.dir, func(*Hello) (*Welcome, string) { return &Welcome{}, "" })
		s.must(err)
		peer <- p
	}()
	b, err := begin(far, false, http.NotFoundHandler())
	s.must(err)
	hello := Hello{Oldest: Oldest, Newest: Newest, Time: time.Now()}
	s.must(b.soon("POST", "/hello", maxHello, &hello, &Welcome{}))
	p := <-peer
	defer p.Close()
	p.jobs[token] = &given{filepath.Join(s.dir, "item/source"), []Sum{{Name: "hello_1.0-1.dsc"}}}
	for path, want := range map[string]bool{
		"/1/archive/dists/x":                                             true,
		"/1/archive/control/private/key":                                 false,
		"/1/archive/dists/..%2fcontrol/private/key":                      false,
		"/1/archive/dists/../control/private/key":                        false,
		"/1/jobs/" + token + "/source/hello_1.0-1.dsc":                   true,
		"/1/jobs/" + token + "/source/hello_1.0.orig.tar.gz":             false, // not of this order
		"/1/jobs/" + token + "/source/..%2f..%2fsecret":                  false,
		"/1/jobs/" + strings.Repeat("f", 32) + "/source/hello_1.0-1.dsc": false,
	} {
		a, err := b.do(context.Background(), "GET", path, nil)
		if err == nil {
			a.Body.Close()
		}
		if (err == nil) != want {
			t.Errorf("GET %s: %v, want it served: %v", path, err, want)
		}
	}
	if err := b.soon("POST", "/hello", maxHello, &hello, &Welcome{}); err == nil {
		t.Error("a second hello was taken")
	}
}

// TestManyStreams: a builder that asks without end for more than it takes fills no more of the master than the answers
// to some requests, and is answered when it has let go of them.
func TestManyStreams(t *testing.T) {
	s := newSite(t, 10)
	s.must(os.MkdirAll(filepath.Join(s.dir, "dists"), 0o755))
	s.must(os.WriteFile(filepath.Join(s.dir, "dists/x"), []byte("public"), 0o644))
	m, far, _ := wires(-1)
	peer := make(chan *Peer)
	go func() {
		p, err := Accept(m, s.dir, func(*Hello) (*Welcome, string) { return &Welcome{}, "" })
		s.must(err)
		peer <- p
	}()
	c := yamux.DefaultConfig()
	c.AcceptBacklog, c.StreamOpenTimeout, c.LogOutput = 10_000, 0, io.Discard // it does not wait for its turn
	y, err := yamux.Client(far, c)
	s.must(err)
	defer y.Close()
	ask := func(conn net.Conn, request string) string {
		_, err := io.WriteString(conn, request)
		s.must(err)
		buf := make([]byte, 15)
		n, _ := io.ReadFull(conn, buf)
		return string(buf[:n])
	}
	hello, err := json.Marshal(&Hello{Oldest: Oldest, Newest: Newest, Time: time.Now()})
	s.must(err)
	first, err := y.Open()
	s.must(err)
	ask(first, fmt.Sprintf("POST /hello HTTP/1.1\r\nHost: m\r\nContent-Length: %d\r\n\r\n%s", len(hello), hello))
	first.Close()
	p := <-peer
	defer p.Close()
	var open []net.Conn
	for range 2000 {
		conn, err := y.Open()
		s.must(err)
		fmt.Fprintf(conn, "GET /1/archive/dists/x HTTP/1.1\r\nHost: m\r\nContent-Length: 100000000\r\n\r\n")
		open = append(open, conn)
	}
	_, err = y.Ping() // the master has seen all of them
	s.must(err)
	if n := p.s.NumStreams(); n == 0 || n > maxStreams+100 { // and those that wait
		t.Errorf("%d streams are open at the master, want at most %d and some", n, maxStreams)
	}
	for _, conn := range open {
		conn.Close()
	}
	for p.s.NumStreams() > 0 {
		time.Sleep(time.Millisecond)
	}
	last, err := y.Open()
	s.must(err)
	if got := ask(last, "GET /1/archive/dists/x HTTP/1.1\r\nHost: m\r\n\r\n"); got != "HTTP/1.1 200 OK" {
		t.Errorf("after that: %q", got)
	}
}
