package main

import (
	"maps"
	"slices"
	"sync"
	"time"

	"packmill/cmd/internal/control"
	"packmill/queue/builders"
)

// readiness is what the machine lacks to build for its architectures: an
// emulator, a user, a program. A job is not taken then, and costs no attempt.
type readiness struct {
	mu    sync.Mutex
	asked map[string]asked // by architecture
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
	old, found := b.ready.asked[arch]
	if found && time.Since(old.at) < askAgain {
		return old.err
	}
	r, err := x.NewRunner()
	if err == nil {
		err = r.Ready(x.On(s, arch))
	}
	if b.ready.asked == nil {
		b.ready.asked = map[string]asked{}
	}
	b.ready.asked[arch] = asked{time.Now(), err}
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
