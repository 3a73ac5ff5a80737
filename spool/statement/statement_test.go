package statement

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"packmill/internal/openpgp"
)

// let makes a tree with a key and an item in it that was let in.
func let(t *testing.T) (root, item string, s *Statement) {
	t.Helper()
	root = t.TempDir()
	item = filepath.Join(root, "item")
	if err := MakeKey(root); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(item, 0o755); err != nil {
		t.Fatal(err)
	}
	s = &Statement{
		Source: "hello", Version: "1:2.0-1", Suite: "stable", Suites: []string{"stable", "testing"}, Component: "main",
		Dsc: "hello_2.0-1.dsc", Changes: "hello_2.0-1_source.changes", Received: time.Now().UTC(), Uploader: "Up Loader",
		Rights:   "source",
		Packages: []string{"hello", "hello-doc"}, TakesOver: []string{"hello-doc=docs"},
	}
	for _, name := range []string{s.Changes, s.Dsc, "hello_2.0.orig.tar.gz"} {
		data := []byte("this is " + name)
		if err := os.WriteFile(filepath.Join(item, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(data)
		s.Files = append(s.Files, Sum{name, int64(len(data)), hex.EncodeToString(sum[:])})
	}
	key, err := OpenKey(root)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := s.Sign(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(item, File), signed, 0o644); err != nil {
		t.Fatal(err)
	}
	return root, item, s
}

// TestStatement: what was let in is taken, and whatever was done to it since is
// refused with a sentence that names it.
func TestStatement(t *testing.T) {
	write := func(name, text string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove := func(name string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	link := func(t *testing.T, dir string) {
		remove("hello_2.0-1.dsc")(t, dir)
		if err := os.Symlink("hello_2.0.orig.tar.gz", filepath.Join(dir, "hello_2.0-1.dsc")); err != nil {
			t.Fatal(err)
		}
	}
	edit := func(old, new string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			data, err := os.ReadFile(filepath.Join(dir, File))
			if err != nil || !bytes.Contains(data, []byte(old)) {
				t.Fatalf("no %q: %v", old, err)
			}
			write(File, strings.Replace(string(data), old, new, 1))(t, dir)
		}
	}
	foreign := func(t *testing.T, dir string) {
		key, err := openpgp.Generate("reviewd", "reviewd@packmill.invalid", time.Now().Add(-time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(filepath.Join(dir, File))
		if err != nil {
			t.Fatal(err)
		}
		text, err := openpgp.ClearText(data)
		if err != nil {
			t.Fatal(err)
		}
		if data, err = key.Clearsign(text, time.Now()); err != nil {
			t.Fatal(err)
		}
		write(File, string(data))(t, dir)
	}
	for _, tc := range []struct {
		name          string
		version       string
		suite         string
		change        func(t *testing.T, dir string)
		want, wantsrc string // the refusals of Verify and of CopySource
	}{
		{name: "as it was let in"},
		{name: "in the other suite that it may go to", suite: "testing"},
		{name: "in a suite without the right", suite: "sid",
			want: "Up Loader may not upload it to sid: the statement allows stable, testing"},
		{name: "of another version", version: "1:2.0-2", want: "is about hello 1:2.0-1, not about hello 1:2.0-2"},
		{name: "none", change: remove(File), want: "there is no statement of reviewd with it"},
		{name: "another key's", change: foreign, want: "its statement is not reviewd's"},
		{name: "another word", change: edit("Source: hello", "Source: hullo"), want: "its statement is not reviewd's"},
		{name: "one more suite", change: edit("Suites: stable", "Suites: sid stable"),
			want: "its statement is not reviewd's"},
		{name: "words before it", change: edit("-----BEGIN PGP SIGNED", "Suites: sid\n-----BEGIN PGP SIGNED"),
			want: "its statement is not reviewd's"},
		{name: "another .dsc", change: write("hello_2.0-1.dsc", "this is hello_2.0-1.dsC"),
			want: "hello_2.0-1.dsc is not the file that was let in: its SHA-256 differs", wantsrc: "hello_2.0-1.dsc"},
		{name: "a longer .dsc", change: write("hello_2.0-1.dsc", "this is longer than it was"),
			want: "hello_2.0-1.dsc is not the file of 23 bytes", wantsrc: "hello_2.0-1.dsc"},
		{name: "another .changes", change: write("hello_2.0-1_source.changes", "this is hello_2.0-1_source.changeS"),
			want: "hello_2.0-1_source.changes is not the file"},
		{name: "no tarball", change: remove("hello_2.0.orig.tar.gz"), want: "hello_2.0.orig.tar.gz is not there (any more)",
			wantsrc: "hello_2.0.orig.tar.gz"},
		{name: "a link", change: link, want: "hello_2.0-1.dsc is not there (any more) as a regular file",
			wantsrc: "hello_2.0-1.dsc"},
		{name: "one more file", change: write("bash_99_amd64.deb", "x"),
			want: "bash_99_amd64.deb lies with it, which was not let in"},
		{name: "our own records", change: write("ticket", "x")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root, item, s := let(t)
			if tc.change != nil {
				tc.change(t, item)
			}
			ring, err := OpenRing(root)
			if err != nil {
				t.Fatal(err)
			}
			if tc.version == "" {
				tc.version = s.Version
			}
			if tc.suite == "" {
				tc.suite = "stable"
			}
			got, err := ring.Of(item, "hello", tc.version, tc.suite)
			if err == nil {
				err = got.Verify(item)
			}
			if r := Refused(err); tc.want == "" && err != nil || !strings.Contains(r, tc.want) || (r == "") != (tc.want == "") {
				t.Errorf("got %v, want a refusal with %q", err, tc.want)
			}
			if got == nil {
				return
			}
			to := filepath.Join(root, "source")
			if r := Refused(got.CopySource(item, to)); !strings.Contains(r, tc.wantsrc) || (r == "") != (tc.wantsrc == "") {
				t.Errorf("copy: got %q, want %q", r, tc.wantsrc)
			}
			if entries, _ := os.ReadDir(to); tc.wantsrc == "" && len(entries) != 2 {
				t.Errorf("the copy has %v, want the .dsc and its tarball", entries)
			}
		})
	}
}

// TestGpgv: GnuPG verifies a statement by the public half.
func TestGpgv(t *testing.T) {
	root, item, s := let(t)
	public, err := os.ReadFile(filepath.Join(root, PublicFile))
	if err != nil {
		t.Fatal(err)
	}
	ring := filepath.Join(root, "ring.gpg")
	cmd := exec.Command("gpg", "--dearmor", "--output", ring)
	cmd.Stdin = bytes.NewReader(public)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("gpg --dearmor: %v\n%s", err, out)
	}
	out, err := exec.Command("gpgv", "--keyring", ring, "--output", "-", filepath.Join(item, File)).Output()
	if err != nil || !strings.Contains(string(out), "Source: "+s.Source+"\n") ||
		!strings.Contains(string(out), s.Files[2].SHA256) {
		t.Errorf("gpgv: %v\n%s", err, out)
	}
}

// TestKeyStays: a second call makes no other key, and one that was cut off between
// the halves is completed.
func TestKeyStays(t *testing.T) {
	root, item, _ := let(t)
	if err := os.Remove(filepath.Join(root, PublicFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenRing(root); err == nil || !strings.Contains(err.Error(), "packmill init") {
		t.Errorf("without the public half: %v, want the cure", err)
	}
	for range 2 {
		if err := MakeKey(root); err != nil {
			t.Fatal(err)
		}
	}
	ring, err := OpenRing(root)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ring.Read(item); err != nil {
		t.Error(err)
	}
	st, err := os.Stat(filepath.Join(root, SecretFile))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the secret half: %v, %v; want mode 600", st.Mode(), err)
	}
}
