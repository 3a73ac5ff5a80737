package control

import (
	"cmp"
	"fmt"
	"net/mail"
	"os"

	"packmill/archive"
	"packmill/internal/deb"
	"packmill/internal/deb822"
	"packmill/internal/policy"
	"packmill/queue/installability"
	"packmill/queue/runner"
	"packmill/spool"
)

// Person is the builder where a person's name and address stand: in what a binNMU says
// of itself, which is not the word of the package's maintainer.
func (x *Builder) Person() string {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	at := "buildd@" + cmp.Or(x.Host, host)
	if a, err := mail.ParseAddress(x.Email); err == nil {
		at = a.Address
	}
	return spool.OneLine(x.Name) + " Build Daemon <" + at + ">"
}

// NewRunner is what builds, as the settings say.
func (x *Builder) NewRunner() (runner.Runner, error) {
	switch x.Runner {
	case "exec":
		return &runner.Exec{Path: x.Exec, User: x.User}, nil
	case "sbuild":
		return &runner.Sbuild{Chroots: x.ChrootStore(), Schroot: x.Mode == "schroot"}, nil
	case "overlay":
		return &runner.Overlay{Chroots: x.ChrootStore(), Layers: x.Layers}, nil
	}
	return nil, fmt.Errorf("the runner %q is not known", x.Runner)
}

// Prepare adds to the job what needs the rest of the tree.
func Prepare(t *spool.Tree, job *runner.Job, x *Builder, s *Suite) error {
	job.Control = func(path string) (*deb822.Stanza, error) {
		p, err := deb.ReadFile(path, deb.Options{SkipContents: true})
		if err != nil {
			return nil, err
		}
		return p.Control, nil
	}
	if x.Runner == "exec" {
		return nil
	}
	// A build can use what the archive has just published.
	key, err := os.ReadFile(t.Path("archive", "keys", s.Name+".asc"))
	if err == nil {
		job.Repos = append(job.Repos, runner.Repo{Dir: t.Path("archive"), Suite: s.Name, Components: s.Components, Key: key})
	} else if !os.IsNotExist(err) {
		return err
	}
	job.Missing = func(deps policy.Relations) (policy.Relations, error) { return missing(t, job, x, s, deps) }
	return nil
}

// missing names the build-dependencies that neither the chroot's repositories
// nor the suite have.
func missing(t *spool.Tree, job *runner.Job, x *Builder, s *Suite, deps policy.Relations) (policy.Relations, error) {
	on := job.On
	if on == "" {
		on = s.IndepOn
	}
	if job.CrossFrom != "" {
		on = job.CrossFrom
	}
	tmp, err := os.MkdirTemp("", "packmill-lists-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	paths, err := x.ChrootStore().Lists(s.Name, on, tmp)
	if err != nil {
		return nil, err
	}
	a, err := archive.Open(t.Path("archive"))
	if err != nil {
		return nil, err
	}
	if len(job.Repos) > 0 {
		files, err := a.IndexFiles(s.Name, on)
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			paths = append(paths, f.Path)
		}
	}
	index, err := installability.ReadIndex(on, paths...)
	if err != nil {
		return nil, err
	}
	return index.Unsatisfied(deps), nil
}
