package queue

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"packmill/spool"
	"packmill/spool/deb822"
	"packmill/spool/durable"
	"packmill/spool/policy"
)

// Suite is what the queues must know of a suite.
type Suite struct {
	Name          string
	Architectures []string // without all
	SourceFirst   bool     // Publish: source-first
}

// planFile is the item's list of jobs. It is written when every job lies
// complete and synced under jobsDir, so it is the commit of the fan-out: with
// it, what is left in jobsDir is still to be hatched; without it, what is in
// jobsDir is half done and goes.
const (
	planFile = "plan"
	jobsDir  = "jobs"
)

// Plan is what a source's fan-out decided.
type Plan struct {
	Jobs      []string // architectures that build it, all among them
	NotForUs  []string // architectures of the suite that the Architecture field leaves out
	HasBinary []string // architectures whose binaries came with the source
}

// MakePlan compares the .dsc's Architecture list with the suite (wildcards as
// in Policy 11.1.1).
func MakePlan(t *Ticket, s Suite) Plan {
	var p Plan
	for _, a := range append(slices.Clone(s.Architectures), "all") {
		switch {
		case slices.Contains(t.Has, a):
			p.HasBinary = append(p.HasBinary, a)
		case policy.BuildsOn(t.Architecture, a):
			p.Jobs = append(p.Jobs, a)
		case a != "all":
			p.NotForUs = append(p.NotForUs, a)
		}
	}
	return p
}

// ReadPlan reads the plan of the source that lies at dir. fs.ErrNotExist says
// that it was not fanned out.
func ReadPlan(dir string) (Plan, error) {
	data, err := os.ReadFile(filepath.Join(dir, planFile))
	if err != nil {
		return Plan{}, err
	}
	st, err := deb822.ParseOne(planFile, data, deb822.Hostile)
	if err != nil {
		return Plan{}, err
	}
	return Plan{deb822.Words(st.Get("Jobs")), deb822.Words(st.Get("Not-For-Us")), deb822.Words(st.Get("Has-Binaries"))}, nil
}

// Replan forgets a source's plan, so that its next fan-out gives every
// architecture that has no job one.
func Replan(it *spool.Item) error { return durable.Remove(it.Path(planFile)) }

func (p Plan) text() []byte {
	st := &deb822.Stanza{}
	st.Set("Jobs", strings.Join(p.Jobs, " "))
	st.Set("Not-For-Us", strings.Join(p.NotForUs, " "))
	st.Set("Has-Binaries", strings.Join(p.HasBinary, " "))
	return st.Append(nil)
}

// FanOut gives each architecture of the suite its job of the accepted source.
// Every job is written into the source item first, then the plan, then each
// job is renamed out into its queue; a crash at any point between resumes
// here. An architecture that has the version already, in whatever state, gets
// no second job.
func FanOut(tree *spool.Tree, it *spool.Item, s Suite, who string) (spool.Verdict, error) {
	st, err := it.Ticket()
	if err != nil {
		return spool.Verdict{}, err
	}
	t, err := ReadTicket(st)
	if err != nil {
		return spool.Verdict{}, err
	}
	plan, err := ReadPlan(it.Path())
	if errors.Is(err, fs.ErrNotExist) {
		plan = MakePlan(t, s)
		err = layEggs(it, t, plan, s)
	}
	if err != nil {
		return spool.Verdict{}, err
	}
	if err := hatch(tree, it, t, plan, s, who); err != nil {
		return spool.Verdict{}, err
	}
	if err := durable.RemoveAll(it.Path(jobsDir)); err != nil {
		return spool.Verdict{}, err
	}
	if len(plan.Jobs) == 0 {
		reason := "no architecture of the suite builds it"
		if len(plan.HasBinary) > 0 {
			reason = "came with its binaries"
		}
		return spool.Verdict{To: spool.In(spool.Uploaded, s.Name), Reason: reason}, nil
	}
	return spool.Verdict{To: spool.In(spool.Master, s.Name), Reason: "to build on " + strings.Join(plan.Jobs, " ")}, nil
}

// layEggs writes every job, complete, into the source item.
func layEggs(it *spool.Item, t *Ticket, plan Plan, s Suite) error {
	if err := durable.RemoveAll(it.Path(jobsDir)); err != nil {
		return err
	}
	for _, a := range plan.Jobs {
		if err := layEgg(it, t, a, true); err != nil {
			return err
		}
	}
	for _, a := range plan.NotForUs {
		if err := layEgg(it, t, a, false); err != nil {
			return err
		}
	}
	if s.SourceFirst && len(plan.Jobs) > 0 {
		if err := layEgg(it, t, spool.SourceArch, true); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(it.Path(jobsDir), 0o775); err != nil {
		return err
	}
	if err := durable.SyncTree(it.Path()); err != nil {
		return err
	}
	return it.WriteFile(planFile, plan.text())
}

// layEgg writes the job for one architecture, with the source's files
// hard-linked: self-contained, and it costs nothing.
func layEgg(it *spool.Item, t *Ticket, arch string, files bool) error {
	dir := it.Path(jobsDir, arch)
	if err := os.MkdirAll(dir, 0o775); err != nil {
		return err
	}
	job := *t
	if arch != spool.SourceArch {
		job.BuildArch = arch
		job.Remarks = ""
	}
	if err := os.WriteFile(filepath.Join(dir, spool.TicketFile), job.Stanza().Append(nil), 0o664); err != nil {
		return err
	}
	if !files {
		return nil
	}
	entries, err := os.ReadDir(it.Path())
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.Type().IsRegular() || engineFile(e.Name()) {
			continue
		}
		if err := os.Link(it.Path(e.Name()), filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// engineFile reports whether a file of an item belongs to this item alone and
// is not handed on.
func engineFile(name string) bool {
	switch name {
	case spool.TicketFile, spool.HistoryFile, spool.ReasonFile, planFile, "log":
		return true
	}
	return strings.HasPrefix(name, ".")
}

// hatch renames each job that is still in the source item to its queue.
func hatch(tree *spool.Tree, it *spool.Item, t *Ticket, plan Plan, s Suite, who string) error {
	out := func(arch string, p spool.Place, reason string) error {
		name := it.Name
		if arch == spool.SourceArch {
			// Not the name under which the source itself will come
			// from the master queue.
			name.Arch = spool.SourceArch
		}
		err := it.Hatch(filepath.Join(jobsDir, arch), p, name, spool.MasterD, who, reason)
		if errors.Is(err, spool.ErrGone) {
			return nil // by an earlier run
		}
		return err
	}
	if s.SourceFirst && len(plan.Jobs) > 0 {
		if err := out(spool.SourceArch, spool.In(spool.Uploaded, s.Name), "the source goes ahead"); err != nil {
			return err
		}
	}
	for _, a := range plan.Jobs {
		if _, err := os.Lstat(it.Path(jobsDir, a)); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if have, err := FindJob(tree, s.Name, a, t.Source, t.Version); err != nil {
			return err
		} else if have != nil {
			continue // requeued, or given here by another way: never twice
		}
		if err := out(a, spool.In(spool.NeedsBuild, s.Name, a), "accepted"); err != nil {
			return err
		}
	}
	for _, a := range plan.NotForUs {
		if _, err := os.Lstat(it.Path(jobsDir, a)); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if have, err := FindJob(tree, s.Name, a, t.Source, t.Version); err != nil {
			return err
		} else if have != nil {
			continue
		}
		reason := fmt.Sprintf("Architecture: %s", strings.Join(t.Architecture, " "))
		if err := out(a, spool.In(spool.AutoNotForUs, s.Name, a), reason); err != nil {
			return err
		}
	}
	return nil
}
