package upload_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"packmill/internal/deb/debtest"
	"packmill/internal/openpgp"
	"packmill/internal/policy"
	"packmill/spool/upload"
	"packmill/spool/upload/corpus"
)

// judge writes an upload and reads it.
func judge(t testing.TB, p pkg, c *upload.Context) (*upload.Upload, []upload.Finding) {
	t.Helper()
	dir, err := os.MkdirTemp(t.TempDir(), "u")
	if err != nil {
		t.Fatal(err)
	}
	if p.Source == "" {
		p.Source = "fresh"
	}
	if p.Version == "" {
		p.Version = "1.0-1"
	}
	p.Date = now
	name, err := p.Write(dir)
	if err != nil {
		t.Fatal(err)
	}
	up, findings, err := upload.Read(t.Context(), dir, name, c)
	if err != nil {
		t.Fatal(err)
	}
	return up, findings
}

// TestNamesInFields: every odd name in every field that could become a path, a word of
// a command line or a line of a mail: none passes, none shows its bytes, and nothing
// is written anywhere.
func TestNamesInFields(t *testing.T) {
	t.Parallel()
	w := theWorld()
	odd := []string{
		"../x", "/etc/passwd", "..", ".", "-x", "a b", "$(id)", "`id`", "a;b", "a|b", "a\u202eb", "a\u0085b", "a\u009bb", "%s%n", "<b>", "a\\b", "a*", "~root", "a\u00a0b", strings.Repeat("a", 300),
	}
	fields := []struct{ name, from, to string }{
		{"Source", "Source: fresh\n", "Source: %s\n"},
		{"Version", "\nVersion: 1.0-1\n", "\nVersion: %s\n"},
		{"Distribution", "Distribution: stable\n", "Distribution: %s\n"},
		{"Architecture", "Architecture: source\n", "Architecture: source %s\n"},
		{"Maintainer", "Maintainer: Test Person <test@example.org>\n", "Maintainer: %s\n"},
		{"Changed-By", "Changed-By: Test Person <test@example.org>\n", "Changed-By: Test <test@%s>\n"},
		{"Closes", "Changes:\n", "Closes: %s\nChanges:\n"},
		{"Date", "Date: Sat, 21 Nov 2026", "Date: %s"},
		{"Section", " misc optional fresh_1.0-1.dsc", " %s optional fresh_1.0-1.dsc"},
		{"Files", " misc optional fresh_1.0-1.dsc", " misc optional %s"},
	}
	for _, f := range fields {
		for _, o := range odd {
			if f.name == "Closes" && o == "." {
				continue
			}
			p := pkg{Signer: w.Ann, Changes: corpus.Sub(f.from, fmt.Sprintf(f.to, o))}
			_, findings := judge(t, p, w.Context())
			if upload.Worst(findings) < upload.Error {
				t.Errorf("%s: %q passes: %v", f.name, o, findings)
			}
			for _, x := range findings {
				for _, c := range x.Text {
					if c < 0x20 || c > 0x7e {
						t.Errorf("%s: %q: a finding holds %q", f.name, o, c)
					}
				}
				if len(x.Text) > 1000 {
					t.Errorf("%s: %q: a finding of %d bytes", f.name, o, len(x.Text))
				}
			}
		}
	}
	for _, f := range []struct{ name, from, to string }{
		{"Source", "Source: fresh\n", "Source: %s\n"},
		{"Version", "\nVersion: 1.0-1\n", "\nVersion: %s\n"},
		{"Format", "Format: 3.0 (quilt)\n", "Format: %s\n"},
		{"Binary", "Binary: fresh\n", "Binary: %s\n"},
		{"Architecture", "Architecture: any\n", "Architecture: %s\n"},
		{"Build-Depends", "Architecture: any\n", "Architecture: any\nBuild-Depends: %s\n"},
	} {
		for _, o := range odd {
			if f.name == "Build-Depends" && o == "a|b" || f.name == "Architecture" && o == "a b" {
				continue // good there
			}
			_, findings := judge(t, pkg{Signer: w.Ann, Dsc: corpus.Sub(f.from, fmt.Sprintf(f.to, o))}, w.Context())
			if upload.Worst(findings) < upload.Error {
				t.Errorf(".dsc %s: %q passes: %v", f.name, o, findings)
			}
		}
	}
}

// TestReplay: whatever somebody without the key changes about a signed .changes, it is either
// refused or has the hash that the ledger knows.
func TestReplay(t *testing.T) {
	w := theWorld()
	first, findings := judge(t, pkg{Signer: w.Ann}, w.Context())
	if len(findings) > 0 {
		t.Fatal(findings)
	}
	c := w.Context()
	c.Seen = func(hash string) (string, bool) { return "accepted", hash == first.Hash }
	begin := "-----BEGIN PGP SIGNATURE-----\n"
	variants := map[string]func(string) string{
		"as it was":       func(s string) string { return s },
		"blanks at ends":  func(s string) string { return strings.Replace(s, "Source: fresh\n", "Source: fresh  \t\n", 1) },
		"dashes escaped":  func(s string) string { return strings.Replace(s, "\nSource: ", "\n- Source: ", 1) },
		"armor header":    func(s string) string { return strings.Replace(s, begin, begin+"Comment: new\n", 1) },
		"no last newline": func(s string) string { return strings.TrimSuffix(s, "\n") },
		"checksum gone": func(s string) string {
			i := strings.LastIndex(s, "\n=")
			return s[:i] + s[i+6:]
		},
		"longer lines": func(s string) string {
			head, sig, _ := strings.Cut(s, begin)
			body, sum, _ := strings.Cut(strings.TrimPrefix(sig, "\n"), "\n=")
			flat := strings.ReplaceAll(body, "\n", "")
			var b strings.Builder
			for len(flat) > 0 {
				n := min(48, len(flat))
				b.WriteString(flat[:n] + "\n")
				flat = flat[n:]
			}
			return head + begin + "\n" + b.String() + "=" + sum
		},
		"empty line at the end": func(s string) string { return strings.Replace(s, "\n"+begin, "\n\n"+begin, 1) },
		"CRLF":                  func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") },
	}
	heard := 0
	for name, change := range variants {
		p := pkg{Signer: w.Ann, Signed: func(b []byte) []byte { return []byte(change(string(b))) }}
		_, findings := judge(t, p, c)
		if upload.Worst(findings) < upload.Error {
			t.Errorf("%s: passes again", name)
		}
		for _, f := range findings {
			if f.Check == "replay" {
				heard++
			}
		}
	}
	if heard < 6 {
		t.Errorf("the ledger was asked about %d variants only", heard)
	}
}

// TestVersionOrder: an upload passes exactly if it is newer than all that the suite has
// and its files bear new names.
func TestVersionOrder(t *testing.T) {
	t.Parallel()
	w := theWorld()
	version := rapid.Custom(func(t *rapid.T) string {
		v := rapid.StringMatching(`[0-9]{1,2}(\.[0-9a-c~+]{1,3})?-[0-9]{1,2}`).Draw(t, "v")
		if e := rapid.IntRange(0, 2).Draw(t, "epoch"); e > 0 {
			v = fmt.Sprintf("%d:%s", e, v)
		}
		return v
	})
	rapid.Check(t, func(rt *rapid.T) {
		have := rapid.SliceOfN(version, 0, 3).Draw(rt, "have")
		v := version.Draw(rt, "new")
		want := true
		for _, h := range have {
			if policy.CompareVersions(v, h) <= 0 || policy.WithoutEpoch(v) == policy.WithoutEpoch(h) {
				want = false
			}
		}
		c := w.Context()
		c.Published = func(suite, _ string) ([]string, error) {
			if suite == "stable" {
				return have, nil
			}
			return nil, nil
		}
		_, findings := judge(t, pkg{Signer: w.Ann, Version: v}, c)
		if got := upload.Worst(findings) < upload.Error; got != want {
			rt.Fatalf("%s over %q: passes is %v, want %v: %v", v, have, got, want, findings)
		}
	})
}

// TestRevokedHalfWay: an upload that passed is refused when it is read again after its
// key was revoked.
func TestRevokedHalfWay(t *testing.T) {
	w := theWorld()
	dir := t.TempDir()
	name, err := pkg{Source: "fresh", Version: "1.0-1", Signer: w.Ann, Date: now}.Write(dir)
	if err != nil {
		t.Fatal(err)
	}
	c := w.Context()
	if _, findings, err := upload.Read(t.Context(), dir, name, c); err != nil || len(findings) > 0 {
		t.Fatal(findings, err)
	}
	if c.Keyring, err = openpgp.ReadKeyring(w.Bob.Public()); err != nil {
		t.Fatal(err)
	}
	if _, findings, err := upload.Read(t.Context(), dir, name, c); err != nil || upload.Worst(findings) < upload.Error {
		t.Errorf("key taken out of the keyring: got %v, %v", findings, err)
	}
}

// TestSums: what Take found is believed, and nothing else is.
func TestSums(t *testing.T) {
	w := theWorld()
	dir, c := t.TempDir(), w.Context()
	name, err := pkg{Source: "fresh", Version: "1.0-1", Signer: w.Ann, Date: now}.Write(dir)
	if err != nil {
		t.Fatal(err)
	}
	c.Sums = map[string]upload.Sums{"fresh_1.0.orig.tar.gz": {Size: 1, SHA256: "00"}}
	_, findings, err := upload.Read(t.Context(), dir, name, c)
	if err != nil || len(findings) != 1 || findings[0].Check != "checksum" {
		t.Errorf("got %v, %v, want one finding of checksum", findings, err)
	}
}

// TestSwappedDsc: who can write to the item puts another .dsc, of the same key, into the place of
// the one whose sum was taken. What is judged is what is stated: it is refused, and the sum of
// the .changes is that of the bytes that were read.
func TestSwappedDsc(t *testing.T) {
	w := theWorld()
	c, dirs, names := w.Context(), [2]string{t.TempDir(), t.TempDir()}, [2]string{}
	for i, section := range []string{"misc", "admin"} {
		var err error
		p := pkg{Source: "fresh", Version: "1.0-1", Section: section, Signer: w.Ann, Date: now}
		if names[i], err = p.Write(dirs[i]); err != nil {
			t.Fatal(err)
		}
	}
	dsc := filepath.Join(dirs[0], "fresh_1.0-1.dsc")
	sum, err := upload.Sum(t.Context(), dirs[0], "fresh_1.0-1.dsc", upload.TakeOptions{MD5: true, SHA1: true})
	if err != nil {
		t.Fatal(err)
	}
	c.Sums = map[string]upload.Sums{"fresh_1.0-1.dsc": sum}
	up, findings, err := upload.Read(t.Context(), dirs[0], names[0], c)
	if err != nil || len(findings) > 0 {
		t.Fatal(findings, err)
	}
	if want, err := upload.Sum(t.Context(), dirs[0], names[0], upload.TakeOptions{}); err != nil || up.Read != want {
		t.Errorf("the sum of the .changes is %v, want %v (%v)", up.Read, want, err)
	}
	if err := os.Rename(filepath.Join(dirs[1], "fresh_1.0-1.dsc"), dsc); err != nil {
		t.Fatal(err)
	}
	up, findings, err = upload.Read(t.Context(), dirs[0], names[0], c)
	if err != nil || upload.Worst(findings) < upload.Error || up.Dsc != nil {
		t.Errorf("another .dsc in the place of the one that was summed: got %v, %v", findings, err)
	}
}

// TestBombIsCheap: a bomb costs neither memory nor time in proportion to what it claims.
func TestBombIsCheap(t *testing.T) {
	t.Parallel()
	w := theWorld()
	began := time.Now()
	for name, bomb := range map[string]func() []byte{"sparse": corpus.SparseBomb, "xz": corpus.XzBomb,
		"dictionary": corpus.BigDictionary} {
		p := pkg{Signer: w.Ann, Packing: "xz", Tarball: func(which string, packed []byte) []byte {
			if which == "orig" {
				return bomb()
			}
			return packed
		}}
		if name == "sparse" {
			p.Packing = "gz"
		}
		if _, findings := judge(t, p, w.Context()); upload.Worst(findings) < upload.Error {
			t.Errorf("%s: passes", name)
		}
	}
	if d := time.Since(began); d > time.Minute {
		t.Errorf("three bombs took %v", d)
	}
}

// FuzzParse: no text panics the parsers, and what they accept keeps its promises.
func FuzzParse(f *testing.F) {
	w := theWorld()
	dir := f.TempDir()
	name, err := pkg{Source: "fresh", Version: "1.0-1", Signer: w.Ann, Date: now}.Write(dir)
	if err != nil {
		f.Fatal(err)
	}
	for _, n := range []string{name, "fresh_1.0-1.dsc"} {
		data, err := os.ReadFile(filepath.Join(dir, n))
		if err != nil {
			f.Fatal(err)
		}
		text, _, err := w.Keyring.VerifyClear(data, now)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte("Files:\n" + strings.Repeat(" d41d8cd98f00b204e9800998ecf8427e 0 a b c_1\n", 3)))
	f.Add([]byte("Source: a (1)\nFiles:\n x\nChecksums-Sha256: y\n"))
	scratch := f.TempDir()
	account := w.Context()
	account.Account = "dora"
	f.Fuzz(func(t *testing.T, text []byte) {
		check := func(files []upload.File) {
			seen := map[string]bool{}
			for _, x := range files {
				if seen[x.Name] || x.Size < 0 || x.MD5 == "" || x.SHA256 == "" {
					t.Fatalf("accepted %+v", x)
				}
				seen[x.Name] = true
			}
		}
		if c, err := upload.ParseChanges("x_1.changes", text); err == nil {
			if policy.CheckSource(c.Source) != nil || policy.CheckVersion(c.Version) != nil || len(c.Files) == 0 {
				t.Fatalf("accepted %+v", c)
			}
			check(c.Files)
		}
		if d, err := upload.ParseDsc("x_1.dsc", text); err == nil {
			check(d.Files)
		}
		// The whole way, as an account that need not sign would send it.
		put(t, filepath.Join(scratch, "x_1_source.changes"), text)
		if files, err := upload.Peek(scratch, "x_1_source.changes"); err == nil {
			for _, x := range files {
				if policy.CheckFile(x.Name) != nil {
					t.Fatalf("Peek gave the name %q", x.Name)
				}
			}
		}
		_, findings, err := upload.Read(t.Context(), scratch, "x_1_source.changes", account)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range findings {
			for _, c := range x.Text {
				if c < 0x20 || c > 0x7e {
					t.Fatalf("a finding holds %q: %q", c, x.Text)
				}
			}
		}
	})
}

// FuzzTarball: no bytes in place of a tarball or a diff panic the listing, or make it say
// anything unprintable.
func FuzzTarball(f *testing.F) {
	w := theWorld()
	const gz, xz, diff = 0, 1, 2
	for kind, how := range []string{"gz", "xz"} {
		var raw bytes.Buffer
		tw := tar.NewWriter(&raw)
		for _, h := range []tar.Header{
			{Typeflag: tar.TypeDir, Name: "fresh-1.0/", Mode: 0o755},
			{Typeflag: tar.TypeSymlink, Name: "fresh-1.0/link", Linkname: "../x", Mode: 0o777},
			{Typeflag: tar.TypeReg, Name: "fresh-1.0/debian/changelog", Mode: 0o644},
		} {
			h.ModTime = now
			if err := tw.WriteHeader(&h); err != nil {
				f.Fatal(err)
			}
		}
		tw.Close()
		// Mostly the text itself is bent, and packed whole.
		f.Add(byte(kind), true, raw.Bytes())
		packed := debtest.Pack(how, raw.Bytes())
		f.Add(byte(kind), false, packed)
	}
	f.Add(byte(gz), false, corpus.SparseBomb())
	f.Add(byte(xz), false, corpus.BigDictionary())
	f.Add(byte(diff), true,
		[]byte("--- a/x\n+++ b/debian/changelog\n@@ -0,0 +1,2 @@\n+fresh (1.0-1) stable; urgency=low\n+\n"))
	f.Add(byte(diff), true, []byte("+++ /etc/x\n@@ -1,99999999999 +1,-3 @@\n-x\n@@\n\\ No newline\n"))
	f.Fuzz(func(t *testing.T, kind byte, pack bool, data []byte) {
		p := pkg{Signer: w.Ann, Packing: "gz", Version: "4"}
		switch kind % 3 {
		case xz:
			p.Packing = "xz"
		case diff:
			p.Version, p.Format = "1.0-1", "1.0"
		}
		if pack {
			packed := debtest.Pack(p.Packing, data)
			data = packed
		}
		p.Tarball = func(which string, packed []byte) []byte {
			if which == "native" || which == "diff" {
				return data
			}
			return packed
		}
		_, findings := judge(t, p, w.Context())
		for _, x := range findings {
			for _, c := range x.Text {
				if c < 0x20 || c > 0x7e {
					t.Fatalf("a finding holds %q: %q", c, x.Text)
				}
			}
		}
	})
}

// FuzzCommands: no text panics the parser of .commands, and what it accepts is safe.
func FuzzCommands(f *testing.F) {
	f.Add([]byte("Archive: x\nCommands:\n rm --searchdirs a_1.dsc DELAYED/3-day/b_*.deb\n cancel a_1.changes\n" +
		" reschedule a_1.changes 3-day\n"))
	f.Add([]byte("Commands: rm [a-\n"))
	c := theWorld().Context()
	c.Account = "dora"
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text []byte) {
		put(t, filepath.Join(dir, "x.commands"), text)
		got, findings, err := upload.ParseCommands(dir, "x.commands", c)
		if err != nil {
			t.Fatal(err)
		}
		for _, cmd := range got.List {
			if cmd.Pattern == "" || strings.ContainsAny(cmd.Pattern, "/\\\x00\n") || cmd.Pattern[0] == '.' ||
				cmd.Pattern[0] == '-' ||
				cmd.Matches("..") || cmd.Matches(".") || cmd.Days < 0 || cmd.Days > 15 || cmd.Delayed > 15 {
				t.Fatalf("accepted %+v", cmd)
			}
		}
		if len(got.List) == 0 && len(findings) == 0 {
			t.Fatal("nothing to do, and nothing to say")
		}
	})
}
