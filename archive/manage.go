package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"packmill/archive/index"
	"packmill/archive/opkg"
	"packmill/archive/release"
	"packmill/internal/deb822"
	"packmill/internal/durable"
	"packmill/internal/policy"
)

// Entry is a package in a suite.
type Entry struct {
	Component string // "main", or "main/debian-installer" of a .udeb
	Arch      string // of the package: "all" too; "source" for a source package
	Package   string
	Version   string
	Source    string // of a binary package
}

// List returns the packages of a suite, or of a snapshot ("NAME/SUITE"), whose
// name or whose source's name matches the pattern (path.Match; "" matches all),
// sorted by name.
func (a *Archive) List(ctx context.Context, view, pattern string) ([]Entry, error) {
	var out []Entry
	err := a.each(ctx, view, func(e Entry, _ *deb822.Scanner) error {
		if pattern != "" {
			ok, err := path.Match(pattern, e.Package)
			if err != nil {
				return fmt.Errorf("pattern %q: %w", pattern, err)
			}
			if !ok && e.Source != "" {
				ok, _ = path.Match(pattern, e.Source)
			}
			if !ok {
				return nil
			}
		}
		out = append(out, e)
		return nil
	})
	slices.SortFunc(out, func(x, y Entry) int {
		return strings.Compare(x.Package+" "+x.Arch+" "+x.Version, y.Package+" "+y.Arch+" "+y.Version)
	})
	return slices.Compact(out), err
}

// each calls do for each package of a view; one of all comes once.
func (a *Archive) each(ctx context.Context, view string, do func(Entry, *deb822.Scanner) error) error {
	dir, err := a.view(view)
	if err != nil {
		return err
	}
	rel, err := release.Read(dir)
	if err != nil {
		return err
	}
	if rel == nil {
		return fmt.Errorf("suite %s: %w", view, ErrNoSuite)
	}
	p := &published{a: a, ctx: ctx, name: view, dir: dir, rel: rel}
	for _, c := range p.areas() {
		seen := map[string]bool{} // packages for all, which some architectures have in older versions
		for _, arch := range append([]string{"all"}, append(p.archs(), "source")...) {
			at := packagesPath(c, arch)
			if arch == "source" {
				at = sourcesPath(c)
			}
			st := p.state(at)
			if st.Text.SHA256 == "" {
				continue
			}
			r, err := p.place(at).Published(st)
			if err != nil {
				return err
			}
			sc := deb822.NewScanner(r)
			for err == nil && sc.Next() {
				e := Entry{Component: c, Arch: arch, Package: string(sc.Get("Package")), Version: string(sc.Get("Version"))}
				if arch != "source" {
					if e.Arch = string(sc.Get("Architecture")); e.Arch == "all" {
						sum := string(sc.Get("SHA256"))
						if seen[sum] {
							continue
						}
						seen[sum] = true
					}
					src, _, _ := strings.Cut(string(sc.Get("Source")), " ")
					if e.Source = src; src == "" {
						e.Source = e.Package
					}
				}
				err = do(e, sc)
			}
			r.Close()
			if err == nil {
				err = sc.Err()
			}
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				return fmt.Errorf("read %s: %w", at, err)
			}
		}
	}
	return nil
}

// Show returns the stanzas of a package, source or binary, as they are
// published.
func (a *Archive) Show(ctx context.Context, view, name string) ([]string, error) {
	var out []string
	err := a.each(ctx, view, func(e Entry, sc *deb822.Scanner) error {
		if e.Package == name {
			out = append(out, string(sc.Raw()))
		}
		return nil
	})
	return out, err
}

// Difference is a package that two views do not have in the same version.
type Difference struct {
	Package, Arch string
	Old, New      string // versions; "" if it is not there
}

// Diff compares two suites or snapshots, sorted by package.
func (a *Archive) Diff(ctx context.Context, from, to string) ([]Difference, error) {
	type key struct{ name, arch string }
	versions := map[key][2]string{}
	for i, view := range []string{from, to} {
		err := a.each(ctx, view, func(e Entry, sc *deb822.Scanner) error {
			k := key{e.Package, e.Arch}
			v := versions[k]
			if sc.Get(extraSource) == nil && (v[i] == "" || policy.CompareVersions(v[i], e.Version) < 0) {
				v[i] = e.Version
				versions[k] = v
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	var out []Difference
	for k, v := range versions {
		if v[0] != v[1] {
			out = append(out, Difference{k.name, k.arch, v[0], v[1]})
		}
	}
	slices.SortFunc(out, func(x, y Difference) int { return strings.Compare(x.Package+" "+x.Arch, y.Package+" "+y.Arch) })
	return out, nil
}

// ChangeOptions say how a suite is changed.
type ChangeOptions struct {
	Dry   bool // nothing is written; the Plan says what would be
	Force bool // versions may go down (Copy and Move)
}

// change runs do on a suite as a transaction.
func (a *Archive) change(
	ctx context.Context, suite Suite, opt ChangeOptions, now time.Time, do func(*transaction, *Plan) error,
) (*Plan, error) {
	plan, rep := &Plan{}, &Report{}
	err := a.transact(ctx, suite, now, rep, func(t *transaction) (bool, error) {
		err := do(t, plan)
		return !opt.Dry && len(plan.Refused) == 0, err
	})
	plan.Changed = rep.Changed
	plan.Notes = append(plan.Notes, rep.Warnings...)
	return plan, err
}

// bundle is a source package with its binaries in a suite.
type bundle struct {
	name, version string
	component     string
	source        *deb822.Stanza // nil: the binaries came without it
	binaries      []built
}

// built is a binary package's stanza.
type built struct {
	component string
	st        deb822.Stanza
}

// bundle finds a source, in its newest or the given version, and what was
// built from it. It is nil if there is none.
func (p *published) bundle(name, version string) (*bundle, error) {
	b := &bundle{name: name}
	for _, c := range p.components() {
		list, err := p.stanzas(sourcesPath(c), name)
		if err != nil {
			return nil, err
		}
		for i := range list {
			v := list[i].Get("Version")
			if version == "" && (b.source == nil || policy.CompareVersions(v, b.version) > 0) || version == v {
				b.source, b.version, b.component = &list[i], v, c
			}
		}
	}
	if b.source == nil {
		return p.sourceless(name, version)
	}
	for _, n := range binariesOf(b.source) {
		for _, c := range p.areas() {
			for _, arch := range append(p.archs(), "all") {
				list, err := p.stanzas(packagesPath(c, arch), n)
				if err != nil {
					return nil, err
				}
				for i := range list {
					src, v := sourceOf(&list[i])
					// One for all that only some architectures have still is there once, too.
					twice := slices.ContainsFunc(b.binaries, func(x built) bool { return x.st.Get("SHA256") == list[i].Get("SHA256") })
					if src == name && v == b.version && !twice {
						b.binaries = append(b.binaries, built{c, list[i]})
					}
				}
			}
		}
	}
	return b, nil
}

// sourceless is the bundle of a source that the suite does not have: of what was imported
// without it. Nil: nothing says that it was built from that.
func (p *published) sourceless(name, version string) (*bundle, error) {
	b := &bundle{name: name, version: version}
	for _, c := range p.areas() {
		for _, arch := range append(p.archs(), "all") {
			err := p.records(packagesPath(c, arch), func(list []deb822.Stanza) {
				for i := range list {
					src, v := sourceOf(&list[i])
					twice := slices.ContainsFunc(b.binaries, func(x built) bool { return x.st.Get("SHA256") == list[i].Get("SHA256") })
					if src == name && (version == "" || v == version) && !twice {
						b.binaries = append(b.binaries, built{c, list[i]})
					}
				}
			})
			if err != nil {
				return nil, err
			}
		}
	}
	if b.binaries == nil {
		return nil, nil
	}
	return b, nil
}

// records calls do with the stanzas of each package of an index, as they are changed.
func (p *published) records(path string, do func([]deb822.Stanza)) error {
	each := func(text []byte) error {
		list, err := parse(path, text)
		do(list)
		return err
	}
	for _, text := range p.changes[path] {
		if err := each(text); err != nil {
			return err
		}
	}
	if p.state(path).Text.SHA256 == "" && p.open[path] == nil {
		return nil
	}
	x, err := p.index(path)
	if err != nil {
		return err
	}
	return x.All(func(key, text []byte) error {
		if _, changed := p.changes[path][string(key)]; changed {
			return nil
		}
		return each(text)
	})
}

// binariesOf are the names of a source's binary packages, and of their debug symbols'.
func binariesOf(source *deb822.Stanza) []string {
	names := deb822.Words(strings.ReplaceAll(source.Get("Binary"), ",", " "))
	for _, n := range slices.Clone(names) {
		names = append(names, n+"-dbgsym")
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// newer are the versions of a source that a forced older one takes the place
// of, with what was built from them: nothing stays whose source goes.
func (p *published) newer(source, than string) ([]*bundle, error) {
	var out []*bundle
	for _, c := range p.components() {
		list, err := p.stanzas(sourcesPath(c), source)
		if err != nil {
			return nil, err
		}
		for i := range list {
			if v := list[i].Get("Version"); policy.CompareVersions(v, than) > 0 {
				b, err := p.bundle(source, v)
				if err != nil {
					return nil, err
				}
				out = append(out, b)
			}
		}
	}
	return out, nil
}

// put enters a bundle into a suite, by the rules of an upload.
func (t *transaction) put(b *bundle, force bool, plan *Plan) error {
	if b.source == nil {
		plan.Notes = append(plan.Notes, b.name+" comes without its source, which is not where it comes from.")
	} else if !slices.Contains(t.suite.components(), b.component) {
		plan.refuse("%s %s: %s has no component %s.", b.name, b.version, t.suite.Name, b.component)
		return nil
	}
	if force && b.source != nil {
		newer, err := t.p.newer(b.name, b.version)
		for _, n := range newer {
			err = errors.Join(err, t.drop(n, plan))
		}
		if err != nil {
			return err
		}
	}
	if b.source != nil {
		if err := t.putSource(b, plan); err != nil {
			return err
		}
	}
	for i := range b.binaries {
		if err := t.putBinary(b, &b.binaries[i], force, plan); err != nil {
			return err
		}
	}
	return nil
}

func (p *Plan) refuse(format string, args ...any) {
	p.Refused = append(p.Refused, fmt.Sprintf(format, args...))
}

// putSource enters a bundle's source; older versions stay beside it.
func (t *transaction) putSource(b *bundle, plan *Plan) error {
	text := append(b.source.Append(nil), '\n')
	for _, c := range t.suite.components() {
		list, err := t.p.stanzas(sourcesPath(c), b.name)
		if err != nil {
			return err
		}
		for i := range list {
			v := list[i].Get("Version")
			switch cmp := policy.CompareVersions(b.version, v); {
			case cmp < 0:
				plan.refuse("%s %s: %s has the newer version %s; force it if that is meant.", b.name, b.version, t.suite.Name, v)
			case cmp > 0:
				text = append(list[i].Append(text), '\n')
			}
		}
		if c != b.component && len(list) > 0 {
			t.p.set(sourcesPath(c), b.name, nil)
		}
	}
	t.p.set(sourcesPath(b.component), b.name, text)
	plan.Added = append(plan.Added, Entry{b.component, "source", b.name, b.version, ""})
	return nil
}

// putBinary enters one binary package of a bundle; settleAll shows one for all where it belongs.
func (t *transaction) putBinary(b *bundle, x *built, force bool, plan *Plan) error {
	suite := t.suite
	name, arch := x.st.Get("Package"), x.st.Get("Architecture")
	e := Entry{x.component, arch, name, x.st.Get("Version"), b.name}
	if arch != "all" && !slices.Contains(suite.archs(), arch) {
		plan.Notes = append(plan.Notes,
			fmt.Sprintf("%s %s of %s stays out: %s has no such architecture.", name, e.Version, arch, suite.Name))
		return nil
	}
	if !slices.Contains(suite.components(), componentOf(x.component)) {
		plan.refuse("%s %s: %s has no component %s.", name, e.Version, suite.Name, x.component)
		return nil
	}
	for _, c := range alike(t.areas(), x.component) {
		list, err := t.p.stanzas(packagesPath(c, arch), name)
		if err != nil {
			return err
		}
		for j := range list {
			if v := list[j].Get("Version"); policy.CompareVersions(e.Version, v) < 0 && !force {
				plan.refuse("%s %s: %s has the newer version %s for %s; force it if that is meant.",
					name, e.Version, suite.Name, v, arch)
			}
		}
		if c != x.component && len(list) > 0 {
			t.p.set(packagesPath(c, arch), name, nil)
		}
	}
	t.p.set(packagesPath(x.component, arch), name, append(x.st.Append(nil), '\n'))
	plan.Added = append(plan.Added, e)
	return nil
}

// drop takes a bundle out of a suite.
func (t *transaction) drop(b *bundle, plan *Plan) error {
	if b.source != nil {
		if err := t.dropSource(b, plan); err != nil {
			return err
		}
	}
	for i := range b.binaries {
		x := &b.binaries[i]
		if err := t.dropBinary(x.component, &x.st, plan); err != nil {
			return err
		}
	}
	return nil
}

func (t *transaction) dropSource(b *bundle, plan *Plan) error {
	list, err := t.p.stanzas(sourcesPath(b.component), b.name)
	if err != nil {
		return err
	}
	var rest []byte
	for i := range list {
		if list[i].Get("Version") != b.version {
			rest = append(list[i].Append(rest), '\n')
		}
	}
	t.p.set(sourcesPath(b.component), b.name, rest)
	plan.Removed = append(plan.Removed, Entry{b.component, "source", b.name, b.version, ""})
	return nil
}

func (t *transaction) dropBinary(component string, st *deb822.Stanza, plan *Plan) error {
	name := st.Get("Package")
	paths, err := t.where(component, st)
	for _, at := range paths {
		t.p.set(at, name, nil)
	}
	src, _ := sourceOf(st)
	plan.Removed = append(plan.Removed, Entry{component, st.Get("Architecture"), name, st.Get("Version"), src})
	return err
}

// where are the Packages of a component that have this package.
func (t *transaction) where(component string, st *deb822.Stanza) ([]string, error) {
	archs := []string{st.Get("Architecture")}
	if archs[0] == "all" {
		archs = append(t.suite.archs(), "all")
	}
	var out []string
	for _, a := range archs {
		at := packagesPath(component, a)
		list, err := t.p.stanzas(at, st.Get("Package"))
		if err != nil {
			return nil, err
		}
		if len(list) == 1 && list[0].Get("SHA256") == st.Get("SHA256") {
			out = append(out, at)
		}
	}
	return out, nil
}

// splitName is "hello" or "hello_2.10-3".
func splitName(s string) (name, version string) {
	name, version, _ = strings.Cut(s, "_")
	return name, version
}

// Copy enters source packages with all their binaries into a suite as another
// suite or snapshot has them, all of them at once or none. A source is "hello"
// or "hello_2.10-3".
func (a *Archive) Copy(
	ctx context.Context, from string, to Suite, sources []string, opt ChangeOptions, now time.Time,
) (*Plan, error) {
	src, err := a.readView(ctx, from)
	if err != nil {
		return nil, err
	}
	defer src.close()
	return a.change(ctx, to, opt, now, func(t *transaction, plan *Plan) error {
		for _, s := range sources {
			b, err := src.bundle(splitName(s))
			if err != nil {
				return err
			}
			if b == nil {
				plan.Refused = append(plan.Refused, fmt.Sprintf("%s: %s has no such source package.", s, from))
				continue
			}
			if b.source != nil {
				b.source.Del(extraSource)
			}
			if err := t.translate(src, b); err != nil {
				return err
			}
			if err := t.put(b, opt.Force, plan); err != nil {
				return err
			}
		}
		return nil
	})
}

// translate brings along the long descriptions of a bundle, into the packages
// if the suite has no Translation-en.
func (t *transaction) translate(src *published, b *bundle) error {
	for i := range b.binaries {
		x := &b.binaries[i]
		name := x.st.Get("Package")
		list, err := src.stanzas(translationPath(x.component), name)
		if err != nil {
			return err
		}
		for j := range list {
			key, id := x.component+"/"+name, list[j].Get("Description-md5")
			if !t.translated(x.component) {
				if id == x.st.Get("Description-md5") {
					x.st.Set("Description", list[j].Get("Description-en"))
					x.st.Del("Description-md5")
				}
				continue
			}
			if t.descriptions[key] == nil {
				t.descriptions[key] = map[string][]byte{}
			}
			t.descriptions[key][id] = append(list[j].Append(nil), '\n')
		}
	}
	return nil
}

// readView reads a suite or, as "NAME/SUITE", a snapshot.
func (a *Archive) readView(ctx context.Context, view string) (*published, error) {
	dir, err := a.view(view)
	if err != nil {
		return nil, err
	}
	rel, err := release.Read(dir)
	if err != nil {
		return nil, err
	}
	if rel == nil {
		return nil, fmt.Errorf("suite %s: %w", view, ErrNoSuite)
	}
	name := filepath.Base(dir)
	if strings.Contains(view, "/") {
		name = "snapshots/" + view
	}
	return &published{a: a, ctx: ctx, name: name, dir: dir, rel: rel, open: map[string]*index.File{},
		changes: map[string]map[string][]byte{}}, nil
}

// Move is Copy, and then takes the packages out of the suite they came from.
// Between the two both have them.
func (a *Archive) Move(
	ctx context.Context, from, to Suite, sources []string, opt ChangeOptions, now time.Time,
) (*Plan, error) {
	plan, err := a.Copy(ctx, from.Name, to, sources, opt, now)
	if err != nil || len(plan.Refused) > 0 {
		return plan, err
	}
	rest, err := a.Remove(ctx, from, sources, opt, now)
	if rest != nil {
		plan.Removed = append(plan.Removed, rest.Removed...)
		plan.Notes = append(plan.Notes, rest.Notes...)
		plan.Refused = rest.Refused
		plan.Changed = plan.Changed || rest.Changed
	}
	return plan, err
}

// Remove takes packages out of a suite: a source with all its binaries, also where the
// suite has those alone, or a binary package if no source has the name. The files stay in the pool until
// nothing names them (see Collect). What gets uninstallable by it is said by
// Breaks.
func (a *Archive) Remove(
	ctx context.Context, suite Suite, names []string, opt ChangeOptions, now time.Time,
) (*Plan, error) {
	return a.change(ctx, suite, opt, now, func(t *transaction, plan *Plan) error {
		for _, n := range names {
			found, before := false, len(plan.Removed)
			for {
				b, err := t.p.bundle(splitName(n))
				if err != nil {
					return err
				}
				if b == nil {
					break
				}
				found = true
				if err := t.drop(b, plan); err != nil {
					return err
				}
			}
			name, version := splitName(n)
			for _, c := range t.p.areas() {
				for _, arch := range append(t.p.archs(), "all") {
					list, err := t.p.stanzas(packagesPath(c, arch), name)
					if err != nil {
						return err
					}
					for i := range list {
						if found || version != "" && list[i].Get("Version") != version {
							continue
						}
						if err := t.dropBinary(c, &list[i], plan); err != nil {
							return err
						}
					}
				}
			}
			if len(plan.Removed) == before {
				plan.Refused = append(plan.Refused, fmt.Sprintf("%s: %s has no such package.", n, t.suite.Name))
			}
		}
		return nil
	})
}

// Override gives a package ("src:NAME" for a source) another section or
// priority where it is published now; "" leaves one. Later versions need it in
// the suite's settings.
func (a *Archive) Override(
	ctx context.Context, suite Suite, name string, o Override, opt ChangeOptions, now time.Time,
) (*Plan, error) {
	return a.change(ctx, suite, opt, now, func(t *transaction, plan *Plan) error {
		src, isSource := strings.CutPrefix(name, "src:")
		for _, c := range t.areas() {
			var paths []string
			if isSource {
				paths = []string{sourcesPath(c)}
			} else {
				for _, arch := range append(t.suite.archs(), "all") {
					paths = append(paths, packagesPath(c, arch))
				}
			}
			for _, at := range paths {
				list, err := t.p.stanzas(at, src)
				if err != nil {
					return err
				}
				if len(list) == 0 {
					continue
				}
				var text []byte
				for i := range list {
					if o.Section != "" {
						list[i].Set("Section", o.Section)
					}
					if o.Priority != "" {
						list[i].Set("Priority", o.Priority)
					}
					text = append(list[i].Append(text), '\n')
					plan.Added = append(plan.Added,
						Entry{Component: c, Arch: list[i].Get("Architecture"), Package: src, Version: list[i].Get("Version")})
				}
				t.p.set(at, src, text)
			}
		}
		if len(plan.Added) == 0 {
			plan.Refused = append(plan.Refused, fmt.Sprintf("%s: %s has no such package.", name, t.suite.Name))
		}
		return nil
	})
}

// Snapshot keeps a suite as it is now, at snapshots/NAME, an address that apt
// and opkg can use: hard links to the indexes and feeds, and links to the pools, of
// which nothing goes that a snapshot names. Its Release does not expire: if the suite's does, it
// is signed anew. The name is new or has not got this suite yet.
func (a *Archive) Snapshot(ctx context.Context, suite Suite, name string, now time.Time) error {
	if err := policy.CheckSuite(name); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	keys, err := a.keys(&suite, now)
	if err != nil {
		return err
	}
	unlock, err := a.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	p, err := a.readView(ctx, suite.Name)
	if err != nil {
		return err
	}
	top := a.path("snapshots", name)
	to := filepath.Join(top, "dists", filepath.Base(p.dir))
	if _, err := os.Lstat(to); err == nil {
		return fmt.Errorf("snapshot %s has %s already (%w); choose another name, or remove it first",
			name, filepath.Base(p.dir), fs.ErrExist)
	}
	tmp := filepath.Join(top, "dists", ".new-"+filepath.Base(p.dir))
	if err := durable.RemoveAll(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := durable.MkdirAll(filepath.Dir(tmp), 0o755); err != nil {
		return err
	}
	if err := linkSuite(p.rel, p.dir, tmp); err != nil {
		return err
	}
	if err := p.signSnapshot(tmp, keys.openpgp, now); err != nil {
		return err
	}
	if err := durable.SyncTree(tmp); err != nil {
		return err
	}
	if err := durable.Symlink("../../pool", filepath.Join(top, "pool")); err != nil {
		return err
	}
	// The feeds may be behind, if the last publication was cut off.
	t := &transaction{a: a, suite: &suite, p: p, now: now.UTC().Truncate(time.Second)}
	if err := t.feeds(keys, &Report{}); err != nil {
		return err
	}
	if err := a.keepFeeds(filepath.Base(p.dir), top); err != nil {
		return err
	}
	if err := a.keepKeys(filepath.Base(p.dir), top); err != nil {
		return err
	}
	return durable.Rename(tmp, to)
}

// signSnapshot puts the suite's signed Release into a snapshot's directory, or,
// since a snapshot's does not expire, one that is signed anew.
func (p *published) signSnapshot(dir string, keys []*loadedKey, now time.Time) error {
	if !p.rel.Until.IsZero() {
		p.rel.Until = time.Time{}
		return release.Sign(dir, p.rel.Text(), signersOf(keys), now)
	}
	for _, n := range []string{"Release", "Release.gpg", "InRelease"} {
		if err := os.Link(filepath.Join(p.dir, n), filepath.Join(dir, n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// keepKeys copies the suite's public keys into a snapshot.
func (a *Archive) keepKeys(suite, snapshot string) error {
	for _, k := range publicKeys(a.root, suite) {
		data, err := os.ReadFile(a.path(k))
		if err != nil {
			return err
		}
		if err := durable.MkdirAll(filepath.Join(snapshot, "keys"), 0o755); err != nil {
			return err
		}
		if err := durable.WriteFile(filepath.Join(snapshot, k), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// keepFeeds links the suite's opkg feeds into a snapshot, and their pool.
func (a *Archive) keepFeeds(suite, snapshot string) error {
	to := filepath.Join(snapshot, "opkg", suite)
	tmp := filepath.Join(snapshot, "opkg", ".new-"+suite)
	for _, left := range []string{tmp, to} { // of a run that was cut off
		if err := durable.RemoveAll(left); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if feeds, err := opkg.Feeds(a.root, suite); err != nil || len(feeds) == 0 {
		return err
	}
	if err := durable.MkdirAll(filepath.Dir(tmp), 0o755); err != nil {
		return err
	}
	if err := opkg.Keep(a.root, suite, tmp); err != nil {
		return err
	}
	if err := durable.SyncTree(tmp); err != nil {
		return err
	}
	if err := durable.Symlink("../../../opkg/pool", filepath.Join(snapshot, "opkg/pool")); err != nil {
		return err
	}
	return durable.Rename(tmp, to)
}

// linkSuite links the indexes that a Release names from one suite's directory
// into another, under their names and their checksums.
func linkSuite(rel *release.Release, from, to string) error {
	for _, at := range sortedKeys(rel.Sums) {
		sum := rel.Sums[at]
		hash := filepath.Join(filepath.Dir(filepath.FromSlash(at)), "by-hash", "SHA256", sum.SHA256)
		if _, err := os.Lstat(filepath.Join(from, hash)); errors.Is(err, fs.ErrNotExist) {
			continue // a plain text that is only summed
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(to, hash)), 0o755); err != nil {
			return err
		}
		for _, name := range []string{hash, filepath.FromSlash(at)} {
			if err := os.Link(filepath.Join(from, hash), filepath.Join(to, name)); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
		}
		for _, name := range patchFiles(rel, from, at) {
			if err := os.Link(filepath.Join(from, name), filepath.Join(to, name)); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
		}
	}
	return nil
}

// patched are the index and its state of which a Release that lies in dir names the patches' Index as at.
func patched(rel *release.Release, dir, at string) (index.Place, index.State, bool) {
	path, ok := strings.CutSuffix(at, index.PatchIndex)
	return index.Place{Dir: filepath.Join(dir, filepath.Dir(path)), Name: filepath.Base(path)},
		index.State{Text: rel.Sums[path], Patches: rel.Sums[at]}, ok
}

// patchFiles are the patches, below dir, of which a Release that lies there names the Index as at.
func patchFiles(rel *release.Release, dir, at string) (names []string) {
	if place, st, ok := patched(rel, dir, at); ok {
		for _, name := range place.PatchFiles(st) {
			names = append(names, filepath.Join(filepath.Dir(filepath.Dir(at)), name))
		}
	}
	return names
}

// Rollback makes a suite what a snapshot has, by one exchange of directories, and
// then the feeds for opkg, each by its own.
// The Release gets a new date, for apt takes no older one; the indexes that
// clients may be reading stay under their checksums. What the settings have
// gained since follows in a publication of its own.
func (a *Archive) Rollback(ctx context.Context, suite Suite, snapshot string, now time.Time) error {
	if err := a.exchange(ctx, suite, snapshot, now); err != nil {
		return err
	}
	_, err := a.Publish(ctx, suite, nil, now)
	return err
}

func (a *Archive) exchange(ctx context.Context, suite Suite, snapshot string, now time.Time) error {
	if err := suite.check(); err != nil {
		return err
	}
	keys, err := a.keys(&suite, now)
	if err != nil {
		return err
	}
	unlock, err := a.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	src, err := a.readView(ctx, snapshot+"/"+suite.Name)
	if err != nil {
		return err
	}
	cur, err := a.read(ctx, suite.Name)
	if err != nil {
		return err
	}
	tmp := a.path("dists", ".new-"+suite.Name)
	if err := durable.RemoveAll(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := linkSuite(src.rel, src.dir, tmp); err != nil {
		return err
	}
	if cur.rel != nil {
		if err := keepHashed(cur.dir, tmp, now); err != nil {
			return err
		}
	}
	t := &transaction{a: a, suite: &suite, p: src, now: now.UTC().Truncate(time.Second)}
	t.notBefore(cur.rel)
	rel := t.release()
	for _, f := range []string{"Architectures", "Components"} { // as they were
		for i := range rel.Fields {
			if rel.Fields[i].Name == f {
				rel.Fields[i].Value = src.rel.Get(f)
			}
		}
	}
	rel.Sums = src.rel.Sums
	if err := t.sign(tmp, rel, keys.openpgp); err != nil {
		return err
	}
	if err := durable.SyncTree(tmp); err != nil {
		return err
	}
	if cur.rel == nil {
		err = durable.Rename(tmp, cur.dir)
	} else if err = durable.Exchange(tmp, cur.dir); err == nil {
		err = durable.RemoveAll(tmp)
	}
	if err != nil {
		return err
	}
	return t.feeds(keys, &Report{})
}

// keepHashed links the indexes that clients of a suite's directory may be reading
// into another, under their checksums.
func keepHashed(from, to string, now time.Time) error {
	return filepath.WalkDir(from, func(old string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || filepath.Base(filepath.Dir(old)) != "SHA256" {
			return err
		}
		name, err := filepath.Rel(from, old)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(to, name)), 0o755); err != nil {
			return err
		}
		if err := os.Link(old, filepath.Join(to, name)); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return os.Chtimes(old, now, now) // superseded from now on
	})
}

// RemoveSnapshot takes a snapshot away. Its packages stay in the pool until
// nothing names them and Collect has waited.
func (a *Archive) RemoveSnapshot(ctx context.Context, name string) error {
	if err := policy.CheckSuite(name); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	unlock, err := a.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	from := a.path("snapshots", name)
	if _, err := os.Lstat(from); err != nil {
		return fmt.Errorf("remove snapshot: %w", err)
	}
	gone := a.path("snapshots", ".gone-"+name)
	if err := durable.RemoveAll(gone); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := durable.Rename(from, gone); err != nil {
		return err
	}
	return durable.RemoveAll(gone)
}
