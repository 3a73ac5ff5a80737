package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"packmill/internal/deb822"
	"packmill/queue/installability"
	"packmill/queue/quinndiff"
	"packmill/queue/quinndiff/listtest"
)

// Arguments of the processes that are measured on their own.
const (
	diffArg = "--quinn-diff"
	needArg = "--installability"
	fsckArg = "--fsck"
)

// jobsAsked is how many builds the installability figure asks about: what a
// busy day brings to one architecture.
const jobsAsked = 200

// queueFigures measures the build queues.
func queueFigures(b *bench) error {
	if err := growthFigures(b); err != nil {
		return err
	}
	return listFigures(b)
}

// listFigures measures what reads whole indexes: quinn-diff and installability.
// The indexes are those of the directory PACKMILL_BENCH_LISTS, as apt keeps
// them, or made ones of Debian's size.
func listFigures(b *bench) error {
	sources, packages, err := benchLists(b.dir)
	if err != nil {
		return err
	}
	size := 0.0
	for _, path := range []string{sources, packages} {
		fi, err := os.Stat(path)
		if err != nil {
			return err
		}
		size += float64(fi.Size())
	}
	b.progress("quinn-diff of %.0f MB of indexes", size/1e6)
	bare, err := cheapest("grep", "-c", "^Package: ", sources, packages)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	diff, err := cheapest(self, diffArg, sources, packages)
	if err != nil {
		return err
	}
	b.figure(Figure{Name: "queue.quinn-diff.cpu", Value: diff.cpu.Seconds(), Unit: "s",
		Versus: "grep -c ^Package: over the same files",
		Ratio:  diff.cpu.Seconds() / bare.cpu.Seconds(), Goal: "<= 0.5 s", Met: diff.cpu <= 500*time.Millisecond})
	b.figure(Figure{Name: "queue.quinn-diff.memory", Value: float64(diff.memory) / 1e6, Unit: "MB", Goal: "<= 200 MB",
		Met: diff.memory <= 200e6})

	if !installability.HaveDose() {
		return fmt.Errorf("no dose-builddebcheck; install the Debian package of that name")
	}
	b.progress("installability of %d builds", jobsAsked)
	bySelf, err := measured(nil, b.dir, self, needArg, sources, packages, b.dir)
	if err != nil {
		return err
	}
	// dose by itself: all packages, and the sources of the same builds.
	few := filepath.Join(b.dir, "some-sources")
	if err := someSources(sources, few); err != nil {
		return err
	}
	byDose, err := measured(nil, b.dir, "sh", "-c",
		`dose-builddebcheck --failures --explain --quiet --deb-emulate-sbuild --deb-native-arch=amd64 "$@" || [ $? = 1 ]`,
		"sh", packages, few) // 1: some are broken
	if err != nil {
		return err
	}
	ratio := byDose.wall.Seconds() / bySelf.wall.Seconds()
	b.figure(Figure{Name: "queue.installability.time", Value: bySelf.wall.Seconds(), Unit: "s",
		Versus: "dose-builddebcheck over the same files (how much faster)",
		Ratio:  ratio, Goal: "ratio >= 1", Met: ratio >= 1})
	return nil
}

// benchLists returns the paths of a Sources and a Packages file of amd64.
func benchLists(dir string) (sources, packages string, err error) {
	if lists := os.Getenv("PACKMILL_BENCH_LISTS"); lists != "" {
		for pattern, into := range map[string]*string{"*_main_source_Sources": &sources,
			"*_main_binary-amd64_Packages": &packages} {
			files, err := filepath.Glob(filepath.Join(lists, pattern))
			if err != nil || len(files) == 0 {
				return "", "", fmt.Errorf("PACKMILL_BENCH_LISTS: no %s in %s; unpack apt's lists there", pattern, lists)
			}
			*into = files[0]
		}
		return sources, packages, nil
	}
	sources, packages = filepath.Join(dir, "Sources"), filepath.Join(dir, "Packages")
	s, err := os.Create(sources)
	if err != nil {
		return "", "", err
	}
	defer s.Close()
	p, err := os.Create(packages)
	if err != nil {
		return "", "", err
	}
	defer p.Close()
	return sources, packages, listtest.Write(s, p, listtest.Sources, listtest.Binaries)
}

// cheapest runs the command three times and returns the run that used the
// least of the processor.
func cheapest(args ...string) (best used, err error) {
	for i := range 3 {
		u, err := measured(nil, "", args...)
		if err != nil {
			return best, err
		}
		if i == 0 || u.cpu < best.cpu {
			best = u
		}
	}
	return best, nil
}

// listProcess does what the arguments say if they are those of a process of
// these figures.
func listProcess(args []string) (done bool, err error) {
	switch {
	case len(args) == 3 && args[0] == diffArg:
		return true, diffLists(args[1], args[2])
	case len(args) == 2 && args[0] == fsckArg:
		return true, fsckTree(args[1])
	case len(args) == 4 && args[0] == needArg:
		return true, askLists(args[1], args[2], args[3])
	}
	return false, nil
}

func diffLists(sources, packages string) error {
	var s quinndiff.Sources
	f, err := os.Open(sources)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := s.Add(f); err != nil {
		return err
	}
	var p quinndiff.Packages
	g, err := os.Open(packages)
	if err != nil {
		return err
	}
	defer g.Close()
	if err := p.Add(g); err != nil {
		return err
	}
	count := make(map[string]int)
	for n := range quinndiff.Diff(&s, &p, "amd64", quinndiff.Options{Components: []string{"main"}}) {
		count[n.State.String()]++
	}
	return json.NewEncoder(os.Stdout).Encode(count)
}

func askLists(sources, packages, tmp string) error {
	x, err := installability.ReadIndex("amd64", packages)
	if err != nil {
		return err
	}
	var jobs []installability.Job
	if err := eachAsked(sources, func(sc *deb822.Scanner) error {
		jobs = append(jobs, installability.Job{Source: string(sc.Get("Package")), Version: string(sc.Get("Version")),
			Arch:         "amd64",
			BuildDepends: string(sc.Get("Build-Depends")), BuildDependsArch: string(sc.Get("Build-Depends-Arch")),
			BuildConflicts: string(sc.Get("Build-Conflicts")), BuildConflictsArch: string(sc.Get("Build-Conflicts-Arch"))})
		return nil
	}); err != nil {
		return err
	}
	_, err = installability.Dose(context.Background(), x, jobs, tmp)
	return err
}

// eachAsked calls do with the sources that the figure is about: spread over
// the index.
func eachAsked(path string, do func(*deb822.Scanner) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	sc := deb822.NewScanner(f)
	for i, asked := 0, 0; asked < jobsAsked && sc.Next(); i++ {
		if arch := string(sc.Get("Architecture")); i%(listtest.Sources/jobsAsked/4) != 0 ||
			arch != "any" && arch != "linux-any" {
			continue
		}
		asked++
		if err := do(sc); err != nil {
			return err
		}
	}
	return sc.Err()
}

func someSources(from, to string) error {
	w, err := os.Create(to)
	if err != nil {
		return err
	}
	err = eachAsked(from, func(sc *deb822.Scanner) error {
		_, err := fmt.Fprintf(w, "%s\n", sc.Raw())
		return err
	})
	if cerr := w.Close(); err == nil {
		err = cerr
	}
	return err
}
