//go:build linux && amd64 && system

package crash

import (
	"flag"
	"testing"
	"time"
)

var (
	all    = flag.Bool("crash.all", false, "every point, every strike and every disk, however long it takes")
	budget = flag.Duration("crash.time", 3*time.Minute, "time of all sweeps together")
)

// TestEngineFull is TestEngine for longer, or whole.
func TestEngineFull(t *testing.T) {
	for _, tt := range engineCases {
		s := engineSweep(t, tt.name, tt.n, tt.at)
		tally, err := s.Run(share(20))
		report(t, s, tally, err)
	}
}

// TestDaemonsFull is TestDaemons for longer, or whole: -crash.all.
func TestDaemonsFull(t *testing.T) {
	for i := range scenarios {
		c := &scenarios[i]
		t.Run(c.name, func(t *testing.T) {
			s := c.sweep(t)
			tally, err := s.Run(share(len(scenarios) + 2))
			report(t, s, tally, err)
		})
	}
}

// share is one sweep's part of the time, of n.
func share(n int) time.Duration {
	if *all {
		return 0
	}
	return *budget / time.Duration(n)
}
