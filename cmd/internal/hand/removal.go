package hand

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"packmill/archive"
	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/fsck"
	"packmill/cmd/internal/mail"
	"packmill/cmd/internal/terminal"
	"packmill/spool"
)

// Removal is packages that are to leave a suite, as a person is shown them.
type Removal struct {
	Plan   *archive.Plan
	Broken []archive.Broken // what the rest of the suite could not install or build any more

	hand  *Hand
	suite archive.Suite
	asked []string
}

// Removal looks what goes, and with check what that breaks.
func (h *Hand) Removal(suite string, packages []string, check bool) (*Removal, error) {
	s, err := h.Suite(suite)
	if err != nil {
		return nil, err
	}
	r := &Removal{hand: h, suite: s, asked: packages}
	if r.Plan, err = h.Remove(h.Ctx, s, packages, archive.ChangeOptions{Dry: true}, time.Now()); err != nil {
		return nil, Missing(err)
	}
	if check && len(r.Plan.Refused) == 0 {
		r.Broken, err = h.Breaks(s.Name, r.Plan.Removed)
	}
	return r, err
}

// Question is what a person is asked before. "": one package goes, and breaks nothing.
func (r *Removal) Question() string {
	names := map[string]bool{}
	for _, e := range r.Plan.Removed {
		names[e.Package] = true
	}
	question := fmt.Sprintf("Remove %s from %s", terminal.Counted(len(names), "package"), r.suite.Name)
	switch {
	case len(r.Broken) > 0:
		return question + ", and break " + Staying(r.Broken) + "?"
	case len(names) > 1:
		return question + "?"
	}
	return ""
}

// Refusal is the answer where nobody can be asked.
func (r *Removal) Refusal() error {
	if len(r.Broken) == 0 {
		return nil
	}
	return daemon.Refuse("%s would not be installable, or could not be built, any more; remove them too, or use --force",
		terminal.Counted(len(r.Broken), "package"))
}

// Do removes what was shown, and not what has come since. Where a tree is around the archive, the
// histories of builds tell of it before, and reviewd tells people when it is done.
func (r *Removal) Do() (*archive.Plan, error) {
	h := r.hand
	if _, err := os.Lstat(filepath.Join(h.Tree, "queue")); err == nil {
		t, err := spool.Open(h.Tree)
		if err == nil {
			err = fsck.TakeOut(t, r.suite.Name, r.Plan.Removed, h.Who)
		}
		if err != nil {
			h.Say(fmt.Errorf("the history of the builds does not tell of it: %w", err))
		}
		if t != nil {
			done, err := mail.Announce(h.Ctx, t, r.suite.Name, r.Plan.Removed, h.Who)
			if err != nil {
				h.Say(fmt.Errorf("not everybody will be told: %w", err))
			}
			defer done()
		}
	}
	return h.Remove(h.Ctx, r.suite, r.Plan.Shown(r.asked), archive.ChangeOptions{}, time.Now())
}

// Leaving is what breaks if packages move out of a suite, as a question; "": nothing.
func Leaving(suite string, packages []string, broken []archive.Broken) string {
	if len(broken) == 0 {
		return ""
	}
	return fmt.Sprintf("Move %s out of %s, and break %s?", strings.Join(packages, ", "), suite, Staying(broken))
}
