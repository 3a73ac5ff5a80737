//go:build system

package server

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"packmill/internal/openpgp"
)

// TestAccounts runs sshd as a server does: with scripts/sshd/packmill.conf,
// accounts made by scripts/sshd/uploader, and what is in them of the outside
// world. Then it tries what an uploader must not be able to do.
func TestAccounts(t *testing.T) {
	s := newSite(t)
	// Below directories of root's alone, or sshd refuses the chroot.
	root := "/var/lib/packmill-e2e-accounts"
	sudo := func(name string, args ...string) string {
		t.Helper()
		out, err := asRoot(name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("as root: %s %q: %v\n%s", name, args, err, out)
		}
		return string(out)
	}
	tool, tree, keys := filepath.Join(scripts, "sshd/uploader"), filepath.Join(root, "tree"), filepath.Join(root, "keys")
	ann, ben := fmt.Sprintf("e2e-ann-%d", os.Getpid()), fmt.Sprintf("e2e-ben-%d", os.Getpid())
	t.Cleanup(func() {
		for _, n := range []string{ann, ben} {
			asRoot(tool, "--tree", tree, "--keys", keys, "remove", n).Run()
		}
		asRoot("rm", "-rf", root).Run()
	})
	asRoot("rm", "-rf", root).Run()
	sudo("install", "-d", "-m", "755", root)
	sudo("install", "-d", "-o", who.name, tree)
	s.must("packmill", "init", "--tree", tree)

	a, b := s.newUploader("ann"), s.newUploader("ben")
	for _, u := range []*uploader{a, b} {
		u.must("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(u.home, ".ssh/id_ed25519"))
	}
	sudo(tool, "--tree", tree, "--keys", keys, "add", ann, filepath.Join(a.home, ".ssh/id_ed25519.pub"))
	sudo(tool, "--tree", tree, "--keys", keys, "add", ben, filepath.Join(b.home, ".ssh/id_ed25519.pub"))
	sudo(tool, "--tree", tree, "--keys", keys, "add", ben, filepath.Join(b.home, ".ssh/id_ed25519.pub")) // again
	if out := sudo(tool, "--tree", tree, "--keys", keys, "list"); strings.Count(out, "SHA256:") != 2 ||
		!strings.Contains(out, ann) {
		t.Errorf("uploader list: %q", out)
	}
	for want, args := range map[string][]string{
		"is a private key":        {"add", ann, filepath.Join(a.home, ".ssh/id_ed25519")},
		"is no uploader's":        {"add", "root", filepath.Join(a.home, ".ssh/id_ed25519.pub")},
		"a lower-case letter":     {"add", "../x", filepath.Join(a.home, ".ssh/id_ed25519.pub")},
		"no uploader's account":   {"remove", "root"},
		"holds no public ssh key": {"add", ann, "/etc/passwd"},
	} {
		if out, err := asRoot(tool,
			append([]string{"--tree", tree, "--keys", keys}, args...)...).CombinedOutput(); err == nil ||
			!strings.Contains(string(out), want) {
			t.Errorf("uploader %q: %v, %q, want %q", args, err, out, want)
		}
	}

	// The fragment as it is, below what stands for the machine's sshd_config.
	port := s.freePort()
	host := filepath.Join(s.mkdir("sshd"), "host")
	s.must("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", host)
	fragment := read(s, filepath.Join(scripts, "sshd/packmill.conf"))
	for from, to := range map[string]string{"/var/lib/packmill/": tree + "/", "/etc/packmill/uploaders.d": keys} {
		if !strings.Contains(fragment, from) {
			t.Fatalf("packmill.conf does not name %s", from)
		}
		fragment = strings.ReplaceAll(fragment, from, to)
	}
	config := s.write("sshd/config", fmt.Sprintf("Port %d\nListenAddress 127.0.0.1\nHostKey %s\nPidFile none\n"+
		"UsePAM no\nSubsystem sftp /usr/lib/openssh/sftp-server\n%s", port, host, fragment), 0o644)
	sudo("install", "-d", "-m", "755", "/run/sshd")
	sudo("chown", "root", host)
	serve := func(config string, port int) {
		t.Helper()
		sudo("/usr/sbin/sshd", "-t", "-f", config)
		sshd := asRoot("/usr/sbin/sshd", "-D", "-e", "-f", config)
		log, err := os.Create(filepath.Join(s.dir, "log", filepath.Base(config)))
		if err != nil {
			t.Fatal(err)
		}
		sshd.Stderr = log
		if err := sshd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { asRoot("kill", fmt.Sprint(sshd.Process.Pid)).Run(); sshd.Wait(); log.Close() })
		s.until("sshd answers", func() bool { return answers(port) })
	}
	serve(config, port)
	a.knows(port, host+".pub", ann)
	b.knows(port, host+".pub", ben)

	// Ann needs no signature: settings trust her account. A umask of hers that
	// hides her files is her trouble, and she is told.
	signer, err := openpgp.Generate("Ben", "ben@packmill.example", time.Now().AddDate(0, 0, -1))
	if err != nil {
		t.Fatal(err)
	}
	account := fmt.Sprintf("Name: ann\nAccount: %s\nAllow: source\n\nName: ben\nAccount: %s\nFingerprint: %s, %s\n"+
		"Allow: source\n", ann, ben, b.fingerprint, signer.Fingerprint())
	sudo("install", "-d", "-o", who.name, filepath.Join(tree, "control/keys"))
	sudo("cp", s.write("uploaders", account, 0o644), filepath.Join(tree, "control/uploaders"))
	sudo("cp", filepath.Join(s.tree, "control/keys/ben.asc"), filepath.Join(tree, "control/keys/"))
	sudo("cp", s.write("signer.asc", string(signer.Public()), 0o644), filepath.Join(tree, "control/keys/"))
	sudo("cp", s.write("suites", fmt.Sprintf("Suite: %s\nArchitectures: %s\nBase:\n %s\n",
		suite, machine(t), strings.Join(base(t), "\n ")), 0o644), filepath.Join(tree, "control/suites"))
	s.start("reviewd", "reviewd", "--tree", tree)

	c := a.make(source{name: "plain", version: "1", suite: suite, all: []string{"plain"}, unsigned: true})
	a.dput("raw", c)
	in := func(state, name string) bool {
		m, _ := filepath.Glob(filepath.Join(tree, "spool", state, "*_"+name+"_1"))
		return len(m) == 1
	}
	s.until("the unsigned upload of a trusted account is in review", func() bool { return in("review/"+suite, "plain") })
	b.dput("packmill", b.make(source{name: "signed", version: "1", suite: suite, all: []string{"signed"}}))
	s.until("the signed upload of an account is in review", func() bool { return in("review/"+suite, "signed") })

	// The other two clients, as scripts/uploaders sets them up.
	conf := read(s, filepath.Join(scripts, "uploaders/dupload.conf"))
	conf = strings.NewReplacer("packages.example.org", "127.0.0.1", "'alice'", "'"+ben+"'", "-P 22'",
		fmt.Sprintf("-P %d -F %s'", port, filepath.Join(b.home, ".ssh/config"))).Replace(conf)
	s.write("home-ben/.dupload.conf", conf, 0o644)
	c = b.make(source{name: "dupl", version: "1", suite: suite, all: []string{"dupl"}})
	if out, err := b.in(filepath.Dir(c), "timeout", "300", "dupload", "--nomail", "--to", "packmill",
		filepath.Base(c)); err != nil {
		t.Errorf("dupload: %v\n%s", err, out)
	}
	s.until("dupload's upload is in review", func() bool { return in("review/"+suite, "dupl") })

	// Files that only their owner may read: the daemon is not their owner.
	c = b.make(source{name: "hidden", version: "1", suite: suite, all: []string{"hidden"}})
	for _, f := range listed(t, c) {
		if err := os.Chmod(f, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b.put(listed(t, c)...)
	s.until("an upload that cannot be read is not passed over in silence", func() bool {
		log, _ := os.ReadFile(filepath.Join(s.dir, "log/reviewd"))
		m, _ := filepath.Glob(filepath.Join(tree, "spool/rejected/*"))
		return in("review/"+suite, "hidden") || len(m) > 0 || strings.Contains(string(log), "hidden_1")
	})

	// What an uploader cannot do.
	for _, x := range []struct{ do, want string }{
		{"ls /incoming", "ermission denied"},
		{"ls /incoming/" + ann, "ermission denied"},
		{"ls /review", "ermission denied"},
		{"ls /rejected", "ermission denied"},
		{"put /etc/hostname /incoming/" + ann + "/x", "ermission denied"},
		{"put /etc/hostname /x", "ermission denied"},
		{"put /etc/hostname /accepted/x", "ermission denied"},
		{"symlink x y", "ermission denied"},
		{"mkdir d", "ermission denied"},
		{"chmod 777 .", "ermission denied"},
		{"get /../../../etc/passwd " + filepath.Join(s.dir, "stolen"), "not found"},
	} {
		cmd := who.command(nil, "sftp", "-q", "-F", filepath.Join(b.home, ".ssh/config"), "-b", "-", "127.0.0.1")
		cmd.Stdin = strings.NewReader(x.do + "\n")
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), x.want) {
			t.Errorf("sftp %q: %v, %q, want %q", x.do, err, out, x.want)
		}
	}
	for _, args := range [][]string{{"id"}, {"-N", "-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:1", "sleep"},
		{"-W", fmt.Sprintf("127.0.0.1:%d", port), "x"}} {
		argv := append([]string{"20", "ssh", "-F", filepath.Join(b.home, ".ssh/config"), "127.0.0.1"}, args...)
		if args[0] != "id" {
			argv = append(append([]string{"20", "ssh", "-F", filepath.Join(b.home, ".ssh/config")}, args[:len(args)-1]...),
				"127.0.0.1")
		}
		out, err := who.command(nil, "timeout", argv...).Output()
		if err == nil || strings.Contains(string(out), "uid=") || strings.HasPrefix(string(out), "SSH-") {
			t.Errorf("ssh %q: %v, %q, want a refusal", args, err, out)
		}
	}
	// The other programs that people upload with; some want a shell.
	shell := s.freePort()
	serve(s.write("sshd/shell", fmt.Sprintf("Port %d\nListenAddress 127.0.0.1\nHostKey %s\nPidFile none\nUsePAM no\n"+
		"Subsystem sftp /usr/lib/openssh/sftp-server\nAuthorizedKeysFile %s/%%u\n", shell, host, keys), 0o644), shell)
	sudo("usermod", "--shell", "/bin/sh", ben)
	b.senders(ben, filepath.Join(tree, "spool/incoming", ben), port, shell, signer, func(source string) bool {
		return in("review/"+suite, source)
	})

	sudo(tool, "--tree", tree, "--keys", keys, "remove", ann)
	if exec.Command("id", ann).Run() == nil {
		t.Errorf("uploader remove %s left the account", ann)
	}
}
