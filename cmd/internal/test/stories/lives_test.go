package stories

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"packmill/internal/openpgp"
	"packmill/queue"
	"packmill/spool"
	"packmill/spool/upload/uploadtest"
)

var (
	lifeSteps = flag.Int("stories.steps", 30, "of TestLives: steps of each life")
	lifeSeed  = flag.Uint64("stories.seed", 0, "of TestLives: this life alone; its kind is part of the seed")
)

// lifeKinds are the suites in which packages live, by seed.
var lifeKinds = []string{"source-first", "together", "signed by a person"}

// TestLives: packages live at random: they are uploaded, removed, built, given back, rebuilt,
// judged and moved by hand, while daemons run in any order, builders die and the settings
// change. After some steps all comes to rest, and the suite has what a model says that it
// must have, no more and no less; fsck finds nothing.
func TestLives(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	seeds := []uint64{1, 2, 3}
	if *lifeSeed > 0 {
		seeds = []uint64{*lifeSeed}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			liveOne(t, seed, *lifeSteps)
		})
	}
}

// restEvery is how many steps are made before all comes to rest.
const restEvery = 30

// liveOne is one life. Who reads of a failure finds all that was done.
func liveOne(t *testing.T, seed uint64, steps int) {
	l := newLife(t, seed)
	for n := range steps {
		if l.oneStep(); l.weary || (n+1)%restEvery == 0 || n+1 == steps {
			l.rest()
		}
		if t.Failed() {
			t.Fatalf("seed %d (%s), step %d; what was done:\n%s\nand then:\n%s", seed, l.kind, n, strings.Join(l.done, "\n"),
				l.packmill("ls"))
		}
	}
	t.Logf("seed %d (%s): %d things held, %d the model did not know", seed, l.kind, l.sure, l.unsure)
	if l.unsure > 3 && l.sure < 3*l.unsure { // of a few it says nothing
		t.Errorf("the model knows too little")
	}
}

// life is a mill whose packages live at random, and what is to come of them.
type life struct {
	*mill
	*rand.Rand
	places  *spool.Tree
	kind    string
	judge   *openpgp.Signer // who signs what was built
	sources []*grown
	archs   []string              // of the suite
	held    map[string]*heldBuild // of an architecture
	done    []string
	weary   bool // comes to rest before its time
	sure    int  // things that the model knew
	unsure  int
}

func newLife(t *testing.T, seed uint64) *life {
	kind := lifeKinds[seed%uint64(len(lifeKinds))]
	publish, lines := kind, []string{"Architectures: amd64 i386", "Tries: 100"}
	if kind == "signed by a person" {
		publish, lines = "source-first", append(lines, "Log-Review: manual")
	}
	l := &life{mill: newMill(t, append(lines, "Publish: "+publish)...), Rand: rand.New(rand.NewPCG(seed, 0)), kind: kind,
		archs: []string{"amd64", "i386"}, held: map[string]*heldBuild{}}
	l.builderTakes(1) // so that what is built after what is the seed's choice
	l.judge = l.person("judge", "sign")
	var err error
	l.places, err = spool.Open(l.tree)
	l.must(err)
	l.once("archived") // which makes the suite
	for i, name := range []string{"ant", "bee", "cat"} {
		l.sources = append(l.sources, newGrown(name, i == 1))
	}
	return l
}

// note keeps what was done.
func (l *life) note(format string, args ...any) {
	l.done = append(l.done, fmt.Sprintf("%d: ", len(l.done))+fmt.Sprintf(format, args...))
}

// pick takes one of some things.
func pick[T any](l *life, of ...T) T { return of[l.IntN(len(of))] }

// oneStep does one thing: what cannot be done is not one.
func (l *life) oneStep() {
	l.Helper()
	for n := len(l.done); n == len(l.done); {
		l.tryOne()
	}
	for _, arch := range []string{"amd64", "i386"} {
		l.reap(arch)
	}
}

func (l *life) tryOne() {
	l.Helper()
	g := pick(l, l.sources...)
	arch := pick(l, l.archsOf(g)...)
	switch n := l.IntN(100); {
	case n < 14:
		l.grow(g)
	case n < 48:
		d := pick(l, "reviewd", "master-buildd", "master-buildd", "archived", "buildd-amd64", "buildd-i386")
		l.note("%s", d)
		l.once(d)
	case n < 64:
		l.order(g, arch, pick(l, "gb", "gb", "nmu", "nmu", "nfu", "cancel", "fail", "dw", "take"))
	case n < 71:
		l.takeOut(g)
	case n < 82:
		l.moveOne(g)
	case n < 86:
		l.mend(g, arch)
	case n < 97:
		l.holdOrEnd(pick(l, "amd64", "i386"))
	default:
		l.otherArchs()
	}
}

// archsOf are the architectures of a source's jobs.
func (l *life) archsOf(g *grown) []string {
	if g.all {
		return []string{"all"}
	}
	return l.archs
}

// script is the instant builder's orders for a job.
func (k key) script(g *grown) string { return fmt.Sprintf("%s_1.%d_%s", g.name, k.version, k.arch) }

// fails reports whether builds of a job fail.
func (l *life) fails(g *grown, k key) bool {
	_, err := os.Stat(filepath.Join(l.home, "script", k.script(g)))
	return err == nil
}

// grow uploads the next version, some of whose builds fail.
func (l *life) grow(g *grown) {
	l.Helper()
	g.newest++
	for _, arch := range []string{"amd64", "i386", "all"} {
		if k := (key{g.newest, arch, 0}); l.IntN(5) == 0 {
			l.script(k.script(g), "fail it")
		}
	}
	p := uploadtest.Package{Source: g.name, Version: fmt.Sprintf("1.%d", g.newest)}
	if g.all {
		p.Architecture = "all"
	}
	l.note("upload %s %s", g.name, p.Version)
	l.upload(p)
}

// jobOf is the job that people mean, and its key.
func (l *life) jobOf(g *grown, arch string) (*spool.Found, key) {
	l.Helper()
	f, err := queue.Lookup(l.places, "stable", arch, g.name)
	l.must(err)
	if f == nil {
		return nil, key{}
	}
	return f, l.keyOf(*f)
}

func (l *life) keyOf(f spool.Found) key {
	l.Helper()
	t, err := queue.TicketAt(l.places, f)
	l.must(err)
	n, err := strconv.Atoi(strings.TrimPrefix(f.Name.Version, "1."))
	l.must(err)
	return key{n, t.BuildArch, t.BinNMU}
}

// wbLine is what packmill wb says of one job.
type wbLine struct {
	From, To, Refusal string
	Done              bool
}

// order says a word of wb, and what follows from it if it is done.
func (l *life) order(g *grown, arch, word string) {
	l.Helper()
	if l.kind == "together" && (word == "dw" || word == "take") {
		return // then the source waits too
	}
	job, k := l.jobOf(g, arch)
	if job == nil {
		return
	}
	args := []string{"wb", word}
	if word == "nmu" {
		k.binNMU = l.nextNMU(g, k)
		args = append(args, strconv.Itoa(k.binNMU))
	}
	args = append(args, job.Name.ID(), ".", arch, ".", "stable", "--json")
	if word != "nmu" {
		args = append(args, "--override")
	}
	if text := map[string]string{"nmu": "again", "fail": "no", "nfu": "no", "dw": "libnowhere"}[word]; text != "" {
		args = append(args, "-m", text)
	}
	out, _ := l.try(args...)
	var line wbLine
	if err := json.Unmarshal([]byte(out), &line); err != nil {
		l.Fatalf("packmill %s, of %s: %v in %s", strings.Join(args, " "), job.Dir(), err, out)
	}
	l.note("packmill %s: %s -> %s %s", strings.Join(args, " "), line.From, line.To, line.Refusal)
	if line.Done {
		l.ordered(g, k, word, line.From)
	}
}

// nextNMU is the number of the next binNMU: higher than all before.
func (l *life) nextNMU(g *grown, k key) int {
	n := 1
	for other := range g.jobs {
		if other.version == k.version && other.arch == k.arch {
			n = max(n, other.binNMU+1)
		}
	}
	return n
}

// takeOut removes a source from the suite.
func (l *life) takeOut(g *grown) {
	l.Helper()
	current := l.published()[g.name+" source"]
	if current == "" {
		return
	}
	l.note("packmill archive rm stable %s, which is %s", g.name, current)
	l.packmill("archive", "rm", "stable", g.name, "--yes")
	n, err := strconv.Atoi(strings.TrimPrefix(current, "1."))
	l.must(err)
	g.takenOut(n)
	l.weary = l.IntN(2) == 0 // before a newer version is there, too
}

// mend makes the newest version build, and gives it back.
func (l *life) mend(g *grown, arch string) {
	l.Helper()
	k := key{g.newest, arch, 0}
	if len(l.held) > 0 || !l.fails(g, k) {
		return
	}
	l.note("%s is mended", k.script(g))
	l.script(k.script(g), "")
	l.order(g, arch, "gb")
}

// heldBuild is a builder with a build that ends when its file is there.
type heldBuild struct {
	cmd   *exec.Cmd
	ended chan struct{}
	file  string
	id    string // SOURCE_VERSION_ARCH
}

// holdOrEnd begins a build that lasts, or ends the one there is: by itself, or its builder
// dies.
func (l *life) holdOrEnd(arch string) {
	l.Helper()
	if l.held[arch] != nil {
		l.end(arch, l.IntN(3) == 0)
		return
	}
	// The builder takes the oldest that it may, so all of them would last.
	h := &heldBuild{file: filepath.Join(l.home, fmt.Sprintf("end%d", len(l.done))), ended: make(chan struct{})}
	scripts := map[string]string{}
	for _, f := range l.found("", spool.NeedsBuild) {
		if f.Place.Arch == arch || f.Place.Arch == "all" && arch == "amd64" {
			path := filepath.Join(l.home, "script", f.Name.ID()+"_"+f.Place.Arch)
			orders, _ := os.ReadFile(path)
			scripts[path] = string(orders)
			l.must(os.WriteFile(path, []byte("wait "+h.file+"\n"+string(orders)), 0o644))
		}
	}
	begun := len(l.begun())
	h.cmd = l.command(l.Context(), "buildd-"+arch, "--once")
	l.must(h.cmd.Start())
	l.Cleanup(func() { l.end(arch, true) })
	go func() {
		h.cmd.Wait()
		close(h.ended)
	}()
	l.until("a build has begun, or there is none", func() bool { return len(l.begun()) > begun || h.over() })
	for path, orders := range scripts {
		if orders == "" {
			l.must(os.Remove(path))
		} else {
			l.must(os.WriteFile(path, []byte(orders), 0o644))
		}
	}
	now := l.begun()
	if len(now) == begun {
		return
	}
	h.id = strings.Fields(now[begun])[2]
	l.note("a build of %s begins", h.id)
	l.held[arch] = h
}

func (h *heldBuild) over() bool {
	select {
	case <-h.ended:
		return true
	default:
		return false
	}
}

// begun are the instant builder's lines of builds that began.
func (l *life) begun() []string {
	l.Helper()
	data, err := os.ReadFile(filepath.Join(l.home, "builds"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.Fatal(err)
	}
	return slices.DeleteFunc(strings.Split(strings.TrimSpace(string(data)), "\n"), func(line string) bool {
		return !strings.Contains(line, " begin ")
	})
}

// reap lets a builder go on whose build somebody has ended.
func (l *life) reap(arch string) {
	l.Helper()
	h := l.held[arch]
	if h == nil || slices.ContainsFunc(l.found("", spool.Building), func(f spool.Found) bool {
		return f.Name.ID()+"_"+f.Place.Arch == h.id
	}) {
		return
	}
	l.end(arch, false)
}

// end ends a held build, and waits for its builder.
func (l *life) end(arch string, death bool) {
	l.Helper()
	h := l.held[arch]
	if h == nil {
		return
	}
	delete(l.held, arch)
	if death {
		l.note("the builder of %s dies", h.id)
		h.cmd.Process.Kill()
	} else {
		l.note("the build of %s ends", h.id)
	}
	l.must(os.WriteFile(h.file, nil, 0o644))
	<-h.ended
}

// otherArchs drops an architecture of the suite, or takes it back.
func (l *life) otherArchs() {
	l.Helper()
	if l.held["i386"] != nil {
		return
	}
	was, now := "Architectures: amd64 i386", "Architectures: amd64"
	if l.archs = []string{"amd64"}; !strings.Contains(l.suites(), was) {
		l.archs, was, now = []string{"amd64", "i386"}, now, was
	}
	l.note("%s", now)
	has := l.published()
	l.control("suites", strings.TrimSpace(strings.Replace(l.suites(), was, now, 1)))
	l.mill.step("archived", "master-buildd")
	for _, g := range l.sources {
		g.dropped("i386", has[g.name+" i386"], l.fresh())
	}
}

// aHand is a move that people make with mv: of a job in one of the states to another one.
// What it says of the job is a word of order, "" for nothing.
type aHand struct {
	from []spool.State
	to   func(f spool.Found) spool.Place
	says string
}

func here(s spool.State) func(spool.Found) spool.Place {
	return func(f spool.Found) spool.Place { return spool.In(s, "stable", f.Place.Arch) }
}

var hands = []aHand{
	{[]spool.State{spool.NeedsBuild}, here(spool.Failed), "fail"},
	{[]spool.State{spool.NeedsBuild, spool.BuildAttempted, spool.Failed}, here(spool.Attic), "cancel"},
	{[]spool.State{spool.BuildAttempted, spool.Failed, spool.DepWait}, here(spool.NeedsBuild), "gb"},
	{[]spool.State{spool.NeedsBuild, spool.Built, spool.BuildAttempted, spool.Failed}, here(spool.Uploaded), "attempted"},
	{[]spool.State{spool.Built}, here(spool.Uploaded), "signed"},
	{[]spool.State{spool.NeedsBuild, spool.Built, spool.BuildAttempted, spool.DepWait}, here(spool.Master), "attempted"},
	{[]spool.State{spool.NeedsBuild, spool.Built, spool.Failed}, here(spool.Rejected), "attempted"},
	{[]spool.State{spool.NeedsBuild, spool.BuildAttempted}, here(spool.Built), "attempted"},
	{[]spool.State{spool.NeedsBuild, spool.Built}, func(spool.Found) spool.Place {
		return spool.In(spool.NeedsBuild, "stable", "arm64")
	}, "attempted"},
}

// moveOne moves a job of the source by hand; what was built a person mostly signs before.
func (l *life) moveOne(g *grown) {
	l.Helper()
	all := l.found(g.name)
	h := pick(l, hands...)
	if l.IntN(2) == 0 {
		h = hands[4]
	}
	jobs := slices.DeleteFunc(all, func(f spool.Found) bool {
		built, _ := filepath.Glob(filepath.Join(l.tree, f.Dir(), "result/*.changes"))
		// What a hand has put into built has nothing to sign, until a daemon sees it.
		return !f.IsJob() || !slices.Contains(h.from, f.Place.State) || h.says == "signed" && len(built) == 0
	})
	if len(jobs) == 0 {
		return
	}
	f := pick(l, jobs...)
	to, k := h.to(f), l.keyOf(f)
	if h.says == "signed" {
		l.sign(f)
	}
	l.must(os.MkdirAll(filepath.Join(l.tree, to.Dir()), 0o775))
	at := filepath.Join(l.tree, to.Dir(), f.Name.String())
	if err := os.Rename(filepath.Join(l.tree, f.Dir()), at); errors.Is(err, fs.ErrExist) {
		return // a source and its job have one name
	} else if err != nil {
		l.Fatal(err)
	}
	l.note("mv %s %s/, which says: %s", f.Dir(), to.Dir(), h.says)
	l.ordered(g, k, h.says, f.Place.State.Name)
}

// sign signs what was built.
func (l *life) sign(f spool.Found) {
	l.Helper()
	path := l.one(f.Dir() + "/result/*.changes")
	data, err := os.ReadFile(path)
	l.must(err)
	if strings.HasPrefix(string(data), "-----BEGIN") {
		return
	}
	signed, err := l.judge.Clearsign(data, time.Now())
	l.must(err)
	l.must(os.WriteFile(path, signed, 0o644))
}
