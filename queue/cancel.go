package queue

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"packmill/internal/durable"
	"packmill/internal/regular"
	"packmill/spool"
)

// cancelFile in a job that is being built asks its builder to end the build:
// who asks, why, and handWord if the person wants the job, with tabs between. The
// builder holds the job's lock, so nobody else can move it; its answer is the move
// to the attic, or that it lets go of the job, which is the person's from then on.
// Whoever may write into the item may ask, also where the builder is another user.
const (
	cancelFile = "cancel"
	handWord   = "hand over"
)

// End is what a person asks of the builder of a running build.
type End struct {
	Who, Text string
	Hand      bool // the job is the person's then; otherwise it is cancelled
}

// RequestEnd asks the builder of the job that lies at dir to end the build.
// fs.ErrNotExist says that the job has left the place.
func RequestEnd(dir string, e End) error {
	line := spool.OneLine(e.Who) + "\t" + spool.OneLine(e.Text)
	if e.Hand {
		line += "\t" + handWord
	}
	return durable.WriteFile(filepath.Join(dir, cancelFile), []byte(line+"\n"), 0o644)
}

// EndRequest reads who asked that the build of the job at dir be ended, and
// why. What was asked before the build began is not meant for it.
func EndRequest(dir string, begun time.Time) (e End, asked bool) {
	f, err := regular.Open(filepath.Join(dir, cancelFile))
	if err != nil {
		return End{}, false
	}
	defer f.Close()
	// The clock of files runs some milliseconds behind.
	st, err := f.Stat()
	if err != nil || st.ModTime().Before(begun.Add(-50*time.Millisecond)) {
		return End{}, false
	}
	buf := make([]byte, 4096)
	n, _ := f.Read(buf)
	who, rest, _ := strings.Cut(strings.TrimSpace(strings.ToValidUTF8(string(buf[:n]), "?")), "\t")
	text, hand, _ := strings.Cut(rest, "\t")
	// The file's owner is who it was, whatever it says; root speaks for others, and as
	// the queues' owner.
	if sys, ok := st.Sys().(*syscall.Stat_t); ok && sys.Uid != 0 && sys.Uid != queuesOwner(dir) {
		who = fmt.Sprintf("uid %d", sys.Uid)
		if u, err := user.LookupId(strconv.FormatUint(uint64(sys.Uid), 10)); err == nil {
			who = u.Username
		}
	}
	return End{spool.OneLine(who), spool.OneLine(text), hand == handWord}, true
}

// queuesOwner is who owns queue, in which the job at dir lies: queue/SUITE/ARCH/STATE/ITEM.
func queuesOwner(dir string) uint32 {
	st, err := os.Lstat(filepath.Join(dir, "../../../.."))
	if err != nil {
		return 0
	}
	return st.Sys().(*syscall.Stat_t).Uid
}

// CancelText is the REASON of a job that somebody cancelled where it lay.
func CancelText(p spool.Place, n spool.Name, who, text string) string {
	back := spool.Found{Place: spool.In(spool.NeedsBuild, p.Suite, p.Arch), Name: n}
	return fmt.Sprintf("Cancelled by %s: %s\nIts source goes on without %s, "+
		"and no other job is made for this version while this one lies in the attic.\n"+
		"To have it built after all: mv it to %s\n",
		who, orNothing(text), p.Arch, back.Dir())
}
