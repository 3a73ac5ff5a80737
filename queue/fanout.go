package queue

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"packmill/internal/deb822"
	"packmill/internal/durable"
	"packmill/internal/policy"
	"packmill/spool"
	"packmill/spool/statement"
)

// Suite is what the queues must know of a suite.
type Suite struct {
	Name          string
	Architectures []string // without all
	SourceFirst   bool     // Publish: source-first

	Weights Weights // of the order; nil: every source keeps the class that it has
	// Priority, if set, is the build priority of a source, for all its versions.
	Priority func(source string) int
	// NotFor, if set, says why nothing of a source is built on an architecture
	// that its Architecture field names, or "": dsc is the path of its .dsc.
	NotFor func(t *Ticket, dsc, arch string) (string, error)
	// Judge, if set, says why a new job cannot be built yet: the state in
	// which it begins (needs-build, or bd-uninstallable), and the text for
	// its REASON. dsc is the path of its .dsc.
	Judge func(t *Ticket, dsc string) (spool.State, string)
}

// planFile is the item's list of jobs. It is written when every job lies
// complete and synced under jobsDir, so it is the commit of the fan-out: with
// it, what is left in jobsDir is still to be hatched; without it, what is in
// jobsDir is half done and goes. aheadFile says that the source itself went
// ahead to the archive (Publish: source-first): once, however often it is fanned
// out.
const (
	planFile  = "plan"
	jobsDir   = "jobs"
	aheadFile = "ahead"
)

// Plan is what a source's fan-out decided.
type Plan struct {
	Jobs      []string // architectures that build it, all among them
	NotForUs  []string // architectures of the suite that the Architecture field leaves out
	HasBinary []string // architectures whose binaries came with the source
	Class     int      // of the source and its jobs
	Of        string   // SUITE/SOURCE_VERSION; "" in those of an earlier time
}

// MakePlan compares the .dsc's Architecture list with the suite (wildcards as
// in Policy 11.1.1), and asks for each architecture whether there is anything to
// be built.
func MakePlan(t *Ticket, s Suite, dsc string) (Plan, error) {
	var p Plan
	for _, a := range append(slices.Clone(s.Architectures), "all") {
		if slices.Contains(t.Has, a) {
			p.HasBinary = append(p.HasBinary, a)
			continue
		}
		why, err := notFor(t, s, dsc, a)
		switch {
		case err != nil:
			return Plan{}, err
		case why == "":
			p.Jobs = append(p.Jobs, a)
		case a != "all":
			p.NotForUs = append(p.NotForUs, a)
		}
	}
	return p, nil
}

func notFor(t *Ticket, s Suite, dsc, arch string) (string, error) {
	if !policy.BuildsOn(t.Architecture, arch) {
		return fmt.Sprintf("Architecture: %s", strings.Join(t.Architecture, " ")), nil
	}
	if s.NotFor == nil {
		return "", nil
	}
	return s.NotFor(t, dsc, arch)
}

// ReadPlan reads the plan of the source that lies at dir. fs.ErrNotExist says
// that it was not fanned out.
func ReadPlan(dir string) (Plan, error) {
	data, err := os.ReadFile(filepath.Join(dir, planFile))
	if err != nil {
		return Plan{}, err
	}
	return parsePlan(data)
}

// planOf is ReadPlan of a claimed item. A plan decides when the source is published: one
// that is not master-buildd's own, or was made for another source, is none. (A reviewer
// may write in the directory, and has plans in reach.)
func planOf(it *spool.Item, suite string) (Plan, error) {
	data, err := it.ReadBy(planFile, spool.UserMaster)
	if err != nil {
		return Plan{}, err
	}
	p, err := parsePlan(data)
	if err == nil && p.Of != "" && p.Of != suite+"/"+it.Name.ID() {
		return Plan{}, fmt.Errorf("plan of %s: %w", p.Of, fs.ErrNotExist)
	}
	return p, err
}

func parsePlan(data []byte) (Plan, error) {
	st, err := deb822.ParseOne(planFile, data, deb822.Hostile)
	if err != nil {
		return Plan{}, err
	}
	p := Plan{
		Jobs: deb822.Words(st.Get("Jobs")), NotForUs: deb822.Words(st.Get("Not-For-Us")),
		HasBinary: deb822.Words(st.Get("Has-Binaries")),
		Class:     spool.NormalClass, Of: st.Get("Of"),
	}
	if c := st.Get("Class"); c != "" {
		if p.Class, err = strconv.Atoi(c); err != nil || p.Class < 0 || p.Class > 99 {
			return Plan{}, st.Errorf("Class", "%q is not two digits", c)
		}
	}
	return p, nil
}

// Replan forgets a source's plan, so that its next fan-out gives every
// architecture that has no job one.
func Replan(it *spool.Item) error { return durable.Remove(it.Path(planFile)) }

func (p Plan) text() []byte {
	st := &deb822.Stanza{}
	st.Set("Jobs", strings.Join(p.Jobs, " "))
	st.Set("Not-For-Us", strings.Join(p.NotForUs, " "))
	st.Set("Has-Binaries", strings.Join(p.HasBinary, " "))
	st.Set("Class", fmt.Sprintf("%02d", p.Class))
	st.Set("Of", p.Of)
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
	plan, err := planOf(it, s.Name)
	if errors.Is(err, fs.ErrNotExist) {
		if plan, err = MakePlan(t, s, it.Path(t.Dsc)); err != nil {
			return spool.Verdict{}, err
		}
		plan.Class, plan.Of = s.class(t, it.Name.Class, note(tree, s.Name, t)), s.Name+"/"+it.Name.ID()
		err = layEggs(tree, it, t, plan, s)
	}
	if err != nil {
		return spool.Verdict{}, err
	}
	if err := (&hatching{tree, it, t, plan, s, who}).run(); err != nil {
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
	return spool.Verdict{
		To: spool.In(spool.Master, s.Name), Reason: "to build on " + strings.Join(plan.Jobs, " "),
		Class: plan.Class, Renew: true,
	}, nil
}

// class is the class of a source and its jobs; old is that which it has.
func (s *Suite) class(t *Ticket, old int, note string) int {
	if s.Weights != nil {
		old = s.Weights.Class(t, note)
	}
	if s.Priority != nil {
		old = sooner(old, s.Priority(t.Source))
	}
	return old
}

// ClassFor is the class of a job that quinn-diff asks for.
func (s *Suite) ClassFor(t *Ticket, note string) int { return s.class(t, spool.NormalClass, note) }

// note is what quinn-diff would say: an older version of the source is in the
// archive, or none.
func note(tree *spool.Tree, suite string, t *Ticket) string {
	found, err := tree.Of(t.Source, spool.In(spool.Installed, suite, spool.SourceArch))
	if err == nil && len(found) > 0 {
		return NoteOutOfDate
	}
	return NoteUncompiled
}

// layEggs writes every job, complete, into the source item.
func layEggs(tree *spool.Tree, it *spool.Item, t *Ticket, plan Plan, s Suite) error {
	if err := durable.RemoveAll(it.Path(jobsDir)); err != nil {
		return err
	}
	failures, err := previous(tree, s.Name, t.version())
	if err != nil {
		return err
	}
	from := it.Path()
	for _, a := range plan.Jobs {
		t.Previous = failures[a]
		if err := layEgg(tree, it, t, a, from); err != nil {
			return err
		}
		// Where the first got copies, for the upload's files are another account's, the
		// others share them.
		from = it.Path(jobsDir, a)
	}
	t.Previous = ""
	for _, a := range plan.NotForUs {
		if err := layEgg(tree, it, t, a, ""); err != nil {
			return err
		}
	}
	if _, err := os.Lstat(it.Path(aheadFile)); s.SourceFirst && len(plan.Jobs) > 0 && errors.Is(err, fs.ErrNotExist) {
		if err := layEgg(tree, it, t, spool.SourceArch, from); err != nil {
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

// layEgg writes the job for one architecture, with the source's files, which lie
// at from ("": without), hard-linked: self-contained, and it costs nothing.
func layEgg(tree *spool.Tree, it *spool.Item, t *Ticket, arch, from string) error {
	dir := it.Path(jobsDir, arch)
	if err := os.MkdirAll(dir, 0o775); err != nil {
		return err
	}
	job := t.ofSource()
	if arch != spool.SourceArch {
		if err := tree.Give(dir, true); err != nil {
			return err
		}
		job.BuildArch, job.Previous = arch, t.Previous
		job.Remarks = ""
	}
	if err := os.WriteFile(filepath.Join(dir, spool.TicketFile), job.Stanza().Append(nil), 0o644); err != nil {
		return err
	}
	if arch != spool.SourceArch {
		if err := writeBirth(dir, t.Suite, arch, ledgerKey(t.Source, t.Version, 0)); err != nil {
			return err
		}
	}
	if from == "" {
		return nil
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		// The upload's own files, whose names have an underscore, and the
		// statement about them; those of the item's records have none.
		if !e.Type().IsRegular() || policy.CheckFile(e.Name()) != nil && e.Name() != statement.File {
			continue
		}
		if err := durable.LinkOrCopy(filepath.Join(from, e.Name()), filepath.Join(dir, e.Name()), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// hatching is a source whose jobs go out to their queues.
type hatching struct {
	tree  *spool.Tree
	it    *spool.Item
	t     *Ticket
	plan  Plan
	suite Suite
	who   string
}

// run renames each job that is still in the source item to its queue.
func (h *hatching) run() error {
	if h.suite.SourceFirst && len(h.plan.Jobs) > 0 {
		if err := h.out(spool.SourceArch, spool.In(spool.Uploaded, h.suite.Name), "the source goes ahead"); err != nil {
			return err
		}
		if err := h.it.WriteFile(aheadFile, nil); err != nil {
			return err
		}
	}
	for _, a := range h.plan.Jobs {
		if err := h.out(a, spool.In(spool.NeedsBuild, h.suite.Name, a), "accepted"); err != nil {
			return err
		}
	}
	for _, a := range h.plan.NotForUs {
		reason, err := notFor(h.t, h.suite, h.it.Path(h.t.Dsc), a)
		if err != nil {
			return err
		}
		if err := h.out(a, spool.In(spool.AutoNotForUs, h.suite.Name, a), reason); err != nil {
			return err
		}
	}
	return nil
}

// out renames one job to its place, or to where a person or the suite's judge puts it.
func (h *hatching) out(arch string, p spool.Place, reason string) error {
	dir := h.it.Path(jobsDir, arch)
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil // by an earlier run
	}
	name := h.it.Name
	name.Class = h.plan.Class
	if arch == spool.SourceArch {
		// Not the name under which the source itself will come
		// from the master queue.
		name.Arch = spool.SourceArch
	} else if err := enter(h.tree, h.suite.Name, arch, ledgerKey(h.t.Source, h.t.Version, 0), dir); errors.Is(err,
		ErrTwice) {
		return nil // requeued, or given here by another way: never twice
	} else if err != nil {
		return err
	}
	unwanted, err := Unwanted(h.tree, h.suite.Name, arch, h.t.Source)
	if err != nil {
		return err
	}
	if p.State == spool.NeedsBuild {
		if p.State, reason, err = h.first(arch, dir, reason, unwanted); err != nil {
			return err
		}
	}
	err = h.it.Hatch(filepath.Join(jobsDir, arch), p, name, spool.MasterD, h.who, reason)
	if err == nil && unwanted != nil {
		// The word of the person is in the new one from here on.
		return supersede(h.tree, *unwanted, h.t.Version, h.who)
	}
	if errors.Is(err, spool.ErrGone) {
		return nil
	}
	return err
}

// first is the state in which a job begins that could be built, and why; unless that is
// needs-build the job gets a REASON. unwanted, if not nil, is an older version's job of
// which a person said that it is not for this architecture.
func (h *hatching) first(arch, dir, reason string, unwanted *spool.Found) (spool.State, string, error) {
	state, text := spool.NeedsBuild, ""
	switch {
	case unwanted != nil:
		state, reason = spool.NotForUs, "a person said so of version "+unwanted.Name.Version
		text = spool.ReadReason(h.tree.Path(unwanted.Dir()))
	case h.suite.Judge != nil:
		job := *h.t
		job.BuildArch = arch
		if state, text = h.suite.Judge(&job, filepath.Join(dir, h.t.Dsc)); state != spool.NeedsBuild {
			reason, _, _ = strings.Cut(text, "\n")
			text += "\n"
		}
	}
	if state == spool.NeedsBuild {
		return state, reason, nil
	}
	return state, reason, os.WriteFile(filepath.Join(dir, spool.ReasonFile), []byte(text), 0o644)
}

// Unwanted finds the job of any version of a source of which a person said that it
// is not for an architecture, which holds for all versions; nil: nobody did.
func Unwanted(tree *spool.Tree, suite, arch, source string) (*spool.Found, error) {
	found, err := tree.Of(source, spool.In(spool.NotForUs, suite, arch))
	if err != nil || len(found) == 0 {
		return nil, err
	}
	newest := slices.MaxFunc(found, func(a, b spool.Found) int {
		return policy.CompareVersions(a.Name.Version, b.Name.Version)
	})
	return &newest, nil
}

// Job is a job that no upload brings: quinn-diff found that the archive lacks
// it, or a person asked for a binNMU.
type Job struct {
	Ticket *Ticket
	Arch   string
	Class  int
	Time   time.Time         // in its name; a binNMU's is the same for all architectures
	Files  map[string]string // the source's: name in the job -> path, on the tree's file system
	State  spool.State       // needs-build, or bd-uninstallable
	Text   string            // REASON
	By     spool.Actor
	Who    string
	Reason string
}

// Make makes the job. ErrTwice says that there is one, somewhere: then none is
// made, whoever asks at the same time.
func Make(tree *spool.Tree, j *Job) (spool.Found, error) {
	t := *j.Ticket
	t.BuildArch = j.Arch
	key := ledgerKey(t.Source, t.Version, t.BinNMU)
	if have, err := FindJob(tree, t.Suite, j.Arch, t.version()); err != nil {
		return spool.Found{}, err
	} else if have != nil && (t.BinNMU == 0 || have.Place.State != spool.Installed) {
		return *have, fmt.Errorf("%s on %s in %s: %w", key, j.Arch, t.Suite, ErrTwice)
	}
	if t.Previous == "" && t.BinNMU == 0 {
		failures, err := previous(tree, t.Suite, t.version())
		if err != nil {
			return spool.Found{}, err
		}
		t.Previous = failures[j.Arch]
	}
	state, text := j.State, j.Text
	unwanted, err := Unwanted(tree, t.Suite, j.Arch, t.Source)
	if err != nil {
		return spool.Found{}, err
	}
	if unwanted != nil {
		state, text = spool.NotForUs, spool.ReadReason(tree.Path(unwanted.Dir()))
	}
	name := spool.NewName(j.Class, j.Time, t.Source, t.Version)
	it, err := tree.Create(spool.In(state, t.Suite, j.Arch), name, j.By, j.Who, j.Reason, func(dir string) error {
		if err := os.WriteFile(filepath.Join(dir, spool.TicketFile), t.Stanza().Append(nil), 0o644); err != nil {
			return err
		}
		if text != "" {
			if err := os.WriteFile(filepath.Join(dir, spool.ReasonFile), []byte(strings.TrimRight(text, "\n")+"\n"),
				0o644); err != nil {
				return err
			}
		}
		for name, path := range j.Files {
			if err := durable.LinkOrCopy(path, filepath.Join(dir, name), 0o644); err != nil {
				return err
			}
		}
		if err := writeBirth(dir, t.Suite, j.Arch, key); err != nil {
			return err
		}
		return enter(tree, t.Suite, j.Arch, key, dir)
	})
	if err != nil {
		return spool.Found{}, err
	}
	defer it.Release()
	if unwanted != nil {
		if err := supersede(tree, *unwanted, t.Version, j.Who); err != nil {
			return spool.Found{}, err
		}
	}
	return spool.Found{Place: it.Place, Name: it.Name}, nil
}
