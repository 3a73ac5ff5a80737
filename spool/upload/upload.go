// Package upload reads, verifies and judges uploads: a .changes file and what it
// lists, in one directory. It knows files and rules, not states: it moves nothing,
// and everything it must know of the world is handed to it in a Context.
//
// The way of an upload through this package:
//
//	Peek   what does this .changes list? unverified, only to see whether all is there
//	Take   copy one file to a fresh inode while hashing it
//	Read   verify, parse, judge: all findings at once
//
// Whatever comes from an uploader is hostile until Read says otherwise.
package upload

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"packmill/internal/openpgp"
	"packmill/internal/policy"
)

// Level says what follows from a finding.
type Level int

// The levels. A check that is Off is not made.
const (
	Off     Level = iota
	Remark        // worth knowing
	Warning       // a reviewer should look
	Error         // the upload is refused
)

var levelNames = []string{"off", "remark", "warning", "error"}

func (l Level) String() string {
	if l < Off || l > Error {
		return "level " + strconv.Itoa(int(l))
	}
	return levelNames[l]
}

// ParseLevel reads the word of a level as the settings write it.
func ParseLevel(word string) (Level, error) {
	if i := slices.Index(levelNames, strings.ToLower(word)); i >= 0 {
		return Level(i), nil
	}
	return Off, fmt.Errorf("level %s: not one of %s", quote(word), strings.Join(levelNames, ", "))
}

// Finding is one thing that a check found. Text is a sentence for the uploader, with
// the cure; bytes from the upload are quoted in it, so that it is safe in a
// terminal, a mail and a page.
type Finding struct {
	Check string
	Level Level
	Text  string
}

func (f Finding) String() string { return f.Level.String() + ": " + f.Text + " [" + f.Check + "]" }

// Worst is the highest level among findings, Off if there are none.
func Worst(findings []Finding) Level {
	worst := Off
	for _, f := range findings {
		worst = max(worst, f.Level)
	}
	return worst
}

// Upload is what Read found out. Fields that could not be found out are nil or empty.
type Upload struct {
	Name         string             // of the .changes
	Text         []byte             // what the signature covers; the whole file if it is not signed
	Hash         string             // of Text, for the ledger: openpgp.CanonicalHash
	Read         Sums               // of the .changes, as it was read
	Signature    *openpgp.Signature // of the .changes; nil if it came unsigned from a trusted account
	DscSignature *openpgp.Signature // of the .dsc; nil if not signed
	Changes      *Changes
	Dsc          *Dsc      // nil if the upload has no source
	Uploader     *Uploader // whose rights applied
	Right        *Right    // which of them; nil if none fits
	Suite        *Suite
	Suites       []string        // all in which the uploader's rights cover it
	TakesOver    []string        // PACKAGE=SOURCE: names of binary packages that another source has in the suite
	Foreign      []string        // those of them for whose source the uploader has no right: a reviewer must be shown them
	Sums         map[string]Sums // of the files that came, by name
	Component    string          // from the Section of the .dsc, or of the first file
	Section      string          // without the component
	New          bool            // the suite has no version of this source
	Published    []string        // versions of this source in the suite
	Drop         []string        // names of files that are left out of the archive, as the suite's Binaries says
	Pool         []File          // files of the .dsc that did not come with the upload, but are in the pool
}

// Uploader is somebody who may upload, and what.
type Uploader struct {
	Name         string
	Email        string   // registered address; the only one that is written to
	Fingerprints []string // of primary keys, upper hex
	Account      string   // ssh account; "" for none
	Unsigned     bool     // what arrives in the account's own directory needs no signature
	Allow        []Right
}

// Right allows uploads that fit all of its lines. The lists hold shell patterns
// (path.Match); an empty list fits everything.
type Right struct {
	Suites     []string // names of suites
	Components []string
	Packages   []string // names of source packages
	Source     bool     // sources
	Binaries   []string // architectures whose binaries may come: amd64, all, *; an empty list is none
	New        bool     // also sources of which the suite has no version
}

// String is the right in the words of the settings' field Allow.
func (a *Right) String() string {
	var out []string
	if a.Source {
		out = append(out, "source")
	}
	for _, l := range []struct {
		name string
		list []string
	}{{"binary", a.Binaries}, {"suites", a.Suites}, {"components", a.Components}, {"packages", a.Packages}} {
		if len(l.list) > 0 {
			out = append(out, l.name+"="+strings.Join(l.list, " "))
		}
	}
	if !a.New {
		out = append(out, "new=no")
	}
	return strings.Join(out, ", ")
}

// Binaries says what a suite does with binary packages in an upload with source.
type Binaries string

// The ways to treat binaries. The zero value is BinariesRefused.
const (
	BinariesRefused Binaries = "refused" // an error
	BinariesDropped Binaries = "dropped" // left out, with a remark
	BinariesAllowed Binaries = "allowed" // taken, if the uploader may
)

// Suite is what checks must know of a suite.
type Suite struct {
	Name          string
	Aliases       []string         // further names that Distribution may say, such as the codename
	Components    []string         // empty: main
	Architectures []string         // concrete ones; all and source need not be named
	Formats       []string         // of source packages; empty: 1.0, 3.0 (native), 3.0 (quilt)
	Binaries      Binaries         // in uploads with source
	Below         []string         // suites whose versions a new version must not fall behind
	Checks        map[string]Level // other levels than Checks() says; those of fixed checks are not listened to
	Limits        Limits           // zero fields: DefaultLimits
}

// Context is what Read must know of the world. The functions may be nil: then the
// world is empty.
type Context struct {
	Now       time.Time
	Keyring   *openpgp.Keyring // the keys of all uploaders
	Uploaders []*Uploader
	Suites    []*Suite
	Account   string          // the ssh account in whose own directory the upload arrived; "" for the shared one
	Sums      map[string]Sums // what Take found, by file name; other files are hashed now
	Left      bool            // the listed files were left where they lie: what the .changes says of itself is enough
	Told      map[string]bool // listed files of which the uploader was told already why they were not taken

	// Published gives the versions of a source that a suite has, in any order.
	Published func(suite, source string) ([]string, error)
	// Pool gives the SHA-256 (hex) and size of a file that the archive, or an
	// accepted upload, has under this name.
	Pool func(name string) (sha256 string, size int64, ok bool)
	// Seen says what became of an upload with this hash: a phrase such as
	// "accepted on 2026-11-21". false if it is new.
	Seen func(hash string) (fate string, ok bool)
	// BuiltBy gives the sources of those of the binary packages that the suite
	// has, by package.
	BuiltBy func(suite string, packages []string) (map[string]string, error)
	// Deb looks into a binary package in dir and returns sentences of what is wrong
	// with it. It ends when ctx does.
	Deb func(ctx context.Context, dir string, u *Upload, f File) ([]string, error)
}

// uploader finds who signed, or whose account it is.
func (c *Context) byKey(fingerprint string) *Uploader {
	for _, u := range c.Uploaders {
		for _, f := range u.Fingerprints {
			if strings.EqualFold(strings.ReplaceAll(f, " ", ""), fingerprint) {
				return u
			}
		}
	}
	return nil
}

// May reports whether who signed with a key may upload some version of a source to
// some suite: what may not is not even taken out of where it waits.
func (c *Context) May(fingerprint, source string) bool {
	u := c.byKey(fingerprint)
	return u != nil && u.May(source)
}

// May reports whether the uploader may upload some version of a source.
func (u *Uploader) May(source string) bool {
	return slices.ContainsFunc(u.Allow, func(a Right) bool { return fits(a.Packages, source) })
}

func (c *Context) byAccount() *Uploader {
	if c.Account == "" {
		return nil
	}
	for _, u := range c.Uploaders {
		if u.Account == c.Account {
			return u
		}
	}
	return nil
}

func (c *Context) suite(name string) *Suite {
	for _, s := range c.Suites {
		if s.Name == name {
			return s
		}
	}
	for _, s := range c.Suites {
		if slices.Contains(s.Aliases, name) {
			return s
		}
	}
	return nil
}

func (c *Context) published(suite, source string) ([]string, error) {
	if c.Published == nil {
		return nil, nil
	}
	return c.Published(suite, source)
}

func (c *Context) pool(name string) (string, int64, bool) {
	if c.Pool == nil {
		return "", 0, false
	}
	return c.Pool(name)
}

func (s *Suite) components() []string {
	if len(s.Components) == 0 {
		return []string{"main"}
	}
	return s.Components
}

func (s *Suite) formats() []string {
	if len(s.Formats) == 0 {
		return []string{"1.0", "3.0 (native)", "3.0 (quilt)"}
	}
	return s.Formats
}

// fits reports whether a word matches one of the patterns; an empty list fits all.
func fits(patterns []string, word string) bool {
	if len(patterns) == 0 {
		return true
	}
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, err := path.Match(p, word)
		return err == nil && ok
	})
}

// quote makes bytes from outside safe to print: ASCII only, in quotes, cut at 80 bytes.
func quote(s string) string {
	if len(s) > 80 {
		return strconv.QuoteToASCII(s[:80]) + "..."
	}
	return strconv.QuoteToASCII(s)
}

// show prints a name as it is if it is a plain one, else quoted.
func show(name string) string {
	if policy.CheckFile(name) == nil || IsCommands(name) {
		return name
	}
	return quote(name)
}

// ascii escapes what is not printable ASCII in a whole sentence. It is the last
// line: the parsers that sentences come from quote by rules of their own.
func ascii(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r > 0x7e }) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if r >= 0x20 && r <= 0x7e {
			b.WriteRune(r)
			continue
		}
		q := strconv.QuoteRuneToASCII(r)
		b.WriteString(q[1 : len(q)-1])
	}
	return b.String()
}

// stamp is a time in a sentence.
func when(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }
