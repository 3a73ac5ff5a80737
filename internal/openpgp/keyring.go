package openpgp

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

// Keyring holds public keys, one entry for each primary key. It may be used by
// several goroutines at once.
//
// The library caches on each key whether its self-signatures held when they
// were first looked at, without a lock and without the time they were looked at. So a Keyring
// keeps the packets and reads the one key afresh for each verification.
type Keyring struct {
	keys    []ringKey
	skipped []error
}

type ringKey struct {
	fingerprint string   // of the primary key, upper hex
	ids         []uint64 // of the primary key and all subkeys
	raw         []byte   // packets, without other people's certifications
}

const (
	tagSignature = 2
	tagSecretKey = 5
	tagPublicKey = 6
	tagSecretSub = 7
	tagMarker    = 10
	tagTrust     = 12
	tagUserID    = 13
	tagPublicSub = 14
	tagUserAttr  = 17
	tagPadding   = 21
)

// bundle is a key taken apart: a component (the primary key, a user ID, a subkey)
// and the signatures that follow it.
type bundle struct {
	primary *packet.PublicKey
	parts   []*part
}

type part struct {
	head packet.OpaquePacket
	sigs []packet.OpaquePacket
}

// ReadKeyring reads public keys from any number of files' contents, each binary
// or ASCII armored (also several blocks in one file). Copies of one key are
// merged: signatures, user IDs, subkeys and revocations of all copies count. A key
// that cannot be used at all (unknown algorithm, no user ID that it signed) is left out,
// see Skipped; a secret key is an error; no keys at all give an empty keyring.
func ReadKeyring(data ...[]byte) (*Keyring, error) {
	var bundles []*bundle
	var skipped []error
	byFpr := map[string]*bundle{}
	for i, d := range data {
		blocks, err := dearmor(d, "PGP PUBLIC KEY BLOCK")
		if err != nil {
			return nil, fmt.Errorf("read keyring %d: %w", i+1, err)
		}
		for _, b := range blocks {
			found, unread, err := readBundles(b)
			if err != nil {
				return nil, fmt.Errorf("read keyring %d: %w", i+1, err)
			}
			skipped = append(skipped, unread...)
			for _, f := range found {
				fpr := string(f.primary.Fingerprint)
				if old := byFpr[fpr]; old != nil {
					old.merge(f)
				} else {
					byFpr[fpr] = f
					bundles = append(bundles, f)
				}
			}
		}
	}
	k := &Keyring{skipped: skipped}
	for _, b := range bundles {
		key, err := b.ringKey()
		if err != nil {
			k.skipped = append(k.skipped, fmt.Errorf("read key %X: %w", b.primary.Fingerprint, err))
			continue
		}
		k.keys = append(k.keys, key)
	}
	return k, nil
}

// Fingerprints are those of the primary keys, in upper hex, in the order of the files.
func (k *Keyring) Fingerprints() []string {
	out := make([]string, 0, len(k.keys))
	for _, key := range k.keys {
		out = append(out, key.fingerprint)
	}
	return out
}

// Ends says of each key, by its fingerprint, when it stops to make signatures that count: zero
// if never, now if it makes none any more.
func (k *Keyring) Ends(now time.Time) map[string]time.Time {
	out := map[string]time.Time{}
	for i := range k.keys {
		end := now
		if e, err := k.keys[i].entity(); err == nil {
			if at, ok := endOf(e, now); ok {
				end = at
			}
		}
		out[k.keys[i].fingerprint] = end
	}
	return out
}

// Addresses are the mail addresses in the user IDs that count at that time, of all keys, each once and sorted.
func (k *Keyring) Addresses(now time.Time) (out []string) {
	rules := strict(now)
	for i := range k.keys {
		e, err := k.keys[i].entity()
		if err != nil {
			continue
		}
		for _, id := range e.Identities {
			if _, err := id.Verify(now, rules); err == nil && id.UserId.Email != "" {
				out = append(out, id.UserId.Email)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Skipped says which keys of the files are left out, and why.
func (k *Keyring) Skipped() []error { return k.skipped }

// Only returns the part of the keyring that has one of the given primary
// fingerprints (compared without case and blanks), and those of them that it does not have.
func (k *Keyring) Only(fingerprints ...string) (sub *Keyring, missing []string) {
	sub = &Keyring{}
	taken := map[string]bool{}
	for _, f := range fingerprints {
		norm := strings.ToUpper(strings.Join(strings.Fields(f), ""))
		if taken[norm] {
			continue
		}
		found := false
		for _, key := range k.keys {
			if key.fingerprint == norm {
				sub.keys = append(sub.keys, key)
				found = true
			}
		}
		if found {
			taken[norm] = true
		} else {
			missing = append(missing, f)
		}
	}
	return sub, missing
}

// dearmor gives the binary contents of data: data itself, or each armored block in it.
func dearmor(data []byte, kind string) ([][]byte, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, nil
	}
	if data[0]&0x80 != 0 {
		return [][]byte{data}, nil
	}
	var out [][]byte
	begin, end := []byte("-----BEGIN "+kind+"-----"), []byte("-----END "+kind+"-----")
	for {
		i := bytes.Index(data, begin)
		if i < 0 {
			break
		}
		j := bytes.Index(data[i:], end)
		if j < 0 {
			return nil, fmt.Errorf("an armored block has no end line")
		}
		j += i + len(end)
		block, err := armor.Decode(bytes.NewReader(data[i:j]))
		if err != nil {
			return nil, fmt.Errorf("armor: %w", err)
		}
		body, err := io.ReadAll(block.Body)
		if err != nil {
			return nil, fmt.Errorf("armor: %w", err)
		}
		out = append(out, body)
		data = data[j:]
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("neither OpenPGP packets nor a %s; export the key with gpg --export", kind)
	}
	return out, nil
}

// readBundles splits a sequence of transferable public keys (RFC 4880 section 11.1).
// Those whose primary key is of a version or algorithm that nobody here reads are skipped.
func readBundles(data []byte) (out []*bundle, skipped []error, err error) {
	skipping := false
	var cur *bundle
	var last *part
	r := packet.NewOpaqueReader(bytes.NewReader(data))
	for {
		op, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out, skipped, nil
		}
		if err != nil {
			return nil, nil, fmt.Errorf("packets: %w", err)
		}
		switch op.Tag {
		case tagSecretKey, tagSecretSub:
			return nil, nil, fmt.Errorf("it holds a secret key; put the public key there (gpg --export)")
		case tagPublicKey:
			p, err := op.Parse()
			pub, ok := p.(*packet.PublicKey)
			if err != nil || !ok {
				skipped = append(skipped, fmt.Errorf("read key %d of a file: %w", len(out)+len(skipped)+1, err))
				skipping = true
				continue
			}
			skipping = false
			last = &part{head: *op}
			cur = &bundle{primary: pub, parts: []*part{last}}
			out = append(out, cur)
		case tagUserID, tagPublicSub, tagUserAttr:
			if skipping {
				continue
			}
			if cur == nil {
				return nil, nil, fmt.Errorf("it does not begin with a primary key")
			}
			last = &part{head: *op}
			if op.Tag != tagUserAttr { // pictures say nothing here
				cur.parts = append(cur.parts, last)
			}
		case tagSignature:
			if skipping {
				continue
			}
			if cur == nil {
				return nil, nil, fmt.Errorf("it does not begin with a primary key")
			}
			last.sigs = append(last.sigs, *op)
		case tagMarker, tagTrust, tagPadding:
		default:
			return nil, nil, fmt.Errorf("packet type %d does not belong into a key", op.Tag)
		}
	}
}

// merge adds the parts and signatures of o that b does not have.
func (b *bundle) merge(o *bundle) {
	for _, op := range o.parts {
		var mine *part
		for _, p := range b.parts {
			if p.head.Tag == op.head.Tag && bytes.Equal(p.head.Contents, op.head.Contents) {
				mine = p
			}
		}
		if mine == nil {
			b.parts = append(b.parts, op)
			continue
		}
		mine.sigs = append(mine.sigs, op.sigs...)
	}
}

// ringKey puts the bundle together again: the primary key, then user IDs, then
// subkeys, each component once, with the signatures that the key itself made.
func (b *bundle) ringKey() (ringKey, error) {
	var ordered []*part
	for _, tag := range []uint8{tagPublicKey, tagUserID, tagPublicSub} {
		for _, p := range b.parts {
			if p.head.Tag != tag {
				continue
			}
			same := false
			for _, q := range ordered {
				if q.head.Tag == tag && bytes.Equal(q.head.Contents, p.head.Contents) {
					q.sigs = append(q.sigs, p.sigs...)
					same = true
				}
			}
			if !same {
				ordered = append(ordered, p)
			}
		}
	}
	var buf bytes.Buffer
	for _, p := range ordered {
		if err := p.head.Serialize(&buf); err != nil {
			return ringKey{}, err
		}
		seen := map[string]bool{}
		for _, s := range p.sigs {
			if seen[string(s.Contents)] {
				continue
			}
			seen[string(s.Contents)] = true
			parsed, err := s.Parse()
			if err != nil {
				continue // an algorithm that nobody here can check
			}
			sig, ok := parsed.(*packet.Signature)
			if !ok || !sig.CheckKeyIdOrFingerprint(b.primary) {
				continue // somebody else's certification
			}
			if err := s.Serialize(&buf); err != nil {
				return ringKey{}, err
			}
		}
	}
	key := ringKey{
		fingerprint: strings.ToUpper(hex.EncodeToString(b.primary.Fingerprint)),
		raw:         buf.Bytes(),
	}
	e, err := key.entity()
	if err != nil {
		return ringKey{}, err
	}
	key.ids = append(key.ids, e.PrimaryKey.KeyId)
	for _, s := range e.Subkeys {
		key.ids = append(key.ids, s.PublicKey.KeyId)
	}
	return key, nil
}

func (r *ringKey) entity() (*openpgp.Entity, error) {
	return openpgp.ReadEntity(packet.NewReader(bytes.NewReader(r.raw)))
}

func (r *ringKey) has(id uint64) bool {
	for _, i := range r.ids {
		if i == id {
			return true
		}
	}
	return false
}
