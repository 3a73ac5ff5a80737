package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"packmill/archive/index"
	"packmill/archive/pool"
	"packmill/archive/release"
	"packmill/internal/compression"
	"packmill/internal/deb822"
)

// Report says what a publication did.
type Report struct {
	Results []Result // one for each inclusion, in their order
	Changed bool     // clients see something new
	Date    time.Time

	// Warnings are what a person should know or do soon, a sentence each: a key
	// expires, opkg's feeds go without a package.
	Warnings []string
}

// keyNotice is how long before its end a signing key is warned of: clients must
// have the next one by then.
const keyNotice = 30 * 24 * time.Hour

// transaction is one publication in the making.
type transaction struct {
	a     *Archive
	suite *Suite
	p     *published
	pool  *pool.Placer
	now   time.Time

	// descriptions that go to Translation-en, by "COMPONENT/PACKAGE" and checksum
	descriptions map[string]map[string][]byte
}

// Publish includes a batch of uploads in a suite and makes the result visible
// in one step. Each inclusion stands for itself: one that is refused does not
// stop the others. Sources go before binaries, whatever the order of the batch.
// An empty batch brings the suite in line with its settings, and renews a
// Release that is about to expire. If nothing changes nothing is written.
//
// After an error nothing of the batch is visible, unless the error came after
// the last rename; the same call again does what is left, and what was done
// before is AlreadyThere.
func (a *Archive) Publish(ctx context.Context, suite Suite, batch []Inclusion, now time.Time) (*Report, error) {
	return a.publish(ctx, suite, batch, ChangeOptions{}, now)
}

// Try says what Publish would answer, and changes nothing but the cache.
func (a *Archive) Try(ctx context.Context, suite Suite, batch []Inclusion, now time.Time) (*Report, error) {
	return a.publish(ctx, suite, batch, ChangeOptions{Dry: true}, now)
}

func (a *Archive) publish(
	ctx context.Context, suite Suite, batch []Inclusion, opt ChangeOptions, now time.Time,
) (*Report, error) {
	if len(batch) > largeBatch {
		defer frugal()()
	}
	rep := &Report{Results: make([]Result, len(batch))}
	order := make([]int, len(batch))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return rank(batch[i].Kind) - rank(batch[j].Kind) })
	err := a.transact(ctx, suite, now, rep, func(t *transaction) (bool, error) {
		t.pool.Dry = opt.Dry
		for _, i := range order {
			if err := ctx.Err(); err != nil {
				return false, err
			}
			var err error
			if rep.Results[i], err = t.include(&batch[i]); err != nil {
				return false, err
			}
			if t.p.size > absorbAt {
				if err := t.absorb(); err != nil {
					return false, err
				}
			}
		}
		return !opt.Dry, nil
	})
	if err != nil && !rep.Changed {
		return nil, err
	}
	return rep, err
}

// largeBatch is the number of inclusions from which a batch leaves so much
// behind that memory counts before time: of 63,440 packages in one publication
// the process takes some 155 MB instead of 185 to 208, for a twentieth more CPU.
const largeBatch = 1000

// frugal has the garbage collector come earlier until the function it returns
// is called. What GOGC says stays.
func frugal() func() {
	old := debug.SetGCPercent(60)
	if old != 100 {
		debug.SetGCPercent(old)
	}
	return func() { debug.SetGCPercent(old) }
}

// transact runs do on the suite as it is published, under the suite's lock,
// and publishes what do has changed if it returns true. The report gets
// everything but Results.
func (a *Archive) transact(ctx context.Context, suite Suite, now time.Time, rep *Report,
	do func(*transaction) (bool, error)) error {
	if err := suite.check(); err != nil {
		return err
	}
	// All that can fail of them fails before clients see anything.
	keys, err := a.keys(&suite, now)
	if err != nil {
		return err
	}
	for i, k := range keys.openpgp {
		if end := k.signer.Expires(now); !end.IsZero() && end.Before(now.Add(keyNotice)) {
			rep.Warnings = append(rep.Warnings, fmt.Sprintf("the signing key %s expires on %s; extend it, or let a new one "+
				"sign beside it now (packmill archive key rotate %s), and give it to the clients",
				suite.SignWith[i], end.Format(time.DateOnly), suite.Name))
		}
	}
	unlock, err := a.lockSuite(ctx, suite.Name)
	if err != nil {
		return err
	}
	defer unlock()
	p, err := a.read(ctx, suite.Name)
	if err != nil {
		return err
	}
	defer p.close()
	t := &transaction{a: a, suite: &suite, p: p, pool: &pool.Placer{Root: a.root}, now: now.UTC().Truncate(time.Second),
		descriptions: map[string]map[string][]byte{}}
	behind := t.notBefore(p.rel)
	rep.Date = t.now
	if err := t.begin(); err != nil {
		return err
	}
	if publish, err := do(t); err != nil || !publish {
		return err
	}
	if err := t.pool.Sync(); err != nil {
		return err
	}
	// Before anything bears a signature by them.
	if err := a.handOut(suite.Name, keys); err != nil {
		return err
	}
	if rep.Changed, err = t.commit(keys.openpgp); err != nil {
		return err
	}
	if rep.Changed && behind > 0 {
		rep.Warnings = append(rep.Warnings, fmt.Sprintf("the clock is %s behind the last Release of %s, "+
			"so this one is dated %s; apt takes no older one: set the clock",
			behind.Round(time.Second), suite.Name, t.now.Format(time.RFC3339)))
	}
	return t.feeds(keys, rep)
}

// notBefore dates the transaction after a Release, and returns how much the clock
// is behind it: apt takes no Release that is older than the one it has.
func (t *transaction) notBefore(last *release.Release) time.Duration {
	if last == nil || !t.now.Before(last.Date) {
		return 0
	}
	behind := last.Date.Sub(t.now)
	t.now = last.Date.Add(time.Second)
	return behind
}

// rank sorts what brings sources before what may need them.
func rank(k Kind) int {
	if k == Binary {
		return 1
	}
	return 0
}

// findSource finds a binary's source, in the suite or as it comes with in, and
// where it is in the pool; nil if there is none.
func (t *transaction) findSource(in *inclusion, name, version string) (src *deb822.Stanza, dir string, err error) {
	if in.Kind&Source != 0 && name == in.source && version == in.version && in.dsc != nil {
		return in.dsc, in.dir, nil
	}
	s, c, err := t.p.source(t.suite.components(), name, version)
	return s, pool.Dir(c, name), err
}

// areas are the suite's components, and the installer's part of those that have
// one or get one now.
func (t *transaction) areas() []string {
	return t.p.withInstaller(t.suite.components())
}

// paths are the indexes that the suite must have.
func (t *transaction) paths() []string {
	var out []string
	for _, c := range t.areas() {
		for _, arch := range append(t.suite.archs(), "all") {
			out = append(out, packagesPath(c, arch))
			if t.suite.Contents {
				out = append(out, contentsPath(c, arch))
			}
		}
	}
	for _, c := range t.suite.components() {
		out = append(out, sourcesPath(c))
		if t.translated(c) {
			out = append(out, translationPath(c))
		}
	}
	return out
}

// begin fills the indexes that the suite has not had so far: an architecture
// that is new has the packages of all, and Contents have the files of what is
// there.
func (t *transaction) begin() error {
	for _, c := range t.areas() {
		all := packagesPath(c, "all")
		for _, arch := range append(t.suite.archs(), "all") {
			if path := packagesPath(c, arch); t.isNew(path) && arch != "all" && !t.isNew(all) {
				x, err := t.p.index(all)
				if err != nil {
					return err
				}
				err = x.All(func(key, records []byte) error {
					t.p.set(path, string(key), slices.Clone(records))
					return nil
				})
				if err != nil {
					return err
				}
			}
			if t.suite.Contents && t.isNew(contentsPath(c, arch)) {
				if err := t.beginContents(c, arch); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (t *transaction) isNew(path string) bool { return t.p.state(path).Text.SHA256 == "" }

// absorbAt is how many bytes of changes are held in memory.
const absorbAt = 8 << 20

// absorb works out what follows from the changes and moves all into the index
// files, where it is neither published nor in memory.
func (t *transaction) absorb() error {
	if err := t.derive(); err != nil {
		return err
	}
	for path, edits := range t.p.changes {
		x, err := t.p.index(path)
		if err != nil {
			return err
		}
		if err := x.Edit(edits); err != nil {
			return err
		}
	}
	clear(t.p.changes)
	clear(t.descriptions)
	t.p.size = 0
	return nil
}

// commit writes the indexes that changed and then the Release.
func (t *transaction) commit(keys []*loadedKey) (changed bool, err error) {
	rel := t.release()
	if err := t.absorb(); err != nil {
		return false, err
	}
	made, err := t.write()
	if err != nil {
		return false, err
	}
	for path, st := range made.states {
		rel.Sums[path] = st.Text
		for c, sum := range st.Forms {
			rel.Sums[path+c.Suffix()] = sum
		}
		if st.Patches.SHA256 != "" {
			rel.Sums[path+index.PatchIndex] = st.Patches
		}
	}
	if due, err := t.due(rel, keys); err != nil {
		return false, err
	} else if !due && made.formed { // with or without the plain text the Release is the same
		return t.names()
	}
	if err := t.supersede(made.placed); err != nil {
		return false, err
	}
	var g errgroup.Group
	g.SetLimit(writers)
	for path, st := range made.states {
		g.Go(func() error { return t.p.place(path).Link(st) })
	}
	if err := g.Wait(); err != nil {
		return false, err
	}
	if err := t.sign(t.p.dir, rel, keys); err != nil {
		return false, err
	}
	if _, err := t.names(); err != nil {
		return true, err
	}
	for path, st := range made.states {
		if err := t.p.place(path).Unlink(st); err != nil {
			return true, err
		}
	}
	return true, t.save(made)
}

// written are a suite's indexes, under their checksums.
type written struct {
	states map[string]index.State // of all
	placed []string               // those that were made anew
	formed bool                   // all were published in the suite's forms before
}

// write writes the indexes that changed.
func (t *transaction) write() (*written, error) {
	out := &written{states: map[string]index.State{}, formed: true}
	forms := t.suite.forms()
	fresh := int64(0)
	for _, x := range t.p.open {
		fresh += x.Fresh()
	}
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(writers)
	if fresh > inMemory {
		g.SetLimit(1)
	}
	known := func(path string, st index.State) {
		mu.Lock()
		defer mu.Unlock()
		out.states[path] = st
	}
	for _, path := range t.paths() {
		st := t.p.state(path)
		formed := sameForms(st, forms)
		out.formed = out.formed && formed
		if !t.suite.Pdiffs {
			st.Patches = index.Sum{}
		}
		if !t.isNew(path) && (t.p.open[path] == nil || !t.p.open[path].Changed()) && formed {
			known(path, st)
			continue
		}
		x, err := t.p.index(path)
		if err != nil {
			return nil, errors.Join(err, g.Wait())
		}
		out.placed = append(out.placed, path)
		g.Go(func() error {
			st, err := t.writeOne(path, x, forms)
			known(path, st)
			return err
		})
	}
	return out, g.Wait()
}

// writeOne writes an index that changed, and the patch that leads to it.
func (t *transaction) writeOne(path string, x *index.File, forms []compression.Kind) (index.State, error) {
	last := filepath.Base(path)
	if !t.suite.Pdiffs || last != "Packages" && last != "Sources" {
		return x.Write(t.p.ctx, forms)
	}
	// A cache that is damaged where nothing changed costs the patches, and not the publication.
	script, _ := x.Script()
	st, err := x.Write(t.p.ctx, forms)
	if err != nil {
		return st, err
	}
	before := t.p.state(path)
	if before.Text == st.Text { // only in another form
		st.Patches = before.Patches
		return st, nil
	}
	st.Patches, err = t.p.place(path).Patch(before, st, script, t.now)
	return st, err
}

// supersede lets what these indexes were before stay for a while from now on.
func (t *transaction) supersede(paths []string) error {
	for _, path := range paths {
		for _, name := range t.p.place(path).Hashed(t.p.state(path)) {
			err := os.Chtimes(name, t.now, t.now)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// save writes the caches of the indexes that were made anew, or have none, and
// removes what has been superseded for long enough.
func (t *transaction) save(made *written) error {
	current, err := t.current()
	if err != nil {
		return err
	}
	var g errgroup.Group
	g.SetLimit(writers)
	for path, x := range t.p.open {
		if !slices.Contains(made.placed, path) && (x.Cached() || t.isNew(path)) {
			continue
		}
		g.Go(func() error {
			if err := x.Save(); err != nil {
				return err
			}
			if err := t.p.place(path).SweepPatches(made.states[path], t.stay(), t.now); err != nil {
				return err
			}
			return t.sweep(path, current)
		})
	}
	return g.Wait()
}

// inMemory is how many bytes of new text are compressed side by side; with more
// of it the indexes are written one after the other.
const inMemory = 16 << 20

// writers is how many indexes are written at a time: what they wait for most
// is the disk, and syncs that come together cost one.
const writers = 4

// current are the checksums of what is published now.
func (t *transaction) current() (map[string]bool, error) {
	rel, err := release.Read(t.p.dir)
	if err != nil {
		return nil, err
	}
	out := map[string]bool{}
	for _, s := range rel.Sums {
		out[s.SHA256] = true
	}
	return out, nil
}

func sameForms(st index.State, forms []compression.Kind) bool {
	if len(st.Forms) != len(forms) {
		return false
	}
	for _, c := range forms {
		if _, ok := st.Forms[c]; !ok {
			return false
		}
	}
	return true
}

// release is the Release without its sums.
func (t *transaction) release() *release.Release {
	s := t.suite
	yes := func(b bool) string {
		if b {
			return "yes"
		}
		return ""
	}
	codename := s.Codename
	if codename == "" {
		codename = s.Name
	}
	r := &release.Release{Date: t.now, Sums: map[string]index.Sum{}, Fields: []deb822.Field{
		{Name: "Origin", Value: s.Origin},
		{Name: "Label", Value: s.Label},
		{Name: "Suite", Value: s.Name},
		{Name: "Codename", Value: codename},
		{Name: "NotAutomatic", Value: yes(s.NotAutomatic)},
		{Name: "ButAutomaticUpgrades", Value: yes(s.ButAutomaticUpgrades)},
		{Name: "Acquire-By-Hash", Value: "yes"},
		// binary-all is for those who want it alone; binary-ARCH has it merged.
		{Name: "No-Support-for-Architecture-all", Value: "Packages"},
		{Name: "Architectures", Value: strings.Join(append([]string{"all"}, s.archs()...), " ")},
		{Name: "Components", Value: strings.Join(s.components(), " ")},
		{Name: "Description", Value: s.Description},
	}}
	if s.ValidFor > 0 {
		r.Until = t.now.Add(s.ValidFor)
	}
	return r
}

// due reports whether a new Release must be written: something changed, an
// earlier run was cut off, other keys sign, or the old one has lived through
// half of its time.
func (t *transaction) due(rel *release.Release, keys []*loadedKey) (bool, error) {
	old := t.p.rel
	if old == nil || !rel.Same(old) || old.Until.IsZero() != rel.Until.IsZero() {
		return true, nil
	}
	if !rel.Until.IsZero() && t.now.Add(t.suite.ValidFor/2).After(old.Until) {
		return true, nil
	}
	text, err := os.ReadFile(filepath.Join(t.p.dir, "Release"))
	if err != nil || string(text) != string(old.Text()) {
		return true, nil
	}
	for _, n := range t.suite.further() {
		own, err := release.Read(filepath.Join(t.p.dir, aliases, n))
		if err != nil || own == nil || string(own.Text()) != string(called(old, n).Text()) {
			return true, nil
		}
	}
	by, err := release.SignedBy(t.p.dir)
	if err != nil {
		return true, nil
	}
	var want []string
	for _, k := range keys {
		want = append(want, k.issuer)
	}
	slices.Sort(want)
	return !slices.Equal(by, slices.Compact(want)), nil
}

// stay is how long what was superseded stays.
func (t *transaction) stay() time.Duration { return cmp.Or(t.suite.Stay, defaultStay) }

// mostSwept is how often a process sweeps a directory at most, if the stay is not shorter still: where a suite is
// published every second, thousands lie there.
const mostSwept = time.Minute

// sweeps reports whether the directory is to be swept now, and takes it that it is.
func (t *transaction) sweeps(dir string) bool {
	t.a.mu.Lock()
	defer t.a.mu.Unlock()
	last, done := t.a.swept[dir]
	if since := t.now.Sub(last); done && since >= 0 && since < min(mostSwept, t.stay()/20) {
		return false
	}
	t.a.swept[dir] = t.now
	return true
}

// sweep removes old indexes of the path's directory after their stay. Current
// ones are safe however old they are.
func (t *transaction) sweep(path string, current map[string]bool) error {
	dir := filepath.Dir(t.p.place(path).ByHash("x"))
	if !t.sweeps(dir) {
		return nil
	}
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var old []index.Superseded
	for _, e := range list {
		if current[e.Name()] {
			continue
		}
		if info, err := e.Info(); err == nil {
			old = append(old, index.Superseded{Name: e.Name(), Since: info.ModTime()})
		}
	}
	for _, name := range index.Outstayed(old, t.stay(), t.now) {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}
