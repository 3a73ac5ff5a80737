package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"packmill/archive/push"
	"packmill/internal/durable"
)

// manifest lists the files that someone else needs to have a suite: in the
// order in which they must arrive, so that no client ever finds a file missing
// that another one names. The names are relative to the archive, or to the
// snapshot.
type manifest struct {
	pool    []string
	indexes []string // under their checksums first, then under their names
	release []string // Release and Release.gpg
	last    string   // InRelease, or Release of a suite without keys
	aliases []string // the same of the suite's further names
	links   []link
}

// A link is a symbolic link.
type link struct{ name, to string }

// manifest reads a view; a suite is linked into frozen first, as it is at one
// moment.
func (a *Archive) manifest(ctx context.Context, view, frozen string) (*manifest, *published, error) {
	unlock, err := a.lock(ctx)
	if err != nil {
		return nil, nil, err
	}
	p, err := a.readView(ctx, view)
	if err == nil && !strings.Contains(view, "/") {
		suite := filepath.Base(p.dir)
		err = push.Freeze(a.root, frozen, suite)
		p.dir = filepath.Join(frozen, "dists", suite)
	}
	unlock()
	if err != nil {
		return nil, nil, err
	}
	m := &manifest{}
	named := map[string]bool{}
	if err := errors.Join(p.references(named), a.papers(named)); err != nil {
		return nil, nil, err
	}
	m.pool = sortedKeys(named)
	suite := filepath.Base(p.dir)
	top := filepath.Join("dists", suite)
	m.indexes = append(p.indexNames(top), publicKeys(p.base(), suite)...)
	for _, n := range []string{"Release", "Release.gpg", "InRelease"} {
		if _, err := os.Lstat(filepath.Join(p.dir, n)); err == nil {
			m.release = append(m.release, filepath.Join(top, n))
		}
	}
	if len(m.release) == 0 {
		return nil, nil, fmt.Errorf("suite %s: %w", view, ErrNoSuite)
	}
	m.last = m.release[len(m.release)-1]
	m.release = m.release[:len(m.release)-1]
	if !strings.Contains(view, "/") {
		err = m.furtherNames(a, p, suite)
	}
	return m, p, err
}

// indexNames are the indexes that the Release names: first under their checksums,
// then under their names.
func (p *published) indexNames(top string) []string {
	var byHash, plain []string
	for _, at := range sortedKeys(p.rel.Sums) {
		hash := filepath.Join(filepath.Dir(at), "by-hash", "SHA256", p.rel.Sums[at].SHA256)
		if _, err := os.Lstat(filepath.Join(p.dir, hash)); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		byHash = append(byHash, filepath.Join(top, hash))
		for _, name := range patchFiles(p.rel, p.dir, at) {
			byHash = append(byHash, filepath.Join(top, name))
		}
		plain = append(plain, filepath.Join(top, at))
	}
	return append(slices.Compact(byHash), plain...)
}

// furtherNames adds the links that lead to the suite, and what it publishes under
// its aliases.
func (m *manifest) furtherNames(a *Archive, p *published, suite string) error {
	list, err := os.ReadDir(a.path("dists"))
	if err != nil {
		return err
	}
	for _, e := range list {
		if to, err := os.Readlink(a.path("dists", e.Name())); err == nil && suiteOf(to) == suite {
			m.links = append(m.links, link{filepath.Join("dists", e.Name()), to})
		}
	}
	own, err := filepath.Glob(filepath.Join(p.dir, aliases, "*", "*"))
	if err != nil {
		return err
	}
	slices.Reverse(own) // InRelease last
	for _, name := range own {
		rel, err := filepath.Rel(p.base(), name)
		if err != nil {
			return err
		}
		if to, err := os.Readlink(name); err == nil {
			m.links = append(m.links, link{rel, to})
		} else {
			m.aliases = append(m.aliases, rel)
		}
	}
	return nil
}

// base is the directory that a manifest's names begin in.
func (p *published) base() string { return filepath.Dir(filepath.Dir(p.dir)) }

// Transfer says what an export or push did.
type Transfer struct {
	Files, There int   // sent, and there already
	Bytes        int64 // sent
}

// ExportOptions say how Export writes.
type ExportOptions struct {
	Link     bool // hard links where they are possible
	Dry      bool // nothing is written
	Progress func(done, all int)
}

// Export writes a suite or snapshot, with the packages that it names and no
// others, into a directory that can be served or carried away. What is there
// already is not written again; a client that reads the directory meanwhile
// sees the old publication or the new one.
func (a *Archive) Export(ctx context.Context, view, dir string, opt ExportOptions) (*Transfer, error) {
	// Frozen, or what is copied last could name what was not copied.
	frozen, err := os.MkdirTemp(a.path("cache"), "export-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(frozen)
	m, p, err := a.manifest(ctx, view, filepath.Join(frozen, "tree"))
	if err != nil {
		return nil, err
	}
	t := &Transfer{}
	all := slices.Concat(m.pool, m.indexes, m.release, []string{m.last}, m.aliases)
	for i, name := range all {
		if err := ctx.Err(); err != nil {
			return t, err
		}
		if opt.Progress != nil {
			opt.Progress(i, len(all))
		}
		from := filepath.Join(p.base(), name)
		if strings.HasPrefix(name, "pool/") {
			from = a.path(name)
		}
		if err := t.export(name, from, filepath.Join(dir, name), opt); err != nil {
			return t, fmt.Errorf("export %s: %w", name, err)
		}
	}
	if opt.Dry {
		return t, nil
	}
	for _, l := range m.links {
		to := filepath.Join(dir, l.name)
		if err := durable.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return t, err
		}
		if err := durable.Symlink(l.to, to); err != nil {
			return t, err
		}
	}
	return t, nil
}

// export writes the file that the manifest calls name, if it is not there.
func (t *Transfer) export(name, from, to string, opt ExportOptions) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	constant := strings.HasPrefix(name, "pool/") || strings.Contains(name, "/by-hash/")
	there, err := sameThere(from, info, to, constant)
	if err != nil {
		return err
	}
	if there {
		t.There++
		return nil
	}
	t.Files++
	t.Bytes += info.Size()
	if opt.Dry {
		return nil
	}
	if err := durable.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return place(from, to, opt.Link)
}

// sameThere reports whether to has from's content. Names that never change
// their content are believed at the same size.
func sameThere(from string, info fs.FileInfo, to string, constant bool) (bool, error) {
	old, err := os.Stat(to)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if os.SameFile(info, old) {
		return true, nil
	}
	if old.Size() != info.Size() || constant {
		return old.Size() == info.Size(), nil
	}
	x, err := sumFile(from)
	if err != nil {
		return false, err
	}
	y, err := sumFile(to)
	return x == y, err
}

// place puts a file at to in one step, synced.
func place(from, to string, link bool) error {
	tmp := filepath.Join(filepath.Dir(to), ".new-"+filepath.Base(to))
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if !link || os.Link(from, tmp) != nil {
		src, err := os.Open(from)
		if err != nil {
			return err
		}
		defer src.Close()
		dst, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return err
		}
		if _, err := io.Copy(dst, src); err != nil {
			dst.Close()
			return err
		}
		if err := durable.SyncFile(dst); err != nil {
			dst.Close()
			return err
		}
		if err := dst.Close(); err != nil {
			return err
		}
	}
	return durable.Replace(tmp, to)
}

// Handler serves the archive for trying it out: what clients need, and nothing
// else that lies there, nor its name. For real use a web server does it.
func (a *Archive) Handler() http.Handler {
	files := http.FileServer(forClients{http.Dir(a.root)})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		switch clean := path.Clean("/" + r.URL.Path); {
		case strings.Contains(clean, "/by-hash/") || strings.HasPrefix(clean, "/pool/"):
			w.Header().Set("Cache-Control", "public, max-age=86400")
		default:
			w.Header().Set("Cache-Control", "no-cache")
		}
		files.ServeHTTP(w, r)
	})
}

// Serve answers at the listener with Handler until the context ends.
func (a *Archive) Serve(ctx context.Context, l net.Listener) error {
	s := &http.Server{Handler: a.Handler(), ReadHeaderTimeout: 10 * time.Second}
	go func() {
		<-ctx.Done()
		s.Close()
	}()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// forClients is what of an archive's directory clients may see, decided by the name
// that is opened and not by how it was asked for.
type forClients struct{ all http.Dir }

func hidden(name string) bool {
	name = path.Clean("/" + name)
	top, _, _ := strings.Cut(name[1:], "/")
	return strings.Contains(name, "/.") ||
		top != "" && !slices.Contains([]string{"pool", "dists", "opkg", "snapshots", "keys"}, top)
}

func (f forClients) Open(name string) (http.File, error) {
	if hidden(name) {
		return nil, fs.ErrNotExist
	}
	file, err := f.all.Open(name)
	if err != nil {
		return nil, err
	}
	return listedFile{file, name}, nil
}

// listedFile is a file whose directory has only names that may be opened.
type listedFile struct {
	http.File
	name string
}

func (l listedFile) Readdir(n int) ([]fs.FileInfo, error) {
	all, err := l.File.Readdir(n)
	return slices.DeleteFunc(all, func(info fs.FileInfo) bool { return hidden(path.Join(l.name, info.Name())) }), err
}

// Sources is the text of a .sources file (sources.list(5)) for a suite at the
// address, with the public keys in it, ready to be put into
// /etc/apt/sources.list.d.
func (a *Archive) Sources(suite Suite, address string) (string, error) {
	keys, err := a.signers(&suite, time.Now())
	if err != nil {
		return "", err
	}
	p, err := a.readView(context.Background(), suite.Name)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Types: deb deb-src\nURIs: %s\nSuites: %s\nComponents: %s\n",
		address, suite.Name, strings.Join(p.components(), " "))
	if len(keys) == 0 {
		b.WriteString("Trusted: yes\n")
		return b.String(), nil
	}
	b.WriteString("Signed-By:\n")
	for _, k := range keys {
		for line := range strings.Lines(string(k.signer.Public())) {
			line = strings.TrimRight(line, "\n")
			if line == "" {
				line = "."
			}
			b.WriteString(" " + line + "\n")
		}
	}
	return b.String(), nil
}
