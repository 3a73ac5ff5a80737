//go:build system

package server

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"packmill/queue/runner"
	"packmill/spool"
)

// account is who everything runs as: builds never run as root.
type account struct {
	name     string
	uid, gid int
	home     string // empty: our own
}

var (
	bin     string // the programs
	scripts string
	who     account
)

func TestMain(m *testing.M) {
	runner.Reexec()
	os.Exit(func() int {
		if err := prepare(); err != nil {
			fmt.Fprintf(os.Stderr, "e2e: %v\n", err)
			return 1
		}
		defer os.RemoveAll(filepath.Dir(bin))
		return m.Run()
	}())
}

// prepare builds the programs and finds the user. It says what is missing.
func prepare() error {
	syscall.Umask(0o022)
	for program, pkg := range map[string]string{
		"sbuild": "sbuild", "mmdebstrap": "mmdebstrap", "newuidmap": "uidmap", "dput": "dput-ng", "gpg": "gnupg",
		"sftp": "openssh-client", "/usr/sbin/sshd": "openssh-server", "dpkg-buildpackage": "dpkg-dev",
		"unshare": "util-linux",
	} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%s is missing; install %s, or run scripts/test, which does", program, pkg)
		}
	}
	name := os.Getenv("PACKMILL_BUILD_USER")
	if os.Getuid() == 0 && name == "" {
		return fmt.Errorf("builds never run as root: name a user with subordinate ids in PACKMILL_BUILD_USER, " +
			"or run scripts/test, which makes one")
	}
	u, err := user.Current()
	if os.Getuid() == 0 {
		u, err = user.Lookup(name)
	}
	if err != nil {
		return err
	}
	who = account{name: u.Username, home: u.HomeDir}
	who.uid, _ = strconv.Atoi(u.Uid)
	who.gid, _ = strconv.Atoi(u.Gid)

	scripts, err = filepath.Abs("../../../../scripts")
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "packmill-bin-")
	if err != nil {
		return err
	}
	bin = filepath.Join(dir, "bin")
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	mains, err := filepath.Glob("../../../*/main.go")
	if err != nil || len(mains) == 0 {
		return fmt.Errorf("no programs in cmd: %v", err)
	}
	cmd := exec.Command("go", "build", "-o", bin+"/")
	for _, m := range mains {
		cmd.Args = append(cmd.Args, "./cmd/"+filepath.Base(filepath.Dir(m)))
	}
	cmd.Dir = filepath.Dir(scripts)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

// command is a program as the user that builds, in a plain environment.
func (a account) command(env []string, name string, args ...string) *exec.Cmd {
	if !strings.Contains(name, "/") {
		if p := filepath.Join(bin, name); exists(p) {
			name = p
		}
	}
	cmd := exec.Command(name, args...)
	cmd.Dir = "/"
	cmd.Env = append([]string{
		"PATH=" + bin + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=" + a.home, "USER=" + a.name, "LOGNAME=" + a.name, "LC_ALL=C.UTF-8",
	}, env...)
	if os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)}}
	}
	return cmd
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// site is one tree with its daemons, its sshd and its web server.
type site struct {
	t    *testing.T
	dir  string // everything
	tree string
	ssh  int // port
	web  int

	mu    sync.Mutex
	procs map[string]*proc
}

// newSite makes a tree by packmill init, and nothing more.
func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), procs: map[string]*proc{}}
	// t.TempDir's parent is ours alone where the umask says so.
	if err := os.Chmod(filepath.Dir(s.dir), 0o755); err != nil {
		t.Fatal(err)
	}
	s.own(s.dir)
	s.tree = filepath.Join(s.dir, "tree")
	s.must("packmill", "init", "--tree", s.tree)
	s.mkdir("log")
	t.Cleanup(func() {
		s.stop()
		if t.Failed() {
			s.tell()
		}
		// What a chroot left belongs to subordinate ids.
		who.command(nil, "unshare", "--user", "--map-auto", "--map-root-user", "rm", "-rf", s.tree).Run()
	})
	return s
}

func (s *site) own(path string) {
	if err := os.Chown(path, who.uid, who.gid); err != nil {
		s.t.Fatal(err)
	}
}

// mkdir makes a directory below the site's own, the user's.
func (s *site) mkdir(name string) string {
	p := filepath.Join(s.dir, name)
	if err := os.MkdirAll(p, 0o755); err != nil {
		s.t.Fatal(err)
	}
	s.own(p)
	return p
}

// write makes a file below the site's own directory, the user's.
func (s *site) write(name, text string, mode os.FileMode) string {
	p := filepath.Join(s.dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), mode); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Chmod(p, mode); err != nil {
		s.t.Fatal(err)
	}
	s.own(p)
	return p
}

// run runs a program as the user; the text is what it printed.
func (s *site) run(name string, args ...string) (string, error) {
	cmd := who.command([]string{"PACKMILL_TREE=" + s.tree}, name, args...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s %s: %w\n%s", filepath.Base(name), strings.Join(args, " "), err, out)
	}
	return string(out), err
}

func (s *site) must(name string, args ...string) string {
	s.t.Helper()
	out, err := s.run(name, args...)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// proc is a daemon under our supervisor, which does what systemd does with
// the units: again after a signal or 111, never after 100.
type proc struct {
	mu    sync.Mutex
	cmd   *exec.Cmd
	end   bool
	done  chan struct{}
	kills int
}

// start runs a program until stop, its words in log/NAME.
func (s *site) start(name string, argv ...string) {
	s.t.Helper()
	s.supervise(name, func() *exec.Cmd {
		return who.command([]string{"PACKMILL_TREE=" + s.tree}, argv[0], argv[1:]...)
	})
}

// startAs is start of a daemon as the account of its unit.
func (s *site) startAs(account, daemon string, args ...string) {
	s.t.Helper()
	s.supervise(daemon, func() *exec.Cmd {
		return exec.Command("setpriv", append([]string{"--reuid=" + account, "--regid=" + spool.GroupAll, "--init-groups",
			filepath.Join(bin, daemon)}, args...)...)
	})
}

// supervise starts what command gives until stop, its words in log/NAME.
func (s *site) supervise(name string, command func() *exec.Cmd) {
	s.t.Helper()
	log, err := os.OpenFile(filepath.Join(s.dir, "log", name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		s.t.Fatal(err)
	}
	p := &proc{done: make(chan struct{})}
	begin := func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.end {
			return nil
		}
		p.cmd = command()
		p.cmd.Stdout, p.cmd.Stderr = log, log
		return p.cmd.Start()
	}
	if err := begin(); err != nil {
		s.t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		defer log.Close()
		for {
			p.cmd.Wait()
			p.mu.Lock()
			end, status := p.end, p.cmd.ProcessState
			p.mu.Unlock()
			if end {
				return
			}
			if code := status.ExitCode(); code == 100 || code == 0 {
				s.t.Errorf("%s ended with status %d and nobody had asked it to", name, code)
				return
			}
			time.Sleep(100 * time.Millisecond)
			if err := begin(); err != nil {
				s.t.Errorf("start %s again: %v", name, err)
				return
			}
		}
	}()
	s.mu.Lock()
	s.procs[name] = p
	s.mu.Unlock()
}

// kill ends the program of that name at once, as a power cut would; the
// supervisor starts it again. It reports whether the program ran.
func (s *site) kill(name string) bool {
	s.mu.Lock()
	p := s.procs[name]
	s.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd.ProcessState != nil || p.end || p.cmd.Process.Signal(syscall.SIGKILL) != nil {
		return false
	}
	p.kills++
	return true
}

// end asks the program to end and waits.
func (s *site) end(name string) {
	s.mu.Lock()
	p := s.procs[name]
	delete(s.procs, name)
	s.mu.Unlock()
	if p == nil {
		return
	}
	p.mu.Lock()
	p.end = true
	if p.cmd.ProcessState == nil {
		p.cmd.Process.Signal(syscall.SIGTERM)
	}
	p.mu.Unlock()
	select {
	case <-p.done:
	case <-time.After(patience):
		s.t.Errorf("%s does not end within %v of SIGTERM", name, patience)
		p.cmd.Process.Kill()
		<-p.done
	}
}

func (s *site) stop() {
	s.mu.Lock()
	var names []string
	for n := range s.procs {
		names = append(names, n)
	}
	s.mu.Unlock()
	for _, n := range names {
		s.end(n)
	}
}

// daemons starts one of each, and a builder for each architecture.
func (s *site) daemons(archs ...string) {
	s.t.Helper()
	for _, n := range []string{"reviewd", "master-buildd", "archived"} {
		s.start(n, n, "--tree", s.tree)
	}
	for _, a := range archs {
		s.start("buildd-"+a, "buildd", "--tree", s.tree, "--arch", a)
	}
}

// items finds every item of a source package in the tree: its directories
// below the tree, sorted. An empty version means any.
func (s *site) items(source, version string) []string {
	if version == "" {
		version = "*"
	}
	version = strings.ReplaceAll(version, ":", "%3a")
	var found []string
	for _, row := range spool.Standard.States {
		dir := strings.NewReplacer("SUITE", "*", "ARCH", "*", "HASH", "*").Replace(row.Dir)
		m, err := filepath.Glob(filepath.Join(s.tree, dir, "*_"+source+"_"+version))
		if err != nil {
			s.t.Fatal(err)
		}
		for _, p := range m {
			rel, _ := filepath.Rel(s.tree, p)
			found = append(found, rel)
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// in finds the one item of a package whose directory matches the pattern
// (SUITE/ARCH states as spool.Table has them, * where it does not matter).
func (s *site) in(pattern, source, version string) (string, bool) {
	m, _ := filepath.Glob(filepath.Join(s.tree, pattern, "*_"+source+"_"+strings.ReplaceAll(version, ":", "%3a")))
	if len(m) == 0 {
		return "", false
	}
	return m[0], true
}

// await waits until the package lies where the pattern says, and gives the
// item's directory.
func (s *site) await(pattern, source, version string) string {
	s.t.Helper()
	var item string
	s.until(fmt.Sprintf("%s %s in %s", source, version, pattern), func() (ok bool) {
		item, ok = s.in(pattern, source, version)
		return ok
	})
	return item
}

// patience is how long anything may take. Only a failure takes so long: a
// machine that others load must not fail a test.
const patience = 6 * time.Minute

// until waits for a condition and stops the test if it does not come true.
func (s *site) until(what string, is func() bool) {
	s.t.Helper()
	end := time.Now().Add(patience)
	for !is() {
		if time.Now().After(end) {
			s.t.Fatalf("after %v still not: %s\n%s", patience, what, s.ls())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// ls is what is where, a line an item.
func (s *site) ls() string {
	return strings.Join(s.items("*", "*"), "\n")
}

// tell prints what a person would look at after a failure.
func (s *site) tell() {
	s.t.Logf("the tree:\n%s", s.ls())
	logs, _ := filepath.Glob(filepath.Join(s.dir, "log", "*"))
	for _, l := range logs {
		data, _ := os.ReadFile(l)
		if lines := bytes.Split(bytes.TrimSpace(data), []byte("\n")); len(lines) > 40 {
			data = bytes.Join(lines[len(lines)-40:], []byte("\n"))
		}
		s.t.Logf("%s:\n%s", filepath.Base(l), data)
	}
	reasons, _ := filepath.Glob(filepath.Join(s.tree, "*/*/*/REASON"))
	for _, r := range reasons {
		data, _ := os.ReadFile(r)
		s.t.Logf("%s:\n%s", r, data)
	}
}

// fsck proves that every item is in exactly one legal state.
func (s *site) fsck() {
	s.t.Helper()
	if out, err := s.run("packmill", "fsck"); err != nil {
		s.t.Errorf("packmill fsck: %v\n%s", err, out)
	}
}
