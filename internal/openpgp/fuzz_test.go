package openpgp

import (
	"bytes"
	"testing"
	"time"
)

// FuzzVerifyClear: no input panics; what is accepted is accepted by gpgv too,
// which reads the same text.
func FuzzVerifyClear(f *testing.F) {
	s, err := Generate("fuzz", "fuzz@example.org", time.Now())
	if err != nil {
		f.Fatal(err)
	}
	k, err := ReadKeyring(s.Public())
	if err != nil {
		f.Fatal(err)
	}
	blocks, err := dearmor(s.Public(), "PGP PUBLIC KEY BLOCK")
	if err != nil {
		f.Fatal(err)
	}
	dir := f.TempDir()
	// The key is new in each process, so the corpus holds edits of a message, not
	// messages: cut n bytes at pos, put the bytes of ins there.
	message, err := s.Clearsign([]byte("Source: hello\n- dashed\n\ntrailing \nend\n"), time.Now())
	if err != nil {
		f.Fatal(err)
	}
	sig := bytes.Index(message, []byte(beginSig))
	f.Add(uint16(0), uint16(0), []byte(""))
	f.Add(uint16(0), uint16(0), []byte("x\n"))
	f.Add(uint16(0), uint16(0), []byte("\n"))
	f.Add(uint16(len(message)), uint16(0), []byte("x"))
	f.Add(uint16(len(message)-1), uint16(1), []byte(""))
	f.Add(uint16(sig), uint16(0), []byte(" "))
	f.Add(uint16(sig-1), uint16(0), []byte(" \t"))
	f.Add(uint16(sig-1), uint16(0), []byte("\x0b"))
	f.Add(uint16(sig-1), uint16(0), []byte("\n"))
	f.Add(uint16(sig+len(beginSig)), uint16(0), []byte("\nVersion: 1"))
	f.Add(uint16(sig+len(beginSig)), uint16(0), []byte("\nComment:"))
	f.Add(uint16(len(beginText)), uint16(0), []byte(" "))
	f.Add(uint16(len(beginText)+1), uint16(12), []byte("Hash: SHA256, SHA512"))
	f.Add(uint16(len(beginText)+1), uint16(13), []byte(""))
	f.Add(uint16(len(beginText)+15), uint16(0), []byte("- "))
	f.Fuzz(func(t *testing.T, pos, cut uint16, ins []byte) {
		p := min(int(pos), len(message))
		c := min(p+int(cut), len(message))
		data := append(append(bytes.Clone(message[:p]), ins...), message[c:]...)
		text, _, err := k.VerifyClear(data, time.Now())
		if err != nil {
			return
		}
		read, ok := gpgv(t, dir, blocks[0], data)
		if !ok {
			t.Fatalf("accepted here, refused by gpgv: %s\n%q", read, data)
		}
		if CanonicalHash(read) != CanonicalHash(text) {
			t.Fatalf("we read %q, gpgv reads %q", text, read)
		}
	})
}

// FuzzKeyring: no bytes panic the reader of keys.
func FuzzKeyring(f *testing.F) {
	s, err := Generate("fuzz", "fuzz@example.org", time.Unix(1.7e9, 0))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s.Public())
	blocks, err := dearmor(s.Public(), "PGP PUBLIC KEY BLOCK")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(blocks[0])
	f.Add(append(bytes.Clone(blocks[0]), blocks[0]...))
	f.Fuzz(func(t *testing.T, data []byte) {
		k, err := ReadKeyring(data)
		if err == nil {
			_ = k.Fingerprints()
		}
		_, _ = parseSigner(data)
	})
}
