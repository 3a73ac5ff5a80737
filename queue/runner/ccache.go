package runner

import (
	"bufio"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"packmill/internal/durable"
	"packmill/queue/runner/cage"

	"golang.org/x/sys/unix"
)

// What builds compiled is kept for the next ones of the same source, by ccache(1):
//
//	<directory of chroots>/ccache/<suite>_<arch>/<source>_<archives>.tar
//
// A build can write anything into its cache, so no other source ever sees it, nor
// one of that name of another archive: <archives> is a hash of the keys of the job's
// repositories. It is a tar file, so that it does not matter which range of ids has
// written it. Only programs of a build unpack it, and only one whose results were
// good leaves another. Nothing but time hangs on it: all of it may be removed
// at any time.
const ccacheDir = "ccache"

const (
	cacheShare = 4                   // one source has at most this part of all, and of what is free on the disk
	cacheAge   = 30 * 24 * time.Hour // how long one stays that no build uses
	leastCache = 1 << 20
	newCache   = ".new-"
)

// cache is the compiler cache of one build.
type cache struct {
	path string
	all  int64 // bytes of all caches
	most int64 // and of this one
	made *os.File
	size int64 // of made
	err  error // of writing it
}

// cacheFor is the compiler cache of a job; nil: it has none, and the log says why if it should.
func (r *Overlay) cacheFor(job *Job) *cache {
	if r.Ccache == 0 || job.Arch == "all" {
		return nil
	}
	sum := sha256.New()
	for _, repo := range job.Repos {
		fmt.Fprintf(sum, "%d %s", len(repo.Key), repo.Key)
	}
	x := &cache{path: filepath.Join(r.Chroots.Dir, ccacheDir, job.Suite+"_"+job.Arch,
		job.Source+"_"+hex.EncodeToString(sum.Sum(nil)[:8])+".tar"), all: r.Ccache}
	var fs unix.Statfs_t
	err := unix.Statfs(r.Chroots.Dir, &fs)
	x.most = min(r.Ccache, int64(fs.Bavail)*fs.Bsize) / cacheShare
	if err == nil && x.most < leastCache {
		err = fmt.Errorf("%d bytes, a quarter of Ccache or of what is free there, are too few", x.most)
	}
	if err == nil {
		err = r.Chroots.makeCaches(filepath.Dir(x.path))
	}
	if err != nil {
		fmt.Fprintf(job.Log, "W: no compiler cache in %s: %v\n", r.Chroots.Dir, err)
		return nil
	}
	return x
}

// makeCaches makes a directory of caches. Root's builds and those of the build user
// share it, and nobody else looks into it.
func (c *Chroots) makeCaches(dir string) error {
	user, err := cage.LookupAccount(c.User)
	if err != nil {
		return err
	}
	for _, dir := range []string{filepath.Dir(dir), dir} {
		if err := os.Mkdir(dir, 0o700); errors.Is(err, os.ErrExist) {
			continue
		} else if err != nil {
			return err
		}
		if err := chown(dir, user); err != nil {
			return err
		}
	}
	return nil
}

// open opens what an earlier build left; nil: nothing that can be used.
func (x *cache) open() *os.File {
	f, err := openPlain(x.path)
	if err != nil {
		return nil
	}
	now := time.Now()
	os.Chtimes(x.path, now, now) // used: only the order of removal hangs on it
	return f
}

// behind reads the cache that comes behind the results.
func (x *cache) behind(results func(io.Reader) error) func(io.Reader) error {
	return func(from io.Reader) error {
		if err := results(from); err != nil {
			return err
		}
		r := bufio.NewReader(from)
		if _, err := r.Peek(1); err != nil {
			return nil // none comes, as of a build that failed
		}
		if x.made, x.err = os.CreateTemp(filepath.Dir(x.path), newCache+"*"); x.err == nil {
			x.size, x.err = io.Copy(x.made, io.LimitReader(r, x.most))
		}
		return nil
	}
}

// end removes what was not kept.
func (x *cache) end() {
	if x.made != nil {
		os.Remove(x.made.Name())
		x.made.Close()
	}
}

// keepCache keeps the cache of a good build for the next ones, and removes what is too much of others.
func (b *overlayBuild) keepCache(res *Result) {
	x := b.cache
	if x == nil {
		b.store.SweepCaches(0)
		return
	}
	err := x.err
	if err == nil && x.made != nil && res.Outcome == Good && b.exit.Cache == x.size {
		// No death of the machine leaves half of it under the name.
		err = cmp.Or(chown(x.made.Name(), b.user), x.made.Sync())
		if err == nil {
			err = durable.Replace(x.made.Name(), x.path)
		}
	}
	if err = errors.Join(err, b.store.SweepCaches(x.all)); err != nil {
		fmt.Fprintf(b.job.Log, "W: compiler cache: %v\n", err)
	}
}

// withoutCache has the build go on without a compiler cache.
func (b *overlayBuild) withoutCache(why string) error {
	if b.cache == nil {
		return nil
	}
	fmt.Fprintf(b.job.Log, "W: no compiler cache: %s\n", why)
	said := b.exit != nil
	b.cache, b.exit = nil, nil
	err := b.describe()
	if said { // the log has it
		b.order.Header = ""
	}
	return err
}

// SweepCaches removes compiler caches that no build has used for a month and, the
// longest unused first, those beyond a size of all, in bytes (0: any).
func (c *Chroots) SweepCaches(all int64) error {
	found, err := filepath.Glob(filepath.Join(c.Dir, ccacheDir, "*", "*"))
	if err != nil {
		return err
	}
	type old struct {
		path string
		used time.Time
		size int64
	}
	var caches []old
	var total int64
	for _, path := range found {
		st, err := os.Lstat(path)
		if err != nil || !st.Mode().IsRegular() {
			continue
		}
		age := time.Since(st.ModTime())
		if strings.HasPrefix(filepath.Base(path), newCache) {
			if age > 24*time.Hour { // its build is dead
				os.Remove(path)
			}
			continue
		}
		caches, total = append(caches, old{path, st.ModTime(), st.Size()}), total+st.Size()
	}
	slices.SortFunc(caches, func(a, b old) int { return a.used.Compare(b.used) })
	var errs []error
	for _, x := range caches {
		if (all == 0 || total <= all) && time.Since(x.used) < cacheAge {
			break
		}
		// A build that reads it has it open.
		if err := os.Remove(x.path); err == nil {
			total -= x.size
		} else if !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
