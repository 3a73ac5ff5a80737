package openpgp

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
)

const (
	beginText = "-----BEGIN PGP SIGNED MESSAGE-----"
	beginSig  = "-----BEGIN PGP SIGNATURE-----"
	endSig    = "-----END PGP SIGNATURE-----"

	// MaxLine is the longest line, in bytes, of a signed text. GnuPG cuts lines at
	// 20,000 bytes before it hashes them, so a longer one means two different texts.
	MaxLine = 19000

	maxArmor = 64 << 10 // bytes of armored signature
)

// IsSigned reports whether data begins as a cleartext signed message does. It
// promises nothing about the rest.
func IsSigned(data []byte) bool {
	return bytes.HasPrefix(data, []byte(beginText))
}

// message is a cleartext signed message in its one accepted form.
type message struct {
	hash string // the value of the Hash header
	text []byte // unescaped, without blanks at line ends; each line ends with "\n"
	sig  []byte // the decoded signature packets
}

// readClear takes the framing apart. The data must be exactly: the begin line,
// one Hash header, an empty line, the text with each line that begins with a dash
// escaped, and one armored signature, with nothing before and at most one line end after.
func readClear(data []byte) (*message, *Refusal) {
	if !IsSigned(data) {
		if bytes.Contains(data, []byte(beginText)) {
			return nil, badForm("there is text before the signed part")
		}
		return nil, refuse(Unsigned, "", "the file has no OpenPGP signature; sign it (debsign does) and upload it again")
	}
	if bytes.IndexByte(data, 0) >= 0 {
		return nil, badForm("it holds a NUL byte")
	}
	if bytes.IndexByte(data, '\r') >= 0 {
		return nil, badForm("it holds a carriage return; lines end with a newline alone")
	}
	var refusal *Refusal
	m, r := &message{}, &clearReader{rest: data}
	if m.hash, refusal = r.hash(); refusal != nil {
		return nil, refusal
	}
	if m.text, refusal = r.text(); refusal != nil {
		return nil, refusal
	}
	if refusal = r.armorHeaders(); refusal != nil {
		return nil, refusal
	}
	if m.sig, refusal = r.signature(); refusal != nil {
		return nil, refusal
	}
	return m, nil
}

func badForm(format string, args ...any) *Refusal {
	return refuse(BadForm, "", "the file is not in the form that gpg --clearsign writes: %s; "+
		"sign the text again and upload the new file unchanged", fmt.Sprintf(format, args...))
}

// clearReader reads a cleartext signed message line by line, each part in its turn.
type clearReader struct {
	rest   []byte
	number int // of the last line read
}

func (r *clearReader) next() (line string, ok bool) {
	if len(r.rest) == 0 {
		return "", false
	}
	head, rest, _ := bytes.Cut(r.rest, []byte("\n"))
	r.rest = rest
	r.number++
	return string(head), true
}

// hash reads the begin line, the Hash header and the empty line after it.
func (r *clearReader) hash() (string, *Refusal) {
	if line, _ := r.next(); line != beginText {
		return "", badForm("line 1 holds more than the begin line")
	}
	line, _ := r.next()
	name, found := strings.CutPrefix(line, "Hash: ")
	if !found {
		return "", badForm("line 2 is not a Hash header")
	}
	switch name {
	case "SHA256", "SHA384", "SHA512":
	case "MD5", "SHA1", "RIPEMD160", "SHA224":
		return "", refuse(WeakHash, "", "the signature uses %s, which is too weak; sign again with --digest-algo SHA512",
			name)
	default:
		return "", badForm("the Hash header names none, or not exactly one, of SHA256, SHA384 and SHA512")
	}
	if line, ok := r.next(); !ok || line != "" {
		return "", badForm("line 3 is not empty: after the Hash header comes an empty line and then the text")
	}
	return name, nil
}

// text reads the signed text and the line that begins the signature.
func (r *clearReader) text() ([]byte, *Refusal) {
	text := make([]byte, 0, len(r.rest))
	for {
		line, ok := r.next()
		switch {
		case !ok:
			return nil, badForm("it ends before the signature begins")
		case line == beginSig && len(text) == 0:
			return nil, badForm("the signed text is empty")
		case line == beginSig:
			return text, nil
		case len(line) > MaxLine:
			return nil, badForm("line %d is longer than %d bytes", r.number, MaxLine)
		case strings.HasPrefix(line, "- "):
			line = line[2:]
		case strings.HasPrefix(line, "-"):
			return nil, badForm("line %d begins with a dash that is not escaped", r.number)
		}
		text = append(text, strings.TrimRight(line, " \t")...)
		text = append(text, '\n')
	}
}

// armorHeaders passes the armor's headers (Version, Comment) and the empty line
// after them. They are not signed and mean nothing; they are held to printable
// text so that nothing else can hide there.
func (r *clearReader) armorHeaders() *Refusal {
	for {
		line, ok := r.next()
		if !ok {
			return badForm("the signature is cut off")
		}
		if line == "" {
			return nil
		}
		key, _, found := strings.Cut(line, ": ")
		if !found && strings.HasSuffix(line, ":") {
			key, found = line[:len(line)-1], true
		}
		if !found || (key != "Version" && key != "Comment") || !printable(line) || len(line) > 200 {
			return badForm("line %d is no Version or Comment header, and the empty line before the signature is missing",
				r.number)
		}
	}
}

// signature reads the armored packets and their checksum, up to the end of the data.
func (r *clearReader) signature() ([]byte, *Refusal) {
	packets, sum, refusal := r.armor()
	if refusal != nil {
		return nil, refusal
	}
	// (An editor or a mail program leaves one empty line there.)
	if len(r.rest) != 0 && string(r.rest) != "\n" {
		return nil, badForm("there is text after the signature")
	}
	sig, err := base64.StdEncoding.Strict().DecodeString(packets)
	if err != nil || len(sig) == 0 {
		return nil, badForm("the signature is not valid base64")
	}
	if sum != "" {
		raw, err := base64.StdEncoding.Strict().DecodeString(sum)
		if err != nil || len(raw) != 3 || uint32(raw[0])<<16|uint32(raw[1])<<8|uint32(raw[2]) != crc24(sig) {
			return nil, badForm("the signature's checksum is wrong; it was damaged on its way")
		}
	}
	return sig, nil
}

// armor reads the lines of base64, up to the line that ends the signature.
func (r *clearReader) armor() (packets, sum string, refusal *Refusal) {
	var b64 strings.Builder
	for {
		line, ok := r.next()
		switch {
		case !ok:
			return "", "", badForm("the signature is cut off")
		case line == endSig:
			return b64.String(), sum, nil
		case sum != "":
			return "", "", badForm("line %d comes after the signature's checksum", r.number)
		case strings.HasPrefix(line, "=") && len(line) == 5:
			sum = line[1:]
		case line == "" || len(line) > 76 || b64.Len() > maxArmor:
			return "", "", badForm("line %d is no line of a signature", r.number)
		default:
			b64.WriteString(line)
		}
	}
}

func printable(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

// crc24 is the checksum of an armored block (RFC 4880 section 6.1).
func crc24(data []byte) uint32 {
	crc := uint32(0xB704CE)
	for _, b := range data {
		crc ^= uint32(b) << 16
		for range 8 {
			crc <<= 1
			if crc&0x1000000 != 0 {
				crc ^= 0x1864CFB
			}
		}
	}
	return crc & 0xFFFFFF
}

// signedBytes are what a text signature covers: lines without blanks at their
// ends, joined with CR LF, without a line end after the last one (RFC 4880 section 7.1).
func signedBytes(text []byte) []byte {
	text = bytes.TrimSuffix(text, []byte("\n"))
	out := make([]byte, 0, len(text)+len(text)/32+16)
	for first := true; ; first = false {
		if !first {
			out = append(out, '\r', '\n')
		}
		line, rest, more := bytes.Cut(text, []byte("\n"))
		out = append(out, bytes.TrimRight(line, " \t")...)
		if !more {
			return out
		}
		text = rest
	}
}

// CanonicalHash is the SHA-256, in hex, of what a signature over text covers:
// blanks at line ends and empty lines at the end do not change it. A ledger
// keyed by it knows an upload again even if somebody has changed the parts of
// the file that no signature protects.
func CanonicalHash(text []byte) string {
	text = bytes.TrimRight(text, " \t\r\n")
	text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	sum := sha256.Sum256(signedBytes(text))
	return hex.EncodeToString(sum[:])
}

// ClearText takes the framing off a cleartext signed message, to compare its
// text with another. It verifies nothing: what it returns nobody vouches for.
func ClearText(data []byte) ([]byte, error) {
	m, refusal := readClear(data)
	if refusal != nil {
		return nil, refusal
	}
	return m.text, nil
}
