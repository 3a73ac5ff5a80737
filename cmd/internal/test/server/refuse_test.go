//go:build system

package server

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestRefuse sends what must not get in. Each is refused with its reason,
// nothing of it is lost, and the next good upload goes its way.
func TestRefuse(t *testing.T) {
	s := newSite(t)
	alice := s.newUploader("alice")
	bob := s.newUploader("bob") // known to nobody
	s.set(setting{publish: "together", archs: []string{machine(t)}, extra: "Incomplete: 3s\n",
		people: []string{alice.stanza("source")}})
	s.sshd(alice, bob)
	for _, n := range []string{"reviewd", "master-buildd"} {
		s.start(n, n, "--tree", s.tree)
	}
	good := func(name, version string) string {
		return alice.make(source{name: name, version: version, suite: suite, all: []string{name}})
	}
	first := good("first", "1")
	alice.dput("packmill", first)
	s.await("spool/review/"+suite, "first", "1")
	s.must("packmill", "review", "accept", "first")
	s.until("first is with the queues", func() bool { _, ok := s.in("queue/"+suite+"/master", "first", "1"); return ok })

	for _, x := range []struct {
		name string
		// send uploads something and gives the .changes and what else of
		// it must be found again.
		send func() (changes string, others []string)
		want []string // in REASON, one of them
	}{
		{"unsigned", func() (string, []string) {
			c := good("unsigned", "1")
			write(t, c, unsigned(read(s, c)))
			alice.dput("raw", c)
			return c, sourceFiles(t, c)
		}, []string{"not signed", "no signature", "unsigned"}},
		{"wrong key", func() (string, []string) {
			c := bob.make(source{name: "wrongkey", version: "1", suite: suite, all: []string{"wrongkey"}})
			bob.dput("raw", c)
			return c, sourceFiles(t, c)
		}, []string{bob.fingerprint, bob.fingerprint[24:]}},
		{"tampered file", func() (string, []string) {
			c := good("tampered", "1")
			tar := strings.TrimSuffix(c, "_source.changes") + ".tar.xz"
			data := []byte(read(s, tar))
			data[len(data)/2] ^= 1
			write(t, tar, string(data))
			alice.dput("raw", c)
			return c, sourceFiles(t, c)
		}, []string{"tampered_1.tar.xz"}},
		{"tampered changes", func() (string, []string) {
			c := good("forged", "1")
			write(t, c, strings.Replace(read(s, c), "Urgency: medium", "Urgency: urgent", 1))
			alice.dput("raw", c)
			return c, sourceFiles(t, c)
		}, []string{"signature"}},
		{"missing file", func() (string, []string) {
			c := good("missing", "1")
			alice.put(strings.TrimSuffix(c, "_source.changes")+".dsc", c)
			// A daemon looks once a minute; a second one may look at any time.
			s.until("the patience is over", func() bool {
				time.Sleep(time.Second)
				s.must("reviewd", "--once", "--tree", s.tree)
				return len(s.rejected("missing_1_source.changes")) > 0
			})
			return c, nil
		}, []string{"missing_1.tar.xz"}},
		{"path in a file name", func() (string, []string) {
			c := good("path", "1")
			alice.sign(c, strings.ReplaceAll(unsigned(read(s, c)), " path_1.tar.xz", " ../../../path_1.tar.xz"))
			alice.put(strings.TrimSuffix(c, "_source.changes")+".tar.xz", c)
			return c, nil
		}, []string{"path_1.tar.xz"}},
		{"unknown suite", func() (string, []string) {
			c := alice.make(source{name: "nowhere", version: "1", suite: "neverland", all: []string{"nowhere"}})
			alice.dput("raw", c)
			return c, sourceFiles(t, c)
		}, []string{"neverland"}},
		{"duplicate", func() (string, []string) {
			alice.dput("raw", first)
			return first, sourceFiles(t, first)
		}, []string{"already", "again", "exists"}},
		{"same version, other content", func() (string, []string) {
			c := alice.make(source{name: "first", version: "1", suite: suite, all: []string{"first"}, noise: "@echo another"})
			alice.dput("raw", c)
			return c, sourceFiles(t, c)
		}, []string{"already", "again", "exists", "version"}},
	} {
		t.Run(x.name, func(t *testing.T) {
			before := s.rejected("")
			changes, others := x.send()
			sent := map[string][]byte{}
			for _, f := range append(others, changes) {
				sent[filepath.Base(f)] = []byte(read(s, f))
			}
			var item string
			s.until("it is in rejected", func() bool {
				for _, dir := range s.rejected(filepath.Base(changes)) {
					if !slices.Contains(before, dir) {
						item = dir
					}
				}
				return item != "" && exists(filepath.Join(item, "REASON"))
			})
			reason := read(s, filepath.Join(item, "REASON"))
			said := false
			for _, w := range x.want {
				said = said || strings.Contains(reason, w)
			}
			if !said {
				t.Errorf("REASON is %q, want one of %q in it", reason, x.want)
			}
			t.Logf("%s", strings.TrimSpace(reason))
			// What an unknown person's .changes lists may be somebody else's,
			// and stays where it was dropped.
			for name, data := range sent {
				if same(filepath.Join(item, name), data) ||
					name != filepath.Base(changes) && same(filepath.Join(s.tree, "spool/incoming", name), data) {
					continue
				}
				t.Errorf("%s of the refused upload is not kept as it was sent", name)
			}
		})
	}

	// Nothing of all that is in the way of the next one.
	alice.dput("packmill", good("next", "1"))
	s.await("spool/review/"+suite, "next", "1")
	if left, _ := filepath.Glob(filepath.Join(s.tree, "spool/incoming/*.changes")); len(left) > 0 {
		t.Errorf("left in incoming: %q", left)
	}
	if escaped, _ := filepath.Glob(filepath.Join(s.dir, "path_1*")); len(escaped) > 0 {
		t.Errorf("a file name with a path got out of incoming: %q", escaped)
	}
	s.stop()
	s.fsck()
}

// rejected are the refused items that hold a file of that name, or all.
func (s *site) rejected(file string) []string {
	m, _ := filepath.Glob(filepath.Join(s.tree, "spool/rejected/*", file))
	if file != "" {
		for i := range m {
			m[i] = filepath.Dir(m[i])
		}
	}
	return m
}

// same reports whether the file holds just that.
func same(path string, data []byte) bool {
	got, err := os.ReadFile(path)
	return err == nil && bytes.Equal(got, data)
}

// sourceFiles are the files of an upload that the .changes lists.
func sourceFiles(t *testing.T, changes string) []string {
	files := listed(t, changes)
	return files[:len(files)-1]
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// unsigned is the text inside a clearsigned one.
func unsigned(text string) string {
	_, text, _ = strings.Cut(text, "\n\n")
	text, _, _ = strings.Cut(text, "\n-----BEGIN PGP SIGNATURE-----")
	return strings.TrimRight(text, "\n") + "\n"
}

// sign writes the text, clearsigned by gpg, as path.
func (u *uploader) sign(path, text string) {
	u.s.t.Helper()
	write(u.s.t, path, text)
	u.s.own(path)
	u.must("gpg", "--batch", "--yes", "--local-user", u.fingerprint, "--clearsign", path)
	write(u.s.t, path, read(u.s, path+".asc"))
}
