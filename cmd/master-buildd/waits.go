package main

import (
	"errors"
	"fmt"

	"packmill/archive"
	"packmill/queue"
	"packmill/queue/installability"
	"packmill/spool"
	"packmill/spool/policy"
)

// index reads the suite's own packages as a build on the job's architecture
// sees them.
func (m *master) index(at spool.Place) (*installability.Index, error) {
	a, err := archive.Open(m.Tree.Path("archive"))
	if err != nil {
		return nil, err
	}
	arch := at.Arch
	if s, ok := m.Settings.Get().Suite(at.Suite); ok && arch == "all" {
		arch = s.IndepOn
	}
	files, err := a.IndexFiles(at.Suite, arch)
	if err != nil && !errors.Is(err, archive.ErrNoSuite) {
		return nil, err
	}
	var paths []string
	for _, f := range files {
		paths = append(paths, f.Path)
	}
	return installability.ReadIndex(arch, paths...)
}

// missing returns those of the job's dep-wait relations that the suite's own
// packages do not satisfy.
func (m *master) missing(t *queue.Ticket, at spool.Place) (policy.Relations, error) {
	deps, err := policy.ParseRelations(t.DepWait)
	if err != nil {
		return nil, fmt.Errorf("dep-wait of %s: %w", t.Source, err)
	}
	x, err := m.index(at)
	if err != nil {
		return nil, err
	}
	return x.Unsatisfied(deps), nil
}
