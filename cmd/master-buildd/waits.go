package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"packmill/archive"
	"packmill/cmd/internal/base"
	"packmill/cmd/internal/control"
	"packmill/internal/paper"
	"packmill/internal/policy"
	"packmill/queue"
	"packmill/queue/installability"
	"packmill/spool"
)

// index is what a build on an architecture can be given, as far as it is
// known here.
type index struct {
	*installability.Index
	stamp    string // of the files that it was read from
	digest   string
	grownOf  string // the digest of an earlier one, since which packages only came
	complete bool   // the suite's Base is in it: what is not there is nowhere
	rests    time.Time
	stale    bool // there is a newer one, and release is asked for a scan when this one has rested
}

// readRest is how many times as long as its reading took an index is used although there is a newer one: of a suite
// that is published every second the work does not grow with its size.
const readRest = 9

// indexOf reads the suite's own packages and its Base's, if they have changed
// since they were read last and that was not just now.
func (m *master) indexOf(ctx context.Context, s *control.Suite, arch string) (*index, error) {
	if arch == "all" {
		arch = s.IndepOn
	}
	a, err := archive.Open(m.Tree.Path("archive"))
	if err != nil {
		return nil, err
	}
	paths, complete := m.bases.lists(ctx, s, arch)
	files, err := a.IndexFiles(s.Name, arch)
	if err != nil && !errors.Is(err, archive.ErrNoSuite) {
		return nil, err
	}
	for _, f := range files {
		paths = append(paths, f.Path)
	}
	stamp := fmt.Sprint(complete)
	if below := base.Of(m.Tree.Root(), s, arch); below != nil {
		stamp += below.Fetched().String() // its Release files too
	}
	for _, p := range paths {
		st, err := os.Stat(p)
		if err != nil {
			return nil, err
		}
		stamp += fmt.Sprintf("\n%s %d %d", p, st.Size(), st.ModTime().UnixNano())
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	key := s.Name + "/" + arch
	old := m.indexes[key]
	if old != nil && (old.stamp == stamp || !m.Once && m.resting(old)) {
		return old, nil
	}
	start := time.Now()
	read, err := installability.ReadIndex(arch, paths...)
	if err != nil {
		return nil, err
	}
	for _, err := range read.Refused {
		m.warn(fmt.Sprintf("left out of what builds of %s may be given: %v", s.Name, err))
	}
	x := &index{Index: read, stamp: stamp, digest: read.Digest(), complete: complete}
	x.grownOf = x.digest
	if old != nil && old.complete && complete && x.Grew(old.Index) {
		x.grownOf = old.grownOf
	}
	x.rests = time.Now().Add(readRest * time.Since(start))
	m.indexes[key] = x
	return x, nil
}

// resting reports whether an index that is out of date was read just now; then release is asked for a scan in time.
func (m *master) resting(x *index) bool {
	rest := time.Until(x.rests)
	if rest > 0 && !x.stale {
		x.stale = true
		time.AfterFunc(rest, m.bases.ask)
	}
	return rest > 0
}

// staleUntil reports whether there is a newer index than x, and when that will be read.
func (m *master) staleUntil(x *index) (time.Time, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return x.rests, x.stale
}

// wants reads what the build of a job needs out of its .dsc.
func wants(s *control.Suite, t *queue.Ticket, dsc string) (installability.Job, error) {
	j := installability.Job{
		Source: t.Source, Version: t.Version, Arch: t.BuildArch, Profiles: s.ProfilesOf(t),
		ExtraDepends: t.ExtraDepends, ExtraConflicts: t.ExtraConflicts, Waits: t.DepWait,
	}
	// What lies in the queue was verified when it was let in.
	st, err := paper.Read(filepath.Split(dsc))
	if err != nil {
		return j, err
	}
	j.BuildDepends, j.BuildDependsArch, j.BuildDependsIndep = st.Get("Build-Depends"), st.Get("Build-Depends-Arch"),
		st.Get("Build-Depends-Indep")
	j.BuildConflicts, j.BuildConflictsArch, j.BuildConflictsIndep = st.Get("Build-Conflicts"),
		st.Get("Build-Conflicts-Arch"), st.Get("Build-Conflicts-Indep")
	return j, nil
}

// judge answers for jobs of one architecture. Where the index is not complete
// only packages count that another open source of the suite will make: of all
// others nobody here knows whether the builders have them.
func (m *master) judge(
	ctx context.Context, s *control.Suite, x *index, jobs []installability.Job,
) ([]installability.Answer, error) {
	answers, err := installability.Direct(x.Index, jobs)
	if err != nil {
		return nil, err
	}
	if !x.complete {
		var makers map[string]string
		if slices.ContainsFunc(answers, func(a installability.Answer) bool { return len(a.Missing) > 0 }) {
			makers = m.makers(s.Name)
		}
		for i := range answers {
			a := &answers[i]
			a.Why = ""
			a.Missing = slices.DeleteFunc(a.Missing, func(p string) bool {
				by, ok := makers[p]
				if rel := extra(&jobs[i], p); !ok && x.Version(p) != "" && rel != "" {
					// Who asked for it means the suite's, which has another.
					a.Why += "is to be built with " + rel + ", and the suite has " + p + " " + x.Version(p) + "\n"
					return false
				}
				if ok && by != jobs[i].Source {
					a.Why += fmt.Sprintf("build-depends on missing %s, which %s will make\n", p, by)
				}
				return !ok
			})
			a.Why = strings.TrimSuffix(a.Why, "\n")
		}
		return answers, nil
	}
	if !installability.HaveDose() {
		m.warn("dose-builddebcheck is not installed: installability is judged by the direct build-dependencies alone; " +
			"install the Debian package of that name")
		return answers, nil
	}
	// What lacks something directly needs no further question.
	var which []int
	var ask []installability.Job
	for i := range jobs {
		if answers[i].Installable() && answers[i].WaitOver() {
			which, ask = append(which, i), append(ask, jobs[i])
		}
	}
	if len(ask) == 0 {
		return answers, nil
	}
	deep, err := installability.Dose(ctx, x.Index, ask, m.Tree.Path("tmp"))
	if err != nil {
		return nil, err
	}
	for n, i := range which {
		answers[i] = deep[n]
	}
	return answers, nil
}

// extra is the relation by which a person asked for the package beside what the
// source needs, or "".
func extra(j *installability.Job, name string) string {
	r, err := policy.ParseRelations(j.ExtraDepends)
	if err != nil {
		return ""
	}
	i := slices.IndexFunc(r, func(or []policy.Relation) bool { return or[0].Name == name })
	if i < 0 {
		return ""
	}
	return policy.Relations{r[i]}.String()
}

// makers are the packages that open sources of a suite will make, each with
// its source.
func (m *master) makers(suite string) map[string]string {
	out := map[string]string{}
	m.mu.Lock()
	defer m.mu.Unlock()
	seen := map[string]bool{}
	places, err := m.Tree.Places(m.Tree.Are(spool.Queued | spool.Active)...)
	if err != nil {
		m.Log.Error("scan", "err", err)
	}
	for _, p := range places {
		if p.Suite != suite {
			continue
		}
		names, err := m.Tree.List(p)
		if err != nil {
			continue
		}
		for _, name := range names {
			n, err := spool.ParseName(name)
			if err != nil || seen[n.ID()] {
				continue
			}
			list, ok := m.binaries[n.ID()]
			if !ok {
				t, err := queue.TicketAt(m.Tree, spool.Found{Place: p, Name: n})
				if err != nil {
					continue // it has just moved
				}
				list = t.Binary
				m.binaries[n.ID()] = list
			}
			seen[n.ID()] = true
			for _, b := range list {
				out[b] = n.Source
			}
		}
	}
	for id := range m.binaries {
		if !seen[id] {
			delete(m.binaries, id)
		}
	}
	return out
}

// atBirth says whether a new job begins in bd-uninstallable.
func (m *master) atBirth(ctx context.Context, s *control.Suite) func(*queue.Ticket, string) (spool.State, string) {
	return func(t *queue.Ticket, dsc string) (spool.State, string) {
		why, err := m.uninstallable(ctx, s, t, dsc)
		if err != nil {
			m.Log.Warn("installability is not known", "item", t.Source+"_"+t.Version, "suite", s.Name, "arch", t.BuildArch,
				"err", err)
		}
		if why == "" {
			return spool.NeedsBuild, ""
		}
		return spool.BDUninstallable, why
	}
}

func (m *master) uninstallable(ctx context.Context, s *control.Suite, t *queue.Ticket, dsc string) (string, error) {
	x, err := m.indexOf(ctx, s, t.BuildArch)
	if err != nil {
		return "", err
	}
	j, err := wants(s, t, dsc)
	if err != nil {
		return "", err
	}
	a, err := m.judgeBirth(ctx, s, x, j)
	return a.Why, err
}

// waiting serves the jobs of one suite, architecture and state that wait: the
// loop's batch.
func (m *master) waiting(ctx context.Context, items []*spool.Item) ([]spool.Verdict, error) {
	at := items[0].Place
	verdicts := make([]spool.Verdict, len(items))
	s, ok := m.Settings.Get().Suite(at.Suite)
	if !ok || s.Name != at.Suite {
		for i := range items {
			verdicts[i] = spool.Stay(0, "its suite is not in the settings any more")
		}
		return verdicts, nil
	}
	x, err := m.indexOf(ctx, s, at.Arch)
	if err != nil {
		return nil, err
	}
	tickets := make([]*queue.Ticket, len(items))
	jobs := make([]installability.Job, 0, len(items))
	which := make([]int, 0, len(items))
	for i, it := range items {
		t, err := queue.TicketOf(it)
		if err == nil {
			t.BuildArch = at.Arch
			var j installability.Job
			if j, err = wants(s, t, it.Path(t.Dsc)); err == nil {
				tickets[i] = t
				jobs, which = append(jobs, j), append(which, i)
			}
		}
		if err != nil {
			m.Log.Error("read job", "item", it.Name.String(), "err", err)
			verdicts[i] = spool.Stay(0, err.Error())
		}
	}
	answers, err := m.judge(ctx, s, x, jobs)
	if err != nil {
		return nil, err
	}
	var lack []installability.Waiting
	for n, i := range which {
		if len(answers[n].Missing) > 0 {
			lack = append(lack, installability.Waiting{Source: items[i].Name.Source, Makes: tickets[i].Binary,
				Needs: answers[n].Missing})
		}
	}
	rings := m.rings(at, append(lack, m.idlers(at, items)...))
	for n, i := range which {
		v, err := m.onward(items[i], tickets[i], x, answers[n], rings[items[i].Name.Source])
		if err != nil {
			return nil, err
		}
		verdicts[i] = v
		if v.To.State == spool.Unborn && x.complete {
			m.rests(items[i], tickets[i], answers[n], len(rings[items[i].Name.Source]) > 0)
		}
	}
	m.wake(at, rings)
	return verdicts, nil
}

// sameIndex is the reason of a job that failed with what there is.
const sameIndex = "It was tried with the packages that there are now, and failed; " +
	"it is tried again when one of them changes."

// onward says what becomes of one waiting job.
func (m *master) onward(
	it *spool.Item, t *queue.Ticket, x *index, a installability.Answer, ring []string,
) (spool.Verdict, error) {
	place := func(s spool.State) spool.Place { return spool.In(s, it.Place.Suite, it.Place.Arch) }
	text := a.Why
	if a.Wait != "" {
		text = a.Wait
	}
	if len(ring) > 0 {
		text += "\nThese sources wait for each other, so no builder can begin: " + strings.Join(ring, ", ") +
			".\nA person must break the ring: with a build profile, or with packages from elsewhere.\n"
	}
	stay := func(why string) (spool.Verdict, error) { return stays(it, t, why) }
	switch {
	case it.Place.State == spool.DepWait && t.DepWait == "":
		// By mv: nothing would ever end that.
		return spool.Verdict{To: place(spool.NeedsBuild),
			Reason: "it names no package to wait for; say which: packmill wb dw -m RELATIONS"}, nil
	case !a.WaitOver():
		return stay(text)
	case !a.Installable() && it.Place.State == spool.BDUninstallable:
		if t.Index == queue.Tried {
			// This index says the same as the builder did, so it will tell
			// when that has changed.
			t.Index = ""
			if err := it.SetTicket(t.Stanza()); err != nil {
				return spool.Verdict{}, err
			}
		}
		return stay(text)
	case !a.Installable():
		t.DepWait = ""
		if err := it.SetTicket(t.Stanza()); err != nil {
			return spool.Verdict{}, err
		}
		return spool.Verdict{To: place(spool.BDUninstallable), Reason: firstLine(a.Why), Text: text}, nil
	case t.Index == x.digest:
		if it.Place.State == spool.DepWait {
			return stay(sameIndex)
		}
		old, _, _ := strings.Cut(spool.ReadReason(it.Path()), sameIndex)
		return stay(strings.TrimSpace(old + "\n" + sameIndex))
	case t.Index == queue.Tried:
		// By a builder, on this index as far as is known here.
		t.Index = x.digest
		if err := it.SetTicket(t.Stanza()); err != nil {
			return spool.Verdict{}, err
		}
		return spool.Stay(0, "tried on this index"), nil
	}
	reason := "its build-dependencies are installable"
	if t.DepWait != "" {
		reason = "what it waited for is there: " + t.DepWait
	}
	t.DepWait, t.Index = "", x.digest
	if err := it.SetTicket(t.Stanza()); err != nil {
		return spool.Verdict{}, err
	}
	return spool.Verdict{To: place(spool.NeedsBuild), Reason: reason}, nil
}

// stays leaves a job where it is, with a REASON that says why.
func stays(it *spool.Item, t *queue.Ticket, why string) (spool.Verdict, error) {
	if it.Place.State == spool.DepWait {
		why = fmt.Sprintf("Waits for: %s\nIt goes on by itself when the suite has them.\n%s", t.DepWait, why)
	}
	why = strings.TrimRight(why, "\n") + "\n"
	if why != spool.ReadReason(it.Path()) && strings.TrimSpace(why) != "" {
		if err := it.WriteFile(spool.ReasonFile, []byte(why)); err != nil {
			return spool.Verdict{}, err
		}
	}
	return spool.Stay(0, why), nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// rings finds sources that wait for each other, and says so once.
func (m *master) rings(at spool.Place, all []installability.Waiting) map[string][]string {
	out := map[string][]string{}
	for _, ring := range installability.Cycles(all) {
		for _, s := range ring {
			out[s] = ring
		}
		m.warn(fmt.Sprintf("%s on %s: these sources wait for each other: %s", at.Suite, at.Arch, strings.Join(ring, ", ")))
	}
	return out
}

// warn logs a warning the first time.
func (m *master) warn(text string) {
	if m.said.New(text, text) {
		m.Log.Warn(text)
	}
}
