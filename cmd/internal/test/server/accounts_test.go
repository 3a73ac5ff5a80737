//go:build system

package server

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"packmill/internal/openpgp"
)

// TestAccounts runs sshd as a server does: with scripts/sshd/packmill.conf, accounts
// made by scripts/sshd/uploader on a tree of packmill init --users, and what is in them
// of the outside world. Then it tries what an uploader must not be able to do.
func TestAccounts(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can run the daemons as different users")
	}
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
	sudo("systemd-sysusers", filepath.Join(scripts, "systemd/packmill.sysusers"))
	packmill := filepath.Join(bin, "packmill")
	sudo(packmill, "init", "--tree", tree)
	sudo(packmill, "init", "--tree", tree, "--users")

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

	// What somebody put where a new account's directory will be is not given to it.
	victim, cat := filepath.Join(root, "victim"), fmt.Sprintf("e2e-cat-%d", os.Getpid())
	t.Cleanup(func() { asRoot("userdel", cat).Run() })
	sudo("install", "-d", "-m", "700", victim)
	trap := filepath.Join(tree, "spool/incoming", cat)
	for _, made := range [][]string{{"ln", "-s", victim, trap}, {"mkdir", "-m", "777", trap}} {
		sudo("setpriv", append([]string{"--reuid=64001", "--regid=64001", "--clear-groups"}, made...)...)
		out, err := asRoot(tool, "--tree", tree, "--keys", keys, "add", cat,
			filepath.Join(a.home, ".ssh/id_ed25519.pub")).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "is there already") {
			t.Errorf("uploader add after a stranger's %q: %v, %s", made, err, out)
		}
		if got := sudo("stat", "-c", "%u", trap) + sudo("stat", "-c", "%U %a", victim); got != "64001\nroot 700\n" {
			t.Errorf("after a stranger's %q it and what a link names: %q", made, got)
		}
		sudo("rm", "-r", trap)
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
	sudo("cp", s.write("uploaders", account, 0o644), filepath.Join(tree, "control/uploaders"))
	sudo("cp", filepath.Join(s.tree, "control/keys/ben.asc"), filepath.Join(tree, "control/keys/"))
	sudo("cp", s.write("signer.asc", string(signer.Public()), 0o644), filepath.Join(tree, "control/keys/"))
	sudo("cp", s.write("suites", fmt.Sprintf("Suite: %s\nArchitectures: %s\nBase:\n %s\n",
		suite, machine(t), strings.Join(base(t), "\n ")), 0o644), filepath.Join(tree, "control/suites"))
	s.startAs("packmill-review", "reviewd", "--tree", tree)

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

	// What an uploader cannot do, to another's file either.
	sudo("install", "-o", ann, "-m", "644", "/etc/hostname", filepath.Join(tree, "spool/incoming", ann, "held_1.dsc"))
	if code := b.hardlink("/incoming/"+ann+"/held_1.dsc", "/incoming/"+ben+"/y"); code != sshFxPermissionDenied {
		t.Errorf("a hard link that no sftp would ask for: status %d, want %d", code, sshFxPermissionDenied)
	}
	for _, x := range []struct{ do, want string }{
		{"ls /incoming", "ermission denied"},
		{"ls /incoming/" + ann, "ermission denied"},
		{"ls /review", "ermission denied"},
		{"ls /rejected", "ermission denied"},
		{"put /etc/hostname /incoming/" + ann + "/x", "ermission denied"},
		{"put /etc/hostname /x", "ermission denied"},
		{"put /etc/hostname /accepted/x", "ermission denied"},
		{"symlink x y", "ermission denied"},
		{"symlink /incoming/" + ann + "/held_1.dsc y", "ermission denied"},
		{"ln -s /incoming/" + ann + "/held_1.dsc y", "ermission denied"},
		// sftp asks for nothing that the server does not offer.
		{"ln x y", "does not support hardlink@openssh.com"},
		{"ln /incoming/" + ann + "/held_1.dsc y", "does not support hardlink@openssh.com"},
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

// What of the SSH File Transfer Protocol (draft-ietf-secsh-filexfer-02) a hard link needs.
const (
	sshFxpInit            = 1
	sshFxpStatus          = 101
	sshFxpExtended        = 200
	sshFxPermissionDenied = 3
)

// hardlink asks the account's server for a hard link, without a program that asks first
// whether it may, and gives the status of the answer, or -1.
func (u *uploader) hardlink(from, to string) int {
	u.s.t.Helper()
	cmd := who.command(nil, "timeout", "20", "ssh", "-F", filepath.Join(u.home, ".ssh/config"), "-s", "127.0.0.1", "sftp")
	in, err := cmd.StdinPipe()
	if err != nil {
		u.s.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		u.s.t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close() // the server answers nothing after that
	text := func(words ...string) (b []byte) {
		for _, w := range words {
			b = append(binary.BigEndian.AppendUint32(b, uint32(len(w))), w...)
		}
		return b
	}
	packet := func(kind byte, body []byte) []byte { return text(string(append([]byte{kind}, body...))) }
	in.Write(packet(sshFxpInit, []byte{0, 0, 0, 3}))
	in.Write(packet(sshFxpExtended, append([]byte{0, 0, 0, 7}, text("hardlink@openssh.com", from, to)...)))
	for {
		var head [5]byte // length, kind
		if _, err := io.ReadFull(out, head[:]); err != nil {
			u.s.t.Errorf("ssh: %v", err)
			return -1
		}
		body := make([]byte, min(binary.BigEndian.Uint32(head[:]), 1<<16)-1)
		if _, err := io.ReadFull(out, body); err != nil {
			u.s.t.Errorf("ssh: %v", err)
			return -1
		}
		if head[4] == sshFxpStatus && len(body) >= 8 {
			return int(binary.BigEndian.Uint32(body[4:]))
		}
	}
}
