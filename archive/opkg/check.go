package opkg

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"packmill/internal/openpgp"
	"packmill/internal/pattern"
	"packmill/internal/policy"
)

// CheckOptions say how a feed is checked.
type CheckOptions struct {
	// Archs are the architectures that the feed's client is set up for.
	// Empty: any.
	Archs []string

	// Usign and OpenPGP are the keys of which one must have signed
	// Packages.sig and Packages.asc. nil: the file is not looked at.
	Usign   []*Key
	OpenPGP *openpgp.Keyring
	Now     time.Time // of the check of Packages.asc

	// SkipPackages leaves the package files closed: only that they are there
	// with the right size is checked.
	SkipPackages bool
}

// Check applies every rule that an opkg client relies on to the feed at dir, as
// that client would meet it. It returns the number of entries and all that is
// wrong, each with file and line; the error is trouble with reading.
func Check(dir string, opt CheckOptions) (entries int, wrong []string, err error) {
	// One generation, whatever is published meanwhile.
	if to, err := os.Readlink(dir); err == nil {
		dir = filepath.Join(filepath.Dir(dir), to)
	}
	c := checker{dir: dir, opt: opt}
	text, err := os.ReadFile(filepath.Join(dir, "Packages"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, []string{"no Packages; an empty feed needs an empty one"}, nil
	}
	if err != nil {
		return 0, nil, err
	}
	packed, err := os.ReadFile(filepath.Join(dir, "Packages.gz"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.wrong = append(c.wrong, "no Packages.gz; src/gz fetches nothing else")
	case err != nil:
		return 0, nil, err
	default:
		unpacked, err := readIndex(packed)
		if err != nil {
			c.wrong = append(c.wrong, "Packages.gz: "+err.Error())
		} else if !bytes.Equal(unpacked, text) {
			c.wrong = append(c.wrong, "Packages.gz is not Packages packed")
		}
	}
	if err := c.signatures(text); err != nil {
		return 0, nil, err
	}
	if err := c.index(text); err != nil {
		return 0, nil, err
	}
	return c.entries, c.wrong, nil
}

type checker struct {
	dir     string
	opt     CheckOptions
	wrong   []string
	entries int
	seen    map[string]bool // name, version, architecture
	files   map[string]bool
}

func (c *checker) bad(line int, format string, args ...any) {
	c.wrong = append(c.wrong, fmt.Sprintf("Packages:%d: %s", line, fmt.Sprintf(format, args...)))
}

func (c *checker) signatures(text []byte) error {
	if c.opt.Usign != nil {
		sig, err := os.ReadFile(filepath.Join(c.dir, "Packages.sig"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		verdict := errors.New("the file is missing")
		for _, k := range c.opt.Usign {
			if err == nil && verdict != nil {
				verdict = k.Verify(text, sig)
			}
		}
		if verdict != nil {
			c.wrong = append(c.wrong, "Packages.sig: "+verdict.Error())
		}
	}
	if c.opt.OpenPGP != nil {
		sig, err := os.ReadFile(filepath.Join(c.dir, "Packages.asc"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		verdict := errors.New("the file is missing")
		if err == nil {
			if !bytes.HasPrefix(sig, []byte("-----BEGIN PGP SIGNATURE-----\n")) {
				verdict = errors.New("is not armored")
			} else {
				_, verdict = c.opt.OpenPGP.VerifyReleaseGPG(bytes.NewReader(text), sig, c.opt.Now)
			}
		}
		if verdict != nil {
			c.wrong = append(c.wrong, "Packages.asc: "+verdict.Error())
		}
	}
	return nil
}

// A rawField is a field as opkg's parser sees it: by lines, with case.
type rawField struct {
	name, value string
	more        []string
	line        int
}

// index goes over the lines themselves, not over a parser's result: what counts
// is what opkg's own simple parser makes of them.
func (c *checker) index(text []byte) error {
	c.seen, c.files = map[string]bool{}, map[string]bool{}
	if len(text) > 0 && !bytes.HasSuffix(text, []byte("\n\n")) {
		c.wrong = append(c.wrong, "Packages does not end with an empty line")
	}
	var st []rawField
	n := 0
	for line := range bytes.Lines(text) {
		n++
		l := strings.TrimSuffix(string(line), "\n")
		switch {
		case l == "":
			if st == nil {
				c.bad(n, "a second empty line")
				continue
			}
			if err := c.stanza(st); err != nil {
				return err
			}
			st = nil
		case strings.TrimSpace(l) == "":
			c.bad(n, "a line of blanks does not separate entries")
		case l[0] == ' ' || l[0] == '\t':
			if st == nil {
				c.bad(n, "an entry begins with a continued line")
				continue
			}
			st[len(st)-1].more = append(st[len(st)-1].more, l)
		default:
			name, value, ok := strings.Cut(l, ": ")
			if !ok || value == "" || value != strings.TrimSpace(value) {
				c.bad(n, "%q is no field and value", l)
				continue
			}
			st = append(st, rawField{name, value, nil, n})
		}
	}
	if st != nil {
		return c.stanza(st)
	}
	return nil
}

var (
	hexMD5    = pattern.Lazy(`^[0-9a-f]{32}$`)
	hexSHA256 = pattern.Lazy(`^[0-9a-f]{64}$`)
	opkgSize  = pattern.Lazy(`^[1-9][0-9]*$`)
	opkgArch  = pattern.Lazy(`^[a-z0-9][a-z0-9_.-]*$`)
	// one relation as opkg reads it: a name, perhaps a version
	opkgRel      = pattern.Lazy(`^[a-z0-9][a-z0-9+.-]+( \((<<|<=|=|>=|>>) [A-Za-z0-9.+:~-]+\))?$`)
	opkgReplaced = pattern.Lazy(`^([a-z0-9][a-z0-9+.-]+) \(<< 0\)$`)
	opkgProvided = pattern.Lazy(`^[a-z0-9][a-z0-9+.-]+$`)
)

// A claim is an entry in the making: its fields by name, and what it says of its
// package file.
type claim struct {
	*checker
	first          rawField
	at             map[string]*rawField
	name, version  string
	arch           string
	filename       string
	size, md5, sha string
}

func (c *checker) stanza(st []rawField) error {
	c.entries++
	e := &claim{checker: c, first: st[0], at: map[string]*rawField{}}
	for i := range st {
		e.field(&st[i])
	}
	e.order(st[len(st)-1].name)
	e.who()
	c.replaced(e.at["Replaces"], e.at["Conflicts"])
	e.what()
	if e.filename == "" || strings.HasPrefix(e.filename, "/") {
		return nil
	}
	return c.file(e)
}

// field checks one field by itself.
func (e *claim) field(f *rawField) {
	i := slices.IndexFunc(fields, func(w knownField) bool { return strings.EqualFold(f.name, w.name) })
	switch {
	case e.at[f.name] != nil:
		e.bad(f.line, "%s twice", f.name)
	case f.name == "Installed-Size":
		e.bad(f.line, "Installed-Size: opkg counts bytes, Debian KiB; leave it out")
	case f.name == "SHA256":
		e.bad(f.line, "SHA256: opkg knows SHA256sum only")
	case i < 0:
		e.bad(f.line, "%s: no field that opkg is known to read", f.name)
	case f.name != fields[i].name:
		e.bad(f.line, "%s: opkg knows it as %s only", f.name, fields[i].name)
	}
	e.at[f.name] = f
	if f.name != "Description" && f.more != nil {
		e.bad(f.line, "%s is folded; opkg drops the further lines", f.name)
	}
	if i >= 0 && fields[i].kind >= relation {
		e.relation(f, fields[i].kind)
	}
}

// relation checks a dependency field.
func (e *claim) relation(f *rawField, k kind) {
	form := opkgRel
	if k == provides {
		form = opkgProvided
	}
	for or := range strings.SplitSeq(f.value, ", ") {
		for one := range strings.SplitSeq(or, " | ") {
			if !form().MatchString(one) {
				e.bad(f.line, "%s: opkg cannot read %q", f.name, one)
			} else if _, v, ok := strings.Cut(strings.TrimSuffix(one, ")"), " ("); ok {
				if err := policy.CheckVersion(v[strings.IndexByte(v, ' ')+1:]); err != nil {
					e.bad(f.line, "%s: %v", f.name, err)
				}
			}
		}
	}
}

// order checks what must be first and last.
func (e *claim) order(last string) {
	if e.first.name != "Package" {
		e.bad(e.first.line, "an entry begins with %s, want Package", e.first.name)
	}
	if d := e.at["Description"]; d != nil && last != d.name {
		e.bad(d.line, "Description is not the last field")
	}
}

// get is the value of a field that must be there, and pass a check.
func (e *claim) get(name string, check func(string) error) string {
	f := e.at[name]
	if f == nil {
		e.bad(e.first.line, "no %s", name)
		return ""
	}
	if err := check(f.value); err != nil {
		e.bad(f.line, "%s: %v", name, err)
	}
	return f.value
}

func match(re func() *regexp.Regexp) func(string) error {
	return func(v string) error {
		if !re().MatchString(v) {
			return fmt.Errorf("%q is not of the form %s", v, re())
		}
		return nil
	}
}

// who checks which package it is, and that a client would see it, once.
func (e *claim) who() {
	e.name, e.version = e.get("Package", checkName), e.get("Version", policy.CheckVersion)
	e.arch = e.get("Architecture", match(opkgArch))
	if e.opt.Archs != nil && !slices.Contains(e.opt.Archs, e.arch) {
		e.bad(e.first.line, "architecture %s is none of the client's (%s), who ignores the entry",
			e.arch, strings.Join(e.opt.Archs, ", "))
	}
	id := e.name + " " + e.version + " " + e.arch
	if e.seen[id] {
		e.bad(e.first.line, "%s is listed twice", id)
	}
	e.seen[id] = true
}

// what checks what it says of its package file.
func (e *claim) what() {
	e.get("Description", func(string) error { return nil })
	e.size = e.get("Size", match(opkgSize))
	// One would do for upstream; OpenWrt's client checks the MD5 even beside a
	// SHA-256, and a published sum must be right: so both, and both right.
	e.md5, e.sha = e.get("MD5Sum", match(hexMD5)), e.get("SHA256sum", match(hexSHA256))
	e.filename = e.get("Filename", e.path)
}

// path checks a Filename.
func (e *claim) path(v string) error {
	want := strings.TrimPrefix(e.name, sourcePrefix) + "_" + policy.WithoutEpoch(e.version) + "_" + e.arch
	base := filepath.Base(v)
	switch {
	case strings.HasPrefix(v, "/"), strings.Contains(v, "://"), v != filepath.Clean(v):
		return fmt.Errorf("%q is not a clean path relative to the feed", v)
	case !filepath.IsLocal(v):
		return fmt.Errorf("%q leads out of the feed; small clients send the dots as they are, "+
			"and not every server takes them", v)
	case base != want+".opk" && base != want+".ipk":
		return fmt.Errorf("%q; want the name %s.opk or .ipk", v, want)
	case e.files[v]:
		return fmt.Errorf("%q is listed twice", v)
	}
	e.files[v] = true
	return nil
}

// checkName is policy.CheckPackage for the names of sources too.
func checkName(name string) error {
	return policy.CheckPackage(strings.TrimPrefix(name, sourcePrefix))
}

// replaced checks that nothing is replaced for which libsolv would remove a package
// that dpkg keeps (see relations).
func (c *checker) replaced(replaces, conflicts *rawField) {
	if replaces == nil {
		return
	}
	goes := map[string]bool{}
	if conflicts != nil {
		for one := range strings.SplitSeq(conflicts.value, ", ") {
			name, _, _ := strings.Cut(one, " ")
			goes[name] = true
		}
	}
	for one := range strings.SplitSeq(replaces.value, ", ") {
		if name, _, _ := strings.Cut(one, " "); !goes[name] && !opkgReplaced().MatchString(one) {
			c.bad(replaces.line, "Replaces: %q makes libsolv remove the package; without Conflicts it must be %s (<< 0)",
				one, name)
		}
	}
}

// file checks the package file of an entry.
func (c *checker) file(e *claim) error {
	line, full := e.first.line, filepath.Join(c.dir, e.filename)
	if !filepath.IsLocal(e.filename) {
		return nil // that was said
	}
	fi, err := os.Lstat(full)
	if errors.Is(err, fs.ErrNotExist) {
		c.bad(line, "Filename: %s is not there", e.filename)
		return nil
	}
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() || strconv.FormatInt(fi.Size(), 10) != e.size {
		c.bad(line, "%s has %d bytes, the index says %s", e.filename, fi.Size(), e.size)
		return nil
	}
	if c.opt.SkipPackages {
		return nil
	}
	p, err := readPackage(full)
	if e := (*fs.PathError)(nil); errors.As(err, &e) {
		return err
	}
	if err != nil {
		c.bad(line, "%v", err)
		return nil
	}
	if p.MD5 != e.md5 || p.SHA256 != e.sha {
		c.bad(line, "%s has other checksums than the index says", e.filename)
	}
	for _, f := range [][2]string{{"Package", e.name}, {"Version", e.version}, {"Architecture", e.arch}} {
		if got := p.Control.Get(f[0]); got != f[1] {
			c.bad(line, "%s: its control file has %s %q, the index %q", e.filename, f[0], got, f[1])
		}
	}
	return nil
}
