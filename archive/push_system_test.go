//go:build system

package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"packmill/archive/push"
	"packmill/internal/deb/debtest"
)

// The S3 server of these tests: a real one, whose buckets are directories.
// Debian has none.
const versitygw = "github.com/versity/versitygw/cmd/versitygw@v1.8.0"

// s3Server starts an S3 server with a bucket that everybody may read, and returns
// its address and the bucket's directory.
func s3Server(t *testing.T) (endpoint, bucket string) {
	t.Helper()
	program, err := exec.LookPath("versitygw")
	if err != nil {
		cache, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(cache, "packmill-tests")
		program = filepath.Join(dir, "versitygw")
		if _, err := os.Stat(program); err != nil {
			t.Logf("building %s, once", versitygw)
			cmd := exec.Command("go", "install", versitygw)
			cmd.Env, cmd.Dir = append(os.Environ(), "GOBIN="+dir, "GOFLAGS="), t.TempDir()
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("go install %s: %v: %s\nthis test needs the network once, or versitygw in the PATH", versitygw, err, out)
			}
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	store := t.TempDir()
	bucket = filepath.Join(store, "bucket")
	if err := os.Mkdir(bucket, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "--port", addr, "posix", store)
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY=tester", "ROOT_SECRET_KEY=not-a-secret")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	endpoint = "http://" + addr
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if resp, err := http.Get(endpoint); err == nil {
			resp.Body.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatal("the S3 server does not answer")
		}
	}
	policy := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::bucket/*"}]}`
	curl(t, endpoint+"/bucket?policy=", policy)
	return endpoint, bucket
}

// curl puts something into the storage behind the back of package push.
func curl(t *testing.T, url, text string) {
	t.Helper()
	out, err := exec.Command("curl", "-fsS", "--aws-sigv4", "aws:amz:us-east-1:s3", "--user", "tester:not-a-secret",
		"-H", fmt.Sprintf("x-amz-content-sha256: %x", sha256.Sum256([]byte(text))), "-X", "PUT", "-d", text,
		url).CombinedOutput()
	if err != nil {
		t.Fatalf("curl %s: %v: %s\nthis test needs the package curl", url, err, out)
	}
}

// recorder passes requests on and keeps what they were.
type recorder struct {
	*httptest.Server
	mu     sync.Mutex
	seen   []string
	before func(method, path string) // called before a request is passed on
	// lose says that the answer to a request, which was passed on, gets lost.
	lose func(method, path string) bool
}

func record(t *testing.T, endpoint string) *recorder {
	u, err := url.Parse(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		// The host is signed: it stays.
		r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = u.Scheme, u.Host, r.In.Host
	}}
	rec := &recorder{}
	rec.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec.mu.Lock()
		path := strings.TrimPrefix(r.URL.Path, "/bucket/")
		if q := r.URL.RawQuery; q != "" {
			path += "?" + q
		}
		rec.seen = append(rec.seen, r.Method+" "+path)
		before, lose := rec.before, rec.lose
		rec.mu.Unlock()
		if before != nil {
			before(r.Method, path)
		}
		if lose != nil && lose(r.Method, path) {
			proxy.ServeHTTP(httptest.NewRecorder(), r)
			http.Error(w, "lost", http.StatusBadGateway)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(rec.Close)
	return rec
}

// take returns what was seen and forgets it.
func (r *recorder) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.seen
	r.seen = nil
	return out
}

// flatTree is what a bucket must have of an archive: every name that a client
// can ask for, with links followed. What a feed names no longer may still be there.
func flatTree(t *testing.T, root string, got []string) []string {
	t.Helper()
	var out []string
	for _, line := range publicTree(t, root) {
		rel, link, isLink := strings.Cut(line, " -> ")
		switch {
		case strings.Contains(rel, "/."), strings.HasPrefix(rel, "opkg/pool/"):
		case isLink:
			to := filepath.Join(root, filepath.Dir(rel), link)
			index, _ := os.ReadFile(filepath.Join(to, "Packages")) // a feed has it
			for _, below := range walk(t, to) {
				if strings.Contains("/"+below, "/.") {
					continue
				}
				line := sumLine(t, root, rel+"/"+below)
				unnamed := strings.HasPrefix(below, "pool/") && !strings.Contains(string(index), "\nFilename: "+below+"\n")
				if !unnamed || slices.Contains(got, line) {
					out = append(out, line)
				}
			}
		default:
			out = append(out, line)
		}
	}
	slices.Sort(out)
	return out
}

func sumLine(t *testing.T, root, rel string) string {
	t.Helper()
	s, err := sumFile(filepath.Join(root, rel))
	if err != nil {
		t.Fatal(err)
	}
	return rel + " " + s.SHA256
}

func walk(t *testing.T, dir string) []string {
	t.Helper()
	out, err := exec.Command("find", "-L", dir, "-type", "f", "-printf", "%P\n").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(out))
}

func TestPushToS3(t *testing.T) {
	t.Parallel()
	endpoint, bucket := s3Server(t)
	rec := record(t, endpoint)
	f := newFixture(t)
	f.suite.Opkg = &Opkg{}
	odd := debtest.Upload{Source: debtest.Source{Name: "g++-x", Version: "1.0~rc1+b"},
		Debs: []debtest.Deb{{Name: "g++-x", Version: "1.0~rc1+b", Packing: "none",
			Files: []debtest.File{{Path: "usr/lib/large", Body: strings.Repeat("0123456789abcdef", 12<<16)}}}}}
	f.accepted(f.upload(hello("1:1.0")), f.upload(odd))
	to := &push.S3{Endpoint: rec.URL, Bucket: "bucket",
		Credentials: push.Credentials{Access: "tester", Secret: "not-a-secret"}, Large: 5 << 20}
	now := time.Now()
	try := func(opt push.Options) (*push.Report, error) {
		return f.a.Push(context.Background(), "", to, opt, now)
	}
	do := func(opt push.Options) *push.Report {
		t.Helper()
		rep, err := try(opt)
		if err != nil {
			t.Fatal(err)
		}
		return rep
	}
	check := func() {
		t.Helper()
		got := publicTree(t, bucket)
		sameTree(t, got, flatTree(t, f.a.Root(), got))
	}
	do(push.Options{DryRun: true})
	if seen := rec.take(); len(seen) != 1 || seen[0] != "GET .packmill/manifest" {
		t.Errorf("a dry run did %q", seen)
	}
	rep := do(push.Options{})
	check()
	checkOrder(t, rep.Sent)
	seen := rec.take()
	var puts []string
	large := 0
	for _, s := range seen {
		method, path, _ := strings.Cut(s, " ")
		if method == "PUT" && path != ".packmill/manifest" && !strings.Contains(path, "?") {
			puts = append(puts, path)
		}
		if strings.Contains(path, "partNumber=") {
			large++
		}
		if strings.Contains(s, "list-type") || s == "GET " {
			t.Errorf("the bucket was listed: %s", s)
		}
	}
	// Eight at a time: the order holds between the steps.
	checkOrder(t, puts)
	if large != 3 {
		t.Errorf("the large package went in %d parts, want 3", large)
	}
	if seen[0] != "GET .packmill/manifest" || seen[1] != "PUT .packmill/manifest" ||
		seen[len(seen)-1] != "PUT .packmill/manifest" {
		t.Errorf("the manifest is not around it all: %q", seen)
	}
	do(push.Options{})
	if seen := rec.take(); len(seen) != 1 {
		t.Errorf("nothing is new, but it did %q", seen)
	}

	// apt installs from the bucket, also under an alias, also names with '+'.
	for _, suite := range []string{"unstable", "sid", "rolling"} {
		c := newClient(t, "deb [] "+endpoint+"/bucket "+suite+" main contrib\n", f.key, "amd64")
		c.run("apt-get", "update")
		c.run("apt-get", "download", "hello", "g++-x")
		if got, err := filepath.Glob(filepath.Join(c.dir, "*.deb")); err != nil || len(got) != 2 {
			t.Errorf("%s: downloaded %v, %v", suite, got, err)
		}
	}

	f.accepted(f.upload(hello("1:2.0")))
	if rep := do(push.Options{}); len(rep.Sent) > 100 ||
		slices.Contains(rep.Sent, "pool/main/h/hello/hello_1.0_amd64.deb") {
		t.Errorf("one upload more sent %d files", len(rep.Sent))
	}
	check()
	gone := "pool/main/h/hello/hello-doc_1.0_all.deb"
	if err := os.Remove(f.a.path(gone)); err != nil {
		t.Fatal(err)
	}
	do(push.Options{Stay: time.Hour})
	if _, err := os.Stat(filepath.Join(bucket, gone)); err != nil {
		t.Errorf("within its stay: %v", err)
	}
	now = now.Add(2 * time.Hour)
	if rep := do(push.Options{Stay: time.Hour}); !slices.Contains(rep.Removed, gone) {
		t.Errorf("removed %v", rep.Removed)
	}
	check()

	t.Run("cut off", func(t *testing.T) {
		for _, at := range []string{"/by-hash/", "dists/unstable/InRelease", ".packmill/manifest"} {
			f.now = f.now.Add(time.Minute)
			f.accepted(f.upload(hello("1:3.0~" + fmt.Sprint(f.now.Unix()))))
			ctx, cancel := context.WithCancel(context.Background())
			count := 0
			rec.mu.Lock()
			rec.before = func(method, path string) {
				if method == "PUT" && strings.Contains(path, at) {
					// The first manifest is the beginning.
					if count++; count == 2 || at != ".packmill/manifest" {
						cancel()
					}
				}
			}
			rec.mu.Unlock()
			if _, err := f.a.Push(ctx, "", to, push.Options{}, now); err == nil {
				t.Errorf("%s: a push that was cut off says that all is well", at)
			}
			cancel()
			rec.mu.Lock()
			rec.before = nil
			rec.mu.Unlock()
			do(push.Options{})
			now = now.Add(100 * time.Hour)
			do(push.Options{})
			check()
		}
	})

	t.Run("fence", func(t *testing.T) {
		// Another archive's push has begun and not ended.
		f.accepted(f.upload(hello("1:4.0")))
		other := *to
		// To this archive it is another place.
		other.Owner, other.Endpoint = "elsewhere:/srv/archive", endpoint
		var met atomic.Bool
		rec.mu.Lock()
		rec.before = func(method, path string) {
			if method == "PUT" && strings.Contains(path, "/by-hash/") && met.CompareAndSwap(false, true) {
				if _, err := f.a.Push(context.Background(), "", &other, push.Options{}, now); !errors.Is(err, push.ErrFence) {
					t.Errorf("while another push runs: got %v, want %v", err, push.ErrFence)
				}
				// Somebody says that the first one is dead, and is wrong.
				if _, err := f.a.Push(context.Background(), "", &other, push.Options{TakeOver: true}, now); err != nil {
					t.Errorf("taking over: %v", err)
				}
			}
		}
		rec.mu.Unlock()
		if _, err := try(push.Options{}); !errors.Is(err, push.ErrFence) {
			t.Errorf("the push that was taken over: got %v, want %v", err, push.ErrFence)
		}
		rec.mu.Lock()
		rec.before = nil
		rec.mu.Unlock()
		check()
		do(push.Options{})

		// Somebody else has written InRelease.
		f.accepted(f.upload(hello("1:5.0")))
		curl(t, endpoint+"/bucket/dists/unstable/InRelease", "theirs")
		if _, err := try(push.Options{}); !errors.Is(err, push.ErrFence) {
			t.Errorf("over a foreign InRelease: got %v, want %v", err, push.ErrFence)
		}
	})

	t.Run("lost answers", func(t *testing.T) {
		// What was written under a condition is not there a second time, and is known
		// as ours all the same.
		bucket := filepath.Join(filepath.Dir(bucket), "other")
		if err := os.Mkdir(bucket, 0o755); err != nil {
			t.Fatal(err)
		}
		seen, lost := map[string]bool{}, 0
		rec.mu.Lock()
		rec.lose = func(method, path string) bool {
			rec.mu.Lock()
			defer rec.mu.Unlock()
			known := seen[method+path]
			seen[method+path] = true
			if known || method == "PUT" && len(seen)%5 != 0 && !strings.HasSuffix(path, "InRelease") {
				return false
			}
			lost++
			return true
		}
		rec.mu.Unlock()
		other := *to
		other.Bucket, other.Prefix = "other", "a/b"
		if _, err := f.a.Push(context.Background(), "", &other, push.Options{}, now); err != nil {
			t.Error(err)
		}
		rec.mu.Lock()
		rec.lose = nil
		rec.mu.Unlock()
		if lost < 5 {
			t.Errorf("only %d answers got lost", lost)
		}
		got := publicTree(t, filepath.Join(bucket, "a/b"))
		sameTree(t, got, flatTree(t, f.a.Root(), got))
	})

	t.Run("wrong key", func(t *testing.T) {
		bad := *to
		bad.Secret = "wrong"
		if _, err := f.a.Push(context.Background(), "", &bad, push.Options{}, now); err == nil ||
			!strings.Contains(err.Error(), "403 Forbidden") {
			t.Errorf("got %v", err)
		}
	})
}

// A push to S3 that is killed at one of its requests leaves a copy that clients
// can use, and the next one completes it.
func TestPushToS3Killed(t *testing.T) {
	t.Parallel()
	endpoint, bucket := s3Server(t)
	rec := record(t, endpoint)
	f := newFixture(t)
	f.suite.Opkg = &Opkg{}
	f.accepted(f.upload(hello("1.0")))
	if _, err := f.a.Push(ctx, "", pushTarget(endpoint), push.Options{}, time.Now()); err != nil {
		t.Fatal(err)
	}
	old, points := inRelease(t, bucket), 0
	for n, ended := 1, false; !ended; n += 5 {
		f.accepted(f.upload(hello(fmt.Sprintf("2.%d", n))))
		cmd := pusher(f.a.Root(), rec.URL)
		var at atomic.Int64
		rec.mu.Lock()
		rec.before = func(method, path string) {
			if at.Add(1) == int64(n) {
				syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			}
		}
		rec.mu.Unlock()
		out, err := cmd.CombinedOutput()
		if err == nil {
			ended = true
		} else if !killed(err) {
			t.Fatalf("push: %v: %s", err, out)
		} else {
			points++
		}
		whole(t, bucket)
		if now := inRelease(t, bucket); !bytes.Equal(now, old) && !bytes.Equal(now, inRelease(t, f.a.Root())) {
			t.Errorf("killed at request %d: an InRelease of no publication", n)
		}
		if _, err := f.a.Push(ctx, "", pushTarget(endpoint), push.Options{}, time.Now()); err != nil {
			t.Fatalf("after it was killed at request %d: %v", n, err)
		}
		got := publicTree(t, bucket)
		sameTree(t, got, flatTree(t, f.a.Root(), got))
		old = inRelease(t, bucket)
	}
	if points < 4 {
		t.Errorf("killed at %d points only", points)
	}
}
