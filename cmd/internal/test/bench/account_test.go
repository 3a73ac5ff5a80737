package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

const burnArg = "--burn"

const burnt = 100 * time.Millisecond

func TestMain(m *testing.M) {
	if done, err := accountProcess(os.Args[1:]); done {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if len(os.Args) > 1 && os.Args[1] == burnArg {
		for spent() < burnt {
		}
		return
	}
	os.Exit(m.Run())
}

// What a command leaves behind is counted as the command's: gpgme starts gpg so.
func TestWhatIsLeftBehindIsCounted(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// A program of several threads has ended when all of them have.
	u, err := measured(nil, t.TempDir(), "sh", "-c", `p=$("$0" "$1" >/dev/null & echo $!)
		while grep -qs ') [^Z]' /proc/$p/task/*/stat; do sleep 0.01; done`, self, burnArg)
	if err != nil {
		t.Fatal(err)
	}
	if u.cpu < burnt || u.wall <= 0 || u.memory < 1<<20 {
		t.Errorf("got %+v, want at least %v of CPU", u, burnt)
	}
}

func TestFailureIsTold(t *testing.T) {
	_, err := measured(nil, t.TempDir(), "sh", "-c", "echo no luck; exit 3")
	if err == nil || !strings.Contains(err.Error(), "exit status 3: no luck") {
		t.Errorf("got %v, want the exit status and the text", err)
	}
}
