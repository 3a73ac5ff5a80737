//go:build system

package server

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// keptTree are the files that nothing may lose: a line each, with what is in them. A daemon that starts writes
// .complete of journal/names, an index.
const keptTree = `cd /var/lib/packmill; find archive/pool archive/dists archive/keys archive/installed attic control \
	journal logs queue spool \
	-type f -not -path '*/tmp/*' -not -name .complete -exec sha256sum {} + 2>/dev/null | sort -k2`

// upgrade puts a newer package over that of a server that has published something, takes it away, brings it back, and
// purges it. The daemons go on as the newer programs, and nothing of the tree is lost.
func upgrade(t *testing.T, server *fresh, deb string) {
	newer := newerPackage(t, deb)
	server.give(newer, "root/newer.deb")
	before := server.sh(keptTree)
	if !strings.Contains(before, "pool/") || strings.Count(before, "\n") < 20 {
		t.Fatalf("the tree has only:\n%s", before)
	}
	kept := func(when string) {
		t.Helper()
		now := server.sh(keptTree)
		for line := range strings.Lines(before) {
			if line = strings.TrimSpace(line); !strings.Contains(now, line) {
				t.Errorf("%s: gone or changed: %s", when, line)
			}
		}
	}
	units := strings.Fields("reviewd master-buildd archived maild buildd@" + machine(t) + " buildd@all statusd")
	run := func(when string) {
		t.Helper()
		kept(when)
		for _, u := range units {
			server.sees("systemctl is-active " + u)
		}
		healthy(server)
	}
	server.down()
	server.boot()
	run("after a restart")

	server.types("root", "apt install ./newer.deb")
	run("after the upgrade")
	for _, u := range units {
		exe := server.sh("readlink /proc/$(systemctl show -P MainPID " + u + ")/exe")
		if strings.HasSuffix(exe, "(deleted)") {
			t.Errorf("after the upgrade %s is still the older program: %s", u, exe)
		}
	}

	server.types("root", "apt remove -y packmill")
	kept("after remove")
	if out, err := server.try("pgrep -l 'reviewd|buildd|archived|maild|statusd'"); err == nil {
		t.Errorf("after remove there runs: %s", out)
	}
	server.types("root", "apt install ./newer.deb")
	run("removed and installed again")

	out := server.types("root", "apt purge -y packmill")
	kept("after purge")
	if !strings.Contains(out, "/var/lib/packmill stays") {
		t.Errorf("purge does not say what stays:\n%s", out)
	}
	// What bears a name of ours, but for the tree, what root copied there, and what apt and the journal keep of what was.
	if out := server.sh(`find / -xdev \( -path /proc -o -path /var/lib/packmill -o -path /var/lib/packmill-build \
		-o -path /etc/packmill -o -path /etc/nginx -o -path /root -o -path /var/cache/apt -o -path /var/log \) -prune \
		-o \( -name '*packmill*' -o -name 'reviewd*' -o -name 'buildd' -o -name 'buildd[@-]*' \
		-o -name 'archived*' -o -name 'maild*' -o -name 'statusd*' \) -print`); out != "" {
		t.Errorf("purge leaves:\n%s", out)
	}
	out = server.sh("systemctl list-units --all --plain --no-legend --state=failed 'packmill*' 'reviewd*' 'buildd*'")
	if out != "" {
		t.Errorf("after purge systemd knows:\n%s", out)
	}
	server.sh("sshd -t")
}

// newerPackage is the same with a newer version.
func newerPackage(t *testing.T, deb string) string {
	t.Helper()
	dir := t.TempDir()
	newer := filepath.Join(dir, "newer.deb")
	out, err := exec.Command("sh", "-euc", `dpkg-deb -R "$1" "$2/x"; sed -i 's/^Version: .*/&+newer/' "$2/x/DEBIAN/control"
		dpkg-deb --root-owner-group -Zgzip -z1 -b "$2/x" "$3"; rm -r "$2/x"`, "sh", deb, dir, newer).CombinedOutput()
	if err != nil {
		t.Fatalf("dpkg-deb: %v\n%s", err, out)
	}
	return newer
}
