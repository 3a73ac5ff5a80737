package opkg_test

import (
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"packmill/archive/opkg"
	"packmill/internal/deb/debtest"
)

// TestCheckFinds breaks a good feed in one way at a time: a rule that Check does
// not hold is no rule.
func TestCheckFinds(t *testing.T) {
	t.Parallel()
	usign, err := opkg.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	replace := func(from, to string) func(string) string {
		return func(s string) string {
			if !strings.Contains(s, from) {
				t.Fatalf("no %q in\n%s", from, s)
			}
			return strings.Replace(s, from, to, 1)
		}
	}
	for _, tt := range []struct {
		name string
		edit func(string) string
		want string
	}{
		{"nothing", func(s string) string { return s }, ""},
		{"case of SHA256sum", replace("SHA256sum:", "SHA256Sum:"), "SHA256Sum: opkg knows it as SHA256sum only"},
		{"Debian's SHA256", replace("SHA256sum:", "SHA256:"), "SHA256: opkg knows SHA256sum only"},
		{"upper-case hex", func(s string) string {
			i := strings.Index(s, "MD5Sum: ")
			return s[:i+8] + strings.ToUpper(s[i+8:i+40]) + s[i+40:]
		}, "MD5Sum: "},
		{"wrong MD5", func(s string) string {
			i := strings.Index(s, "MD5Sum: ")
			return s[:i+8] + strings.Repeat("0", 32) + s[i+40:]
		}, "has other checksums than the index says"},
		{"no MD5Sum", func(s string) string { i := strings.Index(s, "MD5Sum: "); return s[:i] + s[i+41:] }, "no MD5Sum"},
		{"wrong SHA-256", func(s string) string {
			i := strings.Index(s, "SHA256sum: ")
			return s[:i+11] + strings.Repeat("0", 64) + s[i+75:]
		}, "has other checksums than the index says"},
		{"upper-case SHA-256", func(s string) string {
			i := strings.Index(s, "SHA256sum: ")
			return s[:i+11] + strings.Repeat("A", 64) + s[i+75:]
		}, "SHA256sum: "},
		{"no SHA256sum", func(s string) string { i := strings.Index(s, "SHA256sum: "); return s[:i] + s[i+76:] },
			"no SHA256sum"},
		{"no Package", replace("Package: hello\n", ""), "no Package"},
		{"no Filename", replace("Filename: pool/main/h/hello/hello_1.0_amd64.opk\n", ""), "no Filename"},
		{"no Size", func(s string) string {
			i := strings.Index(s, "Size: ")
			return s[:i] + s[i+strings.Index(s[i:], "\n")+1:]
		}, "no Size"},
		{"no Version", replace("Version: 1.0\n", ""), "no Version"},
		{"no Architecture", replace("Architecture: amd64\n", ""), "no Architecture"},
		{"foreign architecture", replace("Architecture: amd64", "Architecture: mips"),
			"architecture mips is none of the client's"},
		{"version", replace("Version: 1.0", "Version: 1.0-"), "Version: "},
		{"folded Depends", replace("Depends: libc6 (>= 2), ", "Depends: libc6 (>= 2),\n "), "Depends is folded"},
		{"qualifier", replace("libc6 (>= 2)", "libc6:any (>= 2)"), `opkg cannot read "libc6:any (>= 2)"`},
		{"architecture list", replace("libc6 (>= 2)", "libc6 [amd64]"), `opkg cannot read "libc6 [amd64]"`},
		{"profile", replace("libc6 (>= 2)", "libc6 <!nocheck>"), `opkg cannot read "libc6 <!nocheck>"`},
		{"obsolete operator", replace("(>= 2)", "(> 2)"), "opkg cannot read"},
		{"versioned Provides", replace("Provides: virtual", "Provides: virtual (= 1)"), `Provides: opkg cannot read "virtual (= 1)"`},
		{"Installed-Size", replace("Section:", "Installed-Size: 12\nSection:"), "Installed-Size: opkg counts bytes"},
		{"unknown field", replace("Section:", "Multi-Arch: same\nSection:"),
			"Multi-Arch: no field that opkg is known to read"},
		{"field twice", replace("Section: misc", "Section: misc\nSection: misc"), "Section twice"},
		{"Description early", replace("Section: misc\n", "Section: misc\nDescription: early\n"), "Description twice"},
		{"Description not last", func(s string) string {
			return strings.Replace(s, "\n\n", "\nPriority: x\n\n", 1)
		}, "Description is not the last field"},
		{"blanks for a separator", replace("\n\n", "\n \n\n"), "a line of blanks does not separate entries"},
		{"two separators", replace("\n\n", "\n\n\n"), "a second empty line"},
		{"no last separator", func(s string) string {
			return strings.TrimSuffix(s, "\n")
		}, "Packages does not end with an empty line"},
		{"no colon", replace("Section: misc", "Section misc"), "is no field and value"},
		{"trailing blank", replace("Section: misc", "Section: misc "), "is no field and value"},
		{"entry twice", func(s string) string { return s + s }, "is listed twice"},
		{"absolute Filename", replace("Filename: ", "Filename: /"), "is not a clean path relative to the feed"},
		{"URL", replace("Filename: ", "Filename: http://x/"), "is not a clean path relative to the feed"},
		{"Filename out of the feed", replace("Filename: pool/", "Filename: ../../pool/2/"), "leads out of the feed"},
		{"missing file", replace("Filename: pool/main/", "Filename: pool/other/"), "is not there"},
		{"Replaces", replace("Provides: virtual", "Replaces: old (<< 2)\nProvides: virtual"),
			"makes libsolv remove the package; without Conflicts it must be old (<< 0)"},
		{"Replaces without a version", replace("Provides: virtual", "Conflicts: other\nReplaces: old, other\nProvides: virtual"), `Replaces: "old" makes libsolv remove`},
		{"name of the file", replace("hello_1.0_amd64.opk", "hello_1.1_amd64.opk"), "want the name hello_1.0_amd64"},
		{"size", replace("Size: ", "Size: 1"), "the index says 1"},
		{"size with a zero", replace("Size: ", "Size: 0"), "is not of the form"},
		{"other version than in the file", func(s string) string { return strings.Replace(s, "Version: 1.0", "Version: 1:1.0", 1) }, `its control file has Version "1.0", the index "1:1.0"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newTree(t)
			a.add(debtest.Deb{Name: "hello", Version: "1.0", Fields: "Depends: libc6 (>= 2), other\nProvides: virtual\n"})
			feed := &opkg.Feed{Suite: "s", Arch: "amd64"}
			a.publish(feed, now)
			file := filepath.Join(feed.Dir(), "Packages")
			text := tt.edit(read(t, file))
			var packed bytes.Buffer
			z := gzip.NewWriter(&packed)
			z.Write([]byte(text))
			z.Close()
			for name, data := range map[string][]byte{"Packages": []byte(text), "Packages.gz": packed.Bytes(),
				"Packages.sig": usign.Sign([]byte(text))} {
				if err := os.WriteFile(filepath.Join(feed.Dir(), name), data, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			wrong := a.check(feed, opkg.CheckOptions{Archs: []string{"amd64", "all"}, Usign: []*opkg.Key{usign}})
			got := strings.Join(wrong, "\n")
			if tt.want == "" && wrong != nil || !strings.Contains(got, tt.want) {
				t.Errorf("got\n%s\nwant %s", got, tt.want)
			}
		})
	}
}

// TestCheckFindsFiles breaks the files beside the index, and the package.
func TestCheckFindsFiles(t *testing.T) {
	t.Parallel()
	usign, err := opkg.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	other, err := opkg.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	const opk = "pool/main/h/hello/hello_1.0_amd64.opk"
	for _, tt := range []struct {
		name, file string
		edit       func([]byte) []byte
		want       string
	}{
		{"no index", "Packages", nil, "no Packages; an empty feed needs an empty one"},
		{"no packed index", "Packages.gz", nil, "no Packages.gz"},
		{"other index", "Packages.gz", func([]byte) []byte {
			return gz("Package: x\n\n")
		}, "Packages.gz is not Packages packed"},
		{"two members", "Packages.gz", func(b []byte) []byte { return append(b, gz("")...) }, "opkg reads one member only"},
		{"no signature", "Packages.sig", nil, "Packages.sig: the file is missing"},
		{"other key", "Packages.sig", func([]byte) []byte {
			return other.Sign(nil)
		}, "Packages.sig: signed by key " + other.Fingerprint()},
		{"signature over other bytes", "Packages.sig", func([]byte) []byte {
			return usign.Sign([]byte("x"))
		}, "the signature does not fit the data"},
		{"package truncated", opk, func(b []byte) []byte { return b[:len(b)-1] }, "the index says"},
		{"package changed", opk, func(b []byte) []byte { b[len(b)-9] ^= 1; return b }, "hello_1.0_amd64.opk: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newTree(t)
			a.add(debtest.Deb{Name: "hello", Version: "1.0"})
			feed := &opkg.Feed{Suite: "s", Arch: "amd64", Usign: []*opkg.Key{usign}}
			a.publish(feed, now)
			path := feed.Dir() + "/" + tt.file
			data := []byte(read(t, path))
			if tt.edit == nil {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			} else if err := os.WriteFile(path, tt.edit(data), 0o644); err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(a.check(feed, opkg.CheckOptions{Usign: []*opkg.Key{usign}}), "\n"); !strings.Contains(got,
				tt.want) {
				t.Errorf("got\n%s\nwant %s", got, tt.want)
			}
		})
	}
}

func gz(text string) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write([]byte(text))
	z.Close()
	return b.Bytes()
}

// TestReadPackageRefuses makes packages in the forms that a client does not take.
func TestReadPackageRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, err := debtest.Deb{Name: "hello", Version: "1.0", Packing: "gz"}.Write(dir)
	if err != nil {
		t.Fatal(err)
	}
	good := filepath.Join(dir, "good.opk")
	if _, _, err := opkg.Repack(path, good, opkg.Options{}); err != nil {
		t.Fatal(err)
	}
	x := filepath.Join(dir, "x")
	if err := os.Mkdir(x, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, x, "tar", "-xzf", good)
	run(t, x, "sh", "-c", "mkdir in && cd in && tar -xzf ../data.tar.gz && touch -d '2020-01-01 00:00:00.5' usr && tar "+
		"--format=posix --numeric-owner -czf ../pax.tar.gz .")
	run(t, x, "sh", "-c",
		"cp data.tar.gz keep && cp control.tar.gz keepc && gunzip -c keep | xz > data.tar.xz && cat keep keep > twice.tar.gz")
	for _, tt := range []struct{ name, script, want string }{
		{"good", "tar --format=gnu -czf $O ./debian-binary ./control.tar.gz ./data.tar.gz", ""},
		{"an ar", "cp ../hello_1.0_amd64.deb $O", "gzip: invalid header"},
		{"plain tar", "tar --format=gnu -cf $O ./debian-binary ./control.tar.gz ./data.tar.gz", "gzip: invalid header"},
		{"without ./", "tar --format=gnu -czf $O debian-binary control.tar.gz data.tar.gz", `member 1 is "debian-binary", want "./debian-binary"`},
		{"other order", "tar --format=gnu -czf $O ./debian-binary ./data.tar.gz ./control.tar.gz", `member 2 is "./data.tar.gz", want "./control.tar.gz"`},
		{"xz inside", "tar --format=gnu -czf $O ./debian-binary ./control.tar.gz ./data.tar.xz", `member 3 is "./data.tar.xz", want "./data.tar.gz"`},
		{"fourth", "tar --format=gnu -czf $O ./debian-binary ./control.tar.gz ./data.tar.gz ./keep", `member 4 is "./keep", want "nothing"`},
		{"third missing", "tar --format=gnu -czf $O ./debian-binary ./control.tar.gz", "no ./data.tar.gz"},
		{"PAX outside", "tar --format=posix -czf $O ./debian-binary ./control.tar.gz ./data.tar.gz",
			"has PAX headers; OpenWrt's opkg installs nothing of it"},
		{"PAX inside", "cp pax.tar.gz data.tar.gz; tar --format=gnu -czf $O ./debian-binary ./control.tar.gz " +
			"./data.tar.gz; cp keep data.tar.gz", "has PAX headers; OpenWrt's opkg installs nothing of it"},
		{"two members inside", "cp twice.tar.gz data.tar.gz; tar --format=gnu -czf $O ./debian-binary ./control.tar.gz " +
			"./data.tar.gz; cp keep data.tar.gz", "opkg reads one member only"},
		{"format", "echo 3.0 > debian-binary; tar --format=gnu -czf $O ./debian-binary ./control.tar.gz ./data.tar.gz; echo 2.0 > debian-binary", `debian-binary is "3.0\n"`},
		{"cut in a block", "gunzip -c control.tar.gz | head -c -1030 | gzip -n > c; cp c control.tar.gz; " +
			"tar --format=gnu -czf $O ./debian-binary ./control.tar.gz ./data.tar.gz; cp keepc control.tar.gz",
			"./control.tar.gz: ends within a block"},
		{"no end", "gunzip -c control.tar.gz | head -c -1024 | gzip -n > c; cp c control.tar.gz; " +
			"tar --format=gnu -czf $O ./debian-binary ./control.tar.gz ./data.tar.gz; cp keepc control.tar.gz",
			"./control.tar.gz: ends without two blocks of zeros"},
		{"half an end", "gunzip -c data.tar.gz | head -c -512 | gzip -n > c; cp c data.tar.gz; " +
			"tar --format=gnu -czf $O ./debian-binary ./control.tar.gz ./data.tar.gz; cp keep data.tar.gz",
			"./data.tar.gz: ends without two blocks of zeros"},
		{"no end outside", "tar --format=gnu -b 1 -cf c ./debian-binary ./control.tar.gz ./data.tar.gz; " +
			"head -c -1024 c | gzip -n > $O", "the package: ends without two blocks of zeros"},
		{"more after the end", "(gunzip -c data.tar.gz; gunzip -c data.tar.gz) | gzip -n > c; cp c data.tar.gz; " +
			"tar --format=gnu -czf $O ./debian-binary ./control.tar.gz ./data.tar.gz; cp keep data.tar.gz",
			"./data.tar.gz: goes on after its end"},
		{"no control", "cp control.tar.gz c; tar --format=gnu -czf control.tar.gz ./debian-binary; " +
			"tar --format=gnu -czf $O ./debian-binary ./control.tar.gz ./data.tar.gz; cp c control.tar.gz", "no control file"},
	} {
		out := filepath.Join(dir, "out.opk")
		run(t, x, "env", "O="+out, "sh", "-ec", tt.script)
		_, err := opkg.ReadPackage(out)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: got %v, want %s", tt.name, err, tt.want)
		}
	}
}
