//go:build system

package server

import (
	"cmp"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"packmill/spool"
)

// machine is the Debian architecture of this machine.
func machine(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("dpkg", "--print-architecture").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// key makes a key of the site's own and gives its fingerprint; its secret
// half is control/private/NAME.key.
func (s *site) key(name string) string {
	s.t.Helper()
	out := s.must("packmill", "key", "new", name)
	_, fpr, ok := strings.Cut(out, "Fingerprint: ")
	if !ok {
		s.t.Fatalf("packmill key new: %q", out)
	}
	fpr, _, _ = strings.Cut(fpr, "\n")
	return fpr
}

// setting is what the tests vary.
type setting struct {
	publish string
	archs   []string
	runner  string // default: sbuild
	all     string // the runner of the builder for all, if it is another
	extra   string // further fields of the suite
	people  []string
}

const suite = "sid"

// set writes control: one suite, the people, one builder for all the concrete
// architectures and one for all.
func (s *site) set(x setting) {
	s.t.Helper()
	x.runner = cmp.Or(x.runner, "sbuild")
	s.key("archive")
	builder := s.key("builder")
	s.write("tree/control/suites", fmt.Sprintf("Suite: %s\nArchitectures: %s\nReview: always\nLog-Review: auto\n"+
		"Publish: %s\nBase:\n %s\nSign-With: private/archive.key\n%s",
		suite, strings.Join(x.archs, " "), x.publish, strings.Join(base(s.t), "\n "), x.extra), 0o644)
	s.write("tree/control/uploaders", strings.Join(x.people, ""), 0o644)
	var builders strings.Builder
	for _, b := range [][3]string{{"here", strings.Join(x.archs, " "), x.runner}, {"indep", "all", cmp.Or(x.all, x.runner)}} {
		fmt.Fprintf(&builders,
			"Name: %s\nArchitectures: %s\nRunner: %s\nChroots: %s\nKey: private/builder.key\nFingerprint: %s\n\n",
			b[0], b[1], b[2], chroots().Dir, builder)
	}
	s.write("tree/control/builders", builders.String(), 0o644)
}

// second is a further architecture that this machine runs too, if any.
func second(t *testing.T) []string {
	if machine(t) == "amd64" {
		// Some kernels run no 32-bit programs (ia32_emulation=0).
		if exec.Command("arch-test", "-n", "i386").Run() != nil {
			return nil
		}
		return []string{"i386"}
	}
	return nil
}

// TestWholeWay takes packages from a person's dput to a program that apt
// installed, with every real part on the way, in both ways to publish.
func TestWholeWay(t *testing.T) {
	arch := machine(t)
	for _, x := range []struct {
		publish, runner string
		archs           []string
		run             func(*way)
	}{
		{"together", "sbuild", append([]string{arch}, second(t)...), (*way).together},
		{"source-first", "overlay", []string{arch}, (*way).sourceFirst},
	} {
		t.Run(x.publish, func(t *testing.T) {
			t.Parallel()
			w := &way{site: newSite(t), arch: arch, archs: x.archs}
			w.alice = w.newUploader("alice")
			w.set(setting{publish: x.publish, runner: x.runner, all: "overlay", archs: w.archs,
				people: []string{w.alice.stanza("source")}})
			for _, a := range w.archs {
				w.chroot(a)
			}
			w.sshd(w.alice)
			w.serve()
			w.daemons(w.archs...)
			truth := w.truth(x.publish == "source-first")
			defer truth()
			x.run(w)
			truth()
			w.stop()
			w.fsck()
		})
	}
}

// way is a site whose builder of all does not run yet.
type way struct {
	*site
	alice *uploader
	arch  string
	archs []string
}

// accept uploads a source package and accepts it.
func (w *way) accept(src source) {
	w.t.Helper()
	src.suite = suite
	w.alice.dput("packmill", w.alice.make(src))
	w.await("spool/review/"+suite, src.name, src.version)
	w.must("packmill", "review", "accept", src.name)
}

func (w *way) queue(arch string, state spool.State) string {
	return "queue/" + suite + "/" + arch + "/" + state.Name
}

func (w *way) installed(source, version string, archs ...string) {
	w.t.Helper()
	for _, a := range archs {
		w.await("archive/installed/"+suite+"/"+a+"/*", source, version)
	}
}

// both is a package for every concrete architecture and for all. It comes to
// where all of them but all are built, so that open is an architecture for sure.
func (w *way) both() (dropped time.Time) {
	begin := time.Now()
	changes := w.alice.make(source{name: "both", version: "1.0", suite: suite, any: []string{"both"},
		all: []string{"both-data"}})
	w.alice.dput("packmill", changes)
	dropped = time.Now()
	w.await("spool/review/"+suite, "both", "1.0")
	w.t.Logf("source package made and sent in %v, in review %v after dput's end",
		dropped.Sub(begin).Round(time.Millisecond), time.Since(dropped).Round(time.Millisecond))
	if out := w.must("packmill", "review", "show", "both"); !strings.Contains(out, "both") ||
		!strings.Contains(out, "1.0") {
		w.t.Errorf("packmill review show: %q", out)
	}
	w.must("packmill", "review", "accept", "both")
	w.until("both is built for the concrete architectures, and waits for all", func() bool {
		if _, waits := w.in(w.queue("all", spool.NeedsBuild), "both", "1.0"); !waits {
			return false
		}
		for _, a := range w.archs {
			if m, _ := filepath.Glob(filepath.Join(w.tree, "archive/*/"+suite, "*_both_1.0_"+a)); len(m) > 0 {
				continue
			}
			if _, ok := w.in("archive/installed/"+suite+"/"+a+"/*", "both", "1.0"); !ok {
				return false
			}
		}
		return true
	})
	return dropped
}

// all lets the builder of all begin, and installs what came of both.
func (w *way) all(dropped time.Time) {
	w.start("buildd-all", "buildd", "--tree", w.tree, "--arch", "all")
	w.installed("both", "1.0", append(w.archs, "all", "source")...)
	total := time.Since(dropped)
	for _, a := range w.archs {
		w.installs(w.chroot(a), suite, "both", "1.0", "both-data")
	}
	w.t.Logf("dropped to installable in %v; the builds themselves took %v", total.Round(time.Millisecond), w.built("both"))
}

func (w *way) sourceFirst() {
	dropped := w.both()
	w.until("the source and what is built of it are published while all is open", func() bool {
		ok := w.listed("main/source/Sources.gz", "both")
		for _, a := range w.archs {
			ok = ok && w.listed("main/binary-"+a+"/Packages.gz", "both")
		}
		return ok
	})
	w.all(dropped)

	// Three that build with each other come in the wrong order, and no person
	// does anything.
	w.end("reviewd")
	w.write("tree/control/suites",
		strings.Replace(read(w.site, filepath.Join(w.tree, "control/suites")), "Review: always", "Review: never", 1), 0o644)
	w.start("reviewd", "reviewd", "--tree", w.tree)
	for _, src := range []source{{name: "top", needs: "middle", noise: "middle"},
		{name: "middle", needs: "bottom", noise: "bottom"}, {name: "bottom"}} {
		src.version, src.suite, src.any = "1", suite, []string{src.name}
		w.alice.dput("packmill", w.alice.make(src))
	}
	for _, name := range []string{"bottom", "middle", "top"} {
		w.installed(name, "1", append(w.archs, "source")...)
	}
	w.installs(w.chroot(w.arch), suite, "top", "1")
}

func (w *way) together() {
	t, arch, alice := w.t, w.arch, w.alice
	dropped := w.both()
	if w.listed("main/source/Sources.gz", "both") || w.listed("main/binary-"+arch+"/Packages.gz", "both") {
		t.Errorf("the archive has both while all is open:\n%s", w.ls())
	}
	w.all(dropped)

	// A person accepts with mv.
	alice.dput("packmill", alice.make(source{name: "hand", version: "1:0.5~rc1", suite: suite, all: []string{"hand"}}))
	from := w.await("spool/review/"+suite, "hand", "1:0.5~rc1")
	if out, err := w.run("mv", from, filepath.Join(w.tree, "spool/accepted", suite)+"/"); err != nil {
		t.Fatalf("mv: %v\n%s", err, out)
	}
	w.installed("hand", "1:0.5~rc1", "all", "source")

	// One that fails, and one whose build-dependency nobody has.
	w.accept(source{name: "broken", version: "1", any: []string{"broken"}, archField: arch, fails: true})
	w.accept(source{name: "never", version: "1", any: []string{"never"}, archField: arch, needs: "no-such-package (>= 3)"})
	failed := w.await(w.queue(arch, spool.BuildAttempted), "broken", "1")
	if log := read(w.site, filepath.Join(failed, "log")); !strings.Contains(log, "this package fails on purpose") {
		t.Errorf("the log of broken does not have the build's own words:\n%s", log)
	}
	w.reason(w.await(w.queue(arch, spool.BDUninstallable), "never", "1"), "no-such-package")

	// One that could be built when it was accepted, and whose build-dependency
	// has gone when its builder begins: the builder finds that out.
	w.end("buildd-" + arch)
	w.accept(source{name: "waits", version: "2", any: []string{"waits"}, archField: arch, needs: "hand"})
	w.await(w.queue(arch, spool.NeedsBuild), "waits", "2")
	w.end("master-buildd")
	w.must("packmill", "archive", "rm", suite, "hand")
	w.start("buildd-"+arch, "buildd", "--tree", w.tree, "--arch", arch)
	w.reason(w.await(w.queue(arch, spool.DepWait), "waits", "2"), "hand")
	w.start("master-buildd", "master-buildd", "--tree", w.tree)

	// One that is refused does no harm to the next.
	mallory := w.newUploader("mallory")
	mallory.knows(w.ssh, filepath.Join(w.dir, "sshd/host.pub"), who.name)
	copyFile(w.site, filepath.Join(alice.home, ".ssh/id_ed25519"), filepath.Join("home-mallory", ".ssh/id_ed25519"))
	mallory.dput("packmill", mallory.make(source{name: "theirs", version: "1", suite: suite, all: []string{"theirs"}}))
	w.reason(w.await("spool/rejected", "theirs", "1"), mallory.fingerprint[24:])

	// What it waited for comes, and it is built.
	w.accept(source{name: "hand", version: "1:0.6", all: []string{"hand"}})
	w.installed("waits", "2", arch, "source")
	w.installs(w.chroot(arch), suite, "waits", "2", "hand")
	for _, p := range []string{"broken", "never"} {
		if w.listed("main/binary-"+arch+"/Packages.gz", p) {
			t.Errorf("the archive lists %s, which was not built", p)
		}
	}
}

// reason wants words in an item's REASON.
func (w *way) reason(item, words string) {
	w.t.Helper()
	file := filepath.Join(item, spool.ReasonFile)
	w.until(file+" is there", func() bool { return exists(file) })
	if got := read(w.site, file); !strings.Contains(got, words) {
		w.t.Errorf("%s does not name %s: %s", file, words, got)
	}
}

// copyFile copies a file to a name below the site's directory, for its user only.
func copyFile(s *site, from, to string) {
	s.t.Helper()
	s.write(to, read(s, from), 0o600)
}

// listed reports whether an index of the suite, a .gz below dists, has a
// paragraph on the package.
func (s *site) listed(index, pkg string) bool {
	f, err := os.Open(filepath.Join(s.tree, "archive/dists", suite, index))
	if err != nil {
		return false
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		s.t.Fatalf("%s: %v", index, err)
	}
	data, err := io.ReadAll(z)
	if err != nil {
		s.t.Fatalf("%s: %v", index, err)
	}
	return strings.Contains("\n"+string(data), "\nPackage: "+pkg+"\n")
}

// built is the time from the first claim to the last end of the package's
// builds, by their histories.
func (s *site) built(pkg string) time.Duration {
	var first, last time.Time
	for _, item := range s.items(pkg, "*") {
		data, err := os.ReadFile(filepath.Join(s.tree, item, "history"))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(data)) {
			f := strings.Fields(line)
			if len(f) < 3 {
				continue
			}
			at, err := time.Parse(time.RFC3339Nano, f[0])
			if err != nil {
				continue
			}
			if strings.HasSuffix(f[2], "/building") && (first.IsZero() || at.Before(first)) {
				first = at
			}
			if strings.HasSuffix(f[1], "/building") && at.After(last) {
				last = at
			}
		}
	}
	return last.Sub(first).Round(time.Millisecond)
}
