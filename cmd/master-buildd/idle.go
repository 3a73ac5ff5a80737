package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"packmill/cmd/internal/control"
	"packmill/internal/policy"
	"packmill/queue"
	"packmill/queue/installability"
	"packmill/spool"
)

// idler is a job that waits for packages that are nowhere. There are tens of thousands while a distribution is built,
// and each publication brings what few of them wait for: the others are not even opened.
type idler struct {
	lacks    policy.Relations
	settings *control.Settings // with which it was judged
	ticket   time.Time         // of its ticket, which a person may have changed since
	ring     bool              // its REASON tells of one
	installability.Waiting
}

// idle reports whether a job would stay where it is: all that it lacked is lacking still. The index is read for a place
// once in a scan, and each that is published brings another scan.
func (m *master) idle(at spool.Place, name string) bool {
	w := m.idling[at][name]
	if w == nil || w.settings != m.Settings.Get() || w.ticket != ticketTime(m.Tree.Path(at.Dir(), name)) {
		return false
	}
	if m.newest == nil || m.newestOf != at {
		s, ok := w.settings.Suite(at.Suite)
		if !ok {
			return false
		}
		x, err := m.indexOf(context.Background(), s, at.Arch)
		if err != nil {
			return false // the batch says it
		}
		m.newest, m.newestOf = x, at
	}
	return m.newest.complete && len(m.newest.Unsatisfied(w.lacks)) == len(w.lacks)
}

func ticketTime(dir string) time.Time {
	st, err := os.Lstat(filepath.Join(dir, spool.TicketFile))
	if err != nil {
		return time.Time{} // it has moved: whoever claims it finds that out
	}
	return st.ModTime()
}

// rests remembers why a job stays: because something is nowhere, or else it is judged each time.
func (m *master) rests(it *spool.Item, t *queue.Ticket, a installability.Answer, ring bool) {
	at, name := it.Place, it.Name.String()
	if len(a.Lacks) == 0 {
		delete(m.idling[at], name)
		return
	}
	if m.idling[at] == nil {
		m.idling[at] = map[string]*idler{}
	}
	m.idling[at][name] = &idler{lacks: a.Lacks, settings: m.Settings.Get(), ring: ring,
		ticket:  ticketTime(it.Path()),
		Waiting: installability.Waiting{Source: it.Name.Source, Makes: t.Binary, Needs: a.Missing}}
}

// idlers are the jobs of a place that wait and are not among the items.
func (m *master) idlers(at spool.Place, items []*spool.Item) (out []installability.Waiting) {
	among := map[string]bool{}
	for _, it := range items {
		among[it.Name.String()] = true
	}
	for name, w := range m.idling[at] {
		if !among[name] {
			out = append(out, w.Waiting)
		}
	}
	return out
}

// wake has the jobs judged again that are in a ring, or were: their REASON tells of it.
func (m *master) wake(at spool.Place, rings map[string][]string) {
	for _, w := range m.idling[at] {
		if now := rings[w.Source] != nil; now != w.ring {
			w.ring, w.settings = now, nil
			m.bases.ask()
		}
	}
}

// forgetIdlers drops what is remembered of a suite's jobs that are not in its queues any more.
func (m *master) forgetIdlers(suite string, there map[string]bool) {
	for at, all := range m.idling {
		for name := range all {
			if at.Suite == suite && !there[at.Dir()+"/"+name] {
				delete(all, name)
			}
		}
	}
}

// judgedTogether is how many jobs of one architecture are judged together at their births.
const judgedTogether = 300

// judgeBirth judges a job at its birth, together with those that will be born soon: dose reads its index each
// time. What has changed by then release and recheck see.
func (m *master) judgeBirth(ctx context.Context, s *control.Suite, x *index, j installability.Job) (
	installability.Answer, error,
) {
	key := fmt.Sprint(s.Name, j)
	m.mu.Lock()
	a, ok := m.unborn[key]
	delete(m.unborn, key)
	m.mu.Unlock()
	if ok {
		return a, nil
	}
	jobs := []installability.Job{j}
	if x.complete {
		jobs = append(jobs, m.bornSoon(s, j)...)
	}
	answers, err := m.judge(ctx, s, x, jobs)
	if err != nil {
		return a, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.unborn) > 100*judgedTogether {
		clear(m.unborn) // some were not born
	}
	for i := range jobs[1:] {
		m.unborn[fmt.Sprint(s.Name, jobs[i+1])] = answers[i+1]
	}
	return answers[0], nil
}

// bornSoon are the jobs for an architecture of the sources that wait for their fan-out.
func (m *master) bornSoon(s *control.Suite, j installability.Job) (out []installability.Job) {
	at := spool.In(spool.Accepted, s.Name)
	names, err := m.Tree.List(at)
	if err != nil {
		return nil // the loop says it
	}
	for _, name := range names {
		n, err := spool.ParseName(name)
		if err != nil || n.Source == j.Source {
			continue
		}
		t, err := queue.TicketAt(m.Tree, spool.Found{Place: at, Name: n})
		if err != nil || !policy.BuildsOn(t.Architecture, j.Arch) || slices.Contains(t.Has, j.Arch) {
			continue
		}
		t.BuildArch = j.Arch
		if w, err := wants(s, t, m.Tree.Path(at.Dir(), name, t.Dsc)); err == nil {
			out = append(out, w)
		}
		if len(out) == judgedTogether {
			break
		}
	}
	return out
}
