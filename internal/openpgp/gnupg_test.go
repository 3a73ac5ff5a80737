package openpgp

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// gnupg is a GnuPG home of its own.
type gnupg struct {
	t    testing.TB
	home string
}

func newGnupg(t testing.TB) *gnupg {
	t.Helper()
	// The agent's socket lies in the home, and a socket's path is at most 108 bytes.
	home, err := os.MkdirTemp("/tmp", "gpg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd := exec.Command("gpgconf", "--kill", "all")
		cmd.Env = append(os.Environ(), "GNUPGHOME="+home)
		_ = cmd.Run()
		os.RemoveAll(home)
	})
	return &gnupg{t, home}
}

func (g *gnupg) run(stdin string, args ...string) []byte {
	g.t.Helper()
	cmd := exec.Command("gpg",
		append([]string{"--batch", "--yes", "--pinentry-mode", "loopback", "--passphrase", ""}, args...)...)
	cmd.Env = append(os.Environ(), "GNUPGHOME="+g.home, "LC_ALL=C")
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		g.t.Fatalf("gpg %q: %v\n%s(install gnupg if it is missing)", args, err, errs.String())
	}
	return out.Bytes()
}

// key makes a key and returns its public part. at is gpg's --faked-system-time, "" for now.
func (g *gnupg) key(uid, algo, usage, expire, at string, extra ...string) []byte {
	g.t.Helper()
	args := append([]string{}, extra...)
	if at != "" {
		args = append(args, "--faked-system-time", at)
	}
	g.run("", append(args, "--quick-gen-key", uid, algo, usage, expire)...)
	return g.export(uid)
}

func (g *gnupg) export(uid string) []byte {
	g.t.Helper()
	return g.run("", "--export", uid)
}

func (g *gnupg) clearsign(uid, text string, extra ...string) []byte {
	g.t.Helper()
	return g.run(text, append(extra, "-u", uid, "--clearsign")...)
}

func (g *gnupg) fingerprint(uid string) string {
	g.t.Helper()
	for line := range strings.Lines(string(g.run("", "--with-colons", "--list-keys", uid))) {
		if f := strings.Split(line, ":"); f[0] == "fpr" {
			return f[9]
		}
	}
	g.t.Fatalf("no fingerprint of %s", uid)
	return ""
}

// gpgv asks the reference verifier: its exit status 0, and the text it read.
func gpgv(t testing.TB, dir string, public, message []byte) (text []byte, ok bool) {
	t.Helper()
	ring, msg, out := filepath.Join(dir, "ring.gpg"), filepath.Join(dir, "message"), filepath.Join(dir, "text")
	writeFile(t, ring, public)
	writeFile(t, msg, message)
	os.Remove(out)
	cmd := exec.Command("gpgv", "--keyring", ring, "--output", out, msg)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "GNUPGHOME="+dir)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Run(); err != nil {
		if _, exited := err.(*exec.ExitError); !exited {
			t.Fatalf("gpgv: %v (install gpgv)", err)
		}
		return errs.Bytes(), false
	}
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return text, true
}

func writeFile(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func ring(t testing.TB, data ...[]byte) *Keyring {
	t.Helper()
	k, err := ReadKeyring(data...)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func isoBasic(at time.Time) string { return at.UTC().Format("20060102T150405") + "!" }

// TestVerifyMIME: detached signatures over a part with CR LF, in both modes that
// mail programs use, as gpg makes them; and nothing weaker.
func TestVerifyMIME(t *testing.T) {
	g := newGnupg(t)
	k, err := ReadKeyring(g.key("ann <ann@example.org>", "ed25519", "sign", "never", ""))
	if err != nil {
		t.Fatal(err)
	}
	const part = "Content-Type: text/plain\r\n\r\nretry \r\n\r\n"
	sign := func(args ...string) []byte {
		return g.run(part, append(args, "--armor", "--detach-sign")...)
	}
	now := time.Now()
	for _, mode := range [][]string{{"--textmode"}, {"--no-textmode"}, {"--digest-algo", "SHA256"}} {
		sig := sign(mode...)
		if s, err := k.VerifyMIME([]byte(part), sig, now); err != nil || len(s.Fingerprint) != 40 {
			t.Errorf("%v: %v", mode, err)
		}
		for what, bad := range map[string]string{"changed": strings.Replace(part, "retry", "fail", 1),
			"without its blank": strings.Replace(part, "y ", "y", 1), "longer": part + "x", "empty": ""} {
			if _, err := k.VerifyMIME([]byte(bad), sig, now); err == nil {
				t.Errorf("%v: %s: accepted", mode, what)
			}
		}
		if _, err := k.VerifyMIME([]byte(part), append(sig, sig...), now); err == nil {
			t.Errorf("%v: two signatures: accepted", mode)
		}
		if _, err := k.VerifyMIME([]byte(part), []byte("no signature"), now); err == nil {
			t.Errorf("%v: no signature: accepted", mode)
		}
	}
	if _, err := k.VerifyMIME([]byte(part), sign("--digest-algo", "SHA1"), now); err == nil ||
		err.(*Refusal).Kind != WeakHash {
		t.Errorf("SHA-1: got %v", err)
	}
	other, err := ReadKeyring(g.key("bob <bob@example.org>", "ed25519", "sign", "never", ""))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.VerifyMIME([]byte(part), sign("--local-user", "ann"), now); err == nil ||
		err.(*Refusal).Kind != UnknownKey {
		t.Errorf("another key: got %v", err)
	}
}

// TestAddresses: of the user IDs those count that the key has not revoked.
func TestAddresses(t *testing.T) {
	g := newGnupg(t)
	g.key("Ann <ann@example.org>", "ed25519", "sign", "never", "")
	g.run("", "--quick-add-uid", "ann@example.org", "Ann at work <ann@work.example.org>")
	g.run("", "--quick-add-uid", "ann@example.org", "a name alone")
	for _, want := range [][]string{{"ann@example.org", "ann@work.example.org"}, {"ann@example.org"}} {
		ring, err := ReadKeyring(g.export("ann@example.org"))
		if err != nil {
			t.Fatal(err)
		}
		// A revocation in the second of what it revokes bears the next one's time.
		if got := ring.Addresses(time.Now().Add(time.Minute)); !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		if len(want) == 2 {
			g.run("", "--quick-revoke-uid", "ann@example.org", "Ann at work <ann@work.example.org>")
		}
	}
}
