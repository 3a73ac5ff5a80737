// Package corpus has the uploads that the checks are shown with, for tests: good
// ones, and everything that was thought of to be wrong in one, each with a name.
// What is said about each is in testdata/corpus.txt of package upload.
package corpus

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"packmill/internal/deb/debtest"
	"packmill/internal/openpgp"
	"packmill/spool/upload"
	"packmill/spool/upload/uploadtest"
)

// World is who may upload what to where, and when that is.
type World struct {
	Now                      time.Time
	Ann, Bob, Carl, Stranger *openpgp.Signer
	Keyring                  *openpgp.Keyring // of all but the stranger
}

// NewWorld makes everybody's keys.
func NewWorld(now time.Time) *World {
	gen := func(name string) *openpgp.Signer {
		s, err := openpgp.Generate(name, strings.ToLower(name)+"@example.org", now.AddDate(-3, 0, 0))
		if err != nil {
			panic(err)
		}
		return s
	}
	w := &World{Now: now, Ann: gen("Ann"), Bob: gen("Bob"), Carl: gen("Carl"), Stranger: gen("Stranger")}
	k, err := openpgp.ReadKeyring(w.Ann.Public(), w.Bob.Public(), w.Carl.Public())
	if err != nil {
		panic(err)
	}
	w.Keyring = k
	return w
}

// Published are the versions that the suites have, by suite and source.
var Published = map[string][]string{
	"stable hello":    {"1.0-1", "2:1.0-1", "2:1.2-1"},
	"stable known":    {"1.0-1", "1.1-1"},
	"oldstable known": {"1.5-1"},
	"stable libbob":   {"0.9-1"},
	"taking known":    {"1.1-1"},
}

// Context is the world as the checks see it.
func (w *World) Context() *upload.Context {
	return &upload.Context{
		Now: w.Now, Keyring: w.Keyring,
		Uploaders: []*upload.Uploader{
			{Name: "ann", Email: "ann@example.org", Fingerprints: []string{w.Ann.Fingerprint()}, Allow: []upload.Right{
				{Source: true, New: true, Binaries: []string{"*"}},
			}},
			{Name: "bob", Fingerprints: []string{w.Bob.Fingerprint()}, Allow: []upload.Right{
				{Suites: []string{"stable"}, Components: []string{"main"}, Packages: []string{"lib*"}, Source: true},
				{Suites: []string{"taking"}, Packages: []string{"known"}, Binaries: []string{"amd64"}},
			}},
			{Name: "dora", Account: "dora", Unsigned: true, Allow: []upload.Right{{Source: true, New: true}}},
			{Name: "emil", Account: "emil", Allow: []upload.Right{{Source: true, New: true}}},
		},
		Suites: []*upload.Suite{
			{Name: "stable", Aliases: []string{"bookworm"}, Components: []string{"main", "contrib"},
				Architectures: []string{"amd64", "i386"}, Below: []string{"oldstable"}},
			{Name: "taking", Architectures: []string{"amd64", "i386"}, Binaries: upload.BinariesAllowed},
			{Name: "dropping", Architectures: []string{"amd64"}, Binaries: upload.BinariesDropped},
			{Name: "small", Architectures: []string{"amd64"},
				Limits: upload.Limits{Files: 3, FileSize: 4000, Size: 5000, Entries: 20, Unpacked: 100 << 10, Age: 24 * time.Hour}},
			{Name: "lenient", Architectures: []string{"amd64"}, Formats: []string{"3.0 (native)"},
				Checks: map[string]upload.Level{
					"dsc-unsigned": upload.Warning, "dsc-key": upload.Remark, "maintainer": upload.Off, "date": upload.Remark,
					"checksum": upload.Off, "rights": upload.Off,
				}},
		},
		Published: func(suite, source string) ([]string, error) { return Published[suite+" "+source], nil },
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

// Row is one upload of the corpus.
type Row struct {
	Name  string
	bend  func(p *pkg, w *World)
	World func(c *upload.Context) // what is different there; nil for nothing
}

// Package is the row's upload: of the source fresh, unless the row says
// otherwise. Under another name, of the same length, as says.
func (r Row) Package(w *World) uploadtest.Package {
	p := pkg{Source: "fresh", Version: "1.0-1", Signer: w.Ann, DscSigner: w.Ann, Date: w.Now}
	if r.bend != nil {
		r.bend(&p, w)
	}
	if p.Signer == nil {
		p.DscSigner = nil
	}
	return p
}

// Sub replaces the first old in a text; old must be there, or the row would test nothing.
func Sub(pairs ...string) func(string) string {
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

// date writes another day into the field.
func date(day string) func(string) string { return resub(`(?m)^Date: \w+, \d+ \w+ \d+`, "Date: "+day) }

// old is when members were changed whose date says nothing.
var old = time.Unix(1700000000, 0).UTC()

func changes(pairs ...string) func(*pkg, *World) {
	return func(p *pkg, _ *World) { p.Changes = Sub(pairs...) }
}

func dsc(pairs ...string) func(*pkg, *World) {
	return func(p *pkg, _ *World) { p.Dsc = Sub(pairs...) }
}

// member adds one to the orig tarball (or the native one).
func member(h tar.Header, body string) func(*pkg, *World) {
	return func(p *pkg, _ *World) {
		p.Tree = append(p.Tree, uploadtest.Member{Header: h, Body: body})
	}
}

func link(name, target string) uploadtest.Member {
	return uploadtest.Member{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}}
}

func tarball(f func(which string, packed []byte) []byte) func(*pkg, *World) {
	return func(p *pkg, _ *World) { p.Tarball = f }
}

func debian(name, text string) func(*pkg, *World) {
	return func(p *pkg, _ *World) {
		p.Debian = func(files map[string]string) {
			if text == "" {
				delete(files, name)
			} else {
				files[name] = text
			}
		}
	}
}

func after(f func(dir string) error) func(*pkg, *World) {
	return func(p *pkg, _ *World) { p.After = f }
}

// inDir changes the one file of the upload that matches the pattern.
func inDir(pattern string, f func(path string) error) func(*pkg, *World) {
	return after(func(dir string) error {
		names, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil || len(names) != 1 {
			return fmt.Errorf("%s matches %q, %v", pattern, names, err)
		}
		return f(names[0])
	})
}

func binary(arch string, files ...string) func(*pkg, *World) {
	return func(p *pkg, _ *World) {
		for _, f := range files {
			p.Files = append(p.Files, uploadtest.File{Name: f, Data: []byte("not looked into here"), Arch: arch})
		}
	}
}

// all applies several bends.
func all(bends ...func(*pkg, *World)) func(*pkg, *World) {
	return func(p *pkg, w *World) {
		for _, b := range bends {
			b(p, w)
		}
	}
}

func set(f func(p *pkg)) func(*pkg, *World) { return func(p *pkg, _ *World) { f(p) } }

func buildinfo(source, version, rest string) []byte {
	return fmt.Appendf(nil, "Format: 1.0\nSource: %s\nBinary: fresh\nArchitecture: amd64\nVersion: %s\n%s",
		source, version, rest)
}

// Good are uploads that must pass, with their remarks.
var Good = []Row{
	{Name: "new package, quilt"},
	{Name: "new package, xz", bend: set(func(p *pkg) { p.Packing = "xz" })},
	{Name: "new package, native", bend: set(func(p *pkg) { p.Version = "20" })},
	{Name: "new package, 1.0 with diff", bend: set(func(p *pkg) { p.Format = "1.0" })},
	{Name: "new package, 1.0 native", bend: set(func(p *pkg) { p.Format, p.Version = "1.0", "20" })},
	{Name: "update with epoch", bend: set(func(p *pkg) { p.Source, p.Version = "hello", "2:1.3-1" })},
	{Name: "update with higher epoch", bend: set(func(p *pkg) { p.Source, p.Version = "hello", "3:0.1-1" })},
	{Name: "alias of the suite", bend: set(func(p *pkg) { p.Distribution = "bookworm" })},
	{Name: "component", bend: set(func(p *pkg) { p.Section = "contrib/libs" })},
	{Name: "bob's own", bend: func(p *pkg, w *World) { p.Source, p.Signer, p.DscSigner = "libbob", w.Bob, w.Bob }},
	{Name: "sponsored: the .dsc by another key", bend: func(p *pkg, w *World) { p.DscSigner = w.Carl }},
	{Name: "unsigned from a trusted account",
		bend: set(func(p *pkg) { p.Signer = nil }), World: func(c *upload.Context) { c.Account = "dora" }},
	{Name: "signed in somebody's directory", World: func(c *upload.Context) { c.Account = "emil" }},
	{Name: "orig in the pool", bend: set(func(p *pkg) { p.NoOrig = true }), World: samePool},
	{Name: "orig in the pool and in the upload", World: samePool},
	{Name: "no section", bend: set(func(p *pkg) { p.Section = "-" })},
	{Name: "several closes", bend: set(func(p *pkg) { p.Closes = []string{"1", "123456"} })},
	{Name: "UTF-8 name with comma", bend: set(func(p *pkg) {
		p.Maintainer = "Jos\u00e9 \u0141., Jr. <jose@example.org>"
	})},
	{Name: "architecture all, several packages", bend: set(func(p *pkg) {
		p.Architecture, p.Binary = "all", []string{"fresh-a", "fresh-b"}
	})},
	{Name: "wildcards", bend: set(func(p *pkg) { p.Architecture = "linux-any kfreebsd-amd64" })},
	{Name: "binaries allowed", bend: all(set(func(p *pkg) {
		p.Distribution = "taking"
	}), binary("amd64", "fresh_1.0-1_amd64.deb", "fresh-dbgsym_1.0-1_amd64.deb"),
		set(func(p *pkg) {
			p.Files = append(p.Files,
				uploadtest.File{Name: "fresh_1.0-1_amd64.buildinfo", Data: buildinfo("fresh", "1.0-1", "")})
		}))},
	{Name: "binaries dropped", bend: all(set(func(p *pkg) {
		p.Distribution = "dropping"
	}), binary("armhf", "fresh_1.0-1_armhf.deb"))},
	{Name: "takes a package over", World: func(c *upload.Context) {
		c.BuiltBy = func(suite string, names []string) (map[string]string, error) {
			if suite != "stable" || !slices.Equal(names, []string{"fresh", "fresh-dbgsym"}) {
				return nil, fmt.Errorf("asked for %s and %q", suite, names)
			}
			return map[string]string{"fresh": "stale"}, nil
		}
	}},
	{Name: "odd but harmless members",
		bend: all(member(tar.Header{Typeflag: tar.TypeReg, Name: "fresh-1.0/\u00fcml\u00e4ut \u202e", Mode: 0o644}, "x"),
			member(tar.Header{Typeflag: tar.TypeDir, Name: "fresh-1.0/shared/", Mode: 0o2775}, ""),
			func(p *pkg, _ *World) {
				p.Tree = append(p.Tree, link("fresh-1.0/shared/up", "../README"), uploadtest.Text("fresh-1.0/a..b", "x"))
			})},
	{Name: "old upstream file",
		bend: member(tar.Header{Typeflag: tar.TypeReg, Name: "fresh-1.0/old", Mode: 0o644, ModTime: time.Unix(0, 0)}, "x")},
	{Name: "levels of a suite", bend: all(set(func(p *pkg) {
		p.Distribution, p.Version, p.Maintainer = "lenient", "4", "nobody"
	}), func(p *pkg, w *World) {
		p.DscSigner = nil
		p.Dsc = nil
		p.Changes = date(w.Now.AddDate(5, 0, 0).Format("Mon, 02 Jan 2006"))
		p.Before = nil
		unsignedDsc(p, w)
	})},
	{Name: "somebody else's source package as it is", bend: func(p *pkg, w *World) {
		p.Distribution, p.Version, p.DscSigner = "lenient", "4", w.Stranger
	}},
	{Name: "debian/changelog of another suite", bend: set(func(p *pkg) {
		p.Debian = func(f map[string]string) { f["changelog"] = strings.Replace(f["changelog"], "stable", "unstable", 1) }
	})},
	{Name: "empty lines before the changelog", bend: set(func(p *pkg) {
		p.Debian = func(f map[string]string) { f["changelog"] = "\n\n" + f["changelog"] }
	})},
	{Name: "component tarball and its signature", bend: componentTarball},
}

// unsignedDsc makes the .dsc come unsigned inside a signed .changes.
func unsignedDsc(p *pkg, w *World) {
	inner := *p
	inner.Signer, inner.DscSigner = nil, nil
	dir, err := os.MkdirTemp("", "unsigned")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	inner.Changes, inner.Date = nil, w.Now
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
	if _, err := (pkg{Source: "fresh", Version: "1.0-1", Date: c.Now}).Write(dir); err != nil {
		panic(err)
	}
	sum, err := upload.Sum(context.Background(), dir, "fresh_1.0.orig.tar.gz", upload.TakeOptions{})
	if err != nil {
		panic(err)
	}
	c.Pool = func(name string) (string, int64, bool) {
		return sum.SHA256, sum.Size, name == "fresh_1.0.orig.tar.gz"
	}
}

// componentTarball adds an orig-data tarball and a detached signature to both lists.
func componentTarball(p *pkg, _ *World) {
	var raw bytes.Buffer
	tw := tar.NewWriter(&raw)
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "data/", Mode: 0o755, ModTime: old}); err != nil {
		panic(err)
	}
	tw.Close()
	data := debtest.Pack("gz", raw.Bytes())
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
			return List(text, f.name, f.data, "")
		}
	}
}

func mkfifo(path string) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	return unix.Mkfifo(path, 0o644)
}
