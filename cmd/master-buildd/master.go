package main

import (
	"context"
	"fmt"
	"os"

	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/settings"
	"packmill/queue"
	"packmill/spool"
)

// master is the master build daemon: three loops over one tree.
type master struct {
	*daemon.Env
}

// suite is what the queues must know of a suite of the settings.
func suite(s *settings.Suite) queue.Suite {
	return queue.Suite{Name: s.Name, Architectures: s.Architectures, SourceFirst: s.Publish == "source-first"}
}

// places are the directories of a state in every suite that the settings
// know, and those that are there: a suite that was dropped is served to its
// end.
func (m *master) places(state spool.State) func() []spool.Place {
	return func() []spool.Place {
		for _, s := range m.Settings.Get().Suites {
			if err := m.ensure(state, &s); err != nil {
				m.Log.Error("make directory", "state", state, "suite", s.Name, "err", err)
			}
		}
		return m.Tree.Places(state)
	}
}

func (m *master) ensure(state spool.State, s *settings.Suite) error {
	if state != spool.DepWait {
		return m.Tree.Ensure(spool.In(state, s.Name))
	}
	for _, a := range append([]string{"all"}, s.Architectures...) {
		for _, state := range spool.ArchStates() {
			if err := m.Tree.Ensure(spool.In(state, s.Name, a)); err != nil {
				return err
			}
		}
	}
	return m.Tree.Ensure(spool.In(spool.Uploaded, s.Name))
}

// fanOut serves the accepted sources.
func (m *master) fanOut() *spool.Loop {
	return m.Loop(spool.MasterD, &spool.Loop{
		Places: m.places(spool.Accepted),
		Also:   func() []string { return []string{m.Tree.Path("spool/accepted")} },
		Handle: m.accept,
		Poison: func(*spool.Item) spool.Place { return spool.In(spool.Rejected) },
	})
}

func (m *master) accept(_ context.Context, it *spool.Item) (spool.Verdict, error) {
	s, ok := m.Settings.Get().Suite(it.Place.Suite)
	if !ok || s.Name != it.Place.Suite {
		return spool.Verdict{
			To: spool.In(spool.Rejected), Reason: "no such suite: " + it.Place.Suite,
			Text: fmt.Sprintf("There is no suite %s in control/suites (any more).\nAdd it and put the upload back with: packmill requeue %s\n", it.Place.Suite, it.Name),
		}, nil
	}
	if err := queue.Supersede(m.Tree, s.Name, it.Name.Source, it.Name.Version, m.Name, spool.MasterD); err != nil {
		return spool.Verdict{}, err
	}
	return queue.FanOut(m.Tree, it, suite(s), m.Name)
}

// join serves the sources that wait for their architectures.
func (m *master) join() *spool.Loop {
	return m.Loop(spool.MasterD, &spool.Loop{
		Places: m.places(spool.Master),
		Also: func() []string {
			var dirs []string
			for _, p := range m.Tree.Places(spool.Uploaded, spool.BuildAttempted, spool.Failed, spool.NotForUs, spool.AutoNotForUs, spool.Attic) {
				dirs = append(dirs, m.Tree.Path(p.Dir()))
			}
			return dirs
		},
		Handle: func(_ context.Context, it *spool.Item) (spool.Verdict, error) {
			return queue.Join(m.Tree, it, queue.Suite{Name: it.Place.Suite})
		},
		Poison: func(*spool.Item) spool.Place { return spool.In(spool.Attic) },
	})
}

// release serves the jobs that wait for packages.
func (m *master) release() *spool.Loop {
	return m.Loop(spool.MasterD, &spool.Loop{
		Places: func() []spool.Place {
			return append(m.places(spool.DepWait)(), m.Tree.Places(spool.BDUninstallable)...)
		},
		// What is published is what can satisfy them. A suite's directory
		// has other names than items, so a change there makes a scan.
		Also: func() []string {
			dirs := []string{m.Tree.Path("archive/dists")}
			for _, s := range m.Settings.Get().Suites {
				if dir := m.Tree.Path("archive/dists", s.Name); isDir(dir) {
					dirs = append(dirs, dir)
				}
			}
			return dirs
		},
		Handle: m.wait,
	})
}

func isDir(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}

// wait looks whether a waiting job can go on.
func (m *master) wait(_ context.Context, it *spool.Item) (spool.Verdict, error) {
	st, err := it.Ticket()
	if err != nil {
		return spool.Verdict{}, err
	}
	t, err := queue.ReadTicket(st)
	if err != nil {
		return spool.Verdict{}, err
	}
	if t.DepWait == "" {
		return spool.Stay(0, "waits for its build-dependencies"), nil
	}
	missing, err := m.missing(t, it.Place)
	if err != nil {
		return spool.Verdict{}, err
	}
	if len(missing) > 0 {
		return spool.Stay(0, "waits for "+missing.String()), nil
	}
	return spool.Verdict{
		To:     spool.In(spool.NeedsBuild, it.Place.Suite, it.Place.Arch),
		Reason: "what it waited for is there: " + t.DepWait,
	}, nil
}
