package runner

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"packmill/internal/deb822"
	"packmill/internal/durable"
	"packmill/internal/openpgp"
	"packmill/internal/paper"
	"packmill/internal/policy"
	"packmill/internal/regular"

	"golang.org/x/sys/unix"
)

// Forged says that a result is not this build's, or not only: a person looks
// at it before anything else happens.
type Forged struct{ Text string }

func (f *Forged) Error() string { return f.Text }

// forged makes one, but of our own trouble, which may pass: that is no verdict.
func forged(format string, args ...any) error {
	for _, a := range args {
		err, _ := a.(error)
		for _, ours := range []error{unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.EIO} {
			if errors.Is(err, ours) {
				return fmt.Errorf("check the result: %w", err)
			}
		}
	}
	return &Forged{fmt.Sprintf(format, args...)}
}

// Check judges Job.Result after a build that claims success and returns the
// name of its .changes, which it gives the usual name,
// <source>_<version>_<arch>.changes, and its content as it was checked.
//
// The directory holds one .changes of this source, version, suite and
// architecture, each file that it lists at its size and with its checksums,
// and nothing else. A *Forged error says that there is something foreign;
// any other error that the result is incomplete, as after a full disk.
func Check(job *Job) (name string, content []byte, err error) {
	if _, err := Own(job.Result); err != nil {
		return "", nil, fmt.Errorf("results: %w", err)
	}
	changes, present, err := job.resultFiles()
	if err != nil {
		return "", nil, err
	}
	text, s, err := job.readChanges(changes)
	if err != nil {
		return "", nil, err
	}
	files, err := fileList(s)
	if err != nil {
		return "", nil, forged("%v", err)
	}
	packages := 0
	for _, f := range files {
		if !present[f.Name] {
			return "", nil, fmt.Errorf("the result lacks %s, which %s lists", f.Name, changes)
		}
		delete(present, f.Name)
		isPackage, err := job.checkFile(&f, changes)
		if err != nil {
			return "", nil, err
		}
		if isPackage {
			packages++
		}
	}
	if packages == 0 {
		return "", nil, forged("%s lists no package", changes)
	}
	delete(present, changes)
	for name := range present {
		return "", nil, forged("the result has %s, which %s does not list", name, changes)
	}
	usual := fmt.Sprintf("%s_%s_%s.changes", job.Source, policy.WithoutEpoch(job.BinaryVersion()), job.Arch)
	if changes != usual {
		if err := durable.Rename(filepath.Join(job.Result, changes), filepath.Join(job.Result, usual)); err != nil {
			return "", nil, fmt.Errorf("name the .changes: %w", err)
		}
	}
	return usual, text, nil
}

// resultFiles names the .changes of a result, and all that lies there: plain files.
func (j *Job) resultFiles() (changes string, present map[string]bool, err error) {
	entries, err := os.ReadDir(j.Result)
	if err != nil {
		return "", nil, fmt.Errorf("results: %w", err)
	}
	present = map[string]bool{}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			return "", nil, forged("the result has %q, which is not a plain file", e.Name())
		}
		if err := policy.CheckFile(e.Name()); err != nil {
			return "", nil, forged("the result has a file with a bad name: %v", err)
		}
		present[e.Name()] = true
		if strings.HasSuffix(e.Name(), ".changes") {
			if changes != "" {
				return "", nil, forged("the result has two .changes files, %s and %s", changes, e.Name())
			}
			changes = e.Name()
		}
	}
	if changes == "" {
		return "", nil, errors.New("the builder says that it succeeded and left no .changes")
	}
	return changes, present, nil
}

// readChanges reads the .changes, which must be this job's and unsigned.
func (j *Job) readChanges(changes string) ([]byte, *deb822.Stanza, error) {
	text, err := readPlain(filepath.Join(j.Result, changes), deb822.Hostile.Size)
	if err != nil {
		return nil, nil, forged("%v", err)
	}
	if len(text) == 0 {
		return nil, nil, fmt.Errorf("%s is empty, as on a full disk", changes)
	}
	if openpgp.IsSigned(text) {
		return nil, nil, forged("%s: the build signed it", changes)
	}
	s, err := deb822.ParseOne(changes, text, deb822.Hostile)
	if err != nil {
		return nil, nil, forged("%v", err)
	}
	if err := j.checkFields(s); err != nil {
		return nil, nil, forged("%s: %v", changes, err)
	}
	return text, s, nil
}

// checkFile checks a file that the .changes lists.
func (j *Job) checkFile(f *paper.File, changes string) (isPackage bool, err error) {
	if err := verify(f, filepath.Join(j.Result, f.Name)); err != nil {
		return false, err
	}
	switch filepath.Ext(f.Name) {
	case ".deb", ".udeb", ".ddeb":
		return true, j.checkPackage(j.Result, f.Name)
	case ".buildinfo":
		return false, j.checkBuildinfo(j.Result, f.Name)
	}
	return false, forged("%s lists %s; only .deb, .udeb and .buildinfo files are results of a build", changes, f.Name)
}

// allowed reports whether a package of this architecture may come out of the
// build.
func (j *Job) allowed(arch string) bool {
	return arch == j.Arch || j.Indep && arch == "all"
}

func (j *Job) checkFields(s *deb822.Stanza) error {
	source, version := paper.Source(s.Get("Source"))
	if source != j.Source {
		return s.Errorf("Source", "is a result of %q, not of %s", source, j.Source)
	}
	if version != "" && version != j.Version {
		return s.Errorf("Source", "is a result of version %q, not of %s", version, j.Version)
	}
	if v := s.Get("Version"); v != j.BinaryVersion() {
		return s.Errorf("Version", "has version %q, not %s", v, j.BinaryVersion())
	}
	if j.BinNMU != nil && version == "" {
		return s.Errorf("Source", "does not name the source's version, as a binNMU must")
	}
	if d := s.Get("Distribution"); d != j.Suite {
		return s.Errorf("Distribution", "is for %q, not for %s", d, j.Suite)
	}
	words := deb822.Words(s.Get("Architecture"))
	if len(words) == 0 {
		return s.Errorf("Architecture", "names no architecture")
	}
	for _, w := range words {
		if !j.allowed(w) {
			return s.Errorf("Architecture", "has packages for %q; the build was for %s", w, j.Arch)
		}
	}
	return nil
}

// fileList reads the file lists of a result's .changes, which has all three checksums.
func fileList(s *deb822.Stanza) ([]paper.File, error) {
	return paper.Files(s, paper.Long, paper.MD5, paper.SHA1, paper.SHA256)
}

// verify compares a file with its entry.
func verify(l *paper.File, path string) error {
	f, err := openPlain(path)
	if err != nil {
		return forged("%v", err)
	}
	defer f.Close()
	h5, h1, h256 := md5.New(), sha1.New(), sha256.New()
	n, err := regular.Stream(io.MultiWriter(h5, h1, h256), f)
	if err != nil {
		return fmt.Errorf("read result %s: %w", l.Name, err)
	}
	switch {
	case n == 0:
		return fmt.Errorf("%s is empty, as on a full disk", l.Name)
	case n < l.Size:
		return fmt.Errorf("%s has %d bytes of %d, as on a full disk", l.Name, n, l.Size)
	case n != l.Size:
		return forged("%s has %d bytes, the .changes says %d", l.Name, n, l.Size)
	}
	for _, sum := range []struct{ name, got, want string }{
		{"SHA-256", hex.EncodeToString(h256.Sum(nil)), l.SHA256},
		{"SHA-1", hex.EncodeToString(h1.Sum(nil)), l.SHA1},
		{"MD5", hex.EncodeToString(h5.Sum(nil)), l.MD5},
	} {
		if sum.got != sum.want {
			return forged("%s: %s differs from the .changes", l.Name, sum.name)
		}
	}
	return nil
}

// checkPackage compares a binary package's name, and with Job.Control what it
// says of itself, with the job.
func (j *Job) checkPackage(dir, name string) error {
	base := strings.TrimSuffix(name, filepath.Ext(name))
	part := strings.Split(base, "_")
	if len(part) != 3 {
		return forged("%s is not named <package>_<version>_<architecture>", name)
	}
	if name := strings.TrimSuffix(part[0], "-dbgsym"); len(j.Packages) > 0 && !slices.Contains(j.Packages, part[0]) &&
		!slices.Contains(j.Packages, name) {
		return forged("the build made the package %s, which its source does not name (only %s)",
			part[0], strings.Join(j.Packages, ", "))
	}
	if !j.allowed(part[2]) {
		return forged("%s is for %s; the build was for %s", name, part[2], j.Arch)
	}
	if j.Control == nil {
		return nil
	}
	c, err := j.Control(filepath.Join(dir, name))
	if err != nil {
		return forged("%s: %v", name, err)
	}
	pkg, version, arch := c.Get("Package"), c.Get("Version"), c.Get("Architecture")
	if pkg != part[0] || policy.WithoutEpoch(version) != part[1] || arch != part[2] {
		return forged("%s says inside that it is %s %s for %s", name, pkg, version, arch)
	}
	source, sourceVersion := paper.Source(c.Get("Source"))
	if source == "" {
		source = pkg
	}
	if sourceVersion == "" {
		sourceVersion = version
	}
	if source != j.Source || sourceVersion != j.Version {
		return forged("%s says inside that it was built from %s %s, not from %s %s",
			name, source, sourceVersion, j.Source, j.Version)
	}
	return nil
}

// checkBuildinfo compares a .buildinfo (deb-buildinfo(5)) with the job.
func (j *Job) checkBuildinfo(dir, name string) error {
	text, err := readPlain(filepath.Join(dir, name), deb822.Hostile.Size)
	if err != nil {
		return forged("%v", err)
	}
	s, err := deb822.ParseOne(name, text, deb822.Hostile)
	if err != nil {
		return forged("%v", err)
	}
	source, _ := paper.Source(s.Get("Source"))
	if source != j.Source || s.Get("Version") != j.BinaryVersion() {
		return forged("%s is about %s %s, not about %s %s", name, source, s.Get("Version"), j.Source, j.BinaryVersion())
	}
	for _, w := range deb822.Words(s.Get("Architecture")) {
		if !j.allowed(w) && w != "source" {
			return forged("%s is about packages for %s; the build was for %s", name, w, j.Arch)
		}
	}
	return nil
}

// readPlain reads a plain file of at most limit bytes.
func readPlain(path string, limit int64) ([]byte, error) {
	f, err := openPlain(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return regular.ReadAll(f, limit)
}
