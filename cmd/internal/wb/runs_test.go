package wb

import (
	"testing"
	"time"

	"packmill/cmd/internal/control"
	"packmill/queue"
	"packmill/spool"
)

// An order that names no suite is for the one that a job of the package is in.
func TestRunsFindTheSuite(t *testing.T) {
	tree, err := spool.Init(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for source, suites := range map[string][]string{"hello": {"sid"}, "world": {"sid", "stable"}} {
		for _, suite := range suites {
			name := spool.NewName(spool.NormalClass, time.Now(), source, "1.0-1")
			it, err := tree.Create(spool.In(spool.NeedsBuild, suite, "amd64"), name, spool.MasterD, "who", "why",
				func(string) error { return nil })
			if err != nil {
				t.Fatal(err)
			}
			it.Release()
		}
	}
	all := &control.Settings{}
	for _, name := range []string{"sid", "stable"} {
		var s control.Suite
		s.Name = name
		all.Suites = append(all.Suites, s)
	}
	runs, err := Runs(tree, all, "here", []*Order{{Op: queue.Cancel, Packages: []string{"hello"}}})
	if err != nil || len(runs) != 1 || runs[0].Suite.Name != "sid" {
		t.Errorf("hello: got %+v, %v, want one run in sid", runs, err)
	}
	if runs, err := Runs(tree, all, "here", []*Order{{Op: queue.Cancel, Packages: []string{"world"}}}); err == nil {
		t.Errorf("world: got %+v, want the question in which suite", runs)
	}
	runs, err = Runs(tree, all, "here",
		[]*Order{{Op: queue.Cancel, Packages: []string{"h*"}, Suites: []string{"sid", "stable"}}})
	if err != nil || len(runs) != 2 || len(runs[0].Order.Packages) != 1 || len(runs[1].Order.Packages) != 0 {
		t.Errorf("h* in two suites: got %+v, %v, want hello in sid alone", runs, err)
	}
}
