package queue

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"packmill/internal/durable"
	"packmill/spool"
)

// change is a request that is allowed, on its way into the item. What is written into
// the item is written before the move; a crash in between leaves a request that can be
// made again.
type change struct {
	*Request
	it      *spool.Item
	t       *Ticket
	s       *Spec
	reply   *Reply
	verdict spool.Verdict
	stays   bool // not moved: what stays keeps its REASON
	over    bool // refused, or done in another way than by a move
}

// do makes the effects of the operation, one after another, and the move.
func (r *Request) do(it *spool.Item, t *Ticket, s *Spec, reply *Reply) error {
	c := &change{Request: r, it: it, t: t, s: s, reply: reply, stays: s.To == Same}
	c.verdict = spool.Verdict{To: reply.To, Reason: c.reason()}
	if c.stays {
		c.verdict.Text = spool.ReadReason(it.Path())
	}
	before := string(t.Stanza().Append(nil))
	if r.ExtraDepends != nil && r.Op != Info {
		t.ExtraDepends, t.Index = strings.TrimSpace(*r.ExtraDepends), ""
	}
	for _, e := range s.Do {
		if err := c.make(e); err != nil || c.over {
			return err
		}
	}
	c.sayWhy()
	if string(t.Stanza().Append(nil)) != before {
		if err := it.SetTicket(t.Stanza()); err != nil {
			return err
		}
	}
	return c.move()
}

// reason is the operation in a line of history.
func (c *change) reason() string {
	reason := string(c.Op)
	if c.reply.Role == Override {
		reason += " (override)"
	}
	if m := strings.TrimSpace(c.Message); m != "" {
		reason += ": " + m
	}
	return reason
}

// make makes one effect.
func (c *change) make(e Effect) error {
	t := c.t
	switch e {
	case SetOwner:
		t.Builder, t.TakenBy, t.BuiltBy, t.Begun = c.Who, c.Who, "", c.Now
	case ClearOwner:
		t.Builder, t.TakenBy = "", ""
	case ClearTries:
		t.Tries, t.NotBefore, t.Index, t.Suspect = 0, time.Time{}, "", ""
		if c.Away && c.s.To == spool.NeedsBuild {
			t.Suspect, t.NotBefore = t.BuiltBy, c.Now
		}
	case ClearWait:
		t.DepWait = ""
	case KeepText:
		if c.it.Place.State == spool.Failed {
			return keepFailure(c.it, t, "", "", c.Now)
		}
	case AppendText:
		return c.addFailure()
	case MergeWait:
		return c.wait()
	case SayNotForUs:
		c.verdict.Text = fmt.Sprintf("Not for this architecture, says %s: %s\nTo take that back: packmill wb nfu %s\n",
			c.Who, orNothing(c.Message), c.named())
	case SayCancelled:
		t.CancelledBy = c.Who
		c.verdict.Text = CancelText(c.it.Place, c.it.Name, c.Who, c.Message)
	case TakeResult:
		return c.takeResult()
	case NeedResult:
		c.needResult()
	case MakeBinNMU:
		c.over = true
		return c.makeBinNMU(c.it, t, c.reply)
	case CancelBinNMU:
		return c.cancelBinNMU()
	case Rename:
		c.rename()
	case SetExtra:
		c.setExtra(t)
		t.Index = ""
		if c.s.To != Same {
			c.verdict.Text = "master-buildd looks whether it can be built with that.\n"
		}
	}
	return nil
}

// named is the job in wb's grammar.
func (c *change) named() string {
	return c.t.Source + "_" + c.t.Version + " . " + c.it.Arch() + " . " + c.it.Place.Suite
}

// refuse ends it before anything was moved.
func (c *change) refuse(why string) {
	c.reply.Refusal, c.reply.To, c.over = why, c.it.Place, true
}

// addFailure adds what the person says to the job's failures.
func (c *change) addFailure() error {
	err := keepFailure(c.it, c.t, c.Who, c.text(), c.Now)
	if err == nil {
		c.verdict.Text, err = failedText(c.it.Path())
	}
	return err
}

// wait adds what the job waits for.
func (c *change) wait() error {
	merged, err := MergeWaits(c.t.DepWait, c.Message)
	if err != nil {
		return err
	}
	c.t.DepWait = merged
	c.verdict.Text = fmt.Sprintf("Waits for: %s\nIt goes on by itself when the suite has them.\n", merged)
	return nil
}

// takeResult takes a result that was built elsewhere.
func (c *change) takeResult() error {
	if c.Result == nil {
		return nil
	}
	name, err := c.Result(c.it.Path("result"), c.t)
	if refusal := Refusal(""); errors.As(err, &refusal) {
		c.refuse(string(refusal))
		return nil
	}
	if err != nil {
		return err
	}
	c.t.Result = name
	c.it.Dirty()
	return nil
}

// needResult refuses a job without a result that is signed as it must be.
func (c *change) needResult() {
	if c.t.Result == "" {
		c.refuse("there is no result in the job; name its .changes file with --changes")
		return
	}
	if c.Signed == nil {
		return
	}
	if err := c.Signed(c.it.Path("result", c.t.Result), c.t); err != nil {
		c.refuse(err.Error())
	}
}

// cancelBinNMU takes a binNMU back. Of another in its place the old one goes when the
// new one is there.
func (c *change) cancelBinNMU() error {
	if c.Number != 0 {
		c.over = true
		return c.replaceBinNMU(c.it, c.t, c.reply)
	}
	c.verdict = spool.Verdict{To: spool.In(spool.Attic), Reason: "the binNMU is cancelled"}
	c.reply.To, c.stays = c.verdict.To, false
	return nil
}

// rename gives the job the class of its build priority.
func (c *change) rename() {
	v, t := &c.verdict, c.t
	v.Class, v.Renew = classWith(t, c.it.Name.Class, c.Number), true
	if t.BaseClass == "" {
		t.BaseClass = fmt.Sprintf("%02d", c.it.Name.Class)
	}
	t.BuildPriority = c.Number
	v.Reason = fmt.Sprintf("build priority %d", c.Number)
	if v.Class == c.it.Name.Class {
		c.reply.Warning = fmt.Sprintf("its place stays as it is: it is in class %02d already", v.Class)
	}
}

// sayWhy writes a REASON where people look for one and no effect has.
func (c *change) sayWhy() {
	if c.verdict.Text != "" {
		return
	}
	switch c.s.To {
	case spool.BuildAttempted:
		c.verdict.Text = fmt.Sprintf("Tried and failed, says %s: %s\nTo try again: packmill wb gb %s\n",
			c.Who, orNothing(c.Message), c.named())
	case spool.Built:
		c.verdict.Text = fmt.Sprintf("Built by %s. A person reads the log and signs the result, "+
			"or says what else should become of it.\n", c.Who)
	}
}

// move moves the job, or writes down what was said of one that stays.
func (c *change) move() error {
	v := c.verdict
	if c.stays && !v.Renew && v.To == c.it.Place {
		return c.note()
	}
	if v.Renew && v.Class == c.it.Name.Class {
		return c.it.Note(c.Who, v.Reason)
	}
	if err := c.it.Move(spool.Person, c.Who, v); err != nil {
		return err
	}
	c.reply.To, c.reply.Name = c.it.Place, c.it.Name
	return nil
}

// note writes what a person said onto the disk before the command ends.
func (c *change) note() error {
	if c.Op == Info {
		return nil
	}
	if text := c.verdict.Text; text != "" && text != spool.ReadReason(c.it.Path()) {
		if err := c.it.WriteFile(spool.ReasonFile, []byte(strings.TrimRight(text, "\n")+"\n")); err != nil {
			return err
		}
	}
	if err := c.it.Note(c.Who, c.verdict.Reason); err != nil {
		return err
	}
	return durable.SyncTree(c.it.Path())
}
