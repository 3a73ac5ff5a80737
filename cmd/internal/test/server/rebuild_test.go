//go:build system

package server

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// TestRebuild builds what was published once more: one package comes out the
// same, and one that writes down where, in which locale and in which time zone it
// was built does not.
func TestRebuild(t *testing.T) {
	arch := machine(t)
	s := newSite(t)
	alice := s.newUploader("alice")
	s.set(setting{publish: "source-first", archs: []string{arch}, people: []string{alice.stanza("source")},
		runner: "overlay"})
	// A second builder, of another name.
	here := read(s, s.tree+"/control/builders")
	s.write("tree/control/builders", here+"\n"+strings.Replace(here, "Name: here", "Name: there", 1), 0o644)
	s.chroot(arch)
	s.sshd(alice)
	for _, name := range []string{"reviewd", "master-buildd", "archived"} {
		s.start(name, name, "--tree", s.tree)
	}
	s.start("buildd", "buildd", "--tree", s.tree, "--builder", "here")

	alice.dput("packmill", alice.make(source{name: "steady", version: "1", suite: suite, any: []string{"steady"}}))
	alice.dput("packmill",
		alice.make(source{name: "placed", version: "1", suite: suite, any: []string{"placed", "spoken", "timed"},
			noise: "for p in placed spoken timed; do mkdir -p debian/stage/$$p/usr/share; done; " +
				"pwd > debian/stage/placed/usr/share/x; echo $$LC_ALL > debian/stage/spoken/usr/share/x; " +
				"date +%z > debian/stage/timed/usr/share/x"}))
	for _, p := range []string{"steady", "placed"} {
		s.await("spool/review/"+suite, p, "1")
		s.must("packmill", "review", "accept", p)
	}
	for _, p := range []string{"steady", "placed"} {
		s.await("archive/installed/"+suite+"/"+arch+"/*", p, "1")
	}
	s.until("nothing is on its way", func() bool {
		return !strings.Contains(s.ls(), "archive/incoming/") && !strings.Contains(s.ls(), "queue/")
	})
	var shown struct{ Buildinfo []string }
	if out := s.must("packmill", "show", "steady", "--json"); json.Unmarshal([]byte(line(out, "buildinfo")),
		&shown) != nil || len(shown.Buildinfo) != 1 ||
		!strings.Contains(read(s, shown.Buildinfo[0]), "\nChecksums-Sha256:") {
		t.Errorf("packmill show names no .buildinfo: %s", out)
	}
	before := s.ls()
	if out := s.must("packmill", "rebuild", "--check", "steady"); !strings.Contains(out,
		"buildd/here built, built again by there: the same bits") ||
		!strings.Contains(out, "same            steady_1_"+arch+".deb") {
		t.Errorf("rebuild of what is steady: %s", out)
	}
	out, err := s.run("packmill", "rebuild", "--check", "--json", "placed")
	if err == nil || !strings.Contains(err.Error(), "exit status 1") {
		t.Errorf("rebuild of what is placed: %v", err)
	}
	var got struct {
		Same  bool
		Kept  string
		Files []struct {
			Name string
			Same bool
		}
		Diffoscope []string
	}
	out, _, _ = strings.Cut(out, "\n") // what follows is on standard error
	if err := json.Unmarshal([]byte(out), &got); err != nil || got.Same || len(got.Files) != 3 ||
		len(got.Diffoscope) != 3 {
		t.Fatalf("rebuild --json: %v\n%s", err, out)
	}
	defer os.RemoveAll(got.Kept)
	if log := read(s, got.Kept+"/log"); !strings.Contains(log, "building placed 1 on") {
		t.Errorf("the log that is kept: %s", log)
	}
	if _, err := s.run("packmill", "rebuild", "steady"); err == nil || !strings.Contains(err.Error(), "exit status 100") {
		t.Errorf("without --check: %v", err)
	}
	if after := s.ls(); after != before {
		t.Errorf("a rebuild changed the tree:\n%s\nbefore:\n%s", after, before)
	}
	s.stop()
	s.fsck()
}

// line is the first line of a text that has the word.
func line(text, word string) string {
	for l := range strings.Lines(text) {
		if strings.Contains(l, word) {
			return l
		}
	}
	return ""
}
