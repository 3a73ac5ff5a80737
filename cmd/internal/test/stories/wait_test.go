package stories

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"packmill/spool"
	"packmill/spool/upload/uploadtest"
)

// TestWait: a script waits for its upload, which has not come yet, and ends as that does.
func TestWait(t *testing.T) {
	t.Parallel()
	m := newMill(t)
	out, end := m.waits("hello")
	m.until("it waits for the upload", func() bool { return out.String() != "" })
	m.upload(uploadtest.Package{Source: "hello", Version: "1.0"})
	m.settle()
	if status := end(); status != 0 {
		t.Errorf("packmill wait hello: status %d\n%s", status, out)
	}
	m.says(out.String(), "hello: nothing of it is here yet\n",
		"hello 1.0: published: amd64 installed, source installed\n")

	m.script("hello_2.0_amd64", "fail no such header")
	m.upload(uploadtest.Package{Source: "hello", Version: "2.0"})
	m.settle()
	m.ends(2, "hello 2.0: amd64 build-attempted: ", "no such header, source installed\n", "wait", "hello")
	m.ends(0, "hello 1.0: published", "", "wait", "hello_1.0", "-s", "stable")

	bad := uploadtest.Package{Source: "bad", Version: "1.0", Distribution: "nosuch"}
	m.upload(bad)
	m.settle()
	m.ends(1, "bad 1.0: it lies in "+spool.In(spool.Rejected, "", "").String()+": ", "nosuch", "wait", "bad")
	m.ends(4, "later: the time is over: nothing of it is here yet", "", "wait", "later", "--timeout", "10ms")
}

// TestWaitSentAgain: what was sent again after a refusal is not refused while it lies in incoming, and there what is
// newer than what is published is the newest version.
func TestWaitSentAgain(t *testing.T) {
	t.Parallel()
	m := newMill(t, "Codename: first")
	bad := uploadtest.Package{Source: "hello", Version: "1:1.0", Distribution: "nosuch"}
	m.upload(bad)
	m.settle()
	m.ends(1, "hello 1:1.0: it lies in spool/rejected: ", "", "wait", "hello_1:1.0")
	good := uploadtest.Package{Source: "hello", Version: "1:1.0"}
	m.upload(good)
	m.ends(4, "hello: incoming: ", "the time is over", "wait", "hello_1:1.0", "--timeout", "10ms")
	m.settle()
	m.ends(0, "hello 1:1.0: published", "", "wait", "hello_1:1.0")
	m.ends(0, "hello 1:1.0: published", "", "wait", "hello_1:1.0", "-s", "first", "--timeout", "1m")
	m.upload(uploadtest.Package{Source: "hello", Version: "1:1.1"})
	m.ends(0, "hello 1:1.0: published", "", "wait", "hello_1:1.0")
	m.ends(4, "hello: incoming: ", "hello 1.1: the time is over: ", "wait", "hello", "--timeout", "10ms")
	m.settle()
	m.ends(0, "hello 1:1.1: published", "", "wait", "hello")

	out := &safeBuffer{}
	cmd := m.command(m.Context(), "packmill", "wait", "later")
	cmd.Stdout, cmd.Stderr = out, out
	m.must(cmd.Start())
	m.until("it waits", func() bool { return out.String() != "" })
	m.must(cmd.Process.Signal(os.Interrupt))
	if status := statusOf(cmd.Wait()); status != 111 || !strings.Contains(out.String(), "packmill: interrupted\n") {
		t.Errorf("interrupted: status %d, %s", status, out)
	}
}

// waits begins packmill wait.
func (m *mill) waits(args ...string) (out *safeBuffer, end func() int) {
	m.Helper()
	out = &safeBuffer{}
	cmd := m.command(m.Context(), "packmill", append([]string{"wait"}, args...)...)
	cmd.Stdout, cmd.Stderr = out, out
	m.must(cmd.Start())
	return out, func() int { return statusOf(cmd.Wait()) }
}

// ends checks what a command says and its exit status.
func (m *mill) ends(status int, begins, has string, args ...string) {
	m.Helper()
	out, err := m.try(args...)
	if got := statusOf(err); got != status {
		m.Errorf("packmill %q: status %d, want %d\n%s", args, got, status, out)
	}
	m.says(out, begins, has)
}

// statusOf is a program's exit status.
func statusOf(err error) int {
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return 0
}
