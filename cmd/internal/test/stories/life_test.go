package stories

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gofrs/flock"

	"packmill/archive"
	"packmill/spool"
	"packmill/spool/upload/uploadtest"
)

// The main job, step by step: upload, review, queues, build, hand on, publish.
func TestSixSteps(t *testing.T) {
	t.Parallel()
	m := newMill(t, "Review: always")
	// 1. A maintainer uploads a source package and its .changes file.
	m.upload(uploadtest.Package{Source: "hello", Version: "2.10-3"})
	m.once("reviewd")
	m.want(m.where(), "review source hello_2.10-3")
	// 2. A reviewer accepts it. It enters the master build queue and the
	// queue of every architecture that it is for.
	m.packmill("review", "accept", "hello", "-m", "looks good")
	m.once("master-buildd")
	m.want(m.where(), "master source hello_2.10-3", "needs-build amd64 hello_2.10-3")
	// 3. The build daemon builds it, and it leaves the queue.
	// 4. No architecture has it any more: the source goes on.
	m.once("buildd-amd64")
	m.want(m.where(), "master source hello_2.10-3", "uploaded amd64 hello_2.10-3")
	m.once("master-buildd")
	m.want(m.where(), "uploaded source hello_2.10-3", "uploaded amd64 hello_2.10-3")
	// 5. The archive daemon includes the source with all its binaries.
	m.once("archived")
	m.want(m.where(), "installed amd64 hello_2.10-3", "installed source hello_2.10-3")
	for _, f := range []string{"hello_2.10-3.dsc", "hello_2.10-3_amd64.deb"} {
		if _, err := os.Stat(filepath.Join(m.tree, "archive/pool/main/h/hello", f)); err != nil {
			t.Error(err)
		}
	}
	m.sound()
	// The history tells the story.
	got := m.packmill("show", "hello")
	for _, want := range []string{"looks good", "to build on amd64", "built and signed", "published"} {
		if !strings.Contains(got, want) {
			t.Errorf("packmill show: no %q in\n%s", want, got)
		}
	}
}

// A move with mv is an accept, and the history says so.
func TestAcceptByHand(t *testing.T) {
	t.Parallel()
	m := newMill(t, "Review: always")
	m.upload(uploadtest.Package{Source: "hello", Version: "1.0"})
	m.once("reviewd")
	names, err := filepath.Glob(filepath.Join(m.tree, "spool/review/stable/*hello*"))
	if err != nil || len(names) != 1 {
		t.Fatalf("review: %v, %v", names, err)
	}
	m.must(os.MkdirAll(filepath.Join(m.tree, "spool/accepted/stable"), 0o775))
	m.must(os.Rename(names[0], filepath.Join(m.tree, "spool/accepted/stable", filepath.Base(names[0]))))
	m.want(m.settle(), "installed amd64 hello_1.0", "installed source hello_1.0")
	if got := m.packmill("show", "hello"); !strings.Contains(got, "by mv  moved by hand") {
		t.Errorf("the history does not tell of the move by hand:\n%s", got)
	}
	m.sound()
}

// Architectures: any, all, both, one that the suite does not have, wildcards.
func TestArchitectures(t *testing.T) {
	t.Parallel()
	m := newMill(t, "Architectures: amd64 i386")
	for name, arch := range map[string]string{"anyy": "any", "docs": "all", "linux": "linux-any", "only": "i386",
		"hurd": "hurd-any"} {
		m.upload(uploadtest.Package{Source: name, Version: "1", Architecture: arch})
	}
	m.once("reviewd")
	m.once("master-buildd")
	m.want(m.where(),
		"master source anyy_1", "needs-build amd64 anyy_1", "needs-build i386 anyy_1",
		"master source docs_1", "needs-build all docs_1", "auto-not-for-us amd64 docs_1", "auto-not-for-us i386 docs_1",
		"master source linux_1", "needs-build amd64 linux_1", "needs-build i386 linux_1",
		"master source only_1", "auto-not-for-us amd64 only_1", "needs-build i386 only_1",
		"uploaded source hurd_1", "auto-not-for-us amd64 hurd_1", "auto-not-for-us i386 hurd_1")
	m.want(m.settle(),
		"installed source anyy_1", "installed amd64 anyy_1", "installed i386 anyy_1",
		"installed source docs_1", "installed all docs_1", "auto-not-for-us amd64 docs_1", "auto-not-for-us i386 docs_1",
		"installed source linux_1", "installed amd64 linux_1", "installed i386 linux_1",
		"installed source only_1", "auto-not-for-us amd64 only_1", "installed i386 only_1",
		"installed source hurd_1", "auto-not-for-us amd64 hurd_1", "auto-not-for-us i386 hurd_1")
	m.sound()
}

// Debian's story: Needs-Build to Installed with Failed, Dep-Wait and a new
// version in between.
func TestDebianStory(t *testing.T) {
	t.Parallel()
	m := newMill(t, "Publish: source-first")
	date := time.Now().Add(-time.Minute) // of both: they share the upstream tarball
	m.script("app_1.0-1_amd64", "fail undefined reference to frobnicate")
	m.upload(uploadtest.Package{Source: "app", Version: "1.0-1", Date: date})
	// The source goes ahead; the build fails and waits for a person.
	m.want(m.settle(), "build-attempted amd64 app_1.0-1", "installed source app_1.0-1", "attic source app_1.0-1")
	// A new version needs a library that is not there.
	m.upload(uploadtest.Package{Source: "app", Version: "1.0-2", BuildDepends: "libfrob (>= 2)", Date: date})
	m.want(m.settle(), "attic amd64 app_1.0-1", "attic source app_1.0-1", "installed source app_1.0-1",
		"dep-wait amd64 app_1.0-2", "installed source app_1.0-2", "master source app_1.0-2")
	if got := m.packmill("show", "app_1.0-2"); !strings.Contains(got, "libfrob (>= 2)") {
		t.Errorf("packmill show does not say what it waits for:\n%s", got)
	}
	// The library in a version too old does not help; the next one does.
	m.upload(uploadtest.Package{Source: "libfrob", Version: "1.9"})
	m.settle()
	if got := m.where(); !strings.Contains(got, "dep-wait amd64 app_1.0-2") {
		t.Fatalf("libfrob 1.9 let app go on:\n%s", got)
	}
	m.upload(uploadtest.Package{Source: "libfrob", Version: "2.0"})
	got := m.settle()
	for _, want := range []string{"installed amd64 app_1.0-2", "installed amd64 libfrob_2.0"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	m.sound()
}

// Together: nothing is published before every architecture has settled.
func TestTogether(t *testing.T) {
	t.Parallel()
	m := newMill(t, "Architectures: amd64 i386")
	m.upload(uploadtest.Package{Source: "hello", Version: "1.0"})
	for _, d := range []string{"reviewd", "master-buildd", "buildd-amd64", "master-buildd", "archived"} {
		m.once(d)
	}
	m.want(m.where(), "master source hello_1.0", "needs-build i386 hello_1.0", "uploaded amd64 hello_1.0")
	m.script("hello_1.0_i386", "fail no such instruction")
	m.want(m.settle(), "build-attempted i386 hello_1.0", "installed amd64 hello_1.0", "installed source hello_1.0")
	// Mended on the builder's side, the late binaries come on their own.
	m.script("hello_1.0_i386", "")
	m.packmill("requeue", "hello_1.0")
	m.want(m.settle(), "installed i386 hello_1.0", "installed amd64 hello_1.0", "installed source hello_1.0")
	m.sound()
}

// What waits for the archive together is one publication, and the first one
// waits for nobody: here the archive is busy when it comes.
func TestOnePublication(t *testing.T) {
	t.Parallel()
	m := newMill(t)
	send := func(names ...string) {
		t.Helper()
		for _, n := range names {
			m.upload(uploadtest.Package{Source: n, Version: "1"})
		}
		for _, d := range []string{"reviewd", "master-buildd", "buildd-amd64", "master-buildd"} {
			m.once(d)
		}
	}
	archived := m.start("archived")
	m.until("the suite is there", func() bool {
		_, err := os.Stat(filepath.Join(m.tree, "archive/dists/stable/InRelease"))
		return err == nil
	})
	busy := flock.New(filepath.Join(m.tree, "archive/.lock"))
	m.must(busy.Lock())
	send("first")
	tree, err := spool.Open(m.tree)
	m.must(err)
	m.until("the first is being published", func() bool {
		found := m.found("first", spool.Uploaded)
		if len(found) != 2 {
			return false
		}
		it, err := tree.Claim(found[0].Place, found[0].Name.String())
		if err == nil {
			it.Release()
		}
		return errors.Is(err, spool.ErrBusy)
	})
	send("second", "third", "fourth")
	m.must(busy.Unlock())
	m.until("all are published", func() bool { return strings.Count(m.where(), "installed ") == 8 })
	m.must(archived.cmd.Process.Signal(syscall.SIGTERM))
	archived.cmd.Wait()
	if got := regexp.MustCompile(`msg=published .*items=(\d)`).FindAllStringSubmatch(archived.log.String(), -1); len(got) < 2 || len(got) > 4 || got[0][1] != "2" {
		t.Errorf("publications: got %q, want one of the 2 items of the first, and one or hardly more of the other 6", got)
	}
}

// A builder's own trouble is given back, and after some tries shown to a
// person; a result that is not this build's is never published.
func TestTrouble(t *testing.T) {
	t.Parallel()
	m := newMill(t, "Tries: 1")
	m.script("hello_1.0_amd64", "trouble")
	m.script("forged_1.0_amd64", "forge")
	m.upload(uploadtest.Package{Source: "hello", Version: "1.0"})
	m.upload(uploadtest.Package{Source: "forged", Version: "1.0"})
	got := m.settle()
	for _, want := range []string{"build-attempted amd64 hello_1.0", "build-attempted amd64 forged_1.0"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	pool, _ := filepath.Glob(filepath.Join(m.tree, "archive/pool/main/*/*/*.deb"))
	if len(pool) != 0 {
		t.Errorf("published: %v", pool)
	}
	m.sound()
}

// A newer version retires the older one's open jobs; what is being built ends
// and is not published.
func TestSuperseded(t *testing.T) {
	t.Parallel()
	m := newMill(t)
	release := m.hold("hello_1.0_amd64")
	m.upload(uploadtest.Package{Source: "hello", Version: "1.0"})
	m.once("reviewd")
	m.once("master-buildd")
	m.start("buildd-amd64")
	m.until("the first version is being built", func() bool {
		return strings.Contains(m.where(), "building amd64 hello_1.0")
	})
	m.upload(uploadtest.Package{Source: "hello", Version: "1.1"})
	m.once("reviewd")
	m.once("master-buildd")
	m.until("the second version is built beside it", func() bool {
		return strings.Contains(m.where(), "uploaded amd64 hello_1.1")
	})
	release()
	m.until("both have ended", func() bool {
		w := m.where()
		return strings.Contains(w, "attic amd64 hello_1.0") && strings.Contains(w, "uploaded amd64 hello_1.1")
	})
	m.want(m.settle(), "attic amd64 hello_1.0", "attic source hello_1.0", "installed amd64 hello_1.1",
		"installed source hello_1.1")
	m.sound()
}

// Stop: wait lets a build end when its daemon is stopped; give-back puts the
// job back at once.
func TestStop(t *testing.T) {
	t.Parallel()
	for stop, want := range map[string]string{"wait": "uploaded amd64 hello_1.0",
		"give-back": "needs-build amd64 hello_1.0"} {
		t.Run(stop, func(t *testing.T) {
			t.Parallel()
			m := newMill(t)
			path := filepath.Join(m.tree, "control/builders")
			text, err := os.ReadFile(path)
			m.must(err)
			m.control("builders", strings.TrimSpace(string(text))+"\nStop: "+stop)
			release := m.hold("hello_1.0_amd64")
			m.upload(uploadtest.Package{Source: "hello", Version: "1.0"})
			m.once("reviewd")
			m.once("master-buildd")
			b := m.start("buildd-amd64")
			m.until("it is being built", func() bool { return m.builds()["hello_1.0_amd64"] == 1 })
			m.must(b.cmd.Process.Signal(syscall.SIGTERM))
			if stop == "wait" {
				release()
			}
			m.must(b.cmd.Wait())
			m.want(m.where(), "master source hello_1.0", want)
		})
	}
}

// Every daemon dies at random, again and again, while twenty packages pass
// through: each is published once.
func TestKill(t *testing.T) {
	t.Parallel()
	m := newMill(t, "Tries: 100")
	var want []string
	var all []*running
	for _, name := range []string{"reviewd", "master-buildd", "buildd-amd64", "archived"} {
		all = append(all, m.start(name))
	}
	for i := range 20 {
		p := uploadtest.Package{Source: fmt.Sprintf("pkg%02d", i), Version: "1.0"}
		m.upload(p)
		want = append(want, "installed amd64 "+p.Source+"_1.0", "installed source "+p.Source+"_1.0")
		all[rand.N(len(all))].kill()
	}
	for range 10 {
		all[rand.N(len(all))].kill()
	}
	m.until("all are installed", func() bool { return strings.Count(m.where(), "installed ") == len(want) })
	m.want(m.where(), want...)
	// What kill -9 leaves are half-written files with names of their own;
	// fsck sweeps them.
	m.packmill("fsck", "--repair")
	m.sound()
}

// What a person took out of the archive is no promise broken, and is not built
// again; what is gone by itself is.
func TestBinaryTakenOut(t *testing.T) {
	t.Parallel()
	m := newMill(t, "Architectures: amd64")
	for _, source := range []string{"tool", "other"} {
		m.upload(uploadtest.Package{Source: source, Version: "1:1.0-1", Binary: []string{source + "-bin", source + "-tests"}})
	}
	m.settle()
	m.sound()
	builds := len(m.builds())
	m.packmill("archive", "rm", "stable", "tool-bin", "tool-tests", "--yes")
	m.sound()
	if got := m.packmill("show", "tool"); !strings.Contains(got, "taken out of the archive: tool-bin tool-tests") {
		t.Errorf("the history does not tell of the removal:\n%s", got)
	}
	m.settle()
	m.sound()
	if got := len(m.builds()); got != builds {
		t.Errorf("%d builds after the removal, %d before", got, builds)
	}
	// Past the command, as by a fault: nobody has said so.
	a, err := archive.Open(filepath.Join(m.tree, "archive"))
	m.must(err)
	suite := archive.Suite{Name: "stable", Architectures: []string{"amd64"},
		SignWith: []string{filepath.Join(m.tree, "control/private/archive.key")}}
	_, err = a.Remove(t.Context(), suite, []string{"other-bin", "other-tests"}, archive.ChangeOptions{}, time.Now())
	m.must(err)
	if out, err := m.try("fsck"); err == nil || !strings.Contains(out, "the suite has none of: other-bin other-tests") ||
		strings.Contains(out, "tool") {
		t.Errorf("fsck: %v\n%s", err, out)
	}
}
