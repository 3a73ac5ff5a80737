package archive

import (
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"packmill/internal/deb/debtest"
)

// part is what one build of the source app makes: app for amd64 or i386, app-data
// for all. Each needs the other in its own version, but bb-data, which needs nothing.
func (f *fixture) part(name, version, arch string) Inclusion {
	f.Helper()
	d := debtest.Deb{Name: name, Source: name, Version: version, Arch: arch,
		Fields: fmt.Sprintf("Depends: %s-data (= %s)\n", name, version)}
	if arch == "all" {
		d.Name, d.Fields = name+"-data", fmt.Sprintf("Depends: %s (= %s)\n", name, version)
		if name == "bb" {
			d.Fields = ""
		}
	}
	inc := f.upload(debtest.Upload{Source: f.skewed(name, version), Debs: []debtest.Deb{d}})
	inc.Kind, inc.Whole = Binary, true
	return inc
}

func (f *fixture) skewed(name, version string) debtest.Source {
	return debtest.Source{Name: name, Version: version, Binary: []string{name, name + "-data"}, Arch: "any all"}
}

func (f *fixture) sourceOnly(name, version string) Inclusion {
	f.Helper()
	inc := f.upload(debtest.Upload{Source: f.skewed(name, version)})
	inc.Kind = Source
	return inc
}

// debcheck wants everything that each architecture shows to be installable.
func (f *fixture) debcheck(when string) {
	f.Helper()
	for _, arch := range f.suite.Architectures {
		packages := f.text("main/binary-" + arch + "/Packages")
		if packages == "" {
			continue
		}
		cmd := exec.Command("dose-debcheck", "--failures", "--explain", "--latest=1", "--deb-native-arch="+arch)
		cmd.Stdin = strings.NewReader(packages)
		if out, err := cmd.CombinedOutput(); err != nil {
			f.Fatalf("%s: %s: %v\n%s", when, arch, err, out)
		}
	}
}

// TestSkew has the builds of a version end at different times, or not at all.
func TestSkew(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.suite.Components = []string{"main"}
	f.accepted(f.sourceOnly("app", "1"), f.part("app", "1", "all"), f.part("app", "1", "amd64"),
		f.part("app", "1", "i386"))
	f.wantHave("main/binary-i386/Packages", "app 1, app-data 1")

	f.accepted(f.sourceOnly("app", "2"))
	amd64 := f.part("app", "2", "amd64")
	if r := f.publish(amd64).Results[0]; r.Outcome != Waits ||
		r.Reason != "waits for the other packages of its source: app needs app-data (= 2)" {
		t.Errorf("amd64 before all: got %v, %q", r.Outcome, r.Reason)
	}
	f.wantHave("main/binary-amd64/Packages", "app 1, app-data 1")
	f.accepted(f.part("app", "2", "all"))
	f.wantHave("main/binary-all/Packages", "app-data 2")
	f.wantHave("main/binary-amd64/Packages", "app 1, app-data 1")
	f.accepted(amd64)
	f.wantHave("main/binary-amd64/Packages", "app 2, app-data 2")
	// i386 fails, and has all of 1 still, with its source.
	f.wantHave("main/binary-i386/Packages", "app 1, app-data 1")
	f.wantHave("main/source/Sources", "app 2, app 1*")
	f.wantList("unstable", "app_2_amd64 app_1_i386 app_1_source app_2_source app-data_1_all app-data_2_all")
	f.sound()
	i386 := newClient(t, strings.ReplaceAll(f.source(), " contrib", ""), f.key, "i386")
	i386.run("apt-get", "update")
	if out := i386.run("apt-get", "-s", "install", "app"); !strings.Contains(out, "Inst app-data (1 ") {
		t.Errorf("apt-get -s install app on i386: got %s", out)
	}
	// It goes with the rest of its source.
	plan := f.planned(f.a.Remove(ctx, f.suite, []string{"app"}, ChangeOptions{Dry: true}, f.now))
	if got := len(plan.Removed); got != 6 {
		t.Errorf("remove: got %v, want all six", plan.Removed)
	}
	f.accepted(f.part("app", "2", "i386"))
	f.wantHave("main/binary-i386/Packages", "app 2, app-data 2")
	f.wantHave("main/source/Sources", "app 2")

	// What needs nothing itself is needed, too.
	f.accepted(f.sourceOnly("bb", "1"), f.part("bb", "1", "all"), f.part("bb", "1", "amd64"))
	f.accepted(f.sourceOnly("bb", "2"), f.part("bb", "2", "all"))
	f.wantHave("main/binary-amd64/Packages", "app 2, app-data 2, bb 1, bb-data 1")
	f.wantHave("main/binary-i386/Packages", "app 2, app-data 2, bb-data 2")
}

// TestAlwaysInstallable asks dose after each publication.
func TestAlwaysInstallable(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.publishAtRandom(40, f.debcheck)
}

// publishAtRandom publishes the builds of some sources in any order, some never, and
// looks after each publication.
func (f *fixture) publishAtRandom(steps int, look func(when string)) {
	f.Helper()
	seed := rand.Uint64()
	f.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	f.suite.Components = []string{"main"}
	names := []string{"aa", "bb", "cc"}
	version := map[string]int{}
	pending := map[string]Inclusion{} // by file name: in the archive queue or being built
	var log []string
	for step := range steps {
		name := names[r.IntN(len(names))]
		var batch []Inclusion
		if r.IntN(4) == 0 || version[name] == 0 {
			version[name]++
			v := fmt.Sprint(version[name])
			batch = append(batch, f.sourceOnly(name, v))
			for key := range pending {
				if strings.HasPrefix(key, name+" ") {
					delete(pending, key) // the attic has them
				}
			}
			for _, arch := range []string{"all", "amd64", "i386"} {
				if r.IntN(4) > 0 { // else it fails
					pending[name+" "+v+" "+arch] = f.part(name, v, arch)
				}
			}
		}
		did := map[string]int{}
		for _, key := range sortedKeys(pending) {
			if r.IntN(3) == 0 {
				did[key], batch = len(batch), append(batch, pending[key])
			}
		}
		rep := f.publish(batch...)
		for i, res := range rep.Results {
			if res.Outcome == Refused {
				f.Fatalf("%s: %s\n%s", filepath.Base(batch[i].Changes), res.Reason, strings.Join(log, "\n"))
			}
			log = append(log, fmt.Sprintf("step %d: %s: %v %s", step, batch[i].Changes, res.Outcome, res.Reason))
		}
		for key, i := range did {
			if rep.Results[i].Outcome != Waits {
				delete(pending, key)
			}
		}
		look(strings.Join(log, "\n"))
	}
}

// TestBuiltUsing keeps the source whose code is in another package, until that
// package has it no more.
func TestBuiltUsing(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	lib := func(v string) Inclusion {
		return f.upload(debtest.Upload{Source: debtest.Source{Name: "lib", Version: v},
			Debs: []debtest.Deb{{Name: "lib", Version: v}}})
	}
	app := func(v, fields string) Inclusion {
		return f.upload(debtest.Upload{Source: debtest.Source{Name: "app", Version: v},
			Debs: []debtest.Deb{{Name: "app", Version: v, Fields: fields}}})
	}
	f.accepted(lib("1"))
	f.accepted(app("1", "Built-Using: lib (= 1)\n"))
	f.accepted(lib("2"))
	f.wantHave("main/source/Sources", "app 1, lib 2, lib 1*")
	f.accepted(app("2", "Static-Built-Using: lib (= 2)\n"))
	f.wantHave("main/source/Sources", "app 2, lib 2")
	f.accepted(lib("3"))
	f.wantHave("main/source/Sources", "app 2, lib 3, lib 2*")
	plan, err := f.a.Remove(ctx, f.suite, []string{"app"}, ChangeOptions{}, f.now.Add(time.Minute))
	f.planned(plan, err)
	f.wantHave("main/source/Sources", "lib 3")
}
