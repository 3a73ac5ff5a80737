package queue

import (
	"time"

	"packmill/spool"
)

// Requeue puts a claimed item back to where it is tried again, as a person wants
// it. What the operations do not allow is a Refusal.
func Requeue(it *spool.Item, who, why string) error {
	if it.Place.State.Is(spool.Jobs) {
		// Who had it, and how often it was tried, is over.
		r := WordAt(Alone, "requeue").Ask(why)
		r.Who, r.Now = who, time.Now()
		reply, err := AskOf(it, r)
		if err == nil && reply.Refusal != "" {
			err = Refusal(reply.Refusal)
		}
		return err
	}
	to := it.Place
	to.State = it.Place.State.Requeue
	replan := it.Place.State == spool.Master
	err := it.Move(spool.Person, who, spool.Verdict{To: to, Reason: why})
	if err == nil && replan {
		// The lock is still held, so no daemon takes the source before its plan is
		// gone. Without one it would be stuck in the master queue.
		err = Replan(it)
	}
	return err
}
