package doctor

import (
	"errors"
	"os"
	"slices"
	"strings"

	"packmill/queue/runner"
	"packmill/queue/runner/slurm"
)

// clusters asks Slurm whether it would take the builders' jobs.
func (p *patient) clusters() {
	for i := range p.settings.Builders {
		b := &p.settings.Builders[i]
		if !b.Clustered() {
			continue
		}
		about := "builder " + b.Name
		if st, err := os.Stat(p.file(b.Shared)); err != nil || !st.IsDir() {
			p.error(about, "make it the build user's, mode 0700, and mount it on every node",
				"Shared: %s is no directory", b.Shared)
		} else if st.Mode()&0o022 != 0 {
			p.error(about, "chmod go-w "+b.Shared, "Shared: others can write to %s, and put a job there", b.Shared)
		}
		if p.Offline {
			continue
		}
		have, err := slurm.Partitions(p.ctx)
		switch {
		case errors.Is(err, runner.ErrSetup):
			p.error(about, "apt install slurm-client, with the cluster's slurm.conf and munge.key", "%v", err)
		case err != nil:
			p.error(about, "look with: scontrol ping", "%v", err)
		}
		for _, o := range b.Options() {
			for name := range strings.SplitSeq(o.Partition, ",") {
				if err == nil && name != "" && !slices.Contains(have, name) {
					p.error(about, "sinfo names them: "+strings.Join(have, " "), "Slurm: there is no partition %s", name)
				}
			}
		}
	}
}
