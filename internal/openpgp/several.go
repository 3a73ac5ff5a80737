package openpgp

import (
	"bytes"
	"io"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// VerifyRelease is VerifyClear for an InRelease file, which archives sign with
// several keys at a time so that clients can change from one to the next: one
// good signature by a key of the keyring is enough, the others are passed over.
// If none is good the refusal is that of the first one.
func (k *Keyring) VerifyRelease(data []byte, now time.Time) (text []byte, sig *Signature, err error) {
	m, refusal := readClear(data)
	if refusal != nil {
		return nil, nil, refusal
	}
	s, refusal := k.anyOf(m.sig, packet.SigTypeText, signedBytes(m.text), now)
	if refusal != nil {
		return nil, nil, refusal
	}
	return m.text, s, nil
}

// VerifyReleaseGPG is VerifyDetached for a Release.gpg, by the rule of
// VerifyRelease.
func (k *Keyring) VerifyReleaseGPG(release io.Reader, signature []byte, now time.Time) (*Signature, error) {
	blocks, err := dearmor(signature, "PGP SIGNATURE")
	if err != nil || len(blocks) == 0 {
		return nil, refuse(BadForm, "",
			"the detached signature is not armored or binary signatures; sign again with gpg --detach-sign")
	}
	signed, err := io.ReadAll(release)
	if err != nil {
		return nil, err
	}
	s, refusal := k.anyOf(bytes.Join(blocks, nil), packet.SigTypeBinary, signed, now)
	if refusal != nil {
		return nil, refusal
	}
	return s, nil
}

// maxSignatures is how many signatures of one file are looked at.
const maxSignatures = 20

func (k *Keyring) anyOf(
	packets []byte, want packet.SignatureType, signed []byte, now time.Time,
) (*Signature, *Refusal) {
	var first *Refusal
	r := packet.NewOpaqueReader(bytes.NewReader(packets))
	for range maxSignatures {
		op, err := r.Next()
		if err != nil {
			break
		}
		var one bytes.Buffer
		if err := op.Serialize(&one); err != nil {
			break
		}
		sig, refusal := k.verify(one.Bytes(), want, signed, "", now)
		if refusal == nil {
			return sig, nil
		}
		if first == nil {
			first = refusal
		}
	}
	if first == nil {
		first = refuse(BadForm, "", "the signature cannot be read; sign the text again")
	}
	return nil, first
}
