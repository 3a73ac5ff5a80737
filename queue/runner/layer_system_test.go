//go:build system

package runner

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"packmill/internal/openpgp"
	"packmill/queue/runner/cage"
)

// layered returns a directory of chroots with a chroot that has no layers.
func layered(t *testing.T) *Chroots {
	t.Helper()
	cached := testChroots(t, "amd64")
	dir, err := os.MkdirTemp(filepath.Dir(cached.Dir), "layers-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	os.Chmod(dir, 0o755)
	c := &Chroots{Dir: dir, User: cached.User}
	copyChroot(t, cached, c)
	return c
}

// copyChroot makes the chroot of one directory in another by links to the
// same files, without its layers: a test beside this one may be making one.
func copyChroot(t *testing.T, from, to *Chroots) {
	t.Helper()
	ch, err := from.Lookup("sid", "amd64")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(to.Dir, "sid-amd64", filepath.Base(ch.dir))
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, "rsync", "-aHAX", "--numeric-ids", "--exclude=/*/"+layersDir, "--link-dest="+ch.dir, ch.dir+"/", dir)
}

// rangeOf returns the first user of the range that a layer belongs to.
func rangeOf(t *testing.T, upper string) int {
	t.Helper()
	uid, err := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(filepath.Dir(upper)))))
	if err != nil {
		t.Fatal(err)
	}
	return uid
}

func layersOf(t *testing.T, c *Chroots) (layers []string) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(c.Dir, "*", "*", "*", layersDir, "*", "upper"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// Build-dependencies are installed once for each set of packages and range of
// ids; the next builds with the range see them without apt, and nothing of what
// they do comes into the layer.
func TestLayers(t *testing.T) {
	t.Parallel()
	c := layered(t)
	r := &Overlay{Chroots: c}
	build := func(s source) string {
		t.Helper()
		job := newSystemJob(t)
		s.make(t, job)
		if res := mustRun(t, r, job); res.Outcome != Good {
			t.Errorf("%+v: got %v: %s\n%s", s, res.Outcome, res.Reason, logText(t, job))
		}
		return logText(t, job)
	}
	const kept = "and kept since: "
	// Two at a time have nothing in common, so each has a layer.
	var both sync.WaitGroup
	var logs [2]string
	for i := range logs {
		both.Go(func() {
			logs[i] = build(source{depends: "ed", build: "ed --version"})
		})
	}
	both.Wait()
	if got := layersOf(t, c); len(got) != 2 || rangeOf(t, got[0]) == rangeOf(t, got[1]) ||
		strings.Count(logs[0]+logs[1], "Setting up ed ") != 2 {
		t.Fatalf("layers %v; the logs:\n%s\n%s", got, logs[0], logs[1])
	}
	// Another wish with the same packages; a build that writes where it can.
	if log := build(source{depends: "ed (>= 0.1), make",
		build: "ed --version\necho x > /tmp/leftover\n! sh -c 'echo x > /bin/ed'"}); strings.Contains(log, "Setting up ed ") {
		t.Errorf("the second wish: %s", log)
	}
	start := time.Now()
	if log := build(source{depends: "ed", build: "ed --version; test ! -e /tmp/leftover"}); !strings.Contains(log, kept) ||
		!strings.Contains(log, "GNU ed 1.") {
		t.Errorf("the third build: %s", log)
	}
	t.Logf("with a layer: %v", time.Since(start))
	if log := build(source{depends: "ed, bc"}); !strings.Contains(log, "Setting up bc ") || len(layersOf(t, c)) != 3 {
		t.Errorf("another set: %v\n%s", layersOf(t, c), log)
	}
	// A layer of which a crash left the half does not count, whichever range the build has.
	half := func(from, to string) {
		t.Helper()
		for _, upper := range layersOf(t, c) {
			dir := filepath.Dir(upper)
			if err := os.Link(filepath.Join(dir, from), filepath.Join(dir, to)); err != nil && !os.IsExist(err) && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			os.Remove(filepath.Join(dir, from))
		}
	}
	half(infoFile, "taken")
	if log := build(source{depends: "ed"}); !strings.Contains(log, "Setting up ed ") {
		t.Errorf("half a layer: %s", log)
	}
	half("taken", infoFile)
	// What is in use stays; the rest goes, the longest unused first.
	ch, err := c.use("sid", "amd64")
	if err != nil {
		t.Fatal(err)
	}
	defer ch.release()
	all := layersOf(t, c)
	for i, upper := range all {
		then := time.Now().Add(-time.Hour * time.Duration(i))
		os.Chtimes(filepath.Join(filepath.Dir(upper), infoFile), then, then)
	}
	oldest := filepath.Base(filepath.Dir(all[len(all)-1]))
	of := &ownChroot{Chroot: ch, ids: cage.Range{UID: rangeOf(t, all[len(all)-1])}}
	l, err := of.useLayer(oldest)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SweepLayers(1); err != nil {
		t.Error(err)
	}
	if got := layersOf(t, c); len(got) != 1 || filepath.Base(filepath.Dir(got[0])) != oldest {
		t.Errorf("after a sweep with %s in use: %v", oldest, got)
	}
	l.lock.Close()
	if err := c.SweepLayers(1); err != nil || len(layersOf(t, c)) != 0 {
		t.Errorf("after a sweep: %v, %v", layersOf(t, c), err)
	}
}

// publish makes a repository of one package, signed, whose indexes lie in a directory of their own; debs of earlier
// versions stay.
func publish(t *testing.T, dir, indexes, version string, signer *openpgp.Signer) {
	t.Helper()
	makeDeb(t, dir, "Package: ours-dev\nVersion: "+version+"\nArchitecture: all\nMaintainer: A Builder <a@example.org>\n"+
		"Description: ours\n")
	release := run(t, "sh", "-euc", `cd "$1"; mkdir -p "$2/local/main/binary-amd64"
dpkg-scanpackages -m . >"$2/local/main/binary-amd64/Packages" 2>/dev/null
apt-ftparchive -o APT::FTPArchive::Release::Suite=local -o APT::FTPArchive::Release::Components=main \
	-o APT::FTPArchive::Release::Architectures=amd64 release "$2/local"`, "sh", dir, indexes)
	signed, err := signer.Clearsign([]byte(release), time.Now())
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, indexes, "local/InRelease"), signed, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	run(t, "chmod", "-R", "a+rX", dir)
}

// What is published between apt's answer and the making of a layer costs the layer, and not the build.
func TestLayerOvertaken(t *testing.T) {
	t.Parallel()
	c := layered(t)
	dir, err := os.MkdirTemp("", "packmill-overtaken-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	signer, err := openpgp.Generate("Archive", "archive@example.org", time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	publish(t, dir, "dists", "4.2", signer)
	publish(t, dir, "next", "5.0", signer)
	build := func(during func(log string) bool) string {
		t.Helper()
		job := newSystemJob(t)
		source{depends: "ours-dev (>= 4)", build: "dpkg -s ours-dev | grep 'Version: 5'"}.make(t, job)
		job.Repos = []Repo{{Dir: dir, Suite: "local", Components: []string{"main"}, Key: signer.Public()}}
		ended := make(chan struct{})
		var watch sync.WaitGroup
		watch.Go(func() {
			for !during(logText(t, job)) {
				select {
				case <-ended:
					return
				case <-time.After(time.Millisecond):
				}
			}
		})
		res := mustRun(t, &Overlay{Chroots: c}, job)
		close(ended)
		watch.Wait()
		if res.Outcome != Good {
			t.Errorf("got %v: %s\n%s", res.Outcome, res.Reason, logText(t, job))
		}
		return logText(t, job)
	}
	log := build(func(log string) bool {
		_, after, ok := strings.Cut(log, " Packages [")
		if !ok || !strings.Contains(after, "Reading package lists") {
			return false
		}
		if err := errors.Join(os.Rename(dir+"/dists", dir+"/last"), os.Rename(dir+"/next", dir+"/dists")); err != nil {
			t.Error(err)
		}
		return true
	})
	if !strings.Contains(log, "changed meanwhile") || len(layersOf(t, c)) != 0 {
		t.Errorf("nothing was overtaken: layers %v\n%s", layersOf(t, c), log)
	}
	if log := build(func(string) bool { return true }); len(layersOf(t, c)) != 1 {
		t.Errorf("after it: layers %v\n%s", layersOf(t, c), log)
	}
}

// A layer whose making is stopped is not there, and the next build makes it.
func TestLayerStopped(t *testing.T) {
	t.Parallel()
	c := layered(t)
	r := &Overlay{Chroots: c}
	job := newSystemJob(t)
	source{depends: "ed"}.make(t, job)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go func() {
		for ctx.Err() == nil && !strings.Contains(logText(t, job), "Unpacking ed") {
			time.Sleep(5 * time.Millisecond)
		}
		stop()
	}()
	res, err := r.Run(ctx, job)
	if err != nil || !res.Stopped || len(layersOf(t, c)) != 0 {
		t.Errorf("stopped: %+v, %v, %v", res, err, layersOf(t, c))
	}
	if left, _ := filepath.Glob(filepath.Join(c.Dir, "*", "*", "*", layersDir, "new")); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	if res := mustRun(t, r, job); res.Outcome != Good {
		t.Errorf("again: %v %s\n%s", res.Outcome, res.Reason, logText(t, job))
	}
}

// usedLast is the layer that a build used last, or one below it.
func usedLast(t *testing.T, c *Chroots) string {
	t.Helper()
	at := func(upper string) time.Time {
		st, err := os.Stat(filepath.Join(filepath.Dir(upper), infoFile))
		if err != nil {
			t.Fatal(err)
		}
		return st.ModTime()
	}
	return slices.MaxFunc(layersOf(t, c), func(a, b string) int { return at(a).Compare(at(b)) })
}

// What sets of build-dependencies have in common is installed once, in a layer below theirs, and a build sees what it
// would see without.
func TestLayersOnLayers(t *testing.T) {
	t.Parallel()
	const list = "dpkg-query -W -f 'HAS $${Package} $${Version} $${db:Status-Status}\\n'"
	build := func(c *Chroots, depends string) (log string, has []string) {
		t.Helper()
		job := newSystemJob(t)
		source{depends: depends, build: list}.make(t, job)
		if res := mustRun(t, &Overlay{Chroots: c}, job); res.Outcome != Good {
			t.Errorf("%s: got %v: %s\n%s", depends, res.Outcome, res.Reason, logText(t, job))
		}
		log = logText(t, job)
		for line := range strings.Lines(log) {
			if strings.HasPrefix(line, "HAS ") {
				has = append(has, line)
			}
		}
		return log, has
	}
	c := layered(t)
	layers := func(ids int) int {
		return len(slices.DeleteFunc(layersOf(t, c), func(l string) bool { return rangeOf(t, l) != ids }))
	}
	// Each range has layers of its own, and which one a build gets is by what other tests do meanwhile. None of these
	// sets has all of another.
	built, made := map[int]int{}, map[int]int{}
	var seen []string
	for _, more := range []string{"ed", "bc", "dc", "figlet", "tree"} {
		log, has := build(c, "debhelper, "+more)
		ids := rangeOf(t, usedLast(t, c))
		n, setUp := layers(ids)-made[ids], strings.Count(log, "\nSetting up ")
		switch built[ids] {
		case 0:
			if n != 1 || setUp < 20 {
				t.Errorf("%s, the first: %d layers, %d packages\n%s", more, n, setUp, log)
			}
		case 1:
			if n != 2 {
				t.Errorf("%s, the second: %d layers, want one for what both have, too\n%s", more, n, log)
			}
		default:
			if n != 1 || setUp > 2 {
				t.Errorf("%s: %d layers, %d packages\n%s", more, n, setUp, log)
			}
		}
		built[ids], made[ids], seen = built[ids]+1, layers(ids), has
	}
	if _, flat := build(layered(t), "debhelper, tree"); !slices.Equal(seen, flat) || len(flat) < 100 {
		t.Errorf("on layers: %d packages\n%s\nalone: %d\n%s", len(seen), seen, len(flat), flat)
	}
	// Of a set that another has all of, there is a layer of its own.
	for range 2 {
		build(c, "debhelper")
	}
	// One that others lie on goes after them.
	if err := c.SweepLayers(1); err != nil || len(layersOf(t, c)) != 0 {
		t.Errorf("after a sweep: %v, %v", layersOf(t, c), err)
	}
}
