//go:build linux && amd64

package crash

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"packmill/archive"
	"packmill/archive/deb/debtest"
	"packmill/spool"
	"packmill/spool/durable"
	"packmill/spool/upload/uploadtest"
)

// A stage is a prepared site of which each scenario gets a copy.
func stage(prepare func(t testing.TB) *site) func(t testing.TB) *site {
	var kept *site
	return func(t testing.TB) *site {
		t.Helper()
		if kept == nil {
			s := prepare(t)
			dir, err := os.MkdirTemp(filepath.Dir(s.dir), "packmill-crash-stage-")
			if err != nil {
				t.Fatal(err)
			}
			cleanups = append(cleanups, func() { removeTree(dir) })
			if err := CopyTree(s.tree, filepath.Join(dir, "tree")); err != nil {
				t.Fatal(err)
			}
			c := *s
			c.dir, c.tree = dir, filepath.Join(dir, "tree")
			kept = &c
		}
		s := *kept
		s.t, s.dir = t, scratch(t)
		s.tree = filepath.Join(s.dir, "tree")
		if err := CopyTree(kept.tree, s.tree); err != nil {
			t.Fatal(err)
		}
		return &s
	}
}

// then is a stage with further commands of packmill.
func then(from func(testing.TB) *site, commands ...[]string) func(testing.TB) *site {
	return func(t testing.TB) *site {
		s := from(t)
		for _, c := range commands {
			s.must("packmill", c...)
		}
		return s
	}
}

var (
	// An upload waits for a reviewer.
	desk = stage(func(t testing.TB) *site {
		s := newSite(t, "always", "together")
		s.drop(uploadtest.Package{Source: "hello"})
		s.must("reviewd", "--once")
		return s
	})
	// On amd64 one job failed, one waits and one is built; arm64 has not begun.
	queues = stage(func(t testing.TB) *site {
		s := queued(t, "together", "hello", "broken", "waiting")
		s.set("Log-Review: auto", "Log-Review: manual")
		s.must("buildd", "--arch", "amd64", "--once")
		return s
	})
	// Two suites, and in one of them a package.
	shelf = stage(func(t testing.TB) *site {
		s := builtAll(t, "together", "hello")
		suites, err := os.ReadFile(filepath.Join(s.tree, "control/suites"))
		if err != nil {
			t.Fatal(err)
		}
		s.write("control/suites", string(suites)+"\n"+strings.Replace(string(suites), "Suite: sid", "Suite: stable", 1))
		for range 2 {
			s.must("master-buildd", "--once")
			s.must("archived", "--once")
		}
		return s
	})
)

// set replaces a line of control/suites.
func (s *site) set(old, now string) {
	s.t.Helper()
	data, err := os.ReadFile(filepath.Join(s.tree, "control/suites"))
	if err != nil || !strings.Contains(string(data), old) {
		s.t.Fatalf("control/suites: no %q: %v", old, err)
	}
	s.write("control/suites", strings.Replace(string(data), old, now, 1))
}

// verbs are the commands of packmill that change something. What each comes to
// is not written here: it is what it comes to when nothing strikes it.
var verbs = []scenario{
	command(desk, reviewd, "review hold hello -m later"),
	command(desk, reviewd, "review ask hello -m why"),
	command(queues, masterd, "wb gb broken . amd64"),
	command(queues, masterd, "wb fail broken . amd64 . sid . -m no"),
	command(queues, masterd, "wb dw hello . arm64 . sid . -m libfoo-dev"),
	command(queues, masterd, "wb nfu hello . arm64"),
	command(queues, masterd, "wb bp 20 hello . arm64"),
	command(queues, masterd, "wb take hello . arm64"),
	command(then(queues, words("wb take hello . arm64")), masterd, "wb attempted hello . arm64 . sid . -m no"),
	command(then(queues, words("wb take hello . arm64")), masterd, "wb built hello . arm64"),
	command(queues, masterd, "wb extra-depends hello . arm64 . sid . -m libfoo-dev"),
	command(signed, masterd, "wb uploaded hello . amd64 --changes OUTSIDE/hello_1-1_amd64.changes --override"),
	command(queues, masterd, "requeue broken waiting"),
	command(shelf, masterd, "wb nmu hello . amd64 . sid . -m again"),
	command(shelf, archived, "archive copy sid stable hello"),
	moves(command(shelf, archived, "archive move sid stable hello")),
	command(shelf, archived, "archive rm sid hello"),
	command(shelf, archived, "archive override sid hello --section net"),
	command(shelf, archived, "archive snapshot create sid monday"),
	command(then(shelf, words("archive snapshot create sid monday")), archived, "archive snapshot rm monday"),
	command(then(shelf, words("archive snapshot create sid monday"), words("archive rm sid hello")), archived, "archive rollback sid monday"),
	command(garbage, archived, "archive gc --stay 1h"),
	command(outside, archived, "archive import stable OUTSIDE/repo sid --unsigned"),
	command(newcomer, archived, "archive include stable OUTSIDE/world_1-1_amd64.changes"),
}

func words(line string) []string { return strings.Fields(line) }

// outsideDir is where a scenario's files lie that are not in its tree. It is in
// the tree, under tmp, so that each copy has its own.
const outsideDir = "tmp/outside"

// command is the scenario of a command line; OUTSIDE in it is outsideDir.
func command(prepare func(testing.TB) *site, again [][]string, line string) scenario {
	return scenario{name: "packmill " + line, prepare: prepare, argv: append([]string{"packmill"}, words(line)...), again: again, compare: true}
}

// moves is a verb that takes a package from one suite to another: it is never in
// neither.
func moves(c scenario) scenario {
	c.always = regexp.MustCompile(`(?m)^(sid|stable): hello .* source$`)
	return c
}

// signed is queues, with a result that the uploader signed.
func signed(t testing.TB) *site {
	s := queues(t)
	s.mkdir(outsideDir)
	m, _ := filepath.Glob(filepath.Join(s.tree, "queue/sid/amd64/built/*_hello_*/result/*"))
	k, err := keys()
	if err != nil || len(m) == 0 {
		t.Fatal(err, m)
	}
	for _, f := range m {
		data, err := os.ReadFile(f)
		if err == nil && strings.HasSuffix(f, ".changes") {
			data, err = k[0].Clearsign(data, time.Now())
			s.write(strings.TrimPrefix(f, s.tree+"/"), string(data)) // it takes the other's place
		}
		if err != nil {
			t.Fatal(err)
		}
		s.write(filepath.Join(outsideDir, filepath.Base(f)), string(data))
	}
	return s
}

// garbage is shelf, with files that nothing has named for long.
func garbage(t testing.TB) *site {
	s := then(shelf, words("archive rm sid hello"), words("archive gc"))(t)
	const since = "archive/cache/unnamed"
	data, err := os.ReadFile(filepath.Join(s.tree, since))
	if err != nil || len(data) == 0 {
		t.Fatalf("%s: %q, %v", since, data, err)
	}
	s.write(since, regexp.MustCompile(`(?m)^\d+`).ReplaceAllString(string(data), "2001"))
	return s
}

// outside is shelf, with a copy of its archive beside it.
func outside(t testing.TB) *site {
	s := shelf(t)
	s.mkdir(outsideDir)
	s.must("packmill", "archive", "export", "sid", filepath.Join(s.tree, outsideDir, "repo"))
	return s
}

// newcomer is shelf, with a package that nobody knows beside it.
func newcomer(t testing.TB) *site {
	s := shelf(t)
	s.mkdir(outsideDir)
	_, err := debtest.Upload{
		Source: debtest.Source{Name: "world", Version: "1-1"}, Distribution: "stable",
		Debs: []debtest.Deb{{Name: "world", Version: "1-1", Arch: "amd64", Packing: "gz"}},
	}.Write(filepath.Join(s.tree, outsideDir))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *site) mkdir(rel string) {
	s.t.Helper()
	if err := os.MkdirAll(filepath.Join(s.tree, rel), 0o755); err != nil {
		s.t.Fatal(err)
	}
}

// at is the scenario's command line for a tree.
func (c *scenario) at(tree string) []string {
	var argv []string
	for _, w := range c.argv {
		argv = append(argv, strings.ReplaceAll(w, "OUTSIDE", filepath.Join(tree, outsideDir)))
	}
	return argv
}

// account is what there is to know of a tree, a line each: where the items are
// (where), and that with their facts and what the archive has (all).
type account struct{ where, all []string }

var timely = regexp.MustCompile(`\d{8}T\d{6}\.\d{6}Z|\d{4}-\d\d-\d\dT[0-9:.]+Z|\w{3}, \d\d \w{3} \d{4} [0-9:]+ [+-]\d{4}`)

func accountOf(tree string) (account, error) {
	var a account
	add := func(coarse bool, format string, args ...any) {
		line := timely.ReplaceAllString(fmt.Sprintf(format, args...), "TIME")
		if coarse {
			a.where = append(a.where, line)
		}
		a.all = append(a.all, line)
	}
	t, err := spool.Open(tree)
	if err != nil {
		return a, err
	}
	found, err := t.Find("")
	if err != nil {
		return a, err
	}
	for _, f := range found {
		add(true, "%s", f.Dir())
		err := filepath.WalkDir(t.Path(f.Dir()), func(p string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() || strings.HasPrefix(e.Name(), durable.NewPrefix) || e.Name() == spool.HistoryFile {
				return err
			}
			data, err := os.ReadFile(p)
			if e.Name() != spool.TicketFile && e.Name() != spool.ReasonFile {
				data = nil
			}
			add(false, "%s %s", strings.TrimPrefix(p, tree), data)
			return err
		})
		if err != nil {
			return a, err
		}
	}
	lib, err := archive.Open(t.Path("archive"))
	if err != nil {
		return a, err
	}
	snapshots, err := lib.Snapshots()
	if err != nil {
		return a, err
	}
	views := []string{"sid", "stable"}
	for _, s := range snapshots {
		add(true, "snapshot %s of %s", s.Name, s.Suite)
		views = append(views, s.Name+"/"+s.Suite)
	}
	for _, v := range views {
		list, err := lib.List(context.Background(), v, "")
		if err != nil && !errors.Is(err, archive.ErrNoSuite) {
			return a, err
		}
		for _, e := range list {
			text, err := lib.Show(context.Background(), v, e.Package)
			if err != nil {
				return a, err
			}
			add(true, "%s: %s %s %s", v, e.Package, e.Version, cmp.Or(e.Arch, "source"))
			add(false, "%s: %s", v, strings.Join(text, "\n"))
		}
	}
	for _, dir := range []string{"archive/pool", "attic"} {
		files, err := os.ReadDir(t.Path(dir))
		if err != nil {
			return a, err
		}
		for _, f := range files {
			filepath.WalkDir(t.Path(dir, f.Name()), func(p string, e fs.DirEntry, err error) error {
				if err == nil && e.Type().IsRegular() && !strings.HasPrefix(e.Name(), durable.NewPrefix) {
					add(false, "%s", strings.TrimPrefix(p, tree))
				}
				return err
			})
		}
	}
	slices.Sort(a.where)
	slices.Sort(a.all)
	return a, nil
}

// ends finds out what a verb comes to, and what stands if it never began.
func (c *scenario) ends(s *site) (before, after account, err error) {
	for i, a := range []*account{&before, &after} {
		tree := filepath.Join(s.dir, fmt.Sprint("end", i))
		if err := CopyTree(s.tree, tree); err != nil {
			return before, after, err
		}
		if argv := c.at(tree); i == 1 {
			if _, err := s.plain(tree, argv[0], argv[1:]...); err != nil {
				return before, after, err
			}
		}
		if err := s.settle(tree, c.again); err != nil {
			return before, after, err
		}
		if *a, err = accountOf(tree); err != nil {
			return before, after, err
		}
		if err := removeTree(tree); err != nil {
			return before, after, err
		}
	}
	if slices.Equal(before.all, after.all) {
		err = errors.New("it changes nothing that is looked at")
	}
	return before, after, err
}

// judge says what is wrong with a tree on which the verb was struck. If it
// said that it was done it is; if not, each thing is as before or as after, and
// giving the command again brings all of it.
func (c *scenario) judge(s *site, tree string, before, after account, acknowledged bool) []string {
	got, err := accountOf(tree)
	if err != nil {
		return []string{err.Error()}
	}
	var broken []string
	if c.always != nil && !c.always.MatchString(strings.Join(got.where, "\n")) {
		broken = append(broken, fmt.Sprintf("nothing matches %s: %q", c.always, got.where))
	}
	if slices.Equal(got.all, after.all) {
		return broken
	}
	if acknowledged {
		return append(broken, "it said that it was done: "+differ(got.all, after.all))
	}
	for _, line := range got.where {
		if !slices.Contains(before.where, line) && !slices.Contains(after.where, line) {
			broken = append(broken, "neither before nor after has: "+line)
		}
	}
	for _, line := range before.where {
		if slices.Contains(after.where, line) && !slices.Contains(got.where, line) {
			broken = append(broken, "lost: "+line)
		}
	}
	argv := c.at(tree)
	if _, err := s.plain(tree, argv[0], argv[1:]...); err != nil {
		return append(broken, fmt.Sprintf("said again: %v; it was: %s", err, differ(got.all, after.all)))
	}
	if err := s.settle(tree, c.again); err != nil {
		return append(broken, "said again: "+err.Error())
	}
	if got, err = accountOf(tree); err != nil {
		return append(broken, err.Error())
	}
	if !slices.Equal(got.all, after.all) {
		broken = append(broken, "said again: "+differ(got.all, after.all))
	}
	return broken
}

// differ shows the lines that are not in both.
func differ(got, want []string) string {
	var b strings.Builder
	for _, l := range got {
		if !slices.Contains(want, l) {
			fmt.Fprintf(&b, "\n+ %s", l)
		}
	}
	for _, l := range want {
		if !slices.Contains(got, l) {
			fmt.Fprintf(&b, "\n- %s", l)
		}
	}
	return b.String()
}
