package view

import (
	"cmp"
	"context"
	"hash/maphash"
	"maps"
	"slices"
	"sync"
	"time"

	"packmill/queue/buildlog"
	"packmill/queue/logs"
)

// estimates are what earlier builds took and came to, in little room: of each source,
// suite and architecture the newest walls of good ones, of each architecture those of
// any source, and sums of each day.
type estimates struct {
	mu    sync.RWMutex
	seed  maphash.Seed
	exact map[uint64]*walls
	arch  map[string]*walls
	days  map[dayKey]*Day
	works map[workKey]*work
}

type dayKey struct{ date, suite, arch string }

type workKey struct{ date, suite, builder string }

// work is what a builder did on one day for one suite.
type work struct {
	built, failed, other int
	wall                 float64
	last                 buildlog.Build // the newest
}

// Work is what a builder did.
type Work struct {
	Builder string          `json:"builder"` // as a build names it
	Built   int             `json:"built"`   // in the last 30 days
	Failed  int             `json:"failed"`
	Other   int             `json:"other"` // without a verdict, or for dependencies
	Load    float64         `json:"load"`  // builds at once in the last 7 days, as a mean
	Last    *buildlog.Build `json:"last,omitempty"`
}

// Day is what the builds that began on one day came to, in one suite on one architecture.
type Day struct {
	Date   string         `json:"date"`
	Suite  string         `json:"suite"`
	Arch   string         `json:"arch"`
	Built  int            `json:"built"`
	Failed int            `json:"failed"`
	Waits  int            `json:"waits"` // for dependencies
	Other  int            `json:"other"` // without a verdict
	Wall   float64        `json:"wall_s"`
	CPU    float64        `json:"cpu_s"`
	Kinds  map[string]int `json:"kinds,omitempty"` // of first errors
}

func (d *Day) add(b *buildlog.Build) {
	switch logs.EndingOf(b.Outcome) {
	case logs.Built:
		d.Built++
	case logs.Failed:
		d.Failed++
	case logs.Depends:
		d.Waits++
	default:
		d.Other++
	}
	d.Wall += b.Wall
	d.CPU += b.CPU
	if b.Error != nil {
		if d.Kinds == nil {
			d.Kinds = map[string]int{}
		}
		d.Kinds[b.Error.Kind]++
	}
}

// newest is how many builds an estimate is made of, as package buildlog has it.
const newest = 5

type walls struct {
	n int32
	s [newest]float32
}

func (w *walls) add(s float64) {
	if w.n < newest {
		w.s[w.n] = float32(s)
		w.n++
	}
}

func (w *walls) median() time.Duration {
	s := slices.Sorted(slices.Values(w.s[:w.n]))
	m := s[len(s)/2]
	if len(s)%2 == 0 {
		m = (m + s[len(s)/2-1]) / 2
	}
	return time.Duration(float64(m) * float64(time.Second))
}

// When the record of builds is read, and how much of it.
const (
	recordsEvery = time.Hour   // all of it
	todayEvery   = time.Minute // what began today, if something has changed
	maxBuilds    = 200_000     // the newest
)

// keep reads the record of builds now and again.
func (e *estimates) keep(ctx context.Context, v *View) {
	var all time.Time
	number := uint64(0)
	for {
		now := v.Now().Number
		midnight := time.Now().UTC().Truncate(24 * time.Hour)
		switch {
		case time.Since(all) > recordsEvery:
			all = time.Now()
			e.read(v, time.Time{})
		case now != number:
			e.read(v, midnight)
		}
		number = now
		select {
		case <-ctx.Done():
			return
		case <-time.After(todayEvery):
		}
	}
}

// read reads the record since a time: with the zero time it forgets what it had.
func (e *estimates) read(v *View, since time.Time) {
	fresh := &estimates{seed: maphash.MakeSeed(), exact: map[uint64]*walls{}, arch: map[string]*walls{},
		days: map[dayKey]*Day{}, works: map[workKey]*work{}}
	n := 0
	err := v.Builds(buildlog.Filter{Since: since}, func(b *buildlog.Build) bool {
		if since.IsZero() && b.Outcome == buildlog.Good {
			enter(fresh.exact, fresh.key(b.Source, b.Suite, b.Arch), b.Wall)
			enter(fresh.arch, b.Arch, b.Wall)
		}
		k := dayKey{b.Start.UTC().Format(dayForm), b.Suite, b.Arch}
		d := fresh.days[k]
		if d == nil {
			d = &Day{Date: k.date, Suite: k.suite, Arch: k.arch}
			fresh.days[k] = d
		}
		d.add(b)
		fresh.work(k.date, b)
		n++
		return n < maxBuilds
	})
	if err != nil {
		v.log.Warn("what builds took cannot be read", "err", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if since.IsZero() {
		e.seed, e.exact, e.arch, e.days, e.works = fresh.seed, fresh.exact, fresh.arch, fresh.days, fresh.works
		return
	}
	maps.Copy(e.days, fresh.days)
	maps.Copy(e.works, fresh.works)
}

// work adds a build to what its builder did that day: the newest comes first.
func (e *estimates) work(date string, b *buildlog.Build) {
	k := workKey{date, b.Suite, b.Builder}
	w := e.works[k]
	if w == nil {
		w = &work{last: *b}
		e.works[k] = w
	}
	switch logs.EndingOf(b.Outcome) {
	case logs.Built:
		w.built++
	case logs.Failed:
		w.failed++
	default:
		w.other++
	}
	w.wall += b.Wall
}

// Works says what each builder did, by name.
func (v *View) Works() (out []Work) {
	now := time.Now().UTC()
	week := now.Truncate(24*time.Hour).AddDate(0, 0, -6)
	all := map[string]*Work{}
	v.times.mu.RLock()
	for k, w := range v.times.works {
		if k.builder == "" || k.date < now.AddDate(0, 0, -30).Format(dayForm) || v.Hides(k.suite) {
			continue
		}
		x := all[k.builder]
		if x == nil {
			x = &Work{Builder: k.builder}
			all[k.builder] = x
		}
		x.Built, x.Failed, x.Other = x.Built+w.built, x.Failed+w.failed, x.Other+w.other
		if k.date >= week.Format(dayForm) {
			x.Load += w.wall / now.Sub(week).Seconds()
		}
		if x.Last == nil || w.last.Start.After(x.Last.Start) {
			x.Last = &w.last
		}
	}
	v.times.mu.RUnlock()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		out = append(out, *all[name])
	}
	return out
}

func (e *estimates) key(words ...string) uint64 {
	var h maphash.Hash
	h.SetSeed(e.seed)
	for _, w := range words {
		h.WriteString(w)
		h.WriteByte(0)
	}
	return h.Sum64()
}

func enter[K comparable](m map[K]*walls, k K, wall float64) {
	w := m[k]
	if w == nil {
		w = &walls{}
		m[k] = w
	}
	w.add(wall)
}

// Takes says how long a build may take: exact, by the newest good ones of the source
// in the suite on the architecture, or else by those of other sources there. Zero says
// that nothing is known.
func (v *View) Takes(source, suite, arch string) (took time.Duration, exact bool) {
	e := &v.times
	e.mu.RLock()
	defer e.mu.RUnlock()
	if e.exact == nil {
		return 0, false
	}
	if w := e.exact[e.key(source, suite, arch)]; w != nil {
		return w.median(), true
	}
	if w := e.arch[arch]; w != nil {
		return w.median(), false
	}
	return 0, false
}

// estimate is Takes for package survey.
func (v *View) estimate(source, suite, arch string) (buildlog.Estimate, bool) {
	took, exact := v.Takes(source, suite, arch)
	e := buildlog.Estimate{Took: took}
	if !exact {
		e.Of = "other packages on " + arch
	}
	return e, took > 0
}

// Days says what the builds of each day came to, the newest day first: of the newest
// hundred thousands of builds.
func (v *View) Days() (out []Day) {
	v.times.mu.RLock()
	for _, d := range v.times.days {
		if c := *d; !v.Hides(c.Suite) {
			c.Kinds = maps.Clone(c.Kinds)
			out = append(out, c)
		}
	}
	v.times.mu.RUnlock()
	slices.SortFunc(out, func(a, b Day) int {
		return cmp.Or(cmp.Compare(b.Date, a.Date), cmp.Compare(a.Suite, b.Suite), cmp.Compare(a.Arch, b.Arch))
	})
	return out
}
