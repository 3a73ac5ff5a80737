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
		return &runner.Overlay{Chroots: x.ChrootStore(), Layers: x.Layers, Ccache: x.Ccache}, nil
	}
	if x.Elsewhere() {
		return nil, fmt.Errorf("the builder %s is on another machine (Runner: remote): its host calls this one, with "+
			"buildd --master; see doc/remote.md", x.Name)
	}
	if x.Clustered() {
		return nil, fmt.Errorf("the builder %s is a cluster (Runner: slurm): buildd alone gives it jobs", x.Name)
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
	job.Control = controlOf
	if !x.Chrooted() {
		return nil
	}
	// A build can use what the archive has just published.
	key, err := os.ReadFile(t.Path("archive", "keys", s.Name+".asc"))
	if err == nil {
		job.Repos = append(job.Repos, runner.Repo{Dir: t.Path("archive"), Suite: s.Name, Components: s.Components, Key: key})
	} else if !os.IsNotExist(err) {
		return err
	}
	if x.Away() {
		job.Parallel, job.Nice = 0, 0
		return nil // the builder says what is missing
	}
	job.Missing = func(deps policy.Relations) (policy.Relations, error) {
		return x.missing(job, deps, func(on, _ string) (paths []string, err error) {
			a, err := archive.Open(t.Path("archive"))
			if err != nil || len(job.Repos) == 0 {
				return nil, err
			}
			files, err := a.IndexFiles(s.Name, on)
			for _, f := range files {
				paths = append(paths, f.Path)
			}
			return paths, err
		})
	}
	return nil
}

// controlOf reads the control stanza of a binary package.
func controlOf(path string) (*deb822.Stanza, error) {
	p, err := deb.ReadFile(path, deb.Options{SkipContents: true})
	if err != nil {
		return nil, err
	}
	return p.Control, nil
}

// Fit makes a job of another machine's one that this builder builds here: its limits are the
// narrower of both, and index puts the Packages files of the job's further repositories into a directory.
func (x *Builder) Fit(job *runner.Job, index func(on, dir string) ([]string, error)) {
	job.Parallel, job.Nice = max(1, runtime.NumCPU()/max(1, x.Jobs)), x.Nice
	job.Limits = narrower(job.Limits, x.LimitsOf(&Suite{}, job.Source))
	job.Control = controlOf
	if !x.Chrooted() {
		job.Repos = nil
		return
	}
	job.Missing = func(deps policy.Relations) (policy.Relations, error) { return x.missing(job, deps, index) }
}

// missing names the build-dependencies that neither the chroot's repositories
// nor the suite have.
func (x *Builder) missing(job *runner.Job, deps policy.Relations, index func(on, dir string) ([]string, error)) (
	policy.Relations, error) {
	on := cmp.Or(job.CrossFrom, job.On, runner.Machine())
	tmp, err := os.MkdirTemp("", "packmill-lists-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	paths, err := x.ChrootStore().Lists(job.Suite, on, tmp)
	if err != nil {
		return nil, err
	}
	more, err := index(on, tmp)
	if err != nil {
		return nil, err
	}
	all, err := installability.ReadIndex(on, append(paths, more...)...)
	if err != nil {
		return nil, err
	}
	return all.Unsatisfied(deps), nil
}
