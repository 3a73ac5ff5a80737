//go:build system

package server

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// ownSource makes the source package for the suite, as README says, signed with a new key of Alice's. It gives the
// files, the .changes last, and her public key.
func ownSource(t *testing.T, suite string) (files []string, key string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "own") // gpg-agent's socket wants a short path
	if err != nil {
		t.Fatal(err)
	}
	gpg := "GNUPGHOME=" + dir
	t.Cleanup(func() {
		kill := exec.Command("gpgconf", "--kill", "all")
		kill.Env = append(os.Environ(), gpg)
		kill.Run()
		os.RemoveAll(dir)
	})
	key = filepath.Join(dir, "alice.asc")
	cmd := exec.Command("sh", "-euc", `
		gpg --batch --quiet --passphrase "" --quick-generate-key alice@example.org ed25519 sign never
		gpg --batch --armor --export alice@example.org >"$3"
		"$1/deb" --source --suite "$2" --sign alice@example.org "$4"`, "sh", scripts, suite, key, filepath.Join(dir, "out"))
	cmd.Env = append(os.Environ(), gpg)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("scripts/deb --source: %v\n%s", err, out)
	}
	changes, _ := filepath.Glob(filepath.Join(dir, "out", "packmill_*_source.changes"))
	if len(changes) != 1 {
		t.Fatalf("scripts/deb --source made %q", changes)
	}
	return listed(t, changes[0]), key
}

// TestOwnSource lets Packmill build itself: its source package goes to a server that setup has made of a fresh Debian
// 13, with accounts, a person lets it in, it is built in a clean chroot without a network, and another fresh machine
// installs with apt what came of it.
func TestOwnSource(t *testing.T) {
	if !*long {
		t.Skip("takes many minutes: -server.long, or scripts/test long")
	}
	if os.Getuid() != 0 {
		t.Skip("fresh machines on a network of their own are root's to make")
	}
	const release = "trixie"
	files, key := ownSource(t, "stable")
	_, version, _ := strings.Cut(filepath.Base(files[len(files)-1]), "_")
	version, _, _ = strings.Cut(version, "_")

	server := newFresh(t, "archive", release, nil)
	client := newFresh(t, "client", release, server)
	defer func() { t.Logf("by hand:\n%s", table(*server.said)) }()
	server.give(ownPackage(t), "root/packmill.deb")
	server.give(key, "root/alice.asc")
	client.sh("apt-get -q update; apt-get -qy --no-install-recommends install openssh-client; " +
		`ssh-keygen -q -t ed25519 -N "" -f /root/.ssh/id_ed25519`)
	server.give(filepath.Join(client.root, "root/.ssh/id_ed25519.pub"), "root/alice.pub")
	server.sh("apt-get -q update; useradd -m -s /bin/bash rita")

	server.types("root", "apt install ./packmill.deb")
	// Its Go is newer than that of Debian 13, which has one in its backports.
	server.types("root", "packmill setup --suite stable --base "+release+" --base 'deb "+mirror(t)+" "+release+
		"-backports main' --arch "+machine(t)+" --from 'Archive <archive@example.org>' --opkg no --pages no")
	server.types("root", "packmill uploader add alice alice.pub --openpgp alice.asc")
	server.types("root", "usermod -aG packmill,packmill-review,packmill-desk rita")

	client.sh("ssh-keyscan -p 22 archive.example.org >>/root/.ssh/known_hosts; mkdir /root/up")
	for _, f := range files {
		client.give(f, "root/up/"+filepath.Base(f))
	}
	client.sh("cd up; printf 'put *\\n' | sftp -q -b - alice@archive.example.org")
	server.sees("packmill review ls | grep '^[0-9].* packmill '")
	server.types("rita", "packmill review show packmill")
	server.types("rita", "packmill review accept packmill -m 'our own'")
	server.types("rita", "packmill wait packmill --timeout 60m")
	server.types("rita", "packmill why packmill")
	log := server.sh("packmill log packmill " + machine(t))
	if !strings.Contains(log, "golang-1.26-go") {
		t.Errorf("the build's log says nothing of its Go:\n%s", log)
	}

	server.sh("packmill archive sources stable http://archive.example.org/ >packmill.sources; " +
		"apt-get -qy --no-install-recommends install nginx; " +
		"cp /usr/share/doc/packmill/examples/web/nginx.conf /etc/nginx/sites-enabled/packmill; systemctl reload nginx")
	client.give(filepath.Join(server.root, "root/packmill.sources"), "etc/apt/sources.list.d/packmill.sources")
	client.types("root", "apt update && apt install packmill")
	if got := client.sh("dpkg-query -W -f '${Version}' packmill; echo; packmill --version"); !strings.HasPrefix(got,
		version+"\n") || !strings.Contains(got, "packmill "+version) {
		t.Errorf("apt installed packmill %s, want %s", got, version)
	}
	// What is written about the build is true of the file that apt fetched.
	client.sh("packmill completion bash | cmp - /usr/share/bash-completion/completions/packmill; " +
		"zcat /usr/share/man/man1/packmill.1.gz | grep -q setup; /usr/libexec/packmill/reviewd --help >/dev/null")
	healthy(server)
}
