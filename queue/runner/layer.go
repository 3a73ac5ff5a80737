package runner

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"packmill/internal/deb822"
	"packmill/internal/durable"

	"golang.org/x/sys/unix"
)

// What builds need beyond a chroot is installed once for each set of packages
// and kept beside the chroot, as a further lower layer of overlays:
//
//	<chroot>/layers/
//	    <key>/     info, and upper/: what apt changed in the chroot
//	    new.*      one that is being made, or was when the machine stopped
//	    wish.*     the key that a set of build-dependencies led to
//
// The key is a hash of what apt resolved, name and version of every package.
// A layer with an info is whole, on the disk, and never changed; a build holds
// a shared flock on its directory, and who removes it an exclusive one.
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

func (l *layer) upper() string { return filepath.Join(l.dir, "upper") }

// layerKey is the name of the layer with these packages, as apt's simulation
// lists what it would install and remove.
func layerKey(packages []string) string {
	sum := sha256.Sum256([]byte(strings.Join(packages, "\n")))
	return hex.EncodeToString(sum[:])
}

// resolved returns the lines of apt's simulation that say what changes:
// "Inst NAME [OLD] (VERSION ORIGIN [ARCH])" and "Remv NAME [OLD]".
func resolved(simulation string) (packages []string) {
	for _, line := range strings.Split(simulation, "\n") {
		if strings.HasPrefix(line, "Inst ") || strings.HasPrefix(line, "Remv ") {
			packages = append(packages, strings.TrimSpace(line))
		}
	}
	slices.Sort(packages)
	return packages
}

// short is a resolved line for people: "name version" or "without name".
func short(line string) string {
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
func (c *Chroot) useLayer(key string) (*layer, error) {
	dir := filepath.Join(c.dir, layersDir, key)
	lock, err := lockDir(dir, unix.LOCK_SH)
	if errors.Is(err, unix.EWOULDBLOCK) {
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
func wishOf(job *Job, in *inside) string {
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

// lockFile opens a file, made if need be, and waits for its lock.
func lockFile(ctx context.Context, path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			f.Close()
			return nil, err
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// layers says why layers cannot be kept beside a chroot, or nil.
func (c *Chroot) layers() error {
	// In a container the chroot may lie on an overlay, and that takes no other.
	var fs unix.Statfs_t
	if err := unix.Statfs(c.dir, &fs); err != nil || fs.Type == unix.OVERLAYFS_SUPER_MAGIC {
		return errors.Join(err, errors.New("the chroot lies on an overlay"))
	}
	base := filepath.Join(c.dir, layersDir)
	err := os.Mkdir(base, 0o755)
	if err == nil {
		// Root's builds and those of the build user share them.
		var st unix.Stat_t
		if err = unix.Stat(c.dir, &st); err == nil {
			err = os.Chown(base, int(st.Uid), int(st.Gid))
		}
	}
	if err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return unix.Access(base, unix.W_OK)
}

// layer finds the layer with the build-dependencies of in, or makes it by a
// run of the helper. Without a layer it returns how that run ended.
func (r *Overlay) layer(ctx context.Context, job *Job, in inside, chroot *Chroot, ids *idmap, run func(*inside, []*os.File, []string) (*exit, error)) (*layer, *exit, error) {
	base := filepath.Join(chroot.dir, layersDir)
	name := wishOf(job, &in)
	if name != "" {
		f, err := lockFile(ctx, filepath.Join(base, name))
		if err != nil && ctx.Err() != nil {
			return nil, &exit{Stopped: true}, nil
		}
		if err != nil {
			return nil, nil, fmt.Errorf("layers of the chroot: %w", err)
		}
		defer f.Close()
		if key, err := io.ReadAll(io.LimitReader(f, 100)); err == nil && len(key) == 2*sha256.Size {
			if l, err := chroot.useLayer(string(key)); err == nil {
				return l, nil, nil
			}
		}
		defer func() {
			// Only if nothing was published meanwhile.
			if in.key != "" && wishOf(job, &in) == name {
				f.Truncate(0)
				f.WriteAt([]byte(in.key), 0)
			}
		}()
	}
	in.Make, in.Sources = true, nil
	var all *exit
	// A layer that is found may be removed before it is held, but hardly twice.
	for range 3 {
		in.Have = nil
		if entries, err := os.ReadDir(base); err == nil {
			for _, e := range entries {
				if exists(filepath.Join(base, e.Name(), infoFile)) {
					in.Have = append(in.Have, e.Name())
				}
			}
		}
		dir, lock, err := scratchDir(base, "new.", func(dir string) error { return r.Chroots.removeDir(dir, ids) })
		if err != nil {
			return nil, nil, err
		}
		if os.Getuid() == 0 {
			if err := os.Chown(dir, ids.UID, ids.GID); err != nil {
				lock.Close()
				return nil, nil, fmt.Errorf("layer: %w", err)
			}
		}
		in.Upper = dir
		x, err := run(&in, []*os.File{chroot.lock, lock}, []string{dir})
		if err == nil {
			x.after(all)
			all = x
		}
		made := false
		if err == nil && x.Layer != "" && x.Stage == "" && !x.Killed && x.Limit == "" && !x.Stopped {
			in.key = x.Layer
			if made = !slices.Contains(in.Have, x.Layer); made {
				made, err = r.Chroots.keepLayer(dir, filepath.Join(base, x.Layer), x.Packages, ids)
			}
		}
		if !made {
			err = errors.Join(err, r.Chroots.removeDir(dir, ids))
		}
		lock.Close()
		if err != nil {
			return nil, nil, err
		}
		if in.key == "" {
			return nil, all, nil
		}
		if made {
			r.Chroots.SweepLayers(r.Layers)
		}
		if l, err := chroot.useLayer(in.key); err == nil {
			return l, all, nil
		} else if !errors.Is(err, os.ErrNotExist) {
			return nil, nil, fmt.Errorf("layer: %w", err)
		}
	}
	return nil, nil, fmt.Errorf("layer %s in %s is removed again and again; is Layers of the builder too small?", in.key[:12], base)
}

// keepLayer puts a new layer in force. It reports false if another build was
// faster.
func (c *Chroots) keepLayer(dir, to string, packages []string, ids *idmap) (bool, error) {
	if err := durable.RemoveAll(filepath.Join(dir, "work")); err != nil {
		return false, fmt.Errorf("layer: %w", err)
	}
	info := &deb822.Stanza{}
	info.Set("Made", time.Now().UTC().Format(time.RFC3339))
	info.Set("Size", fmt.Sprint(usage(dir)))
	for i := range packages {
		packages[i] = short(packages[i])
	}
	info.Set("Packages", strings.Join(packages, ", "))
	// All of it is on the disk before the name that makes it valid.
	if err := durable.SyncFS(dir); err != nil {
		return false, fmt.Errorf("layer: %w", err)
	}
	if err := durable.WriteFile(filepath.Join(dir, infoFile), info.Append(nil), 0o644); err != nil {
		return false, fmt.Errorf("layer: %w", err)
	}
	err := durable.Rename(dir, to)
	if errors.Is(err, os.ErrExist) {
		// Another build was faster, or a removal was cut off.
		if gone, err := c.removeHalf(to, ids); err != nil || !gone {
			return false, err
		}
		err = durable.Rename(dir, to)
	}
	return err == nil, err
}

// removeHalf removes a layer without an info, and reports whether it did.
func (c *Chroots) removeHalf(dir string, ids *idmap) (bool, error) {
	lock, err := lockDir(dir, unix.LOCK_EX)
	if err != nil {
		return false, nil // in use
	}
	defer lock.Close()
	if exists(filepath.Join(dir, infoFile)) {
		return false, nil
	}
	err = c.removeDir(dir, ids)
	return err == nil, err
}

// SweepLayers removes layers that no build has used for a week and, the
// longest unused first, those beyond a size of all, in bytes (0: 8 GiB). What
// builds use stays.
func (c *Chroots) SweepLayers(size int64) error {
	if size == 0 {
		size = defaultLayers
	}
	user, err := lookupAccount(c.User)
	if err != nil {
		return err
	}
	ids, err := user.subordinates()
	if err != nil {
		return err
	}
	type old struct {
		dir  string
		used time.Time
		size int64
	}
	var all []old
	var total int64
	found, err := filepath.Glob(filepath.Join(c.Dir, "*", "*", layersDir, "*"))
	if err != nil {
		return err
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
		if st, err = os.Stat(info); err != nil {
			if !strings.HasPrefix(filepath.Base(dir), "new.") { // see scratchDir
				c.removeHalf(dir, ids)
			}
			continue
		}
		data, err := os.ReadFile(info)
		if err != nil {
			continue
		}
		o := old{dir: dir, used: st.ModTime()}
		if s, err := deb822.ParseOne(info, data, deb822.Settings); err == nil {
			fmt.Sscan(s.Get("Size"), &o.size)
		}
		total += o.size
		all = append(all, o)
	}
	slices.SortFunc(all, func(a, b old) int { return a.used.Compare(b.used) })
	var errs []error
	for _, o := range all {
		if total <= size && time.Since(o.used) < layerAge {
			break
		}
		lock, err := lockDir(o.dir, unix.LOCK_EX)
		if err != nil {
			continue // in use
		}
		if err := c.discard(o.dir, ids); err != nil {
			errs = append(errs, err)
		} else {
			total -= o.size
		}
		lock.Close()
	}
	return errors.Join(errs...)
}
