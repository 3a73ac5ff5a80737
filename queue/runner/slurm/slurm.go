// Package slurm builds on the nodes of a Slurm cluster: a build is one job of sbatch(1), and what a node runs in it
// is this same program, with the runner that the settings name.
//
// What both ends say to each other are files, in a directory that every node sees under the same path. A
// job's directory in it bears the token of the attempt:
//
//	owner     whose it is: the master, the item, Slurm's name of the job
//	order     what to build; source/ has its files
//	taken     made with O_EXCL by the one run that builds, with the name of its node
//	log       the build's log, as it comes
//	slurm     what a node says that could not even begin
//	result/   what was built
//	outcome   what it came to, renamed into place when all else is written
//
// Slurm starts a job twice after a failure of a node or of its controller, lets one run on that it has
// called dead, gives a number a second time and forgets what has ended. So nothing hangs on a number or on Slurm's word
// alone: the name has the token, the second run finds taken and ends, an outcome counts wherever Slurm believes the
// job to be, and a run whose directory is gone ends itself. Slurm is asked rarely, for all jobs at once, and only why
// there will be no outcome.
package slurm

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"packmill/internal/durable"
	"packmill/internal/regular"
	"packmill/queue/runner"
	"packmill/queue/runner/remote"
)

// Cluster is a Slurm cluster, as this machine's sbatch(1), squeue(1) and scancel(1) reach it.
type Cluster struct {
	Dir     string        // the shared directory; the nodes see it under this path
	Program string        // what a node runs with --node and a job's directory
	Every   time.Duration // between two questions to the controller; 0: 15 s
	All     []Options     // what jobs may be submitted with, for Ready

	running atomic.Int64
	mu      sync.Mutex
	asked   time.Time
	states  map[string]State
}

// Options are what Slurm is told of a job beside its limits.
type Options struct {
	Partition, Constraint, QOS, Account, Reservation string
	CPUs                                             int   // 0: one
	Memory                                           int64 // bytes; 0: Memory and Disk of the limits, if there are any
	Tmp                                              int64 // bytes that the node has in its TmpFS; 0: not asked for
}

// Order is what a node hears of a job.
type Order struct {
	remote.Order
	Protocol int             // of remote.Order, see remote.Newest
	Builder  json.RawMessage // what the node's program wants beside it
}

// owner says whose a job's directory is.
type owner struct {
	Master string // the machine and its tree
	Item   string // its directory in the tree
	Name   string // Slurm's name of the job
}

// The names in a job's directory that remote has not.
const (
	ownerFile = "owner"
	takenFile = "taken"
	slurmFile = "slurm"
)

// ErrLeft says that this process ends and the job goes on: the next one finds it.
var ErrLeft = errors.New("the job goes on in the cluster")

// plain is what a path has to be that stands in a script and in Slurm's options.
var plain = regexp.MustCompile(`^/[A-Za-z0-9/._+@-]+$`)

// web is where an archive is that no file system has.
var web = regexp.MustCompile(`^https?://`)

// token is the name of a job's directory.
var token = regexp.MustCompile(`^[0-9a-f]{32}$`)

func (c *Cluster) every() time.Duration {
	if c.Every > 0 {
		return c.Every
	}
	return 15 * time.Second
}

func (c *Cluster) job(token string) string { return filepath.Join(c.Dir, token) }

// Check says what is wrong with the shared directory, or nil: nobody else may put a job there.
func (c *Cluster) Check() error {
	for _, path := range []string{c.Dir, c.Program} {
		if !plain.MatchString(path) {
			return fmt.Errorf("%q: Slurm's scripts take absolute paths of letters, digits and . _ + @ - only: %w",
				path, runner.ErrSetup)
		}
	}
	if _, err := runner.Own(c.Dir); err != nil {
		return fmt.Errorf("Shared: %w; make it this user's, writable by nobody else, and let every node mount it there: %w",
			err, runner.ErrSetup)
	}
	if os.Getuid() == 0 {
		return fmt.Errorf("jobs of the cluster never run as root: run buildd as its own account: %w", runner.ErrSetup)
	}
	return nil
}

// Sweep ends and removes the jobs of a master that nobody waits for any more, as alive says of an item's directory and
// a token.
func (c *Cluster) Sweep(master string, alive func(item, token string) bool) error {
	entries, err := os.ReadDir(c.Dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		dir := filepath.Join(c.Dir, e.Name())
		if st, err := e.Info(); err == nil && filepath.Ext(e.Name()) == halfSuffix && time.Since(st.ModTime()) > time.Hour {
			errs = append(errs, durable.RemoveAll(dir))
		}
		if !token.MatchString(e.Name()) {
			continue
		}
		var o owner
		err := readJSON(filepath.Join(dir, ownerFile), &o)
		if errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, durable.RemoveAll(dir)) // who was removing it may have died
		}
		if err != nil {
			continue
		}
		if o.Master == master && !alive(o.Item, e.Name()) {
			errs = append(errs, c.cancel(o.Name), durable.RemoveAll(dir))
		}
	}
	return errors.Join(errs...)
}

// Forget removes the directory of a job whose outcome was taken.
func (c *Cluster) Forget(token string) error { return durable.RemoveAll(c.job(token)) }

func readJSON(path string, to any) error {
	data, err := regular.Read(path, remote.MaxOrder)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, to)
}
