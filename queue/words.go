package queue

import (
	"slices"
	"strings"
)

// Door is where people say what is to become of a job. A word may be said at
// several.
type Door uint8

// The doors.
const (
	AtWb    Door = 1 << iota // packmill wb, in Debian's words
	AtBuild                  // packmill build: of builds that wait for a person's word
	ByMail                   // a signed reply to the mail of a build's log
	Alone                    // a command of its own: packmill WORD
)

// Word is a word for an operation. They are those of Debian's wb and buildd.
type Word struct {
	Name  string
	Op    Op
	Doors Door
	Arg   string // what is said with it, for people: "TEXT"; "" if nothing need be
	What  string // what it does, for people

	Away     bool // of gb: the builder that had the job leaves it to another (Request.Away)
	Override bool // the person means it: nothing has to wait for a decision
}

// sayings are all words, in the order in which people are shown them.
var sayings = []Word{
	{Name: "sign", Op: Upload, Doors: AtBuild | ByMail, What: "the result is sound: to the archive"},
	{Name: "gb", Op: GiveBack, Doors: AtWb, What: "give back: build it again"},
	{Name: "dw", Op: DepWait, Doors: AtWb, Arg: "RELATIONS", What: `wait for packages, such as "libfoo-dev (>= 2)"`},
	{Name: "fail", Op: Fail, Doors: AtWb | AtBuild | ByMail, Arg: "TEXT",
		What: "a fault of the source: no more builds of this version; said again, the text is added"},
	{Name: "retry", Op: GiveBack, Doors: AtBuild | ByMail, What: "build it again, on whichever builder is free first"},
	{Name: "dep-wait", Op: DepWait, Doors: AtBuild | ByMail, Arg: "RELATIONS",
		What: "wait for packages, such as libfoo-dev (>= 2)"},
	{Name: "giveback", Op: GiveBack, Doors: AtBuild | ByMail, Away: true,
		What: "build it again, on another builder than the one that had it, if there is one"},
	{Name: "nfu", Op: NoBuild, Doors: AtWb, What: "never for this architecture; again: takes that back"},
	{Name: "nmu", Op: BinNMU, Doors: AtWb, Arg: "TEXT",
		What: "[N] rebuild what is installed as +bN, one changelog and time for all architectures; nmu 0 cancels"},
	{Name: "manual", Op: Manual, Doors: AtWb | ByMail, What: "a person sees to it by hand: a note, nothing else"},
	{Name: "not-for-us", Op: NoBuild, Doors: AtBuild | ByMail, What: "never for this architecture"},
	{Name: "newvers", Op: Cancel, Doors: ByMail, What: "a newer version is to be built instead: this one goes to the attic"},
	{Name: "purge", Op: Cancel, Doors: ByMail, What: "what was built is thrown away, and not built again: to the attic"},
	{Name: "upload-rem", Op: GiveBack, Doors: ByMail, Override: true,
		What: "what was signed and is not published yet is taken back, and built again"},
	{Name: "cancel", Op: Cancel, Doors: AtWb | Alone,
		What: "not here, for this version: to the attic; a running build is ended"},
	{Name: "requeue", Op: GiveBack, Doors: Alone, Override: true, What: "build it again, whatever it waits for"},
	{Name: "bp", Op: Priority, Doors: AtWb, What: "N: build priority; 10 are a class; the job is renamed in place"},
	{Name: "info", Op: Info, Doors: AtWb, What: "show what is known"},
	{Name: "take", Op: Take, Doors: AtWb, What: "a person begins to build it by hand"},
	{Name: "built", Op: Built, Doors: AtWb, What: "a person has built it; --changes names the result"},
	{Name: "attempted", Op: Attempted, Doors: AtWb, What: "a person has tried, and failed"},
	{Name: "uploaded", Op: Upload, Doors: AtWb,
		What: "a person has signed the result, or names it with --changes: to the archive"},
	{Name: "extra-depends", Op: ExtraDepends, Doors: AtWb, Arg: "LIST",
		What: "further relations of the build; an empty list takes them away"},
	{Name: "profiles", Op: Profiles, Doors: AtWb, Arg: "WORDS",
		What: "build profiles of this job, such as stage1 (none: none; an empty text: the suite's again)"},
	{Name: "options", Op: Options, Doors: AtWb, Arg: "WORDS",
		What: "DEB_BUILD_OPTIONS of this job, such as nocheck parallel=2"},
	{Name: "extra-conflicts", Op: ExtraConflicts, Doors: AtWb, Arg: "LIST", What: "the same of what it conflicts with"},
}

// WordsAt are the words that can be said at a door.
func WordsAt(d Door) []Word {
	return slices.DeleteFunc(slices.Clone(sayings), func(w Word) bool { return w.Doors&d == 0 })
}

// WordAt is a word that can be said at a door: nil if there is none of that
// name.
func WordAt(d Door, name string) *Word {
	for i := range sayings {
		if sayings[i].Name == name && sayings[i].Doors&d != 0 {
			return &sayings[i]
		}
	}
	return nil
}

// Names are the names of words, with spaces between.
func Names(list []Word) string {
	var out []string
	for _, w := range list {
		out = append(out, w.Name)
	}
	return strings.Join(out, " ")
}

// Ask is the request that the word makes, with what was said.
func (w *Word) Ask(text string) *Request {
	return &Request{Op: w.Op, Message: text, Away: w.Away, Override: w.Override}
}
