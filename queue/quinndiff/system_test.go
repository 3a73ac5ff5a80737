//go:build system

package quinndiff

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"packmill/queue/quinndiff/listtest"
)

// seen is what the measured process found.
type seen struct {
	Sources, Binaries, Refused, UpToDate int
	Wanted                               []string // lines, with what is missing
	Lost                                 int      // out of date or uncompiled
}

const childVariable = "PACKMILL_TEST_LISTS"

// The main component of the Debian release that the machine runs, as apt gets
// it: in a stable release nothing is left to be built. Read and held against
// each other in a process of its own, within 200 MB.
func TestRealLists(t *testing.T) {
	if dir := os.Getenv(childVariable); dir != "" {
		child(t, dir)
		return
	}
	dir := os.Getenv("PACKMILL_BENCH_LISTS")
	if dir == "" {
		sources, _, err := listtest.Fetch(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		dir = filepath.Dir(sources)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestRealLists$")
	cmd.Env = append(os.Environ(), childVariable+"="+dir)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var got seen
	if err := json.NewDecoder(strings.NewReader(string(out))).Decode(&got); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	cpu := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	memory := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10
	t.Logf("%d sources, %d binaries: %v of CPU, %d MB", got.Sources, got.Binaries, cpu, memory/1e6)
	for _, line := range got.Wanted {
		t.Log(line)
	}
	if got.Sources < 25_000 || got.Binaries < 50_000 || got.Refused > 0 || got.UpToDate < 10_000 {
		t.Errorf("these are not Debian's lists: %+v", got)
	}
	if got.Lost > 0 || len(got.Wanted) > 20 {
		t.Errorf("%d are out of date or uncompiled, %d are wanted in all", got.Lost, len(got.Wanted))
	}
	if memory > 200e6 {
		t.Errorf("%d bytes of memory, not 200 MB", memory)
	}
}

func child(t *testing.T, dir string) {
	var s Sources
	var p Packages
	for pattern, add := range map[string]func(*os.File) error{
		"*_main_source_Sources":        func(f *os.File) error { return s.Add(f) },
		"*_main_binary-amd64_Packages": func(f *os.File) error { return p.Add(f) },
	} {
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil || len(files) != 1 {
			t.Fatalf("%s in %s: %v, %v", pattern, dir, files, err)
		}
		f, err := os.Open(files[0])
		if err != nil {
			t.Fatal(err)
		}
		if err := add(f); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	got := seen{Sources: s.Len(), Binaries: p.Len(), Refused: len(s.Refused) + len(p.Refused)}
	for n := range Diff(&s, &p, "amd64", Options{Components: []string{"main"}}) {
		switch {
		case n.State == UpToDate:
			got.UpToDate++
		case n.State.Wanted():
			got.Wanted = append(got.Wanted,
				n.Line()+" missing "+strings.Join(n.Missing, " ")+" older "+strings.Join(n.Older, " "))
			if n.State != Partial {
				got.Lost++
			}
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(got); err != nil {
		t.Fatal(err)
	}
}
