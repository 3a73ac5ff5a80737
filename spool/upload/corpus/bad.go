package corpus

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"packmill/internal/deb/debtest"
	"packmill/internal/durable"
	"packmill/spool/upload"
	"packmill/spool/upload/uploadtest"
)

func signed(f func(changes []byte) []byte) func(*pkg, *World) {
	return func(p *pkg, _ *World) { p.Signed = f }
}

func plain(name string) uploadtest.Member { return uploadtest.Text(name, "x") }

func device(kind byte) func(*pkg, *World) {
	return member(tar.Header{Typeflag: kind, Name: "fresh-1.0/node", Mode: 0o644, Devmajor: 1, Devminor: 3}, "")
}

// zeros is a tarball of one file of n zero bytes.
func zeros(how string, n int) []byte {
	var raw bytes.Buffer
	tw := tar.NewWriter(&raw)
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "fresh-1.0/zeros", Mode: 0o644, Size: int64(n),
		ModTime: old}); err != nil {
		panic(err)
	}
	if _, err := tw.Write(make([]byte, n)); err != nil {
		panic(err)
	}
	tw.Close()
	packed := debtest.Pack(how, raw.Bytes())
	return packed
}

func XzBomb() []byte   { return bomb("xz") }
func gzipBomb() []byte { return bomb("gz") }

// bomb is 80 streams of a MiB of zeros each: compressed files may be strung together.
func bomb(how string) []byte {
	more := debtest.Pack(how, make([]byte, 1<<20))
	var raw bytes.Buffer
	tw := tar.NewWriter(&raw)
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "fresh-1.0/zeros", Mode: 0o644, Size: 81 << 20,
		ModTime: old}); err != nil {
		panic(err)
	}
	first := debtest.Pack(how, append(bytes.Clone(raw.Bytes()), make([]byte, 1<<20)...))
	return append(first, bytes.Repeat(more, 80)...)
}

// orig puts other bytes in place of the orig tarball, rightly listed.
func orig(data func() []byte) func(*pkg, *World) {
	return tarball(func(which string, packed []byte) []byte {
		if which == "orig" {
			return data()
		}
		return packed
	})
}

func taking(arch string, files ...string) func(*pkg, *World) {
	return all(set(func(p *pkg) { p.Distribution = "taking" }), binary(arch, files...))
}

// OddNames are names that no file of an upload may have, by what is odd in them.
var OddNames = map[string]string{
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

// Bad are uploads that must be refused.
var Bad = append([]Row{
	// Who.
	{Name: "unsigned", bend: set(func(p *pkg) { p.Signer = nil })},
	{Name: "unsigned, in the directory of an account that must sign",
		bend: set(func(p *pkg) { p.Signer = nil }), World: func(c *upload.Context) { c.Account = "emil" }},
	{Name: "unsigned, in the directory of nobody",
		bend: set(func(p *pkg) { p.Signer = nil }), World: func(c *upload.Context) { c.Account = "frank" }},
	{Name: "unsigned, in the directory of a name that is a path",
		bend: set(func(p *pkg) { p.Signer = nil }), World: func(c *upload.Context) { c.Account = "../dora" }},
	{Name: "unknown key", bend: func(p *pkg, w *World) { p.Signer = w.Stranger }},
	{Name: "unknown key, in a trusted account's directory", bend: func(p *pkg, w *World) {
		p.Signer = w.Stranger
	}, World: func(c *upload.Context) { c.Account = "dora" }},
	{Name: "key of the keyring that belongs to nobody", bend: func(p *pkg, w *World) { p.Signer = w.Carl }},
	{Name: "tampered after signing", bend: signed(func(b []byte) []byte {
		return bytes.Replace(b, []byte("medium"), []byte("high"), 1)
	})},
	{Name: "text before the signature", bend: signed(func(b []byte) []byte {
		return append([]byte("Format: 1.8\nSource: evil\n\n"), b...)
	})},
	{Name: "text after the signature", bend: signed(func(b []byte) []byte { return append(b, "\nSource: evil\n"...) })},
	{Name: "two signed blocks", bend: signed(func(b []byte) []byte { return append(bytes.Clone(b), b...) })},
	{Name: "signature cut off", bend: signed(func(b []byte) []byte { return b[:len(b)-40] })},
	{Name: "cut off in the text", bend: signed(func(b []byte) []byte { return b[:300] })},
	{Name: "NUL in the .changes", bend: signed(func(b []byte) []byte {
		return bytes.Replace(b, []byte("Format"), []byte("For\x00mat"), 1)
	})},
	{Name: "carriage returns", bend: signed(func(b []byte) []byte {
		return bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n"))
	})},
	{Name: "empty .changes", bend: signed(func([]byte) []byte { return nil })},
	{Name: "huge .changes", bend: signed(func(b []byte) []byte { return append(b, make([]byte, 9<<20)...) })},
	{Name: "armor header with text", bend: signed(func(b []byte) []byte {
		return bytes.Replace(b, []byte("-----BEGIN PGP SIGNATURE-----\n"),
			[]byte("-----BEGIN PGP SIGNATURE-----\nSource: evil\n"), 1)
	})},
	{Name: "signed from the future", bend: func(p *pkg, w *World) { p.Date = w.Now.Add(48 * time.Hour) }},
	{Name: "signed two years ago", bend: func(p *pkg, w *World) { p.Date = w.Now.AddDate(-2, 0, 0) }},
	{Name: "a signed text that is no upload", bend: func(p *pkg, w *World) {
		p.Signed = func([]byte) []byte {
			b, err := w.Ann.Clearsign([]byte("I hereby say nothing.\n"), w.Now)
			if err != nil {
				panic(err)
			}
			return b
		}
	}},
	{Name: "replayed", World: func(c *upload.Context) {
		c.Seen = func(string) (string, bool) { return "accepted on 2026-11-01", true }
	}},

	// May he.
	{Name: "bob to a suite that is not his", bend: func(p *pkg, w *World) {
		p.Signer, p.Source, p.Distribution = w.Bob, "libx", "dropping"
	}},
	{Name: "bob with a package that is not his", bend: func(p *pkg, w *World) { p.Signer = w.Bob }},
	{Name: "bob to a component that is not his", bend: func(p *pkg, w *World) {
		p.Signer, p.Source, p.Section = w.Bob, "libbob", "contrib/libs"
	}},
	{Name: "bob with a new package", bend: func(p *pkg, w *World) { p.Signer, p.Source = w.Bob, "libnew" }},
	{Name: "bob with a source where he may do binaries only", bend: func(p *pkg, w *World) {
		p.Signer, p.Source, p.Version, p.Distribution = w.Bob, "known", "1.2-1", "taking"
	}},
	{Name: "bob with binaries", bend: func(p *pkg, w *World) {
		binary("i386", "known_1.1-1_i386.deb")(p, w)
		p.Signer, p.Source, p.Version, p.Distribution = w.Bob, "known", "1.1-1", "taking"
	}},
	{Name: "bob with binaries alone, of an architecture that is not his", bend: all(
		set(func(p *pkg) { p.Source, p.Version = "known", "1.1-1" }), alone("i386", "known"),
		func(p *pkg, w *World) { p.Signer = w.Bob })},
	{Name: "nobody's rights", World: func(c *upload.Context) { c.Uploaders[0].Allow = nil }},
	{Name: "unknown suite", bend: set(func(p *pkg) { p.Distribution = "experimental" })},
	{Name: "suite as a path", bend: changes("Distribution: stable", "Distribution: ../stable")},
	{Name: "two suites", bend: changes("Distribution: stable", "Distribution: stable taking")},
	{Name: "UNRELEASED", bend: set(func(p *pkg) { p.Distribution = "UNRELEASED" })},

	// The text of the .changes.
	{Name: "no Format", bend: changes("Format: 1.8\n", "")},
	{Name: "Format 3.0", bend: changes("Format: 1.8", "Format: 3.0")},
	{Name: "no Date", bend: func(p *pkg, _ *World) { p.Changes = resub(`Date: .*\n`, "") }},
	{Name: "no Source", bend: changes("Source: fresh\n", "")},
	{Name: "no Architecture", bend: changes("Architecture: source\n", "")},
	{Name: "no Version", bend: changes("\nVersion: 1.0-1", "")},
	{Name: "no Distribution", bend: changes("Distribution: stable\n", "")},
	{Name: "no Maintainer", bend: changes("Maintainer: Test Person <test@example.org>\n", "")},
	{Name: "no Changes", bend: func(p *pkg, _ *World) { p.Changes = resub(`(?s)Changes:.*An entry\.\n`, "") }},
	{Name: "no Files", bend: func(p *pkg, _ *World) { p.Changes = resub(`(?s)\nFiles:.*`, "\n") }},
	{Name: "no SHA-256", bend: func(p *pkg, _ *World) { p.Changes = resub(`(?s)Checksums-Sha256:.*Files:`, "Files:") }},
	{Name: "empty SHA-256 list", bend: func(p *pkg, _ *World) {
		p.Changes = resub(`(?s)Checksums-Sha256:.*Files:`, "Checksums-Sha256:\nFiles:")
	}},
	{Name: "field twice", bend: changes("Source: fresh\n", "Source: fresh\nsource: evil\n")},
	{Name: "two stanzas", bend: func(p *pkg, _ *World) {
		p.Changes = func(s string) string {
			return s + "\nSource: evil\n"
		}
	}},
	{Name: "not UTF-8", bend: changes("An entry", "An \xff entry")},
	{Name: "control character", bend: changes("An entry", "An \x1b[2J entry")},
	{Name: "200 fields and more", bend: func(p *pkg, _ *World) {
		p.Changes = func(s string) string {
			for i := range 300 {
				s = fmt.Sprintf("X-%d: y\n", i) + s
			}
			return s
		}
	}},
	{Name: "file twice in Files", bend: func(p *pkg, _ *World) {
		p.Changes = resub(`(?m)^( \w{32} .*\.dsc)$`, "$1\n$1")
	}},
	{Name: "file in one list only", bend: func(p *pkg, _ *World) { p.Changes = resub(`(?m)^ \w{64} .*\.dsc\n`, "") }},
	{Name: "sizes that disagree", bend: func(p *pkg, _ *World) {
		p.Changes = resub(`(?m)^( \w{64}) \d+ (.*\.dsc)$`, "$1 7 $2")
	}},
	{Name: "short checksum", bend: func(p *pkg, _ *World) { p.Changes = resub(`(?m)^ \w\w(\w{62} .*\.dsc)$`, " $1") }},
	{Name: "checksum in upper case", bend: func(p *pkg, _ *World) {
		p.Changes = resub(`(?m)^ \w{64}( .*\.dsc)$`, " "+strings.Repeat("A", 64)+"$1")
	}},
	{Name: "negative size", bend: func(p *pkg, _ *World) { p.Changes = resub(`(?m)^( \w{64}) (\d+ .*\.dsc)$`, "$1 -$2") }},
	{Name: "size with a leading zero", bend: func(p *pkg, _ *World) {
		p.Changes = resub(`(?m)^( \w{64}) (\d+ .*\.dsc)$`, "$1 0$2")
	}},
	{Name: "size of 20 digits", bend: func(p *pkg, _ *World) {
		p.Changes = resub(`(?m)^( \w{64}) \d+ (.*\.dsc)$`, "$1 99999999999999999999 $2")
	}},
	{Name: "Files line without section", bend: func(p *pkg, _ *World) {
		p.Changes = resub(`(?m)^( \w{32} \d+) misc (.*\.dsc)$`, "$1 $2")
	}},
	{Name: "no-break space between words", bend: func(p *pkg, _ *World) {
		p.Changes = resub(`(?m)^( \w{32} \d+) misc (.*\.dsc)$`, "$1\u00a0misc $2")
	}},
	{Name: "bad source name", bend: changes("Source: fresh\n", "Source: Fresh!\n")},
	{Name: "source name as a path", bend: changes("Source: fresh\n", "Source: ../fresh\n")},
	{Name: "bad version", bend: changes("\nVersion: 1.0-1", "\nVersion: 1.0 1")},
	{Name: "version without digits first", bend: changes("\nVersion: 1.0-1", "\nVersion: v1.0-1")},
	{Name: "epoch too large", bend: changes("\nVersion: 1.0-1", "\nVersion: 99999999999:1.0-1")},
	{Name: "Source with an open bracket", bend: changes("Source: fresh\n", "Source: fresh (1.0-1\n")},
	{Name: "Source of another version", bend: changes("Source: fresh\n", "Source: fresh (0.9-1)\n")},
	{Name: "Maintainer without address",
		bend: changes("Maintainer: Test Person <test@example.org>", "Maintainer: Test Person")},
	{Name: "two addresses",
		bend: changes("Maintainer: Test Person <test@example.org>", "Maintainer: A <a@example.org>, B <b@example.org>")},
	{Name: "Changed-By over two lines", bend: changes("Changed-By: Test Person <test@example.org>",
		"Changed-By: Test <test@example.org>\n Bcc: all@example.org")},
	{Name: "Changed-By with direction marks", bend: changes("Changed-By: Test Person", "Changed-By: Test \u202enosreP")},
	{Name: "Closes with words", bend: changes("Changes:\n", "Closes: 1 x\nChanges:\n")},
	{Name: "Closes with a command", bend: changes("Changes:\n", "Closes: 1; rm -rf /\nChanges:\n")},
	{Name: "Date that is none", bend: func(p *pkg, _ *World) { p.Changes = date("someday") }},
	{Name: "Date in the future", bend: func(p *pkg, w *World) {
		p.Changes = date(w.Now.AddDate(4, 0, 0).Format("Mon, 02 Jan 2006"))
	}},
	{Name: "Date long ago", bend: func(p *pkg, w *World) {
		p.Changes = date(w.Now.AddDate(-4, 0, 0).Format("Mon, 02 Jan 2006"))
	}},
	{Name: "bad section", bend: set(func(p *pkg) { p.Section = "Misc" })},
	{Name: "section as a path", bend: set(func(p *pkg) { p.Section = "../../misc" })},
	{Name: "component not in the suite", bend: set(func(p *pkg) { p.Section = "non-free/misc" })},
	{Name: "unknown priority and urgency", bend: all(set(func(p *pkg) {
		p.Priority, p.Urgency, p.Section = "urgent", "yesterday", "x!"
	}))},

	// Files.
	{Name: "missing file", bend: inDir("*.debian.tar.gz", os.Remove)},
	{Name: "missing .dsc", bend: inDir("*.dsc", os.Remove)},
	{Name: "file not listed", bend: after(func(dir string) error {
		return os.WriteFile(filepath.Join(dir, "other_1.0.tar.gz"), []byte("x"), 0o644)
	})},
	{Name: "symbolic link", bend: inDir("*.debian.tar.gz", func(path string) error {
		if err := durable.Replace(path, path+"~"); err != nil {
			return err
		}
		return os.Symlink(filepath.Base(path)+"~", path)
	})},
	{Name: "FIFO", bend: inDir("*.debian.tar.gz", mkfifo)},
	{Name: "directory", bend: inDir("*.debian.tar.gz", func(path string) error {
		if err := os.Remove(path); err != nil {
			return err
		}
		return os.Mkdir(path, 0o755)
	})},
	{Name: "file too short", bend: inDir("*.debian.tar.gz", func(path string) error { return os.Truncate(path, 100) })},
	{Name: "file too long", bend: inDir("*.debian.tar.gz", func(path string) error { return os.Truncate(path, 100_000) })},
	{Name: "file with another byte", bend: inDir("*.debian.tar.gz", func(path string) error {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		data[len(data)/2] ^= 1
		return os.WriteFile(path, data, 0o644)
	})},
	{Name: "wrong SHA-1", bend: func(p *pkg, _ *World) {
		p.Changes = resub(`(?m)^ \w{40}( .*\.dsc)$`, " "+strings.Repeat("a", 40)+"$1")
	}},
	{Name: "wrong MD5", bend: func(p *pkg, _ *World) {
		p.Changes = resub(`(?m)^ \w{32}( .*\.dsc)$`, " "+strings.Repeat("a", 32)+"$1")
	}},
	{Name: "orig differs from the archive's", bend: set(func(p *pkg) { p.Source, p.Version = "known", "1.1-9" })},
	{Name: "too many files", bend: all(set(func(p *pkg) {
		p.Distribution = "small"
	}), binary("", "fresh_1.png", "fresh_2.png"))},
	{Name: "file and upload too large", bend: all(set(func(p *pkg) {
		p.Distribution = "small"
	}), member(tar.Header{Typeflag: tar.TypeReg, Name: "fresh-1.0/x", Mode: 0o644}, Noise(8000)))},
	{Name: "lists itself", bend: func(p *pkg, _ *World) {
		p.Changes = func(text string) string { return List(text, "fresh_1.0-1_source.changes", nil, "misc optional ") }
	}},
	{Name: "names that differ in case", bend: func(p *pkg, _ *World) {
		p.Files = append(p.Files, uploadtest.File{Name: "FRESH_1.0.orig.tar.gz", Data: []byte("x")})
	}},
	{Name: "file of no package", bend: binary("", "fresh_1.0-1.png")},
	{Name: "tarball of another source", bend: binary("", "other_1.0.orig.tar.gz")},

	// Architecture and binaries.
	{Name: "no .dsc listed", bend: func(p *pkg, _ *World) {
		p.Changes = resub(`(?m)^ .*\.dsc\n`, "")
	}},
	{Name: "Architecture without source", bend: changes("Architecture: source\n", "Architecture: amd64\n")},
	{Name: "Architecture twice", bend: changes("Architecture: source\n", "Architecture: source source\n")},
	{Name: "Architecture that is none", bend: changes("Architecture: source\n", "Architecture: source any\n")},
	{Name: "Architecture as a path", bend: changes("Architecture: source\n", "Architecture: source ../x\n")},
	{Name: "binaries in a suite without", bend: binary("amd64", "fresh_1.0-1_amd64.deb")},
	{Name: "binaries of a strange architecture", bend: taking("s390x", "fresh_1.0-1_s390x.deb")},
	{Name: "binary of an architecture not listed", bend: taking("", "fresh_1.0-1_amd64.deb")},
	{Name: "binary not in Binary", bend: taking("amd64", "other_1.0-1_amd64.deb")},
	{Name: "bad name in Binary",
		bend: all(taking("amd64", "fresh_1.0-1_amd64.deb"), changes("Binary: fresh", "Binary: fresh $(id)"))},
	{Name: "binary of no form", bend: taking("", "fresh_amd64.deb")},
	{Name: "debug symbols alone",
		bend: all(taking("amd64", "fresh-dbgsym_1.0-1_amd64.deb"),
			changes("Maintainer: Test Person <test@example.org>", "Maintainer: none"))},
	{Name: "binaries without their source", bend: binaryOnly("fresh")},
	{Name: "binNMU of a source that is not there", bend: binaryOnly("fresh (1.0-7)")},
	{Name: "binNMU for all architectures", bend: all(binaryOnly("fresh (1.0-1)"), func(p *pkg, _ *World) {
		p.Files = append(p.Files, uploadtest.File{Name: "fresh-doc_1.0-1+b1_all.deb", Arch: "all"})
		bend := p.Changes
		p.Changes = func(s string) string {
			return Sub("Architecture: amd64 all", "Architecture: amd64 all\nBinary-Only: yes",
				"\nVersion: 1.0-1", "\nVersion: 1.0-1+b1",
				"Binary: fresh", "Binary: fresh fresh-doc")(bend(s))
		}
	}), World: func(c *upload.Context) {
		c.Published = func(string, string) ([]string, error) { return []string{"1.0-1"}, nil }
	}},
	{Name: "unsound binary", bend: taking("amd64", "fresh_1.0-1_amd64.deb"), World: func(c *upload.Context) {
		c.Deb = func(_ context.Context, _ string, u *upload.Upload, f upload.File) ([]string, error) {
			return []string{f.Name + ": it is not a Debian package; build it again"}, nil
		}
	}},
	{Name: ".buildinfo of another source", bend: withBuildinfo("other", "1.0-1", "")},
	{Name: ".buildinfo of another version", bend: withBuildinfo("fresh", "1.0-2", "")},
	{Name: ".buildinfo with other checksums", bend: withBuildinfo("fresh", "1.0-1",
		"Checksums-Sha256:\n "+strings.Repeat("b", 64)+" 20 fresh_1.0-1_amd64.deb\n")},
	{Name: ".buildinfo that is none", bend: withBuildinfo("fresh\nfresh", "1", "")},

	// The source package.
	{Name: "two .dsc", bend: binary("", "fresh_0.9-1.dsc")},
	{Name: ".dsc of another name", bend: set(func(p *pkg) {
		p.Names = func(n string) string { return strings.Replace(n, "1.0-1.dsc", "1.0-2.dsc", 1) }
	})},
	{Name: ".dsc signed by a stranger", bend: func(p *pkg, w *World) { p.DscSigner = w.Stranger }},
	{Name: ".dsc tampered", bend: func(p *pkg, w *World) {
		resign(p, func(b []byte) []byte { return bytes.Replace(b, []byte("4.6.2"), []byte("4.6.1"), 1) })
	}},
	{Name: ".dsc unsigned", bend: unsignedDsc},
	{Name: ".dsc unsigned from a trusted account, .changes too, but wrong",
		bend:  all(set(func(p *pkg) { p.Signer = nil }), dsc("Source: fresh", "Source: stale")),
		World: func(c *upload.Context) { c.Account = "dora" }},
	{Name: ".dsc of another source", bend: dsc("Source: fresh", "Source: stale")},
	{Name: ".dsc of another version", bend: dsc("\nVersion: 1.0-1", "\nVersion: 1.0-2")},
	{Name: ".dsc with two stanzas", bend: func(p *pkg, _ *World) {
		p.Dsc = func(s string) string {
			return s + "\nSource: x\n"
		}
	}},
	{Name: ".dsc without fields", bend: func(p *pkg, _ *World) {
		p.Dsc = resub(`(?s)Maintainer: .*?\n(.*)Checksums-Sha256:.*Files:`, "${1}Files:")
	}},
	{Name: ".dsc with a file twice", bend: func(p *pkg, _ *World) { p.Dsc = resub(`(?m)^( \w{64} .*orig.*)$`, "$1\n$1") }},
	{Name: ".dsc with another SHA-256", bend: func(p *pkg, _ *World) {
		p.Dsc = resub(`(?m)^ \w{64}( .*orig.*)$`, " "+strings.Repeat("c", 64)+"$1")
	}},
	{Name: ".dsc with another size", bend: func(p *pkg, _ *World) {
		p.Dsc = resub(`(?m)^( \w+) \d+ (.*orig.*)$`, "$1 77 $2")
	}},
	{Name: ".dsc with another MD5 and SHA-1", bend: func(p *pkg, _ *World) {
		p.Dsc = func(s string) string {
			s = resub(`(?m)^ \w{32}( .*orig.*)$`, " "+strings.Repeat("c", 32)+"$1")(s)
			return resub(`(?m)^ \w{40}( .*debian.*)$`, " "+strings.Repeat("c", 40)+"$1")(s)
		}
	}},
	{Name: ".dsc with a file that is nowhere", bend: func(p *pkg, _ *World) { p.NoOrig = true }},
	{Name: ".dsc with a file that differs in the archive", bend: func(p *pkg, _ *World) {
		p.NoOrig, p.Source, p.Version = true, "known", "1.1-9"
	}},
	{Name: ".dsc with a path", bend: func(p *pkg, _ *World) {
		p.Dsc = func(s string) string { return List(s, "../../etc/passwd", []byte("x"), "") }
	}},
	{Name: ".dsc with a file of another source", bend: func(p *pkg, _ *World) {
		p.Dsc = func(s string) string { return List(s, "glibc_2.0.orig.tar.gz", []byte("x"), "") }
	}},
	{Name: ".dsc with bad architectures and binaries",
		bend: dsc("Architecture: any", "Architecture: any$(id)", "Binary: fresh", "Binary: ../fresh")},
	{Name: "format that the suite does not take", bend: set(func(p *pkg) { p.Distribution = "lenient" })},
	{Name: "format 3.0 (custom)", bend: dsc("Format: 3.0 (quilt)", "Format: 3.0 (custom)")},
	{Name: "format with a line break", bend: dsc("Format: 3.0 (quilt)", "Format: 3.0\n (quilt)")},
	{Name: "quilt without revision",
		bend: set(func(p *pkg) { p.Version, p.Format = "20", "3.0 (native)"; p.Dsc = Sub("3.0 (native)", "3.0 (quilt)") })},
	{Name: "native with two tarballs", bend: dsc("Format: 3.0 (quilt)", "Format: 3.0 (native)")},
	{Name: "1.0 with a debian tarball", bend: dsc("Format: 3.0 (quilt)", "Format: 1.0")},
	{Name: "1.0 with xz", bend: set(func(p *pkg) { p.Version, p.Packing, p.Format = "20", "xz", "1.0" })},
	{Name: "zst tarballs", bend: set(func(p *pkg) { p.Packing = "zst" })},
	{Name: "two orig tarballs", bend: func(p *pkg, _ *World) {
		p.Files = append(p.Files, uploadtest.File{Name: "fresh_1.0.orig.tar.xz", Data: []byte("x")})
		p.Dsc = func(s string) string { return List(s, "fresh_1.0.orig.tar.xz", []byte("x"), "") }
	}},
	{Name: "signature of no tarball", bend: func(p *pkg, _ *World) {
		p.Files = append(p.Files, uploadtest.File{Name: "fresh_1.0.orig-x.tar.gz.asc", Data: []byte("x")})
		p.Dsc = func(s string) string { return List(s, "fresh_1.0.orig-x.tar.gz.asc", []byte("x"), "") }
	}},
	{Name: "component tarball in two compressions", bend: func(p *pkg, w *World) {
		componentTarball(p, w)
		bend := p.Dsc
		p.Files = append(p.Files, uploadtest.File{Name: "fresh_1.0.orig-data.tar.xz", Data: []byte("x")})
		p.Dsc = func(s string) string { return List(bend(s), "fresh_1.0.orig-data.tar.xz", []byte("x"), "") }
	}},
	{Name: "native with a revision, broken relations", bend: set(func(p *pkg) {
		p.Format, p.BuildDepends = "3.0 (native)", "debhelper (>= )"
	})},
	{Name: "relations with a substitution", bend: set(func(p *pkg) { p.BuildDepends = "${misc:Depends}" })},
	{Name: "nothing here builds it, and no address", bend: set(func(p *pkg) {
		p.Architecture, p.Maintainer = "hurd-any", "x"
	})},

	// Versions.
	{Name: "same version again", bend: set(func(p *pkg) { p.Source, p.Version = "hello", "2:1.2-1" })},
	{Name: "older version", bend: set(func(p *pkg) { p.Source, p.Version = "hello", "2:1.1-1" })},
	{Name: "older by a tilde", bend: set(func(p *pkg) { p.Source, p.Version = "hello", "2:1.2-1~bpo12+1" })},
	{Name: "lost epoch", bend: set(func(p *pkg) { p.Source, p.Version = "hello", "1.3-1" })},
	{Name: "differs in the epoch only", bend: set(func(p *pkg) { p.Source, p.Version = "hello", "3:1.2-1" })},
	{Name: "behind a suite below", bend: set(func(p *pkg) { p.Source, p.Version = "known", "1.2-1" })},

	// Inside the tarballs.
	{Name: "not compressed", bend: orig(func() []byte { return []byte("this is no gzip") })},
	{Name: "not a tarball", bend: orig(func() []byte {
		b := debtest.Pack("gz", []byte(strings.Repeat("this is no tarball", 100)))
		return b
	})},
	{Name: "tarball cut off", bend: tarball(func(which string, b []byte) []byte { return b[:len(b)-20] })},
	{Name: "garbage behind the compressed data", bend: orig(func() []byte {
		return append(zeros("gz", 10), "garbage garbage"...)
	})},
	{Name: "gzip bomb", bend: orig(gzipBomb)},
	{Name: "xz bomb", bend: all(set(func(p *pkg) { p.Packing = "xz" }), orig(XzBomb))},
	{Name: "xz with a dictionary of 4 GiB", bend: all(set(func(p *pkg) { p.Packing = "xz" }), orig(BigDictionary))},
	{Name: "sparse bomb", bend: orig(SparseBomb)},
	{Name: "unpacks to too much", bend: all(set(func(p *pkg) {
		p.Distribution = "small"
	}), orig(func() []byte { return zeros("gz", 200<<10) }))},
	{Name: "too many members", bend: all(set(func(p *pkg) { p.Distribution = "small" }), func(p *pkg, _ *World) {
		for i := range 30 {
			p.Tree = append(p.Tree, plain(fmt.Sprintf("fresh-1.0/%d", i)))
		}
	})},
	{Name: "absolute member", bend: member(tar.Header{Typeflag: tar.TypeReg, Name: "/etc/passwd", Mode: 0o644}, "x")},
	{Name: "member that climbs",
		bend: member(tar.Header{Typeflag: tar.TypeReg, Name: "fresh-1.0/../../etc/passwd", Mode: 0o644}, "x")},
	{Name: "member with a line break",
		bend: member(tar.Header{Typeflag: tar.TypeReg, Name: "fresh-1.0/a\nb\x1b[2J", Mode: 0o644}, "x")},
	{Name: "member below a symbolic link", bend: func(p *pkg, _ *World) {
		p.Tree = append(p.Tree, link("fresh-1.0/etc", "/etc"), plain("fresh-1.0/etc/passwd"))
	}},
	{Name: "symbolic links out of the tree, and no changelog", bend: all(debian("changelog", ""), func(p *pkg, _ *World) {
		p.Tree = append(p.Tree, link("fresh-1.0/a", "/etc/passwd"), link("fresh-1.0/b", "../../x"),
			link("fresh-1.0/d/e", "../../x"))
	})},
	{Name: "hard link out of the tree",
		bend: member(tar.Header{Typeflag: tar.TypeLink, Name: "fresh-1.0/a", Linkname: "/etc/shadow", Mode: 0o644}, "")},
	{Name: "hard link through a symbolic link", bend: func(p *pkg, _ *World) {
		p.Tree = append(p.Tree, link("fresh-1.0/etc", "/etc"),
			uploadtest.Member{Header: tar.Header{Typeflag: tar.TypeLink, Name: "fresh-1.0/a", Linkname: "fresh-1.0/etc/shadow",
				Mode: 0o644}})
	}},
	{Name: "device", bend: device(tar.TypeChar)},
	{Name: "block device", bend: device(tar.TypeBlock)},
	{Name: "FIFO in a tarball", bend: device(tar.TypeFifo)},
	{Name: "unknown type", bend: device('Z')},
	{Name: "directory without rights",
		bend: member(tar.Header{Typeflag: tar.TypeDir, Name: "fresh-1.0/closed/", Mode: 0}, "")},
	{Name: "set-user-ID file, and a device",
		bend: all(device(tar.TypeChar), member(tar.Header{Typeflag: tar.TypeReg, Name: "fresh-1.0/su", Mode: 0o4755}, "x"))},
	{Name: "member from the future", bend: func(p *pkg, w *World) {
		member(tar.Header{Typeflag: tar.TypeReg, Name: "fresh-1.0/later", Mode: 0o644, ModTime: w.Now.AddDate(1, 0, 0)},
			"x")(p, w)
	}},
	{Name: "more findings than anybody reads", bend: func(p *pkg, _ *World) {
		for i := range 100 {
			p.Tree = append(p.Tree, plain(fmt.Sprintf("/abs/%d", i)))
		}
	}},
	{Name: "diff outside of the tree", bend: func(p *pkg, _ *World) {
		p.Format = "1.0"
		p.Tarball = func(which string, b []byte) []byte {
			if which != "diff" {
				return b
			}
			return debtest.Pack("gz", []byte("--- a/x\n+++ ../../etc/passwd\n@@ -0,0 +1 @@\n+root\n--- a/y\n"+
				"+++ /etc/shadow\n@@ -1 +1,2 @@\n-x\n+x\n+++ /not/a/header\n"))
		}
	}},
	{Name: "no changelog", bend: debian("changelog", "")},
	{Name: "empty changelog", bend: debian("changelog", "\n\n")},
	{Name: "changelog of another source", bend: debian("changelog", "stale (1.0-1) stable; urgency=low\n\n  * x\n")},
	{Name: "changelog of another version", bend: debian("changelog", "fresh (1.0-2) stable; urgency=low\n\n  * x\n")},
	{Name: "changelog that is none", bend: debian("changelog", "<b>fresh</b>\n")},
	{Name: "no control", bend: debian("control", "")},
	{Name: "control of another source", bend: debian("control", "Source: stale\n")},
	{Name: "control that is none", bend: debian("control", "# a comment\n\x00\x01\n")},
	{Name: "control empty", bend: debian("control", "\n")},
	{Name: "everything at once", bend: func(p *pkg, w *World) {
		p.Source, p.Version, p.Distribution, p.Maintainer, p.Section, p.Urgency = "hello", "1.0-1", "nowhere", "x", "!", "now"
		p.Closes = []string{"x"}
		p.Tree = append(p.Tree, plain("/abs"))
		p.Files = append(p.Files, uploadtest.File{Name: "x_y.deb", Data: nil, Arch: ""})
		inDir("*.orig.tar.gz", os.Remove)(p, w)
	}},
}, hostileNames()...)

// hostileNames lists each odd name in the .changes, as a file that never could be written.
func hostileNames() []Row {
	var rows []Row
	for _, k := range []string{"path", "absolute", "hidden", "option", "command", "semicolon", "percent", "backslash",
		"colon", "glob",
		"no underscore", "markup", "escape", "bidi", "no-break space", "too long", "reserved by engine"} {
		name := OddNames[k]
		rows = append(rows, Row{Name: "file name: " + k, bend: func(p *pkg, _ *World) {
			p.Changes = func(s string) string { return List(s, name, []byte("x"), "misc optional ") }
		}})
	}
	return rows
}

// Noise are n bytes that do not compress, the same each time.
func Noise(n int) string {
	b := make([]byte, n)
	if _, err := rand.NewChaCha8([32]byte{1}).Read(b); err != nil {
		panic(err)
	}
	return string(b)
}

func withBuildinfo(source, version, rest string) func(*pkg, *World) {
	return all(taking("amd64", "fresh_1.0-1_amd64.deb"), set(func(p *pkg) {
		p.Files = append(p.Files,
			uploadtest.File{Name: "fresh_1.0-1_amd64.buildinfo", Data: buildinfo(source, version, rest)})
	}))
}

// binaryOnly is an upload as a builder makes it.
func binaryOnly(source string) func(*pkg, *World) { return alone("amd64", source) }

// alone is an upload of one binary package without its source, with that field Source.
func alone(arch, field string) func(*pkg, *World) {
	return func(p *pkg, w *World) {
		taking(arch, fmt.Sprintf("%s_%s_%s.deb", p.Source, p.Version, arch))(p, w)
		p.Changes = func(s string) string {
			s = Sub("Architecture: source "+arch, "Architecture: "+arch, "Source: "+p.Source, "Source: "+field)(s)
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
	}
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

// BigDictionary is an xz stream whose block claims a dictionary of 4 GiB - 1.
func BigDictionary() []byte {
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

// SparseBomb is a small tarball whose one member claims to be of 1 TiB.
func SparseBomb() []byte {
	var raw bytes.Buffer
	tw := tar.NewWriter(&raw)
	h := &tar.Header{Typeflag: tar.TypeReg, Name: "fresh-1.0/sparse", Mode: 0o644, Size: 0, ModTime: old,
		Format: tar.FormatUSTAR}
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
	packed := debtest.Pack("gz", b)
	return packed
}
