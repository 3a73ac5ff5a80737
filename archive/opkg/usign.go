package opkg

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
)

// A Key signs feeds in the form of usign and signify: what OpenWrt's opkg
// verifies. The files are signify's: a comment line and a line of base64. A
// secret key is stored without a passphrase.
type Key struct {
	number [8]byte
	secret ed25519.PrivateKey
}

const comment = "untrusted comment: "

// GenerateKey makes a new key. Its number is taken from the key itself.
func GenerateKey() (*Key, error) {
	pub, secret, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	k := &Key{secret: secret}
	sum := sha256.Sum256(pub)
	copy(k.number[:], sum[:])
	return k, nil
}

// ReadKey reads a secret key file.
func ReadKey(path string) (*Key, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	k, err := parseKey(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return k, nil
}

// parseKey reads a secret key as signify -G -n and usign -G write it: "Ed", "BK",
// rounds (0: no passphrase), salt, the first 8 bytes of the key's SHA-512, the
// key's number, the key.
func parseKey(data []byte) (*Key, error) {
	raw, err := decode(data, 104)
	if err != nil {
		return nil, err
	}
	if string(raw[2:4]) != "BK" {
		return nil, errors.New("secret key of an unknown kind; make one with signify -G -n")
	}
	if !bytes.Equal(raw[4:8], make([]byte, 4)) {
		return nil, errors.New("the secret key has a passphrase, which nobody is there to type; make one with signify -G -n")
	}
	k := &Key{secret: ed25519.PrivateKey(bytes.Clone(raw[40:]))}
	copy(k.number[:], raw[32:40])
	if sum := sha512.Sum512(k.secret); !bytes.Equal(raw[24:32], sum[:8]) {
		return nil, errors.New("the secret key is damaged: its checksum differs; take it from a backup")
	}
	if want := ed25519.NewKeyFromSeed(k.secret.Seed()); !want.Equal(k.secret) {
		return nil, errors.New("the secret key is damaged: its halves do not belong together; take it from a backup")
	}
	return k, nil
}

// Secret is the secret key's file; it must be readable for its owner only.
func (k *Key) Secret() []byte {
	raw := append([]byte("EdBK"), make([]byte, 4+16)...)
	sum := sha512.Sum512(k.secret)
	raw = append(append(append(raw, sum[:8]...), k.number[:]...), k.secret...)
	return encode("packmill secret key "+k.Fingerprint(), raw)
}

// Public is the public key's file, to be given to clients: OpenWrt's opkg
// looks for it as /etc/opkg/keys/FINGERPRINT.
func (k *Key) Public() []byte {
	raw := append(append([]byte("Ed"), k.number[:]...), k.public()...)
	return encode("packmill public key "+k.Fingerprint(), raw)
}

func (k *Key) public() ed25519.PublicKey { return k.secret.Public().(ed25519.PublicKey) }

// Fingerprint is the key's number as usign prints it: 16 hexadecimal digits.
func (k *Key) Fingerprint() string { return hex.EncodeToString(k.number[:]) }

// Sign returns the signature file for data.
func (k *Key) Sign(data []byte) []byte {
	raw := append(append([]byte("Ed"), k.number[:]...), ed25519.Sign(k.secret, data)...)
	return encode("signed by key "+k.Fingerprint(), raw)
}

// Verify checks a signature file over data.
func (k *Key) Verify(data, signature []byte) error {
	raw, err := decode(signature, 74)
	if err != nil {
		return err
	}
	if !bytes.Equal(raw[2:10], k.number[:]) {
		return fmt.Errorf("signed by key %x, want %x", raw[2:10], k.number)
	}
	if !ed25519.Verify(k.public(), data, raw[10:]) {
		return errors.New("the signature does not fit the data")
	}
	return nil
}

func encode(text string, raw []byte) []byte {
	return fmt.Appendf(nil, "%s%s\n%s\n", comment, text, base64.StdEncoding.EncodeToString(raw))
}

// decode takes apart a comment line and a line of base64 that holds size bytes
// and begins with "Ed".
func decode(data []byte, size int) ([]byte, error) {
	first, rest, _ := strings.Cut(string(data), "\n")
	second, end, ended := strings.Cut(rest, "\n")
	if !strings.HasPrefix(first, comment) || !ended || end != "" {
		return nil, fmt.Errorf("is not a line %q and a line of base64, as usign and signify write them", comment+"...")
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(second)
	if err != nil || len(raw) != size || string(raw[:2]) != "Ed" {
		return nil, fmt.Errorf("the second line is not the base64 of %d bytes that begin with Ed", size)
	}
	return raw, nil
}
