package main

import (
	"fmt"

	"packmill/archive/deb"
	"packmill/cmd/internal/settings"
	"packmill/queue/build"
	"packmill/spool/deb822"
)

// runner is what the settings say.
func (b *builder) runner(x *settings.Builder, s *settings.Suite) (build.Runner, error) {
	switch x.Runner {
	case "exec":
		return &build.Exec{Path: x.Exec, User: x.User}, nil
	}
	return nil, fmt.Errorf("the runner %q is not known", x.Runner)
}

// prepare adds to the job what needs the rest of the tree.
func (b *builder) prepare(job *build.Job, s *settings.Suite, all *settings.Settings) error {
	job.Control = func(path string) (*deb822.Stanza, error) {
		p, err := deb.ReadFile(path, deb.Options{})
		if err != nil {
			return nil, err
		}
		return p.Control, nil
	}
	return nil
}
