// Package stories tests whole lives of packages through the real daemons, with
// real signatures and the instant builder.
package stories

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"testing"
	"time"

	"packmill/internal/openpgp"
	"packmill/queue/buildlog"
	"packmill/queue/runner"
	"packmill/spool"
	"packmill/spool/upload/uploadtest"
)

// bin is where TestMain built the programs.
var bin string

func TestMain(m *testing.M) {
	runner.Reexec() // chroots are made by this program
	dir, err := os.MkdirTemp("", "packmill-life-*")
	if err == nil {
		bin = dir
		var out []byte
		cmd := exec.Command("go", "build", "-o", dir+"/", "packmill/cmd/reviewd", "packmill/cmd/master-buildd",
			"packmill/cmd/buildd",
			"packmill/cmd/archived", "packmill/cmd/maild", "packmill/cmd/statusd", "packmill/cmd/packmill",
			"packmill/cmd/internal/test/fakebuilder")
		if out, err = cmd.CombinedOutput(); err != nil {
			err = fmt.Errorf("%w\n%s", err, out)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "build the programs:", err)
		os.Exit(1)
	}
	status := m.Run()
	os.RemoveAll(dir)
	os.Exit(status)
}

// mill is a tree with settings, keys and an instant builder.
type mill struct {
	*testing.T
	tree   string
	home   string // of the instant builder
	signer *openpgp.Signer
	as     *syscall.Credential // who runs the programs; nil: who runs the test
	// gives each daemon its account; nil: all have that of as
	accounts func(program string, cmd *exec.Cmd)
}

// newMill makes a tree with one suite, stable; lines are added to its stanza.
func newMill(t *testing.T, lines ...string) *mill {
	t.Helper()
	return newMillIn(t, t.TempDir(), lines...)
}

// shm is a directory in memory, for what syncs hundreds of times and is thrown away.
func shm(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "packmill-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// newMillIn is newMill in a directory.
func newMillIn(t *testing.T, dir string, lines ...string) *mill {
	t.Helper()
	m := &mill{T: t, tree: filepath.Join(dir, "tree"), home: filepath.Join(dir, "instant")}
	m.must(os.MkdirAll(filepath.Join(m.home, "script"), 0o755))
	m.must(os.Symlink(m.tree, filepath.Join(m.home, "tree")))
	program, err := os.ReadFile(filepath.Join(bin, "fakebuilder"))
	m.must(err)
	m.must(os.WriteFile(filepath.Join(m.home, "fakebuilder"), program, 0o755))
	m.packmill("init")

	then := time.Now().Add(-time.Hour)
	key := func(name string) *openpgp.Signer {
		s, err := openpgp.Generate(name, name+"@example.org", then)
		m.must(err)
		m.must(os.WriteFile(filepath.Join(m.tree, "control/private", name+".key"), s.Secret(), 0o600))
		m.must(os.WriteFile(filepath.Join(m.tree, "control/keys", name+".asc"), s.Public(), 0o644))
		return s
	}
	m.signer = key("uploader")
	builder := key("builder")
	key("archive")
	suite := append([]string{"Suite: stable", "Sign-With: private/archive.key"}, lines...)
	for _, d := range []string{"Architectures: amd64", "Review: never"} {
		name, _, _ := strings.Cut(d, " ")
		if !strings.Contains("\n"+strings.Join(lines, "\n"), "\n"+name) {
			suite = append(suite, d)
		}
	}
	m.control("suites", strings.Join(suite, "\n"))
	m.control("uploaders", "Name: Up Loader\nFingerprint: "+m.signer.Fingerprint()+"\nEmail: up@example.org")
	m.control("builders",
		"Name: b1\nArchitectures: amd64 i386 all\nFingerprint: "+builder.Fingerprint()+"\nKey: private/builder.key\nJobs: 2\nRunner: exec "+m.home+"/fakebuilder")
	return m
}

func (m *mill) must(err error) {
	m.Helper()
	if err != nil {
		m.Fatal(err)
	}
}

// control writes a settings file.
func (m *mill) control(name, text string) {
	m.Helper()
	m.must(os.WriteFile(filepath.Join(m.tree, "control", name), []byte(text+"\n"), 0o644))
}

// script tells the instant builder what becomes of a build.
func (m *mill) script(id, orders string) {
	m.Helper()
	path := filepath.Join(m.home, "script", id)
	if orders == "" {
		m.must(os.Remove(path))
		return
	}
	m.must(os.WriteFile(path, []byte(orders+"\n"), 0o644))
}

// hold makes the builds with the order "hold" wait; the function that it
// returns lets them end.
func (m *mill) hold(id string) (release func()) {
	m.Helper()
	m.script(id, "hold")
	path := filepath.Join(m.home, "hold")
	m.must(os.WriteFile(path, nil, 0o644))
	return func() { m.must(os.Remove(path)) }
}

// upload writes a signed upload into the drop directory.
func (m *mill) upload(p uploadtest.Package) {
	m.Helper()
	p.Signer = m.signer
	_, err := p.Write(filepath.Join(m.tree, "spool/incoming"))
	m.must(err)
}

// packmill runs the person's command and returns what it printed.
func (m *mill) packmill(args ...string) string {
	m.Helper()
	out, err := m.try(args...)
	if err != nil {
		m.Fatalf("packmill %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (m *mill) try(args ...string) (string, error) {
	cmd := exec.Command(filepath.Join(bin, "packmill"), append([]string{"--tree", m.tree}, args...)...)
	cmd.Env = append(os.Environ(), "USER=mallory", "LOGNAME=mallory") // the system says who it is
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: m.as}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// command is a daemon; buildd has its architecture in its name.
func (m *mill) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	program, arch, _ := strings.Cut(name, "buildd-")
	if args = append([]string{"--tree", m.tree}, args...); arch != "" {
		program, args = "buildd", append(args, "--arch", arch)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(bin, program), args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: m.as}
	if m.accounts != nil {
		m.accounts(program, cmd)
	}
	return cmd
}

// once runs one daemon until nothing is left for it to do.
func (m *mill) once(name string) {
	m.Helper()
	var out bytes.Buffer
	cmd := m.command(m.Context(), name, "--once")
	cmd.Stderr = &out
	if err := cmd.Run(); err != nil {
		m.Fatalf("%s --once: %v\n%s", name, err, &out)
	}
	if m.Failed() {
		m.Log(out.String())
	}
}

// settle runs every daemon in turn until nothing moves.
func (m *mill) settle() string {
	m.Helper()
	before := int64(-1)
	for range 50 {
		for _, d := range []string{"reviewd", "master-buildd", "buildd-amd64", "master-buildd", "archived"} {
			m.once(d)
		}
		if strings.Contains(m.suites(), "i386") {
			m.once("buildd-i386")
		}
		// The journal has a line for each move.
		now := int64(0)
		files, err := filepath.Glob(filepath.Join(m.tree, "journal/*"))
		m.must(err)
		for _, f := range files {
			st, err := os.Stat(f)
			m.must(err)
			now += st.Size()
		}
		if now == before {
			return m.where()
		}
		before = now
	}
	m.Fatal("it does not come to rest")
	return ""
}

func (m *mill) suites() string {
	data, err := os.ReadFile(filepath.Join(m.tree, "control/suites"))
	m.must(err)
	return string(data)
}

// where lists every item: "state arch source_version", sorted.
func (m *mill) where() string {
	m.Helper()
	tree, err := spool.Open(m.tree)
	m.must(err)
	found, err := tree.Find("")
	m.must(err)
	var lines []string
	for _, f := range found {
		arch := f.Arch()
		if arch == "" {
			arch = "source"
		}
		lines = append(lines, fmt.Sprintf("%s %s %s", f.Place.State, arch, f.Name.ID()))
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

// want compares where everything is.
func (m *mill) want(got string, lines ...string) {
	m.Helper()
	sort.Strings(lines)
	if want := strings.Join(lines, "\n"); got != want {
		m.Fatalf("the tree:\n%s\nwant:\n%s\n%s%s", got, want, m.packmill("ls"), m.logs())
	}
}

// sound runs fsck.
func (m *mill) sound() {
	m.Helper()
	if out, err := m.try("fsck"); err != nil {
		m.Errorf("fsck: %v\n%s", err, out)
	}
}

// until waits for a condition.
func (m *mill) until(what string, ok func() bool) {
	m.Helper()
	m.within(150*time.Second, what, ok)
}

// within is until of what may take long on a busy machine.
func (m *mill) within(most time.Duration, what string, ok func() bool) {
	m.Helper()
	deadline := time.Now().Add(most)
	for !ok() {
		if time.Now().After(deadline) {
			m.Fatalf("after %s still not: %s\n%s", most, what, m.packmill("ls"))
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// running is a daemon in the background.
type running struct {
	m    *mill
	name string
	cmd  *exec.Cmd
	log  bytes.Buffer
}

func (m *mill) start(name string) *running {
	m.Helper()
	r := &running{m: m, name: name, cmd: m.command(context.Background(), name)}
	r.cmd.Stderr = &r.log
	m.must(r.cmd.Start())
	m.Cleanup(func() {
		r.cmd.Process.Signal(syscall.SIGTERM)
		r.cmd.Wait()
		if m.Failed() {
			m.Logf("%s:\n%s", name, tail(r.log.String()))
		}
	})
	return r
}

// kill is kill -9, and a new start.
func (r *running) kill() {
	r.m.Helper()
	r.cmd.Process.Kill()
	r.cmd.Wait()
	log := r.log
	r.cmd = r.m.command(context.Background(), r.name)
	r.log = log
	r.cmd.Stderr = &r.log
	r.m.must(r.cmd.Start())
}

// builds reads the instant builder's own record: how often each build began.
func (m *mill) builds() map[string]int {
	m.Helper()
	out := map[string]int{}
	data, err := os.ReadFile(filepath.Join(m.home, "builds"))
	if os.IsNotExist(err) {
		return out
	}
	m.must(err)
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) == 4 && f[1] == "begin" {
			out[f[2]]++
		}
	}
	return out
}

// tail is the end of a long log.
func tail(s string) string { return s[max(0, len(s)-4000):] }

// logs are the build logs that lie in the tree.
func (m *mill) logs() string {
	out := ""
	filepath.WalkDir(m.tree, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Name() == "log" {
			data, _ := os.ReadFile(path)
			out += path + ":\n" + tail(string(data))
		}
		return nil
	})
	return out
}

// found is where the items of a source are.
func (m *mill) found(source string, states ...spool.State) []spool.Found {
	m.Helper()
	tree, err := spool.Open(m.tree)
	m.must(err)
	found, err := tree.Find(source, states...)
	m.must(err)
	return found
}

// item is the directory of the one item of a source in a state.
func (m *mill) item(state spool.State, source string) string {
	m.Helper()
	found := m.found(source, state)
	if len(found) != 1 {
		m.Fatalf("%s in %s: %v, want one\n%s", source, state, found, m.packmill("ls"))
	}
	return filepath.Join(m.tree, found[0].Dir())
}

// readAll reads a log, compressed or not.
func readAll(t *testing.T, path string) string {
	t.Helper()
	r, err := buildlog.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
