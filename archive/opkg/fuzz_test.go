package opkg_test

import (
	"os"
	"path/filepath"
	"testing"

	"packmill/archive/opkg"
	"packmill/internal/deb/debtest"
)

// FuzzReadPackage holds that no file makes the reader panic, and that what it
// takes has a control file.
func FuzzReadPackage(f *testing.F) {
	dir := f.TempDir()
	path, err := debtest.Deb{Name: "hello", Version: "1.0"}.Write(dir)
	if err != nil {
		f.Fatal(err)
	}
	opk := filepath.Join(dir, "x.opk")
	if _, _, err := opkg.Repack(path, opk, opkg.Options{}); err != nil {
		f.Fatal(err)
	}
	data, err := os.ReadFile(opk)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add(data[:len(data)/2])
	f.Fuzz(func(t *testing.T, data []byte) {
		name := filepath.Join(t.TempDir(), "y.opk")
		if err := os.WriteFile(name, data, 0o644); err != nil {
			t.Fatal(err)
		}
		if p, err := opkg.ReadPackage(name); err == nil && (p.Control == nil || p.Size != int64(len(data))) {
			t.Fatalf("taken as %+v", p)
		}
	})
}

// FuzzKeys holds that no text makes a key, and that a key that is read is written
// the same.
func FuzzKeys(f *testing.F) {
	k, err := opkg.GenerateKey()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(k.Secret())
	f.Add(k.Public())
	f.Fuzz(func(t *testing.T, data []byte) {
		if k.Verify([]byte("Package: hello\n"), data) == nil {
			t.Fatalf("%q is a signature", data)
		}
		if k, err := opkg.ParseKey(data); err == nil {
			if again, err := opkg.ParseKey(k.Secret()); err != nil || again.Fingerprint() != k.Fingerprint() {
				t.Fatalf("%q: %v", data, err)
			}
		}
	})
}
