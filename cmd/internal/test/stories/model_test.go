package stories

import (
	"bufio"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/textproto"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// grown is what the model knows of a source, which has the versions 1.1, 1.2 and on.
type grown struct {
	name   string
	all    bool // its package is for all
	newest int  // that was uploaded
	dead   int  // this one and all before were taken out of the suite
	jobs   map[key]*fate
	nfu    map[string]bool // of an architecture: not for us
	blind  map[string]bool // of an architecture: the model does not know whether it is for us
	last   map[string]key  // of an architecture: what the suite had at the last rest
}

func newGrown(name string, all bool) *grown {
	return &grown{name: name, all: all, jobs: map[key]*fate{}, nfu: map[string]bool{}, blind: map[string]bool{},
		last: map[string]key{}}
}

// key is a job of a source.
type key struct {
	version int
	arch    string
	binNMU  int
}

// String is the version of what the job builds.
func (k key) String() string {
	if k.binNMU > 0 {
		return fmt.Sprintf("1.%d+b%d", k.version, k.binNMU)
	}
	return fmt.Sprintf("1.%d", k.version)
}

// older reports whether a client has something older than other in it.
func (k key) older(other key) bool {
	return k.version < other.version || k.version == other.version && k.binNMU < other.binNMU
}

// fate is what is to become of a job.
type fate struct {
	no        string // why nothing of it is published, "" if it is
	published bool   // it was seen
}

// fresh is why nothing of a new job is published yet.
func (l *life) fresh() string {
	if l.kind == "signed by a person" {
		return "unsigned"
	}
	return ""
}

// fateOf is what is to become of a job, which begins with nothing said of it.
func (l *life) fateOf(g *grown, k key) *fate {
	f := g.jobs[k]
	if f == nil {
		f = &fate{no: l.fresh()}
		g.jobs[k] = f
	}
	return f
}

// ordered is what follows from a word that a person has said of a job in a state, by a
// command or a hand.
func (l *life) ordered(g *grown, k key, word, from string) {
	f := l.fateOf(g, k)
	g.nfu[k.arch], g.blind[k.arch] = from == "not-for-us", false
	switch word {
	case "gb":
		f.no, g.nfu[k.arch] = l.fresh(), false
	case "signed":
		if f.no == "unsigned" {
			f.no = ""
		}
	case "nfu":
		if g.nfu[k.arch] = from != "not-for-us"; !g.nfu[k.arch] {
			f.no = "taken back"
		}
	case "nmu":
		for other, f := range g.jobs {
			if other.version == k.version && other.arch == k.arch && other != k && other.binNMU > 0 && !f.published {
				f.no = "replaced"
			}
		}
	default:
		f.no = word
	}
}

// takenOut says that a version and all before are not in the suite any more. What was not
// for us was so of jobs that are no more.
func (g *grown) takenOut(version int) {
	g.dead = version
	for arch, not := range g.nfu {
		g.blind[arch] = g.blind[arch] || not
	}
}

// dropped says that the suite has lost an architecture, or has it back. What it had of the
// newest version it has again then, and all other jobs are made anew, but for what a person
// cancelled.
func (g *grown) dropped(arch, had, fresh string) {
	for k, f := range g.jobs {
		if k.arch != arch {
			continue
		}
		f.published = f.published || had == k.String()
		switch {
		case f.published:
		case k.binNMU > 0:
			f.no = "dropped"
		case f.no != "cancel":
			f.no = fresh
		}
	}
	g.blind[arch] = g.blind[arch] || g.nfu[arch]
	delete(g.last, arch)
}

// good reports whether a job's packages must be there.
func (l *life) good(g *grown, k key) bool {
	f := l.fateOf(g, k)
	return f.published || f.no == "" && !g.nfu[k.arch] && !l.fails(g, key{k.version, k.arch, 0})
}

// rest lets everything end, and looks whether all is as it must be.
func (l *life) rest() {
	l.Helper()
	l.weary = false
	for _, arch := range []string{"amd64", "i386"} {
		l.end(arch, false)
	}
	l.settle()
	l.waitsForSomething()
	l.sound()
	has := l.published()
	l.note("at rest the suite has %v", has)
	for _, g := range l.sources {
		l.mustHave(g, has)
	}
}

// mustHave holds what the suite has of a source against what it must have.
func (l *life) mustHave(g *grown, has map[string]string) {
	l.Helper()
	want := ""
	if g.newest > g.dead {
		want = key{version: g.newest}.String()
	}
	if got := has[g.name+" source"]; got != want {
		l.Errorf("the suite has the source %s %q, want %q", g.name, got, want)
	}
	for _, arch := range []string{"amd64", "i386", "all"} {
		got, k := has[g.name+" "+arch], key{arch: arch}
		if number, plus, _ := strings.Cut(strings.TrimPrefix(got, "1."), "+b"); got != "" {
			k.version, _ = strconv.Atoi(number)
			k.binNMU, _ = strconv.Atoi(plus)
		}
		newest := key{g.newest, arch, 0}
		switch {
		case got != "" && (g.all != (arch == "all") || arch == "i386" && len(l.archs) == 1):
			l.Errorf("the suite has %s %s on %s, which it is not for", g.name, got, arch)
		case got != "" && k.version <= g.dead:
			l.Errorf("the suite has %s %s on %s, and 1.%d was taken out", g.name, got, arch, g.dead)
		case k.older(g.last[arch]) && g.last[arch].version > g.dead:
			l.Errorf("the suite has %s %q on %s, and had %s", g.name, got, arch, g.last[arch])
		case g.all != (arch == "all") || arch == "i386" && len(l.archs) == 1 || want == "":
		case g.blind[arch]:
			l.unsure++
		case k.version != g.newest && l.good(g, newest):
			l.Errorf("the suite has %s %q on %s, want %s", g.name, got, arch, newest)
		case k.version == g.newest && !l.good(g, k):
			l.Errorf("the suite has %s %s on %s, of which nothing should be there: %+v, not for us %t", g.name, got, arch,
				*l.fateOf(g, k), g.nfu[arch])
		default:
			l.sure++
		}
		l.seen(g, k)
	}
}

// seen notes what the suite has; of its binNMUs it must have the last.
func (l *life) seen(g *grown, k key) {
	l.Helper()
	g.last[k.arch] = k
	if k.version != g.newest || k.version == 0 {
		return
	}
	l.fateOf(g, k).published = true
	l.fateOf(g, key{k.version, k.arch, 0}).published = true
	for other := range g.jobs {
		if other.version == k.version && other.arch == k.arch && k.older(other) && l.good(g, other) {
			l.Errorf("the suite has %s %s on %s, want %s", g.name, k, k.arch, other)
		}
	}
}

// published is what apt is told of the suite: "PACKAGE ARCH" and "SOURCE source" to its
// version, as a reader of others finds it in the indexes. Each package that they name
// is there, with that content.
func (l *life) published() map[string]string {
	l.Helper()
	has := map[string]string{}
	var paths []string
	sums := strings.Fields(l.stanzas("archive/dists/stable/Release")[0].Get("SHA256"))
	for sum := range slices.Chunk(sums, 3) { // SHA-256, size, path
		if path := sum[2]; strings.HasSuffix(path, "/Packages.gz") || strings.HasSuffix(path, "/Sources.gz") {
			paths = append(paths, path)
		}
	}
	for _, path := range paths {
		for _, st := range l.stanzas("archive/dists/stable/" + path) {
			name, arch := st.Get("Package"), st.Get("Architecture")
			if st.Get("Extra-Source-Only") == "yes" {
				continue // of what an architecture has still
			}
			if strings.HasSuffix(path, "/Sources.gz") {
				arch = "source"
			} else if data, err := os.ReadFile(filepath.Join(l.tree, "archive", st.Get("Filename"))); err != nil ||
				fmt.Sprintf("%x", sha256.Sum256(data)) != st.Get("SHA256") {
				l.Errorf("%s has %s, which is not so: %v", path, st.Get("Filename"), err)
			}
			if was, ok := has[name+" "+arch]; ok && was != st.Get("Version") {
				l.Errorf("the suite has %s on %s as %s and as %s", name, arch, was, st.Get("Version"))
			}
			has[name+" "+arch] = st.Get("Version")
		}
	}
	return has
}

// stanzas reads a file of the archive, which may be packed, as the header lines of mail are
// read.
func (l *life) stanzas(path string) (out []textproto.MIMEHeader) {
	l.Helper()
	f, err := os.Open(filepath.Join(l.tree, path))
	l.must(err)
	defer f.Close()
	in := io.Reader(f)
	if strings.HasSuffix(path, ".gz") {
		in, err = gzip.NewReader(f)
		l.must(err)
	}
	for r := textproto.NewReader(bufio.NewReader(in)); ; {
		st, err := r.ReadMIMEHeader()
		if len(st) > 0 {
			out = append(out, st)
		}
		if errors.Is(err, io.EOF) {
			return out
		}
		l.must(err)
	}
}
