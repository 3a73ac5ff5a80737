package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Control-C at a question is a no.
func TestInterruptAtQuestion(t *testing.T) {
	ptmx, tty := newTerminal(t)

	tree := filepath.Join(t.TempDir(), "tree")
	t.Setenv("PACKMILL_TREE", tree)
	snapshot := filepath.Join(tree, "archive/snapshots/monday/dists/stable")
	if out, err := exec.Command("packmill", "init", "--archive").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.MkdirAll(snapshot, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("packmill", "archive", "snapshot", "rm", "monday")
	var stdout bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, &stdout, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	tty.Close()
	said, buf := "", make([]byte, 4096)
	for sent := false; ; {
		n, err := ptmx.Read(buf)
		said += string(buf[:n])
		if err != nil {
			break // EIO: the program has ended
		}
		if strings.Contains(said, "[y/N] ") && !sent {
			sent = true
			if _, err := ptmx.Write([]byte{3}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 1 || !strings.Contains(said, "nothing was changed") {
		t.Errorf("interrupted at the question: got %v, said %q and %q; want status 1 and that nothing was changed",
			err, said, stdout.String())
	}
	if _, err := os.Stat(snapshot); err != nil {
		t.Errorf("interrupted at the question, and yet: %v", err)
	}
}

// newTerminal is a terminal of 80 columns and 24 lines: what a person has, and
// what the program sees.
func newTerminal(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { person.Close() })
	n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(int(person.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80}); err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close() })
	return person, program
}
