package queue

import (
	"slices"
	"strings"

	"packmill/spool"
)

// Op is one of wanna-build's operations on a job, by the name that wb gives
// it where wb has one.
type Op string

// The operations.
const (
	Take           Op = "take"            // begin to build it by hand
	Built          Op = "built"           // it was built; the log waits for a signature
	Attempted      Op = "attempted"       // it was tried and failed
	Upload         Op = "uploaded"        // the result is signed: to the archive queue
	GiveBack       Op = "gb"              // try again
	DepWait        Op = "dw"              // wait for packages
	Fail           Op = "fail"            // a fault of the source, says a person
	NoBuild        Op = "nfu"             // never here; again: takes that back
	BinNMU         Op = "nmu"             // build the same source anew as +bN
	Cancel         Op = "cancel"          // not here, for this version: to the attic
	Priority       Op = "bp"              // sooner or later in the queue
	ExtraDepends   Op = "extra-depends"   // further build-dependencies
	ExtraConflicts Op = "extra-conflicts" // further build-conflicts
	Profiles       Op = "profiles"        // build profiles of this job
	Options        Op = "options"         // DEB_BUILD_OPTIONS of this job
	Manual         Op = "manual"          // a person sees to it by hand
	Info           Op = "info"            // show what is known
)

// Ops are all operations.
var Ops = []Op{Take, Built, Attempted, Upload, GiveBack, DepWait, Fail, NoBuild, BinNMU, Cancel, Priority, ExtraDepends,
	ExtraConflicts, Profiles, Options, Manual, Info}

// Role is what a person is to a job.
type Role string

// The roles. An override is asked for by name and stands in the history.
const (
	Owner    Role = "owner"    // took it, and works on it
	Signer   Role = "signer"   // signs builds of this architecture, say the settings
	Other    Role = "other"    // anybody else who may use the queues
	Override Role = "override" // anybody, who says so
)

// Roles are all roles.
var Roles = []Role{Owner, Signer, Other, Override}

// Effect is something that an operation does beside the move. The history
// line, with the person and what was said, comes with each of them.
type Effect string

// The effects.
const (
	SetOwner     Effect = "sets the owner"
	ClearOwner   Effect = "clears the owner"
	ClearTries   Effect = "forgets the attempts"
	ClearWait    Effect = "forgets what it waited for"
	MergeWait    Effect = "merges the list of packages by name, into REASON too"
	AppendText   Effect = "adds the text to the job's failures, which are its REASON"
	KeepText     Effect = "keeps the text of the failures"
	NeedResult   Effect = "needs the signed result in the job"
	TakeResult   Effect = "takes the result, if one is given"
	SayNotForUs  Effect = "writes who said so into REASON"
	MakeBinNMU   Effect = "makes a new job beside what is installed"
	CancelBinNMU Effect = "0 cancels the binNMU"
	Rename       Effect = "renames it in place"
	SayCancelled Effect = "writes who cancelled it into REASON"
	SetExtra     Effect = "changes the list; an empty one takes it away"
)

// Spec is what becomes of a job when somebody asks for an operation.
type Spec struct {
	To spool.State // nil: refused; Same: it stays where it is
	Do []Effect
	// Say is, of a refusal, the reason, a sentence; of what is done, a
	// warning. %o is the owner.
	Say string
}

// Refused reports whether nothing is done.
func (s *Spec) Refused() bool { return s.To == nil }

// Same is the To of what stays in its state.
var Same spool.State = &spool.Row{Name: "same"}

// grid is the specification, from wanna-build's rules: a line for each
// operation, a column for each of columns, and in each cell a letter for each
// of Roles: the owner, who signs, anybody else, and anybody with an override.
//
//   - refused         = stays          + a new job    c attic
//     Q bd-uninstallable: judged anew by master-buildd
//     N needs-build   B building       b built        a build-attempted
//     D dep-wait      F failed         X not-for-us   U uploaded
const grid = `
                none NB   BDU  DW   Bg   Bt   BA   F    NFU  ANFU U    I
take            ---- BBBB ---- ---- =--= B--B B--B ---B ---- ---- ---- ----
built           ---- ---- ---- ---- b--b ==== b--b ---- ---- ---- ---- ----
attempted       ---- ---- ---- ---- a--a a--a ==== ---- ---- ---- ---- ----
uploaded        ---- ---- ---- ---- U--U UU-U U--U ---- ---- ---- ---- ----
gb              ---- ==== ---N ---N NNNN NNNN NNNN ---N ---N ---- ---N ----
dw              ---- DDDD DDDD ==== DDDD DDDD DDDD DDDD ---- ---- DDDD ----
fail            ---- FFFF FFFF FFFF FFFF FFFF FFFF ==== ---- ---- FFFF ----
nfu             ---- XXXX XXXX XXXX XXXX XXXX XXXX XXXX FFFF XXXX XXXX ----
nmu             ---- ==== ==== ==== ---- ==== ==== ==== ---- ---- ---- ++++
cancel          ---- cccc cccc cccc c--c cccc cccc cccc ---- ---- ---- ----
bp              ---- ==== ==== ==== ==== ==== ==== ==== ==== ---- ---- ----
extra-depends   ---- QQQQ ==== ==== ==== ==== ==== ==== ==== ---- ---- ----
extra-conflicts ---- QQQQ ==== ==== ==== ==== ==== ==== ==== ---- ---- ----
profiles        ---- QQQQ ==== ==== ==== ==== ==== ==== ==== ---- ---- ----
options         ---- ==== ==== ==== ==== ==== ==== ==== ==== ---- ---- ----
manual          ---- ---- ---- ---- ---- ==== ==== ---- ---- ---- ---- ----
info            ---- ==== ==== ==== ==== ==== ==== ==== ==== ==== ==== ====
`

// columns are the states of the grid: Unborn stands for no job at all. With a
// job that lies elsewhere nothing is done.
var columns = []spool.State{
	spool.Unborn, spool.NeedsBuild, spool.BDUninstallable, spool.DepWait, spool.Building, spool.Built,
	spool.BuildAttempted, spool.Failed, spool.NotForUs, spool.AutoNotForUs, spool.Uploaded, spool.Installed,
}

// letters are where the letters of the grid lead.
var letters = map[byte]spool.State{
	'-': nil, '=': Same, '+': Same, 'N': spool.NeedsBuild, 'Q': spool.BDUninstallable, 'B': spool.Building,
	'b': spool.Built, 'a': spool.BuildAttempted, 'F': spool.Failed, 'D': spool.DepWait,
	'X': spool.NotForUs, 'U': spool.Uploaded, 'c': spool.Attic,
}

// effects are what an operation does beside the move, by its name and the
// grid's letter, or by its name where no line has the letter.
var effects = map[string][]Effect{
	"take":            {SetOwner, KeepText},
	"built":           {TakeResult},
	"uploaded":        {TakeResult, NeedResult},
	"gb":              {ClearOwner, ClearTries, ClearWait, KeepText},
	"gb =":            {ClearTries},
	"dw":              {ClearOwner, ClearTries, MergeWait, KeepText},
	"dw =":            {MergeWait},
	"fail":            {AppendText, ClearTries, ClearWait},
	"fail =":          {AppendText},
	"nfu":             {SayNotForUs, ClearTries, ClearWait, KeepText},
	"nfu F":           {AppendText},
	"nmu":             {CancelBinNMU},
	"nmu +":           {MakeBinNMU},
	"cancel":          {SayCancelled, KeepText},
	"bp":              {Rename},
	"extra-depends":   {SetExtra},
	"extra-conflicts": {SetExtra},
	"profiles":        {SetExtra},
	"options":         {SetExtra},
}

// sentence is what is said of an operation on a job: of the first line that
// fits. An empty field fits all.
type sentence struct {
	op  Op
	in  []spool.State
	by  Role
	say string
}

func at(s ...spool.State) []spool.State { return s }

// refusals say why nothing is done.
var refusals = []sentence{
	{in: at(spool.Unborn), say: sayNone},
	{op: Take, in: at(spool.NotForUs, spool.AutoNotForUs), say: "it is not suitable for this architecture"},
	{op: Take, in: at(spool.DepWait, spool.BDUninstallable),
		say: "not all of its build-dependencies are available; packmill why tells which"},
	{op: Take, in: at(spool.Uploaded), say: "%o has uploaded it already"},
	{op: Take, in: at(spool.Installed), say: "it is up to date in the archive; nmu builds it anew"},
	{op: Take, in: at(spool.Failed), say: "this version failed before; give it back first, or take it with --override"},
	{op: NoBuild, in: at(spool.Installed), say: "it is in the archive; remove it there first"},
	{op: BinNMU, in: at(spool.Building), say: "it is being built; wait for the end, or give it back"},
	{op: BinNMU, in: at(spool.Uploaded), say: "it is on its way to the archive; a binNMU rebuilds what is there"},
	{op: Cancel, in: at(spool.NotForUs, spool.AutoNotForUs), say: "there is nothing to cancel: it is not built here"},
	{op: Cancel, in: at(spool.Uploaded),
		say: "it is built and on its way to the archive; when it is there, packmill archive rm takes it out"},
	{op: Cancel, in: at(spool.Installed), say: "it is in the archive; packmill archive rm takes it out"},
	{op: Manual, say: "it does not wait for a person"},
	{op: GiveBack, in: at(spool.Failed, spool.DepWait, spool.BDUninstallable, spool.Uploaded, spool.NotForUs),
		say: "it does not wait for a decision; do it with --override if you mean it"},
	{in: at(spool.Uploaded), say: "it is on its way to the archive"},
	{in: at(spool.Installed), say: "it is in the archive; nmu builds it anew"},
	{in: at(spool.Building, spool.Built, spool.BuildAttempted),
		say: "%o has it; ask there, or take it over with --override"},
	{op: Built, say: sayNotBegun},
	{op: Attempted, say: sayNotBegun},
	{op: Upload, say: sayNotBegun},
	{in: at(spool.NotForUs), say: "a person said that it is not for this architecture; nfu again takes that back"},
	{in: at(spool.AutoNotForUs),
		say: "its source, or Packages-arch-specific, leaves this architecture out; it comes back when they do not"},
	{say: "no operation is for a job that lies there"},
}

const (
	sayNone     = "there is no such job; packmill ls shows what there is, and master-buildd makes jobs of what is accepted"
	sayNotBegun = "nobody has taken it yet; take it first"
)

// warnings are of what is done.
var warnings = []sentence{
	{op: Take, in: at(spool.Building), by: Owner, say: "you have it already"},
	{op: Take, in: at(spool.Building, spool.Built, spool.BuildAttempted), by: Override, say: "taken over from %o"},
	{op: Take, in: at(spool.Failed), say: "this version failed before"},
	{op: Built, in: at(spool.BuildAttempted), say: "it was tried and failed before"},
	{op: Built, in: at(spool.Built), say: "it is built already"},
	{op: Attempted, in: at(spool.BuildAttempted), say: "that is known already"},
	{op: Attempted, in: at(spool.Built), say: "it was built before"},
	{op: GiveBack, in: at(spool.NeedsBuild), say: "it waits for a builder already"},
	{op: DepWait, in: at(spool.Uploaded), say: "it was on its way to the archive"},
	{op: Fail, in: at(spool.NeedsBuild, spool.BDUninstallable, spool.Uploaded),
		say: "nobody said that it was tried and failed"},
	{op: Cancel, in: at(spool.Built), say: "what was built goes with it"},
	{say: ""},
}

// SpecOf is what the specification says of an operation on a job in a state, for
// one who is that to it.
func SpecOf(from spool.State, op Op, by Role) *Spec {
	letter := outcome(from, op, by)
	s := &Spec{To: letters[letter]}
	list := refusals
	if !s.Refused() {
		var ok bool
		if s.Do, ok = effects[string(op)+" "+string(letter)]; !ok {
			s.Do = effects[string(op)]
		}
		list = warnings
	}
	s.Say = list[slices.IndexFunc(list, func(x sentence) bool {
		return (x.op == "" || x.op == op) && (x.in == nil || slices.Contains(x.in, from)) && (x.by == "" || x.by == by)
	})].say
	return s
}

// outcome is the letter of the grid.
func outcome(from spool.State, op Op, by Role) byte {
	column := slices.Index(columns, from)
	for line := range strings.Lines(grid) {
		if cells := strings.Fields(line); column >= 0 && len(cells) > 0 && cells[0] == string(op) {
			return cells[1+column][slices.Index(Roles, by)]
		}
	}
	return '-'
}

// May reports whether the operation does anything, for anybody, with a job in
// that state.
func May(op Op, from spool.State) bool {
	return slices.ContainsFunc(Roles, func(by Role) bool { return !SpecOf(from, op, by).Refused() })
}
