package spool

import (
	"context"
	"sync/atomic"
	"testing"
	"time"
)

// What stayed for an hour is looked at again when the settings are others.
func TestRulesLookAgain(t *testing.T) {
	tree := newTree(t)
	born(t, tree, In(Intake), Reviewd, NewName(50, t0, "hello", "1"))
	l := testLoop(tree)
	nudge := make(chan struct{})
	var rules, looks atomic.Int64
	l.Tick, l.Nudge, l.Rules = time.Hour, nudge, func() any { return rules.Load() }
	l.Handle = func(context.Context, *Item) (Verdict, error) {
		looks.Add(1)
		if rules.Load() == 0 {
			return Stay(time.Hour, "not by these rules"), nil
		}
		return Verdict{To: In(Rejected), Reason: "r"}, nil
	}
	serve(t, l)
	until(t, "it was looked at", func() bool { return looks.Load() == 1 })
	rules.Store(1)
	nudge <- struct{}{}
	until(t, "it moves", func() bool { return count(tree, In(Rejected)) == 1 })
}
