// Package archive publishes packages: it puts them into a pool, indexes them,
// signs the indexes, and makes it all visible at one rename. What it knows it
// reads from the indexes that it published; there is no database. It knows
// nothing of queues and states.
//
// An archive is a directory that a web server can show as it is:
//
//	pool/COMPONENT/h/hello/    the packages; a name never changes its bytes
//	dists/SUITE/               Release, InRelease, indexes (see apt's sources.list(5))
//	opkg/SUITE/ARCH/           feeds for opkg (see package opkg)
//	keys/SUITE.asc             what clients verify it with; of its feeds, SUITE.pub
//	snapshots/NAME/            frozen suites, made of hard links
//	cache/                     may be thrown away at any time
//	.lock                      held while something is published: a suite's part of it, or the whole
//
// Order of a publication: pool files, synced; indexes under their checksums,
// synced; their plain names; Release and Release.gpg; InRelease last. Until that
// last rename clients see the old publication whole, and its indexes stay
// under their checksums for some days after it. A crash anywhere before leaves
// nothing that counts, and the same publication done again gives the same.
package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"packmill/archive/index"
	"packmill/archive/opkg"
	"packmill/internal/compression"
	"packmill/internal/durable"
	"packmill/internal/openpgp"
	"packmill/internal/policy"
)

// Suite is a suite's settings, as the caller's control files have them.
type Suite struct {
	Name     string   // the directory below dists
	Codename string   // a symbolic link to it if it is another name
	Aliases  []string // further names, with a Release of their own

	Origin, Label, Description string

	Components    []string // "main" if empty
	Architectures []string // without "all", which every suite has

	ValidFor                           time.Duration // zero: the Release never expires
	NotAutomatic, ButAutomaticUpgrades bool

	Compress     []string // of Forms; gz and xz if empty
	Pdiffs       bool     // publish what changed in Packages and Sources beside them, see index.Place.Patch
	Contents     bool     // publish Contents-ARCH
	Translations bool     // long descriptions go to Translation-en
	Dbgsym       string   // component of automatic debug packages; "" leaves them in their own

	// SignWith are files of secret keys, or "gpg:FINGERPRINT" of keys that
	// gpg-agent holds; with several every file bears a
	// signature by each. Without any the suite is not signed, which apt accepts
	// only with [trusted=yes].
	SignWith []string

	// Opkg makes feeds for opkg too; nil: none.
	Opkg *Opkg

	// Overrides replace the section and priority of packages, by name; a source
	// package's is "src:NAME".
	Overrides map[string]Override

	// Stay is how long indexes remain under their checksums after a newer
	// publication, but for the oldest of very many (see index.Outstayed); three days if zero.
	Stay time.Duration
}

// Override replaces what is not empty.
type Override struct {
	Section, Priority string
	Tag               string // debtags, of an import only
}

const defaultStay = 72 * time.Hour

func (s *Suite) components() []string {
	c := s.Components
	if len(c) == 0 {
		c = []string{"main"}
	}
	if s.Dbgsym != "" && !slices.Contains(c, s.Dbgsym) {
		c = append(slices.Clone(c), s.Dbgsym)
	}
	return c
}

// Forms are what Compress may name.
func Forms() []string {
	var out []string
	for _, k := range index.Forms() {
		out = append(out, string(k))
	}
	return out
}

func (s *Suite) forms() []compression.Kind {
	if len(s.Compress) == 0 {
		return []compression.Kind{compression.Gzip, compression.Xz}
	}
	out := make([]compression.Kind, len(s.Compress))
	for i, c := range s.Compress {
		out[i] = compression.Kind(c)
	}
	return out
}

// archs are the suite's concrete architectures.
func (s *Suite) archs() []string {
	var out []string
	for _, a := range s.Architectures {
		if a != "all" && a != "source" && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

func (s *Suite) check() error {
	bad := func(err error) error { return fmt.Errorf("suite %s: %w", s.Name, err) }
	for _, n := range append([]string{s.Name}, s.Aliases...) {
		if err := policy.CheckSuite(n); err != nil {
			return bad(err)
		}
	}
	if s.Codename != "" {
		if err := policy.CheckSuite(s.Codename); err != nil {
			return bad(err)
		}
	}
	for _, c := range s.components() {
		if err := policy.CheckComponent(c); err != nil {
			return bad(err)
		}
	}
	for _, a := range s.archs() {
		if err := policy.CheckArch(a); err != nil {
			return bad(err)
		}
	}
	if s.Opkg != nil {
		if err := errors.Join(s.Opkg.Check(), checkLayout(s.Opkg.Layout)); err != nil {
			return bad(err)
		}
	}
	for _, c := range s.Compress {
		if known := Forms(); !slices.Contains(known, c) {
			return bad(fmt.Errorf("compression %q is not known; use %s", c, strings.Join(known, ", ")))
		}
	}
	return nil
}

// Archive is an archive's directory. Its methods may be called by several
// goroutines and processes at once; publications wait for each other.
type Archive struct {
	// Progress, if set, hears how many of the packages that are new in a feed for opkg are made: the first time each is
	// packed anew, which takes long.
	Progress func(done, all int)

	root string

	mu     sync.Mutex
	loaded map[string]*loadedKey
	swept  map[string]time.Time // directories of superseded indexes, when this process did so last
}

type loadedKey struct {
	info   fs.FileInfo
	signer *openpgp.Signer
	issuer string // fingerprint of the key or subkey that signs
}

// Open returns the archive at root, which it makes if it is missing.
func Open(root string) (*Archive, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	for _, d := range []string{"pool", "dists"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return nil, fmt.Errorf("open archive: %w", err)
		}
	}
	return &Archive{root: root, loaded: map[string]*loadedKey{}, swept: map[string]time.Time{}}, nil
}

// Root is the archive's directory, absolute.
func (a *Archive) Root() string { return a.root }

func (a *Archive) path(name ...string) string {
	return filepath.Join(append([]string{a.root}, name...)...)
}

// lock waits until nobody else changes the archive. The lock file is never removed.
func (a *Archive) lock(ctx context.Context) (unlock func(), err error) {
	return a.locked(durable.AwaitWhole(ctx, a.lockFile(), 0o600))
}

// lockSuite waits until nobody else changes the suite, or more than one suite: of two suites'
// publications none waits for the other.
func (a *Archive) lockSuite(ctx context.Context, suite string) (unlock func(), err error) {
	return a.locked(durable.AwaitPart(ctx, a.lockFile(), 0o600, suite))
}

// Busy reports whether somebody changes the suite just now, or the whole archive.
func (a *Archive) Busy(suite string) bool {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	unlock, err := a.lockSuite(ctx, suite)
	if err == nil {
		unlock()
	}
	return errors.Is(err, context.Canceled)
}

// lockFile is there for who changes the archive; readers may be other users.
func (a *Archive) lockFile() string { return a.path(".lock") }

func (a *Archive) locked(l io.Closer, err error) (unlock func(), _ error) {
	if err == nil {
		err = os.MkdirAll(a.path("cache"), 0o755)
	}
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", a.lockFile(), err)
	}
	return func() { l.Close() }, nil
}

// sameKey reports whether a key's file is still the one that was read. A key
// that gpg-agent holds has none.
func sameKey(a, b fs.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

// A KeyError says that a key that the settings name cannot sign. Nothing of the
// publication is visible.
type KeyError struct {
	Suite string
	Field string // of the settings: Sign-With or Opkg-Key
	Err   error  // names the file
	Cure  string
}

func (e *KeyError) Error() string {
	return fmt.Sprintf("suite %s: %s: %v; nothing was published: %s", e.Suite, e.Field, e.Err, e.Cure)
}

func (e *KeyError) Unwrap() error { return e.Err }

// signing are the keys of a suite, each of which can sign.
type signing struct {
	openpgp []*loadedKey
	usign   []*opkg.Key
}

// keys loads all keys that a publication of the suite needs.
func (a *Archive) keys(s *Suite, now time.Time) (out signing, err error) {
	if out.openpgp, err = a.signers(s, now); err != nil || s.Opkg == nil {
		return out, err
	}
	for _, file := range s.Opkg.Keys {
		k, err := opkg.ReadKey(file)
		if err != nil {
			return out, &KeyError{s.Name, "Opkg-Key", err,
				"let the archive's owner read the file, take it from a backup, " +
					"or name a new key there (packmill key new NAME --opkg)"}
		}
		out.usign = append(out.usign, k)
	}
	return out, nil
}

// signers loads the suite's OpenPGP keys; a key whose file has not changed is
// read once.
func (a *Archive) signers(s *Suite, now time.Time) ([]*loadedKey, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []*loadedKey
	for _, name := range s.SignWith {
		k, err := a.signer(name, now)
		if err != nil {
			return nil, &KeyError{s.Name, "Sign-With", err, s.cure(err)}
		}
		out = append(out, k)
	}
	return out, nil
}

// cure says what to do about a key that cannot sign.
func (s *Suite) cure(err error) string {
	dead := (*openpgp.Refusal)(nil)
	switch {
	case !errors.As(err, &dead):
		return "let the archive's owner read the file, take it from a backup, or name a new key there (packmill key new NAME)"
	case len(s.SignWith) > 1:
		return "take it out (packmill archive key rotate " + s.Name + " --retire)"
	case dead.Kind == openpgp.Revoked:
		return "put a new one in its place (packmill archive key rotate " + s.Name + ") and give that to the clients"
	}
	return "put a new one in its place (packmill archive key rotate " + s.Name +
		") and give that to the clients, or extend it (gpg --quick-set-expire)"
}

// signer loads a key and lets it sign, if it is not known already.
func (a *Archive) signer(name string, now time.Time) (*loadedKey, error) {
	var info fs.FileInfo
	if !strings.HasPrefix(name, openpgp.AgentPrefix) {
		var err error
		if info, err = os.Stat(name); err != nil {
			return nil, err
		}
	}
	if k := a.loaded[name]; k != nil && sameKey(k.info, info) && k.signer.Check(now) == nil {
		return k, nil
	}
	signer, err := openpgp.OpenSigner(name)
	if err != nil {
		return nil, err
	}
	sig, err := signer.Detach([]byte("who"), now)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	by, err := openpgp.Issuers(sig)
	if err != nil || len(by) != 1 {
		return nil, fmt.Errorf("signing key %s signs without its name: %w", name, err)
	}
	a.loaded[name] = &loadedKey{info, signer, by[0]}
	return a.loaded[name], nil
}

// publicKeys are the files of keys that the archive hands out for a suite, of
// those that are there, relative to dir.
func publicKeys(dir, suite string) []string {
	return slices.DeleteFunc([]string{"keys/" + suite + ".asc", "keys/" + suite + ".pub", "keys/" + suite + ".next.pub"},
		func(name string) bool {
			info, err := os.Lstat(filepath.Join(dir, name))
			return err != nil || !info.Mode().IsRegular()
		})
}

// handOut writes what clients verify a suite with into keys: SUITE.asc, the
// OpenPGP keys that sign it, SUITE.pub, the usign key of its feeds, and while there
// are two, SUITE.next.pub, that of the second feeds.
func (a *Archive) handOut(suite string, keys signing) error {
	var text []byte
	for _, k := range keys.openpgp {
		text = append(text, k.signer.Public()...)
	}
	public := map[string][]byte{".asc": text}
	if len(keys.usign) > 0 {
		public[".pub"] = keys.usign[0].Public()
	}
	if n := len(keys.usign); n > 1 {
		public[".next.pub"] = keys.usign[n-1].Public()
	} else if err := durable.Remove(a.path("keys", suite+".next.pub")); err != nil {
		return err
	}
	for ext, text := range public {
		name := a.path("keys", suite+ext)
		if old, err := os.ReadFile(name); len(text) == 0 || err == nil && bytes.Equal(old, text) {
			continue
		}
		if err := durable.MkdirAll(filepath.Dir(name), 0o775); err != nil {
			return err
		}
		if err := durable.WriteFile(name, text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func signersOf(keys []*loadedKey) []*openpgp.Signer {
	var out []*openpgp.Signer
	for _, k := range keys {
		out = append(out, k.signer)
	}
	return out
}
