package settings

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"packmill/spool/openpgp"
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

// BuilderKeys are the fingerprints of the builders that may sign binaries of
// an architecture. A right ends at the builder's architectures.
func (s *Settings) BuilderKeys(arch string) []string {
	var out []string
	for _, b := range s.Builders {
		if b.Fingerprint != "" && slices.Contains(b.Architectures, arch) {
			out = append(out, b.Fingerprint)
		}
	}
	return out
}
