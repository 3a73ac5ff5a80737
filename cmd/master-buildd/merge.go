package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"packmill/archive"
	"packmill/cmd/internal/base"
	"packmill/cmd/internal/control"
	"packmill/internal/policy"
	"packmill/queue"
	"packmill/queue/installability"
	"packmill/queue/lacking"
	"packmill/queue/quinndiff"
	"packmill/spool"
)

// mergeRest is the least time between two merges of a daemon that runs for
// ever: what is published in the meantime is merged together.
const mergeRest = 500 * time.Millisecond

// sweepEvery is how often the ledgers lose the entries of jobs that are no more.
const sweepEvery = 24 * time.Hour

// merge looks what the archive lacks, when it has changed: the loop's Before.
func (m *master) merge(ctx context.Context) (bool, error) {
	m.newest = nil // a scan begins
	now := m.Settings.Get()
	did := false
	if n, err := queue.SweepLedgers(m.Tree, sweepEvery); err != nil {
		return false, fmt.Errorf("sweep the ledgers: %w", err)
	} else if n > 0 {
		m.Log.Info("swept the ledgers", "entries", n)
	}
	if err := m.sweep(ctx); err != nil {
		return false, err
	}
	for i := range now.Suites {
		s := &now.Suites[i]
		stamp := m.stampOf(s)
		if due, ok := m.due[s.Name]; stamp == m.merged[s.Name] && (!ok || time.Now().Before(due)) {
			continue
		}
		if rest := time.Until(m.lastMerge.Add(max(mergeRest, 3*m.tookMerge))); rest > 0 && !m.Once {
			time.AfterFunc(rest, m.bases.ask)
			return did, nil
		}
		delete(m.due, s.Name)
		start := time.Now()
		if err := m.mergeSuite(ctx, now, s); err != nil {
			return did, fmt.Errorf("merge %s: %w", s.Name, err)
		}
		m.merged[s.Name], m.lastMerge, m.tookMerge = stamp, time.Now(), time.Since(start)
		did = true
	}
	return did, nil
}

// stampOf changes when the suite's indexes, its settings or the lists beside
// them do.
func (m *master) stampOf(s *control.Suite) string {
	out := fmt.Sprint(s.Architectures, s.IndepOn, s.Base, s.Profiles, s.PkgProfiles)
	for _, p := range []string{"archive/dists/" + s.Name + "/Release", "archive/dists/" + s.Name + "/InRelease",
		"control/" + lacking.SpecificFile} {
		if st, err := os.Stat(m.Tree.Path(p)); err == nil {
			out += fmt.Sprintf("\n%s %d %d", p, st.Size(), st.ModTime().UnixNano())
		}
	}
	for _, arch := range s.Architectures {
		if below := base.Of(m.Tree.Root(), s, arch); below != nil {
			out += fmt.Sprintf("\n%s %v %v", arch, below.Fetched(), below.Moved())
		}
	}
	return out
}

// job is one that was seen in a suite's queues.
type job struct{ spool.Found }

func (j job) key() string { return j.Arch() + "/" + j.Name.ID() }

// seen is what lies in a suite's queues at one moment.
type seen struct {
	jobs   []job
	newest map[string]string // of each source: the newest version that is on its way
	coming map[string]bool   // SOURCE_VERSION of the sources that are on their way
	master []spool.Found     // of those, the ones that wait for their jobs
}

func (m *master) mergeSuite(ctx context.Context, all *control.Settings, s *control.Suite) error {
	// The queues first, the indexes after them: what was published when a
	// job was seen, and is not in the indexes then, was taken out.
	q, err := m.look(s)
	if err != nil {
		return err
	}
	a, err := archive.Open(m.Tree.Path("archive"))
	if err != nil {
		return err
	}
	specific, err := lacking.ReadSpecific(m.Tree.Path("control"))
	if err != nil {
		return err
	}
	view, err := lacking.Read(a, s.Lacking())
	if err != nil {
		return err
	}
	if err := m.limit(s, specific, q); err != nil {
		return err
	}
	have := map[string]bool{}
	for _, j := range q.jobs {
		have[j.key()] = true
	}
	present := map[string]string{}
	whole := map[string]bool{}
	var lacking []quinndiff.Needed
	view.Needed(specific, func(n quinndiff.Needed) {
		present[n.Source] = n.Version
		key := n.Arch + "/" + n.Source + "_" + n.Version
		if have[key] && n.State == quinndiff.UpToDate {
			whole[key] = true
		}
		if n.State.Wanted() && !have[key] &&
			(q.newest[n.Source] == "" || policy.CompareVersions(q.newest[n.Source], n.Version) <= 0) {
			lacking = append(lacking, n)
		}
	})
	if err := m.supply(ctx, s, view, lacking); err != nil {
		return err
	}
	if err := m.drop(s, q, present); err != nil {
		return err
	}
	m.settle(q, whole)
	return m.recheck(ctx, s, q.jobs)
}

// look lists a suite's queues: the jobs first and the sources after them, in the
// order of their moves, so that no job is seen whose source was missed.
func (m *master) look(s *control.Suite) (*seen, error) {
	q := &seen{newest: map[string]string{}, coming: map[string]bool{}}
	each := func(states []spool.State, do func(f spool.Found)) error {
		places, err := m.Tree.Places(states...)
		if err != nil {
			return err
		}
		for _, p := range places {
			if p.Suite != s.Name {
				continue
			}
			names, err := m.Tree.List(p)
			if err != nil {
				return err
			}
			for _, name := range names {
				n, err := spool.ParseName(name)
				if err != nil {
					continue
				}
				if v := q.newest[n.Source]; v == "" || policy.CompareVersions(n.Version, v) > 0 {
					q.newest[n.Source] = n.Version
				}
				do(spool.Found{Place: p, Name: n})
			}
		}
		return nil
	}
	err := each(append(m.Tree.ArchStates(), spool.Uploaded), func(f spool.Found) {
		if arch := f.Arch(); arch != "" && arch != spool.SourceArch {
			q.jobs = append(q.jobs, job{f})
		}
	})
	if err != nil {
		return nil, err
	}
	err = each(m.Tree.Are(spool.Sources|spool.Queued), func(f spool.Found) {
		if arch := f.Arch(); arch != "" && arch != spool.SourceArch {
			return
		}
		q.coming[f.Name.ID()] = true
		if f.Place.State == spool.Master {
			q.master = append(q.master, f)
		}
	})
	return q, err
}

// supply makes the jobs that are lacking.
func (m *master) supply(ctx context.Context, s *control.Suite, view *lacking.View, lacking []quinndiff.Needed) error {
	if len(lacking) == 0 {
		return nil
	}
	want := map[string]bool{}
	for _, n := range lacking {
		want[n.Source+"_"+n.Version] = true
	}
	sources, err := view.Sources(func(name, version string) bool { return want[name+"_"+version] })
	if err != nil {
		return err
	}
	of, err := m.suite(ctx, s)
	if err != nil {
		return err
	}
	judge := of.Judge
	for i := range lacking {
		n := &lacking[i]
		src := sources[n.Source+"_"+n.Version]
		if src == nil {
			continue // it has just been taken out
		}
		t := *src.Ticket
		t.BuildArch = n.Arch
		j := &queue.Job{
			Ticket: &t, Arch: n.Arch, Class: of.ClassFor(&t, n.State.String()), Time: time.Now(), Files: src.Files,
			By: spool.MasterD, Who: m.Name, Reason: "quinn-diff: " + n.State.String(),
		}
		if j.State, j.Text = judge(&t, src.Files[t.Dsc]); j.Text != "" {
			j.Reason += "; " + firstLine(j.Text)
		}
		f, err := queue.Make(m.Tree, j)
		if errors.Is(err, queue.ErrTwice) {
			continue
		}
		if err != nil {
			m.Log.Error("make job", "source", n.Source, "suite", s.Name, "arch", n.Arch, "err", err)
			continue
		}
		m.Log.Info("moved", "item", f.Name.String(), "from", "new", "to", f.Place.Dir(), "suite", s.Name, "arch", n.Arch,
			"reason", j.Reason)
	}
	return nil
}

// drop sends to the attic what nobody will publish: jobs of architectures that
// the suite does not have any more; jobs, and the sources that wait for them, of
// what a newer version has replaced or a person has taken out.
func (m *master) drop(s *control.Suite, q *seen, present map[string]string) error {
	for _, f := range q.master {
		why, err := m.replaced(s, f, present)
		if err != nil {
			return err
		}
		if why == "" {
			continue
		}
		// The source itself went ahead; this copy would publish it again.
		delete(q.coming, f.Name.ID())
		m.toAttic(f, why)
	}
	for _, j := range q.jobs {
		if j.Place.State == spool.Uploaded {
			continue // archived sees to it
		}
		why := ""
		current, there := present[j.Name.Source]
		switch {
		case j.Arch() != "all" && !slices.Contains(s.Architectures, j.Arch()):
			why = "the suite is not built for " + j.Arch() + " any more"
		case q.coming[j.Name.ID()] || there && policy.CompareVersions(current, j.Name.Version) == 0:
			continue
		default:
			// The lists are of different moments; this one is of one source.
			t, err := queue.TicketAt(m.Tree, j.Found)
			if err != nil {
				continue // it has moved, or fsck says it
			}
			t.BuildArch = j.Arch()
			standing, version, err := m.standing(s, t)
			if err != nil {
				return err
			}
			if !standing.Over() || standing == queue.Replaced && j.Place.State == spool.NotForUs {
				continue
			}
			why = standing.Why(version)
		}
		m.toAttic(j.Found, why)
	}
	return nil
}

// settle passes the jobs on whose packages the suite has without them, as archive copy
// brings them: archived files them. What is being built its builder ends; a binNMU
// makes others.
func (m *master) settle(q *seen, whole map[string]bool) {
	for _, j := range q.jobs {
		to := spool.In(spool.Uploaded, j.Place.Suite)
		if !whole[j.key()] || !m.Tree.Legal(j.Place.State, to.State, spool.MasterD) || j.Place.State == to.State {
			continue
		}
		if t, err := queue.TicketAt(m.Tree, j.Found); err == nil && t.BinNMU == 0 {
			m.move(j.Found, to, queue.HasAlready)
		}
	}
}

func (m *master) standing(s *control.Suite, t *queue.Ticket) (queue.Standing, string, error) {
	a, err := archive.Open(m.Tree.Path("archive"))
	if err != nil {
		return queue.Unknown, "", err
	}
	return queue.StandingOf(context.Background(), m.Tree, a, s.Name, t)
}

// replaced says why a source that waits for its jobs has nothing to wait for: the
// suite has a newer one, or this one went ahead of its jobs and was taken out.
func (m *master) replaced(s *control.Suite, f spool.Found, present map[string]string) (string, error) {
	current, there := present[f.Name.Source]
	switch c := policy.CompareVersions(current, f.Name.Version); {
	case there && c == 0:
		return "", nil
	case there && c > 0:
		return queue.Replaced.Why(current), nil
	}
	if was, err := queue.WentAhead(m.Tree, f); err != nil || !was {
		return "", err
	}
	return queue.Removed.Why(""), nil
}

// toAttic retires an item. A build that runs ends by itself, and archived retires
// its result; what moves is met again.
func (m *master) toAttic(f spool.Found, why string) { m.move(f, spool.In(spool.Attic), why) }

func (m *master) move(f spool.Found, to spool.Place, why string) {
	it, err := m.Tree.Claim(f.Place, f.Name.String())
	if err != nil {
		return
	}
	defer it.Release()
	if f.Place.State == spool.Building && m.comesBack(it) {
		return // and then it is met again
	}
	if err := it.Move(spool.MasterD, m.Name, spool.Verdict{To: to, Reason: why}); err != nil {
		m.Log.Error("drop", "item", f.Name.String(), "err", err)
		return
	}
	m.Log.Info("moved", "item", f.Name.String(), "from", f.Place.Dir(), "to", it.Place.Dir(), "reason", why)
}

// comesBack reports whether what is being built and has no builder is given back: by a build daemon of its architecture,
// or when a lease ends. Nobody does where the suite lost the architecture after the builder died.
func (m *master) comesBack(it *spool.Item) bool {
	t, err := queue.TicketOf(it)
	if err != nil || t.TakenBy != "" {
		return err != nil
	}
	if l, err := spool.ReadLease(it.Path()); l != nil || err != nil {
		return true
	}
	s, ok := m.Settings.Get().Suite(it.Place.Suite)
	return !ok || it.Arch() == "all" || slices.Contains(s.Architectures, it.Arch())
}

// recheck looks whether what waits for a builder can still be built. Nothing
// is claimed but what moves, so no builder meets a lock.
func (m *master) recheck(ctx context.Context, s *control.Suite, jobs []job) error {
	for _, arch := range append(slices.Clone(s.Architectures), "all") {
		x, err := m.indexOf(ctx, s, arch)
		if err != nil {
			return err
		}
		if until, stale := m.staleUntil(x); stale {
			m.due[s.Name] = until // what has left since must be seen, also if nothing is published after it
		}
		var asked []installability.Job
		var which []job
		for _, j := range jobs {
			key := j.Dir()
			if j.Place.State != spool.NeedsBuild || j.Place.Arch != arch || m.judged[key] == x.grownOf || !x.complete {
				continue
			}
			t, err := queue.TicketAt(m.Tree, j.Found)
			if err != nil {
				continue
			}
			t.BuildArch = arch
			w, err := wants(s, t, m.Tree.Path(j.Dir(), t.Dsc))
			if err != nil {
				continue
			}
			w.Waits = ""
			asked, which = append(asked, w), append(which, j)
		}
		if len(asked) == 0 {
			continue
		}
		answers, err := m.judge(ctx, s, x, asked)
		if err != nil {
			return err
		}
		for i, j := range which {
			m.judged[j.Dir()] = x.grownOf
			if answers[i].Installable() {
				continue
			}
			it, err := m.Tree.Claim(j.Place, j.Name.String())
			if err != nil {
				continue
			}
			v := spool.Verdict{To: spool.In(spool.BDUninstallable, s.Name, arch), Reason: firstLine(answers[i].Why),
				Text: answers[i].Why}
			if err := it.Move(spool.MasterD, m.Name, v); err != nil {
				m.Log.Error("recheck", "item", j.Name.String(), "err", err)
			}
			it.Release()
		}
	}
	there := map[string]bool{}
	for _, j := range jobs {
		there[j.Dir()] = true
	}
	for key := range m.judged {
		if strings.HasPrefix(key, "queue/"+s.Name+"/") && !there[key] {
			delete(m.judged, key)
		}
	}
	m.forgetIdlers(s.Name, there)
	return nil
}
