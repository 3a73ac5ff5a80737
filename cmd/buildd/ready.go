package main

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"packmill/cmd/internal/control"
	"packmill/internal/openpgp"
	"packmill/queue/builders"
)

// readiness is what the machine lacks to build for its architectures: an
// emulator, a user, a program, the key that signs. A job is not taken then, and costs no attempt.
type readiness struct {
	mu    sync.Mutex
	asked map[string]asked // by architecture, and who signs
}

type asked struct {
	at  time.Time
	err error
}

// askAgain is how soon the machine is looked at again.
const askAgain = time.Minute

// lacks says what the machine lacks to build for a suite's architecture, or
// nil. What is new of it goes into the log and the roster.
func (b *builder) lacks(x *control.Builder, s *control.Suite, arch string) error {
	b.ready.mu.Lock()
	defer b.ready.mu.Unlock()
	about := arch + " " + s.LogReview
	old, found := b.ready.asked[about]
	if found && time.Since(old.at) < askAgain {
		return old.err
	}
	err := b.readyFor(x, x.On(s, arch))
	if err == nil {
		err = b.signs(x, s)
	}
	if b.ready.asked == nil {
		b.ready.asked = map[string]asked{}
	}
	b.ready.asked[about] = asked{time.Now(), err}
	if err != nil && (old.err == nil || old.err.Error() != err.Error()) {
		b.Log.Error("this machine cannot build", "arch", arch, "err", err)
	} else if err == nil && old.err != nil {
		b.Log.Info("this machine can build", "arch", arch)
	}
	b.say(func(e *builders.Entry) {
		e.Lacks = maps.Clone(e.Lacks)
		delete(e.Lacks, arch)
		if err != nil {
			if e.Lacks == nil {
				e.Lacks = map[string]string{}
			}
			e.Lacks[arch] = err.Error()
		}
	})
	return err
}

// signs says why what is built for the suite could not be signed here, or nil.
func (b *builder) signs(x *control.Builder, s *control.Suite) error {
	if b.far != nil || s.LogReview != "auto" {
		return nil
	}
	if x.Key == "" {
		return fmt.Errorf("the builder %s has no Key in control/builders, and Log-Review is auto", x.Name)
	}
	_, err := openpgp.OpenSigner(b.Settings.Get().Path(x.Key))
	return err
}

// lookAround asks for all architectures at once, before anything waits.
func (b *builder) lookAround() {
	x, err := b.stanza()
	if err != nil {
		return // said by others
	}
	all := b.Settings.Get()
	for i := range all.Suites {
		s := &all.Suites[i]
		for _, arch := range slices.Concat(s.Architectures, []string{"all"}) {
			if b.serves(x, arch) {
				b.lacks(x, s, arch)
			}
		}
	}
}
