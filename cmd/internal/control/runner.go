package control

import (
	"cmp"
	"fmt"
	"net/mail"
	"os"
	"runtime"

	"packmill/archive"
	"packmill/internal/deb"
	"packmill/internal/deb822"
	"packmill/internal/policy"
	"packmill/queue"
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

// Job is the build of f, a job of the queue, as its ticket, the suite and this
// builder say: what buildd builds, and packmill rebuild builds again. Where its
// source, work directory, results and log are is left to the caller.
func (x *Builder) Job(tree *spool.Tree, f spool.Found, t *queue.Ticket, s *Suite) (*runner.Job, error) {
	job := &runner.Job{
		Source: f.Name.Source, Version: f.Name.Version, Suite: s.Name, Arch: f.Arch(), On: f.Arch(),
		Base: s.Base, Network: s.BuildNetwork,
		ExtraDepends: t.ExtraDepends, ExtraConflicts: t.ExtraConflicts,
		Profiles: s.ProfilesOf(t), Options: s.OptionsOf(t), Parallel: max(1, runtime.NumCPU()/max(1, x.Jobs)),
		Nice: x.Nice, Limits: x.LimitsOf(s, t.Source),
	}
	if job.Arch == "all" {
		job.On = s.IndepOf(t)
	}
	if x.CrossFrom != "" && job.Arch != "all" && job.Arch != x.CrossFrom {
		job.On, job.CrossFrom = "", x.CrossFrom
	}
	if t.BinNMU > 0 {
		job.BinNMU = &runner.BinNMU{Number: t.BinNMU, Changelog: t.BinNMUText, Maintainer: t.BinNMUBy, Time: t.BinNMUTime}
	}
	return job, x.prepare(tree, job, s)
}

// prepare adds to the job what needs the rest of the tree.
func (x *Builder) prepare(t *spool.Tree, job *runner.Job, s *Suite) error {
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
	job.Missing = func(deps policy.Relations) (policy.Relations, error) { return x.missing(t, job, s, deps) }
	return nil
}

// missing names the build-dependencies that neither the chroot's repositories
// nor the suite have.
func (x *Builder) missing(t *spool.Tree, job *runner.Job, s *Suite, deps policy.Relations) (policy.Relations, error) {
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
