//go:build system

package server

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"packmill/internal/openpgp"
	"packmill/spool/upload/uploadtest"
)

// classic unpacks Debian's other dput beside the one that is installed: the
// two packages exclude each other. It gives the words that run it.
func (s *site) classic() []string {
	s.t.Helper()
	dir := s.mkdir("dput")
	if out, err := s.run("sh", "-c", "cd "+dir+" && apt-get -q download dput && dpkg -x dput_*.deb ."); err != nil {
		s.t.Fatalf("apt-get download dput: %v\n%s", err, out)
	}
	lib := filepath.Join(dir, "usr/share/dput")
	return []string{"env", "PYTHONPATH=" + lib, "/usr/bin/python3", filepath.Join(lib, "execute-dput")}
}

// senders uploads with each program that people use, and wants every upload in
// review. drop is the account's directory; who uploads from the machine itself, as somebody
// else, uses the shared one above it. The account gets in by sftp alone at
// one port, and with a shell at the other.
// The uploads are signed with signer's key, which gpg knows too.
func (u *uploader) senders(
	account, drop string, sftp, shell int, signer *openpgp.Signer, reviewed func(source string) bool,
) {
	s := u.s
	s.t.Helper()
	dput := s.classic()
	u.must("gpg", "--batch", "--quiet", "--import", s.write("signer.asc", string(signer.Public()), 0o644))
	// ssh knows its settings from the user's own home: these wrappers name others.
	conf := filepath.Join(u.home, ".ssh", "config")
	for _, p := range []string{"ssh", "scp", "sftp"} {
		s.write(filepath.Join(filepath.Base(u.home), "bin", p),
			fmt.Sprintf("#!/bin/sh\nexec /usr/bin/%s -F %s \"$@\"\n", p, conf), 0o755)
	}
	path := "PATH=" + filepath.Join(u.home, "bin") + ":/usr/bin:/bin"
	home := filepath.Base(u.home)

	profile := read(s, filepath.Join(scripts, "uploaders/dput.cf"))
	profile = strings.NewReplacer("packages.example.org", "127.0.0.1", "alice", account, "Port=22",
		fmt.Sprintf("Port=%d", sftp)).Replace(profile)
	cf := s.write(filepath.Join(home, "dput.cf"), profile+fmt.Sprintf(`
[shell]
fqdn = shell
login = %[1]s
method = scp
incoming = %[2]s
allowed_distributions = .*
[rsync]
fqdn = shell
login = %[1]s
method = rsync
incoming = %[2]s
allowed_distributions = .*
[here]
method = local
incoming = %[3]s
allowed_distributions = .*
`, account, drop, filepath.Dir(drop)), 0o644)
	s.write(filepath.Join(home, ".dupload.conf"), fmt.Sprintf(`package config;
$cfg{'shell'} = { fqdn => 'shell', login => '%[1]s', method => 'scp', incoming => '%[2]s', filemode => undef, dinstall_runs => 1 };
$cfg{'rsync'} = { fqdn => 'shell', login => '%[1]s', method => 'rsync', incoming => '%[2]s', filemode => undef, dinstall_runs => 1 };
$cfg{'here'} = { method => 'copy', incoming => '%[3]s', filemode => undef, dinstall_runs => 1 };
1;
`, account, drop, filepath.Dir(drop)), 0o644)
	known := read(s, filepath.Join(u.home, ".ssh", "known_hosts"))
	key := strings.Fields(known)
	s.write(filepath.Join(home, ".ssh", "known_hosts"), known+fmt.Sprintf("[127.0.0.1]:%d %s %s\n", shell, key[1], key[2]),
		0o600)
	own := read(s, conf)
	again := strings.NewReplacer("Host 127.0.0.1", "Host shell\n  HostName 127.0.0.1",
		fmt.Sprintf("Port %d", sftp), fmt.Sprintf("Port %d", shell)).Replace(own)
	s.write(filepath.Join(home, ".ssh", "config"), own+again, 0o600)

	files := func(changes string) string { return strings.Join(listed(s.t, changes), " ") }
	for _, x := range []struct {
		name string
		mode os.FileMode // of the files; 0 is 0644
		argv func(changes string) []string
	}{
		{name: "dput-scp", argv: func(c string) []string { return append(dput, "-c", cf, "packmill", c) }},
		{name: "dput-shell", mode: 0o600, argv: func(c string) []string { return append(dput, "-c", cf, "shell", c) }},
		{name: "dput-rsync", mode: 0o600, argv: func(c string) []string { return append(dput, "-c", cf, "rsync", c) }},
		{name: "dput-local", argv: func(c string) []string { return append(dput, "-c", cf, "here", c) }},
		{name: "dupload-scp", argv: func(c string) []string { return []string{"dupload", "--nomail", "--to", "shell", c} }},
		{name: "dupload-rsync", argv: func(c string) []string { return []string{"dupload", "--nomail", "--to", "rsync", c} }},
		{name: "dupload-copy", argv: func(c string) []string { return []string{"dupload", "--nomail", "--to", "here", c} }},
		{name: "scp", argv: func(c string) []string { return []string{"sh", "-c", "scp -q " + files(c) + " 127.0.0.1:"} }},
		{name: "scp-legacy", argv: func(c string) []string {
			return []string{"sh", "-c", "scp -q -O -p " + files(c) + " " + account + "@shell:" + drop}
		}},
		{name: "rsync", argv: func(c string) []string {
			return []string{"sh", "-c", "rsync -a " + files(c) + " " + account + "@shell:" + drop}
		}},
		{name: "sftp-rename", argv: func(c string) []string {
			var b strings.Builder
			for _, f := range listed(s.t, c) {
				fmt.Fprintf(&b, "put %s %s.filepart\nrename %[2]s.filepart %[2]s\n", f, filepath.Base(f))
			}
			return []string{"sftp", "-q", "-b", s.write("sftp-rename", b.String(), 0o644), "127.0.0.1"}
		}},
		{name: "sftp-backwards", argv: func(c string) []string {
			var b strings.Builder
			for _, f := range listed(s.t, c) { // the .changes is the last of them
				b.WriteString("put " + f + "\n")
			}
			lines := strings.SplitAfter(b.String(), "\n")
			b.Reset()
			for i := len(lines) - 1; i >= 0; i-- {
				b.WriteString(lines[i])
			}
			return []string{"sftp", "-q", "-b", s.write("sftp-backwards", b.String(), 0o644), "127.0.0.1"}
		}},
	} {
		dir := s.mkdir("sends/" + x.name)
		name, err := (uploadtest.Package{Source: x.name, Version: "1", Distribution: suite, Signer: signer}).Write(dir)
		if err != nil {
			s.t.Fatal(err)
		}
		c := filepath.Join(dir, name)
		for _, f := range listed(s.t, c) {
			s.own(f)
			if x.mode != 0 {
				if err := os.Chmod(f, x.mode); err != nil {
					s.t.Fatal(err)
				}
			}
		}
		if out, err := u.in(filepath.Dir(c), "timeout", append([]string{"60", "env", path}, x.argv(c)...)...); err != nil {
			s.t.Errorf("%s: %v\n%s", x.name, err, out)
			continue
		}
		s.until("the upload of "+x.name+" is in review", func() bool { return reviewed(x.name) })
	}
}
