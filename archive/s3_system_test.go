//go:build system

package archive

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"packmill/archive/index"
)

// versitygw is an S3 server that keeps a bucket in a directory.
const versitygw = "github.com/versity/versitygw/cmd/versitygw@v1.8.0"

// bucket starts a real S3 server with one bucket, whose directory it returns.
func bucket(t *testing.T) (*S3, string) {
	t.Helper()
	dir := t.TempDir()
	build := exec.Command("go", "install", versitygw)
	build.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=-mod=mod")
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go install %s: %v\n%s\nThe test needs the Go module proxy.", versitygw, err, out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	top := filepath.Join(dir, "buckets")
	if err := os.MkdirAll(filepath.Join(top, "archive"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(dir, "versitygw"), "--access", "user", "--secret", "words of secret", "--region", "here", "--port", addr, "posix", top)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("versitygw: %s", log.String())
		}
	})
	for range 200 {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	return &S3{URL: "http://" + addr, Region: "here", Bucket: "archive", Prefix: "debian", AccessKey: "user", SecretKey: "words of secret"}, filepath.Join(top, "archive", "debian")
}

func TestPushS3(t *testing.T) {
	f := newFixture(t)
	s, dir := bucket(t)
	f.accepted(f.upload(hello("1:1+b~2")))
	push := func(takeOver bool) (*Transfer, error) { return f.a.PushS3(ctx, "unstable", s, takeOver, false, nil) }
	first, err := push(false)
	if err != nil {
		t.Fatal(err)
	}
	// Clients need not sign: a server in front of the bucket does.
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		resp, err := s.do(r.Context(), http.MethodGet, s.key(strings.TrimPrefix(r.URL.Path, "/")), nil, nil, nil, index.Sum{})
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		defer resp.Body.Close()
		io.Copy(w, resp.Body)
	}))
	defer web.Close()
	install := func(version string) {
		t.Helper()
		c := newClient(t, strings.ReplaceAll(f.source(), "file:"+f.a.Root(), web.URL), f.key, "amd64")
		c.run("apt-get", "update")
		c.run("apt-get", "download", "hello="+version)
	}
	install("1:1+b~2")
	if got := len(tree(t, dir)); got != first.Files {
		t.Errorf("in the bucket: got %d files, want %d", got, first.Files)
	}
	again, err := push(false)
	if err != nil || again.Files != 0 {
		t.Errorf("again: got %+v, %v, want nothing sent", again, err)
	}
	f.accepted(f.upload(hello("2:2")))
	if _, err := push(false); err != nil {
		t.Fatal(err)
	}
	install("2:2")

	// Somebody else publishes there.
	other := newFixture(t)
	other.accepted(other.upload(hello("9:1")))
	if _, err := other.a.PushS3(ctx, "unstable", s, false, false, nil); !errors.Is(err, ErrFence) {
		t.Errorf("a second archive: got %v, want %v", err, ErrFence)
	}
	if _, err := other.a.PushS3(ctx, "unstable", s, true, false, nil); err != nil {
		t.Fatal(err)
	}
	f.accepted(f.upload(hello("3:3")))
	if _, err := push(false); !errors.Is(err, ErrFence) {
		t.Errorf("after the other took over: got %v, want %v", err, ErrFence)
	}
	if _, err := push(true); err != nil {
		t.Fatal(err)
	}
	install("3:3")

	// The cache is lost: the bucket is listed once, and little is sent.
	if err := os.RemoveAll(f.a.path("cache")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(f.a.path("cache"), 0o755); err != nil {
		t.Fatal(err)
	}
	lost, err := push(true)
	if err != nil || lost.There < 10 {
		t.Errorf("without the cache: got %+v, %v, want most there", lost, err)
	}
	s.SecretKey = "wrong"
	if _, err := push(false); err == nil {
		t.Error("with a wrong key: got no error")
	}
}
