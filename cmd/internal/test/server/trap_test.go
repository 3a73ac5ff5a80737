//go:build system

package server

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTrap: where the daemons have accounts everybody may make names in incoming; what a
// stranger made where a new account's directory will be is not given to that account.
func TestTrap(t *testing.T) {
	s := newSite(t)
	root := fmt.Sprintf("/var/lib/packmill-e2e-trap-%d", os.Getpid())
	name := fmt.Sprintf("e2e-trap-%d", os.Getpid())
	t.Cleanup(func() {
		asRoot("userdel", name).Run()
		asRoot("rm", "-rf", root).Run()
	})
	sudo := func(name string, args ...string) string {
		t.Helper()
		out, err := asRoot(name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("as root: %s %q: %v\n%s", name, args, err, out)
		}
		return string(out)
	}
	a := s.newUploader("ann")
	key := filepath.Join(a.home, ".ssh/id_ed25519")
	a.must("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
	tree, victim := filepath.Join(root, "tree"), filepath.Join(root, "victim")
	sudo("install", "-d", "-m", "755", root)
	sudo("install", "-d", "-m", "700", victim)
	sudo("systemd-sysusers", filepath.Join(scripts, "systemd/packmill.sysusers"))
	sudo(filepath.Join(bin, "packmill"), "init", "--tree", tree)
	sudo(filepath.Join(bin, "packmill"), "init", "--tree", tree, "--users")
	trap := filepath.Join(tree, "spool/incoming", name)
	for _, made := range [][]string{{"ln", "-s", victim, trap}, {"mkdir", "-m", "777", trap}} {
		sudo("setpriv", append([]string{"--reuid=64001", "--regid=64001", "--clear-groups"}, made...)...)
		out, err := asRoot(filepath.Join(scripts, "sshd/uploader"), "--tree", tree, "--keys", filepath.Join(root, "keys"),
			"add", name, key+".pub").CombinedOutput()
		if err == nil || !strings.Contains(string(out), "is there already") {
			t.Errorf("uploader add after a stranger's %q: %v, %s", made, err, out)
		}
		if st := sudo("stat", "-c", "%u", trap); st != "64001\n" {
			t.Errorf("a stranger's %q is the user %s's", made, st)
		}
		if st := sudo("stat", "-c", "%U %a", victim); st != "root 700\n" {
			t.Errorf("after a stranger's %q: the victim is %s", made, st)
		}
		sudo("rm", "-r", trap)
	}
}
