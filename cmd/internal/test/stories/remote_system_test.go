//go:build system

package stories

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"packmill/internal/openpgp"
	"packmill/queue/buildlog"
	"packmill/spool"
	"packmill/spool/upload/uploadtest"
)

// hostPort is where the sshd of a master that is a host of its own listens.
const hostPort = 22

// farm is a master with a real sshd, for builders on other machines.
type farm struct {
	*accounts
	dir     string // of sshd
	port    int
	key     string   // with which all of the builders' results are signed, as lines of a stanza
	stanzas []string // of control/builders
	log     safeBuffer
}

// far is a builder on "another machine": a tree, settings and an ssh key of its own, and what it shares with the
// master is sshd.
type far struct {
	*farm
	name, dir, ssh string
	host           *host  // nil: this machine
	user           string // whose the daemon is
	cmd            *exec.Cmd
	log            safeBuffer
}

// newFar makes a farm with one builder.
func newFar(t *testing.T, lines ...string) *far {
	return newFarm(t).builder("far1", "amd64 all", nil, lines...)
}

// newFarm makes one without builders, whose sshd listens at the loopback.
func newFarm(t *testing.T, suite ...string) *farm {
	t.Helper()
	f := &farm{accounts: newAccounts(t, suite...)}
	f.dir = filepath.Join(filepath.Dir(f.tree), "sshd")
	f.must(os.Mkdir(f.dir, 0o755))
	// packmill builder add lets the account log in; it is left as it was.
	field := func(base string, n int) string {
		out, err := exec.Command("getent", base, spool.UserBuild).Output()
		f.must(err)
		return strings.Split(strings.TrimSpace(string(out)), ":")[n]
	}
	shell, password := field("passwd", 6), field("shadow", 1)
	t.Cleanup(func() {
		if out, err := exec.Command("usermod", "--shell", shell, "--password", password, spool.UserBuild).CombinedOutput(); err != nil {
			t.Errorf("usermod: %v\n%s", err, out)
		}
	})
	local, err := os.ReadFile(filepath.Join(f.tree, "control/builders"))
	f.must(err)
	for line := range strings.Lines(string(local)) {
		if strings.HasPrefix(line, "Fingerprint:") || strings.HasPrefix(line, "Key:") {
			f.key += line
		}
	}
	f.keygen(filepath.Join(f.dir, "host"))
	f.must(os.MkdirAll("/run/sshd", 0o755))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	f.must(err)
	f.port = l.Addr().(*net.TCPAddr).Port
	l.Close()
	f.sshd(nil, f.port)
	f.until("sshd listens", func() bool {
		c, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(f.port))
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return f
}

func (f *farm) keygen(path string) {
	f.Helper()
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path).CombinedOutput(); err != nil {
		f.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
}

// sshd starts one that listens at all addresses of a host; of this machine, at the loopback.
func (f *farm) sshd(at *host, port int) {
	f.Helper()
	address := "0.0.0.0"
	if at == nil {
		address = "127.0.0.1"
	}
	config := filepath.Join(f.dir, "config-"+strconv.Itoa(port))
	f.must(os.WriteFile(config, fmt.Appendf(nil, "Port %d\nListenAddress %s\nHostKey %s/host\nPidFile none\n"+
		"UsePAM no\nStrictModes no\nAuthorizedKeysFile %s/keys\nMaxStartups 100\nLogLevel ERROR\n", port, address, f.dir,
		f.dir), 0o600))
	cmd := at.command("/usr/sbin/sshd", "-D", "-e", "-f", config)
	cmd.Stderr = &f.log
	f.must(cmd.Start())
	f.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
}

// builder adds one at a host, nil for this machine, with these lines in its stanza at the master.
func (f *farm) builder(name, archs string, at *host, lines ...string) *far {
	f.Helper()
	b := &far{farm: f, name: name, host: at, user: spool.UserBuild, dir: filepath.Join(filepath.Dir(f.tree), name)}
	f.must(os.Mkdir(b.dir, 0o755))
	id := filepath.Join(b.dir, "id")
	f.keygen(id)
	words := append([]string{"builder", "--keys", filepath.Join(f.dir, "keys"), "add", name, id + ".pub"},
		strings.Fields(archs)...)
	f.packmill(words...)
	builders, err := os.ReadFile(filepath.Join(f.tree, "control/builders"))
	f.must(err)
	_, stanza, ok := strings.Cut(string(builders), "\n\nName: "+name)
	if !ok {
		f.Fatalf("packmill builder add wrote no stanza:\n%s", builders)
	}
	f.stanzas = append(f.stanzas, "Name: "+name+strings.TrimRight(stanza, "\n")+"\n"+f.key+strings.Join(lines, "\n"))
	f.control("builders", strings.Join(f.stanzas, "\n\n"))
	port := f.port
	if at != nil {
		port = hostPort
	}
	b.ssh = fmt.Sprintf(
		"ssh -p %d -i %s -o IdentitiesOnly=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR",
		port,
		id,
	)

	// The builder's own machine.
	own(f.T, spool.UserBuild, b.dir, id)
	if out, err := f.run(spool.UserBuild, filepath.Join(bin, "packmill"), "--tree", filepath.Join(b.dir, "tree"),
		"init"); err != nil {
		f.Fatalf("init: %v\n%s", err, out)
	}
	b.settings("builders", "Name: me\nArchitectures: "+archs+"\nJobs: 2\nRunner: exec "+f.home+"/fakebuilder")
	return b
}

// runAs makes the daemon another account's.
func (f *far) runAs(user string) {
	f.Helper()
	f.user = user
	if out, err := exec.Command("chown", "-R", user, f.dir).CombinedOutput(); err != nil {
		f.Fatalf("chown: %v\n%s", err, out)
	}
}

// settings writes a file of the builder's own control.
func (f *far) settings(name, text string) {
	f.Helper()
	f.must(os.WriteFile(filepath.Join(f.dir, "tree/control", name), []byte(text+"\n"), 0o644))
}

// call starts the builder's daemon.
func (f *far) call() {
	f.Helper()
	master := "127.0.0.1"
	if f.host != nil {
		master = f.host.master
	}
	f.cmd = f.host.command(filepath.Join(bin, "buildd"), "--tree", filepath.Join(f.dir, "tree"), "--work",
		filepath.Join(f.dir, "work"), "--master", spool.UserBuild+"@"+master, "--ssh", f.ssh)
	f.host.as(f.cmd, credential(f.T, f.user))
	f.cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + f.dir}
	f.cmd.Dir = "/"
	f.cmd.Stderr = &f.log
	f.must(f.cmd.Start())
	cmd := f.cmd
	f.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		cmd.Wait()
		if f.Failed() {
			f.Logf("%s:\n%s\n%s", f.name, tail(f.log.String()), f.logs())
		}
	})
}

// die is kill -9 of the builder.
func (f *far) die() {
	f.Helper()
	f.cmd.Process.Kill()
	f.cmd.Wait()
}

// serving are the processes of the master that serve the builder.
func (f *farm) serving() (pids []int) {
	f.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	f.must(err)
	for _, path := range all {
		if data, err := os.ReadFile(path); err == nil && strings.HasPrefix(string(data),
			"buildd\x00--tree\x00"+f.tree+"\x00") {
			if pid, err := strconv.Atoi(strings.Split(path, "/")[2]); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// queue uploads a package and makes its jobs.
func (f *farm) queue(source string) {
	f.Helper()
	f.drop(uploadtest.Package{Source: source, Version: "1", Distribution: "stable"})
	f.daemon("reviewd")
	f.daemon("master-buildd")
}

// is waits until a source's job is in a state.
func (f *farm) is(source string, state spool.State) {
	f.Helper()
	f.until(fmt.Sprintf("%s in %s", source, state), func() bool { return len(f.found(source, state)) == 1 })
}

// TestFar: the whole way of a package that is built on another machine, by accounts and a real sshd; whichever
// process dies
// meanwhile, it is built once, and published.
func TestFar(t *testing.T) {
	f := newFar(t)
	f.call()
	f.queue("hello")
	f.until("hello is built", func() bool { return len(f.found("hello", spool.NeedsBuild, spool.Building)) == 0 })
	f.daemon("master-buildd")
	f.daemon("archived")
	f.want(f.where(), "installed amd64 hello_1", "installed source hello_1")
	if out := f.packmill("builder", "ls"); !strings.Contains(out, "far1  amd64 all  here since 2") {
		t.Errorf("packmill builder ls: %s", out)
	}
	if out := f.packmill("log", "hello"); !strings.Contains(out, "building hello_1_amd64 for stable") {
		t.Errorf("packmill log: %s", out)
	}

	// Its key starts serve-builder whatever else is asked for, and forwards nothing.
	to, port := spool.UserBuild+"@127.0.0.1", strings.Fields(f.ssh)[2]
	for _, x := range []struct {
		args []string
		says string
	}{
		{[]string{to, "id"}, "the session with the builder ended"},
		{[]string{"-tt", to, "id"}, "PTY allocation request failed"},
		{[]string{"-s", to, "sftp"}, "subsystem request failed"},
		{[]string{"-W", "127.0.0.1:" + port, to}, "stdio forwarding failed"},
		{[]string{"-N", "-o", "ExitOnForwardFailure=yes", "-R", "127.0.0.1:0:127.0.0.1:1", to}, "remote port forwarding failed"},
	} {
		argv := append(append([]string{"timeout", "30"}, strings.Fields(f.ssh)...), x.args...)
		out, err := f.run("root", argv...)
		if strings.Contains(out, "uid=") || strings.Contains(out, "SSH-2") || !strings.Contains(out, x.says) {
			t.Errorf("ssh %q: %v, %q, want a refusal with %q", x.args, err, out, x.says)
		}
	}

	// The master's process dies, then the line, during a build.
	release := f.hold("world_1_amd64")
	f.queue("world")
	f.until("it is being built", func() bool { return f.builds()["world_1_amd64"] == 1 })
	follower, end := f.follow("world", "amd64")
	f.until("its log comes as it is written", func() bool {
		return strings.Contains(follower.String(), "building world_1_amd64 for stable")
	})
	if out := f.packmill("why", "world"); !strings.Contains(
		out,
		"far1 on another machine has it by a lease, was heard ",
	) {
		t.Errorf("packmill why: %s", out)
	}
	for _, pid := range f.serving() {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	f.until("the builder is back", func() bool { return strings.Contains(f.packmill("builder", "ls"), "here since") })
	exec.Command("pkill", "-KILL", "-P", strconv.Itoa(f.cmd.Process.Pid), "ssh").Run()
	f.until("the session has ended", func() bool {
		return strings.Contains(f.packmill("builder", "ls"),
			"away; has world_1 amd64")
	})
	f.sound() // a job whose builder is away is where it belongs
	release()
	f.until("world is built", func() bool { return len(f.found("world", spool.NeedsBuild, spool.Building)) == 0 })
	if n := f.builds()["world_1_amd64"]; n != 1 {
		t.Errorf("world was built %d times", n)
	}
	if status := end(); status != 0 || strings.Count(follower.String(), "building world_1_amd64") != 1 {
		t.Errorf("log -f over three sessions ended with %d: %s", status, follower.String())
	}
	made, err := buildlog.BuildsAt(f.item(spool.Uploaded, "world"))
	if err != nil || len(made) != 1 || made[0].CPU <= 0 || made[0].Disk <= 0 || made[0].Size <= 0 ||
		made[0].Builder != "buildd/far1" {
		t.Errorf("the record of the build: %+v, %v", made, err)
	}

	// The builder dies, and says when it is back what it has lost.
	release = f.hold("lost_1_amd64")
	f.queue("lost")
	f.until("it is being built", func() bool { return f.builds()["lost_1_amd64"] == 1 })
	f.die()
	f.call()
	f.until("it is built again", func() bool { return f.builds()["lost_1_amd64"] == 2 })
	if out := f.packmill("show", "lost"); !strings.Contains(out, "the builder has lost the job") {
		t.Errorf("show lost: %s", out)
	}
	// A person ends what runs there.
	f.packmill("cancel", "lost", "amd64", "-m", "enough")
	f.is("lost", spool.Attic)
	release()
	f.daemon("master-buildd")
	f.daemon("archived")
	f.sound()

	f.packmill("builder", "drain", "far1")
	if err := f.cmd.Wait(); err != nil {
		t.Errorf("a drained builder's daemon: %v", err)
	}
}

// TestFarLease: a builder that does not come back keeps its job until the lease ends, once; what it brings later
// is refused.
func TestFarLease(t *testing.T) {
	f := newFar(t, "Lease: 3s")
	f.call()
	release := f.hold("hello_1_amd64")
	f.queue("hello")
	f.until("it is being built", func() bool { return f.builds()["hello_1_amd64"] == 1 })
	f.robbed("hello")
	syscall.Kill(-f.cmd.Process.Pid, syscall.SIGSTOP)
	for _, pid := range f.serving() {
		syscall.Kill(pid, syscall.SIGTERM) // as when keep-alive has seen it
	}
	f.is("hello", spool.Building)
	f.packmill("builder", "pause", "far1")
	f.until("a process looks", func() bool {
		f.run(spool.UserBuild, filepath.Join(bin, "buildd"), "--tree", f.tree, "--builder", "far1", "--once")
		return len(f.found("hello", spool.NeedsBuild)) == 1
	})
	release()
	syscall.Kill(-f.cmd.Process.Pid, syscall.SIGCONT)
	f.until("the builder hears why", func() bool { return strings.Contains(f.log.String(), "its lease ended") })
	if out := f.packmill("show", "hello"); strings.Count(out, "its lease has ended") != 1 {
		t.Errorf("show hello: %s", out)
	}
	f.sound()
}

// robbed has another builder bring a result of a job that it does not hold, of which it knows even the token: it hears
// why that counts for nothing, and the job stays whose it is.
func (f *far) robbed(source string) {
	f.Helper()
	at := f.item(spool.Building, source)
	before, err := spool.ReadLease(at)
	f.must(err)
	thief := f.builder("thief", "amd64", nil, "Packages: none")
	job := filepath.Join(thief.dir, "work/jobs", before.Token)
	f.must(os.MkdirAll(filepath.Join(job, "result"), 0o755))
	for name, text := range map[string]string{"outcome": `{"Outcome":"attempted","Reason":"so says a thief"}`,
		"log": "a thief's log\n"} {
		f.must(os.WriteFile(filepath.Join(job, name), []byte(text), 0o644))
	}
	thief.runAs(spool.UserBuild)
	thief.call()
	f.until("the thief hears why", func() bool {
		return strings.Contains(thief.log.String(), "it is not this builder's any more")
	})
	f.until("what it brought is gone there", func() bool { _, err := os.Lstat(job); return os.IsNotExist(err) })
	thief.die()
	after, err := spool.ReadLease(at)
	f.must(err)
	if after == nil || after.Builder != f.name || after.Token != before.Token {
		f.Errorf("the lease of %s: %+v, it was %+v", source, after, before)
	}
	if out := f.packmill("show", source) + f.packmill("log", source); strings.Contains(out, "thief") {
		f.Errorf("the thief is heard: %s", out)
	}
}

// TestFarKey: a builder signs with a key of its own, which stays on its host; what another key signed there is not
// taken, and the job tried again.
func TestFarKey(t *testing.T) {
	f := newFarm(t)
	then := time.Now().Add(-time.Hour)
	var keys []*openpgp.Signer
	for _, name := range []string{"far", "stranger"} {
		s, err := openpgp.Generate(name, name+"@example.org", then)
		f.must(err)
		keys = append(keys, s)
	}
	f.must(os.WriteFile(filepath.Join(f.tree, "control/keys/far.asc"), keys[0].Public(), 0o644))
	f.key = "Fingerprint: " + keys[0].Fingerprint() + "\n"
	b := f.builder("far1", "amd64 all", nil)
	b.settings("builders", "Name: me\nArchitectures: amd64 all\nRunner: exec "+f.home+"/fakebuilder\n"+
		"Key: private/far.key")
	path := filepath.Join(b.dir, "tree/control/private/far.key")
	f.must(os.WriteFile(path, keys[0].Secret(), 0o600))
	b.runAs(spool.UserBuild)
	b.call()
	f.queue("hello")
	f.until("hello is built", func() bool { return len(f.found("hello", spool.NeedsBuild, spool.Building)) == 0 })
	f.daemon("master-buildd")
	f.daemon("archived")
	f.want(f.where(), "installed amd64 hello_1", "installed source hello_1")

	f.must(os.WriteFile(path, keys[1].Secret(), 0o600))
	own(t, spool.UserBuild, path)
	f.queue("world")
	f.until("the master says why it does not take that", func() bool {
		return strings.Contains(f.packmill("show", "world"), "sign the result: ")
	})
	f.until("it waits for another try", func() bool { return len(f.found("world", spool.NeedsBuild)) == 1 })
	if left, err := filepath.Glob(f.item(spool.NeedsBuild, "world") + "/result/*"); err != nil || len(left) > 0 {
		t.Errorf("of the result is left: %v, %v", left, err)
	}
	f.sound()
}
