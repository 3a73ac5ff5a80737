package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"packmill/internal/deb822"
	"packmill/queue/installability"
	"packmill/queue/quinndiff/listtest"
)

// TestDistribution holds that the simulation works: a small distribution of made sources comes from nothing to all installed, in the order of its
// build-dependencies, and lives a month.
func TestDistribution(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the daemons")
	}
	if !installability.HaveDose() {
		t.Skip("dose-builddebcheck is not installed")
	}
	dir := t.TempDir()
	t.Chdir("../../../..")
	sources, packages := filepath.Join(dir, "Sources"), filepath.Join(dir, "Packages")
	s, err := os.Create(sources)
	if err != nil {
		t.Fatal(err)
	}
	p, err := os.Create(packages)
	if err != nil {
		t.Fatal(err)
	}
	if err := listtest.Write(s, p, 40, 60); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	b := &bench{dir: dir, emit: func(Figure) {}, architectures: []string{"amd64"}, days: 1,
		buildTime: 100 * time.Millisecond}
	bin, err := programs(b, simulators...)
	if err != nil {
		t.Fatal(err)
	}
	got, err := simulate(b, bin, sources, packages, 10)
	if err != nil {
		t.Fatal(err)
	}
	if got.sources != 10 || len(got.phases) != 4 || got.phases[0].landed != got.jobs+got.sources {
		t.Errorf("got %d sources, %d phases, %d installed of %d builds", got.sources, len(got.phases),
			got.phases[0].landed, got.jobs)
	}
	if got.asleep <= 0 || got.phases[0].took < got.asleep/time.Duration(got.builders) {
		t.Errorf("builds of %v, %d at a time, took %v", got.asleep, got.builders, got.phases[0].took)
	}
	if fs := simulationFigures([]*simulation{got, got}); len(fs) < 15 {
		t.Errorf("%d figures", len(fs))
	}
}

// TestAnyVersion: what a package asks of those beside it, the next version of its source has too.
func TestAnyVersion(t *testing.T) {
	stanza := func(text string) *deb822.Stanza {
		st, err := deb822.ParseOne("test", []byte(text), deb822.Hostile)
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	tool := &binary{name: "tool", archs: []string{"any"},
		st: stanza("Package: tool\nVersion: 29-1\nDepends: liblog (= 1:29-1)\nBreaks: liblog (<< 1:28)\n")}
	log := &binary{name: "liblog", st: stanza("Package: liblog\nVersion: 1:29-1\n")}
	data := &binary{name: "tool-data", archs: []string{"all"}, st: stanza("Package: tool-data\nVersion: 29-1\n")}
	s := &source{name: "tools", version: "29-1", makes: []*binary{tool, log, data}}
	for field, want := range map[string]string{
		"liblog (= 1:29-1), libc6 (>= 2)":  "liblog, libc6 (>= 2)",
		"liblog (>= 1:29-1), other (= 3)":  "liblog (>= 1:29-1), other (= 3)",
		"liblog (<< 1:29-1.1~) | other":    "liblog | other",
		"liblog (= 29-1), tool (>= 29-1)":  "liblog (= 29-1), tool (>= 29-1)",
		"tool-data (= 29-1)":               "tool-data (= ${source:Version})",
		"a description, of (some) words !": "a description, of (some) words !",
	} {
		if got := s.anyVersion(tool, field); got != want {
			t.Errorf("%s: got %s, want %s", field, got, want)
		}
	}
	for _, want := range []string{"Depends: liblog\n", "Breaks: liblog (<< 1:28)\n"} {
		if got := s.debs(); !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}
