package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"

	"packmill/archive"
	"packmill/internal/openpgp"
)

// clientDays is how often apt looks, each time after one more upload was published.
const clientDays = 30

// clients measures what apt fetches after a publication, with the patches of the indexes and without: two that look each
// day for a month; and what the patches cost, beside one publication without.
func (m *archiveBench) clients(one used) error {
	m.progress("archive: %d packages: a month of apt-get update", m.n)
	if err := setUp(m.root, m.key, "Opkg: no\nPdiffs: yes\n"); err != nil {
		return err
	}
	a, err := archive.Open(filepath.Join(m.root, "archive"))
	if err != nil {
		return err
	}
	var sent atomic.Int64
	files := a.Handler()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		files.ServeHTTP(&counted{w, &sent}, r)
	}))
	defer server.Close()
	var all [2]int64
	var apts [2]string // configurations
	for i, pdiffs := range []string{"true", "false"} {
		if apts[i], err = newApt(filepath.Join(m.bench.dir, fmt.Sprint("apt", i)), server.URL, m.key, pdiffs); err != nil {
			return err
		}
		defer os.RemoveAll(filepath.Dir(apts[i]))
	}
	var uses []used
	for day := range clientDays + 1 {
		u, err := m.include()
		if err != nil {
			return err
		}
		uses = append(uses, u)
		for i, conf := range apts {
			before := sent.Load()
			cmd := exec.Command("apt-get", "update")
			cmd.Env = append(os.Environ(), "APT_CONFIG="+conf)
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("apt-get update: %w: %s", err, out)
			}
			if day > 0 { // on the first it has nothing
				all[i] += sent.Load() - before
			}
		}
	}
	m.archive("archive.publish-pdiffs", m.n, middleUse(uses), "without Pdiffs", one, goal{})
	with, without := float64(all[0])/clientDays/1e3, float64(all[1])/clientDays/1e3
	m.figure(Figure{Name: fmt.Sprintf("archive.update.%d", m.n), Value: with, Unit: "kB an update",
		Versus: fmt.Sprintf("without Pdiffs: %.0f", without), Ratio: with / without})
	return nil
}

// newApt makes an apt of its own, with binaries and sources of the suite, and returns its configuration.
func newApt(dir, url, key, pdiffs string) (string, error) {
	signer, err := openpgp.ReadSigner(key)
	if err != nil {
		return "", err
	}
	var errs []error
	for _, d := range []string{"state/lists/partial", "cache/archives/partial", "etc/apt.conf.d", "etc/preferences.d",
		"etc/sources.list.d", "etc/trusted"} {
		errs = append(errs, os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	line := fmt.Sprintf("[signed-by=%s/key.asc arch=amd64] %s bench main\n", dir, url)
	for name, text := range map[string]string{"status": "", "key.asc": string(signer.Public()),
		"etc/sources.list": "deb " + line + "deb-src " + line,
		"apt.conf": fmt.Sprintf("Dir \"%[1]s\"; Dir::State \"%[1]s/state\"; Dir::State::status \"%[1]s/status\";\n"+
			"Dir::Cache \"%[1]s/cache\"; Dir::Etc \"%[1]s/etc\"; Dir::Etc::trustedparts \"%[1]s/etc/trusted\";\n"+
			"Dir::Bin::methods \"/usr/lib/apt/methods\"; APT::Architecture \"amd64\"; APT::Architectures { \"amd64\"; };\n"+
			"APT::Sandbox::User \"\"; Acquire::Languages \"none\"; Acquire::PDiffs \"%[2]s\";\n", dir, pdiffs)} {
		errs = append(errs, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	return filepath.Join(dir, "apt.conf"), errors.Join(errs...)
}

// counted counts what a response sends of the files.
type counted struct {
	http.ResponseWriter
	sent *atomic.Int64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.sent.Add(int64(n))
	return n, err
}
