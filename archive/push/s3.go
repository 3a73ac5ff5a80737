package push

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
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

	Large int64 // files above this size go in parts; 1 GiB if zero, at least 5 MiB
}

// Credentials of S3-compatible storage.
type Credentials struct {
	Access, Secret string
	Token          string // of temporary credentials, else ""
}

// tries is how often a request is sent while the network or the storage has a bad
// moment: for some eight seconds.
const tries = 15

// client speaks for the bucket. The region is given, so that none is asked for.
func (s *S3) client() (*minio.Core, error) {
	u, err := url.Parse(strings.TrimRight(s.Endpoint, "/"))
	if err != nil {
		return nil, err
	}
	if u.Host == "" || u.Path != "" {
		return nil, fmt.Errorf("address of the storage %q: write http(s)://HOST, with no path", s.Endpoint)
	}
	opt := &minio.Options{
		Creds:  credentials.NewStaticV4(s.Access, s.Secret, s.Token),
		Secure: u.Scheme == "https", Region: cmp.Or(s.Region, "us-east-1"),
		BucketLookup: minio.BucketLookupPath, MaxRetries: tries,
	}
	if s.Virtual {
		opt.BucketLookup = minio.BucketLookupDNS
	}
	return minio.NewCore(u.Host, opt)
}

const manifestKey = ".packmill/manifest"

// Push brings the bucket in line with the archive.
func (s *S3) Push(ctx context.Context, src Source, opt Options, now time.Time) (*Report, error) {
	c, err := s.client()
	if err != nil {
		return nil, fmt.Errorf("push to bucket %s: %w", s.Bucket, err)
	}
	rep, err := run(ctx, &s3Run{S3: s, store: c, takeOver: opt.TakeOver}, src, opt, now)
	if err != nil {
		return nil, fmt.Errorf("push to bucket %s: %w", s.Bucket, err)
	}
	return rep, nil
}

type s3Run struct {
	*S3
	store    *minio.Core
	takeOver bool
	tag      string // of the manifest that this push wrote
}

func (s *s3Run) flat() bool { return true }

func (s *s3Run) load(ctx context.Context) (*manifest, error) {
	body, info, _, err := s.store.GetObject(ctx, s.Bucket, s.object(manifestKey), minio.GetObjectOptions{})
	if status(err) == http.StatusNotFound {
		return &manifest{entries: map[string]entry{}}, nil
	}
	if err != nil {
		return nil, told("get", manifestKey, err)
	}
	defer body.Close()
	data, err := io.ReadAll(io.LimitReader(body, 1<<30))
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", manifestKey, err)
	}
	m, err := parseManifest(data)
	if err != nil {
		return nil, err
	}
	m.tag = info.ETag
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

// object is the key of a file in the bucket.
func (s *s3Run) object(name string) string { return path.Join(s.Prefix, name) }

// head gets the tag of an object, "" if it is not there.
func (s *s3Run) head(ctx context.Context, name string) (string, error) {
	info, err := s.store.StatObject(ctx, s.Bucket, s.object(name), minio.StatObjectOptions{})
	if status(err) == http.StatusNotFound {
		return "", nil
	}
	return info.ETag, told("head", name, err)
}

func (s *s3Run) begin(ctx context.Context, m *manifest) error {
	m.open = true
	return s.write(ctx, m)
}

func (s *s3Run) finish(ctx context.Context, m *manifest) error {
	m.open = false
	return s.write(ctx, m)
}

// write writes the manifest if it is still the one that was read or written
// last.
func (s *s3Run) write(ctx context.Context, m *manifest) error {
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
func (s *s3Run) putIf(ctx context.Context, name string, data []byte, tag string) (string, error) {
	// After a broken connection nobody knows whether the object was written.
	// What is ours bears this word.
	word := rand.Text()
	opt := headers(name)
	opt.UserMetadata = map[string]string{wordKey: word}
	if tag == "" {
		opt.SetMatchETagExcept("*")
	} else {
		opt.SetMatchETag(strings.Trim(tag, `"`)) // a manifest of before has quotes in it
	}
	info, err := s.put(ctx, name, bytes.NewReader(data), int64(len(data)), opt)
	switch status(err) {
	case http.StatusPreconditionFailed, http.StatusConflict, http.StatusNotFound:
		at, herr := s.store.StatObject(ctx, s.Bucket, s.object(name), minio.StatObjectOptions{})
		if herr == nil && at.UserMetadata[wordKey] == word {
			return at.ETag, nil
		}
		return "", ErrFence
	}
	return info.ETag, told("put", name, err)
}

const wordKey = "Packmill"

// put sends an object in one piece. Its checksum is part of what is signed.
func (s *s3Run) put(ctx context.Context, name string, from io.ReadSeeker, size int64,
	opt minio.PutObjectOptions) (minio.UploadInfo, error) {
	h := sha256.New()
	if _, err := io.Copy(h, from); err != nil {
		return minio.UploadInfo{}, err
	}
	if _, err := from.Seek(0, io.SeekStart); err != nil {
		return minio.UploadInfo{}, err
	}
	return s.store.PutObject(ctx, s.Bucket, s.object(name), from, size, "", hex.EncodeToString(h.Sum(nil)), opt)
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
	from := io.NewSectionReader(in, 0, f.size)
	if f.size <= s.large() {
		_, err = s.put(ctx, f.path, from, f.size, headers(f.path))
	} else {
		opt := headers(f.path)
		opt.NumThreads = 1
		// No storage takes more than 10,000 parts.
		opt.PartSize = uint64(max(s.large(), (f.size+9999)/10000))
		_, err = s.store.Client.PutObject(ctx, s.Bucket, s.object(f.path), from, f.size, opt)
	}
	return "", told("put", f.path, err)
}

func (s *s3Run) large() int64 {
	if s.Large == 0 {
		return 1 << 30
	}
	return max(s.Large, 5<<20)
}

func (s *s3Run) remove(ctx context.Context, paths []string) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for _, p := range paths {
		g.Go(func() error {
			err := s.store.RemoveObject(ctx, s.Bucket, s.object(p), minio.RemoveObjectOptions{})
			if status(err) == http.StatusNotFound {
				return nil
			}
			return told("delete", p, err)
		})
	}
	return g.Wait()
}

// headers are what web caches and browsers should know of a file.
func headers(name string) minio.PutObjectOptions {
	opt := minio.PutObjectOptions{ContentType: "application/octet-stream", CacheControl: "no-cache"}
	forever := strings.HasPrefix(name, "pool/") || strings.Contains(name, "/by-hash/") ||
		strings.HasPrefix(name, "opkg/") && strings.Contains(name, "/pool/")
	switch {
	case forever:
		opt.CacheControl = "public, max-age=31536000, immutable"
	case slices.Contains([]string{"InRelease", "Release", "Packages", "Sources"}, path.Base(name)):
		opt.ContentType = "text/plain; charset=utf-8"
	}
	return opt
}

// status is that of a refusal by the storage, else 0.
func status(err error) int {
	var e minio.ErrorResponse
	if errors.As(err, &e) {
		return e.StatusCode
	}
	return 0
}

// told says of an error what was asked for, and what the storage answered.
func told(verb, name string, err error) error {
	if code := status(err); code != 0 {
		return fmt.Errorf("%s %s: the storage says %d %s: %w", verb, name, code, http.StatusText(code), err)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", verb, name, err)
	}
	return nil
}
