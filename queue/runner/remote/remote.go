// Package remote is a build on another machine: its host calls the master by ssh(1), and over the
// pipes of that session each end asks the other, as doc/protocol.md describes.
//
// A session is a yamux connection, and each of its streams one HTTP/1.1 request: the master's end
// (Peer, Build) hands out a job, follows its log, waits for the outcome and fetches the results;
// the builder's end (Builder) fetches the source and, if it likes, the archive. A session may end
// at any byte. What was fetched lies on disk, and the next session goes on behind it; the build
// itself knows nothing of sessions.
//
// The builder is not believed: what it sends is bounded, a file counts when its SHA-256 is right,
// and a result passes runner.Check at the master as a local one does.
package remote

import (
	"errors"
	"fmt"
	"time"

	"packmill/queue/runner"
)

// The versions of the protocol that this program speaks.
const (
	Oldest = 1
	Newest = 1
)

// MaxSkew is how far the builder's clock may be from the master's: signatures and binNMUs bear times.
const MaxSkew = 5 * time.Minute

// ErrAway says that the session ended; the build may go on, and the builder may come back.
var ErrAway = errors.New("the session with the builder ended")

// Refused is the master's word why it has nothing to do with a builder.
type Refused struct{ Text string }

func (r *Refused) Error() string { return "the master refuses this builder: " + r.Text }

// Drained is the refusal of a builder that a person has drained, and that has nothing more to bring.
const Drained = "drained"

// Hello is the first thing that a builder says.
type Hello struct {
	Oldest, Newest int       // versions of the protocol that it speaks
	Version        string    // of the program
	Time           time.Time // its clock
	Host           string
	Kernel, Sbuild string   `json:",omitempty"`
	Architectures  []string // that its own settings have
	Jobs           int      // builds at a time
	Free           int64    // bytes, where it builds
	Tokens         []string // of the jobs that it has: they are built, or were
}

// Welcome is the master's answer.
type Welcome struct {
	Protocol int
	Builder  string            // the name that the master has for it
	Drop     map[string]string // by token, jobs that are not the builder's any more, and why
}

// speak is the version that both ends speak, or a sentence why there is none.
func speak(h *Hello) (int, string) {
	if h.Newest < Oldest || h.Oldest > Newest {
		return 0, fmt.Sprintf("it speaks versions %d to %d of the protocol and the master %d to %d: "+
			"install the same packmill on both (it has %s)", h.Oldest, h.Newest, Oldest, Newest, h.Version)
	}
	return min(h.Newest, Newest), ""
}

// Skewed says that the builder's clock is wrong, or "".
func (h *Hello) Skewed(now time.Time) string {
	if d := h.Time.Sub(now).Round(time.Second); d.Abs() > MaxSkew {
		return fmt.Sprintf("its clock is %s from the master's, and at most %s is allowed: set both by NTP", d, MaxSkew)
	}
	return ""
}

// Sum is a file that the other end has.
type Sum struct {
	Name   string
	Size   int64
	SHA256 string
}

// Order is a job as the builder hears of it. What a runner.Job has of the master's machine (paths,
// niceness) is the builder's own affair.
type Order struct {
	Source, Version, Suite, Arch       string
	Indep                              bool   `json:",omitempty"`
	On, CrossFrom                      string `json:",omitempty"`
	Dsc                                string // one of Files
	Files                              []Sum
	Packages                           []string
	BinNMU                             *runner.BinNMU `json:",omitempty"`
	Base, Profiles, Options, Env       []string       `json:",omitempty"`
	Repos                              []runner.Repo  `json:",omitempty"` // without URI: the master's archive
	ExtraDepends, ExtraConflicts, Path string         `json:",omitempty"`
	Network                            bool           `json:",omitempty"`
	Limits                             runner.Limits
}

// Outcome is what the builder says that a build came to.
type Outcome struct {
	Outcome        string // as runner.Outcome prints it; "": the builder's own trouble, which is Reason
	Reason         string
	Suspect        string   `json:",omitempty"`
	DepWait        []string `json:",omitempty"`
	Stage, Status  string   `json:",omitempty"`
	Limit          string   `json:",omitempty"`
	Exit           int      `json:",omitempty"`
	CPU            time.Duration
	Memory, Disk   int64
	CacheHits      int64  `json:",omitempty"`
	CacheMisses    int64  `json:",omitempty"`
	Files          []Sum  `json:",omitempty"` // of a good build
	Signed         string `json:",omitempty"` // its .changes, signed with a key that stays at the builder
	Setup, Stopped bool   `json:",omitempty"`
}

// What one end takes of the other.
const (
	maxHello  = 256 << 10
	MaxOrder  = 4 << 20 // of an outcome too
	maxFiles  = 2000
	MaxResult = 64 << 30 // bytes, where Disk limits nothing
	maxText   = 4 << 10  // of a sentence
	maxLog    = 1 << 30  // where Max-Log limits nothing
)
