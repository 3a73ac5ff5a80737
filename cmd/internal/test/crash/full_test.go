//go:build linux && amd64 && system

package crash

import (
	"flag"
	"fmt"
	"regexp"
	"slices"
	"testing"
)

var (
	all   = flag.Bool("crash.all", false, "every point, every strike and every disk, however long it takes")
	count = flag.Int("crash.n", 12, "strikes and disks of each sweep; of a command's half as many, since they are many")
	only  = flag.String("crash.only", "",
		"a regular expression: with -crash.all, only such strikes and disks, as a failure names them: 'call 29, fail EMFILE'")
	part = flag.String("crash.part", "", "K/N: with -crash.all, only the K-th of N parts of each sweep")
)

// TestEngineFull is TestEngine for longer, or whole.
func TestEngineFull(t *testing.T) {
	for _, tt := range engineCases {
		t.Run(tt.name, func(t *testing.T) { full(t, engineSweep(t, tt.name, tt.n, tt.at)) })
	}
}

// TestDaemonsFull strikes each daemon and each command at some points of chance, or at all: -crash.all.
func TestDaemonsFull(t *testing.T) {
	for _, c := range slices.Concat(scenarios, verbs) {
		t.Run(c.name, func(t *testing.T) { full(t, c.sweep(t)) })
	}
}

func full(t *testing.T, s *Sweep) {
	n := *count
	if !s.Restarts {
		n = (n + 1) / 2
	}
	if *all {
		n = 0
	}
	if *part != "" {
		if _, err := fmt.Sscanf(*part, "%d/%d", &s.Part.K, &s.Part.N); err != nil || s.Part.K < 1 || s.Part.K > s.Part.N {
			t.Fatalf("-crash.part %s: not like 2/8", *part)
		}
	}
	if *only != "" {
		s.Only = regexp.MustCompile(*only)
	}
	tally, err := s.Run(n)
	report(t, s, tally, err)
}
