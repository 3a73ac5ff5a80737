//go:build system

package server

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var theDeb = flag.String("server.deb", "", "with -server.long: a package to try, for one of scripts/deb")

// ownPackage makes the Debian package, as README says, once.
func ownPackage(t *testing.T) string {
	t.Helper()
	if *theDeb != "" {
		return *theDeb
	}
	dir := filepath.Join(filepath.Dir(bin), "deb")
	debs, _ := filepath.Glob(filepath.Join(dir, "packmill_*.deb"))
	if len(debs) == 0 {
		if out, err := exec.Command(filepath.Join(scripts, "deb"), dir).CombinedOutput(); err != nil {
			t.Fatalf("scripts/deb: %v\n%s", err, out)
		}
		debs, _ = filepath.Glob(filepath.Join(dir, "packmill_*.deb"))
	}
	if len(debs) != 1 {
		t.Fatalf("scripts/deb made %q", debs)
	}
	return debs[0]
}

// readmeLines are the commands of README's section about a server: who types each, and the command.
func readmeLines(t *testing.T) (lines []string) {
	t.Helper()
	_, text, ok := strings.Cut(readPage(t, "README.md"), "\n## A server in three commands\n")
	if !ok {
		t.Fatal("README.md has no section about a server in three commands")
	}
	text, _, _ = strings.Cut(text, "\n## ")
	for _, m := range regexp.MustCompile(`(?m)^    (\S.*?)(?:  +# .*)?$`).FindAllStringSubmatch(text, -1) {
		lines = append(lines, m[1])
	}
	return lines
}

// TestNewcomers lets three people who have read README do what it says, on machines that have nothing of ours yet: a
// sysadmin, somebody who uploads, and somebody who reviews, until apt installs the package somewhere else. No command
// may end in an error, print what reads like one, or be more than README promises.
func TestNewcomers(t *testing.T) {
	if !*long {
		t.Skip("takes many minutes: -server.long, or scripts/test long")
	}
	if os.Getuid() != 0 {
		t.Skip("fresh machines on a network of their own are root's to make")
	}
	deb := ownPackage(t)
	t.Run("lintian", func(t *testing.T) {
		out, err := exec.Command("lintian", "--allow-root", "--fail-on", "error,warning", deb).CombinedOutput()
		if err != nil {
			t.Errorf("lintian %s: %v\n%s", deb, err, out)
		}
	})
	for _, suite := range []string{"trixie", "bookworm"} {
		t.Run(suite, func(t *testing.T) { newcomers(t, suite, deb) })
	}
}

func newcomers(t *testing.T, release, deb string) {
	server := newFresh(t, "archive", release, nil)
	laptop := newFresh(t, "laptop", release, server)
	client := newFresh(t, "client", release, server)
	defer func() { t.Logf("%s:\n%s", release, table(*server.said)) }()

	// What they have before they have heard of Packmill: accounts, and a developer's tools and keys.
	server.sh("useradd -m -s /bin/bash rita")
	laptop.sh("useradd -m -s /bin/bash alice; " +
		"sed 's/^deb /deb-src /' /etc/apt/sources.list >/etc/apt/sources.list.d/src.list; " +
		"apt-get -q update; apt-get -qy --no-install-recommends install gnupg openssh-client")
	laptop.sh(`runuser -l alice -c 'set -e; mkdir -m 700 .ssh
		gpg --batch --quiet --passphrase "" --quick-generate-key "Alice <alice@example.org>" ed25519 sign never
		gpg --armor --export alice@example.org >alice.asc
		ssh-keygen -q -t ed25519 -N "" -f .ssh/id_ed25519; cp .ssh/id_ed25519.pub alice_id_ed25519.pub
		echo "export DEBEMAIL=alice@example.org DEBFULLNAME=Alice" >>.profile'`)
	server.sh("apt-get -q update")
	server.give(deb, "root/"+filepath.Base(deb))
	for _, f := range []string{"alice.asc", "alice_id_ed25519.pub"} {
		server.give(filepath.Join(laptop.root, "home/alice", f), "root/"+f)
	}

	lines := readmeLines(t)
	if len(lines) > 8 {
		t.Errorf("README wants %d commands until apt installs the first package, more than 8: %q", len(lines), lines)
	}
	ran := 0
	for _, line := range lines {
		_, behind, _ := strings.Cut("&& "+line, "scripts/deb . && ")
		if behind != "" {
			line = behind
		}
		switch {
		case strings.HasPrefix(line, "apt update"):
			// Somebody has uploaded, and somebody has said yes, before there is something to install.
			alice(t, server, laptop)
			rita(server)
			alicesNews(t, server, laptop)
			client.give(filepath.Join(server.root, "root/packmill.sources"), "etc/apt/sources.list.d/packmill.sources")
			out := client.types("root", strings.Replace(line, "hello", "figlet", 1))
			got := client.sh("dpkg-query -W -f '${Version}' figlet; figlet -I2 >/dev/null")
			if !strings.Contains(got, "+mill1") {
				t.Errorf("apt installed figlet %s:\n%s", got, out)
			}
			(*server.said)[len(*server.said)-1].who = "client"
		case line == "packmill setup":
			// A person answers the questions; here flags do.
			server.types("root", "packmill setup --suite stable --base "+release+" --arch "+machine(t)+
				" --from 'Archive <archive@example.org>' --opkg no --pages yes")
			server.types("root", "packmill doctor")
			if out, err := server.try("! packmill --tree /srv/other setup --suite stable; ls /srv"); err != nil ||
				!strings.Contains(out, "the units are of the tree /var/lib/packmill") || strings.Contains(out, "\nother") {
				t.Errorf("setup of a tree that systemd's units are not of: %v\n%s", err, out)
			}
			// Interrupted behind sshd's fragment, it has left one that sshd has not read: without it Alice's files would not arrive.
			server.sh("cd /etc/ssh/sshd_config.d; mv packmill.conf /root/; systemctl reload ssh; mv /root/packmill.conf .; " +
				"packmill setup --sshd")
		default:
			server.types("root", line)
		}
		ran++
	}
	if ran < 7 {
		t.Fatalf("README has only %q", lines)
	}
	healthy(server)
	for _, c := range *server.said {
		for _, e := range c.errs {
			if !strings.HasPrefix(c.command, "packmill doctor") {
				t.Errorf("%s typed %s and read: %s", c.who, c.command, e)
			}
		}
	}
	upgrade(t, server, deb)
}

// healthy lets doctor look at a server and find nothing; the clock is the host's.
func healthy(server *fresh) {
	out := server.types("root", "packmill doctor")
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "warning: clock: nothing keeps") && !strings.Contains(line, "nothing is wrong") {
			server.t.Errorf("doctor finds something on a good server: %s", line)
		}
	}
	server.types("root", "packmill fsck")
}

// alice uploads Debian's figlet with a version of hers, as scripts/uploaders/README.md says.
func alice(t *testing.T, server, laptop *fresh) {
	laptop.sh("apt-get -qy --no-install-recommends install devscripts debhelper dpkg-dev dput-ng python3-paramiko; " +
		"runuser -l alice -c 'apt-get -q source figlet'")
	// What the one who gave her the account sent her.
	laptop.give(filepath.Join(server.root, "usr/share/doc/packmill/examples/uploaders/packmill.json"),
		"home/alice/packmill.json")
	laptop.types("alice", "cd figlet-*/ && dch --local +mill --distribution stable 'My own.' && cd .. && "+
		"mv figlet-*/ mine")
	laptop.types("alice", "mkdir -p ~/.dput.d/profiles && cp packmill.json ~/.dput.d/profiles/")
	laptop.types("alice", "sed -i s/packages.example.org/archive.example.org/ ~/.dput.d/profiles/packmill.json")
	laptop.types("alice", "ssh-keyscan -p 22 archive.example.org >>~/.ssh/known_hosts")
	laptop.types("alice", "printf 'Host archive.example.org\\n IdentityFile ~/.ssh/id_ed25519\\n' >>~/.ssh/config")
	laptop.types("alice", "cd mine && dpkg-buildpackage -S -d -sa && dput packmill ../figlet_*_source.changes")
	server.sees("packmill review ls | grep figlet")
}

// rita looks at what waits, lets it in, and follows it until it is published; her terminal shows each line whole.
func rita(server *fresh) {
	t := server.t
	for _, x := range []struct {
		command string
		words   []string
	}{
		{"packmill review", []string{"figlet", "alice", "new"}},
		{"packmill review show figlet", []string{"figlet", "2.2.5", "alice"}},
		{"packmill why figlet", []string{"review"}},
		{"packmill review accept figlet", []string{"accepted"}},
		{"packmill wait figlet --timeout 15m", []string{"published"}},
		{"packmill why figlet", []string{"installed"}},
		{"packmill ls", []string{"figlet", "installed"}},
		{"packmill show figlet", []string{"figlet", "rita", "archived"}},
		{"packmill status", []string{"stable"}},
		{"packmill log ls", []string{"figlet"}},
	} {
		out := server.types("rita", x.command)
		for _, w := range x.words {
			if !strings.Contains(out, w) {
				t.Errorf("rita types %s and reads nothing of %q:\n%s", x.command, w, out)
			}
		}
		for _, l := range wide(out) {
			t.Errorf("rita types %s, and her terminal of 80 columns wraps: %s", x.command, l)
		}
	}
}

// alicesNews is what alice hears in the end.
func alicesNews(t *testing.T, server, laptop *fresh) {
	server.sees("grep -h published /var/lib/packmill/spool/incoming/alice/*.status")
	laptop.types("alice", "sftp -q alice@archive.example.org:'*.status' .")
	out := laptop.types("alice", "cat *.status")
	for _, w := range []string{"published in stable", "apt install figlet"} {
		if !strings.Contains(out, w) {
			t.Errorf("alice's status file has nothing of %q:\n%s", w, out)
		}
	}
}
