package runner

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"packmill/internal/deb822"
	"packmill/internal/durable"
	"packmill/queue/runner/cage"
	"packmill/queue/runner/overlay"

	"golang.org/x/sys/unix"
)

// What builds need beyond a chroot is installed once for each set of packages
// and kept beside the chroot, as a further lower layer of overlays:
//
//	<chroot>/<uid>/layers/
//	    <key>/     info, and upper/: what apt changed in the chroot, or in the layer that info names
//	    new        one that is being made, or was when the machine stopped
//	    wish.*     the key that a set of build-dependencies led to
//
// The key is a hash of what apt resolved, name, version and checksum of every
// package. A set of packages that has all of another one's is installed above that
// one's layer; what two sets have in common becomes a layer below both.
// A layer with an info is whole, on the disk, and never changed. Who has the
// range of ids makes layers; a build holds a shared flock on the directory of
// its layer, and who removes it an exclusive one.
const (
	layersDir = "layers"
	setFile   = "set" // of a layer: what it has
)

// layerAge is how long a layer stays that no build uses.
const layerAge = 7 * 24 * time.Hour

// defaultLayers bounds the size of all layers of a directory of chroots.
const defaultLayers = 8 << 30

// layer is one of a chroot's layers, held against removal.
type layer struct {
	dir      string
	lock     *os.File
	made     string
	packages string
	on       *layer // the one below; nil: the chroot
}

// chain is the layer and those below it; of nil, none.
func (l *layer) chain() (all []*layer) {
	for ; l != nil; l = l.on {
		all = append(all, l)
	}
	return all
}

// release lets the layer go, and those below; nil has nothing to let go.
func (l *layer) release() {
	for _, x := range l.chain() {
		x.lock.Close()
	}
}

// uppers are the directories of the chain.
func (l *layer) uppers() (dirs []string) {
	for _, x := range l.chain() {
		dirs = append(dirs, filepath.Join(x.dir, "upper"))
	}
	return dirs
}

// shorten is a resolved line for people: "name version" or "without name".
func shorten(line string) string {
	if name, ok := strings.CutPrefix(line, "Remv "); ok {
		return "without " + strings.Fields(name)[0]
	}
	f := strings.Fields(strings.TrimPrefix(line, "Inst "))
	for _, w := range f[1:] {
		if v, ok := strings.CutPrefix(w, "("); ok {
			return f[0] + " " + v
		}
	}
	return f[0]
}

// useLayer holds a layer with those below it; ErrNotExist says that there is none of that key.
func (o *ownChroot) useLayer(key string) (l *layer, err error) {
	dir := filepath.Join(o.layers(), key)
	lock, err := lockDir(dir, durable.ShareFile)
	if errors.Is(err, durable.ErrLocked) {
		return nil, os.ErrNotExist // being removed
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	s, err := readInfo(dir)
	if err != nil {
		return nil, err
	}
	l = &layer{dir: dir, lock: lock, made: s.Get("Made"), packages: s.Get("Packages")}
	now := time.Now()
	os.Chtimes(filepath.Join(dir, infoFile), now, now) // used: only the order of removal hangs on it
	if on := s.Get("On"); on != "" {
		if l.on, err = o.useLayer(on); err != nil {
			return nil, err
		}
	}
	return l, nil
}

func readInfo(dir string) (*deb822.Stanza, error) {
	info := filepath.Join(dir, infoFile)
	data, err := os.ReadFile(info)
	if err != nil {
		return nil, err
	}
	return deb822.ParseOne(info, data, deb822.Settings)
}

// wish is what a resolution depends on, apart from the chroot.
type wish struct {
	Depends, Conflict, List string
	Keys                    map[string]string
	Releases                []string
}

// wishOf returns the name of the build-dependencies' file of the key that
// they led to, or "" if apt must be asked each time: lists that are fetched
// may have changed.
func wishOf(job *Job, in *overlay.Order) string {
	if in.Update {
		return ""
	}
	w := wish{Depends: in.Depends, Conflict: in.Conflict, List: in.List, Keys: in.Keys}
	for _, r := range job.Repos {
		if r.Dir == "" {
			return ""
		}
		release, err := os.ReadFile(filepath.Join(r.Dir, "dists", r.Suite, "InRelease"))
		if err != nil {
			return ""
		}
		w.Releases = append(w.Releases, string(release))
	}
	text, err := json.Marshal(w)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(text)
	return "wish." + hex.EncodeToString(sum[:])
}

// layers is the directory of the layers of the range.
func (o *ownChroot) layers() string { return filepath.Join(o.home(), layersDir) }

// keepsLayers says why layers cannot be kept beside a chroot, or nil.
func (o *ownChroot) keepsLayers() error {
	// In a container the chroot may lie on an overlay, and that takes no other.
	var fs unix.Statfs_t
	if err := unix.Statfs(o.dir, &fs); err != nil || fs.Type == unix.OVERLAYFS_SUPER_MAGIC {
		return errors.Join(err, errors.New("the chroot lies on an overlay"))
	}
	if err := os.Mkdir(o.layers(), 0o755); err == nil {
		// Root's builds and those of the build user share them.
		if err := chown(o.layers(), o.user); err != nil {
			return err
		}
	} else if !errors.Is(err, os.ErrExist) {
		return err
	}
	return unix.Access(o.layers(), unix.W_OK)
}

// findLayer finds the layer with the build's dependencies, or makes it. Without a
// layer it returns how the making ended.
func (b *overlayBuild) findLayer(ctx context.Context) (*layer, error) {
	name := wishOf(b.job, &b.order)
	wish := filepath.Join(b.layers(), name)
	if name != "" {
		if key, err := os.ReadFile(wish); err == nil && len(key) == 2*sha256.Size {
			if l, err := b.useLayer(string(key)); err == nil {
				return l, nil
			}
		}
	}
	key, err := b.makeLayer(ctx)
	if err != nil || key == "" {
		return nil, err
	}
	// Only if nothing was published meanwhile.
	if name != "" && wishOf(b.job, &b.order) == name {
		if err := durable.WriteFile(wish, []byte(key), 0o644); err != nil {
			return nil, fmt.Errorf("layer: %w", err)
		}
	}
	l, err := b.useLayer(key)
	if err != nil {
		return nil, fmt.Errorf("layer %s in %s: %w; is Layers of the builder too small?", key[:12], b.layers(), err)
	}
	b.store.SweepLayers(b.size)
	return l, nil
}

// makeLayer makes the layer with the build's dependencies unless it is there, and
// returns its key; empty: b.exit says why there is none.
func (b *overlayBuild) makeLayer(ctx context.Context) (string, error) {
	x, err := b.make(ctx, func(in *overlay.Order) { in.Ask = true }, nil)
	if err != nil || x == nil {
		return "", err
	}
	all, want := b.sets(), &set{key: x.Layer, Packages: x.Packages, Files: x.Files}
	if l, err := b.useLayer(want.key); err == nil {
		l.release()
		return want.key, nil
	}
	delete(all, want.key) // one below it is gone, as by hand: it is made anew
	b.order.Header = ""   // the log has it
	below, common := want.place(all)
	if common != nil {
		if made, err := b.layOn(ctx, common, below, true); err != nil {
			return "", err
		} else if made {
			below = common
		}
	}
	made, err := b.layOn(ctx, want, below, false)
	if err == nil && !made && below != nil {
		made, err = b.layOn(ctx, want, nil, false)
	}
	if !made {
		return "", err
	}
	return want.key, nil
}

// layOn installs a set of packages in a layer above that of another set, nil for the chroot itself. It reports
// whether there is one now: on another layer apt may decide otherwise.
func (b *overlayBuild) layOn(ctx context.Context, want, below *set, exactly bool) (made bool, err error) {
	more := &overlay.Layer{Packages: want.Packages, Files: want.Files, Exactly: exactly}
	if below != nil {
		if b.layer, err = b.useLayer(below.key); errors.Is(err, os.ErrNotExist) {
			return false, nil // removed meanwhile
		} else if err != nil {
			return false, err
		}
		defer func() {
			b.layer.release()
			b.layer = nil
		}()
		want.Depth = below.Depth + 1
		more.Packages, more.Files = without(want.Packages, below.Packages), without(want.Files, below.Files)
	}
	x, err := b.make(ctx, func(in *overlay.Order) { in.Make, in.Layers = more, b.layer.uppers() }, func(dir string) error {
		return b.keepLayer(dir, want, below)
	})
	return x != nil, err
}

// make runs an order that asks for a layer, or makes one, and keeps that. No exit says that there is none: b.exit tells
// why.
func (b *overlayBuild) make(ctx context.Context, what func(*overlay.Order), keep func(dir string) error) (*cage.Exit,
	error,
) {
	dir := filepath.Join(b.layers(), "new")
	if err := b.store.removeDir(dir); err != nil {
		return nil, fmt.Errorf("layer: %w", err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, fmt.Errorf("layer: %w", err)
	}
	defer b.store.removeDir(dir)
	if err := chown(dir, b.user); err != nil {
		return nil, fmt.Errorf("layer: %w", err)
	}
	in := b.order
	in.Sources, in.Upper = nil, dir
	what(&in)
	x, err := b.run(ctx, &in, nil, dir)
	if err != nil || x.Layer == "" || x.Stage != "" || x.Killed || x.Limit != "" || x.Stopped {
		return nil, err
	}
	if keep != nil {
		err = keep(dir)
	}
	return x, err
}

// set is what a layer has, with those below it, beside the chroot: lines of apt's simulation, and the files that it would
// fetch, both in order.
type set struct {
	key             string
	Packages, Files []string
	Depth           int // layers below it
}

// sets are those of the layers that are whole, by their keys.
func (o *ownChroot) sets() map[string]*set {
	all := map[string]*set{}
	found, _ := filepath.Glob(filepath.Join(o.layers(), "*", infoFile))
	for _, info := range found {
		x := &set{key: filepath.Base(filepath.Dir(info))}
		if data, err := os.ReadFile(filepath.Join(filepath.Dir(info), setFile)); err != nil || json.Unmarshal(data, x) != nil {
			x.Packages = nil // nobody can know what it has
		}
		all[x.key] = x
	}
	return all
}

// enough is how many packages two sets have to have in common for a layer of these.
const enough = 8

// deepest is how many layers lie above each other; overlayfs takes 500.
const deepest = 10

// place says which of the sets lies best below this one, and what this one and another have in common if that is worth a
// layer between.
func (s *set) place(all map[string]*set) (below, common *set) {
	for _, key := range slices.Sorted(maps.Keys(all)) {
		x := all[key]
		shared := &set{Packages: both(s.Packages, x.Packages), Files: both(s.Files, x.Files)}
		if x.Depth < deepest && !slices.ContainsFunc(shared.Packages, removes) && shared.beyond(common) > 0 &&
			s.beyond(shared) > 0 {
			common = shared
		}
	}
	if below = s.over(all); common.beyond(below) < enough {
		return below, nil
	}
	common.key = overlay.LayerKey(common.Packages, common.Files)
	return common.over(all), common
}

// over is the largest of the sets that has nothing that this one has not.
func (s *set) over(all map[string]*set) (below *set) {
	for _, key := range slices.Sorted(maps.Keys(all)) {
		x := all[key]
		if x.Depth < deepest && !slices.ContainsFunc(x.Packages, removes) && len(without(x.Packages, s.Packages)) == 0 &&
			len(without(x.Files, s.Files)) == 0 && x.beyond(below) > 0 {
			below = x
		}
	}
	return below
}

// beyond is by how many packages this set is larger than another one; nil is empty.
func (s *set) beyond(x *set) (n int) {
	if s != nil {
		n = len(s.Packages)
	}
	if x != nil {
		n -= len(x.Packages)
	}
	return n
}

// removes tells a line of apt's simulation by which a package goes.
func removes(line string) bool { return strings.HasPrefix(line, "Remv ") }

// both are the lines that two lists have; without those of the first that the second has not.
func both(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(x string) bool { _, in := slices.BinarySearch(b, x); return !in })
}

func without(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(x string) bool { _, in := slices.BinarySearch(b, x); return in })
}

// keepLayer puts a new layer in force.
func (o *ownChroot) keepLayer(dir string, has, below *set) error {
	if err := o.store.removeDir(filepath.Join(dir, "work")); err != nil {
		return fmt.Errorf("layer: %w", err)
	}
	info := &deb822.Stanza{}
	info.Set("Made", time.Now().UTC().Format(time.RFC3339))
	info.Set("Size", fmt.Sprint(cage.Space(dir)))
	var short []string
	for _, line := range has.Packages {
		short = append(short, shorten(line))
	}
	info.Set("Packages", strings.Join(short, ", "))
	if below != nil {
		info.Set("On", below.key)
	}
	text, err := json.Marshal(has)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, setFile), text, 0o644)
	}
	if err != nil {
		return fmt.Errorf("layer: %w", err)
	}
	// All of it is on the disk before the name that makes it valid.
	if err := durable.SyncFS(dir); err != nil {
		return fmt.Errorf("layer: %w", err)
	}
	if err := durable.WriteFile(filepath.Join(dir, infoFile), info.Append(nil), 0o644); err != nil {
		return fmt.Errorf("layer: %w", err)
	}
	to := filepath.Join(o.layers(), has.key)
	if exists(to) { // the removal of an old one was cut off
		if err := o.store.removeDir(to); err != nil {
			return fmt.Errorf("layer: %w", err)
		}
	}
	return durable.Rename(dir, to)
}

// removeHalf removes a layer without an info.
func (c *Chroots) removeHalf(dir string) {
	lock, err := lockDir(dir, durable.LockFile)
	if err != nil {
		return // in use
	}
	defer lock.Close()
	if !exists(filepath.Join(dir, infoFile)) {
		c.removeDir(dir)
	}
}

// oldLayer is a layer that may be removed.
type oldLayer struct {
	dir  string
	on   string // the directory of the one below
	used time.Time
	size int64 // bytes
}

// oldLayers lists all layers that are whole, the longest unused first. On the way
// it removes halves, and wishes that nobody had for long.
func (c *Chroots) oldLayers() (all []oldLayer, err error) {
	found, err := filepath.Glob(filepath.Join(c.Dir, "*", "*", "*", layersDir, "*"))
	if err != nil {
		return nil, err
	}
	for _, dir := range found {
		st, err := os.Stat(dir)
		if err != nil {
			continue
		}
		if !st.IsDir() {
			if time.Since(st.ModTime()) > layerAge {
				os.Remove(dir) // a wish; at worst apt is asked again
			}
			continue
		}
		s, err := readInfo(dir)
		if errors.Is(err, os.ErrNotExist) {
			if filepath.Base(dir) != "new" { // who has the range removes it
				c.removeHalf(dir)
			}
			continue
		}
		o := oldLayer{dir: dir}
		if st, err := os.Stat(filepath.Join(dir, infoFile)); err == nil {
			o.used = st.ModTime()
		}
		if err == nil {
			fmt.Sscan(s.Get("Size"), &o.size)
			o.on = filepath.Join(filepath.Dir(dir), s.Get("On"))
		}
		all = append(all, o)
	}
	slices.SortFunc(all, func(a, b oldLayer) int { return a.used.Compare(b.used) })
	return all, nil
}

// SweepLayers removes layers that no build has used for a week and, the
// longest unused first, those beyond a size of all, in bytes (0: 8 GiB). What
// builds use stays.
func (c *Chroots) SweepLayers(size int64) error {
	if size == 0 {
		size = defaultLayers
	}
	all, err := c.oldLayers()
	if err != nil {
		return err
	}
	var total int64
	above := map[string]int{} // how many lie on it
	for _, o := range all {
		total += o.size
		above[o.on]++
	}
	var errs []error
	for _, o := range all {
		if total <= size && time.Since(o.used) < layerAge {
			break
		}
		if above[o.dir] > 0 {
			continue // its age is theirs: the next sweep
		}
		lock, err := lockDir(o.dir, durable.LockFile)
		if err != nil {
			continue // in use
		}
		if err := c.discard(o.dir); err != nil {
			errs = append(errs, err)
		} else {
			total -= o.size
			above[o.on]--
		}
		lock.Close()
	}
	return errors.Join(errs...)
}
