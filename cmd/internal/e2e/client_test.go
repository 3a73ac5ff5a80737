//go:build system

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// cache is where chroots are kept from one run to the next.
func cache() string {
	d := os.Getenv("PACKMILL_TEST_CACHE")
	if d == "" {
		d = filepath.Join(who.home, ".cache", "packmill-test")
	}
	return filepath.Join(d, "e2e")
}

// base is the machine's own Debian mirror and release: URI and codename.
func (s *site) base() (uri, codename string) {
	s.t.Helper()
	for line := range strings.Lines(read(s, "/etc/os-release")) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "VERSION_CODENAME="); ok {
			codename = strings.Trim(v, `"`)
		}
	}
	out, err := exec.Command("apt-get", "indextargets", "--format", "$(ORIGIN) $(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages").Output()
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) == 4 && f[0] == "Debian" && f[2] == codename && f[3] == "main" {
			return f[1], codename
		}
	}
	s.t.Fatalf("apt knows no Debian source for %q: run apt-get update, and see that /etc/apt/sources.list names main of %s", codename, codename)
	return "", ""
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
	cmd := who.command(nil, filepath.Join(scripts, "lib", "in-chroot"), append([]string{chroot, "sh", "-c", set, "sh", suite}, args...)...)
	cmd.Stdin = bytes.NewReader([]byte(read(s, filepath.Join(s.tree, "archive/keys", suite+".asc"))))
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("apt in a clean chroot: %v\n%s", err, out)
	}
	return string(out)
}

// installs proves that apt installs the package in exactly this version and
// that its program says so. It gives the time that took.
func (s *site) installs(chroot, suite, pkg, version string) time.Duration {
	s.t.Helper()
	begin := time.Now()
	out := s.client(chroot, suite, `apt-get -q -y --no-install-recommends install "$2=$3"; "$2"`, pkg, version)
	if want := pkg + " " + version; !strings.HasSuffix(strings.TrimSpace(out), want) {
		s.t.Errorf("%s of %s: its program says %q, want %q", pkg, suite, out, want)
	}
	return time.Since(begin)
}

// chroot gives the tarball of the suite's clean chroot; it is made the first
// time and kept in the cache.
func (s *site) chroot(suite, arch string) string {
	s.t.Helper()
	find := func() string {
		m, _ := filepath.Glob(filepath.Join(cache(), suite+"-"+arch, "*", "chroot.tar"))
		if len(m) == 0 {
			return ""
		}
		return m[len(m)-1]
	}
	if tar := find(); tar != "" {
		return tar
	}
	begin := time.Now()
	s.must("packmill", "chroot", "create", "--tree", s.tree, suite, arch)
	s.t.Logf("chroot %s-%s made in %v", suite, arch, time.Since(begin).Round(time.Second))
	tar := find()
	if tar == "" {
		s.t.Fatalf("packmill chroot create left no chroot.tar in %s/%s-%s", cache(), suite, arch)
	}
	return tar
}
