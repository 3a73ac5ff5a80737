// Package viewtest makes trees to look at: as many packages as one likes, in all
// states, with histories, builds, logs and a journal. Nothing in them was built.
package viewtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"packmill/queue"
	"packmill/queue/buildlog"
	"packmill/spool"
)

// Size says how much there is.
type Size struct {
	Packages int
	Archs    []string
	Building int  // builds that run
	Bare     bool // only the directories, but of builds that run: enough of hundreds of thousands for a measurement
}

// Suite is the suite of such a tree.
const Suite = "sid"

// Archs are architectures of Debian.
var Archs = []string{"amd64", "arm64", "armel", "armhf", "i386", "mips64el", "ppc64el", "riscv64", "s390x"}

// maker makes one tree.
type maker struct {
	*spool.Tree
	size  Size
	rand  *rand.Rand
	now   time.Time
	moves []string // lines of the journal
	left  int      // builds that are still to run

	broken []queue.Ticket // what fails and was built before
	kept   errgroup.Group // the records of builds
}

// Make makes a tree at dir. The same size gives the same tree, but for the time.
func Make(dir string, size Size) (*spool.Tree, error) {
	t, err := spool.Init(dir)
	if err != nil {
		return nil, err
	}
	m := &maker{Tree: t, size: size, rand: rand.New(rand.NewPCG(1, 2)), now: time.Now().UTC().Truncate(time.Microsecond),
		left: size.Building}
	m.kept.SetLimit(64)
	for name, text := range map[string]string{
		"suites": fmt.Sprintf("Suite: %s\nArchitectures: %s\nReview: new\nLog-Review: manual\n\n"+
			"Suite: secret\nArchitectures: %s\nHidden: yes\n",
			Suite, strings.Join(size.Archs, " "), size.Archs[0]),
		"builders": fmt.Sprintf("Name: one\nArchitectures: %s all\nRunner: exec /bin/true\n", strings.Join(size.Archs,
			" ")),
	} {
		if err := os.WriteFile(t.Path("control", name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	for i := range size.Packages {
		if err := m.pack(i); err != nil {
			return nil, err
		}
	}
	for _, job := range m.broken {
		job.Version = "0.9-1"
		p := spool.In(spool.Installed, Suite, job.BuildArch).Of(job.Source)
		if err := m.item(p, job.Received.AddDate(0, -1, 0), job, job.BuildArch, "published"); err != nil {
			return nil, err
		}
	}
	if !size.Bare {
		if err := m.publish(); err != nil {
			return nil, err
		}
	}
	return t, errors.Join(m.kept.Wait(), m.journal(), t.LearnNames())
}

// Name is that of the package with a number.
func Name(i int) string {
	syllables := []string{"li", "ka", "po", "ter", "mon", "dra", "so", "net", "gra", "fi", "zu", "bel"}
	name := ""
	for n := i + 12; n > 0; n /= 12 {
		name = syllables[n%12] + name
	}
	if i%3 == 0 {
		name = "lib" + name
	}
	return name
}

// version is that of the package with a number.
func version(i int) string { return fmt.Sprintf("%d.%d-%d", 1+i%5, i%23, 1+i%4) }

// pack makes one package in all its places.
func (m *maker) pack(i int) error {
	name, version := Name(i), version(i)
	accepted := m.now.Add(-time.Duration(m.rand.IntN(60*24*60)) * time.Minute)
	tk := queue.Ticket{Source: name, Version: version, Suite: Suite, Component: "main", Section: "devel",
		Priority:     "optional",
		Architecture: []string{"any"}, Binary: []string{name, name + "-dev"}, Uploader: "ada",
		Maintainer: "Ada Example <ada@example.org>", ChangedBy: "Ada Example <ada@example.org>", Received: accepted,
		Changes: name + "_" + version + "_source.changes"}
	if i%97 == 5 {
		return m.item(spool.In(spool.Review, Suite), accepted, tk, "", "waits for a reviewer")
	}
	if i%211 == 7 {
		return m.item(spool.In(spool.Rejected), accepted, tk, "", "the source is not signed by a key that may upload it")
	}
	open := false
	for _, arch := range m.size.Archs {
		job := tk
		job.BuildArch = arch
		state, reason := m.fate(i)
		open = open || state != spool.Installed
		if err := m.item(spool.In(state, Suite, arch).Of(name), accepted, job, arch, reason); err != nil {
			return err
		}
		if state == spool.BuildAttempted && i%2 == 0 {
			m.broken = append(m.broken, job)
		}
	}
	if open {
		return m.item(spool.In(spool.Master, Suite), accepted, tk, "", "its jobs were made")
	}
	return m.item(spool.In(spool.Installed, Suite, spool.SourceArch).Of(name), accepted, tk, "", "published")
}

// fate is where a job lies, and why.
func (m *maker) fate(i int) (spool.State, string) {
	if m.left > 0 && i%2 == 0 {
		m.left--
		return spool.Building, "taken by buildd-one"
	}
	switch n := m.rand.IntN(1000); {
	case n < 40:
		return spool.NeedsBuild, "accepted"
	case n < 55:
		return spool.BuildAttempted, "the build failed: src/main.c:17:9: error: unknown type name 'frob_t'"
	case n < 63:
		return spool.DepWait, "it waits for " + Name(m.rand.IntN(max(1, i))) + "-dev (>= 2)"
	case n < 68:
		return spool.Built, "built; the log waits for a signature"
	case n < 72:
		return spool.Failed, "a fault of the source: bug 123456"
	case n < 74:
		return spool.NotForUs, "needs a processor that this architecture has not"
	}
	return spool.Installed, "published"
}

// item makes an item that came where it is some time ago.
func (m *maker) item(p spool.Place, accepted time.Time, tk queue.Ticket, arch, reason string) error {
	n := spool.NewName(spool.NormalClass, accepted, tk.Source, tk.Version)
	if p.State == spool.Uploaded || p.State == spool.Attic {
		n.Arch = arch
	}
	dir := m.Path(p.Dir(), n.String())
	if err := os.MkdirAll(dir, 0o775); err != nil || m.size.Bare && p.State != spool.Building {
		return err
	}
	since := accepted.Add(time.Duration(m.rand.Int64N(int64(m.now.Sub(accepted)) + 1)))
	if p.State == spool.Building {
		since = m.now.Add(-time.Duration(m.rand.IntN(3600)) * time.Second)
	}
	from, who := "new", "reviewd"
	history := ""
	line := func(at time.Time, to, reason string) {
		history += fmt.Sprintf("%s\t%s\t%s\t%s\t%s\n", at.Format(time.RFC3339Nano), from, to, who, reason)
		if m.now.Sub(at) < 24*time.Hour {
			data, err := json.Marshal(map[string]any{"time": at, "from": from, "to": to, "who": who, "reason": reason,
				"item": n.String()})
			if err == nil {
				m.moves = append(m.moves, string(data))
			}
		}
		from = to
	}
	if arch != "" {
		who = "master-buildd"
		line(accepted, spool.In(spool.NeedsBuild, Suite, arch).Dir(), "accepted")
		if p.State == spool.DepWait {
			tk.DepWait = strings.TrimPrefix(reason, "it waits for ")
		}
		if p.State != spool.NeedsBuild && p.State != spool.DepWait && p.State != spool.NotForUs {
			who, tk.Builder, tk.BuiltBy = "buildd-"+arch, "buildd-"+arch+"/one", "one"
			begun := since
			if p.State != spool.Building {
				begun = since.Add(-time.Duration(30+m.rand.IntN(4000)) * time.Second)
			}
			tk.Begun = begun
			line(begun, spool.In(spool.Building, Suite, arch).Dir(), "taken by buildd-"+arch)
			if err := m.build(dir, p.State, tk, arch, begun, since); err != nil {
				return err
			}
		}
	}
	if from != p.Dir() {
		line(since, p.Dir(), reason)
	}
	files := map[string]string{spool.TicketFile: string(tk.Stanza().Append(nil)), spool.HistoryFile: history}
	if p.State == spool.DepWait || p.State == spool.BuildAttempted || p.State == spool.Failed ||
		p.State == spool.Rejected {
		files[spool.ReasonFile] = strings.TrimPrefix(reason, "it waits for ") + "\n"
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o664); err != nil {
			return err
		}
	}
	return nil
}

// build writes the log of a build, and what it took.
func (m *maker) build(dir string, s spool.State, tk queue.Ticket, arch string, begun, ended time.Time) error {
	bad := s == spool.BuildAttempted || s == spool.Failed
	log := filepath.Join(dir, buildlog.LogFile)
	if err := os.WriteFile(log, []byte(Log(tk.Source, 200, bad)), 0o664); err != nil || s == spool.Building {
		return err
	}
	b := buildlog.Build{Source: tk.Source, Version: tk.Version, Suite: Suite, Arch: arch, Builder: tk.Builder,
		Start:   begun,
		Outcome: buildlog.Good, Wait: 60, Wall: ended.Sub(begun).Seconds(), CPU: ended.Sub(begun).Seconds() * 1.6,
		Memory: 400 << 20, Disk: 900 << 20}
	if bad {
		e, err := buildlog.FindIn(log)
		if err != nil {
			return err
		}
		b.Outcome, b.Reason, b.Error = buildlog.Attempted, "the build failed", e
		if err := os.WriteFile(filepath.Join(dir, buildlog.FirstErrorFile), []byte(e.Lines()), 0o664); err != nil {
			return err
		}
	}
	m.kept.Go(func() error { // each waits for the disk
		if err := (buildlog.Store{Dir: m.Path(spool.LogsDir)}).Keep(log, &b); err != nil {
			return err
		}
		return b.AddTo(dir)
	})
	return nil
}

// Log is a log as sbuild writes it.
func Log(source string, lines int, bad bool) string {
	var b strings.Builder
	section := func(name string) {
		bar := "+" + strings.Repeat("-", 78) + "+\n"
		fmt.Fprintf(&b, "\n%s| %-77s|\n%s\n", bar, name, bar)
	}
	fmt.Fprintf(&b, "sbuild (Debian sbuild) 0.85.0 on one\n")
	section("Install package build dependencies")
	for i := range 20 {
		fmt.Fprintf(&b, "Get:%d file:/build/lib%d-dev (1.%d-1) [12.3 kB]\n", i, i, i)
	}
	section("Build")
	fmt.Fprintf(&b, "dpkg-buildpackage: info: source package %s\n", source)
	for i := range lines {
		fmt.Fprintf(&b, "gcc -g -O2 -Wall -c -o src/part%d.o src/part%d.c\n", i, i)
	}
	if bad {
		b.WriteString("src/main.c:17:9: error: unknown type name 'frob_t'; did you mean 'float_t'?\n" +
			"   17 |         frob_t x;\n" +
			"      |         ^~~~~~\nmake[1]: *** [Makefile:12: src/main.o] Error 1\n" +
			"make: *** [debian/rules:8: binary] Error 2\n" +
			"dpkg-buildpackage: error: debian/rules binary subprocess returned exit status 2\n")
	}
	section("Summary")
	b.WriteString("Build-Time: 42\n")
	return b.String()
}

// journal writes the moves of the last day.
func (m *maker) journal() error {
	days := map[string]string{}
	for _, line := range m.moves {
		var at struct{ Time time.Time }
		if err := json.Unmarshal([]byte(line), &at); err != nil {
			return err
		}
		days[at.Time.Format("2006-01-02")] += line + "\n"
	}
	for day, text := range days {
		lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
		if err := os.WriteFile(m.Path("journal", day), []byte(sorted(lines)), 0o664); err != nil {
			return err
		}
	}
	return nil
}

// sorted sorts lines of a journal by their times.
func sorted(lines []string) string {
	slices.SortFunc(lines, func(a, b string) int {
		at := func(line string) string {
			_, rest, _ := strings.Cut(line, `"time":"`)
			return rest
		}
		return strings.Compare(at(a), at(b))
	})
	return strings.Join(lines, "\n") + "\n"
}
