package control

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"

	"packmill/internal/openpgp"
)

// Keyring reads the public keys of control/keys, of the given fingerprints
// only. Fingerprints without a key are returned as missing. It takes
// milliseconds a key: keep the result for as long as the Settings are in
// force.
func (s *Settings) Keyring(fingerprints []string) (ring *openpgp.Keyring, missing []string, err error) {
	dir := filepath.Join(s.Dir, KeysDir)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	var data [][]byte
	for _, e := range entries {
		if e.IsDir() || e.Name()[0] == '.' {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, nil, err
		}
		data = append(data, b)
	}
	all, err := openpgp.ReadKeyring(data...)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", dir, err)
	}
	ring, missing = all.Only(fingerprints...)
	return ring, missing, nil
}

// UploaderKeys are the fingerprints of all uploaders.
func (s *Settings) UploaderKeys() []string {
	var out []string
	for _, u := range s.Uploaders {
		out = append(out, u.Fingerprints...)
	}
	return out
}

// Uploads reports whether the uploader's rights cover a source of that name and
// component in the suite; whether they cover sources, binaries or new packages is
// for the upload's checks.
func (u *Uploader) Uploads(s *Suite, source, component string) bool {
	fits := func(patterns []string, word string) bool {
		return len(patterns) == 0 ||
			slices.ContainsFunc(patterns, func(p string) bool { ok, _ := path.Match(p, word); return ok })
	}
	a := &u.Allow
	return fits(a.Suites, s.Name) && fits(a.Components, component) && fits(a.Packages, source)
}

// Signs reports whether the person's word about builds counts: for that suite
// and architecture, and a source of that name and component.
func (u *Uploader) Signs(s *Suite, arch, source, component string) bool {
	a := &u.Allow
	named := func(name string) bool {
		return name == s.Name || name == s.Codename || slices.Contains(s.Aliases, name)
	}
	return (slices.Contains(a.Sign, arch) || arch != "all" && slices.Contains(a.Sign, "any")) &&
		(len(a.Suites) == 0 || slices.ContainsFunc(a.Suites, named)) &&
		(len(a.Components) == 0 || slices.Contains(a.Components, component)) &&
		(len(a.Packages) == 0 ||
			slices.ContainsFunc(a.Packages, func(p string) bool { ok, _ := path.Match(p, source); return ok }))
}

// Signers are the people whose word about a build counts.
func (s *Settings) Signers(x *Suite, arch, source, component string) []*Uploader {
	var out []*Uploader
	for i := range s.Uploaders {
		if u := &s.Uploaders[i]; u.Signs(x, arch, source, component) {
			out = append(out, u)
		}
	}
	return out
}

// BuildKeys are the fingerprints of the keys that may sign what was built for an
// architecture: those of the people whom Allow: sign= names and, where no
// person has to look at the log, of the architecture's builders. A right ends
// at its architectures. whose names them, for who was refused.
func (s *Settings) BuildKeys(x *Suite, arch, source, component string) (fingerprints []string, whose string) {
	for _, u := range s.Signers(x, arch, source, component) {
		fingerprints = append(fingerprints, u.Fingerprints...)
	}
	whose = "the people whom control/uploaders allows sign=" + arch
	if x.LogReview == "manual" {
		return fingerprints, whose
	}
	for _, b := range s.Builders {
		if b.Fingerprint != "" && slices.Contains(b.Architectures, arch) {
			fingerprints = append(fingerprints, b.Fingerprint)
		}
	}
	return fingerprints, "the builders of " + arch + " in control/builders, and of " + whose
}
