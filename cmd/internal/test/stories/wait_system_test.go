//go:build system

package stories

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"packmill/spool"
	"packmill/spool/upload/uploadtest"
)

// TestWaitOfOneWhoSeesLittle: who may only look waits for what is named with its version, and
// is never told that something is published of which the jobs are closed to them.
func TestWaitOfOneWhoSeesLittle(t *testing.T) {
	a := newAccounts(t, "Review: never")
	looker := a.somebody(reviewerUID, spool.GroupAll)
	tells := func(status int, line string, words ...string) {
		t.Helper()
		out, err := a.sh(looker, "packmill wait "+line)
		if got := statusOf(err); got != status {
			t.Errorf("packmill wait %s: status %d, want %d\n%s", line, got, status, out)
		}
		a.says(out, words...)
	}
	a.drop(uploadtest.Package{Source: "hello", Version: "1.0"})
	tells(1, "hello --timeout 10ms", "name the version, hello_VERSION")
	a.daemon("reviewd")
	tells(4, "hello_1.0 --timeout 10ms", "the time is over: nothing of it is here yet")
	a.daemon("master-buildd")
	tells(4, "hello_1.0 --timeout 10ms", "amd64 needs-build")
	a.daemon("buildd", "--arch", "amd64")
	a.daemon("archived")
	a.daemon("master-buildd")
	a.daemon("archived")
	tells(0, "hello_1.0", "hello 1.0: published: amd64 installed, source installed")
	for _, dir := range []string{"queue/stable/amd64/building", "queue/stable/amd64"} {
		a.must(os.Chmod(filepath.Join(a.tree, dir), 0o700))
		tells(1, "hello_1.0", dir, "is closed to you, so how far hello_1.0 is cannot be said")
		a.must(os.Chmod(filepath.Join(a.tree, dir), fs.ModeSetgid|0o775))
	}
	looker = a.credential("nobody")
	tells(100, "hello_1.0 --timeout 10ms", "you may not do this")
}
