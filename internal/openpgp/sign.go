package openpgp

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"crypto"
	"encoding/hex"

	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
	"golang.org/x/sys/unix"
)

// Signer is a secret key that signs without asking anybody. It may be used by
// several goroutines at once.
type Signer struct {
	mu     sync.Mutex // the library caches on the entity
	entity *openpgp.Entity
	agent  string // fingerprint, if gpg signs
}

// Generate makes a new signing key without expiry: EdDSA on Curve25519 as
// version 4, algorithm 22, which GnuPG 2.2, gpgv and apt read (they do not read 27 or version 6).
// Neither name nor email may hold any of "()<>" or a NUL.
func Generate(name, email string, now time.Time) (*Signer, error) {
	rules := strict(now)
	rules.Algorithm = packet.PubKeyAlgoEdDSA
	rules.Curve = packet.Curve25519
	rules.DefaultHash = crypto.SHA512
	e, err := openpgp.NewEntity(name, "", email, rules)
	if err != nil {
		return nil, fmt.Errorf("generate key %q: %w", name, err)
	}
	e.Subkeys = nil // nobody writes to an archive in secret
	return &Signer{entity: e}, nil
}

// ReadSigner reads a secret key without passphrase from a file, armored or binary.
// The file must be a regular one that neither others can read nor the group can
// write. The first key of the file is used.
func ReadSigner(path string) (*Signer, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("read signing key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read signing key: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("read signing key %s: not a regular file", path)
	}
	if perm := info.Mode().Perm(); perm&0o027 != 0 {
		return nil, fmt.Errorf("read signing key %s: mode %04o lets others at it; run chmod 600 (or 640) on it", path, perm)
	}
	data, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("read signing key %s: %w", path, err)
	}
	s, err := parseSigner(data)
	if err != nil {
		return nil, fmt.Errorf("read signing key %s: %w", path, err)
	}
	return s, nil
}

// parseSigner is ReadSigner for bytes that the caller already has.
func parseSigner(data []byte) (*Signer, error) {
	blocks, err := dearmor(data, "PGP PRIVATE KEY BLOCK")
	if err != nil {
		return nil, err
	}
	if len(blocks) == 0 {
		return nil, errors.New("the file is empty")
	}
	e, err := openpgp.ReadEntity(packet.NewReader(bytes.NewReader(blocks[0])))
	if err != nil {
		return nil, err
	}
	if e.PrivateKey == nil {
		return nil, errors.New("it holds no secret key; export it with gpg --export-secret-keys")
	}
	s := &Signer{entity: e}
	// Better now, with a name, than at the first publication.
	if _, err := s.Detach([]byte("test"), time.Now()); err != nil {
		return nil, err
	}
	return s, nil
}

// Fingerprint is that of the primary key, in upper hex.
func (s *Signer) Fingerprint() string {
	return strings.ToUpper(hex.EncodeToString(s.entity.PrimaryKey.Fingerprint))
}

// Expires is when the key stops to make signatures that count: the primary key or
// the subkey that signs. It is zero if that never is, or was before now.
func (s *Signer) Expires(now time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	end, _ := endOf(s.entity, now)
	return end
}

// endOf is when the key of an entity that signs stops to make signatures that count,
// zero if that never is; ok is false if it makes none now.
func endOf(e *openpgp.Entity, now time.Time) (first time.Time, ok bool) {
	key, ok := e.SigningKey(now, strict(now))
	if !ok {
		return time.Time{}, false
	}
	look := func(made time.Time, sig *packet.Signature) {
		if sig == nil || sig.KeyLifetimeSecs == nil || *sig.KeyLifetimeSecs == 0 {
			return
		}
		if end := made.Add(time.Duration(*sig.KeyLifetimeSecs) * time.Second); first.IsZero() || end.Before(first) {
			first = end
		}
	}
	look(key.PublicKey.CreationTime, key.SelfSignature)
	look(e.PrimaryKey.CreationTime, key.PrimarySelfSignature)
	return first.UTC(), true
}

// Check returns nil if a signature that the key makes at that time counts, and
// otherwise why not: a *Refusal if the key has expired or is revoked. Of a key that
// gpg-agent holds it knows what gpg told when it was opened.
func (s *Signer) Check(now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.check(now)
}

func (s *Signer) check(now time.Time) error {
	rules := strict(now)
	if _, ok := s.entity.SigningKey(now, rules); ok {
		return nil
	}
	id := s.Fingerprint()
	_, err := s.entity.VerifyPrimaryKey(now, rules)
	for i := range s.entity.Subkeys {
		if sub := &s.entity.Subkeys[i]; err == nil && sub.PublicKey.PubKeyAlgo.CanSign() {
			_, err = sub.Verify(now, rules)
		}
	}
	switch {
	case s.entity.Revoked(now), errors.Is(err, pgperrors.ErrKeyRevoked):
		return refuse(Revoked, id, "the key %s is revoked", id)
	case errors.Is(err, pgperrors.ErrKeyExpired):
		return refuse(Expired, id, "the key %s has expired", id)
	}
	return fmt.Errorf("the key %s makes no signatures that count; gpg --show-keys says what it may do, and when", id)
}

// sign returns one signature packet and the hash it used.
func (s *Signer) sign(data []byte, text bool, hash crypto.Hash, now time.Time) ([]byte, crypto.Hash, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.agent != "" {
		return s.byAgent(data, text)
	}
	for _, key := range s.secrets() {
		if key.Encrypted {
			return nil, 0, errors.New("sign: the secret key has a passphrase; remove it (gpg --change-passphrase), " +
				"for no person is there to type it")
		}
	}
	if err := s.check(now); err != nil {
		return nil, 0, err
	}
	rules := strict(now)
	rules.DefaultHash = hash
	var buf bytes.Buffer
	err := openpgp.DetachSignWithParams(&buf, []*openpgp.Entity{s.entity}, bytes.NewReader(data),
		&openpgp.SignParams{TextSig: text, Config: rules})
	if err != nil {
		return nil, 0, fmt.Errorf("sign: %w", err)
	}
	sig, refusal := onlySignature(buf.Bytes())
	if refusal != nil {
		return nil, 0, fmt.Errorf("sign: %w", refusal)
	}
	return buf.Bytes(), sig.Hash, nil
}

func (s *Signer) secrets() []*packet.PrivateKey {
	var out []*packet.PrivateKey
	if s.entity.PrivateKey != nil && !s.entity.PrivateKey.Dummy() {
		out = append(out, s.entity.PrivateKey)
	}
	for _, sub := range s.entity.Subkeys {
		if sub.PrivateKey != nil && !sub.PrivateKey.Dummy() && sub.PublicKey.PubKeyAlgo.CanSign() {
			out = append(out, sub.PrivateKey)
		}
	}
	return out
}

// Clearsign signs text in the cleartext form, which VerifyClear, gpgv 2.2 and apt
// accept. The lines stand in the result as they are (dashes escaped); blanks at
// their ends are not covered by the signature. Text with NUL, carriage
// return, lines over MaxLine bytes or nothing in it is an error: readers differ about it.
func (s *Signer) Clearsign(text []byte, now time.Time) ([]byte, error) {
	return Clearsign(text, now, s)
}

// Clearsign is the method for several keys at once: one message with a
// signature by each, as a file that must please old clients and new ones has it
// while keys change.
func Clearsign(text []byte, now time.Time, signers ...*Signer) ([]byte, error) {
	if len(text) == 0 {
		return nil, errors.New("clearsign: the text is empty")
	}
	if bytes.IndexByte(text, 0) >= 0 || bytes.IndexByte(text, '\r') >= 0 {
		return nil, errors.New("clearsign: the text holds a NUL or a carriage return")
	}
	sigs, hash, err := signAll(signedBytes(text), true, crypto.SHA512, now, signers)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	out.Grow(len(text) + 1024)
	fmt.Fprintf(&out, "%s\nHash: %s\n\n", beginText, strings.Join(hash, ", "))
	for rest := bytes.TrimSuffix(text, []byte("\n")); ; {
		line, tail, more := bytes.Cut(rest, []byte("\n"))
		if len(line) > MaxLine {
			return nil, fmt.Errorf("clearsign: a line is longer than %d bytes", MaxLine)
		}
		if bytes.HasPrefix(line, []byte("-")) {
			out.WriteString("- ")
		}
		out.Write(line)
		out.WriteByte('\n')
		if !more {
			break
		}
		rest = tail
	}
	out.Write(armored("PGP SIGNATURE", sigs))
	return out.Bytes(), nil
}

// Detach makes a binary signature over data, armored: what Release.gpg is.
func (s *Signer) Detach(data []byte, now time.Time) ([]byte, error) {
	return Detach(data, now, s)
}

// Detach is the method for several keys at once.
func Detach(data []byte, now time.Time, signers ...*Signer) ([]byte, error) {
	return detach(data, crypto.SHA512, now, signers)
}

// DetachLarge is Detach for many megabytes: it takes SHA-256, for which processors
// have instructions, so that 45 MB take a third of the time. An agent's key takes
// what its gpg says.
func DetachLarge(data []byte, now time.Time, signers ...*Signer) ([]byte, error) {
	return detach(data, crypto.SHA256, now, signers)
}

func detach(data []byte, hash crypto.Hash, now time.Time, signers []*Signer) ([]byte, error) {
	sigs, _, err := signAll(data, false, hash, now, signers)
	if err != nil {
		return nil, err
	}
	return armored("PGP SIGNATURE", sigs), nil
}

// signAll returns a signature packet by each signer, and the names of the
// hashes that they used.
func signAll(
	data []byte, text bool, hash crypto.Hash, now time.Time, signers []*Signer,
) (packets []byte, hashes []string, err error) {
	if len(signers) == 0 {
		return nil, nil, errors.New("sign: no key")
	}
	for _, s := range signers {
		p, used, err := s.sign(data, text, hash, now)
		if err != nil {
			return nil, nil, err
		}
		packets = append(packets, p...)
		if name := hashNames[used]; !slices.Contains(hashes, name) {
			hashes = append(hashes, name)
		}
	}
	return packets, hashes, nil
}

// Public is the armored public key.
func (s *Signer) Public() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	var buf bytes.Buffer
	if err := s.entity.Serialize(&buf); err != nil {
		return nil // a bytes.Buffer takes everything, and the entity was read or made whole
	}
	return armored("PGP PUBLIC KEY BLOCK", buf.Bytes())
}

// Secret is the armored secret key, not protected by a passphrase: gpg --import
// and ReadSigner take it.
func (s *Signer) Secret() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	var buf bytes.Buffer
	if err := s.entity.SerializePrivateWithoutSigning(&buf, nil); err != nil {
		return nil
	}
	return armored("PGP PRIVATE KEY BLOCK", buf.Bytes())
}

// armored frames packets with the checksum, without which gpgv 2.2 refuses them.
func armored(kind string, data []byte) []byte {
	var out bytes.Buffer
	fmt.Fprintf(&out, "-----BEGIN %s-----\n\n", kind)
	text := base64.StdEncoding.EncodeToString(data)
	for len(text) > 0 {
		n := min(64, len(text))
		out.WriteString(text[:n])
		out.WriteByte('\n')
		text = text[n:]
	}
	crc := crc24(data)
	fmt.Fprintf(&out, "=%s\n-----END %s-----\n",
		base64.StdEncoding.EncodeToString([]byte{byte(crc >> 16), byte(crc >> 8), byte(crc)}), kind)
	return out.Bytes()
}

// Issuers returns the fingerprints, in upper hex, that the signatures in an armored file
// claim to be by. Nothing is verified. A signature by a subkey gives the subkey's.
func Issuers(armored []byte) ([]string, error) {
	blocks, err := dearmor(armored, "PGP SIGNATURE")
	if err != nil {
		return nil, err
	}
	var out []string
	for _, b := range blocks {
		packets := packet.NewReader(bytes.NewReader(b))
		for {
			p, err := packets.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, err
			}
			if sig, ok := p.(*packet.Signature); ok {
				out = append(out, strings.ToUpper(hex.EncodeToString(sig.IssuerFingerprint)))
			}
		}
	}
	return out, nil
}
