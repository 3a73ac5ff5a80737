//go:build system

package server

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestExitStatus holds every program to the three numbers of the README: wrong
// use and wrong settings end with 100, which no supervisor tries again.
func TestExitStatus(t *testing.T) {
	s := newSite(t)
	none := filepath.Join(s.dir, "none")
	mains, _ := filepath.Glob(filepath.Join(filepath.Dir(scripts), "cmd/*/main.go"))
	type row struct {
		line string
		want int
		says string
	}
	var rows []row
	for _, m := range mains {
		p := filepath.Base(filepath.Dir(m))
		rows = append(rows, row{p + " --help", 0, "Usage: " + p}, row{p + " --version", 0, p + " "},
			row{p + " --nope", 100, "--nope"}, row{p + " word", 100, "word"})
		tree := p + " --once --tree " + none
		switch p {
		case "packmill":
			tree = "packmill ls --tree " + none
		case "buildd":
			tree += " --arch amd64"
		}
		rows = append(rows, row{tree, 100, "packmill init --tree " + none})
	}
	if len(rows) < 20 {
		t.Fatalf("found programs for %d rows only: %q", len(rows), mains)
	}
	for _, r := range append(rows,
		row{"buildd --once", 100, "--arch ARCH"},
		row{"buildd --once --arch no/such", 100, "control/builders"},
		row{"packmill", 100, "say what to do: one of"},
		row{"packmill review accept", 100, "<item>"},
		row{"packmill completion tcsh", 100, "fish"},
		row{"packmill key new ../x", 100, "lower-case"},
		row{"packmill chroot create nosuch amd64", 100, "control/suites"},
		row{"packmill ls nosuch", 1, "nosuch"},
		row{"packmill review accept nosuch", 1, "nosuch"},
		row{"packmill archive ls nosuch", 1, "nosuch"},
		row{"packmill fsck", 0, ""},
	) {
		f := strings.Fields(r.line)
		out, err := s.run(f[0], f[1:]...)
		got := 0
		if exit := new(exec.ExitError); errors.As(err, &exit) {
			got = exit.ExitCode()
		} else if err != nil {
			t.Fatal(err)
		}
		if got != r.want || !strings.Contains(out, r.says) {
			t.Errorf("%s: got %d, %q, want %d and %q", r.line, got, out, r.want, r.says)
		}
	}
}
