//go:build system

package server

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// exposed is the most of systemd-analyze's exposure level that each unit may have, in
// tenths: 100 is one that is not locked up at all. What runs a sendmail or makes
// user namespaces cannot be.
var exposed = map[string]string{
	"reviewd.service": "20", "archived.service": "15", "master-buildd.service": "15", "packmill-fsck.service": "30",
	"maild.service": "65", "statusd.service": "6", "buildd@.service": "70", "buildd-remote@.service": "70",
	"packmill-chroots.service": "70",
}

// TestUnits lets systemd read the service files, with programs that exist.
func TestUnits(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Fatal("systemd-analyze is missing; install systemd, or run scripts/test, which does")
	}
	units, _ := filepath.Glob(filepath.Join(scripts, "systemd/*.service"))
	if len(units) < 4 {
		t.Fatalf("only %q in scripts/systemd", units)
	}
	dir := t.TempDir()
	for _, u := range units {
		data, err := os.ReadFile(u)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(data), "/usr/local/bin/", bin+"/")
		needs := []string{"RestartPreventExitStatus=100\n", "Restart=on-failure\n", "\nUser=packmill-", "Type=notify\n"}
		if strings.Contains(text, "Type=oneshot\n") {
			needs = nil // of a timer
		}
		for _, need := range needs {
			if !strings.Contains(text, need) {
				t.Errorf("%s does not say %q", filepath.Base(u), strings.TrimSpace(need))
			}
		}
		for _, need := range []string{"\nMemoryMax=", "\nTasksMax="} {
			if !strings.Contains(text, need) {
				t.Errorf("%s does not say %q", filepath.Base(u), strings.TrimSpace(need))
			}
		}
		// What it requires lies beside it, unless the machine has it.
		if socket := strings.TrimSuffix(u, ".service") + ".socket"; strings.Contains(text, "\nRequires="+filepath.Base(socket)) {
			data, err := os.ReadFile(socket)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, filepath.Base(socket)), data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		file := filepath.Join(dir, strings.Replace(filepath.Base(u), "@.service", "@amd64.service", 1))
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		// It names each setting it does not know, and ends with 0 for some of them.
		out, err := exec.Command("systemd-analyze", "verify", "--man=no", file).CombinedOutput()
		if err != nil || strings.Contains(string(out), filepath.Base(file)) {
			t.Errorf("systemd-analyze verify %s: %v\n%s", filepath.Base(u), err, out)
		}
		if limit := exposed[filepath.Base(u)]; limit == "" {
			t.Errorf("say how exposed %s may be", filepath.Base(u))
		} else {
			out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold="+limit,
				file).CombinedOutput()
			if err != nil {
				t.Errorf("systemd-analyze security %s: more than %s: %v\n%s", filepath.Base(u), limit, err, out)
			}
		}
	}
}
