package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"packmill/cmd/internal/mail"
	"packmill/internal/openpgp"
	"packmill/spool"
	"packmill/spool/statement"
	"packmill/spool/upload/uploadtest"
)

// beReviewd makes this test program the daemon itself: its main, its flags,
// its exit status.
const beReviewd = "PACKMILL_TEST_REVIEWD"

func TestMain(m *testing.M) {
	if os.Getenv(beReviewd) != "" {
		if at := os.Getenv(atStep); at != "" {
			between = striker(at, os.Getenv(inTree))
		}
		main()
		os.Exit(0)
	}
	// Hundreds of small trees: what is synced here is thrown away.
	dir, err := os.MkdirTemp("/dev/shm", "reviewd-")
	if err == nil {
		os.Setenv("TMPDIR", dir)
		os.Chmod(dir, 0o755)
	}
	code := m.Run()
	if err == nil {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

type people struct{ ann, bob, stranger *openpgp.Signer }

// keys are made once: two uploaders and somebody whom nobody knows.
var keys = sync.OnceValue(func() people {
	gen := func(name string) *openpgp.Signer {
		s, err := openpgp.Generate(name, strings.ToLower(name)+"@example.org", time.Now().AddDate(-1, 0, 0))
		if err != nil {
			panic(err)
		}
		return s
	}
	return people{gen("Ann"), gen("Bob"), gen("Stranger")}
})

// site is a tree with its review daemon.
type site struct {
	t    *testing.T
	tree *spool.Tree
	cmds []*exec.Cmd // daemons that run
	log  *lockedBuffer
	who  *syscall.Credential // nil: us
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newSite makes a tree in which ann and bob may upload anything to stable, and
// robot's directory needs no signature. More is added to the stanza of stable.
func newSite(t *testing.T, more ...string) *site {
	t.Helper()
	tree, err := spool.Init(filepath.Join(t.TempDir(), "tree"))
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, tree: tree, log: &lockedBuffer{}}
	k := keys()
	s.write("control/keys/ann.asc", string(k.ann.Public()))
	s.write("control/keys/bob.asc", string(k.bob.Public()))
	s.stable(more...)
	s.write("control/uploaders", fmt.Sprintf("Name: ann\nFingerprint: %s\nEmail: ann@example.org\nAllow: source\n\n"+
		"Name: bob\nFingerprint: %s\nEmail: bob@example.org\nAllow: source\n\nName: robot\nAccount: robot\n"+
		"Email: robot@example.org\nAllow: source\n", k.ann.Fingerprint(), k.bob.Fingerprint()))
	s.write("control/general", "Reserve: 1M\nReserve-Inodes: 1\n")
	t.Cleanup(func() {
		s.stop()
		if t.Failed() {
			t.Logf("the tree:\n%s\nthe log:\n%s", strings.Join(s.paths(), "\n"), s.log)
		}
	})
	return s
}

// stable writes control/suites with the one suite and these lines in its stanza.
func (s *site) stable(more ...string) {
	s.t.Helper()
	s.write("control/suites", "Suite: stable\nArchitectures: amd64\n"+strings.Join(append(more, ""), "\n"))
}

// write makes a file below the tree, and the directories above it.
func (s *site) write(rel, text string) {
	s.t.Helper()
	path := s.tree.Path(rel)
	if err := os.MkdirAll(filepath.Dir(path), 0o775); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o664); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) command(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], append([]string{"--tree", s.tree.Root()}, args...)...)
	cmd.Env = append(os.Environ(), beReviewd+"=1")
	cmd.Stderr = s.log
	if s.who != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.who}
	}
	return cmd
}

// start runs a daemon, or one more, until the test ends.
func (s *site) start() {
	s.t.Helper()
	cmd := s.command()
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.cmds = append(s.cmds, cmd)
}

// once runs the daemon until nothing is left to do.
func (s *site) once() {
	s.t.Helper()
	if err := s.command("--once").Run(); err != nil {
		s.t.Fatalf("reviewd --once: %v", err)
	}
}

func (s *site) stop() {
	for _, cmd := range s.cmds {
		cmd.Process.Signal(syscall.SIGTERM)
	}
	for _, cmd := range s.cmds {
		if err := cmd.Wait(); err != nil {
			s.t.Errorf("reviewd: %v", err)
		}
	}
	s.cmds = nil
}

// make writes an upload into a directory of its own and returns the names of
// its files, the .changes last.
func (s *site) make(p uploadtest.Package) (dir string, names []string) {
	s.t.Helper()
	dir = s.t.TempDir()
	if p.Signer == nil && p.DscSigner == nil {
		p.Signer = keys().ann
	}
	changes, err := p.Write(dir)
	if err != nil {
		s.t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != changes {
			names = append(names, e.Name())
		}
	}
	return dir, append(names, changes)
}

// put copies files into a drop directory, in this order.
func (s *site) put(drop, dir string, names ...string) {
	s.t.Helper()
	if err := os.MkdirAll(s.drop(drop), 0o775); err != nil {
		s.t.Fatal(err)
	}
	for _, n := range names {
		s.copy(filepath.Join(dir, n), s.drop(drop, n))
	}
}

func (s *site) copy(from, to string) {
	s.t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// drop is a path in a drop directory.
func (s *site) drop(elem ...string) string {
	return filepath.Join(append([]string{s.tree.Path("spool/incoming")}, elem...)...)
}

// where finds the items of a source.
func (s *site) where(pattern string, states ...spool.State) []spool.Found {
	s.t.Helper()
	found, err := s.tree.Find(pattern, states...)
	if err != nil {
		s.t.Fatal(err)
	}
	return found
}

// await waits until an item of the name is in a state.
func (s *site) await(pattern string, state spool.State) spool.Found {
	s.t.Helper()
	var found []spool.Found
	s.until(fmt.Sprintf("%s in %s", pattern, state), func() bool {
		found = s.where(pattern, state)
		return len(found) > 0
	})
	return found[0]
}

func (s *site) until(what string, is func() bool) {
	s.t.Helper()
	for end := time.Now().Add(2 * time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("still not: %s", what)
		}
	}
}

// reason is the REASON of a refused upload.
func (s *site) reason(f spool.Found) string { return spool.ReadReason(s.tree.Path(f.Dir())) }

// files lists the uploader's files in an item.
func (s *site) files(f spool.Found) []string {
	s.t.Helper()
	entries, err := os.ReadDir(s.tree.Path(f.Dir()))
	if err != nil {
		s.t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		switch e.Name() {
		case spool.TicketFile, spool.HistoryFile, spool.ReasonFile, statement.File, mail.ToldFile:
		default:
			out = append(out, e.Name())
		}
	}
	return out
}

// paths lists everything in the tree but the settings.
func (s *site) paths() []string {
	var out []string
	filepath.WalkDir(s.tree.Root(), func(p string, e fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(s.tree.Root(), p)
		if err == nil && !e.IsDir() && !strings.HasPrefix(rel, "control/") {
			out = append(out, rel)
		}
		return nil
	})
	return out
}

// sound says that the tree keeps its promises and incoming is empty but for
// what is named.
func (s *site) sound(left ...string) {
	s.t.Helper()
	findings, err := s.tree.Fsck()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, f := range findings {
		s.t.Errorf("fsck: %s", f)
	}
	var got []string
	for _, p := range s.paths() {
		if n, ok := strings.CutPrefix(p, "spool/incoming/"); ok {
			got = append(got, n)
		}
	}
	slices.Sort(left)
	if !slices.Equal(got, left) {
		s.t.Errorf("incoming holds %q, want %q", got, left)
	}
}

func reversed(names []string) []string {
	out := slices.Clone(names)
	slices.Reverse(out)
	return out
}

var hello = uploadtest.Package{Source: "hello", Version: "1.0-1"}

// TestArrivals: every shape in which an upload can come ends in review, with
// all its files, and nothing stays behind.
func TestArrivals(t *testing.T) {
	for _, x := range []struct {
		name  string
		bring func(s *site, dir string, names []string)
	}{
		{"the .changes last", func(s *site, dir string, names []string) { s.put("", dir, names...) }},
		{"the .changes first", func(s *site, dir string, names []string) { s.put("", dir, reversed(names)...) }},
		{"in an account's directory", func(s *site, dir string, names []string) { s.put("ann", dir, names...) }},
		{"renamed in", func(s *site, dir string, names []string) {
			for _, n := range names {
				s.put("", dir, n)
				if err := os.Rename(s.drop(n), s.drop(".up")); err != nil {
					s.t.Error(err)
				}
				if err := os.Rename(s.drop(".up"), s.drop(n)); err != nil {
					s.t.Error(err)
				}
			}
		}},
		{"linked in, as an older sftp renames", func(s *site, dir string, names []string) {
			for _, n := range names {
				s.copy(filepath.Join(dir, n), s.drop("x.filepart"))
				if err := os.Link(s.drop("x.filepart"), s.drop(n)); err != nil {
					s.t.Error(err)
				}
				time.Sleep(20 * time.Millisecond) // both names are there for a while
				if err := os.Remove(s.drop("x.filepart")); err != nil {
					s.t.Error(err)
				}
			}
		}},
		{"cut off and sent again", func(s *site, dir string, names []string) {
			for _, n := range names {
				data, err := os.ReadFile(filepath.Join(dir, n))
				if err != nil {
					s.t.Fatal(err)
				}
				for _, part := range [][]byte{data[:len(data)/2], nil, data} {
					if err := os.WriteFile(s.drop(n), part, 0o644); err != nil {
						s.t.Fatal(err)
					}
					time.Sleep(15 * time.Millisecond)
				}
			}
		}},
		{"an old date on every file", func(s *site, dir string, names []string) {
			old := time.Now().AddDate(-1, 0, 0)
			for _, n := range reversed(names) {
				s.copy(filepath.Join(dir, n), filepath.Join(dir, ".tmp"))
				if err := os.Chtimes(filepath.Join(dir, ".tmp"), old, old); err != nil {
					s.t.Fatal(err)
				}
				if err := os.Rename(filepath.Join(dir, ".tmp"), s.drop(n)); err != nil {
					s.t.Fatal(err)
				}
				time.Sleep(10 * time.Millisecond)
			}
		}},
		{"slowly, in pieces", func(s *site, dir string, names []string) {
			for _, n := range reversed(names) {
				data, err := os.ReadFile(filepath.Join(dir, n))
				if err != nil {
					s.t.Fatal(err)
				}
				f, err := os.Create(s.drop(n))
				if err != nil {
					s.t.Fatal(err)
				}
				for chunk := range slices.Chunk(data, len(data)/5+1) {
					f.Write(chunk)
					time.Sleep(5 * time.Millisecond)
				}
				f.Close()
			}
		}},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			dir, names := s.make(hello)
			s.start()
			x.bring(s, dir, names)
			f := s.await("hello_1.0-1", spool.Review)
			want := slices.Sorted(slices.Values(names))
			if got := s.files(f); !slices.Equal(got, want) {
				t.Errorf("review has %q, want %q", got, want)
			}
			for _, n := range names {
				a, _ := os.ReadFile(filepath.Join(dir, n))
				b, _ := os.ReadFile(s.tree.Path(f.Dir(), n))
				if !bytes.Equal(a, b) {
					t.Errorf("%s is not what was uploaded", n)
				}
			}
			s.stop()
			var left []string
			for _, p := range s.paths() {
				if strings.HasSuffix(p, ".status") {
					left = append(left, strings.TrimPrefix(p, "spool/incoming/"))
				}
			}
			s.sound(left...)
		})
	}
}

// TestSharedOrig: two uploads that share an orig tarball both pass, whichever
// way their files come.
func TestSharedOrig(t *testing.T) {
	second := uploadtest.Package{Source: "hello", Version: "1.0-2"}
	orders := map[string]func(a, b []string) []string{
		"one after the other": func(a, b []string) []string { return append(slices.Clone(a), b...) },
		"changes first":       func(a, b []string) []string { return append(reversed(a), reversed(b)...) },
		"all but the changes, then these": func(a, b []string) []string {
			return append(append(slices.Clone(a[:len(a)-1]), b[:len(b)-1]...), a[len(a)-1], b[len(b)-1])
		},
		"the tarball once": func(a, b []string) []string {
			var out []string
			for _, n := range append(slices.Clone(a), b...) {
				if !slices.Contains(out, n) {
					out = append(out, n)
				}
			}
			return out
		},
	}
	for name, order := range orders {
		for _, running := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, running %v", name, running), func(t *testing.T) {
				t.Parallel()
				s := newSite(t, "Review: never")
				date := time.Now()
				p, q := hello, second
				p.Date, q.Date = date, date
				dir, a := s.make(p)
				dir2, b := s.make(q)
				for _, n := range b {
					s.copy(filepath.Join(dir2, n), filepath.Join(dir, n))
				}
				if running {
					s.start()
				}
				s.put("", dir, order(a, b)...)
				if !running {
					s.once()
				}
				s.await("hello_1.0-1", spool.Accepted)
				f := s.await("hello_1.0-2", spool.Accepted)
				if got := s.files(f); !slices.Equal(got, slices.Sorted(slices.Values(b))) {
					t.Errorf("the second has %q, want %q", got, b)
				}
				s.stop()
				// A tarball that was sent twice may be left over: a stray.
				if rest := s.where("hello", spool.Rejected); len(rest) > 0 {
					t.Errorf("refused: %v", rest)
				}
			})
		}
	}
}

// TestAgain: the same upload a second time is refused with a word on the
// first, wherever that is; after a refusal it may come again.
func TestAgain(t *testing.T) {
	for _, at := range []spool.State{spool.Review, spool.Accepted, spool.Rejected, spool.Attic, spool.Uploaded} {
		t.Run(at.Name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			dir, names := s.make(hello)
			s.put("", dir, names...)
			s.once()
			first := s.await("hello", spool.Review)
			if at != spool.Review {
				p := spool.In(at, "stable")
				if at == spool.Rejected || at == spool.Attic {
					p = spool.In(at)
				}
				if err := s.tree.Ensure(p); err != nil {
					t.Fatal(err)
				}
				to := s.tree.Path(p.Dir(), first.Name.String()) // by hand, which is legal
				if err := os.Rename(s.tree.Path(first.Dir()), to); err != nil {
					t.Fatal(err)
				}
			}
			s.put("", dir, names...)
			s.once()
			var second spool.Found
			for _, f := range s.where("hello", spool.Rejected) {
				if f.Name != first.Name {
					second = f
				}
			}
			if second.Name.Source == "" {
				t.Fatal("the second is not refused")
			}
			if got := s.reason(second); !strings.Contains(got, "was here before") || !strings.Contains(got, "is in ") ||
				!strings.Contains(got, at.Name[:4]) && at != spool.Uploaded {
				t.Errorf("REASON: %s", got)
			}
			if got := s.where(first.Name.String(), at); len(got) != 1 {
				t.Errorf("the first has left %s", at)
			}
			s.sound()
		})
	}
	t.Run("after a refusal", func(t *testing.T) {
		t.Parallel()
		s := newSite(t)
		dir, names := s.make(hello)
		s.write("control/uploaders", "Name: nobody\nAccount: nobody\n")
		s.put("", dir, names...)
		s.once()
		s.await("hello", spool.Rejected)
		s.write("control/uploaders", fmt.Sprintf("Name: ann\nFingerprint: %s\n", keys().ann.Fingerprint()))
		s.put("", dir, names...)
		s.once()
		s.await("hello", spool.Review)
	})
}

// TestRace: two accounts upload the same version of a package at the same
// time. One of them has it, the other is told; no file of either is lost.
func TestRace(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	k := keys()
	a, b := hello, hello
	a.Signer, b.Signer = k.ann, k.bob
	b.Script = "echo another\n"
	dirA, namesA := s.make(a)
	dirB, namesB := s.make(b)
	s.start()
	var wg sync.WaitGroup
	wg.Go(func() { s.put("ann", dirA, namesA...) })
	wg.Go(func() { s.put("bob", dirB, namesB...) })
	wg.Wait()
	won := s.await("hello", spool.Review)
	lost := s.await("hello", spool.Rejected)
	if got := s.reason(lost); !strings.Contains(got, "waits for review already") {
		t.Errorf("REASON of the slower: %s", got)
	}
	if a, b := s.files(won), s.files(lost); !slices.Equal(a, b) {
		t.Errorf("files: %q and %q", a, b)
	}
	if len(s.where("hello")) != 2 {
		t.Errorf("%d items, want 2", len(s.where("hello")))
	}
}

// TestOpenHandle: while somebody has a file open for writing the upload waits;
// what he writes after the claim changes nothing.
func TestOpenHandle(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	dir, names := s.make(hello)
	s.put("", dir, names[:len(names)-1]...)
	held, err := os.OpenFile(s.drop(names[0]), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	s.start()
	s.put("", dir, names[len(names)-1])
	s.until("it is said that somebody writes", func() bool {
		return strings.Contains(s.log.String(), "still being written")
	})
	if got := s.where("hello"); len(got) > 0 {
		t.Errorf("claimed all the same: %v", got)
	}
	held.Close()
	f := s.await("hello", spool.Review)
	want, _ := os.ReadFile(filepath.Join(dir, names[0]))
	if got, _ := os.ReadFile(s.tree.Path(f.Dir(), names[0])); !bytes.Equal(got, want) {
		t.Error("the file differs")
	}
}

// TestUnfinished: what is not complete in time is refused, with what is
// missing; the files that came are kept.
func TestUnfinished(t *testing.T) {
	t.Parallel()
	for _, drop := range []string{"", "ann"} {
		s := newSite(t)
		dir, names := s.make(hello)
		s.put(drop, dir, names[1:]...)
		s.once()
		if got := s.where("hello"); len(got) > 0 {
			t.Errorf("claimed at once: %v", got)
		}
		s.stable("Incomplete: 1s")
		time.Sleep(1100 * time.Millisecond) // the setting's own time
		s.once()
		f := s.await("hello", spool.Rejected)
		if got := s.reason(f); !strings.Contains(got, names[0]) {
			t.Errorf("REASON does not name %s: %s", names[0], got)
		}
		if got := s.files(f); !slices.Equal(got, slices.Sorted(slices.Values(names[1:]))) {
			t.Errorf("rejected has %q, want %q", got, names[1:])
		}
	}
}

// TestStrays: what belongs to nothing stays, and goes to the attic in time.
func TestStrays(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.write("spool/incoming/hello_1.0.orig.tar.gz", "no .changes\n")
	s.write("spool/incoming/ann/a b\nc", "a hostile name\n")
	s.write("spool/incoming/ann/.hidden", "x")
	if err := os.MkdirAll(s.drop("ann", "dir", "below"), 0o775); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", s.drop("link_1.changes")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(s.drop("pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.once()
	s.sound("ann/.hidden", "ann/a b\nc", "hello_1.0.orig.tar.gz", "pipe") // the .changes that is none is refused at once
	s.write("control/general", "Reserve: 1M\nReserve-Inodes: 1\nKeep-Strays: 1s\n")
	time.Sleep(1100 * time.Millisecond)
	s.once()
	s.sound()
	var got []string
	for _, f := range s.where("strays", spool.Attic) {
		entries, _ := os.ReadDir(s.tree.Path(f.Dir(), uploadDir))
		for _, e := range entries {
			got = append(got, e.Name())
		}
	}
	slices.Sort(got)
	if want := []string{".hidden", "a b\nc", "dir", "hello_1.0.orig.tar.gz", "pipe"}; !slices.Equal(got, want) {
		t.Errorf("the attic has %q, want %q", got, want)
	}
}

// oddKinds make what is no plain file, each as an uploader with a shell could.
var oddKinds = map[string]func(path string) error{
	"symlink": func(p string) error { return os.Symlink("/etc/passwd", p) },
	"endless": func(p string) error { return os.Symlink("/dev/zero", p) },
	"FIFO":    func(p string) error { return syscall.Mkfifo(p, 0o644) },
	"socket":  func(p string) error { return syscall.Mknod(p, syscall.S_IFSOCK|0o644, 0) },
	// the one that anybody may make
	"device":      func(p string) error { return syscall.Mknod(p, syscall.S_IFCHR|0o644, 0) },
	"directory":   func(p string) error { return os.MkdirAll(filepath.Join(p, "below"), 0o755) },
	"closed file": func(p string) error { return os.WriteFile(p, []byte("x"), 0) },
}

// TestOddHeads: a .changes or a .commands that is no plain file stops nobody,
// and is refused.
func TestOddHeads(t *testing.T) {
	t.Parallel()
	s := newSite(t, "Incomplete: 1s")
	for kind, make := range oddKinds {
		name := strings.ReplaceAll(kind, " ", "-")
		for _, n := range []string{name + "_1.changes", name + "-1.commands", name + " 1.dak-commands", name + " 1.changes"} {
			if err := make(s.drop(n)); err != nil {
				t.Fatalf("%s: %v", kind, err)
			}
		}
	}
	s.start()
	dir, names := s.make(hello)
	s.put("", dir, names...)
	s.await("hello", spool.Review)
	want := 2 * len(oddKinds)
	s.until("all are refused", func() bool { return len(s.where("", spool.Rejected)) >= want })
	s.stop()
	s.once() // and the misnamed one that is a plain file
	if n := len(s.where("", spool.Rejected)); n != want+1 {
		t.Errorf("%d are refused, want %d", n, want+1)
	}
	for _, f := range s.where("", spool.Rejected) {
		if strings.Contains(s.reason(f), "root:") {
			t.Errorf("REASON shows a file of the machine: %s", s.reason(f))
		}
	}
}

// TestOddFiles: a listed name that is not a plain file of its own.
func TestOddFiles(t *testing.T) {
	hard := func(p string) error {
		if err := os.WriteFile(p+".other", []byte(strings.Repeat("x", 100000)), 0o644); err != nil {
			return err
		}
		return os.Link(p+".other", p)
	}
	for name, x := range map[string]struct {
		bend func(path string) error
		want string
	}{
		"symlink": {oddKinds["symlink"], "symbolic link"}, "endless": {oddKinds["endless"], "symbolic link"},
		"FIFO": {oddKinds["FIFO"], "not a regular file"}, "socket": {oddKinds["socket"], "not a regular file"},
		"device": {oddKinds["device"], "not a regular file"}, "directory": {oddKinds["directory"], "not a regular file"},
		"hard link": {hard, "hard links"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, "Incomplete: 1s")
			dir, names := s.make(hello)
			s.put("", dir, names[1:]...)
			if err := x.bend(s.drop(names[0])); err != nil {
				t.Fatal(err)
			}
			s.once()
			time.Sleep(1100 * time.Millisecond)
			s.once()
			f := s.await("hello", spool.Rejected)
			if got := s.reason(f); !strings.Contains(got, x.want) {
				t.Errorf("REASON has no %q: %s", x.want, got)
			}
		})
	}
}

// TestUnreadable: a file of mode 000 waits for a better mode, and is refused
// with the cure when none comes. Root reads it all the same, so the daemon
// runs as somebody else then.
func TestUnreadable(t *testing.T) {
	t.Parallel()
	for _, mended := range []bool{true, false} {
		s := newSite(t)
		if os.Getuid() == 0 {
			s.who = &syscall.Credential{Uid: 65534, Gid: 65534}
			for dir := s.tree.Root(); dir != "/" && strings.HasPrefix(dir, os.TempDir()); dir = filepath.Dir(dir) {
				if dir != os.TempDir() {
					os.Chmod(dir, 0o755)
				}
			}
			for path := os.Args[0]; path != "/"; path = filepath.Dir(path) {
				if st, err := os.Stat(path); err == nil && st.Mode()&0o055 != 0o055 {
					os.Chmod(path, st.Mode()|0o055)
				}
			}
			filepath.WalkDir(s.tree.Root(), func(p string, _ fs.DirEntry, _ error) error { return os.Chown(p, 65534, 65534) })
		}
		dir, names := s.make(hello)
		s.put("", dir, names...)
		if err := os.Chmod(s.drop(names[0]), 0); err != nil {
			t.Fatal(err)
		}
		s.once()
		if got := s.where("hello"); len(got) > 0 {
			t.Errorf("claimed at once: %v", got)
		}
		if mended {
			if err := os.Chmod(s.drop(names[0]), 0o644); err != nil {
				t.Fatal(err)
			}
			s.once()
			s.await("hello", spool.Review)
			continue
		}
		s.stable("Incomplete: 1s")
		time.Sleep(1100 * time.Millisecond)
		s.once()
		f := s.await("hello", spool.Rejected)
		if got := s.reason(f); !strings.Contains(got, "mode") {
			t.Errorf("REASON does not speak of the mode: %s", got)
		}
		if !slices.Contains(s.files(f), names[0]) {
			t.Errorf("the file is not kept: %q", s.files(f))
		}
	}
}

// TestNewer: a newer upload of a package that waits takes its place in the
// order; the older goes to the attic. A lower version is refused.
func TestNewer(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	version := func(v string) {
		dir, names := s.make(uploadtest.Package{Source: "hello", Version: v})
		s.put("", dir, names...)
		s.once()
	}
	version("1.0-1")
	first := s.await("hello_1.0-1", spool.Review)
	version("1.0-3")
	f := s.await("hello_1.0-3", spool.Review)
	if !f.Name.Time.Equal(first.Name.Time) {
		t.Errorf("1.0-3 waits since %v, and the place it took since %v", f.Name.Time, first.Name.Time)
	}
	s.await("hello_1.0-1", spool.Attic)
	version("1.0-2")
	low := s.await("hello_1.0-2", spool.Rejected)
	if got := s.reason(low); !strings.Contains(got, "1.0-3 of it waits for review already") {
		t.Errorf("REASON: %s", got)
	}
	version("1.0-3") // once more by the same person, mended
	again := s.await("hello_1.0-3", spool.Review)
	if !again.Name.Time.Equal(first.Name.Time) || len(s.where("hello", spool.Review)) != 1 {
		t.Errorf("after the same version again: %v", s.where("hello"))
	}
	s.sound()
}

// TestCrowd: twenty accounts at once, a thousand files, one daemon.
func TestCrowd(t *testing.T) {
	s := newSite(t, "Review: never")
	s.start()
	var wg sync.WaitGroup
	const people, each = 8, 5
	for i := range people {
		type one struct {
			dir   string
			names []string
		}
		var all []one
		for j := range each {
			dir, names := s.make(uploadtest.Package{Source: fmt.Sprintf("pkg-%d-%d", i, j), Version: "1.0-1"})
			all = append(all, one{dir, names})
		}
		wg.Go(func() {
			for _, o := range all {
				s.put(fmt.Sprintf("acct%d", i), o.dir, o.names...)
			}
		})
	}
	wg.Wait()
	s.until("all are accepted", func() bool { return len(s.where("", spool.Accepted)) == people*each })
	s.stop()
	if bad := s.where("", spool.Rejected); len(bad) > 0 {
		t.Errorf("refused: %v", bad)
	}
}

// TestMisnamed: a .changes under a name that none can have is refused with
// that name, safe to read, when it has waited long enough.
func TestMisnamed(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	names := []string{
		"hello_1.0-1 (copy).changes", "$(id)_1.changes", "-x_1.changes", "a;b_1.changes", "%s%n_1.changes",
		".hidden_1.changes", "hello.changes",
		"a\x1b[2Jb_1.changes", "a\nb_1.changes", "a\u202eb_1.changes", "\xff_1.changes",
		strings.Repeat("a", 246) + "_.changes",
	}
	dir, files := s.make(hello)
	for _, n := range names {
		s.copy(filepath.Join(dir, files[len(files)-1]), s.drop(n))
	}
	s.once()
	if got := s.where(""); len(got) > 0 {
		t.Errorf("refused at once: %v", got)
	}
	s.stable("Incomplete: 1s")
	time.Sleep(1100 * time.Millisecond) // the setting's own time
	s.once()
	s.sound()
	var got []string
	for _, f := range s.where("unknown", spool.Rejected) {
		reason := s.reason(f)
		if strings.ContainsFunc(reason, func(c rune) bool { return c != '\n' && (c < 0x20 || c > 0x7e) }) {
			t.Errorf("REASON is not safe: %q", reason)
		}
		got = append(got, reason)
	}
	if len(got) != len(names) {
		t.Errorf("%d are refused, want %d", len(got), len(names))
	}
	for _, n := range names {
		want := "the .changes arrived as " + strconv.QuoteToASCII(n) +
			" in spool/incoming; name it SOURCE_VERSION_source.changes"
		if !slices.ContainsFunc(got, func(r string) bool { return strings.Contains(r, want) }) {
			t.Errorf("no %s in any REASON; one is:\n%s", want, got[0])
		}
	}
}

// TestChecksOfSuite: the level that a suite's Checks gives a check decides.
func TestChecksOfSuite(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		checks, remark string
		state          spool.State
	}{
		{"", "", spool.Rejected}, {"maintainer=off", "", spool.Review},
		{"maintainer=warning", "warning: Maintainer is \"nobody\"", spool.Review},
		{"maintainer=off urgency=error", "", spool.Rejected},
	} {
		s := newSite(t, "Checks: "+x.checks)
		if x.checks == "" {
			s = newSite(t)
		}
		dir, names := s.make(uploadtest.Package{Source: "hello", Version: "1.0-1", Maintainer: "nobody", Urgency: "odd"})
		s.put("", dir, names...)
		s.once()
		f := s.await("hello", x.state)
		st, err := spool.ReadTicket(s.tree.Path(f.Dir()))
		if err != nil {
			t.Fatal(err)
		}
		if got := st.Get("Remarks"); !strings.Contains(got, x.remark) ||
			x.remark == "" && strings.Contains(got, "Maintainer is") {
			t.Errorf("Checks: %s: remarks %q, want %q", x.checks, got, x.remark)
		}
	}
}

// TestOneReason: what can be told of a .changes that names something impossible is that,
// and not that every other file did not come, nor what a suite would have asked for.
func TestOneReason(t *testing.T) {
	s := newSite(t, "Checks: dsc-unsigned=off")
	for _, x := range []struct {
		name string
		p    uploadtest.Package
		want string
	}{
		{"evil", uploadtest.Package{Changes: func(text string) string {
			return strings.ReplaceAll(text, "evil_1.0.tar.gz", "../evil_1.0.tar.gz")
		}}, "error (file-name): "},
		{"lost", uploadtest.Package{Distribution: "nowhere", Urgency: "now"},
			"error (distribution): Distribution is \"nowhere\", which is no suite here"},
	} {
		x.p.Source, x.p.Version, x.p.Signer = x.name, "1.0", keys().ann
		dir, names := s.make(x.p)
		s.put("", dir, names...)
		s.once()
		found := s.where(x.name, spool.Rejected)
		if len(found) != 1 {
			t.Fatalf("%s is not refused", x.name)
		}
		if why := s.reason(found[0]); strings.Count(why, "error (")+strings.Count(why, "warning (") != 1 ||
			!strings.Contains(why, x.want) {
			t.Errorf("%s: got\n%s\nwant only %s", x.name, why, x.want)
		}
	}
}
