// Package runner runs one build in one directory and judges what came of it.
//
// It knows a source package, an architecture and a work directory; it knows
// no states and no queues. Three runners keep the same contract: Exec starts
// any program, Sbuild drives Debian's sbuild, Overlay is a fast rootless
// builder of our own. Whatever a build starts is gone when Run returns.
//
// A program that uses a runner calls Reexec as the first thing in its main.
package runner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"packmill/internal/deb822"
	"packmill/internal/policy"
	"packmill/queue/runner/cage"
	"packmill/queue/runner/overlay"
)

// Reexec turns this process into a helper of a build if a runner started it as
// one, and does not return then. Call it first in main.
func Reexec() { cage.Reexec(map[string]cage.Verb{overlay.Verb: overlay.Run}) }

// Job is one build. Its strings may come from an upload; a runner checks
// them against the grammars of Debian Policy before it uses them.
type Job struct {
	Source  string // source package
	Version string // version of the source, with its epoch and without +bN
	Suite   string // the suite the result is for: Distribution in its .changes
	Arch    string // a Debian architecture, or "all"
	Indep   bool   // with a concrete Arch: build the arch:all packages as well

	// On is the architecture of the chroot. Empty means Arch or, if that is
	// "all" or CrossFrom is set, the machine's own (or CrossFrom).
	On        string
	CrossFrom string // build on this architecture for Arch (a cross build)

	Dsc    string // path of the .dsc; the files it names lie beside it
	Dir    string // work directory; a runner empties it first
	Key    string // names the job on this machine, the same at each attempt; empty: Dir
	Result string // where results are put; a runner empties it first

	// Packages are the names of the source's binary packages. With them, Check
	// takes no others but their -dbgsym.
	Packages []string

	BinNMU   *BinNMU  // nil: an ordinary build
	Base     []string // apt lines (one-line style) of the distribution to build on; with them the chroot is kept fresh
	Repos    []Repo   // further repositories, such as our own archive
	Profiles []string // build profiles, such as nocheck
	Options  []string // words for DEB_BUILD_OPTIONS beside those of profiles and Parallel

	// Relations that the build needs besides its own (wanna-build's
	// extra-depends), and packages that must not be there. Sbuild and Overlay
	// add them; Exec passes them on.
	ExtraDepends, ExtraConflicts string
	Parallel                     int      // parallel=N in DEB_BUILD_OPTIONS; 0: not set
	Nice                         int      // added to the niceness
	Network                      bool     // leave the network on in the build itself
	Env                          []string // KEY=VALUE, added to the environment of dpkg-buildpackage
	Path                         string   // directory inside the chroot to build in; empty: the runner's choice

	Log    *os.File   // receives the log as it comes; written by this process only
	Locks  []*os.File // locked descriptors that are held until nothing of the build runs
	Limits Limits

	// Control reads the control stanza of a binary package. With it, Check
	// compares package, version, source and architecture inside each .deb.
	Control func(path string) (*deb822.Stanza, error)

	// Missing returns those of the direct build-dependencies (reduced to the
	// architecture and profiles, first alternatives only) that no package of
	// the index satisfies. Nil or an error: a failed installation of
	// build-dependencies is taken as Uninstallable.
	Missing func(deps policy.Relations) (policy.Relations, error)
}

// BinNMU is a rebuild of the same source under another binary version.
type BinNMU struct {
	Number     int       // N of +bN, from 1
	Changelog  string    // one line that says why
	Maintainer string    // Name <email> in the changelog entry
	Time       time.Time // the same for all architectures, or Multi-Arch: same packages differ
}

// Repo is a further apt repository for a build.
type Repo struct {
	URI        string // http://..., or empty with Dir
	Dir        string // a local archive; it is mounted read-only into the chroot
	Suite      string
	Components []string
	Key        []byte // OpenPGP public key, armored
	Pin        string // where Dir is another machine's: what that says to pin it by
}

// Limits end a build.
type Limits = cage.Limits

// Usage is what a build took.
type Usage = cage.Usage

// Outcome says what a build came to.
type Outcome int

const (
	GiveBack      Outcome = iota // infrastructure: try again later
	Good                         // built; the results are checked and lie in Job.Result
	Attempted                    // the build failed
	DepWait                      // waits for the relations in Result.DepWait
	Uninstallable                // build-dependencies exist and cannot be installed together
	Quarantined                  // claims success with results that are not this build's
)

var outcomes = [...]string{"give-back", "good", "attempted", "dep-wait", "bd-uninstallable", "quarantined"}

func (o Outcome) String() string {
	if o < 0 || int(o) >= len(outcomes) {
		return fmt.Sprintf("outcome %d", int(o))
	}
	return outcomes[o]
}

// Result is what a runner found.
type Result struct {
	Outcome Outcome
	Reason  string   // a sentence for people
	Suspect string   // Attempted: why it may not be the source's fault (see the Suspect constants)
	DepWait []string // one relation each, such as "libfoo-dev (>= 2)"
	Changes string   // Good: the .changes, a name in Job.Result
	Text    []byte   // Good: what that file said when it was checked; whoever signs it signs this
	Stage   string   // sbuild's Fail-Stage, or its like
	Status  string   // sbuild's Status, or its like
	Limit   string   // the limit that ended it (see the Limit constants), or empty
	Stopped bool     // the context ended it
	Exit    int      // exit status of the builder; -1 if a signal ended it
	Usage   Usage
}

// Reasons to suspect the machine and not the source.
const (
	SuspectSpace    = "no space"
	SuspectCompiler = "compiler crash"
	SuspectStall    = "stall"
	SuspectMemory   = "memory"
	SuspectTasks    = "tasks"
)

// Names of the limits in Result.Limit.
const (
	LimitWall    = cage.LimitWall
	LimitSilence = cage.LimitSilence
	LimitLog     = cage.LimitLog
	LimitMemory  = cage.LimitMemory
	LimitTasks   = cage.LimitTasks
	LimitDisk    = cage.LimitDisk
)

// Runner builds. A verdict about the package is a Result; an error is our
// own trouble (a missing program, a wrong setting), and nothing was judged.
// When the context ends, everything of the build is killed and the Result
// is a GiveBack with Stopped set.
type Runner interface {
	Run(ctx context.Context, job *Job) (*Result, error)

	// Ready says what this machine lacks to build in a chroot of an
	// architecture, as far as that can be told without a build: an ErrSetup with
	// its cure, or nil.
	Ready(arch string) error
}

// ErrSetup is wrapped by errors that trying again does not mend: something
// is not installed or not allowed on this machine.
var ErrSetup = cage.ErrSetup

// check refuses a job whose fields cannot be right.
func (j *Job) check() error {
	if err := policy.CheckSource(j.Source); err != nil {
		return fmt.Errorf("build job: source: %w", err)
	}
	if err := policy.CheckVersion(j.Version); err != nil {
		return fmt.Errorf("build job: version: %w", err)
	}
	if err := policy.CheckSuite(j.Suite); err != nil {
		return fmt.Errorf("build job: suite: %w", err)
	}
	for _, a := range []string{j.Arch, j.On, j.CrossFrom} {
		if a == "" && a != j.Arch {
			continue
		}
		if err := policy.CheckArch(a); err != nil {
			return fmt.Errorf("build job: architecture: %w", err)
		}
	}
	for _, p := range j.Profiles {
		if p == "" || strings.Trim(p, "abcdefghijklmnopqrstuvwxyz0123456789+-.") != "" {
			return fmt.Errorf("build job: profile %q: only a-z, 0-9, +, - and . are allowed", p)
		}
	}
	if b := j.BinNMU; b != nil {
		switch {
		case b.Number < 1:
			return fmt.Errorf("build job: binNMU number %d: it begins at 1", b.Number)
		case b.Changelog == "" || strings.ContainsAny(b.Changelog, "\n\r\x00"):
			return fmt.Errorf("build job: binNMU changelog %q: one line is needed", b.Changelog)
		case strings.ContainsAny(b.Maintainer, "\n\r\x00"):
			return fmt.Errorf("build job: binNMU maintainer %q: one line is needed", b.Maintainer)
		case b.Time.IsZero():
			return errors.New("build job: binNMU without a time: all architectures need the same one")
		}
	}
	for i := range j.Repos {
		if pin := j.Repos[i].Pin; pin != "" && !goodPin(pin) {
			return fmt.Errorf("build job: repository: %q cannot stand in apt's preferences", pin)
		}
	}
	for _, r := range []string{j.ExtraDepends, j.ExtraConflicts} {
		if _, err := policy.ParseRelations(r); err != nil {
			return fmt.Errorf("build job: extra relations: %w", err)
		}
	}
	for _, p := range []string{j.Dsc, j.Dir, j.Result} {
		if !filepath.IsAbs(p) {
			return fmt.Errorf("build job: %q is not an absolute path", p)
		}
	}
	if filepath.Dir(j.Dsc) == filepath.Clean(j.Dir) || filepath.Clean(j.Dir) == filepath.Clean(j.Result) ||
		filepath.Dir(j.Dsc) == filepath.Clean(j.Result) {
		return fmt.Errorf("build job: source, work directory and result directory must differ: %s", j.Dir)
	}
	if j.Log == nil {
		return errors.New("build job: no log")
	}
	return nil
}

// chrootArch is the architecture of the chroot to build in.
func (j *Job) chrootArch(machine string) string {
	switch {
	case j.On != "":
		return j.On
	case j.CrossFrom != "":
		return j.CrossFrom
	case j.Arch != "all":
		return j.Arch
	}
	return machine
}

// BinaryVersion is the version of the packages that the job makes, unless
// its rules say otherwise: the source's, with +bN for a binNMU.
func (j *Job) BinaryVersion() string {
	if j.BinNMU == nil {
		return j.Version
	}
	return fmt.Sprintf("%s+b%d", j.Version, j.BinNMU.Number)
}
