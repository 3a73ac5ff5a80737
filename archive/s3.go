package archive

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"packmill/archive/index"
	"packmill/spool/durable"
)

// S3 is a bucket of Amazon's S3 or of a store that speaks its protocol, with
// conditional writes (If-None-Match and If-Match on PUT).
type S3 struct {
	URL    string // "https://s3.example"
	Region string
	Bucket string
	Prefix string // below which the archive lies; may be empty

	AccessKey, SecretKey, Token string

	VirtualHost bool // the bucket is part of the host's name

	Client *http.Client // http.DefaultClient if nil
}

// ErrFence says that somebody else has published at the target since this
// archive did.
var ErrFence = errors.New("the target has another InRelease than the one that was last pushed from here; if that is right, take it over (--take-over)")

// s3Fault is an answer that is no success.
type s3Fault struct {
	status     int
	code, text string
}

func (f *s3Fault) Error() string {
	return strings.TrimSpace(fmt.Sprintf("%d %s %s", f.status, f.code, f.text))
}

func (s *S3) target(key string, query url.Values) (*url.URL, error) {
	u, err := url.Parse(s.URL)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("S3 address %q: not a URL", s.URL)
	}
	p := "/" + strings.Trim(u.Path, "/")
	if s.VirtualHost {
		u.Host = s.Bucket + "." + u.Host
	} else {
		p = strings.TrimRight(p, "/") + "/" + s.Bucket
	}
	if key != "" {
		p = strings.TrimRight(p, "/") + "/" + key
	}
	u.Path, u.RawPath, u.RawQuery = p, s3Escape(p, false), s3Query(query)
	return u, nil
}

func (s *S3) key(name string) string {
	return strings.TrimPrefix(strings.Trim(s.Prefix, "/")+"/"+filepath.ToSlash(name), "/")
}

// s3Escape is the URI encoding of signature version 4: all but unreserved
// characters, and "/" in a path.
func s3Escape(s string, slash bool) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-_.~", c) >= 0, c == '/' && !slash:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

func s3Query(q url.Values) string {
	var parts []string
	for _, k := range sortedKeys(q) {
		for _, v := range q[k] {
			parts = append(parts, s3Escape(k, true)+"="+s3Escape(v, true))
		}
	}
	return strings.Join(parts, "&")
}

// sign adds the headers of AWS signature version 4.
func (s *S3) sign(r *http.Request, payload string, now time.Time) {
	date := now.UTC().Format("20060102T150405Z")
	r.Header.Set("X-Amz-Date", date)
	r.Header.Set("X-Amz-Content-Sha256", payload)
	if s.Token != "" {
		r.Header.Set("X-Amz-Security-Token", s.Token)
	}
	headers := map[string]string{"host": r.URL.Host}
	for k, v := range r.Header {
		headers[strings.ToLower(k)] = strings.TrimSpace(strings.Join(v, ","))
	}
	names := sortedKeys(headers)
	var canonical strings.Builder
	fmt.Fprintf(&canonical, "%s\n%s\n%s\n", r.Method, s3Escape(r.URL.Path, false), r.URL.RawQuery)
	for _, n := range names {
		fmt.Fprintf(&canonical, "%s:%s\n", n, headers[n])
	}
	fmt.Fprintf(&canonical, "\n%s\n%s", strings.Join(names, ";"), payload)
	scope := date[:8] + "/" + s.Region + "/s3/aws4_request"
	sum := sha256.Sum256([]byte(canonical.String()))
	text := "AWS4-HMAC-SHA256\n" + date + "\n" + scope + "\n" + hex.EncodeToString(sum[:])
	key := []byte("AWS4" + s.SecretKey)
	for _, part := range []string{date[:8], s.Region, "s3", "aws4_request", text} {
		m := hmac.New(sha256.New, key)
		m.Write([]byte(part))
		key = m.Sum(nil)
	}
	r.Header.Set("Authorization", fmt.Sprintf("AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%s",
		s.AccessKey, scope, strings.Join(names, ";"), hex.EncodeToString(key)))
}

const emptySHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// do sends a request. Trouble that may pass is tried again some times. body
// returns the same bytes each time.
func (s *S3) do(ctx context.Context, method, key string, query url.Values, header map[string]string, body func() (io.ReadCloser, error), sum index.Sum) (*http.Response, error) {
	var last error
	for try := range 5 {
		if try > 0 {
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(time.Second << try / 2):
			}
		}
		u, err := s.target(key, query)
		if err != nil {
			return nil, err
		}
		r, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
		if err != nil {
			return nil, err
		}
		r.URL = u
		payload := emptySHA256
		if body != nil {
			if r.Body, err = body(); err != nil {
				return nil, err
			}
			r.ContentLength, payload = sum.Size, sum.SHA256
			if sum.Size == 0 {
				r.Body.Close()
				r.Body = http.NoBody
			}
		}
		for k, v := range header {
			r.Header.Set(k, v)
		}
		s.sign(r, payload, time.Now())
		client := s.Client
		if client == nil {
			client = http.DefaultClient
		}
		resp, err := client.Do(r)
		if err != nil {
			last = err
			if ctx.Err() != nil {
				return nil, err
			}
			continue
		}
		if resp.StatusCode < 300 {
			return resp, nil
		}
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
		resp.Body.Close()
		var said struct{ Code, Message string }
		_ = xml.Unmarshal(text, &said) // the status says enough
		fault := &s3Fault{resp.StatusCode, said.Code, said.Message}
		if resp.StatusCode < 500 && resp.StatusCode != http.StatusTooManyRequests && said.Code != "ConditionalRequestConflict" {
			return nil, fault
		}
		last = fault
	}
	return nil, last
}

func status(err error, code int) bool {
	var f *s3Fault
	return errors.As(err, &f) && f.status == code
}

// put stores a file and returns its ETag.
func (s *S3) put(ctx context.Context, name, file string, sum index.Sum, header map[string]string) (etag string, err error) {
	h := map[string]string{"Content-Type": "application/octet-stream"}
	for k, v := range header {
		h[k] = v
	}
	resp, err := s.do(ctx, http.MethodPut, s.key(name), nil, h, func() (io.ReadCloser, error) { return os.Open(file) }, sum)
	if err != nil {
		return "", fmt.Errorf("put %s: %w", name, err)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	return resp.Header.Get("ETag"), err
}

// list returns the sizes of the objects below the prefix.
func (s *S3) list(ctx context.Context) (map[string]int64, error) {
	out := map[string]int64{}
	token := ""
	for {
		q := url.Values{"list-type": {"2"}}
		if p := s.key(""); p != "" {
			q.Set("prefix", p)
		}
		if token != "" {
			q.Set("continuation-token", token)
		}
		resp, err := s.do(ctx, http.MethodGet, "", q, nil, nil, index.Sum{})
		if err != nil {
			return nil, fmt.Errorf("list bucket %s: %w", s.Bucket, err)
		}
		var page struct {
			Contents []struct {
				Key  string
				Size int64
			}
			IsTruncated           bool
			NextContinuationToken string
		}
		err = xml.NewDecoder(resp.Body).Decode(&page)
		resp.Body.Close()
		if err != nil {
			return nil, fmt.Errorf("list bucket %s: %w", s.Bucket, err)
		}
		for _, o := range page.Contents {
			out[strings.TrimPrefix(o.Key, s.key(""))] = o.Size
		}
		if token = page.NextContinuationToken; !page.IsTruncated || token == "" {
			return out, nil
		}
	}
}

// pushed is what the cache remembers of a target: what is there, so that it
// need not be listed each time, and the ETag of our last file there.
type pushed struct {
	Files map[string]string // SHA-256 by name, or "size:N" of what somebody else put there
	Tags  map[string]string // ETag of our last InRelease, by name
}

// PushS3 sends a suite or snapshot to a bucket: packages and indexes under
// their checksums first, with If-None-Match, for they never change; then the
// plain names; InRelease last, with If-Match as a fence, so that of two who
// publish there one is told (ErrFence). Nothing is deleted there, and aliases,
// which are symbolic links, stay behind. Files over 5 GB are beyond a single
// PUT, and are refused by the store. Progress may be nil.
func (a *Archive) PushS3(ctx context.Context, view string, s *S3, takeOver, dry bool, progress func(done, all int)) (*Transfer, error) {
	m, p, err := a.manifest(ctx, view)
	if err != nil {
		return nil, err
	}
	id := sha256.Sum256([]byte(s.URL + "\n" + s.Bucket + "\n" + s.Prefix))
	record := a.path("cache", "pushed", hex.EncodeToString(id[:8])+".json")
	last := s.key(m.last)
	old, known := readPushed(record)
	etag, err := s.etag(ctx, last)
	if err != nil {
		return nil, err
	}
	lastTag := old.Tags[m.last]
	if etag != "" && etag != lastTag && !takeOver {
		return nil, ErrFence
	}
	if !known {
		there, err := s.list(ctx)
		if err != nil {
			return nil, err
		}
		for name, size := range there {
			// Believed only where a name never changes its content.
			old.Files[name] = "size:" + strconv.FormatInt(size, 10)
		}
	}
	t := &Transfer{}
	all := len(m.pool) + len(m.indexes) + len(m.release) + 1
	sent := func(name string, sum index.Sum) {
		old.Files[name] = sum.SHA256
		t.Files++
		t.Bytes += sum.Size
		if progress != nil {
			progress(t.Files+t.There, all)
		}
	}
	send := func(names []string) error {
		type job struct {
			name string
			sum  index.Sum
		}
		var jobs []job
		for _, name := range names {
			file := filepath.Join(p.base(), name)
			info, err := os.Stat(file)
			if err != nil {
				return err
			}
			constant := strings.HasPrefix(name, "pool/") || strings.Contains(name, "/by-hash/")
			have := old.Files[name]
			if constant && (len(have) == 64 || have == "size:"+strconv.FormatInt(info.Size(), 10)) {
				t.There++
				continue
			}
			sum, err := sumFile(file)
			if err != nil {
				return err
			}
			if have == sum.SHA256 {
				t.There++
				continue
			}
			jobs = append(jobs, job{name, sum})
		}
		if dry {
			for _, j := range jobs {
				sent(j.name, j.sum)
			}
			return nil
		}
		for part := range slices.Chunk(jobs, 64) {
			g, ctx := errgroup.WithContext(ctx)
			g.SetLimit(8)
			for _, j := range part {
				g.Go(func() error {
					h := map[string]string{}
					if strings.HasPrefix(j.name, "pool/") || strings.Contains(j.name, "/by-hash/") {
						h["If-None-Match"] = "*"
					}
					_, err := s.put(ctx, j.name, filepath.Join(p.base(), j.name), j.sum, h)
					if status(err, http.StatusPreconditionFailed) {
						err = nil // it is there
					}
					return err
				})
			}
			if err := g.Wait(); err != nil {
				return err
			}
			for _, j := range part {
				sent(j.name, j.sum)
			}
		}
		return nil
	}
	for _, names := range [][]string{m.pool, m.indexes, m.release} {
		if err := send(names); err != nil {
			return t, err
		}
		if !dry {
			if err := writePushed(record, old); err != nil {
				return t, err
			}
		}
	}
	file := filepath.Join(p.base(), m.last)
	sum, err := sumFile(file)
	if err != nil {
		return t, err
	}
	if etag != "" && etag == lastTag && old.Files[m.last] == sum.SHA256 {
		t.There++
		return t, nil
	}
	if dry {
		sent(m.last, sum)
		return t, nil
	}
	fence := map[string]string{"If-None-Match": "*"}
	if etag != "" {
		fence = map[string]string{"If-Match": etag}
	}
	tag, err := s.put(ctx, m.last, file, sum, fence)
	if status(err, http.StatusPreconditionFailed) || status(err, http.StatusConflict) {
		return t, ErrFence
	}
	if err != nil {
		return t, err
	}
	sent(m.last, sum)
	old.Tags[m.last] = tag
	return t, writePushed(record, old)
}

// etag is that of an object, or "" if there is none.
func (s *S3) etag(ctx context.Context, key string) (string, error) {
	resp, err := s.do(ctx, http.MethodHead, key, nil, nil, nil, index.Sum{})
	if status(err, http.StatusNotFound) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("head %s: %w", key, err)
	}
	resp.Body.Close()
	return resp.Header.Get("ETag"), nil
}

func readPushed(name string) (p *pushed, ok bool) {
	p = &pushed{}
	data, err := os.ReadFile(name)
	if err == nil {
		err = json.Unmarshal(data, p)
	}
	if p.Files == nil {
		p.Files = map[string]string{}
	}
	if p.Tags == nil {
		p.Tags = map[string]string{}
	}
	return p, err == nil
}

func writePushed(name string, p *pushed) error {
	data, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return durable.WriteFile(name, data, 0o600)
}
