// Package opkg makes feeds for opkg, the package manager of small systems, out
// of a Debian archive. Two clients are served: upstream's (Yocto, ProteanOS)
// and OpenWrt's. A feed is a function of the archive's own Packages indexes and
// of its pool, so it can be thrown away and made again.
//
// Below the archive's directory:
//
//	opkg/SUITE/ARCH           a symbolic link to the generation in force
//	opkg/SUITE/.ARCH.000017   a generation: Packages, Packages.gz, Packages.sig, Packages.asc, pool
//	opkg/pool/2/main/h/hello/hello_2.10-3_ARCH.opk
//
// ARCH is the client's name of the architecture (Options.Arch); packages for all
// are in every feed, and the feed "src" has the sources where it is set. A
// generation's pool is a symbolic link to the packages, which all feeds share:
// Filename is pool/main/h/hello/hello_2.10-3_ARCH.opk, below the feed's own address.
// Small clients send a ".." as it is, and not every server takes one. A package is
// packed once, when the first feed needs it, and kept; its name never changes its
// bytes. The number is that of the form (see form): what was packed in an older
// one stays for those who have an older index, until nothing names it.
//
// A feed changes by one rename of its link. A client's requests for an index and
// its signature are two, though: if a publication falls between them they do not
// belong together, the client says so, and its next update is good (2 of 919 pairs
// that were fetched while a publication came every 1.3 seconds; of a busy machine's
// updates, where more time lies between the two, 13 of 317). Whoever reads
// the files themselves and has opened a generation has it whole for ten minutes
// after the next one. No file of a generation has the time of one before it, not
// even if two are made in a second: caches go by that time.
package opkg

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"packmill/internal/durable"
	"packmill/internal/openpgp"
)

// A Feed is the index of one suite and architecture. Whoever changes a feed
// holds the archive's lock.
type Feed struct {
	Root  string // the archive's directory
	Suite string
	Arch  string // Debian's name of the architecture; "source" for the feed of the sources
	Options

	// Part, if set, tells the feed from that of the whole architecture, behind a comma in its
	// name; Section leaves out what is of another section.
	Part, Section string
	Manifest      bool // Packages.manifest too, the same file

	// Usign signs Packages.sig, OpenPGP signs Packages.asc; none: no such file.
	// Clients know one key of several as a rule, and OpenWrt's take one usign
	// signature, upstream's the first OpenPGP one: where there are two keys the
	// directory "next" in the feed is the same feed with the last ones in front.
	Usign   []*Key
	OpenPGP []*openpgp.Signer

	// Progress, if set, hears how many of the packages that are new in the feed are made. Several goroutines call it.
	Progress func(done, all int)
}

// An Index is a Packages index of the archive (of Sources, for the feed of the
// sources): what the feed shows.
type Index struct {
	SHA256 string // of the plain text, in hexadecimal: an index that is known is not read again
	Open   func() (Blocks, error)
}

// Blocks are the text of an index, cut between its stanzas. A block that was in
// the last generation's index is not looked into, so a cut should follow from the
// text around it alone.
type Blocks struct {
	N    int
	Sum  func(i int) [sha256.Size]byte // of the block's text
	Read func(i int) ([]byte, error)   // valid until the next call
}

// A Report says what a publication of a feed did.
type Report struct {
	Changed bool // clients see something new
	Entries int
	Packed  int // package files made

	// Skipped are packages that no opkg could install, each with the reason, of
	// which the last generation did not know. They are missing from the feed.
	Skipped []Skip
}

// Name is the feed's directory below its suite's.
func (f *Feed) Name() string {
	name := f.Of(f.Arch)
	if f.Part != "" {
		name += "," + f.Part
	}
	return name
}

// Of is the name of the feed of a Debian architecture, or of "source".
func (o Options) Of(arch string) string {
	if arch == "source" {
		return Sources
	}
	return o.arch(arch)
}

// Section is the name of a section without the component before it: "net" of
// contrib/net.
func Section(field string) string { return field[strings.LastIndexByte(field, '/')+1:] }

// Dir is the feed's directory as clients see it, absolute.
func (f *Feed) Dir() string { return filepath.Join(f.Root, "opkg", f.Suite, f.Name()) }

// Publish brings the feed in line with the archive's indexes, and makes it
// visible in one step. If nothing changes nothing is written. After an error,
// or a crash, the old feed is in force, and the same call does it all again.
func (f *Feed) Publish(ctx context.Context, indexes []Index, now time.Time) (*Report, error) {
	rep, err := f.publish(ctx, indexes, now)
	if err != nil {
		return nil, fmt.Errorf("publish opkg feed %s/%s: %w", f.Suite, f.Name(), err)
	}
	return rep, nil
}

func (f *Feed) publish(ctx context.Context, indexes []Index, now time.Time) (*Report, error) {
	if err := f.Check(); err != nil {
		return nil, err
	}
	suiteDir := filepath.Dir(f.Dir())
	if err := durable.MkdirAll(suiteDir, 0o755); err != nil {
		return nil, err
	}
	number, there, err := f.current()
	if err != nil {
		return nil, err
	}
	input, old := f.input(indexes), &last{}
	if there != "" {
		was, n, err := readInput(there)
		if err == nil && was == input {
			return &Report{Entries: n}, f.sweep(number, now)
		}
		// What cannot be read is not known, and made again.
		if l, err := readLast(there, f.settings()); err == nil {
			old = l
			defer old.close()
		}
	}
	m := newMaker(f, old)
	defer m.close()
	dir := filepath.Join(suiteDir, generation(f.Name(), number+1))
	if err := m.generation(ctx, dir, input, indexes); err != nil {
		return nil, err
	}
	if err := f.sign(dir, now); err != nil {
		return nil, err
	}
	if err := setTimes(dir, there, now); err != nil {
		return nil, err
	}
	if err := durable.SyncTree(dir); err != nil {
		return nil, err
	}
	if err := durable.SyncDir(suiteDir); err != nil {
		return nil, err
	}
	if err := durable.Symlink(filepath.Base(dir), f.Dir()); err != nil {
		return nil, err
	}
	return m.rep, f.sweep(number+1, now)
}

// form is the number of the form in which packages are packed and entries are
// written. A new one makes every feed anew, with packages of other names. 2: the
// control archive is whole, its control file is opkg's.
const form = "2"

// poolDir is where packages lie, relative to the archive.
const poolDir = "opkg/pool/" + form

const format = "packmill opkg feed " + form

// settings are what the entries of a feed depend on beside the indexes.
func (f *Feed) settings() string {
	var b strings.Builder
	fmt.Fprintln(&b, format, f.Arch, f.extension(), f.Section)
	for _, from := range slices.Sorted(maps.Keys(f.Options.Arch)) {
		fmt.Fprintln(&b, from, f.Options.Arch[from])
	}
	return b.String()
}

// input sums up what a generation is made from: the settings, the keys, the
// indexes.
func (f *Feed) input(indexes []Index) string {
	h := sha256.New()
	fmt.Fprintln(h, f.settings(), f.Manifest)
	for _, k := range f.Usign {
		fmt.Fprintln(h, "usign", k.Fingerprint())
	}
	for _, k := range f.OpenPGP {
		fmt.Fprintln(h, "openpgp", k.Fingerprint())
	}
	for _, x := range indexes {
		fmt.Fprintln(h, x.SHA256)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func generation(name string, number int) string { return fmt.Sprintf(".%s.%06d", name, number) }

// HalfMade reports whether the directory is a generation of a feed that never
// was in force: its number is above the one in force. It may be about to be.
func HalfMade(dir string) bool {
	dot := strings.LastIndexByte(dir, '.')
	number, err := strconv.Atoi(dir[dot+1:])
	name, hidden := strings.CutPrefix(filepath.Base(dir[:max(dot, 0)]), ".")
	if err != nil || !hidden || name == "" || filepath.Base(filepath.Dir(filepath.Dir(dir))) != "opkg" {
		return false
	}
	link, err := os.Readlink(filepath.Join(filepath.Dir(dir), name))
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	inForce, err := strconv.Atoi(strings.TrimPrefix(link, "."+name+"."))
	return err == nil && number > inForce
}

// current finds the generation in force: its number and directory, "" if there
// is none.
func (f *Feed) current() (int, string, error) {
	link, err := os.Readlink(f.Dir())
	if errors.Is(err, fs.ErrNotExist) {
		return 0, "", nil
	}
	if err != nil {
		return 0, "", err
	}
	digits, ok := strings.CutPrefix(link, "."+f.Name()+".")
	number, err := strconv.Atoi(digits)
	if !ok || err != nil || number < 0 {
		return 0, "", fmt.Errorf("%s is a link to %q, none of this program's generations; move it away", f.Dir(), link)
	}
	return number, filepath.Join(filepath.Dir(f.Dir()), link), nil
}

// setTimes gives the files of a generation its time: now, or a second after the
// generation before. Web servers make an ETag of a file's time and size, and a
// signature always has the same size.
func setTimes(dir, before string, now time.Time) error {
	when := now.Truncate(time.Second)
	if fi, err := os.Stat(filepath.Join(before, "Packages")); before != "" && err == nil && !when.After(fi.ModTime()) {
		when = fi.ModTime().Truncate(time.Second).Add(time.Second)
	}
	return filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		return os.Chtimes(name, when, when)
	})
}

// sweep removes generations that have not been in force for a while: a client
// that fetches by file may still be in one.
func (f *Feed) sweep(number int, now time.Time) error {
	const stay = 10 * time.Minute
	dir := filepath.Dir(f.Dir())
	list, err := os.ReadDir(dir) // in the order of their numbers
	if err != nil {
		return err
	}
	next := now // when the generation after this one was made
	for _, e := range slices.Backward(list) {
		digits, ok := strings.CutPrefix(e.Name(), "."+f.Name()+".")
		n, err := strconv.Atoi(digits)
		if !ok || err != nil || n > number {
			continue
		}
		fi, err := e.Info()
		if err != nil {
			continue
		}
		since := next
		next = fi.ModTime()
		if n == number || now.Sub(since) < stay {
			continue
		}
		if err := durable.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// Feeds are the names of a suite's feeds that are published.
func Feeds(root, suite string) ([]string, error) {
	list, err := os.ReadDir(filepath.Join(root, "opkg", suite))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range list {
		if e.Type()&fs.ModeSymlink != 0 && !strings.HasPrefix(e.Name(), ".") {
			out = append(out, e.Name())
		}
	}
	return out, nil
}
