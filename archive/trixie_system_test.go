//go:build system

package archive

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Debian 13's apt, which verifies with sqv, reads every form and installs from
// it. mmdebstrap makes the chroot and does all in it before it goes.
func TestAptOfTrixie(t *testing.T) {
	t.Parallel() // it waits for the network
	dir := t.TempDir()
	srv := filepath.Join(dir, "srv-packmill")
	var script strings.Builder
	script.WriteString(`set -eu
ls -l /usr/bin/sqv
cat >/etc/apt/apt.conf.d/ours <<EOF
Dir::Etc::sourcelist "/etc/apt/ours.list"; Dir::Etc::sourceparts "-"; APT::Update::Error-Mode "any"; APT::Sandbox::User "root";
EOF
`)
	for _, forms := range []string{"gz", "xz", "zst", "plain", "plain gz xz zst"} {
		f := newFixture(t)
		f.suite.Compress = strings.Fields(forms)
		f.suite.Contents, f.suite.Translations = true, true
		second, _ := newKey(t, "second")
		f.suite.SignWith = append(f.suite.SignWith, second)
		var batch []Inclusion
		batch = append(batch, f.upload(hello("1:2.10-3")))
		f.accepted(batch...)
		name := strings.ReplaceAll(forms, " ", "-")
		if _, err := f.a.Export(ctx, "unstable", filepath.Join(srv, name), ExportOptions{}); err != nil {
			t.Fatal(err)
		}
		key, err := os.ReadFile(f.key)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(srv, name, "key.asc"), key, 0o644); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&script, `
echo "=== %[1]s"
echo "deb [signed-by=/srv-packmill/%[1]s/key.asc] file:/srv-packmill/%[1]s unstable main contrib" >/etc/apt/ours.list
rm -rf /var/lib/apt/lists/*
apt-get update
apt-get install -y --reinstall hello hello-doc
apt-file list hello | grep -x 'hello: /usr/bin/hello'
test "$(hello)" = 1:2.10-3
apt-get purge -y hello hello-doc
`, name)
	}
	if err := os.WriteFile(filepath.Join(srv, "run"), []byte(script.String()), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := exec.Command("chmod", "-R", "a+rX", dir).Run(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("mmdebstrap", "--variant=apt", "--include=apt-file", "--quiet", "--format=null",
		"--customize-hook=copy-in "+srv+" /", `--customize-hook=chroot "$1" sh /srv-packmill/run`, "trixie", "-")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("mmdebstrap: %v\n%s", err, out)
	}
	if n := strings.Count(string(out), "=== "); n != 5 {
		t.Errorf("got %d forms tried, want 5:\n%s", n, out)
	}
}
