//go:build system

package server

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"packmill/queue/runner"
)

// chroots is where chroots are kept from one run to the next, for the tests of
// queue/runner too.
func chroots() *runner.Chroots {
	d := os.Getenv("PACKMILL_TEST_CACHE")
	if d == "" {
		d = filepath.Join(who.home, ".cache", "packmill-test")
	}
	c := &runner.Chroots{Dir: filepath.Join(d, "chroots")}
	if os.Getuid() == 0 {
		c.User = who.name
	}
	return c
}

// base is the apt line of the machine's own Debian release, without its updates:
// its security suite has not everything for foreign architectures, and all
// tests share the chroots.
func base(t *testing.T) []string {
	t.Helper()
	lines, err := runner.SystemBase()
	if err != nil || len(lines) == 0 {
		t.Fatalf("apt knows no Debian source: run apt-get update, and see what /etc/apt/sources.list names: %v", err)
	}
	return lines[:1]
}

// client runs a shell script as root of a fresh chroot that knows the site's
// archive as /etc/apt/sources.list.d/packmill.list, with the words suite and
// extra arguments as $1 and on. $own limits apt-get to the site's archive.
func (s *site) client(chroot, suite, script string, args ...string) string {
	s.t.Helper()
	set := fmt.Sprintf(`set -eu
mkdir -p /etc/apt/keyrings && cat >/etc/apt/keyrings/packmill.asc
echo "deb [signed-by=/etc/apt/keyrings/packmill.asc] http://127.0.0.1:%d/ $1 main" >/etc/apt/sources.list.d/packmill.list
echo "deb-src [signed-by=/etc/apt/keyrings/packmill.asc] http://127.0.0.1:%d/ $1 main" >>/etc/apt/sources.list.d/packmill.list
own="-o Dir::Etc::sourcelist=/etc/apt/sources.list.d/packmill.list -o Dir::Etc::sourceparts=- -o APT::Get::List-Cleanup=0"
apt-get -q $own update --error-on=any
%s`, s.web, s.web, script)
	cmd := who.command(nil, filepath.Join(scripts, "lib", "in-chroot"),
		append([]string{chroot, "sh", "-c", set, "sh", suite}, args...)...)
	cmd.Stdin = bytes.NewReader([]byte(read(s, filepath.Join(s.tree, "archive/keys", suite+".asc"))))
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("apt in a clean chroot: %v\n%s", err, out)
	}
	return string(out)
}

// installs proves that apt installs the package in exactly this version and
// that its program says so, and installs others with it.
func (s *site) installs(chroot, suite, pkg, version string, others ...string) {
	s.t.Helper()
	out := s.client(chroot, suite, `p=$2 v=$3; shift 3; apt-get -q -y --no-install-recommends install "$p=$v" "$@"; for o; do "$o"; done; "$p"`, append([]string{pkg, version}, others...)...)
	if want := pkg + " " + version; !strings.HasSuffix(strings.TrimSpace(out), want) {
		s.t.Errorf("%s of %s: its program says %q, want %q", pkg, suite, out, want)
	}
}

// chroot gives the tarball of the suite's clean chroot; it is made the first
// time and kept for a day.
func (s *site) chroot(arch string) string {
	s.t.Helper()
	ch, err := chroots().Fresh(context.Background(),
		runner.Recipe{Suite: suite, Arch: arch, Base: base(s.t), Log: os.Stderr}, 24*time.Hour)
	if err != nil {
		s.t.Fatal(err)
	}
	return ch.Tarball()
}
