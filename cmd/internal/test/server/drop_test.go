//go:build system

package server

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// freePort gives a TCP port of the loopback interface that nobody has now.
func (s *site) freePort() int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// answers reports whether a program listens on the port.
func answers(port int) bool {
	c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), time.Second)
	if err == nil {
		c.Close()
	}
	return err == nil
}

// sshd starts the real one, as the user and into the flat drop directory: who
// uploads there is known by signature alone. TestAccounts has the accounts.
func (s *site) sshd(people ...*uploader) {
	s.t.Helper()
	s.ssh = s.freePort()
	keygen := func(file string) {
		s.must("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "e2e", "-f", file)
	}
	host := filepath.Join(s.mkdir("sshd"), "host")
	keygen(host)
	var keys strings.Builder
	for _, u := range people {
		own := filepath.Join(u.home, ".ssh", "id_ed25519")
		keygen(own)
		keys.WriteString(read(s, own+".pub"))
		u.knows(s.ssh, host+".pub", who.name)
	}
	authorized := s.write("sshd/authorized", keys.String(), 0o644)
	config := s.write("sshd/config", fmt.Sprintf(`Port %d
ListenAddress 127.0.0.1
HostKey %s
PidFile none
UsePAM no
StrictModes no
AuthorizedKeysFile %s
AuthenticationMethods publickey
Subsystem sftp internal-sftp
ForceCommand internal-sftp -d %s/spool/incoming -u 0022 -P symlink,hardlink,mkdir,rmdir,setstat,fsetstat,lsetstat
`, s.ssh, host, authorized, s.tree), 0o600)
	s.start("sshd", "/usr/sbin/sshd", "-D", "-e", "-f", config)
	s.until("sshd answers", func() bool { return answers(s.ssh) })
}

// knows writes the person's ssh and dput settings for a host on the loopback
// interface: profile packmill is the one of scripts/uploaders, raw is the same
// without dput's own checks, for uploads that are wrong.
func (u *uploader) knows(port int, hostkey, login string) {
	s := u.s
	rel := func(p ...string) string { return filepath.Join(append([]string{filepath.Base(u.home)}, p...)...) }
	key := strings.Fields(read(s, hostkey))
	known := s.write(rel(".ssh", "known_hosts"), fmt.Sprintf("[127.0.0.1]:%d %s %s\n", port, key[0], key[1]), 0o600)
	s.write(rel(".ssh", "config"),
		fmt.Sprintf("Host 127.0.0.1\n  User %s\n  Port %d\n  IdentityFile %s\n  IdentitiesOnly yes\n  UserKnownHostsFile %s\n",
			login, port, filepath.Join(u.home, ".ssh", "id_ed25519"), known), 0o600)
	profile := read(s, filepath.Join(scripts, "uploaders", "packmill.json"))
	for from, to := range map[string]string{`"packages.example.org"`: `"127.0.0.1"`, `"port": 22`: fmt.Sprintf(`"port": %d`, port), `"alice"`: fmt.Sprintf("%q", login)} {
		if !strings.Contains(profile, from) {
			s.t.Fatalf("scripts/uploaders/packmill.json has no %s", from)
		}
		profile = strings.Replace(profile, from, to, 1)
	}
	s.write(rel(".dput.d", "profiles", "packmill.json"), profile, 0o644)
	from := `"hooks": ["allowed-distribution", "checksum", "suite-mismatch", "gpg"]`
	if !strings.Contains(profile, from) {
		s.t.Fatalf("scripts/uploaders/packmill.json has no %s", from)
	}
	s.write(rel(".dput.d", "profiles", "raw.json"), strings.Replace(profile, from, `"hooks": []`, 1), 0o644)
	for _, d := range []string{".dput.d", ".dput.d/profiles"} {
		s.own(filepath.Join(u.home, d))
	}
}

func read(s *site, path string) string {
	s.t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(data)
}

// dput uploads with dput-ng over sftp; profile is packmill or raw.
func (u *uploader) dput(profile, changes string) {
	u.s.t.Helper()
	// Asked something without a terminal, dput-ng asks for ever.
	u.must("timeout", "300", "dput", "--force", profile, changes)
}

// put uploads the named files as they are with sftp, in this order.
func (u *uploader) put(files ...string) {
	u.s.t.Helper()
	var batch strings.Builder
	for _, f := range files {
		fmt.Fprintf(&batch, "put %s\n", f)
	}
	cmd := who.command(nil, "sftp", "-q", "-F", filepath.Join(u.home, ".ssh", "config"), "-b", "-", "127.0.0.1")
	cmd.Stdin = strings.NewReader(batch.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		u.s.t.Fatalf("sftp: %v\n%s", err, out)
	}
}

// serve starts a web server for what the site publishes.
func (s *site) serve() {
	s.t.Helper()
	s.web = s.freePort()
	s.start("web", "/usr/bin/python3", "-m", "http.server", "--bind", "127.0.0.1", "--directory",
		filepath.Join(s.tree, "archive"), fmt.Sprint(s.web))
	s.until("the web server answers", func() bool { return answers(s.web) })
}

// asRoot is a command as root: ours, or by a sudo that does not ask.
func asRoot(name string, args ...string) *exec.Cmd {
	if os.Getuid() == 0 {
		return exec.Command(name, args...)
	}
	return exec.Command("sudo", append([]string{"-n", "--", name}, args...)...)
}
