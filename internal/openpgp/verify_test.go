package openpgp

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

const sample = "Format: 1.8\nSource: hello\n- dashed\n--- more\nFrom here\ntrailing  \t\n\nend"

// sampleText is what a reader gets back.
const sampleText = "Format: 1.8\nSource: hello\n- dashed\n--- more\nFrom here\ntrailing\n\nend\n"

// TestHostile holds every row of the table of cases that other verifiers let through.
func TestHostile(t *testing.T) {
	t.Parallel()
	g := newGnupg(t)
	now := time.Now()
	month := now.AddDate(0, -1, 0)

	good := g.key("good@example.org", "ed25519", "sign", "never", "")
	goodFpr := g.fingerprint("good@example.org")
	other := g.key("other@example.org", "ed25519", "sign", "never", "")
	msg := g.clearsign("good@example.org", sample, "--digest-algo", "SHA512")
	msg2 := g.clearsign("good@example.org", "Source: second\n")

	type row struct {
		name string
		keys []byte
		data []byte
		kind Kind
		text string // pattern
	}
	rows := []row{
		{"unknown key", other, msg, UnknownKey, `key ` + goodFpr + `, which is not known here`},
		{"not signed", good, []byte("Format: 1.8\n"), Unsigned, `debsign`},
		{"empty", good, nil, Unsigned, `no OpenPGP signature`},
		{"text before", good, append([]byte("Source: evil\n\n"), msg...), BadForm, `text before the signed part`},
		{"newline before", good, append([]byte("\n"), msg...), BadForm, `text before the signed part`},
		{"text after", good, append(bytes.Clone(msg), "Source: evil\n"...), BadForm, `text after the signature`},
		{"two newlines after", good, append(bytes.Clone(msg), '\n', '\n'), BadForm, `text after the signature`},
		{"two messages", good, append(bytes.Clone(msg), msg2...), BadForm, `text after the signature`},
		{"NUL", good, bytes.Replace(msg, []byte("hello"), []byte("hel\x00o"), 1), BadForm, `NUL`},
		{"bare CR", good, bytes.Replace(msg, []byte("hello"), []byte("hel\ro"), 1), BadForm, `carriage return`},
		{"CRLF", good, bytes.ReplaceAll(msg, []byte("\n"), []byte("\r\n")), BadForm, `carriage return`},
		{"tampered", good, bytes.Replace(msg, []byte("hello"), []byte("hallo"), 1), Tampered, `does not fit`},
		{"tampered blank line", good, bytes.Replace(msg, []byte("\n\nend"), []byte("\nend"), 1), Tampered, `does not fit`},
		{"begin line with more", good, bytes.Replace(msg, []byte("MESSAGE-----"), []byte("MESSAGE----- "), 1), BadForm, `line 1`},
		{"unknown header", good, bytes.Replace(msg, []byte("Hash:"), []byte("Hush:"), 1), BadForm, `line 2 is not a Hash header`},
		{"header twice", good, bytes.Replace(msg, []byte("Hash: SHA512\n"), []byte("Hash: SHA512\nHash: SHA512\n"), 1), BadForm, `line 3 is not empty`},
		{"text in headers", good, bytes.Replace(msg, []byte("Hash: SHA512\n"), []byte("Hash: SHA512\nSource: evil\n"), 1), BadForm, `line 3 is not empty`},
		{"several hashes", good, bytes.Replace(msg, []byte("SHA512"), []byte("SHA256,SHA512"), 1), BadForm, `exactly one`},
		{"other hash", good, bytes.Replace(msg, []byte("SHA512"), []byte("SHA256"), 1), BadForm, `says SHA256, but the signature uses SHA512`},
		{"weak hash header", good, bytes.Replace(msg, []byte("SHA512"), []byte("SHA1"), 1), WeakHash, `SHA1`},
		{"blanks for the empty line", good, bytes.Replace(msg, []byte("SHA512\n\n"), []byte("SHA512\n  \n"), 1), BadForm, `line 3`},
		{"dash not escaped", good, bytes.Replace(msg, []byte("- --- more"), []byte("--- more"), 1), BadForm, `dash that is not escaped`},
		{"cut off in the text", good, msg[:60], BadForm, `before the signature begins`},
		{"cut off in the signature", good, msg[:len(msg)-60], BadForm, `cut off`},
		{"cut off before the headers' end", good, msg[:40], BadForm, `line 2|Hash`},
		{"no text", good, []byte(beginText + "\nHash: SHA512\n\n" + string(msg[bytes.Index(msg, []byte(beginSig)):])), BadForm, `empty`},
		{"armor header", good, bytes.Replace(msg, []byte(beginSig+"\n"), []byte(beginSig+"\nSource: evil\n"), 1), BadForm, `no Version or Comment`},
		{"escape in armor header", good, bytes.Replace(msg, []byte(beginSig+"\n"), []byte(beginSig+"\nComment: \x1b[2J\n"), 1), BadForm, `no Version or Comment`},
		{"wrong checksum", good, regexp.MustCompile(`\n=....\n`).ReplaceAll(msg, []byte("\n=AAAA\n")), BadForm, `checksum`},
		{"base64", good, bytes.Replace(msg, []byte(beginSig+"\n\n"), []byte(beginSig+"\n\n*"), 1), BadForm, `base64`},
		{"line too long", good, bytes.Replace(msg, []byte("hello"), bytes.Repeat([]byte("x"), MaxLine+1), 1), BadForm, `longer than`},
	}
	add := func(name string, keys, data []byte, kind Kind, text string) {
		rows = append(rows, row{name, keys, data, kind, text})
	}

	// Digests.
	add("SHA-1 digest", good, g.clearsign("good@example.org", sample, "--digest-algo", "SHA1"), WeakHash, `SHA1`)
	add("SHA-224 digest", good, g.clearsign("good@example.org", sample, "--digest-algo", "SHA224"), WeakHash, `SHA224`)
	lied := bytes.Replace(g.clearsign("good@example.org", sample, "--digest-algo", "SHA1"), []byte("Hash: SHA1\n"),
		[]byte("Hash: SHA512\n"), 1)
	add("SHA-1 digest, strong header", good, lied, WeakHash, `SHA-1`)
	sha1self := g.key("sha1self@example.org", "ed25519", "sign", "never", "", "--cert-digest-algo", "SHA1")
	add("SHA-1 self-signature", sha1self, g.clearsign("sha1self@example.org", sample), WeakHash, `bound only by a SHA-1`)

	// Keys.
	add("RSA-1024", g.key("rsa1024@example.org", "rsa1024", "sign", "never", ""), g.clearsign("rsa1024@example.org", sample), WeakKey, `RSA key of 1024 bits`)
	add("DSA-2048", g.key("dsa@example.org", "dsa2048", "sign", "never", ""), g.clearsign("dsa@example.org", sample), WeakKey, `DSA`)

	// Expired key, backdated signature: valid when it was made, not now.
	g.key("expired@example.org", "ed25519", "sign", "1d", isoBasic(month))
	expired := g.export("expired@example.org")
	add("expired key, backdated signature", expired, g.clearsign("expired@example.org", sample, "--faked-system-time", isoBasic(month.Add(time.Hour))), Expired, `has expired; extend`)

	// Revoked as superseded, signature from before; and as compromised.
	for _, why := range []struct {
		name   string
		reason packet.ReasonForRevocation
	}{{"superseded", packet.KeySuperseded}, {"compromised", packet.KeyCompromised}, {"retired", packet.KeyRetired}} {
		s, err := Generate("revoked", "revoked@example.org", month)
		if err != nil {
			t.Fatal(err)
		}
		signed, err := s.Clearsign([]byte(sample), month.Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := ring(t, s.Public()).VerifyClear(signed, now); err != nil {
			t.Fatalf("before the revocation: %v", err)
		}
		before := s.Public()
		if err := s.entity.Revoke(why.reason, "", strict(now.Add(-time.Hour))); err != nil {
			t.Fatal(err)
		}
		add("revoked as "+why.name, s.Public(), signed, Revoked, `is revoked`)
		add("revoked as "+why.name+", in the second copy of the key", append(before, s.Public()...), signed, Revoked, `is revoked`)
	}

	// Future.
	add("future-dated", good, g.clearsign("good@example.org", sample, "--faked-system-time", isoBasic(now.Add(48*time.Hour))), Future, `in the future`)

	// A signature that has run out.
	add("expired signature", g.key("old@example.org", "ed25519", "sign", "never", isoBasic(month)),
		g.clearsign("old@example.org", sample, "--faked-system-time", isoBasic(month.Add(time.Hour)), "--default-sig-expire", "1d"), Expired, `signature has expired`)

	// A binary signature inside the cleartext framing.
	s, err := Generate("binary", "binary@example.org", month)
	if err != nil {
		t.Fatal(err)
	}
	text := []byte("Source: x")
	det, err := s.Detach(text, now)
	if err != nil {
		t.Fatal(err)
	}
	frame := func(sig []byte) []byte {
		return fmt.Appendf(nil, "%s\nHash: SHA512\n\n%s\n%s", beginText, text, sig)
	}
	add("binary signature", s.Public(), frame(det), BadForm, `type 0x00`)

	// Two signatures in one block: the same key twice, and an unknown one first.
	raw, _, err := s.sign(text, true, crypto.SHA512, now)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := ring(t, s.Public()).VerifyClear(frame(armored("PGP SIGNATURE", raw)), now); err != nil {
		t.Fatalf("the frame is wrong: %v", err)
	}
	add("two signatures", s.Public(), frame(armored("PGP SIGNATURE", append(bytes.Clone(raw), raw...))), BadForm, `more than one signature`)
	var literal bytes.Buffer
	w, err := packet.SerializeLiteral(nopCloser{&literal}, true, "x", 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(w, "Source: evil")
	w.Close()
	add("literal packet", s.Public(), frame(armored("PGP SIGNATURE", literal.Bytes())), BadForm, `something else`)
	add("garbage packet", s.Public(), frame(armored("PGP SIGNATURE", []byte("garbage"))), BadForm, `cannot be read`)

	// Subkeys: revoked, expired, not for signing.
	sub := func(change func(e *openpgp.Entity), at time.Time) (*Signer, []byte) {
		s, err := Generate("sub", "sub@example.org", month)
		if err != nil {
			t.Fatal(err)
		}
		rules := strict(month)
		rules.Algorithm, rules.Curve = packet.PubKeyAlgoEdDSA, packet.Curve25519
		if err := s.entity.AddSigningSubkey(rules); err != nil {
			t.Fatal(err)
		}
		signed, err := s.Clearsign([]byte(sample), at)
		if err != nil {
			t.Fatal(err)
		}
		_, sig, err := ring(t, s.Public()).VerifyClear(signed, at)
		if err != nil {
			t.Fatal(err)
		}
		if sig.Subkey == sig.Fingerprint || sig.Fingerprint != s.Fingerprint() {
			t.Fatalf("signature by a subkey: got %+v", sig)
		}
		change(s.entity)
		return s, signed
	}
	s, signed := sub(func(e *openpgp.Entity) {
		if err := e.Subkeys[0].Revoke(packet.KeySuperseded, "", strict(now.Add(-time.Hour))); err != nil {
			t.Fatal(err)
		}
	}, month.Add(time.Hour))
	add("revoked subkey", s.Public(), signed, Revoked, `subkey .* is revoked`)

	certOnly := g.key("cert@example.org", "ed25519", "cert", "never", isoBasic(month))
	g.run("", "--quick-add-key", g.fingerprint("cert@example.org"), "ed25519", "sign", "never")
	withSub := g.export("cert@example.org")
	signed = g.clearsign("cert@example.org", sample)
	add("signing subkey is not in the keyring", certOnly, signed, UnknownKey, `not known here`)
	if _, _, err := ring(t, certOnly, withSub).VerifyClear(signed, now); err != nil {
		t.Errorf("merged copies of one key: %v", err)
	}

	seen := map[string]bool{}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			if seen[r.name] {
				t.Fatal("two rows of one name")
			}
			seen[r.name] = true
			if bytes.Equal(r.data, msg) && r.kind != UnknownKey {
				t.Fatal("the row changes nothing")
			}
			text, sig, err := ring(t, r.keys).VerifyClear(r.data, now)
			var refusal *Refusal
			if !errors.As(err, &refusal) {
				t.Fatalf("got %q, %+v, %v, want a refusal of kind %s", text, sig, err, r.kind)
			}
			if text != nil || sig != nil {
				t.Errorf("a refused message gave text %q and signature %+v", text, sig)
			}
			if refusal.Kind != r.kind || !regexp.MustCompile(r.text).MatchString(refusal.Text) {
				t.Errorf("got %s: %s\nwant %s: %s", refusal.Kind, refusal.Text, r.kind, r.text)
			}
			for _, c := range refusal.Text {
				if c < 0x20 || c > 0x7e {
					t.Errorf("text holds %q: %q", c, refusal.Text)
				}
			}
		})
	}
}

type nopCloser struct{ *bytes.Buffer }

func (nopCloser) Close() error { return nil }

// TestGood: what gpg signs is read, byte for byte what gpgv reads.
func TestGood(t *testing.T) {
	t.Parallel()
	g := newGnupg(t)
	keys := map[string][]byte{
		"ed25519": g.key("a@example.org", "ed25519", "sign", "never", ""),
		"rsa2048": g.key("b@example.org", "rsa2048", "sign", "never", ""),
		"p256":    g.key("c@example.org", "nistp256", "sign", "never", ""),
		"default": g.key("d@example.org", "ed25519", "default", "1y", ""),
	}
	uid := map[string]string{"ed25519": "a@example.org", "rsa2048": "b@example.org", "p256": "c@example.org",
		"default": "d@example.org"}
	for name, public := range keys {
		for _, digest := range []string{"SHA256", "SHA384", "SHA512"} {
			for _, extra := range [][]string{{}, {"--comment", "made by a test", "--emit-version"}} {
				data := g.clearsign(uid[name], sample, append(extra, "--digest-algo", digest)...)
				if len(extra) > 0 {
					data = append(data, '\n') // as an editor leaves it
				}
				text, sig, err := ring(t, public).VerifyClear(data, time.Now())
				if err != nil {
					t.Errorf("%s %s %v: %v", name, digest, extra, err)
					continue
				}
				if string(text) != sampleText {
					t.Errorf("%s %s: got %q, want %q", name, digest, text, sampleText)
				}
				if sig.Fingerprint != g.fingerprint(uid[name]) || sig.UserID != uid[name] || time.Since(sig.Created) > time.Minute {
					t.Errorf("%s: got %+v", name, sig)
				}
			}
		}
	}
	// A clock that is two minutes behind the signer's.
	if _, _, err := ring(t, keys["ed25519"]).VerifyClear(g.clearsign("a@example.org", sample),
		time.Now().Add(-2*time.Minute)); err != nil {
		t.Errorf("signer's clock ahead by two minutes: %v", err)
	}
	// Keyrings: armored, several blocks in one file, copies.
	armoredKeys := append(g.run("", "--armor", "--export", "a@example.org"),
		g.run("", "--armor", "--export", "b@example.org")...)
	k := ring(t, armoredKeys, keys["ed25519"], keys["p256"])
	if n := len(k.Fingerprints()); n != 3 {
		t.Errorf("got %d keys, want 3: %v", n, k.Fingerprints())
	}
	only, missing := k.Only(strings.ToLower(g.fingerprint("a@example.org")), "DEADBEEF")
	if len(only.Fingerprints()) != 1 || len(missing) != 1 {
		t.Errorf("Only: got %v, missing %v", only.Fingerprints(), missing)
	}
	if _, _, err := only.VerifyClear(g.clearsign("b@example.org", sample), time.Now()); err == nil {
		t.Error("a key that was left out still verifies")
	}
	if _, err := ReadKeyring(g.run("", "--export-secret-keys", "a@example.org")); err == nil {
		t.Error("a secret key was taken as a keyring")
	}
	if _, err := ReadKeyring([]byte("hello")); err == nil {
		t.Error("text was taken as a keyring")
	}
}

// TestSkipped: one key that cannot be read does not keep the others out.
func TestSkipped(t *testing.T) {
	s, err := Generate("good", "good@example.org", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	blocks, err := dearmor(s.Public(), "PGP PUBLIC KEY BLOCK")
	if err != nil {
		t.Fatal(err)
	}
	write := func(packets ...packet.OpaquePacket) []byte {
		var buf bytes.Buffer
		for _, p := range packets {
			if err := p.Serialize(&buf); err != nil {
				t.Fatal(err)
			}
		}
		return buf.Bytes()
	}
	old := write(packet.OpaquePacket{Tag: tagPublicKey, Contents: []byte{3, 0, 0, 0, 0, 0, 0, 1}},
		packet.OpaquePacket{Tag: tagUserID, Contents: []byte("Old <old@example.org>")},
		packet.OpaquePacket{Tag: tagSignature, Contents: []byte{3, 5}})
	other, err := Generate("other", "other@example.org", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	var noUser bytes.Buffer
	if err := other.entity.PrimaryKey.Serialize(&noUser); err != nil {
		t.Fatal(err)
	}
	k := ring(t, append(old, blocks[0]...), noUser.Bytes())
	if got := k.Fingerprints(); len(got) != 1 || got[0] != s.Fingerprint() {
		t.Errorf("got %q, want the good key", got)
	}
	if len(k.Skipped()) != 2 {
		t.Errorf("skipped: got %v, want two", k.Skipped())
	}
	if _, err := ReadKeyring(write(packet.OpaquePacket{Tag: tagUserID, Contents: []byte("x")})); err == nil {
		t.Error("a user ID without a key was taken")
	}
}

// TestAgain: nothing that one verification learns about a key, at its time,
// changes the next; and many at once are fine (the race detector looks).
func TestAgain(t *testing.T) {
	made := time.Now().AddDate(0, 0, -10)
	s, err := Generate("twice", "twice@example.org", made)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := s.Clearsign([]byte(sample), made.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	k := ring(t, s.Public())
	if _, _, err := k.VerifyClear(signed, made.AddDate(0, 0, -1)); err == nil {
		t.Error("verified before the key was made")
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				if _, _, err := k.VerifyClear(signed, time.Now()); err != nil {
					t.Error(err)
				}
				if _, err := s.Clearsign([]byte(sample), time.Now()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func TestCanonicalHash(t *testing.T) {
	want := CanonicalHash([]byte("a\nb\n"))
	for _, same := range []string{"a\nb", "a \nb\t\n", "a\r\nb\r\n", "a\nb\n\n"} {
		if got := CanonicalHash([]byte(same)); got != want {
			t.Errorf("CanonicalHash(%q) = %s, want %s", same, got, want)
		}
	}
	for _, differs := range []string{"a\n\nb\n", "a\nb\nc\n", " a\nb\n", "ab\n"} {
		if CanonicalHash([]byte(differs)) == want {
			t.Errorf("CanonicalHash(%q) is that of another text", differs)
		}
	}
}

func BenchmarkVerifyClear(b *testing.B) {
	s, err := Generate("bench", "bench@example.org", time.Now())
	if err != nil {
		b.Fatal(err)
	}
	signed, err := s.Clearsign(bytes.Repeat([]byte(sample), 20), time.Now())
	if err != nil {
		b.Fatal(err)
	}
	k := ring(b, s.Public())
	for b.Loop() {
		if _, _, err := k.VerifyClear(signed, time.Now()); err != nil {
			b.Fatal(err)
		}
	}
}
