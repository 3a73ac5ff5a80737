package openpgp

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
	"pgregory.net/rapid"
)

// TestSignGpgv: gpgv 2.2 accepts what Clearsign makes and reads the same text,
// for random texts with dashes, blanks at line ends and no last newline.
func TestSignGpgv(t *testing.T) {
	t.Parallel()
	s, err := Generate("archive", "archive@example.org", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	public := s.Public()
	blocks, err := dearmor(public, "PGP PUBLIC KEY BLOCK")
	if err != nil {
		t.Fatal(err)
	}
	k := ring(t, public)
	pieces := []string{"-", "--", "- ", "-----BEGIN PGP SIGNATURE-----",
		"\n", "\n", "\n\n", " ", "\t", "a", "hello world", "From me", ".", "é", "\x0b", "\x85"}
	check := func(text string) {
		t.Helper()
		signed, err := s.Clearsign([]byte(text), time.Now())
		if err != nil {
			t.Fatalf("Clearsign(%q): %v", text, err)
		}
		got, _, err := k.VerifyClear(signed, time.Now())
		if err != nil {
			t.Fatalf("VerifyClear of %q: %v\n%s", text, err, signed)
		}
		if want := strings.ReplaceAll(string(signedBytes([]byte(text))), "\r\n", "\n") + "\n"; string(got) != want {
			t.Fatalf("text: got %q, want %q", got, want)
		}
		read, ok := gpgv(t, dir, blocks[0], signed)
		if !ok {
			t.Fatalf("gpgv refuses %q: %s", text, read)
		}
		if a, b := CanonicalHash(read), CanonicalHash(got); a != b {
			t.Fatalf("gpgv reads %q, we read %q", read, got)
		}
	}
	for _, text := range []string{"a", "a\n", "\n", "\n\n", "-\n", "- -", "a  \n \t\n",
		"-----BEGIN PGP SIGNED MESSAGE-----\n", " ", strings.Repeat("x", MaxLine-2) + "\n"} {
		check(text)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 60 {
		var b strings.Builder
		for range 1 + rng.IntN(20) {
			b.WriteString(pieces[rng.IntN(len(pieces))])
		}
		check(b.String())
	}
	for _, text := range []string{"", "a\x00b", "a\rb", "a\r\nb", strings.Repeat("x", MaxLine+1)} {
		if _, err := s.Clearsign([]byte(text), time.Now()); err == nil {
			t.Errorf("Clearsign(%.20q...) gave no error", text)
		}
	}
}

// TestSignRoundTrip: any text without NUL and CR comes back as it was, but for
// blanks at line ends.
func TestSignRoundTrip(t *testing.T) {
	s, err := Generate("archive", "archive@example.org", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	k := ring(t, s.Public())
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`[ -~\n\t]{1,300}`).Draw(t, "text")
		signed, err := s.Clearsign([]byte(text), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := k.VerifyClear(signed, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if CanonicalHash(got) != CanonicalHash([]byte(text)) {
			t.Fatalf("got %q, want %q", got, text)
		}
	})
}

// TestApt: a Release file that Clearsign and Detach signed is accepted by apt.
func TestApt(t *testing.T) {
	t.Parallel()
	s, err := Generate("archive", "archive@example.org", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	release := "Origin: test\nSuite: stable\nCodename: test\nDate: " + time.Now().UTC().Format(time.RFC1123) +
		"\nArchitectures: amd64\nComponents: main\nSHA256:\n" +
		" e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 0 main/binary-amd64/Packages\n"
	inRelease, err := s.Clearsign([]byte(release), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	detached, err := s.Detach([]byte(release), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ring(t, s.Public()).VerifyDetached(strings.NewReader(release), detached, time.Now()); err != nil {
		t.Errorf("VerifyDetached: %v", err)
	}
	if _, err := ring(t, s.Public()).VerifyDetached(strings.NewReader(release+"x"), detached, time.Now()); err == nil {
		t.Error("VerifyDetached accepts changed data")
	}
	for name, files := range map[string]map[string][]byte{
		"InRelease":   {"InRelease": inRelease},
		"Release.gpg": {"Release": []byte(release), "Release.gpg": detached},
	} {
		t.Run(name, func(t *testing.T) {
			dir, err := os.MkdirTemp("/tmp", "apt") // apt may drop to a user who cannot reach the test's directory
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			for _, d := range []string{"repo/dists/test/main/binary-amd64",
				"state/lists/partial", "cache/archives/partial", "etc/trusted.gpg.d", "etc/preferences.d", "etc/apt.conf.d"} {
				if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			put := func(name string, data []byte) {
				if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			for f, data := range files {
				put("repo/dists/test/"+f, data)
			}
			put("repo/dists/test/main/binary-amd64/Packages", nil)
			put("etc/key.asc", s.Public())
			put("etc/sources.list", []byte("deb [signed-by="+dir+"/etc/key.asc] file://"+dir+"/repo test main\n"))
			put("status", nil)
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("apt-get", "-o", "Dir::Etc="+dir+"/etc", "-o", "Dir::State="+dir+"/state", "-o",
				"Dir::State::status="+dir+"/status",
				"-o", "Dir::Cache="+dir+"/cache", "-o", "APT::Architecture=amd64", "-o", "APT::Architectures=amd64", "-o",
				"APT::Sandbox::User=root", "update")
			cmd.Env = append(os.Environ(), "LC_ALL=C")
			out, err := cmd.CombinedOutput()
			if err != nil || bytes.Contains(out, []byte("W:")) || bytes.Contains(out, []byte("E:")) {
				t.Errorf("apt-get update: %v\n%s", err, out)
			}
		})
	}
}

// TestGnupgReads: gpg 2.2 imports a generated secret key and signs with it, and a
// secret key of gpg's is read here.
func TestGnupgReads(t *testing.T) {
	t.Parallel()
	s, err := Generate("Packmill archive", "archive@example.org", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	g := newGnupg(t)
	g.run(string(s.Secret()), "--import")
	if got := g.fingerprint("archive@example.org"); got != s.Fingerprint() {
		t.Errorf("fingerprint: gpg says %s, we say %s", got, s.Fingerprint())
	}
	list := string(g.run("", "--with-colons", "--list-secret-keys", "archive@example.org"))
	if f := strings.Split(strings.SplitN(list, "\n", 2)[0], ":"); f[0] != "sec" || f[3] != "22" {
		t.Errorf("gpg lists %q, want a secret key of algorithm 22", list)
	}
	if _, _, err := ring(t, s.Public()).VerifyClear(g.clearsign("archive@example.org", sample), time.Now()); err != nil {
		t.Errorf("signed by gpg with our key: %v", err)
	}

	public := g.key("mine@example.org", "rsa2048", "sign", "never", "")
	path := filepath.Join(t.TempDir(), "key")
	for _, args := range [][]string{{"--export-secret-keys", "mine@example.org"},
		{"--armor", "--export-secret-keys", "mine@example.org"}} {
		writeFile(t, path, g.run("", args...))
		mine, err := ReadSigner(path)
		if err != nil {
			t.Fatal(err)
		}
		signed, err := mine.Clearsign([]byte(sample), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := gpgv(t, t.TempDir(), public, signed); !ok {
			t.Errorf("%v: gpgv refuses what gpg's key signed here", args)
		}
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadSigner(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that everybody can read: got %v, want an error that says chmod 600", err)
	}
	writeFile(t, path, public)
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadSigner(path); err == nil {
		t.Error("a public key was read as a signer")
	}
	locked, err := Generate("locked", "locked@example.org", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := locked.entity.EncryptPrivateKeys([]byte("secret"), nil); err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, locked.Secret())
	if _, err := ReadSigner(path); err == nil || !strings.Contains(err.Error(), "passphrase") {
		t.Errorf("a key with a passphrase: got %v, want an error that says so", err)
	}
	if _, err := ReadSigner(t.TempDir()); err == nil {
		t.Error("a directory was read as a signer")
	}
}

// A key that has expired or is revoked says so before it signs, when it is read
// and later; a key of which only one subkey has ended goes on.
func TestCheck(t *testing.T) {
	t.Parallel()
	made := time.Now().Add(-30 * 24 * time.Hour)
	lives := func(d time.Duration) *Signer {
		rules := strict(made)
		rules.Algorithm, rules.Curve, rules.KeyLifetimeSecs = packet.PubKeyAlgoEdDSA, packet.Curve25519, uint32(d/time.Second)
		e, err := openpgp.NewEntity("archive", "", "archive@example.org", rules)
		if err != nil {
			t.Fatal(err)
		}
		e.Subkeys = nil
		return &Signer{entity: e}
	}
	short := lives(24 * time.Hour)
	revoked := lives(0)
	if err := revoked.entity.Revoke(packet.KeyCompromised, "", strict(made.Add(time.Hour))); err != nil {
		t.Fatal(err)
	}
	sub := lives(0)
	rules := strict(made)
	rules.Algorithm, rules.Curve = packet.PubKeyAlgoEdDSA, packet.Curve25519
	if err := sub.entity.AddSigningSubkey(rules); err != nil {
		t.Fatal(err)
	}
	if err := sub.entity.Subkeys[0].Revoke(packet.KeySuperseded, "", strict(made.Add(time.Hour))); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what string
		key  *Signer
		at   time.Time
		want Kind
	}{
		{"short, young", short, made.Add(time.Hour), ""},
		{"short, old", short, made.Add(48 * time.Hour), Expired},
		{"short, young again", short, made.Add(time.Hour), ""},
		{"for ever", lives(0), time.Now(), ""},
		{"revoked", revoked, time.Now(), Revoked},
		{"with a revoked subkey", sub, time.Now(), ""},
	} {
		var r *Refusal
		err := c.key.Check(c.at)
		_, signing := c.key.Detach([]byte("x"), c.at)
		if errors.As(err, &r); err != nil && r == nil || r != nil && r.Kind != c.want || r == nil && c.want != "" ||
			(signing == nil) != (c.want == "") {
			t.Errorf("%s: got %v, and signing gives %v; want %q", c.what, err, signing, c.want)
		}
	}
	ring, err := ReadKeyring(short.Public(), revoked.Public(), sub.Public())
	if err != nil {
		t.Fatal(err)
	}
	later := made.Add(48 * time.Hour)
	for at, want := range map[time.Time]map[*Signer]time.Time{
		made.Add(2 * time.Hour): {short: made.Add(24 * time.Hour), revoked: made.Add(2 * time.Hour), sub: {}},
		later:                   {short: later, revoked: later, sub: {}},
	} {
		got := ring.Ends(at)
		for key, end := range want {
			if fpr := key.Fingerprint(); got[fpr].Sub(end).Abs() >= time.Second {
				t.Errorf("%s at %s: it ends at %s, want %s", fpr, at, got[fpr], end)
			}
		}
	}
	for what, key := range map[Kind]*Signer{Expired: short, Revoked: revoked} {
		var r *Refusal
		if _, err := parseSigner(key.Secret()); !errors.As(err, &r) || r.Kind != what ||
			!strings.Contains(err.Error(), key.Fingerprint()) {
			t.Errorf("a file with a key that is %s: got %v", what, err)
		}
	}
}
