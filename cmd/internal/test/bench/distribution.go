package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"packmill/queue/installability"
	"packmill/queue/quinndiff/listtest"
	"packmill/spool"
)

// A month of the distribution: of 100 sources so many are uploaded, as in a month of Debian's unstable; of 1,000 so
// many are taken out.
const (
	uploadsOf100   = 26
	removalsOf1000 = 5
	transition     = 500 // sources that are built again for a new version of a library, at most
	bareMoves      = 5_000
)

// distributionFigures measures a whole distribution: real sources and what they need, from an empty archive to
// everything installed, by the real daemons and an instant builder, or one that takes its time; then a month of it. The lists are those of the
// directory PACKMILL_BENCH_LISTS, as apt keeps them, or apt fetches those of the machine's own Debian.
func distributionFigures(b *bench) error {
	if !installability.HaveDose() {
		return errors.New("no dose-builddebcheck; install the Debian package of that name")
	}
	var sources, packages string
	var err error
	if os.Getenv("PACKMILL_BENCH_LISTS") != "" {
		sources, packages, err = benchLists(b.dir)
	} else {
		sources, packages, err = listtest.Fetch(b.dir)
	}
	if err != nil {
		return err
	}
	bin, err := programs(b, simulators...)
	if err != nil {
		return err
	}
	var all []*simulation
	for _, n := range b.sizes(1000) {
		s, err := simulate(b, bin, sources, packages, n)
		if err != nil {
			return fmt.Errorf("%d sources: %w", n, err)
		}
		all = append(all, s)
	}
	for _, f := range simulationFigures(all) {
		b.figure(f)
	}
	return nil
}

// simulators are the programs of the simulation.
var simulators = []string{"packmill", "reviewd", "master-buildd", "buildd", "archived", "internal/test/fakebuilder"}

// simulation is what one of them showed.
type simulation struct {
	sources, jobs int
	builders      int           // builds at a time
	asleep        time.Duration // what they would take, each by itself
	bare          float64       // moves a second, of a program that does nothing else
	phases        []phase
	peaks         usage
	packages      int            // in the pool
	size, inodes  int64          // of the tree
	left          map[string]int // jobs that cannot be built, by architecture
}

// phase is a part of a distribution's life.
type phase struct {
	name    string
	took    time.Duration // to the last move
	moves   int
	landed  int             // items that were installed
	used    usage           // of the daemons
	visible []time.Duration // from accepted to installed, of each source and each job
}

// simulate lets a distribution of n sources live.
func simulate(b *bench, bin, sources, packages string, n int) (*simulation, error) {
	dir, err := os.MkdirTemp(b.dir, "sim-")
	if err != nil {
		return nil, err
	}
	b.progress("distribution: choosing %d sources", n)
	w, err := readWorld(context.Background(), dir, sources, packages, n)
	if err != nil {
		return nil, err
	}
	s := &simulation{sources: len(w.chosen)}
	if s.bare, err = bareLimit(filepath.Join(dir, "bare")); err != nil {
		return nil, err
	}
	m, err := newMill(b, w, dir, bin, b.architectures)
	if m != nil {
		defer m.stop()
	}
	if err != nil {
		return nil, err
	}
	s.jobs, s.builders, s.asleep = m.jobs(), len(m.archs)*jobsOfBuilder, m.asleep
	b.progress("distribution: %d sources make %d builds on %d architectures; a base of %d packages breaks their rings",
		len(w.chosen), s.jobs, len(m.archs), len(w.base))
	if err := s.live(m); err != nil {
		return nil, err
	}
	return s, errors.Join(m.stop(), m.packmill("fsck"), os.RemoveAll(dir))
}

// bareLimit is how many moves a second nothing but rename and fsync makes.
func bareLimit(dir string) (float64, error) {
	t, err := queueOf(dir, bareMoves)
	if err != nil {
		return 0, err
	}
	return bareRate(t, claimers, bareMoves)
}

// live is a distribution's life.
func (s *simulation) live(m *mill) error {
	for _, p := range []struct {
		name string
		do   func() error
	}{{"rebuild", m.rebuild}, {"month", m.month}, {"transition", m.transition}, {"removals", m.removals}} {
		before, _, err := m.usage()
		if err != nil {
			return err
		}
		from, landed, start := len(m.moves), m.landed, time.Now()
		if err := p.do(); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		after, _, err := m.usage()
		if err != nil {
			return err
		}
		done := phase{name: p.name, moves: len(m.moves) - from, landed: m.landed - landed, used: after.less(before),
			visible: visible(m.moves[from:])}
		if done.moves > 0 {
			done.took = m.moves[len(m.moves)-1].Time.Sub(start)
		}
		s.phases, s.peaks = append(s.phases, done), after
		m.progress("distribution: %s of %d sources took %s: %d moves, CPU %s", p.name, len(m.chosen),
			done.took.Round(time.Millisecond), done.moves, done.used)
	}
	return s.weigh(m)
}

// weigh looks at what there is at the end. On the first architecture, for which the sources were chosen, nothing may
// be left.
func (s *simulation) weigh(m *mill) (err error) {
	if s.size, s.inodes, err = weigh(m.tree.Root()); err != nil {
		return err
	}
	err = filepath.WalkDir(m.tree.Path("archive/pool"), func(path string, d os.DirEntry, err error) error {
		if strings.HasSuffix(path, ".deb") || strings.HasSuffix(path, ".dsc") {
			s.packages++
		}
		return err
	})
	if err != nil {
		return err
	}
	s.left, err = m.left()
	return err
}

// rebuild brings all sources at once to an empty archive.
func (m *mill) rebuild() error {
	bring, err := m.uploads(m.chosen)
	if err == nil {
		err = bring()
	}
	if err == nil {
		err = m.rest("from nothing", m.leftHere)
	}
	return err
}

// month brings new versions of some sources, some a day.
func (m *mill) month() error {
	r := rand.New(rand.NewPCG(1, 1))
	all := max(1, len(m.chosen)*uploadsOf100/100)
	last := map[*source]string{}
	for day := range m.days {
		var today []*source
		for range all*(day+1)/m.days - all*day/m.days {
			s := m.chosen[r.IntN(len(m.chosen))]
			if slices.Contains(today, s) {
				continue
			}
			if last[s] == "" {
				last[s] = s.version
			}
			s.version = fmt.Sprintf("%s+m%d", last[s], day+1)
			today = append(today, s)
		}
		if len(today) == 0 {
			continue
		}
		bring, err := m.uploads(today)
		if err == nil {
			err = bring()
		}
		if err == nil {
			err = m.rest(fmt.Sprintf("day %d", day+1), nil)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// transition brings a new version of the library that most others are built with, and builds those again.
func (m *mill) transition() error {
	users := map[*source][]string{}
	for _, s := range m.chosen {
		seen := map[*source]bool{s: true}
		for _, b := range s.needs {
			if !seen[b.of] && slices.Contains(m.chosen, b.of) && slices.Contains(strings.Fields(s.architecture()), "any") {
				seen[b.of] = true
				users[b.of] = append(users[b.of], s.name)
			}
		}
	}
	if len(users) == 0 {
		return nil
	}
	library := slices.MaxFunc(m.chosen, func(a, b *source) int { return cmp.Compare(len(users[a]), len(users[b])) })
	library.version += "+t1"
	bring, err := m.uploads([]*source{library})
	if err == nil {
		err = bring()
	}
	if err == nil {
		err = m.rest("a new "+library.name, nil)
	}
	if err != nil {
		return err
	}
	again := users[library][:min(transition, len(users[library]))]
	order := append(append([]string{"wb", "nmu"}, again...), ".", "ANY", ".", simulated, ".", "-m",
		"Rebuild for "+library.name)
	if err := m.packmill(order...); err != nil {
		return err
	}
	return m.rest(fmt.Sprintf("%d for %s", len(again), library.name), nil)
}

// removals takes out sources that no other needs.
func (m *mill) removals() error {
	needed := map[*source]bool{}
	need := func(of *source, all []*binary) {
		for _, b := range all {
			if b.of != of {
				needed[b.of] = true
			}
		}
	}
	for _, s := range m.chosen {
		need(s, s.needs)
		for _, b := range s.makes {
			need(s, b.needs)
		}
	}
	order := []string{"archive", "rm", "--force", simulated}
	for _, s := range m.chosen {
		if !needed[s] && len(order) < 5+len(m.chosen)*removalsOf1000/1000 {
			order = append(order, s.name)
		}
	}
	if err := m.packmill(order...); err != nil {
		return err
	}
	return m.rest("removals", nil)
}

// visible is how long it took from a source's acceptance until it, and until each of its jobs, was installed.
func visible(moves []move) (out []time.Duration) {
	accepted := map[string]time.Time{}
	for _, v := range moves {
		n, err := spool.ParseName(v.Item)
		if err != nil {
			continue
		}
		begun, ok := accepted[n.ID()]
		switch {
		case strings.HasPrefix(v.To, "spool/accepted/"):
			accepted[n.ID()] = v.Time
		case ok && strings.HasPrefix(v.To, installed):
			out = append(out, v.Time.Sub(begun))
		}
	}
	return out
}

func (u usage) less(before usage) usage {
	out := usage{}
	for kind, s := range u {
		out[kind] = &share{own: s.own, children: s.children, peak: s.peak}
		if b := before[kind]; b != nil {
			out[kind].own -= b.own
			out[kind].children -= b.children
		}
	}
	return out
}

func (u usage) String() string {
	var out []string
	for _, kind := range kinds {
		s := u[kind]
		out = append(out, fmt.Sprintf("%s %.1f s and %.1f in programs, %d MB", kind, s.own.Seconds(), s.children.Seconds(),
			s.peak/1e6))
	}
	return strings.Join(out, "; ")
}

// kinds are the daemons of the simulation, and how much memory each may have, in MB.
var kinds = []string{"reviewd", "master-buildd", "buildd", "archived"}

var mayHave = map[string]float64{"reviewd": 100, "master-buildd": 100, "buildd": 100, "archived": 250}

// trait is one thing that a simulation shows.
type trait struct {
	name, unit string
	of         func(*simulation) float64
	most       float64 // 0: no goal
	perPackage bool    // it ought not to grow with the distribution
}

func traits() []trait {
	rebuilt := func(s *simulation) *phase { return &s.phases[0] }
	out := []trait{
		{name: "wall", unit: "ms a build from nothing", perPackage: true, of: func(s *simulation) float64 {
			return rebuilt(s).took.Seconds() * 1000 / float64(s.jobs)
		}},
		{name: "disk", unit: "kB a package", perPackage: true, of: func(s *simulation) float64 {
			return float64(s.size) / 1000 / float64(s.packages)
		}},
		{name: "inodes", unit: "a package", perPackage: true, of: func(s *simulation) float64 {
			return float64(s.inodes) / float64(s.packages)
		}},
		{name: "left", unit: "builds that lack something on other architectures", of: func(s *simulation) (n float64) {
			for _, x := range s.left {
				n += float64(x)
			}
			return n
		}},
	}
	for _, name := range kinds {
		out = append(out,
			trait{name: "cpu." + name, unit: "ms a build from nothing", perPackage: true, of: func(s *simulation) float64 {
				return rebuilt(s).used[name].own.Seconds() * 1000 / float64(s.jobs)
			}},
			trait{name: "cpu." + name + ".programs", unit: "ms a build from nothing", perPackage: true,
				of: func(s *simulation) float64 {
					return rebuilt(s).used[name].children.Seconds() * 1000 / float64(s.jobs)
				}},
			trait{name: "memory." + name, unit: "MB", most: mayHave[name], of: func(s *simulation) float64 {
				return float64(s.peaks[name].peak) / 1e6
			}})
	}
	for i, name := range []string{"p50", "p99"} {
		out = append(out, trait{name: "visible." + name, unit: "s from accepted, in the month",
			of: func(s *simulation) float64 {
				p50, p99 := middleAnd(s.phases[1].visible)
				return []float64{p50.Seconds(), p99.Seconds()}[i]
			}})
	}
	return out
}

// simulationFigures are those of the largest, beside the smaller ones.
func simulationFigures(all []*simulation) (out []Figure) {
	last := all[len(all)-1]
	rate := float64(last.phases[0].moves) / last.phases[0].took.Seconds()
	out = append(out, Figure{Name: "distribution.moves", Value: rate, Unit: "1/s",
		Versus: fmt.Sprintf("rename + fsync of the new directory, %d goroutines: %.0f/s", claimers, last.bare),
		Ratio:  rate / last.bare, Goal: "ratio >= 0.6", Met: rate/last.bare >= 0.6})
	if last.asleep > 0 {
		out = append(out, Figure{Name: "distribution.busy", Unit: "of the builders' time is builds, from nothing",
			Value: last.asleep.Seconds() / float64(last.builders) / last.phases[0].took.Seconds()})
	}
	for _, t := range traits() {
		f := Figure{Name: "distribution." + t.name, Value: t.of(last), Unit: t.unit}
		var others []string
		for _, s := range all[:len(all)-1] {
			others = append(others, fmt.Sprintf("%d sources: %.3g", s.sources, t.of(s)))
		}
		f.Versus = strings.Join(others, "; ")
		if small := t.of(all[0]); t.perPackage && len(all) > 1 && small > 0 {
			f.Ratio = f.Value / small
			f.Goal, f.Met = "ratio <= 1.2", f.Ratio <= 1.2
		}
		if t.most > 0 {
			f.Goal, f.Met = fmt.Sprintf("<= %.0f %s", t.most, t.unit), f.Value <= t.most
		}
		out = append(out, f)
	}
	return out
}
