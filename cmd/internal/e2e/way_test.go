//go:build system

package e2e

import (
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
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
	extra   string // further fields of the suite
	people  []string
}

const suite = "e2e"

// set writes control: one suite, the people, one builder for everything.
func (s *site) set(x setting) {
	s.t.Helper()
	uri, codename := s.base()
	if x.runner == "" {
		x.runner = "sbuild"
	}
	s.key("archive")
	builder := s.key("builder")
	s.write("tree/control/suites", fmt.Sprintf("Suite: %s\nArchitectures: %s\nReview: always\nLog-Review: auto\nPublish: %s\nBase: deb %s %s main\nSign-With: private/archive.key\n%s",
		suite, strings.Join(x.archs, " "), x.publish, uri, codename, x.extra), 0o644)
	s.write("tree/control/uploaders", strings.Join(x.people, ""), 0o644)
	s.write("tree/control/builders", fmt.Sprintf("Name: here\nArchitectures: %s all\nRunner: %s\nChroots: %s\nKey: private/builder.key\nFingerprint: %s\n", strings.Join(x.archs, " "), x.runner, cache(), builder), 0o644)
}

// TestWholeWay takes packages from a person's dput to a program that apt
// installed, with every real part on the way, in both ways to publish.
func TestWholeWay(t *testing.T) {
	for _, publish := range []string{"together", "source-first"} {
		t.Run(publish, func(t *testing.T) { wholeWay(t, publish) })
	}
}

func wholeWay(t *testing.T, publish string) {
	arch := machine(t)
	s := newSite(t)
	alice := s.newUploader("alice")
	s.set(setting{publish: publish, archs: []string{arch}, people: []string{alice.stanza("source")}})
	chroot := s.chroot(suite, arch)
	s.sshd(alice)
	s.serve()
	s.daemons(arch, "all")

	// A good package for a concrete architecture and for all of them; all is
	// slow enough that it is never the first to end.
	begin := time.Now()
	alice.dput("packmill", alice.make(source{name: "both", version: "1.0", suite: suite, any: []string{"both"}, all: []string{"both-data"},
		noise: `case "$(MAKECMDGOALS)" in *indep*) sleep 6 ;; esac`}))
	dropped := time.Now()
	s.await(30*time.Second, "spool/review/"+suite, "both", "1.0")
	t.Logf("source package made and sent in %v, in review %v after dput's end", dropped.Sub(begin).Round(time.Millisecond), time.Since(dropped).Round(time.Millisecond))
	if out := s.must("packmill", "review", "show", "both"); !strings.Contains(out, "both") || !strings.Contains(out, "1.0") {
		t.Errorf("packmill review show: %q", out)
	}
	s.must("packmill", "review", "accept", "both")

	// These wait for their turn behind it.
	alice.dput("packmill", alice.make(source{name: "broken", version: "1", suite: suite, any: []string{"broken"}, fails: true}))
	alice.dput("packmill", alice.make(source{name: "lacks", version: "2", suite: suite, any: []string{"lacks"}, needs: "no-such-package (>= 3)"}))
	alice.dput("packmill", alice.make(source{name: "hand", version: "1:0.5~rc1", suite: suite, all: []string{"hand"}}))

	// What the archive says while one architecture is open.
	s.until(3*time.Minute, arch+" of both is built", func() bool {
		_, open := s.in("queue/"+suite+"/all/building", "both", "1.0")
		_, done := s.in("queue/"+suite+"/"+arch+"/building", "both", "1.0")
		_, waits := s.in("queue/"+suite+"/"+arch+"/needs-build", "both", "1.0")
		return open && !done && !waits
	})
	if publish == "together" {
		if listed := s.listed("main/source/Sources.gz", "both"); listed {
			t.Errorf("together: the archive has the source of both while all is still being built:\n%s", s.ls())
		}
	} else {
		s.until(20*time.Second, "source-first: the source of both is published before its binaries", func() bool { return s.listed("main/source/Sources.gz", "both") })
	}
	s.await(3*time.Minute, "archive/installed/"+suite+"/all/*", "both", "1.0")
	s.await(time.Minute, "archive/installed/"+suite+"/"+arch+"/*", "both", "1.0")
	total := time.Since(dropped)
	s.installs(chroot, suite, "both", "1.0")
	s.installs(chroot, suite, "both-data", "1.0")
	t.Logf("dropped to installable in %v; sbuild itself took %v", total.Round(time.Millisecond), s.built("both"))

	// A person accepts with mv.
	from := s.await(10*time.Second, "spool/review/"+suite, "hand", "1:0.5~rc1")
	if out, err := s.run("mv", from, filepath.Join(s.tree, "spool/accepted", suite)+"/"); err != nil {
		t.Fatalf("mv: %v\n%s", err, out)
	}
	for _, p := range []string{"broken", "lacks"} {
		s.must("packmill", "review", "accept", p)
	}
	s.await(2*time.Minute, "archive/installed/"+suite+"/all/*", "hand", "1:0.5~rc1")
	s.installs(chroot, suite, "hand", "1:0.5~rc1")

	// One that fails and one that waits.
	failed := s.await(2*time.Minute, "queue/"+suite+"/"+arch+"/build-attempted", "broken", "1")
	if log := read(s, filepath.Join(failed, "log")); !strings.Contains(log, "this package fails on purpose") {
		t.Errorf("the log of broken does not have the build's own words:\n%s", log)
	}
	// master-buildd sees by its indexes that it cannot be built; where it has
	// none, the builder finds out.
	var waits string
	s.until(2*time.Minute, "lacks waits for its build-dependency", func() (ok bool) {
		if waits, ok = s.in("queue/"+suite+"/"+arch+"/bd-uninstallable", "lacks", "2"); !ok {
			waits, ok = s.in("queue/"+suite+"/"+arch+"/dep-wait", "lacks", "2")
		}
		return ok && exists(filepath.Join(waits, "REASON"))
	})
	if reason := read(s, filepath.Join(waits, "REASON")); !strings.Contains(reason, "no-such-package") {
		t.Errorf("%s: REASON does not name the missing package: %s", waits, reason)
	}
	if s.listed("main/binary-"+arch+"/Packages.gz", "broken") {
		t.Error("the archive lists the package that did not build")
	}

	// One that is refused does no harm to the next.
	mallory := s.newUploader("mallory")
	mallory.knows(s.ssh, filepath.Join(s.dir, "sshd/host.pub"), who.name)
	copyFile(s, filepath.Join(alice.home, ".ssh/id_ed25519"), filepath.Join("home-mallory", ".ssh/id_ed25519"))
	mallory.dput("packmill", mallory.make(source{name: "theirs", version: "1", suite: suite, all: []string{"theirs"}}))
	refused := s.await(30*time.Second, "spool/rejected", "theirs", "1")
	if reason := read(s, filepath.Join(refused, "REASON")); !strings.Contains(reason, mallory.fingerprint) && !strings.Contains(reason, mallory.fingerprint[24:]) {
		t.Errorf("REASON of an upload by a stranger does not name the key %s: %s", mallory.fingerprint, reason)
	}

	// The needed package comes, and what waited for it is built.
	alice.dput("packmill", alice.make(source{name: "no-such-package", version: "3", suite: suite, all: []string{"no-such-package"}}))
	s.await(30*time.Second, "spool/review/"+suite, "no-such-package", "3")
	s.must("packmill", "review", "accept", "no-such-package")
	s.await(3*time.Minute, "archive/installed/"+suite+"/"+arch+"/*", "lacks", "2")
	s.installs(chroot, suite, "lacks", "2")

	s.stop()
	s.fsck()
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
