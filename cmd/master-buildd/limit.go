package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"packmill/archive/pool"
	"packmill/cmd/internal/control"
	"packmill/queue"
	"packmill/queue/lacking"
	"packmill/queue/quinndiff"
	"packmill/spool"
)

// limit asks of each job again whether its architecture has anything to build: a
// line of Packages-arch-specific, or a build profile, that came or went holds for
// what is in the queues too. What is not to be built goes to auto-not-for-us; what
// lies there and is, leaves it, and quinn-diff makes its job. It takes such jobs
// out of q.
func (m *master) limit(s *control.Suite, specific *quinndiff.Specific, q *seen) error {
	stamp := fmt.Sprint(s.Profiles, s.PkgProfiles)
	if st, err := os.Stat(m.Tree.Path("control", lacking.SpecificFile)); err == nil {
		stamp += fmt.Sprint(st.Size(), st.ModTime())
	}
	if m.limited[s.Name] == stamp {
		return nil
	}
	ask := notFor(s, specific)
	var errs []error
	q.jobs = slices.DeleteFunc(q.jobs, func(j job) bool {
		if !j.Place.State.Is(spool.Stale) {
			return false // a newer version does not end it, nor does this
		}
		t, err := queue.TicketAt(m.Tree, j.Found)
		if err != nil {
			return false // it has moved, or fsck says it
		}
		t.BuildArch = j.Arch()
		why, known, err := m.whyNot(s, t, j.Found, ask)
		if err != nil {
			errs = append(errs, err)
		}
		auto := j.Place.State == spool.AutoNotForUs
		if err != nil || !known || auto == (why != "") {
			return false
		}
		if auto {
			m.toAttic(j.Found, "nothing excludes it from the architecture any more")
			return true
		}
		m.move(j.Found, spool.In(spool.AutoNotForUs, s.Name, j.Arch()), why)
		return false
	})
	if err := errors.Join(errs...); err != nil {
		return err
	}
	m.limited[s.Name] = stamp
	return nil
}

// whyNot asks why an architecture has nothing to build of a job. Where the job has
// no .dsc, as in auto-not-for-us, the source in the master queue has, or the pool:
// known is false where neither does.
func (m *master) whyNot(
	s *control.Suite, t *queue.Ticket, f spool.Found, ask func(*queue.Ticket, string, string) (string, error),
) (why string, known bool, err error) {
	for _, dsc := range m.dscOf(t, f) {
		why, err = ask(t, dsc, t.BuildArch)
		if !errors.Is(err, fs.ErrNotExist) {
			return why, err == nil, err
		}
	}
	return "", false, nil
}

func (m *master) dscOf(t *queue.Ticket, f spool.Found) []string {
	paths := []string{m.Tree.Path(f.Dir(), t.Dsc)}
	if found, err := m.Tree.Find(f.Name.ID(), spool.Master); err == nil && f.Place.State == spool.AutoNotForUs {
		for _, x := range found {
			if x.Place.Suite == f.Place.Suite {
				paths = append(paths, m.Tree.Path(x.Dir(), t.Dsc))
			}
		}
	}
	component := t.Component
	if component == "" {
		component = "main"
	}
	return append(paths, m.Tree.Path("archive", pool.Dir(component, t.Source), t.Dsc))
}
