package openpgp_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"packmill/internal/openpgp"
)

// TestVerifyRelease has gpg sign a file with two keys, as archives do, and asks
// with the keyring of each, of both, and of a third one.
func TestVerifyRelease(t *testing.T) {
	home := t.TempDir()
	now := time.Now()
	gpg := func(args ...string) {
		t.Helper()
		out, err := exec.Command("gpg",
			append([]string{"--homedir", home, "--batch", "--quiet", "--no-tty", "--pinentry-mode", "loopback", "--passphrase",
				""}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("gpg %v: %v: %s", args, err, out)
		}
	}
	t.Cleanup(func() { exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run() })
	var public [][]byte
	for _, name := range []string{"one", "two", "three"} {
		s, err := openpgp.Generate(name, name+"@packmill.example", now.Add(-time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(home, name)
		if err := os.WriteFile(path, s.Secret(), 0o600); err != nil {
			t.Fatal(err)
		}
		gpg("--import", path)
		public = append(public, []byte(s.Public()))
	}
	const text = "Origin: Packmill Tests\nSuite: stable\n"
	release := filepath.Join(home, "Release")
	if err := os.WriteFile(release, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	gpg("-u", "one", "-u", "two", "--clearsign", "-o", release+".in", release)
	gpg("-u", "one", "-u", "two", "--detach-sign", "--armor", "-o", release+".gpg", release)
	gpg("-u", "one", "-u", "two", "--detach-sign", "-o", release+".bin", release)
	read := func(path string) []byte {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	in := read(release + ".in")
	for _, tt := range []struct {
		name string
		keys [][]byte
		good bool
	}{
		{"first", public[:1], true}, {"second", public[1:2], true}, {"both", public[:2], true}, {"third", public[2:], false},
	} {
		ring, err := openpgp.ReadKeyring(tt.keys...)
		if err != nil {
			t.Fatal(err)
		}
		got, sig, err := ring.VerifyRelease(in, now)
		if (err == nil) != tt.good || tt.good && (string(got) != text || sig.Fingerprint == "") {
			t.Errorf("%s: InRelease: got %q, %v", tt.name, got, err)
		}
		for _, ext := range []string{".gpg", ".bin"} {
			if _, err := ring.VerifyReleaseGPG(bytes.NewReader([]byte(text)), read(release+ext), now); (err == nil) != tt.good {
				t.Errorf("%s: Release%s: got %v", tt.name, ext, err)
			}
			if _, err := ring.VerifyReleaseGPG(bytes.NewReader([]byte(text+"x")), read(release+ext), now); err == nil {
				t.Errorf("%s: Release%s: accepted over other bytes", tt.name, ext)
			}
		}
		if _, _, err := ring.VerifyRelease(bytes.Replace(in, []byte("stable"), []byte("evil!!"), 1), now); err == nil {
			t.Errorf("%s: accepted a changed InRelease", tt.name)
		}
		// An upload must still bear one signature only.
		var r *openpgp.Refusal
		if _, _, err := ring.VerifyClear(in, now); !errors.As(err, &r) || r.Kind != openpgp.BadForm {
			t.Errorf("%s: VerifyClear: got %v", tt.name, err)
		}
	}
}
