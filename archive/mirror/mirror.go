// Package mirror reads other apt repositories (made by reprepro, aptly, dak or
// whatever else), over http or from a directory, and gives their packages as
// uploads that package archive includes: the source package and the binaries
// that were built from it, with a .changes of our own.
//
// What it gives is what the repository's keys have signed: Release is verified,
// each index by Release, each file by its index. Repositories without SHA-256
// are refused.
package mirror

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"packmill/internal/bound"
	"packmill/internal/compression"
	"packmill/internal/deb822"
	"packmill/internal/openpgp"
	"packmill/internal/policy"
)

// Source says which repository is read, as a line of sources.list(5) does.
type Source struct {
	URL   string // http://, https:// or file://, or a directory: what "dists" lies in
	Suite string // the directory below dists; "./" or "DIR/" of a flat repository, which has neither dists nor components

	// Components and Architectures to be read; empty: all that Release names.
	Components, Architectures []string

	// Keyring has the keys of which one must have signed Release. Without one
	// Unsigned must be set, and the connection is what is trusted.
	Keyring  *openpgp.Keyring
	Unsigned bool

	// Expired takes a Release whose Valid-Until has passed.
	Expired bool

	// Link makes hard links to the files of a repository on the same file
	// system in place of copies. Only if nobody will ever write to them.
	Link bool

	Client *http.Client // http.DefaultClient if nil

	// Patience is how long a server may take for the next MiB, or for its last
	// bytes; a minute if zero.
	Patience time.Duration
}

// A Repository is one suite of a repository whose Release has been verified.
type Repository struct {
	src    Source
	remote bool
	flat   bool
	root   string // a URL without its last slash, or a directory
	dir    string // of Release, relative to root, with its last slash
	sums   map[string]sum
	byHash bool

	Release    *deb822.Stanza // what was signed
	SignedBy   string         // the key's fingerprint; "" if nothing was verified
	Components []string
	Archs      []string // concrete ones, without "all"
	Odd        []error  // entries that Uploads left out, for something in them is not valid
}

type sum struct {
	sha  string
	size int64
}

// An Upload is a source package and what was built from it in one component, as
// far as the repository has it.
type Upload struct {
	Source, Version string // of the source package
	Component       string
	Maintainer      string
	HasSource       bool // the source package is among the files
	Files           []File
}

// Copies reports whether what is fetched needs room.
func (r *Repository) Copies() bool { return r.remote || !r.src.Link }

// Size is the number of bytes of all files.
func (u *Upload) Size() int64 {
	var n int64
	for _, f := range u.Files {
		n += f.Size
	}
	return n
}

// A File is one file of an upload.
type File struct {
	Name   string // the name that it gets
	Path   string // where it lies, relative to the repository
	Size   int64
	SHA256 string
	MD5    string // "" if the repository does not give it

	Package, Version, Arch string // of a .deb
	Section, Priority      string // of a .deb or .dsc, as the index has them
	Tag                    string // of a .deb: debtags, which stand in indexes only
}

// Open reads and verifies the suite's Release.
func Open(ctx context.Context, src Source, now time.Time) (*Repository, error) {
	fail := func(err error) (*Repository, error) {
		return nil, fmt.Errorf("open repository %s %s: %w", src.URL, src.Suite, err)
	}
	r := &Repository{src: src}
	switch u, err := url.Parse(src.URL); {
	case err != nil:
		return fail(err)
	case u.Scheme == "http" || u.Scheme == "https":
		r.remote, r.root = true, strings.TrimRight(src.URL, "/")
	case u.Scheme == "file":
		r.root = u.Path
	case u.Scheme == "":
		r.root = src.URL
	default:
		return fail(fmt.Errorf("%s is not http, https or file", u.Scheme))
	}
	r.flat, r.dir = strings.HasSuffix(src.Suite, "/"), "dists/"+src.Suite+"/"
	if r.flat {
		if r.dir = strings.TrimPrefix(path.Clean(src.Suite)+"/", "./"); src.Suite == "/" {
			r.dir = ""
		}
		if len(src.Components) > 0 {
			return fail(errors.New("a flat repository has no components: leave them out"))
		}
	}
	if src.Suite == "" || !filepath.IsLocal(r.dir+".") || !r.flat && !filepath.IsLocal(src.Suite) {
		return fail(fmt.Errorf("suite %q is no name below dists, and no directory of a flat repository", src.Suite))
	}
	if src.Keyring == nil && !src.Unsigned {
		return fail(errors.New("no keyring: name the repository's keys, or say that it is to be trusted unsigned"))
	}
	text, err := r.release(ctx, now)
	if errors.Is(err, fs.ErrNotExist) && r.flat && src.Keyring == nil {
		// The simplest kind of all: what dpkg-scanpackages writes.
		text, err = r.scanned(ctx)
	}
	if err != nil {
		return fail(err)
	}
	if r.Release, err = deb822.ParseOne("Release", text, releaseLimits); err != nil {
		return fail(err)
	}
	if err := r.readRelease(now); err != nil {
		return fail(ErrBroken{text: err.Error()})
	}
	return r, nil
}

// Debian's own Release has some 2,000 lines; that of a suite with every
// translation more.
var releaseLimits = deb822.Limits{Size: 64 << 20, Fields: 200, Lines: 1_000_000, LineLength: 64 << 10}

// release gets the text of Release: the signed part of InRelease, or Release
// with Release.gpg where there is no InRelease.
func (r *Repository) release(ctx context.Context, now time.Time) ([]byte, error) {
	dir := r.dir
	in, err := r.get(ctx, dir+"InRelease", releaseLimits.Size)
	if err == nil && r.src.Keyring != nil {
		text, sig, err := r.src.Keyring.VerifyRelease(in, now)
		if err != nil {
			return nil, fmt.Errorf("InRelease: %w", err)
		}
		r.SignedBy = sig.Fingerprint
		return text, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	text, err := r.get(ctx, dir+"Release", releaseLimits.Size)
	if err != nil || r.src.Keyring == nil {
		return text, err
	}
	detached, err := r.get(ctx, dir+"Release.gpg", 1<<20)
	if err != nil {
		return nil, err
	}
	sig, err := r.src.Keyring.VerifyReleaseGPG(bytes.NewReader(text), detached, now)
	if err != nil {
		return nil, fmt.Errorf("Release.gpg: %w", err)
	}
	r.SignedBy = sig.Fingerprint
	return text, nil
}

// scanned is the Release that a flat repository without one would have.
func (r *Repository) scanned(ctx context.Context) ([]byte, error) {
	text := []byte("SHA256:")
	for _, name := range []string{"Packages", "Sources"} {
		for _, k := range forms {
			file := name + k.Suffix()
			got, err := r.digest(ctx, r.dir+file)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, err
			}
			text = fmt.Appendf(text, "\n %s %d %s", got.sha, got.size, file)
		}
	}
	if len(text) == len("SHA256:") {
		return nil, fmt.Errorf("there is neither a Release nor a Packages in %s: %w", r.root+"/"+r.dir, fs.ErrNotExist)
	}
	return append(text, '\n'), nil
}

// digest reads an index to know its sum and size.
func (r *Repository) digest(ctx context.Context, name string) (sum, error) {
	body, err := r.open(ctx, name)
	if err != nil {
		return sum{}, err
	}
	defer body.Close()
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(body, maxIndex+1))
	return sum{hex.EncodeToString(h.Sum(nil)), n}, err
}

// forms of indexes, in the order in which they are preferred: the plain one is
// read with the least work and fetched with the most.
var forms = append(compression.Kinds()[1:], compression.Plain)

func (r *Repository) readRelease(now time.Time) error {
	rel := r.Release
	if until := rel.Get("Valid-Until"); until != "" && !r.src.Expired {
		t, err := parseDate(until)
		if err != nil {
			return fmt.Errorf("Release: Valid-Until: %w", err)
		}
		if now.After(t) {
			return fmt.Errorf("Release has expired at %s; get a newer one, or say that an expired one is taken", until)
		}
	}
	if err := r.readSums(rel.Get("SHA256")); err != nil {
		return err
	}
	r.byHash = rel.Get("Acquire-By-Hash") == "yes"
	if r.flat {
		return nil // its index has what it has
	}
	return r.choose()
}

// readSums reads the list of the repository's indexes.
func (r *Repository) readSums(list string) error {
	if list == "" {
		return errors.New("Release has no SHA256 field; let the repository's program write it")
	}
	r.sums = map[string]sum{}
	for line := range strings.SplitSeq(strings.TrimPrefix(list, "\n"), "\n") {
		w := deb822.Words(line)
		if len(w) != 3 {
			return fmt.Errorf("Release: SHA256: the line %q is not sum, size and path", line)
		}
		size, err := strconv.ParseInt(w[1], 10, 64)
		if err != nil || size < 0 || !isSHA256(w[0]) {
			return fmt.Errorf("Release: SHA256: the line %q is not sum, size and path", line)
		}
		r.sums[strings.TrimPrefix(w[2], "./")] = sum{w[0], size}
	}
	return nil
}

// choose sets Components and Archs: those that are asked for, or all that there are.
func (r *Repository) choose() (err error) {
	comps, archs := deb822.Words(r.Release.Get("Components")), deb822.Words(r.Release.Get("Architectures"))
	there, thereArchs := r.listed()
	if len(comps) == 0 {
		comps = there
	}
	if len(archs) == 0 {
		archs = thereArchs
	}
	// Components of the form updates/main (security.debian.org of old) name
	// the directory by their last part.
	for i := range comps {
		comps[i] = path.Base(comps[i])
	}
	if r.Components, err = chosen("component", comps, r.src.Components); err != nil {
		return err
	}
	if r.Archs, err = chosen("architecture", archs, r.src.Architectures); err != nil {
		return err
	}
	r.Archs = slices.DeleteFunc(slices.Clone(r.Archs), func(a string) bool { return a == "all" || a == "source" })
	for _, c := range r.Components {
		if err := policy.CheckComponent(c); err != nil {
			return fmt.Errorf("Release: %w", err)
		}
	}
	for _, a := range r.Archs {
		if err := policy.CheckArch(a); err != nil {
			return fmt.Errorf("Release: %w", err)
		}
	}
	return nil
}

func chosen(what string, have, want []string) ([]string, error) {
	if len(want) == 0 {
		return have, nil
	}
	for _, w := range want {
		if !slices.Contains(have, w) {
			return nil, fmt.Errorf("Release names no %s %s, only %s", what, w, strings.Join(have, ", "))
		}
	}
	return want, nil
}

// listed are the components and architectures of the indexes that Release names,
// for it need not name them by themselves.
func (r *Repository) listed() (comps, archs []string) {
	for name := range r.sums {
		w := strings.Split(strings.Replace(name, "/debian-installer/", "/", 1), "/")
		if len(w) != 3 || !strings.HasPrefix(w[2], "Packages") && !strings.HasPrefix(w[2], "Sources") {
			continue
		}
		comps = append(comps, w[0])
		if arch, ok := strings.CutPrefix(w[1], "binary-"); ok {
			archs = append(archs, arch)
		}
	}
	slices.Sort(comps)
	slices.Sort(archs)
	return slices.Compact(comps), slices.Compact(archs)
}

// parseDate reads a date of Release as apt does: with a day of one digit, and any zone.
func parseDate(s string) (time.Time, error) {
	s = strings.Replace(s, " Z", " UTC", 1)
	t, err := time.Parse("Mon, 2 Jan 2006 15:04:05 -0700", s)
	if err != nil {
		t, err = time.Parse("Mon, 2 Jan 2006 15:04:05 MST", s)
	}
	return t, err
}

func isSHA256(s string) bool {
	raw, err := hex.DecodeString(s)
	return err == nil && len(raw) == sha256.Size && s == strings.ToLower(s)
}

// Uploads reads the indexes and groups what they list. The uploads come in an
// order in which an archive can take them: versions of a package go up, sources
// go before binaries of other components.
func (r *Repository) Uploads(ctx context.Context) ([]*Upload, error) {
	g := newGrouping()
	r.Odd = nil
	if r.flat {
		if err := r.index(ctx, "Sources", func(s *deb822.Scanner) error { return g.source(s, "") }); err != nil {
			return nil, err
		}
		err := r.index(ctx, "Packages", func(s *deb822.Scanner) error {
			if only := r.src.Architectures; len(only) > 0 &&
				!slices.Contains(append(only, "all"), string(s.Get("Architecture"))) {
				return nil
			}
			return g.binary(s, "")
		})
		if err != nil {
			return nil, err
		}
	}
	for _, c := range r.Components {
		if err := r.index(ctx, c+"/source/Sources", func(s *deb822.Scanner) error { return g.source(s, c) }); err != nil {
			return nil, err
		}
		for _, area := range []string{c, c + "/debian-installer"} {
			for _, a := range append(slices.Clone(r.Archs), "all") {
				if err := r.index(ctx, area+"/binary-"+a+"/Packages", func(s *deb822.Scanner) error {
					return g.binary(s, c)
				}); err != nil {
					return nil, err
				}
			}
		}
	}
	slices.SortStableFunc(g.list, func(a, b *Upload) int {
		if c := cmp.Compare(a.Source, b.Source); c != 0 {
			return c
		}
		if c := policy.CompareVersions(a.Version, b.Version); c != 0 {
			return c
		}
		switch {
		case a.HasSource == b.HasSource:
			return cmp.Compare(a.Component, b.Component)
		case a.HasSource:
			return -1
		}
		return 1
	})
	return g.list, nil
}

// index calls f for each stanza of an index, if Release names it.
func (r *Repository) index(ctx context.Context, name string, f func(*deb822.Scanner) error) error {
	var form compression.Kind
	var s sum
	for _, k := range forms {
		if at, ok := r.sums[name+k.Suffix()]; ok {
			form, s = k, at
			break
		}
	}
	plain, known := r.sums[name]
	switch {
	case s.sha == "":
		return nil
	case known && plain.size == 0, form == compression.Plain && s.size == 0:
		return nil
	}
	file := name + form.Suffix()
	// Where Release knows the size of the text, that it is.
	limit := int64(maxText)
	if known {
		limit = plain.size
	}
	if s.size > maxIndex || limit > maxText {
		return fmt.Errorf("%s: Release says that it has %d bytes, and %d unpacked; an index may have %d and %d",
			file, s.size, limit, maxIndex, maxText)
	}
	in, err := r.openIndex(ctx, file, s)
	if err != nil {
		return err
	}
	defer in.Close()
	err = r.stanzas(ctx, form, in, limit, name, f)
	// What the index says counts for nothing unless it is the one that Release
	// names; a fault of one that is not is no news.
	if wrong := in.verify(); wrong != nil {
		err = wrong
	}
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

// stanzas calls f for each stanza of an index, unpacked as it comes. One that is odd
// is left out, and the rest is read.
func (r *Repository) stanzas(ctx context.Context, form compression.Kind, in io.Reader, limit int64, name string,
	f func(*deb822.Scanner) error) error {
	text, err := form.Reader(bound.Reader(ctx, in))
	if err != nil {
		return err
	}
	defer text.Close()
	sc := deb822.NewScanner(&bounded{bound.Reader(ctx, text), limit})
	sc.File, sc.Odd = name, r.odd
	for sc.Next() {
		if err := f(sc); errors.Is(err, errMany) {
			return err
		} else if err != nil {
			r.odd(fmt.Errorf("%s:%d: %s: %w", name, sc.Line(), sc.Get("Package"), err))
		}
	}
	return sc.Err()
}

// odd notes an entry that is left out; of very many the first ones tell enough.
func (r *Repository) odd(err error) {
	if len(r.Odd) < 1000 {
		r.Odd = append(r.Odd, err)
	}
}

// openIndex opens an index by its checksum where the repository has that, so that
// a publication in the meantime does no harm.
func (r *Repository) openIndex(ctx context.Context, name string, s sum) (*checked, error) {
	names := []string{name}
	if r.byHash {
		names = []string{path.Dir(name) + "/by-hash/SHA256/" + s.sha, name}
	}
	var err error
	for _, n := range names {
		var body io.ReadCloser
		if body, err = r.open(ctx, r.dir+n); err == nil {
			return &checked{ReadCloser: body, hash: sha256.New(), want: s}, nil
		}
	}
	return nil, err
}

// checked is an index on its way, of which no more is read than it should have.
type checked struct {
	io.ReadCloser
	hash hash.Hash
	got  int64
	want sum
}

func (c *checked) Read(p []byte) (int, error) {
	if left := c.want.size - c.got; int64(len(p)) > left {
		p = p[:left]
	}
	if len(p) == 0 {
		return 0, io.EOF
	}
	n, err := c.ReadCloser.Read(p)
	c.hash.Write(p[:n])
	c.got += int64(n)
	return n, err
}

// verify reads what is left and says whether it is what Release names.
func (c *checked) verify() error {
	if _, err := io.Copy(io.Discard, c); err != nil {
		return err
	}
	n, err := io.ReadFull(c.ReadCloser, make([]byte, 1))
	if err != nil && err != io.EOF {
		return err
	}
	if n > 0 || c.got != c.want.size || hex.EncodeToString(c.hash.Sum(nil)) != c.want.sha {
		return errors.New("it is not the one that Release names; " +
			"the repository was changed just now, or is broken: try again")
	}
	return nil
}

// bounded ends with an error after so many bytes.
type bounded struct {
	r    io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, errors.New("it unpacks to more than Release says, or than an index may have")
	}
	return n, err
}

// get reads a small file of the repository whole. fs.ErrNotExist if it is not
// there.
func (r *Repository) get(ctx context.Context, name string, limit int64) ([]byte, error) {
	body, err := r.open(ctx, name)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	data, err := io.ReadAll(io.LimitReader(body, limit+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is larger than the %d bytes it may have", name, limit)
	}
	return data, nil
}

// open opens a file of the repository. The name has been checked to be local.
func (r *Repository) open(ctx context.Context, name string) (io.ReadCloser, error) {
	if !r.remote {
		f, err := os.OpenFile(filepath.Join(r.root, name), os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			return nil, err
		}
		if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
			f.Close()
			return nil, &fs.PathError{Op: "open", Path: name, Err: errors.New("is no regular file")}
		}
		return f, nil
	}
	// Names have '+', '~' and '%': each byte but the slashes is escaped as it
	// must be in a path.
	u := r.root + "/" + (&url.URL{Path: name}).EscapedPath()
	ctx, watch := r.watch(ctx, u)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.ReplaceAll(u, "+", "%2B"), nil)
	if err != nil {
		return nil, err
	}
	// The bytes themselves are wanted, whatever the server thinks of .gz.
	req.Header.Set("Accept-Encoding", "identity")
	req.Header.Set("User-Agent", "packmill")
	client := r.src.Client
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(req)
	if err != nil {
		watch.stop()
		return nil, watch.cause(err)
	}
	watch.body = resp.Body
	switch resp.StatusCode {
	case http.StatusOK:
		return watch, nil
	case http.StatusNotFound, http.StatusGone:
		watch.Close()
		return nil, &fs.PathError{Op: "get", Path: u, Err: fs.ErrNotExist}
	}
	watch.Close()
	return nil, &statusError{u, resp.StatusCode}
}

type statusError struct {
	url  string
	code int
}

func (e *statusError) Error() string {
	return fmt.Sprintf("get %s: the server says %d %s", e.url, e.code, http.StatusText(e.code))
}
