//go:build linux && amd64

package crash

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"packmill/archive"
	"packmill/internal/deb/debtest"
	"packmill/internal/openpgp"
	"packmill/spool/upload/uploadtest"
)

// builderName is the test program's name when it is the builder of Runner: exec.
const builderName = "packmill-test-builder"

// runBuilder is that builder. A source's name says what becomes of its build.
func runBuilder() int {
	dsc, err := os.ReadFile(os.Getenv("PACKMILL_DSC"))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	field := func(name string) string {
		for line := range strings.Lines(string(dsc)) {
			if v, ok := strings.CutPrefix(line, name+": "); ok {
				return strings.TrimSpace(v)
			}
		}
		return ""
	}
	source, version, arch, result := field("Source"), field("Version"), os.Getenv("PACKMILL_ARCH"), os.Getenv("PACKMILL_RESULT")
	fmt.Printf("building %s %s for %s\n", source, version, arch)
	alone(source + "_" + version + "_" + arch)
	switch {
	case strings.HasPrefix(source, "broken"):
		fmt.Println("it does not compile")
		return 2
	case strings.HasPrefix(source, "waiting"):
		if err := os.WriteFile(filepath.Join(result, "dep-wait"), []byte("hello (>= 1)\n"), 0o644); err != nil {
			return 1
		}
		return 3
	}
	// Each build differs, so a second one that came through would show.
	_, err = debtest.Upload{
		Source: debtest.Source{Name: source, Version: version}, NoSource: true, Distribution: os.Getenv("PACKMILL_SUITE"),
		Debs: []debtest.Deb{{Name: source, Version: version, Arch: arch, Packing: "gz",
			Files: []debtest.File{{Path: "usr/share/" + source, Body: time.Now().String()}}}},
	}.Write(result)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// alone notes when two builds of one thing run at the same time: the soak test
// makes the directory in which each holds a lock for as long as it lives.
func alone(key string) {
	dir := filepath.Join(filepath.Dir(os.Args[0]), "busy")
	f, err := os.OpenFile(filepath.Join(dir, key), os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return
	}
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		os.WriteFile(filepath.Join(dir, "TWICE-"+key), nil, 0o666)
	}
	time.Sleep(100 * time.Millisecond)
	runtime.KeepAlive(f)
}

// programs are the project's own, compiled once.
var programs = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "packmill-crash-bin-")
	if err != nil {
		return "", err
	}
	cleanups = append(cleanups, func() { os.RemoveAll(dir) })
	cmd := exec.Command("go", "build", "-o", dir, "packmill/cmd/reviewd", "packmill/cmd/master-buildd",
		"packmill/cmd/buildd",
		"packmill/cmd/archived", "packmill/cmd/packmill")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	data, err := os.ReadFile(self)
	if err != nil {
		return "", err
	}
	return dir, os.WriteFile(filepath.Join(dir, builderName), data, 0o755)
})

// cleanups run when the tests have ended.
var cleanups []func()

// A site is a prepared tree with settings and keys, and the programs.
type site struct {
	t       testing.TB
	dir     string // of everything
	tree    string
	bin     string
	signer  *openpgp.Signer
	drops   int
	publish string
	dress   func(tree string, p *Program) // what more a program needs; nil: nothing
}

var keys = sync.OnceValues(func() ([3]*openpgp.Signer, error) {
	var k [3]*openpgp.Signer
	for i, name := range []string{"uploader", "builder", "archive"} {
		var err error
		if k[i], err = openpgp.Generate(name, name+"@packmill.example", time.Now().Add(-time.Hour)); err != nil {
			return k, err
		}
	}
	return k, nil
})

// newSite makes a tree with the suite sid for amd64 and arm64. review and
// publish are the suite's settings of that name.
func newSite(t testing.TB, review, publish string) *site {
	t.Helper()
	bin, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	k, err := keys()
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, dir: scratch(t), bin: bin, signer: k[0], publish: publish}
	s.tree = filepath.Join(s.dir, "tree")
	s.must("packmill", "init")
	s.write("control/suites",
		fmt.Sprintf("Suite: sid\nArchitectures: amd64 arm64\nIndep-On: amd64\nSign-With: private/archive.key\n"+
			"Review: %s\nLog-Review: auto\nPublish: %s\nContents: no\nTranslations: no\nOpkg: no\nPdiffs: yes\nCompress: gz\n"+
			"Tries: 9\n", review, publish))
	s.write("control/uploaders",
		"Name: Uploader\nFingerprint: "+k[0].Fingerprint()+"\nEmail: uploader@packmill.example\nAllow: source, sign=amd64\n")
	var builders strings.Builder
	for _, a := range []string{"amd64 all", "arm64"} {
		fmt.Fprintf(&builders,
			"Name: builder-%s\nArchitectures: %s\nFingerprint: %s\nKey: private/builder.key\nRunner: exec %s\nJobs: 2\n\n",
			strings.Fields(a)[0], a, k[1].Fingerprint(), filepath.Join(bin, builderName))
	}
	s.write("control/builders", builders.String())
	s.write("control/keys/uploader.asc", string(k[0].Public()))
	s.write("control/keys/builder.asc", string(k[1].Public()))
	s.write("control/private/builder.key", string(k[1].Secret()))
	s.write("control/private/archive.key", string(k[2].Secret()))
	return s
}

func (s *site) write(rel, text string) {
	s.t.Helper()
	path := filepath.Join(s.tree, rel)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.t.Fatal(err)
	}
	mode := fs.FileMode(0o644)
	if strings.HasSuffix(rel, ".key") {
		mode = 0o600
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		s.t.Fatal(err)
	}
}

// command is a program of ours on a tree.
func (s *site) command(tree, name string, args ...string) *Program {
	p := &Program{
		Path: filepath.Join(s.bin, name), Args: append([]string{"--tree", tree}, args...), Roots: []string{tree}, Dir: "/",
		Limit: 40 * time.Second,
		Env:   []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "TMPDIR=" + os.TempDir(), "GOMAXPROCS=2"},
	}
	if s.dress != nil {
		s.dress(tree, p)
	}
	return p
}

// plain runs a program untraced.
func (s *site) plain(tree, name string, args ...string) (string, error) {
	p := s.command(tree, name, args...)
	ctx, cancel := context.WithTimeout(context.Background(), p.Limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.Path, p.Args...)
	cmd.Env, cmd.Dir = p.Env, p.Dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out), err
}

func (s *site) must(name string, args ...string) {
	s.t.Helper()
	if _, err := s.plain(s.tree, name, args...); err != nil {
		s.t.Fatal(err)
	}
}

// drop lays an upload into the drop directory, as a client that has finished.
func (s *site) drop(p uploadtest.Package) {
	s.t.Helper()
	s.dropAt(s.tree, p)
}

func (s *site) dropAt(tree string, p uploadtest.Package) {
	s.t.Helper()
	p.Distribution, p.Signer = "sid", s.signer
	if p.Version == "" {
		p.Version = "1-1"
	}
	// Each one a second after the other, or their names depend on the clock.
	p.Date = time.Now().Add(time.Duration(s.drops-3600) * time.Second)
	s.drops++
	p.Members = func(_ string, list []uploadtest.Member) []uploadtest.Member {
		for i := range list {
			list[i].Header.ModTime = debtest.Time // the same upstream tarball in each version
		}
		return list
	}
	if _, err := p.Write(filepath.Join(tree, "spool/incoming")); err != nil {
		s.t.Fatal(err)
	}
}

// once are the daemons of a whole site, each until nothing is left to do now.
var once = [][]string{
	{"reviewd", "--once"}, {"master-buildd", "--once"}, {"buildd", "--arch", "amd64", "--once"},
	{"buildd", "--arch", "arm64", "--once"}, {"archived", "--once"},
}

// settle runs the daemons in turn until none of them changes anything; one
// alone leaves nothing to do when it ends. Time passes: what was put off is due.
func (s *site) settle(tree string, daemons [][]string) error {
	last := ""
	for range 12 {
		for _, d := range daemons {
			if _, err := s.plain(tree, d[0], d[1:]...); err != nil {
				return err
			}
		}
		put, err := passTime(tree)
		if err != nil {
			return err
		}
		now := ""
		if len(daemons) > 1 {
			if now, err = outline(tree); err != nil {
				return err
			}
		}
		if !put && (now == last || len(daemons) == 1) {
			return nil
		}
		last = now
	}
	return errors.New("the daemons do not come to rest")
}

// passTime makes the jobs due that were put off.
func passTime(tree string) (bool, error) {
	tickets, err := filepath.Glob(filepath.Join(tree, "queue/*/*/*/*/ticket"))
	if err != nil {
		return false, err
	}
	put := false
	for _, name := range tickets {
		data, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the job has moved on
		}
		if err != nil {
			return put, err
		}
		var out []byte
		for line := range bytes.Lines(data) {
			if !bytes.HasPrefix(line, []byte("Not-Before:")) {
				out = append(out, line...)
			}
		}
		if len(out) < len(data) {
			put = true
			if err := os.WriteFile(name, out, 0o664); err != nil {
				return put, err
			}
		}
	}
	return put, nil
}

// outline is every path below the tree that is not a record.
func outline(tree string) (string, error) {
	var b strings.Builder
	err := filepath.WalkDir(tree, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(p, tree)
		if strings.HasPrefix(rel, "/journal") || strings.HasPrefix(rel, "/archive/cache") {
			return nil
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %d\n", rel, info.Size()*int64(1-dirBit(e)))
		return nil
	})
	return b.String(), err
}

func dirBit(e fs.DirEntry) int {
	if e.IsDir() {
		return 1
	}
	return 0
}

// served is what a client of the archive at dir, if it is there, may meet at any
// moment.
func served(dir string) []string {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	a, err := archive.Open(dir)
	if err != nil {
		return []string{err.Error()}
	}
	faults, err := a.Check(context.Background(), archive.CheckOptions{Deep: true})
	if err != nil {
		return []string{err.Error()}
	}
	var broken []string
	for _, f := range faults {
		broken = append(broken, "archive/"+f.String())
	}
	return broken
}

// sums are the files of a directory tree by content: SHA-256 to name.
func sums(t testing.TB, dir string) map[[32]byte]string {
	t.Helper()
	m := map[[32]byte]string{}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return m // before packmill init
	}
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(p)
		m[sha256.Sum256(b)] = filepath.Base(p)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// witness checks that every file that a client sent is in the tree still.
func witness(tree string, sent map[[32]byte]string) []string {
	left := map[[32]byte]string{}
	for k, v := range sent {
		left[k] = v
	}
	for _, part := range []string{"spool", "queue", "archive/incoming", "archive/pool", "archive/installed", "attic"} {
		filepath.WalkDir(filepath.Join(tree, part), func(p string, e fs.DirEntry, err error) error {
			if err == nil && e.Type().IsRegular() {
				if b, err := os.ReadFile(p); err == nil {
					delete(left, sha256.Sum256(b))
				}
			}
			return nil
		})
	}
	var lost []string
	for _, name := range left {
		lost = append(lost, "lost: "+name)
	}
	slices.Sort(lost)
	return lost
}

// where compares the items with what they should be: "DIR SOURCE_VERSION",
// any number of those that begin with "?" may be there.
func where(tree string, want ...string) []string {
	got, err := places(tree)
	if err != nil {
		return []string{err.Error()}
	}
	var may []string
	want = slices.DeleteFunc(slices.Clone(want), func(w string) bool {
		if strings.HasPrefix(w, "?") {
			may = append(may, w[1:])
			return true
		}
		return false
	})
	got = slices.DeleteFunc(got, func(g string) bool { return slices.Contains(may, g) && !slices.Contains(want, g) })
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		return []string{fmt.Sprintf("items: got %q, want %q", got, want)}
	}
	return nil
}
