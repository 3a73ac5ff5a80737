package openpgp

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

// Signature says who signed, after all checks.
type Signature struct {
	Fingerprint string    // of the primary key, 40 (or, version 6, 64) upper hex digits
	Subkey      string    // of the key that made the signature; the same unless it is a subkey
	Created     time.Time // UTC, whole seconds, as the signature says
	UserID      string    // the primary user ID, as the key says; any bytes
}

// VerifyClear checks a cleartext signed message and returns the text that the
// signature covers: unescaped, without blanks at line ends, each line ended by a
// newline. Only that text may be used from then on.
//
// The message must be in the one accepted form, with exactly one text signature,
// with SHA-256, SHA-384 or SHA-512, by a key of the keyring that could sign when the
// signature was made and that can sign now. Everything else is a *Refusal; no
// other error is returned.
func (k *Keyring) VerifyClear(data []byte, now time.Time) (text []byte, sig *Signature, err error) {
	m, refusal := readClear(data)
	if refusal != nil {
		return nil, nil, refusal
	}
	s, refusal := k.verify(m.sig, packet.SigTypeText, signedBytes(m.text), m.hash, now)
	if refusal != nil {
		return nil, nil, refusal
	}
	return m.text, s, nil
}

// onlySignature reads the one signature packet that data must be.
func onlySignature(data []byte) (*packet.Signature, *Refusal) {
	const again = "; sign the text again"
	r := bytes.NewReader(data)
	op, err := packet.NewOpaqueReader(r).Next()
	if err != nil {
		return nil, refuse(BadForm, "", "the signature cannot be read"+again)
	}
	if r.Len() != 0 {
		return nil, refuse(BadForm, "", "the armored block holds more than one signature"+again+" with one key")
	}
	if op.Tag != tagSignature {
		return nil, refuse(BadForm, "", "the armored block holds something else than a signature"+again)
	}
	p, err := op.Parse()
	if err != nil {
		return nil, refuse(BadForm, "",
			"the signature cannot be read (unknown version or algorithm)"+again+" with RSA or Ed25519")
	}
	sig, ok := p.(*packet.Signature)
	if !ok {
		return nil, refuse(BadForm, "", "the signature cannot be read"+again)
	}
	return sig, nil
}

// issuer names the key that a signature claims to be made by.
func issuer(sig *packet.Signature) string {
	if len(sig.IssuerFingerprint) >= 20 {
		return strings.ToUpper(hex.EncodeToString(sig.IssuerFingerprint))
	}
	if sig.IssuerKeyId != nil {
		return fmt.Sprintf("%016X", *sig.IssuerKeyId)
	}
	return ""
}

func (k *Keyring) verify(
	rawSig []byte, want packet.SignatureType, signed []byte, header string, now time.Time,
) (*Signature, *Refusal) {
	sig, refusal := onlySignature(rawSig)
	if refusal != nil {
		return nil, refusal
	}
	id := issuer(sig)
	if sig.SigType != want {
		return nil, refuse(BadForm, id,
			"the signature is of type 0x%02x, not 0x%02x; sign with gpg --clearsign (debsign does)",
			uint8(sig.SigType), uint8(want))
	}
	if sig.IssuerKeyId == nil {
		return nil, refuse(BadForm, id, "the signature does not say which key made it; sign again with gpg")
	}
	name, ok := hashNames[sig.Hash]
	if !ok {
		return nil, refuse(WeakHash, id, "the signature uses %s, which is not accepted; sign again with --digest-algo SHA512",
			sig.Hash)
	}
	if header != "" && header != name {
		return nil, refuse(BadForm, id, "the Hash header says %s, but the signature uses %s; sign the text again",
			header, name)
	}
	if sig.CreationTime.After(now.Add(Skew)) {
		return nil, refuse(Future, id,
			"the signature is dated %s, which is in the future (here it is %s); set your clock and sign again",
			when(sig.CreationTime), when(now))
	}
	// A key made, or a text signed, seconds ago on a machine whose clock is a
	// little ahead is judged at its own time.
	if sig.CreationTime.After(now) {
		now = sig.CreationTime
	}

	// Key IDs of 64 bits can be made to collide: try each key that has it.
	var first *Refusal
	for i := range k.keys {
		key := &k.keys[i]
		if !key.has(*sig.IssuerKeyId) {
			continue
		}
		s, refusal := key.verify(rawSig, sig, signed, now)
		if refusal == nil {
			return s, nil
		}
		if first == nil {
			first = refusal
		}
	}
	if first == nil {
		first = refuse(UnknownKey, id, "the signature was made with key %s, which is not known here; "+
			"sign with a registered key, or ask for yours to be registered", id)
	}
	return nil, first
}

// verify judges one signature with one key that has the claimed ID.
func (r *ringKey) verify(rawSig []byte, sig *packet.Signature, signed []byte, now time.Time) (*Signature, *Refusal) {
	id := issuer(sig)
	e, err := r.entity()
	if err != nil {
		return nil, refuse(BadKey, id, "key %s cannot be read here", r.fingerprint)
	}
	signedBy, owner, err := openpgp.VerifyDetachedSignature(openpgp.EntityList{e}, bytes.NewReader(signed),
		bytes.NewReader(rawSig), strict(now))
	if err != nil {
		// The library says only that it is wrong. The key's own state explains
		// most cases: how it stands now, then how it stood at the signature's time.
		for _, at := range []time.Time{now, sig.CreationTime} {
			if refusal := r.state(*sig.IssuerKeyId, id, at); refusal != nil {
				return nil, refusal
			}
		}
		if errors.Is(err, pgperrors.ErrSignatureExpired) {
			return nil, refuse(Expired, id, "the signature has expired; sign again without an expiry date")
		}
		if errors.Is(err, pgperrors.ErrSignatureOlderThanKey) {
			return nil, refuse(BadKey, id, "the signature is dated %s, before its key was made; set your clock and sign again",
				when(sig.CreationTime))
		}
		return nil, refuse(Tampered, id, "the signature does not fit the text: the file was changed after it was signed; "+
			"sign it again and upload it unchanged")
	}
	if refusal := r.state(*sig.IssuerKeyId, id, now); refusal != nil {
		return nil, refusal
	}
	fpr := strings.ToUpper(hex.EncodeToString(owner.PrimaryKey.Fingerprint))
	out := &Signature{Fingerprint: fpr, Subkey: fpr, Created: signedBy.CreationTime.UTC()}
	for _, s := range owner.Subkeys {
		if s.PublicKey.KeyId == *sig.IssuerKeyId {
			out.Subkey = strings.ToUpper(hex.EncodeToString(s.PublicKey.Fingerprint))
		}
	}
	if len(sig.IssuerFingerprint) > 0 && !strings.EqualFold(hex.EncodeToString(sig.IssuerFingerprint), out.Subkey) {
		return nil, refuse(BadForm, id, "the signature names one key and was made with another; sign the text again")
	}
	if _, ident := owner.PrimaryIdentity(now, strict(now)); ident != nil {
		out.UserID = ident.Name
	}
	return out, nil
}

// state says why the key with this ID may not sign at that time, or nil. It reads the
// key afresh, for what the library caches belongs to one time.
func (r *ringKey) state(keyID uint64, id string, at time.Time) *Refusal {
	e, err := r.entity()
	if err != nil {
		return refuse(BadKey, id, "key %s cannot be read here", r.fingerprint)
	}
	rules := strict(at)
	if e.PrimaryKey.KeyId != keyID {
		for i := range e.Subkeys {
			sub := &e.Subkeys[i]
			if sub.PublicKey.KeyId != keyID {
				continue
			}
			if refusal := weakKey(sub.PublicKey, rules, id); refusal != nil {
				return refusal
			}
			if _, err := sub.Verify(at, rules); err != nil {
				if refusal := keyRefusal(err, id, "the subkey"); refusal != nil {
					return refusal
				}
				if sub.PublicKey.CreationTime.After(at) {
					return refuse(BadKey, id, "the signature is dated %s, before its key was made; set your clock and sign again",
						when(at))
				}
				return selfRefusal(sub.Bindings, id, "the subkey")
			}
		}
	}
	if refusal := weakKey(e.PrimaryKey, rules, id); refusal != nil {
		return refusal
	}
	if e.PrimaryKey.CreationTime.After(at) {
		return refuse(BadKey, id, "the signature is dated %s, before its key was made; set your clock and sign again",
			when(at))
	}
	if e.Revoked(at) {
		return keyRefusal(pgperrors.ErrKeyRevoked, id, "the key")
	}
	if _, err := e.VerifyPrimaryKey(at, rules); err != nil {
		if refusal := keyRefusal(err, id, "the key"); refusal != nil {
			return refusal
		}
		var certs []*packet.VerifiableSignature
		for _, ident := range e.Identities {
			certs = append(certs, ident.SelfCertifications...)
		}
		return selfRefusal(certs, id, "the key")
	}
	if _, ok := e.SigningKeyById(at, keyID, rules); !ok {
		return refuse(BadKey, id, "the key %s is not marked as a signing key; sign with one that is", id)
	}
	return nil
}

func keyRefusal(err error, id, what string) *Refusal {
	switch {
	case errors.Is(err, pgperrors.ErrKeyRevoked):
		return refuse(Revoked, id, "%s %s is revoked; sign with another registered key", what, id)
	case errors.Is(err, pgperrors.ErrKeyExpired):
		return refuse(Expired, id, "%s %s has expired; extend it and have the new copy registered, or sign with another key",
			what, id)
	}
	return nil
}

// selfRefusal explains why no self-signature counts.
func selfRefusal(sigs []*packet.VerifiableSignature, id, what string) *Refusal {
	weak, expired := false, false
	for _, s := range sigs {
		if _, ok := hashNames[s.Packet.Hash]; !ok {
			weak = true
		}
		if s.Packet.SigLifetimeSecs != nil && *s.Packet.SigLifetimeSecs != 0 {
			expired = true
		}
	}
	switch {
	case weak:
		return refuse(WeakHash, id, "%s %s is bound only by a SHA-1 or MD5 self-signature; "+
			"renew it (gpg --quick-set-expire with cert-digest-algo SHA512) and have the new copy registered", what, id)
	case expired:
		return refuse(Expired, id, "the self-signature of %s %s has expired; renew it and have the new copy registered",
			what, id)
	}
	return refuse(BadKey, id, "%s %s has no valid self-signature; have a new copy of it registered", what, id)
}

// weakKey refuses algorithms and lengths that are too weak to count.
func weakKey(pub *packet.PublicKey, rules *packet.Config, id string) *Refusal {
	const cure = "; sign with an Ed25519 key, or RSA of 3072 bits or more"
	if rules.RejectPublicKeyAlgorithm(pub.PubKeyAlgo) {
		return refuse(WeakKey, id, "the key %s is a DSA or ElGamal key, which is too weak"+cure, id)
	}
	switch pub.PubKeyAlgo {
	case packet.PubKeyAlgoRSA, packet.PubKeyAlgoRSASignOnly, packet.PubKeyAlgoRSAEncryptOnly:
		if n, err := pub.BitLength(); err != nil || n < MinRSABits {
			return refuse(WeakKey, id, "the key %s is an RSA key of %d bits, which is too weak"+cure, id, n)
		}
	case packet.PubKeyAlgoECDSA, packet.PubKeyAlgoEdDSA:
		if c, err := pub.Curve(); err != nil || rules.RejectCurve(c) {
			return refuse(WeakKey, id, "the key %s uses a curve that is not accepted"+cure, id)
		}
	}
	return nil
}

// VerifyDetached checks an armored or binary detached signature over data, with
// the rules of VerifyClear. It is what a client of the archive does with Release.gpg.
func (k *Keyring) VerifyDetached(data io.Reader, signature []byte, now time.Time) (*Signature, error) {
	blocks, err := dearmor(signature, "PGP SIGNATURE")
	if err != nil || len(blocks) != 1 {
		return nil, refuse(BadForm, "",
			"the detached signature is not one armored or binary signature; sign again with gpg --detach-sign")
	}
	signed, err := io.ReadAll(data)
	if err != nil {
		return nil, err
	}
	sig, refusal := k.verify(blocks[0], packet.SigTypeBinary, signed, "", now)
	if refusal != nil {
		return nil, refusal
	}
	return sig, nil
}

func when(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// VerifyMIME checks the signature of a PGP/MIME part (RFC 3156 section 5), with the
// rules of VerifyClear: part is the part as it was sent, with CR LF at line
// ends, and the signature covers its bytes or its text.
func (k *Keyring) VerifyMIME(part, signature []byte, now time.Time) (*Signature, error) {
	blocks, err := dearmor(signature, "PGP SIGNATURE")
	if err != nil || len(blocks) != 1 {
		return nil, refuse(BadForm, "", "the part beside the signed one is not one armored signature; sign again")
	}
	sig, refusal := onlySignature(blocks[0])
	if refusal != nil {
		return nil, refusal
	}
	want := packet.SigTypeBinary
	if sig.SigType == packet.SigTypeText {
		want = packet.SigTypeText
	}
	s, refusal := k.verify(blocks[0], want, part, "", now)
	if refusal != nil {
		return nil, refusal
	}
	return s, nil
}
