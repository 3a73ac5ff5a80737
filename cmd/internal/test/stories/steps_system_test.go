//go:build system && linux && amd64

package stories

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"packmill/cmd/internal/test/crash"
	"packmill/internal/deb/debtest"
	"packmill/spool"
	"packmill/spool/statement"
	"packmill/spool/upload/uploadtest"
)

// stepping runs a daemon as its account under the eyes of somebody who strikes between two of
// its system calls, at each source once.
type stepping struct {
	*accounts
	of     func(*crash.Call) string // the source that a call works on, "" of none
	at     map[string]int           // the call before which a source is struck
	strike func(source string)

	calls  map[string]int // of each source
	struck int
}

// run runs the daemon until it has nothing left to do.
func (s *stepping) run(account, group, daemon string, reads bool) {
	s.Helper()
	cmd := s.command(s.Context(), daemon, "--once")
	run, err := crash.Trace(&crash.Program{Path: "/usr/bin/setpriv", Env: cmd.Env, Dir: "/", Roots: []string{s.tree},
		Args:     append([]string{"--reuid=" + account, "--regid=" + group, "--init-groups", cmd.Path}, cmd.Args[1:]...),
		Children: true, Reads: reads, Limit: 5 * time.Minute,
	}, func(c *crash.Call) crash.Act {
		if source := s.of(c); source != "" && !c.Syncs() {
			if s.calls[source]++; s.at[source] == s.calls[source] {
				s.struck++
				s.strike(source)
			}
		}
		return crash.Act{}
	}, nil)
	if err != nil || run.Exit() != 0 && run.Exit() != 111 {
		s.Fatalf("%s: %v, exit %d\n%s", daemon, err, run.Exit(), run.Output)
	}
}

// buildStrikes are what who works on the queues can do while the job $N of the source $S is
// built: to all that the job has and that is built in, or to the job itself. $E has another
// source, of the name evil, and $R a result of its.
var buildStrikes = map[string]string{
	"inside": `for d in source work result; do mv $I/$d $I/$d.was; plant $I/$d; done
cp $R/* $I/result; ln -s $E $I/link; plant $I
for w in tmp/work-*; do plant $w/source; cp $R/* $w/result; mv $w/source $w/was; mv $w/result $w/was; mv $w $w.was; done`,
	"whole": `mv $I queue/stable/amd64/failed/; cp -r queue/stable/amd64/failed/$N $I; plant $I; mkdir $I/result
cp $R/* $I/result`,
}

const plant = `set +e; umask 0; I=queue/stable/amd64/building/$N; [ -d $I ] || exit 0
plant() { mkdir -p $1; for f in $E/*; do cp -f $f $1/$S${f##*/evil}; done; }
`

// TestEachStepOfABuild: before each system call of a build that changes the tree, from the
// claim to the move, who works on the queues, as the mail's account may, puts other
// directories, files and links wherever it can, or another item in the job's place. What is
// built is the source that was let in, what is signed is that build's result, and no job is
// lost.
func TestEachStepOfABuild(t *testing.T) {
	a := newAccountsIn(t, shm(t))
	a.builderTakes(1)
	worker, item := credential(t, spool.UserMail), spool.Name{}
	source := a.source(uploadtest.Package{Source: "evil", Version: "1.0", Signer: a.signer})
	results, script := t.TempDir(), map[string]string{}
	a.must(os.Chmod(results, 0o755))
	s := &stepping{accounts: a, at: map[string]int{}, calls: map[string]int{}}
	s.of = func(c *crash.Call) string {
		if _, name, ok := strings.Cut(c.Path2, "/building/"); ok && !strings.Contains(name, "/") {
			item, _ = spool.ParseName(name)
		}
		return item.Source
	}
	s.strike = func(name string) {
		a.sh(worker, fmt.Sprintf("N=%s S=%s E=%s R=%s/%[2]s\n%s%s", item, name, source, results, plant, script[name]))
	}
	for _, name := range []string{"first", "second"} { // the first makes some directories
		a.drop(uploadtest.Package{Source: name, Version: "1.0"})
		a.daemon("reviewd")
	}
	a.daemon("master-buildd")
	s.run(spool.UserBuild, spool.UserBuild, "buildd-amd64", false)
	steps := s.calls["second"]
	if steps < 40 {
		t.Fatalf("%d steps", steps)
	}
	evil := map[[32]byte]bool{}
	for strike := range buildStrikes {
		every := map[string]int{"inside": 1, "whole": 4}[strike]
		for at := every; at <= steps; at += every {
			name := fmt.Sprintf("%s%d", strike, at)
			s.at[name], script[name] = at, buildStrikes[strike]
			a.upload(uploadtest.Package{Source: name, Version: "1.0"})
			deb := a.result(filepath.Join(results, name), name)
			evil[sha256.Sum256(deb)] = true
		}
	}
	a.daemon("reviewd")
	a.daemon("master-buildd")
	s.run(spool.UserBuild, spool.UserBuild, "buildd-amd64", false)
	if s.struck < steps {
		t.Errorf("struck %d times, want %d at least", s.struck, steps)
	}
	a.daemon("buildd", "--arch", "amd64") // what was given back, without a strike
	a.daemon("master-buildd")
	a.daemon("archived")

	for id := range a.builds() {
		if strings.HasPrefix(id, "evil") {
			t.Errorf("%s was built", id)
		}
	}
	published := 0
	a.must(filepath.WalkDir(filepath.Join(a.tree, "archive/pool"), func(path string, _ fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".deb") {
			published++
			if deb, err := os.ReadFile(path); err != nil || evil[sha256.Sum256(deb)] {
				t.Errorf("%s is not what was built: %v", path, err)
			}
		}
		return err
	}))
	if published < steps/2 {
		t.Errorf("%d packages are published, want %d at least\n%s", published, steps/2, a.packmill("ls"))
	}
	for name := range s.at {
		if len(a.found(name)) == 0 {
			t.Errorf("%s is nowhere", name)
		}
	}
	if left, err := filepath.Glob(filepath.Join(a.tree, "tmp/work-*")); err != nil || len(left) > 0 {
		t.Errorf("built in, and left: %q, %v", left, err)
	}
}

// result writes what a build of the source could have made, and gives its package.
func (a *accounts) result(dir, source string) []byte {
	a.Helper()
	a.must(os.Mkdir(dir, 0o755))
	u := debtest.Upload{Source: debtest.Source{Name: source, Version: "1.0"}, NoSource: true, Distribution: "stable",
		Debs: []debtest.Deb{{Name: source, Version: "1.0", Arch: "amd64", Packing: "gz", Fields: "Depends: evil\n"}}}
	_, err := u.Write(dir)
	a.must(err)
	deb, err := os.ReadFile(filepath.Join(dir, source+"_1.0_amd64.deb"))
	a.must(err)
	return deb
}

// sendStrikes are what an uploader can do to his file $P while it is taken in: $V is a file of
// another's of that name and size, $O other bytes.
var sendStrikes = map[string]string{
	"link": "ln -sf $V $P",
	"hard": "ln -f $V $P || ln -f $O $P",
	"swap": "rm $P; cp $O $P",
	"gone": "rm $P",
	"fifo": "rm $P; mkfifo $P",
	"drop": "mv ${P%/*} ${P%/*}.was; ln -s ${V%/*} ${P%/*}",
	"held": "", // to the file itself, by a handle that he kept
}

// TestEachStepOfIntake: before each system call of intake that opens or changes something,
// one uploader strikes at what he sent, where another's files lie beside his. No file of
// the other's is moved, changed or let in, and what is let in is what was sent and stated.
func TestEachStepOfIntake(t *testing.T) {
	a := newAccountsIn(t, shm(t), "Review: always")
	robot, victim := fmt.Sprintf("pm-robot%d", os.Getpid()), fmt.Sprintf("pm-victim%d", os.Getpid())
	a.account(robot)
	a.account(victim)
	a.control("uploaders", "Name: robot\nAccount: "+robot+"\n\nName: victim\nAccount: "+victim)
	u := &sending{stepping: &stepping{accounts: a, at: map[string]int{}, calls: map[string]int{}},
		robot: credential(t, robot), victim: credential(t, victim), sent: map[string][]byte{},
		held: map[string]*os.File{}}
	u.of = func(c *crash.Call) string {
		if strings.Contains(c.Path, victim) {
			return ""
		}
		for _, part := range strings.Split(c.Path+"/"+c.Path2, "/") {
			for _, word := range strings.Split(part, "_") {
				if _, ok := u.at[word]; ok {
					return word
				}
			}
		}
		return ""
	}
	u.strike = u.hit
	u.send("first", 0)
	u.run(spool.UserReview, spool.GroupAll, "reviewd", true)
	steps := u.calls["first"]
	if steps < 30 {
		t.Fatalf("%d steps", steps)
	}
	strikes := slices.Sorted(func(yield func(string) bool) {
		for k := range sendStrikes {
			for _, end := range []string{"dsc", "tar", "changes"} {
				if !yield(k + "-" + end) {
					return
				}
			}
		}
	})
	for at := 1; at <= steps; at++ {
		for i := range 3 { // each strike at every seventh step
			u.send(fmt.Sprintf("%s-%d", strikes[(at+i*7)%len(strikes)], at), at)
		}
	}
	u.run(spool.UserReview, spool.GroupAll, "reviewd", true)
	if want := steps * 2; u.struck < want {
		t.Errorf("struck %d times, want %d at least", u.struck, want)
	}
	a.daemon("reviewd") // what was left is taken up as after a crash
	u.compare(steps)
}

// sending is somebody who sends, and another beside him.
type sending struct {
	*stepping
	robot, victim *syscall.Credential
	sent          map[string][]byte
	held          map[string]*os.File // the files that were sent
}

// in is the directory of the account with that credential. What is struck as a whole
// directory has one of its own.
func (u *sending) in(who *syscall.Credential, source string) string {
	name := map[*syscall.Credential]string{u.robot: "robot", u.victim: "victim"}[who]
	dir := filepath.Join(u.tree, "spool/incoming", fmt.Sprintf("pm-%s%d", name, os.Getpid()))
	if who == u.robot && strings.HasPrefix(source, "drop-") {
		dir = filepath.Join(dir, "DELAYED", "0-day")
	}
	return dir
}

// theirs is the victim's file beside one that was sent. It is no .changes, which reviewd would
// take.
func (u *sending) theirs(name string) string {
	return filepath.Join(u.in(u.victim, ""), strings.TrimSuffix(name, ".changes"))
}

// secret is the victim's file beside one of that content.
func secret(data []byte) []byte { return bytes.Repeat([]byte("S"), len(data)) }

// name is the file of a source at which its strike aims.
func (u *sending) name(source string) string {
	end := strings.Split(source+"-tar", "-")[1]
	return source + "_1.0" + map[string]string{"dsc": ".dsc", "tar": ".tar.gz", "changes": "_source.changes"}[end]
}

// hit strikes.
func (u *sending) hit(source string) {
	name := u.name(source)
	strike, _, _ := strings.Cut(source, "-")
	if script := sendStrikes[strike]; script != "" {
		u.sh(u.robot, fmt.Sprintf("set +e; P=%s/%s V=%s O=%s/other/%[2]s\n%s", u.in(u.robot, source), name,
			u.theirs(name), u.home, script))
		return
	}
	u.held[name].WriteAt([]byte("other"), 3)
}

// send drops an upload of the source, to be struck before a call, beside files of the
// victim's of the same names and sizes.
func (u *sending) send(source string, at int) {
	u.Helper()
	u.at[source] = at
	dir := u.T.TempDir()
	_, err := uploadtest.Package{Source: source, Version: "1.0"}.Write(dir)
	u.must(err)
	entries, err := os.ReadDir(dir)
	u.must(err)
	slices.Reverse(entries) // the .changes is the last
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		u.must(err)
		u.sent[e.Name()] = data
		u.put(u.victim, u.theirs(e.Name()), secret(data))
		u.put(u.robot, filepath.Join(u.home, "other", e.Name()), bytes.Repeat([]byte("o"), len(data)))
		mine := filepath.Join(u.in(u.robot, source), e.Name())
		u.put(u.robot, mine, data)
		u.held[e.Name()], err = os.OpenFile(mine, os.O_WRONLY, 0)
		u.must(err)
		u.Cleanup(func() { u.held[e.Name()].Close() })
	}
}

// put makes a file of somebody's, and the directory, as scripts/sshd/uploader does.
func (u *sending) put(who *syscall.Credential, path string, data []byte) {
	u.Helper()
	for _, d := range []string{filepath.Dir(filepath.Dir(path)), filepath.Dir(path)} {
		if rel, err := filepath.Rel(filepath.Join(u.tree, "spool/incoming"), d); err == nil && filepath.IsLocal(rel) && rel != "." {
			u.must(os.MkdirAll(d, 0o755))
			u.must(os.Chown(d, int(who.Uid), int(u.group(spool.GroupReview))))
			u.must(os.Chmod(d, fs.ModeSetgid|0o770))
		}
	}
	u.must(os.MkdirAll(filepath.Dir(path), 0o755))
	u.must(os.WriteFile(path, data, 0o644))
	u.must(os.Chown(path, int(who.Uid), -1))
}

// compare looks at what has become of all.
func (u *sending) compare(least int) {
	u.Helper()
	for name, data := range u.sent {
		if got, err := os.ReadFile(u.theirs(name)); err != nil || !bytes.Equal(got, secret(data)) {
			u.Errorf("the victim's %s: %q, %v", name, got, err)
		}
	}
	ring, err := statement.OpenRing(u.tree)
	u.must(err)
	for _, f := range u.found("") {
		dir := filepath.Join(u.tree, f.Dir())
		if f.Place.State == spool.Review {
			least--
			said, err := ring.Of(dir, f.Name.Source, f.Name.Version, "stable")
			if err == nil {
				err = said.Verify(dir)
			}
			if err != nil {
				u.Errorf("%s: %v", f.Name, err)
			}
		}
		u.must(filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || u.sent[d.Name()] == nil {
				return err
			}
			data, err := os.ReadFile(path)
			if bytes.Equal(data, secret(u.sent[d.Name()])) || f.Place.State == spool.Review && !bytes.Equal(data, u.sent[d.Name()]) {
				u.Errorf("%s is not what was sent", path)
			}
			return err
		}))
	}
	if least > 0 {
		u.Errorf("%d too few were let in\n%s", least, u.packmill("ls"))
	}
}
