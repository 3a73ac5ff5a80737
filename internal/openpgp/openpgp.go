// Package openpgp verifies what people sign and signs what the archive
// publishes. It reads one form only, the cleartext signature framework of
// RFC 4880 section 7 as GnuPG writes it, and refuses everything that two readers could
// understand in two ways.
//
// Verification is stricter than gpgv's, whose exit status 0 also covers
// expired and revoked keys, SHA-1, short RSA keys and text around the signed part.
package openpgp

import (
	"crypto"
	"fmt"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// Kind says in one word why a signed text was refused.
type Kind string

// The kinds of refusal.
const (
	Unsigned   Kind = "unsigned"    // no OpenPGP framing at all
	BadForm    Kind = "bad-form"    // framing or packets are not in the one accepted form
	UnknownKey Kind = "unknown-key" // no key in the keyring made this signature
	WeakKey    Kind = "weak-key"    // RSA below 2048 bits, DSA, ElGamal, a rejected curve
	WeakHash   Kind = "weak-hash"   // the signature, or the key's own self-signature, uses a broken hash
	BadKey     Kind = "bad-key"     // the key may not sign, or has no usable self-signature
	Expired    Kind = "expired"     // the key or the signature has expired
	Revoked    Kind = "revoked"     // the key, or the subkey, is revoked
	Future     Kind = "future"      // signed more than Skew ahead of the clock
	Tampered   Kind = "tampered"    // the signature does not fit the text
)

// Refusal is a verdict on a signed text, not a fault of this program: the
// signer has to do something. Text is a sentence that names the cure; it
// holds no bytes of the text that was refused.
type Refusal struct {
	Kind  Kind
	Text  string
	KeyID string // the key that the signature claims, 16 or 40 upper hex digits; "" if unknown
}

func (r *Refusal) Error() string { return r.Text }

func refuse(kind Kind, keyID, format string, args ...any) *Refusal {
	return &Refusal{Kind: kind, KeyID: keyID, Text: fmt.Sprintf(format, args...)}
}

// Skew is how far ahead of this machine's clock a signature may be dated.
const Skew = 5 * time.Minute

// MinRSABits is the least length of an RSA key whose signatures count.
const MinRSABits = 2048

// hashNames are the digests that a signature may use, and their names in the
// Hash header (RFC 4880 section 9.4).
var hashNames = map[crypto.Hash]string{
	crypto.SHA256: "SHA256",
	crypto.SHA384: "SHA384",
	crypto.SHA512: "SHA512",
}

// strict are the rules under which the library judges a signature made or
// checked at the given time.
func strict(at time.Time) *packet.Config {
	broken := map[crypto.Hash]bool{
		crypto.MD5: true, crypto.SHA1: true, crypto.RIPEMD160: true, crypto.SHA224: true,
		crypto.SHA3_256: true, crypto.SHA3_512: true,
	}
	return &packet.Config{
		Time:                        func() time.Time { return at },
		MinRSABits:                  MinRSABits,
		RejectHashAlgorithms:        map[crypto.Hash]bool{crypto.MD5: true, crypto.SHA1: true, crypto.RIPEMD160: true},
		RejectMessageHashAlgorithms: broken,
		RejectPublicKeyAlgorithms: map[packet.PublicKeyAlgorithm]bool{
			packet.PubKeyAlgoDSA:     true,
			packet.PubKeyAlgoElGamal: true,
		},
		RejectCurves: map[packet.Curve]bool{packet.CurveSecP256k1: true},
		// The same text, key and second give the same bytes, so that a publication
		// that is done again after a crash changes nothing.
		NonDeterministicSignaturesViaNotation: packet.BoolPointer(false),
	}
}
