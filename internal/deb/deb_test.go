package deb_test

import (
	"archive/tar"
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"packmill/internal/deb"
	"packmill/internal/deb/debtest"
	"packmill/internal/deb822"
)

const control = "Package: hello\nVersion: 1:2.10-3\nArchitecture: amd64\nMaintainer: A <a@b.example>\nDescription: d\n"

// dpkgDeb builds a package with the real program.
func dpkgDeb(t *testing.T, packing string) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "root")
	for path, body := range map[string]string{
		"DEBIAN/control":           control,
		"DEBIAN/postinst":          "#!/bin/sh\n",
		"usr/bin/hello":            "#!/bin/sh\necho hello\n",
		"usr/share/doc/hello/grüß": "",
	} {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(body), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(filepath.Join(root, "usr/bin/hello"), filepath.Join(root, "usr/bin/hello2")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("hello", filepath.Join(root, "usr/bin/hi")); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "hello_2.10-3_amd64.deb")
	if msg, err := exec.Command("dpkg-deb", "--root-owner-group", "--uniform-compression", "-Z"+packing, "-b", root,
		out).CombinedOutput(); err != nil {
		t.Fatalf("dpkg-deb -Z%s: %v: %s", packing, err, msg)
	}
	return out
}

func TestReadsWhatDpkgDebWrites(t *testing.T) {
	t.Parallel()
	for _, packing := range []string{"xz", "gzip", "zstd", "none"} {
		t.Run(packing, func(t *testing.T) {
			path := dpkgDeb(t, packing)
			p, err := deb.ReadFile(path, deb.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if p.Name != "hello" || p.Version != "1:2.10-3" || p.Architecture != "amd64" || p.Source != "hello" ||
				p.SourceVersion != "1:2.10-3" {
				t.Errorf("got %s %s %s from %s %s", p.Name, p.Version, p.Architecture, p.Source, p.SourceVersion)
			}
			if string(p.Text) != control {
				t.Errorf("control: got %q, want %q", p.Text, control)
			}
			if err := p.CheckName(filepath.Base(path)); err != nil {
				t.Error(err)
			}
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			want := deb.Sums{Size: int64(len(raw)), MD5: fmt.Sprintf("%x", md5.Sum(raw)), SHA1: fmt.Sprintf("%x", sha1.Sum(raw)),
				SHA256: fmt.Sprintf("%x", sha256.Sum256(raw))}
			if p.Sums != want {
				t.Errorf("sums: got %+v, want %+v", p.Sums, want)
			}
			if got, want := listing(p), dpkgListing(t, path); got != want {
				t.Errorf("contents: got\n%swant\n%s", got, want)
			}
			// The same, a byte at a time, and without the contents.
			slow, err := deb.Read(iotest.OneByteReader(bytes.NewReader(raw)), path, deb.Options{})
			if err != nil || slow.Sums != want || listing(slow) != listing(p) {
				t.Errorf("a byte at a time: %v", err)
			}
			short, err := deb.Read(iotest.HalfReader(bytes.NewReader(raw)), path, deb.Options{SkipContents: true})
			if err != nil || short.Sums != want || short.Contents != nil || string(short.Text) != control {
				t.Errorf("without contents: %+v, %v", short, err)
			}
		})
	}
}

// listing is a package's contents as dpkg-deb -c prints them, without the owners.
func listing(p *deb.Package) string {
	var b strings.Builder
	for _, e := range p.Contents {
		fmt.Fprintf(&b, "%c", map[byte]byte{'0': '-', '1': 'h', '2': 'l', '3': 'c', '4': 'b', '5': 'd', '6': 'p'}[e.Type])
		for i, c := range "rwxrwxrwx" {
			on := e.Mode&(0o400>>i) != 0
			switch special := e.Mode&(0o4000>>(i/3)) != 0 && i%3 == 2; {
			case special && on:
				c = []rune{'s', 's', 't'}[i/3]
			case special:
				c = []rune{'S', 'S', 'T'}[i/3]
			case !on:
				c = '-'
			}
			b.WriteRune(c)
		}
		path := "./" + e.Path
		if e.Path == "." {
			path = "."
		}
		if e.Type == tar.TypeDir {
			path += "/"
		}
		switch e.Type {
		case tar.TypeSymlink:
			path += " -> " + e.Link
		case tar.TypeLink:
			path += " link to ./" + e.Link
		}
		fmt.Fprintf(&b, " %d %s %s\n", e.Size, time.Unix(e.MTime, 0).UTC().Format("2006-01-02 15:04"), path)
	}
	return b.String()
}

func dpkgListing(t *testing.T, path string) string {
	t.Helper()
	cmd := exec.Command("dpkg-deb", "-c", path)
	cmd.Env = append(os.Environ(), "TZ=UTC", "LC_ALL=C.UTF-8", "TAR_OPTIONS=--quoting-style=literal")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("dpkg-deb -c %s: %v", path, err)
	}
	var b strings.Builder
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		rest := line[strings.Index(line, f[3]+" "+f[4])+len(f[3])+len(f[4])+2:]
		fmt.Fprintf(&b, "%s %s %s %s %s", f[0], f[2], f[3], f[4], rest)
	}
	return b.String()
}

// The parts of a sound package, to be broken one at a time.
var (
	format      = debtest.Member{Name: "debian-binary", Body: []byte("2.0\n")}
	goodControl = debtest.Member{Name: "control.tar.gz",
		Body: debtest.Pack("gz", debtest.Tar(debtest.File{Path: "control", Body: control}))}
	goodData = debtest.Member{Name: "data.tar.gz",
		Body: debtest.Pack("gz", debtest.Tar(debtest.File{Path: "usr/bin/hello", Body: "x"}))}
)

func withControl(text string) []byte {
	return debtest.Ar(format,
		debtest.Member{Name: "control.tar.gz",
			Body: debtest.Pack("gz", debtest.Tar(debtest.File{Path: "control", Body: text}))}, goodData)
}

func withData(name string, body []byte) []byte {
	return debtest.Ar(format, goodControl, debtest.Member{Name: name, Body: body})
}

// header is a tar archive of headers alone, as archive/tar writes them.
func header(hs ...tar.Header) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range hs {
		if err := w.WriteHeader(&h); err != nil {
			panic(err)
		}
		io.CopyN(w, zeros{}, h.Size)
	}
	w.Close()
	return b.Bytes()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func edit(data []byte, f func([]byte) []byte) []byte { return f(bytes.Clone(data)) }

// refusals are bad packages, each with the sentence that its uploader reads.
func refusals() []struct {
	name string
	data []byte
	want string
} {
	good := debtest.Ar(format, goodControl, goodData)
	dir := func(name string) tar.Header {
		return tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755, Format: tar.FormatGNU}
	}
	reg := func(name string) tar.Header {
		return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Format: tar.FormatGNU}
	}
	return []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "is no ar container, so no Debian package; build it with dpkg-deb"},
		{"no ar", []byte("PK\x03\x04 zip"), "is no ar container, so no Debian package; build it with dpkg-deb"},
		{"only the magic", []byte("!<arch>\n"),
			"the container ends without debian-binary; it is truncated: send the whole file"},
		{"ends in a header", good[:30], "the file ends in the middle of a member; it is truncated: send the whole file"},
		{"ends after debian-binary", good[:72],
			"the container ends without control.tar; it is truncated: send the whole file"},
		{"ends in control.tar", good[:150], "the file ends in the middle of a member; it is truncated: send the whole file"},
		{"ends in data.tar", good[:len(good)-20],
			"the file ends in the middle of a member; it is truncated: send the whole file"},
		{"negative size", edit(good, func(d []byte) []byte { copy(d[8+48:], "-60       "); return d }),
			`member "debian-binary" of the container has the size "-60       "; build the package again with dpkg-deb`},
		{"size of blanks", edit(good, func(d []byte) []byte { copy(d[8+48:], "          "); return d }),
			`member "debian-binary" of the container has the size "          "; build the package again with dpkg-deb`},
		{"size over the end", edit(good, func(d []byte) []byte { copy(d[8+48:], "9999999999"); return d }),
			"debian-binary has 9999999999 bytes, not a format number; build the package again with dpkg-deb"},
		{"header without its end", edit(good, func(d []byte) []byte { d[8+58] = 'x'; return d }),
			"header 1 of the container is damaged; build the package again with dpkg-deb"},
		{"member name with a path", debtest.Ar(debtest.Member{Name: "../debian-binary", Body: []byte("2.0\n")}),
			`header 1 of the container has the name "../debian-binary"; build the package again with dpkg-deb`},
		{"format 3", debtest.Ar(debtest.Member{Name: "debian-binary", Body: []byte("3.0\n")}, goodControl, goodData),
			`format "3.0\n"; only format 2.0 is known: build the package again with dpkg-deb`},
		{"no debian-binary", debtest.Ar(goodControl, goodData),
			`member "control.tar.gz" at place 1 of the container, where debian-binary belongs; build the package again with dpkg-deb`},
		{"underscore member first", debtest.Ar(debtest.Member{Name: "_gpgorigin", Body: nil}, format, goodControl, goodData),
			`member "_gpgorigin" at place 1 of the container, where debian-binary belongs; build the package again with dpkg-deb`},
		{"data before control", debtest.Ar(format, goodData, goodControl),
			`member "data.tar.gz" at place 2 of the container, where control.tar belongs; build the package again with dpkg-deb`},
		{"two controls", debtest.Ar(format, goodControl, goodControl, goodData),
			`member "control.tar.gz" at place 3 of the container, where data.tar belongs; build the package again with dpkg-deb`},
		{"control again after data", debtest.Ar(format, goodControl, goodData, goodControl),
			`member "control.tar.gz" at place 4 of the container, where nothing belongs; build the package again with dpkg-deb`},
		{"two data", debtest.Ar(format, goodControl, goodData, goodData),
			`member "data.tar.gz" at place 4 of the container, where nothing belongs; build the package again with dpkg-deb`},
		{"bytes after the end", append(bytes.Clone(good), "\n\n\n"...),
			"the file ends in the middle of a member; it is truncated: send the whole file"},
		{"bad byte between members",
			edit(debtest.Ar(format, debtest.Member{Name: "_x", Body: []byte("y")}, goodControl, goodData),
				func(d []byte) []byte { d[8+60+4+60+1] = 'z'; return d }),
			`the byte after member "_x" of the container is 0x7a, not a line end; build the package again with dpkg-deb`},
		{"lzma", withData("data.tar.lzma", []byte("x")),
			"data.tar.lzma is packed in a way that is not accepted; build the package again with dpkg-deb -Zxz (or -Zzstd, " +
				"-Zgzip, -Znone)"},
		{"bzip2", withData("data.tar.bz2", []byte("x")),
			"data.tar.bz2 is packed in a way that is not accepted; build the package again with dpkg-deb -Zxz (or -Zzstd, " +
				"-Zgzip, -Znone)"},
		{"not gzip", withData("data.tar.gz", []byte("plain text, no gzip")),
			"data.tar.gz is damaged (gzip: invalid header); build the package again with dpkg-deb"},
		{"not xz", withData("data.tar.xz", []byte("plain text, no xz stream")),
			"data.tar.xz is damaged (xz: file format not recognized); build the package again with dpkg-deb"},
		{"not zstd", withData("data.tar.zst", []byte("plain text, no zstd frame")),
			"data.tar.zst is damaged (invalid input: magic number mismatch); build the package again with dpkg-deb"},
		{"empty xz", withData("data.tar.xz", nil),
			"data.tar.xz ends too early; build the package again with dpkg-deb"},
		{"half of the gzip stream", withData("data.tar.gz", goodData.Body[:len(goodData.Body)/2]),
			"data.tar.gz ends too early; build the package again with dpkg-deb"},
		{"half of the xz stream", withData("data.tar.xz", debtest.Pack("xz", debtest.Tar())[:40]),
			"data.tar.xz ends too early; build the package again with dpkg-deb"},
		{"a flipped bit under the checksum",
			withData("data.tar.gz", edit(goodData.Body, func(d []byte) []byte { d[len(d)-6] ^= 1; return d })),
			"data.tar.gz is damaged (gzip: invalid checksum); build the package again with dpkg-deb"},
		{"bytes after the gzip stream", withData("data.tar.gz", append(bytes.Clone(goodData.Body), "trailing!!"...)),
			"data.tar.gz is damaged (gzip: invalid header); build the package again with dpkg-deb"},
		{"text after the end of tar", withData("data.tar", append(debtest.Tar(), "hidden"...)),
			"data.tar goes on after the end of its archive; build the package again with dpkg-deb"},
		{"half a tar block", withData("data.tar", debtest.Tar(debtest.File{Path: "a", Body: "x"})[:700]),
			"data.tar ends too early; build the package again with dpkg-deb"},
		{"no padding after the last file", withData("data.tar", debtest.Tar(debtest.File{Path: "a", Body: "x"})[:1025]),
			"data.tar ends too early, without two blocks of zeros; build the package again with dpkg-deb"},
		{"no end of tar", withData("data.tar", debtest.Tar(debtest.File{Path: "a", Body: "x"})[:1536]),
			"data.tar ends too early, without two blocks of zeros; build the package again with dpkg-deb"},
		{"one block of zeros", withData("data.tar", debtest.Tar(debtest.File{Path: "a", Body: "x"})[:2048]),
			"data.tar ends too early, without two blocks of zeros; build the package again with dpkg-deb"},
		{"an empty tar", withData("data.tar", nil),
			"data.tar ends too early, without two blocks of zeros; build the package again with dpkg-deb"},
		{"control.tar without its end",
			debtest.Ar(format, debtest.Member{Name: "control.tar",
				Body: debtest.Tar(debtest.File{Path: "control", Body: control})[:1024+len(control)]}, goodData),
			"control.tar ends too early, without two blocks of zeros; build the package again with dpkg-deb"},
		{"no tar", withData("data.tar", bytes.Repeat([]byte("x"), 1024)),
			"data.tar is no tar archive that dpkg unpacks; build the package again with dpkg-deb"},
		{"PAX", withData("data.tar", header(tar.Header{Name: "./a", ModTime: time.Unix(1, 5), Format: tar.FormatPAX})),
			"data.tar has PAX headers, which dpkg does not unpack; build the package again with dpkg-deb"},
		{"PAX global", withData("data.tar",
			header(tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "c"}})),
			"data.tar has PAX headers, which dpkg does not unpack; build the package again with dpkg-deb"},
		{"type that dpkg does not know",
			withData("data.tar", header(tar.Header{Typeflag: tar.TypeCont, Name: "./c", Format: tar.FormatUSTAR})),
			`data.tar: "c" is of type '7', which dpkg does not unpack; build the package again with dpkg-deb`},
		{"sparse file", withData("data.tar", typed('S', header(tar.Header{Name: "./s", Format: tar.FormatGNU}))),
			`data.tar: "s" is of type 'S', which dpkg does not unpack`},
		{"long name of 2 MB",
			withData("data.tar",
				append(typed('L', header(tar.Header{Name: "././@LongLink", Size: 2 << 20, Format: tar.FormatGNU})[:512]),
					bytes.Repeat([]byte("a"), 4<<20)...)),
			"data.tar is no tar archive that dpkg unpacks"},
		{"path upwards", withData("data.tar", header(reg("./usr/../../etc/passwd"))),
			`the file name "./usr/../../etc/passwd" is not a plain relative path; build the package again with dpkg-deb`},
		{"absolute path", withData("data.tar", header(reg("/etc/passwd"))),
			`the file name "/etc/passwd" is not a plain relative path; build the package again with dpkg-deb`},
		{"line end in a path", withData("data.tar", header(reg("./usr/a\nb"))),
			`the file name "./usr/a\nb" has characters that are not printable UTF-8; rename the file (Debian Policy 10.10)`},
		{"escape sequence in a path", withData("data.tar", header(reg("./usr/\x1b[2J"))),
			`the file name "./usr/\x1b[2J" has characters that are not printable UTF-8; rename the file (Debian Policy 10.10)`},
		{"C1 control in a path", withData("data.tar", header(reg("./usr/\u009b2J"))),
			`the file name "./usr/\u009b2J" has characters that are not printable UTF-8; rename the file (Debian Policy 10.10)`},
		{"Latin-1 path", withData("data.tar", header(reg("./usr/gr\xfc\xdf"))),
			`the file name "./usr/gr\xfc\xdf" has characters that are not printable UTF-8; rename the file (Debian Policy 10.10)`},
		{"file twice", withData("data.tar", header(reg("./a"), reg("./a"))),
			`data.tar: lists "a" twice; build the package again with dpkg-deb`},
		{"file where a directory is", withData("data.tar", header(dir("./a/"), reg("./a"))),
			`data.tar: lists "a" twice; build the package again with dpkg-deb`},
		{"hard link out of the package",
			withData("data.tar",
				header(tar.Header{Typeflag: tar.TypeLink, Name: "./a", Linkname: "../../etc/shadow", Format: tar.FormatGNU})),
			`the file name "../../etc/shadow" is not a plain relative path; build the package again with dpkg-deb`},
		{"symbolic link to nothing",
			withData("data.tar", header(tar.Header{Typeflag: tar.TypeSymlink, Name: "./a", Format: tar.FormatGNU})),
			`data.tar: the symbolic link "a" points to ""; use a target of printable UTF-8`},
		{"control.tar without control",
			debtest.Ar(format, debtest.Member{Name: "control.tar", Body: debtest.Tar(debtest.File{Path: "postinst"})}, goodData),
			"control.tar holds no control file; build the package again with dpkg-deb"},
		{"control twice", debtest.Ar(format,
			debtest.Member{Name: "control.tar",
				Body: debtest.Tar(debtest.File{Path: "control", Body: control}, debtest.File{Path: "control", Body: control})},
			goodData),
			`control.tar holds "control" twice; build the package again with dpkg-deb`},
		{"control is a link",
			debtest.Ar(format, debtest.Member{Name: "control.tar",
				Body: debtest.Tar(debtest.File{Path: "control", Link: "/etc/shadow"})}, goodData),
			`control.tar holds "./control", which is no plain file; build the package again with dpkg-deb`},
		{"directory in control.tar",
			debtest.Ar(format, debtest.Member{Name: "control.tar",
				Body: debtest.Tar(debtest.File{Path: "x/control", Body: control})}, goodData),
			`control.tar holds "./x/", which is no plain file; build the package again with dpkg-deb`},
		{"control file too long",
			debtest.Ar(format, debtest.Member{Name: "control.tar.gz",
				Body: debtest.Pack("gz",
					debtest.Tar(debtest.File{Path: "control", Body: control + strings.Repeat("X-A: b\n", 1<<18)}))}, goodData),
			"control.tar.gz: the control file has 1835104 bytes, 1048576 are allowed; shorten it"},
		{"empty control", withControl(""), "control file"},
		{"two stanzas", withControl(control + "\n" + control), "control file"},
		{"field twice", withControl(control + "Package: other\n"), "control file, line 6: "},
		{"no Package", withControl(strings.Replace(control, "Package: hello\n", "", 1)),
			"control file: no Package field; add it (Debian Policy 5.3)"},
		{"no Version", withControl(strings.Replace(control, "Version: 1:2.10-3\n", "", 1)),
			"control file: no Version field; add it (Debian Policy 5.3)"},
		{"no Architecture", withControl(strings.Replace(control, "Architecture: amd64\n", "", 1)),
			"control file: no Architecture field; add it (Debian Policy 5.3)"},
		{"path for a name", withControl(strings.Replace(control, "hello", "../hello", 1)), `control file: Package: package name "../hello"`},
		{"bad version", withControl(strings.Replace(control, "1:2.10-3", "1:2.10-", 1)), "control file: Version: "},
		{"wildcard for an architecture", withControl(strings.Replace(control, "amd64", "any", 1)), `control file: Architecture: architecture "any" is a wildcard`},
		{"source of two names", withControl(control + "Source: a b\n"), "control file: Source: "},
		{"source with half a version", withControl(control + "Source: hello (1.0\n"),
			`control file: Source: "hello (1.0"; write a name, or a name and a version in parentheses (Debian Policy 5.6.1)`},
		{"source with a bad version", withControl(control + "Source: hello (1_0)\n"), "control file: Source: version "},
	}
}

// TestCheckFields: what dpkg takes and an archive must not.
func TestCheckFields(t *testing.T) {
	for fields, want := range map[string]string{
		"Description: greets\n": "",
		"Description: greets\nBuilt-Using: golang-1.19 (= 1.19.8-2), ab (= 1)\n": "",
		"":               "no Description field",
		"Description:\n": "no Description field",
		"Description: greets\nBuilt-Using: golang-1.19\n":               "names no source package in one version",
		"Description: greets\nBuilt-Using: golang-1.19 (>= 1)\n":        "names no source package in one version",
		"Description: greets\nBuilt-Using: a (= 1) | b (= 1)\n":         "names no source package in one version",
		"Description: greets\nBuilt-Using: nothing at all\n":            "Built-Using: ",
		"Description: greets\nStatic-Built-Using: rust-x:amd64 (= 1)\n": "names no source package in one version",
	} {
		st, err := deb822.ParseOne("control", []byte("Package: hello\nVersion: 1\nArchitecture: all\n"+fields),
			deb822.Hostile)
		if err != nil {
			if want == "" {
				t.Errorf("%q: %v", fields, err)
			}
			continue
		}
		err = (&deb.Package{Control: st}).CheckFields("hello_1_all.deb")
		if got := fmt.Sprint(err); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(got, want)) {
			t.Errorf("%q: got %v, want %q", fields, err, want)
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, tt := range refusals() {
		t.Run(tt.name, func(t *testing.T) {
			_, err := deb.Read(bytes.NewReader(tt.data), "dir/hello_2.10-3_amd64.deb", deb.Options{})
			r := (*deb.Refusal)(nil)
			if !errors.As(err, &r) {
				t.Fatalf("got %v, want a refusal: %s", err, tt.want)
			}
			if r.File != "hello_2.10-3_amd64.deb" || !strings.HasPrefix(r.Text, tt.want) {
				t.Errorf("got  %s: %s\nwant %s", r.File, r.Text, tt.want)
			}
		})
	}
}

// TestTroubleIsNoRefusal holds that a disk that fails at any place is not taken
// for a fault of the package.
func TestTroubleIsNoRefusal(t *testing.T) {
	t.Parallel()
	good := debtest.Ar(format, goodControl, goodData)
	trouble := errors.New("the disk fails")
	for n := range len(good) {
		_, err := deb.Read(io.MultiReader(bytes.NewReader(good[:n]), iotest.ErrReader(trouble)), "x.deb", deb.Options{})
		if r := (*deb.Refusal)(nil); !errors.Is(err, trouble) || errors.As(err, &r) {
			t.Fatalf("after %d bytes: got %v, want %v", n, err, trouble)
		}
	}
	for _, opt := range []deb.Options{{DataTar: failing{trouble}}, {ControlTar: failing{trouble}}} {
		_, err := deb.Read(bytes.NewReader(good), "x.deb", opt)
		if r := (*deb.Refusal)(nil); !errors.Is(err, trouble) || errors.As(err, &r) {
			t.Errorf("a writer that fails: got %v, want %v", err, trouble)
		}
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

// odd is a packed archive of an odd number of bytes.
func odd() (body []byte) {
	for name := "a"; len(body)%2 == 0; name += "b" {
		body = debtest.Pack("gz", debtest.Tar(debtest.File{Path: name}))
	}
	return body
}

func TestAccepted(t *testing.T) {
	t.Parallel()
	for name, data := range map[string][]byte{
		"GNU ar's slash": bytes.Replace(debtest.Ar(format, goodControl, goodData), []byte("debian-binary   "),
			[]byte("debian-binary/  "), 1),
		"signed by dpkg-sig": debtest.Ar(format, goodControl, goodData,
			debtest.Member{Name: "_gpgbuilder", Body: []byte("x")}),
		"member before control": debtest.Ar(format, debtest.Member{Name: "_x", Body: []byte("y")}, goodControl, goodData),
		"no byte to fill up": bytes.TrimSuffix(debtest.Ar(format, goodControl,
			debtest.Member{Name: "data.tar.gz", Body: odd()}), []byte("\n")),
		"gzip in two members": withData("data.tar.gz",
			append(debtest.Pack("gz", debtest.Tar()[:512]), debtest.Pack("gz", debtest.Tar()[512:])...)),
		"directory listed twice": withData("data.tar",
			header(tar.Header{Typeflag: tar.TypeDir, Name: "./a/", Format: tar.FormatGNU},
				tar.Header{Typeflag: tar.TypeDir, Name: "./a/", Format: tar.FormatGNU})),
		"further line in format": debtest.Ar(debtest.Member{Name: "debian-binary", Body: []byte("2.0\nmore\n")}, goodControl,
			goodData),
	} {
		if _, err := deb.Read(bytes.NewReader(data), name, deb.Options{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOldBzip2(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("bzip2", "-c")
	cmd.Stdin = bytes.NewReader(debtest.Tar(debtest.File{Path: "usr/x", Body: "y"}))
	packed, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	data := withData("data.tar.bz2", packed)
	p, err := deb.Read(bytes.NewReader(data), "x.deb", deb.Options{Old: true})
	if err != nil || len(p.Contents) != 3 {
		t.Errorf("accepted as old: got %v, %v", p, err)
	}
	for _, skip := range []bool{true, false} {
		if _, err := deb.Read(bytes.NewReader(data), "x.deb", deb.Options{SkipContents: skip}); err == nil {
			t.Errorf("not old, skipping %v: accepted", skip)
		}
	}
}

func TestSourceField(t *testing.T) {
	t.Parallel()
	for field, want := range map[string][2]string{
		"":                      {"hello", "1:2.10-3"},
		"Source: hello-src\n":   {"hello-src", "1:2.10-3"},
		"Source: gcc (4:1-2)\n": {"gcc", "4:1-2"},
	} {
		p, err := deb.Read(bytes.NewReader(withControl(control+field)), "x.deb", deb.Options{})
		if err != nil {
			t.Errorf("%q: %v", field, err)
		} else if got := [2]string{p.Source, p.SourceVersion}; got != want {
			t.Errorf("%q: got %v, want %v", field, got, want)
		}
	}
}

func TestCheckName(t *testing.T) {
	t.Parallel()
	p := &deb.Package{Name: "hello", Version: "1:2.10-3", Architecture: "amd64"}
	for name, ok := range map[string]bool{
		"hello_2.10-3_amd64.deb": true, "hello_2.10-3_amd64.udeb": true,
		"hello_1:2.10-3_amd64.deb": false, "hello_1%3a2.10-3_amd64.deb": false,
		"hello_2.10-3_i386.deb": false, "hello2_2.10-3_amd64.deb": false, "hello_2.10-3_amd64.opk": false,
	} {
		if err := p.CheckName(name); (err == nil) != ok {
			t.Errorf("%s: got %v", name, err)
		}
	}
	err := p.CheckName("lie_1_all.deb")
	if got, want := fmt.Sprint(err), "lie_1_all.deb: its control file belongs to hello_2.10-3_amd64.deb; "+
		"give the file that name, or build the package again"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// bomb is a member of n zeros, packed by the real program.
func bomb(t testing.TB, n int64, program string, args ...string) []byte {
	t.Helper()
	// One stream of 32 MiB, again and again: xz, gzip and zstd all take
	// streams one after another, so nobody has to pack 10 GB.
	cmd := exec.Command(program, args...)
	cmd.Stdin = io.LimitReader(zeros{}, min(n, 32<<20))
	one, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", program, err)
	}
	return bytes.Repeat(one, int(n/min(n, 32<<20)))
}

// typed gives the first header of a tar archive another type.
func typed(kind byte, data []byte) []byte {
	data[156] = kind
	copy(data[148:156], "        ")
	sum := 0
	for _, c := range data[:512] {
		sum += int(c)
	}
	copy(data[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return data
}

// TestBombs measures: a 10 GB bomb is refused in well under the time and memory
// that unpacking it would take.
func TestBombs(t *testing.T) {
	start := header(tar.Header{Name: "./zeros", Size: 0, Format: tar.FormatGNU})[:512]
	// A file of 10 GB: the size in base 256, and the checksum mended.
	big := header(tar.Header{Name: "./zeros", Size: 0, Format: tar.FormatGNU})[:512]
	copy(big[124:136], "\x80\x00\x00\x00\x00\x00\x00\x02\x80\x00\x00\x00")
	copy(big[148:156], "        ")
	sum := 0
	for _, c := range big {
		sum += int(c)
	}
	copy(big[148:156], fmt.Sprintf("%06o\x00 ", sum))
	for i, tt := range []struct {
		ext, packing string
		program      []string
	}{
		{".xz", "xz", []string{"xz", "-1", "-c", "--threads=1"}},
		{".gz", "gz", []string{"gzip", "-9", "-c"}},
		{".zst", "zst", []string{"zstd", "-q", "-c"}},
	} {
		body := bomb(t, 10<<30, tt.program[0], tt.program[1:]...)
		for _, head := range [][]byte{start, big}[min(1, i):] {
			data := withData("data.tar"+tt.ext, append(debtest.Pack(tt.packing, head), body...))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			began := cpu()
			_, err := deb.Read(bytes.NewReader(data), "bomb.deb", deb.Options{})
			took := cpu() - began
			runtime.ReadMemStats(&after)
			r := (*deb.Refusal)(nil)
			if !errors.As(err, &r) || !strings.Contains(r.Text, "unpacks to more than 400 times its size, as bombs do") &&
				!strings.Contains(r.Text, "goes on after the end") {
				t.Errorf("%s: got %v, want a refusal", tt.ext, err)
			}
			if got := after.TotalAlloc - before.TotalAlloc; took > 15*time.Second || got > 40<<20 {
				t.Errorf("%s: %v of processor and %d bytes of memory for %v", tt.ext, took, got, err)
			}
			t.Logf("%s, %d bytes: %v, %d kB: %v", tt.ext, len(data), took, (after.TotalAlloc-before.TotalAlloc)>>10, err)
		}
	}
	// The same in control.tar.
	for _, by := range [][]string{{"xz", "xz", "-1", "-c"}, {"gz", "gzip", "-c"}, {"zst", "zstd", "-q", "-c"}} {
		data := debtest.Ar(format,
			debtest.Member{Name: "control.tar." + by[0],
				Body: append(debtest.Pack(by[0], big), bomb(t, 1<<30, by[1], by[2:]...)...)}, goodData)
		_, err := deb.Read(bytes.NewReader(data), "bomb.deb", deb.Options{})
		if want := "bomb.deb: control.tar." + by[0] +
			" unpacks to more than 33554432 bytes; split the package"; fmt.Sprint(err) != want {
			t.Errorf("control.tar: got %v, want %s", err, want)
		}
	}
}

// cpu is the processor time of this process.
func cpu() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func TestMemoryOfDecompressors(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("xz", "-c", "--lzma2=dict=256MiB")
	cmd.Stdin = bytes.NewReader(debtest.Tar())
	packed, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	_, err = deb.Read(bytes.NewReader(withData("data.tar.xz", packed)), "x.deb", deb.Options{})
	if want := "x.deb: data.tar.xz needs more memory to unpack than dpkg-deb's highest level does; " +
		"build the package again with dpkg-deb"; fmt.Sprint(err) != want {
		t.Errorf("xz: got %v, want %s", err, want)
	}
	cmd = exec.Command("zstd", "-q", "-c", "--ultra", "-22", "--long=31")
	cmd.Stdin = io.LimitReader(zeros{}, 1<<20)
	if packed, err = cmd.Output(); err != nil {
		t.Fatal(err)
	}
	_, err = deb.Read(bytes.NewReader(withData("data.tar.zst", packed)), "x.deb", deb.Options{})
	if want := "x.deb: data.tar.zst needs more memory to unpack than dpkg-deb's highest level does; " +
		"build the package again with dpkg-deb"; fmt.Sprint(err) != want {
		t.Errorf("zstd: got %v, want %s", err, want)
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	many := make([]debtest.File, 50)
	for i := range many {
		many[i] = debtest.File{Path: fmt.Sprintf("usr/f%02d", i)}
	}
	data := withData("data.tar", debtest.Tar(many...))
	for _, tt := range []struct {
		change func(*deb.Limits)
		want   string
	}{
		{func(l *deb.Limits) { l.Entries = 51 },
			"x.deb: data.tar: lists more than 51 files or 268435456 bytes of names; split the package"},
		{func(l *deb.Limits) { l.PathText = 100 },
			"x.deb: data.tar: lists more than 2000000 files or 100 bytes of names; split the package"},
		{func(l *deb.Limits) { l.Data = 1000 }, "x.deb: data.tar unpacks to more than 1000 bytes; split the package"},
		{func(l *deb.Limits) {}, "<nil>"},
	} {
		lim := deb.DefaultLimits
		tt.change(&lim)
		_, err := deb.Read(bytes.NewReader(data), "x.deb", deb.Options{Limits: &lim})
		if got := fmt.Sprint(err); got != tt.want {
			t.Errorf("got %s, want %s", got, tt.want)
		}
	}
}

func TestReadFileTakesRegularFilesOnly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	good := filepath.Join(dir, "good.deb")
	if err := os.WriteFile(good, debtest.Ar(format, goodControl, goodData), 0o644); err != nil {
		t.Fatal(err)
	}
	link, fifo := filepath.Join(dir, "link.deb"), filepath.Join(dir, "fifo.deb")
	if err := os.Symlink(good, link); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(fifo, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := deb.ReadFile(good, deb.Options{}); err != nil {
		t.Error(err)
	}
	for _, path := range []string{link, fifo, dir, filepath.Join(dir, "none.deb")} {
		if _, err := deb.ReadFile(path, deb.Options{}); err == nil {
			t.Errorf("%s: accepted", path)
		}
	}
}

// TestTarCopies holds that the writers of Options get what dpkg-deb unpacks.
func TestTarCopies(t *testing.T) {
	t.Parallel()
	path := dpkgDeb(t, "xz")
	var c, d bytes.Buffer
	if _, err := deb.ReadFile(path, deb.Options{ControlTar: &c, DataTar: &d, SkipContents: true}); err != nil {
		t.Fatal(err)
	}
	for flag, got := range map[string][]byte{"--ctrl-tarfile": c.Bytes(), "--fsys-tarfile": d.Bytes()} {
		want, err := exec.Command("dpkg-deb", flag, path).Output()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: got %d bytes, want %d", flag, len(got), len(want))
		}
	}
}

func FuzzRead(f *testing.F) {
	for _, tt := range refusals() {
		f.Add(tt.data)
	}
	for _, packing := range []string{"xz", "zst", "none"} {
		f.Add(debtest.Deb{Name: "hello", Version: "1", Packing: packing}.Bytes())
	}
	lim := deb.DefaultLimits
	lim.Floor, lim.Control, lim.Data = 1<<20, 1<<20, 8<<20
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := deb.Read(bytes.NewReader(data), "x.deb", deb.Options{Limits: &lim, Old: true})
		if r := (*deb.Refusal)(nil); err != nil && !errors.As(err, &r) {
			t.Fatalf("bytes can only be refused, got %v", err)
		}
		if err == nil && (p.Control == nil || p.Name == "" || p.SHA256 != fmt.Sprintf("%x", sha256.Sum256(data)) ||
			strings.ContainsAny(p.FileName("deb"), "/\n")) {
			t.Fatalf("accepted as %+v", p)
		}
	})
}

func BenchmarkRead(b *testing.B) {
	for _, packing := range []string{"xz", "gz", "zst"} {
		var debs [][]byte
		for _, u := range debtest.Corpus(200, "1.0") {
			for _, d := range u.Debs {
				d.Packing = packing
				debs = append(debs, d.Bytes())
			}
		}
		for _, skip := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/skip=%v", packing, skip), func(b *testing.B) {
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					if _, err := deb.Read(bytes.NewReader(debs[i%len(debs)]), "x.deb", deb.Options{SkipContents: skip}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
