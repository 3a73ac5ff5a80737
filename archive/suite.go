package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"packmill/archive/index"
	"packmill/archive/release"
	"packmill/internal/compression"
	"packmill/internal/deb822"
	"packmill/internal/openpgp"
	"packmill/internal/policy"
)

// Paths of indexes, relative to the suite's directory.
func packagesPath(component, arch string) string { return component + "/binary-" + arch + "/Packages" }
func sourcesPath(component string) string        { return component + "/source/Sources" }
func translationPath(component string) string    { return component + "/i18n/Translation-en" }

// An area is what one Packages covers: a component, or the part of a component
// that belongs to the Debian installer, whose packages (.udeb) live apart.
const installer = "/debian-installer"

// withInstaller adds to the components the installer's part of those that have one.
func (p *published) withInstaller(components []string) []string {
	out := slices.Clone(components)
	for _, c := range components {
		if a := c + installer; p.udebs[a] || p.state(packagesPath(a, "all")).Text.SHA256 != "" {
			out = append(out, c+installer)
		}
	}
	return out
}

// contentsPath is that of an area's lists of files, named as dak names them.
func contentsPath(area, arch string) string {
	if c := componentOf(area); c != area {
		return c + "/Contents-udeb-" + arch
	}
	return area + "/Contents-" + arch
}

func componentOf(area string) string { return strings.TrimSuffix(area, installer) }

// alike are the areas of the same kind, in which a package has its name once.
func alike(areas []string, area string) []string {
	return slices.DeleteFunc(areas, func(a string) bool {
		return strings.HasSuffix(a, installer) != strings.HasSuffix(area, installer)
	})
}

// published is a suite as its InRelease describes it, with changes on top that
// are not published yet. The newest lie in changes; when these are many, they
// move into the open index files (see transaction.absorb).
type published struct {
	a       *Archive
	ctx     context.Context
	name    string
	dir     string           // dists/NAME
	rel     *release.Release // nil if there is none yet
	open    map[string]*index.File
	changes map[string]map[string][]byte // by path and key
	size    int                          // bytes in changes
	udebs   map[string]bool              // areas of the installer that get packages
}

func (a *Archive) read(ctx context.Context, suite string) (*published, error) {
	p := &published{a: a, ctx: ctx, name: suite, dir: a.path("dists", suite),
		open: map[string]*index.File{}, changes: map[string]map[string][]byte{}}
	rel, err := release.Read(p.dir)
	if err != nil {
		return nil, fmt.Errorf("read suite %s: %w", suite, err)
	}
	p.rel = rel
	return p, nil
}

func (p *published) close() {
	for _, x := range p.open {
		x.Close()
	}
}

func (p *published) place(path string) index.Place {
	format := index.Stanzas
	if strings.Contains(path, "/Contents-") {
		format = index.Lines
	}
	return index.Place{Format: format, Cache: p.a.path("cache", p.name, filepath.FromSlash(path)),
		Dir: filepath.Join(p.dir, filepath.Dir(path)), Name: filepath.Base(path)}
}

// state is what the Release says of the index; the zero State if it does not
// know it.
func (p *published) state(path string) index.State {
	if p.rel == nil {
		return index.State{}
	}
	text, ok := p.rel.Sums[path]
	if !ok {
		return index.State{}
	}
	st := index.State{Text: text, Forms: map[compression.Kind]index.Sum{}, Patches: p.rel.Sums[path+index.PatchIndex]}
	for _, c := range index.Forms() {
		if sum, ok := p.rel.Sums[path+c.Suffix()]; ok {
			// The plain text's sum always stands there; the file may not.
			if c != compression.Plain || p.place(path).HasPlain(sum.SHA256) {
				st.Forms[c] = sum
			}
		}
	}
	return st
}

func (p *published) index(path string) (*index.File, error) {
	if x := p.open[path]; x != nil {
		return x, nil
	}
	x, err := index.Open(p.ctx, p.place(path), p.state(path))
	if err != nil {
		return nil, err
	}
	p.open[path] = x
	return x, nil
}

// get returns the records under key, changes included, or nil.
func (p *published) get(path, key string) ([]byte, error) {
	if r, ok := p.changes[path][key]; ok {
		return r, nil
	}
	return p.before(path, key)
}

// before returns the records under key without the newest changes.
func (p *published) before(path, key string) ([]byte, error) {
	if p.open[path] == nil {
		if p.rel == nil {
			return nil, nil
		}
		if _, ok := p.rel.Sums[path]; !ok {
			return nil, nil
		}
	}
	x, err := p.index(path)
	if err != nil {
		return nil, err
	}
	r, err := x.Get(key)
	return slices.Clone(r), err
}

func (p *published) set(path, key string, records []byte) {
	if p.changes[path] == nil {
		p.changes[path] = map[string][]byte{}
	}
	p.changes[path][key] = records
	if area, _, ok := strings.Cut(path, "/binary-"); ok && area != componentOf(area) {
		if p.udebs == nil {
			p.udebs = map[string]bool{}
		}
		p.udebs[area] = true
	}
	p.size += len(key) + len(records) + 100
}

// own are the limits of what is read from our own indexes: more than any
// package that was let in.
var own = deb822.Limits{Size: 64 << 20, Fields: 400, Lines: 1 << 20, LineLength: 1 << 20}

// stanzas are the records of key as stanzas.
func (p *published) stanzas(path, key string) ([]deb822.Stanza, error) {
	text, err := p.get(path, key)
	if err != nil {
		return nil, err
	}
	return parse(path, text)
}

func parse(path string, records []byte) ([]deb822.Stanza, error) {
	if len(records) == 0 {
		return nil, nil
	}
	return deb822.Parse(path, records, own)
}

// components the Release names.
func (p *published) components() []string {
	if p.rel == nil {
		return nil
	}
	return deb822.Words(p.rel.Get("Components"))
}

// areas are the components, and what they have for the installer.
func (p *published) areas() []string {
	return p.withInstaller(p.components())
}

// archs are the concrete architectures that the Release names.
func (p *published) archs() []string {
	if p.rel == nil {
		return nil
	}
	return slices.DeleteFunc(deb822.Words(p.rel.Get("Architectures")), func(a string) bool { return a == "all" })
}

// ErrNoSuite says that nothing has been published under this name.
var ErrNoSuite = errors.New("no such suite")

// Suites are the names of all suites, without aliases.
func (a *Archive) Suites() ([]string, error) {
	list, err := os.ReadDir(a.path("dists"))
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range list {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// Version is one version of a source package in a suite.
type Version struct {
	Suite, Component, Version string
}

// Versions returns where the source package is, over all suites.
func (a *Archive) Versions(ctx context.Context, source string) ([]Version, error) {
	suites, err := a.Suites()
	if err != nil {
		return nil, err
	}
	var out []Version
	for _, s := range suites {
		p, err := a.read(ctx, s)
		if err != nil {
			return nil, err
		}
		for _, c := range p.components() {
			list, err := p.stanzas(sourcesPath(c), source)
			if err != nil {
				p.close()
				return nil, err
			}
			for i := range list {
				out = append(out, Version{s, c, list[i].Get("Version")})
			}
		}
		p.close()
	}
	return out, nil
}

// Builders returns the sources of those of the named binary packages that the
// suite has, by package: of several versions, the highest one's.
func (a *Archive) Builders(ctx context.Context, suite string, packages []string) (map[string]string, error) {
	p, err := a.read(ctx, suite)
	if err != nil {
		return nil, err
	}
	defer p.close()
	sources, versions := map[string]string{}, map[string]string{}
	for _, c := range p.components() {
		for _, arch := range append(p.archs(), "all") {
			for _, name := range packages {
				list, err := p.stanzas(packagesPath(c, arch), name)
				if err != nil {
					return nil, err
				}
				for i := range list {
					v := list[i].Get("Version")
					if versions[name] != "" && policy.CompareVersions(v, versions[name]) <= 0 {
						continue
					}
					source, _, _ := strings.Cut(list[i].Get("Source"), " ")
					if source == "" {
						source = name
					}
					sources[name], versions[name] = source, v
				}
			}
		}
	}
	return sources, nil
}

// Has reports whether the suite has this version of the source package.
func (a *Archive) Has(ctx context.Context, suite, source, version string) (bool, error) {
	p, err := a.read(ctx, suite)
	if err != nil {
		return false, err
	}
	defer p.close()
	s, _, err := p.source(p.components(), source, version)
	return s != nil, err
}

// Current returns the version of a source package that the suite is built from,
// the newest one; what is kept only because something was built with it does not
// count. "" says that the suite has none.
func (a *Archive) Current(ctx context.Context, suite, source string) (string, error) {
	p, err := a.read(ctx, suite)
	if errors.Is(err, ErrNoSuite) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer p.close()
	newest := ""
	for _, c := range p.components() {
		list, err := p.stanzas(sourcesPath(c), source)
		if err != nil {
			return "", err
		}
		for i := range list {
			v := list[i].Get("Version")
			if list[i].Get("Extra-Source-Only") != "yes" && (newest == "" || policy.CompareVersions(v, newest) > 0) {
				newest = v
			}
		}
	}
	return newest, nil
}

// SignedSource returns what the suite's Sources, as they are published, say of a
// version of a source, and its component; nil if the suite does not have it. The
// signature of InRelease is verified first, by the suite's keys. A suite
// without Sign-With has none: then only the owner of dists vouches for it.
func (a *Archive) SignedSource(ctx context.Context, suite, source, version string) (*deb822.Stanza, string, error) {
	p, err := a.read(ctx, suite)
	if err != nil {
		return nil, "", err
	}
	defer p.close()
	name := filepath.Join(p.dir, "InRelease")
	data, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, "", err
	}
	if err == nil {
		public, err := os.ReadFile(a.path("keys", suite+".asc"))
		if err != nil {
			return nil, "", err
		}
		keys, err := openpgp.ReadKeyring(public)
		if err != nil {
			return nil, "", err
		}
		text, _, err := keys.VerifyRelease(data, time.Now())
		if err != nil {
			return nil, "", fmt.Errorf("%s: %w", name, err)
		}
		if p.rel, err = release.Parse(name, text); err != nil {
			return nil, "", err
		}
	}
	return p.source(p.components(), source, version)
}

// source finds a version of a source package and its component.
func (p *published) source(components []string, name, version string) (*deb822.Stanza, string, error) {
	for _, c := range components {
		list, err := p.stanzas(sourcesPath(c), name)
		if err != nil {
			return nil, "", err
		}
		for i := range list {
			if policy.CompareVersions(list[i].Get("Version"), version) == 0 {
				return &list[i], c, nil
			}
		}
	}
	return nil, "", nil
}

// IndexFile is a published index file.
type IndexFile struct {
	Path      string // absolute; it keeps its content, and stays for the suite's Stay
	Component string
	Arch      string // "source" for Sources
}

// IndexFiles returns the suite's Packages of the architecture, or its Sources
// if arch is "source": a file for each component, in the form that is
// cheapest to read.
func (a *Archive) IndexFiles(suite, arch string) ([]IndexFile, error) {
	p, err := a.read(context.Background(), suite)
	if err != nil {
		return nil, err
	}
	if p.rel == nil {
		return nil, fmt.Errorf("suite %s: %w", suite, ErrNoSuite)
	}
	var out []IndexFile
	for _, c := range p.components() {
		path := packagesPath(c, arch)
		if arch == "source" {
			path = sourcesPath(c)
		}
		st := p.state(path)
		for _, form := range index.Forms() {
			if sum, ok := st.Forms[form]; ok {
				out = append(out, IndexFile{p.place(path).ByHash(sum.SHA256), c, arch})
				break
			}
		}
	}
	return out, nil
}

// PoolFile returns the SHA-256, in hexadecimal, and the size of a file of the
// pool, read anew until ctx ends. The name is relative to the archive, "pool/main/...".
func (a *Archive) PoolFile(ctx context.Context, name string) (sha string, size int64, err error) {
	if !filepath.IsLocal(name) || !strings.HasPrefix(name, "pool/") {
		return "", 0, fmt.Errorf("pool file %q: %w", name, fs.ErrInvalid)
	}
	s, err := sumUntil(ctx, a.path(name))
	return s.SHA256, s.Size, err
}
