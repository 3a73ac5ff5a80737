//go:build system

package server

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// server is a machine of its own: a container that systemd boots, with the
// source tree at /usr/src/packmill and the programs in /usr/local/bin.
type server struct {
	*site
	leader string // pid of its systemd
}

// serverRoot is the machine's /.
const serverRoot = "/var/lib/packmill-e2e-server"

// boot makes the machine from the suite's chroot and starts it. Its sshd
// listens on the port of the loopback interface.
func (s *site) boot(port int) *server {
	s.t.Helper()
	if _, err := exec.LookPath("systemd-nspawn"); err != nil {
		s.t.Fatal("systemd-nspawn is missing; install systemd-container, or run scripts/test, which does")
	}
	c := &server{site: s}
	c.onHost("rm", "-rf", serverRoot)
	s.t.Cleanup(func() { asRoot("rm", "-rf", serverRoot).Run() })
	c.onHost("mkdir", "-p", serverRoot)
	c.onHost("tar", "-C", serverRoot, "--numeric-owner", "--exclude=./dev/*", "-xf", s.chroot(machine(s.t)))
	c.onHost("cp", "/etc/resolv.conf", serverRoot+"/etc/resolv.conf")
	// The chroot's lists are a day old at most.
	install := "export DEBIAN_FRONTEND=noninteractive; i() { apt-get -q -y --no-install-recommends install " +
		"systemd-sysv openssh-server uidmap mmdebstrap postfix; }; i || { apt-get -q update && i; }; " +
		"systemctl mask postfix; systemd-machine-id-setup"
	c.onHost("systemd-nspawn", "-q", "--register=no", "--keep-unit", "-D", serverRoot, "sh", "-c", install)
	c.onHost("cp", s.write("port.conf", fmt.Sprintf("Port %d\nListenAddress 127.0.0.1\n", port), 0o644),
		serverRoot+"/etc/ssh/sshd_config.d/")

	c.power("--bind-ro="+filepath.Dir(scripts)+":/usr/src/packmill", "--bind-ro="+bin+":/usr/local/bin")
	return c
}

// power lets systemd boot what lies in serverRoot, and waits until it has.
func (c *server) power(binds ...string) {
	c.t.Helper()
	args := append([]string{"-q", "--register=no", "--keep-unit", "-D", serverRoot, "--boot"}, binds...)
	boot := asRoot("systemd-nspawn", args...)
	console, err := os.Create(filepath.Join(c.dir, "log", "console"))
	if err != nil {
		c.t.Fatal(err)
	}
	defer console.Close()
	boot.Stdout, boot.Stderr = console, console
	if err := boot.Start(); err != nil {
		c.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { boot.Wait(); close(ended) }()
	c.t.Cleanup(func() {
		if c.t.Failed() && c.leader != "" {
			out, _ := c.try("systemctl --failed; journalctl -n 60 --no-pager -o cat")
			c.t.Logf("the machine's journal:\n%s", out)
		}
		if c.leader != "" {
			asRoot("kill", "-KILL", c.leader).Run()
		} else {
			asRoot("kill", "-KILL", fmt.Sprint(boot.Process.Pid)).Run()
		}
		<-ended
	})
	c.until("the machine's systemd runs", func() bool {
		out, _ := asRoot("sh", "-c",
			"for p in $(pgrep -x systemd); do [ ! /proc/$p/root/ -ef "+serverRoot+"/ ] || { echo $p; break; }; done").Output()
		c.leader = strings.TrimSpace(string(out))
		return c.leader != ""
	})
	c.until("the machine has booted", func() bool {
		out, _ := c.try("systemctl is-system-running")
		return strings.TrimSpace(out) == "running"
	})
}

func (c *server) onHost(name string, args ...string) {
	c.t.Helper()
	if out, err := asRoot(name, args...).CombinedOutput(); err != nil {
		c.t.Fatalf("as root: %s %q: %v\n%s", name, args, err, out)
	}
}

// try runs a shell script as root of the machine, in the source tree if that is there.
func (c *server) try(script string) (string, error) {
	out, err := asRoot("nsenter", "-t", c.leader, "-a", "env", "-i",
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "LC_ALL=C.UTF-8", "sh", "-euc", "cd /usr/src/packmill 2>/dev/null || cd\n"+script).CombinedOutput()
	return string(out), err
}

func (c *server) sh(script string) string {
	c.t.Helper()
	out, err := c.try(script)
	if err != nil {
		c.t.Fatalf("on the server: %s: %v\n%s", script, err, out)
	}
	return strings.TrimSpace(out)
}

// sees waits until a shell script succeeds there.
func (c *server) sees(script string) {
	c.t.Helper()
	var last string
	c.t.Cleanup(func() {
		if c.t.Failed() {
			c.t.Logf("%s said last: %s", script, last)
		}
	})
	c.until(script, func() (ok bool) {
		out, err := c.try(script)
		last = out
		return err == nil
	})
}

// commands are the indented lines of a section of a page that are commands.
func commands(t *testing.T, page, section string) []string {
	t.Helper()
	_, text, ok := strings.Cut("\n"+readPage(t, page), section+"\n")
	if !ok {
		t.Fatalf("%s has no section %s", page, section)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	var found []string
	for _, m := range regexp.MustCompile(`(?m)^    ((?:go|cp|install|usermod|runuser|packmill|systemctl|scripts/\S+) .*?)(?:  +# .*)?$`).FindAllStringSubmatch(text, -1) {
		found = append(found, m[1])
	}
	return found
}

// TestServer sets up a server by the own commands of doc/server.md, on a machine that
// systemd boots, and lets a package of an uploader's go its way there: each
// daemon as its own user, ended and stopped, and once more as cron does it. Then
// packmill doctor must find what is broken.
func TestServer(t *testing.T) {
	s := newSite(t)
	arch := machine(t)
	port := s.freePort()
	alice, ben := s.newUploader("alice"), s.newUploader("ben")
	for _, u := range []*uploader{alice, ben} {
		u.must("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(u.home, ".ssh/id_ed25519"))
	}
	c := s.boot(port)
	give := func(from, to string) { c.onHost("install", "-D", "-m", "644", from, filepath.Join(serverRoot, to)) }
	give(filepath.Join(alice.home, ".ssh/id_ed25519.pub"), "root/alice_id_ed25519.pub")
	give(filepath.Join(ben.home, ".ssh/id_ed25519.pub"), "root/ben.pub")

	// The page, except for what needs Go, which the test has done itself, and
	// for a chroot, which builds by Runner: exec do without.
	ran := 0
	for _, cmd := range append(commands(t, "doc/server.md", "\n# A server"),
		commands(t, "doc/people.md", "\n## People who upload")...) {
		if strings.HasPrefix(cmd, "go build ") || strings.HasPrefix(cmd, "scripts/man ") ||
			strings.Contains(cmd, " chroot create ") {
			continue
		}
		cmd = strings.NewReplacer("amd64", arch, "alice_id", "/root/alice_id").Replace(cmd)
		out := c.sh(cmd)
		t.Logf("# %s\n%s", cmd, out)
		if _, fpr, ok := strings.Cut(out, "Fingerprint: "); ok && strings.Contains(cmd, "packmill-build") {
			c.settings(fpr[:40], alice, ben)
		}
		ran++
	}
	if ran < 10 {
		t.Fatalf("found %d commands in the pages, want 10 at least", ran)
	}
	c.sh("scripts/sshd/uploader add ben /root/ben.pub")
	units := []string{"reviewd", "master-buildd", "archived", "maild", "buildd@" + arch, "buildd@all", "statusd"}
	pid := func(unit string) string { return c.sh("systemctl show -P MainPID " + unit) }
	before := map[string]string{}
	for _, u := range units {
		before[u] = pid(u)
		want := map[string]string{"re": "packmill-review", "ma": "packmill-master", "ar": "packmill-archive",
			"bu": "packmill-build", "st": "packmill-status"}[u[:2]]
		if u == "maild" {
			want = "packmill-mail"
		}
		if got := c.sh("systemctl is-active " + u + "; stat -c %U /proc/" + before[u]); got != "active\n"+want {
			t.Errorf("%s: got %q, want it active, as %s", u, got, want)
		}
	}

	// An upload through the account, accepted, built and published.
	hostkey := s.write("hostkey", c.sh("cat /etc/ssh/ssh_host_ed25519_key.pub")+"\n", 0o644)
	alice.knows(port, hostkey, "alice")
	ben.knows(port, hostkey, "ben")
	item := func(place, source string) string { return "/var/lib/packmill/" + place + "/*_" + source + "_*" }
	accept := func(src source) {
		t.Helper()
		src.version, src.suite, src.any = "1", suite, []string{src.name}
		alice.dput("packmill", alice.make(src))
		c.sees("test -e " + item("spool/review/"+suite, src.name))
		c.sh("packmill review accept " + src.name)
	}
	accept(source{name: "first"})
	c.sees("test -e " + item("archive/installed/"+suite+"/"+arch+"/*", "first"))
	c.sees("test -e " + item("archive/installed/"+suite+"/source/*", "first"))
	// Mail leaves the daemon, whose user may not write to the mail system itself.
	c.sees("grep -qs 'first' /var/spool/postfix/maildrop/*")
	if got := c.sh("stat -c %U /var/lib/packmill/archive/dists/" + suite + "/InRelease"); got != "packmill-archive" {
		t.Errorf("InRelease belongs to %s, want packmill-archive", got)
	}

	// What one uploader sends, the other cannot reach.
	ben.put(s.write("secret", "x", 0o644))
	c.sees("test -e /var/lib/packmill/spool/incoming/ben/secret")
	for _, do := range []string{"ls /incoming/ben", "get /incoming/ben/secret " + s.dir, "rm /incoming/ben/secret",
		"ls /review", "ls /accepted", "put /etc/hostname /incoming/ben/x"} {
		cmd := who.command(nil, "sftp", "-q", "-F", filepath.Join(alice.home, ".ssh/config"), "-b", "-", "127.0.0.1")
		cmd.Stdin = strings.NewReader(do + "\n")
		if out, err := cmd.CombinedOutput(); err == nil ||
			!strings.Contains(string(out), "ermission denied") && !strings.Contains(string(out), "not found") {
			t.Errorf("sftp by alice: %s: %v, %q, want a refusal", do, err, out)
		}
	}

	// A daemon that dies comes again.
	for _, u := range units {
		c.sh("kill -9 " + before[u])
	}
	for _, u := range units {
		c.sees("systemctl is-active " + u + " && test $(systemctl show -P MainPID " + u + ") != " + before[u])
	}

	// In a clean chroot, under all that the unit forbids.
	c.giveChroot(arch)
	const builders = "/var/lib/packmill/control/builders"
	c.sh("sed -i.exec 's/^Runner: .*/Runner: overlay/' " + builders + "; systemctl restart buildd@" + arch)
	accept(source{name: "clean"})
	c.sees("test -e " + item("archive/installed/"+suite+"/"+arch+"/*", "clean"))
	c.sees("test -e /var/lib/packmill/archive/cache/base/" + suite + "/" + arch + "/fetched")
	if log := c.sh("packmill log clean " + arch); !strings.Contains(log, "Status: successful") {
		t.Errorf("the log of the build in a chroot:\n%s", log)
	}
	c.sh("mv " + builders + ".exec " + builders + "; systemctl restart buildd@" + arch)

	// Stopping a builder leaves nothing of its build.
	c.sh("touch /run/slow")
	accept(source{name: "long", noise: "[ ! -e /run/slow ] || sleep 619"})
	const sleeps = "grep -lsx --null-data 619 /proc/[0-9]*/cmdline"
	c.sees(sleeps)
	c.sh("systemctl stop buildd@" + arch)
	if out, err := c.try(sleeps); err == nil {
		t.Errorf("systemctl stop left of the build: %s", out)
	}
	c.sees("test -e " + item("queue/"+suite+"/"+arch+"/needs-build", "long"))
	c.sh("rm /run/slow; systemctl stop " + strings.Join(units, " "))

	// Cron takes over.
	var env []string
	var jobs [][]string
	for line := range strings.Lines(read(s, filepath.Join(scripts, "cron/packmill"))) {
		line = strings.TrimSpace(strings.ReplaceAll(line, "amd64", arch))
		if f := strings.Fields(line); len(f) > 6 && f[0] != "#" {
			jobs = append(jobs, f[5:])
		} else if line != "" && line[0] != '#' {
			env = append(env, line)
		}
	}
	if len(jobs) != 8 || len(env) != 4 {
		t.Fatalf("scripts/cron/packmill: got %d jobs and %d settings, want 8 and 4", len(jobs), len(env))
	}
	c.until("long is installed by cron's jobs", func() bool {
		for _, j := range jobs {
			if strings.Contains(strings.Join(j, " "), "chroot update") {
				continue // this server builds without chroots
			}
			out := c.sh(fmt.Sprintf("runuser -u %s -- env -i HOME=/ LOGNAME=%[1]s %s /bin/sh -c '%s'",
				j[0], strings.Join(env, " "), strings.Join(j[1:], " ")))
			if strings.Contains(out, "level=INFO") {
				t.Errorf("cron mails what went well: %s", out)
			}
		}
		_, err := c.try("test -e " + item("archive/installed/"+suite+"/source/*", "long"))
		return err == nil
	})
	c.sh("test -e " + item("archive/installed/"+suite+"/"+arch+"/*", "long"))

	c.sh("systemctl start " + strings.Join(units, " "))
	c.doctors(t)
}

// giveChroot gives the machine's build user the suite's chroot, in place of packmill
// chroot create: the same tarball, unpacked by the user.
func (c *server) giveChroot(arch string) {
	c.t.Helper()
	from := filepath.Dir(c.chroot(arch))
	dir := "/var/lib/packmill-build/.cache/packmill/chroots/" + suite + "-" + arch + "/" + filepath.Base(from)
	c.sh("install -d " + dir + "/root")
	for _, name := range []string{"info", "chroot.tar"} {
		c.onHost("cp", filepath.Join(from, name), serverRoot+dir)
	}
	c.sh("chown -R packmill-build:packmill-build /var/lib/packmill-build")
	c.sh("cd " + dir + "; runuser -u packmill-build -- unshare --user --map-auto --map-root-user tar -C root " +
		"--numeric-owner --exclude='./dev/*' -xf chroot.tar")
	// Who sees /proc masked, as in this container, may mount no other; no machine
	// of its own has it so.
	c.sh("mkdir /dev/proc; mount -t proc proc /dev/proc")
}

// settings writes what the page leaves to the person.
func (c *server) settings(fingerprint string, people ...*uploader) {
	c.t.Helper()
	arch := machine(c.t)
	var uploaders strings.Builder
	for _, u := range people {
		uploaders.WriteString(u.stanza("source"))
		c.onHost("install", "-m", "644", filepath.Join(c.tree, "control/keys", u.name+".asc"),
			serverRoot+"/var/lib/packmill/control/keys/")
	}
	for name, text := range map[string]string{
		"suites": fmt.Sprintf("Suite: %s\nArchitectures: %s\nBase:\n %s\nSign-With: private/archive.key\n",
			suite, arch, strings.Join(base(c.t), "\n ")),
		"uploaders": uploaders.String(),
		"notify":    "Event: *\nTo: signer\nFrom: archive@example.org\n",
		"builders": fmt.Sprintf("Name: here\nArchitectures: %s all\n"+
			"Runner: exec /usr/src/packmill/cmd/internal/test/server/testdata/build-here\nKey: private/builder.key\n"+
			"Fingerprint: %s\n", arch, fingerprint),
	} {
		c.onHost("install", "-m", "644", c.write("settings-"+name, text, 0o644), serverRoot+"/var/lib/packmill/control/"+name)
	}
}
