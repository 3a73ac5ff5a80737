// Package statement is what reviewd says of an upload that it let in, signed
// with a key that only its account reads: one file, statement, which goes with
// the upload through the whole tree. Whoever uses a file of an upload verifies
// the statement, and then the file by it; the ticket, the history and the names
// of directories prove nothing.
//
// The statement is a stanza in the cleartext form of OpenPGP, so gpgv reads it:
//
//	Source, Version     of the source package
//	Distribution        the suite that the upload asked for
//	Suites              all in which the uploader's rights cover it: a reviewer may put it into any of them
//	Component, Dsc, Changes, Received
//	Has-Binaries        architectures whose binaries came with it
//	Uploader            the Name of control/uploaders, with Fingerprint or Account
//	Rights              the Allow that was used
//	Packages            the names in Package-List and Binary of the .dsc
//	Takes-Over          PACKAGE=SOURCE: names that another source has in the suite, for which the uploader has
//	                    the right, or which a reviewer is shown
//	Checksums-Sha256    of the .changes and every file of the upload
package statement

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"packmill/internal/deb822"
	"packmill/internal/openpgp"
	"packmill/internal/policy"
	"packmill/internal/regular"
)

// File is the statement's name in an item. It has no underscore, as the
// upload's own files have.
const File = "statement"

// Statement is what reviewd says of one upload.
type Statement struct {
	Source, Version string
	Suite           string
	Suites          []string
	Component       string
	Dsc, Changes    string // file names; Dsc is "" of binaries alone
	Received        time.Time
	Has             []string
	Uploader        string
	Fingerprint     string // of the key that signed the .changes; "" of an account that is trusted without
	Account         string
	Rights          string
	Packages        []string
	TakesOver       []string // PACKAGE=SOURCE
	Files           []Sum
}

// Sum is one file of the upload.
type Sum struct {
	Name   string
	Size   int64  // bytes
	SHA256 string // lower hex
}

// Refusal says why an item is not what was let in: a verdict, for a person. Every
// other error is our own trouble.
type Refusal struct{ Text string }

func (r *Refusal) Error() string { return r.Text }

func refuse(format string, args ...any) error { return &Refusal{fmt.Sprintf(format, args...)} }

// Refused is the text of a Refusal, "" of another error.
func Refused(err error) string {
	var r *Refusal
	if errors.As(err, &r) {
		return r.Text
	}
	return ""
}

// stanza is the statement as its file has it, before it is signed.
func (s *Statement) stanza() *deb822.Stanza {
	st := &deb822.Stanza{}
	set := func(field, value string) {
		if value != "" {
			st.Set(field, value)
		}
	}
	set("Source", s.Source)
	set("Version", s.Version)
	set("Distribution", s.Suite)
	set("Suites", strings.Join(s.Suites, " "))
	set("Component", s.Component)
	set("Dsc", s.Dsc)
	set("Changes", s.Changes)
	set("Received", s.Received.UTC().Format(time.RFC3339Nano))
	set("Has-Binaries", strings.Join(s.Has, " "))
	set("Uploader", s.Uploader)
	set("Fingerprint", s.Fingerprint)
	set("Account", s.Account)
	set("Rights", s.Rights)
	set("Packages", lines(s.Packages))
	set("Takes-Over", lines(s.TakesOver))
	var sums []string
	for _, f := range s.Files {
		sums = append(sums, fmt.Sprintf("%s %d %s", f.SHA256, f.Size, f.Name))
	}
	set("Checksums-Sha256", lines(sums))
	return st
}

// lines puts each word on a line of its own: a field of thousands stays readable,
// and no line is longer than a signature covers.
func lines(words []string) string {
	if len(words) == 0 {
		return ""
	}
	return "\n" + strings.Join(words, "\n")
}

// Sign is the statement's file.
func (s *Statement) Sign(key *openpgp.Signer) ([]byte, error) {
	return key.Clearsign(s.stanza().Append(nil), time.Now())
}

func parse(text []byte) (*Statement, error) {
	st, err := deb822.ParseOne(File, text, deb822.Hostile)
	if err != nil {
		return nil, err
	}
	s := &Statement{
		Source: st.Get("Source"), Version: st.Get("Version"), Suite: st.Get("Distribution"),
		Suites:    deb822.Words(st.Get("Suites")),
		Component: st.Get("Component"), Dsc: st.Get("Dsc"), Changes: st.Get("Changes"),
		Has:      deb822.Words(st.Get("Has-Binaries")),
		Uploader: st.Get("Uploader"), Fingerprint: st.Get("Fingerprint"), Account: st.Get("Account"),
		Rights:   st.Get("Rights"),
		Packages: deb822.Words(st.Get("Packages")), TakesOver: deb822.Words(st.Get("Takes-Over")),
	}
	if s.Received, err = time.Parse(time.RFC3339Nano, st.Get("Received")); err != nil {
		return nil, st.Errorf("Received", "%v", err)
	}
	w := deb822.Words(st.Get("Checksums-Sha256"))
	if len(w)%3 != 0 {
		return nil, st.Errorf("Checksums-Sha256", "%d words are not checksum, size and name of each file", len(w))
	}
	for ; len(w) > 0; w = w[3:] {
		size, err := strconv.ParseInt(w[1], 10, 64)
		if err == nil {
			err = policy.CheckFile(w[2])
		}
		if err != nil {
			return nil, st.Errorf("Checksums-Sha256", "%v", err)
		}
		s.Files = append(s.Files, Sum{w[2], size, w[0]})
	}
	return s, nil
}

// Ring verifies statements. It may be used by several goroutines.
type Ring struct{ keys *openpgp.Keyring }

// Read reads the statement of the item that lies at dir. A *Refusal says that
// there is none, or none that is signed.
func (r *Ring) Read(dir string) (*Statement, error) {
	data, err := readSmall(filepath.Join(dir, File))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ELOOP) {
		return nil, refuse("there is no statement of reviewd with it: it did not come as an upload that was let in")
	}
	if err != nil {
		return nil, err
	}
	text, _, err := r.keys.VerifyClear(data, time.Now())
	var bad *openpgp.Refusal
	if errors.As(err, &bad) {
		return nil, refuse("its statement is not reviewd's: %s", bad.Text)
	}
	if err != nil {
		return nil, err
	}
	s, err := parse(text)
	if err != nil {
		return nil, refuse("its statement cannot be read: %v", err)
	}
	return s, nil
}

// Of is Read, and the statement must be about that version of a source, and
// allow the suite.
func (r *Ring) Of(dir, source, version, suite string) (*Statement, error) {
	s, err := r.Read(dir)
	if err != nil {
		return nil, err
	}
	switch {
	case s.Source != source || s.Version != version:
		return nil, refuse("its statement is about %s %s, not about %s %s", s.Source, s.Version, source, version)
	case !slices.Contains(s.Suites, suite):
		return nil, refuse("%s may not upload it to %s: the statement allows %s; put it there, "+
			"or ask for the right and requeue it from rejected",
			s.Uploader, suite, strings.Join(s.Suites, ", "))
	}
	return s, nil
}

// maxStatement bounds what is read of one: it has a line of some 200 bytes for each
// of at most 10,000 files.
const maxStatement = 4 << 20

func readSmall(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > maxStatement {
		return nil, refuse("%s is no regular file of at most %d bytes", filepath.Base(path), maxStatement)
	}
	return io.ReadAll(io.LimitReader(f, maxStatement+1))
}

// Verify reads every file of the upload in dir and compares it. A file beside
// them that looks like one of an upload is refused: nobody vouches for it.
func (s *Statement) Verify(dir string) error {
	for _, f := range s.Files {
		if err := s.pass(io.Discard, dir, f); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if policy.CheckFile(e.Name()) == nil && s.sum(e.Name()) == nil {
			return refuse("%s lies with it, which was not let in", e.Name())
		}
	}
	return nil
}

// Text is the content of one of the files, of at most limit bytes, as it was let in.
func (s *Statement) Text(dir, name string, limit int64) ([]byte, error) {
	f := s.sum(name)
	if f == nil {
		return nil, refuse("%s was not let in", name)
	}
	if f.Size > limit {
		return nil, refuse("%s has %d bytes, and %d are the limit", name, f.Size, limit)
	}
	var out bytes.Buffer
	err := s.pass(&out, dir, *f)
	return out.Bytes(), err
}

// CopySource copies the files of the source package from dir to the new directory
// to and compares what it copies: what lies there is what was let in, and
// nobody else has it open.
func (s *Statement) CopySource(dir, to string) error {
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	for _, f := range s.Files {
		if !partOfSource(f.Name) {
			continue
		}
		w, err := os.OpenFile(filepath.Join(to, f.Name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return err
		}
		err = s.pass(w, dir, f)
		if cerr := w.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// partOfSource reports whether a file of an upload is one that a build needs.
func partOfSource(name string) bool {
	switch filepath.Ext(name) {
	case ".changes", ".deb", ".udeb", ".ddeb", ".buildinfo":
		return false
	}
	return true
}

func (s *Statement) sum(name string) *Sum {
	for i := range s.Files {
		if s.Files[i].Name == name {
			return &s.Files[i]
		}
	}
	return nil
}

// pass writes a file of dir to w and compares it on the way.
func (s *Statement) pass(w io.Writer, dir string, want Sum) error {
	f, err := os.OpenFile(filepath.Join(dir, want.Name), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) {
		return refuse("%s is not there (any more) as a regular file", want.Name)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() || st.Size() != want.Size {
		return refuse("%s is not the file of %d bytes that was let in", want.Name, want.Size)
	}
	h := sha256.New()
	n, err := regular.Stream(io.MultiWriter(h, w), io.LimitReader(f, want.Size+1))
	if err != nil {
		return err
	}
	if n != want.Size || hex.EncodeToString(h.Sum(nil)) != want.SHA256 {
		return refuse("%s is not the file that was let in: its SHA-256 differs", want.Name)
	}
	return nil
}
