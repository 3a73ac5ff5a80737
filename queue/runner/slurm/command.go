package slurm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"packmill/queue/runner"
	"packmill/spool"
)

// State is what Slurm says of a job.
type State struct {
	State, Reason, Node string
}

func (s State) String() string {
	text := s.State
	if s.Reason != "" && s.Reason != "None" {
		text += " (" + s.Reason + ")"
	}
	if s.Node != "" {
		text += " on " + s.Node
	}
	return text
}

// over are the states in which a job has ended; each other one may still lead to an outcome.
var over = []string{"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "LAUNCH_FAILED", "NODE_FAIL",
	"OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"}

// never are the reasons for which a pending job does not begin before a person changes something.
var never = []string{"AccountNotAllowed", "BadConstraints", "InvalidAccount", "InvalidQOS", "PartitionConfig",
	"PartitionNodeLimit", "PartitionTimeLimit", "QOSNotAllowed", "QOSMaxWallDurationPerJobLimit"}

// patience is how long a command of Slurm's may take: without a controller they end by themselves.
const patience = time.Minute

// errAway says that the controller does not answer, which passes.
var errAway = errors.New("Slurm's controller does not answer")

// run runs a command of Slurm's, without this process' environment: a job gets all that its command has, for with
// less Slurm asks the login shell of the account on the node, which is none.
func run(ctx context.Context, input string, argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8", "SLURM_TIME_FORMAT=standard"}
	if conf, ok := os.LookupEnv("SLURM_CONF"); ok {
		if _, err := os.Stat(conf); err != nil { // Slurm would look for a minute
			return "", fmt.Errorf("%s: SLURM_CONF: %w: %w", argv[0], err, runner.ErrSetup)
		}
		cmd.Env = append(cmd.Env, "SLURM_CONF="+conf)
	}
	cmd.Dir = "/"
	cmd.Stdin = strings.NewReader(input)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	return string(out), trouble(argv[0], err, stderr.String())
}

// trouble is the error of a command, by what it said: all of them end with 1.
func trouble(name string, err error, said string) error {
	if err == nil {
		return nil
	}
	said = spool.OneLine(strings.TrimSpace(said))
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%s is missing; install slurm-client: %w", name, runner.ErrSetup)
	}
	for _, sign := range []string{"Unable to contact slurm controller", "Socket timed out", "Zero Bytes were transmitted",
		"Connection refused", "backup controller", "Transport endpoint is not connected"} {
		if strings.Contains(said, sign) {
			return fmt.Errorf("%s: %w: %s", name, errAway, said)
		}
	}
	for _, sign := range []string{"Munge encode failed", "Protocol authentication error", "auth plugin"} {
		if strings.Contains(said, sign) {
			return fmt.Errorf("%s: %s; munged must run here with the cluster's key: %w", name, said, runner.ErrSetup)
		}
	}
	return fmt.Errorf("%s: %w: %s", name, err, said)
}

// sbatch is the command that submits a job, whose script comes on its standard input.
func (o *Options) sbatch(name, dir string, l runner.Limits) []string {
	argv := []string{"sbatch", "--parsable", "--no-requeue", "--export=ALL", "--open-mode=append", "--input=/dev/null",
		"--ntasks=1", "--chdir=/", "--job-name=" + name, "--output=" + dir + "/" + slurmFile,
		"--cpus-per-task=" + strconv.Itoa(max(1, o.CPUs))}
	for _, x := range []struct{ option, value string }{
		{"partition", o.Partition}, {"constraint", o.Constraint}, {"qos", o.QOS}, {"account", o.Account},
		{"reservation", o.Reservation},
	} {
		if x.value != "" {
			argv = append(argv, "--"+x.option+"="+x.value)
		}
	}
	if l.Wall > 0 {
		argv = append(argv, fmt.Sprintf("--time=%d", int((l.Wall+beyond).Round(time.Minute).Minutes())))
	}
	if m := o.memory(l); m > 0 {
		argv = append(argv, fmt.Sprintf("--mem=%dM", m>>20))
	}
	if o.Tmp > 0 {
		argv = append(argv, fmt.Sprintf("--tmp=%dM", o.Tmp>>20))
	}
	return argv
}

// What Slurm allows a job beyond the limits that its own runner keeps, and keeps with a reason for people: time to
// make a chroot, and memory of the program beside the build.
const (
	beyond     = 15 * time.Minute
	beyondSize = 256 << 20
)

// memory is what a job takes of a node: the file systems of a build lie in memory.
func (o *Options) memory(l runner.Limits) int64 {
	switch {
	case o.Memory > 0:
		return o.Memory
	case l.Memory > 0:
		return l.Memory + l.Disk + beyondSize
	}
	return 0
}

// script is what the node runs.
func (c *Cluster) script(dir string) string {
	return "#!/bin/sh\nexec " + c.Program + " --node " + dir + "\n"
}

// ask is what Slurm says of this user's jobs, by their names, no older than max.
func (c *Cluster) ask(ctx context.Context, max time.Duration) (map[string]State, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.asked) < max {
		return c.states, nil
	}
	out, err := run(ctx, "", "squeue", "--noheader", "--me", "--states=all", "--format=%j|%T|%r|%N")
	if err != nil {
		return nil, err
	}
	c.states, c.asked = parseQueue(out), time.Now()
	return c.states, nil
}

// parseQueue reads squeue's answer. Of two jobs of one name the one that is not over counts.
func parseQueue(text string) map[string]State {
	out := map[string]State{}
	for line := range strings.Lines(text) {
		w := strings.Split(strings.TrimSpace(line), "|")
		if len(w) != 4 {
			continue
		}
		old, twice := out[w[0]]
		if s := (State{w[1], w[2], w[3]}); !twice || slices.Contains(over, old.State) {
			out[w[0]] = s
		}
	}
	return out
}

// cancel ends a job. One that Slurm does not know has ended.
func (c *Cluster) cancel(name string) error {
	_, err := run(context.Background(), "", "scancel", "--me", "--name="+name)
	return err
}

// Partitions are those of the cluster. An error says that Slurm is not installed here, or its controller away.
func Partitions(ctx context.Context) ([]string, error) {
	out, err := run(ctx, "", "sinfo", "--noheader", "--format=%R")
	return strings.Fields(out), err
}

// Ready says why no job can be submitted: an ErrSetup with its cure, or nil.
func (c *Cluster) Ready(string) error {
	if err := c.Check(); err != nil {
		return err
	}
	have, err := Partitions(context.Background())
	if err != nil {
		return err
	}
	return known(have, c.All)
}

// known says which partition of the options Slurm has not.
func known(have []string, options []Options) error {
	for _, o := range options {
		for name := range strings.SplitSeq(o.Partition, ",") {
			if name != "" && !slices.Contains(have, name) {
				return fmt.Errorf("Slurm has no partition %s (it has %s): %w", name, strings.Join(have, " "), runner.ErrSetup)
			}
		}
	}
	return nil
}
