package queue

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"packmill/internal/durable"
	"packmill/internal/policy"
	"packmill/spool"
)

// Request is an operation that a person asks for on one job.
type Request struct {
	Op       Op
	Who      string // as the system knows the person
	Signer   bool   // the settings let the person sign builds of this architecture
	Override bool
	Message  string // -m
	Number   int    // of nmu and bp
	// ExtraDepends, if set, are further build-dependencies from then on, with any
	// operation that changes something.
	ExtraDepends *string
	Version      string // if set, the version that the person means: another is refused
	Build        string // if set, the build that the person means (see Ticket.Mark): another is refused
	Away         bool   // of gb: the builder that had the job leaves it to another, if there is one
	Now          time.Time

	// Result, of uploaded and built, puts the files of a result that was
	// built elsewhere into the directory and returns its .changes' name; a
	// Refusal says why not. Nil: what is there stays.
	Result func(dir string, t *Ticket) (string, error)
	// Signed, of uploaded, is asked whether the result's .changes is signed as
	// the archive wants it: nil if so.
	Signed func(path string, t *Ticket) error
	// May, if set, says why who asks has no right to, or "".
	May func(t *Ticket) string
	// BinNMU makes the new job of nmu.
	BinNMU func(installed *Ticket, f spool.Found) (spool.Found, error)
	// Held, if set, deals with a job that a builder holds; without a reply
	// Patiently looks again.
	Held func(spool.Found) (*Reply, error)
	// Dry says that nothing is to be done.
	Dry bool
}

// Refusal is the error of a function of the Request that says why not.
type Refusal string

func (r Refusal) Error() string { return string(r) }

// Reply is what became of a request.
type Reply struct {
	Role    Role
	From    spool.Place
	To      spool.Place
	Name    spool.Name
	Refusal string // why not, a sentence; "" if it was done
	Warning string
	Busy    bool    // refused since a daemon holds it: later it may do
	Ticket  *Ticket // as it was
}

// Owned reports whether who took the job and still answers for it.
func Owned(t *Ticket, state spool.State, who string) bool {
	return state.Is(spool.Owned) && t.Builder == who
}

// Ask does what a person asks for, if the specification allows it. A refusal
// is not an error. ErrBusy says that a daemon works on the job at this moment,
// ErrGone that it has moved: look for it again.
func Ask(tree *spool.Tree, f spool.Found, r *Request) (*Reply, error) {
	it, err := tree.Claim(f.Place, f.Name.String())
	if err != nil {
		return nil, err
	}
	defer it.Release()
	return AskOf(it, r)
}

// AskOf is Ask of a claimed job.
func AskOf(it *spool.Item, r *Request) (*Reply, error) {
	f := spool.Found{Place: it.Place, Name: it.Name}
	t, err := TicketOf(it)
	if err != nil {
		return nil, err
	}
	reply := &Reply{Role: Other, From: f.Place, To: f.Place, Name: f.Name, Ticket: t}
	// Where a person's mv brought it says nothing of what it is, and an order would write an
	// architecture into a source's ticket.
	if t.BuildArch == "" && f.Place.Arch != "" && f.Place.State != spool.Installed && r.Op != Info {
		reply.Refusal = noJob(f.Place)
		return reply, nil
	}
	t.BuildArch = cmp.Or(t.BuildArch, f.Arch())
	switch {
	case Owned(t, f.Place.State, r.Who):
		reply.Role = Owner
	case r.Signer:
		reply.Role = Signer
	case r.Override:
		reply.Role = Override
	}
	if r.May != nil {
		if reply.Refusal = r.May(t); reply.Refusal != "" {
			return reply, nil
		}
	}
	s := SpecOf(f.Place.State, r.Op, reply.Role)
	say := strings.ReplaceAll(s.Say, "%o", orNobody(t.Builder))
	if s.Refused() {
		reply.Refusal = say
		return reply, nil
	}
	reply.Warning = say
	if r.Op == Take && t.Previous != "" {
		before, _, _ := strings.Cut(t.Previous, "\n")
		reply.Warning = strings.TrimPrefix(reply.Warning+"; a version before failed: "+before, "; ")
	}
	if why := r.check(s, t, f); why != "" {
		reply.Refusal = why
		return reply, nil
	}
	if s.To != Same {
		reply.To = spool.In(s.To, f.Place.Suite, f.Arch())
	}
	if why := r.writable(it, s, reply.To); why != "" {
		reply.Refusal, reply.To = why, it.Place
		return reply, nil
	}
	if r.Dry {
		return reply, nil
	}
	return reply, r.do(it, t, s, reply)
}

// writable says why who runs the program has not the rights that the operation
// needs, or "": before the first write, so that a refusal leaves no trace. A binNMU
// makes a job and leaves what is installed as it is.
func (r *Request) writable(it *spool.Item, s *Spec, to spool.Place) string {
	if r.Op == Info || slices.Contains(s.Do, MakeBinNMU) {
		return ""
	}
	if err := it.Writable(to); errors.Is(err, fs.ErrPermission) {
		return NoRight(err)
	}
	return "" // of any other trouble the move will tell
}

// NoRight is the refusal of what the system does not let a person do on the queues.
func NoRight(err error) string {
	where := ""
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		where = " below " + path.Path
	}
	return "you may not change anything" + where + "; who works on the build queues is in the groups " + spool.GroupAll +
		" and " + spool.GroupQueue
}

// Patiently finds a job and asks, again for a second while a daemon holds the
// job or has just moved it. Without a job the Found is nil. A job that is held
// for longer is refused, and Busy.
func Patiently(
	tree *spool.Tree, find func() (*spool.Found, error), request func(spool.Found) *Request,
) (*spool.Found, *Reply, error) {
	for try := 0; ; try++ {
		f, err := find()
		if err != nil || f == nil {
			return nil, nil, err
		}
		r := request(*f)
		reply, err := Ask(tree, *f, r)
		if errors.Is(err, spool.ErrBusy) && r.Held != nil && f.Place.State == spool.Building {
			if reply, err = r.Held(*f); err == nil && reply == nil {
				err = spool.ErrGone
			}
		}
		if err == nil {
			return f, reply, nil
		}
		if !errors.Is(err, spool.ErrBusy) && !errors.Is(err, spool.ErrGone) {
			return f, nil, err
		}
		if try == 39 {
			return f, &Reply{Role: Other, From: f.Place, To: f.Place, Name: f.Name, Busy: true,
				Refusal: "a daemon works on it at this moment; a running build ends by itself, or stop its builder"}, nil
		}
		time.Sleep(25 * time.Millisecond) // a mover lets go of it in milliseconds
	}
}

// makeBinNMU makes the job of a binNMU beside what is installed.
func (r *Request) makeBinNMU(it *spool.Item, t *Ticket, reply *Reply) error {
	made, err := r.BinNMU(t, spool.Found{Place: it.Place, Name: it.Name})
	var refusal Refusal
	switch {
	case errors.Is(err, ErrTwice):
		reply.Refusal = "there is a job for that binNMU already"
	case errors.As(err, &refusal):
		reply.Refusal = string(refusal)
	case err != nil:
		return err
	default:
		reply.To, reply.Name = made.Place, made.Name
	}
	return nil
}

// replaceBinNMU takes a binNMU that waits back and asks for another. What is
// cut off between the two is a binNMU that was cancelled.
func (r *Request) replaceBinNMU(it *spool.Item, t *Ticket, reply *Reply) error {
	v := spool.Verdict{To: spool.In(spool.Attic), Reason: fmt.Sprintf("another binNMU takes its place: +b%d", r.Number)}
	if err := it.Move(spool.Person, r.Who, v); err != nil {
		return err
	}
	reply.Warning = fmt.Sprintf("in the place of +b%d, which was asked for before", t.BinNMU)
	err := r.makeBinNMU(it, t, reply)
	if err == nil && reply.Refusal != "" {
		reply.Refusal += "; the one that was asked for before is cancelled"
		reply.To = it.Place
	}
	return err
}

// setExtra writes what a person says of a job's build into its ticket.
func (r *Request) setExtra(t *Ticket) {
	text := strings.TrimSpace(r.Message)
	switch r.Op {
	case ExtraDepends:
		t.ExtraDepends = text
	case ExtraConflicts:
		t.ExtraConflicts = text
	case Profiles:
		t.BuildProfiles = strings.Fields(text)
	case Options:
		t.BuildOptions = strings.Fields(text)
	}
}

func (r *Request) checkExtra() error {
	switch r.Op {
	case Profiles:
		return checkWords(r.Message, CheckProfile)
	case Options:
		return checkWords(r.Message, CheckOption)
	}
	_, err := policy.ParseRelations(r.Message)
	return err
}

func orNobody(s string) string {
	if s == "" {
		return "somebody"
	}
	return s
}

// Absent is the reply for a job that is not there.
func Absent(op Op) *Reply {
	return &Reply{Role: Other, Refusal: SpecOf(spool.Unborn, op, Other).Say}
}

// check says what is wrong with the request itself.
func (r *Request) check(s *Spec, t *Ticket, f spool.Found) string {
	if r.Version != "" && policy.CompareVersions(r.Version, t.Version) != 0 {
		return fmt.Sprintf("its version is %s, not %s", t.Version, r.Version)
	}
	if mark := t.Mark(f); r.Build != "" && r.Build != mark {
		return fmt.Sprintf("it was built again, or sent back, since then: this was said of build %s, and now it is %s",
			r.Build, mark)
	}
	has := func(e Effect) bool { return slices.Contains(s.Do, e) }
	switch {
	case has(AppendText) && strings.TrimSpace(r.Message) == "" && r.Op == Fail:
		return "say why it failed, with -m"
	case has(MergeWait):
		if strings.TrimSpace(r.Message) == "" {
			return `say what it waits for, with -m "libfoo-dev (>= 2)"`
		}
		if _, err := WaitRelations(r.Message); err != nil {
			return err.Error()
		}
	case has(SetExtra):
		if err := r.checkExtra(); err != nil {
			return err.Error()
		}
	case has(Rename) && (r.Number < -1000 || r.Number > 1000):
		return "a build priority is a number from -1000 to 1000; 10 are a class"
	case has(CancelBinNMU) && t.BinNMU == 0:
		return "it is not in the archive yet; a binNMU rebuilds what is there"
	case has(CancelBinNMU) && r.Number != 0:
		return r.checkBinNMU(f)
	case has(MakeBinNMU):
		if r.Number == 0 {
			return "there is no binNMU to cancel"
		}
		return r.checkBinNMU(f)
	}
	return ""
}

func (r *Request) checkBinNMU(f spool.Found) string {
	switch {
	case strings.TrimSpace(r.Message) == "":
		return "say why, with -m: it is the changelog entry"
	case strings.ContainsAny(r.Message, "\n\r"):
		return "the changelog entry of a binNMU is one line"
	case f.Arch() == "all":
		return "packages for all are not rebuilt as +bN (their version is the source's for every architecture); " +
			"upload a new version"
	case r.BinNMU == nil:
		return "this program makes no binNMUs"
	}
	return ""
}

// classWith is the class of a job whose build priority is n: from the class that it
// had without one, so that it can be asked for again and again.
func classWith(t *Ticket, class, n int) int {
	var base int
	if _, err := fmt.Sscanf(t.BaseClass, "%02d", &base); err == nil {
		class = base
	}
	return sooner(class, n)
}

func (r *Request) text() string {
	if r.Op == NoBuild {
		return strings.TrimSpace("It was not for this architecture; that was taken back. " + r.Message)
	}
	return strings.TrimSpace(r.Message)
}

func orNothing(s string) string {
	if strings.TrimSpace(s) == "" {
		return "(no reason given)"
	}
	return strings.TrimSpace(s)
}

// keepFailure adds a text to a job's failures, under a line with version, time
// and person. Without one it only sees to it that what stood in REASON before
// there was such a file is not lost.
func keepFailure(it *spool.Item, t *Ticket, who, text string, now time.Time) error {
	old, err := os.ReadFile(it.Path(failedFile))
	if errors.Is(err, fs.ErrNotExist) && it.Place.State == spool.Failed {
		if reason := spool.ReadReason(it.Path()); reason != "" {
			old, err = []byte(t.Plus()+" failed:\n"+strings.TrimRight(reason, "\n")+"\n"), nil
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if text != "" {
		// An earlier run may have been cut off before the move.
		entry := fmt.Sprintf("%s failed, says %s:\n%s\n", t.Plus(), who, text)
		if !strings.HasSuffix(string(old), entry) {
			old = append(old, entry...)
		}
	}
	if len(old) == 0 {
		return nil
	}
	return durable.WriteFile(it.Path(failedFile), old, 0o644)
}

// WaitRelations reads a list for Dep-Wait: each package by its name alone, or
// with >= or >>; there are no alternatives.
func WaitRelations(list string) (policy.Relations, error) {
	r, err := policy.ParseRelations(list)
	if err != nil {
		return nil, err
	}
	for _, or := range r {
		switch {
		case len(or) != 1:
			return nil, fmt.Errorf("%s: a job waits for one package each, not for one of several; "+
				"name the one that the build takes", policy.Relations{or})
		case or[0].Op != "" && or[0].Op != ">=" && or[0].Op != ">>":
			return nil, fmt.Errorf("%s: a job waits for a newer package only: use >= or >>, or the name alone",
				policy.Relations{or})
		case len(or[0].Archs) > 0 || len(or[0].Profiles) > 0:
			return nil, fmt.Errorf("%s: the list is for one architecture; leave the restriction out", policy.Relations{or})
		}
	}
	if len(r) == 0 {
		return nil, errors.New("the list of packages is empty")
	}
	return r, nil
}

// MergeWaits adds a list to what a job waits for. Of two relations for one package the
// newer takes the older's place.
func MergeWaits(old, more string) (string, error) {
	add, err := WaitRelations(more)
	if err != nil {
		return "", err
	}
	var merged policy.Relations
	if old != "" {
		if merged, err = policy.ParseRelations(old); err != nil {
			return "", err
		}
	}
	for _, or := range add {
		i := slices.IndexFunc(merged, func(m []policy.Relation) bool { return m[0].Name == or[0].Name })
		if i >= 0 {
			merged[i] = or
		} else {
			merged = append(merged, or)
		}
	}
	return merged.String(), nil
}
