package upload_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"packmill/spool/upload"
	"packmill/spool/upload/uploadtest"
)

func signed(f func(changes []byte) []byte) func(*pkg, *world) {
	return func(p *pkg, _ *world) { p.Signed = f }
}

func plain(name string) uploadtest.Member { return uploadtest.Text(name, "x") }

func device(kind byte) func(*pkg, *world) {
	return member(tar.Header{Typeflag: kind, Name: "fresh-1.0/node", Mode: 0o644, Devmajor: 1, Devminor: 3}, "")
}

// zeros is a tarball of one file of n zero bytes.
func zeros(how string, n int) []byte {
	var raw bytes.Buffer
	tw := tar.NewWriter(&raw)
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "fresh-1.0/zeros", Mode: 0o644, Size: int64(n), ModTime: now}); err != nil {
		panic(err)
	}
	if _, err := tw.Write(make([]byte, n)); err != nil {
		panic(err)
	}
	tw.Close()
	packed, err := uploadtest.Pack(how, raw.Bytes())
	if err != nil {
		panic(err)
	}
	return packed
}

func xzBomb() []byte   { return bomb("xz") }
func gzipBomb() []byte { return bomb("gz") }

// bomb is 80 streams of a MiB of zeros each: compressed files may be strung together.
func bomb(how string) []byte {
	more, err := uploadtest.Pack(how, make([]byte, 1<<20))
	if err != nil {
		panic(err)
	}
	var raw bytes.Buffer
	tw := tar.NewWriter(&raw)
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "fresh-1.0/zeros", Mode: 0o644, Size: 81 << 20, ModTime: now}); err != nil {
		panic(err)
	}
	first, err := uploadtest.Pack(how, append(bytes.Clone(raw.Bytes()), make([]byte, 1<<20)...))
	if err != nil {
		panic(err)
	}
	return append(first, bytes.Repeat(more, 80)...)
}

// orig puts other bytes in place of the orig tarball, rightly listed.
func orig(data func() []byte) func(*pkg, *world) {
	return tarball(func(which string, packed []byte) []byte {
		if which == "orig" {
			return data()
		}
		return packed
	})
}

func taking(arch string, files ...string) func(*pkg, *world) {
	return all(set(func(p *pkg) { p.Distribution = "taking" }), binary(arch, files...))
}

var hostile = map[string]string{
	"path":               "../../../etc/passwd",
	"absolute":           "/etc/passwd_",
	"hidden":             ".ssh_keys",
	"option":             "-rf_",
	"command":            "$(id)_1.tar.gz",
	"semicolon":          "a;id_1.tar.gz",
	"percent":            "%s%n_1.tar.gz",
	"backslash":          `a\_1.tar.gz`,
	"colon":              "fresh_1:1.tar.gz",
	"glob":               "fresh_*.tar.gz",
	"no underscore":      "history",
	"markup":             "<script>_1",
	"escape":             "a\u009b2J_1",
	"bidi":               "fresh_\u202egz.rat",
	"no-break space":     "fresh_1.0\u00a0x",
	"too long":           "fresh_" + strings.Repeat("a", 300),
	"reserved by engine": ".new-fresh_1",
}

// bad are uploads that must be refused.
var bad = append([]row{
	// Who.
	{name: "unsigned", bend: set(func(p *pkg) { p.Signer = nil })},
	{name: "unsigned, in the directory of an account that must sign", bend: set(func(p *pkg) { p.Signer = nil }), world: func(c *upload.Context) { c.Account = "emil" }},
	{name: "unsigned, in the directory of nobody", bend: set(func(p *pkg) { p.Signer = nil }), world: func(c *upload.Context) { c.Account = "frank" }},
	{name: "unsigned, in the directory of a name that is a path", bend: set(func(p *pkg) { p.Signer = nil }), world: func(c *upload.Context) { c.Account = "../dora" }},
	{name: "unknown key", bend: func(p *pkg, w *world) { p.Signer = w.stranger }},
	{name: "unknown key, in a trusted account's directory", bend: func(p *pkg, w *world) { p.Signer = w.stranger }, world: func(c *upload.Context) { c.Account = "dora" }},
	{name: "key of the keyring that belongs to nobody", bend: func(p *pkg, w *world) { p.Signer = w.carl }},
	{name: "tampered after signing", bend: signed(func(b []byte) []byte { return bytes.Replace(b, []byte("medium"), []byte("high"), 1) })},
	{name: "text before the signature", bend: signed(func(b []byte) []byte { return append([]byte("Format: 1.8\nSource: evil\n\n"), b...) })},
	{name: "text after the signature", bend: signed(func(b []byte) []byte { return append(b, "\nSource: evil\n"...) })},
	{name: "two signed blocks", bend: signed(func(b []byte) []byte { return append(bytes.Clone(b), b...) })},
	{name: "signature cut off", bend: signed(func(b []byte) []byte { return b[:len(b)-40] })},
	{name: "cut off in the text", bend: signed(func(b []byte) []byte { return b[:300] })},
	{name: "NUL in the .changes", bend: signed(func(b []byte) []byte { return bytes.Replace(b, []byte("fresh"), []byte("fre\x00sh"), 1) })},
	{name: "carriage returns", bend: signed(func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n")) })},
	{name: "empty .changes", bend: signed(func([]byte) []byte { return nil })},
	{name: "huge .changes", bend: signed(func(b []byte) []byte { return append(b, make([]byte, 9<<20)...) })},
	{name: "armor header with text", bend: signed(func(b []byte) []byte {
		return bytes.Replace(b, []byte("-----BEGIN PGP SIGNATURE-----\n"), []byte("-----BEGIN PGP SIGNATURE-----\nSource: evil\n"), 1)
	})},
	{name: "signed from the future", bend: func(p *pkg, w *world) { p.Date = now.Add(48 * time.Hour) }},
	{name: "signed two years ago", bend: func(p *pkg, w *world) { p.Date = now.AddDate(-2, 0, 0) }},
	{name: "a signed text that is no upload", bend: func(p *pkg, w *world) {
		p.Signed = func([]byte) []byte {
			b, err := w.ann.Clearsign([]byte("I hereby say nothing.\n"), now)
			if err != nil {
				panic(err)
			}
			return b
		}
	}},
	{name: "replayed", world: func(c *upload.Context) {
		c.Seen = func(string) (string, bool) { return "accepted on 2026-11-01", true }
	}},

	// May he.
	{name: "bob to a suite that is not his", bend: func(p *pkg, w *world) { p.Signer, p.Source, p.Distribution = w.bob, "libx", "dropping" }},
	{name: "bob with a package that is not his", bend: func(p *pkg, w *world) { p.Signer = w.bob }},
	{name: "bob to a component that is not his", bend: func(p *pkg, w *world) { p.Signer, p.Source, p.Section = w.bob, "libbob", "contrib/libs" }},
	{name: "bob with a new package", bend: func(p *pkg, w *world) { p.Signer, p.Source = w.bob, "libnew" }},
	{name: "bob with a source where he may do binaries only", bend: func(p *pkg, w *world) {
		p.Signer, p.Source, p.Version, p.Distribution = w.bob, "known", "1.2-1", "taking"
	}},
	{name: "bob with binaries", bend: func(p *pkg, w *world) {
		binary("i386", "known_1.1-1_i386.deb")(p, w)
		p.Signer, p.Source, p.Version, p.Distribution = w.bob, "known", "1.1-1", "taking"
	}},
	{name: "nobody's rights", world: func(c *upload.Context) { c.Uploaders[0].Allow = nil }},
	{name: "unknown suite", bend: set(func(p *pkg) { p.Distribution = "experimental" })},
	{name: "suite as a path", bend: changes("Distribution: stable", "Distribution: ../stable")},
	{name: "two suites", bend: changes("Distribution: stable", "Distribution: stable taking")},
	{name: "UNRELEASED", bend: set(func(p *pkg) { p.Distribution = "UNRELEASED" })},

	// The text of the .changes.
	{name: "no Format", bend: changes("Format: 1.8\n", "")},
	{name: "Format 3.0", bend: changes("Format: 1.8", "Format: 3.0")},
	{name: "no Date", bend: func(p *pkg, _ *world) { p.Changes = resub(`Date: .*\n`, "") }},
	{name: "no Source", bend: changes("Source: fresh\n", "")},
	{name: "no Architecture", bend: changes("Architecture: source\n", "")},
	{name: "no Version", bend: changes("\nVersion: 1.0-1", "")},
	{name: "no Distribution", bend: changes("Distribution: stable\n", "")},
	{name: "no Maintainer", bend: changes("Maintainer: Test Person <test@example.org>\n", "")},
	{name: "no Changes", bend: func(p *pkg, _ *world) { p.Changes = resub(`(?s)Changes:.*An entry\.\n`, "") }},
	{name: "no Files", bend: func(p *pkg, _ *world) { p.Changes = resub(`(?s)\nFiles:.*`, "\n") }},
	{name: "no SHA-256", bend: func(p *pkg, _ *world) { p.Changes = resub(`(?s)Checksums-Sha256:.*Files:`, "Files:") }},
	{name: "empty SHA-256 list", bend: func(p *pkg, _ *world) {
		p.Changes = resub(`(?s)Checksums-Sha256:.*Files:`, "Checksums-Sha256:\nFiles:")
	}},
	{name: "field twice", bend: changes("Source: fresh\n", "Source: fresh\nsource: evil\n")},
	{name: "two stanzas", bend: func(p *pkg, _ *world) { p.Changes = func(s string) string { return s + "\nSource: evil\n" } }},
	{name: "not UTF-8", bend: changes("An entry", "An \xff entry")},
	{name: "control character", bend: changes("An entry", "An \x1b[2J entry")},
	{name: "200 fields and more", bend: func(p *pkg, _ *world) {
		p.Changes = func(s string) string {
			for i := range 300 {
				s = fmt.Sprintf("X-%d: y\n", i) + s
			}
			return s
		}
	}},
	{name: "file twice in Files", bend: func(p *pkg, _ *world) {
		p.Changes = resub(`(?m)^( \w{32} .*\.dsc)$`, "$1\n$1")
	}},
	{name: "file in one list only", bend: func(p *pkg, _ *world) { p.Changes = resub(`(?m)^ \w{64} .*\.dsc\n`, "") }},
	{name: "sizes that disagree", bend: func(p *pkg, _ *world) { p.Changes = resub(`(?m)^( \w{64}) \d+ (.*\.dsc)$`, "$1 7 $2") }},
	{name: "short checksum", bend: func(p *pkg, _ *world) { p.Changes = resub(`(?m)^ \w\w(\w{62} .*\.dsc)$`, " $1") }},
	{name: "checksum in upper case", bend: func(p *pkg, _ *world) { p.Changes = resub(`(?m)^ \w{64}( .*\.dsc)$`, " "+strings.Repeat("A", 64)+"$1") }},
	{name: "negative size", bend: func(p *pkg, _ *world) { p.Changes = resub(`(?m)^( \w{64}) (\d+ .*\.dsc)$`, "$1 -$2") }},
	{name: "size with a leading zero", bend: func(p *pkg, _ *world) { p.Changes = resub(`(?m)^( \w{64}) (\d+ .*\.dsc)$`, "$1 0$2") }},
	{name: "size of 20 digits", bend: func(p *pkg, _ *world) {
		p.Changes = resub(`(?m)^( \w{64}) \d+ (.*\.dsc)$`, "$1 99999999999999999999 $2")
	}},
	{name: "Files line without section", bend: func(p *pkg, _ *world) { p.Changes = resub(`(?m)^( \w{32} \d+) misc (.*\.dsc)$`, "$1 $2") }},
	{name: "no-break space between words", bend: func(p *pkg, _ *world) {
		p.Changes = resub(`(?m)^( \w{32} \d+) misc (.*\.dsc)$`, "$1\u00a0misc $2")
	}},
	{name: "bad source name", bend: changes("Source: fresh\n", "Source: Fresh!\n")},
	{name: "source name as a path", bend: changes("Source: fresh\n", "Source: ../fresh\n")},
	{name: "bad version", bend: changes("\nVersion: 1.0-1", "\nVersion: 1.0 1")},
	{name: "version without digits first", bend: changes("\nVersion: 1.0-1", "\nVersion: v1.0-1")},
	{name: "epoch too large", bend: changes("\nVersion: 1.0-1", "\nVersion: 99999999999:1.0-1")},
	{name: "Source with an open bracket", bend: changes("Source: fresh\n", "Source: fresh (1.0-1\n")},
	{name: "Source of another version", bend: changes("Source: fresh\n", "Source: fresh (0.9-1)\n")},
	{name: "Maintainer without address", bend: changes("Maintainer: Test Person <test@example.org>", "Maintainer: Test Person")},
	{name: "two addresses", bend: changes("Maintainer: Test Person <test@example.org>", "Maintainer: A <a@example.org>, B <b@example.org>")},
	{name: "Changed-By over two lines", bend: changes("Changed-By: Test Person <test@example.org>", "Changed-By: Test <test@example.org>\n Bcc: all@example.org")},
	{name: "Changed-By with direction marks", bend: changes("Changed-By: Test Person", "Changed-By: Test \u202enosreP")},
	{name: "Closes with words", bend: changes("Changes:\n", "Closes: 1 x\nChanges:\n")},
	{name: "Closes with a command", bend: changes("Changes:\n", "Closes: 1; rm -rf /\nChanges:\n")},
	{name: "Date that is none", bend: changes("Date: Sat, 21 Nov 2026", "Date: someday")},
	{name: "Date in the future", bend: changes("Date: Sat, 21 Nov 2026", "Date: Thu, 21 Nov 2030")},
	{name: "Date long ago", bend: changes("Date: Sat, 21 Nov 2026", "Date: Mon, 21 Nov 2022")},
	{name: "bad section", bend: set(func(p *pkg) { p.Section = "Misc" })},
	{name: "section as a path", bend: set(func(p *pkg) { p.Section = "../../misc" })},
	{name: "component not in the suite", bend: set(func(p *pkg) { p.Section = "non-free/misc" })},
	{name: "unknown priority and urgency", bend: all(set(func(p *pkg) { p.Priority, p.Urgency, p.Section = "urgent", "yesterday", "x!" }))},

	// Files.
	{name: "missing file", bend: inDir("*.debian.tar.gz", os.Remove)},
	{name: "missing .dsc", bend: inDir("*.dsc", os.Remove)},
	{name: "file not listed", bend: after(func(dir string) error {
		return os.WriteFile(filepath.Join(dir, "other_1.0.tar.gz"), []byte("x"), 0o644)
	})},
	{name: "symbolic link", bend: inDir("*.debian.tar.gz", func(path string) error {
		if err := os.Rename(path, path+"~"); err != nil {
			return err
		}
		return os.Symlink(filepath.Base(path)+"~", path)
	})},
	{name: "FIFO", bend: inDir("*.debian.tar.gz", mkfifo)},
	{name: "directory", bend: inDir("*.debian.tar.gz", func(path string) error {
		if err := os.Remove(path); err != nil {
			return err
		}
		return os.Mkdir(path, 0o755)
	})},
	{name: "file too short", bend: inDir("*.debian.tar.gz", func(path string) error { return os.Truncate(path, 100) })},
	{name: "file too long", bend: inDir("*.debian.tar.gz", func(path string) error { return os.Truncate(path, 100_000) })},
	{name: "file with another byte", bend: inDir("*.debian.tar.gz", func(path string) error {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		data[len(data)/2] ^= 1
		return os.WriteFile(path, data, 0o644)
	})},
	{name: "wrong SHA-1", bend: func(p *pkg, _ *world) { p.Changes = resub(`(?m)^ \w{40}( .*\.dsc)$`, " "+strings.Repeat("a", 40)+"$1") }},
	{name: "wrong MD5", bend: func(p *pkg, _ *world) { p.Changes = resub(`(?m)^ \w{32}( .*\.dsc)$`, " "+strings.Repeat("a", 32)+"$1") }},
	{name: "orig differs from the archive's", bend: set(func(p *pkg) { p.Source, p.Version = "known", "1.1-9" })},
	{name: "too many files", bend: all(set(func(p *pkg) { p.Distribution = "small" }), binary("", "fresh_1.png", "fresh_2.png"))},
	{name: "file and upload too large", bend: all(set(func(p *pkg) { p.Distribution = "small" }), member(tar.Header{Typeflag: tar.TypeReg, Name: "fresh-1.0/x", Mode: 0o644}, noise(8000)))},
	{name: "lists itself", bend: func(p *pkg, _ *world) {
		p.Changes = func(text string) string { return list(text, "fresh_1.0-1_source.changes", nil, "misc optional ") }
	}},
	{name: "names that differ in case", bend: func(p *pkg, _ *world) {
		p.Files = append(p.Files, uploadtest.File{Name: "FRESH_1.0.orig.tar.gz", Data: []byte("x")})
	}},
	{name: "file of no package", bend: binary("", "fresh_1.0-1.png")},
	{name: "tarball of another source", bend: binary("", "other_1.0.orig.tar.gz")},

	// Architecture and binaries.
	{name: "no .dsc listed", bend: func(p *pkg, _ *world) {
		p.Changes = resub(`(?m)^ .*\.dsc\n`, "")
	}},
	{name: "Architecture without source", bend: changes("Architecture: source\n", "Architecture: amd64\n")},
	{name: "Architecture twice", bend: changes("Architecture: source\n", "Architecture: source source\n")},
	{name: "Architecture that is none", bend: changes("Architecture: source\n", "Architecture: source any\n")},
	{name: "Architecture as a path", bend: changes("Architecture: source\n", "Architecture: source ../x\n")},
	{name: "binaries in a suite without", bend: binary("amd64", "fresh_1.0-1_amd64.deb")},
	{name: "binaries of a strange architecture", bend: taking("s390x", "fresh_1.0-1_s390x.deb")},
	{name: "binary of an architecture not listed", bend: taking("", "fresh_1.0-1_amd64.deb")},
	{name: "binary not in Binary", bend: taking("amd64", "other_1.0-1_amd64.deb")},
	{name: "bad name in Binary", bend: all(taking("amd64", "fresh_1.0-1_amd64.deb"), changes("Binary: fresh", "Binary: fresh $(id)"))},
	{name: "binary of no form", bend: taking("", "fresh_amd64.deb")},
	{name: "debug symbols alone", bend: all(taking("amd64", "fresh-dbgsym_1.0-1_amd64.deb"), changes("Maintainer: Test Person <test@example.org>", "Maintainer: none"))},
	{name: "binaries without their source", bend: binaryOnly("fresh")},
	{name: "binNMU of a source that is not there", bend: binaryOnly("fresh (1.0-7)")},
	{name: "binNMU for all architectures", bend: all(binaryOnly("fresh (1.0-1)"), func(p *pkg, _ *world) {
		p.Files = append(p.Files, uploadtest.File{Name: "fresh-doc_1.0-1+b1_all.deb", Arch: "all"})
		bend := p.Changes
		p.Changes = func(s string) string {
			return sub("Architecture: amd64 all", "Architecture: amd64 all\nBinary-Only: yes", "\nVersion: 1.0-1", "\nVersion: 1.0-1+b1",
				"Binary: fresh", "Binary: fresh fresh-doc")(bend(s))
		}
	}), world: func(c *upload.Context) {
		c.Published = func(string, string) ([]string, error) { return []string{"1.0-1"}, nil }
	}},
	{name: "unsound binary", bend: taking("amd64", "fresh_1.0-1_amd64.deb"), world: func(c *upload.Context) {
		c.Deb = func(path string, u *upload.Upload, f upload.File) ([]string, error) {
			return []string{f.Name + ": it is not a Debian package; build it again"}, nil
		}
	}},
	{name: ".buildinfo of another source", bend: withBuildinfo("other", "1.0-1", "")},
	{name: ".buildinfo of another version", bend: withBuildinfo("fresh", "1.0-2", "")},
	{name: ".buildinfo with other checksums", bend: withBuildinfo("fresh", "1.0-1",
		"Checksums-Sha256:\n "+strings.Repeat("b", 64)+" 20 fresh_1.0-1_amd64.deb\n")},
	{name: ".buildinfo that is none", bend: withBuildinfo("fresh\nfresh", "1", "")},

	// The source package.
	{name: "two .dsc", bend: binary("", "fresh_0.9-1.dsc")},
	{name: ".dsc of another name", bend: set(func(p *pkg) {
		p.Names = func(n string) string { return strings.Replace(n, "1.0-1.dsc", "1.0-2.dsc", 1) }
	})},
	{name: ".dsc signed by a stranger", bend: func(p *pkg, w *world) { p.DscSigner = w.stranger }},
	{name: ".dsc tampered", bend: func(p *pkg, w *world) {
		resign(p, func(b []byte) []byte { return bytes.Replace(b, []byte("4.6.2"), []byte("4.6.1"), 1) })
	}},
	{name: ".dsc unsigned", bend: unsignedDsc},
	{name: ".dsc unsigned from a trusted account, .changes too, but wrong", bend: all(set(func(p *pkg) { p.Signer = nil }), dsc("Source: fresh", "Source: stale")),
		world: func(c *upload.Context) { c.Account = "dora" }},
	{name: ".dsc of another source", bend: dsc("Source: fresh", "Source: stale")},
	{name: ".dsc of another version", bend: dsc("\nVersion: 1.0-1", "\nVersion: 1.0-2")},
	{name: ".dsc with two stanzas", bend: func(p *pkg, _ *world) { p.Dsc = func(s string) string { return s + "\nSource: x\n" } }},
	{name: ".dsc without fields", bend: func(p *pkg, _ *world) {
		p.Dsc = resub(`(?s)Maintainer: .*?\n(.*)Checksums-Sha256:.*Files:`, "${1}Files:")
	}},
	{name: ".dsc with a file twice", bend: func(p *pkg, _ *world) { p.Dsc = resub(`(?m)^( \w{64} .*orig.*)$`, "$1\n$1") }},
	{name: ".dsc with another SHA-256", bend: func(p *pkg, _ *world) {
		p.Dsc = resub(`(?m)^ \w{64}( .*orig.*)$`, " "+strings.Repeat("c", 64)+"$1")
	}},
	{name: ".dsc with another size", bend: func(p *pkg, _ *world) { p.Dsc = resub(`(?m)^( \w+) \d+ (.*orig.*)$`, "$1 77 $2") }},
	{name: ".dsc with another MD5 and SHA-1", bend: func(p *pkg, _ *world) {
		p.Dsc = func(s string) string {
			s = resub(`(?m)^ \w{32}( .*orig.*)$`, " "+strings.Repeat("c", 32)+"$1")(s)
			return resub(`(?m)^ \w{40}( .*debian.*)$`, " "+strings.Repeat("c", 40)+"$1")(s)
		}
	}},
	{name: ".dsc with a file that is nowhere", bend: func(p *pkg, _ *world) { p.NoOrig = true }},
	{name: ".dsc with a file that differs in the archive", bend: func(p *pkg, _ *world) {
		p.NoOrig, p.Source, p.Version = true, "known", "1.1-9"
	}},
	{name: ".dsc with a path", bend: func(p *pkg, _ *world) {
		p.Dsc = func(s string) string { return list(s, "../../etc/passwd", []byte("x"), "") }
	}},
	{name: ".dsc with a file of another source", bend: func(p *pkg, _ *world) {
		p.Dsc = func(s string) string { return list(s, "glibc_2.0.orig.tar.gz", []byte("x"), "") }
	}},
	{name: ".dsc with bad architectures and binaries", bend: dsc("Architecture: any", "Architecture: any$(id)", "Binary: fresh", "Binary: ../fresh")},
	{name: "format that the suite does not take", bend: set(func(p *pkg) { p.Distribution = "lenient" })},
	{name: "format 3.0 (custom)", bend: dsc("Format: 3.0 (quilt)", "Format: 3.0 (custom)")},
	{name: "format with a line break", bend: dsc("Format: 3.0 (quilt)", "Format: 3.0\n (quilt)")},
	{name: "quilt without revision", bend: set(func(p *pkg) { p.Version, p.Format = "20", "3.0 (native)"; p.Dsc = sub("3.0 (native)", "3.0 (quilt)") })},
	{name: "native with two tarballs", bend: dsc("Format: 3.0 (quilt)", "Format: 3.0 (native)")},
	{name: "1.0 with a debian tarball", bend: dsc("Format: 3.0 (quilt)", "Format: 1.0")},
	{name: "1.0 with xz", bend: set(func(p *pkg) { p.Version, p.Packing, p.Format = "20", "xz", "1.0" })},
	{name: "zst tarballs", bend: set(func(p *pkg) { p.Packing = "zst" })},
	{name: "two orig tarballs", bend: func(p *pkg, _ *world) {
		p.Files = append(p.Files, uploadtest.File{Name: "fresh_1.0.orig.tar.xz", Data: []byte("x")})
		p.Dsc = func(s string) string { return list(s, "fresh_1.0.orig.tar.xz", []byte("x"), "") }
	}},
	{name: "signature of no tarball", bend: func(p *pkg, _ *world) {
		p.Files = append(p.Files, uploadtest.File{Name: "fresh_1.0.orig-x.tar.gz.asc", Data: []byte("x")})
		p.Dsc = func(s string) string { return list(s, "fresh_1.0.orig-x.tar.gz.asc", []byte("x"), "") }
	}},
	{name: "component tarball in two compressions", bend: func(p *pkg, w *world) {
		componentTarball(p, w)
		bend := p.Dsc
		p.Files = append(p.Files, uploadtest.File{Name: "fresh_1.0.orig-data.tar.xz", Data: []byte("x")})
		p.Dsc = func(s string) string { return list(bend(s), "fresh_1.0.orig-data.tar.xz", []byte("x"), "") }
	}},
	{name: "native with a revision, broken relations", bend: set(func(p *pkg) { p.Format, p.BuildDepends = "3.0 (native)", "debhelper (>= )" })},
	{name: "relations with a substitution", bend: set(func(p *pkg) { p.BuildDepends = "${misc:Depends}" })},
	{name: "nothing here builds it, and no address", bend: set(func(p *pkg) { p.Architecture, p.Maintainer = "hurd-any", "x" })},

	// Versions.
	{name: "same version again", bend: set(func(p *pkg) { p.Source, p.Version = "hello", "2:1.2-1" })},
	{name: "older version", bend: set(func(p *pkg) { p.Source, p.Version = "hello", "2:1.1-1" })},
	{name: "older by a tilde", bend: set(func(p *pkg) { p.Source, p.Version = "hello", "2:1.2-1~bpo12+1" })},
	{name: "lost epoch", bend: set(func(p *pkg) { p.Source, p.Version = "hello", "1.3-1" })},
	{name: "differs in the epoch only", bend: set(func(p *pkg) { p.Source, p.Version = "hello", "3:1.2-1" })},
	{name: "behind a suite below", bend: set(func(p *pkg) { p.Source, p.Version = "known", "1.2-1" })},

	// Inside the tarballs.
	{name: "not compressed", bend: orig(func() []byte { return []byte("this is no gzip") })},
	{name: "not a tarball", bend: orig(func() []byte {
		b, err := uploadtest.Pack("gz", []byte(strings.Repeat("this is no tarball", 100)))
		if err != nil {
			panic(err)
		}
		return b
	})},
	{name: "tarball cut off", bend: tarball(func(which string, b []byte) []byte { return b[:len(b)-20] })},
	{name: "garbage behind the compressed data", bend: orig(func() []byte { return append(zeros("gz", 10), "garbage garbage"...) })},
	{name: "gzip bomb", bend: orig(gzipBomb)},
	{name: "xz bomb", bend: all(set(func(p *pkg) { p.Packing = "xz" }), orig(xzBomb))},
	{name: "xz with a dictionary of 4 GiB", bend: all(set(func(p *pkg) { p.Packing = "xz" }), orig(bigDictionary))},
	{name: "sparse bomb", bend: orig(sparseBomb)},
	{name: "unpacks to too much", bend: all(set(func(p *pkg) { p.Distribution = "small" }), orig(func() []byte { return zeros("gz", 200<<10) }))},
	{name: "too many members", bend: all(set(func(p *pkg) { p.Distribution = "small" }), func(p *pkg, _ *world) {
		for i := range 30 {
			p.Tree = append(p.Tree, plain(fmt.Sprintf("fresh-1.0/%d", i)))
		}
	})},
	{name: "absolute member", bend: member(tar.Header{Typeflag: tar.TypeReg, Name: "/etc/passwd", Mode: 0o644}, "x")},
	{name: "member that climbs", bend: member(tar.Header{Typeflag: tar.TypeReg, Name: "fresh-1.0/../../etc/passwd", Mode: 0o644}, "x")},
	{name: "member with a line break", bend: member(tar.Header{Typeflag: tar.TypeReg, Name: "fresh-1.0/a\nb\x1b[2J", Mode: 0o644}, "x")},
	{name: "member below a symbolic link", bend: func(p *pkg, _ *world) {
		p.Tree = append(p.Tree, link("fresh-1.0/etc", "/etc"), plain("fresh-1.0/etc/passwd"))
	}},
	{name: "symbolic links out of the tree, and no changelog", bend: all(debian("changelog", ""), func(p *pkg, _ *world) {
		p.Tree = append(p.Tree, link("fresh-1.0/a", "/etc/passwd"), link("fresh-1.0/b", "../../x"), link("fresh-1.0/d/e", "../../x"))
	})},
	{name: "hard link out of the tree", bend: member(tar.Header{Typeflag: tar.TypeLink, Name: "fresh-1.0/a", Linkname: "/etc/shadow", Mode: 0o644}, "")},
	{name: "hard link through a symbolic link", bend: func(p *pkg, _ *world) {
		p.Tree = append(p.Tree, link("fresh-1.0/etc", "/etc"),
			uploadtest.Member{Header: tar.Header{Typeflag: tar.TypeLink, Name: "fresh-1.0/a", Linkname: "fresh-1.0/etc/shadow", Mode: 0o644}})
	}},
	{name: "device", bend: device(tar.TypeChar)},
	{name: "block device", bend: device(tar.TypeBlock)},
	{name: "FIFO in a tarball", bend: device(tar.TypeFifo)},
	{name: "unknown type", bend: device('Z')},
	{name: "directory without rights", bend: member(tar.Header{Typeflag: tar.TypeDir, Name: "fresh-1.0/closed/", Mode: 0}, "")},
	{name: "set-user-ID file, and a device", bend: all(device(tar.TypeChar), member(tar.Header{Typeflag: tar.TypeReg, Name: "fresh-1.0/su", Mode: 0o4755}, "x"))},
	{name: "member from the future", bend: member(tar.Header{Typeflag: tar.TypeReg, Name: "fresh-1.0/later", Mode: 0o644, ModTime: now.AddDate(1, 0, 0)}, "x")},
	{name: "more findings than anybody reads", bend: func(p *pkg, _ *world) {
		for i := range 100 {
			p.Tree = append(p.Tree, plain(fmt.Sprintf("/abs/%d", i)))
		}
	}},
	{name: "diff outside of the tree", bend: func(p *pkg, _ *world) {
		p.Format = "1.0"
		p.Tarball = func(which string, b []byte) []byte {
			if which != "diff" {
				return b
			}
			b, err := uploadtest.Pack("gz", []byte("--- a/x\n+++ ../../etc/passwd\n@@ -0,0 +1 @@\n+root\n--- a/y\n+++ /etc/shadow\n@@ -1 +1,2 @@\n-x\n+x\n+++ /not/a/header\n"))
			if err != nil {
				panic(err)
			}
			return b
		}
	}},
	{name: "no changelog", bend: debian("changelog", "")},
	{name: "empty changelog", bend: debian("changelog", "\n\n")},
	{name: "changelog of another source", bend: debian("changelog", "stale (1.0-1) stable; urgency=low\n\n  * x\n")},
	{name: "changelog of another version", bend: debian("changelog", "fresh (1.0-2) stable; urgency=low\n\n  * x\n")},
	{name: "changelog that is none", bend: debian("changelog", "<b>fresh</b>\n")},
	{name: "no control", bend: debian("control", "")},
	{name: "control of another source", bend: debian("control", "Source: stale\n")},
	{name: "control that is none", bend: debian("control", "# a comment\n\x00\x01\n")},
	{name: "control empty", bend: debian("control", "\n")},
	{name: "everything at once", bend: func(p *pkg, _ *world) {
		p.Source, p.Version, p.Distribution, p.Maintainer, p.Section, p.Urgency = "hello", "1.0-1", "nowhere", "x", "!", "now"
		p.Closes = []string{"x"}
		p.Tree = append(p.Tree, plain("/abs"))
		p.Files = append(p.Files, uploadtest.File{Name: "x_y.deb", Data: nil, Arch: ""})
		p.After = func(dir string) error { return os.Remove(filepath.Join(dir, "hello_1.0.orig.tar.gz")) }
	}},
}, hostileNames()...)

// hostileNames lists each odd name in the .changes, as a file that never could be written.
func hostileNames() []row {
	var rows []row
	for _, k := range []string{"path", "absolute", "hidden", "option", "command", "semicolon", "percent", "backslash", "colon", "glob",
		"no underscore", "markup", "escape", "bidi", "no-break space", "too long", "reserved by engine"} {
		name := hostile[k]
		rows = append(rows, row{name: "file name: " + k, bend: func(p *pkg, _ *world) {
			p.Changes = func(s string) string { return list(s, name, []byte("x"), "misc optional ") }
		}})
	}
	return rows
}

// noise are n bytes that do not compress, the same each time.
func noise(n int) string {
	b := make([]byte, n)
	if _, err := rand.NewChaCha8([32]byte{1}).Read(b); err != nil {
		panic(err)
	}
	return string(b)
}

func withBuildinfo(source, version, rest string) func(*pkg, *world) {
	return all(taking("amd64", "fresh_1.0-1_amd64.deb"), set(func(p *pkg) {
		p.Files = append(p.Files, uploadtest.File{Name: "fresh_1.0-1_amd64.buildinfo", Data: buildinfo(source, version, rest)})
	}))
}

// binaryOnly is an upload as a builder makes it.
func binaryOnly(source string) func(*pkg, *world) {
	return all(taking("amd64", "fresh_1.0-1_amd64.deb"), func(p *pkg, _ *world) {
		p.Changes = func(s string) string {
			s = sub("Architecture: source amd64", "Architecture: amd64", "Source: fresh", "Source: "+source)(s)
			return resub(`(?m)^ .*(\.dsc|\.tar\.gz)\n`, "")(s)
		}
		p.After = func(dir string) error {
			for _, pattern := range []string{"*.dsc", "*.tar.gz"} {
				names, err := filepath.Glob(filepath.Join(dir, pattern))
				if err != nil {
					return err
				}
				for _, n := range names {
					if err := os.Remove(n); err != nil {
						return err
					}
				}
			}
			return nil
		}
	})
}

// resign changes the signed .dsc and lists the changed file rightly.
func resign(p *pkg, change func([]byte) []byte) {
	dir, err := os.MkdirTemp("", "resign")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	if _, err := p.Write(dir); err != nil {
		panic(err)
	}
	names, _ := filepath.Glob(filepath.Join(dir, "*.dsc"))
	data, err := os.ReadFile(names[0])
	if err != nil {
		panic(err)
	}
	changed := change(data)
	if bytes.Equal(changed, data) {
		panic("nothing changed")
	}
	replaceFile(p, filepath.Base(names[0]), changed)
}

// bigDictionary is an xz stream whose block claims a dictionary of 4 GiB - 1.
func bigDictionary() []byte {
	packed := zeros("xz", 10)
	// Stream header 12 bytes; block header: size, flags, filter 0x21, property size 1, dictionary, padding, CRC32.
	if packed[14] != 0x21 {
		panic("no LZMA2 filter where it should be")
	}
	packed[16] = 40
	n := (int(packed[12]) + 1) * 4
	crc := crc32.ChecksumIEEE(packed[12 : 12+n-4])
	for i := range 4 {
		packed[12+n-4+i] = byte(crc >> (8 * i))
	}
	return packed
}

// sparseBomb is a small tarball whose one member claims to be of 1 TiB.
func sparseBomb() []byte {
	var raw bytes.Buffer
	tw := tar.NewWriter(&raw)
	h := &tar.Header{Typeflag: tar.TypeReg, Name: "fresh-1.0/sparse", Mode: 0o644, Size: 0, ModTime: now, Format: tar.FormatUSTAR}
	if err := tw.WriteHeader(h); err != nil {
		panic(err)
	}
	tw.Close()
	b := raw.Bytes()
	// An old GNU sparse header: type S, magic "ustar  ", no data, real size 1 TiB.
	b[156] = 'S'
	copy(b[257:], "ustar  \x00")
	copy(b[386:], fmt.Sprintf("%011o\x00%011o\x00", 0, 0))
	copy(b[483:], "\x80\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00")
	sum := 0
	copy(b[148:156], "        ")
	for _, c := range b[:512] {
		sum += int(c)
	}
	copy(b[148:156], fmt.Sprintf("%06o\x00 ", sum))
	packed, err := uploadtest.Pack("gz", b)
	if err != nil {
		panic(err)
	}
	return packed
}
