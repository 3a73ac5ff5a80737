//go:build system

package distribution

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"

	"packmill/internal/deb822"
	"packmill/internal/policy"
	"packmill/queue/quinndiff/listtest"
)

// machine is a directory that is used as a machine by apt.
type machine struct {
	*distribution
	root string
}

// prepare gives apt our suite, by http.
func (m *machine) prepare() *httptest.Server {
	m.Helper()
	for _, dir := range []string{"dev", "proc"} {
		m.must(os.MkdirAll(filepath.Join(m.root, dir), 0o755))
	}
	server := httptest.NewServer(http.FileServer(http.Dir(filepath.Join(m.tree, "archive"))))
	key, err := os.ReadFile(filepath.Join(m.tree, "archive/keys", suite+".asc"))
	m.must(err)
	resolv, _ := os.ReadFile("/etc/resolv.conf")
	for path, text := range map[string]string{
		"etc/apt/keyrings/ours.asc": string(key),
		"etc/apt/sources.list.d/ours.list": "deb [signed-by=/etc/apt/keyrings/ours.asc] " + server.URL + " " + suite +
			" main\n",
		"etc/apt/preferences.d/ours": "Package: *\nPin: release l=Distribution\nPin-Priority: 1001\n",
		"etc/apt/apt.conf.d/99test": "APT::Install-Recommends \"no\";\nDpkg::Options { \"--force-unsafe-io\"; \"--force-confnew\"; };\n" +
			"APT::Sandbox::User \"root\";\n",
		"etc/resolv.conf": string(resolv), "usr/sbin/policy-rc.d": "#!/bin/sh\nexit 101\n",
	} {
		path = filepath.Join(m.root, path)
		m.must(os.MkdirAll(filepath.Dir(path), 0o755))
		os.Remove(path)
		m.must(os.WriteFile(path, []byte(text), 0o755))
	}
	return server
}

// try runs a line of shell there.
func (m *machine) try(line string) (string, error) {
	return run("/", "unshare", "--mount", "--pid", "--fork", "--uts", "sh", "-euc",
		`mount -t proc proc "$1/proc"; mount -t tmpfs tmpfs "$1/dev"
for n in null zero full random urandom tty; do touch "$1/dev/$n"; mount --bind "/dev/$n" "$1/dev/$n"; done
ln -s /proc/self/fd "$1/dev/fd"; mkdir "$1/dev/shm"; exec chroot "$1" sh -euc "$2"`, "sh", m.root, line)
}

func (m *machine) sh(line string) string {
	m.Helper()
	out, err := m.try(line)
	m.must(err)
	return out
}

// oneByOne tries packages that are not for one machine at once.
func (m *machine) oneByOne(names []string) (string, error) {
	var said strings.Builder
	var errs []error
	for _, n := range names {
		out, err := m.try("apt-get -s -q install " + n)
		if err != nil {
			said.WriteString(out)
			errs = append(errs, err)
		}
	}
	return said.String(), errors.Join(errs...)
}

// ours are the packages of each source in our suite, the newest, as NAME=VERSION.
func (d *distribution) ours() map[string][]string {
	d.Helper()
	newest := map[string]*binary{}
	path := filepath.Join(d.tree, "archive/dists", suite, "main/binary-amd64/Packages")
	out, err := run("/", "sh", "-c", `xz -dc "$1.xz" || zcat "$1.gz"`, "sh", path)
	d.must(err)
	plain := filepath.Join(d.dir, "Packages")
	d.must(os.WriteFile(plain, []byte(out), 0o644))
	d.must(listtest.EachStanza(plain, func(st *deb822.Stanza) error {
		b := &binary{name: st.Get("Package"), version: st.Get("Version"), source: st.Get("Source")}
		if old := newest[b.name]; old == nil || policy.CompareVersions(old.version, b.version) < 0 {
			newest[b.name] = b
		}
		return nil
	}))
	of := map[string][]string{}
	for _, name := range sorted(newest) {
		b := newest[name]
		source, _, _ := strings.Cut(b.source, " ")
		if source == "" {
			source = name
		}
		if !strings.HasSuffix(name, "-dbgsym") {
			of[source] = append(of[source], name+"="+b.version)
		}
	}
	return of
}
