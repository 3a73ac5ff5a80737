//go:build system

package build

import (
	"flag"
	"strings"
	"testing"
	"time"
)

var long = flag.Bool("build.long", false, "cross-build too: minutes")

// TestSbuildCross builds a program for arm64 on amd64.
func TestSbuildCross(t *testing.T) {
	if !*long {
		t.Skip("takes minutes: go test -tags system -run TestSbuildCross ./queue/build -build.long")
	}
	r := &Sbuild{Chroots: testChroots(t, "amd64")}
	job := newSystemJob(t)
	job.Arch, job.CrossFrom = "arm64", "amd64"
	job.Limits.Wall, job.Limits.Silence = 15*time.Minute, 10*time.Minute
	source{build: "echo 'int main() { return 0; }' > x.c\n$$(dpkg-architecture -qDEB_HOST_GNU_TYPE)-gcc -o x x.c\nod -An -tx1 -j18 -N2 x"}.make(t, job)
	res := mustRun(t, r, job)
	// e_machine of ELF is 183 (b7) for AArch64.
	if log := logText(t, job); res.Outcome != Good || res.Changes != "hello_1.0_arm64.changes" || !strings.Contains(log, "\n b7 00\n") {
		t.Errorf("got %v: %s\n%s", res.Outcome, res.Reason, log[max(0, len(log)-6000):])
	}
}
