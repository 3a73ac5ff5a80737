package stories

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"packmill/internal/openpgp"
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
	m.must(os.WriteFile(path,
		append(old, "\nName: "+name+"\nFingerprint: "+s.Fingerprint()+"\nEmail: "+name+"@example.org\nAllow: "+allow+"\n"...), 0o644))
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

// gnupgHome is a GnuPG home with a key of that person, and its fingerprint.
func (m *mill) gnupgHome(name string) (home, fingerprint string) {
	m.Helper()
	home, err := os.MkdirTemp("/tmp", "gpg") // the socket of its agent wants a short path
	m.must(err)
	m.Cleanup(func() {
		exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run()
		os.RemoveAll(home)
	})
	gpg := func(args ...string) string {
		out, err := exec.Command("gpg",
			append([]string{"--homedir", home, "--batch", "--pinentry-mode", "loopback", "--passphrase", ""},
				args...)...).Output()
		if err != nil {
			m.Fatalf("gpg %q: %v (install gnupg if it is missing)", args, err)
		}
		return string(out)
	}
	gpg("--quick-gen-key", name+" <"+name+"@example.org>", "ed25519", "sign", "never")
	m.must(os.WriteFile(filepath.Join(m.tree, "control/keys", name+".asc"), []byte(gpg("--armor", "--export")), 0o644))
	_, fpr, _ := strings.Cut(gpg("--with-colons", "--list-keys"), "\nfpr:::::::::")
	return home, fpr[:40]
}

// What a person can say by mail can be said on the server; gpg signs, or a file
// that was signed elsewhere is taken.
func TestBuildCommands(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	t.Parallel()
	m := newMill(t, "Log-Review: manual", "Architectures: amd64 i386", "Publish: source-first")
	bob := m.person("bob", "sign=amd64")
	home, fpr := m.gnupgHome("ann")
	path := filepath.Join(m.tree, "control/uploaders")
	old, err := os.ReadFile(path)
	m.must(err)
	m.must(os.WriteFile(path, append(old, "\nName: ann\nFingerprint: "+fpr+"\nAllow: sign=amd64\n"...), 0o644))
	builder, err := openpgp.ReadSigner(filepath.Join(m.tree, "control/private/builder.key"))
	m.must(err)
	names := []string{"bygpg", "byfile", "bad", "retry", "waits", "back", "nfu", "wrong"}
	for _, n := range names {
		m.upload(uploadtest.Package{Source: n, Version: "2:1.0"})
	}
	m.script("bad_2%3a1.0_amd64", "fail cannot find -lfrob")
	m.once("reviewd")
	m.once("master-buildd")
	m.once("buildd-amd64")
	m.once("buildd-i386")

	if got := m.packmill("build", "-a", "amd64"); strings.Count(got, "\n") != 1+len(names) ||
		strings.Contains(got, "i386") {
		t.Errorf("packmill build:\n%s", got)
	}
	if got := m.packmill("build", "show", "bad", "-a", "amd64"); !strings.Contains(got, "cannot find -lfrob") ||
		!strings.Contains(got, "packmill build fail -m TEXT") {
		t.Errorf("packmill build show:\n%s", got)
	}
	// gpg is the caller's.
	gnupg := func(args ...string) (string, error) {
		cmd := exec.Command(filepath.Join(bin, "packmill"), append([]string{"--tree", m.tree, "build"}, args...)...)
		cmd.Env = append(os.Environ(), "GNUPGHOME="+home)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	refused := func(out string, err error, want string) {
		t.Helper()
		if err == nil || err.(*exec.ExitError).ExitCode() != 1 || !strings.Contains(out, want) {
			t.Errorf("got %v, want exit status 1 and %q:\n%s", err, want, out)
		}
	}
	built := func(n, arch string) string {
		return m.one("queue/stable/" + arch + "/built/*_" + n + "_*/result/*.changes")
	}
	signed := func(n string, by *openpgp.Signer, edit func(string) string) string {
		data, err := os.ReadFile(built(n, "amd64"))
		m.must(err)
		out, err := by.Clearsign([]byte(edit(string(data))), time.Now())
		m.must(err)
		file := filepath.Join(m.home, n+".changes")
		m.must(os.WriteFile(file, out, 0o644))
		return file
	}
	same := func(s string) string { return s }

	out, err := gnupg("sign", "bygpg", "-a", "i386")
	refused(out, err, "allows sign=i386 count")
	before, err := os.ReadFile(built("bygpg", "i386"))
	m.must(err)
	if openpgp.IsSigned(before) {
		t.Error("a signature that does not count stands in the job")
	}
	if out, err = gnupg("sign", "bygpg", "-a", "amd64", "--dry-run"); err != nil || !strings.Contains(out, "would do") ||
		m.stateOf("bygpg") != "built" {
		t.Errorf("dry run: %v\n%s", err, out)
	}
	if out, err = gnupg("sign", "bygpg_2:1.0", "-a", "amd64"); err != nil || m.stateOf("bygpg") != "uploaded" {
		t.Errorf("sign with gpg: %v\n%s", err, out)
	}
	out, err = m.try("build", "sign", "wrong", "-a", "amd64", "--with", signed("wrong", bob, func(s string) string {
		return strings.Replace(s, "Urgency: ", "Urgency: very-", 1)
	}))
	refused(out, err, "is not the .changes that this build made")
	if data, err := os.ReadFile(built("wrong", "amd64")); err != nil || openpgp.IsSigned(data) {
		t.Errorf("the job's own .changes was replaced: %v", err)
	}
	out, err = m.try("build", "sign", "wrong", "-a", "amd64", "--with", signed("wrong", builder, same))
	refused(out, err, "keys of the people whom control/uploaders allows sign=amd64 count")
	out, err = m.try("build", "sign", "wrong", "-a", "amd64", "--with", built("wrong", "amd64"))
	refused(out, err, "no OpenPGP signature")
	out, err = m.try("build", "sign", "nothing")
	refused(out, err, "nothing here is called nothing")
	out, err = m.try("build", "sign", "bad", "-a", "amd64")
	refused(out, err, "build-attempted")
	// An earlier run that was cut off between signature and move is carried on.
	file := signed("byfile", bob, same)
	data, err := os.ReadFile(file)
	m.must(err)
	m.must(os.WriteFile(built("byfile", "amd64"), data, 0o664))
	m.packmill("build", "sign", "byfile", "-a", "amd64", "--with", file)
	m.packmill("build", "fail", "bad", "-a", "amd64", "-m", "no frob")
	m.packmill("build", "retry", "retry", "-a", "amd64")
	m.packmill("build", "dep-wait", "waits", "-a", "amd64", "-m", "libnone (>= 3)")
	m.packmill("build", "giveback", "back", "-a", "amd64")
	if got := m.packmill("build", "not-for-us", "nfu", "-a", "amd64", "--json"); !strings.Contains(got, `"to":"not-for-us"`) {
		t.Errorf("--json: %s", got)
	}
	for n, want := range map[string]string{"byfile": "uploaded", "bad": "failed", "retry": "needs-build",
		"waits": "dep-wait", "back": "needs-build", "nfu": "not-for-us", "wrong": "built"} {
		if got := m.stateOf(n); got != want {
			t.Errorf("%s is in %s, want %s", n, got, want)
		}
	}
	// The builder's own signature is not a person's, wherever it was put on.
	changes := m.one("archive/incoming/stable/*_byfile_*_amd64/result/*.changes")
	m.resign(changes, builder)
	m.once("archived")
	if got, other := m.stateOf("byfile"), m.stateOf("bygpg"); got != "build-attempted" || other != "installed" {
		t.Errorf("signed by the builder: in %s; by a person: in %s", got, other)
	}
	m.sound()
}

// A builder signs with a key that gpg-agent holds.
func TestBuilderWithAgent(t *testing.T) {
	m := newMill(t)
	home, fpr := m.gnupgHome("agent")
	t.Setenv("GNUPGHOME", home)
	m.control("builders",
		"Name: b1\nArchitectures: amd64 all\nFingerprint: "+fpr+"\nKey: gpg:"+fpr+"\nRunner: exec "+m.home+"/fakebuilder")
	m.upload(uploadtest.Package{Source: "hello", Version: "1"})
	m.want(m.settle(), "installed amd64 hello_1", "installed source hello_1")
}
