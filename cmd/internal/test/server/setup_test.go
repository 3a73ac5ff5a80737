//go:build system

package server

import (
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"strings"
	"testing"

	"packmill/spool"
)

var long = flag.Bool("server.long", false, "packmill setup whole, with a chroot from Debian's mirror: scripts/test long")

// TestSetup lets root make a server with packmill setup: accounts, a tree of theirs, settings, keys, and a chroot of the
// account that builds. No mirror gives packages for the chroot, unless -server.long is given: what counts is that apt
// runs as that account and says so. The machine's /etc stays as it is: setup sees a copy, where the account has its
// home in this test's directory.
func TestSetup(t *testing.T) {
	root, script := bareMachine(t)
	const setup = `"$ROOT/bin/packmill" setup --tree "$ROOT/tree" --suite stable --base "$BASE" --arch "$ARCH" ` +
		`--from "Archive <archive@packmill.example>" --opkg no --pages no --no-start`
	raw, err := script(setup).CombinedOutput()
	out := string(raw)
	name := "stable-" + machine(t)
	wants := []string{"gave packmill-build subordinate ids", "sshd takes uploads", "control/suites\n",
		"making the chroot " + name + " in " + root + "/build/", "I: running apt-get update"}
	if *long {
		wants = append(wants, "made "+name+" in", "\nReady.")
	} else {
		wants = append(wants, "127.0.0.1:9", "mend it and run packmill setup again")
	}
	for _, want := range wants {
		if (err == nil) != *long || !strings.Contains(out, want) {
			t.Fatalf("packmill setup: %v, want %q\n%s", err, want, out)
		}
	}
	if *long {
		setAlready(t, root, name, script, setup)
	}
}

// bareMachine is this machine as setup finds it: a script there sees a copy of /etc, in which the account that builds
// has its home below root; BASE is an apt line, and ARCH this machine's architecture.
func bareMachine(t *testing.T) (root string, script func(text string) *exec.Cmd) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("packmill setup is root's")
	}
	root = "/var/lib/packmill-e2e-setup" // below directories of root's alone, as sshd wants it
	remove := func() {
		if out, err := exec.Command("rm", "-rf", "--one-file-system", root).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}
	remove()
	t.Cleanup(remove)
	line := "deb http://127.0.0.1:9/debian stable main" // discard: nobody is there
	if *long {
		line = base(t)[0]
	}
	script = func(text string) *exec.Cmd {
		cmd := exec.Command("unshare", "--mount", "sh", "-euc", "cd /; mount --bind $ROOT/etc /etc; "+text)
		cmd.Env = append(os.Environ(), "ROOT="+root, "BASE="+line, "ARCH="+machine(t), "PACKMILL_CHROOTS=")
		return cmd
	}
	// As in a checkout: setup finds the files for sshd beside the programs.
	if out, err := exec.Command("sh", "-euc", `mkdir -p "$1/bin"; cp -a /etc "$1/etc"; cp "$2/packmill" "$1/bin/"; cp -r "$3" "$1/"`,
		"sh", root, bin, scripts).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// usermod would refuse a home while some other machine's account of that number runs anything here.
	out, err := script(`rm -f /etc/ssh/sshd_config.d/packmill.conf; sed -i /^packmill-build:/d /etc/subuid /etc/subgid
		systemd-sysusers "$ROOT/scripts/systemd/packmill.sysusers"; sed -i "/^packmill-build:/s,:[^:]*:\\([^:]*\\)\$,:$ROOT/build:\\1," /etc/passwd
		grep "^packmill-build:.*:$ROOT/build:" /etc/passwd`).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return root, script
}

// setAlready looks at the chroot that setup has made, and runs it again, when what is there stays.
func setAlready(t *testing.T, root, name string, script func(string) *exec.Cmd, setup string) {
	t.Helper()
	var made struct{ Suite, Arch, Owner, Dir string }
	out, err := script(`"$ROOT/bin/packmill" chroot ls --tree "$ROOT/tree" --json`).CombinedOutput()
	if err == nil {
		err = json.Unmarshal(out, &made)
	}
	if err != nil || made.Suite+"-"+made.Arch != name || made.Owner != spool.UserBuild ||
		!strings.HasPrefix(made.Dir, root+"/build/") {
		t.Errorf("chroot ls: %v, %+v\n%s", err, made, out)
	}
	out, err = script(setup).CombinedOutput()
	if err != nil || strings.Contains(string(out), "made ") || !strings.Contains(string(out), "Ready.") {
		t.Errorf("packmill setup again: %v\n%s", err, out)
	}
}
