package control

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"time"

	"packmill/internal/deb822"
	"packmill/queue/runner/slurm"
)

// SlurmLine is a line of Slurm: what the cluster is told of some jobs.
type SlurmLine struct {
	Suite, Arch, Package string // the last a pattern; "" is any
	set                  []func(*slurm.Options)
}

// Inside is what a node of the cluster builds with: the part of the stanza that holds there.
type Inside struct {
	Runner, Exec, Mode, CrossFrom, Chroots string
	ChrootAge                              time.Duration
	Layers, Ccache                         int64
	Nice, CPUs                             int
}

// Clustered reports whether the builder's jobs are Slurm's.
func (b *Builder) Clustered() bool { return b.Runner == "slurm" }

// Away reports whether what builds is on other machines, which have chroots of their own.
func (b *Builder) Away() bool { return b.Elsewhere() || b.Clustered() }

// Cluster is where the builder's jobs go.
func (b *Builder) Cluster() (*slurm.Cluster, error) {
	program := b.Program
	if program == "" {
		var err error
		if program, err = os.Executable(); err != nil {
			return nil, err
		}
	}
	return &slurm.Cluster{Dir: b.Shared, Program: program, Every: b.Ask, All: b.Options()}, nil
}

// Options are those of each line of Slurm.
func (b *Builder) Options() (out []slurm.Options) {
	for _, x := range b.Slurm {
		var o slurm.Options
		for _, set := range x.set {
			set(&o)
		}
		out = append(out, o)
	}
	return out
}

// SlurmOf is what Slurm is told of a job. Later lines go before earlier ones.
func (b *Builder) SlurmOf(suite, arch, source string) (o slurm.Options) {
	for _, x := range b.Slurm {
		if x.Suite != "" && x.Suite != suite || x.Arch != "" && x.Arch != arch ||
			x.Package != "" && !(Patterns{x.Package}).Match(source) {
			continue
		}
		for _, set := range x.set {
			set(&o)
		}
	}
	return o
}

// Inside is what the node hears of the builder, for a job with these options.
func (b *Builder) Inside(o slurm.Options) (json.RawMessage, error) {
	return json.Marshal(Inside{Runner: b.Within, Exec: b.Exec, Mode: b.Mode, CrossFrom: b.CrossFrom, Chroots: b.Chroots,
		ChrootAge: b.ChrootAge, Layers: b.Layers, Ccache: b.Ccache, Nice: b.Nice, CPUs: max(1, o.CPUs)})
}

// BuilderInside is the builder that a node of the cluster is, as its master said.
func BuilderInside(said json.RawMessage) (*Builder, int, error) {
	var x Inside
	if err := json.Unmarshal(said, &x); err != nil {
		return nil, 0, err
	}
	return &Builder{Name: "node", Runner: x.Runner, Exec: x.Exec, Mode: x.Mode, CrossFrom: x.CrossFrom,
		Chroots: x.Chroots, ChrootAge: x.ChrootAge, Layers: x.Layers, Ccache: x.Ccache, Nice: x.Nice, Jobs: 1}, x.CPUs, nil
}

// cluster reads what the stanza says of its cluster. run is Runner, without slurm.
func (r *reader) cluster(b *Builder, run []string) {
	b.Shared, b.Program, b.Archive = r.str("Shared", ""), r.str("Program", ""), r.str("Archive", "")
	b.Ask = r.span("Slurm-Ask", 15*time.Second)
	b.Slurm = r.slurmLines()
	if !b.Clustered() {
		r.note("Slurm-Ask", "", false)
		for _, name := range []string{"Shared", "Program", "Archive", "Slurm", "Slurm-Ask"} {
			if _, ok := r.st.Lookup(name); ok {
				r.fail(name, "it is of a cluster: write Runner: slurm, or take it away")
			}
		}
		return
	}
	switch {
	case len(run) == 0:
		b.Within = "overlay"
	case len(run) == 1 && (run[0] == "overlay" || run[0] == "sbuild"):
		b.Within = run[0]
	case len(run) == 2 && run[0] == "exec" && filepath.IsAbs(run[1]):
		b.Within, b.Exec = run[0], run[1]
	default:
		r.fail("Runner", "slurm %s is not known; what builds on the nodes is overlay, sbuild, or exec and the absolute "+
			"path of a program", strings.Join(run, " "))
	}
	if !filepath.IsAbs(b.Shared) {
		r.fail("Shared", "%q: name the directory that the nodes see under the same path, such as /srv/packmill-jobs",
			b.Shared)
	}
}

// slurmLines reads lines such as "arch=arm64 package=libreoffice* partition=big cpus=16".
func (r *reader) slurmLines() (out []SlurmLine) {
	for _, line := range r.lines("Slurm") {
		var x SlurmLine
		for _, w := range deb822.Words(line) {
			key, value, _ := strings.Cut(w, "=")
			switch set := slurmOption(key, value); {
			case value == "":
				r.fail("Slurm", "%q: write a word, = and a value", w)
			case key == "suite":
				x.Suite = value
			case key == "arch":
				x.Arch = value
			case key == "package":
				x.Package = value
				r.check("Slurm", value, checkPattern)
			case set == nil:
				r.fail("Slurm", "%q is not known; there are suite, arch, package (of which jobs it holds), and partition, "+
					"constraint, qos, account, reservation, cpus, memory, tmp", w)
			default:
				x.set = append(x.set, set)
			}
		}
		out = append(out, x)
	}
	return out
}

// slurmOption is what a word sets, or nil.
func slurmOption(key, value string) func(*slurm.Options) {
	one := &reader{st: &deb822.Stanza{Fields: []deb822.Field{{Name: key, Value: value}}}, used: map[string]string{}}
	var set func(*slurm.Options)
	switch key {
	case "partition":
		set = func(o *slurm.Options) { o.Partition = value }
	case "constraint":
		set = func(o *slurm.Options) { o.Constraint = value }
	case "qos":
		set = func(o *slurm.Options) { o.QOS = value }
	case "account":
		set = func(o *slurm.Options) { o.Account = value }
	case "reservation":
		set = func(o *slurm.Options) { o.Reservation = value }
	case "cpus":
		n := int(one.number(key, 0, 1, 10000))
		set = func(o *slurm.Options) { o.CPUs = n }
	case "memory":
		n := one.size(key, 0)
		set = func(o *slurm.Options) { o.Memory = n }
	case "tmp":
		n := one.size(key, 0)
		set = func(o *slurm.Options) { o.Tmp = n }
	}
	if len(one.errs) > 0 {
		return nil
	}
	return set
}
