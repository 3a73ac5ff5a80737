//go:build system

package build

import (
	"testing"
)

func TestSbuildGood(t *testing.T) {
	r := &Sbuild{Chroots: testChroots(t, "amd64")}
	job := newSystemJob(t)
	source{}.make(t, job)
	res := mustRun(t, r, job)
	if res.Outcome != Good {
		t.Fatalf("got %v: %s\n%s", res.Outcome, res.Reason, logText(t, job))
	}
	t.Logf("%+v", res)
}
