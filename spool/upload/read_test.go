package upload

import (
	"testing"
	"time"

	"packmill/internal/openpgp"
	"packmill/spool/upload/uploadtest"
)

func TestReadGood(t *testing.T) {
	s, err := openpgp.Generate("Ann", "ann@example.org", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	k, err := openpgp.ReadKeyring(s.Public())
	if err != nil {
		t.Fatal(err)
	}
	ctx := &Context{
		Now: time.Now(), Keyring: k,
		Uploaders: []*Uploader{{Name: "ann", Fingerprints: []string{s.Fingerprint()},
			Allow: []Right{{Source: true, New: true}}}},
		Suites: []*Suite{{Name: "stable", Architectures: []string{"amd64"}}},
	}
	dir := t.TempDir()
	name, err := uploadtest.Package{Source: "hello", Version: "1.0-1", Signer: s}.Write(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, findings, err := Read(t.Context(), dir, name, ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range findings {
		t.Error(f)
	}
}
