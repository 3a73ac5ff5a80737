package queue

import (
	"slices"

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
	Manual         Op = "manual"          // a person sees to it by hand
	Info           Op = "info"            // show what is known
)

// Ops are all operations.
var Ops = []Op{Take, Built, Attempted, Upload, GiveBack, DepWait, Fail, NoBuild, BinNMU, Cancel, Priority, ExtraDepends, ExtraConflicts, Manual, Info}

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
	Unjudged     Effect = "is judged anew: master-buildd sends it to bd-uninstallable if need be"
)

// Spec is one line of the specification of the operations: what becomes of a
// job in each of From when somebody in one of By asks for Op.
type Spec struct {
	Op   Op
	From []spool.State
	By   []Role
	To   spool.State // nil: refused; Same: it stays where it is
	Do   []Effect
	// Say is, of a refusal, the reason, a sentence; of what is done, a
	// warning. %o is the owner.
	Say string
}

// Refused reports whether nothing is done.
func (s *Spec) Refused() bool { return s.To == nil }

// Same is the To of what stays in its state.
var Same spool.State = &spool.Row{Name: "same"}

// JobStates are the states of the specification: spool.Unborn stands for no
// job at all.
var JobStates = []spool.State{
	spool.Unborn, spool.NeedsBuild, spool.BDUninstallable, spool.DepWait, spool.Building, spool.Built, spool.BuildAttempted,
	spool.Failed, spool.NotForUs, spool.AutoNotForUs, spool.Uploaded, spool.Installed,
}

var (
	anybody = Roles
	others  = []Role{Signer, Other}
	mine    = []Role{Owner, Override}
	force   = []Role{Override}
)

func at(s ...spool.State) []spool.State { return s }

// but is every state except some.
func but(not ...spool.State) []spool.State {
	return slices.DeleteFunc(slices.Clone(JobStates), func(s spool.State) bool { return slices.Contains(not, s) })
}

// Sentences that several lines share.
const (
	sayNone      = "there is no such job; packmill ls shows what there is, and master-buildd makes jobs of what is accepted"
	sayOther     = "%o has it; ask there, or take it over with --override"
	sayNotBegun  = "nobody has taken it yet; take it first"
	sayUnwanted  = "a person said that it is not for this architecture; nfu again takes that back"
	sayNeverHere = "its source does not name this architecture; upload a version that does"
	sayInstalled = "it is in the archive; nmu builds it anew"
	sayOnItsWay  = "it is on its way to the archive"
	sayOverride  = "it does not wait for a decision; do it with --override if you mean it"
)

// Specs is the specification, in the order of the operations. Each state,
// operation and role stands in exactly one line; a test asks each of them of
// a real tree.
var Specs = []Spec{
	{Op: Take, From: at(spool.Unborn), By: anybody, Say: sayNone},
	{Op: Take, From: at(spool.NeedsBuild), By: anybody, To: spool.Building, Do: []Effect{SetOwner}},
	{Op: Take, From: at(spool.Building), By: []Role{Owner}, To: Same, Do: []Effect{SetOwner}, Say: "you have it already"},
	{Op: Take, From: at(spool.Building), By: others, Say: sayOther},
	{Op: Take, From: at(spool.Building), By: force, To: Same, Do: []Effect{SetOwner}, Say: "taken over from %o"},
	{Op: Take, From: at(spool.Built, spool.BuildAttempted), By: []Role{Owner}, To: spool.Building, Do: []Effect{SetOwner}},
	{Op: Take, From: at(spool.Built, spool.BuildAttempted), By: others, Say: sayOther},
	{Op: Take, From: at(spool.Built, spool.BuildAttempted), By: force, To: spool.Building, Do: []Effect{SetOwner}, Say: "taken over from %o"},
	{Op: Take, From: at(spool.Failed), By: []Role{Owner, Signer, Other}, Say: "this version failed before; give it back first, or take it with --override"},
	{Op: Take, From: at(spool.Failed), By: force, To: spool.Building, Do: []Effect{SetOwner, KeepText}, Say: "this version failed before"},
	{Op: Take, From: at(spool.NotForUs, spool.AutoNotForUs), By: anybody, Say: "it is not suitable for this architecture"},
	{Op: Take, From: at(spool.DepWait, spool.BDUninstallable), By: anybody, Say: "not all of its build-dependencies are available; packmill why tells which"},
	{Op: Take, From: at(spool.Uploaded), By: anybody, Say: "%o has uploaded it already"},
	{Op: Take, From: at(spool.Installed), By: anybody, Say: "it is up to date in the archive; nmu builds it anew"},

	{Op: Built, From: at(spool.Unborn), By: anybody, Say: sayNone},
	{Op: Built, From: at(spool.Building), By: mine, To: spool.Built, Do: []Effect{TakeResult}},
	{Op: Built, From: at(spool.BuildAttempted), By: mine, To: spool.Built, Do: []Effect{TakeResult}, Say: "it was tried and failed before"},
	{Op: Built, From: at(spool.Building, spool.BuildAttempted), By: others, Say: sayOther},
	{Op: Built, From: at(spool.Built), By: anybody, To: Same, Do: []Effect{TakeResult}, Say: "it is built already"},
	{Op: Built, From: at(spool.NeedsBuild, spool.BDUninstallable, spool.DepWait, spool.Failed, spool.NotForUs, spool.AutoNotForUs), By: anybody, Say: sayNotBegun},
	{Op: Built, From: at(spool.Uploaded), By: anybody, Say: sayOnItsWay},
	{Op: Built, From: at(spool.Installed), By: anybody, Say: sayInstalled},

	{Op: Attempted, From: at(spool.Unborn), By: anybody, Say: sayNone},
	{Op: Attempted, From: at(spool.Building), By: mine, To: spool.BuildAttempted},
	{Op: Attempted, From: at(spool.Building), By: others, Say: sayOther},
	{Op: Attempted, From: at(spool.BuildAttempted), By: anybody, To: Same, Say: "that is known already"},
	{Op: Attempted, From: at(spool.Built), By: mine, To: spool.BuildAttempted, Say: "it was built before"},
	{Op: Attempted, From: at(spool.Built), By: others, Say: sayOther},
	{Op: Attempted, From: at(spool.NeedsBuild, spool.BDUninstallable, spool.DepWait, spool.Failed, spool.NotForUs, spool.AutoNotForUs), By: anybody, Say: sayNotBegun},
	{Op: Attempted, From: at(spool.Uploaded), By: anybody, Say: sayOnItsWay},
	{Op: Attempted, From: at(spool.Installed), By: anybody, Say: sayInstalled},

	{Op: Upload, From: at(spool.Unborn), By: anybody, Say: sayNone},
	{Op: Upload, From: at(spool.Built), By: []Role{Owner, Signer, Override}, To: spool.Uploaded, Do: []Effect{TakeResult, NeedResult}},
	{Op: Upload, From: at(spool.Built), By: []Role{Other}, Say: sayOther},
	{Op: Upload, From: at(spool.Building, spool.BuildAttempted), By: mine, To: spool.Uploaded, Do: []Effect{TakeResult, NeedResult}},
	{Op: Upload, From: at(spool.Building, spool.BuildAttempted), By: others, Say: sayOther},
	{Op: Upload, From: at(spool.NeedsBuild, spool.BDUninstallable, spool.DepWait, spool.Failed, spool.NotForUs, spool.AutoNotForUs), By: anybody, Say: sayNotBegun},
	{Op: Upload, From: at(spool.Uploaded), By: anybody, Say: sayOnItsWay},
	{Op: Upload, From: at(spool.Installed), By: anybody, Say: sayInstalled},

	{Op: GiveBack, From: at(spool.Unborn), By: anybody, Say: sayNone},
	{Op: GiveBack, From: at(spool.Building, spool.Built, spool.BuildAttempted), By: anybody, To: spool.NeedsBuild, Do: []Effect{ClearOwner, ClearTries, ClearWait, KeepText, Unjudged}},
	{Op: GiveBack, From: at(spool.NeedsBuild), By: anybody, To: Same, Do: []Effect{ClearTries}, Say: "it waits for a builder already"},
	{Op: GiveBack, From: at(spool.Failed, spool.DepWait, spool.BDUninstallable, spool.Uploaded, spool.NotForUs), By: []Role{Owner, Signer, Other}, Say: sayOverride},
	{Op: GiveBack, From: at(spool.Failed, spool.DepWait, spool.BDUninstallable, spool.Uploaded, spool.NotForUs), By: force, To: spool.NeedsBuild, Do: []Effect{ClearOwner, ClearTries, ClearWait, KeepText, Unjudged}},
	{Op: GiveBack, From: at(spool.AutoNotForUs), By: anybody, Say: sayNeverHere},
	{Op: GiveBack, From: at(spool.Installed), By: anybody, Say: sayInstalled},

	{Op: DepWait, From: at(spool.Unborn), By: anybody, Say: sayNone},
	{Op: DepWait, From: at(spool.NeedsBuild, spool.BDUninstallable, spool.Building, spool.Built, spool.BuildAttempted, spool.Failed), By: anybody, To: spool.DepWait, Do: []Effect{ClearOwner, ClearTries, MergeWait, KeepText}},
	{Op: DepWait, From: at(spool.Uploaded), By: anybody, To: spool.DepWait, Do: []Effect{ClearOwner, ClearTries, MergeWait, KeepText}, Say: "it was on its way to the archive"},
	{Op: DepWait, From: at(spool.DepWait), By: anybody, To: Same, Do: []Effect{MergeWait}},
	{Op: DepWait, From: at(spool.NotForUs), By: anybody, Say: sayUnwanted},
	{Op: DepWait, From: at(spool.AutoNotForUs), By: anybody, Say: sayNeverHere},
	{Op: DepWait, From: at(spool.Installed), By: anybody, Say: sayInstalled},

	{Op: Fail, From: at(spool.Unborn), By: anybody, Say: sayNone},
	{Op: Fail, From: at(spool.Building, spool.Built, spool.BuildAttempted, spool.DepWait), By: anybody, To: spool.Failed, Do: []Effect{AppendText, ClearTries, ClearWait}},
	{Op: Fail, From: at(spool.Failed), By: anybody, To: Same, Do: []Effect{AppendText}},
	{Op: Fail, From: at(spool.NeedsBuild, spool.BDUninstallable, spool.Uploaded), By: anybody, To: spool.Failed, Do: []Effect{AppendText, ClearTries, ClearWait}, Say: "nobody said that it was tried and failed"},
	{Op: Fail, From: at(spool.NotForUs), By: anybody, Say: sayUnwanted},
	{Op: Fail, From: at(spool.AutoNotForUs), By: anybody, Say: sayNeverHere},
	{Op: Fail, From: at(spool.Installed), By: anybody, Say: sayInstalled},

	{Op: NoBuild, From: at(spool.Unborn), By: anybody, Say: sayNone},
	{Op: NoBuild, From: but(spool.Unborn, spool.NotForUs, spool.Installed), By: anybody, To: spool.NotForUs, Do: []Effect{SayNotForUs, ClearTries, ClearWait, KeepText}},
	{Op: NoBuild, From: at(spool.NotForUs), By: anybody, To: spool.Failed, Do: []Effect{AppendText}},
	{Op: NoBuild, From: at(spool.Installed), By: anybody, Say: "it is in the archive; remove it there first"},

	{Op: BinNMU, From: at(spool.Unborn), By: anybody, Say: sayNone},
	{Op: BinNMU, From: at(spool.Installed), By: anybody, To: Same, Do: []Effect{MakeBinNMU}},
	{Op: BinNMU, From: at(spool.NeedsBuild, spool.BDUninstallable, spool.DepWait, spool.Built, spool.BuildAttempted, spool.Failed), By: anybody, To: Same, Do: []Effect{CancelBinNMU}},
	{Op: BinNMU, From: at(spool.Building), By: anybody, Say: "it is being built; wait for the end, or give it back"},
	{Op: BinNMU, From: at(spool.Uploaded), By: anybody, Say: "it is on its way to the archive; a binNMU rebuilds what is there"},
	{Op: BinNMU, From: at(spool.NotForUs), By: anybody, Say: sayUnwanted},
	{Op: BinNMU, From: at(spool.AutoNotForUs), By: anybody, Say: sayNeverHere},

	{Op: Cancel, From: at(spool.Unborn), By: anybody, Say: sayNone},
	{Op: Cancel, From: at(spool.NeedsBuild, spool.BDUninstallable, spool.DepWait, spool.BuildAttempted, spool.Failed), By: anybody, To: spool.Attic, Do: []Effect{SayCancelled, KeepText}},
	{Op: Cancel, From: at(spool.Built), By: anybody, To: spool.Attic, Do: []Effect{SayCancelled}, Say: "what was built goes with it"},
	{Op: Cancel, From: at(spool.Building), By: mine, To: spool.Attic, Do: []Effect{SayCancelled}},
	{Op: Cancel, From: at(spool.Building), By: others, Say: sayOther},
	{Op: Cancel, From: at(spool.NotForUs, spool.AutoNotForUs), By: anybody, Say: "there is nothing to cancel: it is not built here"},
	{Op: Cancel, From: at(spool.Uploaded), By: anybody, Say: "it is built and on its way to the archive; when it is there, packmill archive rm takes it out"},
	{Op: Cancel, From: at(spool.Installed), By: anybody, Say: "it is in the archive; packmill archive rm takes it out"},

	{Op: Priority, From: at(spool.Unborn), By: anybody, Say: sayNone},
	{Op: Priority, From: but(spool.Unborn, spool.Installed, spool.Uploaded, spool.AutoNotForUs), By: anybody, To: Same, Do: []Effect{Rename}},
	{Op: Priority, From: at(spool.Uploaded), By: anybody, Say: sayOnItsWay},
	{Op: Priority, From: at(spool.AutoNotForUs), By: anybody, Say: sayNeverHere},
	{Op: Priority, From: at(spool.Installed), By: anybody, Say: sayInstalled},

	{Op: ExtraDepends, From: at(spool.Unborn), By: anybody, Say: sayNone},
	{Op: ExtraDepends, From: but(spool.Unborn, spool.Installed, spool.Uploaded, spool.AutoNotForUs), By: anybody, To: Same, Do: []Effect{SetExtra}},
	{Op: ExtraDepends, From: at(spool.Uploaded), By: anybody, Say: sayOnItsWay},
	{Op: ExtraDepends, From: at(spool.AutoNotForUs), By: anybody, Say: sayNeverHere},
	{Op: ExtraDepends, From: at(spool.Installed), By: anybody, Say: sayInstalled},

	{Op: ExtraConflicts, From: at(spool.Unborn), By: anybody, Say: sayNone},
	{Op: ExtraConflicts, From: but(spool.Unborn, spool.Installed, spool.Uploaded, spool.AutoNotForUs), By: anybody, To: Same, Do: []Effect{SetExtra}},
	{Op: ExtraConflicts, From: at(spool.Uploaded), By: anybody, Say: sayOnItsWay},
	{Op: ExtraConflicts, From: at(spool.AutoNotForUs), By: anybody, Say: sayNeverHere},
	{Op: ExtraConflicts, From: at(spool.Installed), By: anybody, Say: sayInstalled},

	{Op: Manual, From: at(spool.Unborn), By: anybody, Say: sayNone},
	{Op: Manual, From: at(spool.Built, spool.BuildAttempted), By: anybody, To: Same},
	{Op: Manual, From: but(spool.Unborn, spool.Built, spool.BuildAttempted), By: anybody, Say: "it does not wait for a person"},

	{Op: Info, From: at(spool.Unborn), By: anybody, Say: sayNone},
	{Op: Info, From: but(spool.Unborn), By: anybody, To: Same},
}

// SpecOf finds the line for an operation.
func SpecOf(from spool.State, op Op, by Role) *Spec {
	for i := range Specs {
		s := &Specs[i]
		if s.Op == op && slices.Contains(s.From, from) && slices.Contains(s.By, by) {
			return s
		}
	}
	return nil
}

// May reports whether the operation does anything, for anybody, with a job in
// that state.
func May(op Op, from spool.State) bool {
	return slices.ContainsFunc(Roles, func(by Role) bool {
		s := SpecOf(from, op, by)
		return s != nil && !s.Refused()
	})
}
