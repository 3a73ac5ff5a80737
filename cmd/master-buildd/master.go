package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"packmill/cmd/internal/control"
	"packmill/cmd/internal/daemon"
	"packmill/internal/deb822"
	"packmill/internal/paper"
	"packmill/internal/trouble"
	"packmill/queue"
	"packmill/queue/installability"
	"packmill/queue/lacking"
	"packmill/queue/quinndiff"
	"packmill/spool"
	"packmill/spool/statement"
	"packmill/spool/upload"
)

// master is the master build daemon: three loops over one tree.
type master struct {
	*daemon.Env
	bases *bases
	said  trouble.Said

	// Of the loop that serves what waits.
	merged    map[string]string    // the suite's stamp at its last merge
	due       map[string]time.Time // suites that were merged by an index that rested: when it has
	lastMerge time.Time
	tookMerge time.Duration
	swept     time.Time         // when sweep ran last
	judged    map[string]string // jobs in needs-build, with the index's digest
	limited   map[string]string // of each suite: what its jobs were held against last, see limit
	idling    map[spool.Place]map[string]*idler
	newest    *index // that idle asked last in this scan
	newestOf  spool.Place

	// Of the loop that joins.
	arrivals spool.Arrivals // in the states of jobs
	learned  bool           // the names of all items are written down

	mu       sync.Mutex
	indexes  map[string]*index
	binaries map[string][]string // of open sources
	unborn   map[string]installability.Answer
}

func newMaster(env *daemon.Env) *master {
	m := &master{
		Env: env, merged: map[string]string{}, due: map[string]time.Time{}, judged: map[string]string{}, limited: map[string]string{},
		indexes: map[string]*index{}, binaries: map[string][]string{}, unborn: map[string]installability.Answer{},
		idling: map[spool.Place]map[string]*idler{},
	}
	m.arrivals.Tree = env.Tree
	m.bases = &bases{m: m, nudge: make(chan struct{}, 1), running: map[string]bool{}, tried: map[string]time.Time{}}
	return m
}

// suite is what the queues must know of a suite of the settings.
func (m *master) suite(ctx context.Context, s *control.Suite) (queue.Suite, error) {
	specific, err := lacking.ReadSpecific(m.Tree.Path("control"))
	if err != nil {
		return queue.Suite{}, err
	}
	out := s.Queue()
	out.NotFor, out.Judge = notFor(s, specific), m.atBirth(ctx, s)
	return out, nil
}

// notFor asks a .dsc, Packages-arch-specific and the build profiles whether an
// architecture has anything to build.
func notFor(s *control.Suite, specific *quinndiff.Specific) func(*queue.Ticket, string, string) (string, error) {
	return func(t *queue.Ticket, dsc, arch string) (string, error) {
		st, err := paper.Read(filepath.Split(dsc))
		if err != nil {
			return "", err
		}
		return quinndiff.NotFor(st.Append(nil), arch, specific, s.ProfilesOf(t)), nil
	}
}

// places are the directories of these states in every suite that the settings
// know, and those that are there: a suite that was dropped is served to its
// end. It makes all directories of a suite, so that each loop finds from its
// first scan on what it watches.
func (m *master) places(states ...spool.State) func() ([]spool.Place, error) {
	return func() ([]spool.Place, error) {
		for _, s := range m.Settings.Get().Suites {
			if err := m.ensure(&s); err != nil {
				m.Log.Error("make directories", "suite", s.Name, "err", err)
			}
		}
		return m.Tree.Places(states...)
	}
}

func (m *master) ensure(s *control.Suite) error {
	var errs []error
	for _, state := range m.Tree.Are(spool.Queued) {
		archs := []string{""}
		if state.Has("ARCH") {
			archs = append([]string{"all"}, s.Architectures...)
		}
		for _, a := range archs {
			errs = append(errs, m.Tree.Ensure(spool.In(state, s.Name, a)))
		}
	}
	return errors.Join(errs...)
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

func (m *master) accept(ctx context.Context, it *spool.Item) (spool.Verdict, error) {
	s, ok := m.Settings.Get().Suite(it.Place.Suite)
	if !ok || s.Name != it.Place.Suite {
		return spool.Verdict{
			To: spool.In(spool.Rejected), Reason: "no such suite: " + it.Place.Suite,
			Text: fmt.Sprintf("There is no suite %s in control/suites (any more).\n"+
				"Add it and put the upload back with: packmill requeue %s\n", it.Place.Suite, it.Name),
		}, nil
	}
	if misfit, err := m.misfit(it); misfit || err != nil {
		return spool.Verdict{}, err
	}
	said, err := m.Verified(it)
	if err == nil {
		err = m.asLetIn(it, said)
	}
	if statement.Refused(err) != "" {
		return notLetIn(it, err), nil
	}
	if err != nil {
		return spool.Verdict{}, err
	}
	if err := queue.Supersede(m.Tree, s.Name, it.Name, m.Name); err != nil {
		return spool.Verdict{}, err
	}
	if err := queue.AcceptedAgain(m.Tree, it, m.Name); err != nil {
		return spool.Verdict{}, err
	}
	q, err := m.suite(ctx, s)
	if err != nil {
		return spool.Verdict{}, err
	}
	return queue.FanOut(m.Tree, it, q, m.Name)
}

// asLetIn puts the ticket right by what was let in: a reviewer may write in an upload,
// and has no say in what is built of it.
func (m *master) asLetIn(it *spool.Item, said *statement.Statement) error {
	t, err := queue.TicketOf(it)
	if err != nil {
		return err
	}
	was := string(t.Stanza().Append(nil))
	t.Component, t.Has, t.Dsc, t.Changes = said.Component, said.Has, said.Dsc, said.Changes
	t.Uploader, t.Fingerprint, t.Account = said.Uploader, said.Fingerprint, cmp.Or(said.Account, t.Account)
	if said.Dsc != "" {
		text, err := said.Text(it.Path(), said.Dsc, upload.MaxChanges)
		if err != nil {
			return err
		}
		dsc, err := paper.Parse(said.Dsc, text)
		if err != nil {
			return err
		}
		t.Architecture, t.IndepArch = deb822.Words(dsc.Get("Architecture")), dsc.Get("Build-Indep-Architecture")
	}
	now := t.Stanza()
	if string(now.Append(nil)) == was {
		return nil
	}
	m.Log.Warn("the ticket was changed; what reviewd let in counts", "item", it.Name.String(), "suite", it.Place.Suite)
	return it.SetTicket(now)
}

// notLetIn quarantines a source that is not what reviewd let in.
func notLetIn(it *spool.Item, err error) spool.Verdict {
	why := statement.Refused(err)
	return spool.Verdict{
		To: spool.In(spool.Rejected), Reason: "it is not what was let in: " + why,
		Text: fmt.Sprintf("%s is not what reviewd let in: %s\nThe history says who had it. Upload it again.\n",
			it.Name.ID(), why),
	}
}

// learn writes down the names of all items, once in a process' life. Until it could,
// whoever asks for a source's items reads directories.
func (m *master) learn() error {
	if m.learned {
		return nil
	}
	err := m.Tree.LearnNames()
	m.learned = err == nil
	return err
}

// join serves the sources that wait for their architectures.
func (m *master) join() *spool.Loop {
	return m.Loop(spool.MasterD, &spool.Loop{
		Places: m.places(spool.Master),
		Also: func() []string {
			var dirs []string
			places, err := m.Tree.Places(m.Tree.Where(func(s spool.State) bool {
				return s.Is(spool.Settled) && !s.Has("HASH")
			})...)
			if err != nil {
				m.Log.Error("scan", "err", err)
			}
			for _, p := range places {
				dirs = append(dirs, m.Tree.Path(p.Dir()))
			}
			return dirs
		},
		Before: func(context.Context) (bool, error) {
			return false, errors.Join(m.learn(), m.putRight(), m.giveBackLapsed())
		},
		Handle: func(_ context.Context, it *spool.Item) (spool.Verdict, error) {
			if misfit, err := m.misfit(it); misfit || err != nil {
				return spool.Verdict{}, err
			}
			v, err := queue.Join(m.Tree, it, queue.Suite{Name: it.Place.Suite})
			if err != nil || v.To.State != spool.Uploaded {
				return v, err
			}
			if _, err := m.Verified(it); statement.Refused(err) != "" {
				return notLetIn(it, err), nil
			} else if err != nil {
				return spool.Verdict{}, err
			}
			return v, nil
		},
		Poison: func(*spool.Item) spool.Place { return spool.In(spool.Attic) },
	})
}

// release serves the jobs that wait for packages.
func (m *master) release() *spool.Loop {
	return m.Loop(spool.MasterD, &spool.Loop{
		Places: m.places(spool.DepWait, spool.BDUninstallable),
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
		Before: m.merge,
		Nudge:  m.bases.nudge,
		Batch:  m.waiting,
		Same:   m.idle,
	})
}

func isDir(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}
