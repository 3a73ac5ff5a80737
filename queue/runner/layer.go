package runner

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
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
//	    <key>/     info, and upper/: what apt changed in the chroot
//	    new        one that is being made, or was when the machine stopped
//	    wish.*     the key that a set of build-dependencies led to
//
// The key is a hash of what apt resolved, name, version and checksum of every
// package.
// A layer with an info is whole, on the disk, and never changed. Who has the
// range of ids makes layers; a build holds a shared flock on the directory of
// its layer, and who removes it an exclusive one.
const layersDir = "layers"

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
}

// release lets the layer go; nil has nothing to let go.
func (l *layer) release() {
	if l != nil {
		l.lock.Close()
	}
}

func (l *layer) upper() string { return filepath.Join(l.dir, "upper") }

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

// useLayer holds a layer; ErrNotExist says that there is none of that key.
func (o *ownChroot) useLayer(key string) (*layer, error) {
	dir := filepath.Join(o.layers(), key)
	lock, err := lockDir(dir, durable.ShareFile)
	if errors.Is(err, durable.ErrLocked) {
		return nil, os.ErrNotExist // being removed
	}
	if err != nil {
		return nil, err
	}
	info := filepath.Join(dir, infoFile)
	data, err := os.ReadFile(info)
	if err != nil {
		lock.Close()
		return nil, err
	}
	s, err := deb822.ParseOne(info, data, deb822.Settings)
	if err != nil {
		lock.Close()
		return nil, err
	}
	now := time.Now()
	os.Chtimes(info, now, now) // used: only the order of removal hangs on it
	return &layer{dir: dir, lock: lock, made: s.Get("Made"), packages: s.Get("Packages")}, nil
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
	dir := filepath.Join(b.layers(), "new")
	if err := b.store.removeDir(dir); err != nil {
		return "", fmt.Errorf("layer: %w", err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", fmt.Errorf("layer: %w", err)
	}
	defer b.store.removeDir(dir)
	if err := chown(dir, b.user); err != nil {
		return "", fmt.Errorf("layer: %w", err)
	}
	in := b.order
	in.Make, in.Sources, in.Upper, in.Have = true, nil, dir, b.haveLayers()
	x, err := b.run(ctx, &in, nil, dir)
	if err != nil || x.Layer == "" || x.Stage != "" || x.Killed || x.Limit != "" || x.Stopped {
		return "", err
	}
	if slices.Contains(in.Have, x.Layer) {
		return x.Layer, nil
	}
	return x.Layer, b.keepLayer(dir, x.Layer, x.Packages)
}

// haveLayers are the keys of the layers that are whole.
func (o *ownChroot) haveLayers() (keys []string) {
	found, _ := filepath.Glob(filepath.Join(o.layers(), "*", infoFile))
	for _, info := range found {
		keys = append(keys, filepath.Base(filepath.Dir(info)))
	}
	return keys
}

// keepLayer puts a new layer in force.
func (o *ownChroot) keepLayer(dir, key string, packages []string) error {
	if err := o.store.removeDir(filepath.Join(dir, "work")); err != nil {
		return fmt.Errorf("layer: %w", err)
	}
	info := &deb822.Stanza{}
	info.Set("Made", time.Now().UTC().Format(time.RFC3339))
	info.Set("Size", fmt.Sprint(cage.Space(dir)))
	var short []string
	for _, line := range packages {
		short = append(short, shorten(line))
	}
	info.Set("Packages", strings.Join(short, ", "))
	// All of it is on the disk before the name that makes it valid.
	if err := durable.SyncFS(dir); err != nil {
		return fmt.Errorf("layer: %w", err)
	}
	if err := durable.WriteFile(filepath.Join(dir, infoFile), info.Append(nil), 0o644); err != nil {
		return fmt.Errorf("layer: %w", err)
	}
	to := filepath.Join(o.layers(), key)
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
		info := filepath.Join(dir, infoFile)
		data, err := os.ReadFile(info)
		if err != nil {
			if filepath.Base(dir) != "new" { // who has the range removes it
				c.removeHalf(dir)
			}
			continue
		}
		o := oldLayer{dir: dir}
		if st, err := os.Stat(info); err == nil {
			o.used = st.ModTime()
		}
		if s, err := deb822.ParseOne(info, data, deb822.Settings); err == nil {
			fmt.Sscan(s.Get("Size"), &o.size)
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
	for _, o := range all {
		total += o.size
	}
	var errs []error
	for _, o := range all {
		if total <= size && time.Since(o.used) < layerAge {
			break
		}
		lock, err := lockDir(o.dir, durable.LockFile)
		if err != nil {
			continue // in use
		}
		if err := c.discard(o.dir); err != nil {
			errs = append(errs, err)
		} else {
			total -= o.size
		}
		lock.Close()
	}
	return errors.Join(errs...)
}
