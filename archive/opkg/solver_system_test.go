//go:build system

package opkg

import (
	"bytes"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"packmill/internal/deb822"
	"packmill/internal/policy"
)

// bookworm is the list of Debian's packages for amd64, as apt has it.
func bookworm(t *testing.T) []byte {
	t.Helper()
	out, err := exec.Command("apt-get", "indextargets", "--format", "$(SUITE) $(COMPONENT) $(ARCHITECTURE) $(FILENAME)",
		"Created-By: Packages").Output()
	if err != nil {
		t.Fatalf("apt-get indextargets: %v", err)
	}
	var file string
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) == 4 && f[1] == "main" && f[2] == "amd64" && !strings.Contains(f[0], "-") && file == "" {
			file = f[3]
		}
	}
	text, err := exec.Command("/usr/lib/apt/apt-helper", "cat-file", file).Output()
	if err != nil || len(text) < 10<<20 {
		t.Fatalf("the list of main, %q: %d bytes, %v\n"+
			"this test needs a Debian machine with a package mirror: run apt-get update", file, len(text), err)
	}
	return text
}

// feedOf is the feed that the list would be, its packages left out.
func feedOf(t *testing.T, list []byte) []deb822.Stanza {
	t.Helper()
	var all names
	if err := all.scan(list); err != nil {
		t.Fatal(err)
	}
	known := newNamer()
	known.take(ask(&all, &names{}))
	var out []deb822.Stanza
	s := deb822.NewScanner(bytes.NewReader(list))
	for s.Next() {
		st, err := deb822.ParseOne("Packages", append(bytes.Clone(bytes.TrimRight(s.Raw(), "\n")), '\n'), deb822.Hostile)
		if err != nil {
			t.Fatal(err)
		}
		text, err := entry(nil, st, st.Get("Description"), "pool/"+st.Get("Filename"), Info{Size: 1}, "amd64", known,
			Options{})
		if err != nil {
			t.Fatalf("%s: %v", st.Get("Package"), err)
		}
		if st, err = deb822.ParseOne("feed", bytes.TrimSuffix(text, []byte("\n")), deb822.Hostile); err != nil {
			t.Fatal(err)
		}
		out = append(out, *st)
	}
	return out
}

// A reading is what a solver makes of a list: which packages fulfil a relation, and
// which cannot stand together.
type reading struct {
	name string

	// fulfils reports whether p fulfils a relation because of one of its names: its own, or
	// one that it provides with the version of the field ("": with none).
	fulfils func(p *pack, r policy.Relation, provided bool, version string) bool

	// excludes are the fields whose relations exclude what fulfils them.
	excludes []string

	// alone says that no package stands beside one that provides its name.
	alone bool
}

var readings = []reading{
	// Policy 7.5: a relation with a version is fulfilled by what is provided with one.
	{"dpkg", func(p *pack, r policy.Relation, provided bool, version string) bool {
		if provided && version == "" {
			return r.Op == ""
		}
		return r.SatisfiedBy(version)
	}, []string{"Conflicts", "Breaks"}, false},

	// pkg2solvable in solvers/libsolv/opkg_solver_libsolv.c: Replaces is Obsoletes, which
	// between packages that are to be installed excludes (libsolv's rules.c,
	// SOLVER_RULE_PKG_OBSOLETES), by what is provided too (POOL_FLAG_OBSOLETEUSESPROVIDES).
	// A package does not stand beside one that provides its name
	// (POOL_FLAG_IMPLICITOBSOLETEUSESPROVIDES, SOLVER_RULE_PKG_IMPLICIT_OBSOLETES). What is
	// provided has no version, and fulfils no relation that has one (DISTTYPE_DEB).
	{"libsolv", func(p *pack, r policy.Relation, provided bool, _ string) bool {
		if provided {
			return r.Op == ""
		}
		return r.SatisfiedBy(p.version)
	}, []string{"Conflicts", "Replaces"}, true},

	// version_constraints_satisfied in libopkg/pkg_depends.c, of the solver that upstream
	// had at first and the others have: the version is always the package's own.
	// is_pkg_a_replaces: Replaces alone is about files.
	{"internal", func(p *pack, r policy.Relation, _ bool, _ string) bool {
		return r.SatisfiedBy(p.version)
	}, []string{"Conflicts"}, false},
}

// A pack is a package as a solver sees it.
type pack struct {
	name, version string
	needs         [][]int // of each relation, who fulfils it
	not           []int   // who cannot stand beside it
}

// A world is a list as a solver reads it.
type world struct {
	packs   []*pack
	chosen  []bool
	blocked []int
	trail   []int
	steps   int
}

type offer struct {
	pack     int
	provided bool
	version  string
}

func (m *reading) world(t *testing.T, list []deb822.Stanza) *world {
	t.Helper()
	parse := func(i int, field string) policy.Relations {
		rels, err := policy.ParseRelations(list[i].Get(field))
		if err != nil {
			t.Fatalf("%s: %s: %v", list[i].Get("Package"), field, err)
		}
		return rels
	}
	w := &world{packs: make([]*pack, len(list)), chosen: make([]bool, len(list)), blocked: make([]int, len(list))}
	offers := map[string][]offer{}
	for i := range list {
		p := &pack{name: list[i].Get("Package"), version: list[i].Get("Version")}
		w.packs[i] = p
		offers[p.name] = append(offers[p.name], offer{i, false, p.version})
		for _, or := range parse(i, "Provides") {
			offers[or[0].Name] = append(offers[or[0].Name], offer{i, true, or[0].Version})
		}
	}
	who := func(or []policy.Relation) (out []int) {
		for _, r := range or {
			for _, o := range offers[r.Name] {
				if m.fulfils(w.packs[o.pack], r, o.provided, o.version) && !slices.Contains(out, o.pack) {
					out = append(out, o.pack)
				}
			}
		}
		return out
	}
	exclude := func(i, j int) {
		if i != j {
			w.packs[i].not = append(w.packs[i].not, j)
			w.packs[j].not = append(w.packs[j].not, i)
		}
	}
	for i, p := range w.packs {
		for _, field := range []string{"Pre-Depends", "Depends"} {
			for _, or := range parse(i, field) {
				p.needs = append(p.needs, who(or))
			}
		}
		for _, field := range m.excludes {
			for _, or := range parse(i, field) {
				for _, j := range who(or) {
					exclude(i, j)
				}
			}
		}
		for _, o := range offers[p.name] {
			if o.pack != i && (!o.provided || m.alone) {
				exclude(i, o.pack)
			}
		}
	}
	return w
}

// place chooses a package and all that it cannot do without; what is left to choose is
// added to open.
func (w *world) place(i int, open *[][]int) bool {
	if w.chosen[i] {
		return true
	}
	if w.blocked[i] > 0 {
		return false
	}
	w.steps++
	w.chosen[i] = true
	w.trail = append(w.trail, i)
	for _, j := range w.packs[i].not {
		w.blocked[j]++
	}
	for _, or := range w.packs[i].needs {
		switch len(or) {
		case 0:
			return false
		case 1:
			if !w.place(or[0], open) {
				return false
			}
		default:
			*open = append(*open, or)
		}
	}
	return true
}

func (w *world) undo(to int) {
	for _, i := range w.trail[to:] {
		w.chosen[i] = false
		for _, j := range w.packs[i].not {
			w.blocked[j]--
		}
	}
	w.trail = w.trail[:to]
}

// solve makes the choices that are open.
func (w *world) solve(open [][]int) bool {
	for n, or := range open {
		if slices.ContainsFunc(or, func(i int) bool { return w.chosen[i] }) {
			continue
		}
		for _, i := range or {
			to := len(w.trail)
			rest := slices.Clone(open[n+1:])
			if w.steps < 100_000 && w.place(i, &rest) && w.solve(rest) {
				return true
			}
			w.undo(to)
		}
		return false
	}
	return true
}

// installable reports whether a package can be installed on a system with nothing.
func (w *world) installable(i int) bool {
	w.steps = 0
	var open [][]int
	ok := w.place(i, &open) && w.solve(open)
	w.undo(0)
	return ok
}

// TestSolvers turns Debian's list into a feed, and judges it as each client's solver reads
// it: what dpkg can install they must be able to install.
func TestSolvers(t *testing.T) {
	list := bookworm(t)
	debian, err := deb822.Parse("Packages", list,
		deb822.Limits{Size: 1 << 30, Fields: 200, Lines: 1 << 30, LineLength: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	for i := range debian { // as everywhere, on amd64
		for _, field := range []string{"Pre-Depends", "Depends", "Conflicts", "Breaks"} {
			debian[i].Set(field, strings.NewReplacer(":any", "", ":native", "").Replace(debian[i].Get(field)))
		}
	}
	feed := feedOf(t, list)
	var by [3][]bool
	for n := range readings {
		read := debian
		if n > 0 {
			read = feed
		}
		w := readings[n].world(t, read)
		by[n] = make([]bool, len(read))
		can := 0
		var worse []string
		for i := range read {
			if by[n][i] = w.installable(i); by[n][i] {
				can++
			} else if by[0][i] {
				worse = append(worse, w.packs[i].name)
			}
		}
		t.Logf("%s: can install %d of %d packages; %d not that dpkg can", readings[n].name, can, len(read), len(worse))
		// What is left needs a package that stands in for another by its name and version,
		// which no client can tell.
		if len(worse) > 12 {
			t.Errorf("%s: %s", readings[n].name, strings.Join(worse, " "))
		}
		t.Logf("%s: %s", readings[n].name, strings.Join(worse, " "))
	}
}
