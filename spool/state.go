// Package spool is the engine: it knows the directories that are the states,
// the one table of legal moves between them, and how an item (a directory)
// gets from one to the next without being lost, doubled or worked on twice.
//
// The directory says what is true. The lock says who is busy. The history
// file says how it came to be, and nobody decides by it.
package spool

import (
	"fmt"
	"path"
	"strings"

	"packmill/internal/policy"
)

// State is where a thing can be. The words are the names of directories, and
// wanna-build's where wanna-build has one.
type State string

// The states, in the order of a package's life.
const (
	Intake   State = "intake"   // claimed from incoming; being copied and checked
	Review   State = "review"   // complete and verified; waits for a reviewer
	Accepted State = "accepted" // accepted; waits for the queues
	Rejected State = "rejected" // refused; REASON says why and what to do

	Master          State = "master"           // the source while any architecture is open
	NeedsBuild      State = "needs-build"      // waits for a builder, oldest first
	BDUninstallable State = "bd-uninstallable" // build-dependencies are not installable
	DepWait         State = "dep-wait"         // waits for named packages
	Building        State = "building"         // a builder has it
	Built           State = "built"            // built; the log waits for a signature
	BuildAttempted  State = "build-attempted"  // failed; nobody has judged it yet
	Failed          State = "failed"           // judged: a fault of the source
	NotForUs        State = "not-for-us"       // never here, says a person
	AutoNotForUs    State = "auto-not-for-us"  // never here, says the Architecture field
	Uploaded        State = "uploaded"         // in the archive queue: sources and signed binaries
	Installed       State = "installed"        // in the archive
	Attic           State = "attic"            // superseded, cancelled, removed; swept by age
)

// LedgerDir is the directory beside a job's states, queue/SUITE/ARCH/ledger,
// in which package queue keeps who was born. It is no state.
const LedgerDir = "ledger"

// SourceArch stands for a source where an architecture is asked for.
const SourceArch = "source"

// Unborn is the state before the first: an item is being made in tmp.
const Unborn State = ""

// shape is how a state's directory looks: a path below the tree in which
// SUITE, ARCH and HASH stand for one element each.
type shape struct {
	state State
	dir   string
	who   string // who takes things out of it, for people
	what  string // for people
}

// shapes is the tree. It is the only list of directories in the project.
var shapes = []shape{
	{Intake, "spool/intake", "reviewd", "claimed from incoming; being copied and checked"},
	{Review, "spool/review/SUITE", "a person", "complete and verified; waits for a reviewer"},
	{Accepted, "spool/accepted/SUITE", "master-buildd", "accepted; waits for the queues"},
	{Rejected, "spool/rejected", "(kept)", "refused; `REASON` says why and what to do"},
	{Master, "queue/SUITE/master", "master-buildd", "the source while any architecture is open"},
	{NeedsBuild, "queue/SUITE/ARCH/needs-build", "buildd", "waits for a builder, oldest first"},
	{BDUninstallable, "queue/SUITE/ARCH/bd-uninstallable", "master-buildd", "build-dependencies are not installable"},
	{DepWait, "queue/SUITE/ARCH/dep-wait", "master-buildd", "waits for named packages"},
	{Building, "queue/SUITE/ARCH/building", "buildd", "a builder has it"},
	{Built, "queue/SUITE/ARCH/built", "a person, or buildd", "built; the log waits for a signature"},
	{BuildAttempted, "queue/SUITE/ARCH/build-attempted", "a person", "failed; nobody has judged it yet"},
	{Failed, "queue/SUITE/ARCH/failed", "a person", "judged: a fault of the source"},
	{NotForUs, "queue/SUITE/ARCH/not-for-us", "a person", "never here, says a person"},
	{AutoNotForUs, "queue/SUITE/ARCH/auto-not-for-us", "master-buildd", "never here, says the Architecture field"},
	{Uploaded, "archive/incoming/SUITE", "archived", "in the archive queue: sources and signed binaries"},
	{Installed, "archive/installed/SUITE/ARCH/HASH", "(kept)", "in the archive"},
	{Attic, "attic", "(swept by age)", "superseded, cancelled or removed"},
}

// ArchStates are the states of a job, the directories that each architecture
// of a suite has below queue, in the order of shapes.
func ArchStates() []State {
	var out []State
	for _, s := range shapes {
		if strings.HasPrefix(s.dir, "queue/SUITE/ARCH/") {
			out = append(out, s.state)
		}
	}
	return out
}

// Row is one line of the table of states, for people.
type Row struct {
	State State
	Dir   string // SUITE, ARCH and HASH stand for one element each
	Who   string // who takes things out
	What  string
}

// Table returns the states with their directories, in the order of a
// package's life: README.md and the pages show it.
func Table() []Row {
	rows := make([]Row, len(shapes))
	for i, s := range shapes {
		rows[i] = Row{s.state, s.dir, s.who, s.what}
	}
	return rows
}

// Place is a state in one suite and architecture: one directory. Suite and
// Arch are empty where the state has none. Installed is sharded by the first
// letters of the source's name, which Hash holds.
type Place struct {
	State State
	Suite string
	Arch  string
	Hash  string
}

// In is a Place of a state that has no suite, or a suite, or a suite and an
// architecture, as given.
func In(s State, where ...string) Place {
	p := Place{State: s}
	if len(where) > 0 {
		p.Suite = where[0]
	}
	if len(where) > 1 {
		p.Arch = where[1]
	}
	return p
}

// Dir is the place's path below the tree. It panics on a place that no shape
// fits, which only a fault of the program makes.
func (p Place) Dir() string {
	for _, s := range shapes {
		if s.state != p.State {
			continue
		}
		// By hand: this runs several times for each item of a queue.
		words := strings.Split(s.dir, "/")
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
	panic(fmt.Sprintf("spool: no such state: %q", p.State))
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
func PlaceOf(rel string) (Place, bool) {
	got := strings.Split(path.Clean(rel), "/")
	for _, s := range shapes {
		want := strings.Split(s.dir, "/")
		if len(want) != len(got) {
			continue
		}
		p := Place{State: s.state}
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
			if policy.CheckArch(got[i]) != nil && (got[i] != SourceArch || p.State != Installed) {
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
	Why  string
}

// open are the states of a job on which work may still come.
var open = []State{NeedsBuild, BDUninstallable, DepWait, Built, BuildAttempted, Failed}

// Rules is the one table of legal moves. Whatever a daemon or the packmill
// command wants to do, Move looks here first.
var Rules = []Rule{
	{[]State{Unborn}, []State{Intake}, []Actor{Reviewd}, "an upload is claimed"},
	{[]State{Intake}, []State{Review, Accepted, Rejected}, []Actor{Reviewd}, "an upload is judged"},
	{[]State{Intake}, []State{Attic}, []Actor{Reviewd}, "the same upload is here already"},
	{[]State{Review}, []State{Accepted, Rejected}, []Actor{Person, Reviewd}, "a reviewer decides, or a rule does"},
	{[]State{Review, Accepted}, []State{Attic}, []Actor{Reviewd, MasterD, Person}, "a newer upload takes its place, or the uploader takes it back"},
	{[]State{Rejected, Review}, []State{Intake}, []Actor{Person}, "judged again (requeue)"},
	{[]State{Rejected}, []State{Attic}, []Actor{Reviewd, Person}, "its age is over"},
	{[]State{Accepted}, []State{Master, Uploaded, Rejected}, []Actor{MasterD}, "fan-out; nothing to build; nothing it could be for"},
	{[]State{Accepted}, []State{Rejected}, []Actor{Person}, "a reviewer thinks again"},

	{[]State{Unborn}, []State{NeedsBuild, BDUninstallable, DepWait, AutoNotForUs}, []Actor{MasterD, Person}, "a job is born"},
	{[]State{Unborn}, []State{Uploaded}, []Actor{MasterD, Person}, "a source goes ahead of its binaries, or comes from elsewhere"},
	{[]State{Master}, []State{Uploaded, Attic}, []Actor{MasterD, Person}, "every architecture has settled; or a newer version came"},
	{[]State{Master}, []State{Accepted}, []Actor{Person}, "fanned out again (requeue)"},
	{[]State{NeedsBuild}, []State{Building}, []Actor{Buildd, Person}, "take"},
	{[]State{BuildAttempted, Built, Failed}, []State{Building}, []Actor{Person}, "take, with override"},
	{[]State{NeedsBuild}, []State{DepWait, BDUninstallable}, []Actor{MasterD}, "installability"},
	{[]State{BDUninstallable, DepWait}, []State{NeedsBuild, BDUninstallable, DepWait}, []Actor{MasterD}, "installability"},
	{[]State{Building}, []State{Built, BuildAttempted, DepWait, BDUninstallable, NeedsBuild, Uploaded, Attic}, []Actor{Buildd}, "a build ended"},
	{[]State{Building}, []State{Built, BuildAttempted, NeedsBuild, Failed, DepWait, Uploaded, NotForUs}, []Actor{Person}, "a person built it, or took it from a dead builder"},
	{[]State{Built}, []State{Uploaded}, []Actor{Buildd, Person}, "the log is signed"},
	{[]State{Built, BuildAttempted}, []State{Built, BuildAttempted, Uploaded}, []Actor{Person}, "a person built it"},
	{[]State{Built, BuildAttempted}, []State{NeedsBuild}, []Actor{Person, MasterD}, "give back"},
	{[]State{BDUninstallable, DepWait, Failed, Uploaded}, []State{NeedsBuild}, []Actor{Person}, "give back, with override"},
	{[]State{Built, BuildAttempted, DepWait, NeedsBuild, BDUninstallable, Uploaded}, []State{Failed}, []Actor{Person}, "failed"},
	{[]State{NeedsBuild, BDUninstallable, Built, BuildAttempted, Failed, Uploaded}, []State{DepWait}, []Actor{Person}, "dep-wait"},
	{append([]State{AutoNotForUs, Uploaded}, open...), []State{NotForUs}, []Actor{Person}, "no-build"},
	{[]State{NotForUs}, []State{Failed, NeedsBuild}, []Actor{Person}, "no-build taken back"},
	{[]State{AutoNotForUs}, []State{NeedsBuild, Attic}, []Actor{MasterD}, "the Architecture field changed"},
	{open, []State{AutoNotForUs, Attic, Installed}, []Actor{MasterD}, "merge: not for this architecture; superseded; already in the archive"},
	{[]State{Building, NotForUs, AutoNotForUs}, []State{Attic}, []Actor{MasterD, Person}, "superseded, or removed"},
	{open, []State{Attic}, []Actor{Person}, "cancelled"},

	{[]State{Uploaded}, []State{Installed, Rejected, BuildAttempted, Attic}, []Actor{Archived}, "included; refused; superseded"},
	{[]State{Uploaded}, []State{Attic, Rejected}, []Actor{Person}, "taken back before publication"},
	{[]State{Installed}, []State{Attic}, []Actor{Archived, Person}, "removed from the archive"},
}

// Legal reports whether by may move an item from one state to another.
// Staying in a state (a new order, another name) is legal for all.
func Legal(from, to State, by Actor) bool {
	if from == to {
		return true
	}
	for _, r := range Rules {
		if has(r.From, from) && has(r.To, to) && has(r.By, by) {
			return true
		}
	}
	return false
}

func has[T comparable](list []T, x T) bool {
	for _, v := range list {
		if v == x {
			return true
		}
	}
	return false
}
