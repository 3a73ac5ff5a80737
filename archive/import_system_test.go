//go:build system

package archive

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"packmill/archive/mirror"
	"packmill/internal/deb/debtest"
)

// TestImportOthers has reprepro and aptly make repositories, signed by gpg, and
// imports them.
func TestImportOthers(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	t.Cleanup(func() { exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run() })
	secret, public := newKey(t, "theirs")
	env := append(os.Environ(), "GNUPGHOME="+home, "HOME="+home)
	do := func(dir, name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir, cmd.Env = dir, env
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s %s: %v: %s\nthis test needs the packages reprepro, aptly and gnupg",
				name, strings.Join(args, " "), err, out)
		}
	}
	do(home, "gpg", "--batch", "--pinentry-mode", "loopback", "--passphrase", "", "--import", secret)
	in := t.TempDir()
	us := debtest.Corpus(30, "1:1.0")
	if err := debtest.WriteAll(in, us); err != nil {
		t.Fatal(err)
	}
	debs, err := filepath.Glob(filepath.Join(in, "*.deb"))
	if err != nil || len(debs) != 30 {
		t.Fatalf("%d packages, %v", len(debs), err)
	}
	dscs, err := filepath.Glob(filepath.Join(in, "*.dsc"))
	if err != nil {
		t.Fatal(err)
	}
	for name, make := range map[string]func(dir string) string{
		"reprepro": func(dir string) string {
			if err := os.MkdirAll(filepath.Join(dir, "conf"), 0o755); err != nil {
				t.Fatal(err)
			}
			conf := "Codename: theirs\nSuite: theirs\nArchitectures: amd64 i386 source\nComponents: main\nSignWith: yes\n"
			if err := os.WriteFile(filepath.Join(dir, "conf/distributions"), []byte(conf), 0o644); err != nil {
				t.Fatal(err)
			}
			for _, d := range dscs {
				do(dir, "reprepro", "-b", dir, "--section", "misc", "--priority", "optional", "--ignore=missingfile", "includedsc",
					"theirs", d)
			}
			do(dir, "reprepro", append([]string{"-b", dir, "includedeb", "theirs"}, debs...)...)
			return dir
		},
		"aptly": func(dir string) string {
			do(dir, "aptly", "repo", "create", "-distribution=theirs", "-component=main", "r")
			do(dir, "aptly", "repo", "add", "r", in)
			do(dir, "aptly", "publish", "repo", "-batch", "-architectures=amd64,i386,source", "r")
			return filepath.Join(home, ".aptly/public")
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := make(t.TempDir())
			web := httptest.NewServer(http.FileServer(http.Dir(dir)))
			defer web.Close()
			for _, from := range []string{dir, web.URL} {
				to := newFixture(t)
				to.suite.Components = []string{"main"}
				src := mirror.Source{URL: from, Suite: "theirs", Keyring: ring(t, public)}
				rep, err := to.a.Import(context.Background(), to.suite, open(t, src), ImportOptions{}, time.Now())
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range rep.Results {
					if r.Outcome != Published {
						t.Errorf("%s: %v: %s", r.Changes, r.Outcome, r.Reason)
					}
				}
				if len(rep.Uploads) != 15 {
					t.Errorf("got %d uploads, want 15", len(rep.Uploads))
				}
				both := to.text("main/binary-amd64/Packages")
				if got := strings.Count(both, "Package: "); got != 30 {
					t.Errorf("got %d packages, want 30", got)
				}
				if got := strings.Count(to.text("main/source/Sources"), "Package: "); got != 15 {
					t.Errorf("got %d sources, want 15", got)
				}
				newClient(t, strings.ReplaceAll(to.source(), " contrib", ""), to.key, "amd64").run("apt-get", "update")
			}
		})
	}
}
