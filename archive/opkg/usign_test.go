package opkg_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"packmill/archive/opkg"
)

// TestSignify exchanges keys and signatures with the real program, both ways.
func TestSignify(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	msg := write("msg", []byte("Package: hello\n"))

	ours, err := opkg.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	write("ours.pub", ours.Public())
	write("ours.sec", ours.Secret())
	write("msg.ours", ours.Sign([]byte("Package: hello\n")))
	run(t, dir, "signify-openbsd", "-V", "-p", "ours.pub", "-x", "msg.ours", "-m", msg)
	run(t, dir, "signify-openbsd", "-S", "-s", "ours.sec", "-x", "msg.theirs", "-m", msg)
	if err := ours.Verify([]byte("Package: hello\n"), []byte(read(t, filepath.Join(dir, "msg.theirs")))); err != nil {
		t.Errorf("signify's signature with our key: %v", err)
	}
	if err := exec.Command("signify-openbsd", "-V", "-p", filepath.Join(dir, "ours.pub"), "-x",
		filepath.Join(dir, "msg.ours"), "-m", write("msg2", []byte("Package: hullo\n"))).Run(); err == nil {
		t.Error("signify accepts a signature over other bytes")
	}

	run(t, dir, "signify-openbsd", "-G", "-n", "-p", "theirs.pub", "-s", "theirs.sec")
	theirs, err := opkg.ReadKey(filepath.Join(dir, "theirs.sec"))
	if err != nil {
		t.Fatal(err)
	}
	write("msg.2", theirs.Sign([]byte("Package: hello\n")))
	run(t, dir, "signify-openbsd", "-V", "-p", "theirs.pub", "-x", "msg.2", "-m", msg)
	if err := theirs.Verify([]byte("Package: hello\n"), theirs.Sign([]byte("Package: hello\n"))); err != nil {
		t.Error(err)
	}
	if err := theirs.Verify([]byte("Package: hello\n"), ours.Sign([]byte("Package: hello\n"))); err == nil ||
		!strings.HasPrefix(err.Error(), "signed by key "+ours.Fingerprint()) {
		t.Errorf("another key: got %v", err)
	}

	again, err := opkg.ParseKey(ours.Secret())
	if err != nil || string(again.Public()) != string(ours.Public()) {
		t.Errorf("ParseKey of Secret: %v", err)
	}
}

func TestBadKeys(t *testing.T) {
	t.Parallel()
	k, err := opkg.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	good := string(k.Secret())
	comment, body, _ := strings.Cut(good, "\n")
	for name, tt := range map[string]struct{ text, want string }{
		"empty":      {"", "is not a line"},
		"no comment": {body, "is not a line"},
		"two lines":  {good + "more\n", "is not a line"},
		"public key": {string(k.Public()), "is not the base64 of 104 bytes"},
		"not base64": {comment + "\n!!!!\n", "is not the base64 of 104 bytes"},
		"flipped":    {comment + "\n" + body[:60] + swap(body[60:61]) + body[61:], "the secret key is damaged"},
		"passphrase": {comment + "\nRWRCSwAAACo" + body[11:], "the secret key has a passphrase"},
	} {
		if _, err := opkg.ParseKey([]byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %s", name, err, tt.want)
		}
	}
}

func swap(c string) string {
	if c == "A" {
		return "B"
	}
	return "A"
}
