// Package spool is the engine: it knows the directories that are the states,
// the one table of legal moves between them, and how an item (a directory)
// gets from one to the next without being lost, doubled or worked on twice.
//
// The directory says what is true. The lock says who is busy. The history
// file says how it came to be, and nobody decides by it.
package spool

import (
	"io/fs"
	"path"
	"slices"
	"strings"

	"packmill/internal/policy"
)

// State is where a thing can be: a row of the table of states. Two are the
// same if they are one row.
type State = *Row

// Unborn is the state before the first: an item is being made in tmp.
var Unborn State

// Row is all that follows from a state. What else has to know of states asks
// the rows, so that a new state is one more row and the work that is done there.
type Row struct {
	Name  string // wanna-build's, where wanna-build has one
	Dir   string // below the tree; SUITE, ARCH and HASH stand for one element each
	Who   string // takes things out of it, for people
	What  string // it means, for people
	Next  string // happens, and who does it: for packmill why
	Tells string // the event of control/notify that people hear of when something comes there
	// the REASON of what a person brought there with mv, with %s for its name; "" where nobody is to read one
	ByHand string

	Traits  Trait
	Requeue State // where packmill requeue puts what lies there; nil: it cannot
	Right   Right // of Dir, or of its part above SUITE, where each daemon is an account
}

// Trait is a set of things that are true of a state. A table is asked with
// Are, a state with Is.
type Trait uint16

// The traits.
const (
	Sources Trait = 1 << iota // sources lie there; with Queued, those on their way to the archive
	Jobs                      // jobs of one architecture lie there
	Queued                    // it is between acceptance and the archive
	Active                    // what lies there goes on to the archive by itself, or when a person signs it
	Waits                     // of jobs: a build begins by itself, sooner or later
	Settled                   // a job there keeps no source waiting
	Owned                     // who took a job answers for it
	Whole                     // each item has every file of its upload
	Stale                     // a newer version of the source sends what lies there to the attic
	Raw                       // items are as a stranger sent them: maybe without a ticket, or twice
	Kept                      // what has ended: two items may want the same name
)

// The directories of jobs, and what several states need of accounts.
const ofArch = "queue/SUITE/ARCH/"

var (
	reviewed = Right{Owner: UserReview, Group: GroupReview, Mode: fs.ModeSetgid | 0o770, Look: true}
	desk     = Right{Owner: UserReview, Group: GroupDesk, Mode: fs.ModeSetgid | 0o770, Look: true}
	queues   = Right{Owner: UserMaster, Group: GroupQueue, Mode: fs.ModeSetgid | 0o775}
)

// The states. The words are the names of directories.
var (
	Intake = &Row{
		Name: "intake", Dir: "spool/intake", Who: "reviewd", Right: reviewed,
		What:   "claimed from incoming; being copied and checked",
		Next:   "reviewd checks it",
		Traits: Sources | Raw,
	}
	Review = &Row{
		Name: "review", Dir: "spool/review/SUITE", Who: "a person", Right: reviewed, Tells: "received",
		What:   "complete and verified; waits for a reviewer",
		Next:   "a reviewer decides: packmill review accept, or reject",
		Traits: Sources | Whole,
	}
	Accepted = &Row{
		Name: "accepted", Dir: "spool/accepted/SUITE", Who: "master-buildd", Right: desk, Tells: "accepted",
		What:   "accepted; waits for the queues",
		Next:   "master-buildd gives each architecture its job",
		Traits: Sources | Queued | Active | Whole | Stale,
	}
	Rejected = &Row{
		Name: "rejected", Dir: "spool/rejected", Who: "(kept)", Right: desk,
		Tells: "rejected", Requeue: Intake,
		What:   "refused; `REASON` says why and what to do",
		Next:   "the uploader mends it and uploads again, or a person: packmill requeue",
		Traits: Sources | Raw | Kept,
	}
	Master = &Row{
		Name: "master", Dir: "queue/SUITE/master", Who: "master-buildd", Right: queues,
		Tells: "accepted", Requeue: Accepted,
		What:   "the source while any architecture is open",
		Next:   "it waits for its architectures; master-buildd passes it on",
		Traits: Sources | Queued | Active | Whole | Stale,
	}
	NeedsBuild = &Row{
		Name: "needs-build", Dir: ofArch + "needs-build", Who: "buildd", Right: queues,
		What:   "waits for a builder, oldest first",
		Next:   "a builder takes it",
		Traits: Jobs | Queued | Active | Waits | Whole | Stale,
	}
	BDUninstallable = &Row{
		Name: "bd-uninstallable", Dir: ofArch + "bd-uninstallable", Who: "master-buildd", Right: queues,
		Tells: "failed", Requeue: NeedsBuild,
		What:   "build-dependencies are not installable",
		Next:   "master-buildd lets it go on when its build-dependencies are installable",
		Traits: Jobs | Queued | Active | Waits | Whole | Stale,
	}
	DepWait = &Row{
		Name: "dep-wait", Dir: ofArch + "dep-wait", Who: "master-buildd", Right: queues,
		Tells: "failed", Requeue: NeedsBuild,
		What:   "waits for named packages",
		Next:   "master-buildd lets it go on when the suite has what it waits for",
		Traits: Jobs | Queued | Active | Waits | Whole | Stale,
	}
	Building = &Row{
		Name: "building", Dir: ofArch + "building", Who: "buildd", Right: queues,
		What:   "a builder has it",
		Next:   "its builder ends",
		Traits: Jobs | Queued | Active | Owned,
	}
	Built = &Row{
		Name: "built", Dir: ofArch + "built", Who: "a person, or buildd", Right: queues,
		Tells: "log", Requeue: NeedsBuild,
		What:   "built; the log waits for a signature",
		Next:   "a person reads the log and signs the result, by mail or with: packmill build",
		Traits: Jobs | Queued | Active | Owned | Whole | Stale,
	}
	BuildAttempted = &Row{
		Name: "build-attempted", Dir: ofArch + "build-attempted", Who: "a person", Right: queues,
		Tells: "failed", Requeue: NeedsBuild,
		What:   "failed; nobody has judged it yet",
		ByHand: "It was moved here by hand: nobody said that it was tried and failed.\nTo try again: packmill requeue %s\n",
		Next:   "a person reads the log, then: packmill wb gb, fail or dw",
		Traits: Jobs | Queued | Settled | Owned | Whole | Stale,
	}
	Failed = &Row{
		Name: "failed", Dir: ofArch + "failed", Who: "a person", Right: queues, Requeue: NeedsBuild,
		What:   "judged: a fault of the source",
		ByHand: "It was moved here by hand, without a word why.\nTo try again: packmill requeue %s\n",
		Next:   "a new version is uploaded, or a person: packmill wb gb --override",
		Traits: Jobs | Queued | Settled | Stale,
	}
	NotForUs = &Row{
		Name: "not-for-us", Dir: ofArch + "not-for-us", Who: "a person", Right: queues,
		What: "never here, says a person",
		ByHand: "It was moved here by hand: not for this architecture, and no later version of it.\n" +
			"To take that back: packmill wb nfu %s\n",
		Next:   "nothing, for later versions neither; packmill wb nfu takes it back",
		Traits: Jobs | Queued | Settled,
	}
	AutoNotForUs = &Row{
		Name: "auto-not-for-us", Dir: ofArch + "auto-not-for-us", Who: "master-buildd", Right: queues,
		What:   "never here, says the Architecture field",
		Next:   "nothing, until a version names this architecture",
		Traits: Jobs | Queued | Settled | Stale,
	}
	Uploaded = &Row{
		Name: "uploaded", Dir: "archive/incoming/SUITE", Who: "archived", Tells: "accepted",
		Right:  Right{Owner: UserArchive, Group: GroupAll, Mode: fs.ModeSetgid | 0o750, Inner: GroupPublish, Look: true},
		What:   "in the archive queue: sources and signed binaries",
		Next:   "archived publishes it",
		Traits: Sources | Jobs | Queued | Active | Settled | Whole,
	}
	Installed = &Row{
		Name: "installed", Dir: "archive/installed/SUITE/ARCH/HASH", Who: "(kept)", Tells: "published",
		Right:  Right{Owner: UserArchive, Group: GroupAll, Mode: fs.ModeSetgid | 0o750, Look: true},
		What:   "in the archive",
		Next:   "nothing: it was published; packmill archive ls: what the suite has now",
		Traits: Sources | Jobs | Settled | Kept,
	}
	Attic = &Row{
		Name: "attic", Dir: "attic", Who: "(swept by age)",
		Right:  Right{Owner: "root", Group: GroupAll, Mode: fs.ModeSetgid | 0o770, Look: true},
		What:   "superseded, cancelled or removed",
		Next:   "nothing; it is swept when it is old",
		Traits: Sources | Settled | Raw | Kept,
	}
)

// Standard is the table of every tree, in the order of a package's life.
var Standard = Table{
	States: []State{
		Intake, Review, Accepted, Rejected,
		Master, NeedsBuild, BDUninstallable, DepWait, Building, Built, BuildAttempted, Failed, NotForUs, AutoNotForUs,
		Uploaded, Installed, Attic,
	},
	Moves: moves,
}

// Table is the states that a tree can have, and the legal moves between them.
type Table struct {
	States []State // in the order of a package's life
	Moves  []Rule
}

// LedgerDir is the directory beside a job's states, queue/SUITE/ARCH/ledger,
// in which package queue keeps who was born. It is no state.
const LedgerDir = "ledger"

// SourceArch stands for a source where an architecture is asked for.
const SourceArch = "source"

// String is the state's name, "" of Unborn.
func (r *Row) String() string {
	if r == nil {
		return ""
	}
	return r.Name
}

// MarshalText is String, for JSON and logs.
func (r *Row) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// Is reports whether all of the traits are true of the state.
func (r *Row) Is(all Trait) bool { return r != nil && r.Traits&all == all }

// Has reports whether word, SUITE, ARCH or HASH, is an element of the state's
// directories: items of one suite, one architecture or some sources lie apart.
func (r *Row) Has(word string) bool { return strings.Contains(r.Dir, word) }

// root is the directory that a tree has even when it is empty.
func (r *Row) root() string {
	root, _, _ := strings.Cut(r.Dir, "/SUITE")
	return root
}

// shared reports whether the daemons and people share what lies there. What is
// not shared is its owner's own record.
func (r *Row) shared() bool { return r.Right.Below().Mode&0o020 != 0 }

// Are lists the states of which all of the traits are true.
func (t Table) Are(all Trait) []State {
	return t.Where(func(s State) bool { return s.Is(all) })
}

// Where lists the states of which is is true.
func (t Table) Where(is func(State) bool) []State {
	return slices.DeleteFunc(slices.Clone(t.States), func(s State) bool { return !is(s) })
}

// ArchStates are the directories that each architecture of a suite has below
// queue.
func (t Table) ArchStates() []State {
	return t.Where(func(s State) bool { return strings.HasPrefix(s.Dir, ofArch) })
}

// Named finds a state by its name: nil if there is none.
func (t Table) Named(name string) State {
	if i := slices.IndexFunc(t.States, func(s State) bool { return s.Name == name }); i >= 0 {
		return t.States[i]
	}
	return nil
}

// Place is a state in one suite and architecture: one directory. Suite and
// Arch are empty where the state has none. Installed is sharded by the first
// letters of the source's name, which Hash holds. The zero Place is nowhere.
type Place struct {
	State State
	Suite string
	Arch  string
	Hash  string
}

// In is the Place of a state for a suite, or a suite and an architecture; what
// the state has none of is left out.
func In(s State, where ...string) Place {
	p := Place{State: s}
	if len(where) > 0 && s.Has("SUITE") {
		p.Suite = where[0]
	}
	if len(where) > 1 && s.Has("ARCH") {
		p.Arch = where[1]
	}
	return p
}

// Of is the place for the items of one source, where each has some of them.
func (p Place) Of(source string) Place {
	if p.Hash == "" && p.State.Has("HASH") {
		p.Hash = policy.PoolPrefix(source)
	}
	return p
}

// Dir is the place's path below the tree. It panics on the zero Place, which
// only a fault of the program asks for.
func (p Place) Dir() string {
	// By hand: this runs several times for each item of a queue.
	words := strings.Split(p.State.Dir, "/")
	for i, w := range words {
		switch w {
		case "SUITE":
			words[i] = p.Suite
		case "ARCH":
			words[i] = p.Arch
		case "HASH":
			words[i] = p.Hash
		}
	}
	return strings.Join(words, "/")
}

// String is the directory, which is how people see a place.
func (p Place) String() string {
	if p.State == Unborn {
		return "new"
	}
	return p.Dir()
}

// PlaceOf is the inverse of Dir: it reports which place the directory at rel,
// below the tree, is.
func (t Table) PlaceOf(rel string) (Place, bool) {
	got := strings.Split(path.Clean(rel), "/")
	for _, s := range t.States {
		want := strings.Split(s.Dir, "/")
		if len(want) != len(got) {
			continue
		}
		p := Place{State: s}
		if p.match(want, got) {
			return p, true
		}
	}
	return Place{}, false
}

func (p *Place) match(want, got []string) bool {
	for i, w := range want {
		switch w {
		case "SUITE":
			if policy.CheckSuite(got[i]) != nil {
				return false
			}
			p.Suite = got[i]
		case "ARCH":
			if policy.CheckArch(got[i]) != nil && (got[i] != SourceArch || !p.State.Is(Sources)) {
				return false
			}
			p.Arch = got[i]
		case "HASH":
			p.Hash = got[i]
		default:
			if w != got[i] {
				return false
			}
		}
	}
	return true
}

// Actor is who makes a move: a daemon, or a person with the packmill command.
// A person with mv is nobody in the table: such a move is always legal.
type Actor string

// The actors.
const (
	Reviewd  Actor = "reviewd"
	MasterD  Actor = "master-buildd"
	Buildd   Actor = "buildd"
	Archived Actor = "archived"
	Person   Actor = "person"
)

// Rule is one line of the table of moves: from each of From to each of To, by
// each of By.
type Rule struct {
	From []State
	To   []State
	By   []Actor
}

// atRest are the states in which no builder has the job, and nobody said that
// it is never built.
var atRest = []State{NeedsBuild, BDUninstallable, DepWait, Built, BuildAttempted, Failed}

// moves is the one table of legal moves. Whatever a daemon or the packmill
// command wants to do, Move looks here first.
var moves = []Rule{
	// An upload is claimed, and judged; or the same one is here already.
	{[]State{Unborn}, []State{Intake}, []Actor{Reviewd}},
	{[]State{Intake}, []State{Review, Accepted, Rejected, Attic}, []Actor{Reviewd}},
	// A reviewer decides, or a rule does; and thinks again.
	{[]State{Review}, []State{Accepted, Rejected}, []Actor{Person, Reviewd}},
	{[]State{Accepted}, []State{Rejected}, []Actor{Person}},
	// A newer upload takes its place, or the uploader takes it back; its age is over.
	{[]State{Review, Accepted}, []State{Attic}, []Actor{Reviewd, MasterD, Person}},
	{[]State{Rejected}, []State{Attic}, []Actor{Reviewd, Person}},
	// Requeue: judged again, fanned out again (or never was, and came by mv).
	{[]State{Rejected, Review}, []State{Intake}, []Actor{Person}},
	{[]State{Master}, []State{Accepted}, []Actor{Person, MasterD}},
	// Fan-out; nothing to build; nothing it could be for.
	{[]State{Accepted}, []State{Master, Uploaded, Rejected}, []Actor{MasterD}},

	// A job is born; a source goes ahead of its binaries, or comes from elsewhere.
	{[]State{Unborn}, []State{NeedsBuild, BDUninstallable, DepWait, NotForUs, AutoNotForUs, Uploaded},
		[]Actor{MasterD, Person}},
	// Every architecture has settled; or a newer version came.
	{[]State{Master}, []State{Uploaded, Attic}, []Actor{MasterD, Person}},
	// It is not what was let in.
	{[]State{Master}, []State{Rejected}, []Actor{MasterD}},
	// Take, and with override.
	{[]State{NeedsBuild}, []State{Building}, []Actor{Buildd, Person}},
	{[]State{BuildAttempted, Built, Failed}, []State{Building}, []Actor{Person}},
	// Installability; a person who asks for other build-dependencies has it judged anew.
	{[]State{NeedsBuild}, []State{DepWait, BDUninstallable}, []Actor{MasterD}},
	{[]State{NeedsBuild}, []State{BDUninstallable}, []Actor{Person}},
	{[]State{BDUninstallable, DepWait}, []State{NeedsBuild, BDUninstallable, DepWait}, []Actor{MasterD}},
	// A build ended; a person built it, or took it from a dead builder; the log is signed.
	{[]State{Building}, []State{Built, BuildAttempted, DepWait, BDUninstallable, NeedsBuild, Uploaded, Attic},
		[]Actor{Buildd}},
	{[]State{Building}, []State{Built, BuildAttempted, NeedsBuild, Failed, DepWait, Uploaded, NotForUs}, []Actor{Person}},
	// A builder on another machine is gone, and no build daemon is there that would say so.
	{[]State{Building}, []State{NeedsBuild}, []Actor{MasterD}},
	{[]State{Built, BuildAttempted}, []State{Built, BuildAttempted, Uploaded}, []Actor{Person}},
	{[]State{Built}, []State{Uploaded}, []Actor{Buildd}},
	// Give back, and with override.
	{[]State{Built, BuildAttempted}, []State{NeedsBuild}, []Actor{Person, MasterD}},
	{[]State{BDUninstallable, DepWait, Failed, Uploaded}, []State{NeedsBuild}, []Actor{Person}},
	// Fail, dep-wait, no-build, and that taken back.
	{[]State{Built, BuildAttempted, DepWait, NeedsBuild, BDUninstallable, Uploaded}, []State{Failed}, []Actor{Person}},
	{[]State{NeedsBuild, BDUninstallable, Built, BuildAttempted, Failed, Uploaded}, []State{DepWait}, []Actor{Person}},
	{append([]State{AutoNotForUs, Uploaded}, atRest...), []State{NotForUs}, []Actor{Person}},
	{[]State{NotForUs}, []State{Failed, NeedsBuild}, []Actor{Person}},
	// The Architecture field changed, or names it no more; it is in the archive already.
	{[]State{AutoNotForUs}, []State{NeedsBuild, Attic}, []Actor{MasterD}},
	{atRest, []State{AutoNotForUs, Uploaded}, []Actor{MasterD}},
	// Superseded, removed, cancelled.
	{append([]State{Building, NotForUs, AutoNotForUs}, atRest...), []State{Attic}, []Actor{MasterD, Person}},

	// Included; refused; superseded; taken back before publication.
	{[]State{Uploaded}, []State{Installed, Rejected, BuildAttempted, Attic}, []Actor{Archived}},
	{[]State{Uploaded}, []State{Attic, Rejected}, []Actor{Person}},
	// Removed from the archive.
	{[]State{Installed}, []State{Attic}, []Actor{Archived, Person}},
	// No index has it any more, and the pool has: it is published again.
	{[]State{Installed}, []State{Uploaded}, []Actor{Archived}},
}

// Legal reports whether by may move an item from one state to another.
// Staying in a state (a new order, another name) is legal for all.
func (t Table) Legal(from, to State, by Actor) bool {
	if from == to {
		return true
	}
	return slices.ContainsFunc(t.Moves, func(r Rule) bool {
		return slices.Contains(r.From, from) && slices.Contains(r.To, to) && slices.Contains(r.By, by)
	})
}
