//go:build system

package server

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// talk is a command at a terminal, and a person who reads what it says and types.
type talk struct {
	t    *testing.T
	cmd  *exec.Cmd
	keys io.Writer
	mu   sync.Mutex
	said strings.Builder
	read int // what the person has read of it
}

func (k *talk) Write(p []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.said.Write(p)
}

func (k *talk) all() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.said.String()
}

// talkTo starts a command whose standard streams are a terminal. The shell that script(1) asks, whichever $SHELL names,
// becomes it: dash would stay, and end by the interrupt whatever the command says of it.
func talkTo(t *testing.T, script func(string) *exec.Cmd, text string) *talk {
	t.Helper()
	k := &talk{t: t, cmd: script("exec script -qefc " + quote("exec "+text) + " /dev/null")}
	keys, err := k.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	k.keys, k.cmd.Stdout, k.cmd.Stderr = keys, k, k
	if err := k.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keys.Close(); k.cmd.Process.Kill(); k.cmd.Wait() })
	return k
}

// reads waits until the words are there, behind what was read before.
func (k *talk) reads(words string) {
	k.t.Helper()
	for end := time.Now().Add(longPatience); ; time.Sleep(20 * time.Millisecond) {
		said := k.all()
		if i := strings.Index(said[k.read:], words); i >= 0 {
			k.read += i + len(words)
			return
		}
		if time.Now().After(end) {
			k.t.Fatalf("it never says %q:\n%s", words, said)
		}
	}
}

func (k *talk) types(keys string) {
	k.t.Helper()
	if _, err := io.WriteString(k.keys, keys); err != nil {
		k.t.Fatal(err)
	}
}

// The questions of setup in their order: words of each, an answer that is none with the words that refuse it, and one
// that is.
var questions = []struct{ asks, wrong, says, answer string }{
	{"Name of the suite [stable]: ", "Stable/1", "suite \"Stable/1\"", "stable"},
	{"What builds stand on", "bookwrom", "no release that is known", "BASE"},
	{"Architectures to build [", "all", "all is built anyway", ""},
	{"mail comes from", "archive", "write one such as", "Archive <archive@example.org>"},
	{"as large (yes, no) [no]: ", "perhaps", "yes or no?", ""},
	{"who reaches that (yes, no) [yes]: ", "1", "yes or no?", "no"},
}

const (
	controlC = "\x03"
	controlD = "\x04"
)

// TestSetupAsks lets a person answer setup's questions at a terminal: who goes away at one of them has changed
// nothing, a wrong answer is asked for again, and who interrupts it later runs it again to its end.
func TestSetupAsks(t *testing.T) {
	root, script := bareMachine(t)
	state := func() string {
		t.Helper()
		out, err := script(`cd "$ROOT"; find etc -type f -exec sha256sum {} +; find . -path ./etc -prune -o -print`).Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	const setup = `"$ROOT/bin/packmill" setup --tree "$ROOT/tree" --no-start`
	before := state()
	for n := range questions {
		goesAway(t, talkTo(t, script, setup), n, controlC, 130)
	}
	goesAway(t, talkTo(t, script, setup), len(questions)-1, controlD, 1)
	if after := state(); after != before {
		t.Errorf("who goes away at a question has changed something: was\n%s\nis\n%s", before, after)
	}

	// A mirror that takes what is asked of it, and never answers.
	mirror, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mirror.Close()
	line := fmt.Sprintf("deb http://%s/debian stable main", mirror.Addr())
	k := talkTo(t, script, setup)
	for _, q := range questions {
		k.reads(q.asks)
		k.types(q.wrong + "\n")
		k.reads(q.says)
		k.reads(q.asks)
		k.types(strings.Replace(q.answer, "BASE", line, 1) + "\n")
	}
	k.reads("making the chroot")
	apt, err := mirror.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer apt.Close()
	k.types(controlC)
	k.cmd.Wait()
	if k.cmd.ProcessState.ExitCode() != 111 || !strings.Contains(k.all(), "chroots: interrupted; ") {
		t.Errorf("interrupted while it makes the chroot: status %d, and\n%s", k.cmd.ProcessState.ExitCode(), k.all())
	}
	halfway(t, root, script, k)

	out, err := script(setup + " --no-chroot </dev/null").CombinedOutput()
	for _, want := range []string{"control/suites has settings already and stays", "\nReady."} {
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("setup again: %v, want %q\n%s", err, want, out)
		}
	}
	for file, want := range map[string]string{"suites": "Base:\n " + line + "\n", "notify": "\nFrom: Archive <archive@example.org>\n",
		"builders": "\nArchitectures: " + machine(t) + " all\n"} {
		got, err := os.ReadFile(filepath.Join(root, "tree/control", file))
		if err != nil || !strings.Contains(string(got), want) {
			t.Errorf("control/%s has no %q: %v\n%s", file, want, err, got)
		}
	}
}

// goesAway answers so many questions, and types a key at the next.
func goesAway(t *testing.T, k *talk, answered int, key string, status int) {
	t.Helper()
	for _, q := range questions[:answered] {
		k.reads(q.asks)
		k.types(strings.Replace(q.answer, "BASE", "deb http://mirror.invalid/debian sid main", 1) + "\n")
	}
	k.reads(questions[answered].asks)
	k.types(key)
	k.cmd.Wait()
	if got := k.cmd.ProcessState.ExitCode(); got != status {
		t.Errorf("%q at %q: status %d, want %d\n%s", key, questions[answered].asks, got, status, k.all())
	}
}

// halfway looks for what an interrupted setup has left: no process, no mount, nothing half in the tree, and no piece of
// a chroot.
func halfway(t *testing.T, root string, script func(string) *exec.Cmd, k *talk) {
	t.Helper()
	end := time.Now().Add(longPatience)
	for {
		out, _ := exec.Command("pgrep", "-af", root).CombinedOutput()
		if len(out) == 0 {
			break
		}
		if time.Now().After(end) {
			t.Errorf("after the interrupt there are still:\n%s\n%s", out, k.all())
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	out, err := script(`find "$ROOT/build" -path '*/chroots/*/*'; find "$ROOT/tree" -name '*.tmp*' -o -path '*/tmp/?*'`).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("after the interrupt there is still (%v):\n%s", err, out)
	}
}
