package life

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"packmill/spool/openpgp"
	"packmill/spool/upload/uploadtest"
)

// person makes a key, and a stanza of control/uploaders with that right.
func (m *mill) person(name, allow string) *openpgp.Signer {
	m.Helper()
	s, err := openpgp.Generate(name, name+"@example.org", time.Now().Add(-time.Hour))
	m.must(err)
	m.must(os.WriteFile(filepath.Join(m.tree, "control/keys", name+".asc"), s.Public(), 0o644))
	path := filepath.Join(m.tree, "control/uploaders")
	old, err := os.ReadFile(path)
	m.must(err)
	m.must(os.WriteFile(path, append(old, "\nName: "+name+"\nFingerprint: "+s.Fingerprint()+"\nEmail: "+name+"@example.org\nAllow: "+allow+"\n"...), 0o644))
	return s
}

// one finds the one path that a pattern below the tree matches.
func (m *mill) one(pattern string) string {
	m.Helper()
	names, err := filepath.Glob(filepath.Join(m.tree, pattern))
	if err != nil || len(names) != 1 {
		m.Fatalf("%s: %v, %v\n%s", pattern, names, err, m.packmill("ls"))
	}
	return names[0]
}

// resign puts another signature onto a result in the archive queue.
func (m *mill) resign(changes string, by *openpgp.Signer) {
	m.Helper()
	data, err := os.ReadFile(changes)
	m.must(err)
	_, text, _ := strings.Cut(string(data), "\n\n")
	text, _, _ = strings.Cut(text, "-----BEGIN PGP SIGNATURE-----")
	signed, err := by.Clearsign([]byte(text), time.Now())
	m.must(err)
	m.must(os.WriteFile(changes, signed, 0o664))
}

// A key's right ends at the architectures that the settings give it, and what
// archived has published archived alone knows: a file in the item says nothing.
func TestWhoseSignatureCounts(t *testing.T) {
	t.Parallel()
	m := newMill(t)
	right := m.person("right", "sign=amd64")
	rows := []struct {
		name  string
		by    *openpgp.Signer
		where string
	}{
		{"another-arch", m.person("i386", "sign=i386"), "build-attempted"},
		{"may-upload-source", m.signer, "build-attempted"},
		{"another-package", m.person("narrow", "sign=amd64, packages=lib*"), "build-attempted"},
		{"a-person", right, "installed"},
	}
	for _, r := range rows {
		m.upload(uploadtest.Package{Source: r.name, Version: "1"})
	}
	m.once("reviewd")
	m.once("master-buildd")
	m.once("buildd-amd64")
	var want []string
	for _, r := range rows {
		changes := m.one("archive/incoming/stable/*_" + r.name + "_1_amd64/result/*.changes")
		m.resign(changes, r.by)
		m.must(os.WriteFile(filepath.Join(filepath.Dir(filepath.Dir(changes)), "published"), []byte("pool/x\n"), 0o664))
		want = append(want, r.where+" amd64 "+r.name+"_1", "installed source "+r.name+"_1")
	}
	m.want(m.settle(), want...)
	if records, _ := filepath.Glob(filepath.Join(m.tree, "archive/published/stable/*")); len(records) > 0 {
		t.Errorf("records of publications stay: %v", records)
	}
	m.sound()
}
