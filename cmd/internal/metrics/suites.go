package metrics

import (
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"packmill/archive/release"
	"packmill/cmd/internal/control"
	"packmill/internal/openpgp"
	"packmill/spool"
)

// suites tells of what was published, and of the keys that sign.
func (c *collector) suites(gauge tell) {
	set := c.Settings()
	for i := range set.Suites {
		name := set.Suites[i].Name
		if !c.shown(name) {
			continue
		}
		r, err := c.papers.release(c.Tree.Path("archive/dists", name))
		if err != nil {
			c.Log.Warn("a Release file cannot be read", "suite", name, "err", err)
			continue
		}
		if r.date.IsZero() {
			continue // nothing is published yet
		}
		gauge(published, seconds(r.date), name)
		if !r.until.IsZero() {
			gauge(valid, seconds(r.until), name)
		}
	}
	for _, k := range c.papers.ends(set, c.Tree) {
		if k.use != "suite" || c.shown(k.name) {
			gauge(keyEnds, seconds(k.end), k.use, k.name, k.fingerprint)
		}
	}
}

// papers are files that are read again when they have changed.
type papers struct {
	mu       sync.Mutex
	releases map[string]released
	keys     map[string]keys
}

// stamp tells one state of a file from another.
type stamp struct {
	size    int64
	written time.Time
}

func stampOf(path string) stamp {
	st, err := os.Stat(path)
	if err != nil {
		return stamp{}
	}
	return stamp{st.Size(), st.ModTime()}
}

// released is what a Release file says of its time.
type released struct {
	stamp
	date, until time.Time
}

func (p *papers) release(dir string) (released, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	is := stampOf(filepath.Join(dir, "InRelease"))
	if is == (stamp{}) {
		is = stampOf(filepath.Join(dir, "Release"))
	}
	if old, ok := p.releases[dir]; ok && old.stamp == is {
		return old, nil
	}
	r, err := release.Read(dir)
	if err != nil {
		return released{}, err
	}
	now := released{stamp: is}
	if r != nil {
		now.date, now.until = r.Date, r.Until
	}
	p.releases[dir] = now
	return now, nil
}

// keys are public keys of a file, with when they end, as of a day: one may be revoked then.
type keys struct {
	stamp
	at   time.Time
	ends map[string]time.Time
}

func (p *papers) keysIn(path string) map[string]time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	is := stampOf(path)
	if old, ok := p.keys[path]; ok && old.stamp == is && time.Since(old.at) < time.Hour {
		return old.ends
	}
	now := keys{stamp: is, at: time.Now()}
	if data, err := os.ReadFile(path); err == nil {
		if ring, err := openpgp.ReadKeyring(data); err == nil {
			now.ends = ring.Ends(now.at)
		}
	}
	p.keys[path] = now
	return now.ends
}

// ending is a key that signs for the site, and ends.
type ending struct {
	use, name, fingerprint string
	end                    time.Time
}

// ends lists the keys of suites, and of builders, that end at some time.
func (p *papers) ends(set *control.Settings, t *spool.Tree) (out []ending) {
	for i := range set.Suites {
		name := set.Suites[i].Name
		for fpr, end := range p.keysIn(t.Path(spool.KeysDir, name+".asc")) {
			if !end.IsZero() {
				out = append(out, ending{"suite", name, fpr, end})
			}
		}
	}
	files, err := filepath.Glob(filepath.Join(set.Dir, control.KeysDir, "*"))
	if err != nil {
		return out
	}
	for i := range set.Builders {
		b := &set.Builders[i]
		for _, f := range files {
			one := ending{"builder", b.Name, b.Fingerprint, p.keysIn(f)[b.Fingerprint]}
			if one.end.IsZero() {
				continue
			}
			// Several files may have one key: what was prolonged counts.
			same := func(e ending) bool { return e.use == one.use && e.name == one.name && e.fingerprint == one.fingerprint }
			if i := slices.IndexFunc(out, same); i < 0 {
				out = append(out, one)
			} else if one.end.After(out[i].end) {
				out[i].end = one.end
			}
		}
	}
	return out
}
