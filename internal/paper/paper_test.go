package paper_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"packmill/internal/deb822"
	"packmill/internal/openpgp"
	"packmill/internal/paper"
	"packmill/internal/regular"
)

const dsc = `Format: 3.0 (quilt)
Source: hello
Version: 2.10-3
-Odd: begins with a dash
Comment: -----BEGIN PGP SIGNATURE-----
Description: x
 - a list
 -- and a line of dashes
Checksums-Sha256:
 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 7 hello_2.10.orig.tar.gz
Files:
 bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb 7 hello_2.10.orig.tar.gz
`

// signed is the paper as our own signer, and as GnuPG, frame it.
func signed(t *testing.T, text string) [][]byte {
	t.Helper()
	s, err := openpgp.Generate("Alice", "alice@example.org", time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	ours, err := s.Clearsign([]byte(text), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	out := [][]byte{ours}
	gpg, err := exec.LookPath("gpg")
	if err != nil {
		t.Log("no gpg: only our own framing is tried")
		return out
	}
	home, err := os.MkdirTemp("", "gpg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run()
		os.RemoveAll(home)
	})
	run := func(in []byte, args ...string) []byte {
		cmd := exec.Command(gpg, append([]string{"--homedir", home, "--batch", "--quiet"}, args...)...)
		cmd.Stdin = bytes.NewReader(in)
		data, err := cmd.Output()
		if err != nil {
			t.Fatalf("gpg %v: %v", args, err)
		}
		return data
	}
	run(s.Secret(), "--import")
	return append(out, run([]byte(text), "--clearsign", "--digest-algo", "SHA512", "-o", "-"))
}

func TestTextIsWhatWasSigned(t *testing.T) {
	for _, text := range []string{dsc, "A: b\n", "A: b\n\n", "-A: b\n- -\n--- a\n-\n", "A: b \t\nC: d\n"} {
		want := ""
		for line := range strings.Lines(text) {
			want += strings.TrimRight(line, " \t\n") + "\n"
		}
		for _, data := range signed(t, text) {
			if got := string(paper.Text(data)); got != want {
				t.Errorf("text of\n%s\ngot  %q\nwant %q", data, got, want)
			}
		}
		if got := string(paper.Text([]byte(text))); got != text {
			t.Errorf("unsigned %q became %q", text, got)
		}
	}
}

// FuzzText holds it against the reader whose word counts: what was verified as
// one text must not be read later as another.
func FuzzText(f *testing.F) {
	const head = "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n"
	const tail = "-----BEGIN PGP SIGNATURE-----\n\nAAAA\n-----END PGP SIGNATURE-----\n"
	f.Add([]byte(head + "A: b\n" + tail))
	f.Add([]byte(head + "\n\n- -----BEGIN PGP SIGNATURE-----\nA: b \n" + tail))
	f.Add([]byte(head + "A: b\n" + tail + tail))
	f.Add([]byte(head + "A: b\n-----BEGIN PGP SIGNATURE----- \n" + tail))
	f.Add([]byte(head + "A: b\n" + strings.Replace(tail, "\n\n", "\nComment: -----BEGIN PGP SIGNATURE-----\n\n", 1)))
	f.Fuzz(func(t *testing.T, data []byte) {
		want, err := openpgp.ClearText(data)
		if err != nil {
			paper.Text(data) // it may say anything, and comes back
			return
		}
		if got := paper.Text(data); !bytes.Equal(got, want) {
			t.Errorf("%q:\ngot  %q\nwant %q", data, got, want)
		}
	})
}

func TestRead(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "hello_2.10-3.dsc")
	text := strings.Replace(dsc, "-Odd", "Odd", 1)
	if err := os.WriteFile(path, signed(t, text)[0], 0o644); err != nil {
		t.Fatal(err)
	}
	st, err := paper.Read(dir, filepath.Base(path))
	if err != nil || st.Get("Version") != "2.10-3" {
		t.Fatalf("got %v, %v", st, err)
	}
	if _, err := paper.Read(filepath.Dir(dir), filepath.Base(dir)); !errors.Is(err, regular.ErrNotRegular) {
		t.Errorf("a directory: got %v", err)
	}
	if err := os.Truncate(path, deb822.Hostile.Size+1); err != nil {
		t.Fatal(err)
	}
	if _, err := paper.Read(dir, filepath.Base(path)); !errors.Is(err, regular.ErrLarge) {
		t.Errorf("a file over the limit: got %v", err)
	}
	if err := os.WriteFile(path, []byte("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := paper.Read(dir, filepath.Base(path)); err == nil || !strings.Contains(err.Error(), "hello_2.10-3.dsc") {
		t.Errorf("a paper that is cut off: got %v", err)
	}
}

func TestSource(t *testing.T) {
	for field, want := range map[string][2]string{
		"hello": {"hello", ""}, "hello (2.10-3)": {"hello", "2.10-3"}, "": {"", ""},
		"hello (2.10-3": {"hello (2.10-3", ""}, "hello(1)": {"hello(1)", ""},
	} {
		if name, version := paper.Source(field); [2]string{name, version} != want {
			t.Errorf("%q: got %q %q, want %q", field, name, version, want)
		}
	}
}

func TestLists(t *testing.T) {
	a, b, c := strings.Repeat("a", 32), strings.Repeat("b", 40), strings.Repeat("c", 64)
	stanza := func(fields map[string]string) *deb822.Stanza {
		st := &deb822.Stanza{File: "x_1.changes"}
		for k, v := range fields {
			st.Set(k, v)
		}
		return st
	}
	good := map[string]string{
		"Files":            "\n" + a + " 7 libs optional x_1.deb",
		"Checksums-Sha1":   "\n" + b + " 7 x_1.deb",
		"Checksums-Sha256": "\n" + c + " 7 x_1.deb",
	}
	files, wrong := paper.Lists(stanza(good), paper.Long)
	want := []paper.File{{Name: "x_1.deb", Size: 7, MD5: a, SHA1: b, SHA256: c, Section: "libs", Priority: "optional"}}
	if diff := cmp.Diff(want, files); diff != "" || len(wrong) > 0 {
		t.Errorf("%s\n%q", diff, wrong)
	}
	for name, test := range map[string]struct {
		form         paper.Form
		field, value string
		want         string
	}{
		"form of a .dsc": {paper.Short, "", "", "not of the form"},
		"another size":   {paper.Long, "Checksums-Sha1", "\n" + b + " 8 x_1.deb", "of 8 bytes in Checksums-Sha1"},
		"size in octal":  {paper.Long, "Checksums-Sha1", "\n" + b + " 07 x_1.deb", "not of the form"},
		"negative size":  {paper.Long, "Checksums-Sha1", "\n" + b + " -7 x_1.deb", "not of the form"},
		"size of 2^63":   {paper.Long, "Checksums-Sha1", "\n" + b + " 9223372036854775808 x_1.deb", "not of the form"},
		"upper case": {paper.Long, "Checksums-Sha256", "\n" + strings.ToUpper(c) + " 7 x_1.deb",
			"64 lower hex digits"},
		"short sum": {paper.Long, "Checksums-Sha256", "\n" + b + " 7 x_1.deb", "64 lower hex digits"},
		"twice":     {paper.Long, "Checksums-Sha256", good["Checksums-Sha256"] + good["Checksums-Sha256"], "twice"},
		"one more": {paper.Long, "Checksums-Sha256", good["Checksums-Sha256"] + "\n" + c + " 7 y_1.deb",
			"y_1.deb is not in Files"},
		"one less":           {paper.Long, "Checksums-Sha256", "\n", "x_1.deb is not in Checksums-Sha256"},
		"no SHA-256":         {paper.Long, "Checksums-Sha256", "", "no field Checksums-Sha256"},
		"a path":             {paper.Long, "all", "a/x_1.deb", "slash"},
		"a name that climbs": {paper.Long, "all", "../x_1.deb", "begins with"},
		"no underscore":      {paper.Long, "all", "passwd", "underscore"},
		"an option":          {paper.Long, "all", "-x_1.deb", "begins with"},
	} {
		fields := map[string]string{}
		for k, v := range good {
			fields[k] = v
			if test.field == "all" {
				fields[k] = strings.ReplaceAll(v, "x_1.deb", test.value)
			}
		}
		if test.field != "" {
			fields[test.field] = test.value
		}
		if _, err := paper.Files(stanza(fields), test.form, paper.SHA256); err == nil ||
			!strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}
}
