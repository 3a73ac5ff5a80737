package push

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// S3 pushes to a bucket of S3-compatible storage, which must know conditional
// writes (If-Match, If-None-Match): Amazon's, Ceph's, MinIO and most others do.
//
// The bucket has no links: what an alias of a suite leads to is there under
// both names, and opkg's generations are not; their signatures come last.
type S3 struct {
	Endpoint string // https://s3.eu-central-1.amazonaws.com, http://localhost:9000
	Region   string // us-east-1 if empty
	Bucket   string
	Prefix   string // before each path, without slashes at its ends
	// Virtual makes the bucket a part of the host name, as Amazon wants it.
	Virtual bool
	Credentials

	// Owner tells this archive's pushes from those of others, after one that
	// did not end: a host name and a path.
	Owner string

	Client *http.Client // http.DefaultClient if nil
	Large  int64        // files above this size go in parts; 1 GiB if zero, at least 5 MiB
}

const manifestKey = ".packmill/manifest"

// Push brings the bucket in line with the archive.
func (s *S3) Push(ctx context.Context, src Source, opt Options, now time.Time) (*Report, error) {
	rep, err := run(ctx, &s3Run{S3: s, takeOver: opt.TakeOver}, src, opt, now)
	if err != nil {
		return nil, fmt.Errorf("push to bucket %s: %w", s.Bucket, err)
	}
	return rep, nil
}

type s3Run struct {
	*S3
	takeOver bool
	tag      string // of the manifest that this push wrote
}

func (s *s3Run) flat() bool { return true }

func (s *s3Run) load(ctx context.Context) (*manifest, error) {
	resp, err := s.do(ctx, http.MethodGet, manifestKey, nil, nil, nil)
	if isStatus(err, http.StatusNotFound) {
		return &manifest{entries: map[string]entry{}}, nil
	}
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, 1<<30))
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", manifestKey, err)
	}
	m, err := parseManifest(data)
	if err != nil {
		return nil, err
	}
	m.tag = resp.Header.Get("ETag")
	if m.open && m.owner != s.Owner && !s.takeOver {
		return nil, fmt.Errorf("%w (%s has begun one that has not ended; if it is dead, take over)", ErrFence, m.owner)
	}
	if m.open {
		// Nobody noted what the last push did before it ended.
		for p, e := range m.entries {
			if path.Base(p) == "InRelease" {
				if e.tag, err = s.head(ctx, p); err != nil {
					return nil, err
				}
				m.entries[p] = e
			}
		}
	}
	return m, nil
}

// head gets the tag of an object, "" if it is not there.
func (s *s3Run) head(ctx context.Context, key string) (string, error) {
	resp, err := s.do(ctx, http.MethodHead, key, nil, nil, nil)
	if isStatus(err, http.StatusNotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	resp.Body.Close()
	return resp.Header.Get("ETag"), nil
}

func (s *s3Run) begin(ctx context.Context, m *manifest) error {
	m.open = true
	return s.store(ctx, m)
}

func (s *s3Run) finish(ctx context.Context, m *manifest) error {
	m.open = false
	return s.store(ctx, m)
}

// store writes the manifest if it is still the one that was read or written
// last.
func (s *s3Run) store(ctx context.Context, m *manifest) error {
	m.owner = s.Owner
	data := m.text()
	tag, err := s.putIf(ctx, manifestKey, data, m.tag)
	if err != nil {
		return err
	}
	m.tag, s.tag = tag, tag
	return nil
}

// putIf writes an object if it has the tag, or is not there if the tag is "".
func (s *s3Run) putIf(ctx context.Context, key string, data []byte, tag string) (string, error) {
	// After a broken connection nobody knows whether the object was written.
	// What is ours bears this word.
	word := rand.Text()
	h := headers(key)
	h.Set("x-amz-meta-packmill", word)
	if tag == "" {
		h.Set("If-None-Match", "*")
	} else {
		h.Set("If-Match", tag)
	}
	resp, err := s.do(ctx, http.MethodPut, key, nil, h, bytesBody(data))
	if isStatus(err, http.StatusPreconditionFailed) || isStatus(err, http.StatusConflict) || isStatus(err, http.StatusNotFound) {
		if at, herr := s.do(ctx, http.MethodHead, key, nil, nil, nil); herr == nil {
			at.Body.Close()
			if at.Header.Get("x-amz-meta-packmill") == word {
				return at.Header.Get("ETag"), nil
			}
		}
		return "", ErrFence
	}
	if err != nil {
		return "", err
	}
	resp.Body.Close()
	return resp.Header.Get("ETag"), nil
}

func (s *s3Run) send(ctx context.Context, p phase, files []*file, m *manifest, done func(*file)) error {
	if p == inReleases {
		// Who took the place over meanwhile has written the manifest.
		if tag, err := s.head(ctx, manifestKey); err != nil {
			return err
		} else if tag != s.tag {
			return ErrFence
		}
	}
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for _, f := range files {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			tag, err := s.sendOne(ctx, f, m, &mu)
			if err != nil {
				return fmt.Errorf("%s: %w", f.path, err)
			}
			mu.Lock()
			defer mu.Unlock()
			e := m.entries[f.path]
			e.tag = tag
			m.entries[f.path] = e
			done(f)
			return nil
		})
	}
	return g.Wait()
}

func (s *s3Run) sendOne(ctx context.Context, f *file, m *manifest, mu *sync.Mutex) (string, error) {
	if path.Base(f.path) == "InRelease" {
		data, err := os.ReadFile(f.from)
		if err != nil {
			return "", err
		}
		mu.Lock()
		tag := m.entries[f.path].tag
		mu.Unlock()
		return s.putIf(ctx, f.path, data, tag)
	}
	in, err := os.Open(f.from)
	if err != nil {
		return "", err
	}
	defer in.Close()
	if limit := s.large(); f.size > limit {
		return "", s.parts(ctx, f, in, limit)
	}
	sum, err := sumOf(io.NewSectionReader(in, 0, f.size))
	if err != nil {
		return "", err
	}
	resp, err := s.do(ctx, http.MethodPut, f.path, nil, headers(f.path), &body{in, 0, f.size, sum})
	if err != nil {
		return "", err
	}
	resp.Body.Close()
	return "", nil
}

func (s *s3Run) large() int64 {
	if s.Large == 0 {
		return 1 << 30
	}
	return max(s.Large, 5<<20)
}

// parts sends a large file in parts, which the storage puts together.
func (s *s3Run) parts(ctx context.Context, f *file, in *os.File, size int64) error {
	resp, err := s.do(ctx, http.MethodPost, f.path, url.Values{"uploads": {""}}, headers(f.path), nil)
	if err != nil {
		return err
	}
	var started struct{ UploadId string }
	err = xml.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&started)
	resp.Body.Close()
	if err != nil || started.UploadId == "" {
		return fmt.Errorf("the storage did not begin an upload in parts: %w", err)
	}
	id := url.Values{"uploadId": {started.UploadId}}
	type part struct {
		PartNumber int
		ETag       string
	}
	var all struct {
		XMLName xml.Name `xml:"CompleteMultipartUpload"`
		Part    []part
	}
	// No storage takes more than 10,000 parts.
	size = max(size, (f.size+9999)/10000)
	err = func() error {
		for at := int64(0); at < f.size; at += size {
			n := min(size, f.size-at)
			sum, err := sumOf(io.NewSectionReader(in, at, n))
			if err != nil {
				return err
			}
			number := len(all.Part) + 1
			resp, err := s.do(ctx, http.MethodPut, f.path, url.Values{"uploadId": id["uploadId"], "partNumber": {strconv.Itoa(number)}}, nil, &body{in, at, n, sum})
			if err != nil {
				return err
			}
			resp.Body.Close()
			all.Part = append(all.Part, part{number, resp.Header.Get("ETag")})
		}
		text, err := xml.Marshal(all)
		if err != nil {
			return err
		}
		resp, err := s.do(ctx, http.MethodPost, f.path, id, nil, bytesBody(text))
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		// The answer begins before the work is done: an error may come with
		// the status of success.
		answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		if err == nil && bytes.Contains(answer, []byte("<Error>")) {
			err = fmt.Errorf("the storage did not put the parts together: %q", answer)
		}
		return err
	}()
	if err != nil {
		// Parts that nobody puts together cost money for ever.
		if resp, aerr := s.do(context.WithoutCancel(ctx), http.MethodDelete, f.path, id, nil, nil); aerr == nil {
			resp.Body.Close()
		}
	}
	return err
}

func (s *s3Run) remove(ctx context.Context, paths []string) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for _, p := range paths {
		g.Go(func() error {
			resp, err := s.do(ctx, http.MethodDelete, p, nil, nil, nil)
			if isStatus(err, http.StatusNotFound) {
				return nil
			}
			if err != nil {
				return err
			}
			return resp.Body.Close()
		})
	}
	return g.Wait()
}

// headers are what web caches and browsers should know of a file.
func headers(name string) http.Header {
	h := http.Header{}
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Cache-Control", "no-cache")
	switch base := path.Base(name); {
	case strings.HasPrefix(name, "pool/"), strings.HasPrefix(name, "opkg/") && strings.Contains(name, "/pool/"), strings.Contains(name, "/by-hash/"):
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	case slices.Contains([]string{"InRelease", "Release", "Packages", "Sources"}, base):
		h.Set("Content-Type", "text/plain; charset=utf-8")
	}
	return h
}

// A body is a piece of a file, which can be sent more than once.
type body struct {
	from io.ReaderAt
	at   int64
	size int64
	sha  string
}

func bytesBody(data []byte) *body {
	sum := sha256.Sum256(data)
	return &body{bytes.NewReader(data), 0, int64(len(data)), hex.EncodeToString(sum[:])}
}

func sumOf(r io.Reader) (string, error) {
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// A statusError is a refusal by the storage.
type statusError struct {
	method, key string
	code        int
	text        string
}

func (e *statusError) Error() string {
	return fmt.Sprintf("%s %s: the storage says %d %s: %q", strings.ToLower(e.method), e.key, e.code, http.StatusText(e.code), e.text)
}

func isStatus(err error, code int) bool {
	e := (*statusError)(nil)
	return errors.As(err, &e) && e.code == code
}

// do sends a request, again if the network or the storage has a bad moment. The
// caller closes the answer's body. A status that is no success is an error.
func (s *s3Run) do(ctx context.Context, method, key string, q url.Values, h http.Header, b *body) (*http.Response, error) {
	const tries = 5
	for n, pause := 1, 500*time.Millisecond; ; n, pause = n+1, 2*pause {
		resp, err := s.once(ctx, method, key, q, h, b)
		if err == nil && resp.StatusCode/100 == 2 {
			return resp, nil
		}
		again := true
		if err == nil {
			text, _ := io.ReadAll(io.LimitReader(resp.Body, 2000))
			resp.Body.Close()
			again = resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests
			err = &statusError{method, key, resp.StatusCode, strings.TrimSpace(string(text))}
		}
		if !again || n == tries || ctx.Err() != nil {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
	}
}

func (s *s3Run) once(ctx context.Context, method, key string, q url.Values, h http.Header, b *body) (*http.Response, error) {
	u, err := url.Parse(strings.TrimRight(s.Endpoint, "/"))
	if err != nil {
		return nil, err
	}
	object := key
	if s.Prefix != "" {
		object = s.Prefix + "/" + key
	}
	if s.Virtual {
		u.Host = s.Bucket + "." + u.Host
		u.Path += "/" + object
	} else {
		u.Path += "/" + s.Bucket + "/" + object
	}
	// What is signed and what is sent must be escaped alike.
	u.RawPath = escape(u.Path, true)
	u.RawQuery = query(q)
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, err
	}
	for k, v := range h {
		req.Header[k] = v
	}
	sum := sha256.Sum256(nil)
	payload := hex.EncodeToString(sum[:])
	if b != nil {
		payload = b.sha
		req.ContentLength = b.size
		if b.size > 0 {
			req.Body = io.NopCloser(io.NewSectionReader(b.from, b.at, b.size))
		}
	}
	region := s.Region
	if region == "" {
		region = "us-east-1"
	}
	s.sign(req, region, payload, time.Now())
	client := s.Client
	if client == nil {
		client = http.DefaultClient
	}
	return client.Do(req)
}
