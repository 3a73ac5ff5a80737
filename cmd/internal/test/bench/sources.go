package main

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"packmill/internal/deb822"
	"packmill/internal/policy"
	"packmill/queue/runner"
)

// mostSource bounds the files of a source whose builds are measured, so that a run ends.
const mostSource = 512 << 10

// mostFailed is how many sources may fail that build bare, which is a fault of ours, until the others are not measured.
const mostFailed = 3

// mostTold is how much of the end of a log is shown, in bytes.
const mostTold = 4 << 10

// sourcesFigures measures builds of real sources, in turns: bare, by the overlay runner, and by sbuild as it comes in
// its unshare mode. Which sources is by a rule and not by hand: of this machine's own distribution those with something
// to compile whose build-dependencies bring the fewest packages, but one at least, and of files of at most 512 KiB;
// among equals the hash of the name decides. One that cannot be fetched, or does not build bare on this machine, is
// passed over, and the next one taken. The overlay runner's first build of each makes its layer, above those of the
// sources before it; that is measured too, and beside it one with all layers put aside.
func sourcesFigures(b *bench) error {
	if err := os.Chmod(b.dir, 0o755); err != nil {
		return err
	}
	cached, arch, err := benchChroots(b)
	if err != nil {
		return err
	}
	chroots, err := ownLayers(b, cached, arch)
	if err != nil {
		return err
	}
	defer func() {
		chroots.Remove("sid", arch)
		os.Remove(chroots.Dir)
	}()
	apt, err := newAptLists(b)
	if err != nil {
		return err
	}
	all, err := apt.smallest(arch)
	if err != nil {
		return err
	}
	if err := unpackFirst(b, chroots, arch); err != nil {
		return err
	}
	m := &sourceRun{b: b, chroots: chroots, arch: arch}
	var failed []error
	for _, s := range all {
		if len(m.taken) == b.sizes(20)[0] || len(failed) > mostFailed {
			break
		}
		if err := m.measure(apt, s); errors.Is(err, errPassed) {
			b.progress("%s is passed over: %v", s.name, err)
		} else if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", s.name, err))
			b.progress("%v", failed[len(failed)-1])
		}
	}
	return errors.Join(append(failed, m.sum())...)
}

// ownLayers is the chroot in a directory of its own, not unpacked and without layers, by links to the same files.
func ownLayers(b *bench, from *runner.Chroots, arch string) (*runner.Chroots, error) {
	to := &runner.Chroots{Dir: filepath.Join(filepath.Dir(from.Dir), "bench-"+filepath.Base(b.dir)), User: from.User}
	if err := os.Mkdir(to.Dir, 0o755); err != nil {
		return nil, err
	}
	const link = `cd "$1" && cp -al --parents sid-"$3"/*/info sid-"$3"/*/chroot.tar sid-"$3"/*/status "$2"`
	return to, output(exec.Command("sh", "-c", link, "sh", from.Dir, to.Dir, arch))
}

// unpackFirst builds something, which unpacks the chroot.
func unpackFirst(b *bench, chroots *runner.Chroots, arch string) error {
	dir := filepath.Join(b.dir, "tiny")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := makeTiny(dir); err != nil {
		return err
	}
	_, err := runnerBuild(b, &runner.Overlay{Chroots: chroots}, filepath.Join(dir, "tiny_1.0.dsc"), "tiny", "1.0", arch)
	return err
}

// errPassed says that a source cannot be measured here.
var errPassed = errors.New("it does not build here")

// realSource is a source of the distribution.
type realSource struct {
	name, version string
	needs         int // packages that its build-dependencies bring, beside build-essential's
}

// aptLists are lists of the distribution, fetched for this run.
type aptLists struct {
	dir     string
	options []string
}

func newAptLists(b *bench) (*aptLists, error) {
	base, err := runner.SystemBase()
	if err != nil {
		return nil, err
	}
	a := &aptLists{dir: filepath.Join(b.dir, "apt")}
	if err := os.MkdirAll(filepath.Join(a.dir, "lists/partial"), 0o755); err != nil {
		return nil, err
	}
	list := filepath.Join(a.dir, "sources.list")
	lines := base[0] + "\n" + strings.Replace(base[0], "deb ", "deb-src ", 1) + "\n"
	if err := os.WriteFile(list, []byte(lines), 0o644); err != nil {
		return nil, err
	}
	a.options = []string{"-qq", "-o", "Dir::Etc::SourceList=" + list, "-o", "Dir::Etc::SourceParts=/nonexistent",
		"-o", "Dir::State::Lists=" + a.dir + "/lists", "-o", "Dir::Cache=" + a.dir, "-o", "APT::Sandbox::User=root"}
	return a, output(exec.Command("apt-get", append(a.options, "update")...))
}

// read calls do for each stanza of the lists of a kind, Sources or Packages.
func (a *aptLists) read(kind string, do func(get func(string) string)) error {
	found, err := filepath.Glob(filepath.Join(a.dir, "lists", "*_"+kind+"*"))
	if err != nil || len(found) == 0 {
		return errors.Join(err, fmt.Errorf("no %s among apt's lists", kind))
	}
	for _, path := range found {
		text, err := exec.Command("/usr/lib/apt/apt-helper", "cat-file", path).Output()
		if err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
		s := deb822.NewScanner(bytes.NewReader(text))
		for s.Next() {
			do(func(field string) string { return string(s.Get(field)) })
		}
		if err := s.Err(); err != nil {
			return err
		}
	}
	return nil
}

// fetch brings the source package into a directory, and returns its .dsc.
func (a *aptLists) fetch(s realSource, dir string) (string, error) {
	cmd := exec.Command("apt-get", append(a.options, "source", "--download-only", s.name+"="+s.version)...)
	cmd.Dir = dir
	if err := output(cmd); err != nil {
		return "", err
	}
	found, err := filepath.Glob(filepath.Join(dir, "*.dsc"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("found %v, %v", found, err)
	}
	return found[0], nil
}

// packageGraph says what packages bring with them, by first alternatives.
type packageGraph struct {
	needs    map[string][]string
	provides map[string]string // by virtual name, the first in the alphabet
}

func (a *aptLists) graph() (*packageGraph, error) {
	g := &packageGraph{map[string][]string{}, map[string]string{}}
	err := a.read("Packages", func(get func(string) string) {
		name := get("Package")
		for _, field := range []string{"Pre-Depends", "Depends"} {
			rel, _ := policy.ParseRelations(get(field))
			g.needs[name] = append(g.needs[name], firsts(rel)...)
		}
		provided, _ := policy.ParseRelations(get("Provides"))
		for _, p := range firsts(provided) {
			if was := g.provides[p]; was == "" || name < was {
				g.provides[p] = name
			}
		}
	})
	return g, err
}

func firsts(rel policy.Relations) (names []string) {
	for _, or := range rel {
		names = append(names, or[0].Name)
	}
	return names
}

// add adds names and what they bring to a set; false: one is not there.
func (g *packageGraph) add(set map[string]bool, names ...string) bool {
	for _, name := range names {
		needs, real := g.needs[name]
		if !real {
			if name, real = g.provides[name]; !real {
				return false
			}
			needs = g.needs[name]
		}
		if !set[name] {
			if set[name] = true; !g.add(set, needs...) {
				return false
			}
		}
	}
	return true
}

// smallest are the sources in the order in which they are taken.
func (a *aptLists) smallest(arch string) (all []realSource, err error) {
	g, err := a.graph()
	if err != nil {
		return nil, err
	}
	base := map[string]bool{}
	if !g.add(base, "build-essential") {
		return nil, errors.New("build-essential is not whole")
	}
	err = a.read("Sources", func(get func(string) string) {
		archs, err := policy.ArchList(get("Architecture"))
		if err != nil || get("Architecture") == "all" || !policy.BuildsOn(archs, arch) || size(get("Files")) > mostSource {
			return
		}
		set := maps.Clone(base)
		for _, field := range []string{"Build-Depends", "Build-Depends-Arch"} {
			rel, err := policy.ParseRelations(get(field))
			if err != nil || !g.add(set, firsts(rel.For(arch, []string{"nocheck"}))...) {
				return
			}
		}
		if len(set) > len(base) {
			all = append(all, realSource{get("Package"), get("Version"), len(set) - len(base)})
		}
	})
	slices.SortFunc(all, func(a, b realSource) int {
		x, y := sha256.Sum256([]byte(a.name)), sha256.Sum256([]byte(b.name))
		return cmp.Or(a.needs-b.needs, bytes.Compare(x[:], y[:]))
	})
	return all, err
}

// size is that of a source's files, of the field Files.
func size(files string) (sum int64) {
	for line := range strings.Lines(files) {
		if f := strings.Fields(line); len(f) == 3 {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			sum += n
		}
	}
	return sum
}

// The ways of building a source.
const (
	bareWay    = "bare"
	overlayWay = "overlay"
	sbuildWay  = "sbuild"
	keptWay    = "overlay.first"        // with the layers of the sources before
	thrownWay  = "overlay.first.thrown" // without any
)

// sourceRun is what was measured so far.
type sourceRun struct {
	b       *bench
	chroots *runner.Chroots
	arch    string
	taken   []string
	total   map[string]took
}

// measure builds one source by each way.
func (m *sourceRun) measure(apt *aptLists, s realSource) error {
	dir := filepath.Join(m.b.dir, s.name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	dsc, err := apt.fetch(s, dir)
	if err != nil {
		return fmt.Errorf("%w: %w", errPassed, err)
	}
	m.b.progress("%d of %d: %s_%s, %d packages more", len(m.taken)+1, m.b.sizes(20)[0], s.name, s.version, s.needs)
	build := exec.Command("apt-get", "build-dep", "-y", "-qq", "--no-remove", "--no-install-recommends", "--arch-only",
		"-P", "nocheck", dsc)
	build.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if err := output(build); err != nil {
		return fmt.Errorf("%w: %w", errPassed, err)
	}
	if _, err := bareBuild(m.b, dsc); err != nil { // nor is the first one measured, for the files' sake
		return fmt.Errorf("%w: %w", errPassed, err)
	}
	got := map[string]took{}
	if got[keptWay], _, err = m.overlay(m.chroots, dsc, s); err != nil {
		return err
	}
	for _, way := range []string{bareWay, overlayWay, sbuildWay} {
		switch way {
		case bareWay:
			got[way], err = bareBuild(m.b, dsc)
		case overlayWay:
			got[way], err = m.layered(dsc, s)
		case sbuildWay:
			got[way], err = plainSbuild(m.b, m.chroots, m.arch, dsc)
		}
		if err != nil {
			return err
		}
	}
	if got[thrownWay], err = m.thrown(dsc, s); err != nil {
		return err
	}
	m.taken = append(m.taken, s.name)
	if m.total == nil {
		m.total = map[string]took{}
	}
	for way, t := range got {
		m.b.figure(Figure{Name: "sources." + s.name + "." + way, Value: t.wall.Seconds(), Unit: "s"})
		m.b.figure(Figure{Name: "sources." + s.name + "." + way + ".cpu", Value: t.cpu.Seconds(), Unit: "s"})
		m.total[way] = took{m.total[way].wall + t.wall, m.total[way].cpu + t.cpu}
	}
	return nil
}

// overlay builds by the overlay runner, and reports whether the layer was there.
func (m *sourceRun) overlay(c *runner.Chroots, dsc string, s realSource) (took, bool, error) {
	start := time.Now()
	res, log, err := runJobLog(m.b, &runner.Overlay{Chroots: c}, dsc, s.name, s.version, m.arch)
	wall := time.Since(start)
	if err == nil && res.Outcome != runner.Good {
		err = fmt.Errorf("overlay: %v: %s:\n%s", res.Outcome, res.Reason, log[max(0, len(log)-mostTold):])
	}
	if err != nil {
		return took{}, false, err
	}
	return took{wall, res.Usage.CPU}, !bytes.Contains(log, []byte("\nSetting up ")), nil
}

// layered builds with the layer: another build of this machine may have the range of ids that made it.
func (m *sourceRun) layered(dsc string, s realSource) (took, error) {
	for range 8 {
		if t, had, err := m.overlay(m.chroots, dsc, s); err != nil || had {
			return t, err
		}
	}
	return took{}, errors.New("too much else is built on this machine: no build found its layer")
}

// thrown builds while all layers are put aside.
func (m *sourceRun) thrown(dsc string, s realSource) (t took, err error) {
	dirs, err := filepath.Glob(filepath.Join(m.chroots.Dir, "*", "*", "*", "layers"))
	if err != nil {
		return took{}, err
	}
	for _, dir := range dirs {
		if err := os.Rename(dir, dir+".aside"); err != nil {
			return took{}, err
		}
	}
	if t, _, err = m.overlay(m.chroots, dsc, s); err == nil {
		err = m.chroots.SweepLayers(1)
	}
	for _, dir := range dirs {
		err = errors.Join(err, os.RemoveAll(dir), os.Rename(dir+".aside", dir))
	}
	return t, err
}

// sum gives out the sums, and how they stand to each other.
func (m *sourceRun) sum() error {
	if len(m.taken) == 0 {
		return errors.New("no source could be measured")
	}
	for _, f := range []struct {
		way, versus, goal string
		most              float64
	}{
		{bareWay, "", "", 0}, {sbuildWay, bareWay, "", 0},
		{overlayWay, bareWay, "ratio <= 1.02", 1.02}, {overlayWay, sbuildWay, "ratio <= 0.5", 0.5},
		{thrownWay, overlayWay, "", 0}, {keptWay, thrownWay, "", 0},
	} {
		t, to := m.total[f.way], m.total[f.versus]
		for _, x := range []struct {
			unit      string
			value, to time.Duration
		}{{"", t.wall, to.wall}, {".cpu", t.cpu, to.cpu}} {
			g := Figure{Name: fmt.Sprintf("sources.sum-of-%d.%s%s", len(m.taken), f.way, x.unit), Value: x.value.Seconds(),
				Unit: "s", Versus: f.versus, Goal: f.goal}
			if x.to > 0 {
				g.Ratio = x.value.Seconds() / x.to.Seconds()
				g.Met = g.Ratio <= f.most
			}
			m.b.figure(g)
		}
	}
	return nil
}
