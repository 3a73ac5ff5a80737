package upload_test

import (
	"archive/tar"
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"packmill/spool/openpgp"
	"packmill/spool/upload"
	"packmill/spool/upload/uploadtest"
)

var update = flag.Bool("update", false, "write testdata/corpus.txt anew, for a person to read")

var now = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// world is who may upload what to where.
type world struct {
	ann, bob, carl, stranger *openpgp.Signer
	keyring                  *openpgp.Keyring
}

var theWorld = sync.OnceValue(func() *world {
	gen := func(name string) *openpgp.Signer {
		s, err := openpgp.Generate(name, strings.ToLower(name)+"@example.org", now.AddDate(-3, 0, 0))
		if err != nil {
			panic(err)
		}
		return s
	}
	w := &world{ann: gen("Ann"), bob: gen("Bob"), carl: gen("Carl"), stranger: gen("Stranger")}
	k, err := openpgp.ReadKeyring(w.ann.Public(), w.bob.Public(), w.carl.Public())
	if err != nil {
		panic(err)
	}
	w.keyring = k
	return w
})

func (w *world) context() *upload.Context {
	published := map[string][]string{
		"stable hello":    {"1.0-1", "2:1.0-1", "2:1.2-1"},
		"stable known":    {"1.0-1", "1.1-1"},
		"oldstable known": {"1.5-1"},
		"stable libbob":   {"0.9-1"},
		"taking known":    {"1.1-1"},
	}
	return &upload.Context{
		Now: now, Keyring: w.keyring,
		Uploaders: []*upload.Uploader{
			{Name: "ann", Email: "ann@example.org", Fingerprints: []string{w.ann.Fingerprint()}, Allow: []upload.Right{
				{Source: true, New: true, Binaries: []string{"*"}},
			}},
			{Name: "bob", Fingerprints: []string{w.bob.Fingerprint()}, Allow: []upload.Right{
				{Suites: []string{"stable"}, Components: []string{"main"}, Packages: []string{"lib*"}, Source: true},
				{Suites: []string{"taking"}, Packages: []string{"known"}, Binaries: []string{"amd64"}},
			}},
			{Name: "dora", Account: "dora", Unsigned: true, Allow: []upload.Right{{Source: true, New: true}}},
			{Name: "emil", Account: "emil", Allow: []upload.Right{{Source: true, New: true}}},
		},
		Suites: []*upload.Suite{
			{Name: "stable", Aliases: []string{"bookworm"}, Components: []string{"main", "contrib"}, Architectures: []string{"amd64", "i386"}, Below: []string{"oldstable"}},
			{Name: "taking", Architectures: []string{"amd64", "i386"}, Binaries: upload.BinariesAllowed},
			{Name: "dropping", Architectures: []string{"amd64"}, Binaries: upload.BinariesDropped},
			{Name: "small", Architectures: []string{"amd64"}, Limits: upload.Limits{Files: 3, FileSize: 4000, Size: 5000, Entries: 20, Unpacked: 100 << 10, Age: 24 * time.Hour}},
			{Name: "lenient", Architectures: []string{"amd64"}, Formats: []string{"3.0 (native)"}, Checks: map[string]upload.Level{
				"dsc-unsigned": upload.Warning, "maintainer": upload.Off, "date": upload.Remark, "checksum": upload.Off, "rights": upload.Off,
			}},
		},
		Published: func(suite, source string) ([]string, error) { return published[suite+" "+source], nil },
		Pool: func(name string) (string, int64, bool) {
			if strings.HasPrefix(name, "known_1.1.orig") {
				return strings.Repeat("0", 64), 5, true
			}
			return "", 0, false
		},
		Seen: func(hash string) (string, bool) { return "", false },
	}
}

type pkg = uploadtest.Package

// row is one upload of the corpus.
type row struct {
	name  string
	bend  func(p *pkg, w *world)
	world func(c *upload.Context)
}

// sub replaces the first old in a text; old must be there, or the row would test nothing.
func sub(pairs ...string) func(string) string {
	return func(text string) string {
		for i := 0; i < len(pairs); i += 2 {
			if !strings.Contains(text, pairs[i]) {
				panic(fmt.Sprintf("no %q in:\n%s", pairs[i], text))
			}
			text = strings.Replace(text, pairs[i], pairs[i+1], 1)
		}
		return text
	}
}

// resub is sub with a regular expression.
func resub(expr, repl string) func(string) string {
	re := regexp.MustCompile(expr)
	return func(text string) string {
		if !re.MatchString(text) {
			panic(fmt.Sprintf("no %s in:\n%s", expr, text))
		}
		return re.ReplaceAllString(text, repl)
	}
}

func changes(pairs ...string) func(*pkg, *world) {
	return func(p *pkg, _ *world) { p.Changes = sub(pairs...) }
}

func dsc(pairs ...string) func(*pkg, *world) {
	return func(p *pkg, _ *world) { p.Dsc = sub(pairs...) }
}

// member adds one to the orig tarball (or the native one).
func member(h tar.Header, body string) func(*pkg, *world) {
	return func(p *pkg, _ *world) {
		p.Tree = append(p.Tree, uploadtest.Member{Header: h, Body: body})
	}
}

func link(name, target string) uploadtest.Member {
	return uploadtest.Member{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}}
}

func tarball(f func(which string, packed []byte) []byte) func(*pkg, *world) {
	return func(p *pkg, _ *world) { p.Tarball = f }
}

func debian(name, text string) func(*pkg, *world) {
	return func(p *pkg, _ *world) {
		p.Debian = func(files map[string]string) {
			if text == "" {
				delete(files, name)
			} else {
				files[name] = text
			}
		}
	}
}

func after(f func(dir string) error) func(*pkg, *world) {
	return func(p *pkg, _ *world) { p.After = f }
}

// inDir changes the one file of the upload that matches the pattern.
func inDir(pattern string, f func(path string) error) func(*pkg, *world) {
	return after(func(dir string) error {
		names, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil || len(names) != 1 {
			return fmt.Errorf("%s matches %q, %v", pattern, names, err)
		}
		return f(names[0])
	})
}

func binary(arch string, files ...string) func(*pkg, *world) {
	return func(p *pkg, _ *world) {
		for _, f := range files {
			p.Files = append(p.Files, uploadtest.File{Name: f, Data: []byte("not looked into here"), Arch: arch})
		}
	}
}

// all applies several bends.
func all(bends ...func(*pkg, *world)) func(*pkg, *world) {
	return func(p *pkg, w *world) {
		for _, b := range bends {
			b(p, w)
		}
	}
}

func set(f func(p *pkg)) func(*pkg, *world) { return func(p *pkg, _ *world) { f(p) } }

func buildinfo(source, version, rest string) []byte {
	return fmt.Appendf(nil, "Format: 1.0\nSource: %s\nBinary: fresh\nArchitecture: amd64\nVersion: %s\n%s", source, version, rest)
}

// good are uploads that must pass, with their remarks.
var good = []row{
	{name: "new package, quilt"},
	{name: "new package, xz", bend: set(func(p *pkg) { p.Packing = "xz" })},
	{name: "new package, native", bend: set(func(p *pkg) { p.Version = "20" })},
	{name: "new package, 1.0 with diff", bend: set(func(p *pkg) { p.Format = "1.0" })},
	{name: "new package, 1.0 native", bend: set(func(p *pkg) { p.Format, p.Version = "1.0", "20" })},
	{name: "update with epoch", bend: set(func(p *pkg) { p.Source, p.Version = "hello", "2:1.3-1" })},
	{name: "update with higher epoch", bend: set(func(p *pkg) { p.Source, p.Version = "hello", "3:0.1-1" })},
	{name: "alias of the suite", bend: set(func(p *pkg) { p.Distribution = "bookworm" })},
	{name: "component", bend: set(func(p *pkg) { p.Section = "contrib/libs" })},
	{name: "bob's own", bend: func(p *pkg, w *world) { p.Source, p.Signer, p.DscSigner = "libbob", w.bob, w.bob }},
	{name: "sponsored: the .dsc by another key", bend: func(p *pkg, w *world) { p.DscSigner = w.carl }},
	{name: "unsigned from a trusted account", bend: set(func(p *pkg) { p.Signer = nil }), world: func(c *upload.Context) { c.Account = "dora" }},
	{name: "signed in somebody's directory", world: func(c *upload.Context) { c.Account = "emil" }},
	{name: "orig in the pool", bend: set(func(p *pkg) { p.NoOrig = true }), world: samePool},
	{name: "orig in the pool and in the upload", world: samePool},
	{name: "no section", bend: set(func(p *pkg) { p.Section = "-" })},
	{name: "several closes", bend: set(func(p *pkg) { p.Closes = []string{"1", "123456"} })},
	{name: "UTF-8 name with comma", bend: set(func(p *pkg) { p.Maintainer = "Jos\u00e9 \u0141., Jr. <jose@example.org>" })},
	{name: "architecture all, several packages", bend: set(func(p *pkg) { p.Architecture, p.Binary = "all", []string{"fresh-a", "fresh-b"} })},
	{name: "wildcards", bend: set(func(p *pkg) { p.Architecture = "linux-any kfreebsd-amd64" })},
	{name: "binaries allowed", bend: all(set(func(p *pkg) { p.Distribution = "taking" }), binary("amd64", "fresh_1.0-1_amd64.deb", "fresh-dbgsym_1.0-1_amd64.deb"),
		set(func(p *pkg) {
			p.Files = append(p.Files, uploadtest.File{Name: "fresh_1.0-1_amd64.buildinfo", Data: buildinfo("fresh", "1.0-1", "")})
		}))},
	{name: "binaries dropped", bend: all(set(func(p *pkg) { p.Distribution = "dropping" }), binary("armhf", "fresh_1.0-1_armhf.deb"))},
	{name: "takes a package over", world: func(c *upload.Context) {
		c.BuiltBy = func(suite string, names []string) (map[string]string, error) {
			if suite != "stable" || len(names) != 1 || names[0] != "fresh" {
				return nil, fmt.Errorf("asked for %s and %q", suite, names)
			}
			return map[string]string{"fresh": "stale"}, nil
		}
	}},
	{name: "odd but harmless members", bend: all(member(tar.Header{Typeflag: tar.TypeReg, Name: "fresh-1.0/\u00fcml\u00e4ut \u202e", Mode: 0o644}, "x"),
		member(tar.Header{Typeflag: tar.TypeDir, Name: "fresh-1.0/shared/", Mode: 0o2775}, ""),
		func(p *pkg, _ *world) {
			p.Tree = append(p.Tree, link("fresh-1.0/shared/up", "../README"), uploadtest.Text("fresh-1.0/a..b", "x"))
		})},
	{name: "old upstream file", bend: member(tar.Header{Typeflag: tar.TypeReg, Name: "fresh-1.0/old", Mode: 0o644, ModTime: time.Unix(0, 0)}, "x")},
	{name: "levels of a suite", bend: all(set(func(p *pkg) { p.Distribution, p.Version, p.Maintainer = "lenient", "4", "nobody" }), func(p *pkg, w *world) {
		p.DscSigner = nil
		p.Dsc = nil
		p.Changes = sub("Date: Sat, 21 Nov 2026", "Date: Fri, 21 Nov 2031")
		p.Before = nil
		unsignedDsc(p, w)
	})},
	{name: "debian/changelog of another suite", bend: set(func(p *pkg) {
		p.Debian = func(f map[string]string) { f["changelog"] = strings.Replace(f["changelog"], "stable", "unstable", 1) }
	})},
	{name: "empty lines before the changelog", bend: set(func(p *pkg) {
		p.Debian = func(f map[string]string) { f["changelog"] = "\n\n" + f["changelog"] }
	})},
	{name: "component tarball and its signature", bend: componentTarball},
}

// unsignedDsc makes the .dsc come unsigned inside a signed .changes.
func unsignedDsc(p *pkg, w *world) {
	inner := *p
	inner.Signer, inner.DscSigner = nil, nil
	dir, err := os.MkdirTemp("", "unsigned")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	inner.Changes, inner.Date = nil, now
	if _, err := inner.Write(dir); err != nil {
		panic(err)
	}
	names, _ := filepath.Glob(filepath.Join(dir, "*.dsc"))
	plain, err := os.ReadFile(names[0])
	if err != nil {
		panic(err)
	}
	replaceFile(p, filepath.Base(names[0]), plain)
}

// replaceFile puts other contents under the name of a file and lists them rightly in the .changes.
func replaceFile(p *pkg, name string, data []byte) {
	bend, before := p.Changes, p.Before
	p.Changes = func(text string) string {
		if bend != nil {
			text = bend(text)
		}
		return relist(text, name, data)
	}
	p.Before = func(dir string) error {
		if before != nil {
			if err := before(dir); err != nil {
				return err
			}
		}
		return os.WriteFile(filepath.Join(dir, name), data, 0o644)
	}
}

// samePool gives the archive the very orig tarball that fresh 1.0-1 comes with.
func samePool(c *upload.Context) {
	dir, err := os.MkdirTemp("", "pool")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	if _, err := (pkg{Source: "fresh", Version: "1.0-1", Date: now}).Write(dir); err != nil {
		panic(err)
	}
	sum, err := upload.Sum(dir, "fresh_1.0.orig.tar.gz", upload.TakeOptions{})
	if err != nil {
		panic(err)
	}
	c.Pool = func(name string) (string, int64, bool) {
		return sum.SHA256, sum.Size, name == "fresh_1.0.orig.tar.gz"
	}
}

// componentTarball adds an orig-data tarball and a detached signature to both lists.
func componentTarball(p *pkg, _ *world) {
	var raw bytes.Buffer
	tw := tar.NewWriter(&raw)
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "data/", Mode: 0o755, ModTime: now}); err != nil {
		panic(err)
	}
	tw.Close()
	data, err := uploadtest.Pack("gz", raw.Bytes())
	if err != nil {
		panic(err)
	}
	for _, f := range []struct {
		name string
		data []byte
	}{{"fresh_1.0.orig-data.tar.gz", data}, {"fresh_1.0.orig.tar.gz.asc", []byte("-----BEGIN PGP SIGNATURE-----\n")}} {
		p.Files = append(p.Files, uploadtest.File{Name: f.name, Data: f.data})
		bend := p.Dsc
		p.Dsc = func(text string) string {
			if bend != nil {
				text = bend(text)
			}
			return list(text, f.name, f.data, "")
		}
	}
}

func corpus(t *testing.T, rows []row, check func(t *testing.T, r row, up *upload.Upload, findings []upload.Finding)) string {
	w := theWorld()
	var out strings.Builder
	seen := map[string]bool{}
	for _, r := range rows {
		if seen[r.name] {
			t.Fatalf("two rows are named %s", r.name)
		}
		seen[r.name] = true
		dir := t.TempDir()
		p := pkg{Source: "fresh", Version: "1.0-1", Signer: w.ann, DscSigner: w.ann, Date: now}
		if r.bend != nil {
			r.bend(&p, w)
		}
		if p.Signer == nil {
			p.DscSigner = nil
		}
		name, err := p.Write(dir)
		if err != nil {
			t.Fatalf("%s: %v", r.name, err)
		}
		c := w.context()
		if r.world != nil {
			r.world(c)
		}
		up, findings, err := upload.Read(dir, name, c)
		if err != nil {
			t.Errorf("%s: %v", r.name, err)
			continue
		}
		check(t, r, up, findings)
		fmt.Fprintf(&out, "%s\n", r.name)
		for _, f := range findings {
			fmt.Fprintf(&out, "    %s %s: %s\n", f.Level, f.Check, f.Text)
			for _, ch := range f.Text {
				if ch < 0x20 || ch > 0x7e {
					t.Errorf("%s: text holds %q: %q", r.name, ch, f.Text)
				}
			}
		}
	}
	s := out.String()
	for who, signer := range map[string]*openpgp.Signer{"ANN": w.ann, "BOB": w.bob, "CARL": w.carl, "STRANGER": w.stranger} {
		s = strings.ReplaceAll(s, signer.Fingerprint(), who)
	}
	// Compressors differ between versions of Go; so do checksums and sizes then.
	return regexp.MustCompile(`[0-9a-f]{32,64}`).ReplaceAllString(s, "CHECKSUM")
}

// TestCorpus: every upload of the corpus is judged as testdata/corpus.txt says, sentence by
// sentence; that file is for reading.
func TestCorpus(t *testing.T) {
	t.Parallel()
	if len(good) < 20 || len(bad) < 120 {
		t.Errorf("%d good and %d bad uploads, want 20 and 120", len(good), len(bad))
	}
	got := "# Uploads that pass, with what is told about them.\n" + corpus(t, good, func(t *testing.T, r row, up *upload.Upload, findings []upload.Finding) {
		if upload.Worst(findings) >= upload.Error {
			t.Errorf("good upload %q is refused: %v", r.name, findings)
		}
		if up.Suite == nil || up.Uploader == nil || up.Dsc == nil || up.Component == "" {
			t.Errorf("good upload %q: got %+v", r.name, up)
		}
	}) + "\n# Uploads that are refused.\n" + corpus(t, bad, func(t *testing.T, r row, _ *upload.Upload, findings []upload.Finding) {
		if upload.Worst(findings) < upload.Error {
			t.Errorf("bad upload %q passes", r.name)
		}
	})
	const file = "testdata/corpus.txt"
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestEveryCheckSpeaks: each check of the table is heard in the corpus.
func TestEveryCheckSpeaks(t *testing.T) {
	text, err := os.ReadFile("testdata/corpus.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range upload.Checks() {
		if !regexp.MustCompile(`(?m)^    \w+ ` + regexp.QuoteMeta(c.Name) + `: `).Match(text) {
			t.Errorf("no upload of the corpus makes the check %s speak", c.Name)
		}
		if c.About == "" {
			t.Errorf("check %s is not described", c.Name)
		}
	}
}

func mkfifo(path string) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	return unix.Mkfifo(path, 0o644)
}
