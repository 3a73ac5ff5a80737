//go:build linux && amd64

package crash

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"packmill/archive"
	"packmill/cmd/internal/control"
	"packmill/cmd/internal/mail"
	"packmill/internal/deb/debtest"
	"packmill/internal/durable"
	"packmill/internal/openpgp"
	"packmill/queue"
	"packmill/spool"
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
	command(then(shelf, words("archive snapshot create sid monday"), words("archive rm sid hello")), archived,
		"archive rollback sid monday"),
	command(garbage, archived, "archive gc --stay 1h"),
	command(outside, archived, "archive import stable OUTSIDE/repo sid --unsigned"),
	command(newcomer, archived, "archive include stable OUTSIDE/world_1-1_amd64.changes"),
	command(outdated, archived, "archive export sid OUTSIDE/copy"),
	far(command(outdated, archived, "archive push all OUTSIDE/copy")),
	command(shelf, archived, "archive key rotate sid"),
	command(then(shelf, words("archive key rotate sid")), archived, "archive key rotate sid --retire"),
	command(shelf, archived, "key new another"),
	command(queues, masterd, "wb manual broken . amd64 . sid . -m mine"),
	command(queues, masterd, "wb cancel hello . arm64 . sid . -m no"),
	command(queues, masterd, "wb extra-conflicts hello . arm64 . sid . -m libfoo-dev"),
	command(queues, masterd, "wb profiles hello . arm64 . sid . -m stage1"),
	command(queues, masterd, "wb options hello . arm64 . sid . -m nocheck"),
	command(queues, masterd, "cancel hello arm64"),
	command(signed, masterd, "build sign hello --with OUTSIDE/hello_1-1_amd64.changes"),
	command(queues, masterd, "build fail broken -m no"),
	command(queues, masterd, "build retry broken"),
	command(queues, masterd, "build dep-wait broken -m libfoo-dev"),
	command(queues, masterd, "build giveback broken"),
	command(queues, masterd, "build not-for-us broken"),
	command(letters, masterd, "mail --maildir OUTSIDE/Maildir"),
	{
		name: "packmill init", prepare: func(t testing.TB) *site {
			s := &site{t: t, dir: scratch(t)}
			s.tree = filepath.Join(s.dir, "tree")
			var err error
			if s.bin, err = programs(); err == nil {
				err = os.Mkdir(s.tree, 0o755)
			}
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
		argv: words("packmill init"), again: [][]string{{"packmill", "init"}},
	},
}

// looks are the commands of packmill that change nothing, with their exit status.
var looks = map[string]int{
	"status": 0, "ls": 0, "show hello": 0, "why hello": 0, "wait nosuch --timeout 1ms": 4, "quinn-diff sid": 0,
	"completion bash": 0,
	"review ls":       0, "review show hello": 1, "build ls": 0, "build show hello": 1,
	"log show hello amd64": 0, "log ls": 0, "log grep building": 0, "wb info hello . amd64 . sid": 0,
	"archive ls sid": 0, "archive cruft sid": 0, "archive show sid hello": 0, "archive diff sid stable": 0,
	"archive check": 0, "archive snapshot ls": 0,
	// its suite has no feed
	"archive sources sid http://packmill.example": 0, "archive key export sid": 0,
	"archive opkg-conf sid amd64 http://packmill.example": 100,
	"rebuild --check hello":                               1, // the builder made no .buildinfo
	"chroot ls":                                           0,
	"config check":                                        0, "config show": 0,
	"builder ls": 0,
}

// elsewhere are those that no sweep strikes, and why.
var elsewhere = map[string]string{
	"archive serve": "runs until it is interrupted, and only reads",
	"chroot create": "changes no tree; package queue/runner kills it",
	"chroot update": "is chroot create",
	"chroot rm":     "changes no tree",

	"backup":         "only reads; what it writes is elsewhere",
	"builder add":    "a stanza and a line of authorized_keys are written whole",
	"builder rm":     "is builder add",
	"builder pause":  "is archive move's SetField: one field of a file that is written whole",
	"builder drain":  "is builder pause",
	"builder resume": "is builder pause",

	"doctor":          "only reads; its exit status is the machine's",
	"setup":           "makes accounts and units; in the tree it is init, key new and settings that are written whole",
	"uploader add":    "makes an account; a stanza and a key are written whole",
	"uploader remove": "takes an account away, and an empty directory",
	"uploader ls":     "only reads, as root",
}

// TestVerbs holds that no command that changes a tree goes without a sweep: all
// that packmill has is in one of the lists, what looks changes nothing, and with
// --dry-run nothing does.
func TestVerbs(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	listed := func(verb string) bool {
		begins := func(line string) bool { return line == verb || strings.HasPrefix(line, verb+" ") }
		for line := range looks {
			if begins(line) {
				return true
			}
		}
		return elsewhere[verb] != "" || slices.ContainsFunc(slices.Concat(scenarios, verbs), func(c scenario) bool {
			return c.argv[0] == "packmill" && begins(strings.Join(c.argv[1:], " "))
		})
	}
	s := shelf(t)
	var walk func(verb string)
	walk = func(verb string) {
		out, err := s.plain("/nonexistent", "packmill", append(append([]string{"complete", "--"}, words(verb)...), "")...)
		if err != nil {
			t.Fatal(err)
		}
		below := words(out)
		if verb == "wb" {
			for _, op := range queue.Ops {
				below = append(below, string(op))
			}
		}
		for _, w := range below {
			walk(strings.TrimSpace(verb + " " + w))
		}
		if len(below) == 0 && !listed(verb) {
			t.Errorf("packmill %s: it has no sweep, and is not said to change nothing", verb)
		}
	}
	walk("")
	same := func(s *site, status int, argv ...string) {
		before, err := outline(s.tree)
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.plain(s.tree, argv[0], argv[1:]...)
		got := 0
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			got = exit.ExitCode()
		}
		if got != status {
			t.Errorf("%q: got exit status %d (%v), want %d", argv, got, err, status)
		}
		if after, err := outline(s.tree); err != nil || after != before {
			t.Errorf("%q: it changes something (%v):%s",
				argv, err, differ(strings.Split(after, "\n"), strings.Split(before, "\n")))
		}
	}
	for line, status := range looks {
		same(s, status, append([]string{"packmill"}, words(line)...)...)
	}
	for _, c := range slices.Concat(scenarios, verbs) {
		if c.argv[0] == "packmill" {
			s := c.prepare(t)
			status := 0
			if c.argv[1] == "fsck" {
				status = 1 // it has found what it would mend
			}
			same(s, status, slices.Insert(c.at(s.tree), 1, "--dry-run")...)
		}
	}
}

func words(line string) []string { return strings.Fields(line) }

// outsideDir is where a scenario's files lie that are not in its tree. It is in
// the tree, under tmp, so that each copy has its own.
const outsideDir = "tmp/outside"

// command is the scenario of a command line; OUTSIDE in it is outsideDir.
func command(prepare func(testing.TB) *site, again [][]string, line string) scenario {
	return scenario{name: "packmill " + line, prepare: prepare, argv: append([]string{"packmill"}, words(line)...),
		again: again, compare: true}
}

// moves is a verb that takes a package from one suite to another: it is never in
// neither.
func moves(c scenario) scenario {
	c.always = regexp.MustCompile(`(?m)^(sid|stable): hello .* source$`)
	return c
}

// far is a verb that writes to another machine, in truth or as if: what a power
// cut leaves there is not ours to say.
func far(c scenario) scenario {
	c.far = true
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

// outdated is shelf, with a copy of its archive beside it that is not of today.
func outdated(t testing.TB) *site {
	s := shelf(t)
	s.mkdir(outsideDir)
	for _, v := range []string{"export sid ", "push all "} {
		s.must("packmill", words("archive "+v+filepath.Join(s.tree, outsideDir, "copy"))...)
	}
	s.must("packmill", words("archive override sid hello --section net")...)
	return s
}

// letters is queues, with a signed mail about a build that failed.
func letters(t testing.TB) *site {
	s := queues(t)
	s.write("control/notify", "Event: *\nTo: signer\nFrom: builds@packmill.example\nVia: /bin/true\n")
	tree, err := spool.Open(s.tree)
	if err != nil {
		t.Fatal(err)
	}
	found, err := tree.Find("broken", spool.BuildAttempted)
	if err != nil || len(found) != 1 {
		t.Fatal(err, found)
	}
	tk, err := queue.TicketAt(tree, found[0])
	if err != nil {
		t.Fatal(err)
	}
	job := mail.Job{Mark: tk.Mark(found[0]), ID: found[0].Name.ID(), Arch: "amd64", Suite: "sid"}
	text, err := s.signer.Clearsign([]byte("fail it never did\n"+job.String()+"\n"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	s.write(outsideDir+"/Maildir/new/1",
		"From: uploader@packmill.example\nMessage-Id: <1@packmill.example>\n\n"+string(text))
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
			if err != nil || !e.Type().IsRegular() || strings.HasPrefix(e.Name(), durable.NewPrefix) {
				return err
			}
			data, err := os.ReadFile(p)
			switch e.Name() {
			case spool.TicketFile, spool.ReasonFile:
			case spool.HistoryFile:
				data = regexp.MustCompile(`\bmine\b`).Find(data) // what wb manual notes
			default:
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
	for _, pattern := range []string{"archive/opkg/*/*/Packages", "archive/snapshots/*/opkg/*/*/Packages"} {
		feeds, err := filepath.Glob(t.Path(pattern))
		if err != nil {
			return a, err
		}
		for _, feed := range feeds {
			if strings.Contains(feed, "/.") {
				continue // a generation, under its own name
			}
			data, err := os.ReadFile(feed)
			if err != nil {
				return a, err
			}
			add(false, "%s: %s", strings.TrimPrefix(feed, tree), data)
		}
	}
	for _, dir := range []string{"archive/pool", "attic", outsideDir} {
		err := filepath.WalkDir(t.Path(dir), func(p string, e fs.DirEntry, err error) error {
			if dir == outsideDir && errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			// Such a name is a half-written file's: ours or rsync's.
			if err != nil || !e.Type().IsRegular() || strings.HasPrefix(e.Name(), ".") {
				return err
			}
			sum := ""
			if dir == outsideDir {
				data, err := os.ReadFile(p)
				if err != nil {
					return err
				}
				sum = fmt.Sprintf(" %x", sha256.Sum256(data))
			}
			add(false, "%s%s", strings.TrimPrefix(p, tree), sum)
			return nil
		})
		if err != nil {
			return a, err
		}
	}
	set, err := control.Load(t.Path("control"))
	if err != nil {
		return a, err
	}
	for _, s := range set.Suites {
		for i, name := range s.SignWith {
			_, err := openpgp.OpenSigner(set.Path(name))
			add(true, "%s: key %d of %d: %v", s.Name, i+1, len(s.SignWith), err)
		}
	}
	for _, name := range []string{"archive", "another"} {
		k, err := openpgp.OpenSigner(t.Path("control/private", name+".key"))
		if err != nil {
			continue
		}
		data, _ := os.ReadFile(t.Path("control", control.KeysDir, name+".asc"))
		add(false, "key %s, the halves are of one: %v", name, bytes.Equal(data, k.Public()))
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
