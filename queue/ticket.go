// Package queue turns an accepted source into a job for each architecture,
// follows the jobs, and says when the source can go on: Debian's wanna-build,
// with directories for its database.
package queue

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"packmill/internal/deb822"
	"packmill/internal/policy"
	"packmill/spool"
)

// Ticket is the facts of an item, written once by reviewd and handed on from
// source to job. Nobody decides by it where an item is.
type Ticket struct {
	Source       string
	Version      string // the source's, with epoch
	Suite        string // Distribution, after aliases were resolved
	Component    string
	Section      string // of the source, as its .dsc or .changes has it
	Priority     string
	Urgency      string
	Architecture []string // the .dsc's list
	Binary       []string
	Dsc          string // file names in the item
	Changes      string
	Uploader     string // the Name of control/uploaders
	Fingerprint  string // of the key that signed the .changes
	Account      string // of the drop directory
	Drop         string // that directory, below spool/incoming
	Commands     string // of dcut: the .commands file, and then there is no Changes
	Email        string // the uploader's registered address
	Maintainer   string
	ChangedBy    string
	Received     time.Time
	Since        time.Time // of an upload that took an older one's place in review: since when that one waited
	Has          []string  // architectures whose binaries came with the source
	Remarks      string    // findings that did not refuse, a line each

	// Of a job.
	BuildArch string    // a Debian architecture, or all
	Begun     time.Time // when the last attempt began
	Tries     int       // attempts that ended without a verdict on the package
	NotBefore time.Time // of a job that was given back
	Builder   string    // who has it, or had it last
	BuiltBy   string    // that builder's stanza of control/builders
	// Suspect is the stanza of the builder that leaves it to another, if there is one: it failed there in a way that
	// may be the machine's fault, or a person gave it back.
	Suspect        string
	TakenBy        string // the person who builds it by hand: no builder gives it back
	CancelledBy    string // the person who cancelled it: while it lies in the attic, no other is made
	BaseClass      string // two digits, before a person changed the order
	BuildPriority  int    // of bp
	Index          string // digest of the index on which the last attempt was made
	DepWait        string // relations that must be satisfied first
	BinNMU         int    // 0: none
	BinNMUText     string // its changelog entry
	BinNMUTime     time.Time
	BinNMUBy       string // the builder that made it last, as its changelog has it
	ExtraDepends   string
	ExtraConflicts string
	BuildProfiles  []string // of this job, in the suite's stead; None: none
	BuildOptions   []string // for DEB_BUILD_OPTIONS, in the same way
	IndepArch      string   // the .dsc's Build-Indep-Architecture: on which architecture all is built
	Result         string   // the .changes of the binaries, in result/
	Previous       string   // why the previous version failed here
}

// ofSource is what the ticket says of the source. Of a job it may say nothing yet: who
// may write in an upload that waits has no say in how it is built.
func (t *Ticket) ofSource() Ticket {
	return Ticket{
		Source: t.Source, Version: t.Version, Suite: t.Suite, Component: t.Component, Section: t.Section,
		Priority: t.Priority, Urgency: t.Urgency,
		Architecture: t.Architecture, Binary: t.Binary, Dsc: t.Dsc, Changes: t.Changes,
		Uploader: t.Uploader, Fingerprint: t.Fingerprint, Account: t.Account, Drop: t.Drop, Commands: t.Commands,
		Email:      t.Email,
		Maintainer: t.Maintainer, ChangedBy: t.ChangedBy, Received: t.Received, Since: t.Since, Has: t.Has,
		Remarks: t.Remarks, IndepArch: t.IndepArch,
	}
}

// Tried is the Index of a job that a builder could not begin: its
// build-dependencies could not be installed, on an index that it did not name.
const Tried = "tried"

// fields lists the ticket's fields in the order of the file. One list serves
// reading and writing.
func (t *Ticket) fields() []field {
	return []field{
		{"Source", text{&t.Source}}, {"Version", text{&t.Version}}, {"Distribution", text{&t.Suite}},
		{"Component", text{&t.Component}}, {"Section", text{&t.Section}}, {"Priority", text{&t.Priority}},
		{"Urgency", text{&t.Urgency}},
		{"Architecture", words{&t.Architecture}}, {"Binary", words{&t.Binary}},
		{"Dsc", text{&t.Dsc}}, {"Changes", text{&t.Changes}},
		{"Uploader", text{&t.Uploader}}, {"Fingerprint", text{&t.Fingerprint}}, {"Account", text{&t.Account}},
		{"Drop", text{&t.Drop}}, {"Commands", text{&t.Commands}}, {"Email", text{&t.Email}},
		{"Maintainer", text{&t.Maintainer}}, {"Changed-By", text{&t.ChangedBy}},
		{"Received", moment{&t.Received}}, {"Since", moment{&t.Since}}, {"Has-Binaries", words{&t.Has}},
		{"Remarks", text{&t.Remarks}},
		{"Build-Architecture", text{&t.BuildArch}}, {"Begun", moment{&t.Begun}}, {"Tries", number{&t.Tries}},
		{"Builder", text{&t.Builder}}, {"Built-By", text{&t.BuiltBy}}, {"Suspect", text{&t.Suspect}},
		{"Taken-By", text{&t.TakenBy}}, {"Cancelled-By", text{&t.CancelledBy}},
		{"Base-Class", text{&t.BaseClass}}, {"Build-Priority", number{&t.BuildPriority}}, {"Index", text{&t.Index}},
		{"Not-Before", moment{&t.NotBefore}},
		{"Dep-Wait", text{&t.DepWait}},
		{"Binary-NMU", number{&t.BinNMU}}, {"Binary-NMU-Changelog", text{&t.BinNMUText}},
		{"Binary-NMU-Time", moment{&t.BinNMUTime}}, {"Binary-NMU-By", text{&t.BinNMUBy}},
		{"Extra-Depends", text{&t.ExtraDepends}}, {"Extra-Conflicts", text{&t.ExtraConflicts}},
		{"Build-Profiles", words{&t.BuildProfiles}}, {"Build-Options", words{&t.BuildOptions}},
		{"Build-Indep-Architecture", text{&t.IndepArch}},
		{"Result", text{&t.Result}}, {"Previous-Failure", text{&t.Previous}},
	}
}

type field struct {
	name  string
	value value
}

// value is one kind of field.
type value interface {
	get() string
	set(string) error
}

type text struct{ p *string }

func (v text) get() string        { return *v.p }
func (v text) set(s string) error { *v.p = s; return nil }

type words struct{ p *[]string }

func (v words) get() string        { return strings.Join(*v.p, " ") }
func (v words) set(s string) error { *v.p = deb822.Words(s); return nil }

type number struct{ p *int }

func (v number) get() string {
	if *v.p == 0 {
		return ""
	}
	return strconv.Itoa(*v.p)
}

func (v number) set(s string) (err error) {
	*v.p, err = strconv.Atoi(s)
	return err
}

type moment struct{ p *time.Time }

func (v moment) get() string {
	if v.p.IsZero() {
		return ""
	}
	return v.p.UTC().Format(time.RFC3339Nano)
}

func (v moment) set(s string) (err error) {
	*v.p, err = time.Parse(time.RFC3339Nano, s)
	return err
}

// Stanza is the ticket as the item's file has it; empty fields are left out.
func (t *Ticket) Stanza() *deb822.Stanza {
	st := &deb822.Stanza{}
	for _, f := range t.fields() {
		if v := f.value.get(); v != "" {
			st.Set(f.name, v)
		}
	}
	return st
}

// ReadTicket reads the facts from the item's file. Names and versions are
// checked again: a person may have edited them.
func ReadTicket(st *deb822.Stanza) (*Ticket, error) {
	t := &Ticket{}
	for _, f := range t.fields() {
		if v := st.Get(f.name); v != "" {
			if err := f.value.set(v); err != nil {
				return nil, st.Errorf(f.name, "%v", err)
			}
		}
	}
	for name, err := range map[string]error{
		"Source": policy.CheckSource(t.Source), "Version": policy.CheckVersion(t.Version),
		"Distribution": policy.CheckSuite(t.Suite),
	} {
		if err != nil {
			return nil, st.Errorf(name, "%v", err)
		}
	}
	for _, name := range []string{t.Dsc, t.Changes, t.Result} {
		if name == "" {
			continue
		}
		if err := policy.CheckFile(name); err != nil {
			return nil, fmt.Errorf("ticket: %w", err)
		}
	}
	return t, nil
}

// Mark names one build of a job, in the state in which it lies: 20 hexadecimal
// digits that change with the version, the architecture, the state, the time
// at which the attempt began and the file that it made. What a person says of
// a build bears it, so that it is not taken for a word about another.
func (t *Ticket) Mark(f spool.Found) string {
	sum := sha256.Sum256([]byte(strings.Join([]string{
		f.Name.ID(), t.Received.UTC().Format(time.RFC3339Nano), t.Plus(), f.Place.Suite, f.Arch(), f.Place.State.String(),
		t.Begun.UTC().Format(time.RFC3339Nano), t.Result}, "\n")))
	return hex.EncodeToString(sum[:10])
}

// version names what the ticket is of.
func (t *Ticket) version() spool.Name { return spool.Name{Source: t.Source, Version: t.Version} }

// Plus is the version of a job's binaries: the source's, with +bN of a binNMU.
func (t *Ticket) Plus() string {
	if t.BinNMU > 0 {
		return fmt.Sprintf("%s+b%d", t.Version, t.BinNMU)
	}
	return t.Version
}

// Claimed is when the job at dir came to building last, in microseconds, and how
// long it had waited in needs-build by then. The zero time says never.
func Claimed(tree *spool.Tree, dir string) (at time.Time, waited time.Duration) {
	events, _ := spool.ReadHistory(dir)
	var since time.Time
	for _, e := range events {
		if e.From == e.To {
			continue
		}
		switch p, _ := tree.PlaceOf(e.To); p.State {
		case spool.NeedsBuild:
			since = e.Time
		case spool.Building:
			at, waited = e.Time.UTC().Truncate(time.Microsecond), 0 // as the names in the store of logs have it
			if !since.IsZero() {
				waited = e.Time.Sub(since)
			}
		}
	}
	return at, waited
}
