//go:build system

package upload_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"packmill/internal/openpgp"
	"packmill/spool/upload"
)

// TestRealTools: what dpkg-buildpackage builds and debsign signs passes without a
// finding, as source and with binaries.
func TestRealTools(t *testing.T) {
	t.Parallel()
	home, err := os.MkdirTemp("/tmp", "tools") // gpg's socket needs a short path
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(home)
	key, err := openpgp.Generate("Test Person", "test@example.org", time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), "HOME="+home, "GNUPGHOME="+home, "LC_ALL=C")
	run := func(dir, stdin string, args ...string) {
		t.Helper()
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Env, cmd.Dir, cmd.Stdin = env, dir, strings.NewReader(stdin)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s(install dpkg-dev, devscripts and gnupg if they are missing)", args, err, out)
		}
	}
	defer func() {
		cmd := exec.Command("gpgconf", "--kill", "all")
		cmd.Env = env
		_ = cmd.Run()
	}()
	run(home, string(key.Secret()), "gpg", "--batch", "--import")
	keyring, err := openpgp.ReadKeyring(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []struct {
		p     pkg
		build string
		arch  string
	}{
		{pkg{Source: "real", Version: "1.0-1"}, "-S", "source"},
		{pkg{Source: "real", Version: "1:2.0", Architecture: "all"}, "-S", "source"},
		{pkg{Source: "real", Version: "1.0-3", Format: "1.0",
			BuildDepends: "dpkg-dev (>= 1.17) <!nocheck>, libc6-dev [linux-any] | libc-dev"}, "-S", "source"},
		{pkg{Source: "real", Version: "1.0-4", Binary: []string{"real", "real-extra"}}, "-F", "amd64"},
	} {
		work, drop := t.TempDir(), t.TempDir()
		if _, err := r.p.Write(work); err != nil {
			t.Fatal(err)
		}
		full := r.p.Source + "_" + strings.TrimPrefix(r.p.Version, "1:")
		run(work, "", "dpkg-source", "-x", full+".dsc", "tree")
		run(filepath.Join(work, "tree"), "", "dpkg-buildpackage", r.build, "-sa", "-us", "-uc", "-d", "-aamd64")
		changes := full + "_" + r.arch + ".changes"
		run(work, "", "debsign", "-k"+key.Fingerprint(), changes)

		ctx := &upload.Context{
			Now: time.Now(), Keyring: keyring, Sums: map[string]upload.Sums{},
			Uploaders: []*upload.Uploader{{Name: "test", Fingerprints: []string{key.Fingerprint()},
				Allow: []upload.Right{{Source: true, New: true, Binaries: []string{"amd64"}}}}},
			Suites: []*upload.Suite{{Name: "stable", Architectures: []string{"amd64"}, Binaries: upload.BinariesAllowed}},
		}
		files, err := upload.Peek(work, changes)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range append(files, upload.File{Name: changes}) {
			if ctx.Sums[f.Name], err = upload.Take(t.Context(), work, drop, f.Name,
				upload.TakeOptions{MD5: true, SHA1: true}); err != nil {
				t.Fatal(err)
			}
		}
		up, findings, err := upload.Read(t.Context(), drop, changes, ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range findings {
			t.Errorf("%s %s: %s", changes, r.p.Format, f)
		}
		if up.Signature == nil || up.DscSignature == nil || up.Component != "main" || up.Section != "misc" || !up.New ||
			up.Uploader == nil {
			t.Errorf("%s: got %+v", changes, up)
		}
	}
}
